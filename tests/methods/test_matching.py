"""Distribution matching: its gradient against the KL's own, and its loss by hand."""
import math

import pytest
import torch
from conftest import refused
from painters import S, equal, gaussian, generator, weights
from torch import nn

from dmdkit import score, train
from dmdkit.methods import dmd
from dmdkit.methods.distillation import WEIGHTINGS


def kl(mean_f, cov_f, mean_r, cov_r) -> torch.Tensor:
    """KL(N_f ‖ N_r), by torch's closed form."""
    normal = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(normal(mean_f, cov_f), normal(mean_r, cov_r))


# The gradient

PROBLEMS = {  # mean and factor of the covariance: of the fake, of the real
    1: (torch.tensor([0.3]), torch.tensor([[0.5]]), torch.tensor([-0.4]), torch.tensor([[0.8]])),
    2: (torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.0], [0.2, 0.3]]),
        torch.tensor([-0.4, 0.5]), torch.tensor([[0.8, 0.0], [-0.3, 0.6]]))}


def estimate(dimension: int, t: int, n: int, seed: int):
    """∂/∂(mean, factor) of KL(p_fake,t ‖ p_real,t) for x = m + L z, estimated through the
    stop-gradient loss with exact scores, and in closed form by autograd of the KL of two
    Gaussians."""
    m, factor, m_real, factor_real = (p.double() for p in PROBLEMS[dimension])
    m, factor = m.clone().requires_grad_(), factor.clone().requires_grad_()
    real = score.Exact(gaussian(m_real, factor_real @ factor_real.T), S)
    fake = score.Exact(gaussian(m.detach(), (factor @ factor.T).detach()), S)
    g = generator(seed)
    z = torch.randn(n, dimension, generator=g, dtype=torch.float64)
    eps = torch.randn(n, dimension, generator=g, dtype=torch.float64)
    x = m + z @ factor.T
    with torch.no_grad():
        x_t = S.noise(x, t, eps)
        gradient = dmd.matching_gradient(x, real(x_t, t).x, fake(x_t, t).x, *S.at(t, x), "kl")
    loss = dmd.matching_loss(x, gradient) * dimension
    estimated = torch.autograd.grad(loss, (m, factor))
    alpha, sigma = (float(v) for v in S.at(t, torch.empty(1, dtype=torch.float64)))

    def covariance(f):
        return alpha**2 * f @ f.T + sigma**2 * torch.eye(dimension, dtype=torch.float64)

    divergence = kl(alpha * m, covariance(factor), alpha * m_real, covariance(factor_real))
    return estimated, torch.autograd.grad(divergence, (m, factor))


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("t", [200, 600])
def test_it_is_the_gradient_of_the_kl_of_two_gaussians_and_the_error_falls_as_one_over_root_n(
        dimension, t):
    error = {}
    for n in (1_000, 16_000):
        squares = []
        for seed in range(16):
            estimated, exact = estimate(dimension, t, n, seed)
            squares.append(sum((a - b).square().sum() for a, b in zip(estimated, exact)))
        error[n] = torch.stack(squares).mean().sqrt()
        size = sum(b.square().sum() for b in exact).sqrt()
    assert error[16_000] < 0.1 * size
    assert 2.4 < error[1_000] / error[16_000] < 6.5  # 4 in expectation: the root of 16


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_where_real_is_fake_there_is_nothing_to_learn(weighting):
    mixture = score.ring()
    x = mixture.sample(50, generator())
    x_t = S.noise(x, 300, torch.randn(50, 2))
    mu = score.Exact(mixture, S)(x_t, 300).x
    found = dmd.matching_gradient(x, mu, mu.clone(), *S.at(300, x), weighting)
    assert torch.equal(found, torch.zeros(50, 2))


def test_with_a_fake_score_learned_from_other_samples_of_the_real_data_it_is_zero_in_expectation():
    """The fake score is the exact one of 4,000 samples of the real data: no point is at rest, their
    mean is."""
    mixture = score.two_modes()
    real = score.Exact(mixture, S)
    fake = score.Exact(score.FiniteSet(mixture.sample(4_000, generator(1))), S)
    x = mixture.sample(4_000, generator(2))
    x_t = S.noise(x, 300, torch.randn(4_000, 2, generator=generator(3)))
    mu_real, at = real(x_t, 300).x, S.at(300, x)
    g = dmd.matching_gradient(x, mu_real, fake(x_t, 300).x, *at, "kl")
    shuffled = dmd.matching_gradient(x, mu_real, real(x_t.flip(0), 300).x, *at, "kl")
    assert 0 < g.abs().mean() < 0.3 * shuffled.abs().mean()
    assert (g.mean(0).abs() < 4 * shuffled.std(0) / math.sqrt(4_000)).all()


def test_the_weightings_by_hand():
    x, mu_r = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    mu_f = torch.tensor([[3.0, 0.0]])
    alpha, sigma = torch.tensor([[0.6]]), torch.tensor([[0.8]])
    by_hand = {"none": [3.0, -1.0], "released": [3.0, -1.0], "paper": [1.8, -0.6],
               "kl": [27 / 16, -9 / 16]}
    for weighting, wanted in by_hand.items():  # mean |x − μ_real| is 1
        got = dmd.matching_gradient(x, mu_r, mu_f, alpha, sigma, weighting)
        torch.testing.assert_close(got, torch.tensor([wanted]))
    double_size = dmd.matching_gradient(2 * x, 2 * mu_r, 2 * mu_f, alpha, sigma)
    wanted = dmd.matching_gradient(x, mu_r, mu_f, alpha, sigma)
    torch.testing.assert_close(double_size, wanted)  # of no unit


def test_the_normalisation_is_per_sample_also_for_images():
    x, mu_r, mu_f = torch.randn(3, 3, 1, 4, 4, dtype=torch.float64)
    g = dmd.matching_gradient(x, mu_r, mu_f, *S.at(torch.tensor([1, 2, 3]), x))
    for i in range(3):
        torch.testing.assert_close(g[i], (mu_f[i] - mu_r[i]) / (x[i] - mu_r[i]).abs().mean())


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_nothing_over_nothing_is_nothing(weighting):
    x = torch.ones(2, 2)
    found = dmd.matching_gradient(x, x, x, *S.at(5, x), weighting)
    assert torch.equal(found, torch.zeros(2, 2))


@pytest.mark.parametrize("weighting", ["released", "paper"])
def test_something_over_nothing_is_infinite_and_stops_the_training(weighting):
    """A sample that is what the teacher says of it, and not what the fake score says: no number is
    put in place of the gradient that there is not."""
    x = torch.tensor([[0.5, -0.5], [0.5, 1.0]])
    mu_real = torch.stack([x[0], x[1] - 0.5])
    g = dmd.matching_gradient(x, mu_real, x + 0.1, *S.at(5, x), weighting)
    assert g[0].isposinf().all() and g[1].isfinite().all()
    net = nn.Linear(2, 2)
    one = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=5, ema=0.0)
    before = weights(net)
    with pytest.raises(FloatingPointError, match="gradient norm became (nan|inf)"):
        one.update(dmd.matching_loss(net(x), g))
    assert equal(weights(net), before)


def test_the_difference_of_means_is_a_difference_of_scores():
    """s_fake − s_real = α (μ_fake − μ_real) / σ²: why denoised predictions may stand in for
    scores."""
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


def test_each_watched_term_notes_its_own_gradient_and_no_others():
    """3 and 4 a value by two terms that are watched, 5 by one that is not: of four values a sample,
    norms of 6 and 8, and two samples."""
    start, norms = torch.zeros(2, 4, requires_grad=True), {}
    x = 2 * start
    first, second = dmd.watch(x, "first", norms), dmd.watch(x, "second", norms)
    (3 * first.sum() + 4 * second.sum() + 5 * x.sum()).backward()
    assert {name: norm.item() for name, norm in norms.items()} == {"first": 12, "second": 16}
    assert (start.grad == 24).all()
    assert torch.equal(dmd.watch(start.detach(), "none", norms), start) and "none" not in norms


# Bad input

IMAGE = torch.zeros(3, 1, 2, 2)


def test_an_unknown_weighting_is_named():
    x = torch.ones(1, 2)
    with refused(ValueError, "weighting must be one of released, paper, kl, none; got 'heavy'"):
        dmd.matching_gradient(x, x, x, *S.at(5, x), "heavy")


@pytest.mark.parametrize("change, error, sentence", [
    (dict(x=IMAGE.byte()), TypeError, "x must be floating-point numbers"),
    (dict(mu_real=IMAGE[:, 0]), ValueError, "x and mu_real must have one shape"),
    (dict(mu_fake=IMAGE[:1]), ValueError, "x and mu_fake must have one shape"),
    (dict(alpha=torch.ones(3)), ValueError, "alpha must be a number or broadcast"),
    (dict(sigma=torch.ones(3, 3)), ValueError, "sigma must be a number or broadcast"),
])
def test_tensors_that_would_broadcast_are_refused(change, error, sentence):
    given = dict(x=IMAGE, mu_real=IMAGE, mu_fake=IMAGE, alpha=torch.tensor(0.6),
                 sigma=torch.tensor(0.8))
    with refused(error, sentence):
        dmd.matching_gradient(**given | change)
    with refused(ValueError, "x and gradient must have one shape"):
        dmd.matching_loss(IMAGE, IMAGE[:, 0])
