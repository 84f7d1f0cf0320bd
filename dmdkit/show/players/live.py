"""Live sliders in ipywidgets, for what Python must compute between moves. ipywidgets' API as of
version 7, core widgets only."""
import html
from collections.abc import Callable, Sequence

import ipywidgets
from ipywidgets import Layout

from . import choices

NAMED = {"description_width": "initial"}  # as wide as the name is


def sliders(draw: Callable[..., bytes], options: dict[str, Sequence], start: dict | None = None,
            n_sliders: int = 1) -> ipywidgets.VBox:
    """A dropdown for each of ``options`` and a slider for the last ``n_sliders``, above the picture
    ``draw(**values)``.

    Args:
        draw: takes one value by the name of each option and returns a PNG file; under 50 ms, or
            precompute.
        start: values to start from, by name; where it has none, the first option.
    The box has ``.controls`` (widgets by name), ``.slider`` (the last of them), ``.image``, and
    ``.message``, which says what went wrong in ``draw``. Setting a control's value in code repaints
    as dragging does. Raises ValueError for options that are none, or that are there twice, and for
    a start that is none of them.
    """
    options = {name: list(values) for name, values in options.items()}
    start = _started(options, start)
    dropdowns, sliding = list(options)[:-n_sliders], list(options)[-n_sliders:]
    controls = {name: _control(name, values, start[name], name in sliding)
                for name, values in options.items()}
    image = ipywidgets.Image(value=draw(**start), format="png", layout=Layout(max_width="100%"))
    message = ipywidgets.HTML()
    _connect(draw, controls, image, message)
    rows = [ipywidgets.HBox([controls[name] for name in dropdowns]),
            *(controls[name] for name in sliding), message, image]
    box = ipywidgets.VBox(rows, layout=Layout(align_items="flex-start"))  # else it is stretched
    box.controls, box.slider = controls, controls[sliding[-1]]
    box.image, box.message = image, message
    return box


def _started(options: dict[str, list], start: dict | None) -> dict:
    """The value that each control starts with."""
    for name, values in options.items():
        choices.check_distinct(name, values)
    texts = {name: [str(value) for value in values] for name, values in options.items()}
    at = choices.positions(texts, start, at_end=None)
    return {name: values[i] for (name, values), i in zip(options.items(), at)}


def _control(name: str, values: list, start, slider: bool) -> ipywidgets.Widget:
    same = {"options": values, "value": start, "description": name, "style": NAMED}
    if slider:
        layout = Layout(width="460px", max_width="100%")
        return ipywidgets.SelectionSlider(**same, continuous_update=True, layout=layout)
    return ipywidgets.Dropdown(**same, layout=Layout(width="max-content"))


def _connect(draw: Callable[..., bytes], controls: dict[str, ipywidgets.Widget],
             image: ipywidgets.Image, message: ipywidgets.HTML) -> None:
    """Repaint whenever a control moves. An error is shown in the picture's place, since a notebook
    does not print what goes wrong in a callback; and it is raised."""
    def repaint(change):
        values = {name: control.value for name, control in controls.items()}
        try:
            image.value = draw(**values)
        except Exception as error:
            message.value = _what_failed(error, values)
            image.layout.display = "none"
            raise
        message.value = ""
        image.layout.display = None

    for control in controls.values():
        control.observe(repaint, names="value")


def _what_failed(error: Exception, values: dict) -> str:
    at = ", ".join(f"{name} = {value}" for name, value in values.items())
    what = f"At {at}, drawing failed: {type(error).__name__}: {error}"
    return f"<pre>{html.escape(what)}</pre>"


def frames_slider(frames: Sequence[bytes], values: Sequence, description: str) -> ipywidgets.VBox:
    """A slider over ``values`` above the picture that belongs to each; ``frames`` are PNG files,
    one a value.

    The box has ``.slider`` and ``.image``; setting ``box.slider.value`` in code repaints as
    dragging does. Raises ValueError unless there is exactly one frame a value, at least one, and no
    value is there twice.
    """
    values, frames = list(values), list(frames)
    if len(frames) != len(values) or not frames:
        raise ValueError(f"frames_slider needs one frame a value, and at least one; got "
                         f"{len(frames)} frames and {len(values)} values.")

    def draw(**chosen) -> bytes:
        return frames[values.index(chosen[description])]

    return sliders(draw, {description: values})
