"""A small training that a test can run in a process of its own, kill, resume, or start under `accelerate launch`.

    python tests/training_run.py CHECKPOINT N_STEPS BATCH_SIZE
"""
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from dmdkit import data, nets, schedule, train
from dmdkit.denoiser import Denoiser


def learner(n_steps: int, init_seed: int = 0, accelerator: Accelerator | None = None, **options) -> train.Learner:
    """A learner of the tiny preset, in fp32 wherever it runs, so that runs can be compared."""
    torch.set_num_threads(1)
    torch.manual_seed(init_seed)
    net = nets.unet("tiny")
    denoiser = Denoiser(net, schedule.cosine(), "v", patch=28 // net.config.sample_size)
    options = dict(lr=2e-3, warmup=5, ema=0.9) | options
    return train.Learner(denoiser, accelerator or Accelerator(cpu=True), n_steps=n_steps, **options)


def images(n: int = 256) -> data.Images:
    """The first n test images of MNIST."""
    return data.Images(*(tensor[:n] for tensor in data.mnist(train=False)))


def records(one: train.Learner, n_steps: int, batch_size: int, **options):
    """The records of a run of n_steps; ``options`` as train.train takes them."""
    return train.train(train.denoiser_step(one, images(), batch_size), {"net": one}, n_steps=n_steps, **options)


def run(checkpoint: Path, n_steps: int, batch_size: int, save_every: int, resume: bool, report=print) -> None:
    """Train from scratch or from the checkpoint, reporting each finished step."""
    one = learner(n_steps, init_seed=1 if resume else 0)  # a resumed run has nothing but its checkpoint
    options = dict(checkpoint=checkpoint, save_every=save_every, resume=resume)
    for record in records(one, n_steps, batch_size, **options):
        report(record.step)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), save_every=1000, resume=False)
