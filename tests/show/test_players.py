"""Sliders, the HTML player, and the explorer's pictures that ship."""
import io
import itertools
import re
import statistics
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dmdkit import data, explorer, nets, sample, schedule, store, widgets
from dmdkit.denoiser import Denoiser

AXES = {"sampler": ["DDIM", "DDPM"], "digit": ["0", "1", "2"], "steps": ["1", "4", "16", "400"]}


@pytest.fixture
def frames():
    return torch.randint(256, (2, 3, 4, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pixels(png) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(bytes(png))))


def median_ms(box, values) -> float:
    seconds = []
    for value in values:
        begun = time.perf_counter()
        box.slider.value = value
        seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds)


# Live sliders.

def test_frames_slider_shows_the_frame_of_each_value(frames):
    files = [widgets.encode(frame) for frame in frames[0, 0]]
    box = widgets.frames_slider(files, [1, 4, 16, 400], "steps")
    assert bytes(box.image.value) == files[0] and box.slider.continuous_update
    for value, file in zip([400, 1, 16, 4], [files[3], files[0], files[2], files[1]]):
        box.slider.value = value
        assert bytes(box.image.value) == file


@pytest.mark.parametrize("values", [[1, 2], []])
def test_frames_slider_wants_one_frame_a_value(values):
    with pytest.raises(ValueError, match=rf"one frame a value; got 1 frames and {len(values)} values"):
        widgets.frames_slider([b"one"], values, "steps")


def test_live_repaints_for_every_combination(frames):
    drawn = []

    def draw(**values):
        drawn.append(values)
        return widgets.encode(widgets.pick(frames, AXES, **values))

    box = widgets.live(draw, AXES, start={"steps": "400"})
    assert box.slider is box.controls["steps"] and drawn == [{"sampler": "DDIM", "digit": "0", "steps": "400"}]
    for corner in itertools.product(*AXES.values()):
        for name, value in zip(AXES, corner):
            box.controls[name].value = value
        where = tuple(values.index(value) for values, value in zip(AXES.values(), corner))
        assert np.array_equal(pixels(box.image.value), frames[where].numpy()), corner


def test_png_of_a_figure_closes_it():
    from matplotlib import pyplot

    figure = pyplot.figure()
    assert pixels(widgets.png(figure)).ndim == 3
    assert not pyplot.fignum_exists(figure.number)


# Frames with axes.

def test_pick_by_name(frames):
    assert torch.equal(widgets.pick(frames, AXES, steps=16, sampler="DDPM"), frames[1, :, 2])


@pytest.mark.parametrize("values", [{"steps": 2}, {"model": "teacher"}])
def test_pick_names_what_there_is(frames, values):
    with pytest.raises(ValueError, match="There is no .* steps in 1, 4, 16, 400"):
        widgets.pick(frames, AXES, **values)


def test_grid_puts_frames_where_they_belong(frames):
    sheet = widgets.grid(frames[0], gap=1)
    assert sheet.shape == (3 * 8 + 2, 4 * 6 + 3)
    assert torch.equal(sheet[9:17, 14:20], frames[0, 1, 2]) and (sheet[8] == 255).all()
    colour = torch.zeros(2, 3, 4, 4, 3, dtype=torch.uint8)
    assert widgets.grid(colour, gap=0).shape == (8, 12, 3)


# The player.

def key(bundle) -> str:
    return re.search(r'<div id="(dmd-[0-9a-f]{12})"', bundle.html)[1]


def test_player_id_follows_the_content(frames):
    one, other = frames.clone(), frames.clone()
    other[0, 0, 0, 0, 0] += 1
    again = key(widgets.player(frames, AXES))
    assert key(widgets.player(one, AXES)) == again
    assert len({again, key(widgets.player(other, AXES)), key(widgets.player(one, AXES, title="another")),
                key(widgets.player(one, AXES, start={"digit": "1"}))}) == 4


def test_player_is_self_contained(frames):
    html = widgets.player(frames, AXES, title="all in one").html
    assert not re.search(r"https?:|//[a-z]+\.|@import|<link|import\(", html)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', html))
    assert 'type: "range"' in html and "ROOT" not in re.sub(r"base64,[^\"]*", "", html)


def test_player_bundles_html_picture_and_text(frames):
    bundle = widgets.player(frames, AXES, title="a title")
    bundle_types = bundle._repr_mimebundle_()
    assert set(bundle_types) == {"text/html", "image/png", "text/plain"}
    assert bundle_types["text/plain"] == repr(bundle) == (
        "a title: sampler DDIM DDPM, digit 0 1 2, steps 1 4 16 400")
    assert pixels(bundle.png).std() > 0


def test_player_survives_hostile_text(frames):
    html = widgets.player(frames, AXES, title='</script><b onclick="x">', captions=["</script>"] * 4).html
    assert html.count("</script>") == 1 and 'onclick="x"' not in html.split("<script>")[0]


@pytest.mark.parametrize("rows", [None, "sampler", "digit", "steps"])
def test_contact_sheet_of_every_axis(frames, rows):
    assert pixels(widgets.player(frames, AXES, rows=rows).png).ndim == 3


def test_player_over_colour_and_a_single_axis():
    frames = torch.zeros(30, 4, 4, 3, dtype=torch.uint8)
    assert widgets.player(frames, {"training step": [str(i) for i in range(30)]}).html


@pytest.mark.parametrize("change, message", [
    (dict(frames=torch.zeros(2, 3, 4, 8, 6)), "frames must be uint8"),
    (dict(frames=torch.zeros(2, 3, 8, 6, dtype=torch.uint8)), "frames must be uint8 of shape"),
    (dict(axes={}), "frames must be uint8"),
    (dict(start={"digit": "7"}), "There is no digit = 7"),
    (dict(panels="model"), "There is no axis 'model'"),
    (dict(rows="model"), "There is no axis 'model'"),
    (dict(captions=["one"]), "captions must be one a position of steps: 4; got 1")])
def test_player_says_what_does_not_fit(frames, change, message):
    with pytest.raises(ValueError, match=message):
        widgets.player(**{"frames": frames, "axes": AXES} | change)


# The explorer.

SMALL = dict(steps=(1, 3), guidances=(0.0, 1.0))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder of artefacts: an untrained teacher, a student of one step, and their pictures."""
    root = tmp_path_factory.mktemp("shelf")
    torch.manual_seed(0)
    for name in ("teacher", "student"):
        denoiser = Denoiser(nets.unet("tiny"), schedule.cosine(), "v", patch=4)
        store.save(denoiser.eval(), root / name, {"name": name, "what": "untrained"})
    explorer.build("teacher", root, **SMALL)
    explorer.build("student", root, samplers=("DDIM",), guidances=(0.0,), steps=(1,))
    return root


def test_explorer_loads_what_it_built(shelf):
    frames, axes = explorer.load(["teacher"], shelf)
    assert axes == {"model": ["teacher"], "sampler": ["DDIM", "DDPM"], "digit": [str(i) for i in range(10)],
                    "guidance": ["0", "1"], "steps": ["1", "3"]}
    assert torch.equal(255 - frames[0], explorer.compute(store.load("teacher", root=shelf), **SMALL))


def test_explorer_card_fits_its_picture(shelf):
    card = explorer.card("teacher", shelf)
    assert card["model_sha256"] == store.card("teacher", shelf)["sha256"]
    rows, columns = 2 * 10 * 2, 2
    assert Image.open(shelf / "explorer" / "teacher.png").size == (columns * 28, rows * 28)


def test_samplers_agree_at_one_step_and_part_later(shelf):
    frames, axes = explorer.load(["teacher"], shelf)
    ddim, ddpm = (widgets.pick(frames, axes, sampler=name) for name in axes["sampler"])
    assert torch.equal(ddim[..., 0, :, :], ddpm[..., 0, :, :])
    assert not torch.equal(ddim[..., 1, :, :], ddpm[..., 1, :, :])


def test_explorer_shows_a_one_step_student_beside_its_teacher(shelf):
    frames, axes = explorer.load(["teacher", "student"], shelf)
    assert axes["model"] == ["teacher", "student (1 step)"] and frames.shape == (2, 2, 10, 2, 2, 28, 28)
    assert (frames[1] == frames[1][:1, :, :1, :1]).all()
    for panels in (None, "model"):
        assert explorer.show(["teacher", "student"], shelf, panels, digit=7).html


def test_explorer_names_what_is_wrong(shelf):
    with pytest.raises(ValueError, match="no pictures of 'nobody' .* it has student, teacher"):
        explorer.load(["nobody"], shelf)
    with pytest.raises(ValueError, match="'teacher' has other values of sampler, guidance, steps than 'student'"):
        explorer.load(["student", "teacher"], shelf)
    with pytest.raises(ValueError, match="There is no artefact 'nobody'"):
        explorer.build("nobody", shelf)


def test_explorer_names_a_damaged_file(shelf, tmp_path):
    import shutil

    shutil.copytree(shelf / "explorer", tmp_path / "explorer")
    path = tmp_path / "explorer" / "teacher.png"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(RuntimeError, match=r"teacher\.png is damaged: its SHA-256 should be [0-9a-f]{64} and is"):
        explorer.load(["teacher"], tmp_path)


# What ships.

@pytest.fixture(scope="module")
def shipped():
    return explorer.load(["teacher"])


def test_shipped_pictures_are_of_the_shipped_teacher(shipped):
    frames, axes = shipped
    assert explorer.card("teacher")["model_sha256"] == store.card("teacher")["sha256"], (
        "the teacher has changed since: run python -m dmdkit explorer teacher")
    assert tuple(map(len, axes.values())) == frames.shape[:-2] and frames.shape[-2:] == (28, 28)
    assert axes["steps"] == [str(n) for n in explorer.STEPS] and axes["digit"] == [str(i) for i in range(10)]


@pytest.mark.parametrize("sampler, guidance, n", [("DDIM", 0.0, 4), ("DDPM", 0.5, 2)])
def test_shipped_teacher_draws_the_shipped_pictures(shipped, sampler, guidance, n):
    frames, axes = shipped
    kept = 255 - widgets.pick(frames, axes, model="teacher", sampler=sampler, guidance=f"{guidance:g}", steps=n)
    drawn = explorer.cell(store.load("teacher"), sampler, guidance, n, explorer.card("teacher")["seed"])
    # other machines, threads and versions round differently, so not to the bit
    assert (kept.float() - drawn.float()).abs().mean() < 2


def test_every_corner_of_the_live_slider_is_drawn_in_time(shipped):
    frames, axes = shipped
    options = {name: axes[name] for name in ("sampler", "guidance", "steps")}
    box = widgets.live(lambda **values: explorer.draw(frames, axes, **values), options)
    pictures = set()
    for sampler, guidance in itertools.product(axes["sampler"], axes["guidance"]):
        box.controls["sampler"].value, box.controls["guidance"].value = sampler, guidance
        assert median_ms(box, axes["steps"]) < 50
        pictures |= {explorer.draw(frames, axes, sampler=sampler, guidance=guidance, steps=n) for n in axes["steps"]}
    # all differ, but that at one step both samplers agree
    assert len(pictures) == len(axes["guidance"]) * (2 * len(axes["steps"]) - 1)


# What lesson 00 says of these pictures.

def difference(a, b) -> float:
    return (a.float() - b.float()).abs().mean().item()


def test_ddim_settles_as_the_steps_grow(shipped):
    frames, axes = shipped
    last = widgets.pick(frames, axes, sampler="DDIM", steps=400)
    to_last = [difference(widgets.pick(frames, axes, sampler="DDIM", steps=n), last) for n in (1, 4, 32, 256)]
    assert to_last == sorted(to_last, reverse=True)


def test_one_step_gives_the_mean_of_the_class_whatever_the_noise():
    teacher, train = store.load("teacher"), data.mnist()
    label, z = torch.arange(10).repeat(3), torch.randn(30, 1, 28, 28)
    mean = torch.stack([data.scale(train.pixels[train.labels == digit]).mean(0) for digit in range(10)])
    one = teacher.generate(z, label).unflatten(0, (3, 10))
    many = sample.last(sample.ddim(teacher, z, 16, label)).clamp(-1, 1).unflatten(0, (3, 10))
    apart = difference(many[0], many[1])  # two digits of a class
    for seed in range(3):
        assert difference(one[seed], mean) < apart / 2
        assert difference(one[seed], one[seed - 1]) < apart / 2
