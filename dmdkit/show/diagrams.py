"""Pictures of DMD on MNIST (lesson 04). Each function takes data and returns a matplotlib Figure."""
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from .data import scale
from .plots import BLUE, GREEN, GREY, INK, ORANGE, mosaic, plain_log

COLOURS = {"matching": BLUE, "regression": ORANGE, "gan": "#CC79A7", "fake": GREEN, "critic": "#E69F00"}


def bare(axes: Axes, **settings) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set(**settings)


def _smooth(values: Sequence[float], width: int) -> np.ndarray:
    """The running mean over up to ``width`` values back."""
    sums = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_dashboard(looks: dict[int, dict], values: dict[str, Sequence[float]], total: int, target: float,
                   title: str = "") -> Figure:
    """A distillation in progress, or a finished one up to some step.

    Args:
        looks: by step, what ``dmd_mnist.look`` saw (its entries by name); the last is shown, all give the brightness.
        values: a training's values by name ("matching", "fake", "matching gradient" …), one a step.
        total: steps of the whole training, so that a figure that is redrawn in place does not rescale.
        target: the mean brightness of real images.
    """
    step, last = max(looks), looks[max(looks)]
    figure = Figure((10.2, 5.4), dpi=72, layout="constrained")
    figure.suptitle(title or f"Update {step} of {total}: look at the digits, their brightness and their classes; "
                    "the losses say little", fontsize=11)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    samples, seen = upper.subplots(1, 2, width_ratios=(7, 5.6))
    samples.imshow(mosaic(scale(last["samples"])[:, None], 5), **INK)
    samples.set_title("G(z), always of the same noise", fontsize=9)
    rows = torch.cat([last["noised"], last["real"], last["fake"]])
    seen.imshow(mosaic(scale(rows)[:, None], 4), **INK)
    seen.set_title("the same noised samples, denoised", fontsize=9)
    seen.set_yticks([14, 44, 74], ["noised", "real says", "fake says"], fontsize=8)
    seen.set_xticks([])
    seen.tick_params(length=0)
    for axes in (samples, seen):
        axes.spines[:].set_visible(False)
    samples.set_axis_off()
    judged = last.get("critic", torch.zeros(2, 0))
    losses, pulls, bright, classes, *critic = lower.subplots(1, 5 if judged.numel() else 4)
    _draw_values(losses, {name: values[name] for name in COLOURS if name in values}, total, "losses")
    _draw_values(pulls, {name: values[f"{name} gradient"] for name in COLOURS if f"{name} gradient" in values}, total,
                 "pull at an image")
    means = [(at, float(entry["brightness"].mean())) for at, entry in sorted(looks.items())]
    bright.plot(*zip(*means), "o-", color="black", markersize=3)
    bright.axhline(target, color=GREY, linestyle="--", linewidth=1)
    low, high = min(target, *(b for _, b in means)), max(target, *(b for _, b in means))
    bare(bright, title="brightness (dashed: MNIST)", xlabel="update", xlim=(0, total),
          ylim=(low - 0.05, high + 0.05))
    counts = last["classes"].numpy()
    classes.bar(range(10), counts, color=BLUE)
    classes.axhline(counts.sum() / 10, color=GREY, linestyle="--", linewidth=1)
    bare(classes, title="classes (dashed: asked)", xlabel="digit, says the judge", xticks=range(10),
          ylim=(0, 2 * counts.sum() / 10))
    for axes in critic:
        verdicts_of(axes, judged)
    for axes in (losses, pulls, bright, classes, *critic):
        axes.title.set_fontsize(9)
        axes.xaxis.label.set_fontsize(8)
    return figure


def verdicts_of(axes: Axes, verdicts: Tensor) -> None:
    """Histograms of the critic's probability of "real", (2, N): of N real images and of N samples."""
    bins = np.linspace(0, 1, 21)
    for values, colour, name in zip(verdicts.numpy(), (GREY, COLOURS["critic"]), ("MNIST", "samples")):
        axes.hist(values, bins, color=colour, alpha=0.6, label=name)
    bare(axes, title="the critic: real?", xlabel="probability, says the critic", xlim=(0, 1))
    axes.legend(frameon=False, fontsize=7)


def _draw_values(axes: Axes, values: dict[str, Sequence[float]], total: int, title: str) -> None:
    for name, line in values.items():
        axes.plot(np.arange(1, len(line) + 1), line, color=COLOURS[name], alpha=0.2, linewidth=0.7)
        axes.plot(np.arange(1, len(line) + 1), _smooth(line, 25), color=COLOURS[name], label=name, linewidth=1.5)
    bare(axes, title=title, xlabel="update", xlim=(0, total))
    if values:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
        axes.legend(frameon=False, fontsize=7)


def draw_epochs(values: dict[str, Sequence[float]], epoch: int, title: str = "") -> Figure:
    """The losses within the first and the last ``epoch`` steps, side by side, one row a loss on one scale."""
    names = [name for name in COLOURS if name in values]
    figure = Figure((8.6, 1.5 * len(names) + 0.5), dpi=80, layout="constrained")
    panels = figure.subplots(len(names), 2, sharey="row", squeeze=False)
    for row, name in zip(panels, names):
        line = np.asarray(values[name])
        for axes, start, head in ((row[0], 0, "first epoch"), (row[1], len(line) - epoch, "last epoch")):
            part, steps = line[start:start + epoch], np.arange(start + 1, start + epoch + 1)
            axes.plot(steps, part, color=COLOURS[name], alpha=0.4, linewidth=0.8)
            axes.axhline(part.mean(), color=COLOURS[name], linestyle="--", linewidth=1.2)
            bare(axes, title=f"{name}, {head}: mean {part.mean():.3f}")
            axes.title.set_fontsize(9)
    for axes in panels[-1]:
        axes.set_xlabel("update", fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_ablations(figures: dict[str, dict], floor: dict, base: str,
                   names: Sequence[str] = ("frechet_distance", "accuracy", "coverage")) -> Figure:
    """Every setting's scores, a dot a seed and a bar at their mean; the line of ``base`` runs down for comparison, and
    the dashed one is what real images score. ``figures``: by setting, each score a list over seeds."""
    titles = {"frechet_distance": "Fréchet distance: less is better", "accuracy": "accuracy", "coverage": "coverage",
              "precision": "precision", "recall": "recall"}
    figure = Figure((10.2, 0.33 * len(figures) + 1.1), dpi=80, layout="constrained")
    places = range(len(figures))
    for i, (axes, name) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names)):
        for place, (setting, scores) in zip(places, figures.items()):
            colour = ORANGE if setting == base else BLUE
            axes.plot(scores[name], [place] * len(scores[name]), "o", color=colour, markersize=4, alpha=0.7)
            axes.plot([np.mean(scores[name])] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        axes.axvline(np.mean(figures[base][name]), color=ORANGE, linewidth=0.8)
        axes.axvline(floor[name], color=GREY, linestyle="--", linewidth=1)
        bare(axes, yticks=places, yticklabels=list(figures))
        axes.set_title(titles.get(name, name), fontsize=10)
        if name == "frechet_distance":
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        if i == 0:
            axes.invert_yaxis()
    return figure


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.5) -> None:
    axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, boxstyle="round,pad=0.04", facecolor=colour,
                                  edgecolor="black", linewidth=1))
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def arrow(axes: Axes, start: tuple, end: tuple, text: str = "", colour: str = "black", bend: float = 0.0,
          dashed: bool = False, shift: tuple = (0, 0.12)) -> None:
    axes.annotate("", xy=end, xytext=start, arrowprops=dict(
        arrowstyle="-|>", color=colour, linewidth=1.4, connectionstyle=f"arc3,rad={bend}",
        linestyle="--" if dashed else "-", shrinkA=2, shrinkB=2))
    axes.text((start[0] + end[0]) / 2 + shift[0], (start[1] + end[1]) / 2 + shift[1], text, ha="center", va="bottom",
              fontsize=8, color=colour)


def canvas(axes: Axes, title: str, width: float) -> None:
    axes.set(xlim=(0, width), ylim=(-0.2, 3.7), aspect="equal")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


TRAINED, FROZEN, DATA = "#cfe3f3", "#e8e8e8", "white"


def draw_networks() -> Figure:
    """Three networks and three losses: what goes where, and which loss trains what."""
    figure = Figure((9.6, 3.7), dpi=90, layout="constrained")
    axes = figure.subplots()
    canvas(axes, "Solid: values. Dashed: gradients. Blue networks are trained, the grey one is frozen", 10)
    box(axes, 0.8, 1.7, "noise z, label", DATA)
    box(axes, 3.0, 1.7, "generator G", TRAINED)
    box(axes, 5.0, 1.7, "x = G(z)", DATA, 1.2)
    box(axes, 6.9, 1.7, "$x_t$: x, noised", DATA, 1.5)
    box(axes, 9.1, 2.6, "teacher: μ_real", FROZEN)
    box(axes, 9.1, 0.8, "fake score: μ_fake", TRAINED, 1.7)
    box(axes, 3.0, 0.3, "y, the solver's image of z", DATA, 2.3)
    for start, end in (((1.6, 1.7), (2.2, 1.7)), ((3.8, 1.7), (4.35, 1.7)), ((5.65, 1.7), (6.1, 1.7)),
                       ((7.7, 1.8), (8.3, 2.5)), ((7.7, 1.6), (8.2, 0.9))):
        arrow(axes, start, end)
    arrow(axes, (9.1, 2.95), (3.0, 2.05), "1  matching: g = (μ_fake − μ_real) / mean|x − μ_real|", BLUE, 0.22, True,
          (0, 0.85))
    arrow(axes, (3.0, 0.65), (3.0, 1.35), "", ORANGE, 0, True)
    axes.text(2.9, 0.98, "2  regression: d(G(z), y)", fontsize=8, color=ORANGE, ha="right", va="center")
    arrow(axes, (5.1, 1.33), (8.2, 0.6), "", GREEN, 0.25, True)
    axes.text(7.0, 0.0, "3  denoising loss on detached x: trains the fake score only", fontsize=8, color=GREEN,
              ha="center")
    return figure


def draw_kinship() -> Figure:
    """An adversarial autoencoder beside DMD: a reconstruction term says which, a distribution term says what."""
    figure = Figure((9.8, 3.2), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.12})
    canvas(left, "Adversarial autoencoder", 6.4)
    for x, text in ((0.7, "image y"), (2.6, "encoder"), (4.3, "code z"), (5.7, "decoder")):
        box(left, x, 2.1, text, TRAINED if "coder" in text else DATA, 1.15)
    for start, end in (((1.3, 2.1), (2.0, 2.1)), ((3.2, 2.1), (3.7, 2.1)), ((4.9, 2.1), (5.1, 2.1))):
        arrow(left, start, end)
    arrow(left, (5.7, 2.45), (0.7, 2.45), "reconstruct: decoder(z) is y", ORANGE, 0.25, True, (0, 0.62))
    box(left, 4.3, 0.8, "critic: code or prior?", TRAINED, 2.1)
    arrow(left, (4.3, 1.75), (4.3, 1.15))
    arrow(left, (3.2, 0.9), (2.6, 1.75), "codes as the prior's", BLUE, -0.2, True, (-0.95, -0.3))
    canvas(right, "DMD", 6.4)
    for x, text in ((0.7, "noise z"), (2.8, "generator G"), (4.9, "x = G(z)")):
        box(right, x, 2.1, text, TRAINED if "gen" in text else DATA, 1.3)
    for start, end in (((1.4, 2.1), (2.1, 2.1)), ((3.5, 2.1), (4.2, 2.1))):
        arrow(right, start, end)
    arrow(right, (4.9, 2.45), (2.8, 2.45), "reconstruct: G(z) is the solver's y", ORANGE, 0.45, True, (0, 0.5))
    box(right, 4.9, 0.8, "real − fake score", TRAINED, 1.9)
    arrow(right, (4.9, 1.75), (4.9, 1.15))
    arrow(right, (3.9, 0.9), (2.8, 1.75), "samples as the data's", BLUE, -0.2, True, (-1.0, -0.3))
    return figure
