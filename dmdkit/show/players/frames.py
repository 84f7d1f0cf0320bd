"""Sliders: live ones in ipywidgets, and an HTML player that needs no kernel.

ipywidgets' API as of version 7, core widgets only. Pictures are stacks of uint8 frames with named axes:

    frames  (*lengths, H, W) or (*lengths, H, W, 3) uint8
    axes    {"sampler": ["DDIM", "DDPM"], …, "steps": ["1", "2", …]}, in the frames' order; the last is the slider
"""
import base64
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from . import page

Axes = dict[str, Sequence[str]]


def png(figure: Figure, dpi: int = 100, colours: int | None = None) -> bytes:
    """A matplotlib figure as the bytes of a PNG file, in a palette of so many ``colours`` if given: a third of the
    size. A figure made with pyplot is closed: it would show twice."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    pyplot.close(figure)
    if colours:
        image = Image.open(buffer).convert("RGB").quantize(colours, Image.Quantize.FASTOCTREE)  # keeps rare colours
        image.save(buffer := io.BytesIO(), "png", optimize=True)
    return buffer.getvalue()


def encode(pixels: Tensor, scale: int = 1) -> bytes:
    """An image, (H, W) or (H, W, 3) uint8, as a PNG file, every pixel a block of scale × scale."""
    image = Image.fromarray(pixels.cpu().numpy())
    buffer = io.BytesIO()
    how = {"optimize": True} if scale == 1 else {"compress_level": 1}  # small where it is stored, fast where it is live
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(buffer, "png", **how)
    return buffer.getvalue()


# Live, with a kernel.

def live(draw: Callable[..., bytes], options: dict[str, Sequence], start: dict | None = None,
         n_sliders: int = 1) -> ipywidgets.VBox:
    """A dropdown for each of ``options`` and a slider for the last ``n_sliders``, above the picture ``draw(**values)``.

    Args:
        draw: takes one value by the name of each option and returns a PNG file; under 50 ms, or precompute.
        start: values to start from, by name; where it has none, the first option.
    The box has ``.controls`` (widgets by name), ``.slider`` (the last of them) and ``.image``. Setting a control's
    value in code repaints as dragging does.
    """
    dropdowns, sliders = list(options)[:-n_sliders], list(options)[-n_sliders:]
    style = {"style": {"description_width": "initial"}, "layout": ipywidgets.Layout(width="max-content")}
    start = {name: list(values)[0] for name, values in options.items()} | (start or {})
    make = lambda kind, name, **more: kind(options=list(options[name]), value=start[name], description=name, **more)
    controls = {name: make(ipywidgets.Dropdown, name, **style) for name in dropdowns}
    for name in sliders:
        controls[name] = make(ipywidgets.SelectionSlider, name, continuous_update=True, style=style["style"],
                              layout=ipywidgets.Layout(width="460px", max_width="100%"))
    image = ipywidgets.Image(value=draw(**start), format="png", layout=ipywidgets.Layout(max_width="100%"))

    def repaint(change):
        image.value = draw(**{name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(repaint, names="value")
    rows = [ipywidgets.HBox([controls[name] for name in dropdowns]), *(controls[name] for name in sliders), image]
    box = ipywidgets.VBox(rows, layout=ipywidgets.Layout(align_items="flex-start"))  # else the picture is stretched
    box.controls, box.slider, box.image = controls, controls[sliders[-1]], image
    return box


def frames_slider(frames: Sequence[bytes], values: Sequence, description: str) -> ipywidgets.VBox:
    """A slider over ``values`` above the picture that belongs to each; ``frames`` are PNG files, one a value.

    The box has ``.slider`` and ``.image``; setting ``box.slider.value`` in code repaints as dragging does.
    Raises ValueError unless there is exactly one frame a value, and at least one.
    """
    values, frames = list(values), list(frames)
    if len(frames) != len(values) or not frames:
        raise ValueError(f"frames_slider needs one frame a value; got {len(frames)} frames and {len(values)} values.")
    return live(lambda **chosen: frames[values.index(chosen[description])], {description: values})


# Stacks of frames with named axes.

def check_axes(frames: Tensor, axes: Axes) -> None:
    """Raises ValueError unless frames are uint8, shaped as the lengths of ``axes`` and then (H, W) or (H, W, 3)."""
    lengths = tuple(len(values) for values in axes.values())
    rest = tuple(frames.shape[len(axes):])
    if str(frames.dtype) != "torch.uint8" or not axes or tuple(frames.shape[:len(axes)]) != lengths or not (
            len(rest) == 2 or len(rest) == 3 and rest[-1] == 3):
        raise ValueError(f"frames must be uint8 of shape {lengths + ('H', 'W')} for the axes "
                         f"{', '.join(axes) or '(none)'}; got {frames.dtype} of {tuple(frames.shape)}.")


def pick(frames: Tensor, axes: Axes, **values) -> Tensor:
    """The frames at the named values; axes that are not named stay. Raises ValueError for an unknown name or value."""
    entries = {name: [str(entry) for entry in axis] for name, axis in axes.items()}
    for name, value in values.items():
        if str(value) not in entries.get(name, []):
            raise ValueError(f"There is no {name} = {value}; there is " + "; ".join(
                f"{axis} in {', '.join(known)}" for axis, known in entries.items()) + ".")
    return frames[tuple(entries[name].index(str(values[name])) if name in values else slice(None) for name in axes)]


def grid(frames: Tensor, gap: int = 1) -> Tensor:
    """(rows, columns, H, W[, 3]) → one image, frames ``gap`` white pixels apart."""
    rows, columns, height, width, *colour = frames.shape
    sheet = frames.new_full((rows * (height + gap) - gap, columns * (width + gap) - gap, *colour), 255)
    for r in range(rows):
        for c in range(columns):
            sheet[r * (height + gap):, c * (width + gap):][:height, :width] = frames[r, c]
    return sheet


def contact_sheet(frames: Tensor, axes: Axes, rows: str, title: str = "", **values) -> Figure:
    """All values of the slider, a column each, for every entry of the axis ``rows``; the other axes at ``values``."""
    slider = list(axes)[-1]
    rest = {name: values.get(name, axes[name][0]) for name in axes if name not in (rows, slider)}
    chosen = pick(frames, axes, **rest)
    height, width = frames.shape[len(axes):][:2]
    names, chosen = ([""], chosen[None]) if rows == slider else (axes[rows], chosen)
    sheet, zoom, left, top = grid(chosen, gap=2).numpy(), max(1, 56 // width), 70, 60
    size = sheet.shape[1] * zoom + left + 10, sheet.shape[0] * zoom + top + 10
    figure = Figure((size[0] / 100, size[1] / 100), dpi=100)  # placed by hand, pixel on pixel
    plot = figure.add_axes((left / size[0], 10 / size[1], 1 - (left + 10) / size[0], 1 - (top + 10) / size[1]))
    plot.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    plot.set_xticks([(width + 2) * i + width / 2 for i in range(len(axes[slider]))], axes[slider])
    plot.set_yticks([(height + 2) * i + height / 2 for i in range(len(names))], names)
    plot.xaxis.tick_top()
    plot.xaxis.set_label_position("top")
    plot.tick_params(length=0, labelsize=9)
    plot.set(xlabel=slider, ylabel="" if rows == slider else rows)
    plot.set_title(title, fontsize=12)
    plot.spines[:].set_visible(False)
    return figure


# Without a kernel.

class Bundle(NamedTuple):
    """What a notebook stores of a player: HTML for Jupyter, a PNG for GitHub and PDF, a line of text for the rest."""
    html: str
    png: bytes
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "image/png": base64.b64encode(self.png).decode(), "text/plain": self.text}


def player(frames: Tensor, axes: Axes, *, start: dict | None = None, panels: str | None = None,
           rows: str | None = None, captions: Sequence[str] = (), title: str = "") -> Bundle:
    """A self-contained HTML player over frames: a slider over the last axis, buttons or a menu for each other axis.

    Args:
        frames, axes: see the top of this file. An axis of one entry gets no control.
        start: values to start from, by axis; elsewhere the first, and for the slider the last.
        panels: an axis whose entries are shown side by side instead of chosen.
        rows: the axis down the static contact sheet; as a rule ``panels``, or the first with a choice.
        captions: a line for each position of the slider.
    Display it as the last expression of a cell. Raises ValueError for frames, axes or values that do not fit.
    """
    check_axes(frames, axes)
    axes = {name: [str(value) for value in values] for name, values in axes.items()}
    for name in (panels, rows):
        if name is not None and name not in axes:
            raise ValueError(f"There is no axis {name!r}; there are {', '.join(axes)}.")
    slider = list(axes)[-1]
    start = {name: values[-1 if name == slider else 0] for name, values in axes.items()} | (start or {})
    pick(frames, axes, **start)
    if captions and len(captions) != len(axes[slider]):
        raise ValueError(f"captions must be one a position of {slider}: {len(axes[slider])}; got {len(captions)}.")
    rows = rows or panels or next((name for name in axes if len(axes[name]) > 1), slider)
    figure = contact_sheet(frames, axes, rows, title, **{k: v for k, v in start.items() if k not in (rows, slider)})
    height, width = frames.shape[len(axes):][:2]
    flat = frames.reshape(-1, len(axes[slider]), *frames.shape[len(axes):])
    n_panels = 1 if panels is None else len(axes[panels])
    room = 340 if n_panels < 3 else 720  # CSS pixels: beside the controls, or above them
    spec = {"axes": list(axes.items()), "at": [axes[name].index(str(start[name])) for name in axes], "width": width,
            "height": height, "scale": max(1, min(252 // height, room // n_panels // width)), "title": title,
            "panels": -1 if panels is None else list(axes).index(panels), "captions": list(captions),
            "sprite": page.uri(encode(grid(flat, gap=0)))}
    still = png(figure)
    return Bundle(page.make(spec, still, page.FRAMES), still,
                  f"{title or 'Player'}: " + ", ".join(f"{name} {' '.join(axes[name])}" for name in axes))
