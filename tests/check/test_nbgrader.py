"""The course under nbgrader itself: assignments are made, executed and graded, feedback is written.

The lesson is only its exercises and checks, so that it takes seconds.
"""
import copy
import csv
import json
import os
import subprocess
import sys

import pytest
from exercises import NOTEBOOKS
from handed_in import write

from dmdkit.check import course, lecturer

pytest.importorskip("nbgrader")
pytest.importorskip("ipykernel")

NAME = "03_dmd_in_2d.ipynb"


def exercises_alone() -> dict:
    """The lesson without what stands around its exercises."""
    lesson = json.loads((NOTEBOOKS / NAME).read_text(encoding="utf-8"))
    start = {"cell_type": "code", "id": "start", "metadata": {}, "execution_count": None,
             "outputs": [], "source": "import torch\nfrom dmdkit import check"}
    graded = [cell for cell in lesson["cells"] if "nbgrader" in cell["metadata"]]
    return {**lesson, "cells": [start, *graded]}


def run(folder, *words: str) -> None:
    """nbgrader, in the course's folder."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=folder, text=True,
                          capture_output=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr[-2000:]


def hand_in(folder, solved: dict) -> None:
    """Three students: all exercises right, the first two, and none."""
    blank = json.loads((folder / "release" / "lesson03" / NAME).read_text(encoding="utf-8"))
    answers = [cell for cell in solved["cells"] if cell["id"].startswith("ex_")]
    for student, n in (("perfect", 5), ("half", 2), ("blank", 0)):
        notebook = copy.deepcopy(blank)
        sources = {cell["id"]: cell["source"] for cell in answers[:n]}
        for cell in notebook["cells"]:
            cell["source"] = sources.get(cell["id"], cell["source"])
        write(notebook, folder / "submitted" / student / "lesson03" / NAME)


def test_nbgrader_and_the_kits_grades_agree(tmp_path):
    solved = exercises_alone()
    for folder, lesson in (("notebooks/solutions", solved), ("notebooks", course.blank(solved))):
        write(lesson, tmp_path / "clone" / folder / NAME)
    for name in course.CHECKS:
        path = tmp_path / "clone" / "dmdkit" / "check" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = course.write(tmp_path / "course", (3,), root=tmp_path / "clone")
    run(folder, "generate_assignment", "lesson03")
    hand_in(folder, solved)
    for verb in ("autograde", "generate_feedback"):
        run(folder, verb, "lesson03")
    run(folder, "export")
    rows = csv.DictReader((folder / "grades.csv").open(encoding="utf-8"))
    scores = {row["student_id"]: float(row["score"]) for row in rows}
    assert scores == {"perfect": 15, "half": 4, "blank": 0}
    assert len(list(folder.glob("feedback/*/lesson03/*.html"))) == 3
    reports = lecturer.grade([folder / "submitted"], say=lambda text: None)
    assert {one.submission.student: one.points for one in reports} == scores
