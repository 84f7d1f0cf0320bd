"""Other arguments for an oracle: if it then gives a learner's wrong result, that is what is wrong.

A substitute is words for what stands in the place of an argument, and the changed case.
"""
from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor

HIDDEN = "weights"  # what stand-ins are made of, where a probe makes them


def substitutes(names: Sequence[str], case: tuple) -> Iterator[tuple[str, tuple]]:
    """(words, changed case), places and times first. The same words come for every case."""
    for of in (_whole, _real):
        for k, name in enumerate(names):
            for words, value in of(name, case[k]) if name != HIDDEN else ():
                yield words, _put(case, k, value)
    for k, j in permutations(range(len(names)), 2):
        if _alike(case[k], case[j]):
            if k < j:
                exchanged = _put(_put(case, k, case[j]), j, case[k])
                yield f"{names[k]} and {names[j]} exchanged", exchanged
            yield f"{names[j]} in place of {names[k]}", _put(case, k, case[j])


def varied(names: Sequence[str], case: tuple) -> dict[str, tuple]:
    """For each argument that is a number or a tensor, the case with another value of it."""
    found = {}
    for k, (name, value) in enumerate(zip(names, case)):
        if name != HIDDEN and not callable(value) and not isinstance(value, str):
            found[name] = _put(case, k, _another(value))
    return found


def _another(value):
    """A value that no mean, absolute value or clamp takes for the first. Whole numbers stay below
    the largest of them, as places in a table must; what is positive stays so, as variances must."""
    if isinstance(value, int):
        return value - 1 if value else 1
    if _is_whole(value):
        return (value - 1).clamp(min=0)
    positive = bool((torch.as_tensor(value) >= 0).all())
    return (0.8 if positive else -0.8) * value + 0.05


def _put(case: tuple, k: int, value) -> tuple:
    """A named tuple becomes an ordinary one."""
    return (*case[:k], value, *case[k + 1:])


def _alike(one, other) -> bool:
    if callable(one):
        return callable(other)
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.dtype == other.dtype
        return alike and one.shape == other.shape
    return type(one) is type(other) and not isinstance(one, str)


def _whole(name: str, value) -> Iterator[tuple[str, object]]:
    if not _is_whole(value):
        return
    for words, other in (("− 1", value - 1), ("+ 1", value + 1)):
        yield f"{name} {words} in place of {name}", other
    yield f"0 in place of {name}", 0 * value
    yield from _other_rows(name, value)


def _is_whole(value) -> bool:
    tensor = isinstance(value, Tensor)
    return isinstance(value, int) or tensor and not value.is_floating_point()


def _real(name: str, value) -> Iterator[tuple[str, object]]:
    if callable(value) or isinstance(value, str) or _is_whole(value):
        return
    many = isinstance(value, Tensor) and value.ndim > 0
    value = value if isinstance(value, Tensor) else torch.tensor(float(value))
    yield f"the sign of {name} changed", -value
    yield f"{name} left out" if many else f"0 in place of {name}", torch.zeros_like(value)
    yield f"1 in place of {name}", torch.ones_like(value)
    changed = {f"{name}²": value**2, f"√{name}": value.abs().sqrt(), f"2 {name}": 2 * value,
               f"{name}/2": value / 2, f"1/{name}": 1 / value, f"1 − {name}": 1 - value,
               f"1 + {name}": 1 + value, f"|{name}|": value.abs()}
    yield from ((f"{words} in place of {name}", other) for words, other in changed.items())
    yield f"{name} cut off at −1 and 1", value.clamp(-1, 1)
    if many:
        yield from _other_rows(name, value)
        yield f"the mean of {name} for all of it", value.mean(0, keepdim=True).expand_as(value)


def _other_rows(name: str, value) -> Iterator[tuple[str, object]]:
    """Along the batch, or along a table."""
    if not isinstance(value, Tensor) or not value.ndim:
        return
    yield f"the first of {name} for all of it", value[:1].expand_as(value)
    yield f"the last of {name} for all of it", value[-1:].expand_as(value)
    yield f"{name} in the reverse order", value.flip(0)
    yield f"{name} moved on by one", value.roll(1, 0)
    yield f"{name} moved back by one", value.roll(-1, 0)
