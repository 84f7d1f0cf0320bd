"""DMD on MNIST: what a setting means, what is looked at, and that a distillation by recipe can be stopped."""
import dataclasses
import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from conftest import refused, stopped_in_step_six, tiny_denoiser
from torch import nn

from dmdkit import data, dmd_mnist, evaluation, files, pairs, perceptual, recipes, schedule, store, train
from dmdkit.dmd_mnist import SETTINGS, Setting

TINY = Setting(guidance=0.5, n_pairs=8, regression_weight=0.75, batch_size=4, n_steps=2, distance="squared", lr=1e-3,
               fake_lr=1e-3, updates=(1, 2))


@pytest.fixture
def given(test_images) -> pairs.Pairs:
    """Eight pairs: noise, and a digit that it did not make."""
    z = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return pairs.Pairs(z, data.scale(test_images.pixels[:8]), test_images.labels[:8])


@pytest.fixture
def at_hand(monkeypatch, tiny, given):
    """The tiny teacher and those pairs in place of what ships, wherever they are asked for."""
    monkeypatch.setattr(dmd_mnist, "load_artefact", lambda name, device="cpu": tiny)
    monkeypatch.setattr(dmd_mnist, "find_pairs", lambda teacher, setting: given)


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def equal(a, b) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


# The settings

BESIDES = {  # by name, what a setting has otherwise than "DMD"
    "DMD": {}, "no matching": {"matching": False}, "no regression": {"n_pairs": 0},
    "real score only": {"fake": False, "n_pairs": 0}, "frozen fake score": {"updates": (1, 0)},
    "no weighting": {"weighting": "none"},
    "weaker teacher": {"teacher": "teacher-weak"}}


def test_each_setting_differs_from_dmd_in_what_its_name_says_and_in_nothing_else():
    full = dataclasses.asdict(SETTINGS["DMD"])
    assert full["matching"] and full["fake"] and full["n_pairs"]
    by = {f"regression by {kind}": {"distance": kind} for kind in perceptual.KINDS}
    found = {name: {key: value for key, value in dataclasses.asdict(setting).items() if value != full[key]}
             for name, setting in SETTINGS.items()}
    assert found["regression by lpips-squeeze"].pop("regression_weight") == 1.0  # pulls as hard as the others
    assert found == BESIDES | {name: wanted for name, wanted in by.items() if name in found}
    assert {"regression by squared", "regression by lpips-alex"} <= set(found) and full["distance"] in perceptual.KINDS


def test_the_ablations_and_the_students_share_the_method():
    """What an ablation shows is said of the students: they differ in budget, rates and updates of the fake score."""
    students = {name: dataclasses.asdict(recipes.RECIPES[name].setting)
                for name in ("student-dmd-paired", "student-dmd", "student-regression")}
    paired, alone, regression = students.values()
    differs = lambda one, other: {key for key, value in one.items() if value != other[key]}
    assert differs(dataclasses.asdict(SETTINGS["DMD"]), paired) == {
        "n_pairs", "ema", "n_steps", "regression_weight", "updates", "lr", "fake_lr"}
    assert differs(paired, alone) == {"start", "n_pairs", "t_range", "lr", "ema", "n_steps", "share"}
    assert alone["start"] == "student-dmd-paired"
    assert differs(paired, regression) == {"matching", "updates", "lr", "fake_lr", "ema", "batch_size", "n_steps"}
    assert paired["updates"] == (1, 5)  # as DMD2's
    for name, setting in students.items():  # what ships was so trained
        assert store.card(name)["recipe"] == json.loads(json.dumps(setting))


def test_a_student_may_start_from_another_artefact(tiny):
    setting = dataclasses.replace(TINY, n_pairs=0, start="student-dmd")
    assert TINY.origin() == {key: value for key, value in setting.origin().items() if "start" not in key}
    assert setting.origin()["start"] == "student-dmd"
    assert setting.origin()["start_sha256"] == store.card("student-dmd")["sha256"]
    made = setting.prepare(Accelerator(cpu=True), tiny)
    generator, fake = (made.learners[name].net.state_dict() for name in ("generator", "fake"))
    assert all(torch.equal(generator[name], weight) for name, weight in store.load("student-dmd").state_dict().items())
    assert all(torch.equal(fake[name], weight) for name, weight in tiny.state_dict().items())


def test_what_lesson_04_says_of_its_students_is_on_their_cards():
    """One step against its teacher's 400, each 5,000 images from the same noise; and what the training costs."""
    of = lambda name, how="ddim-1-w0": store.card(name)["metrics"][how]
    student, paired, many = of("student-dmd"), of("student-dmd-paired"), of("teacher", "ddim-400-w0.25")
    assert student["images"] == paired["images"] == many["images"] == 5000
    assert student["frechet_distance"] <= many["frechet_distance"] < 0.7 * paired["frechet_distance"]
    assert many["frechet_distance_judge"] < 0.75 * student["frechet_distance_judge"]  # what the lesson admits
    assert student["frechet_distance_judge"] < 0.9 * paired["frechet_distance_judge"]
    assert 0.99 <= student["accuracy"] < paired["accuracy"] and student["coverage"] >= 0.97 * many["coverage"]
    others = [of("student-dmd", f"ddim-1-w0-seed{seed}") for seed in (1, 2, 3)]
    assert all(one["frechet_distance"] < student["frechet_distance"] and one["accuracy"] > 0.985 for one in others)
    card = store.card("student-dmd")
    assert card["speed"]["steps"] == 400 and min(card["speed"]["ratio"], card["speed"]["ratio_guided"]) >= 350
    assert card["throughput"]["step_over_network"] <= 1.15


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_what_is_kept_is_drawn_back_towards_the_start(share, tiny, given):
    made = dataclasses.replace(TINY, share=share).prepare(Accelerator(cpu=True), tiny, given)
    generator, begun = made.learners["generator"], weights(tiny)
    for seed in range(3):
        made.step(torch.Generator().manual_seed(seed))
    trained, average = weights(generator.net), [p.clone() for p in generator.ema.shadow_params]
    kept = made.finish()
    assert kept is generator.net and not kept.training and equal(weights(tiny), begun)
    for found, start, end in zip(weights(kept), begun, average):
        torch.testing.assert_close(found, share * end + (1 - share) * start)
    assert not equal(average, begun)
    generator.restore()  # and the training can go on from where it was
    assert equal(weights(generator.net), trained)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_before_anything_is_loaded(share):
    with refused(ValueError, f"must be above 0 and at most 1; got {share}"):
        dataclasses.replace(TINY, share=share, teacher="nobody").prepare(Accelerator(cpu=True))


def test_an_unknown_setting_is_named():
    assert dmd_mnist.setting_of("no matching") is SETTINGS["no matching"]
    with refused(ValueError, "There is no setting 'DMD3'; there are DMD, no matching, no regression, "):
        dmd_mnist.setting_of("DMD3")
    with refused(ValueError, "There is no setting 'DMD3'"):
        dmd_mnist.build(["DMD3"])


# What is looked at

def judge_of(digits) -> nn.Module:
    """A judge that calls the i-th sample digits[i]."""
    one = nn.Identity()
    one.forward = lambda x: torch.eye(10)[digits[:len(x)]]
    return one


def test_a_look_is_what_the_networks_say_of_always_the_same_noise():
    generator, fake, teacher = (tiny_denoiser(seed) for seed in (1, 2, 3))
    real = lambda x, t, label: teacher(x, t, label, guidance=2.0)
    digits = torch.tensor([0, 3, 3, 9] * 5)
    found = dmd_mnist.look(generator, fake, real, judge_of(digits), n=20, seed=7)
    g = torch.Generator().manual_seed(7)
    z, eps = (torch.randn(n, 1, 28, 28, generator=g) for n in (20, 4))
    label = torch.arange(20) % 10
    with torch.no_grad():
        x = generator(z, 1023, label).x.clamp(-1, 1)
        x_t = schedule.cosine().noise(x[:4], 512, eps)
        pictures = {"samples": x, "noised": x_t, "real": teacher(x_t, 512, label[:4], 2.0).x,
                    "fake": fake(x_t, 512, label[:4]).x}
    for name, wanted in pictures.items():
        got = getattr(found, name)
        assert got.dtype == torch.uint8 and got.shape == (len(wanted), 28, 28), name
        off = (got.float() / 127.5 - 1 - wanted.squeeze(1).clamp(-1, 1)).abs().max()
        assert off <= 1 / 255 + 1e-4 and got.float().std() > 1, name
    torch.testing.assert_close(found.brightness, torch.stack([image.mean() for image in x]))
    assert found.classes.tolist() == [5, 0, 0, 10, 0, 0, 0, 0, 0, 5] and found.classes.dtype == torch.int64
    alone = dmd_mnist.look(generator, None, real, judge_of(digits), n=20, seed=7)
    assert torch.equal(alone.fake, alone.samples[:4]) and torch.equal(alone.real, found.real)


def test_a_look_leaves_everything_as_it_was_and_sees_what_changed():
    generator, fake = tiny_denoiser(1), tiny_denoiser(2)
    look = lambda: dmd_mnist.look(generator, fake, fake, judge_of(torch.zeros(200, dtype=torch.int64)))
    for training in (True, False):
        generator.train(training)
        before, random = weights(generator), torch.get_rng_state()
        first = look()
        assert generator.training is training and generator.net.training is training
        assert equal(weights(generator), before) and torch.equal(torch.get_rng_state(), random)
        assert all(p.grad is None for p in generator.parameters()) and equal(first, look())
        assert first.samples.shape == (20, 28, 28) and first.brightness.shape == (200,) and first.classes.sum() == 200
    with torch.no_grad():
        for p in generator.parameters():
            p.mul_(1.5)
    assert not torch.equal(look().samples, first.samples)


# Setting up

def test_generator_and_fake_score_start_as_copies_of_the_teacher_that_are_their_own(tiny, given):
    made = TINY.prepare(Accelerator(cpu=True), tiny, given)
    assert list(made.learners) == ["generator", "fake"]
    places = {p.data_ptr() for p in tiny.parameters()}
    z, label = torch.randn(2, 1, 28, 28), torch.tensor([3, 8])
    for learner in made.learners.values():
        net = learner.net
        assert equal(weights(net), weights(tiny)) and not places & {p.data_ptr() for p in net.parameters()}
        places |= {p.data_ptr() for p in net.parameters()}
        assert (net.prediction, net.patch, net.n_classes, net.schedule.T) == ("v", 4, 10, 1024)
        with torch.no_grad():
            torch.testing.assert_close(net(z, 700, label).x, tiny(z, 700, label).x)
    with torch.no_grad():
        assert made.frozen == (tiny,)
    assert made.learners["generator"].ema is not None and made.learners["fake"].ema is None


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_trains_what_its_name_says(name, tiny, given, monkeypatch):
    """One step of each: who has a learner, who moves, what is reported; the teacher never changes."""
    monkeypatch.setattr(dmd_mnist.perceptual, "distance", lambda kind, device: asked.append(kind) or squared)
    squared, asked = dmd_mnist.dmd.squared_distance, []
    setting = dataclasses.replace(SETTINGS[name], batch_size=2, n_steps=1)
    before = weights(tiny)
    states = [{role: weights(learner.net) for role, learner in made.learners.items()}
              for _, made, _ in dmd_mnist.run(setting, teacher=tiny, given=given)]
    made = setting.prepare(Accelerator(cpu=True), tiny, given)
    values = set(made.step(torch.Generator().manual_seed(0)))
    has_fake = name not in ("no matching", "real score only")
    assert set(made.learners) == ({"generator", "fake"} if has_fake else {"generator"})
    assert not equal(states[0]["generator"], states[1]["generator"])
    assert not has_fake or equal(states[0]["fake"], states[1]["fake"]) is (name == "frozen fake score")
    terms = [term for term in ("matching", "regression") if name != f"no {term}"]
    terms = [term for term in terms if (name, term) != ("real score only", "regression")]
    own = {"fake"} if has_fake and name != "frozen fake score" else set()
    assert values == own | {f"{term}{end}" for term in terms for end in ("", " gradient")}
    assert asked == [setting.distance] * 2 * bool(setting.n_pairs)
    assert equal(weights(tiny), before) and all(p.grad is None for p in tiny.parameters())


def test_the_fake_score_learns_for_as_many_updates_as_it_gets(tiny, given):
    """Its learning rate reaches 0 when its own last update is made, not when the generator's is."""
    for updates in ((1, 1), (1, 2), (1, 3)):
        setting = dataclasses.replace(TINY, updates=updates, n_steps=4)
        *_, (_, made, _) = dmd_mnist.run(setting, teacher=tiny, given=given)
        for learner in made.learners.values():
            assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
        made_updates = {int(state["step"]) for state in made.learners["fake"].optimizer.state.values()}
        assert made_updates == {4 * updates[1]}


def test_pairs_are_those_that_ship_while_they_are_enough(monkeypatch, tmp_path, tiny):
    asked = []
    monkeypatch.setattr(dmd_mnist.pairs, "make_pairs", lambda teacher, n, folder, **options: asked.append(
        (teacher, n, folder, options)) or "made")
    monkeypatch.setattr(dmd_mnist.pairs, "load_pairs", lambda folder, n, teacher: (folder, n, teacher))
    assert dmd_mnist.find_pairs(tiny, Setting(n_pairs=1280)) == (data.ROOT / "pairs", 1280, tiny)
    assert dmd_mnist.find_pairs(tiny, Setting(n_pairs=1281)) == "made"
    (teacher, n, folder, options), = asked
    assert teacher is tiny and n == 1281 and data.ROOT not in folder.parents
    card = pairs.pairs_card(data.ROOT / "pairs")  # both are of one kind
    assert {key: card[key] for key in ("solver", "n_steps", "guidance", "teacher", "teacher_sha256")} == {
        **{key: value for key, value in options.items() if key != "about"}, **options["about"]}
    assert card["guidance"] == Setting().guidance


# Running

def test_a_run_yields_at_its_milestones_and_repeats_itself_with_its_seed_alone(tiny, given):
    def end(seed: int):
        torch.rand(3)  # what happened before does not matter
        steps = []
        for step, made, values in dmd_mnist.run(TINY, seed, n_frames=3, teacher=tiny, given=given):
            steps.append((step, {len(value) for value in values.values()}))
        return steps, values, [p for learner in made.learners.values() for p in weights(learner.net)]

    (steps, values, first), (_, same, again), (_, others, other) = end(1), end(1), end(2)
    assert steps == [(0, set()), (1, {1}), (2, {2})]
    assert set(values) == {"matching", "matching gradient", "regression", "regression gradient", "fake"}
    assert equal(first, again) and values == same and not equal(first, other) and values != others


def test_a_measurement_is_what_was_seen_and_what_the_average_scores_and_can_be_stored(at_hand, tiny, given, tmp_path):
    scored = []

    def score(images, labels):
        scored.append((images, labels))
        return {"images": len(images), "frechet_distance": 2.5, "accuracy": 0.5}

    found = dmd_mnist.measure(TINY, score, seed=3, n_images=20)
    files.save_state(tmp_path / "one.safetensors", found)
    stored = files.load_state(tmp_path / "one.safetensors")
    assert stored["scores"] == {"images": 20, "frechet_distance": 2.5, "accuracy": 0.5}
    assert stored["steps"].tolist() == [0, 1, 2] and list(stored["looks"]) == list(dmd_mnist.Look._fields)
    shapes = {name: tuple(value.shape) for name, value in stored["looks"].items()}
    assert shapes == {"samples": (3, 20, 28, 28), "brightness": (3, 200), "classes": (3, 10), "noised": (3, 4, 28, 28),
                      "real": (3, 4, 28, 28), "fake": (3, 4, 28, 28), "critic": (3, 2, 0)}
    assert equal([found["looks"][name] for name in shapes], [stored["looks"][name] for name in shapes])
    assert not torch.equal(stored["looks"]["samples"][0], stored["looks"]["samples"][2])

    *_, (_, made, _) = dmd_mnist.run(TINY, 3, teacher=tiny, given=given)
    images, labels = evaluation.draw(made.learners["generator"].averaged(), evaluation.Sampling("ddim", 1), 20)
    assert torch.equal(scored[0][0], images) and torch.equal(scored[0][1], labels)
    z = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(images, made.learners["generator"].net.generate(z, labels))


def test_the_ablations_are_stored_with_every_seeds_figures_and_not_run_again(at_hand, monkeypatch, tmp_path):
    monkeypatch.setattr(dmd_mnist, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(evaluation, "scorer", lambda: None)
    monkeypatch.setattr(evaluation, "floor", lambda score, n: {"frechet_distance": 1.0})
    seen = []

    def measured(setting, score, seed):
        seen.append(seed)
        looks = {name: torch.full((2, 3), float(seed)) for name in dmd_mnist.Look._fields}
        return {"steps": torch.tensor([0, 9]), "scores": {"images": 5, "accuracy": seed / 3}, "looks": looks}

    monkeypatch.setattr(dmd_mnist, "measure", measured)
    work = tmp_path / "student-dmd.training"
    for step in (0, 2):
        look = dmd_mnist.Look(*[torch.tensor([step])] * 7)
        files.save_state(work / f"look-{step:06d}.safetensors", look._asdict())
    (work / "log.jsonl").write_text('{"step": 1, "fake": 0.5}\n{"step": 2, "fake": 0.25}\n')
    names = ["DMD", "no matching"]
    dmd_mnist.build(names, tmp_path, seeds=3)
    path = dmd_mnist.store_students([work], tmp_path)
    made, card = dmd_mnist.load(tmp_path), dmd_mnist.card(tmp_path)
    assert list(made) == [*names, "student-dmd"] and card["sha256"] == files.sha256(path)
    assert made["DMD"]["brightness"].tolist() == [[0, 0], [1, 1], [2, 2]]  # every seed's; pictures are the first one's
    assert all((value == 0).all() for value in made["DMD"]["looks"].values())
    student = made["student-dmd"]
    assert student["steps"].tolist() == student["looks"]["samples"].flatten().tolist() == [0, 2]
    assert student["log"]["fake"].tolist() == [0.5, 0.25] and "students" not in card
    assert card["figures"]["no matching"]["accuracy"] == [0, 0.3333, 0.6667]
    assert card["figures"]["no matching"]["setting"]["matching"] is False
    cards = {"own": {"teacher": "own-teacher", "metrics": 1}, "own-teacher": {"metrics": 2}, "teacher": {}, "other": {}}
    for name, written in cards.items():
        files.write_json(tmp_path / "mine" / name / "card.json", written)
    own = shutil.copytree(work, tmp_path / "mine" / "own.training")
    dmd_mnist.store_students([own], tmp_path)  # it does not ship, nor does its teacher: their cards are kept
    dmd_mnist.build(names, tmp_path, seeds=3)
    assert seen == [0, 1, 2] * 2
    assert list(dmd_mnist.load(tmp_path)) == [*names, "student-dmd", "own"]  # the students stay
    assert dmd_mnist.card(tmp_path)["students"] == {name: cards[name] for name in ("own", "own-teacher")}
    with refused(RuntimeError, "runs.safetensors is missing. Restore it with `git checkout runs.safetensors`"):
        dmd_mnist.load(tmp_path / "none")


# By recipe

@pytest.fixture
def small_student(monkeypatch, at_hand):
    """The student's recipe with the tiny teacher, batches of 4 and the squared error: it trains in a second."""
    setting = dataclasses.replace(TINY, n_steps=6)
    small = dataclasses.replace(recipes.RECIPES["student-dmd"], setting=setting)
    monkeypatch.setitem(recipes.RECIPES, "student-dmd", small)


def looks(root) -> tuple[list[int], dict[str, torch.Tensor]]:
    """At which steps a training by recipe was looked at, and what was seen."""
    found = dmd_mnist.recorded(root / "student-dmd.training")
    return found["steps"].tolist(), found["looks"]


def test_a_student_is_written_with_its_card_its_log_and_looks_at_its_milestones(small_student, tiny, tmp_path):
    recipes.train_artefact("student-dmd", tmp_path, cpu=True)
    student, card = store.load("student-dmd", root=tmp_path), store.card("student-dmd", tmp_path)
    assert not equal(weights(student), weights(tiny))
    assert (student.prediction, student.patch, student.schedule.T) == ("v", 4, 1024)
    wanted = {"distance": "squared", "guidance": 0.5, "teacher": "teacher", "n_pairs": 8, "n_steps": 6, "lr": 1e-3,
              "regression_weight": 0.75, "updates": [1, 2], "batch_size": 4}
    assert {key: card["recipe"][key] for key in wanted} == wanted and card["seed"] == 0
    steps, seen = looks(tmp_path)
    assert steps == train.milestones(6) == [0, 1, 2, 3, 4, 5, 6] and list(seen) == list(dmd_mnist.Look._fields)
    assert seen["samples"].shape == (7, 20, 28, 28) and not torch.equal(seen["samples"][0], seen["samples"][6])
    z = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    brightness = tiny.generate(z, torch.arange(200) % 10).flatten(1).mean(1)  # at first the student is its teacher
    torch.testing.assert_close(seen["brightness"][0], brightness, rtol=1e-3, atol=1e-4)
    log = [json.loads(line) for line in (tmp_path / "student-dmd.training" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    kept = dmd_mnist.recorded(tmp_path / "student-dmd.training")["log"]
    assert set(kept) == {"seconds", "matching", "matching gradient", "regression", "regression gradient", "fake"}
    for name, values in kept.items():
        torch.testing.assert_close(values, torch.tensor([entry[name] for entry in log]))


def test_a_student_whose_training_stopped_and_went_on_is_the_same_and_was_looked_at_as_often(
        small_student, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    recipes.train_artefact("student-dmd", whole, cpu=True)
    with stopped_in_step_six(monkeypatch), pytest.raises(KeyboardInterrupt):
        recipes.train_artefact("student-dmd", stopped, cpu=True)
    assert looks(stopped)[0] == [0, 1, 2, 3, 4, 5] and store.names(stopped) == []
    recipes.train_artefact("student-dmd", stopped, cpu=True, resume=True)
    assert store.card("student-dmd", stopped)["sha256"] == store.card("student-dmd", whole)["sha256"]
    (steps, seen), (again, wanted) = looks(stopped), looks(whole)
    assert steps == again and equal(list(seen.values()), list(wanted.values()))


def test_a_new_training_removes_an_earlier_ones_looks(small_student, tmp_path):
    recipes.train_artefact("student-dmd", tmp_path, cpu=True)
    recipes.train_artefact("student-dmd", tmp_path, n_steps=2, cpu=True)
    assert looks(tmp_path)[0] == [0, 1, 2]
    recipes.train_artefact("student-dmd", tmp_path, n_steps=2, cpu=True, resume=True)  # nothing is left to do
    assert looks(tmp_path)[0] == [0, 1, 2]


def test_a_folder_without_a_training_is_named_and_a_log_that_was_torn_is_read(small_student, tmp_path):
    with refused(RuntimeError, "none holds no training of a student. Train one first: `python -m dmdkit train"):
        dmd_mnist.recorded(tmp_path / "none")
    recipes.train_artefact("student-dmd", tmp_path, n_steps=2, cpu=True)
    log = tmp_path / "student-dmd.training" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 3, "matc')  # killed while it wrote a line
    assert len(dmd_mnist.recorded(log.parent)["log"]["matching"]) == 2
