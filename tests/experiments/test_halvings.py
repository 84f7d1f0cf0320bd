"""The pictures of lesson 05's chain: they are what the artefacts draw."""
import shutil

import pytest
import torch
from conftest import refused
from toys import tiny

from dmdkit import sample, store
from dmdkit.data import ROOT, to_uint8
from dmdkit.experiments import build, explorer, halvings
from dmdkit.experiments.mnist import CHAIN, STAGES


def row(name: str, n_steps: int) -> torch.Tensor:
    digits, axes = halvings.load()
    return digits[halvings.ROWS.index(name), axes["steps"].index(str(n_steps))].float()


def test_every_stage_has_ten_digits_of_students_and_teacher():
    digits, axes = halvings.load()
    assert axes == {"model": ["distilled", "teacher, DDIM"], "steps": [str(n) for n in STAGES]}
    assert digits.shape == (2, len(STAGES), 10, 28, 28) and digits.dtype == torch.uint8


@pytest.mark.parametrize("name, guidance", [("distilled", 0.0), ("teacher, DDIM", CHAIN.guidance)])
def test_what_ships_draws_these_digits(name, guidance):
    net = store.load("teacher" if guidance else CHAIN.name(2))
    again = explorer.cell(net, "DDIM", guidance, 2).float()
    assert (again - row(name, 2)).abs().mean() < 2


def test_the_teacher_needs_its_steps_and_the_students_do_not():
    """From 512 steps to 1 the students' digits change less than the teacher's."""
    students, teacher = ((row(name, 1) - row(name, 512)).abs().mean() for name in halvings.ROWS)
    assert students < teacher / 2


def test_students_that_are_at_hand_are_drawn_and_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(halvings, "STEPS", (2, 1))
    monkeypatch.setattr(halvings, "SHOWN", ("teacher", "progressive-2", "progressive-1"))
    for seed, name in enumerate(halvings.SHOWN):
        store.save(tiny(seed), tmp_path / name, {"name": name})
    halvings.build(tmp_path)
    digits, axes = halvings.load(tmp_path)
    assert axes["steps"] == ["2", "1"] and digits.shape == (2, 2, 10, 28, 28)
    assert halvings.card(tmp_path)["models"] == halvings.models(tmp_path)
    for model, start, guidance in ((0, 1, 0.0), (1, 0, CHAIN.guidance)):
        for i, n in enumerate((2, 1)):
            net = store.load(halvings.SHOWN[start and start + i], root=tmp_path)
            states = sample.ddim(net, explorer.start(net), n, torch.arange(10), guidance)
            drawn = to_uint8(sample.last(states)).squeeze(1)
            assert torch.equal(digits[model, i], drawn), (model, n)


def test_they_are_out_of_date_when_a_model_is_another(tmp_path, monkeypatch):
    assert build.targets()["halvings"].why() == ""
    shutil.copytree(ROOT / "halvings", tmp_path / "halvings")
    monkeypatch.setattr(halvings, "models", lambda root: {"progressive-8": "0"})
    assert build._why_digits(halvings, "halvings", tmp_path) == "progressive-8 is another now"


def test_damage_is_named(tmp_path):
    shutil.copytree(ROOT / "halvings", tmp_path / "halvings")
    path = tmp_path / "halvings" / "digits.png"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with refused(RuntimeError, "is damaged.*build halvings"):
        halvings.load(tmp_path)
