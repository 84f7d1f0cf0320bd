"""What is said of a wrong result that is none of the usual mistakes, on functions of one line."""
import pytest
import torch
from exercises import EXERCISES, answered
from new_answers import BEFORE

from dmdkit.check.harness import Exercise
from dmdkit.check.trial import LOOK, VALUES, try_here


def cases(g):
    """(x, y, k, w): two batches of one shape, whole numbers, a number."""
    return [(torch.randn(4, n, generator=g), torch.randn(4, n, generator=g),
             torch.randperm(4, generator=g), w) for n, w in ((6, 0.5), (9, 2.0), (5, 0.7))]


def right(x, y, k, w):
    return w * x + y[k]**2


EXERCISE = Exercise("0.1", right, cases)
POSITIVE = Exercise("0.2", lambda x, y, k, w: (x + y).square() + w, cases)

SAID = {  # a wrong function of EXERCISE, and what must be said about it
    "0 * x": "The result is zero.",
    "-r": "has the wrong sign",
    "3 * r": "is 3 times what it should be, everywhere",
    "r * w**2": "is w² times",
    "r * x[0].numel()**0.5": "is √the number of entries of a sample times",
    "r * (1 + w)": "another one in each case: 1.5, 3, 1.7",
    "r + 0.25": "off by the same term everywhere: +0.25",
    "r**2": "is the square of",
    "1 / r": "is upside down",
    "r.exp()": "is e to the power",
    "r.clamp(max=1)": "is cut off",
    "r[[1, 0, 3, 2]]": "in another order",
    "r[:1].expand_as(r)": "right for the first sample of each batch only",
    "r * torch.tensor([1.0, 1, 2, 1])[:, None] + torch.tensor([0.0, 0, 1, 0])[:, None]":
        "right for some samples",
    "r * torch.tensor([5.0, 2, 3, 4])[:, None]": "in each sample but for a factor",
    "w**2 * x + y[k]**2": "gives with w² in place of w.",
    "w * y + x[k]**2": "with x and y exchanged",
    "w * x + y[k - 1]**2": "gives with k − 1 in place of k.",
    "w * x + y**2": "does not depend on k",
    "w * x + y[k]**3": "does not depend on x and w: look at what is done with y and k",
    "w * x.sin() + y[k]**2": "does not depend on y and k: look at what is done with x and w",
    "r if w < 1 else 3 * r": "Right for x (4, 6), w = 0.5; x (4, 5), w = 0.7. Wrong for x (4, 9)",
    "x.tanh() * (w * y[k]).sin()": LOOK,
}


def function(answer: str):
    def wrong(x, y, k, w):
        return eval(answer, {"torch": torch}, {"x": x, "y": y, "k": k, "w": w,
                                               "r": right(x, y, k, w)})
    return wrong


@pytest.mark.parametrize("answer", SAID)
def test_what_is_wrong_is_told(answer):
    said = try_here(EXERCISE, function(answer)).fault()
    assert said.startswith(VALUES) and SAID[answer] in said


def test_one_number_alone_is_not_told_to_be_a_multiple_of_another():
    number = Exercise("0.3", lambda x, y, k, w: x.sum(), cases)
    said = try_here(number, lambda x, *of: x.sum() if len(x[0]) < 9 else x.max()).fault()
    assert "Wrong for x (4, 9)" in said and "times" not in said


def test_roots_and_lost_signs_are_told():
    assert "is the root of" in try_here(POSITIVE, lambda *of: POSITIVE.oracle(*of).sqrt()).fault()
    assert "lost its sign" in try_here(EXERCISE, lambda *of: right(*of).abs()).fault()


OF_LESSONS = {  # answers of the lessons' exercises
    ("ex_2_4", "x + step_size / 2 * score - step_size**0.5 * z"):
        "This is what the right formula gives with the sign of z changed.",
    ("ex_2_4", "x + step_size**2 * score - 3 * z"):
        "What multiplies x is right.",
    ("ex_1_3", "r * sigma[s]**2 / sigma[t]**2 * x_t"): "gives with x0 left out.",
    ("ex_1_1", "a * x - a * eps"): "What multiplies x is right.",
    ("ex_1_4", "alpha[s] * x0 + 2 * sigma[s] * eps"): "x_t is multiplied by",
    ("ex_3_4", "0.25 * (x - (x - g).detach()).square().mean()"):
        "The derivative by x is 0.5 times what it should be, everywhere. Right: the derivative by "
        "g. Wrong: the derivative by x.",
    ("ex_3_5", "(fake(x_t, t) - x).square().mean() * x.numel() / len(x)"):
        "All that is wrong is so in one way: it is the number of entries of a sample times",
    ("ex_6_2", "G - (F + R)"): "Right: its derivative by x. Wrong: the loss, its derivative by the",
    ("ex_3_3", "(F - R) / (x - R).abs().mean(1, keepdim=True)"): "Wrong for x (4, 1, 3, 3).",
}


@pytest.mark.parametrize("name, answer", OF_LESSONS)
def test_which_part_of_a_lessons_answer_is_wrong_is_told(name, answer):
    said = try_here(EXERCISES[name], answered(name, answer, BEFORE.get(name, ""))).fault()
    assert OF_LESSONS[name, answer] in said
