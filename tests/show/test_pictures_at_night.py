"""Figures on dark pages, in a real browser. Needs Chromium and Playwright."""
import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from test_browser import browser, open_page  # noqa: F401: fixtures

from dmdkit.show import images, style

DARK = {"JupyterLab": "<body data-jp-theme-light=false>", "a book": "<html data-theme=dark>",
        "Colab": "<html theme=dark>"}
NAMED = {"blue": style.BLUE, "orange": style.ORANGE, "green": style.GREEN, "pink": style.PINK}


def patches() -> str:
    """A figure with a field of each colour that the lessons name, from left to right."""
    figure = style.new_figure(4, 1)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, len(NAMED)), ylim=(0, 2))
    axes.bar(np.arange(len(NAMED)) + 0.5, 1, width=1, color=list(NAMED.values()))
    axes.set_axis_off()
    return figure._repr_html_()


def seen(page) -> np.ndarray:
    """The pixels of a page's figure as they are on the screen, 0 … 1."""
    shot = Image.open(io.BytesIO(page.locator("img.dmd-figure").screenshot())).convert("RGB")
    return np.asarray(shot) / 255


def hues(pixels: np.ndarray) -> np.ndarray:
    """The hues of the fields, in degrees."""
    height, width, _ = pixels.shape
    places = ((np.arange(len(NAMED)) + 0.5) * width / len(NAMED)).astype(int)
    return np.array([360 * colorsys.rgb_to_hsv(*pixels[height * 3 // 4, x])[0] for x in places])


@pytest.mark.parametrize("page", DARK)
def test_a_figure_is_dark_on_a_dark_page_and_its_colours_keep_their_names(open_page, page):
    light = seen(open_page(patches()))
    dark = seen(open_page(DARK[page] + patches()))
    assert light[5, 5].min() > 0.95 and dark[5, 5].max() < 0.05
    turned = np.abs((hues(dark) - hues(light) + 180) % 360 - 180)
    assert turned.max() < 20, dict(zip(NAMED, turned))


def test_a_photograph_stays_as_it_is(open_page):
    photograph = images.grid(torch.ones(1, 3, 8, 8) * torch.tensor([1.0, -1, -1])[:, None, None])
    pixels = seen(open_page(DARK["JupyterLab"] + photograph._repr_html_()))
    height, width, _ = pixels.shape
    assert pixels[height // 2, width // 2] == pytest.approx([1, 0, 0], abs=0.05)


def test_a_figure_shrinks_with_its_page_and_keeps_its_form(open_page):
    wide = images.grid(torch.zeros(12, 1, 8, 8), 12, "A row")._repr_html_()
    boxes = [open_page(wide, width).locator("img").bounding_box() for width in (1000, 350)]
    assert boxes[1]["width"] <= 350
    assert boxes[1]["width"] / boxes[1]["height"] == pytest.approx(
        boxes[0]["width"] / boxes[0]["height"], rel=0.02)
