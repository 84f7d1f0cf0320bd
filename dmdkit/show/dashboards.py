"""Distillations: losses, samples and what else one looks at, since the losses say little. Each
function takes values and returns a matplotlib Figure.

A snapshot is what was seen of a student at one step, by name:

    samples        (N, C, H, W) or (N, H, W) images, or points (N, 2): always of the same noise
    noised, real, fake    (M, …), M noised samples, and what the real and the fake score say of them
    brightness     (n,), the mean of each of n samples; not shown of points
    classes        (classes,), how many of the n a classifier calls each; without classes, none
    discriminator  (2, n), its probability of "real" for n real samples and for the n; or (2, 0)
"""
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .curves import logarithmic, losses_of, plot_values
from .images import middles, mosaic
from .plane import plot_plane
from .progress import are_points, as_images, plot_samples
from .style import (AMBER, BASELINE, BLACK, BLUE, CYCLE, GREEN, GREY, ORANGE, PINK, SKY, WIDEST,
                    named_below, new_figure, side_by_side, styled, unframed)

LOSSES = {"matching": BLUE, "regression": ORANGE, "gan": PINK, "fake": GREEN,
          "discriminator": AMBER}
NONE = torch.empty(0)
SMOOTH = 25  # steps that a curve's running mean goes over


def plot_predictions(axes: Axes, snapshot: dict[str, Tensor]) -> None:
    """The noised samples of a snapshot, and what the real and the fake score say of each."""
    rows = {"noised": snapshot["noised"], "real says": snapshot["real"],
            "fake says": snapshot["fake"]}
    if are_points(snapshot["noised"]):
        for (name, points), colour in zip(rows.items(), (GREY, BLUE, ORANGE)):
            axes.scatter(*points.T.float().numpy(force=True), s=14, color=colour, label=name)
        plot_plane(axes)
        axes.legend()
    else:
        plot_rows(axes, {name: as_images(images) for name, images in rows.items()})
    axes.set_title("the same noised samples, denoised")


def plot_rows(axes: Axes, rows: dict[str, Tensor]) -> None:
    """Images (M, C, H, W), a row under each name."""
    images = torch.cat(list(rows.values()))
    axes.imshow(mosaic(images, len(images) // len(rows)))
    axes.set_yticks(middles(len(rows), images.shape[2]), list(rows))
    axes.set_xticks([])
    unframed(axes)


def plot_losses(axes: Axes, values: dict[str, Sequence[float]], total: int, title: str) -> None:
    """Values a step by name, each with its running mean."""
    others = cycle((SKY, BLACK, *CYCLE))
    for name, line in values.items():
        plot_values(axes, line, LOSSES.get(name) or next(others), SMOOTH, name)
    axes.set(title=title, xlabel="update", xlim=(0, total))
    logarithmic(axes, values.values())


def plot_brightness(axes: Axes, snapshots: dict[int, dict], real: float, total: int) -> None:
    """The mean brightness of the samples of every snapshot, and that of real images."""
    means = {step: float(entry["brightness"].mean()) for step, entry in sorted(snapshots.items())}
    axes.plot(list(means), list(means.values()), "o-", color=BLACK, markersize=3)
    axes.axhline(real, **BASELINE)
    every = [real, *means.values()]
    axes.set(title="brightness\n(dashed: real)", xlabel="update", xlim=(0, total),
             ylim=(min(every) - 0.05, max(every) + 0.05))


def plot_classes(axes: Axes, counts: Tensor) -> None:
    """How many samples lie in each class, and how many should."""
    asked = float(counts.sum()) / len(counts)
    axes.bar(range(len(counts)), counts.numpy(), color=BLUE)
    axes.axhline(asked, **BASELINE)
    axes.set(title="classes\n(dashed: asked)", xlabel="by the second classifier",
             ylim=(0, 2 * asked))
    if len(counts) <= 10:
        axes.set_xticks(range(len(counts)))


def plot_discriminator(axes: Axes, probabilities: Tensor) -> None:
    """Histograms of the discriminator's probability of "real", (2, N): of N real samples and of N
    samples of the student."""
    bins = np.linspace(0, 1, 21)
    for values, colour, name in zip(probabilities.numpy(), (GREY, AMBER), ("real", "samples")):
        axes.hist(values, bins, color=colour, alpha=0.6, label=name)
    axes.set(title="discriminator:\nreal?", xlabel="probability of real", xlim=(0, 1))
    axes.set_ylim(top=1.45 * axes.get_ylim()[1])  # room for the names
    axes.legend()


@styled
def dashboard(snapshots: dict[int, dict[str, Tensor]], values: dict[str, Sequence[float]],
              total: int, real_brightness: float | None = None, title: str = "") -> Figure:
    """A distillation in progress, or a finished one up to some step.

    Args:
        snapshots: by step, what was seen (see the top of this file); the last is shown, all give
            the brightness.
        values: a training's values by name ("matching", "fake", "matching gradient" …), one a step.
        total: steps of the whole training, so that a figure that is redrawn in place does not
            rescale.
        real_brightness: the mean brightness of real images; without it that panel is left out.
    """
    step = max(snapshots)
    last = snapshots[step]
    title = title or (f"Update {step} of {total}: look at the samples, their brightness and their "
                      "classes; the losses say little")
    figure = new_figure(WIDEST, 5.6, title)
    draws = _panels(snapshots, values, total, real_brightness)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    samples, seen = side_by_side(upper, 2, width_ratios=(7, 5.6))
    plot_samples(samples, last["samples"], "G(z), always of the same noise")
    plot_predictions(seen, last)
    row = side_by_side(lower, max(1, len(draws)))
    for axes, draw in zip(row, draws):
        draw(axes)
    named_below(lower, row[:2])  # losses and norms are one set of names
    return figure


def _panels(snapshots: dict[int, dict[str, Tensor]], values: dict[str, Sequence[float]], total: int,
            real_brightness: float | None) -> list[Callable[[Axes], None]]:
    """What draws the panels of a dashboard's lower row: those that there is something for."""
    last = snapshots[max(snapshots)]
    points = are_points(last["samples"])
    found = _curves(values, total, "a point" if points else "an image")
    if real_brightness is not None and not points:
        found.append(partial(plot_brightness, snapshots=snapshots, real=real_brightness,
                             total=total))
    if last.get("classes", NONE).numel():
        found.append(partial(plot_classes, counts=last["classes"]))
    if last.get("discriminator", NONE).numel():
        found.append(partial(plot_discriminator, probabilities=last["discriminator"]))
    return found


def _curves(values: dict[str, Sequence[float]], total: int,
            what: str) -> list[Callable[[Axes], None]]:
    losses = {name: values[name] for name in losses_of(values)}
    norms = {name.removesuffix(" gradient"): line for name, line in values.items()
             if name.endswith(" gradient")}
    return [partial(plot_losses, values=lines, total=total, title=title)
            for lines, title in ((losses, "losses"), (norms, f"gradient norm\nat {what}")) if lines]


def of_run(run: dict, update: int, real_brightness: float | None = None) -> Figure:
    """The dashboard of a stored training as it stood at that update.

    run: "steps" (F,), "snapshots" (by name, (F, …)) and, of a full training, its "log" (by name,
    one value a step).
    """
    steps = run["steps"].tolist()
    seen = {step: {name: value[i] for name, value in run["snapshots"].items()}
            for i, step in enumerate(steps) if step <= update}
    if not seen:
        raise ValueError(f"Nothing was seen up to update {update}; the first is {steps[0]}.")
    so_far = {name: line[:max(update, 1)].tolist() for name, line in run.get("log", {}).items()}
    return dashboard(seen, so_far, steps[-1], real_brightness)


@styled
def epochs(values: dict[str, Sequence[float]], epoch: int, title: str = "") -> Figure:
    """The losses within the first and the last ``epoch`` steps, side by side, one row a loss on
    one scale."""
    names = losses_of(values)
    figure = new_figure(WIDEST, 1.5 * len(names) + 0.5, title)
    rows = figure.subplots(len(names), 2, sharey="row", squeeze=False)
    for (first, last), name in zip(rows, names):
        line = np.asarray(values[name])
        plot_part(first, line[:epoch], 1, name, "first epoch")
        plot_part(last, line[-epoch:], max(0, len(line) - epoch) + 1, name, "last epoch")
    for axes in rows[-1]:
        axes.set_xlabel("update")
    return figure


def plot_part(axes: Axes, part: np.ndarray, start: int, name: str, head: str) -> None:
    """Part of a loss's values, from the step ``start`` on, and their mean."""
    colour = LOSSES.get(name, BLACK)
    axes.plot(np.arange(start, start + len(part)), part, color=colour, alpha=0.4, linewidth=0.8)
    axes.axhline(part.mean(), color=colour, linestyle="--", linewidth=1.2)
    axes.set_title(f"{name}, {head}: mean {part.mean():.3f}")
