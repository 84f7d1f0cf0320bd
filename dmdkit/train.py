"""The one training loop, a generator.

A method brings its ``Learner``s (networks that are trained) and its ``step``; the loop draws a
generator for each step, checks, saves, resumes and yields a record, so that a notebook can plot,
sample and stop where it likes.
"""
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import files, noise
from .interrupts import Interrupts
from .learner import Learner, accelerator

__all__ = ["Learner", "Record", "Step", "Training", "accelerator", "milestones", "train"]

Step = Callable[[torch.Generator], dict[str, Tensor]]
SAVE_SECONDS = 60.0  # a checkpoint is never older than that


class Record(NamedTuple):
    """One training step: its number counted from 1, its values (loss terms, gradient norms), its
    wall time."""
    step: int
    values: dict[str, float]
    seconds: float


class Training(NamedTuple):
    """A training that is ready to run."""
    learners: dict[str, Learner]                   # what is trained, that which is kept first
    step: Step
    snapshot: Callable[[], NamedTuple] | None = None  # what there is to see of it as it is now
    frozen: tuple[nn.Module, ...] = ()             # networks that are used and not trained
    finish: Callable[[], nn.Module] | None = None  # what is kept; None: the first one's average


def train(step: Step, learners: dict[str, Learner], *, n_steps: int, seed: int = 0,
          checkpoint: Path | None = None, save_every: int = 500, resume: bool = False,
          overwrite: bool = False) -> Iterator[Record]:
    """Run ``step`` n_steps times, yielding a Record after each.

    Args:
        step: takes the step's torch.Generator, updates its learners and returns named scalars. It
            draws all of its randomness from that generator (dropout's is seeded likewise), which
            depends on seed and step number alone: a resumed run therefore repeats the
            uninterrupted one, bit for bit on a CPU.
        learners: by name, what a checkpoint holds.
        checkpoint: a file, written whole at the start, every ``save_every`` steps, once a minute
            and at the end; None keeps none. A step is saved when the next record is asked for:
            whoever writes records to a log has it there before the checkpoint has it.
        resume: go on from ``checkpoint`` instead of from step 0.
        overwrite: whether a new run may take the place of a checkpoint that is there.
    Ctrl-C, a notebook's interrupt and SIGTERM let a running step finish, save it and then raise
    KeyboardInterrupt; a second one stops at once.
    Raises ValueError for numbers that make no sense, RuntimeError for a checkpoint that is damaged,
    of another run or of other settings, in the way, or cannot be written, and FloatingPointError
    when a value, a gradient or a weight is no longer finite: no checkpoint ever holds such a state.
    """
    if n_steps < 1 or save_every < 1:
        raise ValueError(f"n_steps and save_every must be at least 1; got {n_steps} and "
                         f"{save_every}.")
    if not learners:
        raise ValueError("There is nothing to train: learners is empty.")
    keeper = _Keeper(checkpoint, learners, n_steps, seed)
    keeper.check(resume, overwrite)
    return _records(step, keeper, save_every, resume)


def _records(step: Step, keeper: "_Keeper", save_every: int, resume: bool) -> Iterator[Record]:
    start = keeper.start(resume)
    interrupts = Interrupts()
    for i in range(start, keeper.n_steps):
        begun = time.perf_counter()
        with interrupts.held():
            values = keeper.guarded(i + 1, _take, step, keeper.device, keeper.seed, i)
        seconds = time.perf_counter() - begun
        yield Record(i + 1, values, seconds)
        last = i + 1 == keeper.n_steps or interrupts.came
        with interrupts.held():
            if last or (i + 1) % save_every == 0 or keeper.is_due(seconds):
                keeper.save(i + 1)
        if interrupts.came:
            raise KeyboardInterrupt(f"Stopped after step {i + 1} of {keeper.n_steps}.")


def _take(step: Step, device: torch.device, seed: int, i: int) -> dict[str, float]:
    """Take step i (counted from 0); its values."""
    own = noise.seed_of("training", seed, i)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(own ^ 1)  # another stream than the generator's
        values = step(torch.Generator(device).manual_seed(own))
    found = {name: float(value) for name, value in values.items()}
    bad = [name for name, value in found.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(f"{' and '.join(bad)} became {found[bad[0]]}")
    return found


class _Keeper:
    """What keeps a run: its learners, and the checkpoint that it goes on from."""

    def __init__(self, path: Path | None, learners: dict[str, Learner], n_steps: int, seed: int):
        self.path = None if path is None else Path(path)
        self.learners, self.n_steps, self.seed = learners, n_steps, seed
        self.accelerator = next(iter(learners.values())).accelerator
        self.device = self.accelerator.device
        self.holds = False  # whether the checkpoint is of this run
        self.saved_at = time.perf_counter()

    def check(self, resume: bool, overwrite: bool) -> None:
        """Raises RuntimeError or ValueError if the run cannot start as it is asked to."""
        there = self.path is not None and self.path.exists()
        if resume and self.path is None:
            raise RuntimeError("resume=True needs the path of a checkpoint.")
        if resume and overwrite:
            raise ValueError("resume and overwrite exclude each other: go on, or start anew.")
        if resume and not there:
            raise RuntimeError(f"There is no checkpoint at {self.path}. Check the path, or start "
                               "without resuming.")
        if there and not (resume or overwrite):
            raise RuntimeError(f"There is a checkpoint at {self.path}; it is left as it is. Go on "
                               "from it (resume=True), give another path, or say that it may be "
                               "replaced (overwrite=True).")

    def start(self, resume: bool) -> int:
        """Make the learners ready; returns how many steps are done."""
        for learner in self.learners.values():
            learner.check_trainable()
        done = self.load() if resume else 0
        for learner in self.learners.values():
            learner.net.train()
        self.accelerator.wait_for_everyone()  # all have looked before one writes
        if not resume:
            self.save(0)
        return done

    def is_due(self, seconds: float) -> bool:
        """Whether the last checkpoint would be too old after another step of so many seconds."""
        return time.perf_counter() - self.saved_at + seconds > SAVE_SECONDS

    def save(self, step: int) -> None:
        """Write the checkpoint, unless a weight is not finite."""
        self.guarded(step, _check_weights, self.learners)
        if self.path is not None and self.accelerator.is_main_process:
            states = {name: learner.state_dict() for name, learner in self.learners.items()}
            files.save_state(self.path, {"step": step, "n_steps": self.n_steps, "seed": self.seed,
                                         "learners": states})
        self.holds = self.path is not None
        self.saved_at = time.perf_counter()

    def load(self) -> int:
        """Put the learners into the checkpoint's state; returns its step."""
        state = files.load_state(self.path)
        run = (state.get("n_steps"), state.get("seed"), sorted(state.get("learners", {})))
        here = (self.n_steps, self.seed, sorted(self.learners))
        if run != here:
            raise RuntimeError(f"The checkpoint {self.path} is of another run: steps, seed and "
                               f"networks are {run[0]}, {run[1]}, {run[2]} there, and {here[0]}, "
                               f"{here[1]}, {here[2]} here. Resume with the same settings, or "
                               "start a new run in another folder.")
        for name, learner in self.learners.items():
            self._load_one(name, learner, state["learners"][name])
        self.holds = True
        return state["step"]

    def _load_one(self, name: str, learner: Learner, state: dict) -> None:
        try:
            learner.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise RuntimeError(f"The checkpoint {self.path} does not fit {name!r} ({reason}). "
                               "Resume with the settings that it was begun with, or start a new "
                               "run in another folder.") from None

    def guarded(self, step: int, function: Callable, *args):
        """``function(*args)``; where it meets what is not finite, the error says what is left."""
        try:
            return function(*args)
        except FloatingPointError as error:
            kept = f"; the last good state is in {self.path}" if self.holds else ""
            raise FloatingPointError(f"{error} at step {step}{kept}. Start again with a "
                                     "lower learning rate, or in fp32 if this was bf16.") from None


def _check_weights(learners: dict[str, Learner]) -> None:
    for name, learner in learners.items():
        for part, weight in learner.net.named_parameters():
            if not weight.isfinite().all():
                raise FloatingPointError(f"{part} of {name!r} is not finite")


def milestones(n_steps: int, n: int = 13) -> list[int]:
    """About n steps of a training at which to look at it, from 0 to n_steps, closer together early
    on."""
    return sorted({round(n_steps * (i / (n - 1))**1.5) for i in range(n)})
