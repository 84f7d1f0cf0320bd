"""The settings of DMD2 on MNIST: what each trains, what is looked at, what its timing evaluates."""
import dataclasses
import json
from collections import Counter
from contextlib import ExitStack
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from conftest import refused
from diffusers import LCMScheduler, UNet2DModel
from test_dmd import generator

from dmdkit import __main__, data, dmd2, dmd2_mnist, dmd_mnist, evaluation, recipes, sample, schedule, store

S = schedule.cosine()
TINY = dmd2_mnist.Setting(guidance=0.5, batch_size=4, n_steps=2, lr=1e-3, fake_lr=1e-3, updates=(1, 2))
GAN = dict(generator_weight=0.05, critic_weight=0.15)


@pytest.mark.parametrize("options", [{}, GAN, GAN | dict(matching=False), GAN | dict(student_steps=2),
                                     GAN | dict(student_steps=2, step_aware=True),
                                     dict(student_steps=2, backward_simulation=False)], ids=str)
def test_a_setting_trains_and_is_looked_at(options, tiny, test_images, monkeypatch):
    monkeypatch.setattr(dmd2_mnist, "mnist", lambda: test_images)
    setting = dataclasses.replace(TINY, **options)
    before = [p.clone() for p in tiny.parameters()]
    *_, (_, run, values) = dmd_mnist.run(setting, seed=1, teacher=tiny)
    terms = ["matching"] * setting.matching + ["gan"] * ("critic_weight" in options)
    own = {"fake", "critic"} if "gan" in terms else {"fake"}
    assert set(values) == own | {f"{term}{end}" for term in terms for end in ("", " gradient")}
    assert {int(state["step"]) for state in run.learners["fake"].optimizer.state.values()} == {2 * 2}
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(tiny.parameters(), before))

    seen, critic = run.look(), run.learners["fake"].net
    assert isinstance(critic, dmd2.Critic) is ("gan" in terms)
    assert seen.critic.shape == (2, 200 if "gan" in terms else 0)
    g, label = generator(0), torch.arange(200) % 10
    z, _ = torch.randn(200, 1, 28, 28, generator=g), torch.randn(4, 1, 28, 28, generator=g)
    student = run.learners["generator"].net
    x = sample.last(sample.multistep(student, z, setting.student_steps, label, generator=generator(0))).clamp(-1, 1)
    torch.testing.assert_close(seen.brightness, x.mean((1, 2, 3)), rtol=1e-3, atol=1e-5)
    if "gan" in terms:
        t, real = torch.arange(200) * 1024 // 200, test_images.pixels[:200] / 127.5 - 1
        sides, eps = ((real, test_images.labels[:200]), (x, label)), torch.randn(x.shape, generator=g)
        last = 11 * setting.step_aware  # of two steps the second made what is looked at
        logits = [critic(S.noise(one, t, eps), t, its + last, judge=True) for one, its in sides]
        torch.testing.assert_close(seen.critic, 1 / (1 + torch.exp(-torch.stack(logits))), rtol=1e-3, atol=1e-4)


def test_a_setting_says_how_its_student_is_used_and_starts_its_fake_score_as_a_copy(tiny):
    assert TINY.sampling == evaluation.Sampling("multistep", 1)
    assert dataclasses.replace(TINY, student_steps=4).sampling == evaluation.Sampling("multistep", 4)
    made = dataclasses.replace(TINY, **GAN).prepare(Accelerator(cpu=True), tiny)
    teacher, fake = tiny.state_dict(), made.learners["fake"].net.state_dict()
    assert all(torch.equal(fake[name], weight) for name, weight in teacher.items()) and len(fake) > len(teacher)
    places = [{p.data_ptr() for p in net.parameters()} for net in (tiny, *(one.net for one in made.learners.values()))]
    assert len(set.union(*places)) == sum(map(len, places))


def test_a_training_that_started_from_another_student_is_not_resumed(tmp_path):
    run = {"teacher": "teacher", "teacher_sha256": "1", "start": "student-dmd", "start_sha256": "2"}
    (tmp_path / "recipe.json").write_text(json.dumps(run | {"start_sha256": "3"}))
    with refused(RuntimeError, "started from another student-dmd than the one that is there now"):
        recipes._claim(tmp_path, run, True, Accelerator(cpu=True))


def evaluated(run, work) -> Counter:
    """How many samples went through each network's middle and through its end, forwards and backwards, in ``work``."""
    rows = Counter()

    def watch(place, module, given, out):
        rows[place, "forward"] += len(out)
        if out.requires_grad:
            out.register_hook(lambda gradient: rows.update({(place, "backward"): len(gradient)}))

    networks = {name: one.net.net for name, one in run.learners.items()} | {"teacher": run.frozen[0].net}
    with ExitStack() as hooks:
        for name, net in networks.items():
            for part in ("mid_block", "conv_out"):
                hooks.enter_context(getattr(net, part).register_forward_hook(partial(watch, (name, part))))
        work()
    return rows


@pytest.mark.parametrize("options", [{}, GAN, GAN | dict(matching=False), GAN | dict(student_steps=2),
                                     dict(student_steps=2, backward_simulation=False)], ids=str)
def test_the_evaluations_that_are_timed_are_those_of_a_step(options, tiny, test_images, monkeypatch):
    monkeypatch.setattr(dmd2_mnist, "mnist", lambda: test_images)
    setting = dataclasses.replace(TINY, **options)
    run = setting.prepare(Accelerator(cpu=True), tiny)
    timed = evaluated(run, setting.evaluations(run))
    assert timed == evaluated(run, lambda: run.step(generator()))


def test_the_shipped_students_were_trained_as_their_recipe_says():
    for name, setting in (("student-dmd2-no-critic", dmd2_mnist.NO_CRITIC), ("student-dmd2", dmd2_mnist.FULL),
                          ("student-dmd2-4step-no-critic", dmd2_mnist.NO_CRITIC_4),
                          ("student-dmd2-4step", dmd2_mnist.FULL_4)):
        assert recipes.RECIPES[name].setting is setting and setting.n_pairs == 0
        settings = recipes.store.card(name)["recipe"]
        assert {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()} == \
            dataclasses.asdict(setting)


@pytest.mark.parametrize("name", dmd2_mnist.SETTINGS)
def test_each_run_of_the_lesson_differs_from_another_in_what_its_name_says(name):
    setting = dataclasses.asdict(dmd2_mnist.SETTINGS[name])
    base, changes = {
        "DMD": ("1 : 1", None), "1 : 1": ("1 : 2", {"updates"}), "1 : 2": ("1 : 5", {"updates"}),
        "1 : 5": ("1 : 10", {"updates"}), "1 : 10": ("1 : 1", {"updates"}),
        "with critic": ("1 : 5", {"generator_weight", "critic_weight"}), "critic alone": ("with critic", {"matching"}),
        "2 steps": ("1 : 5", {"student_steps", "step_aware"}), "4 steps": ("2 steps", {"student_steps"}),
        "4 steps, not told": ("4 steps", {"step_aware"}), "4 steps, real inputs": ("4 steps", {"backward_simulation"}),
        "1 : 1, 2,200": ("1 : 1", {"lr", "ema", "n_steps"}), "1 : 1, 1,000": ("1 : 1, 2,200", {"n_steps"}),
        "critic alone, 400": ("critic alone", {"lr", "ema", "n_steps"})}[name]
    other = dataclasses.asdict(dmd2_mnist.SETTINGS[base])
    differ = {key for key in setting if setting[key] != other[key]}
    assert differ == (changes or {"n_pairs", "regression_weight"})


def test_what_lesson_06_says_of_its_runs_is_on_their_card():
    """Every run of every setting, as many as were to be made, and the differences that the lesson speaks of."""
    card, runs = dmd2_mnist.card(), dmd2_mnist.load()
    assert set(runs) == {*dmd2_mnist.SETTINGS, "student-dmd2-no-critic", "student-dmd2"}
    assert list(card["figures"]) == list(dmd2_mnist.SETTINGS)
    distances = {name: figures["frechet_distance"] for name, figures in card["figures"].items()}
    assert {name: len(seeds) for name, seeds in distances.items()} == {
        name: dmd2_mnist.SEEDS.get(name, 1) for name in dmd2_mnist.SETTINGS}
    for name, setting in dmd2_mnist.SETTINGS.items():
        assert card["figures"][name]["setting"] == json.loads(json.dumps(dataclasses.asdict(setting)))
    assert min(distances["1 : 1"]) > 100 > max(distances["1 : 2"]) > max(distances["1 : 5"]) > max(distances["1 : 10"])
    assert max(distances["1 : 10"]) < min(distances["DMD"])
    assert max(distances["1 : 5"]) < min(distances["with critic"]) < 10 < min(distances["critic alone"])
    assert max(distances["4 steps"]) < min(distances["4 steps, real inputs"])
    assert distances["1 : 1, 1,000"][0] < 10 < 100 < min(*distances["1 : 1, 2,200"], *distances["critic alone, 400"])
    of = lambda name, how="multistep-1-w0": store.card(name)["metrics"][how]["frechet_distance"]
    assert of("student-dmd2") < of("teacher", "ddpm-400-w0.25") < of("student-dmd2-no-critic")
    assert of("student-dmd2") < 0.9 * of("teacher", "ddim-400-w0.25")
    assert of("student-dmd2-4step", "multistep-4-w0") < of("student-dmd2-4step-no-critic", "multistep-4-w0")


def test_the_shipped_student_of_four_steps_draws_the_same_by_diffusers():
    """Its folder alone, with diffusers' classes: the U-Net, and LCMScheduler from the scheduler's config in it."""
    folder, times = data.ROOT / "student-dmd2-4step", [1023, 767, 511, 255]
    net, scheduler = UNet2DModel.from_pretrained(folder).float(), LCMScheduler.from_pretrained(folder)
    scheduler.set_timesteps(timesteps=times, original_inference_steps=1024)
    assert scheduler.timesteps.tolist() == times
    z, label, g = torch.randn(2, 1, 28, 28), torch.tensor([3, 8]), generator(5)
    x = torch.nn.functional.pixel_unshuffle(z, 2)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t, class_labels=label).sample, t, x, generator=g).prev_sample
    g, student = generator(5), store.load("student-dmd2-4step")
    noise = [torch.nn.functional.pixel_shuffle(torch.randn(2, 4, 14, 14, generator=g), 2) for _ in times[1:]]
    x_t = z
    for t, after, eps in zip(times, [*times[1:], -1], [*noise, 0 * z]):  # theirs is drawn in the space of the network
        with torch.no_grad():
            x_t = S.noise(student(x_t, t, label).x, after, eps)
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(x, 2), x_t, rtol=1e-3, atol=1e-3)


def test_what_takes_one_step_refuses_or_knows_a_student_of_four(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["dmdkit", "explorer", "student-dmd2-4step"])
    assert __main__.main() == 1
    assert "student-dmd2-4step draws in 4, with fresh noise" in capsys.readouterr().err
    calls = []
    monkeypatch.setattr(evaluation.sample, "multistep", lambda net, z, n, *rest: calls.append(n) or iter(
        [sample.State(n, 255, z, z)]))
    recipes.speed("student-dmd2-4step", n_steps=2, n_images=2, repeats=1)
    assert set(calls) == {4}
