"""Exact scores against autograd, torch.distributions and Bayes' rule on a grid; Langevin against the chain that it is;
the network for points, and the clouds that it learns."""
import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dmdkit import data, nets, sample, schedule, score, train
from dmdkit.denoiser import Denoiser

COSINE = schedule.cosine()
TIMES = [0, 5, 63, 400, 800, 1022, 1023]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tilted(angle: float, *variances: float) -> torch.Tensor:
    """A covariance with these variances along axes turned by the angle."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return turn @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ turn.T


MEANS = torch.tensor([[-0.8, 0.3], [0.5, 0.6], [0.1, -0.9]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
FULL = score.GaussianMixture(
    MEANS, torch.stack([tilted(0.4, 0.3, 0.02), tilted(1.9, 0.1, 0.1), tilted(2.5, 0.01, 0.2)]), WEIGHTS)
SINGULAR = score.GaussianMixture(
    MEANS, torch.stack([tilted(0.4, 0.3, 0.0), tilted(0.0, 0.0, 0.0), tilted(1.0, 0.1, 0.2)]), WEIGHTS)
POINTS = torch.randn(40, 2, generator=generator(1), dtype=torch.float64)
IMAGES = torch.rand(30, 1, 4, 5, generator=generator(2), dtype=torch.float64) * 2 - 1
KNOWN = {"full covariances": FULL, "singular covariances": SINGULAR,
         "ring": score.ring(), "two modes": score.two_modes(),
         "points": score.FiniteSet(POINTS), "images": score.FiniteSet(IMAGES)}
known = pytest.mark.parametrize("name", KNOWN)


def noised(name: str, t: int, n: int = 60) -> torch.Tensor:
    """Data of that kind noised to t, and among them samples that the data would hardly become."""
    one = KNOWN[name]
    pool = one.points if hasattr(one, "points") else one.sample(40, generator(3)).double()
    x = pool[torch.arange(n) % len(pool)]
    eps = torch.randn(x.shape, generator=generator(4), dtype=torch.float64)
    return COSINE.noise(x, t, eps) + torch.where(torch.arange(n) % 5 == 0, 1.5, 0.0).reshape(-1, *[1] * (x.ndim - 1))


# Exact scores

@known
@pytest.mark.parametrize("t", TIMES)
def test_the_exact_score_is_the_gradient_of_the_log_density(name, t):
    x_t = noised(name, t).requires_grad_()
    gradient, = torch.autograd.grad(KNOWN[name].log_density(x_t, *COSINE.at(t, x_t)).sum(), x_t)
    with torch.no_grad():
        prediction = score.Exact(KNOWN[name], COSINE)(x_t, t)
    torch.testing.assert_close(prediction.score, gradient, rtol=1e-7, atol=1e-7 / COSINE.sigma[t].item())


@known
@pytest.mark.parametrize("t", TIMES[:-1])
def test_tweedie_leads_from_the_exact_score_to_the_exact_mean(name, t):
    x_t = noised(name, t)
    alpha, sigma = COSINE.at(t, x_t)
    prediction = score.Exact(KNOWN[name], COSINE)(x_t, t)
    back = schedule.x_from_score(x_t, prediction.score, alpha, sigma)
    torch.testing.assert_close(back, KNOWN[name].denoise(x_t, alpha, sigma), rtol=1e-8, atol=1e-8)


def by_torch(mixture: score.GaussianMixture, alpha: float, sigma: float) -> MixtureSameFamily:
    covariances = alpha**2 * mixture.covariances.double() + sigma**2 * torch.eye(2, dtype=torch.float64)
    parts = MultivariateNormal(alpha * mixture.means.double(), covariances)
    return MixtureSameFamily(Categorical(mixture.weights.double()), parts)


@pytest.mark.parametrize("name", ["full covariances", "singular covariances", "ring"])
@pytest.mark.parametrize("t", TIMES)
def test_a_mixtures_log_density_is_that_of_torch_distributions(name, t):
    x_t, (alpha, sigma) = noised(name, t), (COSINE.alpha[t].item(), COSINE.sigma[t].item())
    want = by_torch(KNOWN[name], alpha, sigma).log_prob(x_t)
    torch.testing.assert_close(KNOWN[name].log_density(x_t, alpha, sigma), want, rtol=1e-8, atol=1e-8)


def test_without_noise_it_is_the_density_of_the_data():
    x = noised("full covariances", 0)
    torch.testing.assert_close(FULL.log_density(x), by_torch(FULL, 1.0, 0.0).log_prob(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [255, 511, 900])
def test_the_denoised_mean_is_bayes_rule_on_a_grid(t):
    line = torch.linspace(-4, 4, 401, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    prior, (alpha, sigma) = by_torch(FULL, 1.0, 0.0).log_prob(x), (COSINE.alpha[t].item(), COSINE.sigma[t].item())
    x_t = torch.tensor([[0.4, -0.3], [-0.6, 0.2], [1.2, 0.9]], dtype=torch.float64)
    for one, got in zip(x_t, FULL.denoise(x_t, alpha, sigma)):
        share = (prior - (one - alpha * x).square().sum(1) / (2 * sigma**2)).softmax(0)
        torch.testing.assert_close(got, share @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", TIMES)
def test_a_finite_set_is_a_mixture_of_points(t):
    n, x_t = len(POINTS), noised("points", t)
    mixture = score.GaussianMixture(POINTS, torch.zeros(n, 2, 2, dtype=torch.float64), torch.full((n,), 1 / n).double())
    alpha, sigma = COSINE.at(t, x_t)
    for function in ("denoise", "log_density"):
        ours, theirs = (getattr(one, function)(x_t, alpha, sigma) for one in (score.FiniteSet(POINTS), mixture))
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def test_images_are_points_of_a_space_of_many_dimensions():
    x_t, flat = noised("images", 300), score.FiniteSet(IMAGES.flatten(1))
    got = KNOWN["images"].denoise(x_t, *COSINE.at(300, x_t))
    assert got.shape == x_t.shape and got.dtype == x_t.dtype
    torch.testing.assert_close(got.flatten(1), flat.denoise(x_t.flatten(1), *COSINE.at(300, x_t.flatten(1))))


@known
def test_each_sample_may_have_a_time_of_its_own(name):
    x_t, t = noised(name, 500, 4), torch.tensor([3, 400, 800, 1023])
    exact = score.Exact(KNOWN[name], COSINE)
    together = exact(x_t, t)
    for i in range(4):
        alone = exact(x_t[i:i + 1], int(t[i]))
        for form in ("x", "eps", "v", "score"):
            torch.testing.assert_close(getattr(together, form)[i:i + 1], getattr(alone, form))


@known
def test_of_pure_noise_the_mean_of_the_data_is_all_that_is_known(name):
    one = KNOWN[name]
    mean = one.points.mean(0) if hasattr(one, "points") else one.weights.double() @ one.means.double()
    got = score.Exact(one, COSINE)(noised(name, 1023, 3), 1023).x
    torch.testing.assert_close(got, mean.to(got).expand_as(got), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["points", "images"])
def test_with_next_to_no_noise_a_finite_set_answers_with_the_point_itself(name):
    points = KNOWN[name].points
    x_t = COSINE.noise(points, 5, torch.randn(points.shape, generator=generator(5), dtype=torch.float64))
    got = score.Exact(KNOWN[name], COSINE)(x_t, 5).x
    assert (got - points).flatten(1).norm(dim=1).median() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@known
def test_answers_keep_the_dtype_and_take_labels_and_guidance(name, dtype):
    x_t, exact = noised(name, 400, 3).to(dtype), score.Exact(KNOWN[name], COSINE)
    prediction = exact(x_t, 400)
    assert all(form.dtype == dtype and form.shape == x_t.shape and form.isfinite().all() for form in prediction)
    assert torch.equal(prediction.x, exact(x_t, 400, torch.zeros(3, dtype=torch.int64), guidance=2.0).x)


@pytest.mark.parametrize("name", ["full covariances", "singular covariances"])
def test_samples_have_the_mixtures_mean_and_covariance(name):
    n, one = 100_000, KNOWN[name]
    x = one.sample(n, generator(6)).double()
    mean = WEIGHTS @ one.means
    offset = one.means - mean
    within, between = one.covariances, torch.einsum("ki,kj->kij", offset, offset)
    covariance = torch.einsum("k,kij->ij", WEIGHTS, within + between)
    assert x.shape == (n, 2) and torch.equal(one.sample(5, generator(6)), one.sample(5, generator(6)))
    assert ((x.mean(0) - mean).abs() < 4 * (covariance.diagonal() / n).sqrt()).all()
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=4 * 2 * covariance.max().item() / n**0.5)


def test_samplers_take_an_exact_denoiser_and_draw_its_data():
    n = 2000
    x = sample.last(sample.ddim(score.Exact(score.ring(), COSINE), torch.randn(n, 2, generator=generator(7)), 64))
    near, which = torch.cdist(x, score.ring().means).min(1)
    assert (near < 5 * 0.06).float().mean() > 0.99
    counts = torch.bincount(which, minlength=8)
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.3  # χ² with 7 degrees of freedom: once in a thousand


# Langevin

def level(noise: float) -> int:
    return score.noise_levels(COSINE, 1, noise, noise)[0]


@pytest.mark.parametrize("share", [0.1, 1.0, 3.0])
def test_langevin_of_a_gaussian_has_the_mean_and_variance_of_its_chain(share):
    """x ← m + (1 − η/2S)(x − m) + √η z is an autoregression: its variance is η/(1 − (1 − η/2S)²) = S/(1 − η/4S)."""
    t, n, mean = level(0.3), 4000, torch.tensor([0.4, -0.2])
    ratio = (COSINE.sigma[t] / COSINE.alpha[t]).item()
    target = 0.5**2 + ratio**2  # the variance S of data plus noise
    one = score.GaussianMixture.round(mean[None], 0.5)
    x = sample.last(score.langevin(score.Exact(one, COSINE), mean.expand(n, 2), t, share * target, 100, generator(8)))
    variance = target / (1 - share / 4)
    assert ((x.mean(0) - mean).abs() < 4 * (variance / n) ** 0.5).all()
    assert x.var(0).mean().item() == pytest.approx(variance, rel=4 / n**0.5)  # 2n values: √(2/2n) each


def test_langevin_flies_apart_beyond_four_variances():
    t = level(0.3)
    one = score.GaussianMixture.round(torch.zeros(1, 2), 0.5)
    target = 0.5**2 + (COSINE.sigma[t] / COSINE.alpha[t]).item() ** 2
    start = torch.randn(100, 2, generator=generator(9))
    x = sample.last(score.langevin(score.Exact(one, COSINE), start, t, 4.2 * target, 200, generator(10)))
    assert x.var() > 1e6


def test_annealing_finds_the_shares_of_distant_modes_and_plain_langevin_keeps_those_of_the_start():
    uneven = score.GaussianMixture.round(torch.tensor([[-0.6, 0.0], [0.6, 0.0]]), 0.12, torch.tensor([0.2, 0.8]))
    exact, z, step = score.Exact(uneven, COSINE), torch.randn(1500, 2, generator=generator(11)), 2 * 0.05**2
    right = lambda x: (x[:, 0] > 0).float().mean().item()
    plain = sample.last(score.langevin(exact, z, level(0.05), step, 240, generator(12)))
    assert right(plain) == pytest.approx(right(z), abs=0.05) and right(plain) < 0.6
    times = score.noise_levels(COSINE, 12, 2.0, 0.05)
    annealed = sample.last(score.annealed_langevin(exact, 2 * z, times, 40, step, generator(13)))
    assert right(annealed) == pytest.approx(0.8, abs=0.05)


def test_annealed_langevin_is_langevin_at_each_level_in_turn():
    exact, x = score.Exact(score.ring(), COSINE), torch.randn(5, 2, generator=generator(14))
    times = score.noise_levels(COSINE, 3, 1.0, 0.1)
    states = list(score.annealed_langevin(exact, x, times, 4, 0.01, generator(15)))
    assert [state.t for state in states] == [t for t in times for _ in range(4)]
    g, by_hand = generator(15), x
    ratio = COSINE.sigma / COSINE.alpha
    for t in times:
        by_hand = sample.last(score.langevin(exact, by_hand, t, 0.01 * float(ratio[t] / ratio[times[-1]]) ** 2, 4, g))
    assert torch.equal(states[-1].x, by_hand)
    assert torch.equal(states[-1].x, sample.last(score.annealed_langevin(exact, x, times, 4, 0.01, generator(15))))


def test_a_step_of_langevin_is_the_formula_in_units_of_the_data():
    """The score of x + ς ε is that of the whole mixture with ς² on its covariances, α not entering."""
    t, x = level(0.2), torch.randn(6, 2, generator=generator(16), dtype=torch.float64)
    ratio = (COSINE.sigma[t] / COSINE.alpha[t]).item()
    state, = score.langevin(score.Exact(FULL, COSINE), x, t, 0.02, 1, generator(17))
    at = x.clone().requires_grad_()
    slope, = torch.autograd.grad(by_torch(FULL, 1.0, ratio).log_prob(at).sum(), at)
    z = torch.randn(x.shape, generator=generator(17), dtype=torch.float64)
    torch.testing.assert_close(state.x, x + 0.01 * slope + 0.02**0.5 * z, rtol=1e-9, atol=1e-9)


def test_noise_levels_fall_geometrically():
    times = score.noise_levels(COSINE, 10, 20.0, 0.1)
    levels = (COSINE.sigma / COSINE.alpha)[times]
    assert times == sorted(times, reverse=True) and len(set(times)) == 10
    assert levels[0].item() == pytest.approx(20, rel=0.02) and levels[-1].item() == pytest.approx(0.1, rel=0.02)
    torch.testing.assert_close(levels[1:] / levels[:-1], torch.full((9,), 200 ** (-1 / 9)).double(), rtol=0.03, atol=0)


EXACT, START = score.Exact(score.ring(), COSINE), torch.zeros(2, 2)


@pytest.mark.parametrize("call, sentence", [
    (lambda: sample.last(score.langevin(EXACT, START, 100, 0.0, 5)), "step_size must be positive; got 0"),
    (lambda: sample.last(score.langevin(EXACT, START, 100, float("nan"), 5)), "step_size must be positive; got nan"),
    (lambda: sample.last(score.langevin(EXACT, START, 1023, 0.1, 5)), "At t = 1023 α is 0.* Choose an earlier t"),
    (lambda: sample.last(score.langevin(EXACT, START, 100, 0.1, 0)), "at least one step .*; got 0"),
    (lambda: sample.last(score.annealed_langevin(EXACT, START, [500, 100], 0, 0.1)), "at least one step .*; got 0"),
    (lambda: sample.last(score.annealed_langevin(EXACT, START, [], 5, 0.1)), r"times must be at least one.*; got \[\]"),
    (lambda: sample.last(score.annealed_langevin(EXACT, START, [1023, 9], 5, 0.1)), r"with α > 0.*; got \[1023, 9\]"),
    (lambda: score.noise_levels(COSINE, 3, 0.1, 1.0), "first noise level must be the largest.*; got 0.1 and 1.0"),
    (lambda: score.noise_levels(COSINE, 3, 1.0, 0.0), "the last positive; got 1.0 and 0.0"),
    (lambda: score.noise_levels(COSINE, 0, 1.0, 0.1), "at least one noise level; got n = 0"),
])
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


# The network for points, and the clouds

@pytest.mark.parametrize("frequencies", [0, 3])
def test_the_copies_of_a_network_are_independent(frequencies):
    net = nets.PointNet(width=16, depth=2, copies=3, frequencies=frequencies)
    x, t = torch.randn(12, 2), torch.randint(0, 1024, (12,))
    together = net(x, t).sample
    assert together.shape == (12, 2)
    for i in range(3):
        part = slice(4 * i, 4 * i + 4)
        torch.testing.assert_close(net.copy(i)(x[part], t[part]).sample, together[part])
    together[4:8].sum().backward()  # the second copy's own
    for weight in net.parameters():
        assert weight.grad[1].abs().sum() > 0 and weight.grad[[0, 2]].abs().sum() == 0
    alike = net(x[:4].repeat(3, 1), t[:4].repeat(3)).sample
    assert not torch.allclose(alike[:4], alike[4:8])  # they start from weights of their own


def test_the_network_knows_the_time_and_the_sign_of_a_point():
    net, x = nets.PointNet(frequencies=2), torch.randn(5, 2)
    at = lambda x, t: net(x, torch.full((5,), t)).sample
    assert not torch.allclose(at(x, 3), at(x, 900)) and not torch.allclose(at(x, 3), at(-x, 3))
    torch.testing.assert_close(at(x, 3)[:2], net(x[:2], torch.full((2,), 3)).sample)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2), (4,), (4, 2, 1, 1)])
def test_a_denoiser_of_points_refuses_what_are_none(shape):
    denoiser = Denoiser(nets.PointNet(), COSINE, "v", n_classes=0)
    assert denoiser(torch.randn(4, 2), 5).score.shape == (4, 2) and denoiser.sample_shape == (2,)
    with pytest.raises(ValueError, match=r"samples must have shape \(B, 2\); got"):
        denoiser(torch.randn(shape), 5)


def test_training_on_points_lowers_the_loss_and_repeats_itself():
    def losses():
        torch.manual_seed(1)
        denoiser = Denoiser(nets.PointNet(width=32, depth=2), COSINE, "v", n_classes=0)
        learner = train.Learner(denoiser, train.accelerator(cpu=True), lr=1e-2, n_steps=60, ema=0.9)
        step = train.denoiser_step(learner, data.two_moons(500, generator()), 128)
        return [record.values["loss"] for record in train.train(step, {"points": learner}, n_steps=60)]

    first = losses()
    assert sum(first[-10:]) < 0.8 * sum(first[:10]) and first == losses()


@pytest.mark.parametrize("make", [data.two_moons, data.spiral])
def test_a_cloud_lies_within_about_one_and_repeats_from_its_seed(make):
    cloud = make(3000, generator(20))
    assert cloud.x.shape == (3000, 2) and cloud.x.dtype == torch.float32 and len(cloud) == 3000
    assert cloud.x.abs().max() < 1.2 and cloud.x.mean(0).abs().max() < 0.2
    assert torch.equal(cloud.x, make(3000, generator(20)).x) and not torch.equal(cloud.x, make(3000, generator(21)).x)
    x, label = cloud.batch(torch.tensor([2, 0]))
    assert torch.equal(x, cloud.x[[2, 0]]) and label.tolist() == [0, 0]


def test_two_moons_are_two_half_circles():
    x = data.two_moons(2000, generator(22), noise=0.0).x / 0.6
    upper = (x - torch.tensor([-0.5, -0.25])).norm(dim=1)
    lower = (x - torch.tensor([0.5, 0.25])).norm(dim=1)
    assert torch.minimum((upper - 1).abs(), (lower - 1).abs()).max() < 1e-5


def test_a_spiral_is_filled_evenly_along_its_length():
    radius = data.spiral(4000, generator(23), noise=0.0).x.norm(dim=1) / 0.9
    # the length up to a radius grows about as its square, so the squares are about uniform
    assert abs((radius**2).mean() - 0.5) < 0.03 and abs((radius**2).var() - 1 / 12) < 0.01
