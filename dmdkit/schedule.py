"""The forward process x_t = α_t x + σ_t ε as a table, and the conversions between ε, x, v and the score.

Every schedule here is variance preserving, α_t² + σ_t² = 1, and t is an integer in 0 … T−1 with t = T−1 the
noisiest. Conversions take α and σ as tensors that broadcast against x_t (see ``Schedule.at``).
"""
import math
from typing import NamedTuple

import torch
from torch import Tensor


class Schedule(NamedTuple):
    """α_t and σ_t for t = 0 … T−1, each a float64 tensor of shape (T,); build one with ``cosine`` or ``linear``."""
    name: str
    alpha: Tensor
    sigma: Tensor

    @property
    def T(self) -> int:
        return len(self.alpha)

    def at(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """α_t and σ_t for t an int or of shape (B,), in the dtype and on the device of ``like`` (B, …), shaped to
        broadcast against it. t = −1 is clean data: α = 1, σ = 0. Raises IndexError for t outside −1 … T−1."""
        t = torch.as_tensor(t)
        if t.device.type == "cpu" and not (-1 <= int(t.min()) and int(t.max()) < self.T):
            raise IndexError(f"t must lie in 0 … {self.T - 1} (or be −1 for clean data); got {t.min()} … {t.max()}.")
        shape = (-1,) + (1,) * (like.ndim - 1)
        clean = (t < 0).to(like.device).reshape(shape)
        pick = lambda table: table.to(like)[t.clamp(min=0).to(like.device)].reshape(shape)
        return torch.where(clean, 1.0, pick(self.alpha)), torch.where(clean, 0.0, pick(self.sigma))

    def noise(self, x: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """x_t = α_t x + σ_t ε (DDPM, eq. 4). x and eps: (B, …); t: an int or (B,). Returns x_t, shaped like x."""
        alpha, sigma = self.at(t, x)
        return alpha * x + sigma * eps

    def snr(self) -> Tensor:
        """Signal-to-noise ratio α_t² / σ_t² for every t, (T,)."""
        return self.alpha**2 / self.sigma**2

    def steps(self, n: int) -> Tensor:
        """The n times at which an n-step sampler calls its network, from T−1 downwards, (n,) int64.

        "Trailing" spacing (Lin et al. 2024, Table 2): the first is always T−1, pure noise. The step after the
        k-th is the (k+1)-th, never ``t − T // n``: the two differ when n does not divide T.
        Raises ValueError unless 1 ≤ n ≤ T.
        """
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= self.T:
            raise ValueError(f"n_steps must be a whole number from 1 to {self.T} (this schedule's T); got {n!r}.")
        return torch.tensor([round(self.T * k / n) - 1 for k in range(n, 0, -1)])

    def betas(self) -> Tensor:
        """β_t = 1 − ᾱ_t / ᾱ_{t−1} with ᾱ = α², (T,): what a diffusers scheduler takes as ``trained_betas``."""
        alphas_cumprod = self.alpha**2
        return 1 - alphas_cumprod / torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])


def cosine(T: int = 1024) -> Schedule:
    """α = cos(πu/2), σ = sin(πu/2) with u = (t+1)/T: at t = T−1 nothing of the data is left (zero terminal SNR,
    Lin et al. 2024), so sampling starts from exactly what the network saw in training."""
    angle = math.pi / 2 * torch.arange(1, T + 1, dtype=torch.float64) / T
    alpha = torch.cos(angle)
    alpha[-1] = 0.0  # cos(π/2) is 6e-17 in floating point; the zero matters, 1/α and SNR are asked for
    return Schedule("cosine", alpha, torch.sin(angle))


def linear(T: int = 400, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """DDPM's own: β_t linear in t, ᾱ_t = Π (1 − β) (Ho et al. 2020, section 4). With T = 400, √ᾱ_T = 0.13: a trace
    of the data is left at the last step, which sampling from pure noise does not have."""
    alphas_cumprod = torch.cumprod(1 - torch.linspace(beta_start, beta_end, T, dtype=torch.float64), 0)
    return Schedule("linear", alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())


SCHEDULES = {"cosine": cosine, "linear": linear}


# Conversions. x_t, x, eps, v, score: all of one shape; alpha, sigma broadcast against them. With α² + σ² = 1.

def v_from_x_eps(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v = α ε − σ x, the velocity of x_t as it turns from x to ε (Salimans & Ho 2022, Appendix D)."""
    return alpha * eps - sigma * x


def x_from_v(x_t: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = α x_t − σ v (Salimans & Ho 2022, Appendix D). Finite at every t."""
    return alpha * x_t - sigma * v


def eps_from_v(x_t: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """ε = σ x_t + α v. Finite at every t."""
    return sigma * x_t + alpha * v


def x_from_eps(x_t: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = (x_t − σ ε) / α (DDPM, eq. 15). Divides by α: near pure noise an error in ε grows by σ/α."""
    return (x_t - sigma * eps) / alpha


def eps_from_x(x_t: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """ε = (x_t − α x) / σ. Divides by σ: near clean data an error in x grows by α/σ."""
    return (x_t - alpha * x) / sigma


def x_from_both(x_t: Tensor, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = σ² x̃ + α (x_t − σ ε̃): a network that predicts both is heard on x where there is much noise, and on ε where
    there is little (Salimans & Ho 2022, section 4). Finite at every t."""
    return sigma**2 * x + alpha * (x_t - sigma * eps)


def score_from_eps(eps: Tensor, sigma: Tensor) -> Tensor:
    """s = ∇ log p_t(x_t) = −ε / σ (Song et al. 2021, via Tweedie), with ε the predicted mean noise."""
    return -eps / sigma


def score_from_x(x_t: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """s = −(x_t − α x) / σ² (DMD, eq. 4 for s_real, eq. 6 for s_fake)."""
    return -(x_t - alpha * x) / sigma**2


def x_from_score(x_t: Tensor, score: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = (x_t + σ² s) / α, Tweedie's formula: the mean of the data given x_t."""
    return (x_t + sigma**2 * score) / alpha
