"""The recipes in colour: what ships, and the well-known set-ups. Settings."""
from dataclasses import replace
from functools import partial

from ..methods import classifier, ddpm, dmd, dmd2
from ..tasks.cifar10 import CIFAR10
from ..tasks.faces import FACES, faces
from .chain import Chain
from .evaluate import Sampling
from .recipe import Recipe

PLAIN = (Sampling("ddim", 100), Sampling("ddim", 16), Sampling("ddim", 1))
ONE_STEP = (Sampling("ddim", 1),)
ALL_FACES = replace(FACES, read=partial(faces, limit=None))  # as the well-known set-up has them
GUIDANCE = 1.0  # of CIFAR-10's teacher, of 0, 0.5, 1 and 2 on selection noise

# What ships learns from pairs by LPIPS, twice as heavily as with classes (DMD, appendix B.1). The
# digits' 8 Heun steps leave colours off: faces of 8 are at 5.8 in patches, those of 32 at 0.8;
# CIFAR-10's of 8 at 2.2, of 16 at 1.1, of 32 at 1.0.
STUDENT = {"n_pairs": 6400, "distance": "lpips-alex", "regression_weight": 0.5}
# The well-known set-ups: three networks of a GPU's size, small rates, as many pairs as they had.
DOCUMENTED = STUDENT | {"solver": "ddim", "solver_steps": 1000, "ema": 0.0}

# The second part of a student by DMD2, from one by DMD: no pairs, and a discriminator.
DMD2 = dmd2.Settings(lr=3e-4, fake_lr=1e-3, ema=0.99, head_start=100, generator_weight=0.012,
                     discriminator_weight=0.04)
CIFAR10_DMD2 = replace(DMD2, teacher="teacher-cifar10", start="student-cifar10-dmd",
                       guidance=GUIDANCE)

FACES_RECIPES = {
    "teacher-faces": Recipe(
        "Unconditional DDPM on CelebA's faces at 32 × 32: v-prediction, cosine schedule with zero "
        "terminal SNR, T = 1024.",
        FACES, ddpm.Settings(lr=1.5e-3, warmup=200, ema=0.9995), 16_000, samplings=PLAIN),
    "student-faces-dmd": Recipe(
        "One-step student of teacher-faces by Distribution Matching Distillation.",
        FACES, dmd.Settings("teacher-faces", updates=(1, 2), lr=5e-4, fake_lr=1e-3, ema=0.998,
                            **STUDENT | {"solver_steps": 32}), 3000, 32, samplings=ONE_STEP),
    "student-faces": Recipe(
        "One-step student of teacher-faces by DMD2: student-faces-dmd, trained on without pairs "
        "and with a discriminator.",
        FACES, replace(DMD2, teacher="teacher-faces", start="student-faces-dmd"), 600, 32,
        samplings=ONE_STEP)}

CIFAR10_RECIPES = {
    "classifier-cifar10": Recipe(
        "A classifier of CIFAR-10, which says what a picture shows.",
        CIFAR10, classifier.Settings("classifier", noise=0.1, lr=3e-3, ema=0.0), 4000, 128),
    "teacher-cifar10": Recipe(
        "Class-conditional DDPM on CIFAR-10: v-prediction, cosine schedule with zero terminal "
        "SNR, T = 1024.",
        CIFAR10, ddpm.Settings(lr=1.5e-3, warmup=200, ema=0.9995), 18_000,
        samplings=tuple(replace(how, guidance=GUIDANCE) for how in PLAIN)),
    "student-cifar10-dmd": Recipe(
        "One-step student of teacher-cifar10 by Distribution Matching Distillation.",
        CIFAR10, dmd.Settings("teacher-cifar10", guidance=GUIDANCE, updates=(1, 2), lr=5e-4,
                              fake_lr=1e-3, ema=0.998, **STUDENT | {"regression_weight": 0.25,
                                                                    "solver_steps": 16}),
        2800, 32, samplings=ONE_STEP),
    "student-cifar10": Recipe(
        "One-step student of teacher-cifar10 by DMD2: student-cifar10-dmd, trained on without "
        "pairs and with a discriminator.",
        CIFAR10, CIFAR10_DMD2, 600, 32, samplings=ONE_STEP),
    "student-cifar10-control": Recipe(
        "student-cifar10-dmd, trained on as student-cifar10 is, but without the discriminator.",
        CIFAR10, replace(CIFAR10_DMD2, generator_weight=0.0, discriminator_weight=0.0), 600, 32,
        samplings=ONE_STEP)}

# On a CPU they take days, so none of them ships.
POSTER_RECIPES = {
    "poster-teacher-faces": Recipe(
        "The well-known small set-up's teacher of faces: ε-prediction, linear β, T = 1000.",
        ALL_FACES, ddpm.Settings("documented", lr=1e-4, betas=(0.9, 0.999), ema=0.0), 76_000, 128,
        samplings=(Sampling("ddpm", 1000),)),
    "poster-faces": Recipe(
        "poster-teacher-faces' student: 12,800 pairs, learning rate 5e-6, batches of 64, 2,000 "
        "steps.",
        ALL_FACES, dmd.Settings("poster-teacher-faces", lr=5e-6, fake_lr=5e-6,
                                **DOCUMENTED | {"n_pairs": 12_800}), 2000, samplings=ONE_STEP),
    "poster-cifar10": Recipe(
        "A student of google/ddpm-cifar10-32: 4,864 pairs, learning rate 1e-6, batches of 64, "
        "1,520 steps.",
        CIFAR10, dmd.Settings("google/ddpm-cifar10-32", lr=1e-6, fake_lr=1e-6,
                              **DOCUMENTED | {"n_pairs": 4864}), 1520, samplings=ONE_STEP)}

# Progressive distillation of the faces: updates by the student's number of steps.
CHAIN = Chain("teacher-faces progressively distilled to {steps}.", FACES, "teacher-faces",
              "progressive-faces", {32: 300, 16: 300, 8: 500, 4: 600, 2: 800, 1: 1000})

RECIPES = FACES_RECIPES | CHAIN.recipes() | CIFAR10_RECIPES | POSTER_RECIPES
UNSHIPPED = tuple(POSTER_RECIPES)
