"""Networks: U-Net presets on diffusers' UNet2DModel, and the two digit classifiers of the metrics."""
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

UNETS = {
    # The teacher's, and so every student's: a 28 × 28 image enters as 14 × 14 with its 2 × 2 neighbours as channels.
    "mnist": dict(sample_size=14, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1),
    # Seconds, not minutes: for tests, and for lessons that only have to show that something runs.
    "tiny": dict(sample_size=7, in_channels=16, out_channels=16, block_out_channels=(16,), layers_per_block=1),
}


def unet(preset: str = "mnist", n_classes: int = 10) -> UNet2DModel:
    """A fresh UNet2DModel, class-conditional with one label more than ``n_classes`` for "no class".

    Raises ValueError for a preset that is not in ``UNETS``.
    """
    if preset not in UNETS:
        raise ValueError(f"Unknown network preset {preset!r}; there are {', '.join(UNETS)}.")
    config = UNETS[preset]
    channels = config["block_out_channels"]
    levels = len(channels)
    return UNet2DModel(**config, down_block_types=("DownBlock2D",) * levels, up_block_types=("UpBlock2D",) * levels,
                       norm_num_groups=8, attention_head_dim=min(32, channels[-1]), num_class_embeds=n_classes + 1,
                       resnet_time_scale_shift="scale_shift")


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

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [−1, 1] → logits (B, n_classes)."""
        return self.head(self.body(x))
