"""Files whose every byte is checked when they are read: text, JSON, logs and states.

Text is UTF-8. A JSON file holds a ``seal``, a checksum of all else in it; a log has a checksum a
line; a state, nested dicts and lists of tensors, has one over all of it.
"""
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from .disk import check_writable, damaged, locked, read_bytes, sha256, write_atomically
from .states import load_state, save_state

__all__ = ["Lines", "append_line", "as_json", "as_line", "check_writable", "damaged",
           "load_state", "locked", "read_bytes", "read_json", "read_lines", "read_text",
           "save_state", "sha256", "versions", "write_atomically", "write_json",
           "write_lines"]


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of ``packages``, and of dmdkit, torch and diffusers, for a card."""
    return {package: _version(package) for package in ("dmdkit", "torch", "diffusers", *packages)}


def _version(package: str) -> str:
    """A clone that is on Python's path alone has none, which must not cost a training its end."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def read_text(path: Path) -> str:
    """A UTF-8 file's text, its lines ended by \\n.

    Raises RuntimeError, a sentence that names the file, for one that is missing, empty, a folder, a
    broken link, not to be read or no UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is no UTF-8 text") from None


# JSON

def read_json(path: Path, *keys: str, sealed: bool = True) -> dict:
    """The object in a JSON file, without its seal. keys: what it must have.

    sealed: False for a file of another program's, in any layout and without a seal.
    Raises RuntimeError, a sentence that names the file, for whatever is wrong with it.
    """
    text = read_text(path)
    content = _object(path, text)
    if sealed:
        _break_seal(path, text, content)
    missing = [key for key in keys if key not in content]
    if missing:
        raise damaged(path, f"it has no {missing[0]!r}")
    return content


def _object(path: Path, text: str) -> dict:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not an object")
    return content


def _break_seal(path: Path, text: str, content: dict) -> None:
    """Take the seal out of ``content``, once it fits."""
    seal = content.pop("seal", None)
    if seal is None:
        raise damaged(path, "it has no seal, the checksum that dmdkit's own files have")
    if seal != _seal(content) or text != as_json(content):
        raise damaged(path, "its seal does not fit what it says")


def _seal(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def as_json(content: dict) -> str:
    """The text of a sealed JSON file: one entry a line, letters as they are.

    Raises ValueError for NaN or infinity, which JSON does not have.
    """
    content = json.loads(_dumps(content))  # as it will be read: lists, and keys of text
    content.pop("seal", None)
    content["seal"] = _seal(content)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _dumps(content: dict) -> str:
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"This cannot be written as JSON ({error}); leave out or replace what is "
                         "not finite.") from None


def write_json(path: Path, content: dict) -> None:
    """Write an object as a sealed JSON file. Raises RuntimeError, ValueError as its parts do."""
    write_atomically(path, as_json(content).encode("utf-8"))


# Logs: a JSON object a line, each with its own checksum

class Lines(NamedTuple):
    """A log."""
    entries: list[dict]
    torn: bool           # whether its end is missing: whoever wrote it was killed while writing


def as_line(entry: dict) -> str:
    """An entry of a log as its line, with a seal. Raises ValueError for NaN or infinity."""
    text = _dumps(entry)
    seal = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    return _dumps({**entry, "seal": seal}) + "\n"


def append_line(path: Path, entry: dict) -> None:
    """Add an entry to a log, which is made if there is none. A torn line at its end goes.

    Raises RuntimeError, a sentence that names the file, if it cannot be written.
    """
    line = as_line(entry).encode("utf-8")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            file.truncate(_whole(file))
            file.write(line)
    except OSError as error:
        raise RuntimeError(f"Could not write {path}: {error.strerror or error}.") from None


def _whole(file) -> int:
    """How many bytes of an open log are whole lines."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 1))
    if file.read(1) in (b"\n", b""):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def write_lines(path: Path, entries: list[dict]) -> None:
    """Write a log anew. Raises what ``write_atomically`` raises."""
    write_atomically(path, "".join(as_line(entry) for entry in entries).encode("utf-8"))


def read_lines(path: Path) -> Lines:
    """A log's entries, without a torn one at its end, of which it says that there is one.

    Raises RuntimeError, a sentence that names file and line, for one that is damaged elsewhere.
    """
    path = Path(path)
    raw = b"" if path.is_file() and path.stat().st_size == 0 else read_bytes(path)
    *whole, rest = raw.split(b"\n")
    entries = [_entry(path, number, line) for number, line in enumerate(whole, 1)]
    return Lines(entries, torn=bool(rest) or not raw)


def _entry(path: Path, number: int, line: bytes) -> dict:
    try:
        entry = json.loads(line)
        entry.pop("seal")
        fits = as_line(entry).encode("utf-8") == line.rstrip(b"\r") + b"\n"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise damaged(path, f"the seal of line {number} does not fit what it says")
    return entry
