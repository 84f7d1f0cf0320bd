"""The digits that are counted without knowing whose they are."""
import shutil

import pytest
import torch
from conftest import refused
from PIL import Image

from dmdkit import noise, store
from dmdkit.data import ROOT, to_uint8
from dmdkit.experiments import blind, build
from dmdkit.experiments.evaluate import draw
from dmdkit.show import blind as show


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "blind", tmp_path / "blind")
    return tmp_path


def test_the_digits_are_what_the_artefacts_draw_from_noise_that_no_figure_is_measured_on():
    digits, card = blind.load(), blind.card()
    assert list(digits) == [blind.REAL, *blind.WAYS] and card["models"] == blind.models()
    seeds = {row.get("seed") for name in blind.SHOWN for row in store.card(name)["results"]}
    assert blind.SEED == card["seed"] and blind.SEED not in seeds
    for name in blind.SHOWN[1:]:
        again = draw(store.load(name), blind.WAYS[name], blind.COUNT, "report", card["seed"])[0]
        off = (to_uint8(again)[:, 0].float() - digits[name].float()).abs()
        assert off.mean() < 255 / blind.SHADES and off.quantile(0.99) < 255 / blind.SHADES


def test_what_was_called_faulty_is_on_the_card():
    faulty = blind.card()["faulty"]
    assert list(faulty) == [blind.REAL, *blind.WAYS]
    counts = [len(numbers) for numbers in faulty.values()]
    assert counts[0] == min(counts) and counts[1] < min(counts[2:])
    assert all(set(numbers) <= set(range(blind.COUNT)) for numbers in faulty.values())


def test_every_digit_is_shown_once_and_found_again():
    places = list(range(500))
    assert sorted(blind.shuffled()) == places and blind.shuffled() != places
    assert blind.shuffled(1) != blind.shuffled()
    whole = blind.by_way(places)
    assert all(numbers == list(range(100)) for numbers in whole.values())
    first = blind.shuffled().index(0)
    assert blind.by_way([first]) == dict.fromkeys(whole, []) | {blind.REAL: [0]}
    for wrong in ([500], [-1], [3, 3]):
        with refused(ValueError, "Places are 0 … 499, each at most once"):
            blind.by_way(wrong)


def test_a_count_goes_onto_the_card_and_is_void_for_other_digits(copy):
    faulty = dict.fromkeys((blind.REAL, *blind.WAYS), [1, 2])
    blind.count(faulty, copy)
    assert blind.card(copy)["faulty"] == faulty
    shutil.copytree(ROOT / "teacher", copy / "teacher")
    for name in blind.SHOWN[1:]:
        shutil.copytree(ROOT / name, copy / name)
    other = torch.randint(0, 256, (5, 100, 28, 28), generator=noise.generator("pictures"),
                          dtype=torch.uint8)
    blind.keep(other, copy)
    assert blind.card(copy)["faulty"] == {}
    kept = torch.stack(list(blind.load(copy).values()))
    assert (kept.float() - other.float()).abs().max() <= 255 / (blind.SHADES - 1) / 2 + 1


def test_it_is_out_of_date_when_a_model_is_another(copy, monkeypatch):
    assert build.targets()["blind"].why() == ""
    monkeypatch.setattr(blind, "models", lambda root: {"teacher": "0"})
    assert build.targets()["blind"].why() == "teacher is another now"
    assert build._why_digits(blind, "blind", copy / "nowhere") == "it is missing"


def test_pages_show_all_digits_shuffled(tmp_path):
    made = show.pages(tmp_path / "pages", seed=3)
    assert len(made) == 17 and all(path.exists() for path in made)
    with refused(ValueError, "is not empty"):
        show.pages(tmp_path / "pages")
    assert Image.open(made[0]).width > 6 * 8 * 28  # six digits, eight times their size
