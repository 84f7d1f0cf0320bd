"""The last test of figures: a hundred digits each of real ones, of the teacher's and of students',
looked at by somebody who does not know whose they are.

    data/blind/digits.png   a row each, a hundred digits
               digits.json  its card: the noise, which digits were called faulty, checksums
"""
from pathlib import Path

import torch
from torch import Tensor

from .. import noise, store
from ..data import ROOT, to_uint8
from ..tasks.mnist import MNIST
from . import sheet
from .evaluate import Sampling, draw, real_samples
from .mnist import GUIDANCE

REAL = "real digits"
WAYS = {"teacher": Sampling("ddim", 400, GUIDANCE), "student-dmd-paired": Sampling("ddim", 1),
        "student-dmd": Sampling("ddim", 1), "student-dmd2": Sampling("multistep", 1)}
SHOWN = tuple(WAYS)
SEED = 4      # of report noise; no figure is measured on it
COUNT = 100
SHADES = 16   # of grey that are kept


def build(root: Path = ROOT, device="cpu") -> Path:
    """Draw the digits and store them; returns their path. What was counted of others is void."""
    rows = [real_samples(MNIST, COUNT, "report", SEED)[0]]
    rows += [draw(store.load(name, device, root), how, COUNT, "report", SEED)[0]
             for name, how in WAYS.items()]
    return keep(to_uint8(torch.stack(rows)).squeeze(2), root)


def keep(digits: Tensor, root: Path = ROOT) -> Path:
    """Store digits (5, 100, 28, 28) uint8, of ``REAL`` and each of ``WAYS``."""
    shades = (digits / 255 * (SHADES - 1)).round() / (SHADES - 1)
    return sheet.write(_path(root), (shades * 255).round().byte(), {
        "name": "blind", "what": "A hundred digits of each way, to be counted blind.",
        "noise": "report", "seed": SEED, "faulty": {},
        "ways": {name: how.entry for name, how in WAYS.items()}, "models": models(root)})


def _path(root: Path) -> Path:
    return Path(root) / "blind" / "digits.png"


def models(root: Path = ROOT) -> dict[str, str]:
    """What the digits are drawn by, with its checksum."""
    return {name: store.checksum(name, root) for name in SHOWN}


def card(root: Path = ROOT) -> dict:
    """The digits' card. "faulty" has a way's numbers, 0 … 99, of what was called faulty."""
    return sheet.card(_path(root), "seed", "faulty", "ways", "models")


def load(root: Path = ROOT) -> dict[str, Tensor]:
    """The digits by way, (100, 28, 28) uint8 each, as MNIST has them; of ``REAL`` first. Raises
    RuntimeError for a damaged file."""
    return dict(zip((REAL, *WAYS), sheet.read(_path(root))))


def shuffled(seed: int = 0) -> list[int]:
    """An order to look at all of them in: 0 … 499, a hundred of each way in turn."""
    n = COUNT * (1 + len(WAYS))
    return torch.randperm(n, generator=noise.generator("pictures", seed, 9)).tolist()


def by_way(places: list[int], seed: int = 0) -> dict[str, list[int]]:
    """Whose the digits at these places of the shuffled order are: by way, their numbers, 0 … 99.
    Raises ValueError for a place that there is not, or twice."""
    order, found = shuffled(seed), {name: [] for name in (REAL, *WAYS)}
    if len(set(places)) < len(places) or not set(places) <= set(range(len(order))):
        raise ValueError(f"Places are 0 … {len(order) - 1}, each at most once; got {places}.")
    for place in places:
        way, number = divmod(order[place], COUNT)
        found[list(found)[way]].append(number)
    return {name: sorted(numbers) for name, numbers in found.items()}


def count(faulty: dict[str, list[int]], root: Path = ROOT) -> None:
    """Put what was called faulty, as ``by_way`` has it, onto the card."""
    sheet.change(_path(root), {"faulty": faulty})
