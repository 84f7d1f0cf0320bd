"""What grading wrote down: a table as CSV, and notebooks with a note under each exercise."""
import copy
import csv
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

from ..disk import write_atomically
from .grade import Report, Result
from .points import TABLE

NOTE = "feedback_"  # what the notes' cells are called
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


# The table

def table(reports: Sequence[Report], seed: int) -> str:
    """A row for each submission, as CSV: its points, those of each exercise, and notes."""
    names = [name for name in TABLE
             if any(name == result.name for report in reports for result in report.results)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = [name[3:].replace("_", ".") for name in names]
    writer.writerow(["student", "submission", "lesson", "points", "of", *numbers, "notes", "seed"])
    for report in reports:
        writer.writerow(map(_harmless, _row(report, names, seed)))
    return text.getvalue()


def _row(report: Report, names: Sequence[str], seed: int) -> list:
    one = report.submission
    points = {result.name: result.points for result in report.results}
    notes = [f"{result.number}: {note}" for result in report.results for note in _notes(result)]
    return [one.student, str(one.place), one.lesson or "", report.points, report.of,
            *(points.get(name, "") for name in names), " | ".join(notes) or report.fault, seed]


def _notes(result: Result) -> list[str]:
    return [note for note in (result.fault, *result.remarks) if note]


def _harmless(value):
    """A text that a spreadsheet takes for a formula, made one that it does not."""
    if isinstance(value, str) and value.startswith(FORMULAS):
        return f"'{value}"
    return value


# The notebooks

def write_feedback(reports: Sequence[Report], folder: Path) -> None:
    """A copy of each notebook with a note under each exercise, in a new folder."""
    for report in reports:
        if report.submission.notebook is not None:
            path = _free(folder / report.submission.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(annotated(report), indent=1, ensure_ascii=False) + "\n"
            write_atomically(path, text.encode("utf-8", "replace"))


def _free(path: Path) -> Path:
    """This path, or the next one that no other submission has taken."""
    k = 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.stem}-{k}{path.suffix}")
        k += 1
    return free


def annotated(report: Report) -> dict:
    """The notebook with its points at the top and a note under each exercise."""
    notebook = copy.deepcopy(report.submission.notebook)
    with_ids = any("id" in cell for cell in notebook["cells"])  # as notebooks of format 4.5 have
    notes = {}
    for result in report.results:
        notes.setdefault(result.cell, []).append(_note(result))
    total = report.fault or f"**{report.score}**"
    cells = [_cell("points", total, with_ids)]
    for k, cell in enumerate(notebook["cells"]):
        if not str(cell.get("id")).startswith(NOTE):
            cells.append(cell)
        cells += [_cell(name, text, with_ids) for name, text in notes.get(k, ())]
    cells += [_cell(name, text, with_ids) for name, text in notes.get(None, ())]
    return {**notebook, "cells": cells}


def _note(result: Result) -> tuple[str, str]:
    mark = "✗" if result.fault else "✓"
    lines = [f"**{mark} Exercise {result.number}: {result.points} of {result.of} points.**",
             *_notes(result)]
    return result.name, "\n\n".join([lines[0], *map(_plain, lines[1:])])


def _plain(text: str) -> str:
    """A sentence, part of which a learner's code may have chosen, as Markdown shows it."""
    return html.escape(text, quote=False).replace("[", "\\[").replace("$", "\\$")


def _cell(name: str, text: str, with_id: bool) -> dict:
    cell = {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}
    return {"cell_type": "markdown", "id": NOTE + name, **cell} if with_id else cell
