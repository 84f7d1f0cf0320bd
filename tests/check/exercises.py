"""The lessons' exercises, as their tests see them: solutions, wrong answers, verdicts."""
import inspect
import re
from functools import cache
from pathlib import Path

import nbformat
import torch

from dmdkit import check
from dmdkit.check.harness import Exercise

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks" / "solutions"
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


class TestAnswers:
    """Tries the answers of the module that imports it: RIGHT, {exercise: [answer]}, WRONG,
    {exercise: {answer: what is said}}, and BEFORE, {exercise: lines that its answers may use}."""

    def pytest_generate_tests(self, metafunc):
        right, wrong = metafunc.module.RIGHT, metafunc.module.WRONG
        if "said" in metafunc.fixturenames:
            every = [(name, answer, said) for name, of in wrong.items()
                     for answer, said in of.items()]
            metafunc.parametrize("name, answer, said", every)
        else:
            every = [(name, answer) for name, of in right.items() for answer in of]
            metafunc.parametrize("name, answer", every)

    def test_a_check_names_what_learners_get_wrong(self, name, answer, said, capsys, request):
        before = request.module.BEFORE.get(name, "")
        text = verdict(name, answered(name, answer, before), capsys)
        assert text.startswith("✗") and said in text

    def test_a_check_accepts_other_right_answers(self, name, answer, capsys, request):
        before = request.module.BEFORE.get(name, "")
        assert verdict(name, answered(name, answer, before), capsys).startswith("✓")


def first_case(exercise: Exercise) -> tuple:
    """Arguments that the check itself does not try."""
    return exercise.cases(torch.Generator().manual_seed(1))[0]


def parameters(name: str) -> list[str]:
    """What the exercise's function calls its arguments."""
    return list(inspect.signature(solution(name)).parameters)
