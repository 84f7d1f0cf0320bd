"""DMD2: its losses by hand, what the critic sees, who learns what, backward simulation, samples of several steps."""
import copy
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import training_run
from conftest import refused
from diffusers import LCMScheduler
from oracles import FiniteData, Gaussian
from test_dmd import Painter, Recorder, drawn, generator, painter
from test_sample import by_diffusers, small_denoiser
from torch import Tensor, nn

from dmdkit import data, dmd2, nets, sample, schedule
from dmdkit.denoiser import Denoiser

S = schedule.cosine()
LABEL = torch.tensor([3, 7])


@pytest.fixture
def double():
    """Everything in float64, so that a value by hand is the value."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def softplus(logit: float) -> float:
    return math.log1p(math.exp(logit))


# The losses

def test_the_adversarial_losses_by_hand(double):
    fake, real = (-2.0, 0.5, 3.0), (1.0, -0.5)
    by_hand = sum(softplus(-logit) for logit in fake) / 3
    assert dmd2.generator_loss(torch.tensor(fake)).item() == pytest.approx(by_hand, rel=1e-12)
    by_hand = sum(softplus(logit) for logit in fake) / 3 + sum(softplus(-logit) for logit in real) / 2
    assert dmd2.critic_loss(torch.tensor(fake), torch.tensor(real)).item() == pytest.approx(by_hand, rel=1e-12)
    clueless = torch.zeros(4)
    assert dmd2.critic_loss(clueless, clueless).item() == pytest.approx(2 * math.log(2), rel=1e-12)


def test_the_generators_loss_pulls_hardest_where_the_critic_is_sure_and_never_overflows():
    fake, real = (torch.tensor([-1000.0, 0.0, 1000.0], requires_grad=True) for _ in "fr")
    loss = dmd2.generator_loss(fake)
    assert loss.item() == pytest.approx((1000 + math.log(2)) / 3)
    slope, = torch.autograd.grad(loss, fake)
    assert (3 * slope).tolist() == pytest.approx([-1, -0.5, 0])
    to_fake, to_real = torch.autograd.grad(dmd2.critic_loss(fake, real), (fake, real))
    assert (3 * to_fake).tolist() == pytest.approx([0, 0.5, 1])
    assert (3 * to_real).tolist() == pytest.approx([-1, -0.5, 0])


# The critic

@torch.no_grad()
@pytest.mark.parametrize("preset", nets.UNETS)
def test_a_critic_judges_what_the_middle_block_gives_and_leaves_the_way_up_out(preset):
    torch.manual_seed(0)
    net = nets.unet(preset)
    plain = Denoiser(net, S, "v", patch=28 // net.config.sample_size)
    x, t, label = torch.randn(4, 1, 28, 28), torch.tensor([0, 300, 700, 1023]), torch.tensor([0, 3, 9, 10])
    seen = []
    with net.mid_block.register_forward_hook(lambda module, given, out: seen.append(out)):
        said = plain(x, t, label)
    critic = dmd2.Critic(plain)
    assert all(map(torch.equal, critic(x, t, label), said)) and critic.net is net
    assert all(map(torch.equal, critic(x, t, label, 1.5), plain(x, t, label, 1.5)))
    net.up_blocks[0].register_forward_hook(lambda *_: pytest.fail("the way up was evaluated"))
    assert torch.equal(plain.bottleneck(x, t, label), seen[0])
    logits = critic(x, t, label, judge=True)
    assert logits.shape == (4,) and torch.equal(logits, critic.head(seen[0])) and len(logits.unique()) == 4
    assert critic(x[:1], 300, judge=True).shape == (1,)
    no_class = critic(x, torch.full((4,), 300), torch.full((4,), 10), judge=True)
    assert torch.equal(critic(x, 300, judge=True), no_class)


def test_a_critic_of_another_kind_of_network_is_refused():
    with refused(TypeError, r"A critic needs the middle block of a UNet2DModel; got PointNet\."):
        dmd2.Critic(Denoiser(nets.PointNet(8), S, n_classes=0))


def test_frozen_ends_also_when_what_is_inside_fails():
    net = nn.Linear(2, 1)
    with pytest.raises(ZeroDivisionError), dmd2.frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        1 / 0
    assert all(p.requires_grad for p in net.parameters())


# The step, with networks that one can follow by hand

class Judge(Denoiser):
    """A painter whose logit of x_t is c a Σ x_t + d[label] + t/1024; it notes what it judges."""

    def __init__(self, seed: int, n_classes: int = 3):
        super().__init__(Painter(0.4, seed, n_classes), S, "x", n_classes=n_classes)
        self.c = nn.Parameter(torch.tensor(0.3))
        self.d = nn.Parameter(torch.randn(n_classes + 1, generator=generator(seed)))
        self.judged = []

    def forward(self, x_t, t, label=None, guidance=0.0, judge=False):
        if not judge:
            return super().forward(x_t, t, label, guidance)
        self.judged.append((x_t.detach(), t, label))
        return self.c * self.net.a * x_t.flatten(1).sum(1) + self.d[label] + t / 1024


def painted() -> data.Images:
    """Real images 2 × 2, of three classes."""
    return data.Images(torch.randint(256, (7, 1, 2, 2), generator=generator(9)).byte(),
                       torch.tensor([0, 1, 2, 1, 0, 2, 0]))


def made(n: int, labels: int = 3, **options):
    """Generator, fake score (that knows so many labels) and teacher, and the step of n samples."""
    one, other, teacher = Recorder(painter(0.5, 1)), Recorder(Judge(2, labels)), painter(0.6, 3)
    options = dict(images=painted(), fake_updates=1, generator_weight=0.25, critic_weight=0.75) | options
    return one, other, teacher, dmd2.dmd2_step(one, other, teacher, n, **options)


def noised(x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    angle = (math.pi / 2 * (t + 1) / 1024).reshape(-1, 1, 1, 1)
    return angle.cos() * x + angle.sin() * eps


def drawn_again(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """The times and the noise that one side of the critic draws."""
    return torch.randint(1024, (n,), generator=g), torch.randn(n, 1, 2, 2, generator=g)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_generators_adversarial_gradient_by_hand(double, weight):
    one, other, _, step = made(6, matching=False, generator_weight=weight)
    values = step(generator(3))
    g = generator(3)
    z, _, label, _ = drawn(g, 6, 20, 1004)
    t, eps = drawn_again(g, 6)
    x_t = noised(0.5 * z + one.net.net.b.detach()[label], t, eps)
    logits = 0.3 * 0.4 * x_t.sum((1, 2, 3)) + other.net.d.detach()[label] + t / 1024
    slope = -weight / (1 + logits.exp()) * torch.cos(math.pi / 2 * (t + 1) / 1024) * 0.3 * 0.4  # B dL/dx, every pixel's
    to_a, to_b = one.gradients[0]
    torch.testing.assert_close(to_a, (slope * z.sum((1, 2, 3))).sum() / 6)
    torch.testing.assert_close(to_b, torch.zeros(4, 1, 2, 2).index_add(
        0, label, slope.reshape(-1, 1, 1, 1).expand(6, 1, 2, 2) / 6))
    assert values["gan"].item() == pytest.approx(sum(softplus(-logit) for logit in logits.tolist()) / 6)
    assert values["gan gradient"].item() == pytest.approx(slope.abs().sum().item() * 2 / 6)


def test_the_generators_gradient_is_the_matching_terms_and_the_weighted_adversarial_terms(double):
    found = [made(6, **options)[::3] for options in (
        {}, dict(generator_weight=0.0, critic_weight=0.0), dict(matching=False, generator_weight=1.0))]
    values = [step(generator(3)) for _, step in found]
    both, matching, gan = (one.gradients[0] for one, _ in found)
    for total, first, second in zip(both, matching, gan):
        assert first.abs().max() > 1e-3 and second.abs().max() > 1e-3
        torch.testing.assert_close(total, first + 0.25 * second)
    assert set(values[0]) == {"matching", "matching gradient", "gan", "gan gradient", "fake", "critic"}
    assert set(values[1]) == {"matching", "matching gradient", "fake"} and "matching" not in values[2]


def test_the_critic_sees_both_sides_noised_each_at_times_and_with_labels_of_its_own(double):
    """Its update by hand: the denoising loss and 0.75 times the critic's."""
    one, other, _, step = made(6)
    values, images, g = step(generator(3)), painted(), generator(3)
    drawn(g, 6, 20, 1004)
    drawn_again(g, 6)
    z, eps, label, t = drawn(g, 6, 0, 1024)
    index = torch.randint(7, (6,), generator=g)
    (fake_at, fake_eps), (real_at, real_eps) = drawn_again(g, 6), drawn_again(g, 6)
    x, real = 0.5 * z + one.net.net.b.detach()[label], images.pixels[index] / 127.5 - 1
    sides = torch.cat([noised(x, fake_at, fake_eps), noised(real, real_at, real_eps)])
    at, labels = torch.cat([fake_at, real_at]), torch.cat([label, images.labels[index]])
    x_t, t_seen, label_seen = other.net.judged[1]
    torch.testing.assert_close(x_t, sides, rtol=1e-6, atol=1e-6)  # pixels are float32
    assert torch.equal(t_seen, at) and torch.equal(label_seen, labels)
    assert not torch.equal(*labels.chunk(2)) and not torch.equal(fake_at, real_at) and not torch.equal(fake_at, t)

    logits = 0.3 * 0.4 * sides.sum((1, 2, 3)) + other.net.d.detach()[labels] + at / 1024
    sign = torch.tensor([1.0] * 6 + [-1.0] * 6)
    slope = 0.75 * sign * torch.sigmoid(sign * logits) / 6
    assert values["critic"].item() == pytest.approx(
        sum(softplus(logit) for logit in (sign * logits).tolist()) / 6, rel=1e-6)
    x_t = noised(x, t, eps)
    error = 0.4 * x_t + other.net.net.b.detach()[label] - x
    to_c, to_d, to_a, to_b = other.gradients[0]
    near = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)
    near(to_c, 0.4 * (slope * sides.sum((1, 2, 3))).sum())
    near(to_d, torch.zeros(4).index_add(0, labels, slope))
    near(to_a, 0.3 * (slope * sides.sum((1, 2, 3))).sum() + 2 * (error * x_t).mean())
    near(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, 2 * error / 24))


@pytest.mark.parametrize("options, wanted", [(dict(fake_updates=5), 5), (dict(fake_updates=2), 2), ({}, 5)])
def test_the_fake_score_learns_on_a_faster_time_scale(options, wanted):
    for fake in (Recorder(painter(0.4, 2)), Recorder(Judge(2))):
        one, weight = Recorder(painter(0.5, 1)), float(isinstance(fake.net, Judge))
        step = dmd2.dmd2_step(one, fake, painter(0.6, 3), 4, images=painted(), generator_weight=weight,
                              critic_weight=weight, **options)
        for _ in range(2):
            step(generator())
        assert (len(one.gradients), len(fake.gradients)) == (2, 2 * wanted)


def test_each_loss_reaches_its_own_network_alone_also_in_a_unet(double):
    """And the generator's gradient of both terms is what autograd gives through a copy of the critic."""
    found_nets = {name: training_run.denoiser(seed) for seed, name in enumerate(("generator", "fake", "teacher"))}
    found_nets["fake"], found = dmd2.Critic(found_nets["fake"]), []
    one, other = (Recorder(found_nets[name]) for name in ("generator", "fake"))

    def update(name, loss):
        assert all(p.requires_grad for net in found_nets.values() for p in net.parameters())
        loss.backward()
        found.append((name, {key: [p.grad for p in net.parameters()] for key, net in found_nets.items()
                             if any(p.grad is not None for p in net.parameters())}))
        for net in found_nets.values():
            net.zero_grad(set_to_none=True)

    one.update, other.update = partial(update, "generator"), partial(update, "fake")
    original, g = copy.deepcopy(found_nets["fake"]), generator(3)
    options = dict(images=training_run.images(16), fake_updates=1, generator_weight=0.5, critic_weight=0.5)
    dmd2.dmd2_step(one, other, found_nets["teacher"], 2, **options)(generator(3))
    assert [(name, list(gradients)) for name, gradients in found] == [("generator", ["generator"]), ("fake", ["fake"])]
    to_fake = dict(zip((name for name, _ in other.net.named_parameters()), found[1][1]["fake"]))
    assert all(gradient is not None for gradient in to_fake.values())
    for name in ("head.body.1.weight", "net.conv_in.weight", "net.conv_out.bias"):
        assert to_fake[name].abs().max() > 0, name

    z, eps, label, t = drawn(g, 2, 20, 1004, (1, 28, 28), 10)
    at, again = torch.randint(1024, (2,), generator=g), torch.randn(2, 1, 28, 28, generator=g)
    x = found_nets["generator"](z, 1023, label).x
    with torch.no_grad():
        mu_real, mu_fake = (net(noised(x, t, eps), t, label).x for net in (found_nets["teacher"], original))
        pull = (mu_fake - mu_real) / (x - mu_real).abs().mean((1, 2, 3), keepdim=True) / x.numel()
    logits = original(noised(x, at, again), at, label, judge=True)
    loss = 0.5 * torch.log1p(torch.exp(-logits)).mean()
    by_hand = torch.autograd.grad([x, loss], list(one.net.parameters()), [pull, torch.ones(())])
    for got, wanted in zip(found[0][1]["generator"], by_hand):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)


# Backward simulation

def crooked(x_t: Tensor, t: int, label: Tensor | None) -> SimpleNamespace:
    by_label = 1.0 if label is None else 1 + 0.5 * label.reshape(-1, 1, 1, 1)
    return SimpleNamespace(x=torch.tanh(by_label * x_t) + t / 1024)


def unrolled(z, label, times, exits, eps, denoiser=crooked) -> Tensor:
    """The student's own loop, a sample at a time."""
    ends = []
    for i, end in enumerate(exits):
        x_t, its = z[i:i + 1], None if label is None else label[i:i + 1]
        for k in range(end):
            x_t = noised(denoiser(x_t, times[k], its).x, torch.tensor([times[k + 1]]), eps[k, i:i + 1])
        ends.append(x_t)
    return torch.cat(ends)


@pytest.mark.parametrize("times", [[1023, 511], [1023, 682, 340]])
@pytest.mark.parametrize("label", [None, torch.tensor([2, 0, 1, 1, 0, 2])])
def test_backward_simulation_is_the_students_loop_up_to_where_it_stops(double, times, label):
    n = len(times)
    assert S.steps(n).tolist() == times
    z, eps, exits = torch.randn(6, 1, 2, 2), torch.randn(n - 1, 6, 1, 2, 2), torch.tensor([1, 0, n - 1, 1, n - 1, 0])
    strength, given = torch.ones((), requires_grad=True), z.clone()
    student = lambda x_t, t, label: SimpleNamespace(x=strength * crooked(x_t, t, label).x)
    found = dmd2.simulate(student, S, z, label, torch.tensor(times), exits, eps)
    torch.testing.assert_close(found, unrolled(z, label, times, exits.tolist(), eps))
    assert not found.requires_grad and torch.equal(z, given)
    assert torch.equal(found[exits == 0], z[exits == 0]) and not (found == z)[exits > 0].any()


TIMES = {4: [1023, 1023, 767, 767, 511, 511, 255, 255], 3: [1023] * 3 + [682] * 3 + [340] * 2}


@pytest.mark.parametrize("n", TIMES)
def test_each_nth_of_a_batch_is_at_another_time_and_meets_what_the_student_makes(double, n):
    one = Recorder(painter(0.5, 1))
    z, label, g = torch.randn(8, 1, 2, 2), torch.arange(8) % 3, generator(5)
    x_t, t, same, told = dmd2.several_steps(one, n, 8, shift=torch.arange(8))(z, label, generator(5))
    assert t.tolist() == TIMES[n] and torch.equal(same, label) and torch.equal(told, label + torch.arange(8))
    times, eps = sorted(set(TIMES[n]), reverse=True), torch.randn(n - 1, 8, 1, 2, 2, generator=g)
    own = lambda x_t, t, label: SimpleNamespace(x=0.5 * x_t + one.net.net.b.detach()[label])
    torch.testing.assert_close(x_t, unrolled(z, label, times, [times.index(at) for at in TIMES[n]], eps, own))


@pytest.mark.parametrize("backward_simulation", [True, False])
def test_a_student_of_several_steps_is_trained_where_it_is_used(double, backward_simulation):
    """A step by hand: x = a x_t + b[label] at inputs through which no gradient goes."""
    one, other, teacher, step = made(4, generator_weight=0, critic_weight=0, n_steps=2, weighting="none",
                                     backward_simulation=backward_simulation)
    at, honest = [], one.model.forward
    one.model.forward = lambda x_t, t, label: at.append(torch.as_tensor(t).tolist()) or honest(x_t, t, label)
    step(generator(3))
    g, b = generator(3), one.net.net.b.detach()
    z, eps, label, t = drawn(g, 4, 20, 1004)
    if backward_simulation:
        fresh = torch.randn(1, 4, 1, 2, 2, generator=g)[0]
        x_t = torch.cat([z[:2], noised(0.5 * z + b[label], torch.full((4,), 511), fresh)[2:]])
    else:
        images, index = painted(), torch.randint(7, (4,), generator=g)
        label = images.labels[index]
        x_t = noised(images.pixels[index] / 127.5 - 1, torch.tensor([1023, 1023, 511, 511]), z)
    x = 0.5 * x_t + b[label]
    x_s = noised(x, t, eps)
    gradient = (0.4 * x_s + other.net.net.b.detach()[label] - 0.6 * x_s - teacher.net.b.detach()[label]) / 16
    to_a, to_b = one.gradients[0]
    torch.testing.assert_close(to_a, (gradient * x_t).sum(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, gradient), rtol=1e-5, atol=1e-7)
    assert at == ([1023, [1023, 1023, 511, 511]] if backward_simulation else [[1023, 1023, 511, 511]]) * 2


@pytest.mark.parametrize("backward_simulation", [True, False])
def test_a_fake_score_that_is_aware_is_told_the_step_of_every_sample_and_nobody_else_is(double, backward_simulation):
    one, other, teacher, step = made(4, labels=7, n_steps=2, backward_simulation=backward_simulation)
    step(generator(3))
    its, shift = torch.tensor(one.net.net.asked[-1]), torch.tensor([0, 0, 4, 4])
    assert max(max(label) for net in (one.net, teacher) for label in net.net.asked) < 3
    at_matching, at_denoising = (torch.tensor(label) for label in other.net.net.asked)
    assert torch.equal(at_matching, torch.tensor(teacher.net.asked[0]) + shift)
    assert torch.equal(at_denoising, its + shift)
    (_, _, at_gan), (_, _, at_critic) = other.net.judged
    fake, real = at_critic.chunk(2)
    assert torch.equal(at_gan, at_matching) and torch.equal(fake, at_denoising)
    assert torch.equal(real // 4 * 4, shift) and not torch.equal(real, fake)


def test_a_step_aware_copy_says_for_every_step_what_the_original_says(tiny):
    aware, x, t = dmd2.step_aware(tiny, 3), torch.randn(4, 1, 28, 28), torch.tensor([0, 300, 700, 1023])
    label, wanted = torch.tensor([0, 3, 9, 10]), tiny(x, t, torch.tensor([0, 3, 9, 10]))
    assert aware.n_classes == 32 and dmd2.label_shift(tiny, tiny, 2) == 0
    original = tiny.net.state_dict()
    original["class_embedding.weight"] = torch.cat([original["class_embedding.weight"]] * 3)
    made = aware.net.state_dict()  # exactly the same; what is computed from them may differ in the last bit
    assert made.keys() == original.keys() and all(torch.equal(made[name], weight) for name, weight in original.items())
    for step in range(3):
        said = aware(x, t, label + dmd2.label_shift(tiny, aware, step))
        torch.testing.assert_close(said.v, wanted.v, rtol=0, atol=1e-4)
    with torch.no_grad():
        aware.net.class_embedding.weight[11:22] += 1
    torch.testing.assert_close(aware(x, t, label + 22).v, wanted.v, rtol=0, atol=1e-4)
    assert not torch.allclose(aware(x, t, label + 11).v, wanted.v, atol=1e-2)


def as_one_of(processes: int, index: int, net: Denoiser) -> Recorder:
    one = Recorder(net)
    one.accelerator = SimpleNamespace(num_processes=processes, process_index=index, device="cpu")
    return one


@pytest.mark.parametrize("images", [None, painted()], ids=["simulated", "real"])
def test_processes_share_a_batch_of_several_steps(double, images):
    z, label = torch.randn(8, 1, 2, 2), torch.arange(8) % 3
    whole = dmd2.several_steps(Recorder(painter(0.5, 1)), 4, 8, images)(z, label, generator(5))
    for index in (0, 1):
        share = slice(index, None, 2)
        inputs = dmd2.several_steps(as_one_of(2, index, painter(0.5, 1)), 4, 8, images)
        for part, wanted in zip(inputs(z[share], label[share], generator(5)), whole):
            torch.testing.assert_close(part, wanted[share])


def test_processes_share_the_adversarial_losses(double):
    x, label = torch.randn(8, 1, 2, 2), torch.arange(8) % 3
    learners = [Recorder(Judge(2)), *(as_one_of(2, index, Judge(2)) for index in (0, 1))]
    for name in ("generator_loss", "critic_loss"):
        whole, *parts = (getattr(dmd2.Gan(one, painted(), 8), name)(x[share], label[share], generator(5)).item()
                         for one, share in zip(learners, (slice(None), slice(0, None, 2), slice(1, None, 2))))
        assert sum(parts) / 2 == pytest.approx(whole, rel=1e-9) and parts[0] != parts[1]


# Samples of several steps

@pytest.mark.parametrize("n, times", [(1, [1023]), (2, [1023, 511]), (4, [1023, 767, 511, 255])])
def test_multistep_draws_what_diffusers_lcm_scheduler_draws_with_the_same_noise(n, times):
    denoiser, z = small_denoiser(S, "v"), torch.randn(2, 1, 8, 8)
    scheduler = LCMScheduler(1024, trained_betas=S.betas().tolist(), prediction_type="v_prediction",
                             original_inference_steps=4, timestep_scaling=1e6)  # no part of x_t in the prediction
    states = list(sample.multistep(denoiser, z, n, LABEL, generator=generator()))
    theirs = by_diffusers(denoiser, scheduler, z, n, LABEL, generator=generator())
    assert [state.t for state in states] == scheduler.timesteps.tolist() == times
    torch.testing.assert_close(states[-1].x, theirs, rtol=1e-4, atol=1e-4)


def test_multistep_of_one_step_is_the_generator_and_of_more_repeats_itself_with_its_seed(tiny):
    z = torch.randn(2, 1, 28, 28)
    assert torch.equal(sample.last(sample.multistep(tiny, z, 1, LABEL)).clamp(-1, 1), tiny.generate(z, LABEL))
    clipped = list(sample.multistep(tiny, 3 * z, 4, LABEL, generator=generator(), clip=True))
    assert all(state.x0.abs().max() <= 1 for state in clipped)
    draw = lambda seed: sample.last(sample.multistep(tiny, z, 4, LABEL, generator=generator(seed)))
    assert torch.equal(draw(1), draw(1)) and not torch.allclose(draw(1), draw(2), atol=1e-2)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_multistep_with_an_exact_denoiser_ends_in_a_lone_point(n):
    point = torch.tensor([[-0.9, 0.6]])
    exact = Denoiser(FiniteData(point, torch.ones(1), torch.zeros(1, dtype=torch.int64), S), S, "v")
    x = sample.last(sample.multistep(exact, torch.randn(5, 2, 1, 1), n))
    torch.testing.assert_close(x.flatten(1), point.expand(5, 2), rtol=1e-4, atol=1e-4)


def test_multistep_draws_from_a_gaussian_what_two_calls_can_draw():
    """From x̂ = M, noised to t = 511 where α = σ, the mean of x given x_t has standard deviation S²/(1 + S²)."""
    exact = Denoiser(Gaussian(0.25, 0.4, S), S, "v")
    x = sample.last(sample.multistep(exact, torch.randn(20_000, 1, 1, 1), 2, generator=generator()))
    wanted = 0.4**2 / (1 + 0.4**2)
    assert x.mean().item() == pytest.approx(0.25, abs=4 * wanted / math.sqrt(20_000))
    assert x.std().item() == pytest.approx(wanted, rel=4 / math.sqrt(40_000))


# Weights

def test_a_matched_weight_by_hand_makes_both_pull_alike():
    x = torch.zeros(2, 1, 1, 2, requires_grad=True)
    pulls = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.0], [0.0, 1.5]])  # 5 and 1; 0.5 and 1.5
    reference, term = ((pull.reshape(2, 1, 1, 2) * x).sum() for pull in pulls)
    assert dmd2.matched_weight(x, reference, term) == pytest.approx(3)
    assert dmd2.matched_weight(x, reference, term, share=0.5) == pytest.approx(1.5)
    weight = dmd2.matched_weight(x, reference, term, share=0.25)
    lengths = [torch.autograd.grad(loss, x)[0].flatten(1).norm(dim=1).mean().item()
               for loss in (reference, weight * term)]
    assert lengths[1] == pytest.approx(0.25 * lengths[0])
    with refused(ValueError, "The term has no gradient at these images, so no weight can make it as strong"):
        dmd2.matched_weight(x, (x * pulls[0].reshape(2, 1, 1, 2)).sum(), 0 * x.sum())


def test_the_papers_weights_grow_as_the_pixels_become_fewer():
    assert dmd2.paper_weights((3, 64, 64)) == pytest.approx((3e-3, 1e-2))
    assert dmd2.paper_weights((1, 28, 28)) == pytest.approx((0.04702, 0.15673), rel=1e-4)


# Bad input

@pytest.mark.parametrize("options, sentence", [
    (dict(generator_weight=1.0, critic_weight=0.0), r"must both be positive, or both 0; got 1\.0 and 0\.0\."),
    (dict(generator_weight=0.0, critic_weight=2.0), r"must both be positive, or both 0; got 0\.0 and 2\.0\."),
    (dict(generator_weight=-1.0, critic_weight=-1.0), r"must both be positive, or both 0; got -1\.0 and -1\.0\."),
    (dict(generator_weight=1.0, critic_weight=-1.0), r"must both be positive, or both 0; got 1\.0 and -1\.0\."),
    (dict(images=None), "The critic, and inputs without backward simulation, need real images; pass images="),
    (dict(images=None, generator_weight=0.0, critic_weight=0.0, n_steps=2, backward_simulation=False),
     "The critic, and inputs without backward simulation, need real images; pass images="),
    (dict(n_steps=5), r"needs a sample for each of the 5 steps; batch_size 4 is too small\."),
    (dict(n_steps=2, labels=11), r"knows 12 labels, .* of 2 steps it must know 4, or 8 to be told the step as well"),
    (dict(n_steps=0), r"n_steps must be a whole number from 1 to 1024 .* got 0\."),
    (dict(generator_weight=float("nan"), critic_weight=1.0), r"must both be positive, or both 0; got nan and 1\.0\."),
    (dict(n_steps=1025), r"n_steps must be a whole number from 1 to 1024 .* got 1025\."),
    (dict(t_range=(0.5, 0.2)), "t_range must be two shares of T"),
    (dict(weighting="heavy"), "weighting must be one of .*; got 'heavy'"),
    (dict(fake_updates=-1), r"at least one of the generator and none of the fake; got \(1, -1\)"),
    (dict(matching=False, generator_weight=0.0, critic_weight=0.0), "the generator has nothing to learn from"),
])
def test_bad_input_is_one_sentence_before_any_work(options, sentence):
    with refused(ValueError, sentence):
        made(4, **options)


def test_a_process_needs_a_sample_for_each_step():
    dmd2.several_steps(Recorder(painter(0.5, 1)), 4, 4)
    with refused(ValueError, "Each process's share of a batch needs a sample for each of the 4 steps; batch_size 4"):
        dmd2.several_steps(as_one_of(2, 0, painter(0.5, 1)), 4, 4)
    with refused(ValueError, "batch_size must be a multiple of the 3 processes"):
        dmd2.several_steps(as_one_of(3, 0, painter(0.5, 1)), 4, 8)
