"""States: what is saved is what is loaded, bit for bit, and nothing altered passes."""
import json
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import refused

from dmdkit import files

DAMAGED = "is damaged: it is no state that dmdkit saved .*Restore it"


def same(a, b) -> bool:
    """Whether two trees of dicts, lists, tensors and numbers are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state.safetensors"


@pytest.mark.parametrize("state", [
    {}, {"step": 3, "rate": 0.1, "name": "ü", "none": None, "flag": True, "list": [1, [2.5]]},
    {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "c": torch.empty(0, 4)},
    {"half": torch.ones(2).half(), "brain": torch.ones(2).bfloat16(),
     "bytes": torch.arange(3).byte(),
     "flags": torch.tensor([True, False]), "double": torch.tensor([0.1], dtype=torch.float64)},
    {"turned": torch.arange(6.0).reshape(2, 3).T, "every": torch.arange(6)[::2],
     "last": torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last)},
    {"moments": {0: torch.ones(1), 1: [torch.zeros(1), {"x": None}]}, "": torch.ones(1)},
    {"tensor": "a name", "dict": [["a", 1]]}], ids=lambda state: " ".join(map(str, state)))
def test_what_is_saved_is_what_is_loaded(path, state):
    files.save_state(path, state)
    assert same(files.load_state(path), state)


@pytest.mark.parametrize("state", [
    {"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}},
    {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), "a/b'": torch.full((1,), 2.0)},
    {0: torch.ones(1), "0": torch.zeros(1)}, {"a": [torch.ones(1)], "a/0": torch.zeros(1)}])
def test_keys_that_look_alike_stay_apart(path, state):
    files.save_state(path, state)
    assert same(files.load_state(path), state)


def test_tensors_that_share_memory_are_saved_each(path):
    one = torch.arange(4.0)
    files.save_state(path, {"one": one, "again": one, "part": one[1:3]})
    assert same(files.load_state(path), {"one": one, "again": one, "part": one[1:3]})


def test_what_cannot_be_saved_is_refused_by_its_place(path):
    with refused(TypeError, "A state holds dicts, lists, .* got set at /a/1"):
        files.save_state(path, {"a": [1, {2}]})
    assert not path.exists()


def test_the_same_state_gives_the_same_bytes(path):
    state = {"step": 1, "net": {f"w{i}": torch.full((i,), 0.5) for i in range(1, 9)}}
    found = set()
    for _ in range(20):
        files.save_state(path, state)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_a_state_is_a_safetensors_file_for_everyone(path):
    files.save_state(path, {"net": {"w": torch.arange(3.0)}})
    found = safetensors.torch.load_file(path)
    assert list(found) == ["/net/w"] and found["/net/w"].tolist() == [0, 1, 2]


def test_what_was_loaded_does_not_change_with_the_file(path):
    files.save_state(path, {"w": torch.arange(50_000.0)})
    loaded = files.load_state(path)["w"]
    with open(path, "r+b") as file:  # in place, as an editor, a copy or a truncation would
        file.write(b"\0" * path.stat().st_size)
    assert torch.equal(loaded, torch.arange(50_000.0))
    path.write_bytes(b"")
    loaded += 1
    assert torch.equal(loaded, torch.arange(50_000.0) + 1)


# Damage

def test_every_flip_of_every_byte_of_a_small_state_is_refused(path):
    files.save_state(path, {"step": 3, "w": [torch.tensor([1.5]), None]})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for mask in (0x01, 0x20, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1:])
            with refused(RuntimeError, f"^{path} {DAMAGED}"):
                files.load_state(path)


def test_any_cut_and_any_flipped_bit_of_a_large_state_is_refused(path):
    files.save_state(path, {f"w{i}": torch.randn(50) for i in range(40)})
    whole, dice = path.read_bytes(), random.Random(5)
    header = struct.unpack("<Q", whole[:8])[0] + 8
    places = [dice.randrange(header) for _ in range(40)]
    places += [dice.randrange(header, len(whole)) for _ in range(40)]
    changed = [whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1:]
               for place in places]
    lengths = [1, 7, 8, 9, header - 1, header, len(whole) // 2, len(whole) - 1]
    for one in changed + [whole[:length] for length in lengths]:
        path.write_bytes(one)
        with refused(RuntimeError, f"^{path} {DAMAGED}"):
            files.load_state(path)


@pytest.mark.parametrize("old, new", [(b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")])
def test_tensors_that_another_header_reads_otherwise_are_refused(path, old, new):
    files.save_state(path, {"w": torch.arange(6.0).reshape(2, 3)})
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with refused(RuntimeError, "its checksum does not fit its contents"):
        files.load_state(path)


def test_other_safetensors_are_no_state(path):
    for metadata in (None, {"tree": "{}"}, {"sha256": "0"}):
        safetensors.torch.save_file({"w": torch.ones(3)}, path, metadata)
        with refused(RuntimeError, f"^{path} {DAMAGED}"):
            files.load_state(path)


@pytest.mark.parametrize("header", [
    b"[]", b'{"__metadata__": 1}', b'{"__metadata__": {"tree": []}}',
    json.dumps({"__metadata__": {"sha256": "0", "tree": "["}}).encode("utf-8")])
def test_a_header_of_another_kind_is_no_state(path, header):
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with refused(RuntimeError, f"^{path} {DAMAGED}"):
        files.load_state(path)
