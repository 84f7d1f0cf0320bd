"""Carrying out recipes: one that is looked at while it runs, and one whose artefact is kept.

    out/name            the artefact
    out/name.training   its checkpoint, log and snapshots, from which a stopped training goes on
"""
import itertools
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from .. import files, folders, store, train
from ..data import ROOT, RUNS
from ..methods import dmd
from . import snapshot
from .recipe import Recipe, Sources

CHECKPOINT, LOG, NOTE = "checkpoint.safetensors", "log.jsonl", "recipe.json"


class Frame(NamedTuple):
    """A training at one of its milestones."""
    step: int
    training: train.Training
    values: dict[str, list[float]]  # every step's so far, by name


def ready(recipe: Recipe, accelerator: Accelerator, sources: Sources | None = None
          ) -> train.Training:
    """The recipe's training at its start; a distillation with snapshots to take."""
    torch.manual_seed(recipe.seed)
    training = recipe.prepare(accelerator, sources)
    if not isinstance(training.step, dmd.DMD):
        return training

    def look() -> snapshot.Snapshot:
        return snapshot.take(recipe.task, training, recipe.samplings[0])

    return training._replace(snapshot=look)


def run(recipe: Recipe, n_frames: int = 7, accelerator: Accelerator | None = None,
        **given) -> Iterator[Frame]:
    """Run a recipe, yielding a ``Frame`` at ``train.milestones``, the start among them.

    given: networks by the name that the recipe has for them, and ``pairs``, that are at hand.
    """
    accelerator = accelerator or train.accelerator()
    sources = Sources(recipe.task, device=accelerator.device, given=given)
    training, values = ready(recipe, accelerator, sources), {}
    yield Frame(0, training, values)
    milestones = train.milestones(recipe.n_steps, n_frames)
    for record in train.train(training.step, training.learners, n_steps=recipe.n_steps,
                              seed=recipe.seed):
        for name, value in record.values.items():
            values.setdefault(name, []).append(value)
        if record.step in milestones:
            yield Frame(record.step, training, values)


def finished(training: train.Training) -> torch.nn.Module:
    """The network that a training is kept as, in eval mode."""
    if training.finish:
        return training.finish().eval()
    return next(iter(training.learners.values())).averaged()


# An artefact.

def train_artefact(name: str, recipe: Recipe, out: Path = RUNS, *, resume: bool = False,
                   overwrite: bool = False, cpu: bool = False,
                   roots: tuple[Path, ...] = ()) -> Path:
    """Train an artefact into ``out/name``; returns that folder.

    resume: go on from the last checkpoint. overwrite: replace what an earlier run left. roots:
    where its teacher is looked for; by default in ``out``, in what ships and in ``runs``.
    Raises RuntimeError, before any work, where that folder is not ours to replace, where there is
    an earlier run and neither is said, and where the run to resume is not there, or had another
    recipe or another teacher.
    """
    out, accelerator = Path(out), train.accelerator(cpu)
    folder, work = out / name, out / f"{name}.training"
    sources = Sources(recipe.task, roots or (out, ROOT, RUNS), accelerator.device)
    origin = sources.origin(recipe.method.requires)
    note = {"artefact": name, "recipe": recipe.settings, **origin}
    _check_free(folder, work, resume, overwrite)
    if resume:
        _check_same(work, note)
    files.check_writable(work)
    training = ready(recipe, accelerator, sources)
    if not resume:
        _begin(work, note, accelerator)
    records = train.train(training.step, training.learners, n_steps=recipe.n_steps,
                          seed=recipe.seed, checkpoint=work / CHECKPOINT, resume=resume,
                          overwrite=overwrite)
    if training.snapshot and accelerator.is_main_process:
        records = _watched(records, training.snapshot, work, recipe.n_steps, resume)
    seconds = _follow(records, work / LOG, recipe.n_steps, resume, accelerator.is_main_process)
    if accelerator.is_main_process:
        net = finished(training)
        card = {"name": name, "what": recipe.what, "wall_time_s": round(seconds),
                "recipe": recipe.settings, **origin, **environment(accelerator),
                "parameters": sum(p.numel() for p in net.parameters())}
        if recipe.task.terms:
            card["terms"] = recipe.task.terms
        store.save(net, folder, card, half=True, overwrite=overwrite)
    accelerator.wait_for_everyone()  # the next training may start from this one
    return folder


def _check_free(folder: Path, work: Path, resume: bool, overwrite: bool) -> None:
    """Refuse to go over finished work or over a run that could go on, and to go on from none."""
    if resume and overwrite:
        raise RuntimeError("--resume goes on and --overwrite starts anew: say one of them.")
    if resume and not (work / CHECKPOINT).exists():
        raise RuntimeError(f"There is no checkpoint at {work / CHECKPOINT}. Check the folder, or "
                           "start without --resume.")
    folders.check(folder, store.FILES, overwrite)
    if resume or overwrite:
        return
    if (work / CHECKPOINT).exists():
        raise RuntimeError(f"{work} holds a training that can go on: say --resume, or --overwrite "
                           "to start it anew.")
    if (work / LOG).exists():
        raise RuntimeError(f"{work} holds the log of another training; it is left as it is. Choose "
                           "another folder, or say --overwrite to start anew there.")


def _check_same(work: Path, note: dict) -> None:
    """Raises RuntimeError where the run in ``work`` had another recipe, or started from another
    network."""
    before = _flat(files.read_json(work / NOTE, "recipe"))
    for name, value in _flat(note).items():
        if before.get(name) != value:
            raise RuntimeError(f"The training in {work} had another {name}: {before.get(name)!r}, "
                               f"now it is {value!r}. Start it again with --overwrite, or resume "
                               "it as it was.")


def _begin(work: Path, note: dict, accelerator: Accelerator) -> None:
    """Note in ``work`` which run it is of from now on. An earlier run's checkpoint goes first: the
    note and the checkpoint are always of one run."""
    if accelerator.is_main_process:
        for name in (CHECKPOINT, LOG):
            (work / name).unlink(missing_ok=True)
        files.write_json(work / NOTE, note)
    accelerator.wait_for_everyone()


def _flat(note: dict) -> dict:
    """The note's entries and its recipe's, side by side, as JSON has them."""
    whole = note | note["recipe"]
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in whole.items() if name != "recipe"}


def _watched(records: Iterator[train.Record], look, work: Path, n_steps: int,
             resume: bool) -> Iterator[train.Record]:
    """The records, with a snapshot kept in ``work`` at each of ``train.milestones``."""
    def keep(step: int) -> None:
        files.save_state(work / f"snapshot-{step:06d}.safetensors", look()._asdict())

    if not resume:
        for path in work.glob("snapshot-*.safetensors"):  # an earlier run's, of another length
            path.unlink()
        keep(0)
    milestones = train.milestones(n_steps)
    for record in records:
        if record.step in milestones:
            keep(record.step)
        yield record


def _follow(records: Iterator[train.Record], log: Path, n_steps: int, resume: bool,
            main: bool) -> float:
    """Run the training under a progress bar, write its log, and return its seconds, those before a
    resume included."""
    if not main:
        return float(sum(record.seconds for record in records))
    before = files.read_lines(log).entries if resume and log.exists() else []
    first = next(records, None)
    if first is None:  # resumed at the end: nothing is left to do
        return sum(entry["seconds"] for entry in before)
    # where the checkpoint left off is known only now; what the log has after it is done again
    before = [entry for entry in before if entry["step"] < first.step]
    seconds = sum(entry["seconds"] for entry in before)
    files.write_lines(log, before)
    with tqdm(total=n_steps, initial=len(before), unit="step") as bar:
        for record in itertools.chain([first], records):
            entry = {"step": record.step, "seconds": round(record.seconds, 4), **record.values}
            files.append_line(log, entry)
            seconds += record.seconds
            bar.update()
            shown = {name: f"{value:.4f}" for name, value in record.values.items()}
            bar.set_postfix(shown, refresh=False)
    return seconds


def environment(accelerator: Accelerator) -> dict:
    """What a card says of where something ran."""
    device = accelerator.device
    name = f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type != "cpu":
        name = device.type
    if accelerator.num_processes > 1:
        name = f"{accelerator.num_processes} × {name}"
    precision = accelerator.mixed_precision
    versions = {"python": platform.python_version(), **files.versions("accelerate")}
    return {"device": name, "precision": "fp32" if precision == "no" else precision,
            "versions": versions}


def recorded(work: Path) -> dict:
    """What a distillation by recipe kept in its folder: "steps" (F,), "snapshots" (each entry
    (F, …)) and "log", every step's values by name. Raises RuntimeError if there is none."""
    paths, log = sorted(Path(work).glob("snapshot-*.safetensors")), Path(work) / LOG
    if not paths or not log.exists():
        raise RuntimeError(f"{work} holds no training of a student. Train one first: "
                           "`python -m dmdkit train student-dmd`.")
    seen = [files.load_state(path) for path in paths]
    entries = files.read_lines(log).entries
    steps = torch.tensor([int(path.stem.split("-")[1]) for path in paths])
    names = [name for name in entries[0] if name != "step"] if entries else []
    return {"steps": steps, "snapshots": stacked(seen),
            "log": {name: torch.tensor([entry[name] for entry in entries]) for name in names}}


def stacked(seen: list[dict]) -> dict:
    """Entries of like dictionaries of tensors, one behind the other: each (F, …)."""
    return {name: torch.stack([one[name] for one in seen]) for name in seen[0]}
