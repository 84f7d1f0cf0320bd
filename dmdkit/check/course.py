"""A course to set: an nbgrader folder for the lecturer, and a zip for students without answers."""
import copy
import csv
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from .. import check
from ..disk import write_atomically
from . import recorded
from .points import TABLE, exercises, lesson_of

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ("LICENSE", "README.md", "RESULTS.md", "pyproject.toml", "environment.yml", "Makefile",
         "dmdkit", "data", "tools")
LEFT_OUT = ("*/__pycache__/*", "*.part", "*/raw/*ubyte", "data/FashionMNIST/*", "data/cifar-10*",
            "data/celeba/*", "dmdkit/check/*")
# Of dmdkit/check: those that hold no answer.
CHECKS = ("answers", "diagnosis", "harness", "probes", "recorded", "relations", "standins",
          "substitutes", "terms", "trial", "wire", "yours")
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION.*?### END SOLUTION", re.M | re.S)
HINT = re.compile(r"<details><summary>Hint \d+</summary>.*?</details>\n?", re.S)
CONFIG = '''\
import os

c = get_config()  # noqa: F821, nbgrader defines it
c.CourseDirectory.course_id = "dmdkit"
os.environ["DMDKIT_FAST"] = "1"  # short trainings: exercises do not depend on them
c.Execute.timeout = 900  # seconds a cell; nbgrader's own 30 end trainings
c.Execute.iopub_timeout = 60
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}
'''
INIT = '''\
"""Checks of the lessons' exercises: ``check.ex_k_j(your_function)``. Their answers are numbers."""
from pathlib import Path

from .harness import CheckFailed, Exercise
from .recorded import read
from .yours import yours_or

globals().update(read(Path(__file__).parent))
'''


def write(out: Path, lessons: Sequence[int] = (), hints: bool = True, root: Path = ROOT) -> Path:
    """Write the course into a new folder: nbgrader_config.py, source/, points.csv, students.zip.

    Args:
        lessons: their numbers; all by default.
        hints: whether the exercises keep their folded hints.
        root: the clone that notebooks and data are taken from.
    Raises RuntimeError if the folder is not new or there are no notebooks, ValueError for a lesson
    without exercises.
    """
    notebooks = _notebooks(root, lessons)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RuntimeError(f"{out} is there already and is left as it is. Choose a new folder.")
    for lesson, path in notebooks.items():
        content = _prepared(json.loads(path.read_text(encoding="utf-8")), hints)
        _write(out / "source" / name_of(lesson) / path.name, _without_outputs(content))
    write_atomically(out / "nbgrader_config.py", CONFIG.encode("utf-8"))
    write_atomically(out / "points.csv", _points(notebooks).encode("utf-8"))
    students = out / "students.zip"
    with zipfile.ZipFile(students, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, content in _for_students(root, notebooks, hints):
            packed.writestr(f"dmdkit/{name}", content)
    return out


def name_of(lesson: int = 1) -> str:
    """What the assignment of a lesson is called."""
    return f"lesson{lesson:02}"


def _notebooks(root: Path, lessons: Sequence[int]) -> dict[int, Path]:
    """The notebooks with solutions, by lesson."""
    folder = root / "notebooks" / "solutions"
    there = {int(path.name[:2]): path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    there = {lesson: path for lesson, path in there.items() if exercises(lesson)}
    if not there:
        raise RuntimeError(f"There are no lessons in {folder}. A course is made from the clone of "
                           "the kit: git clone it, and run this there.")
    for lesson in lessons:
        if lesson not in there:
            raise ValueError(f"Lesson {lesson:02} has no exercises; those are in "
                             f"{', '.join(f'{one:02}' for one in there)}.")
    return {lesson: there[lesson] for lesson in lessons or there}


def _prepared(notebook: dict, hints: bool) -> dict:
    """With or without hints."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"] if not hints else ():
        if cell["cell_type"] == "markdown":
            text = HINT.sub("", "".join(cell["source"]))
            cell["source"] = text.splitlines(keepends=True)
    return notebook


def _without_outputs(notebook: dict) -> dict:
    for cell in notebook["cells"]:
        _clear(cell)
    return notebook


def _clear(cell: dict) -> None:
    if cell["cell_type"] == "code":
        cell.update(outputs=[], execution_count=None)


def _graded(cell: dict) -> bool:
    return bool(cell["metadata"].get("nbgrader"))


def blank(notebook: dict) -> dict:
    """As learners open it: without solutions, and without what the checks said of them."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        if _graded(cell):
            text = SOLUTION.sub(_stub, "".join(cell["source"]))
            cell["source"] = text.splitlines(keepends=True)
            _clear(cell)
    return notebook


def _blank_again(notebook: dict, solutions: Path) -> dict:
    """A lesson whose exercises are as learners open them, whatever was tried in them since."""
    if not solutions.exists():  # a lesson without exercises
        return notebook
    source = json.loads(solutions.read_text(encoding="utf-8"))
    exercises = {cell["id"]: cell for cell in blank(source)["cells"] if _graded(cell)}
    cells = [exercises.get(cell.get("id"), cell) for cell in notebook["cells"]]
    return notebook | {"cells": cells}


def _stub(found: re.Match) -> str:
    return "\n".join(found[1] + line for line in STUB.splitlines())


def _write(path: Path, notebook: dict) -> None:
    write_atomically(path, _text(notebook))


def _text(notebook: dict) -> bytes:
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _points(lessons: Sequence[int]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["lesson", "exercise", "function", "points"])
    for name, (function, points) in TABLE.items():
        if lesson_of(name) in lessons:
            writer.writerow([lesson_of(name), name[3:].replace("_", "."), function, points])
    return text.getvalue()


def _for_students(root: Path, notebooks: dict[int, Path],
                  hints: bool) -> Iterator[tuple[str, bytes]]:
    """(name, content) of what students get: library, data, blank notebooks, recorded checks."""
    for path in sorted(path for name in GIVEN for path in _files(root / name)):
        name = path.relative_to(root).as_posix()
        if not any(fnmatch(name, pattern) for pattern in LEFT_OUT):
            yield name, path.read_bytes()
    names = [path.name for path in (root / "notebooks").glob("00_*.ipynb")]
    for name in [*names, *(path.name for path in notebooks.values())]:
        content = json.loads((root / "notebooks" / name).read_text(encoding="utf-8"))
        content = _blank_again(content, root / "notebooks" / "solutions" / name)
        yield f"notebooks/{name}", _text(_prepared(content, hints))
    yield "dmdkit/check/__init__.py", INIT.encode("utf-8")
    for name in CHECKS:
        yield f"dmdkit/check/{name}.py", (root / f"dmdkit/check/{name}.py").read_bytes()
    yield from _recorded()


def _files(path: Path) -> Iterator[Path]:
    return filter(Path.is_file, path.rglob("*")) if path.is_dir() else iter([path] * path.exists())


def _recorded() -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        recorded.write({name: getattr(check, name) for name in TABLE}, Path(folder))
        for path in sorted(Path(folder).iterdir()):
            yield f"dmdkit/check/{path.name}", path.read_bytes()
