"""A learner's function, tried on the cases of an exercise: is it right, and if not, what is wrong?

It may have been tried in another process: only its answers are looked at here.
"""
from collections.abc import Callable, Iterator, Sequence
from inspect import signature

import torch
from torch import Tensor

from .answers import Answer, as_tuple
from .diagnosis import Diagnosis
from .probes import attempt
from .substitutes import varied

SEED = 0
IN_PLACE = ("changes its input in place (+=, *=, mul_ …), so whoever called it finds other tensors "
            "afterwards. Make a new tensor instead.")
VALUES = "The shape is right, the values are not."
LOOK = ("Go through the formula term by term: which factor is missing, squared, or of the other "
        "time?")


class Plan:
    """What a function is called with, and what is wanted of it.

    Args:
        exercise: the ``Exercise``.
        seed: of its cases. Lessons use 0; who grades takes another one.

    ``rounds`` are lists of (case, wanted parts). A function that is right needs the first one only;
    the others tell more about a wrong one. ``varied`` are the first case with one argument changed.
    """

    def __init__(self, exercise, seed: int = SEED):
        self.exercise = exercise
        self.seed = seed
        self.cases = exercise.cases(self.generator())
        self.wanted = [as_tuple(exercise.oracle(*case)) for case in self.cases]
        self.names = getattr(self.cases[0], "_fields", tuple(signature(exercise.oracle).parameters))
        once = list(zip(self.cases, self.wanted))
        self.varied = varied(self.names, self.cases[0])
        others = [(case, as_tuple(exercise.oracle(*case))) for case in self.varied.values()]
        self.rounds = {"given": once, "again": once, "varied": others}

    def generator(self) -> torch.Generator:
        """A new one of the seed."""
        return torch.Generator().manual_seed(self.seed)

    def describe(self, case: dict) -> str:
        """Arguments by name: their shapes, numbers and words."""
        return ", ".join(map(_input, case, case.values()))

    def answer(self, function: Callable, case: tuple, want: Sequence[Tensor]) -> Answer:
        """What a function gives for a case, called in this process."""
        exercise = self.exercise
        return attempt(function, exercise.probe, case, want, exercise.parts, exercise.hint)

    def mistaken(self, message: str) -> Iterator[tuple[Tensor, ...]]:
        """What the mistake of this message gives for each case; () where it raises an error."""
        wrong = self.exercise.mistakes[message]
        return (self.answer(wrong, case, want).values for case, want in self.rounds["given"])


def try_here(exercise, function: Callable) -> "Trial":
    """A function, tried in this process."""
    plan = exercise.plan()

    def ask(name: str) -> list[Answer]:
        return [plan.answer(function, case, want) for case, want in plan.rounds[name]]

    return Trial(plan, ask)


class Trial:
    """The answers of a function to a plan: ``ask`` takes a round's name and returns them."""

    def __init__(self, plan: Plan, ask: Callable[[str], list[Answer]]):
        self.plan = plan
        self.exercise = plan.exercise
        self.ask = ask
        self.given = ask("given")

    def fault(self) -> str:
        """What is wrong, in words for the learner; "" if nothing is. The plainest comes first."""
        changed = any(given.changed for given in self.given)
        if all(map(_right, self.given, self.plan.wanted)):
            return f"The values are right, but the function {IN_PLACE}" if changed else ""
        if self.draws():
            return self.exercise.random
        known = self.exercise.mistakes if any(given.values for given in self.given) else {}
        for message in known:
            if self.makes(message):
                return message
        faults = [given.fault for given in self.given if given.fault]
        if changed and not faults:
            return f"The values are not right, and the function {IN_PLACE}"
        return faults[0] if faults else self.values()

    def draws(self) -> bool:
        """Does the function give other numbers when it is called again? (NaN says nothing.)"""
        for first, second in zip(self.given, self.ask("again")):
            for a, b in zip(first.values, second.values):
                finite = a.isfinite().all() and b.isfinite().all()
                if finite and a.shape == b.shape and not torch.equal(a, b):
                    return True
        return False

    def makes(self, message: str) -> bool:
        """Are the function's results those of this mistake on every case? Two errors are alike."""
        return all(given.equals(values)
                   for given, values in zip(self.given, self.plan.mistaken(message)))

    def values(self) -> str:
        """That values are wrong, and what can be said about how."""
        found = Diagnosis(self.plan, self.given, self.ask("varied")).sentences()
        return f"{VALUES} {found or LOOK}"

    def lines(self) -> Iterator[str]:
        """For each case what went in and what came out."""
        for case, want, given in zip(self.plan.cases, self.plan.wanted, self.given):
            yield f"  {self.plan.describe(dict(zip(self.plan.names, case)))}"
            yield f"    → {_compared(given, want, self.exercise.parts)}"


def _right(given: Answer, want: Sequence[Tensor]) -> bool:
    return not given.fault and given.equals(want)


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
