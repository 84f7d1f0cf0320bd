"""A lesson runs on the learner's function, or on the library's while that is blank."""
import pytest

from dmdkit import check


def blank(x):
    raise NotImplementedError()


def double(x):
    return 2 * x


def test_the_learners_function_runs_once_it_is_written(capsys):
    step = check.yours_or(lambda x: 3 * x, double)
    assert [step(1), step(2)] == [3, 6]
    assert capsys.readouterr().out == "Your <lambda> runs here.\n"


def test_a_blank_one_is_stood_in_for_and_this_is_said_once(capsys):
    step = check.yours_or(blank, double)
    assert [step(1), step(x=2)] == [2, 4]
    assert capsys.readouterr().out == \
        "blank is not written yet: the library's runs in its place.\n"


def test_what_goes_wrong_in_it_is_not_hidden():
    def torch_says(x):
        raise NotImplementedError("no kernel")

    with pytest.raises(NotImplementedError, match="no kernel"):
        check.yours_or(torch_says, double)(1)
    with pytest.raises(ZeroDivisionError):
        check.yours_or(lambda x: x / 0, double)(1)
