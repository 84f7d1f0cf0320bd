"""What players have in common, the player of frames, and live sliders."""
import itertools
import json
import re

import numpy as np
import pytest
import torch
from figures import pixels

from dmdkit.show.players import choices, frames, live, page

AXES = {"sampler": ["DDIM", "DDPM"], "digit": ["0", "1", "2"], "steps": ["1", "4", "16", "400"]}


@pytest.fixture
def stack():
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 4, 8, 6), dtype=torch.uint8, generator=g)


def spec(bundle) -> dict:
    """What a player's script is given."""
    return json.loads(re.search(r"const spec = (\{.*\});$", bundle.html, re.M)[1])


# Live sliders

def test_frames_slider_shows_the_frame_of_each_value(stack):
    files = [page.encode(frame) for frame in stack[0, 0]]
    box = live.frames_slider(files, [1, 4, 16, 400], "steps")
    assert bytes(box.image.value) == files[0] and box.slider.continuous_update
    for value, file in zip([400, 1, 16, 4], [files[3], files[0], files[2], files[1]]):
        box.slider.value = value
        assert bytes(box.image.value) == file


@pytest.mark.parametrize("n, values", [(1, [1, 2]), (1, []), (0, [])])
def test_frames_slider_wants_one_frame_a_value(n, values):
    with pytest.raises(ValueError, match=f"at least one; got {n} frames and {len(values)} values"):
        live.frames_slider([b"one"] * n, values, "steps")


@pytest.mark.parametrize("values", [[0, 1, 1], [0, 1, 1.0]])
def test_a_value_that_is_there_twice_is_refused(values):
    """The second one's frame would never be shown."""
    with pytest.raises(ValueError, match="The values of 'steps' must .* all different; 1.* twice"):
        live.frames_slider([b"a", b"b", b"c"], values, "steps")


def test_live_sliders_repaint_for_every_combination(stack):
    drawn = []

    def draw(**values):
        drawn.append(values)
        return page.encode(frames.pick(stack, AXES, **values))

    box = live.sliders(draw, AXES, start={"steps": "400"})
    assert box.slider is box.controls["steps"]
    assert drawn == [{"sampler": "DDIM", "digit": "0", "steps": "400"}]
    for corner in itertools.product(*AXES.values()):
        for name, value in zip(AXES, corner):
            box.controls[name].value = value
        where = tuple(values.index(value) for values, value in zip(AXES.values(), corner))
        assert np.array_equal(pixels(box.image.value), stack[where].numpy()), corner


def test_what_goes_wrong_in_drawing_is_shown_and_raised():
    def draw(n):
        if n == 2:
            raise RuntimeError("no <such> picture")
        return b"picture %d" % n

    box = live.sliders(draw, {"n": [1, 2, 3]})
    with pytest.raises(RuntimeError, match="no <such> picture"):
        box.slider.value = 2
    assert "At n = 2, drawing failed: RuntimeError: no &lt;such&gt; picture" in box.message.value
    assert box.image.layout.display == "none" and box.message in box.children
    box.slider.value = 3
    assert box.message.value == "" and box.image.layout.display is None
    assert bytes(box.image.value) == b"picture 3"


@pytest.mark.parametrize("options, start, message", [
    ({"n": [1, 1]}, None, "values of 'n' must .* all different"),
    ({"n": []}, None, "values of 'n' must be at least one"),
    ({"n": [1, 2]}, {"n": 3}, "There is no n = 3; there is n in 1, 2"),
    ({"n": [1, 2]}, {"m": 1}, "There is no m = 1; there is n in 1, 2")])
def test_live_sliders_say_what_does_not_fit(options, start, message):
    with pytest.raises(ValueError, match=message):
        live.sliders(lambda **at: b"", options, start)


def test_a_start_may_be_told_as_text():
    box = live.sliders(lambda n, t: b"", {"n": [1, 2], "t": [10, 20]}, {"n": "2", "t": 20})
    assert {name: control.value for name, control in box.controls.items()} == {"n": 2, "t": 20}


def test_png_of_a_figure_closes_it():
    from matplotlib import pyplot

    figure = pyplot.figure()
    assert pixels(page.png(figure)).ndim == 3
    assert not pyplot.fignum_exists(figure.number)
    assert len(page.png(pyplot.figure(), colours=16)) > 0


# Choices

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
    other[0, 0, 0, 0, 0] += 1
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
    assert set(types) == {"text/html", "image/png", "text/plain"}
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
    assert pixels(frames.player(stack, AXES, rows=rows).png).ndim == 3


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
    (28, 28, 1, 252 / 28), (28, 28, 2, 340 / 2 / 28), (28, 28, 3, 720 / 3 / 28),
    (57, 144, 1, 252 / 57), (57, 144, 2, 720 / 2 / 144), (400, 1000, 1, 252 / 400)])
def test_a_picture_is_as_large_as_there_is_room(height, width, panels, wanted):
    """Not a whole number of times, which was once for ten digits side by side."""
    stack = torch.zeros(panels, 2, height, width, dtype=torch.uint8)
    bundle = frames.player(stack, {"model": list(range(panels)), "steps": [1, 2]},
                           panels="model" if panels > 1 else None)
    assert spec(bundle)["scale"] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("change, message", [
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
