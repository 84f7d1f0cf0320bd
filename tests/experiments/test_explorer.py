"""The pictures behind lesson 00's sliders: what a cell is, and that a file is what it was."""
import functools
from pathlib import Path

import pytest
import torch
from conftest import refused
from toys import folder, tiny

from dmdkit import data, files, noise, sample, store
from dmdkit.experiments import explorer

AXES = {"samplers": ("DDIM", "DDPM"), "guidances": (0.0, 0.5), "steps": (1, 2)}
ONE_STEP = {"samplers": ("DDIM",), "guidances": (0.0,), "steps": (1,)}


@functools.cache
def built() -> Path:
    """A folder with two models and their pictures; the second draws in one step."""
    root = folder() / "pictured"
    for name, axes in (("many", AXES), ("one", ONE_STEP)):
        store.save(tiny(len(name)), root / name, {"name": name})
        explorer.build(name, root, **axes)
    return root


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the pictures."""
    (tmp_path / "explorer").mkdir()
    for path in (built() / "explorer").iterdir():
        (tmp_path / "explorer" / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_cell_is_what_the_sampler_draws_from_the_pictures_noise():
    """The noise on the way is the same in every cell, and another than that at the start."""
    net = tiny()
    z = torch.randn(10, 1, 28, 28, generator=noise.generator("pictures"))
    assert torch.equal(explorer.start(net), z)
    label = torch.arange(10)
    for name, sampler in (("DDIM", sample.ddim), ("DDPM", sample.ddpm)):
        for w, n_steps in ((0.0, 1), (1.0, 3)):
            states = sampler(net, z, n_steps, label, w, noise.generator("pictures", 0, 1))
            with torch.no_grad():
                wanted = data.to_uint8(sample.last(states)).squeeze(1)
            assert torch.equal(explorer.cell(net, name, w, n_steps), wanted), (name, w)
    assert not torch.equal(explorer.start(net, 1), z)


def test_pictures_lie_where_their_axes_say():
    frames, axes = explorer.load(("many",), built())
    assert axes == {"model": ["many"], "sampler": ["DDIM", "DDPM"],
                    "digit": [str(k) for k in range(10)], "guidance": ["0", "0.5"],
                    "steps": ["1", "2"]}
    assert frames.shape == (1, 2, 10, 2, 2, 28, 28) and frames.dtype == torch.uint8
    net = store.load("many", root=built())
    for i, sampler in enumerate(AXES["samplers"]):
        for j, w in enumerate(AXES["guidances"]):
            for k, n_steps in enumerate(AXES["steps"]):
                cell = explorer.cell(net, sampler, w, n_steps)
                assert torch.equal(255 - frames[0, i, :, j, k], cell), (sampler, w, n_steps)


def test_a_model_with_one_entry_shows_it_everywhere_and_its_name_says_so():
    frames, axes = explorer.load(("many", "one"), built())
    assert axes["model"] == ["many", "one (1 step)"] and frames.shape[0] == 2
    alone, _ = explorer.load(("one",), built())
    assert (frames[1] == alone[0]).all() and not torch.equal(frames[0], frames[1])


def test_a_card_says_what_the_pictures_are_of():
    card = explorer.card("many", built())
    assert card["model_sha256"] == store.checksum("many", built())
    assert card["sha256"] == files.sha256(built() / "explorer" / "many.png")
    assert (card["noise"], card["seed"], card["frame"]) == ("pictures", 0, [28, 28])


def test_models_whose_axes_do_not_fit_are_named(copy):
    card = files.read_json(copy / "explorer" / "one.json")
    card["axes"]["steps"] = ["3", "4"]
    files.write_json(copy / "explorer" / "one.json", card)
    with refused(ValueError, "'one' has other values of steps than 'many': build both alike."):
        explorer.load(("many", "one"), copy)


def test_a_model_without_pictures_is_named_with_those_that_have_some(copy):
    with refused(ValueError, "has no pictures of 'none' in .*; it has many, one. Compute them"):
        explorer.load(("none",), copy)
    with refused(ValueError, "it has none. Compute them: `python -m dmdkit build explorer`"):
        explorer.card("many", copy / "elsewhere")


def test_a_damaged_picture_is_named(copy):
    path = copy / "explorer" / "many.png"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with refused(RuntimeError, "many.png is damaged: its checksum is not the one on its card"):
        explorer.load(("many",), copy)
    path.unlink()
    with refused(RuntimeError, "many.png is missing"):
        explorer.load(("many",), copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"axes": {}}'])
def test_a_damaged_card_is_named(copy, content):
    (copy / "explorer" / "many.json").write_text(content, encoding="utf-8")
    with refused(RuntimeError, "many.json is damaged"):
        explorer.load(("many",), copy)


def test_what_ships_shows_three_models():
    frames, axes = explorer.load(explorer.SHOWN)
    assert axes["model"] == ["teacher", "student-dmd (1 step)", "student-dmd2 (1 step)"]
    assert frames.shape == (3, 2, 10, 4, 10, 28, 28)
    assert axes["steps"] == [str(n) for n in explorer.STEPS]
