"""Samplers as generators: each yields every state on the way from noise to image, so the caller
owns the pictures.

    for state in sample.ddim(teacher, z, n_steps=16, label=y): ...
    images = state.x

All take the same arguments:

    denoiser: a ``Denoiser``, or what is called like one.
    z: (B, …) noise, images or points: the state at t = T−1, standard normal where σ is 1 there.
    n_steps: network calls, 1 … T. With guidance each evaluates the network twice.
    label: (B,) int64 in 0 … n_classes − 1, or None for no class.
    guidance: w of classifier-free guidance; 0 is none.
    generator: draws the fresh noise, on its own device; samplers that draw none take it so that
        samplers can be exchanged.
    clip: clamp every x-prediction to [−1, 1]; ε̂ and v̂ then follow from the clamped x̂.

and raise ValueError or TypeError for what does not fit: n_steps and labels at once, the rest before
the first network call. They hold for any schedule.
"""
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from . import expect
from .denoiser import Denoiser, Prediction, predict
from .schedule import Schedule

Move = Callable[[Tensor, Prediction, int, int], Tensor]
"""(x_t, prediction, t, s) → x_s."""


class State(NamedTuple):
    """A sampler after its ``step``-th network call (counted from 1): at ``t`` it predicted x0, and
    moved to x."""
    step: int
    t: int
    x: Tensor   # (B, …), the sample after the step; after the last one, the image
    x0: Tensor  # (B, …), the x-prediction at t


def ddim_step(schedule: Schedule, x0: Tensor, eps: Tensor, s: int | Tensor) -> Tensor:
    """x_s = α_s x̂ + σ_s ε̂ (DDIM, eq. 12 with η = 0): re-noise the prediction with its own noise.
    s = −1: clean."""
    return schedule.noise(x0, s, eps)


def transition(schedule: Schedule, s: int | Tensor, t: int | Tensor, like: Tensor) -> tuple:
    """r and σ²_{t|s} of q(x_t | x_s) = N(r x_s, σ²_{t|s}): r = α_t/α_s, σ²_{t|s} = σ_t² − r² σ_s²,
    for s ≤ t. Where nothing of the data is left at s already (α_s = 0), r is 0: all is drawn anew.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule.at(s, like), schedule.at(t, like)
    ratio = torch.where(alpha_s > 0, alpha_t / alpha_s, 0.0)
    return ratio, (sigma_t**2 - ratio**2 * sigma_s**2).clamp(min=0)  # rounding: −1e-6


def posterior(schedule: Schedule, x_t: Tensor, x0: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
    """Mean (shaped like x_t) and variance (a broadcasting tensor) of q(x_s | x_t, x) for any s < t.

    With r = α_t/α_s and the noise added between s and t, σ²_{t|s} = σ_t² − r² σ_s²:
    mean = r (σ_s²/σ_t²) x_t + α_s (σ²_{t|s}/σ_t²) x,   variance = σ²_{t|s} σ_s²/σ_t².
    For s = t − 1 these are DDPM's eq. 6–7 (r² = 1 − β_t, σ²_{t|s} = β_t). s = −1 is clean data.
    Raises ValueError unless s < t, and for samples of unlike shapes.
    """
    expect.alike(x_t=x_t, x0=x0)
    expect.order(s, t)
    ratio, fresh = transition(schedule, s, t, x_t)
    (alpha_s, sigma_s), (_, sigma_t) = schedule.at(s, x_t), schedule.at(t, x_t)
    mean = ratio * sigma_s**2 / sigma_t**2 * x_t + alpha_s * fresh / sigma_t**2 * x0
    return mean, fresh * sigma_s**2 / sigma_t**2


def renoise(schedule: Schedule, x_s: Tensor, s: int | Tensor, t: int | Tensor,
            generator: torch.Generator | None = None) -> Tensor:
    """Draw x_t from q(x_t | x_s) for t > s: r x_s + √(σ_t² − r² σ_s²) ε with r = α_t/α_s. s = −1
    is clean data. Raises ValueError unless s < t."""
    expect.floating(x_s=x_s)
    expect.order(s, t)
    ratio, fresh = transition(schedule, s, t, x_s)
    return ratio * x_s + fresh.sqrt() * draw(x_s, generator)


def draw(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise like a tensor, drawn where the generator is."""
    device = like.device if generator is None else generator.device
    noise = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype)
    return noise.to(like.device)


def _predict(denoiser: Denoiser, x_t: Tensor, t: int, label: Tensor | None, guidance: float,
             clip: bool) -> Prediction:
    """The prediction at t. A clamped x̂ brings its own ε̂ = (x_t − α x̂)/σ, and v̂: with those of
    before, α x̂ + σ ε̂ would not be x_t."""
    prediction = denoiser(x_t, t, label, guidance)
    if not clip:
        return prediction
    return predict("x", prediction.x.clamp(-1, 1), x_t, *denoiser.schedule.at(t, x_t))


def _states(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None, guidance: float,
            clip: bool, move: Move) -> Iterator[State]:
    """The loop that all samplers share: predict at t, ``move`` to the next time, yield."""
    times = denoiser.schedule.times(n_steps)
    expect.floating(z=z)
    expect.check_label(label, len(z), denoiser.n_classes, wait=True)
    expect.guidance(guidance, label, denoiser.n_classes)

    def states():
        x = z
        for step, (t, s) in enumerate(zip(times, times[1:] + [-1]), start=1):
            with torch.no_grad():
                prediction = _predict(denoiser, x, t, label, guidance, clip)
                x = prediction.x if s < 0 else move(x, prediction, t, s)
            yield State(step, t, x, prediction.x)

    return states()


def ddim(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None,
         guidance: float = 0.0, generator: torch.Generator | None = None,
         clip: bool = False) -> Iterator[State]:
    """DDIM (Song et al. 2020) with η = 0: deterministic, an integrator of the probability-flow
    ODE."""
    def move(x: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        return ddim_step(denoiser.schedule, prediction.x, prediction.eps, s)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def check_noise(s_noise: float = 1.0, s_tmax: float = 1.0) -> tuple[float, float]:
    """Both. Raises ValueError unless s_noise is a factor of noise, and s_tmax a share of T."""
    if not 0 <= s_noise < float("inf") or not 0 < s_tmax <= 1:
        raise ValueError("s_noise must be 0 or more, and s_tmax a share of T, in (0, 1]; "
                         f"got {s_noise:g} and {s_tmax:g}.")
    return s_noise, s_tmax


def ddpm(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None,
         guidance: float = 0.0, generator: torch.Generator | None = None, clip: bool | None = None,
         **noise: float) -> Iterator[State]:
    """Ancestral sampling (DDPM, Algorithm 2) on any n_steps of the T steps: draw x_s from
    q(x_s | x_t, x̂).

    clip: as everywhere; None clamps images, as DDPM does, and not points. noise: s_noise and
    s_tmax, both 1 unless given. In steps from t/T < s_tmax the fresh noise is s_noise times the
    posterior's (EDM's S_noise: Karras et al. 2022, Algorithm 2).
    """
    s_noise, s_tmax = check_noise(**noise)
    clip = z.ndim == 4 if clip is None else clip

    def move(x: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        mean, variance = posterior(denoiser.schedule, x, prediction.x, t, s)
        scale = s_noise if t / denoiser.schedule.T < s_tmax else 1.0
        return mean + scale * variance.sqrt() * draw(x, generator)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def stochastic(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None,
               guidance: float = 0.0, generator: torch.Generator | None = None,
               clip: bool = False) -> Iterator[State]:
    """For distilled models (Salimans & Ho 2022, Appendix F): a DDIM step of twice the length, then
    fresh noise back to where one of the usual length would have ended. So every call is at a time
    that the model was trained for."""
    times = denoiser.schedule.times(n_steps) + [-1]
    after = dict(zip(times, times[1:]))

    def move(x: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        x_far = ddim_step(denoiser.schedule, prediction.x, prediction.eps, after[s])
        return renoise(denoiser.schedule, x_far, after[s], s, generator)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def multistep(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None,
              guidance: float = 0.0, generator: torch.Generator | None = None,
              clip: bool = False) -> Iterator[State]:
    """For few-step students (DMD2, section 4.4): go all the way to the x-prediction, then back with
    fresh noise to the next time of the list. n_steps = 1 is ``Denoiser.generate``, unclamped."""
    def move(x: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        return renoise(denoiser.schedule, prediction.x, -1, s, generator)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def _polar(schedule: Schedule, t: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The angle φ = arctan(σ_t/α_t), from 0 for clean data to π/2 for pure noise, and the length
    ρ = √(α_t² + σ_t²), which is 1 where variance is preserved. Taken in float64, and then ``like``
    the samples."""
    alpha, sigma = schedule.at(t, torch.empty(1, dtype=torch.float64))
    angle, length = torch.atan2(sigma, alpha), torch.hypot(alpha, sigma)
    return angle.to(like.dtype).to(like.device), length.to(like.dtype).to(like.device)


def _turn(schedule: Schedule, x_t: Tensor, v: Tensor, t: int, s: int) -> Tensor:
    """One Euler step of the probability-flow ODE from t to s. With x_t = ρ y, y = cos φ x + sin φ ε
    keeps its variance, and dy/dφ = cos φ ε̂ − sin φ x̂ = v/ρ."""
    (angle_t, length_t), (angle_s, length_s) = _polar(schedule, t, x_t), _polar(schedule, s, x_t)
    return length_s * (x_t + (angle_s - angle_t) * v) / length_t


def euler(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None,
          guidance: float = 0.0, generator: torch.Generator | None = None,
          clip: bool = False) -> Iterator[State]:
    """Euler's method for the probability-flow ODE, which in the angle φ = arctan(σ/α) is
    dx/dφ = v(x, φ) (Salimans & Ho 2022, Appendix D); where variance is not preserved, that of
    x/√(α² + σ²). Order 1; the last step goes to the x-prediction."""
    def move(x: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        return _turn(denoiser.schedule, x, prediction.v, t, s)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def heun(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None,
         guidance: float = 0.0, generator: torch.Generator | None = None,
         clip: bool = False) -> Iterator[State]:
    """Heun's method for the same ODE: an Euler step, then the mean of the velocities at both its
    ends (Karras et al. 2022, Algorithm 1). Order 2, at two network calls a step but for the
    last."""
    schedule = denoiser.schedule

    def move(x: Tensor, prediction: Prediction, t: int, s: int) -> Tensor:
        ahead = _turn(schedule, x, prediction.v, t, s)
        there = _predict(denoiser, ahead, s, label, guidance, clip).v
        (_, here_length), (_, there_length) = _polar(schedule, t, x), _polar(schedule, s, x)
        mean = (prediction.v + there * here_length / there_length) / 2
        return _turn(schedule, x, mean, t, s)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def last(states: Iterator[State]) -> Tensor:
    """Run a sampler to its end and return its images, shaped like z. Raises ValueError for a
    sampler without a state, such as one that has run already."""
    state = None
    for state in states:
        pass
    if state is None:
        raise ValueError("This sampler yields no state: it has been run already. Make a new one.")
    return state.x
