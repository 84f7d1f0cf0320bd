"""Folders of artefacts: whole or not there, and nothing of a user's is deleted or overwritten."""
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused
from test_store import content, smallest

from dmdkit import files, folders, store


# Nothing of a user's is deleted

def test_a_folder_that_holds_anything_else_is_left_as_it_is(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "thesis.txt").write_bytes(b"mine")
    for also in (None, "card.json", "config.json"):
        if also:
            (folder / also).write_bytes(b"mine too")
        before = content(folder)
        for overwrite in (False, True):
            with refused(RuntimeError, "one holds what is no artefact's .*; it is left as it is"):
                store.save(smallest(), folder, {}, overwrite=overwrite)
        assert content(folder) == before and list(tmp_path.iterdir()) == [folder]


def test_what_a_file_manager_leaves_in_a_folder_is_nobodys(tmp_path):
    store.save(smallest(), tmp_path / "one", {"what": "first"})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "one" / name).write_bytes(b"where the window was")
    with refused(RuntimeError, "one holds an artefact already"):
        store.save(smallest(), tmp_path / "one", {})
    store.save(smallest(), tmp_path / "one", {"what": "second"}, overwrite=True)
    assert store.card("one", tmp_path)["what"] == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert not (tmp_path / "one" / ".DS_Store").exists()


def test_checkpoints_and_folders_in_an_artefacts_folder_are_left_as_they_are(tmp_path):
    store.save(smallest(), tmp_path / "one", {})
    (tmp_path / "one" / "checkpoints").mkdir()
    (tmp_path / "one" / "checkpoints" / "last").write_bytes(b"mine")
    with refused(RuntimeError, "one holds what is no artefact's .checkpoints."):
        store.save(smallest(), tmp_path / "one", {}, overwrite=True)
    assert (tmp_path / "one" / "checkpoints" / "last").read_bytes() == b"mine"


def test_another_programs_model_is_left_as_it_is(tmp_path):
    smallest().net.save_pretrained(tmp_path / "one")
    before = content(tmp_path / "one")
    with refused(RuntimeError, "one holds what is no artefact's"):
        store.save(smallest(), tmp_path / "one", {}, overwrite=True)
    assert content(tmp_path / "one") == before


def test_a_file_or_a_link_in_the_way_is_left_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    store.save(smallest(), tmp_path / "real", {})
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere")
    before = content(tmp_path / "real")
    for name in ("file", "link", "broken"):
        with refused(RuntimeError, f"{name} is there and no folder of an artefact; it is left as"):
            store.save(smallest(), tmp_path / name, {}, overwrite=True)
    assert (tmp_path / "file").read_bytes() == b"mine" and content(tmp_path / "real") == before
    assert (tmp_path / "link").is_symlink() and (tmp_path / "broken").is_symlink()


def test_an_artefact_is_replaced_only_if_that_is_said(tmp_path):
    store.save(smallest(), tmp_path / "one", {"what": "the first"})
    before = content(tmp_path / "one")
    with refused(RuntimeError, "holds an artefact already; it is left as it is. .*overwrite=True"):
        store.save(smallest(), tmp_path / "one", {"what": "the second"})
    assert content(tmp_path / "one") == before
    store.save(smallest(prediction="both"), tmp_path / "one", {"what": "third"}, overwrite=True)
    assert store.card("one", tmp_path)["what"] == "third"
    assert "scheduler_config.json" not in content(tmp_path / "one")  # the first one's is gone
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "one").mkdir()
    store.save(smallest(), tmp_path / "one", {})
    assert store.names(tmp_path) == ["one"]


# Whole or not there

def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with refused(RuntimeError, "Could not write .*one: .*; nothing was written. Free some space"):
        store.save(smallest(), tmp_path / "file" / "one", {})


@pytest.mark.parametrize("failing", range(1, 9))
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_overwrite_leaves_the_artefact_before_it(tmp_path, monkeypatch, failing, error):
    """Files are renamed one after the other, then the old folder, then the new one."""
    store.save(smallest(), tmp_path / "one", {"what": "the first"})
    before, honest, calls = content(tmp_path / "one"), os.replace, []

    def replace(*arguments):
        calls.append(arguments)
        if len(calls) == failing:
            raise error
        honest(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        raised = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RuntimeError
        if failing < 8:
            with pytest.raises(raised):
                store.save(smallest(), tmp_path / "one", {"what": "the second"}, overwrite=True)
        else:
            store.save(smallest(), tmp_path / "one", {"what": "the second"}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert failing == 8 or content(tmp_path / "one") == before
    store.save(smallest(), tmp_path / "one", {"what": "the third"}, overwrite=True)
    assert store.card("one", tmp_path)["what"] == "the third" and store.names(tmp_path) == ["one"]


def test_what_a_killed_writing_left_is_put_right_by_the_next(tmp_path):
    store.save(smallest(), tmp_path / "one", {"what": "the first"})
    before = content(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / ".one.old")  # killed between the two renames
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    part = tmp_path / f".one.{socket.gethostname()}-{dead.pid}.part"
    part.mkdir()
    (part / "config.json").write_bytes(b"half")
    with refused(RuntimeError, "one holds an artefact already"):
        store.save(smallest(), tmp_path / "one", {})
    assert content(tmp_path / "one") == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_tidying_removes_nothing_of_a_users(tmp_path):
    old = tmp_path / ".one.old"
    old.mkdir()
    (old / "thesis.txt").write_bytes(b"mine")
    (tmp_path / "one").mkdir()
    with refused(RuntimeError, "Could not write .*one: Directory not empty; what was there before"):
        folders.write(tmp_path / "one", {"card.json": b"card"}, {"card.json"}, overwrite=False)
    assert (old / "thesis.txt").read_bytes() == b"mine" and content(tmp_path / "one") == {}


def test_the_folder_that_one_is_in_is_left_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "thesis.txt").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path / "in")
    for here in (Path("."), Path(".."), Path("")):
        with refused(RuntimeError, "holds what is no artefact's"):
            store.save(smallest(), here, {}, overwrite=True)
    assert (tmp_path / "in" / "thesis.txt").read_bytes() == b"mine"
    store.save(smallest(), Path("one"), {})
    assert store.names(Path(".")) == ["one"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
def test_a_card_is_not_changed_while_its_folder_is_replaced(tmp_path):
    """The change waits, and then finds the new folder's card: it never puts the old one back."""
    store.save(smallest(), tmp_path / "one", {"what": "the first"})
    context = multiprocessing.get_context("fork")
    process = context.Process(target=store.change_card,
                              args=("one", lambda card: card | {"rows": [1]}, tmp_path))
    with files.locked(tmp_path):
        process.start()
        process.join(timeout=0.3)
        assert process.is_alive()
    process.join()
    assert process.exitcode == 0 and store.card("one", tmp_path)["rows"] == [1]
