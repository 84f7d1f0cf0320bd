"""Lesson 04's study: an ablation differs from DMD in what its name says, and so does what runs."""
import functools
from dataclasses import replace

import pytest
import torch
from toys import DOTS, equal, given_dots, outcome, prepared, weights

from dmdkit.experiments import mnist
from dmdkit.experiments.lesson04 import RECIPES, STUDY
from dmdkit.methods import perceptual

NO_PAIRS = {"n_pairs": 0, "regression_weight": 0.25, "distance": "squared"}  # as if never said
BESIDES = {  # by name, what a setting has otherwise than "DMD"
    "DMD": {}, "no matching": {"matching": False}, "no regression": NO_PAIRS,
    "real score only": {"fake": False} | NO_PAIRS, "frozen fake score": {"updates": (1, 0)},
    "no weighting": {"weighting": "none"}, "weaker teacher": {"teacher": "teacher-weak"},
    "regression by lpips-alex": {"distance": "lpips-alex"},
    "regression by lpips-squeeze": {"distance": "lpips-squeeze", "regression_weight": 1.0},
    "regression by squared": {"distance": "squared"},
    "40 pairs": {"n_pairs": 40}, "40 pairs, no matching": {"n_pairs": 40, "matching": False},
    "10 pairs": {"n_pairs": 10}, "10 pairs, no matching": {"n_pairs": 10, "matching": False}}


def differences(one: dict, other: dict) -> dict:
    return {name: value for name, value in one.items() if value != other[name]}


def test_each_setting_differs_from_dmd_in_what_its_name_says_and_in_nothing_else():
    full = RECIPES["DMD"].settings
    assert full["matching"] and full["fake"] and full["n_pairs"]
    found = {name: differences(recipe.settings, full) for name, recipe in RECIPES.items()}
    assert found == BESIDES
    assert {recipe.samplings for recipe in RECIPES.values()} == {mnist.ONE_STEP}


def test_the_ablations_and_the_students_share_the_method():
    """What an ablation shows is said of the students: they differ in budget, rates and updates of
    the fake score."""
    paired, alone, regression = (mnist.RECIPES[name].settings for name in (
        "student-dmd-paired", "student-dmd", "student-regression"))
    assert set(differences(RECIPES["DMD"].settings, paired)) == {
        "n_pairs", "ema", "n_steps", "regression_weight", "updates", "lr", "fake_lr"}
    assert set(differences(paired, alone)) == {"start", "n_pairs", "distance", "t_range", "lr",
                                               "ema", "n_steps", "kept"}
    assert alone["start"] == "student-dmd-paired"
    assert set(differences(paired, regression)) == {
        "matching", "updates", "lr", "fake_lr", "ema", "batch_size", "n_steps"}
    assert paired["updates"] == (1, 5)  # as DMD2's


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """LPIPS needs files that do not ship: distances of other sizes stand in for it."""
    scale = {"lpips-alex": 2.0, "lpips-squeeze": 3.0, "squared": 1.0}

    def distance(kind: str, trunk=None, device="cpu"):
        return functools.partial(_times, scale[kind])

    monkeypatch.setattr(perceptual, "distance", distance)
    monkeypatch.setattr(perceptual, "announce", lambda text: None)


def _times(factor: float, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return factor * perceptual.squared_distance(x, y)


def of_layers(device):
    return functools.partial(_times, 5.0)


@functools.cache
def small(name: str):
    """A setting, of dots, which are quick but have no classes to guide by."""
    task = replace(DOTS, distances={"classifier": of_layers})
    return RECIPES[name].changed(task=task, batch_size=4, warmup=0, guidance=0.0)


def test_no_ablation_runs_as_its_base_does():
    """Those of few pairs aside: here all have as few."""
    found = {name: outcome(small(name)) for name in RECIPES if " pairs" not in name}
    for name, one in found.items():
        for other, another in found.items():
            assert name == other or one != another, (name, other)


@pytest.mark.parametrize("name", RECIPES)
def test_each_setting_trains_what_its_name_says(name):
    """A step of each: who has a learner, who moves, what is reported; the teacher never changes."""
    recipe = small(name)
    made, teacher = prepared(recipe), given_dots()[recipe.method.teacher]
    before = weights(teacher)
    states = {role: weights(learner.net) for role, learner in made.learners.items()}
    for i in range(2):  # in the first one the fake score is still the real one
        values = set(made.step(torch.Generator().manual_seed(i)))
    moved = {role for role, learner in made.learners.items()
             if not equal(weights(learner.net), states[role])}
    name = "no matching" if name.endswith("no matching") else name
    has_fake = name not in ("no matching", "real score only")
    learns = has_fake and name != "frozen fake score"
    assert set(made.learners) == {"generator", "fake"} if has_fake else {"generator"}
    assert moved == {"generator"} | ({"fake"} if learns else set())
    terms = {"no matching": ["regression"], "no regression": ["matching"],
             "real score only": ["matching"]}.get(name, ["matching", "regression"])
    wanted = {f"{term}{end}" for term in terms for end in ("", " gradient")}
    assert values == wanted | ({"fake"} if learns else set())
    assert made.frozen == (teacher,) and equal(weights(teacher), before)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("updates", [(1, 1), (1, 2), (2, 3)])
def test_every_learner_is_annealed_over_its_own_updates(updates):
    """Its rate reaches 0 when its own last update is made: as many a step as the setting says."""
    recipe = small("DMD").changed(updates=updates, n_steps=2)
    made = prepared(recipe)
    for i in range(2):
        for learner in made.learners.values():
            assert learner.optimizer.param_groups[0]["lr"] > 0
        made.step(torch.Generator().manual_seed(i))
    for learner, n in zip(made.learners.values(), updates):
        assert {int(state["step"]) for state in learner.optimizer.state.values()} == {2 * n}
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
        assert learner.settings["n_steps"] == 2 * n


def test_the_study_has_three_runs_of_each_setting():
    assert all(STUDY.runs_of(name) == 3 for name in RECIPES) and STUDY.n_images == 2000
