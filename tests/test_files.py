"""JSON files and logs: what is written is what is read, and no change to them passes unseen."""
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import damage
import pytest
from conftest import refused

from dmdkit import files

CARD = {"name": "one", "α": "ü", "seconds": 1.5e-07, "big": 10**20, "flags": [True, None, []],
        "nested": {"b": -0.0, "a": {"text": "two\nlines \"quoted\""}}}


@pytest.fixture
def path(tmp_path) -> Path:
    files.write_json(tmp_path / "one.json", CARD)
    return tmp_path / "one.json"


# JSON

def test_what_is_written_is_what_is_read(path):
    found = files.read_json(path)
    assert found == CARD and list(found) == list(CARD) and list(found["nested"]) == ["b", "a"]
    files.write_json(path, {"pair": (1, 2), 3: "three", "seal": "mine"})
    assert files.read_json(path) == {"pair": [1, 2], "3": "three"}


def test_a_file_is_plain_json_with_an_entry_a_line_and_its_seal_last(path):
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    assert list(found) == [*CARD, "seal"] and len(found["seal"]) == 64
    assert found["seal"] == json.loads(files.as_json(CARD))["seal"]
    assert '\n "α": "ü",\n' in text and text.endswith("\n}\n")
    other = json.loads(files.as_json({**CARD, "name": "two"}))["seal"]
    assert other != found["seal"]


def test_every_flipped_bit_and_every_cut_of_a_json_file_is_refused(tmp_path):
    path = tmp_path / "one.json"
    files.write_json(path, {"a": 1e5, "Ü": [1]})
    raw = path.read_bytes()
    changed = [raw[:i] + bytes([raw[i] ^ 1 << bit]) + raw[i + 1:]
               for i in range(len(raw)) for bit in range(8)]
    changed += [raw[:i] for i in range(len(raw))]
    for one in changed:
        path.write_bytes(one)
        with refused(RuntimeError, f"^{path} is damaged: .*Restore it"):
            files.read_json(path)


@pytest.mark.parametrize("content, reason", [
    (b"[1, 2]", "it holds a list, not an object"), (b"{\"a\": 1}\n", "it has no seal"),
    (b"{\"a\": 1, ", "it is no JSON .Expecting"), (b"\xff\xfe{}", "byte 0 is no UTF-8 text"),
    (b"[" * 100_000, "it is no JSON .maximum recursion"),
    (b"9" * 10_000, "it (is no JSON|holds a int)"),
    (b"{\"a\": 1, \"seal\": \"0\"}\n", "its seal does not fit what it says"),
    (b"{\"a\": 1, \"seal\": {}}\n", "its seal does not fit what it says")])
def test_what_is_no_sealed_json_is_refused_with_the_reason(path, content, reason):
    path.write_bytes(content)
    with refused(RuntimeError, f"^{path} is damaged: {reason}"):
        files.read_json(path)


def test_a_missing_entry_is_named(path):
    assert files.read_json(path, "name", "flags") == CARD
    with refused(RuntimeError, f"^{path} is damaged: it has no 'metrics'"):
        files.read_json(path, "name", "metrics")


def test_line_ends_of_windows_are_no_damage(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert files.read_json(path) == CARD


def test_another_programs_json_is_read_without_a_seal_in_any_layout(path):
    path.write_bytes(b'{ "a":1,\n\n"b": [2]}')
    assert files.read_json(path, "a", sealed=False) == {"a": 1, "b": [2]}
    with refused(RuntimeError, "it has no 'c'"):
        files.read_json(path, "c", sealed=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
def test_what_json_does_not_have_is_refused_and_nothing_is_written(path, value):
    before = path.read_bytes()
    with refused(ValueError, "cannot be written as JSON .*leave out or replace what is not finite"):
        files.write_json(path, {"a": value})
    assert path.read_bytes() == before


def test_text_is_utf8_whatever_the_locale_says(tmp_path):
    code = ("import sys, pathlib; from dmdkit import files; folder = pathlib.Path(sys.argv[1]);"
            "files.write_json(folder / 'one.json', {'α': 'ü'});"
            "files.append_line(folder / 'log', {'α': 'ü'});"
            "assert files.read_json(folder / 'one.json') == {'α': 'ü'};"
            "assert files.read_lines(folder / 'log').entries == [{'α': 'ü'}];"
            "assert 'ü' in files.read_text(folder / 'log')")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ascii_code = code.replace("α", "\\u03b1").replace("ü", "\\xfc")
    subprocess.run([sys.executable, "-c", ascii_code, tmp_path], env={**os.environ, **locale},
                   check=True)
    assert files.read_json(tmp_path / "one.json") == {"α": "ü"}


# Logs

@pytest.fixture
def log(tmp_path) -> Path:
    for step in range(1, 5):
        files.append_line(tmp_path / "log.jsonl", {"step": step, "loss": 1 / step, "α": "ü"})
    return tmp_path / "log.jsonl"


def entries(n: int) -> list[dict]:
    return [{"step": step, "loss": 1 / step, "α": "ü"} for step in range(1, n + 1)]


def test_a_log_is_read_as_it_was_written_and_is_json_a_line(log):
    assert files.read_lines(log) == (entries(4), False)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    before = log.read_bytes()
    files.write_lines(log, entries(4))
    assert log.read_bytes() == before
    log.write_bytes(before.replace(b"\n", b"\r\n"))
    assert files.read_lines(log) == (entries(4), False)


def test_a_torn_end_is_told_and_goes_when_the_next_line_is_written(log):
    raw = log.read_bytes()
    third = raw.index(b"\n", raw.index(b"\n", raw.index(b"\n") + 1) + 1) + 1
    for length in range(third, len(raw)):
        log.write_bytes(raw[:length])
        assert files.read_lines(log) == (entries(3), length > third)
        files.append_line(log, entries(4)[3])
        assert log.read_bytes() == raw


def test_an_empty_log_is_one_whose_first_line_is_missing(log):
    log.write_bytes(b"")
    assert files.read_lines(log) == ([], True)
    files.append_line(log, entries(1)[0])
    assert files.read_lines(log) == (entries(1), False)


def test_a_flipped_bit_anywhere_but_in_the_last_line_of_a_log_is_refused_with_its_line(log):
    raw = log.read_bytes()
    lines = raw.split(b"\n")
    last = len(raw) - len(lines[-2]) - 1
    for place in range(last):
        bit = 1 << place % 8
        log.write_bytes(raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1:])
        number = raw[:place].count(b"\n") + 1
        with refused(RuntimeError, f"^{log} is damaged: the seal of line {number} does not"):
            files.read_lines(log)


@pytest.mark.parametrize("line", [b"", b"[1]", b"1", b'{"step": 1}', b"{", b'{"seal": 1}'])
def test_a_line_that_is_no_entry_is_refused(log, line):
    log.write_bytes(log.read_bytes() + line + b"\n" + files.as_line({}).encode("utf-8"))
    with refused(RuntimeError, f"^{log} is damaged: the seal of line 5 does not fit"):
        files.read_lines(log)


@pytest.mark.parametrize("kind", ["missing", "folder", "broken_link", "unreadable"])
def test_a_log_that_is_not_there_to_be_read_is_named(log, kind):
    with damage.damaged(log, kind, random.Random(0)):
        with refused(RuntimeError, f"^{log} "):
            files.read_lines(log)


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with refused(RuntimeError, "Could not write .*log.jsonl: "):
        files.append_line(tmp_path / "file" / "log.jsonl", {})
    with refused(ValueError, "cannot be written as JSON"):
        files.append_line(tmp_path / "log.jsonl", {"loss": float("nan")})
    assert not (tmp_path / "log.jsonl").exists()


def test_versions_are_those_that_are_installed():
    import tqdm

    found = files.versions("tqdm")
    assert set(found) == {"dmdkit", "torch", "diffusers", "tqdm"}
    assert found["tqdm"] == tqdm.__version__
    assert files.versions("a_clone_on_the_path")["a_clone_on_the_path"] == "not installed"
