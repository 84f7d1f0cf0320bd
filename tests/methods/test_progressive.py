"""Progressive distillation: its target in angles, a Gaussian's whole chain, its loss by hand, and
halvings that follow one another.

By hand means in the angle φ = arctan(σ/α): on the cosine schedule φ_t = π (t + 1)/(2 T), and a DDIM
step from t to s is the rotation cos(φ_t − φ_s) z − sin(φ_t − φ_s) v.
"""
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import training_run
from conftest import refused
from oracles import FiniteData, Gaussian
from painters import equal, generator, weights
from torch import Tensor, nn

from dmdkit import data, nets, sample, schedule, train
from dmdkit.denoiser import Denoiser, predict
from dmdkit.methods import ddpm, progressive

S = schedule.cosine()
HALVINGS = [2**k for k in range(9, -1, -1)]  # 512 … 1


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def angle(t: Tensor, T: int = S.T) -> Tensor:
    """φ_t, (B, 1, 1, 1); t = −1, clean data, is 0."""
    return (math.pi / 2 * (t.double() + 1) / T).reshape(-1, 1, 1, 1)


def turned(v, z: Tensor, t: Tensor, s: Tensor, T: int = S.T) -> Tensor:
    """A DDIM step of the teacher whose velocity is v(z, t)."""
    delta = (angle(t, T) - angle(s, T)).to(z)
    return delta.cos() * z - delta.sin() * v(z, t)


def four_points(sch: schedule.Schedule = S) -> Denoiser:
    """The exact denoiser of four points of the plane, which is anything but linear."""
    points = torch.tensor([[-0.9, -0.6], [0.8, -0.7], [0.1, 0.9], [-0.5, 0.4]])
    net = FiniteData(points, torch.full((4,), 0.25), torch.zeros(4), sch, kind="x")
    return Denoiser(net, sch, "x")


def halved(teacher: Denoiser, n: int, dtype: torch.dtype = torch.float64):
    """A batch of all the times of a student of n steps: x_t, the times, where its teacher goes from
    there, and x̃."""
    sch = teacher.schedule
    t, middle, end = progressive.stage_times(sch, n).unbind(1)
    x, eps = torch.randn(2, n, *teacher.sample_shape, dtype=dtype)
    x_t = sch.noise(x, t, eps)
    x_end = progressive.two_steps(teacher, sch, x_t, t, middle, end)
    x_target = progressive.target(x_t, x_end, *sch.at(t, x_t), *sch.at(end, x_t))
    return x_t, (t, middle, end), x_end, x_target


# The times

@pytest.mark.parametrize("n", HALVINGS)
def test_the_times_of_a_student_are_every_second_one_of_its_teachers(n):
    times = progressive.stage_times(S, n)
    t, middle, end = times.unbind(1)
    assert times.shape == (n, 3) and times.dtype == torch.int64
    assert t.tolist() == S.steps(n).tolist()
    assert times[:, :2].flatten().tolist() == S.steps(2 * n).tolist()
    assert end.tolist() == [*t[1:].tolist(), -1] and torch.equal(t - middle, middle - end)


@pytest.mark.parametrize("n", [0, -4, 1.5, True, 3, 1024, 2048, "4", None])
def test_a_student_whose_teacher_has_no_such_steps_is_refused(n):
    with refused(ValueError, rf"a teacher of 2n, and 2n must divide T = 1024; got n = {n!r}\."):
        progressive.stage_times(S, n)


# The target

FLOW = schedule.flow(1024)


@pytest.mark.parametrize("n", [512, 64, 8, 2, 1])
@pytest.mark.parametrize("sch", [S, FLOW], ids=["cosine", "flow"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)],
                         ids=["32", "64"])
def test_one_step_with_the_target_lands_where_two_steps_of_the_teacher_do(
        n, sch, dtype, tolerance):
    x_t, (t, _, end), x_end, x = halved(four_points(sch), n, dtype)
    # both ends of the chain are there
    assert sch.alpha[t[0]] == 0 and end[-1] == -1 and x.dtype == dtype
    student = predict("x", x, x_t, *sch.at(t, x_t))
    close(sample.ddim_step(sch, student.x, student.eps, end), x_end, tolerance)
    close(x[-1], x_end[-1], 0.0)


@pytest.mark.parametrize("n", [512, 64, 8, 2, 1])
def test_two_steps_are_two_rotations_and_the_target_a_weighted_mean_of_their_predictions(n):
    teacher = four_points()
    x_t, times, x_end, x = halved(teacher, n)
    t, middle, end = times

    def v(z, t):
        return teacher(z, t).v

    x_middle = turned(v, x_t, t, middle)
    close(x_end, turned(v, x_middle, middle, end), 1e-10)
    # x_s/sin φ_s − x_t/sin φ_t = (cot φ_s − cot φ_t) x̂ for each step, and for both together
    a, b, c = map(angle, times)
    second = (b - c).sin() * a.sin() / (b.sin() * (a - c).sin())
    assert 0 < second.min() and second.max() < 1 + 1e-12
    assert second[-1].item() == pytest.approx(1)
    first_x, second_x = teacher(x_t, t).x, teacher(x_middle, middle).x
    assert (first_x - second_x).abs().max() > 0.01
    close(x, (1 - second) * first_x + second * second_x, 1e-9)


@pytest.mark.parametrize("n", [512, 8, 1])
def test_two_steps_along_a_straight_flow_are_two_of_euler(n):
    """With α = 1 − u and σ = u a DDIM step is z + (s − u) (ε̂ − x̂), and ε̂ − x̂ the velocity."""
    teacher = four_points(FLOW)
    x_t, (t, middle, end), x_end, x = halved(teacher, n)
    u, s, r = ((times.double() + 1).reshape(-1, 1, 1, 1) / 1024 for times in (t, middle, end))
    first = teacher(x_t, t)
    x_middle = x_t + (s - u) * (first.eps - first.x)
    second = teacher(x_middle, middle)
    close(x_end, x_middle + (r - s) * (second.eps - second.x), 1e-9)
    close(x, (x_end - r / u * x_t) / (1 - r / u), 1e-9)


def test_tensors_that_would_broadcast_are_no_target():
    x, one = torch.zeros(3, 1, 2, 2), torch.full((3, 1, 1, 1), 0.5)
    with refused(ValueError, "x_t and x_s must have one shape"):
        progressive.target(x, x[:, 0], one, one, one, one)
    with refused(ValueError, "sigma_s must be a number or broadcast"):
        progressive.target(x, x, one, one, one, one.flatten())
    with refused(TypeError, "x_s must be floating-point numbers"):
        progressive.target(x, x.byte(), one, one, one, one)


# Gaussians in closed form

class Affine:
    """A denoiser whose x-prediction at t is gain[t] z + offset[t], which is all that a Gaussian
    N(m, s²) asks for."""
    schedule, n_classes = S, 10

    def __init__(self, t: Tensor, gain: Tensor, offset: Tensor):
        empty = torch.full((2, S.T, 1, 1, 1), math.nan, dtype=torch.float64)  # no other times
        self.gain, self.offset = empty
        self.gain[t], self.offset[t] = gain, offset

    def __call__(self, z, t, label=None, guidance=0.0):
        return predict("x", self.gain[t] * z + self.offset[t], z, *S.at(t, z))


def student_of(teacher, n: int) -> Affine:
    """The student of n steps that has learned all that there is to learn: it says x̃ at each of its
    times."""
    t, middle, end = progressive.stage_times(S, n).unbind(1)
    said = []
    for value in (0.0, 1.0):
        x_t = torch.full((n, 1, 1, 1), value, dtype=torch.float64)
        x_end = progressive.two_steps(teacher, S, x_t, t, middle, end)
        said.append(progressive.target(x_t, x_end, *S.at(t, x_t), *S.at(end, x_t)))
    return Affine(t, said[1] - said[0], said[0])


def perfect(n: int, m: float, s: float) -> Affine:
    """Each of its n DDIM steps is the probability flow itself, which keeps
    (z − α m) / √(α² s² + σ²)."""
    t = S.steps(n)
    a, c = angle(t), angle(torch.cat([t[1:], torch.tensor([-1])]))

    def spread(phi):
        return (phi.cos()**2 * s**2 + phi.sin()**2).sqrt()

    slope = spread(c) / spread(a)  # z goes to slope z + (cos c − slope cos a) m
    gain = (a.sin() * slope - c.sin()) / (a - c).sin()
    return Affine(t, gain, a.sin() * (c.cos() - slope * a.cos()) * m / (a - c).sin())


GAUSSIANS = pytest.mark.parametrize("m, s", [(0.0, 1.0), (0.25, 0.4)])
LINE = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1, 1, 1)


@GAUSSIANS
def test_a_perfect_teacher_stays_perfect_through_all_halvings(m, s):
    student = perfect(1024, m, s)
    for n in HALVINGS:
        student, wanted, t = student_of(student, n), perfect(n, m, s), S.steps(n)
        close(student.gain[t], wanted.gain[t], 1e-8)
        close(student.offset[t], wanted.offset[t], 1e-8)
    close(sample.last(sample.ddim(student, LINE, 1)), m + s * LINE, 1e-8)


@GAUSSIANS
def test_all_halvings_of_a_gaussians_own_denoiser_keep_its_1024_steps(m, s):
    """It knows E[x | x_t] exactly; yet a step of finite length is not the flow, and that error is
    what is kept too."""
    student = Denoiser(Gaussian(m, s, S), S)
    wanted = sample.last(sample.ddim(student, LINE, 1024))
    for n in HALVINGS:
        student = student_of(student, n)
        close(sample.last(sample.ddim(student, LINE, n)), wanted, 1e-8)
    # by hand: of z − α m each step keeps cos δ − sin δ α σ (1 − s²) / (α² s² + σ²), that is cos δ
    # for N(0, 1)
    delta, of = math.pi / 2048, S.alpha**2 * s**2 + S.sigma**2
    kept = math.cos(delta) - math.sin(delta) * S.alpha * S.sigma * (1 - s**2) / of
    slope = kept.prod().item()
    found = student.gain[-1].item(), student.offset[-1].item()
    assert found == pytest.approx((slope, m), abs=1e-8)
    assert 1e-4 < abs(slope - s) < 5e-3  # 1024 steps' error


# The step

T = 16


class Wave(nn.Module):
    """A network for 2 × 2 images of three classes, small and not linear:
    tanh(a x + b[label] + t/T)."""
    sample_shape = (1, 2, 2)

    def __init__(self, seed: int, outputs: int):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5 + 0.1 * seed))
        self.b = nn.Parameter(torch.randn(4, outputs, 2, 2, generator=generator(seed)))

    def forward(self, x, t, class_labels):
        inner = self.a * x + self.b[class_labels] + t.to(x).reshape(-1, 1, 1, 1) / T
        return SimpleNamespace(sample=torch.tanh(inner))


def wave(seed: int, prediction: str = "v",
         sch: schedule.Schedule = schedule.cosine(T)) -> Denoiser:
    outputs = 2 if prediction == "both" else 1
    return Denoiser(Wave(seed, outputs), sch, prediction, n_classes=3)


def five_images() -> data.Images:
    pixels = torch.randint(256, (5, 1, 2, 2), generator=generator(9)).byte()
    return data.Images(pixels, torch.tensor([0, 1, 2, 1, 0]))


def learner(net: nn.Module, lr: float = 0.1, n_steps: int = 5, warmup: int = 0) -> train.Learner:
    return train.Learner(net, train.accelerator(cpu=True), lr=lr, n_steps=n_steps, warmup=warmup,
                         ema=0.0)


@pytest.mark.parametrize("prediction", ["v", "x", "both"])
@pytest.mark.parametrize("n, weighting, guidance", [
    (8, "truncated", 0.0), (4, "snr", 1.5), (2, "truncated", 1.5), (1, "snr+1", 0.0)])
def test_a_step_by_hand(prediction, n, weighting, guidance):
    teacher, student, images = wave(1, prediction), wave(2, prediction), five_images()
    g = generator(3)
    index = torch.randint(5, (6,), generator=g)
    eps = torch.randn(6, 1, 2, 2, generator=g)
    t = T - 1 - ddpm.stratified_times(6, n, g) * (T // n)
    middle, end = t - T // n // 2, t - T // n
    x, label = images.pixels[index] / 127.5 - 1, images.labels[index]
    a, c = angle(t, T).float(), angle(end, T).float()
    x_t = a.cos() * x + a.sin() * eps

    def v(z, t):
        return (1 + guidance) * teacher(z, t, label).v - guidance * teacher(z, t).v

    with torch.no_grad():
        x_end = turned(v, turned(v, x_t, t, middle, T), middle, end, T)
        wanted = (a.sin() * x_end - c.sin() * x_t) / (a - c).sin()
    weight = {"snr": 1 / a.tan()**2, "truncated": (1 / a.tan()**2).clamp(min=1),
              "snr+1": 1 / a.sin()**2}[weighting]
    loss = (weight * (student(x_t, t, label).x - wanted).square()).mean()
    gradients = torch.autograd.grad(loss, list(student.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()

    before = weights(teacher), weights(student)
    how = partial(teacher, guidance=guidance) if guidance else teacher
    step = progressive.Halving(learner(student), how, images, 6, n, weighting)
    values = {name: value.item() for name, value in step(generator(3)).items()}
    assert values == pytest.approx({"loss": loss.item(), "gradient norm": norm.item()}, rel=1e-4)
    assert all(p.grad is None for p in teacher.parameters())
    assert equal(weights(teacher), before[0])
    assert not any(map(torch.equal, weights(student), before[1]))


def test_a_network_that_predicts_eps_is_refused_where_nothing_of_x_is_left_and_only_there():
    with refused(ValueError, "A network that predicts ε says nothing of x where α = 0"):
        wave(1, "eps")
    student, teacher = (wave(seed, "eps", schedule.linear()) for seed in (1, 2))
    step = progressive.Halving(learner(student), teacher, five_images(), 4, 2)
    assert step(generator())["loss"].isfinite()


@pytest.mark.parametrize("change, sentence", [
    (dict(n_steps=16), r"2n must divide T = 16; got n = 16\."),
    (dict(n_steps=3), r"2n must divide T = 16; got n = 3\."),
    (dict(weighting="heavy"), "weighting must be one of .*; got 'heavy'"),
    (dict(batch_size=4), "batch_size must be a positive multiple of the 3 processes, .*; got 4"),
    (dict(images=data.two_moons(9, generator())), r"The data are of shape \(2,\), .* \(1, 2, 2\)"),
    (dict(teacher=wave(1, "v", schedule.cosine(32))), "The teacher has another schedule than the "
                                                      "student, 'cosine' of T = 32, not .* T = 16"),
    (dict(teacher=partial(wave(1, "v", schedule.flow(16)), guidance=1.0)),
     "The teacher has another schedule than the student, 'flow' of T = 16"),
])
def test_bad_input_is_one_sentence_before_any_work(change, sentence):
    one = learner(wave(1))
    one.accelerator = SimpleNamespace(num_processes=3, process_index=0, device="cpu")
    given = dict(teacher=wave(1), images=five_images(), batch_size=6, n_steps=2)
    with refused(ValueError, sentence):
        progressive.Halving(one, **given | change)


def test_a_teacher_that_is_no_number_stops_the_run():
    teacher, student = wave(1), wave(2)
    with torch.no_grad():
        teacher.net.a.fill_(torch.nan)
    before = weights(student)
    step = progressive.Halving(learner(student), teacher, five_images(), 6, 2)
    with pytest.raises(FloatingPointError, match="gradient norm became nan"):
        step(generator())
    assert equal(weights(student), before)


# Halvings

def on_points() -> tuple[Denoiser, data.Points]:
    torch.manual_seed(0)
    return Denoiser(nets.PointMLP(16, 2), S, n_classes=0), data.two_moons(64, generator())


def on_images() -> tuple[Denoiser, data.Images]:
    torch.manual_seed(0)
    net = Denoiser(nets.unet((1, 8, 8), (8,), n_classes=10), S)
    images = training_run.images(32)
    return net, data.Images(images.pixels[:, :, 10:18, 10:18].contiguous(), images.labels)


def halve(teacher: Denoiser, images, stages: dict[int, int], **options):
    return progressive.halve(teacher, images, train.accelerator(cpu=True), stages,
                             **{"batch_size": 4} | options)


@pytest.fixture
def begun(monkeypatch) -> list:
    """What each halving began with: its settings, its teacher, its training."""
    found, honest = [], progressive.Settings.begin

    def begin(self, teacher, *args):
        training = honest(self, teacher, *args)
        found.append(SimpleNamespace(settings=self, teacher=teacher, training=training,
                                     learner=training.learners["net"]))
        return training

    monkeypatch.setattr(progressive.Settings, "begin", begin)
    return found


@pytest.mark.parametrize("made, guidance", [(on_points, 0.0), (on_images, 0.5)])
def test_the_student_of_each_stage_is_the_teacher_of_the_next_and_starts_as_its_copy(
        made, guidance, begun):
    teacher, images = made()
    chain, seen = [teacher], []
    settings = progressive.Settings(1, guidance=guidance, lr=2e-3)
    for stage in halve(teacher, images, {4: 3, 2: 2, 1: 3}, settings=settings):
        now, start = begun[-1], weights(chain[-1])
        assert now.teacher is chain[-1] and now.learner.net is stage.student
        assert stage.student is not chain[-1]
        assert equal(weights(stage.student), start) and not now.learner.optimizer.state
        assert now.learner.lr_scheduler.base_lrs == [2e-3]
        seen.append((stage.n_steps, [record.step for record in stage.records]))
        assert now.learner.lr_scheduler.get_last_lr() == pytest.approx([0], abs=1e-12)
        assert equal(weights(chain[-1]), start) and not equal(weights(stage.student), start)
        assert all(p.grad is None and not p.requires_grad for p in chain[-1].parameters())
        assert now.training.frozen == (chain[-1],) and not chain[-1].training
        chain.append(stage.student)
    assert seen == [(4, [1, 2, 3]), (2, [1, 2]), (1, [1, 2, 3])]
    assert [one.settings.student_steps for one in begun] == [4, 2, 1]
    assert [one.settings.guidance for one in begun] == [guidance, 0, 0]


def test_the_guidance_of_a_stage_is_its_teachers():
    teacher, images = on_images()
    accelerator = train.accelerator(cpu=True)

    def first(step):
        return step(generator(1))["loss"].item()

    def begun(guidance):
        settings = progressive.Settings(4, guidance=guidance)
        return first(settings.begin(teacher, images, accelerator, 5, 4).step)

    real = partial(teacher.eval(), guidance=0.7)
    by_hand = first(progressive.Halving(learner(teacher.copy()), real, images, 4, 4))
    assert begun(0.7) == pytest.approx(by_hand, rel=1e-5)
    assert begun(0.7) != pytest.approx(begun(0.0), rel=1e-2)


@pytest.mark.parametrize("guidance, sentence", [
    (0.5, r"This teacher has no classes to guide by: leave guidance at 0; got 0\.5"),
    (math.nan, "guidance must be a finite number; got nan")])
def test_guidance_that_would_fail_in_the_first_step_is_refused_before_it(guidance, sentence):
    teacher, images = on_points()
    settings = progressive.Settings(4, guidance=guidance)
    with refused(ValueError, sentence):
        settings.begin(teacher, images, train.accelerator(cpu=True), 5, 4)
    assert teacher.training and all(p.requires_grad for p in teacher.parameters())


def test_what_is_left_of_a_stages_records_is_run_before_the_next(begun):
    def done():
        return [one.learner.lr_scheduler.last_epoch for one in begun]

    for stage in halve(*on_points(), {4: 5, 2: 4, 1: 3}):
        assert done() == [5, 4, 3][:len(begun) - 1] + [0]
        if stage.n_steps == 4:
            next(stage.records)
    assert done() == [5, 4, 3]


def test_the_average_of_a_stage_is_what_the_next_one_starts_from(begun):
    settings = progressive.Settings(1, lr=1e-2, warmup=0, ema=0.9)
    for stage in halve(*on_points(), {2: 12, 1: 2}, settings=settings):
        if stage.n_steps == 2:
            for _ in stage.records:
                pass
            trained = weights(stage.student)
            average = [p.clone() for p in begun[0].learner.ema.shadow_params]
        else:
            assert equal(weights(stage.student), average) and not equal(average, trained)


def test_a_student_learns_to_do_in_one_step_what_its_teacher_does_in_two():
    teacher, images = on_points()
    one = learner(teacher, lr=1e-2, n_steps=80, warmup=20)
    step = ddpm.DDPM(one, images, 64)
    list(train.train(step, {"net": one}, n_steps=80))
    z = torch.randn(500, 2)

    def goes(net, n):
        return sample.last(sample.ddim(net, z, n))

    settings = progressive.Settings(1, lr=1e-2, warmup=20)
    for stage in halve(teacher, images, {1: 100}, batch_size=64, settings=settings):
        far = (goes(teacher, 1) - goes(teacher, 2)).square().mean()
    assert (goes(stage.student, 1) - goes(teacher, 2)).square().mean() < 0.1 * far


def chain(seed: int) -> list[list[Tensor]]:
    """The weights of each student of a short chain."""
    students, settings = [], progressive.Settings(1, lr=1e-2, warmup=0)
    for stage in halve(*on_points(), {2: 3, 1: 3}, seed=seed, settings=settings):
        list(stage.records)
        students.append(weights(stage.student))
    return students


def test_a_chain_repeats_itself_with_its_seed_alone():
    first, other = chain(3), chain(4)
    assert all(map(equal, first, chain(3))) and not any(map(equal, first, other))


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


# What it costs

@pytest.mark.parametrize("guidance, forward", [(0.0, 4 * 3 * (3 + 2 + 1)),
                                               (0.5, 4 * (5 * 3 + 3 * (2 + 1)))])
def test_the_evaluations_of_a_chain_are_those_that_are_counted(guidance, forward, monkeypatch):
    rows, honest = Counter(), nets.PointMLP.forward

    def counted(self, x, *args, **options):
        rows["forward"] += len(x)
        rows["backward"] += len(x) * torch.is_grad_enabled()
        return honest(self, x, *args, **options)

    monkeypatch.setattr(nets.PointMLP, "forward", counted)
    teacher, points = on_points()
    teacher = Denoiser(teacher.net, S, n_classes=1)
    stages = {4: 3, 2: 2, 1: 1}
    settings = replace(progressive.Settings(1), guidance=guidance)
    for _ in halve(teacher, points, stages, settings=settings):
        pass
    wanted = {"forward": forward, "backward": 4 * 6}
    assert dict(rows) == progressive.evaluations(stages, 4, guidance) == wanted
