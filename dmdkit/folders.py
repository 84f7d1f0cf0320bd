"""Folders of known files that are whole or not there, and never take the place of anything else."""
import os
from pathlib import Path

from . import disk

CARD = "card.json"  # what a folder of ours has
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # of who looks at a folder, not of who owns it


def write(folder: Path, content: dict[str, bytes], known: set[str], overwrite: bool) -> None:
    """Write a folder of files, its card among them, whole or not at all.

    known: what such a folder may hold. overwrite: whether one that is there may be replaced.
    Raises RuntimeError if something else is in the way or it cannot be written; what was there
    before is then left as it was.
    """
    if folder.name in ("", ".."):  # the folder that we are in, or above it
        folder = Path(os.path.abspath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with disk.locked(folder.parent):
            _tidy(folder, known)
            check(folder, known, overwrite)
            _replace(folder, content, known)
    except OSError as error:
        there = os.path.lexists(folder)
        kept = "what was there before is untouched" if there else "nothing was written"
        raise disk.could_not_write(folder, error, kept) from None


def check(folder: Path, known: set[str], overwrite: bool) -> None:
    """Raises RuntimeError unless a folder may be put there."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise RuntimeError(f"{folder} is there and no folder of an artefact; it is left as it is. "
                           "Choose another name, or move it out of the way.")
    there = {path.name for path in folder.iterdir()} - LITTER
    others = sorted(there - known if CARD in there else there)
    if others:
        raise RuntimeError(f"{folder} holds what is no artefact's ({others[0]}); it is left as it "
                           "is. Choose another folder.")
    if there and not overwrite:
        raise RuntimeError(f"{folder} holds an artefact already; it is left as it is. Choose "
                           "another folder, or say that it may be replaced: overwrite=True.")


def _replace(folder: Path, content: dict[str, bytes], known: set[str]) -> None:
    partial = disk.part_of(folder)
    try:
        partial.mkdir()
        for name, raw in content.items():
            disk.write_atomically(partial / name, raw)
        if folder.exists():
            disk.replace(folder, _old(folder))
        disk.replace(partial, folder)
    finally:
        _remove(partial, known)
        _tidy(folder, known)


def _tidy(folder: Path, known: set[str]) -> None:
    """Remove what a stopped writing left, or put back what it had taken away."""
    old = _old(folder)
    if old.exists() and not folder.exists():
        disk.replace(old, folder)
    for left in [old, *disk.stale_parts(folder)]:
        _remove(left, known)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _remove(folder: Path, known: set[str]) -> None:
    """Remove a folder that holds nothing but known files, and parts of them."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name in known | LITTER or path.suffix == ".part":
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
