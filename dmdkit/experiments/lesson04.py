"""Lesson 04's study: which part of DMD does what, on MNIST; and the library's functions, as the
lesson's loop calls them while exercises are blank."""
import torch
from torch import Tensor

from ..methods import dmd, pairs
from ..tasks.mnist import MNIST
from .lesson03 import noised
from .mnist import GUIDANCE, ONE_STEP
from .recipe import Recipe
from .study import Study

# Some two minutes on one core. In a hundred updates the pairs have to do most of the work.
SMALL = Recipe(
    "A small distillation by DMD, for comparisons.", MNIST,
    dmd.Settings(guidance=GUIDANCE, updates=(1, 2), n_pairs=1280, regression_weight=4.0,
                 distance="classifier", ema=0.98),
    n_steps=100, batch_size=32, samplings=ONE_STEP)

# Without pairs there is no regression to set.
ALONE = Recipe("Distribution matching alone.", MNIST,
               dmd.Settings(guidance=GUIDANCE, updates=(1, 2), ema=0.98),
               n_steps=100, batch_size=32, samplings=ONE_STEP)

# Each distance's weight makes its gradient norm at a pair of unlike digits the classifier's.
BY_DISTANCE = {"lpips-alex": 4.0, "lpips-squeeze": 1.0, "squared": 4.0}

FEW = (40, 10)  # pairs, four of each digit and one, where the others have 1,280

RECIPES = {
    "DMD": SMALL,
    "no matching": SMALL.changed(matching=False),
    "no regression": ALONE,
    "real score only": ALONE.changed(fake=False),
    "frozen fake score": SMALL.changed(updates=(1, 0)),
    "no weighting": SMALL.changed(weighting="none"),
    "weaker teacher": SMALL.changed(teacher="teacher-weak"),
    **{f"regression by {kind}": SMALL.changed(distance=kind, regression_weight=weight)
       for kind, weight in BY_DISTANCE.items()},
    **{f"{n} pairs{without}": SMALL.changed(n_pairs=n, **changes)
       for n in FEW for without, changes in (("", {}), (", no matching", {"matching": False}))}}

STUDY = Study(
    "dmd-mnist", "Distillations of the teacher: what was seen over training, and their figures.",
    RECIPES, seeds=3, shown=("student-dmd-paired",), hours=1.0,
    kept={"student-dmd-paired": ()} | dict.fromkeys(
        ("DMD", "no regression", "real score only"), ("samples",)))


# What exercises ask for, with their arguments.

def pair_batch(z: Tensor, y: Tensor, label: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """Exercise 4.1: the pairs of these numbers, (B,) int64."""
    return tuple(pairs.Pairs(z, y, label).batch(index))


def regression_loss(generate, distance, z: Tensor, y: Tensor, label: Tensor) -> Tensor:
    """Exercise 4.2: the mean distance of G(z, label) from y, a scalar."""
    return distance(generate(z, label), y).mean()


def guided_gradient(x: Tensor, t: Tensor, eps: Tensor, label: Tensor, real, fake, w: float,
                    *tables) -> Tensor:
    """Exercise 4.3: ``dmd.matching_gradient`` with guidance w on the real score. real and fake take
    x_t, t and labels and return x-predictions; ``tables`` are the number of "no class", α (T,) and
    σ (T,)."""
    no_class, alpha, sigma = tables
    x_t, alpha, sigma = noised(x, t, eps, alpha, sigma)
    without = real(x_t, t, torch.full_like(label, no_class))
    mu_real = torch.lerp(without, real(x_t, t, label), 1 + w)
    return dmd.matching_gradient(x, mu_real, fake(x_t, t, label), alpha, sigma)


def regression_weight(matching_gradient: Tensor, regression_gradient: Tensor,
                      share: float) -> Tensor:
    """Exercise 4.4: the weight at which the regression's gradients (B, …) are ``share`` times as
    long as the matching's, in the mean over the batch."""
    matching, regression = (gradient.flatten(1).norm(dim=1).mean()
                            for gradient in (matching_gradient, regression_gradient))
    return share * matching / regression


def fake_loss(fake, generate, z: Tensor, label: Tensor, t: Tensor, eps: Tensor, alpha: Tensor,
              sigma: Tensor) -> Tensor:
    """Exercise 4.5: the fake score's loss in v, a scalar."""
    with torch.no_grad():
        x = generate(z, label)
    x_t, alpha, sigma = noised(x, t, eps, alpha, sigma)
    return torch.nn.functional.mse_loss(fake(x_t, t, label), alpha * eps - sigma * x)
