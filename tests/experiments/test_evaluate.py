"""How samples are drawn and measured: what is refused, kept, scored and put onto cards."""
import functools
import json
import multiprocessing
import os
from dataclasses import replace

import pytest
import torch
from conftest import refused
from toys import (DIGITS, DOTS, TEACHER, digit_scorer, digits, dot_network, dots, folder, tiny,
                  trained)

from dmdkit import data, files, metrics, noise, sample, store
from dmdkit.experiments import evaluate
from dmdkit.experiments.evaluate import Sampling, draw
from dmdkit.experiments.results import REAL
from dmdkit.methods import classifier
from dmdkit.tasks.mnist import MNIST, spaces

DDIM = Sampling("ddim", 4)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# A sampling

@pytest.mark.parametrize("options, sentence", [
    ({"sampler": "dimm"}, "'dimm' is none of the samplers ddim, ddpm, heun, euler, "),
    ({"guidance": float("nan")}, "guidance must be a number, 0 or more; got nan."),
    ({"guidance": float("inf")}, "guidance must be a number, 0 or more; got inf."),
    ({"guidance": -0.1}, "guidance must be a number, 0 or more; got -0.1."),
    ({"s_noise": 0.9}, "noise of ancestral sampling, ddpm; ddim has none of that kind"),
    ({"s_tmax": 0.9}, "noise of ancestral sampling, ddpm; ddim has none of that kind"),
    ({"sampler": "ddpm", "s_noise": -1.0}, "s_noise must be 0 or more"),
    ({"sampler": "ddpm", "s_noise": float("nan")}, "s_noise must be 0 or more"),
    ({"sampler": "ddpm", "s_tmax": 0.5}, "s_tmax says where s_noise acts; without s_noise it has"),
    ({"interval": (0.3, 0.9)}, "interval says where to guide; unguided, it has")])
def test_a_sampling_refuses_what_would_be_ignored_or_is_none(options, sentence):
    with refused(ValueError, sentence):
        Sampling(**{"sampler": "ddim", "n_steps": 4} | options)


@pytest.mark.parametrize("options, sentence", [
    ({"guidance": 1.0, "interval": (0.9, 0.1)}, "0 ≤ low < high ≤ 1; got 0.9 and 0.1"),
    ({"guide": "nobody", "guide_weight": 1.0}, "There is no artefact 'nobody'"),
    ({"guide": "classifier", "guide_weight": 1.0}, "guide must be a Denoiser"),
    ({"guide": "teacher"}, "A guide and its weight go together"),
    ({"guide_weight": 1.0}, "A guide and its weight go together"),
    ({"guide": "teacher", "guide_weight": float("nan")}, "A guide and its weight go together")])
def test_a_guidance_that_cannot_be_is_refused_before_any_work(options, sentence):
    with refused(ValueError, sentence):
        Sampling("ddim", 4, **options).guided(store.load("teacher"))


def test_a_sampling_says_all_that_it_is():
    best = Sampling("ddpm", 400, 0.17, (0.3, 0.9), "teacher-weak", 0.5, False, 0.8, 0.5)
    assert best.entry == {
        "sampler": "ddpm", "n_steps": 400, "guidance": 0.17,
        "more": "away 0.5 from teacher-weak, guided at t/T 0.3–0.9, not clamped, "
                "noise 0.8 at t/T < 0.5"}
    assert Sampling("ddim", 4, clip=True).entry["more"] == "clamped"
    assert DDIM.entry == {"sampler": "ddim", "n_steps": 4, "guidance": 0.0}


def test_every_setting_of_a_sampling_changes_what_is_drawn(monkeypatch):
    net, guide = tiny(), tiny(1)
    monkeypatch.setattr(store, "load", lambda name, device, root: guide)
    z, label = 3 * torch.randn(4, 1, 28, 28), torch.arange(4)

    def drawn(**options):
        how = Sampling(**{"sampler": "ddpm", "n_steps": 4, "guidance": 1.0} | options)
        return how.samples(net, z, label, noise.generator("selection"))

    base = drawn()
    assert torch.equal(drawn(), base)
    for change in ({"sampler": "ddim"}, {"n_steps": 5}, {"guidance": 0.0}, {"guidance": 0.5},
                   {"interval": (0.5, 1.0)}, {"guide": "other", "guide_weight": 1.0},
                   {"clip": False}, {"s_noise": 0.5}, {"s_noise": 0.5, "s_tmax": 0.6}):
        assert not torch.equal(drawn(**change), base), change
    assert not torch.equal(drawn(guide="other", guide_weight=1.0),
                           drawn(guide="other", guide_weight=2.0))


@pytest.mark.parametrize("how", [
    Sampling("ddim", 4), Sampling("heun", 4), Sampling("ddpm", 3, 0.5), Sampling("heun", 3, 0.5),
    Sampling("multistep", 2), Sampling("euler", 4), Sampling("ddim", 4, 0.5, guide="other",
                                                            guide_weight=1.0)])
def test_the_network_evaluations_that_are_announced_are_those_of_a_sample(how, monkeypatch):
    net, guide = tiny(), tiny(1)
    monkeypatch.setattr(store, "load", lambda name, device, root: guide)
    monkeypatch.setattr(store, "find", lambda name, *roots: roots[0])
    rows = 0

    def count(module, given, out) -> None:
        nonlocal rows
        rows += len(given[0])

    for one in (net.net, guide.net):
        one.register_forward_hook(count)
    how.samples(net, torch.randn(3, 1, 28, 28), torch.arange(3))
    assert rows == 3 * how.evaluations


# Drawing

def test_samples_are_those_of_each_batchs_own_noise_with_balanced_labels():
    net = tiny()
    x, label = draw(net, DDIM, 260, "selection", seed=3)
    assert x.shape == (260, 1, 28, 28) and label.tolist() == [i % 10 for i in range(260)]
    for number, size in ((0, 250), (1, 10)):
        g = noise.generator("selection", 3, number)
        z = torch.randn(size, 1, 28, 28, generator=g)
        its = (250 * number + torch.arange(size)) % 10
        wanted = sample.last(sample.ddim(net, z, 4, its)).clamp(-1, 1)
        torch.testing.assert_close(x[250 * number:][:size], wanted)


def test_points_are_drawn_without_labels_and_not_clamped():
    net = dot_network()
    with torch.no_grad():
        list(net.parameters())[-1].add_(5.0)
    x, label = draw(net, DDIM, 6)
    assert label is None and x.shape == (6, 2) and x.abs().max() > 1


def test_finished_batches_are_taken_from_where_they_were_kept(here, monkeypatch):
    net, how = tiny(), Sampling("ddim", 2)
    first, _ = draw(net, how, 260, keep=here / "kept")
    assert len(list((here / "kept").iterdir())) == 2
    asked = []
    honest = Sampling.states
    monkeypatch.setattr(Sampling, "states", lambda *args: asked.append(args) or honest(*args))
    again, _ = draw(net, how, 260, keep=here / "kept")
    assert asked == [] and torch.equal(first, again)
    for other in ({"seed": 1}, {"purpose": "report"}):
        found, _ = draw(net, how, 10, keep=here / "kept", **other)
        assert asked and not torch.equal(found, first[:10])
        asked.clear()
    for other in (replace(how, guidance=0.1234567), replace(how, guidance=0.1234568),
                  replace(how, clip=True), replace(how, n_steps=3)):
        draw(net, other, 10, keep=here / "kept")
        assert asked, other
        asked.clear()


def test_a_batch_that_a_guide_led_is_not_taken_for_another_guides(here, monkeypatch):
    guides = {"a": tiny(1), "b": tiny(2)}
    now = "a"
    monkeypatch.setattr(store, "find", lambda name, *roots: roots[0])
    monkeypatch.setattr(store, "checksum", lambda name, *roots: now)
    monkeypatch.setattr(store, "load", lambda name, device, root: guides[now])
    how = Sampling("ddim", 2, guide="weak", guide_weight=1.0)
    first, _ = draw(tiny(), how, 4, keep=here / "kept")
    now = "b"  # it was trained again
    second, _ = draw(tiny(), how, 4, keep=here / "kept")
    assert not torch.equal(first, second)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused_and_not_kept(here, value):
    """Infinity too, which clamping would turn into white."""
    net = tiny()
    with torch.no_grad():
        net.net.conv_out.bias.fill_(value)
    with refused(FloatingPointError, "The samples of ddim are not finite: check the guidance and"):
        draw(net, Sampling("ddim", 1), 4, keep=here / "kept")
    assert list((here / "kept").iterdir()) == []


def test_a_folder_for_batches_that_cannot_be_written_is_refused_before_the_first(here, monkeypatch):
    (here / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(Sampling, "states", lambda *args: pytest.fail("it drew"))
    with refused(RuntimeError, "Could not write .*Not a directory"):
        draw(tiny(), DDIM, 4, keep=here / "file" / "kept")


def test_a_damaged_batch_is_named(here):
    draw(tiny(), Sampling("ddim", 1), 4, keep=here / "kept")
    path, = (here / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with refused(RuntimeError, f"{path.name} is damaged"):
        draw(tiny(), Sampling("ddim", 1), 4, keep=here / "kept")


# Measuring

def test_the_real_data_baseline_is_drawn_from_the_training_set():
    """As many of each class, other ones for another seed, and none of the test images."""
    x, label = evaluate.real_samples(DIGITS, 100, "report", 2)
    train, test = (as_bytes(data.scale(digits(part).pixels)) for part in (True, False))
    assert as_bytes(x) <= train and not as_bytes(x) & test
    assert torch.bincount(label).tolist() == [10] * 10
    assert len(torch.unique(x, dim=0)) == 100
    other, _ = evaluate.real_samples(DIGITS, 100, "report", 3)
    assert not torch.equal(other, x)
    points, none = evaluate.real_samples(DOTS, 10)
    assert none is None and as_bytes(points) <= as_bytes(dots(True).x)


def as_bytes(samples: torch.Tensor) -> set[bytes]:
    return {one.numpy().tobytes() for one in samples}


@functools.cache
def measured() -> tuple[list[dict], torch.Tensor]:
    """The entries of a network with random weights, and its samples."""
    how = Sampling("ddim", 2, 0.5)
    store.save(tiny(), folder() / "any", {"name": "any"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "RUNS", folder())
        found = list(evaluate.evaluate("any", DIGITS, (how,), n=100, seeds=(1,), root=folder()))
    return found, draw(tiny(), how, 100, "report", 1)


def test_an_evaluation_is_of_real_data_and_of_each_sampling():
    (baseline, one), (x, label) = measured()
    assert baseline["sampling"] == {"sampler": REAL}
    assert one["sampling"] == {"sampler": "ddim", "n_steps": 2, "guidance": 0.5}
    for entry, images, its in ((baseline, *evaluate.real_samples(DIGITS, 100, "report", 1)),
                               (one, x, label)):
        assert (entry["noise"], entry["seed"], entry["images"]) == ("report", 1, 100)
        wanted = digit_scorer()(images, its)
        assert list(entry["values"]) == ["classifier", "judge"]
        for space, values in wanted.items():
            assert entry["values"][space] == {k: round(v, 5) for k, v in values.items()}
    assert baseline["values"]["judge"]["accuracy"] > 0.95
    assert json.loads(json.dumps(one)) == one


def test_each_space_has_its_own_features_and_the_second_names_the_digits():
    """Coverage and precision of the one space are not the other's."""
    (_, one), (x, label) = measured()
    real = data.scale(digits(False).pixels)
    first, second = store.load("classifier"), store.load("judge")
    for name, net in (("classifier", first), ("judge", second)):
        with torch.no_grad():
            features = net.features(real), net.features(x)
        wanted = metrics.precision_recall_density_coverage(*features)
        wanted["frechet_distance"] = metrics.frechet_distance(*features)
        for metric, value in wanted.items():
            assert one["values"][name][metric] == pytest.approx(value, abs=1e-4), (name, metric)
    with torch.no_grad():
        right = (second(x).argmax(1) == label).float().mean().item()
    assert one["values"]["judge"]["accuracy"] == pytest.approx(right, abs=1e-4)
    assert "accuracy" not in one["values"]["classifier"]
    assert spaces()["classifier"].head is None


def test_mnists_samples_are_scored_against_the_test_images(monkeypatch):
    few = data.mnist(train=False).take(slice(300))
    asked = []
    monkeypatch.setattr(data, "mnist", lambda train=True: asked.append(train) or few)
    scorer = MNIST.scorer()
    assert asked == [False] and all(len(features) == 300 for features in scorer.real.values())


@pytest.mark.parametrize("n", [15, 0, -10, 100_000])
def test_a_count_that_cannot_be_balanced_is_refused_before_any_work(here, monkeypatch, n):
    monkeypatch.setattr(store, "load", lambda name, device, root: tiny())
    task = replace(DIGITS, make_scorer=lambda: pytest.fail("it scored"))
    with refused(ValueError, "n must be a (multiple of 10|whole number of at least 1)"):
        list(evaluate.evaluate("any", task, (DDIM,), n=n))
    assert list(here.iterdir()) == []


def test_a_read_only_folder_is_refused_before_anything_is_measured(here, monkeypatch):
    (here / "runs").write_text("in the way", encoding="utf-8")
    task = replace(DOTS, make_scorer=lambda: pytest.fail("it scored"))
    with refused(RuntimeError, "Could not write runs.*choose a folder that you may write to"):
        list(evaluate.evaluate("dots-teacher", task, (DDIM,), n=6, root=trained()))


def test_steps_and_guidance_that_cannot_be_are_refused_before_any_work(here):
    with refused(ValueError, "n_steps must be a whole number of at least 1; got 0"):
        Sampling("ddim", 0)
    task = replace(DOTS, make_scorer=lambda: pytest.fail("it scored"))
    with refused(ValueError, "n_steps must be a whole number from 1 to 64.*got 65"):
        list(evaluate.evaluate("dots-teacher", task, (Sampling("ddim", 65),), n=6,
                               root=trained()))
    with refused(ValueError, "There are no classes to guide by: leave guidance at 0; got 1"):
        list(evaluate.evaluate("dots-teacher", task, (DDIM, Sampling("ddim", 4, 1.0)), n=6,
                               root=trained()))


def test_a_classifier_is_measured_on_the_test_images(monkeypatch):
    found, = evaluate.evaluate("judge", DIGITS, (), n=100)
    with torch.no_grad():
        x, label = DIGITS.data(False).batch(torch.arange(256))
        right = (store.load("judge")(x).argmax(1) == label).float().mean().item()
    assert found == {"sampling": {"sampler": REAL}, "noise": "report", "seed": 0, "images": 256,
                     "values": {"test": {"accuracy": round(right, 5)}}}
    card = store.card("judge")["results"]
    assert [{**one, "images": 256, "values": {}} for one in card] == [{**found, "values": {}}]


# Onto the card

def entry(seed: int) -> dict:
    return {"sampling": {"sampler": "ddim", "n_steps": 4, "guidance": 0.0}, "noise": "selection",
            "seed": seed, "images": 6, "values": {"plane": {"frechet_distance": float(seed)}}}


@pytest.fixture
def root(here):
    store.save(dot_network(), here / "one", {"name": "one", "what": "", "recipe": TEACHER.settings})
    return here


def test_an_entry_goes_onto_the_card_and_all_else_stays(root):
    before = store.card("one", root)
    evaluate.save("one", entry(0), root)
    evaluate.save("one", entry(1), root)
    evaluate.save("one", entry(0) | {"values": {"plane": {"frechet_distance": 9.0}}}, root)
    card = store.card("one", root)
    assert [one["seed"] for one in card["results"]] == [1, 0]
    assert card["results"][1]["values"]["plane"]["frechet_distance"] == 9.0
    del card["results"]
    assert card == before


def save_all(root, seeds) -> None:
    for seed in seeds:
        evaluate.save("one", entry(seed), root)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_evaluations_at_the_same_time_all_land_on_the_card(root):
    forked = multiprocessing.get_context("fork")
    workers = [forked.Process(target=save_all, args=(root, range(k, 40, 4))) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(one["seed"] for one in store.card("one", root)["results"]) == list(range(40))
    assert files.read_json(root / "one" / "card.json")["name"] == "one"


def test_a_classifiers_settings_are_of_its_own():
    assert classifier.Settings("judge", 0.1).requires == {}


@pytest.mark.parametrize("change, sentence", [
    ({"n_steps": 0}, "n_steps must be a whole number of at least 1; got 0"),
    ({"n_steps": 2.5}, "n_steps must be a whole number"),
    ({"guide_weight": 1.0}, "A guide and its weight go together"),
    ({"guide": "teacher-weak"}, "A guide and its weight go together"),
    ({"guide": "teacher-weak", "guide_weight": float("nan")}, "A guide and its weight go together"),
    ({"guidance": 1.0, "interval": (0.5, 0.2)}, "0 ≤ low < high ≤ 1; got 0.5 and 0.2"),
    ({"guidance": 1.0, "interval": (0.5,)}, "interval must be two shares of T")])
def test_a_sampling_that_cannot_be_is_refused_where_it_is_made(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**({"sampler": "ddim", "n_steps": 4} | change))
