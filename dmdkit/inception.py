"""The features that the FID is defined in: Inception-v3's of 2015, by torchmetrics.

They do not ship (91 MB). They are taken from the file that the environment variable
DMDKIT_INCEPTION names, a safetensors file with torch-fidelity's names, or as torch-fidelity keeps
and downloads them.
"""
import io
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .data import to_uint8
from .metrics import Space, in_batches

VARIABLE = "DMDKIT_INCEPTION"
BATCH = 50  # as large as they become, a few of them fill a laptop's memory
URL = ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
       "weights-inception-2015-12-05-6726825d.pth")  # as torch-fidelity has it


def space(device: torch.device | str = "cpu") -> Space:
    """The 2048 features of images (N, 1 or 3, H, W) in [−1, 1], which it scales to 299 × 299.

    Raises RuntimeError where torch-fidelity is not installed, or its weights cannot be had or read.
    """
    net = _network().to(device, memory_format=torch.channels_last)  # on CPUs 1.6 times as fast

    def features(x: Tensor) -> Tensor:
        return in_batches(net, to_uint8(x.expand(-1, 3, -1, -1)), BATCH)

    return Space(features)


def _network() -> nn.Module:
    from torchmetrics.image.fid import NoTrainInceptionV3

    whole = io.BytesIO()  # it reads weights from a file only
    torch.save(_with_head(_weights()), whole)
    whole.seek(0)
    try:
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], whole)
    except ModuleNotFoundError:
        raise RuntimeError("The Inception features need one package more: pip install "
                           "torch-fidelity.") from None
    except RuntimeError as error:
        raise RuntimeError(f"These are not the weights of Inception-v3 ({_first(error)}). Let "
                           f"{VARIABLE} name a safetensors file with torch-fidelity's names."
                           ) from None


def _weights() -> dict[str, Tensor]:
    named = os.environ.get(VARIABLE)
    if named:
        return _from_file(Path(named))
    try:
        return torch.hub.load_state_dict_from_url(URL, map_location="cpu", weights_only=True)
    except OSError as error:  # urllib's errors are
        raise RuntimeError(f"The Inception weights could not be downloaded ({_first(error)}). Let "
                           f"the environment variable {VARIABLE} name a safetensors file of them."
                           ) from None


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RuntimeError(f"There is no file {path}, which {VARIABLE} names. Check the path.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RuntimeError(f"{path}, which {VARIABLE} names, is not a whole safetensors file "
                           f"({error}).") from None


def _with_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with a last layer, where a file has none: the features lie below it."""
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    return head | weights


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
