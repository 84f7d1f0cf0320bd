"""Figures as a notebook shows them: their text in words, their size, and stored once."""
import base64
import html
import io
import re

import numpy as np
import pytest
import torch
from figures import CALLS, X
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image
from traitlets.config import Config

from dmdkit.show import curves, diagrams, images, picture

each = pytest.mark.parametrize("name", CALLS)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An IPython in this process that shows what a notebook shows, and leaves nothing behind."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.display_formatter.active_types = ["text/plain", "text/html", "image/png"]
    yield shell
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


def attribute(page: str, name: str) -> str:
    return html.unescape(re.search(rf'<img [^>]*{name}="([^"]*)"', page)[1])


def image_of(page: str) -> Image.Image:
    data = attribute(page, "src").removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@each
def test_every_figure_says_in_words_what_it_shows(name):
    figure = CALLS[name]()
    said = picture.words(figure)
    assert re.search(r"[A-Za-z]{4}", said) and not re.search(r"[$\\{}]", said), said
    title = figure.get_suptitle() or figure.axes[0].get_title() or figure.axes[0].get_ylabel()
    assert picture.plain(title) and picture.plain(title) in said


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("name", ["images.grid", "schedules.noised", "progress.modes"])
def test_a_notebook_stores_a_figure_once_with_its_words(shell, name, inline):
    if inline:  # as `%matplotlib inline` has it
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"})
    picture.show_in_notebooks()
    figure = CALLS[name]()
    shown, _ = shell.display_formatter.format(figure)
    assert set(shown) == {"text/html", "text/plain"}
    assert attribute(shown["text/html"], "alt") == picture.words(figure) == shown["text/plain"]
    elsewhere, _ = shell.display_formatter.format(Figure())
    assert "text/html" not in elsewhere  # a reader's own figures stay as they are


def test_importing_the_kit_in_ipython_is_enough(shell):
    shell.display_formatter.formatters["image/png"].type_printers.clear()
    shell.run_cell("import importlib, dmdkit.show\nimportlib.reload(dmdkit.show)")
    assert picture.Picture in shell.display_formatter.formatters["image/png"].type_printers


def test_an_image_has_twice_the_pixels_and_keeps_its_form():
    page = images.grid(X, 5, "Ten digits")._repr_html_()
    image, width = image_of(page), int(attribute(page, "width"))
    assert 0 <= 2 * width - image.width <= 1
    assert " height=" not in page  # which the page's width would not change along
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_only_photographs_keep_their_colours_at_night():
    grey, colour = images.grid(X), images.grid(torch.rand(3, 3, 8, 8))
    assert [picture.has_photographs(figure) for figure in (grey, colour)] == [False, True]
    assert attribute(grey._repr_html_(), "class") == "dmd-figure"
    assert attribute(colour._repr_html_(), "class") == "dmd-figure photo"
    assert not any(picture.has_photographs(CALLS[name]()) for name in CALLS)


def test_words_hold_titles_axes_legends_and_notes():
    said = picture.words(curves.lines({"mine": [1, 2]}, [1, 2], "All is well", "steps", "loss",
                                      {"known": 1}))
    assert said == "All is well. loss against steps, mine, known"
    said = picture.words(images.grid(X, 5, "Two rows", ["teacher", r"$\hat{x}$"], list("01234")))
    assert said == "Two rows. 0, 1, 2, 3, 4, teacher, x̂"
    assert "fake score: μ_fake" in picture.words(diagrams.dmd())
    assert "two samples of the data" in picture.words(CALLS["progress.modes"]())
    assert "gan" in picture.words(CALLS["dashboards.dashboard"]())


@pytest.mark.parametrize("formula, wanted", [
    (r"$\tilde{x}$ at $\sigma_t$", "x̃ at σ_t"), (r"$\mu_\mathrm{real}$", "μ_real"),
    (r"$\varepsilon - \alpha x$", "ε - αx"), (r"$\log\ p_t$", "log p_t"),
    ("two\nlines", "two lines"),
    (r"$x_t = 0.8\,x$", "x_t = 0.8 x"), (r"$\|x - \hat{x}\|^2$", "|x - x̂|^2"),
    ("a plain 5 % {of} it", "a plain 5 % {of} it")])
def test_formulas_are_read(formula, wanted):
    assert picture.plain(formula) == wanted


def test_pale_bands_keep_their_hues_and_paper_stays_white():
    bands = [(229, 196, 180), (178, 214, 232), (178, 226, 213), (240, 215, 228), (255, 255, 255)]
    shades = np.linspace(0, 255, 120)[:, None].repeat(3, 1)  # lines, text and their edges
    stripes = np.concatenate([np.repeat(bands, 40, 0), shades]).round().astype(np.uint8)
    image = Image.fromarray(np.repeat(stripes[None], 20, 0))
    found = np.asarray(picture.in_palette(image, 64).convert("RGB")).astype(int)
    off = np.abs(found - np.asarray(image)).max(-1)
    assert off[:, :200].max() <= 4 and (found[:, 160:200] == 255).all()
