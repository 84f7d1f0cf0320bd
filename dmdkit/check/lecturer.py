"""What a lecturer asks of the kit, as the command line does it."""
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from ..disk import write_atomically
from . import course as courses
from . import report, submission
from .grade import Report
from .grade import grade as grade_one
from .judge import Judge


def grade(paths: Sequence[Path], say: Callable[[str], None], csv: Path | None = None,
          feedback: Path | None = None, seed: int | None = None, seconds: float = 10,
          require_all: bool = False) -> list[Report]:
    """Grade notebooks that were handed in.

    Args:
        paths: notebooks, folders of them, zips.
        say: is told each result.
        csv: the table to write; feedback: the folder for notebooks with notes. Both must be new.
        seed: of the inputs that functions are tried on; None takes one that nobody knows before.
        seconds: for each exercise.
        require_all: raise RuntimeError, after all is written, unless all points are reached.
    """
    _check_new(csv, feedback)
    if seed is not None and not 0 <= seed < 2**31 or not seconds > 0:
        raise ValueError("The seed must be a whole number from 0 to 2147483647, and the seconds "
                         f"more than 0; got {seed} and {seconds:g}.")
    found = [one for path in paths for one in submission.find(path)]
    seed = secrets.randbelow(2**31) if seed is None else seed
    say(f"Grading {len(found)} notebooks on seed {seed}, some seconds each.")
    reports = []
    with Judge(seed, seconds) as judge:
        for one in found:
            reports.append(grade_one(one, judge))
            say(f"{one.place}: {reports[-1].fault or reports[-1].score}")
    if csv:
        write_atomically(csv, report.table(reports, seed).encode("utf-8-sig", "replace"))
    if feedback:
        report.write_feedback(reports, feedback)
    short = sum(not one.full for one in reports)
    if require_all and short:
        raise RuntimeError(f"{short} of {len(reports)} notebooks lack points.")
    return reports


def _check_new(csv: Path | None, feedback: Path | None) -> None:
    """Raises RuntimeError where results would be written over something."""
    if csv and csv.exists():
        raise RuntimeError(f"{csv} is there already and is left as it is. Choose another name.")
    if feedback and feedback.exists() and (not feedback.is_dir() or any(feedback.iterdir())):
        raise RuntimeError(f"{feedback} is there already and is left as it is. Choose a new folder "
                           "for --feedback.")


def course(out: Path, say: Callable[[str], None], lessons: Sequence[int] = (),
           hints: bool = True) -> None:
    """Write an nbgrader course and the students' zip into a new folder."""
    courses.write(out, lessons, hints)
    say(f"Written to {out}. Students get students.zip, which holds no answer. For nbgrader: cd "
        f"{out}, then nbgrader generate_assignment {courses.name_of(*lessons[:1])}.")
