"""Answers that the checks were not written for: no wrong one passes, no right one fails, and most
of the wrong ones are told more than that their values are wrong."""
import pytest
from exercises import EXERCISES, answered
from new_answers import BEFORE, RIGHT, WRONG

from dmdkit.check.trial import LOOK, VALUES, try_here

BARE = f"{VALUES} Right"  # what is right is named, and nothing said about what is wrong


def fault(name: str, answer: str) -> str:
    """What the check says of an answer."""
    return try_here(EXERCISES[name], answered(name, answer, BEFORE.get(name, ""))).fault()


@pytest.mark.parametrize("name", RIGHT)
def test_no_right_answer_is_rejected(name):
    assert [answer for answer in RIGHT[name] if fault(name, answer)] == []


def test_no_wrong_answer_passes_and_at_most_a_quarter_is_told_no_more_than_that():
    said = {(name, answer): fault(name, answer) for name, of in WRONG.items() for answer in of}
    assert len(said) >= 200 and set(WRONG) == set(EXERCISES)
    assert [one for one, text in said.items() if not text] == []
    bare = [one for one, text in said.items() if LOOK in text or text.startswith(BARE)]
    assert len(bare) <= len(said) / 4, bare
