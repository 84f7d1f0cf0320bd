"""What a tensor must be like: each check says in one sentence what is wrong, before any work.

Shapes, dtypes and devices are always looked at. Values only where they lie in the CPU's memory: on
a GPU a look at them would wait for everything that the GPU has still to do.
"""
import math
import operator

import torch
from torch import Tensor, nn

PREDICTIONS = ("v", "x", "eps", "both")


def known(value: Tensor) -> bool:
    """Whether a tensor's values can be read at once: it is on the CPU, and of torch's own class,
    not one that stands for a tensor and has no values (a fake tensor's)."""
    return value.device.type == "cpu" and type(value) in (Tensor, nn.Parameter)


def extremes(x: Tensor, wait: bool = False) -> tuple[float, float] | None:
    """The least and the greatest value; None where x is empty or its values are not ``known``.
    wait: look also at what a GPU holds."""
    if not x.numel() or not (wait or x.device.type == "cpu"):
        return None
    low, high = x.detach().aminmax()
    return (low.item(), high.item()) if type(low) is Tensor else None


def certain(condition: Tensor) -> bool:
    """Whether a condition is met, and known to be."""
    return known(condition) and bool(condition)


def floating(**tensors: Tensor) -> None:
    """Raises TypeError unless each is a tensor of floating-point numbers."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}.")
        if not tensor.is_floating_point():
            hint = " Scale pixels with data.scale." if tensor.dtype == torch.uint8 else ""
            raise TypeError(f"{name} must be floating-point numbers; got {tensor.dtype}.{hint}")


def alike(**tensors: Tensor) -> None:
    """Raises TypeError unless all are floating, ValueError unless all have one shape. Tensors that
    would broadcast, (B, 1, 28, 28) with (B, 28, 28), are a mistake."""
    floating(**tensors)
    (first, one), *others = tensors.items()
    for name, other in others:
        if other.shape != one.shape:
            raise ValueError(f"{first} and {name} must have one shape; "
                             f"got {tuple(one.shape)} and {tuple(other.shape)}.")


def factors(like: Tensor, **values: Tensor | float) -> None:
    """Raises ValueError unless each is a number, or a tensor that broadcasts against ``like``
    (B, …) and leaves its shape as it is, (B, 1, …), as ``Schedule.at`` gives it."""
    for name, value in values.items():
        shape = tuple(getattr(value, "shape", ()))
        if not shape:
            continue
        if len(shape) != like.ndim or any(a not in (1, b) for a, b in zip(shape, like.shape)):
            raise ValueError(f"{name} must be a number or broadcast against {tuple(like.shape)}, "
                             f"as Schedule.at gives it; got shape {shape}.")


def batch(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raises TypeError unless x is floating, ValueError unless it is (B, *shape)."""
    floating(**{name: x})
    if x.ndim == 0 or tuple(x.shape[1:]) != tuple(shape):
        sizes = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape (B, {sizes}); got {tuple(x.shape)}.")


def whole(name: str, value: int, low: int = 1, high: int | None = None) -> int:
    """``value`` as an int. Raises ValueError unless it is a whole number from ``low`` to
    ``high``."""
    plain = hasattr(value, "__index__") and not isinstance(value, (bool, Tensor))
    number = operator.index(value) if plain else None
    if number is None or number < low or (high is not None and number > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}; got {value!r}.")
    return number


def times(t: int | Tensor, n: int, T: int, first: int = 0) -> int | Tensor:
    """t for n samples: an int, or an int64 tensor of one or n times.

    Raises TypeError unless they are whole numbers, ValueError for another shape, and IndexError for
    times outside first … T−1.
    """
    if isinstance(t, Tensor):
        if t.dtype != torch.int64:
            raise TypeError(f"t must be whole numbers (torch.int64); got {t.dtype}.")
        if t.ndim > 1 or t.numel() not in (1, n):
            raise ValueError(f"t must be one time, or one for each of the {n} samples; "
                             f"got shape {tuple(t.shape)}.")
        low, high = extremes(t) or (first, first)
    elif isinstance(t, bool) or not hasattr(t, "__index__"):
        raise TypeError(f"t must be a whole number, or a tensor of them; got {t!r}.")
    else:
        t = low = high = operator.index(t)
    if low < first or high >= T:
        clean = " (or be −1 for clean data)" if first < 0 else ""
        raise IndexError(f"t must lie in 0 … {T - 1}{clean}; got {low if low < first else high}.")
    return t


def order(s: int | Tensor, t: int | Tensor) -> None:
    """Raises ValueError unless s < t, where both are plain numbers."""
    if isinstance(s, int) and isinstance(t, int) and s >= t:
        raise ValueError(f"s must be an earlier time than t; got s = {s} and t = {t}.")


def check_label(label: Tensor | None, n: int, n_classes: int, wait: bool = False) -> None:
    """Raises TypeError or ValueError unless ``label`` is None or n whole numbers from 0 to
    n_classes (= no class). wait: look at the values also where a GPU holds them."""
    if label is None:
        return
    if not isinstance(label, Tensor) or label.dtype != torch.int64:
        kind = label.dtype if isinstance(label, Tensor) else type(label).__name__
        raise TypeError("label must be a tensor of whole numbers (torch.int64), one a sample; "
                        f"got {kind}.")
    if label.shape != (n,):
        raise ValueError(f"label must have shape ({n},), one a sample; got {tuple(label.shape)}.")
    low, high = extremes(label, wait) or (0, 0)
    if low < 0 or high > n_classes:
        classes = f"0 … {n_classes - 1}" if n_classes else "no class at all"
        raise ValueError(f"label must lie in {classes} ({n_classes}, or label=None, means no "
                         f"class); got {low if low < 0 else high}.")


def guidance(w: float, label: Tensor | None, n_classes: int) -> None:
    """Raises ValueError unless w is a finite number, and 0 where there is no label to guide by."""
    if not math.isfinite(w):
        raise ValueError(f"guidance must be a finite number; got {w}.")
    if w and not n_classes:
        raise ValueError(f"There are no classes to guide by: leave guidance at 0; got {w:g}.")
    if w and label is None:
        raise ValueError(f"guidance = {w:g} needs labels: it leads from no class towards one. "
                         "Give label, or leave guidance at 0.")


def beside(net: nn.Module, samples: Tensor, label: Tensor | None = None) -> None:
    """Raises ValueError unless samples and labels are on the network's device, and TypeError unless
    the samples are of its dtype (autocast converts them, where it is on)."""
    weight = next((p for p in net.parameters() if p.is_floating_point()), samples)
    for name, tensor in (("The samples", samples), ("The labels", label)):
        if tensor is not None and tensor.device != weight.device:
            raise ValueError(f"{name} are on {tensor.device} and the network is on "
                             f"{weight.device}: move one of them with .to(device).")
    if samples.dtype != weight.dtype and not torch.is_autocast_enabled(samples.device.type):
        raise TypeError(f"The samples are {samples.dtype} and the network's weights "
                        f"{weight.dtype}: convert the samples with .to({weight.dtype}).")


def asks_for_labels(net: nn.Module) -> bool:
    """Whether a network has an embedding of labels, and so has to be given some."""
    return getattr(net, "class_embedding", None) is not None


def tables(alpha: Tensor, sigma: Tensor) -> None:
    """Raises TypeError or ValueError unless α_t and σ_t (T,) are those of a forward process."""
    alike(alpha=alpha, sigma=sigma)
    if alpha.ndim != 1 or not len(alpha):
        raise ValueError(f"alpha and sigma must be tables (T,); got {tuple(alpha.shape)}.")
    if certain(~(alpha.isfinite() & sigma.isfinite()).all()):
        raise ValueError("alpha and sigma must be finite.")
    if certain((alpha < 0).any() | (sigma <= 0).any()):
        raise ValueError("alpha must be 0 or more, and sigma positive, at every t.")
    if certain((torch.atan2(sigma, alpha).diff() < -1e-9).any()):
        raise ValueError("A schedule only adds noise: σ/α must never fall from one t to the next.")


def prediction(kind: str, schedule) -> None:
    """Raises ValueError for a prediction that is unknown, or says nothing at some t."""
    if kind not in PREDICTIONS:
        raise ValueError(f"A network predicts one of {', '.join(PREDICTIONS)}; got {kind!r}.")
    if not hasattr(schedule, "alpha"):
        raise TypeError("schedule must be a Schedule, schedule.cosine() for instance; "
                        f"got {schedule!r}.")
    low, _ = extremes(schedule.alpha) or (1, 1)
    if kind == "eps" and low == 0:
        raise ValueError(f"A network that predicts ε says nothing of x where α = 0, as at the end "
                         f"of the schedule {schedule.name!r}: x = (x_t − σ ε)/α. Predict v or x, "
                         "or use schedule.clipped() or schedule.linear().")


def network(net: nn.Module, kind: str, patch: int, n_classes: int) -> None:
    """Raises ValueError unless a UNet2DModel's channels and labels fit the prediction, the patch
    and the number of classes. Networks of other kinds answer for themselves."""
    config = getattr(net, "config", None)
    c_in, c_out = (getattr(config, f"{side}_channels", None) for side in ("in", "out"))
    if c_in and c_in % patch**2:
        raise ValueError(f"With patch = {patch} the network's input channels must be a multiple of "
                         f"{patch**2}; it has {c_in}.")
    needed = 2 if kind == "both" else 1
    if c_in and c_out and c_out != needed * c_in:
        raise ValueError(f"A network that predicts {kind!r} of {c_in} input channels has "
                         f"{needed * c_in} output channels; this one has {c_out}.")
    if hasattr(net, "class_embedding") and not asks_for_labels(net) and n_classes:
        raise ValueError(f"The network takes no labels, so it has no {n_classes} classes: "
                         "say n_classes=0.")
    rows = getattr(config, "num_class_embeds", None)
    if rows and rows <= n_classes:
        raise ValueError(f"For {n_classes} classes and \"no class\" the network needs "
                         f"{n_classes + 1} labels; it has {rows}.")
    own = getattr(config, "n_classes", n_classes)
    if own != n_classes:
        raise ValueError(f"The network has {own} classes; say n_classes={own}, not {n_classes}.")
