"""What ships and what it is made of: which of it is out of date, why, and how it is made again.

An artefact is made by its recipe and of its teacher, a study of its settings and teachers, pictures
of models, and tables of cards.
"""
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .. import data, files, store
from ..data import ROOT, RUNS
from . import (blind, colour, explorer, halvings, hero, lesson03, lesson04, lesson05, lesson06,
               mnist, page_student, study, tables)
from .recipe import Recipe
from .runner import CHECKPOINT, NOTE, train_artefact

RECIPES = mnist.RECIPES | colour.RECIPES
STUDIES = {"03": lesson03.STUDY, "04": lesson04.STUDY, "05": lesson05.STUDY, "06": lesson06.STUDY}
UNSHIPPED = (*mnist.UNSHIPPED, *colour.UNSHIPPED)
HOME = Path(data.__file__).resolve().parent.parent


def recipe(name: str) -> Recipe:
    """Raises ValueError for a name that has no recipe."""
    if name not in RECIPES:
        raise ValueError(f"There is no recipe for {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]


def study_of(lesson: str) -> study.Study:
    """Raises ValueError for a lesson that has no study."""
    if lesson not in STUDIES:
        raise ValueError(f"There is no study of lesson {lesson!r}; there are "
                         f"{', '.join(STUDIES)}.")
    return STUDIES[lesson]


class Target(NamedTuple):
    """Something that ships, or is made on demand."""
    name: str
    needs: tuple[str, ...]      # the targets that it is made of
    why: Callable[[], str]      # why it is out of date; "" if it is not
    make: Callable[[], object]  # makes it again, going on where an earlier call was stopped
    minutes: float              # about how long that takes on two CPU cores; NaN: not known
    ships: bool = True          # else it is made only where it is named


def targets(root: Path = ROOT) -> dict[str, Target]:
    """Everything that can be made, each after what it is made of."""
    found = {}
    for name in RECIPES:
        if name not in UNSHIPPED:
            _add(found, name, root)
    artefacts = tuple(found)  # whose cards the tables are written from
    found["explorer"] = Target("explorer", explorer.SHOWN, partial(_why_explorer, root),
                               partial(_make_explorer, root), 5)
    for name, of in (("hero", hero), ("blind", blind), ("halvings", halvings)):
        if set(of.SHOWN) <= set(artefacts):
            found[name] = Target(name, of.SHOWN, partial(_why_digits, of, name, root),
                                 partial(of.build, root), 5)
    for lesson, one in STUDIES.items():
        needs = {name for recipe in one.recipes.values()
                 for name in recipe.method.requires.values()}
        found[f"study {lesson}"] = _study(lesson, one, tuple(sorted(needs)), root)
    found["page"] = Target("page", (page_student.STUDENT,), partial(page_student.why, root),
                           partial(page_student.build, root), 0, ships=False)
    found["tables"] = Target("tables", artefacts, partial(_why_tables, root),
                             partial(tables.write, HOME, root), 0)
    return found


def _add(found: dict[str, Target], name: str, root: Path) -> None:
    """Add an artefact, after those that it is made of."""
    needs = tuple(dict.fromkeys(RECIPES[name].method.requires.values()))
    for other in needs:
        if other not in found:
            _add(found, other, root)
    found[name] = Target(name, needs, partial(why_artefact, name, root),
                         partial(_make_artefact, name, root), _minutes(name, root))


def _study(lesson: str, one: study.Study, needs: tuple[str, ...], root: Path) -> Target:
    return Target(f"study {lesson}", needs, partial(why_study, one, root),
                  partial(study.build, one, root=root), 60 * one.hours)


def _minutes(name: str, root: Path) -> float:
    unknown = float("nan")
    there = name in store.names(root)
    return store.card(name, root).get("wall_time_s", unknown) / 60 if there else unknown


# Why something is out of date

def why_artefact(name: str, root: Path = ROOT, home: Path | None = None) -> str:
    """Why an artefact is out of date: it is missing, its recipe has changed, or what it was made of
    is another now, in ``home`` if that is another folder than its own."""
    if name not in store.names(root):
        return "it is missing"
    card = store.card(name, root)
    other = changed(card.get("recipe", {}), recipe(name).settings)
    if other:
        return f"its recipe has another {other} now"
    return _why_origin(card, recipe(name), home or root)


def _why_origin(origin: dict, plan: Recipe, root: Path) -> str:
    """Why what was made of other artefacts is out of date. origin: their checksums of then."""
    for role, needed in plan.method.requires.items():
        if needed not in store.names(root):
            return f"its {role} is missing"
        if origin.get(f"{role}_sha256") != store.checksum(needed, root):
            return f"its {role} is another now"
    return ""


def changed(before: dict, now: dict) -> str:
    """The first setting that differs, or "". Tuples and JSON's lists are alike."""
    for name, value in now.items():
        value = list(value) if isinstance(value, tuple) else value
        if before.get(name) != value:
            return name
    return next((name for name in before if name not in now), "")


def why_study(one: study.Study, root: Path = ROOT) -> str:
    """Why a study is out of date."""
    if not one.card_path(root).exists():
        return "it is missing"
    card = study.card(one, root)
    before, origins = card["settings"], card.get("origins", {})
    for name, plan in one.recipes.items():
        if name not in before:
            return f"it has no setting {name!r}"
        other = changed(before[name], plan.settings)
        if other:
            return f"its setting {name!r} has another {other} now"
        why = _why_origin(origins[name], plan, root) if name in origins else ""
        if why:
            return f"its setting {name!r}: {why}"
    return ""


def _why_explorer(root: Path) -> str:
    for name in explorer.SHOWN:
        if not (root / "explorer" / f"{name}.json").exists():
            return f"the pictures of {name} are missing"
        if name not in store.names(root):
            return f"{name} is missing"
        if explorer.card(name, root)["model_sha256"] != store.checksum(name, root):
            return f"{name} is another now"
    return ""


def _why_digits(of, name: str, root: Path) -> str:
    if not (root / name / "digits.json").exists():
        return "it is missing"
    before = of.card(root)["models"]
    other = [name for name, now in of.models(root).items() if before.get(name) != now]
    return f"{other[0]} is another now" if other else ""


def _why_tables(root: Path) -> str:
    old = tables.stale(HOME, root)
    return f"{' and '.join(old)} do not say what the cards say" if old else ""


def plan(names: list[str] | None = None, root: Path = ROOT) -> Iterator[tuple[Target, str]]:
    """What is out of date, and why, in the order in which it has to be made.

    names: look at these and what they are made of; all that ships by default. Raises ValueError for
    an unknown name.
    """
    known = targets(root)
    for name in names or ():
        if name not in known:
            raise ValueError(f"Nothing that ships is called {name!r}; there are "
                             f"{', '.join(known)}.")
    all_that_ships = [name for name, target in known.items() if target.ships]
    wanted, old = _with_needs(names or all_that_ships, known), set()
    for name in known:
        if name not in wanted:
            continue
        target = known[name]
        why = target.why()
        made_of = [need for need in target.needs if need in old]
        if made_of:
            why = why or f"it is made of {made_of[0]}, which is out of date"
        if why:
            old.add(name)
            yield target, why


def _with_needs(names: list[str], known: dict[str, Target]) -> set[str]:
    found = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(known[name].needs if name != "tables" else ())
    return found


# Making it again

def _make_artefact(name: str, root: Path) -> None:
    """Train an artefact in ``runs`` and put it where it ships, with nothing measured yet."""
    check_runs(name, root)
    if name in store.names(RUNS) and why_artefact(name, RUNS, root):
        _move_aside(name)
    if name not in store.names(RUNS):
        resume = (RUNS / f"{name}.training" / CHECKPOINT).exists()
        train_artefact(name, recipe(name), RUNS, resume=resume, roots=(root,))
    card = store.card(name, RUNS)
    store.save(store.load(name, root=RUNS), root / name, card, half=True, overwrite=True)


def check_runs(name: str, root: Path = ROOT) -> None:
    """Raises RuntimeError where ``runs`` holds another artefact of that name, or another training,
    than is to be made: it may be somebody's work. A copy of what ships is not."""
    note, why = RUNS / f"{name}.training" / NOTE, ""
    if name in store.names(RUNS):
        ships = name in store.names(root) and store.checksum(name, root)
        why = "" if store.checksum(name, RUNS) == ships else why_artefact(name, RUNS, root)
    elif name in RECIPES and note.exists():
        other = changed(files.read_json(note, "recipe")["recipe"], recipe(name).settings)
        why = f"its recipe has another {other} now" if other else ""
    if why:
        raise RuntimeError(f"{RUNS} holds another {name} than is to be made: {why}. Move it and "
                           f"{name}.training elsewhere, then build again.")


def _move_aside(name: str) -> None:
    """Put an earlier copy of what ships, and its training, into a folder of their own."""
    aside = RUNS / f"before-{store.checksum(name, RUNS)[:8]}"
    aside.mkdir(exist_ok=True)
    for old in (RUNS / f"{name}.training", RUNS / name):
        if old.exists():
            old.rename(aside / old.name)


def _make_explorer(root: Path) -> None:
    for name in explorer.SHOWN:
        one_step = {"samplers": ("DDIM",), "guidances": (0.0,), "steps": (1,)}
        explorer.build(name, root, **({} if name == "teacher" else one_step))


