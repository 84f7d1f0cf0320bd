"""Small trainings that a test can run in a process of its own, kill, resume, or start under `accelerate launch`.

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

from dmdkit import data, dmd, dmd2, nets, progressive, schedule, train
from dmdkit.denoiser import Denoiser


def denoiser(seed: int = 0) -> Denoiser:
    """A class-conditional Denoiser of the tiny preset, with random weights."""
    torch.manual_seed(seed)
    net = nets.unet("tiny")
    return Denoiser(net, schedule.cosine(), "v", patch=28 // net.config.sample_size)


def learner(n_steps: int, init_seed: int = 0, accelerator: Accelerator | None = None, **options) -> train.Learner:
    """A learner of the tiny preset, in fp32 wherever it runs, so that runs can be compared."""
    torch.set_num_threads(1)
    options = dict(lr=2e-3, warmup=5, ema=0.9) | options
    return train.Learner(denoiser(init_seed), accelerator or Accelerator(cpu=True), n_steps=n_steps, **options)


def images(n: int = 256) -> data.Images:
    """The first n test images of MNIST."""
    return data.Images(*(tensor[:n] for tensor in data.mnist(train=False)))


def records(one: train.Learner, n_steps: int, batch_size: int, **options):
    """The records of a run of n_steps; ``options`` as train.train takes them."""
    return train.train(train.denoiser_step(one, images(), batch_size), {"net": one}, n_steps=n_steps, **options)


def denoising(n_steps: int, batch_size: int, init_seed: int = 0) -> tuple[dict[str, train.Learner], train.Step]:
    one = learner(n_steps, init_seed)
    return {"net": one}, train.denoiser_step(one, images(), batch_size)


def distilling(n_steps: int, batch_size: int, init_seed: int = 0) -> tuple[dict[str, train.Learner], train.Step]:
    """Generator and fake score with the weights of ``init_seed``; teacher and pairs are always the same."""
    learners = {"generator": learner(n_steps, init_seed), "fake": learner(2 * n_steps, init_seed, ema=0.0)}
    shown = images(16)
    z = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    pairs = dmd.Pairs(z, data.scale(shown.pixels), shown.labels)
    teacher = partial(denoiser(seed=7).eval(), guidance=0.5)
    return learners, dmd.dmd_step(*learners.values(), teacher, batch_size, updates=(1, 2), pairs=pairs)


def halving(n_steps: int, batch_size: int, init_seed: int = 0) -> tuple[dict[str, train.Learner], train.Step]:
    """A student of four steps with the weights of ``init_seed``; its guided teacher is always the same."""
    one, teacher = learner(n_steps, init_seed, ema=0.0), partial(denoiser(seed=7).eval(), guidance=0.5)
    return {"net": one}, progressive.halving_step(one, teacher, images(), batch_size, 4)


def improved(n_steps: int, batch_size: int, init_seed: int = 0) -> tuple[dict[str, train.Learner], train.Step]:
    """As ``distilling``, with a critic in place of the pairs and a student of two steps that meets its own states."""
    fake = train.Learner(dmd2.Critic(denoiser(init_seed)), Accelerator(cpu=True), lr=5e-4, n_steps=2 * n_steps,
                         warmup=5, ema=0.0)
    learners, teacher = {"generator": learner(n_steps, init_seed), "fake": fake}, denoiser(seed=7).eval()
    return learners, dmd2.dmd2_step(*learners.values(), partial(teacher, guidance=0.5), batch_size, images=images(),
                                    fake_updates=2, generator_weight=0.05, critic_weight=0.05, n_steps=2)


TRAININGS = {"denoiser": denoising, "dmd": distilling, "progressive": halving, "dmd2": improved}


def run(checkpoint: Path, n_steps: int, batch_size: int, save_every: int, resume: bool,
        report: Callable[[train.Record], None] = lambda record: None, training: str = "denoiser") -> None:
    """Train from scratch or from the checkpoint, reporting each record."""
    init_seed = 1 if resume else 0  # a resumed run has nothing but its checkpoint
    learners, step = TRAININGS[training](n_steps, batch_size, init_seed)
    options = dict(checkpoint=checkpoint, save_every=save_every, resume=resume)
    for record in train.train(step, learners, n_steps=n_steps, **options):
        report(record)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with open(folder / f"process-{os.environ.get('RANK', 0)}.jsonl", "w") as reports:
        for name in TRAININGS:
            run(folder / f"{name}.safetensors", int(sys.argv[2]), int(sys.argv[3]), save_every=1000, resume=False,
                report=lambda record: reports.write(json.dumps([name, *record]) + "\n"), training=name)
