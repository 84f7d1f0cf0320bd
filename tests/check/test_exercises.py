"""Every exercise's check: it takes the lesson's solution, refuses the stub, knows each of its usual
mistakes by name, and no odd result and no setting of the notebook upsets it."""
import importlib
import re
from pathlib import Path

import pytest
import torch
from exercises import EXERCISES, name_of, nbgrader_cells, run, solution, stub, verdict
from odd_results import ODD, Elsewhere, everywhere
from torch import Tensor

from dmdkit import check

every_exercise = pytest.mark.parametrize("name", EXERCISES)


@pytest.fixture(autouse=True)
def lesson(monkeypatch):
    """As in a lesson: not under nbgrader."""
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


def test_every_exercise_of_the_lessons_has_its_check_and_the_reverse():
    solutions = nbgrader_cells(graded=False)
    checks = nbgrader_cells(graded=True)
    assert set(solutions) == set(EXERCISES)
    for name, source in solutions.items():
        assert checks[name.replace("ex_", "check_")] == f"check.{name}({name_of(source)})"


@every_exercise
def test_a_check_accepts_the_lessons_solution(name, capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")  # so that a rejection raises
    assert verdict(name, solution(name), capsys).startswith("✓")


@every_exercise
@pytest.mark.parametrize("body, said", [
    ("raise NotImplementedError()", "Not written yet"),
    ("# YOUR CODE HERE\nraise NotImplementedError()", "Not written yet"),
    ("pass", "returned None"),
])
def test_a_check_rejects_the_stub_and_raises_only_under_nbgrader(name, body, said, capsys,
                                                                 monkeypatch):
    function = run(stub(name, body))
    assert said in verdict(name, function, capsys)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(check.CheckFailed, match=said):
        EXERCISES[name](function)


@every_exercise
def test_every_usual_mistake_gets_its_own_message(name, capsys):
    mistakes = EXERCISES[name].mistakes
    said = [verdict(name, wrong, capsys) for wrong in mistakes.values()]
    assert said == [f"✗ {message}" for message in mistakes]
    assert len(set(said)) >= 3


def test_wrong_answers_of_every_exercise_are_tried():
    tried = {}
    for path in sorted(Path(__file__).parent.glob("test_check_lesson*.py")):
        tried |= importlib.import_module(path.stem).WRONG
    assert set(tried) == set(EXERCISES)
    assert all(len(set(answers.values())) >= 3 for answers in tried.values())


# Odd results

@every_exercise
def test_odd_results_are_refused_in_a_sentence(name, capsys):
    said = {odd: verdict(name, lambda *case: make(), capsys) for odd, make in ODD.items()}
    assert [odd for odd, text in said.items() if not re.match(r"✗ \S.*[^.]\.$", text)] == []


@every_exercise
def test_a_result_on_the_meta_device_is_refused_in_a_sentence(name, capsys):
    answer = everywhere(solution(name), lambda value: value.to("meta"))
    assert "device “meta”" in verdict(name, answer, capsys)


@every_exercise
def test_a_result_on_another_device_is_moved_before_it_is_compared(name, capsys):
    answer = everywhere(solution(name), lambda value: value.as_subclass(Elsewhere))
    assert verdict(name, answer, capsys).startswith("✓")


@every_exercise
def test_a_wrong_result_on_another_device_is_told_like_any_other(name, capsys):
    message, wrong = next(iter(EXERCISES[name].mistakes.items()))
    answer = everywhere(wrong, lambda value: value.as_subclass(Elsewhere))
    assert verdict(name, answer, capsys) == f"✗ {message}"


def test_the_stand_in_for_another_device_refuses_to_meet_this_one():
    there = torch.ones(3).as_subclass(Elsewhere)
    with pytest.raises(RuntimeError, match="same device"):
        torch.allclose(there, torch.ones(3))
    with pytest.raises(RuntimeError, match="same device"):
        there - torch.ones(3)
    assert type(there.detach().double()) is Elsewhere
    assert type(there.cpu()) is Tensor


# What a notebook may have switched

SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "another default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@every_exercise
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_notebook_has_switched_changes_nothing(name, setting, capsys):
    with SETTINGS[setting]():
        assert verdict(name, solution(name), capsys).startswith("✓")
        message, wrong = list(EXERCISES[name].mistakes.items())[-1]
        assert verdict(name, wrong, capsys) == f"✗ {message}"


@pytest.fixture
def switched():
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)


@every_exercise
def test_what_is_switched_for_good_changes_nothing_and_stays(name, switched, capsys):
    assert verdict(name, solution(name), capsys).startswith("✓")
    assert not torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float64
