"""Grades of notebooks that were handed in. The points are the kit's own, and so are the checks."""
from dataclasses import dataclass

from . import needed
from .answers import NOT_WRITTEN
from .judge import Judge
from .points import TABLE, exercises
from .refused import refused
from .submission import Submission, marks, parsed, source

UNREADABLE = "This is no notebook that can be read."
NO_LESSON = "This is no lesson with exercises: neither its cells nor its name tells which."
TWICE = "There are {} cells of this exercise; the last one that defines {} counts."
MOVED = "The exercise's own cell does not define {}; what another cell defines counts."
CHECK_GONE = "The cell of the check is gone. That changes nothing: it is not what grades."
CHECK_EDITED = "The cell of the check was edited. That changes nothing: it is not what grades."
POINTS = "The notebook says {} points. That changes nothing: the kit's own table counts, {}."


@dataclass(frozen=True)
class Result:
    """What an exercise gave.

    Args:
        name: ``ex_3_1``.
        points: what it gave, of ``of``.
        fault: what is wrong, for the learner; "" if nothing is.
        remarks: what the lecturer should know.
        cell: the place of the cell that it is about; None if there is none.
    """
    name: str
    points: int
    of: int
    fault: str = ""
    remarks: tuple[str, ...] = ()
    cell: int | None = None

    @property
    def number(self) -> str:
        """ex_3_1 → 3.1"""
        return self.name[3:].replace("_", ".")


@dataclass(frozen=True)
class Report:
    """What a submission gave: a result for each exercise of its lesson. ``fault`` says why there
    is none, if there is none."""
    submission: Submission
    results: tuple[Result, ...] = ()
    fault: str = ""

    @property
    def points(self) -> int:
        """All that it gave."""
        return sum(result.points for result in self.results)

    @property
    def of(self) -> int:
        """All that it could have given."""
        return sum(result.of for result in self.results)

    @property
    def score(self) -> str:
        """In words."""
        return f"{self.points} of {self.of} points"

    @property
    def full(self) -> bool:
        """Is every exercise right?"""
        return bool(self.results) and self.points == self.of


def grade(submission: Submission, judge: Judge) -> Report:
    """The points of a submission, and why."""
    if submission.notebook is None:
        return Report(submission, fault=UNREADABLE)
    if not submission.lesson:
        return Report(submission, fault=NO_LESSON)
    cells = parsed(submission)
    results = [_result(submission, cells, name, judge) for name in exercises(submission.lesson)]
    return Report(submission, tuple(results))


def _result(submission: Submission, cells: list, name: str, judge: Judge) -> Result:
    function, points = TABLE[name]
    own = [k for k, cell in enumerate(submission.cells) if name in marks(cell)]
    remarks = _about_check(submission, name)
    if len(own) > 1:
        remarks.append(TWICE.format(len(own), function))
    home = _home(cells, own, function)
    if home is None:
        fault = _unreadable(submission, own) or f"No cell defines a function {function}."
    else:
        if home not in own:
            remarks.append(MOVED.format(function))
        fault = _fault(cells, home, name, judge)
        own = [home]
    return Result(name, 0 if fault else points, points, fault, tuple(remarks),
                  own[-1] if own else None)


def _home(cells: list, own: list[int], function: str) -> int | None:
    """The cell whose function is graded: the exercise's own, else any; the last one if several."""
    defining = [k for k, cell in enumerate(cells)
                if any(function in needed.binds(one) for one in cell)]
    found = [k for k in defining if k in own] or defining
    return found[-1] if found else None


def _fault(cells: list, home: int, name: str, judge: Judge) -> str:
    """What is wrong with the function that this cell defines; nothing is run that must not be."""
    chosen = needed.needed(cells, home, TABLE[name].function)
    if needed.blank(chosen, TABLE[name].function):
        return NOT_WRITTEN
    reason = refused(chosen)
    if reason:
        return f"It was not run: it {reason}"
    return judge.fault(name, needed.source(chosen))


def _unreadable(submission: Submission, own: list[int]) -> str:
    """Why Python cannot read the exercise's cell; "" if it can."""
    for k in own:
        try:
            needed.statements(source(submission.cells[k]))
        except SyntaxError as error:
            return f"Python cannot read the cell: {error.msg}, in line {error.lineno}."
        except (ValueError, RecursionError, MemoryError):
            return "Python cannot read the cell."
    return ""


def _about_check(submission: Submission, name: str) -> list[str]:
    """What was done to the cell that checks this exercise."""
    function, points = TABLE[name]
    found = [cell for cell in submission.cells if name.replace("ex_", "check_") in marks(cell)]
    if not found:
        return [CHECK_GONE]
    remarks = []
    if any(source(cell).strip() != f"check.{name}({function})" for cell in found):
        remarks.append(CHECK_EDITED)
    for cell in found:
        said = cell["metadata"].get("nbgrader")
        said = said.get("points", points) if isinstance(said, dict) else points
        if said != points:
            remarks.append(POINTS.format(str(said)[:20], points))
    return remarks
