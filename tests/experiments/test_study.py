"""Studies: what is run, kept, stored and read again, and what of it is noticed to be wrong."""
import functools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import refused
from toys import DOTS, RECIPES, STUDENT, TEACHER, folder, trained

from dmdkit import files, store, train
from dmdkit.experiments import build, runner, study
from dmdkit.experiments.evaluate import draw
from dmdkit.experiments.recipe import Sources
from dmdkit.experiments.snapshot import N_PLAYED, Snapshot
from dmdkit.experiments.study import Study

SHORT = STUDENT.changed(n_steps=2, n_pairs=0, solver_steps=8)
ONE = Study("toy", "Two settings.", {"with": SHORT, "without": SHORT.changed(fake=False)},
            seeds={"with": 2}, n_images=12, n_frames=3, shown=("dots-student",))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of one's own to start from, with the teacher of dots in its runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained() / "dots-teacher", tmp_path / "runs" / "dots-teacher")
    return tmp_path


@functools.cache
def built() -> Path:
    """A folder with that study, built once, and its kept runs."""
    out, cwd = folder() / "studied", Path.cwd()
    shutil.copytree(trained() / "dots-teacher", out / "runs" / "dots-teacher")
    os.chdir(out)
    study.build(ONE, root=out)
    os.chdir(cwd)
    return out


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of it, to start from."""
    out = Path(shutil.copytree(built(), tmp_path / "copy"))
    monkeypatch.chdir(out)
    return out


def forbidden(*args, **options):
    pytest.fail("it ran again")


# Building and reading

def test_a_study_keeps_what_was_seen_of_its_first_run_and_every_runs_figures():
    seen, card = study.load(ONE, built()), study.card(ONE, built())
    assert list(seen) == list(card["settings"]) == ["with", "without"]
    one = seen["with"]
    assert one["steps"].tolist() == [0, 1, 2] and list(one["snapshots"]) == list(Snapshot._fields)
    assert one["snapshots"]["samples"].shape == (3, N_PLAYED, 2)
    assert one["brightness"].shape == (2, 3) and seen["without"]["brightness"].shape == (1, 3)
    means = one["snapshots"]["brightness"].mean(1)
    torch.testing.assert_close(one["brightness"][0], means)
    assert card["sha256"] == files.sha256(ONE.path(built()))
    assert len(card["seconds"]["with"]) == 2 and card["images"] == 12
    assert card["settings"]["without"]["fake"] is False
    assert card["origins"]["with"] == Sources(DOTS, (trained(),)).origin(STUDENT.method.requires)
    assert card["device"].startswith("CPU, ")


def test_a_figure_is_what_the_averaged_students_samples_score():
    card = study.card(ONE, built())
    runs = [entry for entry in card["results"] if entry["setting"] == "with"]
    assert [entry["seed"] for entry in runs] == [0, 1]
    teacher = store.load("dots-teacher", root=trained())
    for entry in runs:
        *_, frame = runner.run(SHORT.changed(seed=entry["seed"]), **{"dots-teacher": teacher})
        net = frame.training.learners["generator"].averaged()
        x, label = draw(net, SHORT.samplings[0], 12, "selection", entry["seed"])
        wanted = DOTS.scorer()(x, label)["plane"]
        assert entry["values"]["plane"] == pytest.approx(wanted, abs=1e-4)
        assert entry["sampling"] == SHORT.samplings[0].entry
    values = study.values(card, "with", "plane", "frechet_distance")
    assert values == [entry["values"]["plane"]["frechet_distance"] for entry in runs]
    assert values[0] != values[1]
    assert card["baseline"]["plane"]["precision"] <= 1


def test_what_no_lesson_shows_does_not_ship_and_its_figures_do(copy):
    one = replace(ONE, kept={"with": ("samples", "classes")})
    study.build(one, root=copy)
    seen, card = study.load(one, copy), study.card(one, copy)
    assert list(seen) == ["with"] and list(seen["with"]["snapshots"]) == ["samples", "classes"]
    assert torch.equal(seen["with"]["brightness"],
                       study.load(ONE, built())["with"]["brightness"])
    assert {entry["setting"] for entry in card["results"]} == {"with", "without"}


def test_figures_are_asked_for_by_setting_and_sampler():
    card = {"settings": {"a": {}}, "results": [
        {"setting": "a", "sampling": {"sampler": "ddim"}, "values": {"s": {"m": 1.0}}},
        {"setting": "a", "sampling": {"sampler": "ddpm"}, "values": {"s": {"m": 2.0}}},
        {"setting": "b", "sampling": {"sampler": "ddim"}, "values": {"s": {"m": 3.0}}},
        {"setting": "a", "sampling": {"sampler": "ddim"}, "values": {}}]}
    assert study.values(card, "a", "s", "m", "ddpm") == [2.0]
    first, last = study.values(card, "a", "s", "m", "ddim")
    assert first == 1.0 and last != last  # NaN: its samples were not finite
    with refused(ValueError, "There are no runs of 'c'; there are a."):
        study.values(card, "c", "s", "m")


def test_finished_runs_are_not_done_again(copy, monkeypatch):
    monkeypatch.setattr(study, "run", forbidden)
    before, seen = study.card(ONE, copy), study.load(ONE, copy)
    study.build(ONE, root=copy)
    assert study.card(ONE, copy) == before
    again = study.load(ONE, copy)
    assert all(torch.equal(again[name]["brightness"], seen[name]["brightness"]) for name in seen)


@pytest.mark.parametrize("change", [
    {"n_images": 13}, {"n_frames": 4}, {"seeds": {"with": 3}}, {"lr": 0.5}, {"n_steps": 3},
    {"samplings": (replace(STUDENT.samplings[0], n_steps=2),)}, {"teacher": "again"}])
def test_a_run_is_done_again_when_what_it_depends_on_has_changed(copy, monkeypatch, change):
    other = ONE
    if "teacher" in change:
        shutil.rmtree("runs/dots-teacher")
        runner.train_artefact("dots-teacher", TEACHER.changed(seed=3), Path("runs"), cpu=True)
    elif set(change) <= {"n_images", "n_frames", "seeds"}:
        other = replace(ONE, **change)
    else:
        other = replace(ONE, recipes={"with": SHORT.changed(**change)})
    asked = []

    def run(recipe, n_frames):
        asked.append(recipe)
        raise InterruptedError

    monkeypatch.setattr(study, "run", run)
    with pytest.raises(InterruptedError):
        study.build(other, ["with"], copy)
    assert len(asked) == 1


def test_settings_that_are_not_named_keep_what_was_stored_of_them(copy):
    before = study.card(ONE, copy)
    other = replace(ONE, recipes=ONE.recipes | {"with": SHORT.changed(lr=0.5)})
    study.build(other, ["with"], copy)
    card = study.card(ONE, copy)
    for name, changed in (("with", True), ("without", False)):
        results = [[entry for entry in one["results"] if entry["setting"] == name]
                   for one in (before, card)]
        assert (results[0] != results[1]) is changed
        assert len(results[0]) == len(results[1])
    assert card["settings"]["with"]["lr"] == 0.5 and card["baseline"] == before["baseline"]
    assert list(study.load(ONE, copy)) == ["with", "without"]


def test_a_study_of_figures_alone_stores_no_file_of_pictures(here):
    one = Study("figures", "Teachers.", {"a": TEACHER}, seeds=1, n_images=6, n_frames=2)
    path = study.build(one, root=here)
    assert path == here / "figures" / "runs.json" and [path] == list(path.parent.iterdir())
    card = study.card(one, here)
    assert [entry["sampling"]["n_steps"] for entry in card["results"]] == [4]


# Runs that do not end

def diverging(at: int):
    """A recipe's run that raises after its frame of that number."""
    honest = runner.run

    def run(recipe, n_frames):
        for i, frame in enumerate(honest(recipe, n_frames)):
            if recipe.seed == 1 and i == at:
                raise FloatingPointError("matching became nan at step 1")
            yield frame

    return run


def test_a_run_that_diverges_is_scored_as_far_as_it_came(here, monkeypatch):
    """And the others' brightness is kept beside its."""
    monkeypatch.setattr(study, "run", diverging(at=2))
    study.build(ONE, ["with"], here)
    brightness = study.load(ONE, here)["with"]["brightness"]
    assert brightness.shape == (2, 3) and brightness[0].isfinite().all()
    assert brightness[1].isfinite().tolist() == [True, True, False]
    values = study.values(study.card(ONE, here), "with", "plane", "frechet_distance")
    assert len(values) == 2 and values[1] > 0


def test_samples_that_are_not_finite_are_a_result_without_figures(here, monkeypatch):
    def broken(*args):
        raise FloatingPointError("The samples of ddim are not finite")

    monkeypatch.setattr(study, "draw", broken)
    study.build(ONE, ["without"], here)
    values = study.values(study.card(ONE, here), "without", "plane", "frechet_distance")
    assert len(values) == 1 and values[0] != values[0]


def test_a_training_that_cannot_begin_is_an_error(here, monkeypatch):
    def run(recipe, n_frames):
        raise FloatingPointError("fake became nan")
        yield

    monkeypatch.setattr(study, "run", run)
    with refused(FloatingPointError, "fake became nan"):
        study.build(ONE, root=here)


# Whole trainings that are shown beside the runs

def test_a_whole_training_is_shown_if_it_is_the_artefacts(here, monkeypatch):
    monkeypatch.setattr(study, "run", forbidden)
    shutil.copytree(built() / "runs" / "study-toy", here / "runs" / "study-toy")
    runner.train_artefact("dots-student", SHORT, Path("runs"), cpu=True)
    study.build(ONE, root=here)
    shown = study.load(ONE, here)["dots-student"]
    assert shown["steps"].tolist() == train.milestones(2) and len(shown["log"]["matching"]) == 2

    shutil.copytree("runs/dots-student", here / "dots-student")  # it ships
    runner.train_artefact("dots-student", SHORT.changed(n_steps=1), Path("runs"), overwrite=True,
                          cpu=True)  # and somebody tries another
    study.build(ONE, root=here)
    again = study.load(ONE, here)["dots-student"]
    assert again["steps"].tolist() == train.milestones(2)


def test_a_torn_log_of_a_training_that_is_shown_is_read(here):
    runner.train_artefact("dots-student", SHORT, Path("runs"), cpu=True)
    log = Path("runs/dots-student.training/log.jsonl")
    log.write_bytes(log.read_bytes() + b'{"step": 3, "matc')
    assert dict(study._shown(ONE, here))["dots-student"]["steps"].tolist() == [0, 1, 2]


# What is refused

@pytest.mark.parametrize("ask", [ONE.recipe, lambda name: study.build(ONE, [name])])
def test_an_unknown_setting_is_named_with_those_that_there_are(ask):
    with refused(ValueError, "The study toy has no setting 'thrice'; it has with, without."):
        ask("thrice")


def test_a_teacher_that_is_not_there_is_named_before_any_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "run", forbidden)
    with refused(ValueError, "There is no artefact 'dots-teacher' in runs"):
        study.build(ONE, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["runs/study-toy", "toy"])
def test_a_folder_that_cannot_be_written_is_named_before_any_run(here, monkeypatch, place):
    monkeypatch.setattr(study, "run", forbidden)
    (here / place).write_text("in the way", encoding="utf-8")
    with refused(RuntimeError, f"Could not write .*{place}"):
        study.build(ONE, root=here)


def test_a_missing_file_is_named(tmp_path):
    with refused(RuntimeError, "runs.safetensors is missing. Restore it with `git checkout runs."):
        study.load(ONE, tmp_path)
    with refused(RuntimeError, "runs.json is missing. Restore it"):
        study.card(ONE, tmp_path)


def test_a_damaged_file_of_runs_is_named(copy):
    path = ONE.path(copy)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with refused(RuntimeError, "runs.safetensors is damaged or another study's"):
        study.load(ONE, copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "toy"}', "\x00"])
def test_a_damaged_card_is_named(copy, content):
    ONE.card_path(copy).write_text(content, encoding="utf-8")
    for read in (study.card, study.load):
        with refused(RuntimeError, "runs.json is damaged"):
            read(ONE, copy)


def test_one_studys_file_is_not_taken_for_anothers(copy):
    other = replace(ONE, name="other")
    shutil.copytree(copy / "toy", copy / "other")
    for read in (study.card, study.load):
        with refused(RuntimeError, "runs.json is the card of 'toy', not of 'other'"):
            read(other, copy)
    path = ONE.path(copy)  # the other's runs under one's own card
    state = files.load_state(path)
    files.save_state(path, {"with": state["with"]})
    with refused(RuntimeError, "runs.safetensors is damaged or another study's"):
        study.load(ONE, copy)


def test_runs_are_counted_by_setting():
    assert (ONE.runs_of("with"), ONE.runs_of("without")) == (2, 1)
    assert replace(ONE, seeds=3).runs_of("without") == 3
    assert RECIPES["dots-student"] is STUDENT and set(build.STUDIES) == {"03", "04", "05", "06"}
