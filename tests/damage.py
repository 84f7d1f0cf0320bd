"""Ways to damage a file, for tests of what is then said of it."""
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

Dice = random.Random


def cut(raw: bytes, dice: Dice) -> bytes:
    return raw[:dice.randrange(1, len(raw))]


def flip(raw: bytes, dice: Dice) -> bytes:
    place = dice.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1 << dice.randrange(8)]) + raw[place + 1:]


def empty(raw: bytes, dice: Dice) -> bytes:
    return b""


def junk(raw: bytes, dice: Dice) -> bytes:
    return dice.randbytes(len(raw))


def junk_amid(raw: bytes, dice: Dice) -> bytes:
    place, size = dice.randrange(len(raw)), dice.randint(1, 64)
    return raw[:place] + dice.randbytes(size) + raw[place + size:]


CONTENT = (cut, flip, empty, junk, junk_amid)


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


PLACE = (missing, folder, broken_link)
KINDS = tuple(kind.__name__ for kind in (*CONTENT, *PLACE)) + ("unreadable",)


@contextmanager
def damaged(path: Path, kind: str, dice: Dice) -> Iterator[None]:
    """Within, the file is damaged in that way; afterwards it is as it was."""
    raw = path.read_bytes()
    try:
        if kind == "unreadable":
            with mock.patch.object(Path, "read_bytes", _refusing(path)):
                yield
            return
        for change in CONTENT:
            if change.__name__ == kind:
                path.write_bytes(_other(raw, change, dice))
        for change in PLACE:
            if change.__name__ == kind:
                change(path)
        yield
    finally:
        _remove(path)
        path.write_bytes(raw)


def _other(raw: bytes, change: Callable[[bytes, Dice], bytes], dice: Dice) -> bytes:
    found = raw
    while found == raw:
        found = change(raw, dice)
    return found


def _refusing(path: Path) -> Callable[[Path], bytes]:
    """Path.read_bytes where ``path`` may not be read: tests run as root, who may read anything."""
    honest = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return honest(self)

    return read_bytes


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
