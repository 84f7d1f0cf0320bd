"""Artefacts: what is saved is what is loaded, by us and by plain diffusers; damage is named; and what ships is good."""
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from conftest import refused, tiny_denoiser
from diffusers import DDIMScheduler, UNet2DModel
from safetensors import SafetensorError

from dmdkit import data, files, metrics, nets, recipes, sample, schedule, store
from dmdkit.denoiser import Denoiser
from dmdkit.evaluation import Sampling

WEIGHTS = "diffusion_pytorch_model.safetensors"
SHIPPED = store.names()


def tensors(folder: Path) -> dict:
    return safetensors.torch.load_file(folder / WEIGHTS)


# Round trips

def test_a_denoiser_comes_back_as_it_was(tiny, tmp_path):
    store.save(tiny, tmp_path / "one", {"what": "a test"})
    back, x_t, label = store.load("one", root=tmp_path), torch.randn(2, 1, 28, 28), torch.tensor([1, 10])
    assert isinstance(back, Denoiser) and not back.training
    assert (back.prediction, back.patch, back.n_classes) == (tiny.prediction, tiny.patch, tiny.n_classes)
    assert torch.equal(back.schedule.alpha, tiny.schedule.alpha)
    with torch.no_grad():
        torch.testing.assert_close(back(x_t, 700, label).x, tiny(x_t, 700, label).x, rtol=1e-5, atol=1e-5)
    assert {"config.json", "scheduler_config.json", "denoiser.json", "card.json", WEIGHTS} == \
           {path.name for path in (tmp_path / "one").iterdir()}


def smallest() -> Denoiser:
    """The least that can be called a U-Net, for 8 × 8 images: hundreds of steps are quick."""
    torch.manual_seed(1)
    net = UNet2DModel(sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8,), layers_per_block=1,
                      down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
                      add_attention=False, num_class_embeds=11)
    return Denoiser(net, schedule.cosine(), "v", patch=2).eval()


@pytest.mark.parametrize("made, n", [(tiny_denoiser, 16), *((smallest, 2**k) for k in range(10))])
def test_what_is_saved_samples_the_same_images_in_plain_diffusers(made, n, tmp_path):
    denoiser = made()
    store.save(denoiser, tmp_path / "one", {})
    net, scheduler = (kind.from_pretrained(tmp_path / "one") for kind in (UNet2DModel, DDIMScheduler))
    z, label = torch.randn(2, *denoiser.sample_shape), torch.tensor([3, 8])
    # what a reader of the card would write: patches of pixels enter as channels
    patch = z.shape[-1] // net.config.sample_size
    x = F.pixel_unshuffle(z, patch)
    scheduler.set_timesteps(n)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t, class_labels=label).sample, t, x).prev_sample
    ours = sample.last(sample.ddim(store.load("one", root=tmp_path), z, n, label))
    torch.testing.assert_close(F.pixel_shuffle(x, patch), ours, rtol=1e-4, atol=1e-4)


def test_half_precision_halves_the_file_and_loads_as_float32(tiny, tmp_path):
    store.save(tiny, tmp_path / "full", {})
    store.save(tiny, tmp_path / "half", {}, half=True)
    size = {name: (tmp_path / name / WEIGHTS).stat().st_size for name in ("full", "half")}
    assert size["half"] < 0.6 * size["full"]
    assert all(t.dtype == torch.float16 for t in tensors(tmp_path / "half").values())
    back = store.load("half", root=tmp_path).net.state_dict()
    for name, weight in tiny.net.state_dict().items():
        assert weight.dtype == back[name].dtype == torch.float32  # saving did not halve the network at hand
        assert torch.equal(back[name], weight.half().float())


@pytest.mark.parametrize("kind", [nets.DigitClassifier, nets.JudgeClassifier])
def test_a_classifier_comes_back_as_it_was(kind, tmp_path):
    net = kind()
    net(torch.randn(8, 1, 28, 28))  # batch norm has statistics of its own
    store.save(net, tmp_path / "one", {})
    back, x = store.load("one", root=tmp_path), torch.randn(4, 1, 28, 28)
    assert isinstance(back, kind) and not back.training
    with torch.no_grad():
        torch.testing.assert_close(back(x), net.eval()(x), rtol=1e-5, atol=1e-5)


def test_what_was_loaded_is_saved_again_without_the_folder_that_it_came_from(tiny, tmp_path):
    store.save(tiny, tmp_path / "one", {})
    loaded = store.load("one", root=tmp_path)
    for name, net in (("two", loaded), ("three", loaded.copy())):
        store.save(net, tmp_path / name, {})
        assert (tmp_path / name / "config.json").read_text() == (tmp_path / "one" / "config.json").read_text()


def test_the_checksum_on_the_card_is_that_of_the_weights_by_another_tool(tiny, tmp_path):
    store.save(tiny, tmp_path / "one", {"what": "a test", "α": "ü"})
    card = store.card("one", tmp_path)
    assert card["what"] == "a test" and card["α"] == "ü"
    code = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "one" / WEIGHTS], capture_output=True, text=True)
    assert card["sha256"] == found.stdout.strip()


def test_names_are_folders_with_a_card(tiny, tmp_path):
    assert store.names(tmp_path) == []
    (tmp_path / "empty").mkdir()
    for name in ("b", "a"):
        store.save(tiny, tmp_path / name, {})
    assert store.names(tmp_path) == ["a", "b"]


def test_a_cards_entries_can_be_replaced(tiny, tmp_path):
    store.save(tiny, tmp_path / "one", {"what": "a test", "metrics": {}})
    before = store.card("one", tmp_path)
    store.update_card("one", {"metrics": {"floor": 1}}, tmp_path)
    assert store.card("one", tmp_path) == before | {"metrics": {"floor": 1}}
    store.load("one", root=tmp_path)


# Damage and bad input

def test_an_unknown_artefact_is_refused_with_the_names_that_there_are(tiny, tmp_path):
    for function in (store.load, store.card):
        with pytest.raises(ValueError, match=r"There is no artefact 'two' in .*; there are none yet\."):
            function("two", root=tmp_path)
    store.save(tiny, tmp_path / "one", {})
    for name in ("two", "../one", "", "ONE"):
        with pytest.raises(ValueError, match=rf"There is no artefact '{name}' in .*; there are one\."):
            store.load(name, root=tmp_path)


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1], lambda raw: raw[:len(raw) // 2], lambda raw: b"",
                                   lambda raw: raw[:-50] + bytes([raw[-50] ^ 1]) + raw[-49:],
                                   lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:]],
                         ids=["cut by a byte", "cut in half", "empty", "a bit of a weight", "a bit of the header"])
def test_damaged_weights_are_named_with_both_checksums(tiny, tmp_path, spoil):
    store.save(tiny, tmp_path / "one", {})
    path = tmp_path / "one" / WEIGHTS
    expected = files.sha256(path)
    path.write_bytes(spoil(path.read_bytes()))
    sentence = f"{path} is damaged: its SHA-256 should be {expected} and is {files.sha256(path)}. Restore it with"
    with pytest.raises(RuntimeError, match=sentence) as caught:
        store.load("one", root=tmp_path)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(RuntimeError, match=f"should be {expected} and is missing"):
        store.load("one", root=tmp_path)


def test_a_network_that_diffusers_could_not_sample_is_refused_and_leaves_nothing(tmp_path):
    both = Denoiser(nets.unet("tiny", outputs=2), schedule.cosine(), "both", patch=4)
    with refused(ValueError, "diffusers samples networks that predict v, eps, x, not 'both'"):
        store.save(both, tmp_path / "one", {})
    assert not list(tmp_path.iterdir())


def test_an_unknown_network_preset_is_refused():
    with pytest.raises(ValueError, match="Unknown network preset 'huge'; there are .*mnist.*tiny"):
        nets.unet("huge")


def test_a_folder_that_cannot_be_written_is_one_sentence(tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RuntimeError, match="Could not write .*one: Not a directory. Free some space or choose a"):
        store.save(tiny, tmp_path / "file" / "one", {})


def raising(error, at_call: int, function):
    """``function`` until its at_call-th call, which raises."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(args)
        if len(calls) == at_call:
            raise error
        return function(*args, **kwargs)

    return wrapped


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("where, at_call, error, raised", [
    ((UNet2DModel, "save_pretrained"), 1, FULL, RuntimeError),
    ((UNet2DModel, "save_pretrained"), 1, SafetensorError("I/O error: No space left on device"), RuntimeError),
    ((Path, "write_text"), 1, FULL, RuntimeError),
    ((Path, "write_text"), 2, FULL, RuntimeError),
    ((os, "replace"), 1, FULL, RuntimeError),
    ((os, "replace"), 2, FULL, RuntimeError),
    ((os, "replace"), 2, KeyboardInterrupt(), KeyboardInterrupt),
], ids=lambda value: "")
def test_a_failed_overwrite_leaves_the_artefact_before_it(tiny, tmp_path, monkeypatch, where, at_call, error, raised):
    store.save(tiny, tmp_path / "one", {"what": "the first"})
    before = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(*where, raising(error, at_call, getattr(*where)))
        with pytest.raises(raised, match="No space left on device" if raised is RuntimeError else None):
            store.save(tiny, tmp_path / "one", {"what": "the second"})
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == before
    store.save(tiny, tmp_path / "one", {"what": "the third"})
    assert store.card("one", tmp_path)["what"] == "the third" and store.names(tmp_path) == ["one"]


# What ships

def test_what_the_lessons_need_ships():
    assert {"classifier", "judge", "teacher"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_artefact_loads_and_its_card_is_complete(name):
    net, card = store.load(name), store.card(name)  # load compares the checksum
    assert card["name"] == name and card["what"]
    for key in ("recipe", "seed", "versions", "device", "wall_time_s", "metrics", "parameters", "sha256"):
        assert card.get(key) not in (None, {}, ""), f"the card of {name} lacks {key!r}"
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert "_name_or_path" not in json.loads((data.ROOT / name / "config.json").read_text())  # a trainer's folder
    assert {"torch", "diffusers", "dmdkit"} <= set(card["versions"]) and card["wall_time_s"] > 0
    if isinstance(net, Denoiser):
        floor = next((scores for key, scores in card["metrics"].items() if key.startswith("floor")), {})
        for key, scores in card["metrics"].items():
            assert scores["images"] > 0 and set(floor) <= set(scores), f"{name}: {key} lacks a metric or its count"
        assert {"frechet_distance", "accuracy", "coverage"} <= set(floor), f"the card of {name} lacks its floor"
        assert len(card["metrics"]) > 1


@pytest.mark.skipif("classifier" not in SHIPPED, reason="no classifier ships yet")
@pytest.mark.parametrize("name", [name for name in SHIPPED if name in ("classifier", "judge")])
def test_a_shipped_classifier_is_right_on_993_of_1000_test_digits(name, test_images):
    right = metrics.in_batches(store.load(name), data.scale(test_images.pixels)).argmax(1) == test_images.labels
    accuracy = right.double().mean().item()
    assert accuracy >= 0.993
    assert accuracy == pytest.approx(store.card(name)["metrics"]["test"]["accuracy"], abs=2e-4)


@pytest.mark.skipif(not {"teacher", "judge"} <= set(SHIPPED), reason="no teacher and judge ship yet")
def test_the_shipped_teacher_draws_the_digits_that_it_is_asked_for():
    label = torch.arange(200) % 10
    z = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    x = sample.last(sample.ddim(store.load("teacher"), z, 16, label, guidance=0.3)).clamp(-1, 1)  # as on its card
    with torch.no_grad():
        right = store.load("judge")(x).argmax(1) == label
    assert right.double().mean() >= 0.97


def test_what_is_said_of_the_teacher_at_its_best_is_on_its_card():
    """5,000 images of 400 ancestral steps against as many real ones, and 16 DDIM steps."""
    measured = store.card("teacher")["metrics"]
    best, plain, few_plain = (measured[key] for key in (recipes.BEST.key, "ddpm-400-w0.25", "ddim-16-w0.25"))
    led, few = (measured[Sampling(*how, **recipes.AUTOGUIDANCE).key] for how in (("ddpm", 400), ("ddim", 16)))
    floors = [measured[f"floor{suffix}"] for suffix in ("", "-seed1", "-seed2", "-seed3")]
    other = measured[dataclasses.replace(recipes.BEST, n_steps=64).key + "-seed2"]  # noise that chose nothing
    assert {row["images"] for row in (best, few, other, *floors)} == {5000}
    assert best["distance_over_floor"] <= 1.5 and best["accuracy"] >= 0.99 and best["coverage_over_floor"] >= 0.97
    assert 1.5 < led["distance_over_floor"] < 1.54 and 0.96 < led["coverage_over_floor"] < 0.97
    assert led["accuracy"] >= 0.99 and max(led["accuracy"], best["accuracy"]) < plain["accuracy"]
    assert best["frechet_distance"] < led["frechet_distance"] < plain["frechet_distance"]
    assert best["coverage"] > led["coverage"] > plain["coverage"]
    assert min(best["frechet_distance_judge"], led["frechet_distance_judge"]) > plain["frechet_distance_judge"]
    means = {name: sum(floor[name] for floor in floors) / 4 for name in ("frechet_distance", "coverage")}
    assert floors[0]["frechet_distance"] == max(floor["frechet_distance"] for floor in floors)  # the easiest floor
    assert floors[0]["coverage"] == min(floor["coverage"] for floor in floors)
    assert 1.46 < best["frechet_distance"] / means["frechet_distance"] < 1.48
    assert 0.965 < best["coverage"] / means["coverage"] < 0.97
    assert 1.5 < other["distance_over_floor"] < 1.6 and 0.96 < other["coverage_over_floor"] < 0.97
    assert 0.985 < other["accuracy"] < 0.99 and abs(other["coverage"] - best["coverage"]) < 0.001
    assert few["frechet_distance"] <= 1.5 * best["frechet_distance"]
    assert few_plain["frechet_distance"] <= 1.5 * plain["frechet_distance"]
    assert best["frechet_distance"] < few["frechet_distance"] < few_plain["frechet_distance"]
