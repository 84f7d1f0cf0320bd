"""Every figure: it is drawn in the kit's own style, large enough to be read, and changes
nothing."""
import functools
import inspect
import itertools

import numpy as np
import pytest
import torch
from figures import CALLS, EPS, FIELD, MODULES, SEEN, VALUES, X, rendered
from matplotlib import colormaps, pyplot, rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from dmdkit.show import style

each = pytest.mark.parametrize("name", CALLS)


def test_every_function_that_draws_a_figure_is_tried():
    drawing = {f"{module.__name__.split('.')[-1]}.{name}" for module in MODULES
               for name, function in inspect.getmembers(module, inspect.isfunction)
               if function.__module__ == module.__name__ and not name.startswith("_")
               and inspect.signature(function).return_annotation is Figure}
    assert drawing - {"curves.log"} == set(CALLS)  # which needs a file


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors(entry)


def looks(figure: Figure) -> list:
    """How every part of a figure looks."""
    found = []
    for artist in figure.findobj():
        settings = [getattr(artist, f"get_{name}", str)() for name in
                    ("visible", "fontsize", "linewidth", "facecolor", "color", "interpolation")]
        found.append((type(artist).__name__, *map(str, settings)))
    return found


@functools.cache
def drawn(name: str) -> tuple[Figure, list, np.ndarray]:
    """A figure, how its parts look, and its pixels; drawing it must have changed nothing of what it
    was given."""
    given = list(tensors([X, EPS, SEEN, VALUES, FIELD]))
    before = [one.clone() for one in given]
    figure = CALLS[name]()
    parts = looks(figure)
    picture = rendered(figure)
    assert all(torch.equal(one, other) for one, other in zip(before, given))
    return figure, parts, picture


@each
def test_a_figure_is_drawn_and_its_text_is_10_pixels_high_and_more(name):
    figure, _, picture = drawn(name)
    assert picture[..., :3].std() > 5 and figure.get_size_inches()[0] <= style.WIDEST + 0.2
    sizes = {text.get_text(): text.get_fontsize() * figure.dpi / 72
             for text in figure.findobj(Text) if text.get_text()}
    assert min(sizes.values(), default=10) >= 10, sizes


@style.styled
def texts(figure: Figure) -> dict[Text, Bbox]:
    """The texts of a figure, and where they stand: no numbers beyond an axis' end, nor what belongs
    to axes that are switched off."""
    figure.draw_without_rendering()
    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            unseen |= set() if axes.axison else {axis.label}
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                seen = axes.axison and low - 1e-9 <= tick.get_loc() <= high + 1e-9
                unseen |= {tick.label2} if seen else {tick.label1, tick.label2}
    return {text: text.get_window_extent() for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in unseen}


@each
def test_no_text_of_a_figure_lies_on_another_or_is_cut_off(name):
    figure = drawn(name)[0]
    found = texts(figure)
    for (one, place), (other, beside) in itertools.combinations(found.items(), 2):
        shared = Bbox.intersection(place, beside)
        touch = shared is not None and shared.width > 1 and shared.height > 2  # pixels
        assert not touch, (one.get_text(), other.get_text())
    for text, place in found.items():
        assert place.x0 > -4 and place.x1 < figure.bbox.width + 4, text.get_text()


@each
def test_a_figure_is_the_same_whatever_style_its_reader_has_set(name):
    with rc_context({"font.size": 30, "axes.facecolor": "black", "axes.spines.top": True,
                     "lines.linewidth": 9, "image.interpolation": "bicubic"}):
        elsewhere = CALLS[name]()
        assert pyplot.rcParams["font.size"] == 30  # that style stays set
    assert looks(elsewhere) == drawn(name)[1]


@each
def test_a_figure_has_no_frame_above_and_on_the_right_but_around_the_plane(name):
    for axes in drawn(name)[0].axes:
        shown = {side for side, spine in axes.spines.items() if spine.get_visible()}
        if axes.axison and shown not in (set(), {"left", "bottom", "right", "top"}):
            assert shown <= {"left", "bottom", "outline"}, axes.get_title()


def test_no_figure_stays_open_in_pyplot():
    for name in CALLS:
        drawn(name)
    assert pyplot.get_fignums() == []


def test_the_style_is_one_that_matplotlib_finds_by_its_name():
    with pyplot.style.context(style.KIT):
        assert not pyplot.rcParams["axes.spines.top"]
        assert pyplot.rcParams["axes.prop_cycle"].by_key()["color"][0] == style.BLUE


def test_more_names_than_colours_are_all_drawn():
    found = style.coloured({str(i): i for i in range(16)})
    assert [value for _, _, value in found] == list(range(16))
    assert found[0][0] == found[7][0] == found[14][0] == style.BLUE
    names = drawn("progress.modes")[0].axes[0].get_legend_handles_labels()[1]
    assert names == [f"run {i}" for i in range(9)]


def test_a_title_that_is_too_wide_is_wrapped():
    assert "\n" in style.wrapped("a title of far more than sixteen letters", 1.0)
    assert "\n" not in style.wrapped("a title of far more than sixteen letters", 8.0)


def test_length_is_told_by_lightness_too():
    """The colours of arrows run from light to dark, for those who do not see hues."""
    grey = colormaps["gray"](0.5)[0]
    from dmdkit.show.plane import SHADES

    lightness = np.array(SHADES.colors)[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) < 0).all() and lightness[0] > grey > lightness[-1]
