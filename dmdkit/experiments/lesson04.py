"""Lesson 04's study: which part of DMD does what, on MNIST. Settings only."""
from ..methods import dmd
from ..tasks.mnist import MNIST
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

RECIPES = {
    "DMD": SMALL,
    "no matching": SMALL.changed(matching=False),
    "no regression": ALONE,
    "real score only": ALONE.changed(fake=False),
    "frozen fake score": SMALL.changed(updates=(1, 0)),
    "no weighting": SMALL.changed(weighting="none"),
    "weaker teacher": SMALL.changed(teacher="teacher-weak"),
    **{f"regression by {kind}": SMALL.changed(distance=kind, regression_weight=weight)
       for kind, weight in BY_DISTANCE.items()}}

STUDY = Study(
    "dmd-mnist", "Distillations of the teacher: what was seen over training, and their figures.",
    RECIPES, seeds=3, shown=("student-dmd-paired", "student-dmd", "poster-mnist"), hours=1.0)
