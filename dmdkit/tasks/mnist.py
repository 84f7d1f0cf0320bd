"""MNIST: 28 × 28, grey, ten digits."""
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import data, nets, store
from ..denoiser import Denoiser
from ..methods.perceptual import LayerDistance
from ..metrics import Scorer, Space
from ..schedule import cosine, clipped, linear
from .task import Task

SHAPE, CLASSES, PATCH = (1, 28, 28), 10, 2
PAPER = -0.6  # where nothing near is darker, there is only paper
LAYERS = {"classifier": (1, 2, 3, 4, 5), "judge": (3, 7)}  # after which features are compared


def denoiser(channels=(32, 64), patch=PATCH, schedule=None, prediction="v", classes=CLASSES):
    """A fresh Denoiser: a 28 × 28 image enters with patch × patch neighbours as channels."""
    outputs = 2 if prediction == "both" else 1
    net = nets.unet(SHAPE, channels, patch=patch, n_classes=classes, outputs=outputs)
    return Denoiser(net, schedule or cosine(), prediction, patch, classes)


def small(prediction: str) -> Denoiser:
    """A third of the time a step, for comparisons; log SNR ≥ −20, so that ε says what x is."""
    return denoiser((16, 32), schedule=clipped(), prediction=prediction)


def documented() -> Denoiser:
    """The 6,585,601 parameters of the well-known small conditional U-Net: T = 400, linear β."""
    return Denoiser(nets.build("ContextUNet", SHAPE, n_classes=CLASSES), linear(400), "eps")


def layers(name: str, device) -> LayerDistance:
    """LPIPS' form on the layers of one of our classifiers. It is not LPIPS."""
    return LayerDistance(store.load(name).body, LAYERS[name]).to(device)


def spaces(device="cpu") -> dict[str, Space]:
    """The two feature spaces, of unlike architecture; the second one names the digits too."""
    first, second = store.load("classifier", device), store.load("judge", device)
    return {"classifier": Space(first.features), "judge": Space(second.features, second.head)}


def classes(x):
    """The digit that the second classifier sees in each of the images (N, 1, 28, 28), (N,)."""
    return store.load("judge", x.device)(x).argmax(1)


class DigitScorer(Scorer):
    """Scores digits as any images, and says what lies on their paper."""

    def __call__(self, samples, labels=None):
        return super().__call__(samples, labels) | {"paper": paper(samples)}


def scorer() -> DigitScorer:
    """Scores images against the 10,000 test images."""
    return DigitScorer(spaces(), data.mnist(train=False), SHAPE)


def paper(images: Tensor) -> dict[str, float]:
    """What lies on the paper around digits, where real ones have nothing; no figure where an
    untrained network leaves no paper to look at.

    images: (N, 1, H, W) in [−1, 1], of which −1 is the paper. Returns "ink", the mean of x + 1
    where no pixel of the 5 × 5 around is above −0.6, and "lattice", the share of the variance in
    blank 8 × 8 pieces that is of the three patterns whose period is two pixels (0.048, or 3 of 63,
    in white noise).
    """
    pixels = images[F.max_pool2d(images, 5, 1, 2) < PAPER]
    pieces = images.unfold(2, 8, 4).unfold(3, 8, 4).reshape(-1, 8, 8)
    pieces = pieces[pieces.amax((1, 2)) < PAPER]
    ink = {"ink": (pixels + 1).mean().item()} if len(pixels) else {}
    return ink | ({"lattice": _lattice(pieces)} if len(pieces) else {})


def _lattice(blank: Tensor) -> float:
    power = torch.fft.fft2(blank - blank.mean((1, 2), keepdim=True)).abs().square().sum(0)
    alternating = power[4, 0] + power[0, 4] + power[4, 4]
    return (alternating / power.sum().clamp(min=1e-12)).item()


MNIST = Task(
    "mnist", SHAPE, CLASSES, data.mnist,
    networks={
        "network": denoiser,
        "wide": partial(denoiser, (48, 96)),
        "tiny": partial(denoiser, (16,), patch=4),
        "documented": documented,
        "small, v": partial(small, "v"),
        "small, x": partial(small, "x"),
        "small, eps": partial(small, "eps"),
        "small, both": partial(small, "both"),
        "classifier": partial(nets.build, "SmoothClassifier", 1, 28, n_classes=CLASSES),
        "judge": partial(nets.build, "PoolingClassifier", 1, 28, n_classes=CLASSES)},
    make_scorer=scorer,
    distances={name: partial(layers, name) for name in LAYERS},
    classify=classes)
