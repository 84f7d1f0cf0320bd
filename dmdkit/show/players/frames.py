"""A player over pictures, as HTML that needs no kernel. The pictures are a stack with named axes:

    frames  (*lengths, H, W) or (*lengths, H, W, 3) uint8
    axes    {"sampler": ["DDIM", "DDPM"], …, "steps": ["1", "2", …]}, in the frames' order; the last
            is the slider
"""
from collections.abc import Callable

import torch
from matplotlib.axes import Axes as PlotAxes
from matplotlib.figure import Figure
from torch import Tensor

from ..images import GAP, middles, tiles
from ..style import styled, unframed, wrapped
from . import choices, page
from .choices import Axes

BESIDE, ABOVE, TALL = 340, 720, 252  # CSS pixels for panels beside or above the controls; height
THUMBNAIL, WIDE = 56, 840  # dots that a frame of the contact sheet, and all of it, are wide


def check_axes(frames: Tensor, axes: Axes) -> None:
    """Raises ValueError unless frames are uint8, shaped as the lengths of ``axes`` and then (H, W)
    or (H, W, 3)."""
    lengths = tuple(len(values) for values in axes.values())
    rest = tuple(frames.shape[len(axes):])
    pictures = len(rest) == 2 or len(rest) == 3 and rest[-1] == 3
    leading = tuple(frames.shape[:len(axes)]) == lengths
    if frames.dtype != torch.uint8 or not axes or not leading or not pictures:
        raise ValueError(f"frames must be uint8 of shape {(*lengths, 'H', 'W')} for the axes "
                         f"{', '.join(axes) or '(none)'}, with a last dimension of 3 if in "
                         f"colour; got {frames.dtype} of {tuple(frames.shape)}.")


def pick(frames: Tensor, axes: Axes, **values) -> Tensor:
    """The frames at the named values; axes that are not named stay. Raises ValueError for an
    unknown name or value."""
    choices.check_values(axes, values)
    index = []
    for name, entries in axes.items():
        known = [str(entry) for entry in entries]
        index.append(known.index(str(values[name])) if name in values else slice(None))
    return frames[tuple(index)]


def sheet(frames: Tensor, gap: int = 1) -> Tensor:
    """(rows, columns, H, W[, 3]) uint8 → one image, frames ``gap`` white pixels apart."""
    rows, columns, height, width, *colour = frames.shape
    cells = frames.reshape(rows * columns, height, width, -1).permute(0, 3, 1, 2)
    tiled = tiles(cells, columns, gap, white=255)  # it has a gap around it, too
    whole = tiled[:, gap:tiled.shape[1] - gap, gap:tiled.shape[2] - gap].permute(1, 2, 0)
    return whole if colour else whole[..., 0]


def of_images(images: Tensor) -> Tensor:
    """Images (…, 1 or 3, H, W) uint8 as frames: grey ones as ink, dark on white."""
    if images.shape[-3] == 1:
        return 255 - images.squeeze(-3)
    return images.movedim(-3, -1)


@styled
def contact_sheet(frames: Tensor, axes: Axes, rows: str, title: str = "", **values) -> Figure:
    """The values of the slider, a column each, for every entry of the axis ``rows``; the other axes
    at ``values``, or their first. Where not all columns fit, some of them, evenly spread. Raises
    ValueError for an axis or a value that there is not."""
    check_axes(frames, axes)
    choices.check_names(axes, [rows])
    slider = list(axes)[-1]
    chosen = {name: values.get(name, axes[name][0]) for name in axes if name not in (rows, slider)}
    shown, names = pick(frames, axes, **chosen), axes[rows]
    if rows == slider:
        shown, names = shown[None], [""]
    height, width = shown.shape[2:4]
    zoom = max(1, THUMBNAIL // width)
    columns = _spread(len(axes[slider]), WIDE // (width * zoom + GAP))
    plot = _placed(sheet(shown[:, columns], GAP), zoom, title)
    plot.set_xticks(middles(len(columns), width, GAP, 0), [axes[slider][i] for i in columns])
    plot.set_yticks(middles(len(names), height, GAP, 0), names)
    plot.xaxis.tick_top()
    plot.xaxis.set_label_position("top")
    plot.set(xlabel=slider, ylabel="" if rows == slider else rows)
    unframed(plot)
    return plot.figure


def _spread(n: int, most: int) -> list[int]:
    """At most so many of 0 … n − 1, first and last among them, and evenly spread."""
    count = min(n, max(2, most))
    return torch.linspace(0, n - 1, count).round().int().tolist()


def _placed(picture: Tensor, zoom: int, title: str) -> PlotAxes:
    """A picture in a figure of its own, every pixel a block of zoom × zoom, with room for names."""
    left, top, edge = 70, 60, 10
    tall, wide = picture.shape[0] * zoom, picture.shape[1] * zoom
    width, height = wide + left + edge, tall + top + edge
    figure = Figure((width / 100, height / 100))
    plot = figure.add_axes((left / width, edge / height, wide / width, tall / height))
    plot.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255, aspect="auto")
    plot.set_title(wrapped(title, width / 100))
    return plot


def player(frames: Tensor, axes: Axes, *, start: dict | None = None, panels: str | None = None,
           rows: str | None = None, caption: Callable[..., str] | None = None,
           title: str = "") -> page.Bundle:
    """A self-contained HTML player over frames: a slider over the last axis, buttons or a menu for
    each other axis.

    Args:
        frames, axes: see the top of this file. An axis of one entry gets no control.
        start: values to start from, by axis; elsewhere the first, and for the slider the last.
        panels: an axis whose entries are shown side by side instead of chosen.
        rows: the axis down the static contact sheet; as a rule ``panels``, or the first with a
            choice.
        caption: takes a value by the name of each axis, and returns the line below the number.
    Display it as the last expression of a cell. Raises ValueError for frames, axes or values that
    do not fit.
    """
    check_axes(frames, axes)
    axes = choices.named(axes)
    choices.check_names(axes, [panels, rows])
    slider = list(axes)[-1]
    at = choices.positions(axes, start, at_end=slider)
    rows = rows or panels or next((name for name in axes if len(axes[name]) > 1), slider)
    chosen = {name: axes[name][i] for name, i in zip(axes, at) if name not in (rows, slider)}
    still = page.png(contact_sheet(frames, axes, rows, title, **chosen))
    spec = {"axes": list(axes.items()), "at": at, "title": title,
            "captions": choices.captions(axes, caption), **_pictures(frames, axes, panels)}
    return page.bundle(spec, still, ["frames.js"], choices.summary(title or "Player", axes))


def _pictures(frames: Tensor, axes: dict[str, list[str]], panels: str | None) -> dict:
    """All frames in one picture, and how the script shows them."""
    height, width = frames.shape[len(axes):][:2]
    *_, stops = axes.values()
    rows = frames.reshape(-1, len(stops), *frames.shape[len(axes):])
    return {"width": width, "height": height,
            "panels": -1 if panels is None else list(axes).index(panels),
            "scale": _scale(width, height, 1 if panels is None else len(axes[panels])),
            "sprite": page.uri(page.encode(sheet(rows, gap=0)))}


def _scale(width: int, height: int, n_panels: int) -> float:
    """How large a pixel of a frame is shown, in CSS pixels: as large as there is room for."""
    aspect = n_panels * width / height
    room = BESIDE if aspect <= 2 else ABOVE  # what is wider stands above the controls
    return round(min(TALL / height, room / n_panels / width), 3)
