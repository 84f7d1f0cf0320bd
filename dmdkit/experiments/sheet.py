"""A sheet of pictures that ships: a PNG file, and beside it its card.

    data/hero/digits.png    frames in rows and columns, without gaps
              digits.json   what they are, their size, versions, a checksum
"""
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import disk, files


def write(path: Path, frames: Tensor, entry: dict) -> Path:
    """Store frames (rows, columns, H, W) uint8 as the file ``path``, and beside it a card: ``entry``
    and what ``read`` needs. Returns the path. Raises RuntimeError if the folder cannot be
    written."""
    files.write_atomically(path, _encoded(frames))
    files.write_json(_card_of(path), entry | {
        "frame": list(frames.shape[-2:]), "versions": files.versions(),
        "sha256": files.sha256(path)})
    return path


def card(path: Path, *keys: str) -> dict:
    """A sheet's card. keys: what it must have. Raises RuntimeError for one that is damaged."""
    return files.read_json(_card_of(path), *keys, "frame", "sha256")


def change(path: Path, entry: dict) -> None:
    """Put other values onto a sheet's card."""
    files.write_json(_card_of(path), card(path) | entry)


def read(path: Path) -> Tensor:
    """A sheet's frames, (rows, columns, H, W) uint8. Raises RuntimeError for a file that is not the
    one on its card."""
    entry, raw = card(path), files.read_bytes(path)
    if disk.sha256_of(raw) != entry["sha256"]:
        raise RuntimeError(f"{path} is damaged: its checksum is not the one on its card. Restore "
                           f"both with `git checkout`, or run `python -m dmdkit build {path.parent.name}`.")
    height, width = entry["frame"]
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(raw))))
    return pixels.unflatten(0, (-1, height)).unflatten(-1, (-1, width)).transpose(1, 2)


def _card_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _encoded(frames: Tensor) -> bytes:
    rows, columns, height, width = frames.shape
    pixels = frames.transpose(1, 2).reshape(rows * height, columns * width)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "png", optimize=True)
    return buffer.getvalue()
