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
from .style import (BLACK, BLUE, GREY, ORANGE, WIDEST, boxed, named_below, new_figure, styled,
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
    measure = view.measure.replace("σₜ", r"$\sigma_t$")  # as pages write it, which set no formulas
    bar.set_label(f"{measure}; {view.cap:g} and more look alike")


def plane_figure(n: int, size: float, title: str, columns: int | None = None,
                 flatness: float = 1.0) -> tuple[Figure, list[Axes]]:
    """A figure with n panels of the plane, ``size`` inches wide and ``flatness`` times as high, in
    rows of so many ``columns``, or else in as few rows as hold them, all as long as can be."""
    rows = -(-n // (columns or int(WIDEST / size)))
    columns = columns or -(-n // rows)
    size = min(size, WIDEST / columns)
    figure = new_figure(size * columns, (flatness * size + 0.25) * rows + 0.35, title)
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in every[n:]:
        axes.set_axis_off()
    return figure, every[:n]


@styled
def clouds(by_name: dict[str, Tensor], title: str = "", columns: int | None = None,
           extent: float = EXTENT) -> Figure:
    """Points (N, 2) by name, a panel each, in rows of so many ``columns`` if given."""
    figure, every = plane_figure(len(by_name), 2.2, title, columns)
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
    figure, every = plane_figure(len(by_name), 3.6, title)
    behind = density(log_density, 60, extent)
    for axes, (name, path) in zip(every, by_name.items()):
        plot_density(axes, behind, extent)
        plot_path(axes, path[:1 + round(share * (len(path) - 1))].numpy())
        plot_plane(axes, name, extent)
    named_below(figure, every)
    return figure


def plot_path(axes: Axes, path: np.ndarray) -> None:
    """The ways of points, (S, m, 2): black where they start, orange where they are."""
    axes.plot(*path.transpose(2, 0, 1), color=GREY, linewidth=0.7, alpha=0.8)
    axes.scatter(*path[0].T, s=10, color=BLACK, linewidths=0, zorder=2, label="start")
    axes.scatter(*path[-1].T, s=22, color=ORANGE, edgecolors="white", linewidths=0.4, zorder=3,
                 label="end")


@styled
def aims(path: Tensor, by_name: dict[str, Tensor], log_density: Callable[[Tensor], Tensor],
         title: str = "", extent: float = EXTENT) -> Figure:
    """A point on its way through some steps of a sampler, and all that a single step might aim at
    instead: a panel each.

    path: the point at each moment, (S, 2), the noisiest first; by_name: what is aimed at, (N, 2).
    """
    figure, every = plane_figure(len(by_name), 4.2, title)
    behind = density(log_density, 60, extent)
    for axes, (name, aim) in zip(every, by_name.items()):
        plot_density(axes, behind, extent)
        plot_aim(axes, path.numpy(), aim.numpy())
        plot_plane(axes, name, extent)
    named_below(figure, every)
    return figure


def plot_aim(axes: Axes, steps: np.ndarray, aim: np.ndarray) -> None:
    """A sampler's steps (S, 2), and straight lines from their start to what is aimed at, (N, 2)."""
    for end in aim:
        axes.plot(*np.stack([steps[0], end]).T, color=ORANGE, linewidth=0.7, alpha=0.5)
    axes.plot(*steps.T, color=BLUE)
    axes.plot(*steps[0], "o", color=BLACK, markersize=6, label="$x_t$")
    axes.plot(*steps[-1], "s", color=BLUE, label="after the teacher's two steps")
    axes.plot(*aim.T, "*", color=ORANGE, markersize=9, markeredgecolor="white",
              markeredgewidth=0.4, label="what one step might aim at")


@styled
def predictions(log_density: Callable[[Tensor], Tensor], real, fake, x: Tensor,
                times: Sequence[int], noise: Tensor, title: str = "",
                seen: tuple[float, float] = (1.2, 0.5)) -> Figure:
    """What both denoisers say of one sample x (2,) at each of ``times``, a panel each, under
    several ``noise`` (K, 2): every μ_fake, every μ_real, and the arrow between their means, which
    is where x is sent. seen: how far the panels reach to the right and up."""
    across, up = seen
    figure, every = plane_figure(len(times), 4.3, title, flatness=up / across)
    behind = density(log_density, 80)
    for axes, t in zip(every, times):
        plot_density(axes, behind)
        x_t = real.schedule.noise(x.expand_as(noise), t, noise)
        axes.plot(*x.numpy(), "*", color=BLACK, markersize=15, label="x")  # under the dots
        plot_means(axes, fake(x_t, t).x.numpy(force=True), real(x_t, t).x.numpy(force=True))
        plot_plane(axes, f"t = {t}")
        axes.set(xlim=(-across, across), ylim=(-up, up))
    named_below(figure, every)
    return figure


def plot_means(axes: Axes, mu_fake: np.ndarray, mu_real: np.ndarray) -> None:
    """Predictions (K, 2) of both scores, and the arrow between their means."""
    for mu, colour, name in ((mu_fake, ORANGE, "fake"), (mu_real, BLUE, "real")):
        axes.scatter(*mu.T, s=16, color=colour, alpha=0.6, linewidths=0, zorder=3,
                     label=rf"$\mu_\mathrm{{{name}}}$")
    arrow = {"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.8}
    axes.annotate("", xy=mu_real.mean(0), xytext=mu_fake.mean(0), arrowprops=arrow)
