"""python -m dmdkit: it trains, resumes and measures, and a slip is one sentence and not a traceback."""
import dataclasses
import functools
import json
import subprocess
import sys

import pytest
import torch
from conftest import stopped_in_step_six

from dmdkit import __main__, dmd_mnist, files, recipes, store, train
from dmdkit.denoiser import Denoiser
from dmdkit.pairs import Pairs


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process; returns its exit status and what it printed on stdout and stderr."""
    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dmdkit", *map(str, words)])
        try:
            status = __main__.main()
        except SystemExit as end:  # argparse
            status = end.code
        return status, *capsys.readouterr()

    return run


SCORER = functools.cache(recipes.scorer)


@pytest.fixture(autouse=True)
def one_scorer(monkeypatch):
    """The features of 10,000 test images are computed once for all tests."""
    monkeypatch.setattr(recipes, "scorer", SCORER)


@pytest.fixture(autouse=True)
def small_teacher(monkeypatch):
    """The teacher's recipe with the tiny network and batches of 8, which trains in a second."""
    small = dataclasses.replace(recipes.RECIPES["teacher"], make=lambda: recipes.make_teacher("tiny"), batch_size=8)
    monkeypatch.setitem(recipes.RECIPES, "teacher", small)


def refusal(status, out, err) -> str:
    """The one sentence of a refusal."""
    lines = [line for line in err.splitlines() if not line.startswith(("  0%", "\r")) and "step/s" not in line]
    assert status == 1 and len(lines) == 1 and lines[0].startswith("dmdkit: ") and "Traceback" not in err
    return lines[0]


# Training

def test_train_writes_an_artefact_a_checkpoint_and_a_log(call, tmp_path):
    status, out, _ = call("train", "teacher", "--steps", 4, "--out", tmp_path, "--cpu")
    assert status == 0 and str(tmp_path / "teacher") in out
    assert isinstance(store.load("teacher", root=tmp_path), Denoiser)
    card = store.card("teacher", tmp_path)
    assert card["recipe"]["n_steps"] == 4 and card["recipe"]["batch_size"] == 8 and card["seed"] == 0
    log = [json.loads(line) for line in (tmp_path / "teacher.training" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4] and all(entry["loss"] > 0 for entry in log)


@pytest.mark.parametrize("torn", [False, True])
def test_resume_finishes_what_was_interrupted_as_if_it_had_not_been(call, tmp_path, monkeypatch, torn):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    call("train", "teacher", "--steps", 6, "--out", whole, "--cpu")
    with stopped_in_step_six(monkeypatch):
        status, _, err = call("train", "teacher", "--steps", 6, "--out", cut, "--cpu")
    assert status == 130 and "--resume" in err and "Traceback" not in err
    log = cut / "teacher.training" / "log.jsonl"
    if torn:  # killed while it wrote a line
        log.write_text(log.read_text() + '{"step": 6, "lo')
    status, _, err = call("train", "teacher", "--steps", 6, "--out", cut, "--cpu", "--resume")
    assert status == 0, err
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    assert store.card("teacher", cut)["sha256"] == store.card("teacher", whole)["sha256"]


def test_resuming_a_finished_run_writes_the_same_artefact(call, tmp_path):
    words = ("train", "teacher", "--steps", 2, "--out", tmp_path, "--cpu")
    call(*words)
    before = store.card("teacher", tmp_path)
    assert call(*words, "--resume")[0] == 0
    assert store.card("teacher", tmp_path) == before


def test_a_training_repeats_itself_from_its_recipe(call, tmp_path):
    for name in ("a", "b"):
        torch.rand(3)
        call("train", "teacher", "--steps", 2, "--out", tmp_path / name, "--cpu")
    assert store.card("teacher", tmp_path / "a")["sha256"] == store.card("teacher", tmp_path / "b")["sha256"]


# Slips

def test_a_slip_is_one_sentence_in_a_real_shell_too():
    done = subprocess.run([sys.executable, "-m", "dmdkit", "train", "techer"], capture_output=True, text=True)
    assert done.stdout == "" and done.returncode == 1
    assert done.stderr.strip() == "dmdkit: " + done.stderr.strip().removeprefix("dmdkit: ")
    assert "There is no recipe for 'techer'; there are classifier, judge, teacher" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_name_is_refused_with_those_that_there_are(call, tmp_path):
    assert "There is no recipe for 'x'; there are classifier, " in refusal(*call("train", "x", "--out", tmp_path))
    assert "There is no recipe for 'x'; there are classifier, " in refusal(*call("benchmark", "x"))
    assert "There is no artefact 'teacher'" in refusal(*call("evaluate", "teacher", "--root", tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [0, -3])
def test_a_number_of_training_steps_below_one_is_refused(call, tmp_path, steps):
    found = refusal(*call("train", "teacher", f"--steps={steps}", "--out", tmp_path))
    assert f"number of training steps must be at least 1; got {steps}." in found and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("fly",), ("train",), ("train", "teacher", "--steps", "many"),
                                   ("train", "teacher", "--stps", "3"), ("evaluate", "teacher", "--sampler", "euler")])
def test_what_the_command_line_cannot_parse_shows_its_usage(call, words):
    status, _, err = call(*words)
    assert status == 2 and err.startswith("usage: python -m dmdkit") and "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_refused_before_any_training(call, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(recipes.train, "train", lambda *args, **options: pytest.fail("it trained"))
    found = refusal(*call("train", "teacher", "--steps", 2, "--out", tmp_path / "file"))
    assert "Could not write" in found and "Not a directory" in found and "choose a folder" in found


def test_resuming_from_nothing_or_from_a_damaged_checkpoint_is_refused(call, tmp_path):
    words = ("train", "teacher", "--steps", 2, "--out", tmp_path, "--cpu")
    assert "There is no checkpoint at" in refusal(*call(*words, "--resume"))
    call(*words)
    path = tmp_path / "teacher.training" / "checkpoint.safetensors"
    assert files.load_state(path)["step"] == 2
    path.write_bytes(path.read_bytes()[:-7])
    assert f"The checkpoint {path} is damaged" in refusal(*call(*words, "--resume"))
    words = ("train", "teacher", "--steps", 3, "--out", tmp_path, "--cpu")
    call("train", "teacher", "--steps", 2, "--out", tmp_path, "--cpu")
    assert "is of another run" in refusal(*call(*words, "--resume"))


def test_a_loss_that_is_no_number_is_one_sentence(call, tmp_path, monkeypatch):
    step = lambda learner, images, n: lambda g: {"loss": torch.tensor(float("nan"))}
    monkeypatch.setitem(recipes.RECIPES, "teacher", dataclasses.replace(recipes.RECIPES["teacher"], step=step))
    assert "loss became nan at step 1" in refusal(*call("train", "teacher", "--steps", 2, "--out", tmp_path, "--cpu"))
    assert store.names(tmp_path) == []


# Evaluation

@pytest.mark.parametrize("words, sentence", [
    (("--sampler", "ddim"), "--sampler and --steps go together"),
    (("--steps", "4"), "--sampler and --steps go together"),
    (("--guidance", "0.2"), "--guidance is a setting of one sampler; give --sampler and --steps"),
    (("--no-clip", "--images", "100"), "--clip is a setting of one sampler"),
    (("--sampler", "ddim", "--steps", "0"), "n_steps must be a whole number from 1 to 1024 (this schedule's T); got 0"),
    (("--sampler", "ddpm", "--steps", "2000"), "n_steps must be a whole number from 1 to 1024"),
    (("--sampler", "ddim", "--steps", "4", "--interval", "0.9", "0.1"), "0 ≤ low < high ≤ 1; got 0.9 and 0.1"),
    (("--sampler", "ddim", "--steps", "4", "--guide", "nobody", "--guide-weight", "1"), "There is no artefact"),
    (("--sampler", "ddim", "--steps", "4", "--guide", "classifier", "--guide-weight", "1"), "guide must be a Denoiser"),
    (("--sampler", "ddim", "--steps", "4", "--guide", "teacher"), "A guide and its weight go together"),
    (("--sampler", "ddim", "--steps", "4", "--guide-weight", "1"), "A guide and its weight go together"),
    (("--sampler", "ddim", "--steps", "4", "--s-noise", "0.9"), "of ancestral sampling, ddpm; ddim has none"),
    (("--sampler", "ddpm", "--steps", "4", "--s-noise", "-1"), "s_noise must be 0 or more"),
    (("--sampler", "ddim", "--steps", "4", "--images", "15"), "n must be a multiple of 10"),
    (("--sampler", "ddim", "--steps", "4", "--images", "0"), "n must be a multiple of 10"),
])
def test_evaluate_refuses_bad_numbers_before_any_work(call, tmp_path, monkeypatch, words, sentence):
    call("train", "teacher", "--steps", 1, "--out", tmp_path, "--cpu")
    monkeypatch.setattr(recipes, "scorer", lambda: lambda *args: pytest.fail("it scored"))
    assert sentence in refusal(*call("evaluate", "teacher", "--root", tmp_path, "--cpu", *words))


@pytest.mark.skipif(not {"classifier", "judge"} <= set(store.names()), reason="no classifier and judge ship yet")
def test_evaluate_measures_and_saves_onto_the_card(call, tmp_path):
    call("train", "teacher", "--steps", 1, "--out", tmp_path, "--cpu")
    before = store.card("teacher", tmp_path)
    status, out, err = call("evaluate", "teacher", "--root", tmp_path, "--cpu", "--sampler", "ddim", "--steps", "2",
                            "--images", "100", "--save")
    assert status == 0, err
    card = store.card("teacher", tmp_path)
    floor, found = card["metrics"]["floor-100-images"], card["metrics"]["ddim-2-w0-100-images"]
    assert floor["images"] == found["images"] == 100 and floor["accuracy"] > 0.95
    assert found["frechet_distance"] > 3 * floor["frechet_distance"]  # untrained
    ratio = found["frechet_distance"] / floor["frechet_distance"]
    assert found["distance_over_floor"] == pytest.approx(ratio, rel=0.01)
    assert {key: value for key, value in card.items() if key != "metrics"} == \
           {key: value for key, value in before.items() if key != "metrics"}
    assert "ddim-2-w0-100-images" in out and json.loads(out.splitlines()[-1].split(maxsplit=1)[1]) == found
    call("evaluate", "teacher", "--root", tmp_path, "--cpu", "--sampler", "ddim", "--steps", "2", "--images", "100",
         "--seed", "1", "--save")
    again = store.card("teacher", tmp_path)["metrics"]
    assert list(again) == ["floor-100-images", "ddim-2-w0-100-images", "floor-100-images-seed1",
                           "ddim-2-w0-100-images-seed1"]
    status, out, err = call("evaluate", "teacher", "--root", tmp_path, "--cpu", "--sampler", "ddpm", "--steps", "2",
                            "--images", "100", "--no-clip", "--s-noise", "0.9", "--s-tmax", "0.5")
    assert status == 0 and "ddpm-2-w0-noclip-noise0.9-below0.5-100-images" in out, err
    assert all(again[key]["frechet_distance"] != again[f"{key}-seed1"]["frechet_distance"] for key in card["metrics"])


def test_list_names_what_ships(call):
    status, out, _ = call("list")
    assert status == 0 and [line.split()[0] for line in out.splitlines()] == store.names()


# Distillation

def test_pairs_makes_pairs_and_goes_on(call, tmp_path, monkeypatch):
    made = []
    zeros = lambda n: Pairs(torch.zeros(n, 2), torch.zeros(n, 2))
    monkeypatch.setattr(__main__.dmd_mnist, "make_pairs", lambda *words: made.append(words) or zeros(words[1]))
    assert call("pairs", "--pairs", 30, "--out", tmp_path)[:2] == (0, f"30 pairs are in {tmp_path}.\n")
    assert made == [("teacher", 30, tmp_path)]


def test_a_student_is_trained_measured_and_timed(call, tmp_path, monkeypatch):
    setting = dmd_mnist.Setting(batch_size=4, n_pairs=40, distance="squared", updates=(1, 1))
    small = dataclasses.replace(recipes.RECIPES["student-dmd"], setting=setting)
    monkeypatch.setitem(recipes.RECIPES, "student-dmd", small)
    status, out, err = call("train", "student-dmd", "--steps", 2, "--pairs", 30, "--out", tmp_path, "--cpu")
    assert status == 0, err
    assert store.card("student-dmd", tmp_path)["recipe"] | dataclasses.asdict(setting) | {"n_steps": 2, "n_pairs": 30} \
        == store.card("student-dmd", tmp_path)["recipe"] | {"updates": (1, 1), "t_range": (0.02, 0.98)}
    again = call("train", "student-dmd", "--steps", 2, "--pairs", 20, "--out", tmp_path, "--cpu", "--resume")
    assert "has 30 pairs, not 20. Resume it with as many" in refusal(*again)
    status, out, _ = call("evaluate", "student-dmd", "--root", tmp_path, "--cpu", "--images", 20)
    assert status == 0 and "ddim-1-w0-20-images" in out
    status, out, _ = call("benchmark", "student-dmd", "--cpu")
    found = json.loads(out[out.index("{"):])
    assert found["step_s"] > 0 and found["step_over_network"] == pytest.approx(1 / found["network_share"], rel=0.01)
    assert found["memory_mb"]["weights"] == pytest.approx(3 * 707716 * 4 / 2**20, abs=0.1)  # three networks
    assert found["memory_mb"]["gradients"] == pytest.approx(2 * 707716 * 4 / 2**20, abs=0.1)  # two of them trained


def test_a_students_speed_is_a_ratio_of_two_times(call, monkeypatch):
    monkeypatch.setattr(recipes.speed, "__defaults__", (4, 2, 1, "cpu"))  # 4 steps, 2 images, once
    status, out, _ = call("speed", "student-dmd", "--cpu")
    found = json.loads(out)
    assert status == 0 and found["steps"] == 4 and found["ratio_guided"] > 1
    assert found["ratio"] == round(found["teacher_s"] / found["student_s"])


@pytest.mark.parametrize("words, sentence", [
    (("speed", "teacher"), "'teacher' is not a student"), (("pairs", "--pairs", 0), "must be at least 1; got 0"),
    (("dmd-mnist", "--students", "nowhere"), "nowhere holds no training of a student"),
    (("train", "student-dmd-paired", "--pairs", 0), "The number of pairs must be at least 1; got 0"),
    (("train", "teacher", "--pairs", 5), "'teacher' is trained without pairs"),
    (("train", "student-dmd2-no-critic", "--pairs", 5), "'student-dmd2-no-critic' is trained without pairs"),
    (("chain", "--share", 0), "The share of the updates must be positive"),
    (("curve", "--images", 15), "n must be a multiple of 10")])
def test_a_slip_in_distillation_is_one_sentence(call, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal(*call(*words))


def test_dmd_mnist_says_where_it_wrote(call, monkeypatch, tmp_path):
    monkeypatch.setattr(__main__.dmd_mnist, "build", lambda: tmp_path / "built")
    monkeypatch.setattr(__main__.dmd2_mnist, "store_students", lambda folders: "+".join(map(str, folders)))
    assert call("dmd-mnist") == (0, f"Written to {tmp_path / 'built'}.\n", "")
    assert call("dmd2-mnist", "--students", "one", "other") == (0, "Written to one+other.\n", "")


def test_the_chain_the_curve_and_the_ablation_say_what_they_did(call, monkeypatch, tmp_path):
    asked = []
    folders = [tmp_path / "progressive-2", tmp_path / "progressive-1"]
    monkeypatch.setattr(recipes, "train_chain", lambda *words: asked.append(words) or folders)
    words = ("chain", "--share", 0.25, "--out", tmp_path, "--resume", "--cpu")
    assert call(*words) == (0, f"Written to {folders[0]} … progressive-1.\n", "")
    assert asked == [(tmp_path, True, True, 0.25)]
    monkeypatch.setattr(recipes, "measure_curve", lambda n, device, save: [("teacher", "ddim-1-w0", {"images": n})])
    status, out, _ = call("curve", "--images", 20, "--cpu")
    assert status == 0 and out.split(maxsplit=2)[:2] == ["teacher", "ddim-1-w0"] and '{"images": 20}' in out
    monkeypatch.setattr(__main__.progressive_mnist, "build", lambda cheaper: cheaper / "runs.safetensors")
    assert call("progressive", "--cheaper", tmp_path)[1] == f"Written to {tmp_path / 'runs.safetensors'}.\n"


# The experiments in two dimensions

def test_dmd_2d_says_where_it_wrote(call, monkeypatch, tmp_path):
    monkeypatch.setattr(__main__.dmd_2d, "build", lambda: tmp_path / "runs.safetensors")
    assert call("dmd-2d") == (0, f"Written to {tmp_path / 'runs.safetensors'}.\n", "")
