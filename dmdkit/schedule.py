"""The forward process x_t = α_t x + σ_t ε as a table, and the conversions between ε, x, v and the
score.

t is an integer in 0 … T−1, with t = T−1 the noisiest. Everything here holds for any α and σ; most
schedules are variance preserving (α_t² + σ_t² = 1), flow matching's is not. Conversions take α and
σ as numbers or as tensors that broadcast against x_t (see ``Schedule.at``).
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import expect


@dataclass(frozen=True, eq=False)
class Schedule:
    """α_t and σ_t for t = 0 … T−1, from ``cosine``, ``linear``, ``flow`` …, or from any two tables.

    Args:
        name: what figures and cards call it.
        alpha, sigma: (T,) float64 on the CPU; α ≥ 0, σ > 0, and never less noise at a later t.
        made_by: the arguments of ``from_arguments`` that build it again; None for a table.
    Raises TypeError or ValueError for tables that are none of a forward process.
    """
    name: str
    alpha: Tensor
    sigma: Tensor
    made_by: dict | None = None

    def __post_init__(self):
        expect.tables(self.alpha, self.sigma)
        for name in ("alpha", "sigma"):
            object.__setattr__(self, name, getattr(self, name).detach().cpu().double())

    @property
    def T(self) -> int:
        return len(self.alpha)

    @property
    def arguments(self) -> dict:
        """What rebuilds this schedule, as JSON can hold it: of its function, or the whole table."""
        if self.made_by and from_arguments(self.made_by).same(self):
            return dict(self.made_by)
        return {"kind": "table", "name": self.name, "alpha": self.alpha.tolist(),
                "sigma": self.sigma.tolist()}

    def same(self, other: "Schedule") -> bool:
        """Whether both have the same table, value by value, whatever their names."""
        if self.T != other.T:
            return False
        unlike = (self.alpha != other.alpha) | (self.sigma != other.sigma)
        return not expect.certain(unlike.any())

    def at(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """α_t and σ_t for t an int or of shape (B,), in the dtype and on the device of ``like``
        (B, …), shaped to broadcast against it. t = −1 is clean data: α = 1, σ = 0.

        Raises IndexError for t outside −1 … T−1, TypeError or ValueError for what is no time of
        each sample or of all.
        """
        expect.floating(like=like)
        t = expect.times(t, like.shape[0] if like.ndim else 1, self.T, first=-1)
        return self._pick(self.alpha, 1.0, t, like), self._pick(self.sigma, 0.0, t, like)

    def _pick(self, table: Tensor, clean: float, t: int | Tensor, like: Tensor) -> Tensor:
        """A table's entries at t, ``clean`` where t is −1. The table is turned into ``like``'s
        dtype before it moves to its device, which may have no float64."""
        table = torch.cat([table, table.new_tensor([clean])])  # index −1 is the last
        if isinstance(t, Tensor):
            picked = table.to(like.dtype).to(like.device)[t.to(like.device)]
        else:
            picked = table[t].to(like.dtype).to(like.device)
        return picked.reshape((-1,) + (1,) * (like.ndim - 1))

    def noise(self, x: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """x_t = α_t x + σ_t ε (DDPM, eq. 4). x and eps: (B, …) of one shape; t: an int or (B,).
        Returns x_t, shaped like x. Raises what ``at`` raises, and ValueError for unlike shapes."""
        expect.alike(x=x, eps=eps)
        alpha, sigma = self.at(t, x)
        return alpha * x + sigma * eps

    def snr(self) -> Tensor:
        """Signal-to-noise ratio α_t² / σ_t² for every t, (T,)."""
        return self.alpha**2 / self.sigma**2

    def times(self, n: int) -> list[int]:
        """The n times at which an n-step sampler calls its network, from T−1 downwards.

        "Trailing" spacing (Lin et al. 2024, Table 2): the first is always T−1, pure noise. The step
        after the k-th is the (k+1)-th, never ``t − T // n``: the two differ when n does not divide
        T. Raises ValueError unless 1 ≤ n ≤ T.
        """
        n = expect.whole("n_steps", n, 1, self.T)
        return [round(self.T * k / n) - 1 for k in range(n, 0, -1)]

    def steps(self, n: int) -> Tensor:
        """``times`` as a tensor, (n,) int64."""
        return torch.tensor(self.times(n))

    def betas(self) -> Tensor:
        """β_t = 1 − ᾱ_t / ᾱ_{t−1} with ᾱ = α², (T,): what a diffusers scheduler takes as
        ``trained_betas``. Raises ValueError for a schedule that is not variance preserving."""
        total = self.alpha**2 + self.sigma**2
        if expect.certain((total - 1).abs().max() > 1e-6):
            raise ValueError("Only a variance-preserving schedule (α² + σ² = 1) has betas; "
                             f"{self.name!r} is none.")
        alphas_cumprod = self.alpha**2
        before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        return 1 - alphas_cumprod / before


def cosine(T: int = 1024) -> Schedule:
    """α = cos(πu/2), σ = sin(πu/2) with u = (t+1)/T: at t = T−1 nothing of the data is left (zero
    terminal SNR, Lin et al. 2024), so sampling starts from what the network saw in training."""
    T = expect.whole("T", T)
    angle = math.pi / 2 * torch.arange(1, T + 1, dtype=torch.float64) / T
    alpha = torch.cos(angle)
    alpha[-1] = 0.0  # cos(π/2) is 6e-17 in floating point; the zero matters: 1/α, SNR
    return Schedule("cosine", alpha, torch.sin(angle), {"kind": "cosine", "T": T})


def linear(T: int = 400, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """DDPM's own: β_t linear in t, ᾱ_t = Π (1 − β) (Ho et al. 2020, section 4). With T = 400,
    √ᾱ_T = 0.13: a trace of the data is left at the last step, which sampling from pure noise does
    not have. Raises ValueError unless 0 < β ≤ 1."""
    T = expect.whole("T", T)
    betas = torch.linspace(beta_start, beta_end, T, dtype=torch.float64)
    made_by = {"kind": "linear", "T": T, "beta_start": beta_start, "beta_end": beta_end}
    return from_betas(betas, "linear", made_by)


def flow(T: int = 1024) -> Schedule:
    """Flow matching's α = 1 − u, σ = u with u = (t+1)/T (Lipman et al. 2023; Liu et al. 2023): a
    straight line from x to ε. At t = T−1, α = 0. Not variance preserving."""
    T = expect.whole("T", T)
    u = torch.arange(1, T + 1, dtype=torch.float64) / T
    return Schedule("flow", 1 - u, u, {"kind": "flow", "T": T})


def clipped(T: int = 1024, log_snr: float = 20.0) -> Schedule:
    """The cosine schedule with log SNR no less than −``log_snr``, as undistilled networks are
    trained by Salimans & Ho (2022): with α_T = 0 a network that predicts ε could say nothing of x
    at T−1, here it says it, if only very faintly."""
    base = cosine(T)
    least = torch.tensor(-log_snr, dtype=torch.float64).sigmoid().sqrt()
    alpha = torch.maximum(base.alpha, least)
    made_by = {"kind": "clipped", "T": base.T, "log_snr": log_snr}
    return Schedule("clipped", alpha, (1 - alpha**2).sqrt(), made_by)


def from_betas(
    betas: Tensor | Sequence[float], name: str = "betas", made_by: dict | None = None
) -> Schedule:
    """The variance-preserving schedule ᾱ_t = Π_{s ≤ t} (1 − β_s) of any betas (T,), in (0, 1]; a
    last β of 1 leaves α_T = 0. Raises ValueError for others."""
    betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu")
    if betas.ndim != 1 or expect.certain(~((betas > 0) & (betas <= 1)).all()):
        raise ValueError("betas must be a table (T,) of numbers in (0, 1].")
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    return Schedule(name, alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt(), made_by)


def table(name: str, alpha: Sequence[float], sigma: Sequence[float]) -> Schedule:
    """A schedule of any α and σ. Raises what ``Schedule`` raises."""
    return Schedule(name, *torch.tensor([alpha, sigma], dtype=torch.float64))


KINDS = {"cosine": cosine, "linear": linear, "flow": flow, "clipped": clipped, "table": table}


def from_arguments(arguments: dict) -> Schedule:
    """The schedule whose ``arguments`` these are. Raises ValueError for arguments of none."""
    rest = dict(arguments) if isinstance(arguments, dict) else {}
    kind = rest.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"A schedule is of one of the kinds {', '.join(KINDS)}; got {kind!r}.")
    try:
        return KINDS[kind](**rest)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"A {kind} schedule cannot be built from these arguments: "
                         f"{str(error).splitlines()[0]}") from None


# Conversions. x_t, x, eps, v, score: all of one shape; alpha, sigma broadcast against them.
# Where variance is preserved, α² + σ² is 1. Raise TypeError or ValueError for tensors unlike that.

def _fit(alpha: Tensor | float, sigma: Tensor | float, **tensors: Tensor) -> None:
    expect.alike(**tensors)
    expect.factors(next(iter(tensors.values())), alpha=alpha, sigma=sigma)


def v_from_x_eps(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v = α ε − σ x, the velocity of x_t as it turns from x to ε (Salimans & Ho 2022, App. D)."""
    _fit(alpha, sigma, x=x, eps=eps)
    return alpha * eps - sigma * x


def x_from_v(x_t: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = (α x_t − σ v) / (α² + σ²) (Salimans & Ho 2022, App. D). Finite at every t."""
    _fit(alpha, sigma, x_t=x_t, v=v)
    return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def eps_from_v(x_t: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """ε = (σ x_t + α v) / (α² + σ²). Finite at every t."""
    _fit(alpha, sigma, x_t=x_t, v=v)
    return (sigma * x_t + alpha * v) / (alpha**2 + sigma**2)


def x_from_eps(x_t: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = (x_t − σ ε) / α (DDPM, eq. 15). Divides by α: near pure noise an error in ε grows by
    σ/α, and where α = 0 there is no answer."""
    _fit(alpha, sigma, x_t=x_t, eps=eps)
    return (x_t - sigma * eps) / alpha


def eps_from_x(x_t: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """ε = (x_t − α x) / σ. Divides by σ: near clean data an error in x grows by α/σ."""
    _fit(alpha, sigma, x_t=x_t, x=x)
    return (x_t - alpha * x) / sigma


def x_from_both(x_t: Tensor, x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = (σ² x̃ + α (x_t − σ ε̃)) / (α² + σ²): a network that predicts both is heard on x where
    there is much noise, and on ε where there is little (Salimans & Ho 2022, section 4). Finite at
    every t."""
    _fit(alpha, sigma, x_t=x_t, x=x, eps=eps)
    return (sigma**2 * x + alpha * (x_t - sigma * eps)) / (alpha**2 + sigma**2)


def score_from_eps(eps: Tensor, sigma: Tensor) -> Tensor:
    """s = ∇ log p_t(x_t) = −ε / σ (Song et al. 2021, via Tweedie), ε being the mean noise."""
    expect.floating(eps=eps)
    expect.factors(eps, sigma=sigma)
    return -eps / sigma


def x_from_score(x_t: Tensor, score: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x = (x_t + σ² s) / α, Tweedie's formula: the mean of the data given x_t."""
    _fit(alpha, sigma, x_t=x_t, score=score)
    return (x_t + sigma**2 * score) / alpha
