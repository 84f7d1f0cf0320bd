"""A player of distribution matching by hand, computed in the page: a cloud of points is moved by
the data's exact score less its own, and the data are painted."""
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ... import noise
from ...methods import dmd
from ...schedule import cosine
from ...score import Exact, FiniteSet, GaussianMixture
from .. import plane
from ..plane import Panel, View
from . import choices, page
from .fields import STILL, drawing
from .particles import packed, rounded

TIMES = (20, 50, 100, 150, 300, 450, 600, 800, 1003)
EVERY = (1, 5, 20, 100)           # moves until the fake score knows where the points are
N_POINTS, SPREAD = 80, 0.05    # of the cloud at its start
RATE, SHOWN = 0.05, (0, 20, 120)  # of a move, as in the script; the moves that the still shows
VIEW = View(cap=1.0)
TEXTS = {
    "panels": ("real score, and the points noised to t", "fake score, as of its last renewal",
               "difference, at the points; click to paint data"),
    "history": "Wasserstein distance to the data over the moves; dashed, that of two samples of it",
    "keys": "Arrow keys move a cross; Enter paints data there, Delete erases it."}


def player(mixtures: dict[str, GaussianMixture], title: str = "") -> page.Bundle:
    """A self-contained HTML player of points under the cosine schedule, matched to a mixture.

    mixtures: the data to start from, by name, round components of one standard deviation. Display
    it as the last expression of a cell. Raises ValueError for no mixture, and one that is not round
    and of the plane.
    """
    axes = choices.named({
        "data": list(mixtures),
        "objective": ("real − fake", "real only", "real − fake and regression", "regression"),
        "pairs": (8, N_POINTS), "fake score": ["renewed at each move", *(f"every {n}" for n in EVERY[1:])],
        "a click": ("paints data", "erases data"),
        "t shown": TIMES, "t from": TIMES, "t to": TIMES})
    at = choices.positions(axes, {"t shown": 150, "t to": TIMES[-1]}, at_end=None)
    noises = torch.randn(N_POINTS, 2, generator=noise.generator("pictures", 0, 8))
    first = next(iter(mixtures.values()), None)
    spec = {**choices.described(axes), "at": at, "title": title, **TEXTS, **drawing(VIEW),
            "mixtures": [packed(name, mixture) for name, mixture in mixtures.items()],
            "every": EVERY, "noises": rounded(noises), "starts": rounded(SPREAD * noises)}
    still = page.png(_still(first, SPREAD * noises, title), **STILL)
    scripts = ["plane.js", "arrows.js", "drag.js", "mixture.js", "measures.js", "matching.js",
               "matching_player.js"]
    return page.bundle(spec, still, scripts, choices.summary(title or "Matching", axes))


def _still(mixture: GaussianMixture, points: Tensor, title: str) -> Figure:
    """The points after some moves by the difference of the scores, and by the real score alone."""
    rows = {"real − fake": False, "real only": True}
    ways = torch.stack([_moved(mixture, points, alone) for alone in rows.values()])  # (2, S, N, 2)
    behind = plane.density(mixture.log_density)[None]
    panels = [Panel(f"after {n} moves", points=ways[:, i], density=behind)
              for i, n in enumerate(SHOWN)]
    return plane.fields(panels, {name: (i,) for i, name in enumerate(rows)}, title, VIEW, size=1.9)


def _moved(mixture: GaussianMixture, x: Tensor, alone: bool) -> Tensor:
    """The points x (N, 2) after each of ``SHOWN`` moves: (S, N, 2)."""
    schedule, g, seen = cosine(), noise.generator("pictures", 0, 7), []
    real = Exact(mixture, schedule)
    for step in range(SHOWN[-1] + 1):
        if step in SHOWN:
            seen.append(x)
        t = torch.randint(TIMES[0], TIMES[-1], (len(x),), generator=g)
        x_t = schedule.noise(x, t, torch.randn(x.shape, generator=g))
        mu_fake = x if alone else Exact(FiniteSet(x), schedule)(x_t, t).x
        x = x - RATE * dmd.matching_gradient(x, real(x_t, t).x, mu_fake, *schedule.at(t, x))
    return torch.stack(seen)
