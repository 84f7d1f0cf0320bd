"""What players have in common, and the player of frames."""
import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from figures import pixels
from matplotlib.figure import Figure
from PIL import Image

from dmdkit.show.players import choices, frames, page

AXES = {"sampler": ["DDIM", "DDPM"], "digit": ["0", "1", "2"], "steps": ["1", "4", "16", "400"]}


@pytest.fixture
def stack():
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 4, 8, 6), dtype=torch.uint8, generator=g)


def spec(bundle) -> dict:
    """What a player's script is given."""
    return json.loads(re.search(r"const spec = (\{.*\});$", bundle.html, re.M)[1])


def sprite_of(given: dict) -> torch.Tensor:
    """All pictures of a player in one, (H, W) or (H, W, 3) uint8."""
    return torch.from_numpy(pixels(base64.b64decode(given["sprite"].split(",")[1])))


def test_png_of_a_figure_closes_it():
    from matplotlib import pyplot

    figure = pyplot.figure()
    assert pixels(page.png(figure)).ndim == 3
    assert not pyplot.fignum_exists(figure.number)
    assert len(page.png(pyplot.figure(), colours=16)) > 0


# Choices

@pytest.mark.parametrize("name, value, said", [
    ("t", "543", "t = 543"), ("update", "1800", "update 1,800"), ("steps", "1", "1 step"),
    ("steps", "16", "16 steps"), ("training step", "24", "training step 24"),
    ("guidance w", "0.25", "guidance w = 0.25"), ("setting", "1 : 2", "1 : 2"),
    ("training", "75%", "75%"), ("sampler", "DDIM", "DDIM"), ("fresh noise", "0.5", "fresh noise 0.5")])
def test_values_are_read_out_as_one_says_them(name, value, said):
    assert choices.readout(name, value) == said



def test_captions_keep_only_the_axes_that_they_depend_on():
    axes = choices.named({"a": [1, 2], "b": "xyz", "c": [0]})
    whole = choices.captions(axes, lambda a, b, c: f"{a}{b}")
    assert whole == {"axes": [2, 3, 1], "texts": ["1x", "1y", "1z", "2x", "2y", "2z"]}
    assert choices.captions(axes, lambda b, **at: b) == {"axes": [1, 3, 1], "texts": list("xyz")}
    assert choices.captions(axes, lambda **at: "") == {"axes": [1, 1, 1], "texts": [""]}
    assert choices.captions(axes, None) == {"axes": [1, 1, 1], "texts": [""]}


def test_axes_without_sense_are_refused():
    for axes, message in (({}, "at least one axis"), ({"t": []}, "there are none"),
                          ({"t": [1, "1"]}, "'1' is there twice")):
        with pytest.raises(ValueError, match=message):
            choices.named(axes)


# Frames with axes

def test_pick_by_name(stack):
    assert torch.equal(frames.pick(stack, AXES, steps=16, sampler="DDPM"), stack[1, :, 2])


@pytest.mark.parametrize("values", [{"steps": 2}, {"model": "teacher"}])
def test_pick_names_what_there_is(stack, values):
    with pytest.raises(ValueError, match="There is no .* steps in 1, 4, 16, 400"):
        frames.pick(stack, AXES, **values)


def test_a_sheet_puts_frames_where_they_belong(stack):
    sheet = frames.sheet(stack[0], gap=1)
    assert sheet.shape == (3 * 8 + 2, 4 * 6 + 3) and sheet.dtype == torch.uint8
    assert torch.equal(sheet[9:17, 14:20], stack[0, 1, 2]) and (sheet[8] == 255).all()
    colour = torch.randint(256, (2, 3, 4, 4, 3), dtype=torch.uint8)
    sheet = frames.sheet(colour, gap=0)
    assert sheet.shape == (8, 12, 3) and torch.equal(sheet[4:8, 8:12], colour[1, 2])
    assert torch.equal(frames.sheet(colour[:1, :1], gap=2), colour[0, 0])


def test_images_become_frames():
    grey = torch.tensor([0, 100, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert frames.of_images(grey).tolist() == [[[255, 155, 0]]]
    colour = torch.randint(256, (5, 3, 4, 6), dtype=torch.uint8)
    assert torch.equal(frames.of_images(colour), colour.permute(0, 2, 3, 1))


# The player

def key(bundle) -> str:
    return re.search(r'<div id="(dmd-[0-9a-f]{12})"', bundle.html)[1]


def test_a_players_id_follows_its_content(stack):
    one, other = stack.clone(), stack.clone()
    other[0, 0, 0, 0, 0] ^= 128
    again = key(frames.player(stack, AXES))
    assert key(frames.player(one, AXES)) == again
    others = [frames.player(other, AXES), frames.player(one, AXES, title="another"),
              frames.player(one, AXES, start={"digit": "1"})]
    assert len({again, *map(key, others)}) == 4


def test_a_player_is_self_contained(stack):
    html = frames.player(stack, AXES, title="all in one").html
    assert not re.search(r"https?:|//[a-z]+\.|@import|<link|import\(", html)
    sources = re.findall(r'src="([^"]*)"', html)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert 'type: "range"' in html and "ROOT" not in re.sub(r"base64,[^\"]*", "", html)


def test_a_player_bundles_html_picture_and_text(stack):
    bundle = frames.player(stack, AXES, title="a title")
    types = bundle._repr_mimebundle_()
    assert set(types) == {"text/html", "text/plain"}
    assert types["text/plain"] == repr(bundle) == (
        "a title: sampler DDIM DDPM, digit 0 1 2, steps 1 4 16 400")
    assert pixels(bundle.png).std() > 0


@pytest.mark.parametrize("title", ['</script><b onclick="x">', "<!--<script>", "a & b < c"])
def test_a_player_survives_hostile_text(stack, title):
    bundle = frames.player(stack, AXES, title=title, caption=lambda **at: title)
    assert bundle.html.count("</script>") == 1 and bundle.html.count("<script>") == 1
    assert "<!--" not in bundle.html and 'onclick="x"' not in bundle.html.split("<script>")[0]
    assert spec(bundle)["title"] == spec(bundle)["captions"]["texts"][0] == title


@pytest.mark.parametrize("rows", [None, "sampler", "digit", "steps"])
def test_a_contact_sheet_of_every_axis(stack, rows):
    assert pixels(frames.player(stack, AXES, rows=rows).png).std() > 0


@pytest.mark.parametrize("shape, n, shown", [((28, 28), 10, 10), ((57, 144), 13, 5),
                                             ((64, 800), 9, 2), ((8, 8), 1, 1)])
def test_a_contact_sheet_is_as_wide_as_a_page(shape, n, shown):
    axes = {"digit": ["a", "b"], "steps": [str(i) for i in range(n)]}
    figure = frames.contact_sheet(torch.zeros(2, n, *shape, dtype=torch.uint8), axes, "digit")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == shown and labels[0] == "0" and labels[-1] == str(n - 1)
    assert figure.get_size_inches()[0] <= 9.5 or shown == 2


def test_a_player_over_colour_and_a_single_axis():
    stack = torch.zeros(30, 4, 4, 3, dtype=torch.uint8)
    assert frames.player(stack, {"training step": [str(i) for i in range(30)]}).html


@pytest.mark.parametrize("height, width, panels, wanted", [
    (28, 28, 1, 252 / 28), (28, 28, 2, (340 / 2 - 8) / 28), (28, 28, 3, 252 / 28),
    (57, 144, 1, 252 / 57), (57, 144, 2, (848 / 2 - 8) / 144), (400, 1000, 1, 252 / 400),
    (28, 289, 1, 848 / 289), (28, 289, 3, 848 / 289)])
def test_a_picture_is_as_large_as_there_is_room(height, width, panels, wanted):
    """Not a whole number of times, which was once for ten digits side by side."""
    stack = torch.zeros(panels, 2, height, width, dtype=torch.uint8)
    bundle = frames.player(stack, {"model": list(range(panels)), "steps": [1, 2]},
                           panels="model" if panels > 1 else None)
    assert spec(bundle)["scale"] == pytest.approx(wanted, abs=1e-3)


def test_ten_digits_are_80_pixels_wide_where_they_fit():
    for shape, panels in (((57, 144), 1), ((57, 144), 2), ((28, 289), 1), ((28, 289), 3)):
        stack = torch.zeros(panels, 2, *shape, dtype=torch.uint8)
        bundle = frames.player(stack, {"model": list(range(panels)), "steps": [1, 2]},
                               panels="model")
        assert 28 * spec(bundle)["scale"] >= 80, (shape, panels)


def test_grey_pictures_keep_some_shades_and_white_and_black(stack):
    found, given = sprite_of(spec(frames.player(stack, AXES))), frames.sheet(stack.flatten(0, 1), 0)
    assert (found.int() - given.int()).abs().max() <= 255 / (frames.GREYS - 1) / 2 + 1
    assert len(found.unique()) <= frames.GREYS
    for value in (0, 255):
        flat = torch.full_like(stack, value)
        assert (sprite_of(spec(frames.player(flat, AXES))) == value).all()


def figure_of(width: float = 2.0):
    figure = Figure((width, 1), dpi=50)
    figure.subplots().plot([0, width])
    return figure


def test_figures_are_played_as_large_as_they_are():
    bundle = frames.of_figures([figure_of() for _ in range(3)], "update", [0, 5, 1800], "A title")
    one = spec(bundle)
    assert (one["width"], one["height"], one["scale"], one["at"]) == (100, 50, 1, [2])
    assert sprite_of(one).shape[:2] == (50, 300) and one["kind"] == "figure"
    assert one["readouts"] == [["update 0", "update 5", "update 1,800"]]
    start = frames.of_figures([figure_of() for _ in range(2)], "t", [0, 5], start=0)
    assert spec(start)["at"] == [0]


@pytest.mark.parametrize("widths, values", [((2, 3), [0, 1]), ((2,), [0, 1]), ((), [])])
def test_there_is_a_figure_of_one_size_for_each_value(widths, values):
    with pytest.raises(ValueError, match="one figure for each|must be at least one"):
        frames.of_figures([figure_of(width) for width in widths], "t", values)


@pytest.mark.parametrize("change, message", [
    (dict(notes={"a": "b"}), "There is no panel 'a' to note something under; there are none"),
    (dict(frames=torch.zeros(2, 3, 4, 8, 6)), "frames must be uint8"),
    (dict(frames=torch.zeros(2, 3, 8, 6, dtype=torch.uint8)), "frames must be uint8 of shape"),
    (dict(axes={}), "frames must be uint8"),
    (dict(axes=AXES | {"digit": ["0", "1", "1"]}), "values of 'digit' must .* all different"),
    (dict(start={"digit": "7"}), "There is no digit = 7"),
    (dict(start={"model": "7"}), "There is no model = 7"),
    (dict(panels="model"), "There is no axis 'model'"),
    (dict(rows="model"), "There is no axis 'model'")])
def test_a_player_says_what_does_not_fit(stack, change, message):
    with pytest.raises(ValueError, match=message):
        frames.player(**{"frames": stack, "axes": AXES} | change)


def test_frames_of_photographs_become_few_colours_that_a_file_keeps_exactly():
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(256, (2, 3, 20, 30, 3), generator=generator, dtype=torch.uint8)
    few = frames.in_few_colours(photos, 40)
    assert few.shape == photos.shape and len(few.reshape(-1, 3).unique(dim=0)) <= 40
    assert (few.float() - photos.float()).abs().mean() < 40
    file = page.encode(few[0, 0])
    kept = Image.open(io.BytesIO(file))
    assert kept.mode == "P" and np.array_equal(np.array(kept.convert("RGB")), few[0, 0].numpy())
    assert Image.open(io.BytesIO(page.encode(photos[0, 0]))).mode == "RGB"
