"""How far apart two images look: LPIPS, and a distance of its form on our own classifier for when it cannot be had."""
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

from . import store
from .dmd import squared_distance

LPIPS_NETS = {"lpips-alex": "alex", "lpips-vgg": "vgg", "lpips-squeeze": "squeeze"}
LAYERS = {"classifier": (1, 2, 3, 4, 5), "judge": (3, 7)}  # after which of a body's layers features are compared
KINDS = {**{kind: f"LPIPS on {net}, by the lpips package" for kind, net in LPIPS_NETS.items()},
         **{name: f"LPIPS' form on the layers of the kit's own {name} (this is not LPIPS)" for name in LAYERS},
         "squared": "the mean squared error"}
VARIABLE = "DMDKIT_LPIPS_{}"  # DMDKIT_LPIPS_ALEX, _VGG, _SQUEEZE: the environment variable that names a trunk file
MIN_SIZE = 32  # AlexNet needs 31 pixels; smaller images get a margin of background, which leaves their own as they are


class LayerDistance(nn.Module):
    """LPIPS without its learned weights, on layers of a digit classifier: at each, features of unit length over the
    channels, their squared difference, summed over channels and averaged over places (Zhang et al. 2018, eq. 1 with
    w = 1); then the mean over layers.

    It is not LPIPS: nobody's judgment of likeness went into it. It knows strokes, needs no file, and runs anywhere.

    Args:
        body: the classifier's layers, one after the other.
        ends: where features are compared: after so many of them.
    """

    def __init__(self, body: nn.Sequential, ends: tuple[int, ...]):
        super().__init__()
        body = body.eval().requires_grad_(False)
        self.layers = nn.ModuleList(body[start:end] for start, end in zip((0, *ends), ends))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (B, 1, 28, 28) in [−1, 1] → (B,)."""
        total = 0.0
        for layer in self.layers:
            x, y = layer(x), layer(y)
            unit = [h / (h.square().sum(1, keepdim=True) + 1e-10).sqrt() for h in (x, y)]
            total = total + (unit[0] - unit[1]).square().sum(1).mean((1, 2))
        return total / len(self.layers)


class LPIPS(nn.Module):
    """The ``lpips`` package's distance, (B,), for images of one or three channels in [−1, 1] of any size."""

    def __init__(self, net: str, trunk: Path | None = None):
        super().__init__()
        self.lpips = _lpips(net, trunk).requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (B, 1 or 3, H, W) in [−1, 1] → (B,)."""
        short = max(MIN_SIZE - min(x.shape[-2:]), 0)
        margin = (short // 2, short - short // 2) * 2
        x, y = (F.pad(image, margin, value=-1.0).expand(-1, 3, -1, -1) for image in (x, y))
        return self.lpips(x, y).flatten()


def distance(kind: str, trunk: Path | None = None, device="cpu") -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of that kind, called as d(x, y) with images (B, C, H, W) in [−1, 1]; it gives (B,).

    Args:
        kind: "lpips-alex", "lpips-vgg" or "lpips-squeeze": LPIPS by the ``lpips`` package. "classifier", "judge":
            ``LayerDistance`` on that artefact, for digits; what is measured in its features later on was then tuned on
            them. "squared": the plain mean squared error.
        trunk: LPIPS' trunk as a safetensors file with torchvision's names (``features.0.weight`` …); else the file that
            the environment variable DMDKIT_LPIPS_ALEX, _VGG or _SQUEEZE names; else torchvision downloads it.
    It says once which it is. Raises ValueError for another kind, RuntimeError for a trunk that is missing, cannot be
    had or is another network's.
    """
    if kind not in KINDS:
        raise ValueError(f"A perceptual distance must be one of {', '.join(KINDS)}; got {kind!r}.")
    _say(f"Perceptual distance: {KINDS[kind]}.")
    if kind == "squared":
        return squared_distance
    if kind in LAYERS:
        return LayerDistance(store.load(kind).body, LAYERS[kind]).to(device)
    net = LPIPS_NETS[kind]
    trunk = trunk or os.environ.get(VARIABLE.format(net.upper()))
    return LPIPS(net, trunk and Path(trunk)).to(device)


@functools.cache
def _say(text: str) -> None:
    """Print a text the first time that it is said; of several processes only the first one speaks."""
    if PartialState().is_main_process:
        print(text)


def _lpips(net: str, trunk: Path | None) -> nn.Module:
    import lpips  # here, since it brings torchvision's models: a second that only this distance needs

    if trunk is not None and not trunk.is_file():
        raise RuntimeError(f"There is no LPIPS trunk at {trunk}. Check the path (or the variable that names it).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision's, about how lpips calls it
            made = lpips.LPIPS(net=net, pnet_rand=trunk is not None, verbose=False)
    except OSError as error:  # urllib's errors are
        raise RuntimeError(f"torchvision could not download the trunk of lpips-{net} ({error}); let the environment "
                           f"variable {VARIABLE.format(net.upper())} name a safetensors file of its `features`, or "
                           "take the distance 'classifier', which needs no file.") from None
    if trunk is not None:
        _load_trunk(made, net, trunk)
    return made


def _load_trunk(made: nn.Module, net: str, trunk: Path) -> None:
    """Put torchvision's ``features`` from a file into the slices that ``lpips`` cuts them into."""
    try:
        weights = load_file(trunk)
    except SafetensorError as error:
        raise RuntimeError(f"{trunk} is not a whole safetensors file ({error}). Convert torchvision's weights with "
                           "safetensors.torch.save_file, or copy the file again.") from None
    wanted = {".".join(name.split(".")[2:]): parameter for name, parameter in made.named_parameters()
              if name.startswith("net.slice")}
    found = {name.removeprefix("features."): value for name, value in weights.items()}
    wrong = [name for name, parameter in wanted.items() if name not in found or found[name].shape != parameter.shape]
    if wrong:
        raise RuntimeError(f"{trunk} is not the trunk of lpips-{net}: features.{wrong[0]} is missing there or has "
                           f"another shape than {tuple(wanted[wrong[0]].shape)}.")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])
