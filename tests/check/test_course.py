"""The course that is set: what students get checks as the lessons do, and holds no answer."""
import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from exercises import EXERCISES, ROOT, name_of, nbgrader_cells, solution, verdict

from dmdkit.__main__ import parser
from dmdkit.check import course, recorded
from dmdkit.check.points import TABLE, exercises, lesson_of

LESSONS = (3, 6)
LESSONS_WITH_EXERCISES = sorted({lesson_of(name) for name in TABLE})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a course of two lessons without hints, from a clone with next to no data."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("dmdkit", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", root / "pyproject.toml")
    _try_out(root / "notebooks" / "03_dmd_in_2d.ipynb")
    for name in ("data/MNIST/raw/train-images-idx3-ubyte", "data/teacher/card.json"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"{}")
    return course.write(tmp_path_factory.mktemp("course") / "new", LESSONS, hints=False, root=root)


def _try_out(path) -> None:
    """Solve an exercise in the notebook that learners open, as a lecturer may."""
    lesson = json.loads(path.read_text(encoding="utf-8"))
    cell = next(cell for cell in lesson["cells"] if cell["id"] == "ex_3_1")
    cell["source"], cell["outputs"] = [nbgrader_cells(graded=False)["ex_3_1"]], []
    path.write_text(json.dumps(lesson), encoding="utf-8")


@pytest.fixture(scope="module")
def handed_out(made):
    """The files of the students' zip."""
    packed = zipfile.ZipFile(made / "students.zip")
    return {name: packed.read(name) for name in packed.namelist()}


def test_the_lecturers_folder_holds_sources_without_outputs_and_the_points(made):
    sources = sorted(made.glob("source/*/*.ipynb"))
    assert [path.parent.name for path in sources] == ["lesson03", "lesson06"]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        cells = json.loads(text)["cells"]
        assert text.count("### BEGIN SOLUTION") >= 4 and "<summary>Hint" not in text
        assert not any(cell.get("outputs") for cell in cells)
    rows = list(csv.DictReader((made / "points.csv").open(encoding="utf-8")))
    assert sum(int(row["points"]) for row in rows) == 15 + 14
    compile((made / "nbgrader_config.py").read_text(encoding="utf-8"), "config", "exec")


def test_the_students_zip_holds_no_solution_no_oracle_and_no_test(handed_out):
    names = {name.removeprefix("dmdkit/") for name in handed_out}
    assert {"pyproject.toml", "data/teacher/card.json", "notebooks/00_start_here.ipynb",
            "dmdkit/methods/dmd.py", "dmdkit/check/trial.py"} <= names
    assert not any("tests/" in name or "solutions" in name or "ubyte" in name or
                   "check/lesson" in name or "check/judge" in name for name in names)
    code = b"\n".join(content for name, content in handed_out.items()
                      if "/check/" in name and name.endswith(".py"))
    for exercise in EXERCISES.values():
        assert f"def {exercise.oracle.__name__}(".encode() not in code
    lessons = [json.loads(content) for name, content in handed_out.items() if ".ipynb" in name]
    cells = [cell for lesson in lessons for cell in lesson["cells"]]
    graded = [cell for cell in cells if "nbgrader" in cell["metadata"]]
    assert len(graded) == 2 * (5 + 4) and not any(cell["outputs"] for cell in graded)
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert "SOLUTION" not in text and "<summary>Hint" not in text
    assert text.count("# YOUR CODE HERE\n    raise NotImplementedError()") == 5 + 4


def test_the_students_edition_checks_without_the_files_that_are_left_out(handed_out, tmp_path):
    for name, content in handed_out.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = nbgrader_cells(graded=False)["ex_3_1"]
    code = (f"import torch\nfrom dmdkit import check\n{source}\ncheck.ex_3_1({name_of(source)})\n"
            "check.ex_3_1(lambda *of: None)\nprint(check.__file__, check.ex_3_1.oracle)")
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "dmdkit", text=True,
                          encoding="utf-8", capture_output=True, env={"PYTHONUTF8": "1"})
    assert "✓ Right" in said.stdout and "✗ It returned None" in said.stdout, said.stderr
    assert str(tmp_path) in said.stdout and said.stdout.endswith("None\n")


@pytest.fixture(scope="module")
def written_down(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    recorded.write(EXERCISES, folder)
    return recorded.read(folder)


@pytest.mark.parametrize("name", TABLE)
def test_a_recorded_check_says_what_the_lessons_check_says(name, written_down, capsys):
    def said(exercise, function) -> str:
        exercise(function)
        return capsys.readouterr().out

    lessons, students = EXERCISES[name], written_down[name]
    assert said(students, solution(name)) == said(lessons, solution(name))
    for wrong in (list(lessons.mistakes.values())[-1], lambda *case: None):
        assert said(students, wrong) == said(lessons, wrong)


def test_what_is_there_is_left_as_it_is(made):
    with pytest.raises(RuntimeError, match="is left as it is"):
        course.write(made, LESSONS)
    with pytest.raises(ValueError, match="Lesson 07 has no exercises"):
        course.write(made / "other", (7,))
    with pytest.raises(RuntimeError, match="git clone"):
        course.write(made / "other", root=made)
    assert not (made / "other").exists()


# The guide

GUIDE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")


def test_the_guides_points_are_those_that_count():
    said = re.findall(r"^\| \d \| (\d\d) [^|]* \| (\d+) \|", GUIDE, re.M)
    wanted = {f"{lesson:02}": sum(one.points for one in exercises(lesson).values())
              for lesson in LESSONS_WITH_EXERCISES}
    assert {lesson: int(points) for lesson, points in said} == wanted


@pytest.mark.parametrize("words", re.findall(r"python -m dmdkit ([^`#\n]+)", GUIDE))
def test_the_guides_commands_are_understood(words):
    assert parser().parse_args(words.split()).verb in ("course", "grade")
