"""What ships is what the lessons say of it: the figures on cards, and how the students draw."""
import pytest
import torch
from diffusers import LCMScheduler, UNet2DModel

from dmdkit import data, noise, schedule, store
from dmdkit.experiments import (colour, lesson03, lesson05, lesson06, mnist, results, study,
                                tables)
from dmdkit.experiments.build import RECIPES, STUDIES, UNSHIPPED
from dmdkit.experiments.evaluate import Sampling, draw
from dmdkit.experiments.mnist import GUIDANCE, STAGES
from dmdkit.experiments.results import REAL
from dmdkit.tasks.plane import MIXTURES

EARLIER = {"teacher", "student-dmd-paired", "student-dmd", "student-dmd2-no-critic",
           "student-dmd2"}  # have rows of a selection stream that is drawn no more
SHIPPED = [name for name in RECIPES if name not in UNSHIPPED]


def figures(name: str, metric: str, space: str = "classifier", sampler: str = "ddim",
            n_steps: int = 1, guidance: float = 0.0, images: int = 5000, **more) -> list[float]:
    """A figure of an artefact by seed, of the samples that are drawn with nothing more."""
    rows = results.rows(name, store.card(name))
    found = results.select(rows, space=space, metric=metric, sampler=sampler, n_steps=n_steps,
                           guidance=guidance, images=images, **{"more": ""} | more)
    assert found, (name, metric, sampler, n_steps)
    return [row.value for row in sorted(found, key=lambda row: row.seed)]


def figure(*args, **options) -> float:
    """The one of seed 0."""
    return figures(*args, **options | {"seed": 0})[-1]


# Cards

@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_says_how_its_artefact_was_made(name):
    card = store.card(name)
    assert card["name"] == name and card["what"] == RECIPES[name].what
    assert card["wall_time_s"] > 0 and card["device"] and card["versions"]["torch"]
    for role, needed in RECIPES[name].method.requires.items():
        assert card[role] == needed and card[f"{role}_sha256"] == store.checksum(needed)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_row_of_a_card_is_whole(name):
    found = list(results.rows(name, store.card(name)))
    known = {*noise.PURPOSES, "selection, earlier"} if name in EARLIER else {*noise.PURPOSES}
    assert found and {row.noise for row in found} <= known
    assert all(row.images > 0 and row.seed >= 0 for row in found)
    assert len({row._replace(value=0.0) for row in found}) == len(found)  # nothing is there twice
    assert all(0 <= row.value <= 1 for row in found if row.metric in ("accuracy", "coverage"))


def test_everything_that_draws_has_a_table_in_the_spaces_that_it_was_scored_in():
    parts = {part.split("\n")[0]: part for part in tables.long().split("### ")}
    for name in SHIPPED:
        spaces = {row.space for row in results.rows(name, store.card(name)) if row.sampler != REAL}
        assert (name in parts) == bool(spaces), name
        if spaces:
            assert ("patches" in spaces) == ("patches of colour" in parts[name]), name
            assert ("judge" in spaces) == ("second space" in parts[name]), name
    assert "right classes" in parts["student-cifar10"]


def test_the_classifiers_know_the_digits():
    for name in ("classifier", "judge"):
        entry, = store.card(name)["results"]
        assert entry["values"]["test"]["accuracy"] > 0.99


def test_the_classifier_of_things_knows_them():
    entry, = store.card("classifier-cifar10")["results"]
    assert entry["values"]["test"]["accuracy"] > 0.8


def test_one_step_draws_what_it_was_asked_for_nine_times_where_its_teacher_does_ten():
    where = {"images": 5000, "noise": "report"}
    many, = figures("teacher-cifar10", "accuracy", n_steps=100, guidance=colour.GUIDANCE, **where)
    one = figures("student-cifar10", "accuracy", **where)
    assert len(one) == 3 and min(one) >= 0.6 and 0.9 * many < min(one) < many


def test_faces_of_one_step_are_at_most_thirteen_tenths_as_far_from_real_ones_as_the_teachers():
    for space in ("patches", "inception"):
        student, teacher = (figures(name, "frechet_distance", space, images=5000, noise="report",
                                    n_steps=n) for name, n in (("student-faces", 1),
                                                               ("teacher-faces", 100)))
        assert len(student) == 3 and len(teacher) == 2
        assert sum(student) / 3 <= 1.3 * sum(teacher) / 2, space
    counted = store.card("student-faces")["counted"]
    assert counted["of"] == 64 and counted["student"] >= 50


@torch.no_grad()
def test_the_student_of_things_draws_what_it_is_asked_for():
    student, judge = store.load("student-cifar10"), store.load("classifier-cifar10")
    label = torch.arange(10).repeat(20)
    z = torch.randn(200, 3, 32, 32, generator=noise.generator("selection", 1))
    right = judge(student.generate(z, label)).argmax(1) == label
    assert right.float().mean() > 0.6
    assert (right.view(20, 10).float().mean(0) >= 0.5).sum() >= 6


@pytest.mark.parametrize("name, sampler, n_steps", [
    ("student-dmd", "ddim", 1), ("student-dmd-paired", "ddim", 1),
    ("student-regression", "ddim", 1),
    ("student-dmd2", "multistep", 1), ("student-dmd2-4step", "multistep", 4),
    *((f"progressive-{n}", "ddim", n) for n in (1, 2, 4, 8, 16)), ("teacher", "ddim", 16)])
def test_students_are_measured_on_report_noise_with_three_seeds(name, sampler, n_steps):
    rows = [row for row in results.rows(name, store.card(name))
            if (row.sampler, row.n_steps, row.guidance, row.images) == (sampler, n_steps, 0, 5000)]
    for space, metric in (*tables.METRICS, *tables.PAPER):
        found = results.select(rows, noise="report", space=space, metric=metric)
        assert sorted(row.seed for row in found) == [1, 2, 3], (space, metric)


# Lesson 04's students

def test_one_step_against_its_teachers_400_from_the_same_noise():
    many = {"n_steps": 400, "guidance": GUIDANCE}
    student, paired, teacher = (
        figure("student-dmd", "frechet_distance"), figure("student-dmd-paired", "frechet_distance"),
        figure("teacher", "frechet_distance", **many))
    assert student <= teacher < 0.7 * paired
    student, paired, teacher = (
        figure("student-dmd", "frechet_distance", "judge"),
        figure("student-dmd-paired", "frechet_distance", "judge"),
        figure("teacher", "frechet_distance", "judge", **many))
    assert teacher < 0.75 * student and student < 0.9 * paired  # what the lesson admits
    accuracy = figure("student-dmd", "accuracy", "judge")
    assert 0.99 <= accuracy < figure("student-dmd-paired", "accuracy", "judge")
    assert figure("student-dmd", "coverage") >= 0.97 * figure("teacher", "coverage", **many)
    report = figures("student-dmd", "frechet_distance", noise="report")
    assert max(report) < figure("teacher", "frechet_distance", **many)
    assert min(figures("student-dmd", "accuracy", "judge")) > 0.985


def test_a_students_step_is_as_fast_as_the_lesson_says():
    card = store.card("student-dmd")
    assert card["speed"]["steps"] == 400
    assert min(card["speed"]["ratio"], card["speed"]["ratio_guided"]) >= 350


# Lesson 05's chain

def test_the_chain_stays_near_its_teachers_400_steps():
    """On report noise, in both spaces, with nearly as many right digits."""
    most = {"classifier": {8: 1.05, 4: 1.1, 2: 1.2, 1: 1.3},
            "judge": {8: 1.2, 4: 1.3, 2: 1.6, 1: 1.9}}
    for space, bounds in most.items():
        teacher = tables.figure("teacher", space, "frechet_distance", sampler="ddim", n_steps=400,
                                guidance=GUIDANCE)
        for n, bound in bounds.items():
            where = {"sampler": "ddim", "n_steps": n}
            found = tables.figure(f"progressive-{n}", space, "frechet_distance", **where)
            assert found <= bound * teacher, (space, n)
            right = tables.figure(f"progressive-{n}", "judge", "accuracy", **where)
            assert right >= 0.989, n


def test_the_curve_has_every_point():
    cards = {name: store.card(name) for name in ("teacher", *map(mnist.stage_name, STAGES))}
    curve = lesson05.curve(cards)
    assert all(set(curve[name]) >= set(STAGES) for name in lesson05.SAMPLERS) and curve[REAL] > 0
    assert 400 in curve["DDIM"] and 400 in curve["ancestral"]


def test_the_last_student_but_one_draws_the_digits_that_it_is_asked_for():
    """Classified by the judge, on noise that chose nothing."""
    x, label = draw(store.load("progressive-2"), Sampling("ddim", 2), 60, seed=1)
    with torch.no_grad():
        right = store.load("judge")(x).argmax(1) == label
    assert right.double().mean() >= 0.95


# Lesson 06's students

def test_the_discriminators_student_against_the_teacher():
    two = figure("student-dmd2", "frechet_distance", sampler="multistep")
    alone = figure("student-dmd2-no-critic", "frechet_distance", sampler="multistep")
    many = {"n_steps": 400, "guidance": GUIDANCE}
    assert two < figure("teacher", "frechet_distance", sampler="ddpm", **many) < alone
    assert two < 0.9 * figure("teacher", "frechet_distance", **many)
    four = {"sampler": "multistep", "n_steps": 4}
    assert figure("student-dmd2-4step", "frechet_distance", **four) < \
        figure("student-dmd2-4step-no-critic", "frechet_distance", **four)


def test_the_student_of_four_steps_draws_the_same_by_diffusers():
    """Its folder alone, with diffusers' classes: the U-Net, and LCMScheduler from the scheduler's
    config in it."""
    place, times = data.ROOT / "student-dmd2-4step", [1023, 767, 511, 255]
    net, scheduler = UNet2DModel.from_pretrained(place).float(), LCMScheduler.from_pretrained(place)
    scheduler.set_timesteps(timesteps=times, original_inference_steps=1024)
    assert scheduler.timesteps.tolist() == times
    z, label = torch.randn(2, 1, 28, 28), torch.tensor([3, 8])
    x, g = torch.nn.functional.pixel_unshuffle(z, 2), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for t in scheduler.timesteps:
            out = net(x, t, class_labels=label).sample
            x = scheduler.step(out, t, x, generator=g).prev_sample
    student, g = store.load("student-dmd2-4step"), torch.Generator().manual_seed(5)
    theirs = [torch.randn(2, 4, 14, 14, generator=g) for _ in times[1:]]  # in the network's space
    fresh = [torch.nn.functional.pixel_shuffle(one, 2) for one in theirs]
    x_t = z
    for t, after, eps in zip(times, [*times[1:], -1], [*fresh, torch.zeros_like(z)]):
        with torch.no_grad():
            x_t = schedule.cosine().noise(student(x_t, t, label).x, after, eps)
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(x, 2), x_t, rtol=1e-3, atol=1e-3)


# The studies

@pytest.mark.parametrize("lesson", STUDIES)
def test_a_studys_card_has_the_figures_of_every_run_of_every_setting(lesson):
    one = STUDIES[lesson]
    card = study.card(one)
    assert list(card["settings"]) == list(one.recipes)
    for name in one.recipes:
        entries = [entry for entry in card["results"] if entry["setting"] == name]
        runs = lesson03.COPIES if lesson == "03" else one.runs_of(name)
        assert len(entries) == runs * len(one.recipe(name).samplings), name
        assert {entry["seed"] for entry in entries} == set(range(runs)), name


@pytest.mark.parametrize("lesson", ["03", "04", "06"])
def test_what_was_seen_of_a_study_is_of_its_settings(lesson):
    one = STUDIES[lesson]
    seen = study.load(one)
    assert list(seen) == list(one.kept) and set(one.shown) <= set(seen)
    for name, run in seen.items():
        n_frames = len(run["steps"])
        assert run["steps"][0] == 0
        if name in one.recipes:
            recipe = one.recipe(name)
            assert run["steps"][-1] == recipe.n_steps * recipe.method.updates[0]
        assert set(one.kept[name] or run["snapshots"]) == set(run["snapshots"])
        for key, value in run["snapshots"].items():
            assert len(value) == n_frames, (name, key)


def test_the_figures_of_points_are_those_of_the_last_frame():
    seen, card = study.load(STUDIES["03"]), study.card(STUDIES["03"])
    for name, run in seen.items():
        shown = run["snapshots"]
        assert shown["modes"].shape == shown["distance"].shape == (len(run["steps"]), 10)
        assert study.values(card, name, "plane", "modes_covered") == shown["modes"][-1].tolist()
        distances = study.values(card, name, "plane", "wasserstein_distance")
        assert distances == pytest.approx(shown["distance"][-1].tolist(), abs=1e-3)
        assert shown["points"].isfinite().all()
    assert card["baseline"] == {name: pytest.approx(value, abs=0.08)
                                for name, value in lesson03.baseline().items()}


def test_the_three_objectives_do_what_lesson_03_says():
    """Figure 3 of the paper, as a frequency over ten runs."""
    seen, card = study.load(STUDIES["03"]), study.card(STUDIES["03"])
    names = ("real only", "real − fake", "with regression")
    modes = {name: study.values(card, f"two modes: {name}", "plane", "modes_covered")
             for name in names}
    assert set(modes["real only"]) == {1} and set(modes["with regression"]) == {2}
    spread = {name: seen[f"two modes: {name}"]["snapshots"]["points"][-1].float().std(1).mean()
              for name in names}
    assert spread["real only"] < 0.05 < spread["real − fake"]
    for mixture in MIXTURES:
        means = []
        for name in names:
            values = study.values(card, f"{mixture}: {name}", "plane", "wasserstein_distance")
            means.append(sum(values) / len(values))
        assert means == sorted(means, reverse=True)


def test_a_stale_fake_score_throws_the_points_out():
    seen = study.load(STUDIES["03"])
    furthest = {ratio: seen[f"ratio {ratio}"]["snapshots"]["distance"].max().item()
                for ratio in ("10:1", "3:1", "1:1", "1:5")}
    assert furthest["10:1"] > 1.5 > furthest["1:5"]


def test_what_lesson_06_says_of_its_runs_is_on_their_card():
    card = study.card(lesson06.STUDY)
    found = {name: study.values(card, name, "classifier", "frechet_distance")
             for name in lesson06.RECIPES}
    assert min(found["1 : 1"]) > 100 > max(found["1 : 2"]) > max(found["1 : 5"])
    assert max(found["1 : 5"]) > max(found["1 : 10"]) and max(found["1 : 10"]) < min(found["DMD"])
    assert max(found["1 : 5"]) < min(found["with critic"]) < 10 < min(found["critic alone"])
    assert max(found["4 steps"]) < min(found["4 steps, real inputs"])
    long = found["1 : 1, 2,200"], found["critic alone, 400"]
    assert found["1 : 1, 1,000"][0] < 10 < 100 < min(*long[0], *long[1])
