"""Small trainings that a test can run in a process of its own, kill, resume, or start under
`accelerate launch`.

    python tests/training_run.py FOLDER N_STEPS BATCH_SIZE
"""
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from dmdkit import data, train
from dmdkit.denoiser import Denoiser
from dmdkit.methods import ddpm, dmd, dmd2, progressive
from dmdkit.methods.discriminator import Discriminator
from dmdkit.methods.pairs import Pairs
from dmdkit.tasks.mnist import MNIST

Run = tuple[dict[str, train.Learner], train.Step]


def denoiser(seed: int = 0) -> Denoiser:
    """A class-conditional Denoiser of MNIST's tiny network, with random weights."""
    torch.manual_seed(seed)
    return MNIST.network("tiny")


def learner(n_steps: int, init_seed: int = 0, accelerator: Accelerator | None = None,
            **options) -> train.Learner:
    """A learner of the tiny network, in fp32 wherever it runs, so that runs can be compared."""
    torch.set_num_threads(1)
    options = {"lr": 2e-3, "warmup": 5, "ema": 0.9} | options
    accelerator = accelerator or Accelerator(cpu=True)
    return train.Learner(denoiser(init_seed), accelerator, n_steps=n_steps, **options)


def images(n: int = 256) -> data.Images:
    """The first n test images of MNIST."""
    return data.mnist(train=False).take(slice(n))


def records(one: train.Learner, n_steps: int, batch_size: int, **options):
    """The records of a run of n_steps; ``options`` as train.train takes them."""
    step = ddpm.DDPM(one, images(), batch_size)
    return train.train(step, {"net": one}, n_steps=n_steps, **options)


def denoising(n_steps: int, batch_size: int, init_seed: int = 0) -> Run:
    one = learner(n_steps, init_seed)
    return {"net": one}, ddpm.DDPM(one, images(), batch_size)


def distilling(n_steps: int, batch_size: int, init_seed: int = 0) -> Run:
    """Generator and fake score with the weights of ``init_seed``; teacher and pairs are always the
    same."""
    learners = {"generator": learner(n_steps, init_seed),
                "fake": learner(2 * n_steps, init_seed, ema=0.0)}
    shown = images(16)
    z = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    pairs = Pairs(z, data.scale(shown.pixels), shown.labels)
    teacher = partial(denoiser(seed=7).eval(), guidance=0.5)
    settings = dmd.Settings(updates=(1, 2), n_pairs=16)
    return learners, dmd.DMD(*learners.values(), teacher, batch_size, settings, pairs=pairs)


def halving(n_steps: int, batch_size: int, init_seed: int = 0) -> Run:
    """A student of four steps with the weights of ``init_seed``; its guided teacher is always the
    same."""
    one = learner(n_steps, init_seed, ema=0.0)
    teacher = partial(denoiser(seed=7).eval(), guidance=0.5)
    return {"net": one}, progressive.Halving(one, teacher, images(), batch_size, 4)


def improved(n_steps: int, batch_size: int, init_seed: int = 0) -> Run:
    """As ``distilling``, with a discriminator in place of the pairs and a student of two steps that
    meets its own states."""
    fake = train.Learner(Discriminator(denoiser(init_seed)), Accelerator(cpu=True), lr=5e-4,
                         n_steps=2 * n_steps, warmup=5, ema=0.0)
    learners = {"generator": learner(n_steps, init_seed), "fake": fake}
    teacher = partial(denoiser(seed=7).eval(), guidance=0.5)
    settings = dmd2.Settings(updates=(1, 2), generator_weight=0.05, discriminator_weight=0.05,
                             student_steps=2)
    return learners, dmd2.DMD2(*learners.values(), teacher, batch_size, settings, images())


TRAININGS = {"denoiser": denoising, "dmd": distilling, "progressive": halving, "dmd2": improved}


def run(checkpoint: Path, n_steps: int, batch_size: int, save_every: int, resume: bool,
        report: Callable[[train.Record], None] | None = None, training: str = "denoiser") -> None:
    """Train from scratch or from the checkpoint, reporting each record."""
    init_seed = 1 if resume else 0  # a resumed run has nothing but its checkpoint
    learners, step = TRAININGS[training](n_steps, batch_size, init_seed)
    options = {"checkpoint": checkpoint, "save_every": save_every, "resume": resume}
    for record in train.train(step, learners, n_steps=n_steps, **options):
        if report:
            report(record)


def main() -> None:
    folder, rank = Path(sys.argv[1]), os.environ.get("RANK", 0)
    with open(folder / f"process-{rank}.jsonl", "w", encoding="utf-8") as reports:
        for name in TRAININGS:
            def report(record: train.Record, name: str = name) -> None:
                reports.write(json.dumps([name, *record]) + "\n")

            run(folder / f"{name}.safetensors", int(sys.argv[2]), int(sys.argv[3]),
                save_every=1000, resume=False, report=report, training=name)


if __name__ == "__main__":
    main()
