"""Lesson 06's study: what DMD2 puts in place of the pairs, one thing at a time."""
import pytest
import torch
from toys import DIGITS, DOTS, equal, given, outcome, prepared, weights

from dmdkit.experiments import mnist, runner
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.lesson06 import RECIPES, STUDY, THREE, TWO
from dmdkit.methods import dmd2
from dmdkit.methods.discriminator import Discriminator

WITH_GAN = {"generator_weight": 0.1, "discriminator_weight": 0.1}
GAN = set(WITH_GAN)
OF_BOTH = set(RECIPES["DMD"].settings) & set(RECIPES["1 : 1"].settings)
BASES = {  # by name, another setting, and in what it differs from that one
    "1 : 1": ("1 : 2", {"updates"}), "1 : 2": ("1 : 5", {"updates"}),
    "1 : 5": ("1 : 10", {"updates"}), "1 : 10": ("1 : 1", {"updates"}),
    "with critic": ("1 : 5", GAN), "critic alone": ("with critic", {"matching"}),
    "2 steps": ("1 : 5", {"student_steps", "step_aware"}),
    "4 steps": ("2 steps", {"student_steps"}),
    "4 steps, not told": ("4 steps", {"step_aware"}),
    "4 steps, real inputs": ("4 steps", {"backward_simulation"}),
    "1 : 1, 2,200": ("1 : 1", {"lr", "ema", "n_steps"}),
    "1 : 1, 1,000": ("1 : 1, 2,200", {"n_steps"}),
    "critic alone, 400": ("critic alone", {"lr", "ema", "n_steps"})}


@pytest.mark.parametrize("name", BASES)
def test_each_run_differs_from_another_in_what_its_name_says_and_in_nothing_else(name):
    base, changes = BASES[name]
    mine, other = RECIPES[name].settings, RECIPES[base].settings
    assert {key for key in mine if mine[key] != other[key]} == changes
    steps = RECIPES[name].method.student_steps
    assert RECIPES[name].samplings == (Sampling("multistep", steps),)


def test_dmd_beside_them_differs_in_the_pairs_alone():
    mine, other = RECIPES["DMD"].settings, RECIPES["1 : 1"].settings
    assert {key for key in OF_BOTH if mine[key] != other[key]} == {"method"}
    assert mine["n_pairs"] == 1280 and mine["matching"] and mine["fake"]
    assert set(BASES) | {"DMD"} == set(RECIPES)


def test_the_numbers_in_a_name_are_the_settings():
    for name in ("1 : 1", "1 : 2", "1 : 5", "1 : 10"):
        assert RECIPES[name].method.updates == (1, int(name.split(": ")[1]))
    assert RECIPES["1 : 1, 2,200"].n_steps == 2200 and RECIPES["1 : 1, 1,000"].n_steps == 1000
    assert RECIPES["critic alone, 400"].n_steps == 400
    assert RECIPES["4 steps"].method.student_steps == 4
    assert RECIPES["with critic"].method.generator_weight > 0
    assert not RECIPES["critic alone"].method.matching


def test_the_long_runs_are_the_shipped_students_but_for_what_they_say():
    shipped = mnist.RECIPES["student-dmd2-no-critic"].settings
    long = RECIPES["1 : 1, 2,200"].settings
    assert {key for key in long if long[key] != shipped[key]} == {"updates"}


@pytest.mark.parametrize("name, changes", [
    ("student-dmd2", {"start", "lr", "n_steps"} | GAN),
    ("student-dmd2-4step", {"start", "lr", "n_steps"} | GAN)])
def test_a_second_part_adds_the_discriminator(name, changes):
    """Besides a fresh optimiser, another rate and fewer updates."""
    second = mnist.RECIPES[name].settings
    first = mnist.RECIPES[f"{name}-no-critic"].settings
    assert {key for key in second if second[key] != first[key]} == changes
    assert second["start"] == f"{name}-no-critic"


def small(name: str):
    return RECIPES[name].changed(task=DIGITS, batch_size=4, warmup=0)


TOLD = ("2 steps", "4 steps", "4 steps, not told")  # by a label, which dots have not


@pytest.mark.parametrize("task", [DIGITS, DOTS], ids=["digits", "dots"])
def test_no_setting_runs_as_another_does(task):
    found = {}
    for name in RECIPES:
        if task is DIGITS and name in TOLD:
            found[name] = outcome(small(name))
        if task is DOTS and not getattr(RECIPES[name].method, "step_aware", False):
            changes = {"guidance": 0.0} | ({"distance": "squared"} if name == "DMD" else {})
            found[name] = outcome(small(name).changed(task=DOTS, **changes))
    for name, one in found.items():
        for other, another in found.items():
            assert name == other or one != another, (name, other)


@pytest.mark.parametrize("options", [
    {}, WITH_GAN, WITH_GAN | {"matching": False},
    WITH_GAN | {"student_steps": 2, "step_aware": True},
    {"student_steps": 2, "backward_simulation": False}], ids=str)
def test_a_setting_trains_and_is_looked_at(options):
    updates = (1, 2)
    recipe = small("1 : 2").changed(
        n_steps=2, samplings=(Sampling("multistep", options.get("student_steps", 1)),), **options)
    teacher = given()["teacher"]
    before = weights(teacher)
    *_, frame = runner.run(recipe, **given())
    made = frame.training
    adversarial = bool(GAN & set(options))
    terms = ["matching"] if recipe.method.matching else []
    terms += ["gan"] if adversarial else []
    own = {"fake", "discriminator"} if adversarial else {"fake"}
    assert set(frame.values) == own | {f"{term}{end}" for term in terms
                                       for end in ("", " gradient")}
    states = made.learners["fake"].optimizer.state.values()
    assert {int(state["step"]) for state in states} == {2 * updates[1]}
    assert equal(weights(teacher), before) and all(p.grad is None for p in teacher.parameters())
    seen = made.snapshot()
    assert isinstance(made.learners["fake"].net, Discriminator) is adversarial
    assert seen.discriminator.shape == (2, 200 if adversarial else 0)
    assert ((seen.discriminator > 0) & (seen.discriminator < 1)).all()


def test_a_fake_score_with_a_head_starts_as_a_copy_of_the_teacher():
    made = prepared(small("with critic"))
    teacher, fake = given()["teacher"].state_dict(), made.learners["fake"].net.state_dict()
    assert all(torch.equal(fake[name], weight) for name, weight in teacher.items())
    assert len(fake) > len(teacher)
    nets = (given()["teacher"], *(one.net for one in made.learners.values()))
    places = [{p.data_ptr() for p in net.parameters()} for net in nets]
    assert len(set.union(*places)) == sum(map(len, places))


def test_the_weights_of_the_discriminator_are_the_papers_rescaled():
    generator, discriminator = dmd2.rescaled_weights((1, 28, 28))
    assert mnist.ADVERSARIAL == {"generator_weight": pytest.approx(generator, rel=0.01),
                                 "discriminator_weight": pytest.approx(discriminator, rel=0.01)}


def test_how_many_runs_there_are_of_each():
    for name in RECIPES:
        wanted = 3 if name in THREE else 2 if name in TWO else 1
        assert STUDY.runs_of(name) == wanted
    assert {*THREE, *TWO} <= set(RECIPES)
