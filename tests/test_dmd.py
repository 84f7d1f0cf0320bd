"""Distribution matching: its gradient against the KL's own, its loss by hand, and who learns what in a step."""
import math
from types import SimpleNamespace

import pytest
import torch
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
        self.seen = []

    def update(self, loss):
        self.seen.append([g.item() if g is not None else None for g in torch.autograd.grad(
            loss, list(self.net.parameters()), allow_unused=True)])


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


def test_labels_stay_with_their_pairs():
    pairs = dmd.Pairs(torch.arange(10.0)[:, None], -torch.arange(10.0)[:, None], torch.arange(10))
    got = pairs.batch(torch.tensor([7, 2, 2]))
    assert got.z.flatten().tolist() == [7, 2, 2] == got.label.tolist() and got.x.flatten().tolist() == [-7, -2, -2]


@pytest.mark.parametrize("updates, seen", [((1, 1), (1, 1)), ((1, 5), (1, 5)), ((4, 1), (4, 1)), ((1, 0), (1, 0))])
def test_the_ratio_of_updates(updates, seen):
    one, other = Recorder(line(0.7, 0.2)), Recorder(line(0.4, -0.3))
    dmd.dmd_step(one, other, real, 4, updates=updates)(generator())
    assert (len(one.seen), len(other.seen)) == seen


def test_without_a_fake_score_it_is_score_distillation():
    """DreamFusion's gradient, w (ε̂ − ε), is α/σ (x − μ_real): with x in place of μ_fake ours is the same direction."""
    one = Recorder(line(0.7, 0.2))
    values = dmd.dmd_step(one, None, real, 6, weighting="none")(generator(2))
    assert set(values) == {"matching"}
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


# Bad input

@pytest.mark.parametrize("change, sentence", [
    (dict(t_range=(0.5, 0.2)), r"t_range must be two shares of T.*got \(0\.5, 0\.2\)"),
    (dict(t_range=(0.02, 1.5)), r"t_range must be two shares of T"),
    (dict(updates=(0, 1)), r"at least one of the generator and none of the fake; got \(0, 1\)"),
    (dict(weighting="heavy"), "weighting must be one of released, paper, kl, none; got 'heavy'"),
])
def test_bad_input_is_one_sentence_before_any_work(change, sentence):
    one, other = Recorder(line(0.7, 0.2)), Recorder(line(0.4, -0.3))
    with pytest.raises(ValueError, match=sentence):
        dmd.dmd_step(one, other, real, 4, **change)


def test_an_unknown_weighting_is_named():
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match="weighting must be one of"):
        dmd.matching_gradient(x, x, x, *S.at(5, x), "heavy")
