"""The step explorer of lesson 00: its pictures, as they are built and as they ship, and its
player."""

import pytest
import torch
from test_players import spec, sprite_of

from dmdkit import data, nets, sample, schedule, store
from dmdkit.denoiser import Denoiser
from dmdkit.experiments import explorer
from dmdkit.show.players import explorer as shown
from dmdkit.show.players import frames

SMALL = {"steps": (1, 3), "guidances": (0.0, 1.0)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder of artefacts: an untrained teacher, a student of one step, and their pictures."""
    root = tmp_path_factory.mktemp("shelf")
    torch.manual_seed(0)
    for name in ("teacher", "student"):
        net = nets.unet((1, 28, 28), (16,), patch=4, n_classes=10)
        denoiser = Denoiser(net, schedule.cosine(), "v", 4, 10)
        store.save(denoiser.eval(), root / name, {"name": name, "what": "untrained"})
    explorer.build("teacher", root, **SMALL)
    explorer.build("student", root, samplers=("DDIM",), guidances=(0.0,), steps=(1,))
    return root


def test_samplers_agree_at_one_step_and_part_later(shelf):
    stack, axes = explorer.load(["teacher"], shelf)
    ddim, ddpm = (frames.pick(stack, axes, sampler=name) for name in axes["sampler"])
    assert torch.equal(ddim[..., 0, :, :], ddpm[..., 0, :, :])
    assert not torch.equal(ddim[..., 1, :, :], ddpm[..., 1, :, :])


def test_a_one_step_student_stands_beside_its_teacher(shelf):
    stack, axes = explorer.load(["teacher", "student"], shelf)
    assert axes["model"] == ["teacher", "student (1 step)"]
    assert stack.shape == (2, 2, 10, 2, 2, 28, 28)
    assert (stack[1] == stack[1][:1, :, :1, :1]).all()
    for panels in (None, "model"):
        found = spec(shown.player(stack, axes, panels, digit=7))
        assert found["title"] == "From one noise, at every number of steps"


# How often a network is called

@pytest.mark.parametrize("at, said", [
    ({"steps": "1", "guidance": "0"}, "1 network call a picture"),
    ({"steps": "400", "guidance": "0"}, "400 network calls a picture"),
    ({"steps": "400", "guidance": "0.5"}, "800 network calls a picture"),
    ({"steps": "400", "guidance": "0.5", "model": "teacher"}, "800 network calls a picture"),
    ({"steps": "400", "guidance": "0.5", "model": "mine (1 step)"}, "1 network call a picture")])
def test_guidance_doubles_the_calls_and_a_one_step_student_takes_one(at, said):
    assert shown.calls(**at, sampler="DDIM", digit="3") == said


def test_the_player_says_how_often_the_network_was_called(shelf):
    stack, axes = explorer.load(["teacher", "student"], shelf)
    alone = spec(shown.player(stack, axes))["captions"]
    assert alone["axes"] == [2, 1, 1, 2, 2]  # model, guidance and steps matter
    assert alone["texts"][3] == "6 network calls a picture" and len(set(alone["texts"][4:])) == 1
    beside = spec(shown.player(stack, axes, "model"))["captions"]
    assert beside["texts"][-1] == "6 network calls a picture; 1 where the name says 1 step"


# What ships

@pytest.fixture(scope="module")
def shipped():
    return explorer.load(["teacher"])


def test_shipped_pictures_are_of_the_shipped_teacher(shipped):
    stack, axes = shipped
    assert explorer.card("teacher")["model_sha256"] == store.checksum("teacher"), (
        "the teacher has changed since: run python -m dmdkit build explorer")
    assert tuple(map(len, axes.values())) == stack.shape[:-2] and stack.shape[-2:] == (28, 28)
    assert axes["steps"] == [str(n) for n in explorer.STEPS]
    assert axes["digit"] == [str(i) for i in range(10)]


@pytest.mark.parametrize("sampler, guidance, n", [("DDIM", 0.0, 4), ("DDPM", 0.5, 2)])
def test_the_shipped_teacher_draws_the_shipped_pictures(shipped, sampler, guidance, n):
    stack, axes = shipped
    kept = 255 - frames.pick(stack, axes, model="teacher", sampler=sampler,
                             guidance=f"{guidance:g}", steps=n)
    seed = explorer.card("teacher")["seed"]
    drawn = explorer.cell(store.load("teacher"), sampler, guidance, n, seed)
    # other machines, threads and versions round differently, so not to the bit
    assert (kept.float() - drawn.float()).abs().mean() < 2


def test_all_classes_stand_in_one_picture(shipped):
    stack, axes = shipped
    one = spec(shown.all_classes(stack, axes, guidance="0.5", title="All"))
    assert [name for name, *_ in one["axes"]] == ["sampler", "guidance", "steps"]
    assert (one["height"], one["width"]) == (2 * 28 + 1, 5 * 28 + 4)
    sprite = sprite_of(one).unflatten(0, (2, 4, 57)).unflatten(-1, (10, 144))
    seven = frames.pick(stack, axes, model="teacher", sampler="DDPM", digit="7", guidance="1",
                        steps="64")
    found = sprite[1, 2, 29:57, 6, 58:86]
    assert (found.int() - seven.int()).abs().max() <= 255 / (frames.GREYS - 1) / 2 + 1


# What lesson 00 says of these pictures

def difference(a, b) -> float:
    return (a.float() - b.float()).abs().mean().item()


def test_ddim_settles_as_the_steps_grow(shipped):
    stack, axes = shipped
    by_steps = {n: frames.pick(stack, axes, sampler="DDIM", steps=n) for n in (1, 4, 32, 256, 400)}
    to_last = [difference(by_steps[n], by_steps[400]) for n in (1, 4, 32, 256)]
    assert to_last == sorted(to_last, reverse=True)


def test_one_step_gives_the_mean_of_the_class_whatever_the_noise():
    teacher, train = store.load("teacher"), data.mnist()
    label, z = torch.arange(10).repeat(3), torch.randn(30, 1, 28, 28)
    means = [data.scale(train.pixels[train.labels == digit]).mean(0) for digit in range(10)]
    mean = torch.stack(means)
    one = teacher.generate(z, label).unflatten(0, (3, 10))
    many = sample.last(sample.ddim(teacher, z, 16, label)).clamp(-1, 1).unflatten(0, (3, 10))
    apart = difference(many[0], many[1])  # two digits of a class
    for seed in range(3):
        assert difference(one[seed], mean) < apart / 2
        assert difference(one[seed], one[seed - 1]) < apart / 2
