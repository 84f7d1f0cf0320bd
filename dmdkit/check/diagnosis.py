"""Which part of a wrong result is wrong, where it is none of the usual mistakes.

Found by looking at how it is related to the right one, at what the oracle makes of other arguments,
at what multiplies which argument, and at what moves when one argument is changed.
"""
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .answers import Answer, as_tuple, close, listed, subject
from .relations import SAMPLES, relation
from .substitutes import HIDDEN, substitutes
from .terms import terms


class Diagnosis:
    """A wrong result, and what can be said about it.

    Args:
        plan: what was asked.
        given: the answers, each with the parts that are wanted.
        varied: the answers to the plan's varied cases.
    """

    def __init__(self, plan, given: Sequence[Answer], varied: Sequence[Answer]):
        self.plan = plan
        self.exercise = plan.exercise
        self.varied = varied
        self.results = [[(answer.values[k], want[k]) for answer, want in zip(given, plan.wanted)]
                        for k in range(len(self.exercise.parts))]
        self.wrong = [k for k, results in enumerate(self.results)
                      if not all(close(*one) for one in results)]
        self.bad = [k for k in range(len(plan.cases))
                    if not all(close(*results[k]) for results in self.results)]
        self.cases = [plan.cases[k] for k in self.bad]

    def sentences(self) -> str:
        """What can be said; "" if nothing can."""
        found = next((text for text in self._found() if text), "")
        return " ".join(text for text in (found, self._some_cases(), self._parts()) if text)

    def _found(self) -> Iterator[str]:
        yield self._relation()
        yield self._substitute()
        yield terms(self.plan.names, self.cases, self._of(self.wrong[0]))
        yield self._roles()

    def _of(self, part: int) -> list[tuple[Tensor, Tensor]]:
        """What was given and wanted of a part, in the cases that are wrong."""
        return [self.results[part][k] for k in self.bad]

    def _parts(self) -> str:
        """Of several parts the right ones."""
        names = self.exercise.parts
        if len(self.wrong) == len(names):
            return ""
        right = [name for k, name in enumerate(names) if k not in self.wrong]
        return f"Right: {', '.join(right)}. Wrong: {', '.join(names[k] for k in self.wrong)}."

    def _relation(self) -> str:
        scales = [self._scales(case) for case in self.cases]
        found = [relation(self._of(k), scales) for k in self.wrong]
        if not any(found):
            return ""
        if len(set(found)) == 1 and len(found) > 1:
            return f"All that is wrong is so in one way: it {found[0]}."
        k = next(k for k, words in enumerate(found) if words)
        name = self.exercise.parts[self.wrong[k]]
        return f"{subject(name)} {found[k]}."

    def _scales(self, case: tuple) -> dict[str, float]:
        """What a factor may come from: numbers of entries, and arguments that are numbers."""
        found = {}
        tensors = [value for name, value in zip(self.plan.names, case)
                   if isinstance(value, Tensor) and value.ndim and name != HIDDEN]
        batches = sorted(tensors, key=_is_list)[:1]
        for batch in batches:
            found[SAMPLES] = len(batch)
            found["the number of entries of a sample"] = batch[0].numel()
            found["the number of all entries"] = batch.numel()
        for name, value in zip(self.plan.names, case):
            if isinstance(value, float) or isinstance(value, Tensor) and not value.ndim:
                found[name] = float(value)
        return found

    def _substitute(self) -> str:
        """Which other argument makes the oracle give what was given, in every case."""
        if self.exercise.oracle is None:  # the students' edition has none
            return ""
        first, *others = self.plan.cases
        for words, case in substitutes(self.plan.names, first):
            if self._gives(0, case) and all(self._gives(k, _under(words, self.plan.names, other))
                                            for k, other in enumerate(others, 1)):
                return f"This is what the right formula gives with {words}."
        return ""

    def _gives(self, k: int, case: tuple | None) -> bool:
        """Is the oracle's answer for this case what was given for case k?"""
        try:
            parts = as_tuple(self.exercise.oracle(*case))
        except Exception:  # there is no such case, or it does not fit
            return False
        return all(close(results[k][0], part.double())
                   for results, part in zip(self.results, parts))

    def _some_cases(self) -> str:
        """Which cases are right, if some are: mostly those of one shape, or of a special number."""
        if len(self.bad) == len(self.plan.cases):
            return ""
        right = [case for k, case in enumerate(self.plan.cases) if k not in self.bad]
        told = ["; ".join(map(self._short, cases)) for cases in (right, self.cases)]
        return f"Right for {told[0]}. Wrong for {told[1]}."

    def _short(self, case: tuple) -> str:
        """A case by its first tensor's shape, its numbers and its words."""
        named = dict(zip(self.plan.names, case))
        shaped = [name for name, value in named.items()
                  if isinstance(value, Tensor) and value.ndim and name != HIDDEN]
        plain = [name for name, value in named.items() if isinstance(value, (int, float, str))]
        return self.plan.describe({name: named[name] for name in (*shaped[:1], *plain)})

    def _roles(self) -> str:
        """Which arguments the result does not depend on, and which have no part in the error."""
        k = self.wrong[0]
        given, want = self.results[k][0]
        ignored, innocent, moving = [], [], []
        for name, answer, (_, wanted) in zip(self.plan.varied, self.varied,
                                             self.plan.rounds["varied"]):
            if not answer.values or close(wanted[k].double(), want):
                continue
            now = answer.values[k]
            moving.append(name)
            if torch.equal(now, given):
                ignored.append(name)
            elif _same_error(given, want, now, wanted[k]):
                innocent.append(name)
        return _said(subject(self.exercise.parts[k]), ignored, innocent, moving)


def _is_list(value: Tensor) -> bool:
    """Is it one number a sample, or a table, rather than a batch?"""
    return value.ndim < 2


def _under(words: str, names: Sequence[str], case: tuple) -> tuple | None:
    """The substitute of these words for another case; None if it has none."""
    return next((changed for said, changed in substitutes(names, case) if said == words), None)


def _same_error(given: Tensor, want: Tensor, now: Tensor, wanted: Tensor) -> bool:
    """Is the error the same after an argument has changed, as a term or as a factor?"""
    if now.shape != given.shape:
        return False
    return close(now - wanted, given - want.double()) or close(now * want, given * wanted.double())


def _said(name: str, ignored: list[str], innocent: list[str], moving: list[str]) -> str:
    if ignored:
        return f"{name} does not depend on {listed(ignored)}, and it should."
    guilty = [name for name in moving if name not in innocent]
    if not innocent or not guilty:
        return ""
    return (f"What is wrong does not depend on {listed(innocent)}: look at what is done with "
            f"{listed(guilty)}.")
