"""Networks: U-Net presets on diffusers' UNet2DModel, one for points of the plane, and the metrics' classifiers."""
import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

UNETS = {
    # The teacher's, and so every student's: a 28 × 28 image enters as 14 × 14 with its 2 × 2 neighbours as channels.
    "mnist": dict(sample_size=14, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1),
    # A third of its time a step, for comparisons of many trainings.
    "small": dict(sample_size=14, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1),
    # Seconds, not minutes: for tests, and for lessons that only have to show that something runs.
    "tiny": dict(sample_size=7, in_channels=16, out_channels=16, block_out_channels=(16,), layers_per_block=1),
}


def unet(preset: str = "mnist", n_classes: int = 10, outputs: int = 1) -> UNet2DModel:
    """A fresh UNet2DModel, class-conditional with one label more than ``n_classes`` for "no class".

    outputs: 2 for a network that predicts x and ε at once. Raises ValueError for a preset that is not in ``UNETS``.
    """
    if preset not in UNETS:
        raise ValueError(f"Unknown network preset {preset!r}; there are {', '.join(UNETS)}.")
    config = UNETS[preset] | {"out_channels": outputs * UNETS[preset]["out_channels"]}
    channels = config["block_out_channels"]
    levels = len(channels)
    return UNet2DModel(**config, down_block_types=("DownBlock2D",) * levels, up_block_types=("UpBlock2D",) * levels,
                       norm_num_groups=8, attention_head_dim=min(32, channels[-1]), num_class_embeds=n_classes + 1,
                       resnet_time_scale_shift="scale_shift")


class CriticHead(nn.Module):
    """Features of a U-Net's bottleneck → one logit: two convolutions, the second as wide as what is left. It sees where
    a feature is: with the mean over the image instead it would not."""

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels, 2), nn.Conv2d(channels, 1, math.ceil(size / 2)))

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, size, size) → logits (B,), positive for "real"."""
        return self.body(features).flatten()


class PointNet(ModelMixin, ConfigMixin):
    """A network for points of the plane, called like a UNet2DModel: the point and an embedding of t pass through
    layers of smooth units. Labels are taken and not used.

    ``copies``: so many independent networks side by side, which train together in little more time than one. The
    batch is divided among them in order: the first B / copies points are the first network's, and so on.
    ``frequencies``: so many sines and cosines of each coordinate, of wave lengths 4, 2, 1 …, enter beside it. With
    them it learns fine detail in far fewer steps (Tancik et al. 2020).
    """
    sample_shape = (2,)

    @register_to_config
    def __init__(self, width: int = 64, depth: int = 3, time_features: int = 32, copies: int = 1,
                 frequencies: int = 0):
        super().__init__()
        self.time = Timesteps(time_features, flip_sin_to_cos=True, downscale_freq_shift=0)
        sizes = [2 + 4 * frequencies + time_features, *[width] * depth, 2]
        layers = [nn.ModuleList(nn.Linear(i, o) for _ in range(copies)) for i, o in zip(sizes, sizes[1:])]
        self.weights = nn.ParameterList(torch.stack([one.weight.T for one in layer]).detach() for layer in layers)
        self.biases = nn.ParameterList(torch.stack([one.bias[None] for one in layer]).detach() for layer in layers)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> UNet2DOutput:
        """x (B, 2), t (B,) → an output whose ``.sample`` is (B, 2)."""
        angles = [math.pi / 2 * 2**k * x for k in range(self.config.frequencies)]
        waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
        h = torch.cat([x, *waves, self.time(t).to(x.dtype)], 1).unflatten(0, (self.config.copies, -1))
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            h = F.silu(torch.baddbmm(bias, h, weight))
        return UNet2DOutput(torch.baddbmm(self.biases[-1], h, self.weights[-1]).flatten(0, 1))

    def copy(self, i: int) -> "PointNet":
        """The i-th of the networks on its own."""
        one = PointNet.from_config(self.config, copies=1)
        one.load_state_dict({name: value[i:i + 1] for name, value in self.state_dict().items()})
        return one


def _conv(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.GroupNorm(8, c_out), nn.SiLU())


class DigitClassifier(ModelMixin, ConfigMixin):
    """The classifier whose ``features`` are the space of our Fréchet distance: 96 smooth units below a small head.

    They must show small faults of a digit, and not only doubts about its class. So they keep where a stroke is
    (flattened, not averaged over the image); they are smooth (SiLU, no max-pooling); and a hidden layer stands between
    them and the logits, so that it is there, and not in the features, that each class is pulled together onto a point.
    """

    @register_to_config
    def __init__(self, n_features: int = 96, n_classes: int = 10):
        super().__init__()
        self.body = nn.Sequential(_conv(1, 24), _conv(24, 48, 2), _conv(48, 48), _conv(48, 96, 2), _conv(96, 96),
                                  nn.Conv2d(96, 32, 1), nn.Flatten(), nn.Linear(32 * 7 * 7, n_features), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(n_features, 64), nn.SiLU(), nn.Linear(64, n_classes))

    def features(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [−1, 1] → (B, n_features)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [−1, 1] → logits (B, n_classes)."""
        return self.head(self.features(x))


class JudgeClassifier(ModelMixin, ConfigMixin):
    """A second classifier, of another family (batch norm, ReLU, max-pooling, dropout) and another seed, that says
    which digit a sample is. Nothing is trained or tuned on it."""

    @register_to_config
    def __init__(self, width: int = 32, n_classes: int = 10):
        super().__init__()
        layer = lambda i, o: (nn.Conv2d(i, o, 5, padding=2), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Sequential(*layer(1, width), *layer(width, 2 * width), nn.Flatten(), nn.Dropout(0.4),
                                  nn.Linear(2 * width * 49, 256), nn.ReLU(), nn.Dropout(0.4))
        self.head = nn.Linear(256, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [−1, 1] → (B, 256)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [−1, 1] → logits (B, n_classes)."""
        return self.head(self.features(x))


def _pair(c_in: int, c_out: int, groups: int = 8) -> nn.Sequential:
    return nn.Sequential(*(layer for i in (c_in, c_out) for layer in (
        nn.Conv2d(i, c_out, 3, 1, 1), nn.GroupNorm(groups, c_out), nn.GELU())))


def _embedding(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.GELU(), nn.Linear(n_out, n_out))


class ContextUNet(ModelMixin, ConfigMixin):
    """A U-Net of the kind that small conditional MNIST models use: convolutions in pairs, the image pooled down to one
    vector, time and label entering by a shift and a factor on the way up. With width 128 it has the 6,585,601
    parameters of the documents' teacher. They normalised by batch; here it is by groups, which has as many
    parameters and is the same function in training and in use, as three networks with equal weights have to be.
    """
    sample_shape = (1, 28, 28)

    @register_to_config
    def __init__(self, width: int = 128, T: int = 400, n_classes: int = 10):
        super().__init__()
        w = width
        self.first = nn.ModuleList([_pair(1, w)[:3], _pair(w, w)[:3]])
        self.down = nn.ModuleList([_pair(w, w), _pair(w, 2 * w)])
        self.time = nn.ModuleList([_embedding(1, 2 * w), _embedding(1, w)])
        self.label = nn.ModuleList([_embedding(n_classes, 2 * w), _embedding(n_classes, w)])
        self.lift = nn.Sequential(nn.ConvTranspose2d(2 * w, 2 * w, 7, 7), nn.GroupNorm(8, 2 * w), nn.ReLU())
        self.up = nn.ModuleList([nn.Sequential(nn.ConvTranspose2d(2 * i, w, 2, 2), _pair(w, w), _pair(w, w))
                                 for i in (2 * w, w)])
        self.last = nn.Sequential(nn.Conv2d(2 * w, w, 3, 1, 1), nn.GroupNorm(8, w), nn.ReLU(),
                                  nn.Conv2d(w, 1, 3, 1, 1))

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> UNet2DOutput:
        """x (B, 1, 28, 28), t (B,), labels (B,), n_classes being "no class" → an output whose ``.sample`` is like x."""
        share = (t[:, None].to(x.dtype) + 1) / self.config.T
        known = F.one_hot(class_labels, self.config.n_classes + 1)[:, :-1].to(x.dtype)  # "no class": all zeros
        h0 = self.first[0](x)
        h0 = (h0 + self.first[1](h0)) / math.sqrt(2)
        h1 = F.max_pool2d(self.down[0](h0), 2)
        h2 = F.max_pool2d(self.down[1](h1), 2)
        h = self.lift(F.gelu(F.avg_pool2d(h2, 7)))
        for up, skip, time, label in zip(self.up, (h2, h1), self.time, self.label):
            h = label(known)[..., None, None] * h + time(share)[..., None, None]
            h = up(torch.cat([h, skip], 1))
        return UNet2DOutput(self.last(torch.cat([h, h0], 1)))
