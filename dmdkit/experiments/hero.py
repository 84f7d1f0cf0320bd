"""The picture that the course opens with: ten digits, each of one noise, at ever more steps of the
teacher, and in one step of a student.

    data/hero/digits.png      a row each number of steps, the student's last
              digits.json     its card: how the noise was chosen, checksums, versions
"""
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import sample
from ..data import ROOT, to_uint8
from ..denoiser import Denoiser
from . import sheet, tables
from .explorer import start

SHOWN = TEACHER, STUDENT = ("teacher", "student-dmd")
READERS = ("classifier", "judge")
STEPS = (1, 2, 4, 8, 16, 32, 64, 400)
SURE = 0.8      # with which both classifiers must read each digit; they were trained to 0.9, not to 1
IMAGES = 1000   # that the Fréchet distances are taken of


class Column(NamedTuple):
    """One way to draw the ten digits, and what it costs."""
    n_steps: int
    evaluations: int   # of the network, for a picture
    distance: float    # Fréchet distance in the judge's features


@torch.no_grad()
def surely_read(images: Tensor, classifiers) -> bool:
    """Whether all classifiers read image i as the digit i, each with a probability of ``SURE`` at
    least. images: (10, 1, 28, 28) in [−1, 1]."""
    label = torch.arange(len(images), device=images.device)[:, None]
    return all(bool((classifier(images).softmax(1).gather(1, label) >= SURE).all())
               for classifier in classifiers)


def drawn(teacher: Denoiser, seed: int, n_steps: int, guidance: float) -> Tensor:
    """The ten digits of a seed's noise by that many DDIM steps, (10, 1, 28, 28)."""
    z = start(teacher, seed).to(next(teacher.parameters()).device)
    label = torch.arange(len(z), device=z.device)
    return sample.last(sample.ddim(teacher, z, n_steps, label, guidance)).clamp(-1, 1)


def chosen(teacher: Denoiser, classifiers, guidance: float) -> int:
    """The first seed all of whose digits, in the most steps, both classifiers read surely."""
    for seed in tqdm(count(), unit="noise", desc="hero: a noise whose digits are read surely"):
        if surely_read(drawn(teacher, seed, STEPS[-1], guidance), classifiers):
            return seed


def build(root: Path = ROOT, device="cpu") -> Path:
    """Choose the noise, and draw and store the picture; returns its path."""
    from .. import store
    from .mnist import GUIDANCE  # here, since it needs accelerate: whoever looks can do without

    teacher, student, *classifiers = (store.load(name, device, root)
                                      for name in (*SHOWN, *READERS))
    seed = chosen(teacher, classifiers, GUIDANCE)
    z = start(student, seed).to(device)
    rows = [drawn(teacher, seed, n, GUIDANCE) for n in tqdm(STEPS, desc="hero", unit="row")]
    rows.append(student.generate(z, torch.arange(len(z), device=device)))
    frames = to_uint8(torch.stack(rows)).squeeze(2).cpu()  # (9, 10, 28, 28)
    return sheet.write(_path(root), frames, {
        "name": "hero", "what": "One noise a digit: the teacher's steps, and the student's one.",
        "noise": "pictures", "seed": seed, "steps": list(STEPS), "guidance": GUIDANCE,
        "chosen": f"the first seed whose ten {STEPS[-1]}-step digits {' and '.join(READERS)} read "
                  f"rightly with a probability of {SURE} or more",
        "models": models(root)})


def _path(root: Path) -> Path:
    return Path(root) / "hero" / "digits.png"


def models(root: Path = ROOT) -> dict[str, str]:
    """What the picture is made of, by name, with its checksum."""
    from .. import store

    return {name: store.checksum(name, root) for name in (*SHOWN, *READERS)}


def card(root: Path = ROOT) -> dict:
    """The picture's card."""
    return sheet.card(_path(root), "seed", "chosen", "steps", "guidance", "models")


def load(root: Path = ROOT) -> Tensor:
    """The digits, (9, 10, 28, 28) uint8, ink dark on white: a row each of ``columns``. Raises
    RuntimeError for a damaged file."""
    return 255 - sheet.read(_path(root))


def columns(root: Path = ROOT) -> list[Column]:
    """What each row of ``load`` is, with its cost and its Fréchet distance as the cards have it."""
    from .. import store

    teacher, student = (store.card(name, root) for name in (TEACHER, STUDENT))
    entry = card(root)
    by_steps = [Column(n, 2 * n, _distance(TEACHER, teacher, n, entry["guidance"]))
                for n in entry["steps"]]
    return [*by_steps, Column(1, 1, _distance(STUDENT, student, 1, 0.0))]


def _distance(name: str, entry: dict, n_steps: int, guidance: float) -> float:
    return tables.figure(name, "judge", "frechet_distance", entry, sampler="ddim",
                         n_steps=n_steps, guidance=guidance, images=IMAGES)


def baseline(root: Path = ROOT) -> float:
    """What as many real images score."""
    from .. import store

    return tables.figure(TEACHER, "judge", "frechet_distance", store.card(TEACHER, root),
                         sampler=tables.REAL, images=IMAGES)
