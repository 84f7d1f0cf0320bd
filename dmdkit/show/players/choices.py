"""The axes of a player, along which its pictures vary: {"sampler": ["DDIM", "DDPM"], "steps": […]}.
Values may be of any kind; a player shows and compares them as text."""
from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np

Axes = dict[str, Sequence]


def named(axes: Axes) -> dict[str, list[str]]:
    """The axes with their values as text. Raises ValueError if there is no axis, an axis without
    values, or one that has a value twice."""
    if not axes:
        raise ValueError("A player needs at least one axis, such as {'steps': ['1', '4', '16']}; "
                         "got none.")
    texts = {name: [str(value) for value in values] for name, values in axes.items()}
    for name, values in texts.items():
        check_distinct(name, values)
    return texts


def check_distinct(name: str, values: Sequence) -> None:
    """Raises ValueError unless ``values`` are at least one, and no two are the same: of two alike
    the second would never be shown."""
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice or not values:
        found = f"{twice[0]!r} is there twice" if twice else "there are none"
        raise ValueError(f"The values of {name!r} must be at least one, and all different; "
                         f"{found}.")


def check_names(axes: Axes, names: Iterable[str | None]) -> None:
    """Raises ValueError for a name that no axis has; None is passed over."""
    for name in names:
        if name is not None and name not in axes:
            raise ValueError(f"There is no axis {name!r}; there are {', '.join(axes)}.")


def check_values(axes: Axes, values: dict) -> None:
    """Raises ValueError unless every one of ``values``, by axis, is there."""
    known = {name: [str(entry) for entry in entries] for name, entries in axes.items()}
    for name, value in values.items():
        if str(value) not in known.get(name, []):
            there = "; ".join(f"{axis} in {', '.join(texts)}" for axis, texts in known.items())
            raise ValueError(f"There is no {name} = {value}; there is {there}.")


def positions(axes: dict[str, list[str]], start: dict | None, at_end: str | None) -> list[int]:
    """Where a player starts on each axis: at the values ``start``, by axis; elsewhere at the first,
    but on the axis ``at_end`` at the last. Raises ValueError for a value that there is not."""
    start = start or {}
    check_values(axes, start)
    found = []
    for name, values in axes.items():
        if name in start:
            found.append(values.index(str(start[name])))
        else:
            found.append(len(values) - 1 if name == at_end else 0)
    return found


def captions(axes: dict[str, list[str]], caption: Callable[..., str] | None) -> dict:
    """A caption for every combination of values, as the scripts take them: {"axes": lengths,
    "texts": […]}, where an axis that no caption depends on has the length 1."""
    if caption is None:
        return {"axes": [1] * len(axes), "texts": [""]}
    texts = [caption(**dict(zip(axes, values))) for values in product(*axes.values())]
    table = np.array(texts, dtype=object).reshape([len(values) for values in axes.values()])
    for axis in range(table.ndim):
        first = table.take([0], axis)
        if (table == first).all():
            table = first
    return {"axes": list(table.shape), "texts": table.flatten().tolist()}


def described(axes: dict[str, list[str]]) -> dict[str, list]:
    """The axes as the scripts take them: names and values, and each value as a reader would say
    it."""
    said = [[readout(name, value) for value in values] for name, values in axes.items()]
    return {"axes": list(axes.items()), "readouts": said}


def readout(name: str, value: str) -> str:
    """A value of an axis as a reader would say it: "t = 543", "16 steps", "update 1,800"; what is no
    number speaks for itself."""
    try:
        number = f"{int(value):,}" if value.lstrip("-").isdigit() else f"{float(value):g}"
    except ValueError:
        return value
    if len(name.split()[-1]) == 1:  # a symbol, "guidance w" too
        return f"{name} = {number}"
    if name.endswith("s"):
        return f"{number} {name.removesuffix('s') if number == '1' else name}"
    return f"{name} {number}"


def summary(title: str, axes: dict[str, list[str]]) -> str:
    """A player in a line of text."""
    return f"{title}: " + ", ".join(f"{name} {' '.join(values)}" for name, values in axes.items())
