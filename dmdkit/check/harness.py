"""How an exercise is checked: call the learner's own function on random inputs, compare it with an
oracle, and if it is wrong, say which of the usual mistakes it makes."""
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from .probes import call
from .trial import SEED, Plan, try_here


class CheckFailed(AssertionError):
    """An exercise is not right yet. Raised under nbgrader; in a lesson the words are printed."""


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

    def plan(self, seed: int = SEED) -> Plan:
        """What functions are called with, and what is wanted of them."""
        return Plan(self, seed)

    def __call__(self, function: Callable) -> None:
        """Print what was compared and the verdict; under nbgrader raise CheckFailed if wrong.

        What a notebook has switched (gradients, default dtype and device, autocast) plays no part.
        The cases are on the CPU; the function's results may be anywhere.
        """
        if not callable(function):
            name = f"check.ex_{self.number.replace('.', '_')}(name)"
            fault = f"Pass the function itself, without calling it: {name}. This is of type "
            return _verdict(self.number, f"{fault}{type(function).__name__}.")
        with usual_settings():
            trial = try_here(self, function)
            lines = list(trial.lines())
            fault = trial.fault()
        _say(f"Exercise {self.number}: {getattr(function, '__name__', 'your function')}")
        _say("\n".join(lines))
        return _verdict(self.number, fault)


@contextmanager
def usual_settings():
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
