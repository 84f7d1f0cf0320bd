"""Points and fields of arrows on the plane. Each function takes values and returns a matplotlib
Figure.

Linked panels of fields share one grid, one length and one colour scale, so that what looks larger
is larger. Every array of a ``Panel`` may vary along every axis of a player, or be common to it: it
is shaped (*lengths, …), and a length of 1 stands for "the same everywhere".
"""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from ..data import grid
from .style import (BLACK, BLUE, GREY, ORANGE, WIDEST, boxed, new_figure, side_by_side, styled,
                    wrapped)

EXTENT = 1.5  # panels show −1.5 … 1.5 on both axes
REACH = 0.19  # length of the longest arrow in these units
SHADES = ListedColormap(colormaps["cividis_r"](np.linspace(0.12, 1, 64)))  # dark is long
HEAT = (150, 195, 230)  # where a density is largest; white where there is none
DENSITY = ListedColormap(np.linspace([1, 1, 1], np.array(HEAT) / 255, 64))


class Panel(NamedTuple):
    """What one panel shows. Arrays are shaped (*lengths, …), see the top of this file; None shows
    nothing."""
    title: str
    at: Tensor | None = None       # (…, n, 2), where the arrows stand
    arrows: Tensor | None = None   # (…, n, 2)
    points: Tensor | None = None   # (…, m, 2), on top
    density: Tensor | None = None  # (…, h, h) in 0 … 1, behind; its first row is the top


class View(NamedTuple):
    """How panels are shown."""
    cap: float = 3.0               # arrows from this length on are drawn alike
    extent: float = EXTENT         # −extent … extent is seen
    measure: str = "σₜ |score|"    # what the length of an arrow says


# What panels are made of

@torch.no_grad()
def arrows(denoiser, t: int, points: Tensor) -> Tensor:
    """σ_t times the score at ``points`` (N, 2), which is −ε̂: unlike the score it keeps its size as
    t changes."""
    return -denoiser(points, t).eps


def density(log_density: Callable[[Tensor], Tensor], n: int = 40, extent: float = EXTENT) -> Tensor:
    """The root of a density on the grid of n × n pixels, relative to its largest, (n, n) in 0 … 1.
    (The root shows thin tails too.) ``log_density`` takes points (N, 2) and returns (N,)."""
    log = log_density(grid(n, extent)).reshape(n, n)
    return ((log - log.max()) / 2).exp()


# Into matplotlib's axes

def plot_plane(axes: Axes, title: str = "", extent: float = EXTENT) -> None:
    """An empty panel of the plane."""
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", title=title)
    boxed(axes)


def plot_density(axes: Axes, values: np.ndarray | Tensor, extent: float = EXTENT) -> None:
    """A density (h, h) in 0 … 1, as ``density`` gives it."""
    axes.imshow(values, cmap=DENSITY, vmin=0, vmax=1, extent=(-extent, extent, -extent, extent),
                interpolation="bilinear")


def plot_arrows(axes: Axes, start: np.ndarray, move: np.ndarray, cap: float) -> None:
    """Arrows (n, 2), as long and as dark as they are large, up to ``cap``."""
    length = np.linalg.norm(move, axis=1, keepdims=True).clip(1e-9)
    share = (length / cap).clip(max=1)
    drawn = move / length * share * REACH
    axes.quiver(*start.T, *drawn.T, share[:, 0], cmap=SHADES, clim=(0, 1), angles="xy",
                scale_units="xy", scale=1, width=0.008, headwidth=3.5, headlength=4,
                headaxislength=3.5, zorder=4)


def plot_panel(axes: Axes, panel: Panel, at: Sequence[int] = (), view: View = View()) -> None:
    """One panel, at the indices ``at`` of its arrays."""
    if panel.density is not None:
        plot_density(axes, _slice(panel.density, at), view.extent)
    if panel.arrows is not None:
        plot_arrows(axes, _slice(panel.at, at), _slice(panel.arrows, at), view.cap)
    if panel.points is not None:
        axes.scatter(*_slice(panel.points, at).T, s=9, color=ORANGE, edgecolors="white",
                     linewidths=0.3, zorder=3)
    plot_plane(axes, panel.title, view.extent)


def _slice(array: Tensor, at: Sequence[int]) -> np.ndarray:
    lengths = array.shape[:-2]
    index = tuple(i if length > 1 else 0 for i, length in zip(at, lengths))
    return array[index].float().numpy()


# Figures

@styled
def fields(panels: Sequence[Panel], at: Sequence[int] | dict[str, Sequence[int]] = (),
           title: str = "", view: View = View(), size: float = 2.7) -> Figure:
    """The panels side by side at the indices ``at``, one for each axis of their arrays; or a row of
    panels for each entry of a dict of such indices, under its name. size: inches a panel, less
    where they would not fit."""
    rows = at if isinstance(at, dict) else {"": at}
    size = min(size, (WIDEST - 0.3) / len(panels))
    width = size * len(panels) + 0.3
    figure = new_figure(width, (size + 0.1) * len(rows) + 0.95, title)
    every = figure.subplots(len(rows), len(panels), squeeze=False)
    for row, (name, indices) in zip(every, rows.items()):
        for axes, panel in zip(row, panels):
            plot_panel(axes, panel._replace(title=""), indices, view)
        row[0].set_ylabel(name)
    for axes, panel in zip(every[0], panels):
        axes.set_title(wrapped(panel.title, size))
    if any(panel.arrows is not None for panel in panels):
        add_scale(figure, list(every.flat), view)
    return figure


def add_scale(figure: Figure, below: list[Axes], view: View) -> None:
    """What the colours of arrows say, as a bar ``below`` panels."""
    bar = figure.colorbar(ScalarMappable(Normalize(0, view.cap), SHADES), ax=below,
                          location="bottom", fraction=0.04, pad=0.02, aspect=60)
    bar.set_label(f"{view.measure}; {view.cap:g} and more is darkest")


def plane_figure(n: int, size: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with n panels of the plane in a row, ``size`` inches each or less."""
    size = min(size, WIDEST / n)
    figure = new_figure(size * n, size + 0.6, title)
    return figure, side_by_side(figure, n)


@styled
def clouds(by_name: dict[str, Tensor], title: str = "", columns: int | None = None,
           extent: float = EXTENT) -> Figure:
    """Points (N, 2) by name, a panel each, so many ``columns`` in a row (all, unless given)."""
    columns = columns or len(by_name)
    rows = -(-len(by_name) // columns)
    size = min(2.3, WIDEST / columns)
    figure = new_figure(size * columns, (size + 0.25) * rows + 0.35, title)
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in every[len(by_name):]:
        axes.set_axis_off()
    for axes, (name, x) in zip(every, by_name.items()):
        axes.scatter(*x.T.numpy(force=True), s=2, color=BLUE, alpha=0.5, linewidths=0)
        plot_plane(axes, name, extent)
    return figure


@styled
def paths(by_name: dict[str, Tensor], log_density: Callable[[Tensor], Tensor], title: str = "",
          share: float = 1.0, extent: float = EXTENT) -> Figure:
    """The ways of some points through each of several samplers, up to a ``share`` of the run, over
    a density.

    by_name: (S, m, 2), the points at S moments; log_density: takes points (N, 2), returns (N,).
    """
    figure, row = plane_figure(len(by_name), 2.3, title)
    behind = density(log_density, 60, extent)
    for axes, (name, path) in zip(row, by_name.items()):
        plot_density(axes, behind, extent)
        plot_path(axes, path[:1 + round(share * (len(path) - 1))].numpy())
        plot_plane(axes, name, extent)
    return figure


def plot_path(axes: Axes, path: np.ndarray) -> None:
    """The ways of points, (S, m, 2): black where they start, orange where they are."""
    axes.plot(*path.transpose(2, 0, 1), color=GREY, linewidth=0.6, alpha=0.8)
    axes.scatter(*path[0].T, s=5, color=BLACK, linewidths=0, zorder=2)
    axes.scatter(*path[-1].T, s=14, color=ORANGE, edgecolors="white", linewidths=0.4, zorder=3)


@styled
def aims(path: Sequence[Tensor], by_name: dict[str, Tensor],
         log_density: Callable[[Tensor], Tensor], title: str = "",
         extent: float = EXTENT) -> Figure:
    """The same steps of a sampler, and what a single step might aim at instead: a panel each.

    path: the points (N, 2) at each moment, the noisiest first; by_name: what is aimed at, (N, 2).
    """
    figure, row = plane_figure(len(by_name), 4.2, title)
    behind = density(log_density, 60, extent)
    for axes, (name, aim) in zip(row, by_name.items()):
        plot_density(axes, behind, extent)
        plot_aim(axes, torch.stack(list(path)).numpy(), aim.numpy(), name.split(":")[0])
        plot_plane(axes, name, extent)
    return figure


def plot_aim(axes: Axes, steps: np.ndarray, aim: np.ndarray, name: str) -> None:
    """A sampler's steps (S, m, 2), and straight lines from their start to what is aimed at."""
    straight = np.stack([steps[0], aim])
    axes.plot(*straight.transpose(2, 0, 1), ":", color=ORANGE, linewidth=1)
    axes.plot(*steps.transpose(2, 0, 1), color=BLUE, linewidth=1.6)
    axes.plot(*steps[0].T, "o", color=BLACK, markersize=4, label="$x_t$")
    axes.plot(*steps[-1].T, "s", color=BLUE, markersize=4, label="after the teacher's two steps")
    axes.plot(*aim.T, "*", color=ORANGE, markersize=9, label=name)
    axes.legend(loc="best")


@styled
def predictions(log_density: Callable[[Tensor], Tensor], real, fake, x: Tensor,
                times: Sequence[int], noise: Tensor, title: str = "") -> Figure:
    """What both denoisers say of one sample x (2,) at each of ``times``, a panel each, under
    several ``noise`` (K, 2): every μ_fake, every μ_real, and the arrow between their means, which
    is where x is sent."""
    figure, row = plane_figure(len(times), 2.3, title)
    behind = density(log_density)
    for axes, t in zip(row, times):
        plot_density(axes, behind)
        x_t = real.schedule.noise(x.expand_as(noise), t, noise)
        plot_means(axes, fake(x_t, t).x.numpy(force=True), real(x_t, t).x.numpy(force=True))
        axes.plot(*x.numpy(), "*", color=BLACK, markersize=11, label="x")
        plot_plane(axes, f"t = {t}")
    row[0].legend(loc="lower left")
    return figure


def plot_means(axes: Axes, mu_fake: np.ndarray, mu_real: np.ndarray) -> None:
    """Predictions (K, 2) of both scores, and the arrow between their means."""
    for mu, colour, name in ((mu_fake, ORANGE, "fake"), (mu_real, BLUE, "real")):
        axes.scatter(*mu.T, s=10, color=colour, alpha=0.5, linewidths=0, label=rf"$\mu_{{{name}}}$")
    arrow = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.8}
    axes.annotate("", xy=mu_real.mean(0), xytext=mu_fake.mean(0), arrowprops=arrow)
