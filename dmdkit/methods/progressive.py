"""Progressive distillation (Salimans & Ho 2022): a student learns to do in one DDIM step what its teacher does in two,
becomes the teacher, and so on, until one step is left.
"""
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from .data import Images, Points
from .denoiser import Denoiser, Prediction
from .sample import ddim_step
from .schedule import Schedule
from .train import Learner, Record, Step, stratified_times, train

WEIGHTINGS = ("snr", "truncated", "snr+1")


def weight(alpha: Tensor, sigma: Tensor, weighting: str = "truncated") -> Tensor:
    """The weight of ‖x − x̂‖² in the loss (section 4), shaped like ``alpha``. With SNR = α²/σ²:

    "snr": SNR, which makes it ‖ε − ε̂‖², DDPM's loss; it is 0 where α is. "truncated": max(SNR, 1), the larger of the
    errors in x and in ε. "snr+1": SNR + 1, which makes it ‖v − v̂‖². Raises ValueError for another weighting.
    """
    snr = alpha**2 / sigma**2
    if weighting == "snr":
        return snr
    if weighting == "truncated":
        return snr.clamp(min=1)
    if weighting == "snr+1":
        return snr + 1
    raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}.")


def weighted_loss(x: Tensor, target: Tensor, alpha: Tensor, sigma: Tensor, weighting: str = "truncated") -> Tensor:
    """w ‖target − x‖² per pixel, one a sample, (B,). x: predictions, shaped like target (B, …)."""
    return (weight(alpha, sigma, weighting) * (target - x).square()).flatten(1).mean(1)


def stage_times(schedule: Schedule, n_steps: int) -> Tensor:
    """The times t > t′ > t″ of a student of n_steps and its teacher of twice as many, (n_steps, 3) int64, the noisiest
    first: the student goes from t to t″, the teacher by way of t′. The last t″ is −1, clean data.

    Raises ValueError unless 2 n_steps divides T: only then is every time of the student one of its teacher's.
    """
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1 or schedule.T % (2 * n_steps):
        raise ValueError(f"A student of n steps has a teacher of 2n, and 2n must divide T = {schedule.T}; "
                         f"got n = {n_steps!r}.")
    times = schedule.steps(2 * n_steps)
    return torch.stack([times[::2], times[1::2], torch.cat([times[2::2], torch.tensor([-1])])], 1)


def two_steps(teacher: Callable[..., Prediction], schedule: Schedule, z_t: Tensor, t: Tensor, middle: Tensor,
              end: Tensor, label: Tensor | None = None) -> Tensor:
    """Where two DDIM steps of the teacher take z_t (B, …): from t to ``middle`` to ``end``, each (B,) int64, −1 being
    clean data (Algorithm 2). ``partial(teacher, guidance=w)`` guides it."""
    prediction = teacher(z_t, t, label)
    z_middle = ddim_step(schedule, prediction.x, prediction.eps, middle)
    prediction = teacher(z_middle, middle, label)
    return ddim_step(schedule, prediction.x, prediction.eps, end)


def target(z_t: Tensor, z_s: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    """x̃ = (z_s − (σ_s/σ_t) z_t) / (α_s − (σ_s/σ_t) α_t): the x-prediction at z_t whose one DDIM step lands on z_s
    (Algorithm 2 and Appendix G). Shaped like z_t; at the end of the chain, α_s = 1 and σ_s = 0, it is z_s itself.

    Where z_s comes from two steps, x̃ is a weighted mean of the two x-predictions on the way.
    """
    ratio = sigma_s / sigma_t
    return (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)


def halving_step(learner: Learner, teacher: Callable[..., Prediction], images: Images | Points, batch_size: int,
                 n_steps: int, weighting: str = "truncated") -> Step:
    """The step of Algorithm 2: teach ``learner.net`` to do in one of its n_steps what the teacher does in two of its.

    The noise level is drawn from the student's own n_steps times. Global batches of ``batch_size``, shared among the
    processes by ``Learner.share``. Raises ValueError for numbers of steps or a weighting that make no sense, and for a
    student that predicts ε: at t = T−1 there is nothing of x in z, so no ε says what x is.
    """
    student, images = learner.net, images.to(learner.accelerator.device)
    schedule, mine = student.schedule, learner.share(batch_size)
    times = stage_times(schedule, n_steps).to(learner.accelerator.device)
    weight(*schedule.at(0, torch.empty(1)), weighting)  # refuses an unknown one before any work
    if student.prediction == "eps" and schedule.alpha[-1] == 0:
        raise ValueError("A network that predicts ε cannot be distilled where α_T = 0: there x = (z − σ ε)/α divides "
                         "by zero. Distil one that predicts x, v or both.")

    def step(g: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(images), (batch_size,), generator=g, device=g.device)
        eps = torch.randn(batch_size, *student.sample_shape, generator=g, device=g.device)
        t, middle, end = times[stratified_times(batch_size, n_steps, g)][mine].unbind(1)
        x, label = images.batch(index[mine])
        z_t = schedule.noise(x, t, eps[mine])
        alpha, sigma = schedule.at(t, x)
        with torch.no_grad():
            z_end = two_steps(teacher, schedule, z_t, t, middle, end, label)
            x_target = target(z_t, z_end, alpha, sigma, *schedule.at(end, x))
        loss = weighted_loss(learner.model(z_t, t, label).x, x_target, alpha, sigma, weighting).mean()
        norm = learner.update(loss)
        return {"loss": learner.accelerator.reduce(loss.detach(), "mean"), "gradient norm": norm}

    return step


class Stage(NamedTuple):
    """One halving. Going through ``records`` is what trains the student."""
    n_steps: int                # of the student; its teacher took twice as many
    student: Denoiser
    records: Iterator[Record]


def begin(teacher: Denoiser, images: Images | Points, accelerator: Accelerator, n_steps: int, n_updates: int, *,
          batch_size: int = 64, weighting: str = "truncated", guidance: float = 0.0,
          **optimiser) -> tuple[Learner, Step]:
    """A halving that is ready to run: its student, a copy of the teacher with a fresh optimiser whose learning rate
    goes to 0 at ``n_updates``, and its step. The teacher itself is put in eval mode and frozen.

    guidance: of the teacher; its student then needs none. optimiser: what ``train.Learner`` takes besides."""
    learner = Learner(teacher.copy(), accelerator, n_steps=n_updates, **dict(lr=1e-3, ema=0.0) | optimiser)
    frozen = teacher.to(accelerator.device).eval().requires_grad_(False)
    how = partial(frozen, guidance=guidance) if guidance else frozen
    return learner, halving_step(learner, how, images, batch_size, n_steps, weighting)


def halve(teacher: Denoiser, images: Images | Points, accelerator: Accelerator, stages: dict[int, int], *,
          guidance: float = 0.0, seed: int = 0, checkpoints: Path | None = None, resume: bool = False,
          **options) -> Iterator[Stage]:
    """Algorithm 2: yield a ``Stage`` for each entry of ``stages``; the student of one is the teacher of the next.

    Args:
        stages: updates by the student's number of steps, each half of the one before: {4: 100, 2: 100, 1: 200}.
        guidance: of the first stage's teacher; its student has it folded in.
        checkpoints: a folder, where each stage keeps its own. With ``resume`` finished stages are read from there, and
            the one that was stopped goes on where it was.
        options: what ``begin`` takes.
    What the caller leaves of a stage's records is run before the next one starts.
    Raises ValueError for stages that do not halve, RuntimeError for a resume from nowhere, and what ``begin`` and
    ``train.train`` raise.
    """
    if resume and checkpoints is None:
        raise RuntimeError("resume=True needs the folder of the checkpoints.")
    counts = list(stages)
    if not counts or any(2 * after != before for before, after in zip(counts, counts[1:])):
        raise ValueError(f"Each stage must have half the steps of the one before; got {counts}.")
    for count in counts:
        stage_times(teacher.schedule, count)  # refuses a bad number before any work
    for n_steps, n_updates in stages.items():
        learner, step = begin(teacher, images, accelerator, n_steps, n_updates, guidance=guidance, **options)
        path = checkpoints and Path(checkpoints) / f"{n_steps}.safetensors"
        records = train(step, {"net": learner}, n_steps=n_updates, seed=seed + n_steps, checkpoint=path,
                        resume=resume and path.exists())
        yield Stage(n_steps, learner.net, records)
        for _ in records:
            pass
        teacher, guidance = learner.averaged(), 0.0


def evaluations(stages: dict[int, int], batch_size: int, guidance: float = 0.0) -> dict[str, int]:
    """What a chain costs in evaluations of the network, one image each: ``forward`` (the student's one and the
    teacher's two, twice two under guidance) and ``backward``."""
    updates = sum(stages.values())
    first = next(iter(stages.values())) if guidance else 0
    return {"forward": batch_size * (3 * updates + 2 * first), "backward": batch_size * updates}
