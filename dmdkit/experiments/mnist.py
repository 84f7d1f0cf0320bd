"""The recipes of every artefact on MNIST that ships, and of the well-known set-up: settings."""
from dataclasses import replace

from ..methods import classifier, ddpm, dmd, dmd2
from ..tasks.mnist import MNIST
from .chain import Chain
from .evaluate import Sampling
from .recipe import Recipe

GUIDANCE = 0.25  # of the real score, of the pairs and of the first halving

PLAIN = (Sampling("ddim", 16), Sampling("ddim", 16, 0.3), Sampling("heun", 8, GUIDANCE),
         Sampling("ddim", 400, GUIDANCE), Sampling("ddpm", 400, GUIDANCE))
ONE_STEP = (Sampling("ddim", 1),)

TEACHER = Recipe(
    "Class-conditional DDPM on MNIST: v-prediction, cosine schedule with zero terminal SNR, "
    "T = 1024.",
    MNIST, ddpm.Settings(lr=2e-3, warmup=200, ema=0.999), n_steps=14_000,
    samplings=PLAIN)

# Distribution matching with pairs. Five updates of the fake score, as in DMD2, so that it keeps up.
PAIRED = dmd.Settings(guidance=GUIDANCE, updates=(1, 5), n_pairs=12_800, distance="classifier",
                      lr=7e-4, fake_lr=1e-3, ema=0.998)
LET_GO = dmd.Settings(start="student-dmd-paired", guidance=GUIDANCE, updates=(1, 5),
                      t_range=(0.02, 0.75), lr=5e-4, fake_lr=1e-3, ema=0.0, kept=0.7)
REGRESSION = dmd.Settings(guidance=GUIDANCE, updates=(1, 2), matching=False, n_pairs=12_800,
                          distance="classifier", lr=5e-4, ema=0.995)

# DMD2 in two parts: two time scales, then the discriminator too.
ADVERSARIAL = {"generator_weight": 0.047, "discriminator_weight": 0.157}
TTUR = dmd2.Settings(guidance=GUIDANCE, lr=7e-4, fake_lr=1e-3, ema=0.998)
TTUR_4 = dmd2.Settings(guidance=GUIDANCE, lr=7e-4, fake_lr=1e-3, ema=0.998, student_steps=4,
                       step_aware=True)
DMD2 = dmd2.Settings(start="student-dmd2-no-critic", guidance=GUIDANCE, lr=3e-4, fake_lr=1e-3,
                     ema=0.998, **ADVERSARIAL)
CONTROL = replace(DMD2, generator_weight=0.0, discriminator_weight=0.0)
DMD2_4 = dmd2.Settings(start="student-dmd2-4step-no-critic", guidance=GUIDANCE, lr=3e-4,
                       fake_lr=1e-3, ema=0.998, student_steps=4, step_aware=True, **ADVERSARIAL)

RECIPES = {
    "classifier": Recipe(
        "Digit classifier; the 96 features below its head are a space of the Fréchet distance.",
        MNIST, classifier.Settings("classifier", noise=0.3, lr=3e-3, ema=0.0), 500, 128),
    "judge": Recipe(
        "A second classifier of another architecture and seed, which says which digit a sample is.",
        MNIST, classifier.Settings("judge", noise=0.1, lr=3e-3, ema=0.0), 2400, 128, seed=17),
    "teacher": TEACHER,
    "teacher-weak": TEACHER.changed(
        n_steps=1000, samplings=(Sampling("ddim", 16),),
        what="The teacher's network and recipe, but 1,000 steps: to lead the teacher away from, "
             "and for an ablation."),
    "teacher-long": TEACHER.changed(
        n_steps=7400, batch_size=256, ema=0.9995, samplings=PLAIN[:3],
        what="The teacher's network, trained on twice as many images, in batches of 256 on a GPU."),
    "student-dmd-paired": Recipe(
        "One-step student of the teacher by Distribution Matching Distillation. Its regression "
        "compares layers of the classifier in whose features one Fréchet distance is taken.",
        MNIST, PAIRED, 1800, 32, samplings=ONE_STEP),
    "student-dmd": Recipe(
        "One-step student of the teacher by Distribution Matching Distillation: "
        "student-dmd-paired, trained on without its pairs, which is ours and not the paper's.",
        MNIST, LET_GO, 900, 32, samplings=ONE_STEP),
    "student-regression": Recipe(
        "One step by regression alone, on the pairs that student-dmd-paired has.",
        MNIST, REGRESSION, 1500, 64, samplings=ONE_STEP),
    "student-dmd2-no-critic": Recipe(
        "One-step student of the teacher by distribution matching on two time scales: no pairs, "
        "and no discriminator yet.",
        MNIST, TTUR, 2200, 32, samplings=(Sampling("multistep", 1),)),
    "student-dmd2": Recipe(
        "One-step student of the teacher by DMD2: student-dmd2-no-critic, trained on with a "
        "discriminator.",
        MNIST, DMD2, 800, 32, samplings=(Sampling("multistep", 1),)),
    "student-dmd2-control": Recipe(
        "student-dmd2-no-critic, trained on as student-dmd2 is, but without the discriminator.",
        MNIST, CONTROL, 800, 32, samplings=(Sampling("multistep", 1),)),
    "student-dmd2-4step-no-critic": Recipe(
        "Four-step student of the teacher by DMD2 with backward simulation: two time scales, no "
        "pairs, no discriminator yet. Its fake score was told which step made a sample.",
        MNIST, TTUR_4, 1800, 32, samplings=(Sampling("multistep", 4),)),
    "student-dmd2-4step": Recipe(
        "Four-step student of the teacher by DMD2: student-dmd2-4step-no-critic, trained on with "
        "a discriminator.",
        MNIST, DMD2_4, 600, 32, samplings=(Sampling("multistep", 4),)),
    # The well-known small set-up of 6.6 million parameters: on a CPU it takes days, so none ships.
    "poster-teacher": Recipe(
        "The well-known small set-up's teacher: ε-prediction, linear β, T = 400.",
        MNIST, ddpm.Settings("documented", lr=1e-4, betas=(0.9, 0.999), ema=0.0), 4700, 256,
        samplings=(Sampling("ddpm", 400, 0.5),)),
    "poster-mnist": Recipe(
        "poster-teacher's student: 12,800 pairs, learning rate 5e-6, batches of 64, 2,000 steps.",
        MNIST, dmd.Settings(teacher="poster-teacher", guidance=GUIDANCE, n_pairs=12_800, lr=5e-6,
                            distance="classifier", fake_lr=5e-6, ema=0.0), 2000,
        samplings=ONE_STEP)}

# Progressive distillation: updates by the student's number of steps. The first stage learns the
# guidance too; the last few have the most to learn.
STAGES = {512: 2000, 256: 500, 128: 500, 64: 500, 32: 1000, 16: 2000, 8: 4000, 4: 5000, 2: 6000,
          1: 8000}
CHAIN = Chain(f"The teacher progressively distilled to {{steps}}, guidance {GUIDANCE:g} folded in.",
              MNIST, "teacher", "progressive", STAGES, GUIDANCE)
stage_name = CHAIN.name

RECIPES |= CHAIN.recipes()
UNSHIPPED = ("poster-teacher", "poster-mnist")  # days on a CPU
