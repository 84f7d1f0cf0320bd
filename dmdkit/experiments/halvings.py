"""The pictures behind lesson 05's slider: ten digits, each of one noise, by every student of the
chain, and by its teacher in as many steps.

    data/halvings/digits.png    a row each number of steps, the students' before the teacher's
                  digits.json   its card
"""
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import store
from ..data import ROOT
from . import sheet
from .explorer import cell
from .mnist import CHAIN

STEPS = tuple(CHAIN.stages)
ROWS = ("distilled", "teacher, DDIM")
SHOWN = (CHAIN.teacher, *map(CHAIN.name, STEPS))


def build(root: Path = ROOT, device="cpu") -> Path:
    """Draw the digits and store them; returns their path. Every student must be at hand, and of
    some only the cards ship: train them first. Raises what ``store.load`` raises."""
    teacher, *students = (store.load(name, device, root) for name in SHOWN)
    bar = tqdm(zip(students, STEPS), total=len(STEPS), desc="halvings", unit="student")
    rows = [(cell(net, "DDIM", 0.0, n), cell(teacher, "DDIM", CHAIN.guidance, n)) for net, n in bar]
    ours, theirs = zip(*rows)
    return sheet.write(_path(root), torch.stack([*ours, *theirs]), {
        "name": "halvings", "what": "One noise a digit: the chain's students, and their teacher.",
        "noise": "pictures", "seed": 0, "steps": list(STEPS), "guidance": CHAIN.guidance,
        "models": models(root)})


def _path(root: Path) -> Path:
    return Path(root) / "halvings" / "digits.png"


def models(root: Path = ROOT) -> dict[str, str]:
    """What the digits are drawn by, with its checksum."""
    return {name: store.checksum(name, root) for name in SHOWN}


def card(root: Path = ROOT) -> dict:
    """The pictures' card."""
    return sheet.card(_path(root), "seed", "steps", "guidance", "models")


def load(root: Path = ROOT) -> tuple[Tensor, dict[str, list[str]]]:
    """The digits, (model, steps, 10, H, W) uint8 as MNIST has them, and the names of the first two
    axes. Raises RuntimeError for a damaged file."""
    steps = card(root)["steps"]
    digits = sheet.read(_path(root)).unflatten(0, (len(ROWS), len(steps)))
    return digits, {"model": list(ROWS), "steps": [str(n) for n in steps]}
