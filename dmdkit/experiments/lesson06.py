"""Lesson 06's study: what DMD2 puts in place of the pairs, on MNIST. Settings only."""
from ..methods import dmd, dmd2
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
    shown=("student-dmd2-no-critic", "student-dmd2"))
