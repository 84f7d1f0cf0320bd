"""Mixtures of Gaussians in the plane, whose scores are exact at every noise level."""
from functools import partial

import torch
from torch import Tensor

from .. import metrics, nets, noise, score
from ..data import Points
from ..denoiser import Denoiser
from ..schedule import cosine
from .task import Scores, Task

SCHEDULE = cosine()
N_SCORED = 400                                       # points a Wasserstein distance is taken of
STARTS = {"one mode": 0.05, "centre": 0.05, "wide": 1.0}  # standard deviation of the first points
FIT_STEPS, FIT_BATCH = 300, 128
DATA, TARGET, FIT = -2, -3, -4  # numbers of their streams of noise, which no batch or step has


def network(copies: int = 1) -> Denoiser:
    """A fresh denoiser of points; ``copies`` of it side by side share nothing but the code."""
    return Denoiser(nets.PointMLP(copies=copies), SCHEDULE, "v", n_classes=0)


def generator_at(centre: Tensor, std: float, copies: int = 1) -> Denoiser:
    """A generator whose samples are N(centre, std²) before it is distilled:
    G(z) = centre + std z."""
    net = network(copies)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.0)
    g = noise.generator("training", 0, FIT)
    for _ in range(FIT_STEPS):
        z = torch.randn(FIT_BATCH * copies, 2, generator=g)
        loss = (net(z, SCHEDULE.T - 1).x - (centre + std * z)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


class PlaneScorer:
    """Scores points against a mixture: the exact 2-Wasserstein distance of ``N_SCORED`` of them to
    as many of the data, and how many modes they cover."""

    def __init__(self, mixture: score.GaussianMixture):
        self.mixture = mixture
        self.target = mixture.sample(N_SCORED, noise.generator("report", 0, TARGET))

    def __call__(self, points: Tensor, labels: Tensor | None = None) -> Scores:
        """points: (N, 2), N ≥ ``N_SCORED``; labels are not used."""
        metrics.check_samples(points, (2,))
        if len(points) < N_SCORED:
            raise ValueError(f"At least {N_SCORED} points are needed; got {len(points)}.")
        distance = metrics.wasserstein(points[:N_SCORED], self.target)
        covered = metrics.modes_covered(points[:N_SCORED], *self.mixture)
        return {"plane": {"wasserstein_distance": distance, "modes_covered": covered}}


def read(mixture: score.GaussianMixture, train: bool = True) -> Points:
    """5,000 points of the mixture; those of the test data are others."""
    purpose = "training" if train else "report"
    return Points(mixture.sample(5000, noise.generator(purpose, 0, DATA)))


def plane(name: str, mixture: score.GaussianMixture, copies: int = 1) -> Task:
    """The task of a mixture. copies: of each network, side by side."""
    networks = {"network": partial(network, copies), "fake": partial(network, copies)}
    for start, std in STARTS.items():
        centre = mixture.means[0] if start == "one mode" else torch.zeros(2)
        networks[start] = partial(generator_at, centre, std, copies)
    return Task(name, (2,), 0, partial(read, mixture), networks,
                make_scorer=partial(PlaneScorer, mixture),
                exact=partial(score.Exact, mixture, SCHEDULE))


MIXTURES = {"two modes": score.two_modes(), "eight modes": score.ring()}
