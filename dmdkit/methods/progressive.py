"""Progressive distillation (Salimans & Ho 2022): a student learns to do in one DDIM step what its
teacher does in two, becomes the teacher, and so on, until one step is left.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .. import expect
from ..data import Images, Points
from ..denoiser import Denoiser, Prediction
from ..sample import ddim_step
from ..schedule import Schedule
from ..train import Learner, Record, Training, train
from .ddpm import check_data, stratified_times, weight, weighted_loss
from .distillation import check_schedules, guided


def stage_times(schedule: Schedule, n_steps: int) -> Tensor:
    """The times t > t′ > t″ of a student of n_steps and its teacher of twice as many, (n_steps, 3)
    int64, the noisiest first: the student goes from t to t″, the teacher by way of t′. The last t″
    is −1, clean data.

    Raises ValueError unless 2 n_steps divides T: only then is every time of the student one of its
    teacher's.
    """
    whole = isinstance(n_steps, int) and not isinstance(n_steps, bool)
    if not whole or n_steps < 1 or schedule.T % (2 * n_steps):
        raise ValueError(f"A student of n steps has a teacher of 2n, and 2n must divide "
                         f"T = {schedule.T}; got n = {n_steps!r}.")
    times = schedule.steps(2 * n_steps)
    return torch.stack([times[::2], times[1::2], torch.cat([times[2::2], torch.tensor([-1])])], 1)


def two_steps(teacher: Callable[..., Prediction], schedule: Schedule, x_t: Tensor, t: Tensor,
              middle: Tensor, end: Tensor, label: Tensor | None = None) -> Tensor:
    """Where two DDIM steps of the teacher take x_t (B, …): from t to ``middle`` to ``end``, each
    (B,) int64, −1 being clean data (Algorithm 2). ``partial(teacher, guidance=w)`` guides it."""
    prediction = teacher(x_t, t, label)
    x_middle = ddim_step(schedule, prediction.x, prediction.eps, middle)
    prediction = teacher(x_middle, middle, label)
    return ddim_step(schedule, prediction.x, prediction.eps, end)


def target(x_t: Tensor, x_s: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor,
           sigma_s: Tensor) -> Tensor:
    """x̃ = (x_s − (σ_s/σ_t) x_t) / (α_s − (σ_s/σ_t) α_t): the x-prediction at x_t whose one DDIM
    step lands on x_s (Algorithm 2 and Appendix G). Shaped like x_t; at the end of the chain, where
    α_s = 1 and σ_s = 0, it is x_s itself.

    Where x_s comes from two steps, x̃ is a weighted mean of the two x-predictions on the way.
    Raises TypeError or ValueError for tensors that are not floating or of unlike shapes.
    """
    expect.alike(x_t=x_t, x_s=x_s)
    expect.factors(x_t, alpha_t=alpha_t, sigma_t=sigma_t, alpha_s=alpha_s, sigma_s=sigma_s)
    ratio = sigma_s / sigma_t
    return (x_s - ratio * x_t) / (alpha_s - ratio * alpha_t)


def rotate(x_t: Tensor, v: Tensor, phi_t: Tensor, phi_s: Tensor) -> Tensor:
    """x_s = cos δ x_t − sin δ v with δ = φ_t − φ_s: the DDIM step from angle φ_t to φ_s, where
    α = cos φ and σ = sin φ (Appendix D). Shaped like x_t; angles in radians, broadcasting.

    Raises TypeError or ValueError for tensors that are not floating or of unlike shapes.
    """
    expect.alike(x_t=x_t, v=v)
    delta = phi_t - phi_s
    return torch.cos(delta) * x_t - torch.sin(delta) * v


def least_loss(x_t: Tensor, points: Tensor, targets: Tensor, alpha: float,
               sigma: float) -> Tensor:
    """The squared error that the best answer leaves at each x_t, (B,), where the data are one of N
    points, each as likely: the variance of the targets, summed over coordinates.

    x_t: (B, D). points: (N, D). targets: (B, N, D), what is asked for where point i became x_t.
    Raises ValueError for tensors that do not fit each other.
    """
    if targets.shape != (len(x_t), len(points), x_t.shape[1]):
        raise ValueError("targets must be (B, N, D), one for each sample and point; got "
                         f"{tuple(targets.shape)} for {len(x_t)} samples and {len(points)} points.")
    squares = (x_t[:, None] - alpha * points).square().sum(2)
    share = (-squares / (2 * sigma**2)).softmax(1)[..., None]
    mean = (share * targets).sum(1, keepdim=True)
    return (share * (targets - mean).square()).sum((1, 2))


class Halving:
    """The step of Algorithm 2: teach ``learner.net`` to do in one of its n_steps what the teacher
    does in two of its. The noise level is drawn from the student's own n_steps times.

    Args:
        learner: the student's. images: what is noised. batch_size: of all processes together.
        teacher: ``partial(teacher, guidance=w)`` guides it.
    Raises ValueError for numbers of steps or a weighting that make no sense, and for data or a
    teacher that do not fit the student.
    """

    def __init__(self, learner: Learner, teacher: Callable[..., Prediction],
                 images: Images | Points, batch_size: int, n_steps: int,
                 weighting: str = "truncated"):
        student = learner.net
        check_schedules(student, teacher)
        check_data(images, student)
        weight(torch.ones(1), torch.ones(1), weighting)  # an unknown one is refused now
        device = learner.accelerator.device
        self.learner, self.teacher, self.weighting = learner, teacher, weighting
        self.schedule, self.images = student.schedule, images.to(device)
        self.batch_size, self.rows = batch_size, learner.share(batch_size)
        self.times = stage_times(student.schedule, n_steps).to(device)

    def __call__(self, g: torch.Generator) -> dict[str, Tensor]:
        x_t, t, middle, end, label = self.sample(g)
        x_target = self.target(x_t, t, middle, end, label)
        x = self.learner.model(x_t, t, label).x
        alpha, sigma = self.schedule.at(t, x)
        loss = weighted_loss(x, x_target, alpha, sigma, self.weighting).mean()
        norm = self.learner.update(loss)
        loss = self.learner.accelerator.reduce(loss.detach(), "mean")
        return {"loss": loss, "gradient norm": norm}

    def sample(self, g: torch.Generator) -> tuple[Tensor, ...]:
        """Noised images x_t, the three times of each, and labels (or None)."""
        student, n = self.learner.net, self.batch_size
        index = torch.randint(len(self.images), (n,), generator=g, device=g.device)
        eps = torch.randn(n, *student.sample_shape, generator=g, device=g.device)
        times = self.times[stratified_times(n, len(self.times), g)]
        t, middle, end = times[self.rows].unbind(1)
        x, label = self.images.batch(index[self.rows])
        x_t = self.schedule.noise(x, t, eps[self.rows])
        return x_t, t, middle, end, label if student.n_classes else None

    @torch.no_grad()
    def target(self, x_t: Tensor, t: Tensor, middle: Tensor, end: Tensor,
               label: Tensor | None) -> Tensor:
        """What the student should predict at x_t."""
        x_end = two_steps(self.teacher, self.schedule, x_t, t, middle, end, label)
        now, then = self.schedule.at(t, x_t), self.schedule.at(end, x_t)
        return target(x_t, x_end, *now, *then)


@dataclass(frozen=True)
class Settings:
    """One stage; see ``Halving`` and ``Learner`` for what its values mean."""
    student_steps: int
    teacher: str = "teacher"
    guidance: float = 0.0         # of the teacher; its student has it folded in
    weighting: str = "truncated"
    lr: float = 1e-3
    warmup: int = 20
    ema: float = 0.0

    @property
    def requires(self) -> dict[str, str]:
        """Artefacts that the training starts from, by their part in it."""
        return {"teacher": self.teacher}

    def prepare(self, task, accelerator, n_steps: int, batch_size: int, sources) -> Training:
        """The stage, ready to run. Raises what loading and ``begin`` raise."""
        return self.begin(sources.load(self.teacher), task.data(), accelerator, n_steps, batch_size)

    def begin(self, teacher: Denoiser, images: Images | Points, accelerator, n_steps: int,
              batch_size: int) -> Training:
        """The stage of this teacher: its student, a copy with a fresh optimiser whose learning
        rate goes to 0 at n_steps updates, and its step. The teacher is frozen. Raises ValueError
        for a teacher that cannot be guided, and what ``Halving`` raises."""
        real = guided(teacher, self.guidance)
        learner = Learner(teacher.copy(), accelerator, lr=self.lr, n_steps=n_steps,
                          warmup=self.warmup, ema=self.ema)
        teacher = teacher.to(accelerator.device).eval().requires_grad_(False)
        step = Halving(learner, real, images, batch_size, self.student_steps, self.weighting)
        return Training({"net": learner}, step, frozen=(teacher,))


class Stage(NamedTuple):
    """One halving. Going through ``records`` is what trains the student."""
    n_steps: int                # of the student; its teacher took twice as many
    student: Denoiser
    records: Iterator[Record]


def halve(teacher: Denoiser, images: Images | Points, accelerator, stages: dict[int, int], *,
          settings: Settings = Settings(1), batch_size: int = 64, seed: int = 0) -> Iterator[Stage]:
    """Algorithm 2 in memory: yield a ``Stage`` for each entry of ``stages``; the student of one is
    the teacher of the next. What the caller leaves of a stage's records is run before the next one.

    stages: updates by the student's number of steps, each half of the one before:
        {4: 100, 2: 100, 1: 200}.
    settings: of every stage; guidance is of the first one's teacher, whose student has it folded
        in.
    Raises ValueError for stages that do not halve.
    """
    check_stages(teacher.schedule, list(stages))
    for n_steps, n_updates in stages.items():
        stage = replace(settings, student_steps=n_steps)
        training = stage.begin(teacher, images, accelerator, n_updates, batch_size)
        learner = training.learners["net"]
        records = train(training.step, training.learners, n_steps=n_updates, seed=seed + n_steps)
        yield Stage(n_steps, learner.net, records)
        for _ in records:
            pass
        teacher = learner.averaged()
        settings = replace(settings, guidance=0.0)


def check_stages(schedule: Schedule, counts: list[int]) -> None:
    """Raises ValueError unless each number of steps is half the one before, and possible."""
    halves = all(2 * after == before for before, after in zip(counts, counts[1:]))
    if not counts or not halves:
        raise ValueError(f"Each stage must have half the steps of the one before; got {counts}.")
    for count in counts:
        stage_times(schedule, count)


def evaluations(stages: dict[int, int], batch_size: int, guidance: float = 0.0) -> dict[str, int]:
    """What a chain costs in evaluations of the network, one image each: ``forward`` (the student's
    one and the teacher's two, twice two under guidance) and ``backward``."""
    updates = sum(stages.values())
    first = next(iter(stages.values())) if guidance else 0
    return {"forward": batch_size * (3 * updates + 2 * first), "backward": batch_size * updates}
