"""A player in which the one-step student itself runs in the page: a point is dragged in a plane of
noises, and the ten digits follow. Its files are made by ``python -m dmdkit build page``; a still
stands in its place until they are there and the reader asks for it.
"""
import base64
import math

import torch
from torch import Tensor

from ... import noise, store
from ...experiments.page_student import BATCH, MODEL, SCRIPT, STUDENT, WASM
from ..images import shades, tiles
from ..style import GREY, ORANGE
from . import page

PLACES = (-1, -0.5, 0, 0.5, 1)  # of the still, both ways
EXTENT = 1.1                    # −1.1 … 1.1 is to be reached
UNITS = 4096                    # steps of 1 in which the page keeps its noises
GREYS = 16                      # of the still
SLEEPING = ("Each digit at 5 × 5 points of a plane of noises. With the files that python -m dmdkit "
            "build page makes (17 MB) the student draws wherever you drag.")
CAPTIONS = ("the noise at the point: drag it, or use the arrow keys",
            "the ten digits that the student draws from it, in one step each")
FORMULA = ("The noise at the point is z = cos r · z₀ + sin r · (cos φ · z₁ + sin φ · z₂), where r "
           "is 90° on the circle. The squares of the weights add up to 1, so z is Gaussian noise "
           "of variance 1 wherever the point is. All ten digits are drawn from the same z.")


def noises() -> Tensor:
    """z₀, z₁ and z₂, (3, 1, 28, 28): the first three of their stream, rounded as the page has
    them."""
    drawn = torch.randn(3, 1, 28, 28, generator=noise.generator("pictures", 0, 6))
    return (drawn * UNITS).round() / UNITS


def noise_at(z: Tensor, a: float, b: float) -> Tensor:
    """The noise (1, 28, 28) at the point (a, b): on the way from z₀ to a/r · z₁ + b/r · z₂ along
    their circle, a quarter of it for r = |(a, b)| = 1."""
    r, phi = math.hypot(a, b), math.atan2(b, a)
    outer = math.cos(phi) * z[1] + math.sin(phi) * z[2]
    return math.cos(math.pi / 2 * r) * z[0] + math.sin(math.pi / 2 * r) * outer


def player(title: str = "", folder: str = "") -> page.Bundle:
    """A self-contained HTML player of the shipped student, but for the student's files.

    Args:
        folder: where these lie, as an address relative to the page; without it they are looked for
            where JupyterLab and a site of the course have them.
    Display it as the last expression of a cell.
    """
    z = noises()
    whole = (z * UNITS).to(torch.int16).numpy().astype("<i2")
    spec = {"title": title, "folder": folder, "extent": EXTENT, "captions": CAPTIONS,
            "sleeping": SLEEPING, "formula": FORMULA, "model": MODEL, "script": SCRIPT,
            "wasm": WASM, "batch": BATCH, "ink": ORANGE, "grey": GREY, "units": UNITS,
            "noises": base64.b64encode(whole.tobytes()).decode()}
    scripts = ["plane.js", "drag.js", "student.js"]
    text = f"{title or 'The student in the page'}: python -m dmdkit build page, then drag"
    return page.bundle(spec, page.encode(sheet(z), colours=GREYS), scripts, text)


def sheet(z: Tensor) -> Tensor:
    """The still, (H, W) uint8: for each digit what the student draws at 5 × 5 points of the plane
    of the noises z."""
    student, digits = store.load(STUDENT), torch.arange(10)
    drawn = [student.generate(noise_at(z, a, b).expand(10, -1, -1, -1), digits)
             for b in reversed(PLACES) for a in PLACES]
    panels = [tiles(shades(panel), len(PLACES), gap=0) for panel in torch.stack(drawn, 1)]
    return (tiles(torch.stack(panels), columns=5, gap=6)[0] * 255).round().to(torch.uint8)
