"""Bytes on disk: whole or not there, named when they are off, and one writer at a time."""
import errno
import itertools
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import types
from pathlib import Path

import damage
import pytest
from conftest import refused

from dmdkit import disk, files

FULL = OSError(28, "No space left on device")


# Reading

@pytest.mark.parametrize("kind, sentence", [
    ("missing", "is missing"), ("folder", "is a folder, not a file"),
    ("broken_link", "is a link to .*nowhere, which is not there"), ("empty", "it is empty"),
    ("unreadable", "cannot be read: Permission denied")])
def test_a_file_that_is_not_there_to_be_read_is_named_with_the_reason(tmp_path, kind, sentence):
    path = tmp_path / "one.json"
    path.write_bytes(b"content")
    with damage.damaged(path, kind, random.Random(0)):
        for read in (disk.read_bytes, disk.sha256, files.read_text, files.read_json,
                     files.load_state):
            with refused(RuntimeError, f"^{path}.* {sentence}.*`git checkout -- {path}`"):
                read(path)
    assert disk.read_bytes(path) == b"content"


def test_a_file_in_a_file_is_missing(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with refused(RuntimeError, "one.json is missing"):
        disk.read_bytes(tmp_path / "file" / "one.json")


# Writing

@pytest.mark.skipif(disk.WINDOWS, reason="Windows has no such modes")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_written_file_is_for_all_whom_the_umask_lets(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        disk.write_atomically(tmp_path / "bytes", b"content")
        files.write_json(tmp_path / "json", {})
        files.save_state(tmp_path / "state", {})
        files.append_line(tmp_path / "log", {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def full_at(how: str, monkeypatch) -> None:
    """Let the disk be full: at the first byte written, half-way through, when the file is forced to
    disk, or when it is renamed."""
    def no_space(*args):
        raise FULL

    if how in ("fsync", "replace"):
        monkeypatch.setattr(os, how, no_space)
        return
    honest = open

    class Full:
        def __init__(self, *args):
            self.file = honest(*args)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def write(self, content):
            if how == "half-way":
                self.file.write(content[:len(content) // 2])
            raise FULL

    def opened(path, mode="r", *args, **kwargs):
        return (Full if ".part" in str(path) else honest)(path, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", opened)


@pytest.mark.parametrize("how", ["at once", "half-way", "fsync", "replace"])
def test_a_full_disk_leaves_what_was_there_and_no_part(tmp_path, monkeypatch, how):
    path = tmp_path / "one"
    for before, kept in ((False, "nothing was written"),
                         (True, "what was there before is untouched")):
        with monkeypatch.context() as patch:
            full_at(how, patch)
            with refused(RuntimeError, f"Could not write {path}: No space left on device; {kept}. "
                                       "Free some"):
                disk.write_atomically(path, b"new content")
        assert not before or path.read_bytes() == b"old content"
        assert list(tmp_path.iterdir()) == [path] * before
        path.write_bytes(b"old content")


def test_a_disk_that_is_really_full_leaves_what_was_there_and_no_part(tmp_path):
    small = tmp_path / "disk"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", small]
    linux = sys.platform == "linux"
    if not linux or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        path = small / "one"
        disk.write_atomically(path, b"a" * 700_000)
        with refused(RuntimeError, "No space left on device; what was there before is untouched"):
            disk.write_atomically(path, b"b" * 700_000)
        assert list(small.iterdir()) == [path] and set(path.read_bytes()) == {ord("a")}
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_interrupted_writing_leaves_what_was_there_and_no_part(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    path = tmp_path / "one"
    path.write_bytes(b"old content")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        disk.write_atomically(path, b"new content")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old content"


def test_a_folder_in_the_way_is_left_as_it_is(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "thesis.txt").write_bytes(b"mine")
    with refused(RuntimeError, "Could not write .*one: .*what was there before is untouched"):
        disk.write_atomically(tmp_path / "one", b"content")
    assert (tmp_path / "one" / "thesis.txt").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(disk.WINDOWS, reason="Windows is not asked which processes live")
def test_parts_of_dead_processes_go_and_all_others_stay(tmp_path):
    here, path = socket.gethostname(), tmp_path / "one.json"
    dead = tmp_path / f".one.json.{here}-{dead_process()}.part"
    others = [tmp_path / f".one.json.{here}-{os.getppid()}.part",
              tmp_path / f".one.json.elsewhere-{dead_process()}.part",
              tmp_path / f".two.json.{here}-{dead_process()}.part", tmp_path / "thesis.part"]
    for part in [dead, *others]:
        part.write_bytes(b"half")
    disk.write_atomically(path, b"whole")
    assert set(tmp_path.iterdir()) == {path, *others}


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    disk.check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_bytes(b"content")
    with refused(RuntimeError, "Could not write .*file: .*nothing was written"):
        disk.check_writable(tmp_path / "file")


# Locks

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


def count_up(path: Path, times: int) -> None:
    for _ in range(times):
        with disk.locked(path.parent):
            files.write_json(path, {"count": files.read_json(path)["count"] + 1})


def hold(folder: Path, connection) -> None:
    with disk.locked(folder):
        connection.send("held")
        connection.recv()


@forks
def test_two_processes_that_change_a_file_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "one.json"
    files.write_json(path, {"count": 0})
    processes = [FORK.Process(target=count_up, args=(path, 40)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert files.read_json(path) == {"count": 80}
    assert list(tmp_path.iterdir()) == [path]  # the lock leaves nothing behind


@forks
def test_a_lock_ends_with_the_process_that_held_it(tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path, there))
    process.start()
    assert here.recv() == "held"
    process.kill()
    process.join()
    with disk.locked(tmp_path):
        pass


@forks
def test_a_lock_does_not_stay_with_a_child_that_was_forked_meanwhile(tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=there.recv)
    with disk.locked(tmp_path):
        process.start()  # it has a copy of the descriptor, and keeps it open
    other = FORK.Process(target=hold, args=(tmp_path, there))
    other.start()
    assert here.poll(20) and here.recv() == "held"
    other.kill()
    process.kill()


def test_a_lock_of_a_folder_that_is_not_there_is_refused(tmp_path):
    with refused(RuntimeError, "Could not lock .*none: No such file"):
        with disk.locked(tmp_path / "none"):
            pass


@pytest.mark.skipif(disk.WINDOWS, reason="Windows locks otherwise")
def test_where_a_file_system_has_no_locks_one_works_without(tmp_path, monkeypatch):
    import fcntl

    def refuse(number):
        def flock(descriptor, operation):
            raise OSError(number, "No locks available")
        return flock

    files.write_json(tmp_path / "one.json", {"count": 0})
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    count_up(tmp_path / "one.json", 2)
    assert files.read_json(tmp_path / "one.json") == {"count": 2}
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with refused(RuntimeError, f"Could not lock {tmp_path}: No locks available"):
        count_up(tmp_path / "one.json", 1)


def test_on_windows_a_file_beside_the_folder_is_locked_however_long_another_holds_it(tmp_path,
                                                                                     monkeypatch):
    (tmp_path / "one").mkdir()
    calls, tries = [], iter([OSError(errno.EDEADLK, "after ten seconds"), None])

    def locking(*call) -> None:
        failed = next(tries, None)
        if failed:
            raise failed
        calls.append(call)

    fake = types.SimpleNamespace(LK_LOCK=1, LK_UNLCK=0, locking=locking)
    monkeypatch.setattr(disk, "WINDOWS", True)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    with disk.locked(tmp_path / "one"):
        descriptor = calls[0][0]
        assert calls == [(descriptor, 1, 1)] and os.fstat(descriptor).st_size == 0
    assert calls[1:] == [(descriptor, 0, 1)] and (tmp_path / ".one.lock").is_file()
    with pytest.raises(OSError):
        os.fstat(descriptor)  # closed, and so unlocked


def test_on_windows_a_file_that_is_being_read_is_replaced_a_little_later(tmp_path, monkeypatch):
    tries, replace = iter([PermissionError(13, "a virus scanner has it open")] * 2), os.replace

    def busy(old, new) -> None:
        failed = next(tries, None)
        if failed:
            raise failed
        replace(old, new)

    monkeypatch.setattr(disk, "WINDOWS", True)
    monkeypatch.setattr(os, "replace", busy)
    disk.write_atomically(tmp_path / "one", b"content")
    assert (tmp_path / "one").read_bytes() == b"content"
    tries = itertools.repeat(PermissionError(13, "it stays open"))
    with pytest.raises(PermissionError):
        disk.replace(tmp_path / "one", tmp_path / "two", pause=0.0)
    assert (tmp_path / "one").read_bytes() == b"content"
