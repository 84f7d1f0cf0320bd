"""Bytes on disk: files that are whole or not there, read with one sentence for all that can be off.

Beside them stand a lock that one process holds at a time, and the tidying of what killed ones left.
"""
import errno
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOWS = os.name == "nt"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises RuntimeError, a sentence that names the file, if it is missing, empty, a folder, a broken
    link or not to be read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RuntimeError(f"{path} {_why_not(path, error)}. {restore(path)}") from None
    if not content:
        raise damaged(path, "it is empty")
    return content


def _why_not(path: Path, error: OSError) -> str:
    if path.is_symlink() and not path.exists():
        return f"is a link to {os.readlink(path)}, which is not there"
    if path.is_dir():
        return "is a folder, not a file"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "is missing"
    return f"cannot be read: {error.strerror or error}"


def damaged(path: Path, why: str) -> RuntimeError:
    """The error to raise for a file that is not as it was written."""
    return RuntimeError(f"{path} is damaged: {why}. {restore(path)}")


def restore(path: Path) -> str:
    """What to do about a file that is missing or damaged."""
    return (f"Restore it (`git checkout -- {path}` if it came with the clone), or delete it and "
            "make it again.")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises what ``read_bytes`` raises."""
    return sha256_of(read_bytes(path))


def sha256_of(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a neighbour and rename: whoever reads ``path`` sees the old file or the new one.

    Raises RuntimeError, with what was there before left as it was, if folder or disk refuse.
    """
    path = Path(path)
    partial = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in stale_parts(path):
            left.unlink(missing_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(partial, path)
    except OSError as error:
        there = os.path.lexists(path)
        kept = "what was there before is untouched" if there else "nothing was written"
        raise could_not_write(path, error, kept) from None
    finally:
        _remove(partial)


def replace(old: Path, new: Path, pause: float = 0.2) -> None:
    """``os.replace``, tried for two seconds on Windows: there it fails while a virus scanner or
    another reader has the file open."""
    for _ in range(10 if WINDOWS else 0):
        try:
            return os.replace(old, new)
        except PermissionError:
            time.sleep(pause)
    os.replace(old, new)


def check_writable(folder: Path) -> None:
    """Raises RuntimeError unless files can be made in a folder, which is made if there is none."""
    probe = part_of(Path(folder) / "writable")
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise could_not_write(folder, error, "nothing was written") from None
    finally:
        _remove(probe)


def could_not_write(path: Path, error: Exception, kept: str) -> RuntimeError:
    """The error to raise where a file or folder cannot be written. kept: what is there now."""
    reason = getattr(error, "strerror", None) or error
    return RuntimeError(f"Could not write {path}: {reason}; {kept}. Free some space or choose a "
                        "folder that you may write to, then run this again.")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the folder itself is not accessible: there is nothing to tidy up


def part_of(path: Path) -> Path:
    """Where this process writes what becomes ``path``."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")


def stale_parts(path: Path) -> list[Path]:
    """What dead processes of this machine have left of a writing of ``path``."""
    start = re.escape(f".{path.name}.{socket.gethostname()}-")
    found = []
    for other in path.parent.iterdir():
        match = re.fullmatch(start + r"(\d+)\.part", other.name)
        if match and not _alive(int(match[1])):
            found.append(other)
    return found


def _alive(process: int) -> bool:
    if WINDOWS:
        return True  # there os.kill would not ask, but end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, this process alone holds the folder's lock; others wait for it.

    A lock ends with its process, however that ends. Raises RuntimeError if there can be none.
    """
    try:
        descriptor = _lock(Path(folder).resolve())
    except OSError as error:
        raise RuntimeError(f"Could not lock {folder}: {error.strerror or error}.") from None
    try:
        yield
    finally:
        _unlock(descriptor)
        os.close(descriptor)


def _lock(folder: Path) -> int:
    if WINDOWS:  # folders cannot be opened there: a file beside it stands for it
        import msvcrt
        beside = folder.with_name(f".{folder.name}.lock") if folder.name else folder / ".lock"
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT)
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
                return descriptor
            except OSError as error:
                if error.errno != errno.EDEADLK:  # it has tried for ten seconds, and we wait on
                    os.close(descriptor)
                    raise
    import fcntl
    descriptor = os.open(folder, os.O_RDONLY)
    _flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _unlock(descriptor: int) -> None:
    """Closing alone would leave a lock with a child that this process has forked meanwhile."""
    if WINDOWS:
        import msvcrt
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl
        _flock(descriptor, fcntl.LOCK_UN)


def _flock(descriptor: int, operation: int) -> None:
    """Some network and cloud file systems have no locks; there one works without."""
    import fcntl
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
