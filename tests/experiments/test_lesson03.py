"""Lesson 03's study: each experiment is what its name says, starts where it is told, and a copy's
run is its own."""
import functools
from dataclasses import asdict

import pytest
import torch
from toys import folder

from dmdkit import data, metrics, nets, noise, schedule, score, train
from dmdkit.experiments import lesson03, runner, study
from dmdkit.experiments.lesson03 import STUDY
from dmdkit.methods.distillation import WEIGHTINGS
from dmdkit.tasks import plane
from dmdkit.tasks.plane import MIXTURES, N_SCORED, SCHEDULE, PlaneScorer

FIGURE_3 = ("real only", "real − fake", "with regression")


# The settings

def differences(one, other) -> dict:
    """What one recipe has otherwise than another."""
    mine, its = one.settings, other.settings
    return {name: value for name, value in mine.items() if value != its[name]}


def test_the_three_objectives_differ_in_what_their_names_say():
    for data in MIXTURES:
        alone, both, paired = (STUDY.recipe(f"{data}: {name}") for name in FIGURE_3)
        assert differences(alone, both) == {"fake": False}
        assert differences(paired, both) == {"n_pairs": 2048, "solver_steps": 64}
        assert both.method.t_range == (0.02, 0.1) and both.settings["task"] == data
        assert both.method.n_pairs == 0 and both.method.fake


BASE = lesson03.recipe("eight modes")
BESIDES = {
    "ratio 10:1": {"updates": (10, 1), "n_steps": 96}, "ratio 3:1": {"updates": (3, 1),
                                                                    "n_steps": 320},
    "ratio 1:1": {"updates": (1, 1)}, "ratio 1:5": {},
    "t up to 0.1 T": {"t_range": (0.02, 0.1)}, "t up to 0.2 T": {"t_range": (0.02, 0.2)},
    "t up to 0.4 T": {"t_range": (0.02, 0.4)}, "t up to 0.7 T": {"t_range": (0.02, 0.7)},
    "t up to 0.98 T": {}, "t from 0.3 T": {"t_range": (0.3, 0.98)},
    "t from 0.6 T": {"t_range": (0.6, 0.98)},
    **{f"weighting {kind}": {} if kind == "released" else {"weighting": kind}
       for kind in WEIGHTINGS},
    "start one mode": {}, "start centre": {"network": "centre"}, "start wide": {"network": "wide"}}


def test_each_experiment_differs_from_its_base_in_what_its_name_says_and_in_nothing_else():
    """As many updates of the generator in every one of them."""
    others = [name for name in STUDY.recipes if ": " not in name]
    assert {name: differences(STUDY.recipe(name), BASE) for name in others} == BESIDES
    for name, recipe in STUDY.recipes.items():
        assert recipe.n_steps * recipe.method.updates[0] == 960, name
        assert recipe.batch_size == 1280 and recipe.method.teacher == "exact", name
        assert recipe.task.name == ("two modes" if name.startswith("two modes") else "eight modes")


# Running them

def cheap(**options):
    """An experiment of two copies that costs little."""
    return lesson03.recipe(copies=2, n_steps=12, **options).changed(head_start=2, batch_size=8)


@functools.cache
def built() -> study.Study:
    """A few of the experiments, small, run once."""
    recipes = {"alone": cheap(fake=False), "paired": cheap(n_pairs=16, solver_steps=4),
               "slow": cheap(updates=(3, 1))}
    one = study.Study("small-2d", "Small.", recipes, seeds=1, n_images=90, n_frames=3,
                      observe=lesson03.observe, score=lesson03.score_copies,
                      baseline=functools.partial(lesson03.baseline, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "RUNS", folder())
        patch.setattr(plane, "FIT_STEPS", 3)
        for module in (plane, lesson03):
            patch.setattr(module, "N_SCORED", 90)
        study.build(one, root=folder())
    return one


def test_experiments_can_be_run_and_stored():
    one = built()
    seen, card = study.load(one, folder()), study.card(one, folder())
    assert list(seen) == ["alone", "paired", "slow"]
    for name, run in seen.items():
        n_steps, per_step = one.recipe(name).n_steps, one.recipe(name).method.updates[0]
        milestones = [per_step * step for step in train.milestones(n_steps, 3)]
        assert run["steps"].tolist() == milestones and milestones[-1] == 12  # updates, not steps
        shown = run["snapshots"]
        assert shown["modes"].shape == shown["distance"].shape == (3, 2)
        assert shown["points"].shape == (3, 2, lesson03.N_POINTS, 2)
        assert shown["fake"].shape == (3, len(lesson03.TIMES), 169, 2)
        assert shown["push"].shape == (3, len(lesson03.TIMES), lesson03.N_POINTS, 2)
        assert not torch.equal(shown["points"][0], shown["points"][-1])
        entries = [entry for entry in card["results"] if entry["setting"] == name]
        assert [entry["seed"] for entry in entries] == [0, 1]  # a copy each
        for key, metric in (("distance", "wasserstein_distance"), ("modes", "modes_covered")):
            values = study.values(card, name, "plane", metric)
            assert values == pytest.approx(shown[key][-1].tolist())
    assert (seen["alone"]["snapshots"]["fake"] == 0).all()
    assert (seen["paired"]["snapshots"]["fake"] != 0).any()
    assert set(card["baseline"]) == set(MIXTURES)


def test_a_copys_run_does_not_depend_on_how_many_run_beside_it():
    """Their weights and their updates are their own: after a step of one of two copies' data, the
    other's weights have moved exactly as far as when the first one's data are others."""
    settings = asdict(BASE.method)

    def weights(shift: float):
        torch.manual_seed(0)
        net = nets.PointMLP(8, copies=2)
        learner = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=10, warmup=0,
                                ema=0.0, max_grad_norm=settings["max_grad_norm"])
        x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
        x[:10] += shift
        learner.update(net(x, torch.full((20,), 5)).sample.square().mean())
        return next(net.parameters()).detach()

    one, other = weights(0.0), weights(2.0)
    assert torch.equal(one[1], other[1]) and not torch.equal(one[0], other[0])


@pytest.mark.parametrize("start, centre, std", [
    ("one mode", (-0.6, 0.0), 0.05), ("wide", (0.0, 0.0), 1.0)])
def test_a_run_starts_where_it_is_told(start, centre, std):
    frame = next(runner.run(cheap(start=start)))
    assert frame.step == 0
    generator = frame.training.learners["generator"].net
    z = torch.randn(1000, 2)
    with torch.no_grad():
        x = generator(z, SCHEDULE.T - 1).x
    for own in x.chunk(2):  # each copy's
        assert torch.allclose(own.mean(0), torch.tensor(centre), atol=0.05 + 0.1 * std)
        assert ((0.6 * std < own.std(0)) & (own.std(0) < 1.4 * std + 0.05)).all()


def test_a_fake_score_has_its_head_start_and_keeps_its_rate(monkeypatch):
    monkeypatch.setattr(plane, "FIT_STEPS", 3)
    made = next(runner.run(cheap().changed(head_start=5))).training
    fake = made.learners["fake"]
    assert {int(state["step"]) for state in fake.optimizer.state.values()} == {5}
    assert not made.learners["generator"].optimizer.state
    assert fake.settings["n_steps"] >= 10**9  # annealed over that long: not at all


def test_push_is_the_mean_difference_of_scores():
    x, eps = torch.randn(5, 2), torch.randn(3, 1, 2)
    real, fake = (score.Exact(mixture, SCHEDULE) for mixture in (score.ring(), score.two_modes()))
    got = lesson03.push(real, fake, x, 300, eps)
    alone = lesson03.push(real, None, x, 300, eps)
    cosine = schedule.cosine()
    for i in range(5):
        x_t = cosine.noise(x[i].expand(3, 2), 300, eps[:, 0])
        s_real, s_fake = real(x_t, 300).score, fake(x_t, 300).score
        wanted = (s_real - s_fake).mean(0) * cosine.sigma[300]
        torch.testing.assert_close(got[i], wanted.float(), rtol=1e-3, atol=1e-4)
        # DMD's real score alone: towards the denoised mean, from where the sample is
        mean = (real(x_t, 300).x - x[i]).mean(0) * (cosine.alpha / cosine.sigma)[300]
        torch.testing.assert_close(alone[i], mean.float(), rtol=1e-3, atol=1e-4)


def test_the_grid_goes_row_by_row_from_the_top():
    grid = data.grid(3, 1.5)
    wanted = [[-1, 1], [0, 1], [1, 1], [-1, 0], [0, 0], [1, 0], [-1, -1], [0, -1], [1, -1]]
    torch.testing.assert_close(grid, torch.tensor(wanted).float())


# How points are scored

def test_points_are_scored_by_distance_and_modes():
    scorer = PlaneScorer(MIXTURES["two modes"])
    target = MIXTURES["two modes"].sample(N_SCORED, torch.Generator().manual_seed(3))
    found = scorer(target)["plane"]
    assert found["modes_covered"] == 2 and found["wasserstein_distance"] < 0.25
    assert found["wasserstein_distance"] == metrics.wasserstein(target, scorer.target)
    moved = scorer(target + torch.tensor([3.0, 0.0]))["plane"]
    assert moved["modes_covered"] == 0 and moved["wasserstein_distance"] > 2.5
    with pytest.raises(ValueError, match="At least 400 points are needed; got 399."):
        scorer(target[:399])


def test_a_mode_reaches_three_of_its_own_standard_deviations():
    flat = score.GaussianMixture(torch.zeros(1, 2), torch.tensor([[[0.25, 0.0], [0.0, 0.01]]]),
                                 torch.ones(1))
    for point, covered in (((1.49, 0.0), 1), ((1.51, 0.0), 0), ((0.0, 0.29), 1), ((0.0, 0.31), 0)):
        assert metrics.modes_covered(torch.tensor([point]), *flat) == covered


def test_the_wasserstein_distance_of_gaussians_approaches_its_closed_form():
    g = torch.Generator().manual_seed(0)
    x, y = 0.5 * torch.randn(500, 2, generator=g), torch.randn(500, 2, generator=g) + 2
    assert metrics.wasserstein(x, y) == pytest.approx((8 + 0.5)**0.5, rel=0.03)  # √(‖m‖² + 2 · ½²)


def test_the_baseline_is_of_independent_samples():
    found = lesson03.baseline(2)
    mixture = MIXTURES["two modes"]
    pairs = [[mixture.sample(N_SCORED, noise.generator("report", i, k)) for k in lesson03.BASELINE]
             for i in range(2)]
    assert found["two modes"] == round(sum(metrics.wasserstein(*pair) for pair in pairs) / 2, 3)
    assert all(0.02 < value < 0.4 for value in found.values())
