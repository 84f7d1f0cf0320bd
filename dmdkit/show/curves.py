"""Pictures of progressive distillation (lesson 05). Each function takes data and returns a matplotlib Figure."""
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .data import scale
from .plots import BLUE, GREEN, GREY, INK, ORANGE, curve, mosaic, plain_log
from .schedule import Schedule

STYLES = {"distilled": (ORANGE, "o-"), "DDIM": (BLUE, "s-"), "ancestral": (GREEN, "^-")}


def draw_step_curves(curves: dict[str, dict[int, float] | float], title: str = "", label: str = "Fréchet distance",
                     highlight: int | None = None) -> Figure:
    """A score against the number of steps, both axes logarithmic (Salimans & Ho 2022, Figure 4).

    curves: by name the score at each number of steps; a number alone, that of real images say, is a dashed line.
    highlight: a number of steps, where each curve has a large mark.
    """
    figure = Figure((8.2, 3.9), dpi=90, layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        if not isinstance(points, dict):
            axes.axhline(points, color=GREY, linestyle="--", linewidth=1, label=name)
            continue
        colour, style = STYLES.get(name, ("black", "D-"))
        axes.plot(list(points), list(points.values()), style, color=colour, label=name, markersize=5)
        if highlight in points:
            axes.plot(highlight, points[highlight], style[0], color=colour, markersize=11)
    axes.set(xscale="log", yscale="log", xlabel="steps, one call of the network each", ylabel=label, title=title)
    steps = sorted({n for points in curves.values() if isinstance(points, dict) for n in points})
    axes.set_xticks(steps, [str(n) if n.bit_count() == 1 else "" for n in steps])  # "400" would touch "512"
    axes.minorticks_off()
    plain_log(axes.yaxis)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_weights(schedule: Schedule, weightings: dict[str, Tensor]) -> Figure:
    """Weightings of the squared error in x, in ε and in v, against log SNR. weightings: by name, in x-space, (T,)."""
    alpha, sigma = (table.numpy()[:-1] for table in (schedule.alpha, schedule.sigma))  # log SNR is −∞ at the last
    log_snr = 2 * np.log(alpha / sigma)
    figure = Figure((9.6, 3.0), dpi=90, layout="constrained")
    spaces = {"on ‖x − x̂‖²": np.ones_like(alpha), "on ‖ε − ε̂‖²": sigma**2 / alpha**2, "on ‖v − v̂‖²": sigma**2}
    for axes, (space, factor) in zip(figure.subplots(1, 3, sharey=True), spaces.items()):
        for (name, weight), style, colour in zip(weightings.items(), ("-", "--", ":"), (BLUE, ORANGE, GREEN)):
            axes.plot(log_snr, weight.numpy()[:-1] * factor, style, color=colour, label=name, linewidth=2)
        axes.set(yscale="log", ylim=(1e-4, 1e4), xlim=(-10, 10), xlabel="log SNR: noise … data")
        axes.set_title(f"weight {space}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    return figure


def draw_stage(losses: Sequence[float], looks: dict[int, Tensor], total: int, goal: Tensor, title: str = "") -> Figure:
    """A halving in progress: its loss, its samples (20, 28, 28) uint8 at the first and the last look, and what its
    teacher makes of the same noise."""
    figure = Figure((10.2, 5.4), dpi=72, layout="constrained")
    figure.suptitle(title, fontsize=11)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.6))
    curve(losses, smooth=10, total=total, axes=upper.subplots())
    first, last = min(looks), max(looks)
    shown = {f"before: update {first}": looks[first], f"now: update {last}": looks[last],
             "the teacher, in twice the steps": goal}
    for axes, (name, pictures) in zip(lower.subplots(1, 3), shown.items()):
        axes.imshow(mosaic(scale(pictures)[:, None], 5), **INK)
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    return figure
