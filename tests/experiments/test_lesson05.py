"""The chain of progressive distillation on MNIST: its recipes, its curve, the ablation, and that it can be stopped."""
import dataclasses
import json

import pytest
import torch
from conftest import refused, stopped_in_step_six

from dmdkit import (dmd_mnist, evaluation, plots_progressive, progressive, progressive_mnist, recipes, schedule, store,
                    train)
from dmdkit.progressive_mnist import SETTINGS, STAGES, STEPS, Halving, Setting

SHIPPED = {"progressive-4", "progressive-1"} <= set(store.names())
ships = pytest.mark.skipif(not SHIPPED, reason="the chain does not ship yet")


# The recipes

def test_the_chain_halves_from_the_teachers_512_steps_to_one():
    assert list(STAGES) == [2**k for k in range(9, -1, -1)]
    before = "teacher"
    for n, n_steps in STAGES.items():
        plan = recipes.RECIPES[f"progressive-{n}"]
        assert (plan.student_steps, plan.n_steps, plan.teacher) == (n, n_steps, before)
        assert plan.guidance == (dmd_mnist.GUIDANCE if before == "teacher" else 0)  # folded in by the first stage
        before = f"progressive-{n}"


def test_the_chain_needs_no_more_evaluations_than_the_teachers_own_training():
    """A backward pass counts as two forward passes."""
    teacher = recipes.RECIPES["teacher"]
    chain = progressive.evaluations(STAGES, Halving(1).batch_size, dmd_mnist.GUIDANCE)
    assert chain["forward"] + 2 * chain["backward"] <= 3 * teacher.n_steps * teacher.batch_size


@pytest.fixture
def short_chain(monkeypatch):
    """The last two stages, from what ships, of six updates with four images each."""
    short = {2: 6, 1: 6}
    monkeypatch.setattr(recipes, "STAGES", short)
    for n in short:
        monkeypatch.setitem(recipes.RECIPES, f"progressive-{n}", Halving(n, batch_size=4))


def bytes_of(root, name: str) -> bytes:
    return (root / name / "diffusion_pytorch_model.safetensors").read_bytes()


@ships
def test_a_chain_that_was_stopped_goes_on_to_the_same_result_and_repeats_no_stage(tmp_path, monkeypatch, short_chain):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert recipes.train_chain(whole, cpu=True) == [whole / "progressive-2", whole / "progressive-1"]
    card = store.card("progressive-1", whole)
    assert card["teacher"] == "progressive-2" and card["recipe"]["n_steps"] == 6
    assert card["teacher_sha256"] == store.card("progressive-2", whole)["sha256"]
    with stopped_in_step_six(monkeypatch), pytest.raises(KeyboardInterrupt):
        recipes.train_chain(cut, cpu=True)
    assert store.names(cut) == []
    recipes.train_chain(cut, resume=True, cpu=True)
    for name in ("progressive-2", "progressive-1"):
        assert bytes_of(cut, name) == bytes_of(whole, name)
    monkeypatch.setattr(recipes, "train_artefact", lambda *words: pytest.fail(f"it trained {words[0]} again"))
    assert len(recipes.train_chain(cut, resume=True, cpu=True)) == 2


@ships
def test_a_stage_of_another_teacher_is_not_resumed(tmp_path, short_chain):
    recipes.train_chain(tmp_path, cpu=True)
    card = store.card("progressive-2", tmp_path)
    store.save(store.load("progressive-4"), tmp_path / "progressive-2", card)
    with refused(RuntimeError, "started from another progressive-2 than the one that is there now"):
        recipes.train_artefact("progressive-1", tmp_path, resume=True, cpu=True)


@ships
def test_a_chain_of_fewer_updates_says_so_on_its_cards(tmp_path, short_chain):
    recipes.train_chain(tmp_path, cpu=True, share=0.5)
    assert progressive_mnist.cheaper_chain(tmp_path)["1"]["n_steps"] == 3


@ships
def test_a_stages_time_is_that_of_its_evaluations(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "progressive-1", Halving(1, batch_size=4))
    found = recipes.benchmark("progressive-1", n=2, cpu=True)
    assert found["step_s"] > 0 and found["memory_mb"]["weights"] == pytest.approx(2 * 707716 * 4 / 2**20, abs=0.1)


@ships
@pytest.mark.parametrize("n", [n for n in STAGES if n <= 8])
def test_a_shipped_student_draws_the_digits_that_it_is_asked_for(n):
    x, label = evaluation.draw(store.load(f"progressive-{n}"), evaluation.Sampling("ddim", n), 200, seed=1)
    with torch.no_grad():
        right = store.load("judge")(x).argmax(1) == label
    assert right.double().mean() >= 0.97


# The curve

def card_of(root, name: str, metrics: dict) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "card.json").write_text(json.dumps({"metrics": metrics}))


@ships
def test_the_shipped_chain_stays_near_its_teachers_400_steps_and_its_curve_has_every_point():
    of = lambda name, how: store.card(name)["metrics"][how]["frechet_distance"]
    teacher = of("teacher", "ddim-400-w0.25")
    for n, most in {8: 1.0, 4: 1.1, 2: 1.5, 1: 2.5}.items():
        assert of(f"progressive-{n}", f"ddim-{n}-w0") <= most * teacher
    curves = progressive_mnist.curve()
    assert all(set(curves[name]) >= set(STEPS) for name in progressive_mnist.CURVES)


def test_the_curve_is_read_from_the_cards_for_one_count_of_images(tmp_path):
    distance = lambda value: {"frechet_distance": value, "accuracy": 0.5}
    card_of(tmp_path, "teacher", {"floor": distance(1.0), "floor-20-images": distance(2.0),
                                  "ddim-4-w0.25-20-images": distance(7.0), "ddim-4-w0.25": distance(3.0),
                                  "ddpm-2-w0.25-20-images": distance(9.0),
                                  "ddpm-400-w0.25-20-images": distance(8.0), "ddim-4-w0-20-images": distance(5.0)})
    card_of(tmp_path, "progressive-4", {"ddim-4-w0-20-images": distance(6.0)})
    found = progressive_mnist.curve(n=20, root=tmp_path)
    assert found == {"distilled": {4: 6.0}, "DDIM": {4: 7.0}, "ancestral": {2: 9.0, 400: 8.0}, "real images": 2.0}
    assert progressive_mnist.curve("accuracy", evaluation.N_IMAGES, tmp_path)["DDIM"] == {4: 0.5}


@ships
def test_measuring_the_curve_goes_through_every_point_and_begins_with_the_cheap_ones(monkeypatch):
    asked = []
    monkeypatch.setattr(recipes, "evaluate", lambda name, root, how, *rest: asked.append((name, how[0])) or [])
    assert list(recipes.measure_curve()) == []
    assert len(asked) == len(set(asked)) == 3 * len(STAGES)
    assert [how.n_steps for _, how in asked] == sorted(how.n_steps for _, how in asked)
    assert all((name == f"progressive-{how.n_steps}") == (how.guidance == 0) for name, how in asked)


# The ablation

def test_every_output_is_trained_with_every_weighting():
    assert len(SETTINGS) == 12 == len({(one.prediction, one.weighting) for one in SETTINGS.values()})
    for name, setting in SETTINGS.items():
        assert name == f"{setting.prediction}, {setting.weighting}"
        assert dataclasses.replace(setting, prediction="v", weighting="snr") == Setting("v", "snr")


def test_the_clipped_schedule_is_the_cosine_but_for_a_trace_of_data_at_the_end():
    base, found = schedule.cosine(), progressive_mnist.clipped()
    assert found.snr().log()[-1].item() == pytest.approx(-20) and found.snr().log().min() == found.snr().log()[-1]
    torch.testing.assert_close(found.alpha**2 + found.sigma**2, torch.ones(1024, dtype=torch.float64))
    assert torch.equal(found.alpha[:-1], base.alpha[:-1])


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_trains_the_network_that_it_names(setting, test_images):
    net, losses = progressive_mnist.run(dataclasses.replace(setting, n_steps=2, batch_size=4), images=test_images)
    assert net.prediction == setting.prediction and len(losses) == 2
    with torch.no_grad():
        assert net(torch.randn(2, 1, 28, 28), 500, torch.tensor([1, 2])).x.isfinite().all()


def test_the_loss_is_the_weighted_error_of_x(test_images, tiny):
    """"snr+1" is the teacher's own loss, as its network predicts v; "snr" is not."""
    found = []
    for loss in (train.denoising_loss, progressive_mnist.weighted("snr+1"), progressive_mnist.weighted("snr")):
        learner = train.Learner(tiny.copy(), train.accelerator(cpu=True), lr=1e-3, n_steps=10)
        step = train.denoiser_step(learner, test_images, 8, label_dropout=0.0, loss=loss)
        found.append(step(torch.Generator().manual_seed(3))["loss"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-3) and found[2] < 0.9 * found[0]


def test_a_run_that_diverges_keeps_what_it_has(monkeypatch, test_images):
    def step(learner, images, batch_size, **options):
        losses = iter((1.0, float("inf")))
        return lambda g: {"loss": torch.tensor(next(losses))}

    monkeypatch.setattr(train, "denoiser_step", step)
    assert progressive_mnist.run(Setting("eps", "truncated", n_steps=4), images=test_images)[1] == [1.0]


def test_the_ablation_is_stored_with_its_card_and_goes_on_where_it_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progressive_mnist, "SETTINGS", {"v, snr": Setting("v", "snr", n_steps=1, batch_size=4)})
    monkeypatch.setattr(progressive_mnist, "N_IMAGES", 20)
    monkeypatch.setattr(progressive_mnist, "SAMPLINGS", (evaluation.Sampling("ddim", 1),))
    score = lambda x, label: {"images": len(x), "frechet_distance": x.mean().item()}
    monkeypatch.setattr(evaluation, "scorer", lambda: score)
    monkeypatch.setattr(evaluation, "floor", lambda score, n: {"frechet_distance": 0.1})
    path = progressive_mnist.build(tmp_path / "data", seeds=2, cheaper=None)
    card = progressive_mnist.card(tmp_path / "data")
    assert path.exists() and card["images"] == 20 and card["cheaper"] == {}
    assert len(card["figures"]["v, snr"]["ddim"]["frechet_distance"]) == 2
    monkeypatch.setattr(progressive_mnist, "measure", lambda *words: pytest.fail("it ran again"))
    progressive_mnist.build(tmp_path / "data", seeds=2, cheaper=None)
    assert progressive_mnist.card(tmp_path / "data") == card


def test_missing_figures_are_one_sentence(tmp_path):
    with refused(RuntimeError, "runs.json is missing. Restore it with `git checkout runs.json`, or compute it again"):
        progressive_mnist.card(tmp_path)


# Pictures

def test_the_curves_are_drawn_whatever_is_there():
    lines = {"distilled": {1: 5.0, 2: 3.0}, "DDIM": {2: 9.0}, "ancestral": {}, "real images": 1.5}
    axes = plots_progressive.draw_step_curves(lines, highlight=2).axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == set(lines)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]
    assert [5.0, 3.0] in [list(line.get_ydata()) for line in axes.lines]


def test_the_weights_are_drawn_in_three_spaces():
    cosine = schedule.cosine()
    figure = plots_progressive.draw_weights(cosine, {"snr+1": progressive.weight(cosine.alpha, cosine.sigma, "snr+1")})
    in_v = figure.axes[2].lines[0].get_ydata()
    assert len(figure.axes) == 3 and in_v == pytest.approx(1.0)  # SNR + 1 is no weight on v


def test_a_stage_is_drawn_from_its_first_look_to_its_last():
    looks = {i: torch.full((20, 28, 28), i, dtype=torch.uint8) for i in (0, 3)}
    figure = plots_progressive.draw_stage([0.2, 0.1, 0.1], looks, 10, looks[0], "a title")
    assert figure.get_suptitle() == "a title"
    assert [axes.get_title() for axes in figure.axes[1:]] == ["before: update 0", "now: update 3",
                                                              "the teacher, in twice the steps"]
