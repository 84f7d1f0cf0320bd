"""Networks: U-Nets on diffusers' UNet2DModel, and by name the classes of ``networks``.

``nets.PointMLP``, ``nets.ContextUNet``, ``nets.SmoothClassifier``, ``nets.PoolingClassifier``,
``nets.DiscriminatorHead`` and ``nets.NETWORKS`` are to be had from here. diffusers is imported when
the first of them is asked for, or a network is built, and not before: that takes seconds.
"""
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from . import expect

if TYPE_CHECKING:
    from diffusers import UNet2DModel

GROUPS = 8
LAZY = ("PointMLP", "ContextUNet", "SmoothClassifier", "PoolingClassifier", "DiscriminatorHead",
        "NETWORKS")


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import networks
    return getattr(networks, name)


def network_class(name: str) -> type[nn.Module]:
    """The class of that name, which has ``from_config`` and ``from_pretrained``: a UNet2DModel or
    one of ``networks``. Raises ValueError for a name that is none."""
    from .networks import NETWORKS

    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"A network is one of {', '.join(NETWORKS)}; got {name!r}.")
    return NETWORKS[name]


def build(name: str, *args, **config) -> nn.Module:
    """A fresh network of the class of that name. Raises ValueError for a name that is none."""
    return network_class(name)(*args, **config)


def unet(shape: Sequence[int], channels: Sequence[int], *, patch: int = 1, n_classes: int = 0,
         layers: int = 1, outputs: int = 1) -> "UNet2DModel":
    """A fresh UNet2DModel for images of ``shape`` (C, H, W).

    Args:
        channels: of each level, from the image's size down, halving it each time.
        patch: what the network sees of an image is (C · patch², H / patch, W / patch); see
            ``Denoiser``, which cuts it so.
        n_classes: one label more, for "no class"; 0 makes a network without labels.
        layers: residual blocks a level.
        outputs: 2 for a network that predicts x and ε at once.
    Raises ValueError for sizes that do not divide.
    """
    config = _sizes(tuple(shape), tuple(channels), patch)
    levels = len(config["block_out_channels"])
    from diffusers import UNet2DModel

    return UNet2DModel(
        **config, out_channels=outputs * config["in_channels"], layers_per_block=layers,
        down_block_types=("DownBlock2D",) * levels, up_block_types=("UpBlock2D",) * levels,
        norm_num_groups=GROUPS, attention_head_dim=min(32, channels[-1]),
        num_class_embeds=n_classes + 1 if n_classes else None,
        resnet_time_scale_shift="scale_shift")


def _sizes(shape: tuple[int, ...], channels: tuple[int, ...], patch: int) -> dict:
    """The entries of a U-Net's config that say how large everything is."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (C, H, W); got {shape}.")
    if not channels or any(n < 1 or n % GROUPS for n in channels):
        raise ValueError(f"channels must be multiples of {GROUPS}, one a level; got {channels}.")
    patch = expect.whole("patch", patch)
    depth, height, width = shape
    halved = patch * 2 ** (len(channels) - 1)
    if height % halved or width % halved:
        raise ValueError(f"With patch = {patch} and {len(channels)} levels the sides of an image "
                         f"must be multiples of {halved}; got {height} × {width}.")
    size = height // patch if height == width else (height // patch, width // patch)
    return {"sample_size": size, "in_channels": depth * patch**2, "block_out_channels": channels}
