"""Fields of arrows on the plane, in linked panels: as a figure, and as an HTML player that needs no kernel.

Every array of a panel may vary along every axis of the player, or be common to it: it is shaped (*lengths, …), and a
length of 1 stands for "the same everywhere". One grid, one length and one colour scale for all panels and values, so
that what looks larger is larger.
"""
import base64
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from . import page, widgets
from .plots import ORANGE

EXTENT, REACH = 1.5, 0.19  # the panels show −1.5 … 1.5 on both axes; the length of the longest arrow in these units
COLOURS = ListedColormap(colormaps["cividis_r"](np.linspace(0.12, 1, 64)))  # light is short, dark is long
HEAT = (150, 195, 230)  # where the density is largest; white where there is none
DENSITY = ListedColormap(np.linspace([1, 1, 1], np.array(HEAT) / 255, 64))


class Panel(NamedTuple):
    """What one panel shows. Arrays are shaped (*lengths, …), see the top of this file; None shows nothing."""
    title: str
    at: Tensor | None = None       # (…, n, 2), where the arrows stand
    arrows: Tensor | None = None   # (…, n, 2)
    points: Tensor | None = None   # (…, m, 2), on top
    density: Tensor | None = None  # (…, h, h) in 0 … 1, behind; its first row is the top


def grid(n: int = 15, extent: float = EXTENT) -> Tensor:
    """n × n points over the panel, row by row from the top, with half a stride of margin, (n², 2)."""
    line = torch.linspace(-1, 1, 2 * n + 1)[1::2] * extent
    y, x = torch.meshgrid(-line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


@torch.no_grad()
def arrows(denoiser, t: int, points: Tensor) -> Tensor:
    """σ_t times the score at ``points`` (N, 2), which is −ε̂: unlike the score it keeps its size as t changes."""
    return -denoiser(points, t).eps


def density(log_density: Callable[[Tensor], Tensor], n: int = 40, extent: float = EXTENT) -> Tensor:
    """The root of a density on the grid of n × n pixels, relative to its largest, (n, n) in 0 … 1. (The root shows
    thin tails too.) ``log_density`` takes points (N, 2) and returns (N,)."""
    log = log_density(grid(n, extent)).reshape(n, n)
    return ((log - log.max()) / 2).exp()


def draw(panels: Sequence[Panel], at: Sequence[int] | dict[str, Sequence[int]] = (), title: str = "",
         cap: float = 3.0, extent: float = EXTENT, measure: str = "σ_t |score|", size: float = 2.7) -> Figure:
    """The panels side by side at the indices ``at``, one for each axis of their arrays; or a row of panels for each
    entry of a dict of such indices, under its name.

    cap: arrows from this length on are drawn alike; measure: what a length says; size: inches a panel.
    """
    rows = at if isinstance(at, dict) else {"": at}
    figure = Figure((size * len(panels) + 0.3, (size + 0.25) * len(rows) + 0.8), dpi=72, layout="constrained")
    every = figure.subplots(len(rows), len(panels), squeeze=False)
    for line, (name, indices) in zip(every, rows.items()):
        for axes, panel in zip(line, panels):
            draw_panel(axes, panel, indices, cap, extent)
        line[0].set_ylabel(name)
    if any(panel.arrows is not None for panel in panels):
        bar = figure.colorbar(ScalarMappable(Normalize(0, cap), COLOURS), ax=list(every.flat), location="bottom",
                              fraction=0.04, pad=0.02, aspect=60)
        bar.set_label(f"{measure}; {cap:g} and more is darkest", fontsize=9)
        bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_panel(axes, panel: Panel, at: Sequence[int] = (), cap: float = 3.0, extent: float = EXTENT) -> None:
    """One panel, into matplotlib's ``axes``."""
    box = (-extent, extent, -extent, extent)
    if panel.density is not None:
        axes.imshow(_slice(panel.density, at), cmap=DENSITY, vmin=0, vmax=1, extent=box, interpolation="bilinear")
    if panel.arrows is not None:
        start, move = _slice(panel.at, at), _slice(panel.arrows, at)
        length = np.linalg.norm(move, axis=1, keepdims=True).clip(1e-9)
        share = (length / cap).clip(max=1)
        axes.quiver(*start.T, *(move / length * share * REACH).T, share[:, 0], cmap=COLOURS, clim=(0, 1), angles="xy",
                    scale_units="xy", scale=1, width=0.008, headwidth=3.5, headlength=4, headaxislength=3.5, zorder=4)
    if panel.points is not None:
        axes.scatter(*_slice(panel.points, at).T, s=9, color=ORANGE, edgecolors="white", linewidths=0.3, zorder=3)
    axes.set(xlim=box[:2], ylim=box[2:], xticks=[], yticks=[], aspect="equal")
    axes.set_title(panel.title, fontsize=10)


def _slice(array: Tensor, at: Sequence[int]) -> np.ndarray:
    lengths = array.shape[:-2]
    return array[tuple(i if length > 1 else 0 for i, length in zip(at, lengths))].float().numpy()


def player(panels: Sequence[Panel], axes: widgets.Axes, *, start: dict | None = None, menus: Sequence[str] = (),
           caption: Callable[..., str] | None = None, title: str = "", cap: float = 3.0, extent: float = EXTENT,
           measure: str = "σ_t |score|", sheet: str | None = None) -> widgets.Bundle:
    """A self-contained HTML player: the panels on canvases, a slider for each axis.

    Args:
        axes: {"training step": […], "t": […]}, in the order of the arrays' leading axes.
        start: values to start from, by axis; elsewhere the last of the first slider, and the first of all others.
        menus: axes that get buttons instead of a slider.
        caption: takes a value by the name of each axis and returns the line below the panels.
        sheet: the axis along which the static picture shows the first, a middle and the last value; default the first.
    Display it as the last expression of a cell. Raises ValueError for arrays that do not fit the axes.
    """
    axes = {name: [str(value) for value in values] for name, values in axes.items()}
    lengths = [len(values) for values in axes.values()]
    _check(panels, axes, lengths)
    slider = next((name for name in axes if name not in menus), None)
    start = {name: values[-1 if name == slider else 0] for name, values in axes.items()} | {
        name: str(value) for name, value in (start or {}).items()}
    for name, value in start.items():
        if value not in axes.get(name, ()):
            raise ValueError(f"There is no {name} = {value}; there is " + "; ".join(
                f"{axis} in {', '.join(values)}" for axis, values in axes.items()) + ".")
    at = [values.index(start[name]) for name, values in axes.items()]
    texts = [caption(**dict(zip(axes, chosen))) for chosen in itertools.product(*axes.values())] if caption else [""]
    spec = {"axes": list(axes.items()), "at": at, "title": title, "extent": extent, "cap": cap, "reach": REACH,
            "menus": list(menus), "measure": measure, "ink": ORANGE, "heat": HEAT,
            "colours": [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in 255 * np.array(COLOURS.colors)[:, :3]],
            "captions": {"axes": lengths if caption else [1] * len(axes), "texts": texts},
            "panels": [{"title": panel.title, "at": _packed(panel.at, 10_000), "points": _packed(panel.points, 10_000),
                        "arrows": _packed(_capped(panel.arrows, cap), 127 / cap, 1),
                        "density": _packed(panel.density, 127, 1)} for panel in panels]}
    along = sheet or next(iter(axes))
    k, values = list(axes).index(along), axes[along]
    shown = range(len(values)) if len(values) < 4 else (0, len(values) // 2, len(values) - 1)
    rows = {f"{along} {values[i]}": [*at[:k], i, *at[k + 1:]] for i in shown}
    still = widgets.png(draw(panels, rows, title, cap, extent, measure, size=2.2), dpi=62, colours=96)
    return widgets.Bundle(page.make(spec, still, page.FIELDS), still,
                          f"{title or 'Fields'}: " + ", ".join(f"{name} {' '.join(v)}" for name, v in axes.items()))


def _check(panels: Sequence[Panel], axes: widgets.Axes, lengths: list[int]) -> None:
    for panel in panels:
        if panel.arrows is not None and panel.at is None:
            raise ValueError(f"The panel {panel.title!r} has arrows and no ``at`` that says where they stand.")
        for name in ("at", "arrows", "points", "density"):
            array = getattr(panel, name)
            if array is not None and (array.ndim != len(axes) + 2 or any(
                    have not in (1, want) for have, want in zip(array.shape, lengths))):
                raise ValueError(f"{name} of the panel {panel.title!r} must have the leading shape {tuple(lengths)} "
                                 f"(or 1 in place of any) for the axes {', '.join(axes)}, and two more dimensions; "
                                 f"got {tuple(array.shape)}.")


def _capped(arrows: Tensor | None, cap: float) -> Tensor | None:
    """The arrows, those longer than ``cap`` shortened to it: they are drawn alike."""
    return None if arrows is None else arrows * (cap / arrows.norm(dim=-1, keepdim=True)).clamp(max=1).nan_to_num(1)


def _packed(array: Tensor | None, units: float, n_bytes: int = 2) -> dict | None:
    """An array as whole numbers of 1/units, of one or two bytes each: a fraction of what text would take."""
    if array is None:
        return None
    limit = 2 ** (8 * n_bytes - 1) - 1
    whole = (array.double() * units).round().clamp(-limit, limit).to(torch.int16).numpy().astype(f"<i{n_bytes}")
    return {"axes": list(array.shape[:-2]), "size": array.shape[-2] * array.shape[-1], "bytes": n_bytes,
            "units": units, "data": base64.b64encode(whole.tobytes()).decode()}
