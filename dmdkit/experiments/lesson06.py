"""Lesson 06's study: what DMD2 puts in place of the pairs, on MNIST; and its exercises' functions,
as the library has them."""
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ..methods import dmd, dmd2
from ..schedule import Schedule
from ..tasks.mnist import MNIST
from .evaluate import Sampling
from .mnist import ADVERSARIAL, GUIDANCE, ONE_STEP, RECIPES as SHIPPED
from .recipe import Recipe
from .study import Study

ALONE = Recipe(
    "A small distillation by DMD2, for comparisons.", MNIST,
    dmd2.Settings(guidance=GUIDANCE, lr=1e-3, fake_lr=1e-3, ema=0.98),
    n_steps=100, batch_size=32, samplings=(Sampling("multistep", 1),))
WITH_PAIRS = Recipe(
    "The same by DMD, with pairs.", MNIST,
    dmd.Settings(guidance=GUIDANCE, lr=1e-3, fake_lr=1e-3, ema=0.98, n_pairs=1280,
                 regression_weight=4.0, distance="classifier"),
    n_steps=100, batch_size=32, samplings=ONE_STEP)
ADVERSARIAL_ALONE = ALONE.changed(matching=False, **ADVERSARIAL)


def several(n_steps: int, **changes) -> Recipe:
    """A student of several steps; its fake score is told the step unless ``changes`` say no."""
    told = {"step_aware": True} | changes
    return ALONE.changed(student_steps=n_steps, samplings=(Sampling("multistep", n_steps),), **told)


LONG = SHIPPED["student-dmd2-no-critic"]

RECIPES = {
    "DMD": WITH_PAIRS,
    **{f"1 : {n}": ALONE.changed(updates=(1, n)) for n in (1, 2, 5, 10)},
    "with critic": ALONE.changed(**ADVERSARIAL),
    "critic alone": ADVERSARIAL_ALONE,
    "2 steps": several(2),
    "4 steps": several(4),
    "4 steps, not told": several(4, step_aware=False),
    "4 steps, real inputs": several(4, backward_simulation=False),
    "1 : 1, 2,200": LONG.changed(updates=(1, 1)),
    "1 : 1, 1,000": LONG.changed(updates=(1, 1), n_steps=1000),
    "critic alone, 400": LONG.changed(matching=False, n_steps=400, **ADVERSARIAL)}

THREE = ("DMD", "1 : 1", "1 : 5", "with critic", "critic alone")
TWO = ("4 steps", "4 steps, not told", "4 steps, real inputs")

STUDY = Study(
    "dmd2-mnist", "Distillations without pairs: what was seen over training, and their figures.",
    RECIPES, seeds=dict.fromkeys(THREE, 3) | dict.fromkeys(TWO, 2), hours=3.0,
    shown=("student-dmd2-no-critic",), kept={"student-dmd2-no-critic": ()} | dict.fromkeys(
        ("DMD", "1 : 1", "1 : 2", "1 : 5", "1 : 10"), ("samples", "classes")))


def gan_losses(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """``dmd2.generator_loss`` and ``dmd2.discriminator_loss`` of logits, (B,) each: exercise 6.1."""
    return dmd2.generator_loss(fake), dmd2.discriminator_loss(fake, real)


def adversarial_loss(discriminator: Callable, weights: Tensor, x: Tensor, real: Tensor) -> Tensor:
    """Both in one scalar, each with a gradient for its own side only: exercise 6.2."""
    generator = dmd2.generator_loss(discriminator(x, weights.detach()))
    fake, real = discriminator(x.detach(), weights), discriminator(real, weights)
    return generator + dmd2.discriminator_loss(fake, real)


def simulate(student: Callable, alpha: Tensor, sigma: Tensor, z: Tensor, eps: Tensor) -> Tensor:
    """``dmd2.simulate`` to the last of the times, with the arguments of exercise 6.4."""
    last = len(alpha) - 1
    table = Schedule("a student's times", alpha.flip(0), sigma.flip(0))

    def denoiser(x_t: Tensor, t: int, label: None) -> SimpleNamespace:
        return SimpleNamespace(x=student(x_t, last - t))

    exits = torch.full((len(z),), last, device=z.device)
    return dmd2.simulate(denoiser, table, z, None, torch.arange(last, -1, -1), exits, eps)


def tilted_cloud(n: int, g: torch.Generator) -> Tensor:
    """n points of the plane, (n, 2), that a linear generator can match."""
    stretch, shift = torch.tensor([[0.35, 0.1], [0.0, 0.12]]), torch.tensor([0.6, -0.4])
    return torch.randn(n, 2, generator=g) @ stretch + shift


def gan(loss: Callable, n_updates: int, g: torch.Generator, n: int = 256) -> Tensor:
    """n points, (n, 2), of a linear generator trained on ``tilted_cloud`` against a small network,
    both with one optimiser and one loss: loss(discriminator, weights, x, real), as exercise 6.2 has
    it. The discriminator noises the points that it is given."""
    torch.manual_seed(0)
    generator = nn.Linear(2, 2)
    form = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(),
                         nn.Linear(64, 1))
    weights = nn.utils.parameters_to_vector(form.parameters()).detach().requires_grad_()

    def discriminator(x: Tensor, weights: Tensor) -> Tensor:
        parts = weights.split([p.numel() for p in form.parameters()])
        shaped = {name: part.view_as(p)
                  for (name, p), part in zip(form.named_parameters(), parts)}
        noised = x + 0.3 * torch.randn(x.shape, generator=g)
        return torch.func.functional_call(form, shaped, noised).flatten()

    adam = torch.optim.Adam([*generator.parameters(), weights], lr=5e-3, betas=(0.5, 0.9))
    for _ in range(n_updates):
        x = generator(torch.randn(n, 2, generator=g))
        loss(discriminator, weights, x, tilted_cloud(n, g)).backward()
        adam.step()
        adam.zero_grad()
    return generator(torch.randn(n, 2, generator=g)).detach()
