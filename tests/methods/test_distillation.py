"""What every distillation by distribution matching has in common: how it starts, its learning
rates, and what is kept of it."""
import math
from dataclasses import replace

import pytest
import torch
from conftest import refused
from painters import equal, generator, weights

from dmdkit import data, nets, schedule, score, train
from dmdkit.denoiser import Denoiser
from dmdkit.experiments.recipe import Sources
from dmdkit.methods import dmd, dmd2, pairs
from dmdkit.methods.pairs import Pairs, Solver
from dmdkit.tasks.mnist import MNIST
from dmdkit.tasks.task import Task

S = schedule.cosine(64)
RING = score.ring()


def denoiser(seed: int | None = None) -> Denoiser:
    """Of points; without a seed with other weights at every call."""
    if seed is not None:
        torch.manual_seed(seed)
    return Denoiser(nets.PointMLP(8, 1), S, "v", n_classes=0)


def read(train: bool) -> data.Points:
    return data.Points(RING.sample(40, generator(5)))


def exact() -> score.Exact:
    return score.Exact(RING, S)


TASK = Task("ring", (2,), 0, read, {"network": denoiser, "fake": denoiser}, exact=exact)
TINY = dmd.Settings(n_pairs=8, warmup=2, ema=0.5, lr=1e-2, fake_lr=1e-2)


def given(**networks) -> Sources:
    z, x = torch.randn(2, 8, 2, generator=generator(1))
    return Sources(TASK, given={"teacher": denoiser(1), "pairs": Pairs(z, x)} | networks)


def prepared(settings, sources: Sources | None = None, n_steps: int = 4) -> train.Training:
    accelerator = train.accelerator(cpu=True)
    return settings.prepare(TASK, accelerator, n_steps, 4, sources or given())


def run(training: train.Training, n_steps: int = 4) -> None:
    list(train.train(training.step, training.learners, n_steps=n_steps))


METHODS = pytest.mark.parametrize("settings", [TINY, dmd2.Settings(
    warmup=2, ema=0.5, generator_weight=0.1, discriminator_weight=0.1)], ids=["dmd", "dmd2"])


# How it starts

@METHODS
def test_generator_and_fake_score_start_as_copies_of_the_teacher_that_are_their_own(settings):
    sources = given()
    teacher = sources.load("teacher")
    training = prepared(settings, sources)
    assert list(training.learners) == ["generator", "fake"] and training.frozen == (teacher,)
    places = {p.data_ptr() for p in teacher.parameters()}
    x = torch.randn(4, 2)
    for one in training.learners.values():
        net = one.net
        own = {p.data_ptr() for p in net.parameters()}
        assert not places & own
        places |= own
        assert (net.prediction, net.n_classes, net.schedule) == ("v", 0, teacher.schedule)
        assert torch.equal(net(x, 40).x, teacher(x, 40).x)
    assert training.learners["generator"].ema is not None
    assert training.learners["fake"].ema is None


@METHODS
def test_the_teacher_is_in_eval_mode_and_the_training_leaves_it_as_it_is(settings):
    sources = given()
    teacher = sources.load("teacher").train()
    before, training = weights(teacher), prepared(settings, sources)
    assert not teacher.training
    run(training)
    assert equal(weights(teacher), before) and all(p.grad is None for p in teacher.parameters())
    for one in training.learners.values():
        assert not equal(weights(one.net)[:len(before)], before)


def test_a_student_may_start_from_another_network_which_stays_as_it_is():
    student, sources = denoiser(2), given()
    sources.given["student"] = student
    training = prepared(replace(TINY, start="student"), sources)
    assert replace(TINY, start="student").requires == {"teacher": "teacher", "start": "student"}
    assert TINY.requires == {"teacher": "teacher"}
    found = {name: weights(one.net) for name, one in training.learners.items()}
    assert equal(found["generator"], weights(student))
    assert equal(found["fake"], weights(sources.load("teacher")))
    run(training)
    assert equal(weights(student), weights(denoiser(2)))


def test_where_the_teacher_is_exact_both_start_as_networks_of_the_task():
    settings = replace(TINY, teacher="exact", network="network", n_pairs=0)
    training = prepared(settings)
    assert settings.requires == {} and training.frozen == ()
    assert isinstance(training.step.real, score.Exact)
    one, other = training.learners.values()
    assert not any(map(torch.equal, weights(one.net), weights(other.net)))
    run(training)


@METHODS
def test_guidance_where_there_are_no_classes_is_refused_before_any_work(settings):
    sentence = "This teacher has no classes to guide by: leave guidance at 0; got 0.5"
    with refused(ValueError, sentence):
        prepared(replace(settings, guidance=0.5))
    exact = {"teacher": "exact", "network": "network", "guidance": 0.5}
    with refused(ValueError, sentence):
        prepared(replace(settings, **exact))


def test_pairs_are_made_with_the_guidance_of_the_distillation(monkeypatch, tiny):
    made = []

    def make_pairs(teacher, n, folder, solver, **options):
        made.append(solver)
        z = torch.randn(n, 1, 28, 28, generator=generator())
        return Pairs(z, z, torch.arange(n) % 10)

    monkeypatch.setattr(pairs, "make_pairs", make_pairs)
    sources = Sources(MNIST, given={"teacher": tiny})
    for guidance in (0.25, 2.0):
        settings = dmd.Settings(guidance=guidance, n_pairs=8)
        step = settings.prepare(MNIST, train.accelerator(cpu=True), 2, 2, sources).step
        assert step.real.keywords == {"guidance": guidance}
    assert made == [Solver("heun", 8, 0.25), Solver("heun", 8, 2.0)]


# Updates and learning rates

def rates(training: train.Training) -> dict[str, list[float]]:
    """The learning rate of every update of a training, in order."""
    found = {name: [] for name in training.learners}

    def noting(name: str, one: train.Learner):
        honest = one.update

        def update(loss):
            found[name].append(one.optimizer.param_groups[0]["lr"])
            return honest(loss)

        return update

    for name, one in training.learners.items():
        one.update = noting(name, one)
    run(training)
    return found


def annealed(lr: float, n: int) -> list[float]:
    """Up in two updates, and down to 0 where the n-th is made."""
    return [lr * i / 2 if i < 2 else lr * 0.5 * (1 + math.cos(math.pi * (i - 2) / (n - 2)))
            for i in range(n)]


@pytest.mark.parametrize("updates", [(1, 1), (1, 2), (1, 3), (3, 1), (2, 2)])
@METHODS
def test_both_learn_as_often_as_is_said_and_their_rates_end_with_their_own_last_update(
        settings, updates):
    training = prepared(replace(settings, updates=updates, lr=1e-2, fake_lr=3e-2))
    found = rates(training)
    assert found["generator"] == pytest.approx(annealed(1e-2, 4 * updates[0]))
    assert found["fake"] == pytest.approx(annealed(3e-2, 4 * updates[1]))
    for one in training.learners.values():
        assert one.lr_scheduler.get_last_lr() == pytest.approx([0], abs=1e-12)


@METHODS
def test_a_head_start_is_part_of_what_the_fake_score_is_annealed_over(settings):
    """Or its rate would be 0 before the end, and rise again."""
    training = prepared(replace(settings, head_start=3, updates=(1, 2), fake_lr=3e-2))
    assert rates(training)["fake"] == pytest.approx(annealed(3e-2, 11)[3:])


def test_a_fake_score_that_is_not_annealed_keeps_its_rate_and_one_that_never_learns_is_as_it_was():
    training = prepared(replace(TINY, updates=(1, 3), fake_annealed=False))
    wanted = [0.0, 0.5e-2] + [1e-2] * 10
    assert rates(training)["fake"] == pytest.approx(wanted, rel=1e-6)
    training = prepared(replace(TINY, updates=(1, 0)))
    found = rates(training)
    assert found["fake"] == [] and found["generator"] == pytest.approx(annealed(1e-2, 4))
    assert equal(weights(training.learners["fake"].net), weights(denoiser(1)))


def test_a_head_start_is_of_the_fake_score_alone_and_repeats_itself():
    start = weights(denoiser(1))
    settings = replace(TINY, warmup=0)
    found = [prepared(replace(settings, head_start=n)).learners for n in (3, 3, 4)]
    for learners in found:
        assert equal(weights(learners["generator"].net), start)
    first, again, more = (weights(learners["fake"].net) for learners in found)
    assert equal(first, again) and not equal(first, start) and not equal(first, more)


def test_without_a_fake_score_there_is_no_head_start():
    """An ablation changes one setting; what is said of the fake score goes with it."""
    training = prepared(replace(TINY, fake=False, head_start=3))
    assert list(training.learners) == ["generator"] and training.step.fake is None
    run(training)


# What is kept

class Steps:
    """What is kept of a generator that was trained, and how it gets there by hand."""

    def __init__(self, **changes):
        self.settings = replace(TINY, warmup=0, **changes)
        torch.manual_seed(7)
        self.training = prepared(self.settings)
        self.one = self.training.learners["generator"]
        self.start = weights(self.one.net)
        run(self.training)
        self.trained = weights(self.one.net)
        self.average = self.trained
        if self.one.ema:
            self.average = [p.clone() for p in self.one.ema.shadow_params]

    def by_hand(self) -> list[torch.Tensor]:
        share = self.settings.kept
        return [share * end + (1 - share) * start for end, start in zip(self.average, self.start)]


@pytest.mark.parametrize("start", [{}, {"network": "network"}], ids=["teacher", "network"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("kept", [1.0, 0.25])
def test_what_is_kept_is_drawn_back_towards_the_weights_that_it_started_from(start, ema, kept):
    one = Steps(ema=ema, kept=kept, **start)
    net = one.training.finish()
    assert not net.training and isinstance(net, Denoiser)
    for found, wanted in zip(weights(net), one.by_hand()):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert not any(map(torch.equal, one.trained, one.start))
    assert ema == 0 or not equal(one.average, one.trained)
    one.one.restore()  # and the training can go on from where it was
    assert equal(weights(one.one.net), one.trained) and one.one.net.training
    assert all(map(torch.allclose, weights(one.training.finish()), one.by_hand()))


# What is no number

@pytest.mark.parametrize("head_start", [0, 2])
@METHODS
def test_a_teacher_that_is_no_number_stops_the_training(settings, head_start):
    teacher = denoiser(1)
    with torch.no_grad():
        next(iter(teacher.net.weights)).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="became nan|not finite"):
        run(prepared(replace(settings, head_start=head_start), given(teacher=teacher)))


def test_a_teacher_of_another_schedule_than_the_student_is_refused():
    other = Denoiser(nets.PointMLP(8, 1), schedule.flow(64), "v", n_classes=0)
    sources = given(student=other)
    with refused(ValueError, "The teacher has another schedule than the student, 'cosine' of T = "):
        prepared(replace(TINY, start="student"), sources)


@pytest.mark.parametrize("change", [{"t_range": (0.1, 0.2)}, {"weighting": "kl"}])
def test_settings_of_a_matching_term_that_is_not_there_are_refused(change):
    with pytest.raises(ValueError, match="belongs to the matching term"):
        dmd.Settings(matching=False, n_pairs=8, **change)
