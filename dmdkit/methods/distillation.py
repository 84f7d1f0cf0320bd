"""What every distillation by distribution matching has in common: its settings, how it starts and
what is kept of it.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .. import expect, noise
from ..denoiser import Denoiser, Prediction
from ..train import Learner, Training

WEIGHTINGS = ("released", "paper", "kl", "none")
"""Of the matching gradient, see ``dmd.matching_gradient``."""


def guided(teacher: Callable[..., Prediction], guidance: float) -> Callable[..., Prediction]:
    """The teacher, guided by its labels where guidance is not 0. Raises ValueError for guidance
    that is no number, and for a teacher that has no classes to guide by."""
    if not math.isfinite(guidance):
        raise ValueError(f"guidance must be a finite number; got {guidance}.")
    if guidance and not getattr(teacher, "n_classes", 0):
        raise ValueError("This teacher has no classes to guide by: leave guidance at 0; "
                         f"got {guidance:g}.")
    return partial(teacher, guidance=guidance) if guidance else teacher


def check_schedules(student: Denoiser, teacher: Callable, fake: Denoiser | None = None) -> None:
    """Raises ValueError unless teacher and fake score have the student's schedule: by another one
    x_t has another amount of noise. Of a teacher that is a plain function nothing is known."""
    for part, net in (("teacher", getattr(teacher, "func", teacher)), ("fake score", fake)):
        schedule = getattr(net, "schedule", None)
        if schedule is not None and not student.schedule.same(schedule):
            raise ValueError(f"The {part} has another schedule than the student, "
                             f"{schedule.name!r} of T = {schedule.T}, not "
                             f"{student.schedule.name!r} of T = {student.schedule.T}. They must "
                             "have one, value by value.")


@dataclass(frozen=True)
class Distillation:
    """What DMD's and DMD2's settings have in common."""
    teacher: str = "teacher"      # an artefact, or "exact": the task's own closed form
    start: str = ""               # the artefact that the student starts from; none: the teacher
    network: str = ""             # one of the task's, where neither can be copied
    guidance: float = 0.0         # of the real score, and of the pairs
    updates: tuple[int, int] = (1, 1)  # of the generator and of the fake score in a step
    t_range: tuple[float, float] = (0.02, 0.98)  # of the matching term, as shares of T
    weighting: str = "released"
    matching: bool = True         # False leaves the matching term out
    lr: float = 5e-4
    fake_lr: float = 5e-4
    fake_annealed: bool = True    # False: the fake score's rate stays as it is
    head_start: int = 0           # updates of a fake score before the first of the generator
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 100
    max_grad_norm: float = 1.0
    ema: float = 0.995
    kept: float = 1.0             # the share of the trained weights in what is kept, see ``finish``

    def __post_init__(self):
        low, high = self.t_range
        if not 0 <= low < high <= 1:
            raise ValueError("t_range must be two shares of T, 0 ≤ low < high ≤ 1; "
                             f"got {self.t_range}.")
        for name, number, least in (("updates of the generator", self.updates[0], 1),
                                    ("updates of the fake score", self.updates[1], 0),
                                    ("head_start", self.head_start, 0)):
            expect.whole(name, number, least)
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; "
                             f"got {self.weighting!r}.")
        ignored = [name for name in ("t_range", "weighting")
                   if getattr(self, name) != getattr(Distillation, name)]
        if ignored and not self.matching:
            raise ValueError(f"{ignored[0]} belongs to the matching term; without it (matching = "
                             "False) it would be ignored. Leave it out.")
        if not 0 < self.kept <= 1:
            raise ValueError("kept must be a share of the trained weights, above 0 and at most 1; "
                             f"got {self.kept}.")
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number; got {self.guidance}.")
        if self.start and self.network:
            raise ValueError("start and network both say what the student starts as; give one.")
        if self.teacher == "exact" and not self.network:
            raise ValueError("An exact denoiser cannot be copied: say which of the task's networks "
                             "the student is, network=.")

    @property
    def requires(self) -> dict[str, str]:
        """Artefacts that the training starts from, by their part in it."""
        named = {"teacher": self.teacher if self.teacher != "exact" else "", "start": self.start}
        return {role: name for role, name in named.items() if name}

    def prepare(self, task, accelerator, n_steps: int, batch_size: int, sources) -> Training:
        """The training, ready to run: the generator and, where there is one, the fake score start
        as copies of the teacher, which is frozen. Raises ValueError for a teacher that cannot be
        guided, and what loading, ``step`` and making pairs raise."""
        teacher = sources.load(self.teacher)
        real = guided(teacher, self.guidance)
        learners = self.learners(task, accelerator, n_steps, sources, teacher)
        generator = learners["generator"]
        start = weights(generator.net) if self.kept < 1 else {}
        step = self.step(task, learners, real, batch_size, sources)
        for i in range(self.head_start if self.has_fake else 0):
            step.update_fake(noise.generator("training", i, -1, accelerator.device))
        frozen = (teacher.eval(),) if isinstance(teacher, Denoiser) else ()
        finish = partial(finished, generator, self.kept, start)
        return Training(learners, step, frozen=frozen, finish=finish)

    def learners(self, task, accelerator, n_steps: int, sources, teacher) -> dict[str, Learner]:
        """The generator's learner, and the fake score's if it is trained at all."""
        shared = {"betas": self.betas, "warmup": self.warmup, "max_grad_norm": self.max_grad_norm}
        student = self.student(task, sources, teacher)
        found = {"generator": Learner(student, accelerator, lr=self.lr, ema=self.ema,
                                      n_steps=n_steps * self.updates[0], **shared)}
        if self.has_fake:
            n_fake = self.head_start + n_steps * self.updates[1] if self.fake_annealed else 10**9
            found["fake"] = Learner(self.fake_score(task, teacher), accelerator, lr=self.fake_lr,
                                    ema=0.0, n_steps=max(n_fake, 1), **shared)
        return found

    def student(self, task, sources, teacher) -> Denoiser:
        """The generator as it starts."""
        if self.start:
            return sources.load(self.start).copy()
        return task.network(self.network) if self.network else teacher.copy()

    def fake_score(self, task, teacher) -> Denoiser:
        """The fake score as it starts."""
        return task.network("fake") if self.network else teacher.copy()


def check_networks(settings: Distillation, student: Denoiser, fake: Denoiser | None,
                   teacher: Callable[..., Prediction]) -> None:
    """Raises ValueError unless the networks fit each other and the settings."""
    T = student.schedule.T
    low, high = (round(share * T) for share in settings.t_range)
    if low == high:
        raise ValueError(f"No t of 0 … {T - 1} lies in t_range {settings.t_range}.")
    if (fake is None) == settings.has_fake:
        raise ValueError("The settings (fake, matching) and the fake score that is given do not "
                         f"agree: there {'is' if fake is None else 'is not'} to be one.")
    if fake and fake.prediction == "both":
        raise ValueError("A fake score that predicts 'both' has no single target, which the "
                         "denoising loss needs. Distil a teacher that predicts x, eps or v.")
    check_schedules(student, teacher, fake)


def weights(net: Denoiser) -> dict[str, Tensor]:
    """Copies of a network's parameters, by name."""
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def finished(generator: Learner, kept: float, start: dict[str, Tensor]) -> Denoiser:
    """The student as it is kept: the generator's averaged weights, with ``kept`` < 1 drawn back on
    the straight line to ``start``, those it started from (Wortsman et al. 2022, "Robust fine-tuning
    of zero-shot models"). This is no part of DMD. The training can go on after the generator's
    ``restore``."""
    net = generator.averaged()
    if kept == 1:
        return net
    if not generator.holds_average:  # these are the trained weights themselves, which are not ours
        net = net.copy().eval()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.lerp_(start[name], 1 - kept)
    return net
