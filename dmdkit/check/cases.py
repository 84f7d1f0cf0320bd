"""What the checks call learners' functions with: random tensors, tables of α and σ, and functions
of a few weights that stand in for networks. They refuse the times and labels that networks refuse.
"""
import math
import numbers

import torch
from torch import Tensor

from ..expect import check_label
from .answers import NOTHING, Unfit, plain, subject

N_CLASSES = 10
RESHAPE = ("alpha[t] has shape (B,): reshape it so that it multiplies x, "
           "alpha[t].reshape(-1, *[1] * (x.ndim - 1)).")
RESHAPE_IMAGES = "alpha[t] has shape (B,), and x has (B, C, H, W): reshape it to (B, 1, 1, 1)."
SHAPES = ((5, 1, 4, 3), (6, 1, 2, 2), (3, 2, 4, 4))  # of images; no B is a W


# Tensors

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


def column(value: Tensor, like: Tensor) -> Tensor:
    """One value a sample, (B,), shaped to multiply ``like`` (B, …)."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def image_norms(gradient: Tensor) -> Tensor:
    """The norm of each image's gradient, (B,)."""
    return gradient.flatten(1).norm(dim=1)


def mean_norm(gradient: Tensor) -> Tensor:
    """How long the gradient of an image is: the mean over the batch of their norms, ()."""
    return image_norms(gradient).mean()


# Stand-ins for networks

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


def generator(weights: Tensor):
    """Stands in for a generator: G(z, label) = c z + d + f times what the label tells, of weights
    (c, d, f)."""
    def generate(z: Tensor, label: Tensor | None = None) -> Tensor:
        return weights[0] * z + weights[1] + weights[2] * tell(label, len(z))
    return generate


# Losses

def leaf(value: Tensor) -> Tensor:
    """A copy to differentiate by."""
    return value.detach().clone().requires_grad_()


def slopes(loss, *weights: Tensor, name: str = "the loss") -> tuple[Tensor, ...]:
    """The loss and its derivative by each of these, 0 by what it does not depend on.

    Raises Unfit for what is no loss: no tensor, or more than one value.
    """
    if loss is None:
        raise Unfit(NOTHING)
    if isinstance(loss, numbers.Real):
        raise Unfit(f"{subject(name)} should be a tensor: a Python number has no derivative. Leave "
                    "out .item() or float().")
    if plain(loss, torch.zeros(()), name).ndim:
        raise Unfit(f"{subject(name)} should be one number, of shape (); yours has shape "
                    f"{tuple(loss.shape)}. Take the mean of all of it.")
    if not loss.requires_grad:
        return (loss, *map(torch.zeros_like, weights))
    return (loss, *torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True,
                                       materialize_grads=True))
