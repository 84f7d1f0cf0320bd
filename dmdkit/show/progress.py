"""Trainings: as they go on, the loss and the samples so far; and several of them over their steps.
Each function takes values and returns a matplotlib Figure. Samples are images of any shape or
points of the plane."""
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .curves import plot_curve
from .images import mosaic
from .plane import Panel, View, plot_panel, plot_plane
from .style import (BASELINE, BLUE, WIDEST, coloured, new_figure, plain_log, side_by_side, styled)

UPDATES = "updates of the generator"
MOST_BANDS = 4  # that can be told apart in one panel


def are_points(samples: Tensor) -> bool:
    """Whether samples are points of the plane, (N, 2), and not images."""
    return samples.ndim == 2


def as_images(samples: Tensor) -> Tensor:
    """Images as (N, C, H, W), also where grey ones were kept as (N, H, W)."""
    return samples[:, None] if samples.ndim == 3 else samples


def plot_samples(axes: Axes, samples: Tensor, title: str = "", columns: int | None = None) -> None:
    """Images as a grid, of about as many rows as columns unless given; or points of the plane."""
    if are_points(samples):
        axes.scatter(*samples.T.float().numpy(force=True), s=4, color=BLUE, linewidths=0)
        plot_plane(axes, title)
        return
    columns = columns or math.ceil(math.sqrt(len(samples)))
    axes.imshow(mosaic(as_images(samples), columns))
    axes.set_title(title)
    axes.set_axis_off()


@styled
def training(losses: Sequence[float], grown: dict[int, Tensor], total: int,
             rows: int = 5) -> Figure:
    """A training in progress: the loss a step, and by step the samples drawn from one noise after
    it, images (N, C, H, W) or points (N, 2).

    total: steps of the whole training. ``rows`` of samples have room, so that a figure that is
    redrawn in place does not jump.
    """
    rows = max(rows, len(grown))
    height = 2.9 + 0.62 * rows
    figure = new_figure(WIDEST, height)
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.9, height - 2.9))
    title = f"Step {len(losses)} of {total}: the loss falls fast, then slowly; look at the samples"
    plot_curve(upper.subplots(), losses, title, smooth=25, total=total)
    if any(are_points(samples) for samples in grown.values()):
        _clouds(side_by_side(lower, rows), grown)
    elif grown:
        _rows(list(lower.subplots(rows, 1, squeeze=False)[:, 0]), grown)
    return figure


def _clouds(places: list[Axes], grown: dict[int, Tensor]) -> None:
    for axes in places[len(grown):]:
        axes.set_axis_off()
    for axes, (step, samples) in zip(places, sorted(grown.items())):
        plot_samples(axes, samples, f"step {step}")


def _rows(places: list[Axes], grown: dict[int, Tensor]) -> None:
    for axes in places[len(grown):]:
        axes.set_axis_off()
    for axes, (step, samples) in zip(places, sorted(grown.items())):
        plot_samples(axes, samples, columns=len(samples))
        axes.text(-0.01, 0.5, f"step {step}", ha="right", va="center", transform=axes.transAxes)


@styled
def halving(losses: Sequence[float], drawn: dict[int, Tensor], total: int, goal: Tensor,
          title: str = "") -> Figure:
    """A halving in progress: its loss, its samples at the first and the last of the steps in
    ``drawn``, and ``goal``, what its teacher makes of the same noise."""
    figure = new_figure(WIDEST, 5.4, title)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.6))
    plot_curve(upper.subplots(), losses, smooth=10, total=total)
    first, last = min(drawn), max(drawn)
    shown = {f"before: update {first}": drawn[first], f"now: update {last}": drawn[last],
             "the teacher, in twice the steps": goal}
    for axes, (name, samples) in zip(side_by_side(lower, 3), shown.items()):
        plot_samples(axes, samples, name)
    return figure


@styled
def plane(fields: Sequence[Panel], steps: Sequence[int], distances: Sequence[float], total: int,
          baseline: float, view: View = View(cap=1.0)) -> Figure:
    """A training in the plane: the panels of a field (no axes) above the Wasserstein distance to
    the data so far, with that of two samples of the data as the baseline."""
    figure = new_figure(WIDEST, 4.9)
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 1.6))
    for axes, panel in zip(side_by_side(upper, len(fields)), fields):
        plot_panel(axes, panel, view=view)
    axes = lower.subplots()
    axes.plot(steps, distances, "o-", color=BLUE, markersize=3)
    axes.axhline(baseline, **BASELINE)
    axes.set(xlim=(0, total), ylim=(0, 1.1 * max(1.1, *distances, baseline)),
             xlabel=UPDATES, title="Wasserstein distance to the data")
    return figure


# Stored trainings, several in one figure

def class_imbalance(counts: Tensor) -> np.ndarray:
    """The share of samples in classes that have too many, where all should have as many: half the
    sum of |share − 1/classes|. counts: (F, classes); returns (F,)."""
    shares = counts.float() / counts.sum(1, keepdim=True)
    return ((shares - 1 / counts.shape[1]).abs().sum(1) / 2).numpy()


@styled
def drift(runs: dict[str, dict], real_brightness: float, title: str = "") -> Figure:
    """Mean brightness of the samples over training, and their class imbalance. runs: by setting,
    "steps" (F,), "brightness" (seeds, F), of which the first is thick, and the first one's
    "snapshots" with "classes" (F, classes). The steadiest setting sets the scale of the brightness:
    one that collapses leaves the panel."""
    figure = new_figure(WIDEST, 3, title)
    bright, classes = side_by_side(figure, 2)
    for colour, name, run in coloured(runs):
        plot_seeds(bright, run["steps"], run["brightness"], colour)
        imbalance = class_imbalance(run["snapshots"]["classes"])
        classes.plot(run["steps"], imbalance, color=colour, label=name)
    bright.axhline(real_brightness, **BASELINE)
    reach = 4 * min(_strays(run["brightness"], real_brightness) for run in runs.values())
    bright.set(title="Mean brightness (dashed: real images)", xlabel=UPDATES,
               ylim=(real_brightness - reach, real_brightness + reach))
    classes.set(title="Class imbalance: share in classes that have too many", xlabel=UPDATES,
                ylim=(0, None))
    classes.legend()
    return figure


def _strays(brightness: Tensor, real: float) -> float:
    """How far a setting's brightness goes from that of real images."""
    return max(0.01, float((brightness - real).abs().max()))


def plot_seeds(axes: Axes, steps: Tensor, values: Tensor, colour: str) -> None:
    """Values (seeds, F) over training: thick the first seed, thin the others."""
    axes.plot(steps, values[0], color=colour)
    for line in values[1:]:
        axes.plot(steps, line, color=colour, linewidth=1, alpha=0.5)


def plot_band(axes: Axes, steps: Tensor, values: Tensor, colour: str, label: str,
              place: float) -> None:
    """The mean of several copies' values (F, copies), and a band from the least to the largest.
    Lines of an earlier ``place`` in 0 … 1 are wider, so that one on top of them hides none."""
    values = values.numpy()
    axes.plot(steps, values.mean(1), color=colour, label=label, linewidth=1.5 + 4 * (1 - place))
    axes.fill_between(steps, values.min(1), values.max(1), color=colour, alpha=0.15, linewidth=0)


def plot_ends(axes: Axes, steps: Tensor, values: Tensor, colour: str, label: str,
              place: float) -> None:
    """The mean of several copies' values (F, copies), and beside its end, at a ``place`` in 0 … 1,
    a bar from the least to the largest."""
    axes.plot(steps, values.mean(1), color=colour, label=label)
    at = float(steps[-1]) * (1.03 + 0.2 * place)
    axes.vlines(at, float(values[-1].min()), float(values[-1].max()), color=colour, linewidth=2.5)
    axes.plot(at, float(values[-1].mean()), "o", color=colour, markeredgecolor="white")


@styled
def modes(runs: dict[str, dict], baseline: float, n_modes: int, title: str = "") -> Figure:
    """Modes covered and Wasserstein distance to the data over training: the mean of a run's
    copies, and a band from the least to the largest; of more than four runs, whose bands would hide
    each other, a bar at the end. runs: by setting, "steps" (F,) and "snapshots" with "modes" and
    "distance" (F, copies); baseline: the distance of two samples of the data."""
    figure = new_figure(WIDEST, 3, title)
    covered, far = side_by_side(figure, 2)
    for i, (colour, name, run) in enumerate(coloured(runs)):
        draw = plot_band if len(runs) <= MOST_BANDS else plot_ends
        draw = partial(draw, colour=colour, label=name, place=(i + 1) / len(runs))
        draw(covered, run["steps"], run["snapshots"]["modes"].float())
        draw(far, run["steps"], run["snapshots"]["distance"])
    covered.axhline(n_modes, **BASELINE)
    covered.set(title=f"Modes covered, of {n_modes}", xlabel=UPDATES, ylim=(0, n_modes * 1.05))
    far.axhline(baseline, label="two samples of the data", **BASELINE)
    far.set(title="Wasserstein distance to the data", xlabel=UPDATES, yscale="log")
    plain_log(far.yaxis)
    for axes in (covered, far):  # bars stand beyond the end of the training
        last = max(float(run["steps"][-1]) for run in runs.values())
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= last])
    spread = "band" if len(runs) <= MOST_BANDS else "bar, at the end"
    figure.legend(*far.get_legend_handles_labels(), loc="outside right center",
                  title=f"line: mean of the runs\n{spread}: least to largest")
    return figure
