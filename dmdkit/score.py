"""Exact scores: of a Gaussian mixture and of a finite data set, at every noise level. And Langevin sampling.

Both distributions answer for noised data x_t = α x + σ ε in closed form, α and σ being numbers or tensors that
broadcast against x_t (see ``Schedule.at``):

    denoise(x_t, alpha, sigma)       μ = E[x | x_t], shaped like x_t
    log_density(x_t, alpha, sigma)   log p_t(x_t), (B,)

``Exact`` makes either of them a denoiser, so that samplers and DMD take it as they take a trained network.
"""
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .denoiser import Denoiser, Prediction, predict
from .sample import State
from .schedule import Schedule


class GaussianMixture(NamedTuple):
    """Data x ~ Σ_k w_k N(m_k, Σ_k) in D dimensions; noised, x_t ~ Σ_k w_k N(α m_k, α² Σ_k + σ² 1)."""
    means: Tensor        # (K, D)
    covariances: Tensor  # (K, D, D), positive semi-definite; 0 is a point
    weights: Tensor      # (K,), positive, summing to 1

    @classmethod
    def round(cls, means: Tensor, std: float, weights: Tensor | None = None) -> "GaussianMixture":
        """Components of one and the same standard deviation in every direction; equal weights unless given."""
        k, d = means.shape
        weights = torch.full((k,), 1 / k) if weights is None else weights
        return cls(means, std**2 * torch.eye(d).expand(k, d, d), weights)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, (n, D) float32."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        values, vectors = torch.linalg.eigh(self.covariances)
        z = torch.randn(n, self.means.shape[1], generator=generator) * values.clamp(min=0).sqrt()[k]
        return (self.means[k] + torch.einsum("nij,nj->ni", vectors[k], z)).float()

    def denoise(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """μ(x_t) = Σ_k r_k (m_k + α Σ_k (α² Σ_k + σ²)⁻¹ (x_t − α m_k)), with r_k = p(k | x_t)."""
        share, offset, values, alpha, vectors = self._parts(x_t, alpha, sigma)
        inner = alpha * values * offset / (alpha**2 * values + _column(sigma, x_t)**2)
        means = self.means.double() + torch.einsum("kij,bkj->bki", vectors, inner)
        return (share.softmax(1)[..., None] * means).sum(1).to(x_t.dtype)

    def log_density(self, x_t: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
        """log p_t(x_t), (B,); with the defaults that of the data themselves."""
        return self._parts(x_t, alpha, sigma)[0].logsumexp(1).to(x_t.dtype)

    def _parts(self, x_t: Tensor, alpha, sigma):
        """log w_k N(x_t; …) as (B, K), and what it was made of in float64, in the eigenvectors' coordinates: there
        each covariance is a row of variances, so that nothing has to be inverted."""
        values, vectors = torch.linalg.eigh(self.covariances.double())  # (K, D), (K, D, D)
        values, alpha, sigma = values.clamp(min=0), _column(alpha, x_t), _column(sigma, x_t)
        offset = torch.einsum("kji,bkj->bki", vectors, x_t.double()[:, None] - alpha * self.means.double())
        variance = alpha**2 * values + sigma**2
        log = -0.5 * (offset**2 / variance + (2 * math.pi * variance).log()).sum(2) + self.weights.double().log()
        return log, offset, values, alpha, vectors


class FiniteSet(NamedTuple):
    """Data that are one of N points, each as likely: what a perfectly trained network would know of its training
    set. Noised, x_t ~ (1/N) Σ_i N(α x_i, σ² 1), so σ must be positive."""
    points: Tensor  # (N, …), points of the plane or images

    def denoise(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """μ(x_t) = Σ_i softmax_i(−|x_t − α x_i|² / 2σ²) x_i, the ideal denoiser (Karras et al. 2022, eq. 57)."""
        share = self._log(x_t, alpha, sigma).softmax(1)
        return (share @ self.points.flatten(1).double()).reshape(x_t.shape).to(x_t.dtype)

    def log_density(self, x_t: Tensor, alpha, sigma) -> Tensor:
        """log p_t(x_t), (B,)."""
        d, sigma = x_t[0].numel(), _column(sigma, x_t)[:, 0, 0]
        constant = -math.log(len(self.points)) - d / 2 * (2 * math.pi * sigma**2).log()
        return (self._log(x_t, alpha, sigma).logsumexp(1) + constant).to(x_t.dtype)

    def _log(self, x_t: Tensor, alpha, sigma) -> Tensor:
        x, points = x_t.flatten(1).double(), self.points.flatten(1).double()
        alpha, sigma = (_column(value, x_t)[:, :, 0] for value in (alpha, sigma))
        squares = (x**2).sum(1, keepdim=True) - 2 * alpha * (x @ points.T) + alpha**2 * (points**2).sum(1)
        return -squares.clamp(min=0) / (2 * sigma**2)


def _column(value, like: Tensor) -> Tensor:
    """α or σ, a number or a tensor that broadcasts against ``like``, as (B or 1, 1, 1) in float64."""
    return torch.as_tensor(value, dtype=torch.float64).to(like.device).reshape(-1, 1, 1)


def ring(n: int = 8, radius: float = 0.75, std: float = 0.06) -> GaussianMixture:
    """n equal round modes on a circle."""
    angle = 2 * math.pi * torch.arange(n) / n
    return GaussianMixture.round(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def two_modes(distance: float = 1.2, std: float = 0.12) -> GaussianMixture:
    """Two equal round modes, left and right of the origin."""
    return GaussianMixture.round(torch.tensor([[-distance / 2, 0.0], [distance / 2, 0.0]]), std)


class Exact:
    """The denoiser that no training can beat: called like a ``Denoiser``, answering in closed form.

    Args:
        data: a ``GaussianMixture`` or a ``FiniteSet``.
        schedule: α_t and σ_t.
    Labels and guidance are taken, so that samplers can be handed either, and change nothing: there are no classes.
    """
    n_classes = 0

    def __init__(self, data: GaussianMixture | FiniteSet, schedule: Schedule):
        self.data, self.schedule = data, schedule

    def __call__(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None, guidance: float = 0.0) -> Prediction:
        alpha, sigma = self.schedule.at(t, x_t)
        return predict("x", self.data.denoise(x_t, alpha, sigma), x_t, alpha, sigma)


def langevin(denoiser: Denoiser | Exact, x: Tensor, t: int, step_size: float, n_steps: int,
             generator: torch.Generator | None = None) -> Iterator[State]:
    """Langevin dynamics at one noise level: x ← x + (η/2) s(x) + √η z, whose samples tend to the smoothed density as
    n_steps grows and η falls (Song & Ermon 2019, eq. 4).

    It moves data to which the noise σ_t/α_t was added, not scaled down by α_t as x_t is: the score of those is
    α_t s(α_t x, t). Yields a ``State`` a step, whose x0 is the x-prediction before it. Raises ValueError for η ≤ 0,
    n_steps < 1, or t with α_t = 0, where nothing of the data is left.
    """
    _check_steps(n_steps)
    if not step_size > 0:
        raise ValueError(f"step_size must be positive; got {step_size}.")
    if denoiser.schedule.alpha[t] == 0:
        raise ValueError(f"At t = {t} α is 0: there is no noise level σ/α. Choose an earlier t.")
    for step in range(1, n_steps + 1):
        alpha, _ = denoiser.schedule.at(t, x)
        with torch.no_grad():
            prediction = denoiser(alpha * x, t)
        z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        x = x + step_size / 2 * alpha * prediction.score + step_size**0.5 * z
        yield State(step, t, x, prediction.x)


def annealed_langevin(denoiser: Denoiser | Exact, x: Tensor, times: Sequence[int], n_each: int, step_size: float,
                      generator: torch.Generator | None = None) -> Iterator[State]:
    """Langevin at one noise level after another, η_i = ε ς_i²/ς_L² with ς = σ/α (Song & Ermon 2019, Algorithm 1).

    x: (B, …), the start, as a rule noise of the size ς of the first time; times: falling, see ``noise_levels``;
    n_each: steps at each; step_size: ε, the step at the last of them. Raises as ``langevin`` does.
    """
    _check_steps(n_each)
    if len(times) == 0 or denoiser.schedule.alpha[list(times)].min() <= 0:
        raise ValueError(f"times must be at least one, all with α > 0, as noise_levels gives them; got {list(times)}.")
    ratio = denoiser.schedule.sigma / denoiser.schedule.alpha
    for t in times:
        for state in langevin(denoiser, x, t, step_size * float(ratio[t] / ratio[times[-1]])**2, n_each, generator):
            yield state
        x = state.x


def _check_steps(n: int) -> None:
    if n < 1:
        raise ValueError(f"Langevin takes at least one step at a noise level; got {n}.")


def noise_levels(schedule: Schedule, n: int, first: float, last: float) -> list[int]:
    """The n times whose noise ς = σ/α comes nearest to a geometric sequence from ``first`` down to ``last``, which is
    how NCSN spaces its levels (Song & Ermon 2019, section 4.2). Raises ValueError unless first ≥ last > 0 and n ≥ 1."""
    if n < 1:
        raise ValueError(f"There must be at least one noise level; got n = {n}.")
    if not first >= last > 0:
        raise ValueError(f"The first noise level must be the largest, and the last positive; got {first} and {last}.")
    wanted = torch.linspace(math.log(first), math.log(last), n, dtype=torch.float64)
    levels = (schedule.sigma / schedule.alpha).log()  # infinite where α = 0, and so never the nearest
    return [int((levels - level).abs().argmin()) for level in wanted]
