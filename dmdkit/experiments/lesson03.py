"""Lesson 03's study: distribution matching in the plane, where the real score is exact.

A setting is run ten times at once, by ten networks side by side that share nothing but the code
(``PointMLP``'s copies): what the lesson says is a measured frequency.
"""
from functools import partial

import torch
from torch import Tensor

from .. import data, metrics, noise
from ..denoiser import Denoiser
from ..methods import dmd
from ..methods.distillation import WEIGHTINGS
from ..tasks.plane import MIXTURES, N_SCORED, SCHEDULE, PlaneScorer, plane
from .evaluate import Sampling
from .recipe import Recipe
from .runner import Frame
from .study import Study

COPIES, SHOWN, BATCH = 10, 3, 128
TIMES = (50, 150, 300, 600)  # at which fields are kept
N_POINTS = 80                # points kept of each copy that is shown
BASELINE = (-5, -6)          # numbers of the streams of its two sides, which no batch has
TASKS = {name: plane(name, mixture, COPIES) for name, mixture in MIXTURES.items()}


def recipe(data: str = "two modes", start: str = "one mode", copies: int = COPIES,
           n_steps: int = 960, **changes) -> Recipe:
    """One experiment: so many updates of the generator; ``changes`` of the method's settings."""
    method = {"updates": (1, 5)} | changes
    settings = dmd.Settings(
        teacher="exact", network=start, lr=2e-3, fake_lr=2e-3, betas=(0.9, 0.99), warmup=10,
        fake_annealed=False, head_start=300, ema=0.0,
        max_grad_norm=1e9,  # clipping would couple the copies
        **method)
    task = TASKS[data] if copies == COPIES else plane(data, MIXTURES[data], copies)
    return Recipe("Distribution matching in the plane.", task, settings,
                  round(n_steps / settings.updates[0]), BATCH * copies,
                  samplings=(Sampling("ddim", 1),))


def figure_3(data: str) -> dict[str, Recipe]:
    """The experiment of DMD's Figure 3, with little noise and so a nearest mode."""
    near = {"t_range": (0.02, 0.1)}
    return {f"{data}: real only": recipe(data, fake=False, **near),
            f"{data}: real − fake": recipe(data, **near),
            f"{data}: with regression": recipe(data, n_pairs=2048, solver_steps=64, **near)}


def recipes() -> dict[str, Recipe]:
    """Every experiment by name."""
    eight = partial(recipe, "eight modes")
    found = figure_3("two modes") | figure_3("eight modes")
    for n, m in ((10, 1), (3, 1), (1, 1), (1, 5)):
        found[f"ratio {n}:{m}"] = eight(updates=(n, m))
    for high in (0.1, 0.2, 0.4, 0.7, 0.98):
        found[f"t up to {high:g} T"] = eight(t_range=(0.02, high))
    for low in (0.3, 0.6):
        found[f"t from {low:g} T"] = eight(t_range=(low, 0.98))
    for kind in WEIGHTINGS:
        found[f"weighting {kind}"] = eight(weighting=kind)
    for start in ("one mode", "centre", "wide"):
        found[f"start {start}"] = eight(start=start)
    return found


def noised(x: Tensor, t: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> tuple:
    """x_t, α_t and σ_t of samples x (B, …) at times t (B,) of tables alpha and sigma (T,)."""
    alpha, sigma = (table[t].reshape(-1, *[1] * (x.ndim - 1)) for table in (alpha, sigma))
    return alpha * x + sigma * eps, alpha, sigma


def dm_gradient(x: Tensor, t: Tensor, eps: Tensor, real, fake, alpha: Tensor,
                sigma: Tensor) -> Tensor:
    """``dmd.matching_gradient`` with the arguments of exercise 3.3. x, eps: (B, …); t: (B,); alpha,
    sigma: (T,); real and fake take x_t and t and return x-predictions."""
    x_t, alpha, sigma = noised(x, t, eps, alpha, sigma)
    return dmd.matching_gradient(x, real(x_t, t), fake(x_t, t), alpha, sigma)


def fake_loss(fake, generator, z: Tensor, t: Tensor, eps: Tensor, alpha: Tensor,
              sigma: Tensor) -> Tensor:
    """The fake score's loss in x, a scalar, with the arguments of exercise 3.5."""
    with torch.no_grad():
        x = generator(z)
    x_t, _, _ = noised(x, t, eps, alpha, sigma)
    return torch.nn.functional.mse_loss(fake(x_t, t), x)


def push(real, fake, x: Tensor, t: int, eps: Tensor) -> Tensor:
    """Where the points x (N, 2) are sent at time t: σ_t (s_real − s_fake) at their noised versions,
    averaged over ``eps`` (K, 1, 2). Without a fake score (None), the real score alone."""
    x_t = SCHEDULE.noise(x.expand(len(eps), *x.shape), t, eps.expand(-1, *x.shape)).flatten(0, 1)
    alpha, sigma = SCHEDULE.at(t, x)
    mu_fake = fake(x_t, t).x if fake else x.repeat(len(eps), 1)
    return (alpha / sigma * (real(x_t, t).x - mu_fake)).unflatten(0, (len(eps), -1)).mean(0)


@torch.no_grad()
def observe(frame: Frame) -> dict[str, Tensor]:
    """What is kept at a milestone: of each copy the modes covered and the Wasserstein distance, and
    of the first ones the points, the fake score's field and where the points are sent.

    modes, distance: (C,). points: (3, 80, 2). fake: (T, n, 2). push: (T, 80, 2).
    """
    training = frame.training
    generator, real = training.learners["generator"].net, training.step.real
    copies, mixture = generator.net.config.copies, real.data
    scorer = PlaneScorer(mixture)
    z = torch.randn(N_SCORED, 2, generator=noise.generator("pictures"))
    z = z.repeat(copies, 1).to(next(generator.parameters()).device)
    x = generator(z, SCHEDULE.T - 1).x.cpu().unflatten(0, (copies, -1))
    fake = training.learners["fake"].net if "fake" in training.learners else None
    first = fake and Denoiser(fake.net.copy(0), SCHEDULE, fake.prediction, n_classes=0)
    eps = torch.randn(16, 1, 2, generator=noise.generator("pictures", 0, 1))
    eps = torch.cat([eps, -eps])  # in pairs of opposite sign, which average faster
    grid = data.grid(13)
    fields = [-first(grid, t).eps if first else torch.zeros_like(grid) for t in TIMES]
    pushes = [push(real, first, x[0, :N_POINTS], t, eps) for t in TIMES]
    return {"modes": torch.tensor([metrics.modes_covered(one, *mixture) for one in x]),
            "distance": torch.tensor([metrics.wasserstein(one, scorer.target) for one in x]),
            "points": x[:SHOWN, :N_POINTS].half(), "fake": torch.stack(fields).half(),
            "push": torch.stack(pushes).half()}


def score_copies(study, recipe: Recipe, training, scorer) -> list[dict]:
    """An entry a copy: what its points score at the end."""
    seen = observe(Frame(recipe.n_steps, training, {}))
    how = recipe.samplings[0].entry
    return [{"sampling": how, "seed": i, "values": {"plane": {
        "modes_covered": int(modes), "wasserstein_distance": float(distance)}}}
        for i, (modes, distance) in enumerate(zip(seen["modes"], seen["distance"]))]


def baseline(n: int = 10) -> dict[str, float]:
    """The Wasserstein distance between two samples of the data themselves, the mean of n pairs, by
    data set: as near as a generator can come."""
    found = {}
    for name, mixture in MIXTURES.items():
        pairs = [[mixture.sample(N_SCORED, noise.generator("report", i, k)) for k in BASELINE]
                 for i in range(n)]
        found[name] = round(sum(metrics.wasserstein(*pair) for pair in pairs) / n, 3)
    return found


POINTS = ("modes", "distance", "points")
KEPT = {name: () if "modes" in name else POINTS for name in recipes()  # fields of Figure 3 alone
        if not name.startswith(("weighting", "start"))}

STUDY = Study("dmd-2d", "DMD on mixtures of the plane: points, fields and figures.", recipes(),
              seeds=1, n_images=N_SCORED, hours=0.2, n_frames=13, observe=observe,
              score=score_copies, baseline=baseline, kept=KEPT)
