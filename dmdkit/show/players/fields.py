"""A player over linked fields of arrows on the plane, as HTML that needs no kernel."""
import base64
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..plane import HEAT, REACH, SHADES, Panel, View, fields
from ..style import BLUE, GREEN, GREY, ORANGE
from . import choices, page
from .choices import Axes

TENSORS = ("at", "arrows", "points", "density")
PLACE = 10_000  # steps a unit of the plane: how finely points are stored
STILL = {"dpi": 80, "colours": 40}


def player(panels: Sequence[Panel], axes: Axes, *, start: dict | None = None,
           menus: Sequence[str] = (), caption: Callable[..., str] | None = None, title: str = "",
           view: View = View(), sheet: str | None = None) -> page.Bundle:
    """A self-contained HTML player: the panels on canvases, a slider for each axis.

    Args:
        axes: {"training step": […], "t": […]}, in the order of the arrays' leading axes.
        start: values to start from, by axis; elsewhere the last of the first slider, and the first
            of all others.
        menus: axes that get buttons instead of a slider.
        caption: takes a value by the name of each axis and returns the line below the panels.
        view: how long the longest arrow is, how much of the plane is seen, what a length says.
        sheet: the axis along which the static picture shows the first, a middle and the last value;
            the first unless given.
    Display it as the last expression of a cell. Raises ValueError for arrays, axes or values that
    do not fit.
    """
    axes = choices.named(axes)
    _check(panels, axes)
    choices.check_names(axes, [*menus, sheet])
    slider = next((name for name in axes if name not in menus), None)
    at = choices.positions(axes, start, at_end=slider)
    rows = _rows(axes, at, sheet or next(iter(axes)))
    still = page.png(fields(panels, rows, title, view, size=1.6), **STILL)
    spec = {**choices.described(axes), "at": at, "title": title, "menus": list(menus),
            "captions": choices.captions(axes, caption), **drawing(view),
            "panels": [_packed_panel(panel, view.cap) for panel in panels]}
    text = choices.summary(title or "Fields", axes)
    return page.bundle(spec, still, ["plane.js", "arrows.js", "fields.js"], text)


def drawing(view: View) -> dict:
    """How the script draws: sizes in units of the plane, colours as they are in figures."""
    colours = (255 * np.array(SHADES.colors)[:, :3]).round().astype(int).tolist()
    return {"extent": view.extent, "cap": view.cap, "measure": view.measure, "reach": REACH,
            "ink": ORANGE, "blue": BLUE, "green": GREEN, "grey": GREY, "heat": HEAT,
            "colours": colours}


def _rows(axes: dict[str, list[str]], at: list[int], along: str) -> dict[str, list[int]]:
    """The rows of the static picture, by name: indices, with those of the axis ``along`` varied."""
    k, values = list(axes).index(along), axes[along]
    last = len(values) - 1
    shown = range(len(values)) if last < 3 else (0, len(values) // 2, last)
    return {f"{along} {values[i]}": [*at[:k], i, *at[k + 1:]] for i in shown}


def _check(panels: Sequence[Panel], axes: dict[str, list[str]]) -> None:
    lengths = tuple(len(values) for values in axes.values())
    for panel in panels:
        if panel.arrows is not None and panel.at is None:
            raise ValueError(f"The panel {panel.title!r} has arrows and no ``at`` that says where "
                             "they stand.")
        for name in TENSORS:
            array = getattr(panel, name)
            if array is not None and not _fits(array, lengths):
                raise ValueError(f"{name} of the panel {panel.title!r} must have the leading shape "
                                 f"{lengths} (or 1 in place of any) for the axes "
                                 f"{', '.join(axes)}, and two more dimensions; "
                                 f"got {tuple(array.shape)}.")


def _fits(array: Tensor, lengths: tuple[int, ...]) -> bool:
    if array.ndim != len(lengths) + 2:
        return False
    return all(have in (1, want) for have, want in zip(array.shape, lengths))


# Arrays as whole numbers of one or two bytes: a fraction of what text would take

def _packed_panel(panel: Panel, cap: float) -> dict:
    return {"title": panel.title,
            "at": _packed(panel.at, PLACE),
            "points": _packed(panel.points, PLACE),
            "arrows": _packed(_capped(panel.arrows, cap), 127 / cap, 1),
            "density": _packed(panel.density, 127, 1)}


def _capped(arrows: Tensor | None, cap: float) -> Tensor | None:
    """The arrows, those longer than ``cap`` shortened to it: they are drawn alike."""
    if arrows is None:
        return None
    return arrows * (cap / arrows.norm(dim=-1, keepdim=True)).clamp(max=1).nan_to_num(1)


def _packed(array: Tensor | None, units: float, n_bytes: int = 2) -> dict | None:
    """An array in whole numbers of 1/units, once along axes that it does not depend on."""
    if array is None:
        return None
    for axis in range(array.ndim - 2):
        first = array.narrow(axis, 0, 1)
        array = first if torch.equal(first.expand_as(array), array) else array
    limit = 2 ** (8 * n_bytes - 1) - 1
    whole = (array.double().cpu() * units).round().clamp(-limit, limit).to(torch.int16).numpy()
    data = base64.b64encode(whole.astype(f"<i{n_bytes}").tobytes()).decode()
    return {"axes": list(array.shape[:-2]), "size": array.shape[-2] * array.shape[-1],
            "bytes": n_bytes, "units": units, "data": data}
