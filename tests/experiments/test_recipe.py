"""Recipes: every setting reaches what runs, and networks and pairs are the right ones."""
import os
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from conftest import refused
from toys import (DIGITS, DOTS, STUDENT, TEACHER, dot, dot_network, equal, given, outcome, prepared,
                  some_pairs, tiny, weights)

from dmdkit import data, store, train
from dmdkit.experiments import mnist
from dmdkit.experiments.recipe import Recipe, Sources, _of_diffusers
from dmdkit.methods import classifier, ddpm, dmd, dmd2, pairs, perceptual, progressive
from dmdkit.methods.discriminator import Discriminator
from dmdkit.tasks.plane import MIXTURES, plane
from dmdkit.tasks.task import Task

ADVERSARIAL = {"generator_weight": 0.05, "discriminator_weight": 0.15}


# A recipe

@pytest.mark.parametrize("n", [0, -3])
def test_a_recipe_wants_steps_and_batches(n):
    with refused(ValueError, f"number of training steps must be at least 1; got {n}."):
        TEACHER.changed(n_steps=n)
    with refused(ValueError, f"batch size must be at least 1; got {n}."):
        TEACHER.changed(batch_size=n)


def test_a_recipe_is_changed_in_its_own_values_and_its_methods():
    other = STUDENT.changed(n_steps=9, seed=4, updates=(1, 7))
    assert (other.n_steps, other.seed, other.method.updates) == (9, 4, (1, 7))
    assert other.changed(n_steps=6, seed=0, updates=(1, 2)) == STUDENT
    with pytest.raises(TypeError, match="updats"):
        STUDENT.changed(updats=(1, 7))


def test_a_card_has_every_setting():
    settings = STUDENT.settings
    assert settings["task"] == "dots" and settings["method"] == "dmd"
    own = {field.name for field in fields(STUDENT.method)}
    assert set(settings) == own | {"task", "method", "n_steps", "batch_size", "seed"}


# Wiring: every setting is heard

def settings_of(*methods) -> list[str]:
    return sorted({field.name for method in methods for field in fields(method)})


short = partial(Recipe, "Short.", DIGITS, n_steps=4, batch_size=4)
EARLY = {"warmup": 0, "lr": 1e-3}
OF_CLASSES = ("guidance", "step_aware", "distance")  # settings that points have no use for
BASES = {
    ddpm: short(ddpm.Settings(**EARLY)),
    classifier: short(classifier.Settings("classifier", noise=0.3)),
    dmd: short(dmd.Settings(guidance=0.5, n_pairs=8, ema=0.9, **EARLY)),
    dmd2: short(dmd2.Settings(guidance=0.5, updates=(1, 1), student_steps=2, ema=0.9,
                              **EARLY, **ADVERSARIAL)),
    progressive: short(progressive.Settings(2, guidance=0.5, ema=0.9, **EARLY))}
CHANGES = {
    ddpm: {"network": "documented", "label_dropout": 0.9, "weighting": "snr", "lr": 2e-3,
           "betas": (0.5, 0.6), "warmup": 2, "ema": 0.0},
    classifier: {"network": "judge", "noise": 0.9, "label_smoothing": 0.0, "lr": 1e-3,
                 "weight_decay": 0.5, "ema": 0.0},
    dmd: {"teacher": "teacher-weak", "start": "teacher-weak", "network": "network",
          "guidance": 0.0, "updates": (1, 2), "t_range": (0.5, 0.9), "weighting": "kl",
          "matching": False, "lr": 2e-3, "fake_lr": 2e-3, "fake_annealed": False, "head_start": 1,
          "betas": (0.5, 0.6), "warmup": 2, "max_grad_norm": 1e-3, "ema": 0.0, "kept": 0.5,
          "fake": False, "n_pairs": 3, "regression_weight": 9.0, "distance": "classifier",
          "solver": "ddim", "solver_steps": 3},
    dmd2: {"teacher": "teacher-weak", "start": "teacher-weak", "network": "network",
           "guidance": 0.0, "updates": (2, 2), "t_range": (0.5, 0.9), "weighting": "kl",
           "matching": False, "lr": 2e-3, "fake_lr": 2e-3, "fake_annealed": False,
           "head_start": 1, "betas": (0.5, 0.6), "warmup": 2, "max_grad_norm": 1e-3, "ema": 0.0,
           "kept": 0.5, "generator_weight": 0.5, "discriminator_weight": 0.5, "student_steps": 4,
           "backward_simulation": False, "step_aware": True},
    progressive: {"student_steps": 4, "teacher": "teacher-weak", "guidance": 0.0,
                  "weighting": "snr", "lr": 2e-3, "warmup": 2, "ema": 0.0}}
SOLVED = ("solver", "solver_steps")  # of the pairs, which are given here: see below


def task_of(name: str, method) -> Task:
    """Dots, which are quick, or digits where the setting is about classes."""
    if method in (ddpm, classifier) or name in OF_CLASSES:
        networks = {"documented": partial(tiny, 5)}
        return replace(DIGITS, networks=DIGITS.networks | networks)
    return replace(DOTS, networks={"fake": partial(dot, 3), "network": partial(dot, 4)})


@pytest.mark.parametrize("method", BASES, ids=lambda method: method.__name__.rsplit(".")[-1])
def test_every_setting_of_a_method_changes_what_runs(method, monkeypatch):
    """A setting that is accepted and ignored would leave all as it was."""
    monkeypatch.setattr(perceptual, "announce", lambda text: None)
    assert sorted(CHANGES[method]) == settings_of(type(BASES[method].method))
    before = {}
    for name, value in (CHANGES[method] | {"n_steps": 5, "batch_size": 8}).items():
        base = BASES[method].changed(task=task_of(name, method))
        if base.task.shape == (2,):
            base = base.changed(guidance=0.0)
        if base.task.shape not in before:
            before[base.task.shape] = outcome(base)
            assert outcome(base) == before[base.task.shape]
        if name not in SOLVED:
            assert outcome(base.changed(**{name: value})) != before[base.task.shape], name


def check_denoiser(recipe: Recipe, made: train.Training) -> None:
    m, learner, step = recipe.method, made.learners["net"], made.step
    assert isinstance(step, ddpm.DDPM) and step.learner is learner
    assert learner.settings | {"lr": m.lr, "betas": m.betas, "warmup": m.warmup, "ema": m.ema,
                               "n_steps": recipe.n_steps} == learner.settings
    assert (step.label_dropout, step.weighting) == (m.label_dropout, m.weighting)
    assert step.batch_size == recipe.batch_size
    assert torch.equal(step.images.pixels, recipe.task.data().pixels)


def check_classifier(recipe: Recipe, made: train.Training) -> None:
    m, learner, step = recipe.method, made.learners["net"], made.step
    assert isinstance(step, classifier.ClassifierStep) and step.learner is learner
    assert learner.settings | {"lr": m.lr, "weight_decay": m.weight_decay, "ema": m.ema,
                               "n_steps": recipe.n_steps} == learner.settings
    assert (step.noise, step.label_smoothing) == (m.noise, m.label_smoothing)
    assert step.batch_size == recipe.batch_size


def check_halving(recipe: Recipe, made: train.Training) -> None:
    m, learner, step = recipe.method, made.learners["net"], made.step
    assert isinstance(step, progressive.Halving)
    assert learner.settings | {"lr": m.lr, "warmup": m.warmup, "ema": m.ema,
                               "n_steps": recipe.n_steps} == learner.settings
    assert step.weighting == m.weighting and len(step.times) == m.student_steps
    assert getattr(step.teacher, "keywords", {}) == ({"guidance": m.guidance} if m.guidance else {})


def check_distillation(recipe: Recipe, made: train.Training) -> None:
    m, step, learner = recipe.method, made.step, made.learners["generator"]
    kind = dmd2.DMD2 if isinstance(m, dmd2.Settings) else dmd.DMD
    assert type(step) is kind and step.settings is m and step.batch_size == recipe.batch_size
    shared = {"betas": m.betas, "warmup": m.warmup, "max_grad_norm": m.max_grad_norm}
    own = {"lr": m.lr, "ema": m.ema, "n_steps": recipe.n_steps * m.updates[0]}
    assert learner.settings | shared | own == learner.settings
    assert ("fake" in made.learners) is m.has_fake and (step.fake is not None) is m.has_fake
    if m.has_fake:
        n_fake = recipe.n_steps * max(m.updates[1], 1) if m.fake_annealed else 10**9
        own = {"lr": m.fake_lr, "ema": 0.0, "n_steps": n_fake}
        assert made.learners["fake"].settings | shared | own == made.learners["fake"].settings
    assert getattr(step.real, "keywords", {}) == ({"guidance": m.guidance} if m.guidance else {})
    check_terms(recipe, made)


def check_terms(recipe: Recipe, made: train.Training) -> None:
    m, step = recipe.method, made.step
    if isinstance(m, dmd.Settings):
        assert (step.pairs is not None) is (m.n_pairs > 0)
        if m.n_pairs:
            assert len(step.pairs.z) == m.n_pairs
            assert step.weights["regression"] == m.regression_weight
            assert (step.distance is perceptual.squared_distance) is (m.distance == "squared")
        return
    assert step.weights["gan"] == m.generator_weight
    assert step.weights["discriminator"] == m.discriminator_weight
    assert isinstance(step.fake.net, Discriminator) is m.adversarial
    assert len(step.times) == m.student_steps
    labels = 11 * (m.student_steps if m.step_aware else 1)
    assert step.fake.net.n_classes + 1 == labels


CHECKS = {ddpm.Settings: check_denoiser, classifier.Settings: check_classifier,
          progressive.Settings: check_halving, dmd.Settings: check_distillation,
          dmd2.Settings: check_distillation}


@pytest.mark.parametrize("name", mnist.RECIPES)
def test_every_setting_of_a_shipped_recipe_reaches_its_step(name, monkeypatch):
    recipe = mnist.RECIPES[name].changed(task=DIGITS)
    CHECKS[type(recipe.method)](recipe, prepared(recipe))


def test_each_network_is_the_one_that_its_recipe_names():
    hand = given()
    made = prepared(mnist.RECIPES["student-dmd"].changed(task=DIGITS))
    assert equal(weights(made.learners["generator"].net), weights(hand["student-dmd-paired"]))
    assert equal(weights(made.learners["fake"].net), weights(hand["teacher"]))
    assert made.frozen == (hand["teacher"],)
    made = prepared(mnist.RECIPES["progressive-2"].changed(task=DIGITS))
    assert equal(weights(made.learners["net"].net), weights(hand["progressive-4"]))
    assert made.frozen == (hand["progressive-4"],)


@pytest.mark.parametrize("kept", [1.0, 0.25])
def test_what_is_kept_is_drawn_back_towards_the_start(kept):
    recipe = BASES[dmd].changed(kept=kept, start="teacher-weak")
    made = prepared(recipe)
    generator, begun = made.learners["generator"], weights(tiny(1))
    assert equal(weights(generator.net), begun)
    for seed in range(3):
        made.step(torch.Generator().manual_seed(seed))
    trained, average = weights(generator.net), [p.clone() for p in generator.ema.shadow_params]
    net = made.finish()
    assert net is generator.net and not net.training
    for found, start, end in zip(weights(net), begun, average):
        torch.testing.assert_close(found, kept * end + (1 - kept) * start)
    assert not equal(average, begun)
    generator.restore()  # and the training can go on from where it was
    assert equal(weights(generator.net), trained)


@pytest.mark.parametrize("kept", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_before_anything_is_loaded(kept):
    with refused(ValueError, f"above 0 and at most 1; got {kept}"):
        dmd.Settings("nobody", n_pairs=8, kept=kept)


# Pairs

SOLVER = pairs.Solver("heun", 8, mnist.GUIDANCE)


def test_pairs_are_kept_and_those_of_every_solver_lie_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, honest = [], pairs.make_pairs

    def make_pairs(teacher, n, folder, solver, **options):
        made.append(folder)
        return honest(teacher, n, folder, solver, **options)

    monkeypatch.setattr(pairs, "make_pairs", make_pairs)
    sources = Sources(DIGITS, given={"teacher": tiny()})
    solvers = [SOLVER, pairs.Solver("ddim", 8, 0.25), pairs.Solver("heun", 2, 0.25),
               pairs.Solver("heun", 8, 0.5)]
    few = [sources.pairs("teacher", 2, solver) for solver in solvers]
    assert len(set(made)) == 4 and all(folder.parent == data.RUNS for folder in made)
    card = pairs.pairs_card(made[0])
    assert card["teacher_sha256"] == sources.checksum("teacher") and card["guidance"] == 0.25
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = [sources.pairs("teacher", 2, solver) for solver in solvers]
    assert all(torch.equal(one.x, other.x) for one, other in zip(few, again)) and len(kept) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("change", [{}, {"solver": "ddim"}, {"solver_steps": 3}, {"guidance": 1.0}])
def test_a_recipes_solver_and_guidance_make_its_pairs(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    recipe = BASES[dmd].changed(n_pairs=2, **change)
    teacher = tiny()
    made = recipe.prepare(train.accelerator(cpu=True),
                          Sources(DIGITS, given={"teacher": teacher})).step.pairs
    m = recipe.method
    solver = pairs.Solver(m.solver, m.solver_steps, m.guidance)
    wanted = solver.solve(teacher, made.z, made.label).clamp(-1, 1)
    torch.testing.assert_close(made.x, wanted, atol=1 / 127, rtol=0)


def test_pairs_of_one_network_that_was_given_are_not_anothers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    solver, found = pairs.Solver("ddim", 2), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(Sources(DOTS, given={"one": dot_network()}).pairs("one", 4, solver))
    assert torch.equal(found[0].z, found[1].z) and not torch.equal(found[0].x, found[1].x)


def test_pairs_that_are_at_hand_are_taken_and_have_to_be_enough():
    sources = Sources(DIGITS, given={"pairs": some_pairs(8)})
    assert torch.equal(sources.pairs("teacher", 3, SOLVER).z, some_pairs(8).z[:3])
    with refused(ValueError, "8 pairs were given; 9 are wanted."):
        sources.pairs("teacher", 9, SOLVER)


# Networks

def test_where_a_network_comes_from(tmp_path):
    one = tiny()
    assert Sources(DIGITS, given={"mine": one}).load("mine") is one
    task = plane("two modes", MIXTURES["two modes"])
    assert Sources(task).load("exact").data is MIXTURES["two modes"]
    with refused(ValueError, "The task digits has no exact denoiser; name a teacher."):
        Sources(DIGITS).load("exact")
    with refused(ValueError, "There is no artefact 'nobody' in"):
        Sources(DIGITS, (tmp_path,)).load("nobody")
    with refused(ValueError, r"'teacher' makes samples of shape \(1, 28, 28\); those of the task "
                             r"dots have \(2,\). Name another."):
        Sources(DOTS).load("teacher")


def test_a_card_says_what_a_training_started_from():
    found = Sources(DIGITS).origin({"teacher": "teacher", "start": "student-dmd"})
    assert found == {"teacher": "teacher", "start": "student-dmd",
                     "teacher_sha256": store.card("teacher")["sha256"],
                     "start_sha256": store.card("student-dmd")["sha256"]}


def test_what_a_task_has_not_is_named():
    with refused(ValueError, "The task digits has no network 'huge'; it has network, wide, tiny"):
        prepared(BASES[ddpm].changed(network="huge"))
    with refused(ValueError, "The task digits has no distance 'mile'; it has classifier, judge, "):
        prepared(BASES[dmd].changed(distance="mile"))
    with refused(ValueError, "The task digits has no scorer"):
        replace(DIGITS, make_scorer=None).scorer()


@pytest.mark.parametrize("name, sep, folder", [
    ("teacher", "/", False), ("google/ddpm", "/", True), (r"C:\models\ddpm", "\\", True)])
def test_a_name_with_a_slash_is_a_folders_or_of_the_hub(monkeypatch, name, sep, folder):
    monkeypatch.setattr(os, "sep", sep)
    assert _of_diffusers(name) == folder
