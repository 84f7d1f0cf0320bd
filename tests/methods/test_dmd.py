"""Distribution matching: its gradient against the KL's own, its loss by hand, and who learns what in a step."""
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import training_run
from conftest import refused
from torch import nn

from dmdkit import dmd, nets, schedule, score, train
from dmdkit.denoiser import Denoiser, predict

S = schedule.cosine()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean, covariance) -> score.GaussianMixture:
    return score.GaussianMixture(mean[None], covariance[None], torch.ones(1))


def kl(mean_f, cov_f, mean_r, cov_r) -> torch.Tensor:
    """KL(N_f ‖ N_r), by torch's closed form."""
    normal = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(normal(mean_f, cov_f), normal(mean_r, cov_r))


# The gradient

PROBLEMS = {1: (torch.tensor([0.3]), torch.tensor([[0.5]]), torch.tensor([-0.4]), torch.tensor([[0.8]])),
            2: (torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.0], [0.2, 0.3]]), torch.tensor([-0.4, 0.5]),
                torch.tensor([[0.8, 0.0], [-0.3, 0.6]]))}


def estimate(dimension: int, t: int, n: int, seed: int):
    """∂/∂(mean, factor) of KL(p_fake,t ‖ p_real,t) for x = m + L z, estimated through the stop-gradient loss with
    exact scores, and in closed form by autograd of the KL of two Gaussians."""
    m, factor, m_real, factor_real = (p.double() for p in PROBLEMS[dimension])
    m, factor = m.clone().requires_grad_(), factor.clone().requires_grad_()
    real = score.Exact(gaussian(m_real, factor_real @ factor_real.T), S)
    fake = score.Exact(gaussian(m.detach(), (factor @ factor.T).detach()), S)
    g = generator(seed)
    z, eps = (torch.randn(n, dimension, generator=g, dtype=torch.float64) for _ in "ze")
    x = m + z @ factor.T
    with torch.no_grad():
        x_t = S.noise(x, t, eps)
        gradient = dmd.matching_gradient(x, real(x_t, t).x, fake(x_t, t).x, *S.at(t, x), "kl")
    estimated = torch.autograd.grad(dmd.matching_loss(x, gradient) * dimension, (m, factor))
    alpha, sigma = (float(v) for v in S.at(t, torch.empty(1, dtype=torch.float64)))
    noised = lambda f: alpha**2 * f @ f.T + sigma**2 * torch.eye(dimension, dtype=torch.float64)
    exact = torch.autograd.grad(kl(alpha * m, noised(factor), alpha * m_real, noised(factor_real)), (m, factor))
    return estimated, exact


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("t", [200, 600])
def test_it_is_the_gradient_of_the_kl_of_two_gaussians_and_the_error_falls_as_one_over_root_n(dimension, t):
    error = {}
    for n in (1_000, 16_000):
        squares = []
        for seed in range(24):
            estimated, exact = estimate(dimension, t, n, seed)
            squares.append(sum((a - b).square().sum() for a, b in zip(estimated, exact)))
        error[n] = torch.stack(squares).mean().sqrt()
        size = sum(b.square().sum() for b in exact).sqrt()
    assert error[16_000] < 0.1 * size
    assert 2.4 < error[1_000] / error[16_000] < 6.5  # 4 in expectation: the root of 16


@pytest.mark.parametrize("weighting", dmd.WEIGHTINGS)
def test_where_real_is_fake_there_is_nothing_to_learn(weighting):
    mixture = score.ring()
    x = mixture.sample(50, generator())
    x_t = S.noise(x, 300, torch.randn(50, 2))
    mu = score.Exact(mixture, S)(x_t, 300).x
    assert torch.equal(dmd.matching_gradient(x, mu, mu.clone(), *S.at(300, x), weighting), torch.zeros(50, 2))


def test_with_a_fake_score_learned_from_other_samples_of_the_real_data_it_is_zero_in_expectation():
    """The fake score is the exact one of 4,000 samples of the real data: no point is at rest, their mean is."""
    mixture = score.two_modes()
    real = score.Exact(mixture, S)
    fake = score.Exact(score.FiniteSet(mixture.sample(4_000, generator(1))), S)
    x = mixture.sample(4_000, generator(2))
    x_t = S.noise(x, 300, torch.randn(4_000, 2, generator=generator(3)))
    g = dmd.matching_gradient(x, real(x_t, 300).x, fake(x_t, 300).x, *S.at(300, x), "kl")
    shuffled = dmd.matching_gradient(x, real(x_t, 300).x, real(x_t.flip(0), 300).x, *S.at(300, x), "kl")
    assert 0 < g.abs().mean() < 0.3 * shuffled.abs().mean()
    assert (g.mean(0).abs() < 4 * shuffled.std(0) / math.sqrt(4_000)).all()


def test_the_weightings_by_hand():
    x, mu_r, mu_f = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]])
    alpha, sigma = torch.tensor([[0.6]]), torch.tensor([[0.8]])
    by_hand = {"none": [3.0, -1.0], "released": [3.0, -1.0], "paper": [1.8, -0.6], "kl": [27 / 16, -9 / 16]}
    for weighting, wanted in by_hand.items():  # mean |x − μ_real| is 1
        got = dmd.matching_gradient(x, mu_r, mu_f, alpha, sigma, weighting)
        torch.testing.assert_close(got, torch.tensor([wanted]))
    double = dmd.matching_gradient(2 * x, 2 * mu_r, 2 * mu_f, alpha, sigma)
    torch.testing.assert_close(double, dmd.matching_gradient(x, mu_r, mu_f, alpha, sigma))  # of no unit


def test_the_normalisation_is_per_sample_also_for_images():
    x, mu_r, mu_f = (torch.randn(3, 1, 4, 4, dtype=torch.float64) for _ in range(3))
    g = dmd.matching_gradient(x, mu_r, mu_f, *S.at(torch.tensor([1, 2, 3]), x))
    for i in range(3):
        torch.testing.assert_close(g[i], (mu_f[i] - mu_r[i]) / (x[i] - mu_r[i]).abs().mean())


def test_nothing_over_nothing_is_nothing():
    x = torch.ones(2, 2)
    assert torch.equal(dmd.matching_gradient(x, x, x, *S.at(5, x)), torch.zeros(2, 2))


def test_the_difference_of_means_is_a_difference_of_scores():
    """s_fake − s_real = α (μ_fake − μ_real) / σ²: why denoised predictions may stand in for scores."""
    x_t = torch.randn(20, 2, dtype=torch.float64)
    real, fake = score.Exact(score.ring(), S), score.Exact(score.two_modes(), S)
    for t in (10, 300, 1000):
        alpha, sigma = S.at(t, x_t)
        a, b = fake(x_t, t), real(x_t, t)
        torch.testing.assert_close(a.score - b.score, alpha * (a.x - b.x) / sigma**2)


# The loss

def test_the_matching_loss_hands_over_the_gradient_and_only_that():
    x, g = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    loss = dmd.matching_loss(x, g)
    assert loss.item() == pytest.approx(0.5 * g.square().mean().item())
    to_x, to_g = torch.autograd.grad(loss, (x, g), allow_unused=True)
    torch.testing.assert_close(to_x, g.detach() / 12)
    assert to_g is None


# The step

class Line(nn.Module):
    """A network of two weights: x-prediction a z + b at every t. Small enough to follow by hand."""
    sample_shape = (1,)

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x, t, class_labels=None):
        return SimpleNamespace(sample=self.a * x + self.b)


class Recorder(train.Learner):
    """A learner that keeps its gradients and takes no step."""

    def __init__(self, net):
        super().__init__(net, train.accelerator(cpu=True), lr=0.0, n_steps=10, ema=0.0, max_grad_norm=1e9)
        self.gradients = []

    def update(self, loss):
        self.gradients.append(torch.autograd.grad(loss, list(self.net.parameters()), allow_unused=True))

    @property
    def seen(self):
        return [[g.item() if g is not None else None for g in gradients] for gradients in self.gradients]


def line(a: float, b: float) -> Denoiser:
    return Denoiser(Line(a, b), S, "x", n_classes=0)


def real(x_t, t, label=None):
    alpha, sigma = S.at(t, x_t)
    return predict("x", 0.5 * x_t - 1, x_t, alpha, sigma)


def test_a_step_by_hand():
    """The generator's gradients equal Σ g · ∂x/∂θ / numel, the fake score's those of its regression, and neither
    network sees the other's loss."""
    g_learner, f_learner = Recorder(line(0.7, 0.2)), Recorder(line(0.4, -0.3))
    step = dmd.dmd_step(g_learner, f_learner, real, 6, weighting="none", t_range=(0.1, 0.9))
    values = step(generator(5))

    g = generator(5)
    z, eps = (torch.randn(6, 1, generator=g) for _ in "ze")
    t = torch.randint(102, 922, (6,), generator=g)
    x = 0.7 * z + 0.2
    x_t = S.noise(x, t, eps)
    gradient = (0.4 * x_t - 0.3) - (0.5 * x_t - 1)
    wanted = [(gradient * z).sum().item() / 6, gradient.sum().item() / 6]
    assert g_learner.seen == [pytest.approx(wanted, rel=1e-5)]
    assert values["matching"].item() == pytest.approx(0.5 * gradient.square().mean().item(), rel=1e-5)

    z, eps = (torch.randn(6, 1, generator=g) for _ in "ze")
    t = torch.randint(0, 1024, (6,), generator=g)
    x = 0.7 * z + 0.2
    x_t = S.noise(x, t, eps)
    error = 0.4 * x_t - 0.3 - x
    assert f_learner.seen == [pytest.approx([2 * (error * x_t).mean().item(), 2 * error.mean().item()], rel=1e-5)]
    assert values["fake"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def test_with_pairs_a_step_regresses_each_noise_to_its_own_sample():
    pairs = dmd.Pairs(torch.arange(50.0)[:, None] / 50, 3 * torch.arange(50.0)[:, None] / 50)
    with_pairs, without = Recorder(line(0.7, 0.2)), Recorder(line(0.7, 0.2))
    fake = Recorder(line(0.4, -0.3))
    values = dmd.dmd_step(with_pairs, fake, real, 8, pairs=pairs, regression_weight=0.5)(generator(1))
    dmd.dmd_step(without, fake, real, 8)(generator(1))
    g = generator(1)
    for _ in "ze":
        torch.randn(8, 1, generator=g)
    torch.randint(20, 1004, (8,), generator=g)
    z = pairs.z[torch.randint(50, (8,), generator=g)]
    error = 0.7 * z + 0.2 - 3 * z
    more = [2 * 0.5 * (error * z).mean().item(), 2 * 0.5 * error.mean().item()]
    assert with_pairs.seen[0] == pytest.approx([a + b for a, b in zip(without.seen[0], more)], rel=1e-4)
    assert values["regression"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("updates, seen", [((1, 1), (1, 1)), ((1, 5), (1, 5)), ((4, 1), (4, 1)), ((1, 0), (1, 0))])
def test_the_ratio_of_updates(updates, seen):
    one, other = Recorder(line(0.7, 0.2)), Recorder(line(0.4, -0.3))
    dmd.dmd_step(one, other, real, 4, updates=updates)(generator())
    assert (len(one.seen), len(other.seen)) == seen


def test_without_a_fake_score_it_is_score_distillation():
    """DreamFusion's gradient, w (ε̂ − ε), is α/σ (x − μ_real): with x in place of μ_fake ours is the same direction."""
    one = Recorder(line(0.7, 0.2))
    values = dmd.dmd_step(one, None, real, 6, weighting="none")(generator(2))
    assert set(values) == {"matching", "matching gradient"}
    g = generator(2)
    z, eps = (torch.randn(6, 1, generator=g) for _ in "ze")
    t = torch.randint(20, 1004, (6,), generator=g)
    x = 0.7 * z + 0.2
    x_t = S.noise(x, t, eps)
    alpha, sigma = S.at(t, x)
    sds = sigma / alpha * (real(x_t, t).eps - eps)
    assert one.seen[0] == pytest.approx([(sds * z).mean().item(), sds.mean().item()], rel=1e-3)


def test_the_teacher_gets_no_gradient_and_never_changes():
    teacher = line(0.5, -1.0)
    before = [p.clone() for p in teacher.parameters()]
    one, other = (train.Learner(line(*w), train.accelerator(cpu=True), lr=0.1, n_steps=5, warmup=0, ema=0.0)
                  for w in ((0.7, 0.2), (0.4, -0.3)))
    start = [[p.clone() for p in learner.net.parameters()] for learner in (one, other)]
    for _ in train.train(dmd.dmd_step(one, other, teacher, 16), {"generator": one, "fake": other}, n_steps=3):
        pass
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(teacher.parameters(), before))
    for learner, old in zip((one, other), start):
        assert all(not torch.equal(p, q) for p, q in zip(learner.net.parameters(), old))


def test_a_generator_on_a_gaussian_converges_to_its_mean_and_covariance():
    """x = m + L z with the exact fake score of N(m, L Lᵀ) at every step."""
    mean, factor = torch.tensor([0.4, -0.3]), torch.tensor([[0.5, 0.0], [0.25, 0.3]])
    real = score.Exact(gaussian(mean, factor @ factor.T), S)
    m, own = nn.Parameter(torch.tensor([-0.5, 0.5])), nn.Parameter(0.1 * torch.eye(2))
    optimizer, g = torch.optim.Adam([m, own], 0.02), generator()
    for i in range(600):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - i / 600)
        z, eps = (torch.randn(256, 2, generator=g) for _ in "ze")
        t = torch.randint(20, 1004, (256,), generator=g)
        x = m + z @ own.T
        with torch.no_grad():
            x_t = S.noise(x, t, eps)
            fake = score.Exact(gaussian(m.detach(), own @ own.T), S)
            gradient = dmd.matching_gradient(x, real(x_t, t).x, fake(x_t, t).x, *S.at(t, x))
        optimizer.zero_grad()
        dmd.matching_loss(x, gradient).backward()
        optimizer.step()
    torch.testing.assert_close(m.data, mean, atol=0.02, rtol=0)
    torch.testing.assert_close((own @ own.T).data, factor @ factor.T, atol=0.02, rtol=0)


def test_a_learned_fake_score_leads_a_network_to_a_gaussian_too():
    target = gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.09, 0.03], [0.03, 0.04]]))
    torch.manual_seed(0)
    one, other = (train.Learner(Denoiser(nets.PointNet(32), S, "v", n_classes=0), train.accelerator(cpu=True), lr=4e-3,
                                n_steps=n, warmup=5, ema=0.0) for n in (400, 10**6))
    step = dmd.dmd_step(one, other, score.Exact(target, S), 128, updates=(1, 5))
    for _ in train.train(step, {"generator": one, "fake": other}, n_steps=400):
        pass
    x = one.net(torch.randn(4_000, 2, generator=generator()), S.T - 1).x.detach()
    torch.testing.assert_close(x.mean(0), target.means[0], atol=0.03, rtol=0)
    torch.testing.assert_close(x.T.cov(), target.covariances[0], atol=0.02, rtol=0)


# The step on labelled images

@pytest.fixture
def double():
    """Everything in float64, so that a value by hand is the value."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Painter(nn.Module):
    """A network for 2 × 2 images: x-prediction a x + b[label]. It notes the labels it is asked for."""
    sample_shape = (1, 2, 2)

    def __init__(self, a: float, seed: int, n_classes: int = 3):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))
        self.b = nn.Parameter(torch.randn(n_classes + 1, 1, 2, 2, generator=generator(seed)))
        self.asked = []

    def forward(self, x, t, class_labels):
        self.asked.append(class_labels.tolist())
        return SimpleNamespace(sample=self.a * x + self.b[class_labels])


def painter(a: float, seed: int) -> Denoiser:
    return Denoiser(Painter(a, seed), S, "x", n_classes=3)


def drawn(g: torch.Generator, n: int, low: int, high: int, shape=(1, 2, 2), n_classes: int = 3):
    """What a term of the step draws: noise for the samples, noise for noising them, labels and times."""
    z, eps = (torch.randn(n, *shape, generator=g) for _ in "ze")
    return z, eps, torch.randint(n_classes, (n,), generator=g), torch.randint(low, high, (n,), generator=g)


def painted(n: int = 12, seed: int = 4) -> dmd.Pairs:
    """Pairs that a Painter of (0.7, seed 1) maps onto one another: x is a function of the noise and of the label."""
    z = torch.randn(n, 1, 2, 2, generator=generator(seed))
    net, label = Painter(0.7, 1), torch.arange(n) % 3
    return dmd.Pairs(z, net(z, None, label).sample.detach(), label)


def test_every_network_is_asked_for_the_labels_that_the_samples_have(double):
    one, other, teacher = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2)), painter(0.6, 3)
    pairs = painted()
    dmd.dmd_step(one, other, teacher, 6, pairs=pairs)(generator(3))
    g = generator(3)
    _, _, first, _ = drawn(g, 6, 20, 1004)
    index = torch.randint(12, (6,), generator=g)
    _, _, second, _ = drawn(g, 6, 0, 1024)
    assert len(set(first.tolist())) == 3 and first.tolist() != second.tolist()
    assert one.net.net.asked == [first.tolist(), (index % 3).tolist(), second.tolist()]
    assert teacher.net.asked == [first.tolist()] and other.net.net.asked == [first.tolist(), second.tolist()]


def test_guidance_on_the_teacher_reaches_the_real_score_and_no_other(double):
    """By hand: μ_real = 3 μ(x_t | label) − 2 μ(x_t), the gradient per sample, and its norm."""
    one, other, teacher = Recorder(painter(0.5, 1)), Recorder(painter(0.4, 2)), painter(0.6, 3)
    values = dmd.dmd_step(one, other, partial(teacher, guidance=2.0), 6)(generator(3))
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
    norms = [math.sqrt(sum((value / 4) ** 2 for value in one.flatten().tolist())) for one in g]  # B dL/dx_i = g_i / 4
    assert values["matching gradient"].item() == pytest.approx(sum(norms) / 6)


def test_the_regressions_gradient_at_an_image_by_hand(double):
    one, pairs = Recorder(painter(0.5, 2)), painted()
    values = dmd.dmd_step(one, None, painter(0.6, 3), 6, pairs=pairs, regression_weight=0.25)(generator(3))
    g = generator(3)
    drawn(g, 6, 20, 1004)
    z, x, label = pairs.batch(torch.randint(12, (6,), generator=g))
    error = 0.5 * z + one.net.net.b.detach()[label] - x
    norms = [0.25 * 2 / 4 * math.sqrt(sum(value**2 for value in image.flatten().tolist())) for image in error]
    assert values["regression gradient"].item() == pytest.approx(sum(norms) / 6)
    assert values["regression"].item() == pytest.approx(error.square().mean().item())


def test_the_distance_that_is_given_is_the_one_that_is_used(double):
    """Σ |2 G(z) − x| pulls at every pixel with 2: the norm is 2 √4, and only this way round."""
    one, pairs = Recorder(painter(0.5, 2)), painted()
    crooked = lambda x, y: (2 * x - y).abs().sum((1, 2, 3))
    values = dmd.dmd_step(one, None, painter(0.6, 3), 6, matching=False, pairs=pairs, regression_weight=0.5,
                          distance=crooked)(generator(3))
    z, x, label = pairs.batch(torch.randint(12, (6,), generator=generator(3)))
    by_hand = (2 * (0.5 * z + one.net.net.b.detach()[label]) - x).abs().sum() / 6
    assert values["regression"].item() == pytest.approx(by_hand.item())
    assert values["regression gradient"].item() == pytest.approx(0.5 * 2 * 2)


def test_without_matching_only_the_regression_is_left(double):
    one, pairs = Recorder(painter(0.5, 2)), painted()
    never = lambda *_: pytest.fail("the real score was asked")
    values = dmd.dmd_step(one, None, never, 6, matching=False, pairs=pairs, regression_weight=0.5)(generator(3))
    assert set(values) == {"regression", "regression gradient"} and len(one.gradients) == 1
    z, x, label = pairs.batch(torch.randint(12, (6,), generator=generator(3)))
    error = 0.5 * z + one.net.net.b.detach()[label] - x
    to_a, to_b = one.gradients[0]
    torch.testing.assert_close(to_a, 0.5 * 2 * (error * z).mean())
    torch.testing.assert_close(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, 0.5 * 2 * error / 24))


def trained_on(pairs: dmd.Pairs) -> tuple[list[float], float, train.Learner]:
    """A few steps of regression for a generator that already maps each of ``painted`` onto its sample: the losses, the
    first one by hand, and the learner."""
    one = train.Learner(painter(0.7, 1), train.accelerator(cpu=True), lr=0.1, n_steps=4, warmup=0, ema=0.0)
    step = dmd.dmd_step(one, None, None, 6, matching=False, pairs=pairs)
    losses = [record.values["regression"] for record in train.train(step, {"generator": one}, n_steps=4, seed=1)]
    index = torch.randint(12, (6,), generator=generator(1_000_003))  # the first step's generator
    z, x, label = pairs.z[index], pairs.x[index], pairs.label[index]
    return losses, (painter(0.7, 1)(z, 1023, label).x - x).square().mean().item(), one


def test_labels_stay_with_their_pairs(double):
    """What a generator of the right function has to learn: nothing. With the labels against their pairs: much."""
    pairs = painted()
    losses, by_hand, one = trained_on(pairs)
    assert losses == [0, 0, 0, 0] and by_hand == 0
    assert all(torch.equal(p, q) for p, q in zip(one.net.parameters(), painter(0.7, 1).parameters()))
    losses, by_hand, one = trained_on(pairs._replace(label=pairs.label.roll(1)))
    assert losses[0] == pytest.approx(by_hand) and by_hand > 0.5
    assert not torch.equal(one.net.net.b, painter(0.7, 1).net.b)


def test_each_loss_reaches_its_own_network_alone_also_in_a_unet(double):
    """In float64 the generator's gradients are those that its samples' chain rule gives; the rest gets none."""
    nets_by_name = {name: training_run.denoiser(seed) for seed, name in enumerate(("generator", "fake", "teacher"))}
    one, other = (Recorder(nets_by_name[name]) for name in ("generator", "fake"))
    found = []

    def update_of(name):
        def update(loss):
            loss.backward()
            found.append((name, {key: [p.grad for p in net.parameters()] for key, net in nets_by_name.items()
                                 if any(p.grad is not None for p in net.parameters())}))
            for net in nets_by_name.values():
                net.zero_grad(set_to_none=True)

        return update

    one.update, other.update = update_of("generator"), update_of("fake")
    z, y, label = torch.randn(4, 1, 28, 28), torch.rand(4, 1, 28, 28), torch.arange(4)
    teacher = partial(nets_by_name["teacher"], guidance=0.5)
    dmd.dmd_step(one, other, teacher, 2, updates=(1, 1), pairs=dmd.Pairs(z, y, label))(generator(3))
    assert [(name, list(gradients)) for name, gradients in found] == [("generator", ["generator"]), ("fake", ["fake"])]

    g = generator(3)
    z_own, eps, label_own, t = drawn(g, 2, 20, 1004, (1, 28, 28), 10)
    index = torch.randint(4, (2,), generator=g)
    x, again = (nets_by_name["generator"](*inputs).x for inputs in
                ((z_own, 1023, label_own), (z[index], 1023, label[index])))
    with torch.no_grad():
        x_t = S.noise(x, t, eps)
        mu_real, mu_fake = teacher(x_t, t, label_own).x, nets_by_name["fake"](x_t, t, label_own).x
        size = (x - mu_real).abs().mean((1, 2, 3), keepdim=True)
    outputs = [(mu_fake - mu_real) / size / x.numel(), 0.25 * 2 * (again.detach() - y[index]) / x.numel()]
    by_hand = torch.autograd.grad([x, again], list(one.net.parameters()), outputs)
    for got, wanted in zip(found[0][1]["generator"], by_hand):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)


# Bad input

@pytest.mark.parametrize("change, sentence", [
    (dict(t_range=(0.5, 0.2)), r"t_range must be two shares of T.*got \(0\.5, 0\.2\)"),
    (dict(t_range=(0.02, 1.5)), r"t_range must be two shares of T"),
    (dict(updates=(0, 1)), r"at least one of the generator and none of the fake; got \(0, 1\)"),
    (dict(weighting="heavy"), "weighting must be one of released, paper, kl, none; got 'heavy'"),
    (dict(matching=False), "Without the matching term and without pairs the generator has nothing to learn from"),
])
def test_bad_input_is_one_sentence_before_any_work(change, sentence):
    one, other = Recorder(line(0.7, 0.2)), Recorder(line(0.4, -0.3))
    with refused(ValueError, sentence):
        dmd.dmd_step(one, other, real, 4, **change)


def test_an_unknown_weighting_is_named():
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match="weighting must be one of"):
        dmd.matching_gradient(x, x, x, *S.at(5, x), "heavy")
