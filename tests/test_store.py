"""Artefacts: what is saved is what is loaded, by us and by plain diffusers; and damage is named."""
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from conftest import refused

from dmdkit import data, files, metrics, nets, sample, schedule, store
from dmdkit.denoiser import Denoiser, Guided
from dmdkit.methods.discriminator import Discriminator

SHIPPED = [name for name in store.names() if store.has_weights(store.card(name))]


def smallest(table: schedule.Schedule | None = None, prediction: str = "v",
             n_classes: int = 10) -> Denoiser:
    """The least that can be called a U-Net, for 8 × 8 images: hundreds of steps are quick."""
    torch.manual_seed(1)
    outputs = 2 if prediction == "both" else 1
    net = nets.unet((1, 8, 8), (8,), patch=2, n_classes=n_classes, outputs=outputs)
    return Denoiser(net, table or schedule.cosine(), prediction, 2, n_classes).eval()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Round trips

def alpha_falls_as_it_likes() -> schedule.Schedule:
    return schedule.table("mine", [0.9, 0.5, 0.1], [0.2, 0.7, 1.3])


@pytest.mark.parametrize("table, prediction, n_classes", [
    (schedule.cosine(), "v", 10), (schedule.cosine(64), "x", 0),
    (schedule.linear(400, 1e-4, 0.05), "eps", 10), (schedule.clipped(256, 10.0), "eps", 0),
    (schedule.flow(128), "v", 10), (alpha_falls_as_it_likes(), "v", 3),
    (schedule.from_betas(torch.linspace(1e-3, 0.2, 50)), "eps", 10),
    (schedule.cosine(), "both", 10)],
    ids=lambda value: getattr(value, "name", str(value)))
def test_a_denoiser_comes_back_as_it_was(tmp_path, table, prediction, n_classes):
    one = smallest(table, prediction, n_classes)
    store.save(one, tmp_path / "one", {"what": "a test"})
    back = store.load("one", root=tmp_path)
    assert type(back) is Denoiser and not back.training
    assert (back.prediction, back.patch, back.n_classes) == (prediction, 2, n_classes)
    assert back.schedule.same(one.schedule) and back.schedule.name == one.schedule.name
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, table.T - 1])
    label = torch.tensor([1, 0, n_classes]) if n_classes else None
    with torch.no_grad():
        torch.testing.assert_close(back(x, t, label).x, one(x, t, label).x, rtol=1e-5, atol=1e-5)


def test_points_come_back_as_they_were(tmp_path):
    one = Denoiser(nets.PointMLP(width=8), schedule.flow(), "v", n_classes=0).eval()
    store.save(one, tmp_path / "one", {})
    back, x = store.load("one", root=tmp_path), torch.randn(5, 2)
    assert type(back.net) is nets.PointMLP
    assert "scheduler_config.json" not in content(tmp_path / "one")
    with torch.no_grad():
        torch.testing.assert_close(back(x, 7).x, one(x, 7).x)


@pytest.mark.parametrize("kind", ["SmoothClassifier", "PoolingClassifier"])
def test_a_classifier_comes_back_as_it_was(kind, tmp_path):
    net = nets.build(kind, in_channels=1, size=12)
    net(torch.randn(8, 1, 12, 12))  # batch norm has statistics of its own
    store.save(net, tmp_path / "one", {})
    back, x = store.load("one", root=tmp_path), torch.randn(4, 1, 12, 12)
    assert type(back) is type(net) and not back.training
    with torch.no_grad():
        torch.testing.assert_close(back(x), net.eval()(x), rtol=1e-5, atol=1e-5)


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path):
    one = smallest()
    store.save(one, tmp_path / "full", {})
    store.save(one, tmp_path / "half", {}, half=True)
    size = {name: (tmp_path / name / store.WEIGHTS).stat().st_size for name in ("full", "half")}
    assert size["half"] < 0.7 * size["full"]
    stored = safetensors.torch.load_file(tmp_path / "half" / store.WEIGHTS)
    assert all(weight.dtype == torch.float16 for weight in stored.values())
    back = store.load("half", root=tmp_path).net.state_dict()
    for name, weight in one.net.state_dict().items():
        assert weight.dtype == back[name].dtype == torch.float32  # the network at hand is as it was
        assert torch.equal(back[name], weight.half().float())


def test_what_was_loaded_is_saved_again_byte_for_byte(tmp_path):
    store.save(smallest(), tmp_path / "one", {"name": "one"})
    store.save(store.load("one", root=tmp_path), tmp_path / "two", {"name": "one"})
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    before = torch.get_rng_state()
    store.load("one", root=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_was_loaded_does_not_change_with_the_files(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    back = store.load("one", root=tmp_path).net
    before = {name: weight.clone() for name, weight in back.state_dict().items()}
    weights = tmp_path / "one" / store.WEIGHTS
    with open(weights, "r+b") as file:
        file.write(b"\0" * weights.stat().st_size)
    assert all(torch.equal(weight, before[name]) for name, weight in back.state_dict().items())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_everyone_may_read_an_artefact(tmp_path):
    before = os.umask(0o022)
    try:
        store.save(smallest(), tmp_path / "one", {})
    finally:
        os.umask(before)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "one").iterdir()} == {0o644}


# diffusers

def in_steps(net, scheduler, x: torch.Tensor, **labels) -> torch.Tensor:
    """Samples as a reader of the folder would draw them."""
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t.expand(len(x)), **labels).sample, t, x).prev_sample
    return x


def test_what_is_saved_samples_the_same_images_in_plain_diffusers(tmp_path):
    from diffusers import DDIMScheduler, UNet2DModel

    store.save(smallest(), tmp_path / "one", {})
    net = UNet2DModel.from_pretrained(tmp_path / "one")
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "one")
    scheduler.set_timesteps(16)
    z, label = torch.randn(2, 1, 8, 8), torch.tensor([3, 8])
    x = in_steps(net, scheduler, F.pixel_unshuffle(z, 2), class_labels=label)
    ours = sample.last(sample.ddim(store.load("one", root=tmp_path), z, 16, label))
    torch.testing.assert_close(F.pixel_shuffle(x, 2), ours, rtol=1e-4, atol=1e-4)


def points(table: schedule.Schedule, prediction: str) -> Denoiser:
    return Denoiser(nets.PointMLP(width=8), table, prediction, n_classes=0).eval()


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64, 256])
def test_ddim_of_diffusers_takes_our_steps_where_n_divides_T(tmp_path, n):
    from diffusers import DDIMScheduler

    one, z = points(schedule.cosine(), "v"), torch.randn(50, 2)
    store.save(one, tmp_path / "one", {})
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "one")
    scheduler.set_timesteps(n)
    ours = sample.last(sample.ddim(one, z, n))
    assert (in_steps(one.net, scheduler, z) - ours).square().mean().sqrt() < 1e-4


@pytest.mark.parametrize("prediction, n", [
    ("v", 1), ("v", 49), ("v", 50), ("v", 100), ("v", 400), ("x", 50), ("x", 333), ("eps", 50),
    ("eps", 400)])
def test_first_order_solver_of_diffusers_takes_our_steps_for_every_n(tmp_path, prediction, n):
    from diffusers import DPMSolverMultistepScheduler

    table = schedule.linear(1000) if prediction == "eps" else schedule.cosine()
    one, z = points(table, prediction), torch.randn(50, 2)
    store.save(one, tmp_path / "one", {})
    scheduler = DPMSolverMultistepScheduler.from_pretrained(tmp_path / "one", solver_order=1)
    scheduler.set_timesteps(timesteps=one.schedule.times(n))
    ours = sample.last(sample.ddim(one, z, n))
    assert (in_steps(one.net, scheduler, z) - ours).square().mean().sqrt() < 1e-3


def test_a_shipped_scheduler_is_the_one_that_would_be_written_today():
    net = store.load("teacher")
    written = json.loads(files.read_text(data.ROOT / "teacher" / "scheduler_config.json"))
    today = json.loads(store.scheduler(net.schedule, net.prediction).to_json_string())
    assert {**written, "_diffusers_version": 0} == {**today, "_diffusers_version": 0}


def test_what_diffusers_could_not_sample_has_no_scheduler(tmp_path):
    for name, one in (("both", smallest(prediction="both")), ("flow", smallest(schedule.flow()))):
        store.save(one, tmp_path / name, {})
        assert "scheduler_config.json" not in content(tmp_path / name)
    with refused(ValueError, "diffusers samples networks that predict v, eps, x, not 'both'"):
        store.scheduler(schedule.cosine(), "both")
    with refused(ValueError, "Only a variance-preserving schedule"):
        store.scheduler(schedule.flow(), "v")


# What is no artefact

def test_more_than_a_denoiser_is_refused_and_leaves_nothing(tmp_path):
    one, other = smallest(), smallest()
    for net in (Guided(one, guide=other, guide_weight=0.5), Discriminator(smallest())):
        with refused(TypeError, f"A {type(net).__name__} is more than the Denoiser that a folder"):
            store.save(net, tmp_path / "one", {})
    with refused(TypeError, "A folder holds one of UNet2DModel, .*; got Linear"):
        store.save(torch.nn.Linear(1, 1), tmp_path / "one", {})
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_refused_and_leave_nothing(tmp_path):
    for value, half in ((float("nan"), False), (float("inf"), True), (1e6, True)):
        one = smallest()
        with torch.no_grad():
            next(one.parameters()).fill_(value)
        with refused(ValueError, "conv_in.weight is not finite in torch.float"):
            store.save(one, tmp_path / "one", {}, half=half)
    assert not list(tmp_path.iterdir())


# Cards

def test_a_card_has_the_checksum_of_every_file_by_another_tool(tmp_path):
    store.save(smallest(), tmp_path / "one", {"what": "a test", "α": "ü"})
    card = store.card("one", tmp_path)
    assert card["what"] == "a test" and card["α"] == "ü"
    assert set(card["files"]) | {"card.json"} == set(content(tmp_path / "one"))
    code = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    for name, expected in card["files"].items():
        found = subprocess.run([sys.executable, "-c", code, tmp_path / "one" / name],
                               capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected
    assert card["sha256"] == card["files"][store.WEIGHTS] == store.checksum("one", tmp_path)


def test_a_change_of_a_card_keeps_all_else(tmp_path):
    store.save(smallest(), tmp_path / "one", {"what": "a test", "metrics": {"a": 1}})
    before = store.card("one", tmp_path)
    found = store.change_card("one", lambda card: card | {"metrics": {"c": 5}}, tmp_path)
    assert found == before | {"metrics": {"c": 5}} == store.card("one", tmp_path)
    store.load("one", root=tmp_path)
    with refused(ValueError, "There is no artefact 'two'"):
        store.change_card("two", dict, tmp_path)


def measure(root: Path, name: str) -> None:
    for i in range(15):
        new = {f"{name}-{i}": i}
        store.change_card("one", lambda card: card | {"metrics": card["metrics"] | new}, root)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
def test_two_evaluations_at_once_lose_nothing_of_each_other(tmp_path):
    store.save(smallest(), tmp_path / "one", {"metrics": {}})
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=measure, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    expected = {f"{name}-{i}": i for name in "ab" for i in range(15)}
    assert store.card("one", tmp_path)["metrics"] == expected


# Finding

def test_names_are_folders_with_a_card_and_nothing_half_written(tmp_path):
    assert store.names(tmp_path) == store.names(tmp_path / "none") == []
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("b", "a", ".a.old", ".b.host-1.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_bytes(b"damaged")  # stops no one from looking
    assert store.names(tmp_path) == ["a", "b"]


def test_the_first_folder_that_has_a_name_counts(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    store.save(smallest(), second / "one", {})
    assert store.find("one", first, second) == second == store.find("two", first, second)
    store.save(smallest(n_classes=3), first / "one", {})
    assert store.find("one", first, second) == first
    assert store.checksum("one", first, second) != store.checksum("one", second)
    assert store.checksum("teacher") == store.card("teacher")["sha256"]


def test_an_unknown_artefact_is_refused_with_the_names_that_there_are(tmp_path):
    for function in (store.load, store.card):
        with refused(ValueError, r"There is no artefact 'two' in .*; there are none yet\."):
            function("two", root=tmp_path)
    store.save(smallest(), tmp_path / "one", {})
    for name in ("two", "../one", "", "ONE"):
        with refused(ValueError, rf"There is no artefact '{name}' in .*; there are one\."):
            store.load(name, root=tmp_path)


def test_a_wrong_data_folder_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROOT", tmp_path / "none")
    for look in (store.names, store.card, store.load):
        with refused(RuntimeError, "none is no folder. Point the environment variable DMDKIT_DATA"):
            look(*["one"] * (look is not store.names), root=tmp_path / "none")


def test_a_look_at_cards_imports_neither_diffusers_nor_accelerate():
    code = ("import sys; from dmdkit import store; [store.card(name) for name in store.names()];"
            "heavy = {'diffusers', 'accelerate', 'torchvision', 'matplotlib'};"
            "assert not heavy & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


# Damage (every kind to every file: test_damage)

def test_damaged_weights_are_named_with_both_checksums(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    path = tmp_path / "one" / store.WEIGHTS
    expected = files.sha256(path)
    path.write_bytes(path.read_bytes()[:-1])
    found = files.sha256(path)
    sentence = f"^{path} is damaged: its SHA-256 should be {expected} and is {found}"
    with refused(RuntimeError, sentence):
        store.load("one", root=tmp_path)


def test_another_artefacts_files_are_no_substitute(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    store.save(smallest(schedule.linear(), "eps", 3), tmp_path / "two", {})
    for name in store.FILES - {"card.json"}:
        mine, other = (tmp_path / folder / name for folder in ("one", "two"))
        before = mine.read_bytes()
        mine.write_bytes(other.read_bytes())
        with refused(RuntimeError, f"^{mine} is damaged: its SHA-256 should be"):
            store.load("one", root=tmp_path)
        mine.write_bytes(before)


def test_files_that_the_card_does_not_list_are_not_read(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    before = store.load("one", root=tmp_path).state_dict()
    folder, name = tmp_path / "one", store.WEIGHTS
    other = {key.removeprefix("net."): torch.zeros(weight.shape) for key, weight in before.items()}
    safetensors.torch.save_file(other, folder / "shard.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(other, "shard.safetensors")}
    (folder / f"{name}.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"no pickle")
    after = store.load("one", root=tmp_path).state_dict()
    assert all(torch.equal(weight, before[key]) for key, weight in after.items())


def test_a_network_of_another_version_is_one_sentence(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    config = tmp_path / "one" / "config.json"
    config.write_text('{"_class_name": "DigitClassifier"}', encoding="utf-8")
    checksums = store.card("one", tmp_path)["files"] | {"config.json": files.sha256(config)}
    store.change_card("one", lambda card: card | {"files": checksums}, tmp_path)
    with refused(RuntimeError, "one was written by another version of dmdkit. .*'DigitClassifier'"):
        store.load("one", root=tmp_path)


# What ships

@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_artefact_loads_and_its_card_says_what_it_is(name):
    net, card = store.load(name), store.card(name)  # load compares the checksums
    assert card["name"] == name and card["what"]
    for key in ("recipe", "versions", "device", "wall_time_s", "parameters"):
        assert card.get(key) not in (None, {}, ""), f"the card of {name} lacks {key!r}"
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert set(card["files"]) | {"card.json"} == set(content(data.ROOT / name))
    config = json.loads(files.read_text(data.ROOT / name / "config.json"))
    assert "_name_or_path" not in config  # a folder of the trainer's
    assert {"torch", "diffusers", "dmdkit"} <= set(card["versions"]) and card["wall_time_s"] > 0


def test_of_a_few_only_the_card_ships():
    """Stages of the chain but the one that lesson 05 halves, the faces' chain, the first halves of
    trainings, students that are only measured, a teacher to lead another away from, and one that
    shows what a GPU gives."""
    cards = sorted(set(store.names()) - set(SHIPPED))
    stages = [f"progressive-{n}" for n in (1, 128, 16, 256, 32, 4, 512, 64, 8)]
    faces = [f"progressive-faces-{n}" for n in (1, 16, 2, 32, 4, 8)]
    students = ["student-cifar10-control", "student-cifar10-dmd", "student-faces-dmd",
                *(f"student-dmd2-{part}" for part in ("4step-no-critic", "control", "no-critic")),
                "student-regression"]
    assert cards == sorted([*stages, *faces, *students, "teacher-long", "teacher-weak"])
    for name in cards:
        assert store.card(name)["results"]
        with refused(RuntimeError, f"Of '{name}' only the card ships.*train {name}`"):
            store.load(name)


def test_every_json_file_that_ships_has_its_seal_or_is_on_a_card():
    listed = {data.ROOT / name / file
              for name in store.names() for file in store.card(name)["files"]}
    for path in sorted(data.ROOT.glob("**/*.json")):
        if path not in listed or path.name == "denoiser.json":
            files.read_json(path)


@pytest.mark.skipif(not {"classifier", "judge"} <= set(SHIPPED), reason="they do not ship yet")
@pytest.mark.parametrize("name", ["classifier", "judge"])
def test_a_shipped_classifier_is_right_on_99_of_100_test_digits(name, test_images):
    images = data.scale(test_images.pixels[:2000])
    answers = metrics.in_batches(store.load(name), images).argmax(1)
    assert (answers == test_images.labels[:2000]).double().mean().item() >= 0.99


@pytest.mark.skipif(not {"teacher", "judge"} <= set(SHIPPED), reason="they do not ship yet")
def test_the_shipped_teacher_draws_the_digits_that_it_is_asked_for():
    label = torch.arange(40) % 10
    z = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    x = sample.last(sample.ddim(store.load("teacher"), z, 8, label, guidance=0.3)).clamp(-1, 1)
    with torch.no_grad():
        right = store.load("judge")(x).argmax(1) == label
    assert right.double().mean() >= 0.95
