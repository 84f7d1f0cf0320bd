"""Progressive distillation: its target in angles, a Gaussian's whole chain, its loss by hand, and halvings that resume.

By hand means in the angle φ = arctan(σ/α): on the cosine schedule φ_t = π (t + 1)/(2 T), and a DDIM step from t to s is
the rotation cos(φ_t − φ_s) z − sin(φ_t − φ_s) v.
"""
import math
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import training_run
from accelerate import Accelerator
from conftest import refused
from oracles import FiniteData, Gaussian
from torch import Tensor, nn

from dmdkit import data, nets, progressive, sample, schedule, train
from dmdkit.denoiser import Denoiser, predict

S = schedule.cosine()
HALVINGS = [2**k for k in range(9, -1, -1)]  # 512 … 1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def angle(t: Tensor, T: int = S.T) -> Tensor:
    """φ_t, (B, 1, 1, 1); t = −1, clean data, is 0."""
    return (math.pi / 2 * (t.double() + 1) / T).reshape(-1, 1, 1, 1)


def turned(v, z: Tensor, t: Tensor, s: Tensor, T: int = S.T) -> Tensor:
    """A DDIM step of the teacher whose velocity is v(z, t)."""
    delta = (angle(t, T) - angle(s, T)).to(z)
    return delta.cos() * z - delta.sin() * v(z, t)


def crooked() -> Denoiser:
    """The exact denoiser of four points of the plane, which is anything but linear."""
    points = torch.tensor([[-0.9, -0.6], [0.8, -0.7], [0.1, 0.9], [-0.5, 0.4]])
    return Denoiser(FiniteData(points, torch.full((4,), 0.25), torch.zeros(4), S), S)


def halved(teacher: Denoiser, n: int, dtype: torch.dtype = torch.float64):
    """A batch of all the times of a student of n steps: z_t, the times, where its teacher goes from there, and x̃."""
    t, middle, end = progressive.stage_times(S, n).unbind(1)
    x, eps = torch.randn(2, n, *teacher.sample_shape, dtype=dtype)
    z_t = S.noise(x, t, eps)
    z_end = progressive.two_steps(teacher, S, z_t, t, middle, end)
    return z_t, (t, middle, end), z_end, progressive.target(z_t, z_end, *S.at(t, z_t), *S.at(end, z_t))


# The times

@pytest.mark.parametrize("n", HALVINGS)
def test_the_times_of_a_student_are_every_second_one_of_its_teachers(n):
    times = progressive.stage_times(S, n)
    t, middle, end = times.unbind(1)
    assert times.shape == (n, 3) and times.dtype == torch.int64
    assert t.tolist() == S.steps(n).tolist() and times[:, :2].flatten().tolist() == S.steps(2 * n).tolist()
    assert end.tolist() == [*t[1:].tolist(), -1] and torch.equal(t - middle, middle - end)


@pytest.mark.parametrize("n", [0, -4, 1.5, True, 3, 1024, 2048, "4", None])
def test_a_student_whose_teacher_has_no_such_steps_is_refused(n):
    with refused(ValueError, rf"has a teacher of 2n, and 2n must divide T = 1024; got n = {n!r}\."):
        progressive.stage_times(S, n)


# The target

@pytest.mark.parametrize("n", [512, 64, 8, 2, 1])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["32", "64"])
def test_one_step_with_the_target_lands_where_two_steps_of_the_teacher_do(n, dtype, tolerance):
    z_t, (t, _, end), z_end, x = halved(crooked(), n, dtype)
    assert S.alpha[t[0]] == 0 and end[-1] == -1 and x.dtype == dtype  # both ends of the chain are there
    student = predict("x", x, z_t, *S.at(t, z_t))
    close(sample.ddim_step(S, student.x, student.eps, end), z_end, tolerance)
    close(x[-1], z_end[-1], 0.0)


@pytest.mark.parametrize("n", [512, 64, 8, 2, 1])
def test_two_steps_are_two_rotations_and_the_target_a_weighted_mean_of_their_predictions(n):
    teacher = crooked()
    z_t, times, z_end, x = halved(teacher, n)
    t, middle, end = times
    z_middle = turned(lambda z, t: teacher(z, t).v, z_t, t, middle)
    close(z_end, turned(lambda z, t: teacher(z, t).v, z_middle, middle, end), 1e-10)
    # z_s/sin φ_s − z_t/sin φ_t = (cot φ_s − cot φ_t) x̂ for each step, and for both together
    a, b, c = map(angle, times)
    second = (b - c).sin() * a.sin() / (b.sin() * (a - c).sin())
    assert 0 < second.min() and second.max() < 1 + 1e-12 and second[-1].item() == pytest.approx(1)
    first_x, second_x = teacher(z_t, t).x, teacher(z_middle, middle).x
    assert (first_x - second_x).abs().max() > 0.01
    close(x, (1 - second) * first_x + second * second_x, 1e-9)


# The weightings

@pytest.mark.parametrize("kind", ["v", "x", "eps"])
def test_each_weighting_is_the_error_that_it_claims_to_be(kind):
    x, eps, out = torch.randn(3, 6, 1, 3, 3, dtype=torch.float64)
    t = torch.tensor([10, 300, 511, 600, 900, 1022])
    z_t = S.noise(x, t, eps)
    alpha, sigma = S.at(t, z_t)
    said = predict(kind, out, z_t, alpha, sigma)
    error = lambda a, b: (a - b).square().mean((1, 2, 3))
    in_x, in_eps, in_v = error(said.x, x), error(said.eps, eps), error(said.v, alpha * eps - sigma * x)
    by_hand = {"snr": in_eps, "truncated": torch.maximum(in_x, in_eps), "snr+1": in_v}
    assert tuple(by_hand) == progressive.WEIGHTINGS and len((in_x > in_eps).unique()) == 2
    for weighting, wanted in by_hand.items():
        found = progressive.weighted_loss(said.x, x, alpha, sigma, weighting)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert torch.equal(progressive.weighted_loss(said.x, x, alpha, sigma),
                       progressive.weighted_loss(said.x, x, alpha, sigma, "truncated"))


def test_at_pure_noise_snr_weighs_nothing_and_the_others_one():
    alpha, sigma = S.at(S.T - 1, torch.empty(2, 3))
    found = [progressive.weight(alpha, sigma, weighting) for weighting in ("snr", "truncated", "snr+1")]
    assert [one.tolist() for one in found] == [[[0.0]], [[1.0]], [[1.0]]]


def test_an_unknown_weighting_is_one_sentence():
    with refused(ValueError, r"weighting must be one of snr, truncated, snr\+1; got 'heavy'"):
        progressive.weight(*S.at(3, torch.empty(1)), "heavy")


# Gaussians in closed form

class Affine:
    """A denoiser whose x-prediction at t is gain[t] z + offset[t], which is all that a Gaussian N(m, s²) asks for."""
    schedule, n_classes = S, 10

    def __init__(self, t: Tensor, gain: Tensor, offset: Tensor):
        self.gain, self.offset = torch.full((2, S.T, 1, 1, 1), math.nan, dtype=torch.float64)  # no other times
        self.gain[t], self.offset[t] = gain, offset

    def __call__(self, z, t, label=None, guidance=0.0):
        return predict("x", self.gain[t] * z + self.offset[t], z, *S.at(t, z))


def student_of(teacher, n: int) -> Affine:
    """The student of n steps that has learned all that there is to learn: it says x̃ at each of its times."""
    t, middle, end = progressive.stage_times(S, n).unbind(1)
    said = []
    for value in (0.0, 1.0):
        z_t = torch.full((n, 1, 1, 1), value, dtype=torch.float64)
        z_end = progressive.two_steps(teacher, S, z_t, t, middle, end)
        said.append(progressive.target(z_t, z_end, *S.at(t, z_t), *S.at(end, z_t)))
    return Affine(t, said[1] - said[0], said[0])


def perfect(n: int, m: float, s: float) -> Affine:
    """Each of its n DDIM steps is the probability flow itself, which keeps (z − α m) / √(α² s² + σ²)."""
    t = S.steps(n)
    a, c = angle(t), angle(torch.cat([t[1:], torch.tensor([-1])]))
    spread = lambda phi: (phi.cos()**2 * s**2 + phi.sin()**2).sqrt()
    slope = spread(c) / spread(a)  # z goes to slope z + (cos c − slope cos a) m
    gain = (a.sin() * slope - c.sin()) / (a - c).sin()
    return Affine(t, gain, a.sin() * (c.cos() - slope * a.cos()) * m / (a - c).sin())


GAUSSIANS = pytest.mark.parametrize("m, s", [(0.0, 1.0), (0.25, 0.4)])


@GAUSSIANS
def test_a_perfect_teacher_stays_perfect_through_all_halvings(m, s):
    student = perfect(1024, m, s)
    for n in HALVINGS:
        student, wanted, t = student_of(student, n), perfect(n, m, s), S.steps(n)
        close(student.gain[t], wanted.gain[t], 1e-8)
        close(student.offset[t], wanted.offset[t], 1e-8)
    z = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1, 1, 1)
    close(sample.last(sample.ddim(student, z, 1)), m + s * z, 1e-8)


@GAUSSIANS
def test_all_halvings_of_a_gaussians_own_denoiser_keep_its_1024_steps(m, s):
    """It knows E[x | z_t] exactly; yet a step of finite length is not the flow, and that error is what is kept too."""
    student, z = Denoiser(Gaussian(m, s, S), S), torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1, 1, 1)
    wanted = sample.last(sample.ddim(student, z, 1024))
    for n in HALVINGS:
        student = student_of(student, n)
        close(sample.last(sample.ddim(student, z, n)), wanted, 1e-8)
    # by hand: of z − α m each step keeps cos δ − sin δ α σ (1 − s²) / (α² s² + σ²), that is cos δ for N(0, 1)
    delta, of = math.pi / 2048, S.alpha**2 * s**2 + S.sigma**2
    slope = (math.cos(delta) - math.sin(delta) * S.alpha * S.sigma * (1 - s**2) / of).prod().item()
    assert (student.gain[-1].item(), student.offset[-1].item()) == pytest.approx((slope, m), abs=1e-8)
    assert 1e-4 < abs(slope - s) < 5e-3  # 1024 steps' error


# The step

T = 16


class Painter(nn.Module):
    """A network for 2 × 2 images of three classes, small and crooked: tanh(a x + b[label] + t/T)."""
    sample_shape = (1, 2, 2)

    def __init__(self, seed: int, outputs: int):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5 + 0.1 * seed))
        self.b = nn.Parameter(torch.randn(4, outputs, 2, 2, generator=generator(seed)))

    def forward(self, x, t, class_labels):
        return SimpleNamespace(sample=torch.tanh(self.a * x + self.b[class_labels] + t.to(x).reshape(-1, 1, 1, 1) / T))


def painter(seed: int, prediction: str = "v", sch: schedule.Schedule = schedule.cosine(T)) -> Denoiser:
    return Denoiser(Painter(seed, 1 + (prediction == "both")), sch, prediction, n_classes=3)


def painted() -> data.Images:
    return data.Images(torch.randint(256, (5, 1, 2, 2), generator=generator(9)).byte(), torch.tensor([0, 1, 2, 1, 0]))


def learner(net: nn.Module) -> train.Learner:
    return train.Learner(net, Accelerator(cpu=True), lr=0.1, n_steps=5, warmup=0, ema=0.0)


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("prediction", ["v", "x", "both"])
@pytest.mark.parametrize("n, weighting, guidance", [(8, "truncated", 0.0), (4, "snr", 1.5), (2, "truncated", 1.5),
                                                    (1, "snr+1", 0.0)])
def test_a_step_by_hand(prediction, n, weighting, guidance):
    teacher, student, images = painter(1, prediction), painter(2, prediction), painted()
    g = generator(3)
    index = torch.randint(5, (6,), generator=g)
    eps = torch.randn(6, 1, 2, 2, generator=g)
    t = T - 1 - train.stratified_times(6, n, g) * (T // n)
    middle, end = t - T // n // 2, t - T // n
    x, label = images.pixels[index] / 127.5 - 1, images.labels[index]
    a, c = angle(t, T).float(), angle(end, T).float()
    z_t = a.cos() * x + a.sin() * eps
    v = lambda z, t: (1 + guidance) * teacher(z, t, label).v - guidance * teacher(z, t).v
    with torch.no_grad():
        z_end = turned(v, turned(v, z_t, t, middle, T), middle, end, T)
        wanted = (a.sin() * z_end - c.sin() * z_t) / (a - c).sin()
    weight = {"snr": 1 / a.tan()**2, "truncated": (1 / a.tan()**2).clamp(min=1), "snr+1": 1 / a.sin()**2}[weighting]
    loss = (weight * (student(z_t, t, label).x - wanted).square()).mean()
    norm = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(student.parameters()))]).norm()

    before = weights(teacher), weights(student)
    how = partial(teacher, guidance=guidance) if guidance else teacher
    values = progressive.halving_step(learner(student), how, images, 6, n, weighting)(generator(3))
    assert {name: value.item() for name, value in values.items()} == \
           pytest.approx({"loss": loss.item(), "gradient norm": norm.item()}, rel=1e-4)
    assert all(p.grad is None for p in teacher.parameters()) and equal(weights(teacher), before[0])
    assert not any(map(torch.equal, weights(student), before[1]))


def test_a_network_that_predicts_eps_is_refused_where_nothing_of_x_is_left_and_only_there():
    with refused(ValueError, r"predicts ε cannot be distilled where α_T = 0: .* Distil one that predicts x, v or both"):
        progressive.halving_step(learner(painter(1, "eps")), painter(2), painted(), 4, 2)
    there = [painter(seed, "eps", schedule.linear()) for seed in (1, 2)]
    values = progressive.halving_step(learner(there[0]), there[1], painted(), 4, 2)(generator())
    assert values["loss"].isfinite()


@pytest.mark.parametrize("change, sentence", [
    (dict(n_steps=16), r"2n must divide T = 16; got n = 16\."),
    (dict(n_steps=3), r"2n must divide T = 16; got n = 3\."),
    (dict(weighting="heavy"), "weighting must be one of .*; got 'heavy'"),
    (dict(batch_size=4), "batch_size must be a multiple of the 3 processes, .*; got 4"),
])
def test_bad_input_is_one_sentence_before_any_work(change, sentence):
    one = learner(painter(1))
    one.accelerator = SimpleNamespace(num_processes=3, process_index=0, device="cpu")
    with refused(ValueError, sentence):
        progressive.halving_step(one, None, painted(), **dict(batch_size=6, n_steps=2) | change)


# Halvings

def on_points() -> tuple[Denoiser, data.Points]:
    torch.manual_seed(0)
    return Denoiser(nets.PointNet(16, 2), S, n_classes=1), data.two_moons(64, generator())


def on_images() -> tuple[Denoiser, data.Images]:
    return training_run.denoiser(), training_run.images(32)


def halve(teacher: Denoiser, images, stages: dict[int, int], **options):
    return progressive.halve(teacher, images, Accelerator(cpu=True), stages, **dict(batch_size=4) | options)


@pytest.fixture
def begun(monkeypatch) -> list:
    """What each halving began with: its teacher, the teacher's guidance, its learner."""
    found, honest = [], progressive.begin

    def begin(teacher, *args, **options):
        one, step = honest(teacher, *args, **options)
        found.append(SimpleNamespace(teacher=teacher, guidance=options["guidance"], learner=one))
        return one, step

    monkeypatch.setattr(progressive, "begin", begin)
    return found


@pytest.mark.parametrize("made", [on_points, on_images])
def test_the_student_of_each_stage_is_the_teacher_of_the_next_and_starts_as_its_copy(made, begun):
    (teacher, images), updates = made(), {4: 3, 2: 2, 1: 3}
    chain, seen = [teacher], []
    for stage in halve(teacher, images, updates, guidance=0.5, lr=2e-3):
        now, start = begun[-1], weights(chain[-1])
        assert now.teacher is chain[-1] and now.learner.net is stage.student and stage.student is not chain[-1]
        assert equal(weights(stage.student), start) and not now.learner.optimizer.state
        assert now.learner.lr_scheduler.base_lrs == [2e-3]
        seen.append((stage.n_steps, [record.step for record in stage.records]))
        assert now.learner.lr_scheduler.get_last_lr() == pytest.approx([0], abs=1e-12)
        assert equal(weights(chain[-1]), start) and not equal(weights(stage.student), start)
        assert all(p.grad is None for p in chain[-1].parameters())
        chain.append(stage.student)
    assert seen == [(4, [1, 2, 3]), (2, [1, 2]), (1, [1, 2, 3])]
    assert [one.guidance for one in begun] == [0.5, 0, 0]
    assert all(not one.training for one in chain[:-1])


def test_the_guidance_of_a_stage_is_its_teachers():
    teacher, images = on_images()
    first = lambda one, step: step(generator(1))["loss"].item()
    begin = lambda **options: first(*progressive.begin(teacher, images, Accelerator(cpu=True), 4, 5, batch_size=4,
                                                       **options))
    by_hand = first(None, progressive.halving_step(learner(teacher.copy()), partial(teacher.eval(), guidance=0.7),
                                                   images, 4, 4))
    assert begin(guidance=0.7) == pytest.approx(by_hand, rel=1e-5) != pytest.approx(begin(), rel=1e-2)


def test_what_is_left_of_a_stages_records_is_run_before_the_next(begun):
    for stage in halve(*on_points(), {4: 5, 2: 4, 1: 3}):
        assert [one.learner.lr_scheduler.last_epoch for one in begun] == [5, 4, 3][:len(begun) - 1] + [0]
        if stage.n_steps == 4:
            next(stage.records)
    assert [one.learner.lr_scheduler.last_epoch for one in begun] == [5, 4, 3]


def test_a_student_learns_to_do_in_one_step_what_its_teacher_does_in_two():
    teacher, images = on_points()
    one = train.Learner(teacher, Accelerator(cpu=True), lr=1e-2, n_steps=100, ema=0.0)
    for _ in train.train(train.denoiser_step(one, images, 64), {"net": one}, n_steps=100):
        pass
    z, goes = torch.randn(500, 2), lambda net, n: sample.last(sample.ddim(net, z, n))
    for stage in halve(teacher, images, {1: 150}, batch_size=64, lr=1e-2):
        far = (goes(teacher, 1) - goes(teacher, 2)).square().mean()
    assert (goes(stage.student, 1) - goes(teacher, 2)).square().mean() < 0.1 * far


@pytest.mark.parametrize("stages, sentence", [
    ({4: 1, 1: 1}, r"Each stage must have half the steps of the one before; got \[4, 1\]\."),
    ({2: 1, 4: 1}, r"Each stage must have half the steps of the one before; got \[2, 4\]\."),
    ({}, r"Each stage must have half the steps of the one before; got \[\]\."),
    ({6: 1, 3: 1}, r"2n must divide T = 1024; got n = 6\."),
    ({1024: 1, 512: 1}, r"2n must divide T = 1024; got n = 1024\."),
])
def test_stages_that_do_not_halve_are_refused_before_any_work(stages, sentence, begun):
    with refused(ValueError, sentence):
        next(halve(*on_points(), stages))
    assert not begun


def test_a_chain_cannot_go_on_from_nowhere(begun):
    with refused(RuntimeError, "resume=True needs the folder of the checkpoints"):
        next(halve(*on_points(), {4: 1}, resume=True))
    assert not begun


UPDATES = [(n, i) for n in (4, 2, 1) for i in range(1, 7)]


def chain(folder, stop: tuple[int, int] | None = None, **options):
    """A chain of six updates a stage: which of them were made, and the weights of each stage's student. ``stop``: the
    update after which all is dropped."""
    made, students = [], {}
    for stage in halve(*on_points(), {4: 6, 2: 6, 1: 6}, seed=3, checkpoints=folder, **options):
        for record in stage.records:
            made.append((stage.n_steps, record.step))
            if made[-1] == stop:
                return made, students
        students[stage.n_steps] = weights(stage.student)
    return made, students


@pytest.mark.parametrize("stop", [(4, 3), (2, 1), (2, 5), (2, 6)], ids=str)  # before any save, between two, at the end
def test_a_chain_that_stopped_and_went_on_is_bit_for_bit_the_same(stop, tmp_path, monkeypatch):
    honest = progressive.train
    monkeypatch.setattr(progressive, "train", lambda *args, **options: honest(*args, **options | {"save_every": 2}))
    made, whole = chain(tmp_path / "whole")
    assert made == UPDATES
    made, _ = chain(tmp_path / "cut", stop)
    done = len(made) - stop[1] % 2  # of an odd number the last one is not saved
    assert made == UPDATES[:len(made)]
    made, students = chain(tmp_path / "cut", resume=True)
    assert made == UPDATES[done:]  # and no finished stage again
    assert list(students) == [4, 2, 1] and all(equal(students[n], whole[n]) for n in whole)
    assert not equal(whole[2], whole[1])


# What it costs

@pytest.mark.parametrize("guidance, forward", [(0.0, 4 * 3 * (3 + 2 + 1)), (0.5, 4 * (5 * 3 + 3 * (2 + 1)))])
def test_the_evaluations_of_a_chain_are_those_that_are_counted(guidance, forward, monkeypatch):
    rows, honest = Counter(), nets.PointNet.forward

    def counted(self, x, *args, **options):
        rows["forward"] += len(x)
        rows["backward"] += len(x) * torch.is_grad_enabled()
        return honest(self, x, *args, **options)

    monkeypatch.setattr(nets.PointNet, "forward", counted)
    stages = {4: 3, 2: 2, 1: 1}
    for _ in halve(*on_points(), stages, guidance=guidance):
        pass
    assert dict(rows) == progressive.evaluations(stages, 4, guidance) == {"forward": forward, "backward": 4 * 6}
