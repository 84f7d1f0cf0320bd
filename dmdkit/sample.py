"""Samplers as generators: each yields every state on the way from noise to image, so the caller owns the pictures.

    for state in sample.ddim(teacher, z, n_steps=16, label=y): ...
    images = state.x
"""
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .denoiser import Denoiser, check_label
from .schedule import Schedule


class State(NamedTuple):
    """A sampler after its ``step``-th network call (counted from 1): at ``t`` it predicted x0, and moved to x."""
    step: int
    t: int
    x: Tensor   # (B, …), the sample after the step; after the last one, the image
    x0: Tensor  # (B, …), the x-prediction at t


def ddim_step(schedule: Schedule, x0: Tensor, eps: Tensor, s: int | Tensor) -> Tensor:
    """x_s = α_s x̂ + σ_s ε̂ (DDIM, eq. 12 with η = 0): re-noise the prediction with its own noise. s = −1: clean."""
    alpha, sigma = schedule.at(s, x0)
    return alpha * x0 + sigma * eps


def posterior(schedule: Schedule, x_t: Tensor, x0: Tensor, t: int, s: int) -> tuple[Tensor, Tensor]:
    """Mean (shaped like x_t) and variance (a broadcasting tensor) of q(x_s | x_t, x) for any s < t.

    With r = α_t/α_s and the noise added between s and t, σ²_{t|s} = σ_t² − r² σ_s²:
    mean = r (σ_s²/σ_t²) x_t + α_s (σ²_{t|s}/σ_t²) x,   variance = σ²_{t|s} σ_s²/σ_t².
    For s = t − 1 these are DDPM's eq. 6–7 (r² = 1 − β_t, σ²_{t|s} = β_t). s = −1 is clean data.
    """
    alpha_t, sigma_t = schedule.at(t, x_t)
    alpha_s, sigma_s = schedule.at(s, x_t)
    ratio = alpha_t / alpha_s
    fresh = sigma_t**2 - ratio**2 * sigma_s**2  # σ²_{t|s}
    mean = ratio * sigma_s**2 / sigma_t**2 * x_t + alpha_s * fresh / sigma_t**2 * x0
    return mean, fresh * sigma_s**2 / sigma_t**2


def _states(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None, guidance: float, clip: bool,
            move) -> Iterator[State]:
    """The loop that both samplers share: predict at t, ``move`` to the next time of the sequence, yield."""
    times = denoiser.schedule.steps(n_steps).tolist()
    check_label(label, len(z), denoiser.n_classes)
    x = z
    for step, (t, s) in enumerate(zip(times, times[1:] + [-1]), start=1):
        with torch.no_grad():
            prediction = denoiser(x, t, label, guidance)
            if clip:
                prediction = prediction._replace(x=prediction.x.clamp(-1, 1))
            x = prediction.x if s < 0 else move(x, prediction, t, s)
        yield State(step, t, x, prediction.x)


def ddim(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None, guidance: float = 0.0,
         generator: torch.Generator | None = None, clip: bool = False) -> Iterator[State]:
    """DDIM (Song et al. 2020) with η = 0: deterministic, an integrator of the probability-flow ODE.

    Args:
        z: (B, …) standard normal noise, images or points, the state at t = T−1.
        n_steps: network calls, 1 … T. With guidance each evaluates the network twice.
        label: (B,) int64 in 0 … 9, or None for no class.
        guidance: w of classifier-free guidance; 0 is none.
        generator: taken so that samplers can be exchanged; DDIM draws nothing.
        clip: clamp each x-prediction to [−1, 1].
    Raises ValueError or TypeError, before the first network call, for n_steps, label or z that do not fit.
    """
    move = lambda x, prediction, t, s: ddim_step(denoiser.schedule, prediction.x, prediction.eps, s)
    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def check_noise(s_noise: float, s_tmax: float) -> None:
    """Raises ValueError unless s_noise is a factor of noise, and s_tmax a share of T."""
    if not 0 <= s_noise < float("inf") or not 0 < s_tmax <= 1:
        raise ValueError("s_noise must be 0 or more, and s_tmax a share of T, in (0, 1]; "
                         f"got {s_noise:g} and {s_tmax:g}.")


def ddpm(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None, guidance: float = 0.0,
         generator: torch.Generator | None = None, clip: bool = True, s_noise: float = 1.0,
         s_tmax: float = 1.0) -> Iterator[State]:
    """Ancestral sampling (DDPM, Algorithm 2) on any n_steps of the T steps: draw x_s from q(x_s | x_t, x̂).

    Arguments as for ``ddim``; ``generator`` draws the fresh noise of every step, on its own device. In steps from
    t/T < s_tmax that noise is s_noise times the posterior's (EDM's S_noise: Karras et al. 2022, Algorithm 2).
    """
    check_noise(s_noise, s_tmax)

    def move(x, prediction, t, s):
        mean, variance = posterior(denoiser.schedule, x, prediction.x, t, s)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return mean + (s_noise if t / denoiser.schedule.T < s_tmax else 1.0) * variance.sqrt() * noise

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def stochastic(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None, guidance: float = 0.0,
               generator: torch.Generator | None = None, clip: bool = False) -> Iterator[State]:
    """For distilled models (Salimans & Ho 2022, Appendix F): a DDIM step of twice the length, then fresh noise back to
    where one of the usual length would have ended. So every call is at a time that the model was trained for.
    Arguments as for ``ddpm``."""
    times = denoiser.schedule.steps(n_steps).tolist() + [-1]
    after = dict(zip(times, times[1:]))

    def move(x, prediction, t, s):
        x_far = ddim_step(denoiser.schedule, prediction.x, prediction.eps, after[s])
        return renoise(denoiser.schedule, x_far, after[s], s, generator)

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def multistep(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None, guidance: float = 0.0,
              generator: torch.Generator | None = None, clip: bool = False) -> Iterator[State]:
    """For few-step students (DMD2, section 4.4): go all the way to the x-prediction, then back with fresh noise to the
    next time of the list. n_steps = 1 is ``Denoiser.generate``. Arguments as for ``ddpm``."""
    move = lambda x, prediction, t, s: renoise(denoiser.schedule, prediction.x, -1, s, generator)
    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def renoise(schedule: Schedule, x_s: Tensor, s: int, t: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw x_t from q(x_t | x_s) for t > s: r x_s + √(σ_t² − r² σ_s²) ε with r = α_t/α_s. s = −1 is clean data."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule.at(s, x_s), schedule.at(t, x_s)
    ratio = alpha_t / alpha_s
    eps = torch.randn(x_s.shape, generator=generator, device=x_s.device, dtype=x_s.dtype)
    return ratio * x_s + (sigma_t**2 - ratio**2 * sigma_s**2).sqrt() * eps


def angular_step(x_t: Tensor, v: Tensor, delta: float | Tensor) -> Tensor:
    """x_{φ−δ} = cos δ x_φ − sin δ v: the DDIM step, written in the angle φ = arctan(σ/α), is a rotation of (x_φ, v)
    (Salimans & Ho 2022, Appendix D). Shaped like x_t; delta in radians, positive towards the data."""
    delta = torch.as_tensor(delta, dtype=x_t.dtype, device=x_t.device)
    return delta.cos() * x_t - delta.sin() * v


def _angle(schedule: Schedule, t: int) -> float:
    """φ = arctan(σ_t/α_t), from 0 for clean data to π/2 for pure noise."""
    alpha, sigma = schedule.at(t, torch.empty(1, dtype=torch.float64))
    return torch.atan2(sigma, alpha).item()


def euler(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None, guidance: float = 0.0,
          generator: torch.Generator | None = None, clip: bool = False) -> Iterator[State]:
    """Euler's method for the probability-flow ODE, which in the angle φ = arctan(σ/α) is dx/dφ = v(x, φ) (Salimans &
    Ho 2022, Appendix D). Order 1. Arguments as for ``ddim``; the last step goes to the x-prediction."""
    def move(x, prediction, t, s):
        return x + (_angle(denoiser.schedule, s) - _angle(denoiser.schedule, t)) * prediction.v

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def heun(denoiser: Denoiser, z: Tensor, n_steps: int, label: Tensor | None = None, guidance: float = 0.0,
         generator: torch.Generator | None = None, clip: bool = False) -> Iterator[State]:
    """Heun's method for the same ODE: an Euler step, then the mean of the velocities at both its ends (Karras et al.
    2022, Algorithm 1). Order 2, at two network calls a step but for the last. Arguments as for ``ddim``."""
    def move(x, prediction, t, s):
        stride = _angle(denoiser.schedule, s) - _angle(denoiser.schedule, t)
        ahead = denoiser(x + stride * prediction.v, s, label, guidance).v
        return x + stride * (prediction.v + ahead) / 2

    return _states(denoiser, z, n_steps, label, guidance, clip, move)


def last(states: Iterator[State]) -> Tensor:
    """Run a sampler to its end and return its images, shaped like z."""
    for state in states:
        pass
    return state.x
