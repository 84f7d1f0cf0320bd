"""Picture files of any kind and size, read as tensors of one size."""
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KINDS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def find(folder: Path) -> list[Path]:
    """The pictures in a folder and in the folders in it, by name. Raises RuntimeError where there
    is no such folder, or none in it."""
    if not folder.is_dir():
        raise RuntimeError(f"There is no folder {folder}. Make it and put pictures there, or name "
                           "another.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    if not found:
        raise RuntimeError(f"{folder} holds no pictures ({', '.join(KINDS)}). Put some there, or "
                           "name another folder.")
    return found


def numbered(folder: Path, first: int, last: int) -> list[Path]:
    """Those of a folder's pictures whose name is a number from first to last, as CelebA's are.
    Raises what ``find`` raises, and RuntimeError where there is none."""
    found = [path for path in find(folder)
             if path.stem.isdecimal() and first <= int(path.stem) <= last]
    if not found:
        raise RuntimeError(f"{folder} holds none of the pictures numbered {first:,} to {last:,}. "
                           "Unpack the whole of the set there.")
    return found


def read(paths: list[Path], size: int, crop: bool = True) -> Tensor:
    """The pictures, (N, 3, size, size) uint8. crop: take the largest square in the middle of each;
    else the whole is squeezed into a square. Raises RuntimeError, once, for all that cannot be
    read."""
    from tqdm.auto import tqdm

    found, bad = [], []
    for path in tqdm(paths, desc="Reading", unit="picture", delay=2):
        try:
            found.append(_read(path, size, crop))
        except Exception:  # Pillow has many for what is no picture, half of one or too large
            bad.append(path.name)
    if bad:
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        raise RuntimeError(f"{len(bad):,} of {len(paths):,} pictures cannot be read: "
                           f"{', '.join(bad[:3])}{more}. Move them out of the folder, or save "
                           "them anew.")
    return torch.stack(found)


def _read(path: Path, size: int, crop: bool) -> Tensor:
    """One picture, (3, size, size), upright, what is see-through on white."""
    from PIL import Image, ImageOps
    from torchvision.transforms import functional

    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16 bits a pixel, which converting would cut off at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype("uint8"))
    picture = picture.convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(paper, picture).convert("RGB")
    if crop:
        picture = functional.center_crop(picture, min(picture.size))
    return functional.pil_to_tensor(functional.resize(picture, [size, size], antialias=True))
