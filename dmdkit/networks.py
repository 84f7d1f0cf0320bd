"""The network classes. They are diffusers models, with a config and ``save_pretrained``; importing
diffusers takes seconds, so this file is imported when a network is built (see ``nets``)."""
import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

GROUPS = 8  # of group norm, everywhere: any number of channels must be a multiple of it


def bottleneck(net: nn.Module, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """What a UNet2DModel has made of x (B, C, H, W) after its middle block, (B, C', h, w). t and
    label: (B,); a network without an embedding of labels is not asked with them.
    Raises TypeError for a network of another kind."""
    if hasattr(net, "bottleneck"):  # of points: what the network itself says
        return net.bottleneck(x, t)
    if not isinstance(net, UNet2DModel):
        raise TypeError("Only a UNet2DModel has a bottleneck to look at; "
                        f"got {type(net).__name__}.")
    x = 2 * x - 1 if net.config.center_input_sample else x
    embedding = net.time_embedding(net.time_proj(t).to(x.dtype))
    if net.class_embedding is not None:
        embedding = embedding + net.class_embedding(label)
    h, skip = net.conv_in(x), x
    for block in net.down_blocks:
        if hasattr(block, "skip_conv"):
            h, _, skip = block(h, embedding, skip)
        else:
            h, _ = block(h, embedding)
    return h if net.mid_block is None else net.mid_block(h, embedding)


class DiscriminatorHead(nn.Module):
    """Features of a bottleneck → one logit. Of images, (C, h, w): two convolutions, the second as
    wide as what is left. It sees where a feature is: with the mean over the image it would not. Of
    points, (C,): two layers.

    shape: of one sample's features.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        channels, *size = shape
        if size:
            left = [math.ceil(side / 2) for side in size]
            self.body = nn.Sequential(_conv(channels, channels, 2), nn.Conv2d(channels, 1, left))
        else:
            self.body = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(),
                                      nn.Linear(channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, *shape) → logits (B,), positive for "real"."""
        return self.body(features).flatten()


class PointMLP(ModelMixin, ConfigMixin):
    """A network for points of the plane, called like a UNet2DModel: the point and an embedding of t
    pass through layers of smooth units. Labels are taken and not used.

    Args:
        copies: so many independent networks side by side, which train together in little more time
            than one. The batch is divided among them in order: the first B / copies points are the
            first network's, and so on.
        frequencies: so many sines and cosines of each coordinate, of wave lengths 4, 2, 1 …, enter
            beside it. With them it learns fine detail in far fewer steps (Tancik et al. 2020).
        outputs: 2 for a network that predicts x and ε at once.
    """
    sample_shape = (2,)

    @register_to_config
    def __init__(self, width: int = 64, depth: int = 3, time_features: int = 32, copies: int = 1,
                 frequencies: int = 0, outputs: int = 1):
        super().__init__()
        self.time = Timesteps(time_features, flip_sin_to_cos=True, downscale_freq_shift=0)
        sizes = [2 + 4 * frequencies + time_features, *[width] * depth, 2 * outputs]
        layers = [nn.ModuleList(nn.Linear(i, o) for _ in range(copies))
                  for i, o in zip(sizes, sizes[1:])]
        self.weights = nn.ParameterList(
            torch.stack([one.weight.T for one in layer]).detach() for layer in layers)
        self.biases = nn.ParameterList(
            torch.stack([one.bias[None] for one in layer]).detach() for layer in layers)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> UNet2DOutput:
        """x (B, 2), t (B,) → an output whose ``.sample`` is (B, 2 outputs). Raises ValueError
        unless B is a multiple of the number of copies."""
        h = self._hidden(x, t)
        return UNet2DOutput(torch.baddbmm(self.biases[-1], h, self.weights[-1]).flatten(0, 1))

    def bottleneck(self, x: Tensor, t: Tensor) -> Tensor:
        """The last hidden layer, (B, width). Raises what ``forward`` raises."""
        return self._hidden(x, t).flatten(0, 1)

    def _hidden(self, x: Tensor, t: Tensor) -> Tensor:
        """(copies, B / copies, width)."""
        if len(x) % self.config.copies:
            raise ValueError(f"The number of points must be a multiple of the network's "
                             f"{self.config.copies} copies; got {len(x)}.")
        angles = [math.pi / 2 * 2**k * x for k in range(self.config.frequencies)]
        waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
        h = torch.cat([x, *waves, self.time(t).to(x.dtype)], 1)
        h = h.unflatten(0, (self.config.copies, -1))
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            h = F.silu(torch.baddbmm(bias, h, weight))
        return h

    def copy(self, i: int) -> "PointMLP":
        """The i-th of the networks on its own."""
        one = PointMLP.from_config(self.config, copies=1)
        one.load_state_dict({name: value[i:i + 1] for name, value in self.state_dict().items()})
        return one


def _conv(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.GroupNorm(GROUPS, c_out),
                         nn.SiLU())


class SmoothClassifier(ModelMixin, ConfigMixin):
    """A classifier of images whose ``features`` are a space for Fréchet distances: smooth units
    below a small head.

    They must show small faults of an image, and not only doubts about its class. So they keep where
    a stroke is (flattened, not averaged over the image); they are smooth (SiLU, no max-pooling);
    and a hidden layer stands between them and the logits, so that it is there, and not in the
    features, that each class is pulled together onto a point. Images are size × size.
    """

    @register_to_config
    def __init__(self, in_channels: int, size: int, n_features: int = 96, n_classes: int = 10):
        super().__init__()
        left = math.ceil(math.ceil(size / 2) / 2)  # what two strides of 2 leave of a side
        self.body = nn.Sequential(
            _conv(in_channels, 24), _conv(24, 48, 2), _conv(48, 48), _conv(48, 96, 2),
            _conv(96, 96), nn.Conv2d(96, 32, 1), nn.Flatten(),
            nn.Linear(32 * left**2, n_features), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(n_features, 64), nn.SiLU(), nn.Linear(64, n_classes))

    def features(self, x: Tensor) -> Tensor:
        """(B, in_channels, size, size) in [−1, 1] → (B, n_features)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, size, size) in [−1, 1] → logits (B, n_classes)."""
        return self.head(self.features(x))


class PoolingClassifier(ModelMixin, ConfigMixin):
    """A classifier of another family (batch norm, ReLU, max-pooling, dropout), to judge by where
    ``SmoothClassifier`` had a part in the training. Images are size × size."""

    @register_to_config
    def __init__(self, in_channels: int, size: int, width: int = 32, n_classes: int = 10):
        super().__init__()
        left = size // 2 // 2  # what two poolings leave of a side
        self.body = nn.Sequential(
            *_pooled(in_channels, width), *_pooled(width, 2 * width), nn.Flatten(), nn.Dropout(0.4),
            nn.Linear(2 * width * left**2, 256), nn.ReLU(), nn.Dropout(0.4))
        self.head = nn.Linear(256, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, in_channels, size, size) in [−1, 1] → (B, 256)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, size, size) in [−1, 1] → logits (B, n_classes)."""
        return self.head(self.features(x))


def _pooled(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, 5, padding=2), nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(2)


class ContextUNet(ModelMixin, ConfigMixin):
    """A U-Net of the kind that small conditional MNIST models use: convolutions in pairs, the image
    pooled down to one vector, time and label entering by a shift and a factor on the way up. With
    width 128, 28 × 28 grey images and ten classes it has the usual 6,585,601 parameters. Those
    normalise by batch; here it is by groups, which has as many parameters and is the same function
    in training and in use, as three networks with equal weights have to be.

    shape: (C, H, W), H and W multiples of 4. n_classes: 0 for a network without labels.
    """

    @register_to_config
    def __init__(self, shape: tuple[int, int, int], width: int = 128, T: int = 400,
                 n_classes: int = 0):
        super().__init__()
        channels, height, length = shape
        if height % 4 or length % 4:
            raise ValueError(f"A ContextUNet's images have sides that 4 divides; got {shape}.")
        self.sample_shape, w, lowest = tuple(shape), width, (height // 4, length // 4)
        self.first = nn.ModuleList([_pair(channels, w)[:3], _pair(w, w)[:3]])
        self.down = nn.ModuleList([_pair(w, w), _pair(w, 2 * w)])
        self.time = nn.ModuleList([_embedding(1, 2 * w), _embedding(1, w)])
        widths = (2 * w, w) if n_classes else ()
        self.label = nn.ModuleList([_embedding(n_classes, n) for n in widths])
        self.lift = nn.Sequential(nn.ConvTranspose2d(2 * w, 2 * w, lowest, lowest),
                                  nn.GroupNorm(GROUPS, 2 * w), nn.ReLU())
        self.up = nn.ModuleList([_upwards(2 * w, w), _upwards(w, w)])
        self.last = nn.Sequential(nn.Conv2d(2 * w, w, 3, 1, 1), nn.GroupNorm(GROUPS, w), nn.ReLU(),
                                  nn.Conv2d(w, channels, 3, 1, 1))

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> UNet2DOutput:
        """x (B, *shape), t (B,), labels (B,), n_classes or None being "no class" → an output whose
        ``.sample`` is like x."""
        h0 = self.first[0](x)
        h0 = (h0 + self.first[1](h0)) / math.sqrt(2)
        h1 = F.max_pool2d(self.down[0](h0), 2)
        h2 = F.max_pool2d(self.down[1](h1), 2)
        h = self.lift(F.gelu(F.adaptive_avg_pool2d(h2, 1)))
        share = (t[:, None].to(x.dtype) + 1) / self.config.T
        for i, skip in enumerate((h2, h1)):
            h = self._factor(i, t, class_labels, x.dtype) * h
            h = h + self.time[i](share)[..., None, None]
            h = self.up[i](torch.cat([h, skip], 1))
        return UNet2DOutput(self.last(torch.cat([h, h0], 1)))

    def _factor(self, i: int, t: Tensor, label: Tensor | None, dtype: torch.dtype):
        """By what the label multiplies the features of the i-th level; all zeros stand for "no
        class"."""
        n_classes = self.config.n_classes
        if not n_classes:
            return 1.0
        label = torch.full_like(t, n_classes) if label is None else label
        known = F.one_hot(label, n_classes + 1)[:, :-1].to(dtype)
        return self.label[i](known)[..., None, None]


def _pair(c_in: int, c_out: int) -> nn.Sequential:
    layers = []
    for channels in (c_in, c_out):
        layers += [nn.Conv2d(channels, c_out, 3, 1, 1), nn.GroupNorm(GROUPS, c_out), nn.GELU()]
    return nn.Sequential(*layers)


def _upwards(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(2 * c_in, c_out, 2, 2), _pair(c_out, c_out),
                         _pair(c_out, c_out))


def _embedding(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.GELU(), nn.Linear(n_out, n_out))


NETWORKS = {one.__name__: one for one in (UNet2DModel, PointMLP, ContextUNet, SmoothClassifier,
                                          PoolingClassifier)}
