"""Functions of a few weights that stand in for networks. They refuse the times and labels that
networks refuse. No exercise's answer is in this file: learners' functions are graded beside it.
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..expect import check_label

N_CLASSES = 10


def column(value: Tensor, like: Tensor) -> Tensor:
    """One value a sample, (B,), shaped to multiply ``like`` (B, …)."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def time(t: Tensor, x_t: Tensor) -> Tensor:
    """t/10, shaped to multiply x_t. Raises TypeError unless t is whole numbers, (B,)."""
    whole = isinstance(t, Tensor) and not t.is_floating_point()
    if not whole or t.shape != x_t.shape[:1]:
        got = f"{t.dtype}, {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"a network takes t as whole numbers of shape ({len(x_t)},); got {got}")
    return column(t, x_t) / 10


def tell(label: Tensor | None, n: int, n_classes: int = N_CLASSES) -> Tensor:
    """What a stand-in adds for each label, (n, 1, 1, 1). None is no class, as in the whole kit."""
    check_label(label, n, n_classes)
    told = torch.full((n,), n_classes) if label is None else label
    return (1.7 * told + 0.4).sin().reshape(-1, 1, 1, 1)


def real_mean(x_t: Tensor, t: Tensor) -> Tensor:
    """Stands in for the real score's x-prediction."""
    return torch.tanh(2 * x_t) + 0.1 * time(t, x_t)


def fake_mean(x_t: Tensor, t: Tensor) -> Tensor:
    """Stands in for the fake score's x-prediction."""
    return 0.5 * x_t - 0.2 * time(t, x_t)


@dataclass(frozen=True)
class Labelled:
    """Stands in for a labelled denoiser: one of the two above, and what a label tells."""
    mean: Callable
    share: float
    n_classes: int

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.mean(x_t, t) + self.share * tell(label, len(x_t), self.n_classes)


@dataclass(frozen=True)
class Generator:
    """Stands in for a generator: G(z, label) = c z + d + f times what the label tells, of weights
    (c, d, f)."""
    weights: Tensor

    def __call__(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        c, d, f = self.weights
        return c * z + d + f * tell(label, len(z))


@dataclass(frozen=True)
class Student:
    """Stands in for a student, which knows the place k of each of its times."""
    weights: Tensor

    def __call__(self, x: Tensor, k: int) -> Tensor:
        c, d, f = self.weights
        return c * torch.tanh(2 * x) + d * x + f * (k + 1)


def discriminator(x: Tensor, weights: Tensor) -> Tensor:
    """Stands in for a discriminator, w₀ · 3 mean sin x + w₁: logits (B,)."""
    return weights[0] * 3 * x.sin().flatten(1).mean(1) + weights[1]


def features(image: Tensor) -> Tensor:
    """What the distance below compares."""
    return image + 0.3 * image.square()


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Stands in for LPIPS, (B,): between the absolute and the squared difference of features."""
    return torch.hypot(features(x) - features(y), torch.ones(())).flatten(1).mean(1) - 1
