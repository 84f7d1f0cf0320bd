"""Progressive distillation on MNIST: the chain's recipes, its curve, and the study of outputs and
weightings."""
from pathlib import Path

import pytest
import torch
from conftest import refused
from toys import DIGITS, DOTS, TEACHER, bytes_of, outcome, prepared, trained

from dmdkit import schedule, store, train
from dmdkit.experiments import lesson05, mnist, runner
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.lesson05 import STUDY
from dmdkit.experiments.mnist import GUIDANCE, STAGES, stage_name
from dmdkit.experiments.recipe import Recipe
from dmdkit.experiments.results import REAL
from dmdkit.methods import ddpm, progressive


# The chain

def test_the_chain_halves_from_the_teachers_512_steps_to_one():
    assert list(STAGES) == [2**k for k in range(9, -1, -1)]
    progressive.check_stages(schedule.cosine(), list(STAGES))
    before = "teacher"
    for n, n_updates in STAGES.items():
        recipe = mnist.RECIPES[f"progressive-{n}"]
        assert recipe == mnist.CHAIN.recipe(n) and recipe.n_steps == n_updates
        assert (recipe.method.student_steps, recipe.method.teacher) == (n, before)
        folded = GUIDANCE if before == "teacher" else 0  # by the first stage
        assert recipe.method.guidance == folded
        assert recipe.samplings == (Sampling("ddim", n),)
        before = stage_name(n)
        assert before == f"progressive-{n}"


def test_what_the_chain_costs_is_what_the_lesson_says():
    """A backward pass counts as two forward passes."""
    teacher, n = mnist.RECIPES["teacher"], mnist.RECIPES["progressive-1"].batch_size
    last = {steps: updates for steps, updates in STAGES.items() if steps <= 8}
    whole, late = (cost["forward"] + 2 * cost["backward"] for cost in (
        progressive.evaluations(STAGES, n, GUIDANCE), progressive.evaluations(last, n)))
    assert 3.5 < whole / (3 * teacher.n_steps * teacher.batch_size) < 3.7
    assert 0.7 < late / whole < 0.8


def halving(n_steps: int, teacher: str) -> Recipe:
    return Recipe("A stage of dots.", DOTS, progressive.Settings(n_steps, teacher, warmup=0), 4, 4,
                  samplings=(Sampling("ddim", n_steps),))


CHAIN = {"dots-2": halving(2, "dots-teacher"), "dots-1": halving(1, "dots-2")}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder with the teacher of dots."""
    monkeypatch.chdir(tmp_path)
    runner.train_artefact("dots-teacher", TEACHER, tmp_path, cpu=True)
    return tmp_path


def run_chain(out: Path, resume: str = "", stop: str = "", roots=()) -> None:
    """Train the stages that are not there yet. stop: the stage that a Ctrl-C ends after a step."""
    honest = train.train

    def interrupted(*args, **options):
        for record in honest(*args, **options):
            yield record
            if record.step == 2:
                raise KeyboardInterrupt

    for name, recipe in CHAIN.items():
        if name in store.names(out):
            continue
        with pytest.MonkeyPatch.context() as patch:
            if name == stop:
                patch.setattr(train, "train", interrupted)
            runner.train_artefact(name, recipe, out, cpu=True, resume=name == resume, roots=roots)


def test_a_chain_that_was_stopped_goes_on_to_the_same_result(root):
    whole, cut = root / "whole", root / "cut"
    for out in (whole, cut):
        runner.train_artefact("dots-teacher", TEACHER, out, cpu=True)
    run_chain(whole)
    card = store.card("dots-1", whole)
    assert card["teacher"] == "dots-2" and card["recipe"]["student_steps"] == 1
    assert card["teacher_sha256"] == store.checksum("dots-2", whole)
    with pytest.raises(KeyboardInterrupt):
        run_chain(cut, stop="dots-1")
    assert "dots-1" not in store.names(cut)
    run_chain(cut, resume="dots-1")
    for name in CHAIN:
        assert bytes_of(cut, name) == bytes_of(whole, name)


def test_a_chain_never_mixes_teachers(root):
    """After a stage was replaced, the next one is neither resumed nor taken for its student."""
    with pytest.raises(KeyboardInterrupt):
        run_chain(root, stop="dots-1")
    other = CHAIN["dots-2"].changed(seed=7)
    runner.train_artefact("dots-2", other, root, cpu=True, overwrite=True)
    with refused(RuntimeError, "had another teacher_sha256"):
        run_chain(root, resume="dots-1")
    card = store.card("dots-2", root)
    assert card["teacher_sha256"] == store.checksum("dots-teacher", trained())


def test_a_stage_learns_from_the_stage_before_it():
    made = prepared(mnist.RECIPES["progressive-4"].changed(task=DIGITS))
    assert made.step.times.shape == (4, 3) and made.step.times[0].tolist() == [1023, 895, 767]
    first = prepared(mnist.RECIPES["progressive-512"].changed(task=DIGITS))
    assert first.step.teacher.keywords == {"guidance": GUIDANCE}


# The curve

def entry(value: float, sampler: str, n_steps: int, guidance: float, images: int = 20,
          **more) -> dict:
    how = {"sampler": sampler, "n_steps": n_steps, "guidance": guidance} | more
    how = {"sampler": REAL} if sampler == REAL else how
    return {"sampling": how, "noise": "report", "seed": 1, "images": images,
            "values": {"classifier": {"frechet_distance": value}, "judge": {"accuracy": 0.5}}}


CARDS = {
    "teacher": {"results": [
        entry(1.0, REAL, 0, 0, 5000), entry(2.0, REAL, 0, 0), entry(7.0, "ddim", 4, GUIDANCE),
        entry(3.0, "ddim", 4, GUIDANCE, 5000), entry(9.0, "ddpm", 2, GUIDANCE),
        entry(8.0, "ddpm", 400, GUIDANCE), entry(5.0, "ddim", 4, 0.0),
        entry(6.5, "ddim", 4, GUIDANCE, more="clamped")]},
    "progressive-4": {"results": [entry(6.0, "ddim", 4, 0.0)]}}


def test_the_curve_is_read_from_the_cards_for_one_count_of_images():
    found = lesson05.curve(CARDS, n=20)
    assert found == {"distilled": {4: 6.0}, "DDIM": {4: 7.0}, "ancestral": {2: 9.0, 400: 8.0},
                     REAL: 2.0}
    found = lesson05.curve(CARDS, "judge", "accuracy", n=5000)
    assert found == {"distilled": {}, "DDIM": {4: 0.5}, "ancestral": {}, REAL: 0.5}


def test_a_point_of_the_curve_is_drawn_as_its_artefact_is_measured():
    for n in STAGES:
        name, how = lesson05.point("distilled", n)
        assert name == f"progressive-{n}" and how in mnist.RECIPES[name].samplings
    assert lesson05.point("DDIM", 400) == ("teacher", Sampling("ddim", 400, GUIDANCE))
    assert lesson05.point("ancestral", 8) == ("teacher", Sampling("ddpm", 8, GUIDANCE))


# The study

def test_every_output_is_trained_with_every_weighting():
    assert len(STUDY.recipes) == 12
    base = STUDY.recipe("v, snr").settings
    for name, recipe in STUDY.recipes.items():
        output, weighting = name.split(", ")
        found = {key: value for key, value in recipe.settings.items() if value != base[key]}
        wanted = {"network": f"small, {output}", "weighting": weighting}
        assert found == {key: value for key, value in wanted.items() if value != base[key]}
        assert recipe.method.label_dropout == 0.0


@pytest.mark.parametrize("output", lesson05.OUTPUTS)
def test_a_setting_trains_the_network_and_the_loss_that_it_names(output):
    found = []
    for weighting in ddpm.WEIGHTINGS:
        recipe = STUDY.recipe(f"{output}, {weighting}").changed(task=DIGITS, batch_size=4)
        made = prepared(recipe)
        net = made.learners["net"].net
        assert net.prediction == output and made.step.weighting == weighting
        assert net.schedule.snr().log()[-1].item() == pytest.approx(-20)
        with torch.no_grad():
            x = net(torch.randn(2, 1, 28, 28), 500, torch.tensor([1, 2])).x
        assert x.isfinite().all() and x.shape == (2, 1, 28, 28)
        found.append(outcome(recipe.changed(warmup=0)))
    assert found[0] != found[1] != found[2] != found[0]


def test_the_clipped_schedule_is_the_cosine_but_for_a_trace_of_data_at_the_end():
    base, found = schedule.cosine(), mnist.MNIST.network("small, eps").schedule
    assert found.snr().log().min() == found.snr().log()[-1]
    assert found.snr().log()[-1].item() == pytest.approx(-20)
    torch.testing.assert_close(found.alpha**2 + found.sigma**2,
                               torch.ones(1024, dtype=torch.float64))
    assert torch.equal(found.alpha[:-1], base.alpha[:-1])


def test_of_a_network_that_predicts_v_one_weighting_is_its_own_loss():
    """"snr+1" is the teacher's loss; "snr" is not."""
    losses = {}
    for weighting in ("", "snr+1", "snr"):
        recipe = STUDY.recipe("v, snr").changed(task=DIGITS, weighting=weighting, batch_size=8)
        step = prepared(recipe).step
        losses[weighting] = step(torch.Generator().manual_seed(3))["loss"].item()
    assert losses["snr+1"] == pytest.approx(losses[""], rel=1e-3)
    assert losses["snr"] < 0.9 * losses[""]
