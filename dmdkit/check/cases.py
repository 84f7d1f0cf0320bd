"""What the checks call learners' functions with: random tensors, tables of α and σ; and the sizes
of gradients."""
import math

import torch
from torch import Tensor

from .standins import N_CLASSES

RESHAPE = ("alpha[t] has shape (B,): reshape it so that it multiplies x, "
           "alpha[t].reshape(-1, *[1] * (x.ndim - 1)).")
RESHAPE_IMAGES = "alpha[t] has shape (B,), and x has (B, C, H, W): reshape it to (B, 1, 1, 1)."
SHAPES = ((5, 1, 4, 3), (6, 1, 2, 2), (3, 2, 4, 4))  # of images; no B is a W


def randn(g: torch.Generator, *shape: int) -> Tensor:
    """Standard normal noise of that shape."""
    return torch.randn(shape, generator=g)


def tables(T: int) -> tuple[Tensor, Tensor]:
    """α and σ, (T,), of a cosine schedule that stops short of α = 0."""
    angle = math.pi / 2 * torch.arange(1, T + 1) / (T + 1)
    return angle.cos(), angle.sin()


def image_shape(g: torch.Generator, batch: int | None = None) -> tuple[int, int, int, int]:
    """A random (B, C, H, W). No two of B, H, W are equal, unless ``batch`` asks for B = W."""
    b, h, w = (torch.randperm(7, generator=g)[:3] + 2).tolist()
    c = int(torch.randint(1, 4, (), generator=g))
    return (batch, c, batch + 1, batch) if batch else (b, c, h, w)


def labels(g: torch.Generator, n: int, n_classes: int = N_CLASSES) -> Tensor:
    """n labels, no two alike, (n,)."""
    return torch.randperm(n_classes, generator=g)[:n]


def image_norms(gradient: Tensor) -> Tensor:
    """The norm of each image's gradient, (B,)."""
    return gradient.flatten(1).norm(dim=1)


def mean_norm(gradient: Tensor) -> Tensor:
    """How long the gradient of an image is: the mean over the batch of their norms, ()."""
    return image_norms(gradient).mean()


WRONG_V = {  # usual mistakes in v = α ε − σ x, each of (x, ε, α_t, σ_t)
    "The sign of v is flipped: v = α ε − σ x.":
        lambda x, e, a, s: s * x - a * e,
    "There is a plus in v where the formula has a minus: v = α ε − σ x.":
        lambda x, e, a, s: a * e + s * x,
    "α and σ are swapped in v: it is α ε − σ x, nearly ε where there is little noise.":
        lambda x, e, a, s: s * e - a * x,
}
