"""Lesson 08: its exercises' functions, as the library has them; pictures that are a little wrong, to
try distances on; and what a larger teacher costs."""
import torch
import torch.nn.functional as F
from torch import Tensor

from . import cost
from .recipe import Recipe


def walk(z_0: Tensor, z_1: Tensor, phi: Tensor) -> Tensor:
    """The noise at the angle φ, 0 … π/2, on the way from z_0 to z_1: cos φ z_0 + sin φ z_1, whose
    values keep variance 1. phi broadcasts against them."""
    return phi.cos() * z_0 + phi.sin() * z_1


def error_gains(alpha: Tensor, sigma: Tensor) -> Tensor:
    """How much larger an error of a network's output becomes in x̂ = (x_t − σ ε̂)/α and in
    x̂ = α x_t − σ v̂: σ/α and σ, (2, B) for alpha and sigma (B,)."""
    return torch.stack([sigma / alpha, sigma])


def spoiled(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Pictures x (B, C, H, W) in [−1, 1], each spoiled in one way, by name."""
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return {"shifted": wide[..., 1:-1, :-2],
            "blurred": F.avg_pool2d(wide, 3, 1),
            "noise, σ 0.1": (x + 0.1 * noise).clamp(-1, 1),
            "darker": (x - 0.2).clamp(-1, 1),
            "mirrored": x.flip(3)}


GOOGLE = {
    "sample_size": 32, "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None, "norm_eps": 1e-6, "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1}
"""The network of google/ddpm-cifar10-32, as its config.json has it."""


def of_google() -> cost.Cost:
    """What google/ddpm-cifar10-32 costs, by its architecture alone."""
    from diffusers import UNet2DModel  # here: seconds that only this needs

    with torch.device("meta"):
        net, x, t = UNet2DModel(**GOOGLE), torch.empty(1, 3, 32, 32), torch.zeros(1)
    return cost.of_unet(net, lambda net: net(x, t).sample)


def operations(recipe: Recipe, of: cost.Cost) -> dict[str, float]:
    """What a distillation by DMD from pairs takes, of networks that cost so much: making its pairs,
    and its updates."""
    method = recipe.method
    step = of.step_flops(recipe.batch_size, method.updates[1], guided=False, adversarial=False)
    return {"pairs": method.n_pairs * method.pair_solver.evaluations() * of.flops,
            "updates": recipe.n_steps * step}
