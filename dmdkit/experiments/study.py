"""Studies: trainings that a lesson compares, several runs of each.

    data/name/runs.safetensors    by setting: what was seen over training
              runs.json           the card: settings, the figures of every run, versions, time
"""
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from .. import files, store, train
from ..data import ROOT, RUNS
from .evaluate import draw, real_samples
from .recipe import Recipe, Sources
from .runner import NOTE, Frame, environment, finished, recorded, run, stacked
from .snapshot import seen


def scores(study: "Study", recipe: Recipe, training: train.Training, score) -> list[dict]:
    """The entries of one run: what its samples score, by each of the recipe's samplings."""
    net, found = finished(training), []
    for how in recipe.samplings:
        try:
            x, label = draw(net, how, study.n_images, "selection", recipe.seed)
            values = score(x, label)
        except FloatingPointError:  # an unstable setting is a result, and no reason to stop
            values = {}
        found.append({"sampling": how.entry, "seed": recipe.seed, "values": values})
    return found


@dataclass(frozen=True)
class Study:
    """Recipes that are compared: each differs from another in what its name says.

    Args:
        name: of the folder that ships. what: one sentence for the card.
        recipes: by name.
        seeds: how many runs of each, or of those named, where the rest has one.
        n_images: samples that a figure is of.
        shown: artefacts whose whole training is shown beside them.
        hours: about how long it takes on two CPU cores.
        observe: what is kept of a training at a milestone; score: what its figures are.
        baseline: what real data score; None measures it as the recipes' samples are.
        kept: what ships of what was seen: by setting, entries of snapshots, () for all. None: all.
    """
    name: str
    what: str
    recipes: dict[str, Recipe]
    seeds: int | dict[str, int] = 3
    n_images: int = 2000
    shown: tuple[str, ...] = ()
    hours: float = 1.0
    n_frames: int = 7
    observe: Callable[[Frame], dict] = seen
    score: Callable[..., list[dict]] = scores
    baseline: Callable[[], dict] | None = None
    kept: Mapping[str, tuple[str, ...]] | None = None

    def runs_of(self, name: str) -> int:
        """How many runs there are of a setting."""
        return self.seeds.get(name, 1) if isinstance(self.seeds, dict) else self.seeds

    def recipe(self, name: str) -> Recipe:
        """Raises ValueError for a setting that there is not."""
        if name not in self.recipes:
            raise ValueError(f"The study {self.name} has no setting {name!r}; it has "
                             f"{', '.join(self.recipes)}.")
        return self.recipes[name]

    def path(self, root: Path = ROOT) -> Path:
        """The file of what was seen over training; a study of figures alone has none."""
        return Path(root) / self.name / "runs.safetensors"

    def card_path(self, root: Path = ROOT) -> Path:
        """The file of the figures."""
        return self.path(root).with_suffix(".json")


def load(study: Study, root: Path = ROOT) -> dict[str, dict]:
    """What was seen, by setting: "steps" (F,), updates of what is trained, and "snapshots" (each
    entry (F, …)) of the first run, and "brightness" (runs, F) where there are snapshots of images.
    Whole trainings have a "log" in place of the last. Raises RuntimeError if the file is missing or
    damaged, or another study's."""
    path = study.path(root)
    if not path.exists():
        raise RuntimeError(f"{path} is missing. Restore it with `git checkout {path.name}`, or "
                           f"compute it again: `python -m dmdkit study` ({study.hours:g} hours).")
    if files.sha256(path) != card(study, root)["sha256"]:
        raise RuntimeError(f"{path} is damaged or another study's: its checksum is not the one on "
                           f"its card. Restore both with `git checkout`.")
    return files.load_state(path)


def card(study: Study, root: Path = ROOT) -> dict:
    """The card of the runs that ship. Raises RuntimeError if it is missing, damaged or another
    study's."""
    path = study.card_path(root)
    found = files.read_json(path)
    if found.get("name") != study.name:
        raise RuntimeError(f"{path} is the card of {found.get('name')!r}, not of {study.name!r}. "
                           f"Restore it with `git checkout {path.name}`.")
    return found


def build(study: Study, names: list[str] | None = None, root: Path = ROOT) -> Path:
    """Run the settings (all by default) and store what was seen and scored; returns the path.

    Finished runs are kept in ``runs/study-name``, from where a later call takes them. Settings that
    are not named keep what an earlier call stored of them.
    Raises ValueError for an unknown name, RuntimeError for a teacher or folder that is not there,
    before any run.
    """
    chosen = {name: study.recipe(name) for name in names or study.recipes}
    keys = {name: _keys(study, name, recipe) for name, recipe in chosen.items()}
    keep, path = RUNS / f"study-{study.name}", study.path(root)
    for folder in (keep, path.parent):
        files.check_writable(folder)
    state, made = _before(study, root)
    shown = dict(_shown(study, root))
    with tqdm(total=sum(map(len, keys.values())), unit="run", desc=study.name) as bar:
        task = next(iter(chosen.values())).task
        score = cache(task.scorer)  # made when the first run needs it
        for name, recipe in chosen.items():
            done = []
            for seed, key in enumerate(keys[name]):
                done.append(_one(study, recipe.changed(seed=seed), keep / key, score))
                bar.update()
            state[name] = _first(done)
            _note(made, name, recipe, done)
    state = _kept(study, state | shown)
    if names is None or "baseline" not in made:
        made["baseline"] = study.baseline() if study.baseline else score()(
            *real_samples(task, study.n_images))
    made |= {"name": study.name, "what": study.what, "images": study.n_images,
             **environment(train.accelerator())}
    if any(one["snapshots"] for one in state.values()):
        files.save_state(path, state)
        made["sha256"] = files.sha256(path)
    files.write_json(study.card_path(root), made)
    return study.card_path(root)


def _shown(study: Study, root: Path) -> Iterator[tuple[str, dict]]:
    """What the trainings in ``runs`` of the artefacts that are shown kept. A training by another
    recipe than the artefact's, or from another teacher, is not shown as its."""
    for name in study.shown:
        work, home = RUNS / f"{name}.training", store.find(name, root, RUNS)
        if (work / NOTE).exists() and name in store.names(home):
            note, card = files.read_json(work / NOTE), store.card(name, home)
            del note["artefact"]
            if all(card.get(entry) == value for entry, value in note.items()):
                yield name, recorded(work)


def _kept(study: Study, state: dict[str, dict]) -> dict[str, dict]:
    """What ships of what was seen."""
    if study.kept is None:
        return state
    found = {name: dict(state[name]) for name in study.kept if name in state}
    for name, run in found.items():
        entries = study.kept[name] or run["snapshots"]
        run["snapshots"] = {entry: run["snapshots"][entry] for entry in entries}
    return found


def _before(study: Study, root: Path) -> tuple[dict, dict]:
    """What is stored already, and its card."""
    made = {"settings": {}, "origins": {}, "seconds": {}, "results": []}
    if study.card_path(root).exists():
        made |= card(study, root)
    return load(study, root) if study.path(root).exists() else {}, made


def _keys(study: Study, name: str, recipe: Recipe) -> list[str]:
    """The files that the runs of a setting are kept in, named after all that they depend on."""
    drawn = [how.entry for how in recipe.samplings]
    found = []
    for seed in range(study.runs_of(name)):
        said = json.dumps([recipe.changed(seed=seed).settings, origin(recipe), drawn,
                           study.n_images, study.n_frames], sort_keys=True)
        found.append(hashlib.sha256(said.encode()).hexdigest()[:12] + ".safetensors")
    return found


def origin(recipe: Recipe) -> dict[str, str]:
    """What a card says of the artefacts that a setting's runs start from."""
    return Sources(recipe.task).origin(recipe.method.requires)


def _one(study: Study, recipe: Recipe, kept: Path, score: Callable) -> dict:
    """One run: what was seen, and its entries."""
    if not kept.exists():
        begun, frames = time.perf_counter(), []
        try:
            for frame in run(recipe, study.n_frames):
                updates = frame.step * getattr(recipe.method, "updates", (1, 1))[0]
                frames.append({"step": torch.tensor(updates), **study.observe(frame)})
        except FloatingPointError:
            if not frames:
                raise
            # it is scored as far as it came
        entries = study.score(study, recipe, frame.training, score())
        files.save_state(kept, {"frames": stacked(frames), "results": entries,
                                "seconds": time.perf_counter() - begun})
    return files.load_state(kept)


def _first(done: list[dict]) -> dict:
    """What is kept of a setting's runs: the first one's pictures, and every one's brightness, NaN
    where a run had come to its end before."""
    frames = dict(done[0]["frames"])
    found = {"steps": frames.pop("step"), "snapshots": frames}
    if "brightness" in frames:
        means = [one["frames"]["brightness"].mean(1) for one in done]
        every = pad_sequence(means, batch_first=True, padding_value=float("nan"))
        found["brightness"] = every[:, :len(found["steps"])]
    return found


def _note(made: dict, name: str, recipe: Recipe, done: list[dict]) -> None:
    """Put a setting and its results onto the card, in place of what was there of it."""
    made["settings"][name] = recipe.settings
    made["origins"][name] = origin(recipe)
    made["seconds"][name] = [round(one["seconds"]) for one in done]
    others = [entry for entry in made["results"] if entry["setting"] != name]
    new = [{"setting": name, **entry} for one in done for entry in one["results"]]
    made["results"] = others + new


def values(card: dict, setting: str, space: str, metric: str, sampler: str = "") -> list[float]:
    """A figure of each run of a setting; NaN where a run's samples were not finite. Raises
    ValueError for a setting without runs."""
    found = [entry for entry in card["results"] if entry["setting"] == setting
             and sampler in ("", entry["sampling"].get("sampler"))]
    if not found:
        raise ValueError(f"There are no runs of {setting!r}; there are "
                         f"{', '.join(card['settings'])}.")
    return [entry["values"].get(space, {}).get(metric, float("nan")) for entry in found]
