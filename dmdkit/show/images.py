"""Pictures. Each function takes data and returns a matplotlib Figure, and shows nothing itself."""
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from .schedule import Schedule, v_from_x_eps

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7f7f7f"  # safe for the colour-blind (Okabe & Ito)
INK = dict(cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")  # dark on white


def digits(images: Tensor, columns: int | None = None, title: str = "", rows: Sequence[str] = (),
           heads: Sequence[str] = (), cell: float = 0.62) -> Figure:
    """Images (N, 1, H, W) in [−1, 1] as a grid, dark ink on white, all on one grey scale.

    rows: a name for each row; heads: one for each column; cell: inches an image.
    """
    columns = columns or len(images)
    lines = -(-len(images) // columns)
    left, top = (0.15 + 0.075 * max(map(len, rows)) if rows else 0.02), 0.02 + 0.22 * bool(heads) + 0.3 * bool(title)
    width, height = left + columns * cell + 0.02, top + lines * cell + 0.02
    figure = Figure((width, height), dpi=100)
    axes = figure.add_axes((left / width, 0.02 / height, columns * cell / width, lines * cell / height))
    axes.set_axis_off()
    axes.imshow(mosaic(images, columns), **INK, aspect="auto", extent=(0, columns, lines, 0))
    for column, head in enumerate(heads):
        axes.text(column + 0.48, -0.05, head, ha="center", va="bottom", fontsize=9)
    for row, name in enumerate(rows):
        axes.text(-0.06, row + 0.48, name, ha="right", va="center", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.04 / height, va="top")
    return figure


def mosaic(images: Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """(N, 1, H, W) in [−1, 1] → one image, ``columns`` wide, with white gaps. One picture draws faster than N."""
    images = images.detach().float().cpu().clamp(-1, 1)
    missing = -len(images) % columns
    white = torch.full((missing, *images.shape[1:]), -1.0)
    cells = torch.nn.functional.pad(torch.cat([images, white]), (0, gap, 0, gap), value=-1.0)
    n, _, h, w = cells.shape
    return cells.reshape(n // columns, columns, h, w).transpose(1, 2).reshape(n // columns * h, columns * w).numpy()


def plain_log(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis whose data are drawn: at 1, 2 and 5, or only at 1 if it spans two decades."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def curve(values: Sequence[float], title: str = "", label: str = "loss", smooth: int = 50, total: int | None = None,
          axes: Axes | None = None) -> Figure:
    """Values a step, faint, and their running mean over ``smooth`` steps on top; ``total`` fixes the x-axis, so that
    a curve which grows does not rescale. Draws into ``axes`` if given."""
    axes = axes or Figure((7, 3), dpi=100, layout="constrained").subplots()
    values = np.asarray(values, dtype=float)
    steps = np.arange(1, len(values) + 1)
    axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.8)
    if len(values) >= smooth:
        mean = np.convolve(values, np.ones(smooth) / smooth, "valid")
        axes.plot(steps[smooth - 1:], mean, color=BLUE, linewidth=1.8, label=f"mean of {smooth} steps")
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel=label, title=title, xlim=(0, total or max(len(values), 2)))
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    return axes.figure


def log(path: Path, value: str = "loss") -> Figure:
    """The curve of one value of a training log, the ``log.jsonl`` that ``python -m dmdkit train`` writes."""
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return curve([record[value] for record in records], f"{Path(path).parent.name}: {value}", value)


# Lesson 01. Each draw_… is pure: the same values give the same figure.

def draw_noised(schedule: Schedule, x: Tensor, eps: Tensor, t: int) -> Figure:
    """Images x at one time t under noise eps (N, 1, H, W), and where t is on the curves of α and σ."""
    n, u = len(x), (t + 1) / schedule.T
    alpha, sigma = (float(value) for value in schedule.at(t, x[:1]))
    figure = Figure((8.2, 2.1), dpi=100)
    figure.suptitle(f"t = {t}: x_t = {alpha:.2f} x + {sigma:.2f} ε", fontsize=12, y=0.98)
    axes = figure.add_axes((0.01, 0.08, 0.66, 0.76))
    axes.imshow(mosaic(schedule.noise(x, t, eps) / 2, n), **INK)
    axes.set_axis_off()
    axes = figure.add_axes((0.74, 0.24, 0.24, 0.58))
    _alpha_sigma(axes, schedule)
    axes.axvline(u, color=GREY, linewidth=1)
    axes.plot([u, u], [alpha, sigma], "o", color="black", markersize=5)
    axes.set_xlabel("t / T", labelpad=0)
    return figure


def _alpha_sigma(axes, schedule: Schedule, style: str = "-", name: str = "") -> None:
    u = np.arange(1, schedule.T + 1) / schedule.T
    axes.plot(u, schedule.alpha.numpy(), style, color=BLUE, label=f"α {name}".strip())
    axes.plot(u, schedule.sigma.numpy(), style, color=ORANGE, label=f"σ {name}".strip())
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.05))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_forward(schedules: Sequence[Schedule], x: Tensor, eps: Tensor, columns: int = 9,
                 title: str = "The same digit and the same noise") -> Figure:
    """One image x under one noise eps, both (1, H, W), at ``columns`` evenly spaced times: a row a schedule."""
    share = np.linspace(0, 1, columns) if columns > 1 else np.ones(1)
    images = [s.noise(x[None], max(round(u * s.T) - 1, -1), eps[None]) for s in schedules for u in share]
    # noise goes beyond ±1; halved, it is shown whole, and a clean digit as dark grey on light grey
    return digits(torch.cat(images) / 2, columns, title, [f"{s.name}, T = {s.T}" for s in schedules],
                  ["clean" if u == 0 else f"{u:.0%}" for u in share], cell=0.78)


def draw_schedules(schedules: Sequence[Schedule]) -> Figure:
    """α and σ against t/T, and the log signal-to-noise ratio, of up to four schedules."""
    figure = Figure((8.6, 3), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for schedule, style in zip(schedules, ("-", "--", ":", "-.")):
        _alpha_sigma(left, schedule, style, f"{schedule.name}")
        kept = schedule.alpha.numpy() > 0  # log 0 at the last step of a schedule with zero terminal SNR
        u = np.arange(1, schedule.T + 1) / schedule.T
        right.plot(u[kept], schedule.snr()[kept].log().numpy(), style, color="black", label=schedule.name)
    left.set(title="How much image, how much noise", xlabel="t / T")
    right.set(title="log SNR: where the time is spent", xlabel="t / T", ylabel="log α²/σ²", xlim=(0, 1))
    right.axhline(0, color=GREY, linewidth=0.8)
    right.legend(frameon=False)
    right.spines[["top", "right"]].set_visible(False)
    return figure


def draw_last_step(schedules: Sequence[Schedule], x: Tensor, eps: Tensor) -> Figure:
    """Mean brightness of each noised image at the last step, t = T−1, against that of the pure noise eps: what a
    sampler starts from. x, eps: (N, 1, H, W)."""
    figure = Figure((4.2 * len(schedules), 2.7), dpi=100, layout="constrained")
    start = eps.flatten(1).mean(1).numpy()
    panels = np.atleast_1d(figure.subplots(1, len(schedules), sharex=True, sharey=True))
    for axes, schedule in zip(panels, schedules):
        seen = schedule.noise(x, schedule.T - 1, eps).flatten(1).mean(1).numpy()
        bins = np.linspace(-0.3, 0.15, 46)
        axes.hist(start, bins, color=GREY, alpha=0.45, label="pure noise:\nwhere sampling starts")
        axes.hist(seen, bins, color=BLUE, histtype="step", linewidth=1.8, label="noised images:\nwhat training shows")
        axes.set(title=f"{schedule.name}: at the last step, α = {float(schedule.alpha[-1]):.2f}",
                 xlabel="mean of the image's pixels", yticks=[])
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def draw_targets(schedule: Schedule, x: Tensor, eps: Tensor, columns: int = 7) -> Figure:
    """What a network sees, x_t, and what it may be asked for, x, ε or v, along t. x, eps: (1, H, W)."""
    times = [round(t) for t in np.linspace(0, schedule.T - 1, columns)]
    rows = {"x_t, given": [], "x": [], "ε": [], "v = αε − σx": []}
    for t in times:
        alpha, sigma = schedule.at(t, x[None])
        v = v_from_x_eps(x[None], eps[None], alpha, sigma)
        for row, value in zip(rows.values(), (schedule.noise(x[None], t, eps[None]), x[None], eps[None], v)):
            row.append(value / 2)
    images = torch.cat([image for row in rows.values() for image in row])
    return digits(images, columns, "v turns from the noise into the negative of the image", list(rows),
                  [f"t = {t}" for t in times], cell=0.8)


def draw_training(losses: Sequence[float], grown: dict[int, Tensor], total: int, rows: int = 5) -> Figure:
    """A training in progress: the loss a step, and by step the samples (N, 1, H, W) drawn from one noise after it.
    ``rows`` of samples have room, so that a figure that is redrawn in place does not jump."""
    height = 2.9 + 0.62 * max(rows, len(grown))
    figure = Figure((8.6, height), dpi=80)
    curve(losses, f"Step {len(losses)} of {total}: the loss falls fast, then slowly; look at the digits", total=total,
          smooth=25, axes=figure.add_axes((0.09, 1 - 2.4 / height, 0.89, 2.0 / height)))
    for row, step in enumerate(sorted(grown)):
        bottom = 1 - (3.5 + 0.62 * row) / height
        figure.text(0.085, bottom + 0.29 / height, f"step {step}", ha="right", va="center", fontsize=9)
        axes = figure.add_axes((0.1, bottom, 0.88, 0.58 / height))
        axes.imshow(mosaic(grown[step], len(grown[step])), **INK)
        axes.set_axis_off()
    return figure


def draw_posterior(schedule: Schedule, t: int, s: int, x: float = -1.0, x_t: float = 0.5) -> Figure:
    """One pixel's q(x_s | x_t, x) as the product of what x and what x_t say about x_s. Needs 0 ≤ s < t."""
    alpha_t, sigma_t, alpha_s, sigma_s = (float(a) for k in (t, s) for a in (schedule.alpha[k], schedule.sigma[k]))
    r = alpha_t / alpha_s
    fresh = sigma_t**2 - r**2 * sigma_s**2
    variance = fresh * sigma_s**2 / sigma_t**2
    mean = r * sigma_s**2 / sigma_t**2 * x_t + alpha_s * fresh / sigma_t**2 * x
    grid = np.linspace(-3.5, 3.5, 701)
    figure = Figure((7.6, 2.8), dpi=100, layout="constrained")
    axes = figure.subplots()
    curves = [(alpha_s * x, sigma_s**2, BLUE, "--", f"what x = {x:g} says"),
              (mean, variance, "black", "-", "both: the posterior")]
    if r > 0:  # x_t at α_t = 0 says nothing about x_s
        curves.insert(1, (x_t / r, fresh / r**2, ORANGE, ":", f"what x_t = {x_t:g} says"))
    for m, v, colour, style, label in curves:
        density = np.exp(-(grid - m)**2 / (2 * v)) / np.sqrt(2 * np.pi * v)
        axes.plot(grid, density, style, color=colour, label=label, linewidth=2)
    axes.axvline(mean, color=GREY, linewidth=0.8)
    axes.set(title=f"x_s at s = {s}, given x_t at t = {t}: narrower than either source alone", xlabel="x_s", yticks=[],
             xlim=(-3.5, 3.5), ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def draw_path(states: Sequence, columns: int = 9, sample: int = 0, title: str = "") -> Figure:
    """One sample on its way through a sampler's states (``sample.State``): at ``columns`` of the steps, the
    prediction x̂ made at t, and the sample that the step moved on to."""
    picked = [states[round(i)] for i in np.linspace(0, len(states) - 1, min(columns, len(states)))]
    images = torch.cat([state.x0[sample:sample + 1] for state in picked] + [state.x[sample:sample + 1] / 2
                                                                            for state in picked[:-1]])
    images = torch.cat([images, picked[-1].x[sample:sample + 1]])  # the last is an image, and no longer noise
    return digits(images, len(picked), title, ["x̂, predicted at t", "the sample after"],
                  [f"t = {state.t}" for state in picked], cell=0.8)


def draw_tradeoff(weights: Sequence[float], scores: Sequence[dict], floor: dict,
                  names: Sequence[str] = ("precision", "recall", "frechet_distance")) -> Figure:
    """Scores (``metrics.Scorer``) against the guidance weight, a panel each, with the real-against-real floor."""
    titles = {"accuracy": "Accuracy: the digit asked for?", "precision": "Precision: like real digits?",
              "recall": "Recall: as varied as real ones?", "coverage": "Coverage: how much of the variety?",
              "frechet_distance": "Fréchet distance: lower is better"}
    figure = Figure((3.3 * len(names), 2.8), dpi=100, layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names):
        axes.plot(weights, [score[name] for score in scores], "o-", color=BLUE, label=f"{scores[0]['images']} samples")
        axes.axhline(floor[name], color=GREY, linestyle="--", label=f"{floor['images']} real images")
        axes.set_title(titles.get(name, name), fontsize=10)
        axes.set_xlabel("guidance w")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
