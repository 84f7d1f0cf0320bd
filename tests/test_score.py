"""Exact scores against autograd, torch.distributions and Bayes' rule on a grid; Langevin against
the chain that it is."""
import math

import pytest
import torch
from conftest import needs_fake_cuda, refused
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dmdkit import sample, schedule, score

COSINE, FLOW = schedule.cosine(), schedule.flow()
TIMES = [0, 5, 63, 400, 800, 1022, 1023]
both_schedules = pytest.mark.parametrize("sch", [COSINE, FLOW], ids=lambda one: one.name)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(a, b, tolerance: float = 1e-7):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def tilted(angle: float, *variances: float) -> torch.Tensor:
    """A covariance with these variances along axes turned by the angle."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return turn @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ turn.T


MEANS = torch.tensor([[-0.8, 0.3], [0.5, 0.6], [0.1, -0.9]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
FULL = score.GaussianMixture(MEANS, torch.stack([
    tilted(0.4, 0.3, 0.02), tilted(1.9, 0.1, 0.1), tilted(2.5, 0.01, 0.2)]), WEIGHTS)
SINGULAR = score.GaussianMixture(MEANS, torch.stack([
    tilted(0.4, 0.3, 0.0), tilted(0.0, 0.0, 0.0), tilted(1.0, 0.1, 0.2)]), WEIGHTS)
POINTS = torch.randn(40, 2, generator=generator(1), dtype=torch.float64)
IMAGES = torch.rand(30, 1, 4, 5, generator=generator(2), dtype=torch.float64) * 2 - 1
KNOWN = {"full covariances": FULL, "singular covariances": SINGULAR,
         "ring": score.ring(), "two modes": score.two_modes(),
         "points": score.FiniteSet(POINTS), "images": score.FiniteSet(IMAGES)}
known = pytest.mark.parametrize("name", KNOWN)


def noised(name: str, t: int, n: int = 60, sch: schedule.Schedule = COSINE) -> torch.Tensor:
    """Data of that kind noised to t, and among them samples that the data would hardly become."""
    one = KNOWN[name]
    pool = one.points if hasattr(one, "points") else one.sample(40, generator(3)).double()
    x = pool[torch.arange(n) % len(pool)]
    eps = torch.randn(x.shape, generator=generator(4), dtype=torch.float64)
    away = torch.where(torch.arange(n) % 5 == 0, 1.5, 0.0).reshape(-1, *[1] * (x.ndim - 1))
    return sch.noise(x, t, eps) + away


# Exact scores

@known
@both_schedules
@pytest.mark.parametrize("t", TIMES)
def test_the_exact_score_is_the_gradient_of_the_log_density(name, sch, t):
    x_t = noised(name, t, sch=sch).requires_grad_()
    density = KNOWN[name].log_density(x_t, *sch.at(t, x_t))
    gradient, = torch.autograd.grad(density.sum(), x_t)
    with torch.no_grad():
        found = score.Exact(KNOWN[name], sch)(x_t, t).score
    torch.testing.assert_close(found, gradient, rtol=1e-7, atol=1e-7 / sch.sigma[t].item())


@known
@both_schedules
@pytest.mark.parametrize("t", TIMES[:-1])
def test_tweedie_leads_from_the_exact_score_to_the_exact_mean(name, sch, t):
    x_t = noised(name, t, sch=sch)
    alpha, sigma = sch.at(t, x_t)
    prediction = score.Exact(KNOWN[name], sch)(x_t, t)
    back = schedule.x_from_score(x_t, prediction.score, alpha, sigma)
    close(back, KNOWN[name].denoise(x_t, alpha, sigma), 1e-8)


def by_torch(mixture: score.GaussianMixture, alpha: float, sigma: float) -> MixtureSameFamily:
    noise = sigma**2 * torch.eye(2, dtype=torch.float64)
    covariances = alpha**2 * mixture.covariances.double() + noise
    parts = MultivariateNormal(alpha * mixture.means.double(), covariances)
    return MixtureSameFamily(Categorical(mixture.weights.double()), parts)


@pytest.mark.parametrize("name", ["full covariances", "singular covariances", "ring"])
@pytest.mark.parametrize("t", TIMES)
def test_a_mixtures_log_density_is_that_of_torch_distributions(name, t):
    x_t, alpha, sigma = noised(name, t), COSINE.alpha[t].item(), COSINE.sigma[t].item()
    want = by_torch(KNOWN[name], alpha, sigma).log_prob(x_t)
    close(KNOWN[name].log_density(x_t, alpha, sigma), want, 1e-8)


def test_without_noise_it_is_the_density_of_the_data():
    x = noised("full covariances", 0)
    close(FULL.log_density(x), by_torch(FULL, 1.0, 0.0).log_prob(x), 1e-9)


@both_schedules
@pytest.mark.parametrize("t", [255, 511, 900])
def test_the_denoised_mean_is_bayes_rule_on_a_grid(sch, t):
    line = torch.linspace(-4, 4, 401, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    prior = by_torch(FULL, 1.0, 0.0).log_prob(x)
    alpha, sigma = sch.alpha[t].item(), sch.sigma[t].item()
    x_t = torch.tensor([[0.4, -0.3], [-0.6, 0.2], [1.2, 0.9]], dtype=torch.float64)
    for one, got in zip(x_t, FULL.denoise(x_t, alpha, sigma)):
        share = (prior - (one - alpha * x).square().sum(1) / (2 * sigma**2)).softmax(0)
        close(got, share @ x, 1e-5)


@pytest.mark.parametrize("t", TIMES)
def test_a_finite_set_is_a_mixture_of_points(t):
    n, x_t = len(POINTS), noised("points", t)
    mixture = score.GaussianMixture(POINTS, torch.zeros(n, 2, 2).double(),
                                    torch.full((n,), 1 / n).double())
    alpha, sigma = COSINE.at(t, x_t)
    points = score.FiniteSet(POINTS)
    close(points.denoise(x_t, alpha, sigma), mixture.denoise(x_t, alpha, sigma))
    close(points.log_density(x_t, alpha, sigma), mixture.log_density(x_t, alpha, sigma))


def test_images_are_points_of_a_space_of_many_dimensions():
    x_t, flat = noised("images", 300), score.FiniteSet(IMAGES.flatten(1))
    got = KNOWN["images"].denoise(x_t, *COSINE.at(300, x_t))
    assert got.shape == x_t.shape and got.dtype == x_t.dtype
    in_rows = x_t.flatten(1)
    close(got.flatten(1), flat.denoise(in_rows, *COSINE.at(300, in_rows)))


@known
def test_each_sample_may_have_a_time_of_its_own(name):
    x_t, t = noised(name, 500, 4), torch.tensor([3, 400, 800, 1023])
    exact = score.Exact(KNOWN[name], COSINE)
    together = exact(x_t, t)
    for i in range(4):
        alone = exact(x_t[i:i + 1], int(t[i]))
        for form in ("x", "eps", "v", "score"):
            close(getattr(together, form)[i:i + 1], getattr(alone, form))


@known
@both_schedules
def test_of_pure_noise_the_mean_of_the_data_is_all_that_is_known(name, sch):
    one = KNOWN[name]
    if hasattr(one, "points"):
        mean = one.points.mean(0)
    else:
        mean = one.weights.double() @ one.means.double()
    got = score.Exact(one, sch)(noised(name, 1023, 3, sch), 1023).x
    close(got, mean.to(got).expand_as(got), 1e-9)


@pytest.mark.parametrize("name", ["points", "images"])
def test_with_next_to_no_noise_a_finite_set_answers_with_the_point_itself(name):
    points = KNOWN[name].points
    eps = torch.randn(points.shape, generator=generator(5), dtype=torch.float64)
    got = score.Exact(KNOWN[name], COSINE)(COSINE.noise(points, 5, eps), 5).x
    assert (got - points).flatten(1).norm(dim=1).median() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@known
def test_answers_keep_the_dtype_and_take_no_class_for_a_label(name, dtype):
    x_t, exact = noised(name, 400, 3).to(dtype), score.Exact(KNOWN[name], COSINE)
    assert exact.sample_shape == x_t.shape[1:]
    prediction = exact(x_t, 400)
    for form in prediction:
        assert form.dtype == dtype and form.shape == x_t.shape and form.isfinite().all()
    assert torch.equal(prediction.x, exact(x_t, 400, torch.zeros(3, dtype=torch.int64)).x)


@needs_fake_cuda
@known
def test_answers_lie_where_the_samples_do_and_float64_never_goes_there(name):
    """MPS has no float64: what is computed in it is computed on the CPU."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x_t = torch.zeros(3, *KNOWN[name].points.shape[1:] if hasattr(KNOWN[name], "points")
                          else (2,), device="cuda")
        seen = []
        dispatch = mode.dispatch

        def watched(func, types, args=(), kwargs=None):
            out = dispatch(func, types, args, kwargs)
            if isinstance(out, torch.Tensor) and out.is_cuda:
                seen.append(out.dtype)
            return out

        mode.dispatch = watched
        for t in (400, torch.tensor([1, 2, 3], device="cuda")):
            assert score.Exact(KNOWN[name], COSINE)(x_t, t).score.is_cuda
    assert seen and torch.float64 not in seen


@pytest.mark.parametrize("name", ["full covariances", "singular covariances"])
def test_samples_have_the_mixtures_mean_and_covariance(name):
    n, one = 100_000, KNOWN[name]
    x = one.sample(n, generator(6)).double()
    mean = WEIGHTS @ one.means
    offset = one.means - mean
    between = torch.einsum("ki,kj->kij", offset, offset)
    covariance = torch.einsum("k,kij->ij", WEIGHTS, one.covariances + between)
    assert x.shape == (n, 2)
    assert torch.equal(one.sample(5, generator(6)), one.sample(5, generator(6)))
    assert ((x.mean(0) - mean).abs() < 4 * (covariance.diagonal() / n).sqrt()).all()
    tolerance = 4 * 2 * covariance.max().item() / n**0.5
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=tolerance)


@both_schedules
def test_samplers_take_an_exact_denoiser_and_draw_its_data(sch):
    n, z = 2000, torch.randn(2000, 2, generator=generator(7))
    x = sample.last(sample.ddim(score.Exact(score.ring(), sch), z, 64))
    near, which = torch.cdist(x, score.ring().means).min(1)
    assert (near < 5 * 0.06).float().mean() > 0.99
    counts = torch.bincount(which, minlength=8)
    # χ² with 7 degrees of freedom: once in a thousand
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.3


# Langevin

def level(noise: float) -> int:
    return score.noise_levels(COSINE, 1, noise, noise)[0]


@pytest.mark.parametrize("share", [0.1, 1.0, 3.0])
def test_langevin_of_a_gaussian_has_the_mean_and_variance_of_its_chain(share):
    """x ← m + (1 − η/2S)(x − m) + √η z is an autoregression: its variance is
    η/(1 − (1 − η/2S)²) = S/(1 − η/4S)."""
    t, n, mean = level(0.3), 4000, torch.tensor([0.4, -0.2])
    ratio = (COSINE.sigma[t] / COSINE.alpha[t]).item()
    target = 0.5**2 + ratio**2  # the variance S of data plus noise
    exact = score.Exact(score.GaussianMixture.round(mean[None], 0.5), COSINE)
    chain = score.langevin(exact, mean.expand(n, 2), t, share * target, 100, generator(8))
    x, variance = sample.last(chain), target / (1 - share / 4)
    assert ((x.mean(0) - mean).abs() < 4 * (variance / n) ** 0.5).all()
    assert x.var(0).mean().item() == pytest.approx(variance, rel=4 / n**0.5)  # of 2n values


def test_langevin_flies_apart_beyond_four_variances():
    t = level(0.3)
    exact = score.Exact(score.GaussianMixture.round(torch.zeros(1, 2), 0.5), COSINE)
    target = 0.5**2 + (COSINE.sigma[t] / COSINE.alpha[t]).item() ** 2
    start = torch.randn(100, 2, generator=generator(9))
    x = sample.last(score.langevin(exact, start, t, 4.2 * target, 200, generator(10)))
    assert x.var() > 1e6


def share_right(x: torch.Tensor) -> float:
    return (x[:, 0] > 0).float().mean().item()


def test_annealing_finds_the_shares_of_distant_modes_and_plain_langevin_keeps_its_starts():
    means, weights = torch.tensor([[-0.6, 0.0], [0.6, 0.0]]), torch.tensor([0.2, 0.8])
    exact = score.Exact(score.GaussianMixture.round(means, 0.12, weights), COSINE)
    z, step = torch.randn(1500, 2, generator=generator(11)), 2 * 0.05**2
    plain = sample.last(score.langevin(exact, z, level(0.05), step, 240, generator(12)))
    assert share_right(plain) == pytest.approx(share_right(z), abs=0.05)
    assert share_right(plain) < 0.6
    times = score.noise_levels(COSINE, 12, 2.0, 0.05)
    annealed = sample.last(score.annealed_langevin(exact, 2 * z, times, 40, step, generator(13)))
    assert share_right(annealed) == pytest.approx(0.8, abs=0.05)


def test_annealed_langevin_is_langevin_at_each_level_in_turn():
    exact, x = score.Exact(score.ring(), COSINE), torch.randn(5, 2, generator=generator(14))
    times = score.noise_levels(COSINE, 3, 1.0, 0.1)
    states = list(score.annealed_langevin(exact, x, times, 4, 0.01, generator(15)))
    assert [state.t for state in states] == [t for t in times for _ in range(4)]
    ratio = (COSINE.sigma / COSINE.alpha).tolist()
    g, by_hand = generator(15), x
    for t in times:
        size = 0.01 * (ratio[t] / ratio[times[-1]]) ** 2
        by_hand = sample.last(score.langevin(exact, by_hand, t, size, 4, g))
    close(states[-1].x, by_hand)
    again = score.annealed_langevin(exact, x, times, 4, 0.01, generator(15))
    assert torch.equal(states[-1].x, sample.last(again))


@both_schedules
def test_a_step_of_langevin_is_the_formula_in_units_of_the_data(sch):
    """The score of x + ς ε is that of the whole mixture with ς² on its covariances, α not
    entering."""
    t, x = 200, torch.randn(6, 2, generator=generator(16), dtype=torch.float64)
    ratio = (sch.sigma[t] / sch.alpha[t]).item()
    state, = score.langevin(score.Exact(FULL, sch), x, t, 0.02, 1, generator(17))
    at = x.clone().requires_grad_()
    slope, = torch.autograd.grad(by_torch(FULL, 1.0, ratio).log_prob(at).sum(), at)
    z = torch.randn(x.shape, generator=generator(17), dtype=torch.float64)
    close(state.x, x + 0.01 * slope + 0.02**0.5 * z, 1e-9)


def test_noise_levels_fall_geometrically():
    times = score.noise_levels(COSINE, 10, 20.0, 0.1)
    levels = (COSINE.sigma / COSINE.alpha)[times]
    assert times == sorted(times, reverse=True) and len(set(times)) == 10
    assert levels[0].item() == pytest.approx(20, rel=0.02)
    assert levels[-1].item() == pytest.approx(0.1, rel=0.02)
    ratios = torch.full((9,), 200 ** (-1 / 9)).double()
    torch.testing.assert_close(levels[1:] / levels[:-1], ratios, rtol=0.03, atol=0)


# Bad input

EXACT, START = score.Exact(score.ring(), COSINE), torch.zeros(2, 2)


def langevin(t=100, step_size=0.1, n_steps=5):
    return score.langevin(EXACT, START, t, step_size, n_steps)


def annealed(times, n_each=5):
    return sample.last(score.annealed_langevin(EXACT, START, times, n_each, 0.1))


@pytest.mark.parametrize("call, arguments, sentence", [
    (langevin, {"step_size": 0.0}, "step_size must be positive; got 0"),
    (langevin, {"step_size": math.nan}, "step_size must be positive; got nan"),
    (langevin, {"step_size": math.inf}, "step_size must be positive; got inf"),
    (langevin, {"t": 1023}, "At t = 1023 α is 0.* Choose an earlier t"),
    (langevin, {"n_steps": 0}, "n_steps must be a whole number of at least 1; got 0"),
    (annealed, {"times": [500, 100], "n_each": 0}, "n_each must be a whole number .*; got 0"),
    (annealed, {"times": []}, "times must be at least one, as noise_levels gives them; got none"),
    (annealed, {"times": [1023, 9]}, "At t = 1023 α is 0"),
    (score.noise_levels, {"schedule": COSINE, "n": 3, "first": 0.1, "last": 1.0},
     "first noise level must be the largest.*; got 0.1 and 1.0"),
    (score.noise_levels, {"schedule": COSINE, "n": 3, "first": 1.0, "last": 0.0},
     "the last positive; got 1.0 and 0.0"),
    (score.noise_levels, {"schedule": COSINE, "n": 3, "first": math.inf, "last": 1.0},
     "the last positive; got inf and 1.0"),
    (score.noise_levels, {"schedule": COSINE, "n": 0, "first": 1.0, "last": 0.1},
     "n must be a whole number of at least 1; got 0"),
    (score.ring, {"n": 0}, "n must be a whole number of at least 1; got 0"),
    (FULL.sample, {"n": 0}, "n must be a whole number of at least 1; got 0"),
])
def test_bad_input_is_one_sentence_at_once(call, arguments, sentence):
    with refused(ValueError, sentence):
        call(**arguments)


def test_samples_labels_and_times_that_do_not_fit_are_refused():
    images = score.Exact(KNOWN["images"], COSINE)
    for exact, wrong, shape in ((EXACT, torch.zeros(2, 3), r"\(B, 2\)"),
                                (images, IMAGES[:, 0], r"\(B, 1, 4, 5")):
        with refused(ValueError, f"samples must have shape {shape}"):
            exact(wrong, 5)
    with refused(TypeError, "samples must be floating-point numbers; got torch.int64"):
        EXACT(torch.zeros(2, 2).long(), 5)
    with refused(TypeError, "t must be a whole number, or a tensor of them; got 5.0"):
        EXACT(START, 5.0)
    with refused(IndexError, "t must lie in 0 … 1023; got -1"):
        EXACT(START, -1)
    with refused(TypeError, "torch.int64.*; got torch.uint8"):
        EXACT(START, 5, torch.zeros(2, dtype=torch.uint8))
    with refused(ValueError, r"alpha must be a number or broadcast against \(2, 2\), .* \(2,\)"):
        score.ring().denoise(START, torch.tensor([0.5, 0.5]), 0.5)


@pytest.mark.parametrize("means, covariances, weights", [
    (MEANS[0], FULL.covariances, WEIGHTS), (MEANS, FULL.covariances[0], WEIGHTS),
    (MEANS, FULL.covariances, WEIGHTS[:2])])
def test_a_mixture_that_is_none_is_refused(means, covariances, weights):
    mixture = score.GaussianMixture(means, covariances, weights)
    sentence = r"A mixture has means \(K, D\), covariances \(K, D, D\) and weights \(K,\); got"
    for call in (lambda: mixture.sample(3), lambda: mixture.denoise(START, 0.5, 0.5)):
        with refused(ValueError, sentence):
            call()
