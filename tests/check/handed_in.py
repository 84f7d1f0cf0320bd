"""Notebooks as learners hand them in: a lesson's exercises and checks, with the tests' answers."""
import json
from pathlib import Path

from exercises import nbgrader_cells, stub

from dmdkit.check.points import TABLE, exercises

BLANK = "raise NotImplementedError()"


def cell(source: str, name: str, **nbgrader) -> dict:
    """A code cell; with settings, one of nbgrader's."""
    meta = {"nbgrader": {"grade_id": name, **nbgrader}} if nbgrader else {}
    return {"cell_type": "code", "id": name, "metadata": meta, "source": source,
            "execution_count": None, "outputs": []}


def check_cell(name: str) -> dict:
    """The cell that checks an exercise in the notebook."""
    function, points = TABLE[name]
    return cell(f"check.{name}({function})", name.replace("ex_", "check_"), points=points)


def notebook(lesson: int, answers: dict[str, str] | str = BLANK, before: str = "") -> dict:
    """A lesson that was handed in.

    Args:
        answers: the source of exercises' cells. Those that are not given are as they were handed
            out; all of them for BLANK. Or "solved": all are the lesson's own.
        before: a cell at the beginning.
    """
    cells = [cell("import torch\nfrom dmdkit import check", "imports"), cell(before, "before")]
    for name in exercises(lesson):
        source = nbgrader_cells(graded=False)[name] if answers == "solved" else stub(name, BLANK)
        given = answers.get(name, source) if isinstance(answers, dict) else source
        cells += [cell(given, name, solution=True), check_cell(name)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def write(notebook: dict, path: Path) -> Path:
    """Put it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
