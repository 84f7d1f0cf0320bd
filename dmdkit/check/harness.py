"""How an exercise is checked: call the learner's own function on random inputs, compare it with an oracle, and if it
is wrong, say which of the usual mistakes it makes."""
import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

RTOL, ATOL = 1e-4, 1e-5  # float32, summed in whatever order the learner likes
SEED = 0


class CheckFailed(AssertionError):
    """An exercise is not right yet. Raised under nbgrader only; in a lesson the same words are printed."""


@dataclass(frozen=True)
class Exercise:
    """An exercise's check: call it with the learner's function.

    Args:
        number: as in the lesson, "1.1".
        oracle: the right answer, written another way than the solution (and tested against closed forms).
        cases: takes a torch.Generator and returns the inputs to try, each a tuple of arguments.
        mistakes: what to tell the learner → a function that makes that mistake. The first one that gives the
            learner's results on all the cases is named.
        error: what to add when shapes do not fit.
        random: what to say when it gives another answer each time it is called.
        probe: what is compared, if not the function's own result: takes the function and a case's arguments, and
            returns a tensor, the derivative of a loss say.
    """
    number: str
    oracle: Callable
    cases: Callable[[torch.Generator], Sequence[tuple]]
    mistakes: dict[str, Callable] = field(default_factory=dict)
    error: str = ""
    random: str = "It draws random numbers, and this function should not."
    probe: Callable = lambda function, *case: function(*case)

    def __call__(self, function: Callable) -> None:
        """Check ``function``: print what was compared and the verdict; under nbgrader raise CheckFailed if wrong."""
        if not callable(function):
            return _verdict(self.number, f"Pass the function itself: check.ex_{self.number.replace('.', '_')}(name), "
                                         f"without calling it; got {type(function).__name__}.")
        cases = self.cases(torch.Generator().manual_seed(SEED))
        expected = [self.oracle(*case) for case in cases]
        results = [self._call(function, case) for case in cases]
        print(f"Exercise {self.number}: {getattr(function, '__name__', 'your function')}")
        names = list(inspect.signature(self.oracle).parameters)
        for case, want, got in zip(cases, expected, results):
            print(f"  {_shapes(names, case)}\n    → {_compared(want, got)}")
        _verdict(self.number, self._fault(function, cases, expected, results))

    def _fault(self, function, cases, expected, results) -> str:
        """What is wrong, in words for the learner; "" if nothing is. The plainest fault comes first."""
        faults = [_unfit(want, got, self.error) for want, got in zip(expected, results)]
        values = [(want, got) for want, got, fault in zip(expected, results, faults) if not fault]
        if not any(faults) and all(_close(want, got) for want, got in values):
            return next(filter(None, (self._changed(function, case) for case in cases)), "")
        again = [self._call(function, case) for case in cases]
        if any(isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and not torch.equal(a, b)
               and not (a.isnan() | b.isnan()).any() for a, b in zip(results, again)):
            return self.random
        for message, wrong in self.mistakes.items():
            if _alike(results, [self._call(wrong, case) for case in cases]):
                return message
        return next(filter(None, faults), "") or (
            "The shape is right, the values are not. Go through the formula term by term: which factor is missing, "
            "squared, or of the other time?")

    def _call(self, function: Callable, case: tuple):
        """What is compared, on a copy of the case, or the exception that was raised."""
        try:
            return self.probe(function, *_copy(case))
        except Exception as error:  # whatever a learner's code raises is an answer to be explained, not our failure
            return error

    def _changed(self, function: Callable, case: tuple) -> str:
        copy = _copy(case)
        self.probe(function, *copy)
        if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in zip(case, copy)):
            return ("The values are right, but the function changes its input in place (+=, *=, mul_ …), so whoever "
                    "called it finds other tensors afterwards. Make a new tensor instead.")
        return ""


# What lessons build their cases from.

def randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g)


def tables(T: int) -> tuple[Tensor, Tensor]:
    """α and σ (T,) of a cosine schedule that stops short of α = 0, float32."""
    angle = math.pi / 2 * torch.arange(1, T + 1) / (T + 1)
    return angle.cos(), angle.sin()


def _copy(case: tuple) -> tuple:
    return tuple(a.clone() if isinstance(a, Tensor) else a for a in case)


def _unfit(want: Tensor, got, hint: str) -> str:
    """Why ``got`` cannot even be compared with ``want``; "" if it can."""
    if isinstance(got, NotImplementedError):
        return "Not written yet: put your code in place of `raise NotImplementedError`."
    if isinstance(got, Exception):
        shapes = hint if isinstance(got, RuntimeError) else ""  # what torch raises where shapes do not broadcast
        return f"It raised {type(got).__name__}: {str(got) or '(no message)'}. {shapes}".strip()
    if got is None:
        return "It returned None: write the body, and end it with `return …`."
    if not isinstance(got, Tensor):
        return f"It should return a tensor; it returned {type(got).__name__}."
    if got.shape != want.shape:
        return f"The result should have shape {tuple(want.shape)}; yours has {tuple(got.shape)}. {hint}".strip()
    if not got.isfinite().all():
        return "The result holds NaN or infinity: look for a division by zero, or a root of a negative number."
    return ""


def _close(want: Tensor, got: Tensor) -> bool:
    return torch.allclose(got.detach().double(), want.double(), rtol=RTOL, atol=ATOL, equal_nan=True)


def _alike(results: list, wrong: list) -> bool:
    """Do the learner's results equal the mistake's on every case? Two errors are alike; one alone is not."""
    pairs = list(zip(results, wrong))
    tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)]
    errors = sum(isinstance(a, Exception) and isinstance(b, Exception) for a, b in pairs)
    return bool(tensors) and len(tensors) + errors == len(pairs) and all(
        a.shape == b.shape and _close(a, b) for a, b in tensors)


def _compared(want: Tensor, got) -> str:
    if not isinstance(got, Tensor):
        return f"{'None' if got is None else type(got).__name__}, expected {tuple(want.shape)}"
    if got.shape != want.shape:
        return f"{tuple(got.shape)}, expected {tuple(want.shape)}"
    difference = (got.detach().double() - want.double()).abs().max().item()
    return (f"{tuple(got.shape)} | exact: {torch.equal(got.double(), want.double())} | "
            f"approximate: {_close(want, got)} | max difference: {difference:.1e}")


def _shapes(names: Sequence[str], case: tuple) -> str:
    shown = lambda a: repr(a) if isinstance(a, str) else f"{a:g}"
    return ", ".join(f"{name} {tuple(a.shape)}" if isinstance(a, Tensor) else name if callable(a) else
                     f"{name} = {shown(a)}" for name, a in zip(names, case))


def _verdict(number: str, fault: str) -> None:
    print(f"  ✗ {fault}" if fault else "  ✓ Right on every shape.")
    if fault and os.environ.get("NBGRADER_EXECUTION"):
        raise CheckFailed(f"Exercise {number}: {fault}")
