"""The lessons' exercises, as their tests see them: solutions, wrong answers, verdicts."""
import inspect
import re
from functools import cache
from pathlib import Path

import nbformat
import torch

from dmdkit import check
from dmdkit.check.harness import Exercise

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
EXERCISES = {name: getattr(check, name) for name in check.__all__
             if isinstance(getattr(check, name), Exercise)}


@cache
def nbgrader_cells(graded: bool) -> dict[str, str]:
    """Source by grade_id, of all lessons: the cells that learners write, or the ones that check."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            meta = cell.metadata.get("nbgrader")
            if meta and meta["grade"] == graded:
                assert meta["grade_id"] not in found, f"{path.name} repeats {meta['grade_id']}"
                found[meta["grade_id"]] = cell.source
    return found


def name_of(source: str) -> str:
    """The name of the function that a cell defines."""
    return re.search(r"^def (\w+)", source, re.M).group(1)


def run(source: str, **scope):
    """The function that a cell defines, where these names are known besides torch."""
    scope = {"torch": torch, **scope}
    exec(source, scope)
    return scope[name_of(source)]


def solution(name: str):
    """The lesson's own solution of an exercise."""
    return run(nbgrader_cells(graded=False)[name])


def stub(name: str, body: str) -> str:
    """The cell as a learner finds it, with this where the solution was (as nbgrader does it)."""
    source = nbgrader_cells(graded=False)[name]
    new, n = re.subn(r"( *)### BEGIN SOLUTION.*?### END SOLUTION",
                     lambda found: "\n".join(found[1] + line for line in body.split("\n")),
                     source, flags=re.S)
    assert n == 1
    return new


def answered(name: str, answer: str, before: str = ""):
    """The exercise's function with `return answer` as its body, after the lines in ``before``.

    Both may use ``solved``, the solution, and the solutions of the lesson by their names.
    """
    cells = nbgrader_cells(graded=False)
    known = {name_of(cells[other]): solution(other) for other in cells if other[:5] == name[:5]}
    return run(stub(name, f"{before}\nreturn {answer}"), **known, solved=solution(name))


def verdict(name: str, function, capsys) -> str:
    """What a learner reads at the end of a check."""
    EXERCISES[name](function)
    return capsys.readouterr().out.rstrip().splitlines()[-1].strip()


def listed(answers: dict[str, dict]) -> list[tuple]:
    """(exercise, answer, what is said) for pytest, of {exercise: {answer: what is said}}."""
    return [(name, answer, said) for name, of in answers.items() for answer, said in of.items()]


def first_case(exercise: Exercise) -> tuple:
    """Arguments that the check itself does not try."""
    return exercise.cases(torch.Generator().manual_seed(1))[0]


def parameters(name: str) -> list[str]:
    """What the exercise's function calls its arguments."""
    return list(inspect.signature(solution(name)).parameters)
