"""Trainings that are killed at random moments, each in a process of its own, with log and
checkpoint."""
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import torch
import training_run

from dmdkit import data, files, nets, schedule, train
from dmdkit.denoiser import Denoiser
from dmdkit.methods import ddpm

PRELOADED = ["dmdkit.methods.dmd2", "dmdkit.methods.progressive", "dmdkit.tasks.mnist",
             "dmdkit.networks"]  # what takes seconds to import
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"


class Kill(NamedTuple):
    """One kill: by what, after which record, and what was there afterwards."""
    signal: int
    logged: int      # the last step in the log
    saved: int       # the checkpoint's step
    torn: bool       # whether the log's last line was
    exitcode: int


def points(n_steps: int, batch_size: int, init_seed: int = 0) -> training_run.Run:
    """Points of the plane, of which a step takes some milliseconds."""
    torch.manual_seed(init_seed)
    net = Denoiser(nets.PointMLP(width=16), schedule.cosine(64), n_classes=0)
    one = train.Learner(net, train.accelerator(cpu=True), lr=1e-3, n_steps=n_steps, ema=0.9)
    moons = data.two_moons(500, torch.Generator().manual_seed(0))
    return {"net": one}, ddpm.DDPM(one, moons, batch_size)


TRAININGS = {"points": points, **training_run.TRAININGS}


def follow(folder: Path, training: str, n_steps: int, save_every: int, connection=None) -> None:
    """Train, from the checkpoint if there is one, and log every record; what the log has beyond the
    checkpoint is done again."""
    checkpoint, log = folder / CHECKPOINT, folder / LOG
    resume = checkpoint.exists()
    learners, step = TRAININGS[training](n_steps, 8, init_seed=1 if resume else 0)
    records = train.train(step, learners, n_steps=n_steps, checkpoint=checkpoint,
                          save_every=save_every, resume=resume)
    first = True
    for record in records:
        if first and log.exists():
            before = files.read_lines(log).entries
            files.write_lines(log, [e for e in before if e["step"] < record.step])
        first = False
        files.append_line(log, {"step": record.step, **record.values})
        if connection:
            connection.send(record.step)


def context():
    """Real processes, without importing torch for each."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def killed(folder: Path, training: str, n_steps: int, save_every: int, goal: int,
           dice: random.Random, number: int) -> Kill:
    """Run until record ``goal``, and kill at a random moment thereafter."""
    receive, send = context().Pipe(duplex=False)
    process = context().Process(target=follow, args=(folder, training, n_steps, save_every, send))
    process.start()
    send.close()
    try:
        while receive.recv() < goal:
            pass
    except EOFError:
        process.join()
        raise AssertionError(f"it ended by itself, with exit code {process.exitcode}") from None
    time.sleep(dice.random() * 0.02)  # anywhere in a step, or in the writing of log or checkpoint
    os.kill(process.pid, number)
    process.join()
    lines = files.read_lines(folder / LOG)
    saved = files.load_state(folder / CHECKPOINT)["step"]
    return Kill(number, lines.entries[-1]["step"], saved, lines.torn, process.exitcode)


def check(kill: Kill, goal: int, save_every: int) -> None:
    """What must hold after a kill: the log is not behind the checkpoint, and nothing is lost."""
    assert kill.exitcode != 0
    assert kill.logged >= max(goal, kill.saved)
    assert kill.saved >= (goal - 1) - (goal - 1) % save_every


def same_end(folder: Path, whole: Path) -> bool:
    """Whether two runs ended alike, byte for byte."""
    return all((folder / name).read_bytes() == (whole / name).read_bytes()
               for name in (CHECKPOINT, LOG))
