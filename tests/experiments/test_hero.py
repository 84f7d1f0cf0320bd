"""The course's first picture: how its noise is chosen, and that it is what its card says."""
import io

import numpy as np
import pytest
import torch
from PIL import Image

from dmdkit import store
from dmdkit.experiments import build, hero
from dmdkit.show import hero as show
from dmdkit.show.players import hero as opening


class Reader(torch.nn.Module):
    """Reads image i as the digit i, with this logit against zeros."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return torch.diag(self.logits)


def test_all_must_read_all_digits_surely():
    images, sure = torch.zeros(10, 1, 28, 28), Reader([5.0] * 10)
    assert hero.surely_read(images, [sure, sure])
    for unsure in (Reader([5.0] * 9 + [2.0]), Reader([5.0] * 9 + [-1.0])):
        assert not hero.surely_read(images, [sure, unsure])


def test_the_first_seed_that_is_read_surely_is_chosen(monkeypatch):
    drawn = []
    monkeypatch.setattr(hero, "drawn", lambda teacher, seed, *rest: drawn.append((seed, *rest)))
    monkeypatch.setattr(hero, "surely_read", lambda images, readers: len(drawn) == 4)
    assert hero.chosen(None, [], 0.25) == 3
    assert drawn == [(seed, 400, 0.25) for seed in range(4)]


def test_what_ships_is_of_the_models_that_ship_and_was_read_surely():
    digits, card = hero.load(), hero.card()
    assert digits.shape == (9, 10, 28, 28) and card["models"] == hero.models()
    many = (255 - digits[7, :, None]) / 127.5 - 1
    assert hero.surely_read(many, [store.load(name) for name in hero.READERS])
    student = store.load(hero.STUDENT)
    z = hero.start(student, card["seed"])
    again = hero.to_uint8(student.generate(z, torch.arange(10)))[:, 0]
    assert (again.float() - (255 - digits[8]).float()).abs().mean() < 2


def test_costs_and_distances_are_those_of_the_cards():
    ways = hero.columns()
    assert [way.evaluations for way in ways] == [2 * n for n in hero.STEPS] + [1]
    assert ways[0].distance > 10 > ways[3].distance > ways[-1].distance > hero.baseline()
    assert [way.n_steps for way in ways] == [*hero.STEPS, 1]


def test_a_damaged_picture_is_refused(tmp_path):
    for name in ("digits.png", "digits.json"):
        (tmp_path / "hero").mkdir(exist_ok=True)
        (tmp_path / "hero" / name).write_bytes((hero.ROOT / "hero" / name).read_bytes())
    path = tmp_path / "hero" / "digits.png"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(RuntimeError, match="is damaged.*build hero"):
        hero.load(tmp_path)


def test_it_is_made_again_for_another_model(monkeypatch):
    assert build.targets()["hero"].why() == ""
    other = hero.models() | {"teacher": "another"}
    monkeypatch.setattr(hero, "models", lambda root: other)
    assert build.targets()["hero"].why() == "teacher is another now"


def test_the_readmes_pictures_are_of_the_stored_digits():
    shown = hero.load(), hero.columns(), hero.baseline()
    animation = (hero.ROOT / "hero" / "animation.gif").read_bytes()
    assert len(animation) < 1_000_000
    stored, again = (Image.open(io.BytesIO(file)) for file in (animation, show.animation(*shown)))
    assert stored.n_frames == again.n_frames == len(hero.STEPS)
    for i in (0, 7):
        stored.seek(i), again.seek(i)
        both = [np.asarray(one.convert("L").resize((84, 27)), float) for one in (stored, again)]
        assert np.abs(both[0] - both[1]).mean() < 8  # other fonts draw other letters


def test_the_player_starts_from_all_steps_and_says_what_the_student_costs():
    bundle = opening.player(hero.load(), hero.columns(), hero.baseline())
    assert "The teacher: 800 evaluations of the network a digit, Fréchet distance" in bundle.html
    assert "1 evaluation of the network a digit" in bundle.html
