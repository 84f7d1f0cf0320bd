"""Results as rows: what was measured, of what, with which noise. Cards hold them, tables are made
of them by code, and a sentence that states a figure takes it from here.

A card's "results" is a list of entries, one a set of samples:

    {"sampling": {"sampler": "ddim", "n_steps": 16}, "noise": "report", "seed": 1, "images": 5000,
     "values": {"classifier": {"frechet_distance": 2.4, …}, "judge": {…, "accuracy": 0.97}}}
"""
from collections.abc import Iterable, Iterator
from typing import NamedTuple

REAL = "real data"


class Row(NamedTuple):
    """One figure, and all that it depends on."""
    artefact: str    # what drew the samples; ``REAL`` for the real-data baseline
    sampler: str
    n_steps: int
    guidance: float
    more: str        # what else the sampler was told, in words
    noise: str       # which stream the samples started from, see ``noise.PURPOSES``
    seed: int
    images: int
    space: str       # the features that it was taken in
    metric: str
    value: float


class Spread(NamedTuple):
    """A figure over several seeds."""
    mean: float
    least: float
    largest: float
    n: int


def rows(name: str, card: dict) -> Iterator[Row]:
    """Every figure on an artefact's card."""
    for entry in card.get("results", ()):
        how = entry["sampling"]
        artefact = REAL if how["sampler"] == REAL else name
        for space, values in entry["values"].items():
            for metric, value in values.items():
                yield Row(artefact, how["sampler"], how.get("n_steps", 0), how.get("guidance", 0.0),
                          how.get("more", ""), entry["noise"], entry["seed"], entry["images"],
                          space, metric, value)


def select(found: Iterable[Row], **wanted) -> list[Row]:
    """The rows whose columns have these values. Raises ValueError for a column that is none."""
    unknown = [column for column in wanted if column not in Row._fields]
    if unknown:
        raise ValueError(f"A row has no column {unknown[0]!r}; it has {', '.join(Row._fields)}.")
    return [row for row in found
            if all(getattr(row, column) == value for column, value in wanted.items())]


def spread(found: Iterable[Row]) -> Spread:
    """Mean and range of rows that differ in their seed alone. Raises ValueError for none."""
    found = list(found)
    if not found:
        raise ValueError("There is no such figure: measure it with `python -m dmdkit evaluate`.")
    different = {row._replace(seed=0, value=0.0) for row in found}
    if len(different) > 1:
        raise ValueError("These figures are of different things, so they have no common mean: "
                         f"{' and '.join(map(str, list(different)[:2]))}.")
    values = [row.value for row in found]
    return Spread(sum(values) / len(values), min(values), max(values), len(values))


def merged(entries: list[dict], new: dict) -> list[dict]:
    """The entries with one more, which takes the place of an earlier one of the same thing, but
    for figures in spaces that were not at hand this time."""
    same = ("sampling", "noise", "seed", "images")
    others = [entry for entry in entries if any(entry[name] != new[name] for name in same)]
    before = [entry["values"] for entry in entries if entry not in others]
    return [*others, new | {"values": (before[-1] if before else {}) | new["values"]}]


def text(spread: Spread, form: str = "{:.2f}") -> str:
    """"2.03", or with several seeds "2.03 (1.97–2.10)"."""
    if spread.n == 1:
        return form.format(spread.mean)
    return f"{form} ({form}–{form})".format(spread.mean, spread.least, spread.largest)


def markdown(head: list[str], lines: Iterable[list[str]]) -> str:
    """A table as Markdown."""
    whole = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in whole)
