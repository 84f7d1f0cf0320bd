"""The checks as students get them: what is wanted and what the usual mistakes give is written down
for the lessons' cases, so that no file of theirs holds an oracle or a right formula."""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from . import probes, wire
from .harness import Exercise
from .trial import SEED, Plan

NAME = "recorded"


@dataclass(frozen=True)
class Recorded(Exercise):
    """An exercise without oracle. ``mistakes`` holds values in place of functions."""
    tried: dict | None = None

    def plan(self, seed: int = SEED) -> "RecordedPlan":
        """The plan that was written down, of seed 0."""
        return RecordedPlan(self)


class RecordedPlan(Plan):
    """A plan that was written down."""

    def __init__(self, exercise: Recorded):
        tried = exercise.tried
        self.exercise = exercise
        self.seed = SEED
        self.names = tried["names"]
        self.cases, self.wanted = zip(*tried["given"])
        self.varied = dict(zip(tried["varied names"], (case for case, _ in tried["varied"])))
        self.rounds = {name: tried[name] for name in ("given", "again", "varied")}

    def mistaken(self, message: str) -> Iterator[tuple[Tensor, ...]]:
        """What the mistake of this message gives for each case."""
        return iter(self.exercise.mistakes[message])


def write(exercises: dict[str, Exercise], folder: Path) -> None:
    """Write down what is wanted of these exercises."""
    tensors = {}
    wire.write(folder, NAME, {name: _entry(one, tensors) for name, one in exercises.items()},
               tensors)


def _entry(exercise: Exercise, tensors: dict[str, Tensor]) -> dict:
    plan = exercise.plan()
    rounds = {name: [wire.pack((tuple(case), want), tensors) for case, want in asked]
              for name, asked in plan.rounds.items()}
    mistakes = {message: [wire.pack(values, tensors) for values in plan.mistaken(message)]
                for message in exercise.mistakes}
    return {"number": exercise.number, "hint": exercise.hint, "random": exercise.random,
            "probe": exercise.probe.__name__, "parts": exercise.parts, "mistakes": mistakes,
            "names": plan.names, "varied names": list(plan.varied), **rounds}


def read(folder: Path) -> dict[str, Recorded]:
    """The exercises that were written down."""
    content, tensors = wire.read(folder, NAME)
    return {name: _exercise(entry, tensors) for name, entry in content.items()}


def _exercise(entry: dict, tensors: dict[str, Tensor]) -> Recorded:
    tried = {name: wire.unpack(entry[name], tensors)
             for name in ("names", "varied names", "given", "again", "varied")}
    mistakes = {message: wire.unpack(values, tensors)
                for message, values in entry["mistakes"].items()}
    return Recorded(entry["number"], None, None, mistakes, entry["hint"], entry["random"],
                    getattr(probes, entry["probe"]), tuple(entry["parts"]), tried)
