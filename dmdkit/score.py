"""Exact scores, of a Gaussian mixture and of a finite data set, and Langevin sampling.

Both distributions answer for noised data x_t = α x + σ ε in closed form, α and σ being numbers or
tensors that broadcast against x_t (see ``Schedule.at``):

    denoise(x_t, alpha, sigma)       μ = E[x | x_t], shaped like x_t
    log_density(x_t, alpha, sigma)   log p_t(x_t), (B,)

They compute in float64 on the CPU and answer in x_t's dtype on its device.
"""
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import expect, sample
from .denoiser import Denoiser, Prediction, predict
from .sample import State
from .schedule import Schedule


class GaussianMixture(NamedTuple):
    """Data x ~ Σ_k w_k N(m_k, Σ_k) in D dimensions; noised, x_t ~ Σ_k w_k N(α m_k, α² Σ_k + σ² 1).
    Its methods raise TypeError or ValueError for tensors that are none of that."""
    means: Tensor        # (K, D)
    covariances: Tensor  # (K, D, D), positive semi-definite; 0 is a point
    weights: Tensor      # (K,), positive, summing to 1

    @classmethod
    def round(cls, means: Tensor, std: float, weights: Tensor | None = None) -> "GaussianMixture":
        """Components of one and the same standard deviation in every direction; equal weights
        unless given."""
        k, d = means.shape
        weights = torch.full((k,), 1 / k) if weights is None else weights
        return cls(means, std**2 * torch.eye(d).expand(k, d, d), weights)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.means.shape[1:])

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, (n, D) float32."""
        self._check()
        n = expect.whole("n", n)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        values, vectors = torch.linalg.eigh(self.covariances)
        z = torch.randn(n, self.means.shape[1], generator=generator)
        z = z * values.clamp(min=0).sqrt()[k]
        return (self.means[k] + torch.einsum("nij,nj->ni", vectors[k], z)).float()

    def denoise(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """μ(x_t) = Σ_k r_k (m_k + α Σ_k (α² Σ_k + σ²)⁻¹ (x_t − α m_k)), with r_k = p(k | x_t)."""
        share, offset, values, alpha, vectors = self._parts(x_t, alpha, sigma)
        inner = alpha * values * offset / (alpha**2 * values + _column(sigma)**2)
        means = self.means.cpu().double() + torch.einsum("kij,bkj->bki", vectors, inner)
        return _like(x_t, (share.softmax(1)[..., None] * means).sum(1))

    def log_density(self, x_t: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
        """log p_t(x_t), (B,); with the defaults that of the data themselves."""
        return _like(x_t, self._parts(x_t, alpha, sigma)[0].logsumexp(1))

    def _parts(self, x_t: Tensor, alpha, sigma):
        """log w_k N(x_t; …) as (B, K), and what it was made of in float64, in the eigenvectors'
        coordinates: there each covariance is a row of variances, so that nothing is inverted."""
        self._check()
        expect.batch("samples", x_t, self.sample_shape)
        expect.factors(x_t, alpha=alpha, sigma=sigma)
        values, vectors = torch.linalg.eigh(self.covariances.cpu().double())  # (K, D), (K, D, D)
        values, alpha, sigma = values.clamp(min=0), _column(alpha), _column(sigma)
        offset = x_t.cpu().double()[:, None] - alpha * self.means.cpu().double()
        offset = torch.einsum("kji,bkj->bki", vectors, offset)
        variance = alpha**2 * values + sigma**2
        log = -0.5 * (offset**2 / variance + (2 * math.pi * variance).log()).sum(2)
        return log + self.weights.cpu().double().log(), offset, values, alpha, vectors

    def _check(self) -> None:
        expect.floating(means=self.means, covariances=self.covariances, weights=self.weights)
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        if not k or self.covariances.shape != (k, d, d) or self.weights.shape != (k,):
            shapes = [tuple(tensor.shape) for tensor in self]
            raise ValueError("A mixture has means (K, D), covariances (K, D, D) and weights (K,); "
                             f"got {shapes[0]}, {shapes[1]} and {shapes[2]}.")


class FiniteSet(NamedTuple):
    """Data that are one of N points, each as likely: what a perfectly trained network would know of
    its training set. Noised, x_t ~ (1/N) Σ_i N(α x_i, σ² 1), so σ must be positive."""
    points: Tensor  # (N, …), points of the plane or images

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.points.shape[1:])

    def denoise(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """μ(x_t) = Σ_i softmax_i(−|x_t − α x_i|² / 2σ²) x_i, the ideal denoiser (Karras et al.
        2022, eq. 57)."""
        share = self._log(x_t, alpha, sigma).softmax(1)
        means = share @ self.points.cpu().flatten(1).double()
        return _like(x_t, means.reshape(x_t.shape))

    def log_density(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """log p_t(x_t), (B,)."""
        log, d = self._log(x_t, alpha, sigma), math.prod(self.sample_shape)
        constant = (2 * math.pi * _column(sigma)[:, 0, 0]**2).log()
        return _like(x_t, log.logsumexp(1) - math.log(len(self.points)) - d / 2 * constant)

    def _log(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """−|x_t − α x_i|² / 2σ², (B, N)."""
        expect.floating(points=self.points)
        expect.batch("samples", x_t, self.sample_shape)
        expect.factors(x_t, alpha=alpha, sigma=sigma)
        x, points = x_t.cpu().flatten(1).double(), self.points.cpu().flatten(1).double()
        alpha, sigma = _column(alpha)[:, :, 0], _column(sigma)[:, :, 0]
        squares = (x**2).sum(1, keepdim=True) - 2 * alpha * (x @ points.T)
        squares = squares + alpha**2 * (points**2).sum(1)
        return -squares.clamp(min=0) / (2 * sigma**2)


def _column(value: float | Tensor) -> Tensor:
    """α or σ, a number or a tensor that broadcasts against samples, as (B or 1, 1, 1) in float64 on
    the CPU."""
    if isinstance(value, Tensor):
        return value.cpu().double().reshape(-1, 1, 1)
    return torch.tensor(value, dtype=torch.float64).reshape(1, 1, 1)


def _like(x_t: Tensor, answer: Tensor) -> Tensor:
    return answer.to(x_t.dtype).to(x_t.device)  # in this order: a device may have no float64


def ring(n: int = 8, radius: float = 0.75, std: float = 0.06) -> GaussianMixture:
    """n equal round modes on a circle."""
    angle = 2 * math.pi * torch.arange(expect.whole("n", n)) / n
    return GaussianMixture.round(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def two_modes(distance: float = 1.2, std: float = 0.12) -> GaussianMixture:
    """Two equal round modes, left and right of the origin."""
    means = torch.tensor([[-distance / 2, 0.0], [distance / 2, 0.0]])
    return GaussianMixture.round(means, std)


class Exact:
    """The denoiser that no training can beat: called like a ``Denoiser``, answering in closed form.

    Args:
        data: a ``GaussianMixture`` or a ``FiniteSet``; schedule: α_t and σ_t.
    There are no classes: label may be None or all 0, and guidance has to be 0.
    """
    n_classes = 0

    def __init__(self, data: GaussianMixture | FiniteSet, schedule: Schedule):
        self.data, self.schedule = data, schedule

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.data.sample_shape

    def __call__(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None,
                 guidance: float = 0.0) -> Prediction:
        expect.batch("samples", x_t, self.sample_shape)
        expect.check_label(label, len(x_t), self.n_classes)
        expect.guidance(guidance, label, self.n_classes)
        t = expect.times(t, len(x_t), self.schedule.T)
        alpha, sigma = self.schedule.at(t, x_t)
        return predict("x", self.data.denoise(x_t, alpha, sigma), x_t, alpha, sigma)


def langevin_step(x: Tensor, score: Tensor, step_size: float, z: Tensor) -> Tensor:
    """x + (η/2) s + √η z, with fresh noise z; all (B, …) (Song & Ermon 2019, eq. 4)."""
    return x + step_size / 2 * score + step_size**0.5 * z


def langevin(denoiser: Denoiser | Exact, x: Tensor, t: int, step_size: float, n_steps: int,
             generator: torch.Generator | None = None) -> Iterator[State]:
    """Langevin dynamics at one noise level, whose samples tend to the smoothed density as n_steps
    grows and η falls.

    It moves data to which the noise σ_t/α_t was added, not scaled down by α_t as x_t is: the score
    of those is α_t s(α_t x, t). Yields a ``State`` a step, whose x0 is the x-prediction before it.
    Raises ValueError, at once, for η ≤ 0, n_steps < 1, or t with α_t = 0: no data are left there.
    """
    n_steps = expect.whole("n_steps", n_steps)
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be positive; got {step_size}.")
    _noise_levels(denoiser.schedule, [t])
    return _langevin(denoiser, x, t, step_size, n_steps, generator)


def _langevin(denoiser: Denoiser | Exact, x: Tensor, t: int, step_size: float, n_steps: int,
              generator: torch.Generator | None) -> Iterator[State]:
    for step in range(1, n_steps + 1):
        alpha, _ = denoiser.schedule.at(t, x)
        with torch.no_grad():
            prediction = denoiser(alpha * x, t)
        x = langevin_step(x, alpha * prediction.score, step_size, sample.draw(x, generator))
        yield State(step, t, x, prediction.x)


def annealed_langevin(denoiser: Denoiser | Exact, x: Tensor, times: Sequence[int], n_each: int,
                      step_size: float, generator: torch.Generator | None = None
                      ) -> Iterator[State]:
    """Langevin at one noise level after another, η_i = ε ς_i²/ς_L² with ς = σ/α (Song & Ermon
    2019, Algorithm 1).

    x: (B, …), the start, as a rule noise of the size ς of the first time; times: falling, see
    ``noise_levels``; n_each: steps at each; step_size: ε, the step at the last of them. Raises as
    ``langevin`` does.
    """
    expect.whole("n_each", n_each)
    if not len(times):
        raise ValueError("times must be at least one, as noise_levels gives them; got none.")
    levels = _noise_levels(denoiser.schedule, times)
    for t, level in zip(times, levels):
        size = step_size * (level / levels[-1])**2
        for state in langevin(denoiser, x, t, size, n_each, generator):
            yield state
        x = state.x


def _noise_levels(schedule: Schedule, times: Sequence[int]) -> list[float]:
    """ς = σ/α at each of the times. Raises ValueError where α is 0."""
    alphas, sigmas = schedule.alpha.tolist(), schedule.sigma.tolist()
    for t in times:
        if alphas[expect.times(t, 1, schedule.T)] == 0:
            raise ValueError(f"At t = {t} α is 0: there is no noise level σ/α. "
                             "Choose an earlier t.")
    return [sigmas[t] / alphas[t] for t in times]


def noise_levels(schedule: Schedule, n: int, first: float, last: float) -> list[int]:
    """The n times whose noise ς = σ/α comes nearest to a geometric sequence from ``first`` down to
    ``last``, which is how NCSN spaces its levels (Song & Ermon 2019, section 4.2). Raises
    ValueError unless first ≥ last > 0 and n ≥ 1."""
    n = expect.whole("n", n)
    if not math.inf > first >= last > 0:
        raise ValueError("The first noise level must be the largest, and the last positive; "
                         f"got {first} and {last}.")
    pairs = zip(schedule.alpha.tolist(), schedule.sigma.tolist())
    levels = [math.log(sigma / alpha) if alpha else math.inf for alpha, sigma in pairs]
    stride = (math.log(last) - math.log(first)) / max(n - 1, 1)
    return [_nearest(levels, math.log(first) + i * stride) for i in range(n)]


def _nearest(levels: list[float], level: float) -> int:
    """The place of the value that comes nearest."""
    gaps = [abs(one - level) for one in levels]
    return gaps.index(min(gaps))
