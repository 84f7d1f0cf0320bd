"""What is out of date, why, and that it is made again in order, resumably, over nobody's work."""
import functools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import refused, stopped_in_step_six
from toys import RECIPES, STUDENT, TEACHER, bytes_of, dot_network, folder

from dmdkit import files, store
from dmdkit.experiments import build, evaluate, explorer, runner, study, tables
from dmdkit.experiments.study import Study

SHORT = STUDENT.changed(n_pairs=0, solver_steps=8)
TOYS = {"dots-student": SHORT, "dots-teacher": TEACHER}  # the student first: order is not given
STUDY = Study("toy", "A setting.", {"one": SHORT.changed(n_steps=1)}, seeds=1, n_images=6,
              n_frames=2, hours=0.5)
PAGE = f"{tables.START}\n{tables.END}\n"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A house in which a teacher, its student and a study of it ship; returns where they do."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("RECIPES", TOYS), ("STUDIES", {"99": STUDY}), ("UNSHIPPED", ()),
                        ("HOME", tmp_path)):
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(explorer, "SHOWN", ())
    monkeypatch.setattr(tables, "LINES", ())
    for name in ("README.md", "RESULTS.md"):
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
    return tmp_path / "data"


@functools.cache
def made() -> Path:
    """A folder with all of it, built once from nothing."""
    return folder() / "built"


@pytest.fixture
def built(house, monkeypatch) -> Path:
    """That house with everything in it built, and nothing in runs."""
    if not made().exists():
        make(house)
        shutil.copytree(house.parent, made())
    else:
        shutil.copytree(made(), house.parent, dirs_exist_ok=True)
    shutil.rmtree("runs")
    return house


def use(monkeypatch, root: Path) -> None:
    """Let the study find its teacher where it ships."""
    monkeypatch.setattr(study, "origin", lambda recipe: study.Sources(
        recipe.task, (root,)).origin(recipe.method.requires))
    honest = runner.Sources
    monkeypatch.setattr(runner, "Sources", lambda task, roots=(root,), device="cpu", given=None:
                        honest(task, roots, device, given))


def make(root: Path, names: list[str] | None = None) -> list[str]:
    """Build what is out of date; returns its names."""
    found = list(build.plan(names, root))
    with pytest.MonkeyPatch.context() as patch:
        use(patch, root)
        for target, _ in found:
            target.make()
    return [target.name for target, _ in found]


def why(root: Path, names: list[str] | None = None) -> dict[str, str]:
    return {target.name: reason for target, reason in build.plan(names, root)}


# What ships

def test_all_that_ships_is_up_to_date():
    assert list(build.plan()) == []


def test_everything_comes_after_what_it_is_made_of():
    known = build.targets()
    order = list(known)
    for name, target in known.items():
        for need in target.needs:
            assert order.index(need) < order.index(name), (need, name)
    assert set(build.RECIPES) - set(build.UNSHIPPED) <= set(order)
    assert {"explorer", "study 03", "study 04", "study 05", "study 06"} <= set(order)
    assert order[-1] == "tables"
    assert set(known["student-dmd"].needs) == {"teacher", "student-dmd-paired"}
    assert known["progressive-4"].needs == ("progressive-8",)
    assert set(known["study 04"].needs) == {"teacher", "teacher-weak"}
    assert set(known["explorer"].needs) == {"teacher", "student-dmd", "student-dmd2"}


def test_all_that_ships_is_in_the_plan():
    assert set(store.names()) == set(build.RECIPES) - set(build.UNSHIPPED)
    runs = {path.parent.name for path in Path(store.ROOT).glob("*/runs.json")}
    assert runs == {one.name for one in build.STUDIES.values()}


# Reasons

def test_from_nothing_everything_is_missing_and_is_made_in_order(house):
    assert why(house) == {"dots-teacher": "it is missing", "dots-student": "it is missing",
                          "study 99": "it is missing",
                          "tables": "README.md and RESULTS.md do not say what the cards say"}
    assert list(house.parent.rglob("*.json")) == []  # a look changes nothing
    assert make(house) == ["dots-teacher", "dots-student", "study 99", "tables"]
    assert why(house) == {}


def test_what_is_made_is_what_its_recipe_makes(built):
    assert store.card("dots-teacher", built)["recipe"]["lr"] == TEACHER.method.lr
    runner.train_artefact("dots-teacher", TEACHER, Path("again"), cpu=True)
    assert bytes_of(built, "dots-teacher") == bytes_of(Path("again"), "dots-teacher")
    assert store.card("dots-student", built)["teacher_sha256"] == \
        store.checksum("dots-teacher", built)


def test_a_changed_recipe_is_named_and_what_is_made_of_it_follows(built, monkeypatch):
    monkeypatch.setitem(TOYS, "dots-teacher", TEACHER.changed(lr=0.5))
    assert why(built) == {
        "dots-teacher": "its recipe has another lr now",
        "dots-student": "it is made of dots-teacher, which is out of date",
        "study 99": "it is made of dots-teacher, which is out of date",
        "tables": "it is made of dots-teacher, which is out of date"}
    assert why(built, ["dots-student"]) == {
        "dots-teacher": "its recipe has another lr now",
        "dots-student": "it is made of dots-teacher, which is out of date"}
    assert why(built, ["dots-teacher"]) == {"dots-teacher": "its recipe has another lr now"}


@pytest.mark.parametrize("change, name", [({"updates": (1, 3)}, "updates"), ({"seed": 4}, "seed"),
                                          ({"n_steps": 9}, "n_steps"), ({"ema": 0.9}, "ema")])
def test_any_setting_that_has_changed_is_noticed(built, monkeypatch, change, name):
    monkeypatch.setitem(TOYS, "dots-student", SHORT.changed(**change))
    assert why(built)["dots-student"] == f"its recipe has another {name} now"
    assert list(why(built)) == ["dots-student", "tables"]


def test_another_teacher_is_noticed(built):
    """By its weights: whoever put it there did not build the rest."""
    card = store.card("dots-teacher", built)
    torch.manual_seed(9)
    store.save(dot_network(), built / "dots-teacher", card, half=True, overwrite=True)
    assert why(built) == {"dots-student": "its teacher is another now",
                          "study 99": "its setting 'one': its teacher is another now",
                          "tables": "it is made of dots-student, which is out of date"}


def test_a_missing_teacher_is_noticed(built):
    shutil.rmtree(built / "dots-teacher")
    found = why(built)
    assert found["dots-teacher"] == "it is missing"
    assert found["dots-student"] == "its teacher is missing"
    assert found["study 99"] == "its setting 'one': its teacher is missing"


@pytest.mark.parametrize("recipes, sentence", [
    ({"one": STUDY.recipes["one"].changed(lr=0.5)}, "its setting 'one' has another lr now"),
    (STUDY.recipes | {"two": SHORT}, "it has no setting 'two'")])
def test_a_changed_study_is_noticed(built, monkeypatch, recipes, sentence):
    monkeypatch.setitem(build.STUDIES, "99", replace(STUDY, recipes=recipes))
    assert why(built)["study 99"] == sentence
    monkeypatch.setitem(build.STUDIES, "99", STUDY)


def test_stale_tables_are_noticed(built):
    evaluate.save("dots-teacher", {
        "sampling": {"sampler": "ddim", "n_steps": 4, "guidance": 0.0}, "noise": "report",
        "seed": 0, "images": 6, "values": {"classifier": {"frechet_distance": 1.0}}}, built)
    evaluate.save("dots-teacher", {
        "sampling": {"sampler": "ddpm", "n_steps": 4, "guidance": 0.0}, "noise": "report",
        "seed": 0, "images": 6, "values": {"classifier": {"frechet_distance": 1.0}}}, built)
    assert why(built) == {"tables": "RESULTS.md do not say what the cards say"}


def test_pictures_of_another_model_are_noticed(built, monkeypatch):
    monkeypatch.setattr(explorer, "SHOWN", ("dots-teacher",))
    assert why(built) == {"explorer": "the pictures of dots-teacher are missing"}
    card = {"axes": {}, "frame": [1, 1], "sha256": "", "model_sha256": "0"}
    files.write_json(built / "explorer" / "dots-teacher.json", card)
    assert why(built) == {"explorer": "dots-teacher is another now"}
    now = store.checksum("dots-teacher", built)
    files.write_json(built / "explorer" / "dots-teacher.json", card | {"model_sha256": now})
    assert why(built) == {}


def test_an_unknown_name_is_named():
    with refused(ValueError, "Nothing that ships is called 'teachr'; there are classifier, judge"):
        list(build.plan(["teachr"]))
    with refused(ValueError, "There is no recipe for 'teachr'; there are classifier, judge, teach"):
        build.recipe("teachr")
    with refused(ValueError, "There is no study of lesson '07'; there are 03, 04, 05, 06."):
        build.study_of("07")


def test_a_damaged_card_is_named(built):
    (built / "dots-teacher" / "card.json").write_text("{", encoding="utf-8")
    with refused(RuntimeError, "dots-teacher/card.json is damaged"):
        why(built)


# Making it again

def test_a_stopped_build_goes_on_where_it_was(built, monkeypatch):
    monkeypatch.setitem(TOYS, "dots-student", SHORT.changed(lr=0.02))
    with stopped_in_step_six(monkeypatch), pytest.raises(KeyboardInterrupt):
        make(built, ["dots-student"])
    checkpoint = Path("runs/dots-student.training") / runner.CHECKPOINT
    assert files.load_state(checkpoint)["step"] > 0
    steps = []
    honest = runner._follow

    def follow(records, log, n_steps, resume, main):
        def seen():
            for record in records:
                steps.append(record.step)
                yield record

        return honest(seen(), log, n_steps, resume, main)

    monkeypatch.setattr(runner, "_follow", follow)
    assert make(built, ["dots-student"]) == ["dots-student"]
    assert steps[0] > 1 and steps[-1] == 6 and why(built, ["dots-student"]) == {}


def test_a_student_is_made_of_the_teacher_that_ships(built, monkeypatch):
    """And not of one of that name that somebody trains in runs."""
    runner.train_artefact("dots-teacher", TEACHER.changed(n_steps=1), Path("runs"), cpu=True)
    monkeypatch.setitem(TOYS, "dots-student", SHORT.changed(lr=0.02))
    make(built, ["dots-student"])
    assert why(built, ["dots-student"]) == {}


def test_somebodys_work_in_runs_is_not_overwritten(built, monkeypatch):
    runner.train_artefact("dots-teacher", TEACHER.changed(n_steps=1), Path("runs"), cpu=True)
    before = bytes_of(Path("runs"), "dots-teacher")
    monkeypatch.setitem(TOYS, "dots-teacher", TEACHER.changed(lr=0.5))
    sentence = "runs holds another dots-teacher than is to be made: its recipe has another lr now"
    with refused(RuntimeError, sentence):
        build.check_runs("dots-teacher", built)
    with refused(RuntimeError, sentence):
        make(built, ["dots-teacher"])
    assert bytes_of(Path("runs"), "dots-teacher") == before


def test_somebodys_unfinished_training_in_runs_is_not_overwritten(built, monkeypatch):
    with stopped_in_step_six(monkeypatch), pytest.raises(KeyboardInterrupt):
        runner.train_artefact("dots-student", SHORT, Path("runs"), cpu=True, roots=(built,))
    monkeypatch.setitem(TOYS, "dots-student", SHORT.changed(lr=0.5))
    with refused(RuntimeError, "runs holds another dots-student than is to be made: its recipe"):
        build.check_runs("dots-student", built)


def test_a_copy_of_what_ships_is_moved_aside_and_not_deleted(built, monkeypatch):
    """What an earlier build left in runs is no reason to stop."""
    monkeypatch.setitem(TOYS, "dots-student", SHORT.changed(lr=0.02))
    make(built, ["dots-student"])
    before = bytes_of(built, "dots-student")
    monkeypatch.setitem(TOYS, "dots-student", SHORT.changed(lr=0.03))
    build.check_runs("dots-student", built)
    make(built, ["dots-student"])
    assert why(built, ["dots-student"]) == {} and bytes_of(built, "dots-student") != before
    aside, = Path("runs").glob("before-*")
    assert bytes_of(aside, "dots-student") == before
    assert (aside / "dots-student.training" / runner.CHECKPOINT).exists()


def test_what_somebody_trained_by_the_recipe_is_taken(built, monkeypatch):
    recipe = SHORT.changed(lr=0.02)
    runner.train_artefact("dots-student", recipe, Path("runs"), cpu=True, roots=(built,))
    monkeypatch.setitem(TOYS, "dots-student", recipe)
    monkeypatch.setattr(build, "train_artefact", lambda *args, **options: pytest.fail("again"))
    make(built, ["dots-student"])
    assert bytes_of(built, "dots-student") == bytes_of(Path("runs"), "dots-student")
    assert RECIPES["dots-student"] is STUDENT
