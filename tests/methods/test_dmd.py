"""DMD's step by hand: who learns what from whom."""
import math
from functools import partial

import pytest
import torch
import training_run
from painters import (S, Recorder, double, drawn, equal, gaussian, generator, half,  # noqa: F401
                      learner, line, painted_pairs, painter, run, weights)
from torch import nn

from dmdkit import nets, noise, schedule, score, train
from dmdkit.denoiser import Denoiser
from dmdkit.methods import dmd
from dmdkit.methods.pairs import Pairs


# The step

def noised_by(sch: schedule.Schedule, x, t, eps):
    return sch.alpha[t].float()[:, None] * x + sch.sigma[t].float()[:, None] * eps


@pytest.mark.parametrize("sch", [S, schedule.flow(1024), schedule.linear(1024)],
                         ids=["cosine", "flow", "linear"])
def test_a_step_by_hand(sch):
    """The generator's gradients equal Σ g · ∂x/∂θ / numel, the fake score's those of its
    regression, and neither network sees the other's loss."""
    one, other = Recorder(line(0.7, 0.2, sch)), Recorder(line(0.4, -0.3, sch))
    how = dmd.Settings(weighting="none", t_range=(0.1, 0.9))
    values = dmd.DMD(one, other, partial(half, sch=sch), 6, how)(generator(5))

    g = generator(5)
    z, eps, _, t = drawn(g, 6, 102, 922, (1,), 0)
    x = 0.7 * z + 0.2
    x_t = noised_by(sch, x, t, eps)
    gradient = (0.4 * x_t - 0.3) - (0.5 * x_t - 1)
    wanted = [(gradient * z).sum().item() / 6, gradient.sum().item() / 6]
    assert one.seen == [pytest.approx(wanted, rel=1e-5)]
    by_hand = 0.5 * gradient.square().mean().item()
    assert values["matching"].item() == pytest.approx(by_hand, rel=1e-5)

    z, eps, _, t = drawn(g, 6, 0, 1024, (1,), 0)
    x = 0.7 * z + 0.2
    x_t = noised_by(sch, x, t, eps)
    error = 0.4 * x_t - 0.3 - x
    wanted = [2 * (error * x_t).mean().item(), 2 * error.mean().item()]
    assert other.seen == [pytest.approx(wanted, rel=1e-5)]
    assert values["fake"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def test_with_pairs_a_step_regresses_each_noise_to_its_own_sample():
    z = torch.arange(50.0)[:, None] / 50
    pairs = Pairs(z, 3 * z)
    with_pairs, without = Recorder(line(0.7, 0.2)), Recorder(line(0.7, 0.2))
    fake = Recorder(line(0.4, -0.3))
    how = dmd.Settings(n_pairs=50, regression_weight=0.5)
    values = dmd.DMD(with_pairs, fake, half, 8, how, pairs=pairs)(generator(1))
    dmd.DMD(without, fake, half, 8, dmd.Settings())(generator(1))
    g = generator(1)
    drawn(g, 8, 20, 1004, (1,), 0)
    z = pairs.z[torch.randint(50, (8,), generator=g)]
    error = 0.7 * z + 0.2 - 3 * z
    more = [2 * 0.5 * (error * z).mean().item(), 2 * 0.5 * error.mean().item()]
    wanted = [a + b for a, b in zip(without.seen[0], more)]
    assert with_pairs.seen[0] == pytest.approx(wanted, rel=1e-4)
    assert values["regression"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("updates", [(1, 1), (1, 5), (4, 1), (1, 0)])
def test_the_ratio_of_updates(updates):
    one, other = Recorder(line(0.7, 0.2)), Recorder(line(0.4, -0.3))
    dmd.DMD(one, other, half, 4, dmd.Settings(updates=updates))(generator())
    assert (len(one.seen), len(other.seen)) == updates


def test_without_a_fake_score_it_is_score_distillation():
    """DreamFusion's gradient, w (ε̂ − ε), is α/σ (x − μ_real): with x in place of μ_fake ours is
    the same direction."""
    one = Recorder(line(0.7, 0.2))
    values = dmd.DMD(one, None, half, 6, dmd.Settings(fake=False, weighting="none"))(generator(2))
    assert set(values) == {"matching", "matching gradient"}
    z, eps, _, t = drawn(generator(2), 6, 20, 1004, (1,), 0)
    x = 0.7 * z + 0.2
    x_t = S.noise(x, t, eps)
    alpha, sigma = S.at(t, x)
    sds = sigma / alpha * (half(x_t, t).eps - eps)
    wanted = [(sds * z).mean().item(), sds.mean().item()]
    assert one.seen[0] == pytest.approx(wanted, rel=1e-3)


def test_the_teacher_gets_no_gradient_and_never_changes():
    teacher = line(0.5, -1.0)
    before = weights(teacher)
    one, other = learner(line(0.7, 0.2)), learner(line(0.4, -0.3))
    start = [weights(one.net), weights(other.net)]
    step = dmd.DMD(one, other, teacher, 16, dmd.Settings())
    run(step, {"generator": one, "fake": other}, 3)
    assert all(p.grad is None for p in teacher.parameters()) and equal(weights(teacher), before)
    for trained, old in zip((one, other), start):
        assert not any(map(torch.equal, weights(trained.net), old))


def test_a_generator_on_a_gaussian_converges_to_its_mean_and_covariance():
    """x = m + L z with the exact fake score of N(m, L Lᵀ) at every step."""
    mean, factor = torch.tensor([0.4, -0.3]), torch.tensor([[0.5, 0.0], [0.25, 0.3]])
    exact = score.Exact(gaussian(mean, factor @ factor.T), S)
    m, own = nn.Parameter(torch.tensor([-0.5, 0.5])), nn.Parameter(0.1 * torch.eye(2))
    optimizer, g = torch.optim.Adam([m, own], 0.04), generator()
    for i in range(300):
        optimizer.param_groups[0]["lr"] = 0.04 * (1 - i / 300)
        z, eps, _, t = drawn(g, 256, 20, 1004, (2,), 0)
        x = m + z @ own.T
        with torch.no_grad():
            x_t = S.noise(x, t, eps)
            fake = score.Exact(gaussian(m.detach(), own @ own.T), S)
            gradient = dmd.matching_gradient(x, exact(x_t, t).x, fake(x_t, t).x, *S.at(t, x))
        optimizer.zero_grad()
        dmd.matching_loss(x, gradient).backward()
        optimizer.step()
    torch.testing.assert_close(m.data, mean, atol=0.02, rtol=0)
    torch.testing.assert_close((own @ own.T).data, factor @ factor.T, atol=0.02, rtol=0)


def test_a_learned_fake_score_leads_a_network_to_a_gaussian_too():
    covariance = torch.tensor([[0.09, 0.03], [0.03, 0.04]])
    target = gaussian(torch.tensor([0.3, -0.2]), covariance)
    learners = {}
    for name, n in (("generator", 140), ("fake", 10**6)):
        net = Denoiser(nets.PointMLP(32, 2), S, "v", n_classes=0)
        learners[name] = train.Learner(net, train.accelerator(cpu=True), lr=1e-2, n_steps=n,
                                       warmup=5, ema=0.0)
    how = dmd.Settings(updates=(1, 4))
    step = dmd.DMD(*learners.values(), score.Exact(target, S), 256, how)
    run(step, learners, 140)
    z = torch.randn(4_000, 2, generator=generator())
    x = learners["generator"].net(z, S.T - 1).x.detach()
    torch.testing.assert_close(x.mean(0), target.means[0], atol=0.03, rtol=0)
    torch.testing.assert_close(x.T.cov(), covariance, atol=0.02, rtol=0)


# The step on labelled images

def test_every_network_is_asked_for_the_labels_that_the_samples_have(double):
    one, other = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2))
    teacher = painter(0.6, 3)
    step = dmd.DMD(one, other, teacher, 6, dmd.Settings(n_pairs=12), pairs=painted_pairs())
    step(generator(3))
    g = generator(3)
    _, _, first, _ = drawn(g, 6, 20, 1004)
    index = torch.randint(12, (6,), generator=g)
    _, _, second, _ = drawn(g, 6, 0, 1024)
    assert len(set(first.tolist())) == 3 and first.tolist() != second.tolist()
    assert one.net.net.asked == [first.tolist(), (index % 3).tolist(), second.tolist()]
    assert teacher.net.asked == [first.tolist()]
    assert other.net.net.asked == [first.tolist(), second.tolist()]


def test_guidance_on_the_teacher_reaches_the_real_score_and_no_other(double):
    """By hand: μ_real = 3 μ(x_t | label) − 2 μ(x_t), the gradient per sample, and its norm."""
    one, other = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2))
    teacher = painter(0.6, 3)
    step = dmd.DMD(one, other, partial(teacher, guidance=2.0), 6, dmd.Settings())
    values = step(generator(3))
    z, eps, label, t = drawn(generator(3), 6, 20, 1004)
    assert teacher.net.asked == [label.tolist() + [3] * 6]
    assert 3 not in sum(one.net.net.asked + other.net.net.asked, [])

    x = 0.5 * z + one.net.net.b.detach()[label]
    x_t = S.noise(x, t, eps)
    b = teacher.net.b.detach()
    mu_real = 3 * (0.6 * x_t + b[label]) - 2 * (0.6 * x_t + b[[3] * 6])
    g = 0.4 * x_t + other.net.net.b.detach()[label] - mu_real
    g = g / (x - mu_real).abs().mean((1, 2, 3), keepdim=True)
    to_a, to_b = one.gradients[0]
    torch.testing.assert_close(to_a, (g * z).mean())
    torch.testing.assert_close(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, g / 24))
    assert values["matching"].item() == pytest.approx(0.5 * g.square().mean().item())
    norms = [math.sqrt(sum((value / 4) ** 2 for value in one.flatten().tolist()))
             for one in g]  # B dL/dx_i = g_i / 4
    assert values["matching gradient"].item() == pytest.approx(sum(norms) / 6)


def test_the_regressions_gradient_at_an_image_by_hand(double):
    one, pairs = Recorder(painter(0.5, 2)), painted_pairs()
    how = dmd.Settings(fake=False, n_pairs=12, regression_weight=0.125)
    values = dmd.DMD(one, None, painter(0.6, 3), 6, how, pairs=pairs)(generator(3))
    g = generator(3)
    drawn(g, 6, 20, 1004)
    z, x, label = pairs.batch(torch.randint(12, (6,), generator=g))
    error = 0.5 * z + one.net.net.b.detach()[label] - x
    norms = [0.125 * 2 / 4 * math.sqrt(sum(value**2 for value in image.flatten().tolist()))
             for image in error]
    assert values["regression gradient"].item() == pytest.approx(sum(norms) / 6)
    assert values["regression"].item() == pytest.approx(error.square().mean().item())


def by_regression(weight: float = 0.5) -> dmd.Settings:
    return dmd.Settings(matching=False, n_pairs=12, regression_weight=weight)


def test_the_distance_that_is_given_is_the_one_that_is_used(double):
    """Σ |2 G(z) − x| pulls at every pixel with 2: the norm is 2 √4, and only this way round."""
    one, pairs = Recorder(painter(0.5, 2)), painted_pairs()

    def uneven(x, y):
        return (2 * x - y).abs().sum((1, 2, 3))

    step = dmd.DMD(one, None, painter(0.6, 3), 6, by_regression(), pairs=pairs, distance=uneven)
    values = step(generator(3))
    z, x, label = pairs.batch(torch.randint(12, (6,), generator=generator(3)))
    by_hand = (2 * (0.5 * z + one.net.net.b.detach()[label]) - x).abs().sum() / 6
    assert values["regression"].item() == pytest.approx(by_hand.item())
    assert values["regression gradient"].item() == pytest.approx(0.5 * 2 * 2)


def test_without_matching_only_the_regression_is_left(double):
    one, pairs = Recorder(painter(0.5, 2)), painted_pairs()

    def never(*_):
        pytest.fail("the real score was asked")

    values = dmd.DMD(one, None, never, 6, by_regression(), pairs=pairs)(generator(3))
    assert set(values) == {"regression", "regression gradient"} and len(one.gradients) == 1
    z, x, label = pairs.batch(torch.randint(12, (6,), generator=generator(3)))
    error = 0.5 * z + one.net.net.b.detach()[label] - x
    to_a, to_b = one.gradients[0]
    torch.testing.assert_close(to_a, 0.5 * 2 * (error * z).mean())
    by_hand = torch.zeros(4, 1, 2, 2).index_add(0, label, 0.5 * 2 * error / 24)
    torch.testing.assert_close(to_b, by_hand)


def trained_on(pairs: Pairs) -> tuple[list[float], float, train.Learner]:
    """A few steps of regression for a generator that already maps each of ``painted_pairs`` onto
    its sample: the losses, the first one by hand, and the learner."""
    one = learner(painter(0.7, 1), n_steps=4)
    step = dmd.DMD(one, None, None, 6, by_regression(), pairs=pairs)
    losses = [record.values["regression"] for record in run(step, {"generator": one}, 4, seed=1)]
    index = torch.randint(12, (6,), generator=noise.generator("training", 1, 0))
    z, x, label = pairs.z[index], pairs.x[index], pairs.label[index]
    return losses, (painter(0.7, 1)(z, 1023, label).x - x).square().mean().item(), one


def test_labels_stay_with_their_pairs(double):
    """What a generator of the right function has to learn: nothing. With the labels against their
    pairs: much."""
    pairs, fresh = painted_pairs(), painter(0.7, 1)
    losses, by_hand, one = trained_on(pairs)
    assert losses == [0, 0, 0, 0] and by_hand == 0
    assert equal(weights(one.net), weights(fresh))
    losses, by_hand, one = trained_on(pairs._replace(label=pairs.label.roll(1)))
    assert losses[0] == pytest.approx(by_hand) and by_hand > 0.5
    assert not torch.equal(one.net.net.b, fresh.net.b)


def test_each_loss_reaches_its_own_network_alone_also_in_a_unet(double):
    """In float64 the generator's gradients are those that its samples' chain rule gives; the rest
    gets none."""
    networks = {name: training_run.denoiser(seed)
                for seed, name in enumerate(("generator", "fake", "teacher"))}
    one, other = Recorder(networks["generator"]), Recorder(networks["fake"])
    found = []

    def update(name, loss):
        loss.backward()
        found.append((name, {key: [p.grad for p in net.parameters()]
                             for key, net in networks.items()
                             if any(p.grad is not None for p in net.parameters())}))
        for net in networks.values():
            net.zero_grad(set_to_none=True)

    one.update, other.update = partial(update, "generator"), partial(update, "fake")
    z, y, label = torch.randn(4, 1, 28, 28), torch.rand(4, 1, 28, 28), torch.arange(4)
    teacher = partial(networks["teacher"], guidance=0.5)
    step = dmd.DMD(one, other, teacher, 2, dmd.Settings(n_pairs=4), pairs=Pairs(z, y, label))
    step(generator(3))
    reached = [(name, list(gradients)) for name, gradients in found]
    assert reached == [("generator", ["generator"]), ("fake", ["fake"])]

    g = generator(3)
    z_own, eps, label_own, t = drawn(g, 2, 20, 1004, (1, 28, 28), 10)
    index = torch.randint(4, (2,), generator=g)
    x = networks["generator"](z_own, 1023, label_own).x
    again = networks["generator"](z[index], 1023, label[index]).x
    with torch.no_grad():
        x_t = S.noise(x, t, eps)
        mu_real = teacher(x_t, t, label_own).x
        mu_fake = networks["fake"](x_t, t, label_own).x
        size = (x - mu_real).abs().mean((1, 2, 3), keepdim=True)
    outputs = [(mu_fake - mu_real) / size / x.numel(),
               0.25 * 2 * (again.detach() - y[index]) / x.numel()]
    by_hand = torch.autograd.grad([x, again], list(one.net.parameters()), outputs)
    for got, wanted in zip(found[0][1]["generator"], by_hand):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)
