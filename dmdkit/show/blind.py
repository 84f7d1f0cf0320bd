"""Pages of digits to be counted without knowing whose they are."""
from pathlib import Path

import torch

from .. import files
from ..experiments import blind
from . import images
from .players import page

COLUMNS, LINES = 6, 5
DPI = 170  # at which a digit has eight times its size


def pages(folder: Path | str, seed: int = 0) -> list[Path]:
    """All digits that ``blind.load`` has, shuffled, 30 on a page and eight times their size, as PNG
    files in ``folder``; returns their paths. A digit's place is the sum of what stands at its row
    and its column: ``blind.by_way`` takes the places of what you call faulty, and this ``seed``.
    Raises ValueError for a folder that has something in it."""
    digits = torch.cat(list(blind.load().values()))[blind.shuffled(seed)]
    folder, made = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a folder that is, or a new one.")
    files.check_writable(folder)
    for first in range(0, len(digits), COLUMNS * LINES):
        part = digits[first:first + COLUMNS * LINES, None]
        rows = [str(first + i) for i in range(0, len(part), COLUMNS)]
        heads = [f"+{i}" for i in range(COLUMNS)]
        figure = images.grid(part, COLUMNS, rows=rows, heads=heads, cell=2.0)
        made.append(folder / f"page-{len(made) + 1:02}.png")
        files.write_atomically(made[-1], page.png(figure, dpi=DPI))
    return made
