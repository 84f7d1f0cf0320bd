"""How a wrong result is related to the right one: a factor, a sign, a root, another order …

A relation is the end of a sentence that begins with the result's name, or "".
"""
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .answers import close

Results = Sequence[tuple[Tensor, Tensor]]  # of each case: what was given, what is wanted
SAMPLES = "the number of samples"  # one of the scales
POWERS = {1: "{}", -1: "1/{}", 2: "{}²", -2: "1/{}²", 0.5: "√{}", -0.5: "1/√{}"}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "is the square of what it should be": torch.square,
    "is the root of what it should be": torch.sqrt,
    "has lost its sign: it is the absolute value of what it should be": torch.abs,
    "is upside down: it is 1 divided by what it should be": torch.reciprocal,
    "is the logarithm of what it should be": torch.log,
    "is e to the power of what it should be": torch.exp,
}


def relation(results: Results, scales: Sequence[dict[str, float]]) -> str:
    """How these results, wrong ones, are related to the right ones; "" if in no known way.

    Args:
        scales: for each case what a factor may come from: numbers of entries, arguments, by name.
    """
    if any(given.shape != want.shape for given, want in results):
        return ""
    return next(_relations(results, scales), "")


def _relations(results: Results, scales: Sequence[dict[str, float]]) -> Iterator[str]:
    if all(close(given, 0 * want) for given, want in results):
        yield "is zero"
    yield from _by_a_factor(results, scales)
    yield from _by_a_term(results)
    for words, function in FUNCTIONS.items():
        if all(close(given, function(want)) for given, want in results):
            yield words
    yield from _cut(results)
    yield from _by_sample(results, scales)


def _by_a_factor(results: Results, scales: Sequence[dict[str, float]]) -> Iterator[str]:
    """One factor for all of a case. Of two single numbers each is the other's multiple."""
    if len(results) == results[0][0].numel() == 1:
        return
    factors = [_factor(given, want) for given, want in results]
    if not all(factors):
        return
    if _equal(factors, factors[:1] * len(factors)):
        yield _times(factors[0])
    for name in scales[0]:
        for power, words in POWERS.items():
            for sign in (1, -1):
                known = [sign * _power(scale[name], power) for scale in scales]
                if _equal(factors, known):
                    minus = "minus " if sign < 0 else ""
                    yield f"is {minus}{words.format(name)} times what it should be"
    if results[0][0].numel() > 1:
        many = ", ".join(f"{factor:.2g}" for factor in factors)
        yield f"is right but for a factor, another one in each case: {many}"


def _factor(given: Tensor, want: Tensor) -> float:
    """c where given = c · want, else 0."""
    square = float(want.square().sum())
    c = float((given * want).sum()) / square if square else 0.0
    return c if math.isfinite(c) and close(given, c * want) else 0.0


def _equal(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(some, others))


def _power(value: float, power: float) -> float:
    return value**power if value > 0 else math.nan


def _times(factor: float) -> str:
    if math.isclose(factor, -1, rel_tol=1e-3):
        return "has the wrong sign, and is right but for that"
    return f"is {factor:.3g} times what it should be, everywhere"


def _by_a_term(results: Results) -> Iterator[str]:
    """The same number added everywhere."""
    terms = [float((given - want).mean()) for given, want in results]
    same = all(close(given, want + terms[0]) for given, want in results)
    if same and len(results) > 1:
        yield f"is off by the same term everywhere: {terms[0]:+.3g}"


def _cut(results: Results) -> Iterator[str]:
    """Right but for a least or a greatest value."""
    if min(given.numel() for given, _ in results) < 5:
        return
    low = min(float(given.min()) for given, _ in results)
    high = max(float(given.max()) for given, _ in results)
    if all(close(given, want.clamp(low, high)) for given, want in results):
        yield f"is cut off: no value of it leaves [{low:.3g}, {high:.3g}], and the right ones do"


def _by_sample(results: Results, scales: Sequence[dict[str, float]]) -> Iterator[str]:
    """Samples that are right, in another order, or right but for a factor of their own; where the
    first dimension is not the batch, rows."""
    if not all(want.ndim and len(want) > 1 for _, want in results):
        return
    batches = all(len(want) == scale.get(SAMPLES) for (_, want), scale in zip(results, scales))
    one, where = ("sample", " of each batch") if batches else ("row", "")
    right = [[close(g, w) for g, w in zip(given, want)] for given, want in results]
    if all(of[0] and not any(of[1:]) for of in right):
        yield f"is right for the first {one}{where} only"
    if all(any(of) and not all(of) for of in right):
        yield f"is right for some {one}s{where}, and wrong for others"
    if all(_rearranged(given, want) for given, want in results):
        yield f"holds right {one}s in another order than is asked for, or more than once"
    factors = [_factor(g, w) for given, want in results for g, w in zip(given, want)]
    if all(factors) and any(want[0].numel() > 1 for _, want in results):
        yield (f"is right in each {one} but for a factor: a number that multiplies or divides all "
               f"entries of a {one} is wrong")


def _rearranged(given: Tensor, want: Tensor) -> bool:
    return all(any(close(g, w) for w in want) for g in given)
