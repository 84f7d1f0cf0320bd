"""Grids of images of any shape."""
import io

import numpy as np
import pytest
import torch
from figures import EPS, X
from matplotlib.colors import to_hex
from PIL import Image

from dmdkit import data
from dmdkit.show import images, style
from dmdkit.show.players import page

SHAPES = [(1, 28, 28), (3, 16, 16), (1, 8, 12), (3, 5, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_mosaic_has_every_image_where_it_belongs(shape, n):
    _, height, width = shape
    x = torch.rand(n, *shape) * 2 - 1
    picture = images.mosaic(x, 3, gap=2)
    columns = min(3, n)
    lines = -(-n // 3)
    assert picture.shape == (lines * (height + 2) + 2, columns * (width + 2) + 2, 3)
    for i in range(n):
        top, left = 2 + i // 3 * (height + 2), 2 + i % 3 * (width + 2)
        seen = torch.from_numpy(picture[top:top + height, left:left + width]).permute(2, 0, 1)
        wanted = (1 + x[i]) / 2 if shape[0] == 3 else (1 - x[i]).expand(3, -1, -1) / 2
        torch.testing.assert_close(seen, wanted)
    gaps = picture.copy()
    for i in range(n):
        top, left = 2 + i // 3 * (height + 2), 2 + i % 3 * (width + 2)
        gaps[top:top + height, left:left + width] = 1
    assert (gaps == 1).all()  # white between, around, and where images are missing


def test_grey_is_ink_on_white_and_beyond_the_range_is_clipped():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert images.shades(x)[0, :, 0].tolist() == [[1.0, 1.0, 0.5, 0.0, 0.0]] * 3
    assert images.shades(x.expand(1, 3, 1, 5))[0, 0, 0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_uint8_is_shown_as_the_floats_that_it_stands_for(shape):
    pixels = torch.randint(256, (4, *shape), dtype=torch.uint8)
    torch.testing.assert_close(images.shades(pixels), images.shades(data.scale(pixels)))


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 2, 28, 28), (28, 28), (2, 3)])
def test_what_is_no_grid_of_images_is_refused_in_a_sentence(shape):
    with pytest.raises(ValueError, match=r"takes grey images \(N, 1, H, W\) or .* got \("):
        images.grid(torch.zeros(shape))


@pytest.mark.parametrize("size", [7, 16, 28, 64])
def test_the_names_of_rows_stand_at_their_middles(size):
    """Whatever the size of the images: nothing is counted in MNIST's pixels."""
    picture = images.mosaic(torch.ones(3, 1, size, size), 1)
    for middle in images.middles(3, size):
        rows = picture[:, 4, 0]
        assert rows[round(middle)] == 0
        above, below = rows[:int(middle + 0.5)][::-1], rows[int(middle + 1):]
        assert np.argmax(above == 1) == np.argmax(below == 1) or size % 2 == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cell_is_as_wide_as_asked_and_keeps_the_form_of_its_image(shape):
    figure = images.grid(torch.zeros(6, *shape), 3, cell=0.8)
    box = figure.axes[0].get_position()
    width, height = figure.get_size_inches() * (box.width, box.height)
    assert width == pytest.approx(3 * 0.8)
    assert height == pytest.approx(2 * 0.8 * shape[1] / shape[2])


def test_fewer_images_than_columns_fill_the_row():
    figure = images.grid(torch.zeros(2, 1, 4, 4), columns=10, heads=["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    assert figure.axes[0].get_images()[0].get_extent() == [0, 2, 1, 0]


def test_the_pull_is_orange_where_the_real_score_sees_more_ink():
    real, fake = torch.full((2, 1, 4, 4), -1.0), torch.full((2, 1, 4, 4), -1.0)
    real[0, 0, 1, 2] = fake[1, 0, 3, 0] = 1.0  # ink that is to come, and ink that is to go
    ink = images.pull(torch.zeros(2, 1, 4, 4), real, fake).axes[0].images[1]
    values = ink.get_array()
    assert values[2 + 1, 2 + 2] == 1 and values[2 + 3, 2 + 6 + 0] == -1 and values.sum() == 0
    colours = ink.to_rgba(np.array([-1.0, 0.0, 1.0]))[:, :3]
    assert [to_hex(colour).upper() for colour in colours] == [style.BLUE, "#FFFFFF", style.ORANGE]


def test_the_rows_of_a_pull_lie_below_each_other():
    axes = images.pull(EPS[:4], X[:4], X[4:8]).axes[0]
    assert axes.get_ylim() == (4, 0) and axes.get_xlim() == (0, 4)
    left, right, bottom, top = axes.images[1].get_extent()
    assert (left, right, bottom) == (0, 4, 4) and 2.9 < top < 3


def test_titles_and_heads_of_several_lines_have_room():
    one = images.grid(torch.zeros(4, 1, 8, 8), heads=["1 step"] * 4)
    two = images.grid(torch.zeros(4, 1, 8, 8), heads=["1 step\n12 ms"] * 4, title="word " * 20)
    assert two.get_size_inches()[1] > one.get_size_inches()[1] + 3 * images.LINE
    assert Image.open(io.BytesIO(page.png(two))).height > 0
