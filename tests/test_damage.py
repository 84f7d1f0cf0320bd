"""Damage to every kind of file that ships or that a training leaves, met by what reads it in use:
always a sentence that names the file, never silence and never another error."""
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import damage
import pytest
import torch

from dmdkit import data, files, nets, schedule, store
from dmdkit.denoiser import Denoiser
from dmdkit.methods import pairs

ARTEFACT = "progressive-2"


def copied(folder: Path, *names: str) -> None:
    """Some of what ships, at ``folder``."""
    for name in names:
        source = data.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)


def artefact(folder: Path, file: str) -> tuple[Path, Callable]:
    copied(folder, ARTEFACT)
    return folder / ARTEFACT / file, lambda: store.load(ARTEFACT, root=folder)


def sealed(folder: Path, name: str) -> tuple[Path, Callable]:
    copied(folder, name)
    return folder / name, lambda: files.read_json(folder / name)


def of_pairs(folder: Path) -> tuple[Path, Callable]:
    teacher = Denoiser(nets.PointMLP(8), schedule.cosine(), n_classes=0).eval()
    pairs.make_pairs(teacher, 2, folder, pairs.Solver("ddim", 1))
    return folder / pairs.CARD, lambda: files.read_json(folder / pairs.CARD)


def log(folder: Path) -> tuple[Path, Callable]:
    path = folder / "log.jsonl"
    files.write_lines(path, [{"step": step, "loss": 1 / step} for step in range(1, 30)])

    def read() -> None:
        found = files.read_lines(path)
        if found.torn or len(found.entries) < 29:  # a run's log is as long as its checkpoint says
            raise RuntimeError(f"{path} ends before its time.")

    return path, read


def state(folder: Path) -> tuple[Path, Callable]:
    path = folder / "checkpoint.safetensors"
    files.save_state(path, {"step": 3, "net": {"w": torch.randn(50)}, "rate": 0.1})
    return path, lambda: files.load_state(path)


def in_explorer() -> list[str]:
    return sorted(f"explorer/{path.name}" for path in (data.ROOT / "explorer").glob("*.json"))


def runs() -> list[str]:
    return sorted(f"{path.parent.name}/runs.json" for path in data.ROOT.glob("*/runs.json"))


MAKERS = {
    **{f"{file} of an artefact": (artefact, file) for file in sorted(store.FILES)},
    **{name: (sealed, name) for name in [*in_explorer()[:1], *runs()]},
    "pairs.json": (of_pairs,), "log.jsonl": (log,), "a state": (state,)}


def what_is_said(read: Callable) -> str:
    """The sentence of the error; "silent" if there was none, and its name if it was another."""
    try:
        read()
    except (RuntimeError, ValueError) as error:
        raw = "\n" in str(error) or error.__context__ and not error.__suppress_context__
        return f"raw: {error!r}" if raw else str(error)
    except Exception as error:  # noqa: BLE001 — whatever it is, it is what the reader would see
        return f"raw: {error!r}"
    return "silent"


def is_clear(said: str, path: Path) -> bool:
    """Whether a sentence names the damaged file, or the artefact that is no more without it."""
    if said.startswith(("raw", "silent")):
        return False
    return str(path) in said or path.name == "card.json" and f"no artefact {ARTEFACT!r}" in said


@pytest.mark.parametrize("kind", damage.KINDS)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_damaged_file_is_a_sentence_that_names_it(tmp_path, maker, kind):
    make, *arguments = MAKERS[maker]
    path, read = make(tmp_path, *arguments)
    dice = random.Random(f"{maker} {kind}")
    for _ in range(3 if kind in ("flip", "cut", "junk_amid") else 1):
        with damage.damaged(path, kind, dice):
            said = what_is_said(read)
        assert is_clear(said, path), f"{kind}: {said}"
    assert what_is_said(read) == "silent"
