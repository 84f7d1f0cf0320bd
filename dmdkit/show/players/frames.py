"""A player over pictures, as HTML that needs no kernel. The pictures are a stack with named axes:

    frames  (*lengths, H, W) or (*lengths, H, W, 3) uint8
    axes    {"sampler": ["DDIM", "DDPM"], …, "steps": ["1", "2", …]}, in the frames' order; the last
            is the slider
"""
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes as PlotAxes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..images import GAP, middles, tiles
from ..picture import Picture, in_palette
from ..style import styled, unframed, wrapped
from . import choices, page
from .choices import Axes

BESIDE, ABOVE, TALL = 340, 848, 252  # CSS pixels for panels beside or above the controls; height
STRIP, GUTTER = 4, 8     # how many times as wide as high a row of pictures is; pixels between panels
GREYS = 24               # shades that a player of grey pictures has
PALETTE = 256            # colours that a PNG file in a palette can have
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


def in_few_colours(frames: Tensor, n: int = PALETTE) -> Tensor:
    """Frames in colour (…, H, W, 3) uint8 in n colours in all: a player of photographs then takes a
    third of the space."""
    strip = Image.fromarray(frames.flatten(0, -3).numpy())
    return torch.from_numpy(np.array(in_palette(strip, n).convert("RGB"))).reshape(frames.shape)


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
    figure = Picture((width / 100, height / 100))
    plot = figure.add_axes((left / width, edge / height, wide / width, tall / height))
    plot.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255, aspect="auto")
    plot.set_title(wrapped(title, width / 100))
    return plot


def player(frames: Tensor, axes: Axes, *, start: dict | None = None, panels: str | None = None,
           rows: str | None = None, caption: Callable[..., str] | None = None, title: str = "",
           notes: Mapping[str, str] | None = None) -> page.Bundle:
    """A self-contained HTML player over frames: a slider over the last axis, buttons or a menu for
    each other axis.

    Args:
        frames, axes: see the top of this file. An axis of one entry gets no control.
        start: values to start from, by axis; elsewhere the first, and for the slider the last.
        panels: an axis whose entries are shown side by side instead of chosen.
        rows: the axis down the static contact sheet; as a rule ``panels``, or the first with a
            choice.
        caption: takes a value by the name of each axis, and returns the line below the number.
        notes: what stands under a panel, by its name: its figures, say.
    Panels can be compared pixel by pixel: a switch marks where they differ from the first.
    Display it as the last expression of a cell. Raises ValueError for frames, axes or values that
    do not fit.
    """
    check_axes(frames, axes)
    axes = choices.named(axes)
    choices.check_names(axes, [panels, rows])
    notes = _checked(notes or {}, axes, panels)
    slider = list(axes)[-1]
    at = choices.positions(axes, start, at_end=slider)
    rows = rows or panels or next((name for name in axes if len(axes[name]) > 1), slider)
    chosen = {name: axes[name][i] for name, i in zip(axes, at) if name not in (rows, slider)}
    colours = PALETTE if frames.ndim == len(axes) + 3 else GREYS
    still = page.png(contact_sheet(frames, axes, rows, title, **chosen), 70, colours)
    return assembled(frames, axes, at, still, title, panels, notes, caption)


def assembled(frames: Tensor, axes: dict[str, list[str]], at: list[int], still: bytes, title: str,
              panels: str | None = None, notes: Sequence[str] = (),
              caption: Callable[..., str] | None = None) -> page.Bundle:
    """The player of frames that were checked, before a still that was drawn, a PNG file. at: where
    each axis starts; notes: one a panel."""
    kind = "photo" if frames.ndim == len(axes) + 3 else ""
    pictures = {"sprite": _sprite(frames, axes), "kind": kind, **_panels(frames, axes, panels)}
    return _bundle(pictures | {"notes": list(notes)}, axes, at, caption, title, still)


def of_figures(drawn: Sequence[Figure], name: str, values: Sequence, title: str = "",
               start=None) -> page.Bundle:
    """A player over figures of one size, a figure for each of the slider's ``values``; ``start``:
    the value to start from, the last unless given. Raises ValueError unless there is one figure a
    value, all of one size, and no value is there twice."""
    axes = choices.named({name: values})
    frames = [_pixels(figure) for figure in drawn]
    if len(frames) != len(values) or len({frame.shape for frame in frames}) != 1:
        raise ValueError(f"There must be one figure for each of {len(values)} values, all of one "
                         f"size; got {len(frames)} of {sorted({tuple(f.shape) for f in frames})}.")
    at = choices.positions(axes, {} if start is None else {name: start}, at_end=name)
    stack = torch.stack(frames)
    pictures = {"sprite": _sprite(stack, axes, colours=64), "kind": "figure", "notes": [],
                **_panels(stack, axes, None), "scale": 1, "thumbnails": False}
    still = page.encode(frames[at[0]], colours=64)
    return _bundle(pictures, axes, at, None, title, still)


@styled
def _pixels(figure: Figure) -> Tensor:
    """A figure as its size has it, (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _bundle(pictures: dict, axes: dict[str, list[str]], at: list[int],
            caption: Callable[..., str] | None, title: str, still: bytes) -> page.Bundle:
    spec = {**choices.described(axes), "at": at, "title": title,
            "captions": choices.captions(axes, caption), **pictures}
    return page.bundle(spec, still, ["frames.js"], choices.summary(title or "Player", axes))


def _checked(notes: Mapping[str, str], axes: dict[str, list[str]], panels: str | None) -> list[str]:
    """A note for each panel, in their order, empty where there is none."""
    names = axes[panels] if panels else []
    for name in notes:
        if name not in names:
            raise ValueError(f"There is no panel {name!r} to note something under; there are "
                             f"{', '.join(names) or 'none'}.")
    return [notes.get(name, "") for name in names]


def _sprite(frames: Tensor, axes: dict[str, list[str]], colours: int | None = None) -> str:
    """All frames in one picture: a column for each place of the slider, the last axis."""
    *_, stops = axes.values()
    if frames.ndim == len(axes) + 2:  # grey: fewer shades, a third of the size
        frames = (((frames / 255 * (GREYS - 1)).round() / (GREYS - 1)) * 255).round().byte()
    rows = frames.reshape(-1, len(stops), *frames.shape[len(axes):])
    return page.uri(page.encode(sheet(rows, gap=0), colours=colours))


def _panels(frames: Tensor, axes: dict[str, list[str]], panels: str | None) -> dict:
    """How large the script shows a frame, and how many at once."""
    height, width = frames.shape[len(axes):][:2]
    count = 1 if panels is None else len(axes[panels])
    return {"width": width, "height": height, "scale": _scale(width, height, count),
            "panels": -1 if panels is None else list(axes).index(panels), "marks": count > 1,
            "thumbnails": width <= STRIP * height}


def _scale(width: int, height: int, n_panels: int) -> float:
    """How large a pixel of a frame is shown, in CSS pixels: as large as there is room for."""
    if width > STRIP * height:
        return round(ABOVE / width, 3)  # strips stand below each other
    aspect = n_panels * width / height
    room = BESIDE if aspect <= 2 else ABOVE  # what is wider stands above the controls
    return round(min(TALL / height, (room / n_panels - GUTTER) / width), 3)
