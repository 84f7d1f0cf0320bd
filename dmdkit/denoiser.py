"""Denoiser: a network, its schedule and what the network predicts. Teacher, fake score and student are all one."""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import schedule as sch


PREDICTIONS = ("v", "x", "eps", "both")
EVERYWHERE = (0.0, 1.0)  # the interval of t/T that leaves no time out


class Prediction(NamedTuple):
    """One call of a denoiser in its four equivalent forms, each shaped like x_t."""
    x: Tensor      # the denoised mean μ(x_t, t) = E[x | x_t]
    eps: Tensor    # the noise that goes with it
    v: Tensor      # α ε − σ x
    score: Tensor  # ∇ log p_t(x_t) = −ε / σ


def predict(kind: str, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    """What a network of the given kind says, in all four forms. ``out``: shaped like x_t, for "both" with x̃ and ε̃
    one behind the other in its second dimension. Raises ValueError for a kind that is not in ``PREDICTIONS``."""
    if kind == "v":
        x, eps = sch.x_from_v(x_t, out, alpha, sigma), sch.eps_from_v(x_t, out, alpha, sigma)
    elif kind == "x":
        x, eps = out, sch.eps_from_x(x_t, out, alpha, sigma)
    elif kind == "eps":
        x, eps = sch.x_from_eps(x_t, out, alpha, sigma), out
    elif kind == "both":
        x = sch.x_from_both(x_t, *out.chunk(2, 1), alpha, sigma)
        eps = sch.eps_from_x(x_t, x, alpha, sigma)
    else:
        raise ValueError(f"A network predicts one of {', '.join(PREDICTIONS)}; got {kind!r}.")
    v = out if kind == "v" else sch.v_from_x_eps(x, eps, alpha, sigma)
    return Prediction(x, eps, v, sch.score_from_eps(eps, sigma))


def check_label(label: Tensor | None, n: int, n_classes: int) -> None:
    """Raises TypeError or ValueError unless ``label`` is None or n whole numbers from 0 to n_classes (= no class)."""
    if label is None:
        return
    if not isinstance(label, Tensor) or label.is_floating_point() or label.dtype == torch.bool:
        kind = label.dtype if isinstance(label, Tensor) else type(label).__name__
        raise TypeError(f"label must be a tensor of whole numbers (torch.int64), one a sample; got {kind}.")
    if label.shape != (n,):
        raise ValueError(f"label must have shape ({n},), one a sample; got {tuple(label.shape)}.")
    low, high = int(label.min()), int(label.max())
    if low < 0 or high > n_classes:
        raise ValueError(f"label must lie in 0 … {n_classes - 1} ({n_classes}, or label=None, means no class); "
                         f"got {low if low < 0 else high}.")


class Denoiser(nn.Module):
    """μ(x_t, t): a network ``net(x, t, class_labels).sample`` with its schedule and prediction kind.

    Args:
        net: diffusers' UNet2DModel, or anything called like it.
        schedule: the α_t, σ_t that it was trained with.
        prediction: what ``net`` returns: "v", "x", "eps", or "both" x and ε, at twice the channels.
        patch: each patch × patch block of pixels enters the network as channels (pixel-unshuffle). That is a
            permutation of the pixels, so it changes nothing in the mathematics, and makes the network cheaper.
        n_classes: classes 0 … n_classes − 1; label n_classes, or None, is "no class".
    """

    def __init__(self, net: nn.Module, schedule: sch.Schedule, prediction: str = "v", patch: int = 1,
                 n_classes: int = 10):
        super().__init__()
        self.net, self.schedule, self.prediction = net, schedule, prediction
        self.patch, self.n_classes = patch, n_classes

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) of an image, or what the network itself says, (2,) for points."""
        if hasattr(self.net, "sample_shape"):
            return self.net.sample_shape
        config, p = self.net.config, self.patch
        return config.in_channels // p**2, config.sample_size * p, config.sample_size * p

    def forward(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None, guidance: float = 0.0) -> Prediction:
        """Denoise x_t (B, *sample_shape) at t (an int or (B,)), for labels (B,) or None for no class.

        With ``guidance`` w > 0, classifier-free guidance (Ho & Salimans 2022, eq. 6): (1 + w) times the prediction
        with the label minus w times the one without, at the cost of two network evaluations.
        Raises ValueError or TypeError where a shape or label is off.
        """
        if x_t.ndim == 0 or tuple(x_t.shape[1:]) != self.sample_shape:
            raise ValueError(f"samples must have shape (B, {', '.join(map(str, self.sample_shape))}); "
                             f"got {tuple(x_t.shape)}.")
        if x_t.device.type == "cpu":  # on a GPU the look at the values would wait for it; samplers check once
            check_label(label, len(x_t), self.n_classes)
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        alpha, sigma = self.schedule.at(t, x_t)
        # x_t is the same in all that guidance mixes, so mixing v (or x) mixes ε by the same weights
        return predict(self.prediction, self._out(x_t, t, label, guidance), x_t, alpha, sigma)

    def _out(self, x_t: Tensor, t: Tensor, label: Tensor | None, guidance: float) -> Tensor:
        """What the network returns at t (B,), guided."""
        none = torch.full_like(t, self.n_classes)
        if label is None or guidance == 0.0:
            return self._net(x_t, t, none if label is None else label)
        with_label, without = self._net(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([label, none])).chunk(2)
        return (1 + guidance) * with_label - guidance * without

    def _net(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        if x_t.ndim != 4:
            return self.net(x_t, t, class_labels=label).sample.to(x_t.dtype)
        return F.pixel_shuffle(self.net(self._cut(x_t), t, class_labels=label).sample.to(x_t.dtype), self.patch)

    def _cut(self, x_t: Tensor) -> Tensor:
        return F.pixel_unshuffle(x_t, self.patch).contiguous(memory_format=torch.channels_last)

    def bottleneck(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """What a UNet2DModel has made of x_t (B, C, H, W) halfway, after its middle block: features (B, C', h, w).
        t, label: (B,). Its way up, the dearer half, is left out."""
        net = self.net
        embedding = net.time_embedding(net.time_proj(t).to(x_t.dtype)) + net.class_embedding(label)
        h = net.conv_in(self._cut(x_t))
        for block in net.down_blocks:
            h, _ = block(h, embedding)
        return net.mid_block(h, embedding)

    def copy(self) -> "Denoiser":
        """Another Denoiser of the same weights, ready to be trained: what every distillation starts from."""
        config = {name: value for name, value in self.net.config.items() if not name.startswith("_")}  # "_name_or_path"
        net = type(self.net).from_config(config)
        net.load_state_dict(self.net.state_dict())
        return Denoiser(net, self.schedule, self.prediction, self.patch, self.n_classes)

    @torch.no_grad()
    def generate(self, z: Tensor, label: Tensor | None = None, guidance: float = 0.0) -> Tensor:
        """The one-step generator G(z): the x-prediction at t = T−1, clamped to [−1, 1]. z: (B, *sample_shape) noise."""
        return self(z, self.schedule.T - 1, label, guidance).x.clamp(-1, 1)


class Guided(Denoiser):
    """A Denoiser that is guided at the times of an interval only (Kynkäänniemi et al. 2024), and may there be led away
    from a worse one too: autoguidance (Karras et al. 2024). To what classifier-free guidance says that adds
    guide_weight · (D(x_t, t, y) − D_guide(x_t, t, y)), at one network evaluation more. Where both miss something the
    worse one misses it by more, so the way away from it leads to where both should be.

    Args:
        denoiser: what is guided; its network is shared, not copied.
        interval: guidance of either kind where interval[0] ≤ t/T < interval[1]; elsewhere one evaluation.
        guide: a worse model of the same data, asked with the same label; None for classifier-free guidance alone.
        guide_weight: how far away from it.
    Raises ValueError for an interval that is none, a guide without weight or a weight without guide, and for a guide
    that predicts something else.
    """

    def __init__(self, denoiser: Denoiser, interval: tuple[float, float] = EVERYWHERE, guide: Denoiser | None = None,
                 guide_weight: float = 0.0):
        super().__init__(denoiser.net, denoiser.schedule, denoiser.prediction, denoiser.patch, denoiser.n_classes)
        low, high = interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"interval must be two shares of T, 0 ≤ low < high ≤ 1; got {low:g} and {high:g}.")
        if (guide is None) != (guide_weight == 0.0):
            raise ValueError("A guide and its weight go together; give both, or neither.")
        if not isinstance(guide or denoiser, Denoiser):
            raise ValueError(f"guide must be a Denoiser; got {type(guide).__name__}.")
        kind, other = ((d.schedule.name, d.schedule.T, d.prediction, d.sample_shape, d.n_classes)
                       for d in (denoiser, guide or denoiser))
        if kind != other:
            raise ValueError("guide must have the denoiser's schedule, T, prediction, shape and number of classes, "
                             f"{kind}; it has {other}.")
        self.interval, self.guide, self.guide_weight = interval, guide, guide_weight

    def _out(self, x_t: Tensor, t: Tensor, label: Tensor | None, guidance: float) -> Tensor:
        low, high = self.interval
        inside = (low <= t / self.schedule.T) & (t / self.schedule.T < high)
        if label is None or not inside.any():
            return super()._out(x_t, t, label, 0.0)
        with_label = self._net(x_t, t, label)
        added = torch.zeros_like(with_label)
        if guidance:
            added += guidance * (with_label - self._net(x_t, t, torch.full_like(t, self.n_classes)))
        if self.guide is not None:
            added += self.guide_weight * (with_label - self.guide._net(x_t, t, label))
        return with_label + inside.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1)) * added
