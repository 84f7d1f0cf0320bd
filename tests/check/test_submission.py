"""Notebooks as Canvas, Moodle and nbgrader hand them in; the table and the notes of grades."""
import copy
import csv
import io
import json
import sys
import zipfile
from pathlib import Path, PurePosixPath

import nbformat
import pytest
from handed_in import notebook, write

from dmdkit import __main__ as command_line
from dmdkit.check import report
from dmdkit.check.grade import NO_LESSON, UNREADABLE, Report, Result, grade
from dmdkit.check.submission import Submission, find

NOTEBOOK = json.dumps(notebook(3)).encode()


def pack(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def found(tmp_path):
    """The submissions in a zip of these files."""
    def unpack(files: dict[str, bytes]) -> list[Submission]:
        (tmp_path / "all.zip").write_bytes(pack(files))
        return find(tmp_path / "all.zip")
    return unpack


@pytest.mark.parametrize("name, student", [
    ("noether_12345_678_03_dmd_in_2d.ipynb", "noether"),
    ("noether_LATE_12345_678_03_dmd_in_2d-1.ipynb", "noether"),
    ("Emmy Noether_123_assignsubmission_file_/03_dmd_in_2d.ipynb", "Emmy Noether"),
    ("noether/lesson03/03_dmd_in_2d.ipynb", "all"),
])
def test_the_student_is_found_in_the_names_of_canvas_and_moodle(name, student, found):
    one, = found({name: NOTEBOOK})
    assert (one.student, one.lesson, str(one.place)) == (student, 3, f"all/{name}")


def test_a_folder_is_read_as_nbgrader_collects_it(tmp_path):
    write(notebook(3), tmp_path / "noether" / "dmd" / "03_dmd_in_2d.ipynb")
    write(notebook(3), tmp_path / "noether" / "dmd" / ".ipynb_checkpoints" / "03-check.ipynb")
    (tmp_path / "hilbert").mkdir()
    (tmp_path / "hilbert" / "work.zip").write_bytes(pack({"03.ipynb": NOTEBOOK, "a.txt": b""}))
    assert [one.student for one in find(tmp_path)] == ["hilbert", "noether"]


def test_what_is_no_notebook_is_a_submission_that_cannot_be_read(found):
    bad = {"a.ipynb": b"", "b.ipynb": b"[]", "c.ipynb": b'{"cells": [{"source": 3}]}',
           "d.ipynb": b"[" * 10**5, "e.zip": b"PK", "f.ipynb": "\ufeff{}".encode("utf-16"),
           "g.zip": pack({"h.zip": pack({"i.ipynb": NOTEBOOK})})}
    reports = [grade(one, None) for one in found(bad)]
    assert len(reports) == len(bad) and {one.fault for one in reports} == {UNREADABLE}


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_damaged_within_costs_nobody_else_a_grade(found, kind):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as packed:
        packed.writestr("a.ipynb", bytes(range(256)) * 40)
    damaged = bytearray(stream.getvalue())
    damaged[60:120] = bytes(60)
    bad, good = found({"a/work.zip": bytes(damaged), "b/03.ipynb": NOTEBOOK})
    assert bad.notebook is None and good.notebook


def test_a_notebook_of_no_lesson_is_told_so(found):
    one, = found({"a.ipynb": json.dumps({"cells": []}).encode()})
    assert grade(one, None).fault == NO_LESSON
    one, = found({"x_04_dmd_mnist.ipynb": json.dumps({"cells": []}).encode()})
    assert one.lesson == 4
    one, = found({"08_in_colour.ipynb": json.dumps({"cells": []}).encode()})
    assert one.lesson == 8


def test_names_in_a_zip_lead_nowhere_else(found, tmp_path):
    one, two = found({"../../up.ipynb": NOTEBOOK, "/root.ipynb": NOTEBOOK})
    report.write_feedback([Report(one), Report(two)], tmp_path / "new")
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ipynb"))
    assert names == ["new/all/root.ipynb", "new/all/up.ipynb"]


def test_nothing_to_grade_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="holds no notebook"):
        find(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no"):
        find(tmp_path / "gone")


# The table and the notes

def graded(student: str = "noether", content: dict | None = None, fault: str = "") -> Report:
    results = (Result("ex_3_1", 2, 2, cell=2), Result("ex_3_2", 0, 2, fault, ("a remark",)))
    return Report(Submission(PurePosixPath("03.ipynb"), student, content or notebook(3)), results)


def test_the_table_has_a_row_for_each_submission():
    rows = list(csv.DictReader(io.StringIO(report.table([graded(fault="It is wrong.")], seed=5))))
    assert rows == [{"student": "noether", "submission": "03.ipynb", "lesson": "3", "points": "2",
                     "of": "4", "3.1": "2", "3.2": "0", "seed": "5",
                     "notes": "3.2: It is wrong. | 3.2: a remark"}]


def test_no_name_becomes_a_formula_in_a_spreadsheet():
    assert "'=HYPERLINK" in report.table([graded("=HYPERLINK(1)")], 0)


def test_a_note_stands_under_each_exercise_and_the_notebook_is_as_it_was():
    before = notebook(3)
    one = graded(content=before, fault="It raised E: <script>alert(1)</script>[a](b)")
    after = report.annotated(one)
    nbformat.validate(nbformat.from_dict(after))
    assert before == notebook(3)
    notes = ["".join(cell["source"]) for cell in after["cells"] if cell["cell_type"] == "markdown"]
    assert notes[0] == "**2 of 4 points**" and "✓ Exercise 3.1: 2 of 2 points." in notes[1]
    assert "&lt;script&gt;" in notes[2] and "\\[a]" in notes[2] and "a remark" in notes[2]
    places = [cell.get("id") for cell in after["cells"]]
    assert places.index("feedback_ex_3_1") == places.index("ex_3_1") + 1
    again = report.annotated(graded(content=copy.deepcopy(after)))
    nbformat.validate(nbformat.from_dict(again))


# The command line

@pytest.fixture
def run(monkeypatch, capsys):
    def main(*words) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dmdkit", *map(str, words)])
        code = command_line.main()
        return code, "".join(capsys.readouterr())
    return main


def test_the_command_line_grades_and_overwrites_nothing(run, tmp_path):
    path = write(notebook(3), tmp_path / "in" / "03_dmd_in_2d.ipynb")
    before = path.read_bytes()
    csv_path, feedback = tmp_path / "out.csv", tmp_path / "notes"
    code, said = run("grade", path, "--csv", csv_path, "--feedback", feedback, "--seed", 3)
    assert code == 0 and "03_dmd_in_2d.ipynb: 0 of 15 points" in said
    assert csv_path.exists() and Path(feedback, path.name).exists()
    assert path.read_bytes() == before
    for words in (("--csv", csv_path), ("--feedback", feedback), ("--feedback", csv_path)):
        code, said = run("grade", path, *words)
        assert code == 1 and "is left as it is" in said
    for words in (("--seed", -1), ("--seconds", 0)):
        code, said = run("grade", path, *words)
        assert code == 1 and "must be a whole number" in said
    code, said = run("course", tmp_path)
    assert code == 1 and "is left as it is" in said
    code, said = run("grade", path, "--require-all")
    assert code == 1 and "1 of 1 notebooks lack points" in said
