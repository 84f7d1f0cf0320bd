"""What multiplies which argument, in a result that is a sum of arguments times numbers."""
from collections.abc import Sequence

import torch
from torch import Tensor

from .answers import close, listed
from .relations import Results

CONSTANT = "a constant"


def terms(names: Sequence[str], cases: Sequence[tuple], results: Results) -> str:
    """Which factors are wrong; "" if the right result is no such sum, or this one is none."""
    found: dict[str, list[tuple[float, float]]] = {}
    for case, (given, want) in zip(cases, results):
        columns = {name: value.double() for name, value in zip(names, case)
                   if isinstance(value, Tensor) and value.shape == want.shape}
        if not columns or given.shape != want.shape or want.ndim < 2:
            return ""
        for k in _units(columns, want):
            one = _factors([value[k] for value in columns.values()], given[k], want[k])
            if not one:
                return ""
            for name, pair in zip([*columns, CONSTANT], one):
                found.setdefault(name, []).append(pair)
    return _said(found)


def _units(columns: dict[str, Tensor], want: Tensor) -> list[slice]:
    """Parts of a batch that have factors of their own: all of it, or each sample; none where
    samples have too few entries to tell."""
    enough = len(columns) + 3
    whole = slice(None)
    if want.numel() >= enough and _factors(list(columns.values()), want, want):
        return [whole]
    single = [slice(k, k + 1) for k in range(len(want))]
    return single if want[0].numel() >= enough else []


def _factors(columns: Sequence[Tensor], *results: Tensor) -> list[tuple[float, ...]]:
    """For each column, and for a constant, what multiplies it in each of the results; [] if that
    is not all that the results are."""
    ones = torch.ones(results[0].numel(), dtype=torch.float64)
    matrix = torch.stack([*(value.flatten() for value in columns), ones], 1)
    right = torch.stack([result.double().flatten() for result in results], 1)
    factors = torch.linalg.lstsq(matrix, right).solution
    return list(map(tuple, factors.tolist())) if close(matrix @ factors, right) else []


def _said(found: dict[str, list[tuple[float, float]]]) -> str:
    right = []
    said = []
    for name, pairs in found.items():
        given, want = max(pairs, key=_apart)
        if _apart((given, want)) < 1e-4:
            right += [name] * (name != CONSTANT)
        elif name == CONSTANT:
            said.append(f"A constant is added, {given:.3g} for instance.")
        elif all(abs(one) < 1e-5 for one, _ in pairs):
            said.append(f"{name} is missing.")
        elif all(_apart((-one, other)) < 1e-4 for one, other in pairs):
            said.append(f"What multiplies {name} has the wrong sign.")
        else:
            said.append(f"{name} is multiplied by {_rounded(given)} where it should be "
                        f"{_rounded(want)}, for instance.")
    if said and right:
        said.append(f"What multiplies {listed(right)} is right.")
    return " ".join(said)


def _rounded(value: float) -> str:
    return f"{value:.3g}" if abs(value) > 1e-6 else "0"


def _apart(pair: tuple[float, float]) -> float:
    return abs(pair[0] - pair[1])
