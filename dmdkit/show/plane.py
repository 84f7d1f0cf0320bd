"""Pictures of points of the plane, their densities and the ways that samplers lead them. As in ``plots``: each function
takes data and returns a matplotlib Figure, and shows nothing itself."""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import fields
from .plots import BLUE, GREEN, GREY, ORANGE

COLOURS = (BLUE, ORANGE, GREEN, "black")
MARKS = ("o", "s", "^", "D")


def _plane(axes, title: str = "", extent: float = fields.EXTENT) -> None:
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=10)


def _bare(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _behind(axes, density: np.ndarray, extent: float) -> None:
    axes.imshow(density, cmap=fields.DENSITY, vmin=0, vmax=1, extent=(-extent, extent) * 2, interpolation="bilinear")


def draw_clouds(clouds: dict[str, Tensor], title: str = "", columns: int | None = None,
                extent: float = fields.EXTENT) -> Figure:
    """Points (N, 2) by name, a panel each, so many ``columns`` in a row (all, unless given)."""
    columns = columns or len(clouds)
    rows = -(-len(clouds) // columns)
    figure = Figure((2.3 * columns, 2.55 * rows + 0.35 * bool(title)), dpi=80, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(clouds):]:
        axes.set_axis_off()
    for axes, (name, x) in zip(panels, clouds.items()):
        axes.scatter(*x.T.numpy(), s=2, color=BLUE, alpha=0.5, linewidths=0)
        _plane(axes, name, extent)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_line(data, schedule, times: Sequence[int], title: str = "", extent: float = 2.0) -> Figure:
    """Data on a line (a ``score.GaussianMixture`` in one dimension): density, score and denoised mean at some times."""
    figure = Figure((9.6, 2.9), dpi=80, layout="constrained")
    density, score, mean = figure.subplots(1, 3)
    x_t = torch.linspace(-extent, extent, 401, dtype=torch.float64)[:, None]
    for t, style, colour in zip(times, ("-", "--", "-.", ":"), COLOURS):
        alpha, sigma = schedule.at(t, x_t)
        mu = data.denoise(x_t, alpha, sigma)
        line = dict(linestyle=style, color=colour, label=f"t = {t}", linewidth=1.8)
        density.plot(x_t[:, 0], data.log_density(x_t, alpha, sigma).exp(), **line)
        score.plot(x_t[:, 0], -(x_t - alpha * mu)[:, 0] / sigma[0, 0], **line)
        mean.plot(x_t[:, 0], mu[:, 0], **line)
    density.set(title="density p_t: the noise fills the gap", ylim=(0, None), yticks=[])
    score.set(title="σ_t · score: the slope of log p_t", ylim=(-3, 3))
    mean.set(title="denoised mean μ: from step to constant")
    for axes in (density, score, mean):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(xlim=(-extent, extent), xlabel="x_t")
        _bare(axes)
    density.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_paths(paths: dict[str, Tensor], log_density: Callable[[Tensor], Tensor], title: str = "", share: float = 1.0,
               extent: float = fields.EXTENT) -> Figure:
    """The ways of some points through each of several samplers, up to a ``share`` of the run, over a density.

    paths: by name, (S, m, 2), the points at S moments; log_density: takes points (N, 2), returns (N,).
    """
    figure = Figure((2.4 * len(paths), 2.6 + 0.3 * bool(title)), dpi=80, layout="constrained")
    behind = fields.density(log_density, 60, extent).numpy()
    for axes, (name, path) in zip(figure.subplots(1, len(paths), squeeze=False)[0], paths.items()):
        seen = path[:1 + round(share * (len(path) - 1))].numpy()
        _behind(axes, behind, extent)
        axes.plot(*seen.transpose(2, 0, 1), color=GREY, linewidth=0.6, alpha=0.8)
        axes.scatter(*seen[0].T, s=5, color="black", linewidths=0, zorder=2)
        axes.scatter(*seen[-1].T, s=14, color=ORANGE, edgecolors="white", linewidths=0.4, zorder=3)
        _plane(axes, name, extent)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_aims(path: Sequence[Tensor], aims: dict[str, Tensor], log_density: Callable[[Tensor], Tensor],
              title: str = "", extent: float = fields.EXTENT) -> Figure:
    """The same steps of a sampler, and what a single step might aim at instead: a panel each of ``aims``.

    path: the points (N, 2) at each moment, the noisiest first; aims: by name, (N, 2).
    """
    figure = Figure((4.2 * len(aims), 4.3), dpi=80, layout="constrained")
    behind = fields.density(log_density, 60, extent).numpy()
    for axes, (name, aim) in zip(figure.subplots(1, len(aims), squeeze=False)[0], aims.items()):
        _behind(axes, behind, extent)
        axes.plot(*torch.stack([path[0], aim]).numpy().transpose(2, 0, 1), ":", color=ORANGE, linewidth=1)
        axes.plot(*torch.stack(list(path)).numpy().transpose(2, 0, 1), color=BLUE, linewidth=1.6)
        axes.plot(*path[0].T.numpy(), "o", color="black", markersize=4, label="z_t")
        axes.plot(*path[-1].T.numpy(), "s", color=BLUE, markersize=4, label="after the teacher's two steps")
        axes.plot(*aim.T.numpy(), "*", color=ORANGE, markersize=9, label=name.split(":")[0])
        axes.legend(frameon=False, fontsize=8, loc="upper right")
        _plane(axes, name, extent)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_curves(curves: dict[str, Sequence[float]], x: Sequence[float], title: str = "", xlabel: str = "",
                ylabel: str = "", truth: dict[str, float] | None = None) -> Figure:
    """Measured values against x, a marked line for each of up to four names, and level lines at known values."""
    figure = Figure((5.8, 3.1), dpi=80, layout="constrained")
    axes = figure.subplots()
    for (name, values), colour, mark in zip(curves.items(), COLOURS, MARKS):
        axes.plot(x, values, mark + "-", color=colour, label=name, markersize=5)
    for name, value in (truth or {}).items():
        axes.axhline(value, color=GREY, linestyle="--", linewidth=1, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=11)
    if len(x) > 1 and min(x) > 0:
        axes.set_xscale("log")
        axes.set_xticks(list(x), [f"{value:g}" for value in x])
        axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    _bare(axes)
    return figure


def draw_step_sizes(step_sizes: Sequence[float], measured: Sequence[float], title: str = "") -> Figure:
    """The variance of Langevin's samples of a Gaussian of variance 1 against the step size η < 4, with the variance
    that the chain has in closed form, 1/(1 − η/4)."""
    figure = Figure((5.8, 3.1), dpi=80, layout="constrained")
    axes = figure.subplots()
    line = np.linspace(0, 3.95, 200)
    axes.plot(line, 1 / (1 - line / 4), color=GREY, label="closed form, 1/(1 − η/4)")
    axes.plot(step_sizes, measured, "o", color=ORANGE, label="measured")
    axes.axhline(1, color=BLUE, linestyle="--", linewidth=1, label="the data's")
    axes.set(yscale="log", xlabel="step size η", ylabel="variance of the samples", xlim=(0, 4))
    axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8)
    _bare(axes)
    return figure


def draw_orders(n_steps: Sequence[int], errors: dict[str, dict[str, Sequence[float]]], orders: dict[str, dict],
                title: str = "") -> Figure:
    """Errors of solvers against their number of steps, both axes in powers, a panel for each data set.

    errors, orders: by data set and solver, the errors, one for each of n_steps, and the fitted order.
    """
    figure = Figure((4.4 * len(errors), 3.2), dpi=80, layout="constrained")
    panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
    for axes, (data, by_solver) in zip(panels, errors.items()):
        for (name, values), colour, mark in zip(by_solver.items(), COLOURS, MARKS):
            axes.loglog(n_steps, values, mark + "-", color=colour, markersize=5,
                        label=f"{name}: order {orders[data][name]:.2f}")
        axes.set_xticks(list(n_steps), [str(n) for n in n_steps])
        axes.minorticks_off()
        axes.set(xlabel="steps")
        axes.set_title(data, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        _bare(axes)
    panels[0].set_ylabel("error of the final points")
    figure.suptitle(title, fontsize=11)
    return figure
