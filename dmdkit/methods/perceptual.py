"""How far apart two images look: LPIPS, and a distance of its form on any network's layers."""
import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import expect, files
from ..data import ROOT

NETS = {"lpips-alex": "alex", "lpips-vgg": "vgg", "lpips-squeeze": "squeeze"}
KINDS = ("squared", *NETS)
VARIABLE = "DMDKIT_LPIPS_{}"  # DMDKIT_LPIPS_ALEX, _VGG, _SQUEEZE: the variable that names a file
SHIPPED = {"alex": ROOT / "lpips" / "alex.safetensors"}  # trunks, float16; see the README there
MIN_SIZE = 32  # AlexNet needs 31 pixels; smaller images get a margin, and keep their own pixels

Distance = Callable[[Tensor, Tensor], Tensor]
"""d(x, y) with images (B, C, H, W) in [−1, 1], or points (B, 2): one value a sample, (B,)."""


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error, one a sample, (B,). Raises TypeError or ValueError for tensors that are
    not floating, or whose shapes differ."""
    expect.alike(x=x, y=y)
    return (x - y).square().flatten(1).mean(1)


class LayerDistance(nn.Module):
    """LPIPS without its learned weights, on layers of a classifier: at each, features of unit
    length over the channels, their squared difference, summed over channels and averaged over
    places (Zhang et al. 2018, eq. 1 with w = 1); then the mean over layers.

    It is not LPIPS: nobody's judgment of likeness went into it.

    Args:
        body: the classifier's layers, one after the other.
        ends: where features are compared: after so many of them.
    """

    def __init__(self, body: nn.Sequential, ends: tuple[int, ...]):
        super().__init__()
        body = body.eval().requires_grad_(False)
        starts = (0, *ends[:-1])
        self.layers = nn.ModuleList(body[start:end] for start, end in zip(starts, ends))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (B, C, H, W) in [−1, 1] → (B,). Raises TypeError or ValueError for tensors that
        are not floating, or whose shapes differ."""
        expect.alike(x=x, y=y)
        total = 0.0
        for layer in self.layers:
            x, y = layer(x), layer(y)
            total = total + (_unit(x) - _unit(y)).square().sum(1).mean((1, 2))
        return total / len(self.layers)


def _unit(h: Tensor) -> Tensor:
    """Features (B, C, H, W), of unit length over the channels."""
    return h / (h.square().sum(1, keepdim=True) + 1e-10).sqrt()


class LPIPS(nn.Module):
    """The ``lpips`` package's distance for images of one or three channels, of any size."""

    def __init__(self, net: str, trunk: Path | None = None):
        super().__init__()
        self.lpips = _lpips(net, trunk).requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (B, 1 or 3, H, W) in [−1, 1] → (B,). Raises TypeError or ValueError for tensors
        that are not floating, no such images, or whose shapes differ."""
        expect.alike(x=x, y=y)
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError("LPIPS compares images (B, C, H, W) of one or three channels; "
                             f"got {tuple(x.shape)}. Take the distance 'squared'.")
        return self.lpips(_padded(x), _padded(y)).flatten()


def _padded(x: Tensor) -> Tensor:
    """Three channels, at least ``MIN_SIZE`` pixels each way."""
    short = [max(MIN_SIZE - size, 0) for size in x.shape[-2:]]
    height, width = short
    margin = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(x, margin, value=-1.0).expand(-1, 3, -1, -1)


def distance(kind: str, trunk: Path | None = None, device="cpu") -> Distance:
    """The distance of that kind, which any data set has.

    Args:
        kind: "squared": the mean squared error. "lpips-alex", "lpips-vgg", "lpips-squeeze": LPIPS
            by the ``lpips`` package, for images.
        trunk: LPIPS' trunk as a safetensors file with torchvision's names (``features.0.weight``
            …); else the file that the environment variable DMDKIT_LPIPS_ALEX, _VGG or _SQUEEZE
            names; else AlexNet's as it ships, and the others' as torchvision downloads them.
    Raises ValueError for another kind and for a trunk without LPIPS, RuntimeError for a trunk that
    is missing, damaged, cannot be had or is another network's.
    """
    if kind not in KINDS:
        raise ValueError(f"A distance must be one of {', '.join(KINDS)}; got {kind!r}.")
    if kind == "squared":
        if trunk is not None:
            raise ValueError("The squared distance has no trunk. Leave it out, or take LPIPS.")
        return squared_distance
    announce(f"Distance of the regression: LPIPS on {NETS[kind]}, by the lpips package.")
    named = trunk or os.environ.get(VARIABLE.format(NETS[kind].upper()))
    return LPIPS(NETS[kind], Path(named) if named else None).to(device)


@functools.cache
def announce(text: str) -> None:
    """Print a text the first time that it is said; of several processes only one speaks."""
    # A PartialState made here would choose the process's device before the caller can
    if not PartialState._shared_state or PartialState().is_main_process:
        print(text)


def _lpips(net: str, trunk: Path | None) -> nn.Module:
    import lpips  # here, since it brings torchvision's models: a second that only this needs

    weights = _trunk(net, trunk)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision's, about how lpips calls it
            made = lpips.LPIPS(net=net, pnet_rand=weights is not None, verbose=False)
    except OSError as error:  # urllib's errors are
        raise RuntimeError(f"torchvision could not download the trunk of lpips-{net} ({error}); "
                           f"let the environment variable {VARIABLE.format(net.upper())} name a "
                           "safetensors file of its `features`, or take lpips-alex, whose trunk "
                           "ships, or 'squared'.") from None
    if weights is not None:
        _put_trunk(made, weights, f"{trunk or SHIPPED[net]} is not the trunk of lpips-{net}")
    return made


def _trunk(net: str, path: Path | None) -> dict[str, Tensor] | None:
    """A trunk's weights by torchvision's names, from a file or as it ships; None if it must be
    downloaded."""
    if path is None:
        return files.load_state(SHIPPED[net]) if net in SHIPPED else None
    if not path.is_file():
        raise RuntimeError(f"There is no LPIPS trunk at {path}. Check the path (or the variable "
                           "that names it).")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RuntimeError(f"{path} is not a whole safetensors file ({error}). Convert "
                           "torchvision's weights with safetensors.torch.save_file, or copy the "
                           "file again.") from None


def _put_trunk(made: nn.Module, weights: dict[str, Tensor], wrong: str) -> None:
    """Put torchvision's ``features`` into the slices that ``lpips`` cuts them into."""
    wanted = {_layer(name): parameter for name, parameter in made.named_parameters()
              if name.startswith("net.slice")}
    found = {name.removeprefix("features."): value for name, value in weights.items()}
    for name, parameter in wanted.items():
        if name not in found or found[name].shape != parameter.shape:
            raise RuntimeError(f"{wrong}: features.{name} is missing or has another shape than "
                               f"{tuple(parameter.shape)}.")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])


def _layer(name: str) -> str:
    """torchvision's name of a parameter, from lpips': net.slice2.3.weight → 3.weight."""
    return name.split(".", 2)[2]
