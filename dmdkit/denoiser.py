"""Denoiser: a network, its schedule and what it predicts. Teacher, fake score and student are all
one."""
import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import expect
from . import schedule as sch
from .expect import PREDICTIONS, check_label

EVERYWHERE = (0.0, 1.0)  # the interval of t/T that leaves no time out


class Prediction(NamedTuple):
    """One call of a denoiser in its four equivalent forms, each shaped like x_t."""
    x: Tensor      # the denoised mean μ(x_t, t) = E[x | x_t]
    eps: Tensor    # the noise that goes with it
    v: Tensor      # α ε − σ x
    score: Tensor  # ∇ log p_t(x_t) = −ε / σ


def predict(kind: str, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    """What a network of the given kind says, in all four forms. ``out``: shaped like x_t, for
    "both" with x̃ and ε̃ one behind the other in its second dimension. Raises ValueError for a kind
    that is not in ``PREDICTIONS`` or an ``out`` of another shape."""
    if kind == "v":
        x = sch.x_from_v(x_t, out, alpha, sigma)
        eps = sch.eps_from_v(x_t, out, alpha, sigma)
        return Prediction(x, eps, out, sch.score_from_eps(eps, sigma))
    if kind == "x":
        x, eps = out, sch.eps_from_x(x_t, out, alpha, sigma)
    elif kind == "eps":
        x, eps = sch.x_from_eps(x_t, out, alpha, sigma), out
    elif kind == "both":
        x = sch.x_from_both(x_t, *out.chunk(2, 1), alpha, sigma)
        eps = sch.eps_from_x(x_t, x, alpha, sigma)
    else:
        raise ValueError(f"A network predicts one of {', '.join(PREDICTIONS)}; got {kind!r}.")
    return Prediction(x, eps, sch.v_from_x_eps(x, eps, alpha, sigma),
                      sch.score_from_eps(eps, sigma))


class Denoiser(nn.Module):
    """μ(x_t, t): a network ``net(x, t, class_labels).sample`` with its schedule and prediction.

    Args:
        net: diffusers' UNet2DModel, or anything called like it.
        schedule: the α_t, σ_t that it was trained with.
        prediction: what ``net`` returns: "v", "x", "eps", or "both" x and ε, at twice the channels.
        patch: each patch × patch block of pixels enters the network as channels (pixel-unshuffle).
            That is a permutation of the pixels, so it changes nothing in the mathematics, and makes
            the network cheaper.
        n_classes: classes 0 … n_classes − 1; label n_classes, or None, is "no class". With 0 the
            network is called without labels, unless it has an embedding for them.
    Raises ValueError for an unknown prediction, for "eps" where the schedule has α = 0, and for a
    network whose channels or classes are not those.
    """

    def __init__(self, net: nn.Module, schedule: sch.Schedule, prediction: str = "v",
                 patch: int = 1, n_classes: int = 10):
        super().__init__()
        self.net, self.schedule, self.prediction = net, schedule, prediction
        self.patch = expect.whole("patch", patch)
        self.n_classes = expect.whole("n_classes", n_classes, 0)
        expect.prediction(prediction, schedule)
        expect.network(net, prediction, self.patch, self.n_classes)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "Denoiser":
        """The Denoiser of a folder that diffusers wrote, or of a name on the Hugging Face hub:
        google/ddpm-cifar10-32 and its kind, a UNet2DModel with its scheduler_config.json. In eval
        mode, on the CPU.

        A network with an embedding of k labels has k − 1 classes here, its last label being "no
        class", as in the kit's own networks. Raises RuntimeError, or ValueError for a scheduler or
        a prediction that is unknown here.
        """
        from . import pretrained  # only now: it imports diffusers, which takes seconds

        return cls(*pretrained.read(source)).eval()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) of an image, or what the network itself says, (2,) for
        points."""
        if hasattr(self.net, "sample_shape"):
            return tuple(self.net.sample_shape)
        config, p = self.net.config, self.patch
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels // p**2, height * p, width * p

    def forward(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None,
                guidance: float = 0.0) -> Prediction:
        """Denoise x_t (B, *sample_shape) at t (an int or (B,) int64, in 0 … T−1), for labels (B,)
        int64, or None for no class.

        With ``guidance`` w, classifier-free guidance (Ho & Salimans 2022, eq. 6): (1 + w) times the
        prediction with the label minus w times the one without, at the cost of two network
        evaluations. Raises ValueError, TypeError or IndexError, before the network is called, where
        a shape, dtype, device or value is off.
        """
        t = self.check(x_t, t, label, guidance)
        alpha, sigma = self.schedule.at(t, x_t)
        # x_t is the same in all that guidance mixes, so mixing v (or x) mixes ε by the same weights
        out = self._out(x_t, t, label, guidance)
        return predict(self.prediction, out, x_t, alpha, sigma)

    def check(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None,
              guidance: float = 0.0) -> int | Tensor:
        """Raises what ``forward`` raises; returns t."""
        expect.batch("samples", x_t, self.sample_shape)
        if not len(x_t):
            raise ValueError("There are no samples to denoise: the batch is empty.")
        check_label(label, len(x_t), self.n_classes)
        expect.guidance(guidance, label, self.n_classes)
        expect.beside(self.net, x_t, label)
        return expect.times(t, len(x_t), self.schedule.T)

    def _out(self, x_t: Tensor, t: int | Tensor, label: Tensor | None, guidance: float) -> Tensor:
        """What the network returns at t, guided."""
        if label is None or guidance == 0.0:
            return self._net(x_t, t, label)
        double, times = torch.cat([x_t, x_t]), self._times(x_t, t).repeat(2)
        labels = torch.cat([label, torch.full_like(label, self.n_classes)])
        with_label, without = self._net(double, times, labels).chunk(2)
        return (1 + guidance) * with_label - guidance * without

    def _times(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """t as one time for each sample, (B,), beside them."""
        return torch.as_tensor(t, device=x_t.device).expand(len(x_t))

    def _net(self, x_t: Tensor, t: int | Tensor, label: Tensor | None) -> Tensor:
        """One call of the network, with "no class" where label is None; shaped like x_t, or with
        twice its channels."""
        t = self._times(x_t, t)
        images = x_t.ndim == 4
        inputs = self._cut(x_t) if images else x_t
        labels = {}
        if self.n_classes or expect.asks_for_labels(self.net):
            labels["class_labels"] = torch.full_like(t, self.n_classes) if label is None else label
        out = self.net(inputs, t, **labels).sample.to(x_t.dtype)
        return F.pixel_shuffle(out, self.patch) if images else out

    def _cut(self, x_t: Tensor) -> Tensor:
        cut = F.pixel_unshuffle(x_t, self.patch)
        return cut.contiguous(memory_format=torch.channels_last)

    def bottleneck(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None) -> Tensor:
        """What the network has made of x_t halfway: of images (B, C, H, W) a UNet2DModel after its
        middle block, (B, C', h, w), its way up, the dearer half, being left out; of points (B, C').
        Raises what ``forward`` raises, and TypeError for a network of another kind."""
        from . import networks

        t = self._times(x_t, self.check(x_t, t, label))
        if label is None:
            label = torch.full_like(t, self.n_classes)
        inputs = self._cut(x_t) if x_t.ndim == 4 else x_t
        return networks.bottleneck(self.net, inputs, t, label)

    def copy(self) -> "Denoiser":
        """Another Denoiser of the same weights, in float32 on the same device, ready to be trained:
        what every distillation starts from."""
        config = {key: value for key, value in self.net.config.items() if key[0] != "_"}
        with next(self.net.parameters()).device:  # made there, not moved there
            net = type(self.net).from_config(config)
        net.load_state_dict(self.net.state_dict())
        return Denoiser(net, self.schedule, self.prediction, self.patch, self.n_classes)

    @torch.no_grad()
    def generate(self, z: Tensor, label: Tensor | None = None, guidance: float = 0.0) -> Tensor:
        """The one-step generator G(z): the x-prediction at t = T−1. z: (B, *sample_shape) noise.
        Images are clamped to [−1, 1]; points are not."""
        x = self(z, self.schedule.T - 1, label, guidance).x
        return x.clamp(-1, 1) if x.ndim == 4 else x


def check_guides(interval: tuple[float, float], guide: bool, guide_weight: float) -> None:
    """Raises ValueError for an interval that is none, for a guide without a finite weight, and for
    a weight without a guide."""
    if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError("interval must be two shares of T, 0 ≤ low < high ≤ 1; "
                         f"got {' and '.join(f'{share:g}' for share in interval)}.")
    if guide != (guide_weight != 0.0) or not math.isfinite(guide_weight):
        raise ValueError("A guide and its weight go together; give both, or neither.")


class Guided(Denoiser):
    """A Denoiser that is guided at the times of an interval only (Kynkäänniemi et al. 2024), and
    may there be led away from a worse one too: autoguidance (Karras et al. 2024). To what
    classifier-free guidance says that adds guide_weight · (D(x_t, t, y) − D_guide(x_t, t, y)), at
    one network evaluation more. Where both miss something the worse one misses it by more, so the
    way away from it leads to where both should be.

    Args:
        denoiser: what is guided; its network is shared, not copied.
        interval: guidance of either kind where interval[0] ≤ t/T < interval[1]; elsewhere one
            evaluation.
        guide: a worse model of the same data, asked with the same label; None for classifier-free
            guidance alone.
        guide_weight: how far away from it.
    Raises ValueError for an interval that is none, a guide without weight or a weight without
    guide, and for a guide that predicts something else.
    """

    def __init__(self, denoiser: Denoiser, interval: tuple[float, float] = EVERYWHERE,
                 guide: Denoiser | None = None, guide_weight: float = 0.0):
        super().__init__(denoiser.net, denoiser.schedule, denoiser.prediction, denoiser.patch,
                         denoiser.n_classes)
        check_guides(interval, guide is not None, guide_weight)
        if guide is not None:
            self._check_guide(guide)
        self.interval, self.guide, self.guide_weight = interval, guide, guide_weight

    def _check_guide(self, guide: Denoiser) -> None:
        if not isinstance(guide, Denoiser):
            raise ValueError(f"guide must be a Denoiser; got {type(guide).__name__}.")
        for name in ("prediction", "sample_shape", "n_classes"):
            mine, other = getattr(self, name), getattr(guide, name)
            if mine != other:
                raise ValueError(f"guide must have the denoiser's {name}, {mine}; it has {other}.")
        if not self.schedule.same(guide.schedule):
            raise ValueError("guide must have the denoiser's schedule, "
                             f"{self.schedule.name!r} of T = {self.schedule.T}, value by value; "
                             f"it has {guide.schedule.name!r} of T = {guide.schedule.T}.")

    def _inside(self, t: int | Tensor) -> bool | Tensor:
        share = t / self.schedule.T
        return (self.interval[0] <= share) & (share < self.interval[1])

    def _out(self, x_t: Tensor, t: int | Tensor, label: Tensor | None, guidance: float) -> Tensor:
        inside = self._inside(t)
        if isinstance(inside, Tensor):  # what a GPU holds is not waited for
            outside = expect.certain(~inside.any())
        else:
            outside = not inside
        with_label = self._net(x_t, t, label)
        if outside or (label is None and self.guide is None):
            return with_label
        added = torch.zeros_like(with_label)
        if guidance:
            added += guidance * (with_label - self._net(x_t, t, None))
        if self.guide is not None:
            added += self.guide_weight * (with_label - self.guide._net(x_t, t, label))
        inside = torch.as_tensor(inside, device=x_t.device).to(x_t.dtype)
        return with_label + inside.reshape(-1, *[1] * (x_t.ndim - 1)) * added
