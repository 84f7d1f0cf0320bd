"""What DMD refuses before any work, and what stops it: settings, networks and pairs that do not
fit, and what is no number."""
from functools import partial

import pytest
import torch
from conftest import refused
from painters import (S, Recorder, equal, generator, half, learner, line, painted_pairs, painter,
                      run, weights)

from dmdkit import files, nets, schedule, train
from dmdkit.denoiser import Denoiser
from dmdkit.methods import dmd
from dmdkit.methods.distillation import WEIGHTINGS
from dmdkit.methods.pairs import Pairs


# What is no number is seen

def spoiled(place: str) -> tuple[train.Learner, train.Learner, Denoiser, dict]:
    """Generator, fake score and teacher, one of which has a weight that is no number."""
    one, other, teacher = painter(0.5, 1), painter(0.4, 2), painter(0.6, 3)
    pairs = painted_pairs()
    if place == "pairs":
        pairs.x[:] = torch.nan
    else:
        net = {"teacher": teacher, "fake": other}[place].net
        with torch.no_grad():
            net.a.fill_(torch.nan)
    return learner(one), learner(other), teacher, {"pairs": pairs}


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("place", ["teacher", "fake", "pairs"])
def test_a_network_or_a_pair_that_is_no_number_stops_the_run_and_nothing_of_it_is_kept(
        place, weighting, tmp_path):
    one, other, teacher, given = spoiled(place)
    before, path = weights(one.net), tmp_path / "checkpoint.safetensors"
    step = dmd.DMD(one, other, teacher, 6, dmd.Settings(weighting=weighting, n_pairs=12), **given)
    learners = {"generator": one} if place == "fake" else {"generator": one, "fake": other}
    with pytest.raises(FloatingPointError, match="became nan at step 1"):
        run(step, learners, 5, checkpoint=path, save_every=1)
    assert files.load_state(path)["step"] == 0
    kept = files.load_state(path)["learners"]["generator"]["net"]
    assert all(value.isfinite().all() for value in kept.values())
    assert equal(weights(one.net), before) and all(p.grad is None for p in one.net.parameters())


def test_guidance_that_is_no_number_is_refused_before_the_network_is_called():
    one, other, teacher = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2)), painter(0.6, 3)
    step = dmd.DMD(one, other, partial(teacher, guidance=torch.nan), 6, dmd.Settings())
    with refused(ValueError, r"guidance must be a finite number; got nan\."):
        step(generator())
    assert teacher.net.asked == [] and not one.gradients


# Bad input

@pytest.mark.parametrize("change, sentence", [
    (dict(t_range=(0.5, 0.2)), r"t_range must be two shares of T.*got \(0\.5, 0\.2\)"),
    (dict(t_range=(0.02, 1.5)), r"t_range must be two shares of T"),
    (dict(t_range=(0.02, float("nan"))), r"t_range must be two shares of T"),
    (dict(updates=(0, 1)), "updates of the generator must be a whole number of at least 1; got 0"),
    (dict(updates=(1, -1)), "updates of the fake score must be .* at least 0; got -1"),
    (dict(updates=(1, 1.5)), r"updates of the fake score must be a whole number .* got 1\.5"),
    (dict(head_start=-1), "head_start must be a whole number of at least 0; got -1"),
    (dict(weighting="heavy"), "weighting must be one of released, paper, kl, none; got 'heavy'"),
    (dict(matching=False), "Without the matching term and without pairs the generator has nothing "
                           "to learn from"),
    (dict(n_pairs=-1), "n_pairs must be a whole number of at least 0; got -1"),
    (dict(guidance=float("nan")), "guidance must be a finite number; got nan"),
    (dict(guidance=float("inf")), "guidance must be a finite number; got inf"),
    (dict(kept=0.0), r"kept must be a share of the trained weights, .*; got 0\.0"),
    (dict(kept=1.5), r"kept must be a share .*; got 1\.5"),
    (dict(kept=float("nan")), "kept must be a share .*; got nan"),
    (dict(start="student-dmd", network="network"), "start and network both say what the student "),
    (dict(teacher="exact"), "An exact denoiser cannot be copied: say which .* network="),
    (dict(n_pairs=8, solver="ddpm"), "deterministic solver, one of ddim, heun; got 'ddpm'"),
    (dict(n_pairs=8, solver_steps=0), "n_steps must be a whole number of at least 1; got 0"),
    (dict(n_pairs=8, regression_weight=0.0), r"regression_weight must be positive.*; got 0\.0"),
    (dict(n_pairs=8, regression_weight=-1.0), r"regression_weight must be positive.*; got -1\.0"),
    (dict(n_pairs=8, regression_weight=float("nan")), "regression_weight must be positive.* nan"),
    # what belongs to pairs, without pairs
    (dict(regression_weight=99.0), "regression_weight belongs to the regression; without pairs .* "
                                   "it would be ignored"),
    (dict(distance="classifier"), "distance belongs to the regression"),
    (dict(solver="ddim"), "solver belongs to the regression"),
    (dict(solver_steps=64), "solver_steps belongs to the regression"),
])
def test_settings_that_make_no_sense_or_would_be_ignored_are_refused_where_they_are_made(
        change, sentence):
    with refused(ValueError, sentence):
        dmd.Settings(**change)


def of_both() -> Denoiser:
    return Denoiser(nets.PointMLP(8, 1, outputs=2), S, "both", n_classes=0)


def points(sch: schedule.Schedule = S) -> Denoiser:
    return Denoiser(nets.PointMLP(8, 1), sch, "v", n_classes=0)


SOME = torch.zeros(3, 1)
REFUSED = {  # generator, fake score, teacher, the settings, what else; and why not
    "a fake score that the settings have not": (
        line(1.0, 0.0), line(1.0, 0.0), half, dict(fake=False), {}, "there is not to be one"),
    "no fake score where they have one": (
        line(1.0, 0.0), None, half, {}, {}, r"\(fake, matching\) .* there is to be one"),
    "pairs that they have not": (
        line(1.0, 0.0), line(1.0, 0.0), half, {}, dict(pairs=Pairs(SOME, SOME)),
        "The settings say 0 pairs; got 3 with pairs="),
    "no pairs where they have some": (
        line(1.0, 0.0), line(1.0, 0.0), half, dict(n_pairs=8), {},
        "The settings say 8 pairs; got 0 with pairs="),
    "another number of pairs": (
        line(1.0, 0.0), line(1.0, 0.0), half, dict(n_pairs=8), dict(pairs=Pairs(SOME, SOME)),
        "The settings say 8 pairs; got 3 with pairs="),
    "a t_range without a time": (
        points(schedule.cosine(8)), points(schedule.cosine(8)), half,
        dict(t_range=(0.52, 0.55)), {}, r"No t of 0 … 7 lies in t_range \(0\.52, 0\.55\)"),
    "a fake score that predicts both": (
        of_both(), of_both(), of_both(), {}, {},
        "predicts 'both' has no single target, .* Distil a teacher that predicts x, eps or v"),
    "a teacher of another schedule": (
        points(), points(), points(schedule.flow(1024)), {}, {},
        "The teacher has another schedule than the student, 'flow' of T = 1024, not 'cosine'"),
    "a guided teacher of another schedule": (
        points(), points(), partial(points(schedule.cosine(8)), guidance=0.0), {}, {},
        "The teacher has another schedule than the student, 'cosine' of T = 8, not .* T = 1024"),
    "a fake score of another schedule": (
        points(), points(schedule.cosine(8)), half, {}, {}, "The fake score has another schedule"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_contradicts_the_settings_or_does_not_fit_is_refused_before_any_work(case):
    one, other, teacher, changes, options, sentence = REFUSED[case]
    other = other and Recorder(other)
    with refused(ValueError, sentence):
        dmd.DMD(Recorder(one), other, teacher, 4, dmd.Settings(**changes), **options)


IMAGE = torch.zeros(3, 1, 2, 2)
LABEL = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("pairs, error, sentence", [
    (Pairs(IMAGE, IMAGE.byte(), LABEL), TypeError, "pairs' x must be floating-point numbers"),
    (Pairs(IMAGE.byte(), IMAGE, LABEL), TypeError, "pairs' z must be floating-point numbers"),
    (Pairs(IMAGE, IMAGE[:, 0], LABEL), ValueError, r"pairs' x must have shape \(B, 1, 2, 2\)"),
    (Pairs(IMAGE, IMAGE[:2], LABEL), ValueError, "z and x must have one shape"),
    (Pairs(IMAGE, IMAGE, LABEL[:2]), ValueError, r"label must have shape \(3,\)"),
    (Pairs(IMAGE, IMAGE, LABEL + 5), ValueError, "label must lie in 0 … 2"),
    (Pairs(IMAGE, IMAGE, LABEL.float()), TypeError, "label must be a tensor of whole numbers"),
])
def test_pairs_that_are_none_are_refused_before_any_work(pairs, error, sentence):
    one, other = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2))
    with refused(error, sentence):
        dmd.DMD(one, other, painter(0.6, 3), 4, dmd.Settings(n_pairs=3), pairs=pairs)
    assert one.net.net.asked == []


def test_an_unknown_distance_is_refused_before_pairs_are_made():
    class Refusing:
        def distance(self, kind, device):
            raise ValueError("no such distance")

        def pairs(self, *which):
            raise AssertionError("pairs were made first")

    generators = {"generator": learner(line(0.7, 0.2))}
    settings = dmd.Settings(n_pairs=8, distance="foo")
    with pytest.raises(ValueError, match="no such distance"):
        settings.step(Refusing(), generators, half, 4, Refusing())
