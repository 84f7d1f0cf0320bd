"""A player in which noise flows to a mixture in the plane, computed in the page by the exact
denoiser: by any number of steps, with and without fresh noise, and one start that can be dragged.
"""
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ... import noise, sample
from ...schedule import cosine
from ...score import Exact, GaussianMixture
from ..plane import View, paths
from . import choices, page
from .fields import STILL, drawing

COUNTS = (1, 2, 3, 4, 6, 8, 16, 32, 64)  # steps
SHARES = (0, 0.25, 0.5, 0.75, 1)              # of the noise that is fresh: DDIM … DDPM
FRAMES = 41                                   # places of the time slider
N_PARTICLES, EXTENT, START = 100, 2.6, (0.3, 0.5)
CAPTIONS = (
    "all particles at time t, with their trails, over the density of the noised data",
    "one start (the large dot; drag it) and its paths: grey, the exact flow; orange, the chosen number of "
    "steps; blue, a single step; green, the jump that a one-step student learns")


def player(mixtures: dict[str, GaussianMixture], title: str = "", n_steps: int = 6) -> page.Bundle:
    """A self-contained HTML player of particles under the cosine schedule.

    Args:
        mixtures: what the noise becomes, by name: round components of one standard deviation.
        n_steps: where the slider of the steps begins, one of ``COUNTS``.
    Display it as the last expression of a cell. Raises ValueError for no mixture, one that is not
    round and of the plane, and another number of steps.
    """
    times = [round(1024 * (1 - i / (FRAMES - 1))) for i in range(FRAMES)]
    axes = choices.named({"data": list(mixtures), "steps": COUNTS, "fresh noise": SHARES,
                          "t": times})
    at = choices.positions(axes, {"steps": n_steps}, at_end="t")
    means = [packed(name, mixture) for name, mixture in mixtures.items()]
    starts = torch.randn(N_PARTICLES, 2, generator=noise.generator("pictures", 0, 5))
    still = page.png(_still(next(iter(mixtures.values())), starts, title), **STILL)
    spec = {**choices.described(axes), "at": at, "title": title, "mixtures": means,
            "starts": rounded(starts), "start": START, "captions": CAPTIONS,
            **drawing(View(extent=EXTENT))}
    scripts = ["plane.js", "drag.js", "mixture.js", "particles.js"]
    return page.bundle(spec, still, scripts, choices.summary(title or "Particles", axes))


def packed(name: str, mixture: GaussianMixture) -> dict:
    """A mixture as the scripts take it. Raises ValueError for one that is not round and of the plane."""
    variance = mixture.covariances.max()
    same = (variance * torch.eye(2)).expand(len(mixture.weights), 2, 2)
    if mixture.sample_shape != (2,) or not torch.allclose(mixture.covariances, same):
        raise ValueError(f"The mixture {name!r} must be of round components of the plane, all of "
                         "one standard deviation: GaussianMixture.round makes one.")
    return {"means": rounded(mixture.means), "std": round(variance.sqrt().item(), 6),
            "weights": [round(weight, 6) for weight in mixture.weights.tolist()]}


def rounded(points: Tensor) -> list[list[float]]:
    """Points (N, 2) in text, to four digits."""
    return [[round(value, 4) for value in point] for point in points.tolist()]


def _still(mixture: GaussianMixture, starts: Tensor, title: str) -> Figure:
    """The paths of the particles in one step, in few and in many, side by side."""
    exact, by_name = Exact(mixture, cosine()), {}
    for n in (1, 4, 64):
        states = [starts, *(state.x for state in sample.ddim(exact, starts, n))]
        by_name[f"{n} step{'s' * (n > 1)}"] = torch.stack(states)
    return paths(by_name, mixture.log_density, title, extent=EXTENT)
