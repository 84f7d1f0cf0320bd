"""What the tasks in colour share: pictures of 32 × 32 pixels, and spaces to score them in."""
import torch.nn.functional as F
from torch import Tensor

from .. import data, inception, nets
from ..denoiser import Denoiser
from ..methods.perceptual import announce
from ..metrics import Scorer, Space
from ..schedule import cosine

SHAPE, PATCH, CHANNELS = (3, 32, 32), 2, (24, 32, 48)


def denoiser(classes: int = 0) -> Denoiser:
    """A fresh Denoiser: a picture enters with 2 × 2 neighbours as channels."""
    net = nets.unet(SHAPE, CHANNELS, patch=PATCH, n_classes=classes)
    return Denoiser(net, cosine(), "v", PATCH, classes)


def patches(x: Tensor) -> Tensor:
    """The mean colours of patches of 4 × 4 pixels, 8 × 8 of them, (N, 192): a space without a
    network. It says where which colour is, and nothing of what is finer."""
    return F.adaptive_avg_pool2d(x, 8).flatten(1)


def scorer(real: data.Images, spaces: dict[str, Space]) -> Scorer:
    """Scores pictures against real ones in these spaces, in patches of colour, and in Inception's
    features where their weights can be had."""
    found = {"patches": Space(patches)} | spaces
    try:
        found["inception"] = inception.space()
    except RuntimeError as error:
        announce(f"Scored without Inception. {error}")
    return Scorer(found, real, SHAPE)
