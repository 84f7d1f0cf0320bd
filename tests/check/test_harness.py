"""What the harness says, of functions of one line."""
import io
import sys

import pytest
import torch

from dmdkit import check
from dmdkit.check.harness import Exercise

X = torch.arange(6.0).reshape(3, 2)
DOUBLE = Exercise("0.1", lambda x: 2 * x, lambda g: [(X,)], {"It is tripled.": lambda x: 3 * x},
                  hint="Mind the shape.")
NUMBER = Exercise("0.2", lambda x: x.sum(), lambda g: [(X,)])
PAIR = Exercise("0.3", lambda x: (x.sum(), x), lambda g: [(X,)], parts=("the sum", "copy"))


@pytest.fixture(autouse=True)
def lesson(monkeypatch):
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


@pytest.fixture
def said(capsys):
    def ask(exercise, function) -> str:
        exercise(function)
        return capsys.readouterr().out.rstrip().splitlines()[-1].strip()
    return ask


def raising(error):
    def function(x):
        raise error
    return function


# Right answers

@pytest.mark.parametrize("function", [
    lambda x: (2 * x).double(),
    lambda x: torch.nn.Parameter(2 * x),
    lambda x: (2 * x.double()).requires_grad_() * 1,
    lambda x: (2 * x).to(torch.int64),
    lambda x: (2 * x).t().contiguous().t(),
])
def test_a_right_answer_may_be_any_dense_tensor(function, said):
    assert said(DOUBLE, function).startswith("✓")


@pytest.mark.parametrize("number", [15, 15.0, torch.tensor(15), X.numpy().sum()])
def test_where_one_number_is_wanted_pythons_and_numpys_do(number, said):
    assert said(NUMBER, lambda x: number).startswith("✓")


def test_a_number_is_no_answer_where_a_tensor_of_a_shape_is_wanted(said):
    assert said(DOUBLE, lambda x: 2.0) == "✗ The result should be a tensor; it is of type float."


def test_a_list_is_as_good_as_a_tuple(said):
    assert said(PAIR, lambda x: [x.sum(), x]).startswith("✓")


def test_a_passed_check_says_nothing_alarming(capsys):
    DOUBLE(lambda x: 2 * x + 1e-6)
    out = capsys.readouterr().out
    assert "right, max difference" in out
    assert "False" not in out and "wrong" not in out


# Wrong ones

def test_a_known_mistake_is_named_before_what_it_does_to_its_input(said):
    assert said(DOUBLE, lambda x: x.mul_(3)) == "✗ It is tripled."


def test_a_wrong_answer_that_changes_its_input_is_told_so(said):
    assert "changes its input in place" in said(DOUBLE, lambda x: x.mul_(2) + 1)


def test_an_input_that_is_swapped_for_another_kind_of_tensor_is_changed(said):
    def function(x):
        result = 2 * x
        x.data = x.data[:1]
        return result

    assert "changes its input in place" in said(DOUBLE, function)


def test_of_several_parts_the_wrong_ones_are_named(said):
    text = said(PAIR, lambda x: (x.sum(), x + 1))
    assert text.endswith("Right: the sum. Wrong: copy.")
    assert "The sum should have shape ()" in said(PAIR, lambda x: (x, x))
    assert "should return 2 tensors: `return the sum, copy`" in said(PAIR, lambda x: x)


def test_nan_says_nothing_about_random_numbers(said):
    assert "NaN" in said(DOUBLE, lambda x: x * float("nan"))
    assert "random" in said(DOUBLE, torch.randn_like)


def test_what_is_not_a_function_is_told_so(said):
    text = said(check.ex_1_4, torch.zeros(3))
    assert "check.ex_1_4(name)" in text and "Tensor" in text


# Errors

@pytest.mark.parametrize("error, words", [
    (TypeError("label must be whole numbers; got torch.float32."), "got torch.float32."),
    (RuntimeError("Two lines.\n\n  And more..."), "RuntimeError: Two lines. And more."),
    (ValueError(), "ValueError: (no message)."),
    (KeyError("a"), "KeyError: 'a'."),
])
def test_an_error_is_told_in_one_line_with_one_full_stop(error, words, said):
    text = said(DOUBLE, raising(error))
    assert text.endswith(words)
    assert not text.endswith("..")


def test_the_hint_about_shapes_is_for_errors_about_shapes_only(said):
    about_shapes = said(DOUBLE, lambda x: x + torch.zeros(5))
    assert about_shapes.endswith("Mind the shape.")
    assert "Mind" not in said(DOUBLE, raising(RuntimeError("no derivative")))
    assert "Mind" not in said(DOUBLE, raising(ValueError("the shape is off")))
    assert said(DOUBLE, lambda x: x[0]).endswith("yours has (2,). Mind the shape.")


def test_torchs_own_errors_are_explained(said):
    assert "clamp" in said(DOUBLE, lambda x: x if x > 0 else -x)
    apart = RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu!")
    assert "on the CPU" in said(DOUBLE, raising(apart))


def test_only_an_empty_not_implemented_error_is_the_stubs(said):
    assert "Not written yet" in said(DOUBLE, raising(NotImplementedError()))
    assert "no kernel" in said(DOUBLE, raising(NotImplementedError("no kernel")))


def test_ctrl_c_is_no_answer():
    with pytest.raises(KeyboardInterrupt):
        DOUBLE(raising(KeyboardInterrupt()))


# Around it

def test_settings_come_back_after_a_failed_check(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), pytest.raises(check.CheckFailed, match="Exercise 0.1: It is tripled"):
            DOUBLE(lambda x: 3 * x)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_screen_without_greek_shows_question_marks(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", screen)
    DOUBLE(lambda x: 2 * x)
    screen.flush()
    assert "? Right on every shape." in screen.buffer.getvalue().decode("cp1252")
