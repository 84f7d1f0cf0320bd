"""Carrying out recipes: what is kept, what is refused, and that no stop loses anything."""
import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import killed_student
import pytest
import torch
from conftest import refused, stopped_in_step_six
from killed_student import WORK, kept, student
from toys import (DIGITS, DOTS, STUDENT, TEACHER, WEIGHTS, bytes_of, dot_network, equal, folder,
                  tiny, trained, weights)

from dmdkit import data, files, store, train
from dmdkit.experiments import runner
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Recipe
from dmdkit.experiments.snapshot import Snapshot
from dmdkit.methods import dmd
from dmdkit.methods.pairs import Pairs

@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of one's own to start from: pairs go into its runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@functools.cache
def cut_off() -> Path:
    """A folder with a training of the student of dots that was stopped after its fifth step."""
    patch, cwd = pytest.MonkeyPatch(), Path.cwd()
    out = folder() / "stopped"
    out.mkdir()
    os.chdir(out)
    with stopped_in_step_six(patch), pytest.raises(KeyboardInterrupt):
        student(out)
    os.chdir(cwd)
    return out


@pytest.fixture
def stopped(here) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(cut_off(), here / "stopped"))


@functools.cache
def uninterrupted() -> Path:
    """A folder with that student, trained to its end at once."""
    cwd = Path.cwd()
    out = folder() / "whole"
    out.mkdir()
    os.chdir(out)
    student(out)
    os.chdir(cwd)
    return out


# A run that is looked at

DIGIT_STUDENT = Recipe("Small.", DIGITS, dmd.Settings(
    guidance=0.5, n_pairs=8, regression_weight=0.75, lr=1e-3, fake_lr=1e-3, updates=(1, 2)), 2, 4,
    samplings=(Sampling("ddim", 1),))


@pytest.fixture
def at_hand() -> dict:
    """A teacher with random weights, and eight pairs: noise, and a digit that it did not make."""
    z = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    shown = DIGITS.data().take(slice(8))
    return {"teacher": tiny(), "pairs": Pairs(z, data.scale(shown.pixels), shown.labels)}


def test_a_run_yields_at_its_milestones_and_repeats_itself_with_its_seed_alone(at_hand):
    def end(seed: int):
        torch.rand(3)  # what happened before does not matter
        steps = []
        for frame in runner.run(DIGIT_STUDENT.changed(seed=seed), 3, **at_hand):
            steps.append((frame.step, {len(value) for value in frame.values.values()}))
        learners = frame.training.learners.values()
        return steps, frame.values, [p for one in learners for p in weights(one.net)]

    (steps, values, first), (_, same, again), (_, others, other) = end(1), end(1), end(2)
    assert steps == [(0, set()), (1, {1}), (2, {2})]
    assert set(values) == {"matching", "matching gradient", "regression", "regression gradient",
                           "fake"}
    assert equal(first, again) and values == same
    assert not equal(first, other) and values != others


def test_generator_and_fake_score_start_as_copies_of_the_teacher_that_are_their_own(at_hand):
    frame = next(runner.run(DIGIT_STUDENT, **at_hand))
    teacher, made = at_hand["teacher"], frame.training
    assert list(made.learners) == ["generator", "fake"] and made.frozen == (teacher,)
    places = {p.data_ptr() for p in teacher.parameters()}
    z, label = torch.randn(2, 1, 28, 28), torch.tensor([3, 8])
    for learner in made.learners.values():
        net = learner.net
        assert equal(weights(net), weights(teacher))
        assert not places & {p.data_ptr() for p in net.parameters()}
        places |= {p.data_ptr() for p in net.parameters()}
        assert (net.prediction, net.patch, net.n_classes, net.schedule.T) == ("v", 4, 10, 1024)
        with torch.no_grad():
            torch.testing.assert_close(net(z, 700, label).x, teacher(z, 700, label).x)
    assert made.learners["generator"].ema is not None and made.learners["fake"].ema is None


def test_a_training_leaves_its_teacher_as_it_was(at_hand):
    before = weights(at_hand["teacher"])
    *_, _ = runner.run(DIGIT_STUDENT, **at_hand)
    assert equal(weights(at_hand["teacher"]), before)
    assert all(p.grad is None for p in at_hand["teacher"].parameters())


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_what_is_kept_is_the_average_where_there_is_one(ema):
    *_, frame = runner.run(TEACHER.changed(ema=ema))
    learner = frame.training.learners["net"]
    last = weights(learner.net)
    net = runner.finished(frame.training)
    average = learner.ema.shadow_params if ema else last
    assert not net.training and equal(weights(net), [p.detach() for p in average])
    assert equal(weights(net), last) is (ema == 0)


# An artefact

def test_an_artefact_has_its_card_its_checkpoint_and_its_log():
    root = trained()
    net, card = store.load("dots-teacher", root=root), store.card("dots-teacher", root)
    assert card["recipe"] == json.loads(json.dumps(TEACHER.settings)) and card["wall_time_s"] >= 0
    assert card["recipe"] | asdict(TEACHER.method) | {"betas": [0.9, 0.99]} == card["recipe"]
    assert card["what"] == TEACHER.what and card["device"].startswith("CPU, ")
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    work = root / "dots-teacher.training"
    log = files.read_lines(work / runner.LOG).entries
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert all(entry["loss"] > 0 and entry["seconds"] > 0 for entry in log)
    assert files.load_state(work / runner.CHECKPOINT)["step"] == 3


def test_a_student_is_seen_at_its_milestones_and_its_card_names_its_teacher():
    out = uninterrupted()
    card = store.card("dots-student", out)
    assert card["teacher"] == "dots-teacher"
    assert card["teacher_sha256"] == store.checksum("dots-teacher", trained())
    steps, seen, logged = kept(out)
    assert steps == train.milestones(6) == [0, 1, 2, 3, 4, 5, 6] and logged == steps[1:]
    assert list(seen) == list(Snapshot._fields) and seen["samples"].shape == (7, 20, 2)
    assert not torch.equal(seen["samples"][0], seen["samples"][6])
    log = runner.recorded(out / WORK)["log"]
    assert set(log) == {"seconds", "matching", "matching gradient", "regression",
                        "regression gradient", "fake"}
    assert all(len(values) == 6 for values in log.values())


def test_a_training_repeats_itself_from_its_recipe(here):
    torch.rand(3)
    runner.train_artefact("dots-teacher", TEACHER, here, cpu=True)
    assert bytes_of(here, "dots-teacher") == bytes_of(trained(), "dots-teacher")


@pytest.mark.parametrize("torn", [False, True])
def test_a_training_that_was_stopped_goes_on_to_the_same_result(stopped, torn):
    whole = uninterrupted()
    assert store.names(stopped) == [] and kept(stopped)[0] == [0, 1, 2, 3, 4, 5]
    if torn:  # killed while it wrote a line
        with open(stopped / WORK / runner.LOG, "a", encoding="utf-8") as log:
            log.write('{"step": 6, "matc')
    student(stopped, resume=True)
    assert bytes_of(stopped, "dots-student") == bytes_of(whole, "dots-student")
    (steps, seen, logged), (again, wanted, _) = kept(stopped), kept(whole)
    assert steps == again and logged == [1, 2, 3, 4, 5, 6]
    assert equal(list(seen.values()), list(wanted.values()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_whenever_a_student_is_killed_neither_result_nor_log_nor_snapshot_is_lost(here):
    # in a process of its own: once FakeTensorMode has made a CUDA tensor, as test_devices does,
    # autograd starts threads for it, and a process with those cannot be forked
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, killed_student.__file__], cwd=here, text=True,
                          env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_new_training_removes_an_earlier_ones_snapshots(here):
    student(here)
    student(here, STUDENT.changed(n_steps=2), overwrite=True)
    steps, _, logged = kept(here)
    assert steps == [0, 1, 2] and logged == [1, 2]


def test_an_empty_log_and_a_folder_without_a_training(here):
    with refused(RuntimeError, "none holds no training of a student. Train one first: `python -m"):
        runner.recorded(here / "none")
    with pytest.raises(KeyboardInterrupt):
        student(here, _Stopped(STUDENT))
    (here / WORK / runner.LOG).write_bytes(b"")
    found = runner.recorded(here / WORK)
    assert found["log"] == {} and found["steps"].tolist() == [0]


class _Stopped:
    """A recipe whose first step is a Ctrl-C."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def __getattr__(self, name: str):
        return getattr(self.recipe, name)

    def prepare(self, *args):
        def stop(g):
            raise KeyboardInterrupt

        made = self.recipe.prepare(*args)
        made.step.__class__ = type("Stops", (dmd.DMD,), {"__call__": lambda self, g: stop(g)})
        return made


# What is refused

def test_a_users_own_files_stay_where_they_are(here):
    """A folder at the artefact's place that is none, with and without --overwrite."""
    own = here / "dots-teacher"
    own.mkdir()
    (own / "thesis.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with refused(RuntimeError, r"holds what is no artefact's \(thesis.txt\); it is left as it"):
            runner.train_artefact("dots-teacher", TEACHER, here, cpu=True, overwrite=overwrite)
    assert (own / "thesis.txt").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in here.iterdir()] == ["dots-teacher"]  # no work was begun


def test_a_users_own_file_in_an_artefacts_folder_stays_too(here):
    runner.train_artefact("dots-teacher", TEACHER, here, cpu=True)
    (here / "dots-teacher" / "thesis.txt").write_text("mine", encoding="utf-8")
    with refused(RuntimeError, "thesis.txt"):
        runner.train_artefact("dots-teacher", TEACHER, here, cpu=True, overwrite=True)
    assert (here / "dots-teacher" / "thesis.txt").exists()


def test_finished_work_is_not_overwritten_unless_asked(here):
    def train_it(**options):
        return runner.train_artefact("dots-teacher", TEACHER.changed(seed=1), here, cpu=True,
                                     **options)

    runner.train_artefact("dots-teacher", TEACHER, here, cpu=True)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    for options in ({}, {"resume": True}):
        with refused(RuntimeError, "holds an artefact already; it is left as it is"):
            train_it(**options)
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    train_it(overwrite=True)
    assert bytes_of(here, "dots-teacher") != before[here / "dots-teacher" / WEIGHTS]


def test_a_run_that_can_go_on_is_not_started_anew_by_a_forgotten_resume(stopped):
    before = (stopped / WORK / runner.CHECKPOINT).read_bytes()
    with refused(RuntimeError, "holds a training that can go on: say --resume, or --overwrite"):
        student(stopped)
    assert (stopped / WORK / runner.CHECKPOINT).read_bytes() == before
    with refused(RuntimeError, "--resume goes on and --overwrite starts anew: say one of them"):
        student(stopped, resume=True, overwrite=True)


def test_resuming_from_nothing_is_refused_before_pairs_are_made(here):
    with refused(RuntimeError, "There is no checkpoint at .*checkpoint.safetensors"):
        student(here, resume=True)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("change, sentence", [
    ({"lr": 0.5}, "had another lr: 0.01, now it is 0.5. Start it again with --overwrite"),
    ({"n_pairs": 9}, "had another n_pairs: 8, now it is 9"),
    ({"updates": (1, 3)}, r"had another updates: \[1, 2\], now it is \[1, 3\]"),
    ({"n_steps": 7}, "had another n_steps: 6, now it is 7"),
    ({"seed": 1}, "had another seed: 0, now it is 1")])
def test_a_run_of_another_recipe_is_not_resumed(stopped, change, sentence):
    with refused(RuntimeError, sentence):
        student(stopped, STUDENT.changed(**change), resume=True)


@pytest.fixture
def another(here):
    """A folder with another teacher of that name."""
    root = here / "another"
    runner.train_artefact("dots-teacher", TEACHER.changed(seed=5), root, cpu=True)
    return root


def test_a_run_from_another_teacher_is_not_resumed(stopped, another):
    with refused(RuntimeError, "had another teacher_sha256"):
        student(stopped, resume=True, roots=(another,))


def test_a_new_run_that_is_stopped_early_leaves_no_mixture_to_resume(stopped, monkeypatch, another):
    """Whoever overwrites and is stopped while the pairs are made must not go on from the earlier
    teacher's checkpoint under the later one's name."""
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "ready", stop)
        with pytest.raises(KeyboardInterrupt):
            student(stopped, roots=(another,), overwrite=True)
    with refused(RuntimeError, "had another teacher_sha256"):
        student(stopped, resume=True, roots=(another,))
    student(stopped, resume=True)  # the earlier run is as it was
    assert store.card("dots-student", stopped)["teacher_sha256"] == \
        store.checksum("dots-teacher", trained())


def test_the_note_and_the_checkpoint_are_always_of_one_run(stopped, monkeypatch, another):
    """Stopped after the new run's note is written and before its first checkpoint is."""
    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            student(stopped, roots=(another,), overwrite=True)
    with refused(RuntimeError, "There is no checkpoint at"):
        student(stopped, resume=True, roots=(another,))


def test_pairs_of_another_teacher_are_not_taken_for_this_ones(here, another):
    student(here)
    student(here / "b", roots=(another,))
    folders = sorted(path.name for path in (here / "runs").iterdir())
    assert len(folders) == 2 and folders[0] != folders[1]


def test_a_run_without_its_note_is_not_resumed(stopped):
    (stopped / WORK / runner.NOTE).unlink()
    with refused(RuntimeError, "recipe.json is missing"):
        student(stopped, resume=True)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "x" * 100])
def test_a_damaged_note_is_named(stopped, content):
    (stopped / WORK / runner.NOTE).write_text(content, encoding="utf-8")
    with refused(RuntimeError, "recipe.json is damaged"):
        student(stopped, resume=True)


def test_a_damaged_checkpoint_is_named(stopped):
    path = stopped / WORK / runner.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-7])
    with refused(RuntimeError, "checkpoint.safetensors is damaged"):
        student(stopped, resume=True)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(here, monkeypatch):
    (here / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setattr(runner, "ready", lambda *args: pytest.fail("it began"))
    with refused(RuntimeError, "Could not write .*Not a directory.*choose a folder"):
        runner.train_artefact("dots-teacher", TEACHER, here / "file", cpu=True)


def test_a_loss_that_is_no_number_leaves_nothing_behind_as_finished(here):
    """Weights that are too large: the run stops at once and keeps no artefact."""
    def broken() -> torch.nn.Module:
        net = dot_network()
        with torch.no_grad():
            next(net.parameters()).mul_(1e30)
        return net

    task = replace(DOTS, networks={"network": broken})
    with refused(FloatingPointError, "became (nan|inf) at step 1; the last good state is in"):
        runner.train_artefact("broken", TEACHER.changed(task=task), here, cpu=True)
    assert store.names(here) == []


def test_a_log_that_lies_there_without_its_checkpoint_is_not_written_over(tmp_path):
    log = tmp_path / "work" / runner.LOG
    log.parent.mkdir()
    log.write_text("mine", encoding="utf-8")
    with pytest.raises(RuntimeError, match="holds the log of another training"):
        runner._check_free(tmp_path / "net", log.parent, resume=False, overwrite=False)
    runner._check_free(tmp_path / "net", log.parent, resume=False, overwrite=True)
    assert log.read_text(encoding="utf-8") == "mine"
