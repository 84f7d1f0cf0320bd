"""The tables of README and RESULTS.md, written from cards."""
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from .. import files, store
from ..data import ROOT
from . import results
from .results import REAL, Row

START, END = "<!-- results -->", "<!-- /results -->"
METRICS = (("classifier", "frechet_distance"), ("judge", "frechet_distance"),
           ("judge", "accuracy"), ("classifier", "coverage"))
COLOUR = (("patches", "frechet_distance"), ("inception", "frechet_distance"),
          ("inception", "precision"), ("inception", "coverage"))
DRAWN = ["drawn by", "samples", "noise", "seeds"]
HEADS = ["Fréchet distance, first space", "second space", "right digits", "coverage"]
FORMS = {"accuracy": "{:.1%}", "coverage": "{:.3f}", "frechet_distance": "{:.2f}",
         "ink": "{:.4f}", "lattice": "{:.0%}", "precision": "{:.3f}"}
COLOUR_HEADS = ["Fréchet distance, patches of colour", "in Inception's features",
                "precision there", "coverage there"]
PAPER = (("paper", "ink"), ("paper", "lattice"))
# In colour with classes there is a classifier's space too.
CLASSES = (("classifier", "frechet_distance"), *COLOUR[:2], ("classifier", "accuracy"),
           ("classifier", "coverage"))
CLASSES_HEADS = ["Fréchet distance, classifier", "patches of colour", *COLOUR_HEADS[1:2],
                 "right classes", "coverage, classifier"]

# README's table: what a line is called, the artefact, its sampler, steps and guidance.
LINES = (
    ("real digits", "teacher", REAL, 0, 0.0),
    ("teacher, 400 steps DDPM", "teacher", "ddpm", 400, 0.25),
    ("teacher, 400 steps DDIM", "teacher", "ddim", 400, 0.25),
    ("teacher, 16 steps DDIM, unguided", "teacher", "ddim", 16, 0.0),
    ("`student-dmd2`, one step", "student-dmd2", "multistep", 1, 0.0),
    ("`student-dmd`, one step", "student-dmd", "ddim", 1, 0.0),
    ("`student-dmd-paired`, one step", "student-dmd-paired", "ddim", 1, 0.0),
    ("`progressive-1`, one step", "progressive-1", "ddim", 1, 0.0))
N_IMAGES = 5000


def cards(root: Path = ROOT) -> dict[str, dict]:
    """Every card that ships, by name."""
    return {name: store.card(name, root) for name in store.names(root)}


def figures(found: list[Row], metrics=METRICS) -> list[str]:
    """A line's cells: each of these metrics over the seeds that there are."""
    cells = []
    for space, metric in metrics:
        here = results.select(found, space=space, metric=metric)
        cells.append(results.text(results.spread(here), FORMS[metric]) if here else "")
    return cells


def short(root: Path = ROOT) -> str:
    """README's table. A cell is empty where nothing has been measured."""
    known, lines = cards(root), []
    for label, name, sampler, n_steps, guidance in LINES:
        found = results.select(results.rows(name, known.get(name, {})), sampler=sampler,
                               n_steps=n_steps, guidance=guidance, more="", images=N_IMAGES)
        lines.append([label, *figures(_stated(found))])
    return results.markdown(["5,000 samples", *HEADS], lines)


def _stated(found: list[Row]) -> list[Row]:
    """Those from report noise; where there are none yet, those of the noise before that rule."""
    report = results.select(found, noise="report")
    return report or results.select(found, noise="pairs", seed=0)


def figure(name: str, space: str, metric: str, card: dict | None = None, **where) -> float:
    """One figure of an artefact, as lessons state it: the mean over the seeds of report noise, or
    where there are none yet, of the noise before that rule.

    card: its card, where it does not ship. where: columns of a ``Row``, as a ``Sampling``'s entry
    has them; sampler=REAL is the real-data baseline. Unless it says otherwise, of ``N_IMAGES``
    samples of a sampler that was told nothing more. Raises ValueError for a figure that is not on
    the card, and where several things are meant.
    """
    rows = results.rows(name, card or store.card(name))
    where = {"more": "", "images": N_IMAGES, "space": space, "metric": metric} | where
    found = results.select(rows, **where)
    found = found if "noise" in where else _stated(found)
    if not found:
        said = ", ".join(f"{column} {value!r}" for column, value in where.items())
        raise ValueError(f"There is no such figure on the card of {name!r}: {said}. Measure it "
                         f"with `python -m dmdkit evaluate {name}`.")
    return results.spread(found).mean


def _group(row: Row) -> tuple:
    """What the rows of one line have in common."""
    return row.sampler, row.n_steps, row.guidance, row.more, row.images, row.noise


def clean_paper(root: Path = ROOT) -> str:
    """The table of what lies on the digits' paper, of all that was measured by it."""
    lines = []
    for name, card in cards(root).items():
        found = results.select(results.rows(name, card), space="paper", noise="report")
        found = [row for row in found if row.sampler != REAL]
        for line in _lines(found, PAPER):
            lines.append([f"`{name}`", *line])
    return results.markdown(["artefact", *DRAWN, "ink", "lattice"], lines)


def long(root: Path = ROOT) -> str:
    """All figures on all cards of denoisers: a table an artefact, and one of the paper."""
    parts = [f"### Clean paper\n\n{clean_paper(root)}"]
    for name, card in cards(root).items():
        rows = sorted(results.rows(name, card))
        metrics, heads = _columns(rows)
        if any(row.sampler != REAL for row in rows):
            table = results.markdown([*DRAWN, *heads], _lines(rows, metrics))
            parts.append(f"### {name}\n\n{card['what']}\n\n{table}")
    return "\n\n".join(parts)


def _columns(rows: list[Row]) -> tuple:
    """The metrics of an artefact's table, and what its head calls them."""
    if not results.select(rows, space="patches"):
        return METRICS, HEADS
    if results.select(rows, space="classifier"):
        return CLASSES, CLASSES_HEADS
    return COLOUR, COLOUR_HEADS


def _lines(rows: list[Row], metrics=METRICS) -> Iterator[list[str]]:
    for key, found in groupby(sorted(rows, key=_group), _group):
        sampler, n_steps, guidance, more, images, noise = key
        found = list(found)
        seeds = sorted({row.seed for row in found})
        what = sampler if sampler == REAL else f"{sampler}, {n_steps}, guidance {guidance:g}"
        said = f"{what}, {more}" if more else what
        yield [said, f"{images:,}", noise, ", ".join(map(str, seeds)),
               *figures(found, metrics)]


def filled(text: str, table: str, path: Path) -> str:
    """A page with the table between its marks. Raises RuntimeError for a page without them."""
    counts = text.count(START), text.count(END)
    if counts != (1, 1) or text.index(END) < text.index(START):
        raise RuntimeError(f"{path} must have {START} and {END} once each, around its table.")
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{table}\n{END}{after}"


def pages(home: Path, root: Path = ROOT) -> dict[Path, str]:
    """The pages as they should be, by path. home: the folder of README."""
    return {path: filled(files.read_text(path), table, path)
            for path, table in ((home / "README.md", short(root)),
                                (home / "RESULTS.md", long(root)))}


def stale(home: Path, root: Path = ROOT) -> list[str]:
    """The names of the pages whose tables are not what the cards say."""
    return [path.name for path, text in pages(home, root).items()
            if files.read_text(path) != text]


def write(home: Path, root: Path = ROOT) -> None:
    """Bring the pages up to date."""
    for path, text in pages(home, root).items():
        files.write_atomically(path, text.encode("utf-8"))
