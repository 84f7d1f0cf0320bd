"""How an exercise is checked: call the learner's own function on random inputs, compare it with an
oracle, and if it is wrong, say which of the usual mistakes it makes."""
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from .answers import Answer, answer, as_tuple, close

SEED = 0
IN_PLACE = ("changes its input in place (+=, *=, mul_ …), so whoever called it finds other tensors "
            "afterwards. Make a new tensor instead.")
VALUES = "The shape is right, the values are not."
LOOK = ("Go through the formula term by term: which factor is missing, squared, or of the other "
        "time?")


class CheckFailed(AssertionError):
    """An exercise is not right yet. Raised under nbgrader; in a lesson the words are printed."""


def call(function: Callable, *case):
    """What is compared where nothing else is said: what the function itself returns."""
    return function(*case)


@dataclass(frozen=True)
class Exercise:
    """An exercise's check: call it with the learner's function.

    Args:
        number: as in the lesson, "1.1".
        oracle: the right answer, written another way than the solution (and tested against closed
            forms). It returns a tensor, or one for each of ``parts``.
        cases: takes a torch.Generator and returns the inputs to try, each a tuple of arguments. A
            named tuple brings its own names; else they are those of the oracle's parameters.
        mistakes: what to tell the learner → a function that makes this mistake. The first one that
            gives the learner's results on all the cases is named.
        hint: what helps with wrong shapes.
        random: what to say when the function gives another answer each time.
        probe: what is compared: takes the function and a case's arguments and returns the parts,
            a loss and its derivatives for instance.
        parts: the names of what is compared.
    """
    number: str
    oracle: Callable
    cases: Callable[[torch.Generator], Sequence[tuple]]
    mistakes: dict[str, Callable] = field(default_factory=dict)
    hint: str = ""
    random: str = "It draws random numbers, and this function should not."
    probe: Callable = call
    parts: tuple[str, ...] = ("the result",)

    def __call__(self, function: Callable) -> None:
        """Print what was compared and the verdict; under nbgrader raise CheckFailed if wrong.

        What a notebook has switched (gradients, default dtype and device, autocast) plays no part.
        The cases are on the CPU; the function's results may be anywhere.
        """
        if not callable(function):
            name = f"check.ex_{self.number.replace('.', '_')}(name)"
            fault = f"Pass the function itself, without calling it: {name}. This is of type "
            return _verdict(self.number, f"{fault}{type(function).__name__}.")
        with _usual_settings():
            trial = _Trial(self, function)
            lines = list(trial.lines())
            fault = trial.fault()
        _say(f"Exercise {self.number}: {getattr(function, '__name__', 'your function')}")
        _say("\n".join(lines))
        return _verdict(self.number, fault)


class _Trial:
    """A learner's function, tried on the cases of an exercise."""

    def __init__(self, exercise: Exercise, function: Callable):
        self.exercise = exercise
        self.function = function
        self.cases = exercise.cases(torch.Generator().manual_seed(SEED))
        self.wanted = [as_tuple(exercise.oracle(*case)) for case in self.cases]
        self.given = list(self.answers(function))

    def answers(self, function: Callable) -> Iterator[Answer]:
        """What a function gives for a copy of each case."""
        exercise = self.exercise
        for case, want in zip(self.cases, self.wanted):
            copy = [a.clone() if isinstance(a, Tensor) else a for a in case]
            attempt = partial(exercise.probe, function, *copy)
            given = answer(attempt, want, exercise.parts, exercise.hint)
            yield replace(given, changed=not all(map(_unchanged, case, copy)))

    def fault(self) -> str:
        """What is wrong, in words for the learner; "" if nothing is. The plainest comes first."""
        changed = any(given.changed for given in self.given)
        if all(map(_right, self.given, self.wanted)):
            return f"The values are right, but the function {IN_PLACE}" if changed else ""
        if self.draws():
            return self.exercise.random
        known = self.exercise.mistakes if any(given.values for given in self.given) else {}
        for message, wrong in known.items():
            if self.makes(wrong):
                return message
        faults = [given.fault for given in self.given if given.fault]
        if changed and not faults:
            return f"The values are not right, and the function {IN_PLACE}"
        return faults[0] if faults else self.values()

    def draws(self) -> bool:
        """Does the function give other numbers when it is called again? (NaN says nothing.)"""
        for first, second in zip(self.given, self.answers(self.function)):
            for a, b in zip(first.values, second.values):
                finite = a.isfinite().all() and b.isfinite().all()
                if finite and a.shape == b.shape and not torch.equal(a, b):
                    return True
        return False

    def makes(self, wrong: Callable) -> bool:
        """Does ``wrong`` give the function's results on every case? Two errors are alike."""
        return all(given.equals(other.values)
                   for given, other in zip(self.given, self.answers(wrong)))

    def values(self) -> str:
        """That values are wrong, and of which parts, if not of all."""
        right = []
        wrong = []
        for k, name in enumerate(self.exercise.parts):
            same = all(close(given.values[k], want[k])
                       for given, want in zip(self.given, self.wanted))
            (right if same else wrong).append(name)
        if not right:
            return f"{VALUES} {LOOK}"
        return f"{VALUES} Right: {', '.join(right)}. Wrong: {', '.join(wrong)}."

    def lines(self) -> Iterator[str]:
        """For each case what went in and what came out."""
        parameters = tuple(inspect.signature(self.exercise.oracle).parameters)
        for case, want, given in zip(self.cases, self.wanted, self.given):
            names = getattr(case, "_fields", parameters)
            yield f"  {', '.join(map(_input, names, case))}"
            yield f"    → {_compared(given, want, self.exercise.parts)}"


def _right(given: Answer, want: Sequence[Tensor]) -> bool:
    return not given.fault and given.equals(want)


def _unchanged(before, after) -> bool:
    if not isinstance(before, Tensor):
        return True
    try:
        return torch.equal(before, after)
    except Exception:  # made sparse, or moved to another device
        return False


def _input(name: str, value) -> str:
    if isinstance(value, Tensor):
        return f"{name} {tuple(value.shape)}"
    if callable(value):
        return name
    return f"{name} = {value!r}" if isinstance(value, str) else f"{name} = {value:g}"


def _shapes(values: Sequence[Tensor], names: Sequence[str]) -> str:
    shapes = [str(tuple(value.shape)) for value in values]
    return shapes[0] if len(names) == 1 else ", ".join(map("{} {}".format, names, shapes))


def _compared(given: Answer, want: Sequence[Tensor], names: Sequence[str]) -> str:
    expected = _shapes(want, names)
    got = _shapes(given.values, names) if given.values else given.kind or "nothing to compare"
    if got != expected:
        return f"{got}; expected {expected}"
    difference = max(float((a - b).abs().max()) for a, b in zip(given.values, want))
    return f"{got} | {'right' if _right(given, want) else 'wrong'}, max difference {difference:.1e}"


@contextmanager
def _usual_settings():
    """As torch is when it is imported, whatever a notebook has switched."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (torch.inference_mode(False), torch.enable_grad(), _new_tensors_on_the_cpu(),
              torch.autocast("cpu", enabled=False)):
            yield
    finally:
        torch.set_default_dtype(dtype)


def _new_tensors_on_the_cpu():
    if torch.get_default_device().type == "cpu":
        return nullcontext()  # the other one slows every call of torch
    return torch.device("cpu")


def _say(text: str) -> None:
    """Print, with a ? for what the screen cannot show (Windows' consoles often have no α)."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, errors="replace").decode(encoding))


def _verdict(number: str, fault: str) -> None:
    _say(f"  ✗ {fault}" if fault else "  ✓ Right on every shape.")
    if fault and os.environ.get("NBGRADER_EXECUTION"):
        raise CheckFailed(f"Exercise {number}: {fault}")
