"""Notebooks that were handed in, as they come: files, folders, the zips of Canvas and Moodle."""
import io
import json
import lzma
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .needed import readable
from .points import TABLE, lesson_of

LARGEST = 50 * 2**20  # bytes of a notebook that is read
CANVAS = re.compile(r"([^_]+)(?:_LATE)?_\d+_\d+_.+")
MOODLE = re.compile(r"(.+?)_\d+_assignsubmission_file_?")
DAMAGED = (EOFError, OSError, ValueError, lzma.LZMAError, struct.error, zipfile.BadZipFile,
           zlib.error)  # what a damaged zip raises
SKIPPED = ("__MACOSX", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Submission:
    """A notebook that was handed in.

    Args:
        place: where it lies, from what the command line names.
        student: whose it is, from its name or folder.
        notebook: its content; None if it cannot be read.
    """
    place: PurePosixPath
    student: str
    notebook: dict | None

    @property
    def cells(self) -> list[dict]:
        """Its cells."""
        return self.notebook["cells"] if self.notebook else []

    @property
    def lesson(self) -> int:
        """The number of the lesson, by its exercises' cells, else by its file's name; 0 if it is
        none with exercises."""
        ids = [mark.replace("check_", "ex_") for cell in self.cells for mark in marks(cell)]
        found = Counter(lesson_of(name) for name in ids if name in TABLE)
        if found:
            return found.most_common(1)[0][0]
        number = re.search(r"(?<!\d)0([1-68])_(?=[a-z])", self.place.name)
        return int(number[1]) if number else 0


def marks(cell: dict) -> set[str]:
    """What a cell is called: its id and nbgrader's."""
    nbgrader = cell["metadata"].get("nbgrader")
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return {mark for mark in (cell.get("id"), grade_id) if isinstance(mark, str)}


def source(cell: dict) -> str:
    """What stands in it."""
    return "".join(cell["source"])


def parsed(submission: Submission) -> list[list]:
    """What each cell says; [] for text."""
    return [readable(source(cell)) if cell["cell_type"] == "code" else []
            for cell in submission.cells]


def find(path: Path) -> list[Submission]:
    """The notebooks that a file, a folder or a zip holds, by name. Raises RuntimeError if none."""
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. Name a notebook, a folder or a zip.")
    found = [Submission(place, _student(place), _notebook(content))
             for place, content in sorted(_files(path))]
    if not found:
        raise RuntimeError(f"{path} holds no notebook: there is no file that ends with .ipynb.")
    return found


def _files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if path.is_file():
        yield from _unpacked(PurePosixPath(path.name), path.read_bytes())
        return
    for file in path.rglob("*"):
        if file.suffix in (".ipynb", ".zip") and file.is_file():
            place = PurePosixPath(file.relative_to(path).as_posix())
            if not set(SKIPPED) & set(place.parts):
                yield from _unpacked(place, file.read_bytes())


def _unpacked(place: PurePosixPath, content: bytes,
              depth: int = 0) -> Iterator[tuple[PurePosixPath, bytes]]:
    """A notebook as it is; of a zip, the notebooks in it and in zips in it, no deeper. What cannot
    be unpacked comes as one that cannot be read."""
    if place.suffix != ".zip":
        yield place, content
        return
    try:
        packed = zipfile.ZipFile(io.BytesIO(content if depth < 2 else b""))
    except DAMAGED:
        yield place, b""
        return
    for entry in packed.infolist():
        inner = PurePosixPath(entry.filename.replace("\\", "/"))
        parts = [part for part in inner.parts if part not in ("..", "/")]
        if inner.suffix in (".ipynb", ".zip") and not set(SKIPPED) & set(parts):
            yield from _unpacked(place.with_suffix("") / "/".join(parts),
                                 _entry(packed, entry), depth + 1)


def _entry(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """b"" for one that is too large, encrypted or damaged."""
    try:
        return packed.read(entry) if entry.file_size <= LARGEST else b""
    except (RuntimeError, *DAMAGED):  # NotImplementedError, too
        return b""


def _student(place: PurePosixPath) -> str:
    """Canvas and Moodle say it in a name; else it is the first folder, or the file's name."""
    for pattern, names in ((MOODLE, place.parts[:-1]), (CANVAS, (place.name,))):
        for name in names:
            found = pattern.fullmatch(name)
            if found:
                return found[1]
    return place.parts[0] if len(place.parts) > 1 else place.stem


def _notebook(content: bytes) -> dict | None:
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
        for cell in notebook["cells"]:
            fits = isinstance(cell["metadata"], dict) and isinstance(cell["cell_type"], str)
            if not fits or not isinstance("".join(cell["source"]), str):
                return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return notebook
