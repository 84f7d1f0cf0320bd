"""A sheet of pictures and its card: what is written is read again, and damage is named."""
import pytest
import torch
from conftest import refused

from dmdkit import files
from dmdkit.experiments import sheet


@pytest.fixture
def path(tmp_path):
    (tmp_path / "hero").mkdir()
    return tmp_path / "hero" / "digits.png"


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3),
                         dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 28, 28), (3, 1, 2, 6)])
def test_frames_come_back_where_they_were(path, shape):
    assert sheet.write(path, frames(*shape), {"name": "hero"}) == path
    assert torch.equal(sheet.read(path), frames(*shape))


def test_a_card_has_what_was_said_and_what_reading_needs(path):
    sheet.write(path, frames(2, 3, 5, 4), {"name": "hero", "seed": 7})
    card = sheet.card(path, "seed")
    assert (card["name"], card["seed"], card["frame"]) == ("hero", 7, [5, 4])
    assert card["sha256"] == files.sha256(path) and card["versions"] == files.versions()
    with refused(RuntimeError, "digits.json is damaged"):
        sheet.card(path, "steps")


def test_a_card_is_changed_and_the_pictures_stay(path):
    sheet.write(path, frames(2, 3, 5, 4), {"name": "hero", "faulty": {}})
    sheet.change(path, {"faulty": {"teacher": [1]}})
    card = sheet.card(path)
    assert (card["name"], card["faulty"]) == ("hero", {"teacher": [1]})
    assert torch.equal(sheet.read(path), frames(2, 3, 5, 4))


def test_damage_is_named_with_what_mends_it(path):
    sheet.write(path, frames(2, 3, 5, 4), {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with refused(RuntimeError, "digits.png is damaged: .*`python -m dmdkit build hero`"):
        sheet.read(path)
    path.unlink()
    with refused(RuntimeError, "digits.png is missing"):
        sheet.read(path)
