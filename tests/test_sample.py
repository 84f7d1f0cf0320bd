"""Samplers: against diffusers where the grids agree, against exact denoisers, and bad input."""
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import Counted, refused, tiny_denoiser
from diffusers import DDIMScheduler, DDPMScheduler
from oracles import FiniteData, Gaussian
from torch._subclasses.fake_tensor import FakeTensorMode

from dmdkit import nets, sample, schedule, score, store
from dmdkit.denoiser import Denoiser, predict

LABEL = torch.tensor([3, 7])
CLASSICAL = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SAMPLERS = [sample.ddim, sample.ddpm, sample.stochastic, sample.multistep, sample.euler,
            sample.heun]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: one.__name__)


def bent(T: int = 256) -> schedule.Schedule:
    """One whose √(α² + σ²) is 1 at the start, falls to 0.67, and is 2 at the end."""
    u = torch.arange(1, T + 1, dtype=torch.float64) / T
    length = 1 + u - 3 * u * (1 - u)
    alpha, sigma = length * (math.pi / 2 * u).cos(), length * (math.pi / 2 * u).sin()
    alpha[-1] = 0
    return schedule.Schedule("bent", alpha, sigma)


BENT = bent()
any_schedule = pytest.mark.parametrize(
    "sch", [schedule.cosine(256), schedule.linear(), schedule.flow(256), BENT],
    ids=lambda one: one.name)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_denoiser(sch: schedule.Schedule, prediction: str) -> Denoiser:
    """One-channel 8 × 8 images without pixel-unshuffle, so that diffusers draws its noise in our
    shape."""
    torch.manual_seed(1)
    net = nets.unet((1, 8, 8), (8,), n_classes=10, outputs=2 if prediction == "both" else 1)
    return Denoiser(net, sch, prediction).eval()


@torch.no_grad()
def by_diffusers(denoiser: Denoiser, scheduler, z, n, label, **step):
    """The sampling loop of diffusers' own examples, on the bare network."""
    x = F.pixel_unshuffle(z, denoiser.patch)
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        out = denoiser.net(x, t, class_labels=label).sample
        x = scheduler.step(out, t, x, **step).prev_sample
    return F.pixel_shuffle(x, denoiser.patch)


def close(a, b, tolerance: float = 1e-4):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# Against diffusers

@pytest.mark.parametrize("n", [1, 2, 16])
def test_ddim_draws_what_diffusers_ddim_draws_with_v_and_the_cosine_schedule(tiny, n):
    z = torch.randn(2, 1, 28, 28)
    theirs = by_diffusers(tiny, store.scheduler(tiny.schedule, "v"), z, n, LABEL)
    close(sample.last(sample.ddim(tiny, z, n, LABEL)), theirs)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("n", [1, 8, 25])
def test_ddim_draws_what_diffusers_ddim_draws_with_eps_and_the_linear_schedule(n, clip):
    denoiser, z = small_denoiser(schedule.linear(), "eps"), torch.randn(2, 1, 8, 8)
    scheduler = DDIMScheduler(400, **CLASSICAL, clip_sample=clip, timestep_spacing="trailing")
    # by default diffusers clamps x and keeps the ε of before, with which α x + σ ε is not x_t
    theirs = by_diffusers(denoiser, scheduler, z, n, LABEL, use_clipped_model_output=clip)
    close(sample.last(sample.ddim(denoiser, z, n, LABEL, clip=clip)), theirs)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("n", [1, 7, 25])  # 7 does not divide 400: no matter to diffusers' DDPM
def test_ddpm_draws_what_diffusers_ddpm_draws_with_the_same_noise(n, clip):
    denoiser, z = small_denoiser(schedule.linear(), "eps"), torch.randn(2, 1, 8, 8)
    scheduler = DDPMScheduler(400, **CLASSICAL, clip_sample=clip, timestep_spacing="trailing",
                              variance_type="fixed_small")
    ours = sample.last(sample.ddpm(denoiser, z, n, LABEL, generator=generator(), clip=clip))
    close(ours, by_diffusers(denoiser, scheduler, z, n, LABEL, generator=generator()), 2e-4)


@pytest.mark.parametrize("n", [1, 7, 25])
def test_ddpm_draws_what_diffusers_ddpm_draws_from_pure_noise(n):
    denoiser, z = small_denoiser(schedule.cosine(), "v"), torch.randn(2, 1, 8, 8)
    betas = denoiser.schedule.betas().tolist()
    scheduler = DDPMScheduler(1024, trained_betas=betas, clip_sample=True,
                              prediction_type="v_prediction", timestep_spacing="trailing")
    ours = sample.last(sample.ddpm(denoiser, z, n, LABEL, generator=generator()))
    close(ours, by_diffusers(denoiser, scheduler, z, n, LABEL, generator=generator()), 2e-4)


# Between two times

@any_schedule
@pytest.mark.parametrize("t, s", [(255, 254), (255, 127), (255, 0), (128, 127), (170, 3), (1, 0)])
def test_the_posterior_is_bayes_rule_for_two_gaussians(sch, t, s):
    x_t, x = torch.randn(2, 3, dtype=torch.float64)
    alpha_s, sigma_s, alpha_t, sigma_t = (
        table[u].item() for u in (s, t) for table in (sch.alpha, sch.sigma))
    # x_t | x_s ~ N(r x_s, added), so that x_t | x has mean α_t x and variance σ_t²
    r = alpha_t / alpha_s
    added = sigma_t**2 - r**2 * sigma_s**2
    # prior x_s ~ N(α_s x, σ_s²): precisions add, means add weighted by them
    precision = 1 / sigma_s**2 + r**2 / added
    by_hand = (alpha_s * x / sigma_s**2 + r * x_t / added) / precision
    mean, variance = sample.posterior(sch, x_t, x, t, s)
    close(mean, by_hand, 1e-9)
    assert variance.item() == pytest.approx(1 / precision, rel=1e-9)


@any_schedule
@pytest.mark.parametrize("t", [255, 100, 0])
def test_the_posterior_of_clean_data_is_the_data(sch, t):
    x_t, x = torch.randn(2, 3)
    mean, variance = sample.posterior(sch, x_t, x, t, -1)
    close(mean, x, 1e-6)
    assert variance.item() == 0


def test_the_posterior_is_that_of_the_chain_a_step_at_a_time():
    """Where variance is preserved the chain x_t = √(1 − β_t) x_{t−1} + √β_t ε leads there too."""
    sch, x_t, x = schedule.cosine(), *torch.randn(2, 3, dtype=torch.float64)
    for t, s in ((1023, 511), (512, 511), (700, 13)):
        r, added = chained(sch, s, t)
        precision = 1 / sch.sigma[s] ** 2 + r**2 / added
        mean, variance = sample.posterior(sch, x_t, x, t, s)
        close(mean, (sch.alpha[s] * x / sch.sigma[s] ** 2 + r * x_t / added) / precision, 1e-9)
        assert variance.item() == pytest.approx(1 / precision.item(), rel=1e-9)


def chained(sch: schedule.Schedule, s: int, t: int) -> tuple[float, float]:
    """Factor and variance of x_t given x_s, by DDPM's chain."""
    r, added = 1.0, 0.0
    for beta in sch.betas()[s + 1:t + 1].tolist():
        r, added = r * math.sqrt(1 - beta), (1 - beta) * added + beta
    return r, added


@pytest.mark.parametrize("t, s", [(1023, 511), (1023, -1), (512, 511), (700, 13), (0, -1)])
def test_noise_is_added_as_the_chain_does_a_step_at_a_time(t, s):
    sch, x_s = schedule.cosine(), torch.randn(5, dtype=torch.float64)
    r, added = chained(sch, s, t)
    eps = torch.randn(5, dtype=torch.float64, generator=generator(1))
    close(sample.renoise(sch, x_s, s, t, generator(1)), r * x_s + math.sqrt(added) * eps, 1e-9)


@any_schedule
@pytest.mark.parametrize("t, s", [(255, 120), (255, -1), (120, 119), (9, -1)])
def test_what_is_noised_twice_has_the_law_of_what_is_noised_once(sch, t, s):
    """q(x_t | x) is the same by way of x_s: of the data x the share α_t is left, and noise σ_t."""
    n, x = 40_000, 0.7
    x_s = sch.noise(torch.full((n,), x), s, torch.randn(n, generator=generator(1)))
    x_t = sample.renoise(sch, x_s, s, t, generator(2))
    alpha, sigma = sch.alpha[t].item(), sch.sigma[t].item()
    assert x_t.mean().item() == pytest.approx(alpha * x, abs=4 * sigma / n**0.5)
    assert x_t.std().item() == pytest.approx(sigma, rel=4 / (2 * n) ** 0.5)


def test_between_times_of_the_same_signal_to_noise_ratio_rounding_makes_no_nan():
    """σ_t² − r² σ_s² is 0 there, and in float32 as often −1e-6."""
    grown = torch.linspace(1, 3, 200, dtype=torch.float64)
    sch, x = schedule.Schedule("growing", 0.3 * grown, 0.7 * grown), torch.randn(100)
    for t in range(1, sch.T):
        assert sample.renoise(sch, x, t - 1, t, generator()).isfinite().all()
        mean, variance = sample.posterior(sch, x, x, t, t - 1)
        assert mean.isfinite().all() and 0 <= variance < 1e-4


def test_where_nothing_of_the_data_was_left_already_the_noise_is_drawn_anew():
    """α_s = 0 leaves α_t/α_s without a value."""
    sch = schedule.table("twice nothing", [0.8, 0.0, 0.0], [0.6, 1.0, 2.0])
    x_t, x = torch.randn(2, 20_000, generator=generator(1))
    assert sample.renoise(sch, x_t, 1, 2, generator(2)).std().item() == pytest.approx(2, rel=0.03)
    mean, variance = sample.posterior(sch, x_t, x, 2, 1)
    assert torch.equal(mean, torch.zeros_like(x)) and variance.item() == 1
    denoiser = Denoiser(Gaussian(M, S, sch), sch, "v")
    for sampler in SAMPLERS:
        z = 2 * torch.randn(50, 1, 1, 1)
        assert sample.last(sampler(denoiser, z, 3, generator=generator())).isfinite().all()


def test_times_in_the_wrong_order_and_samples_of_unlike_shapes_are_refused():
    sch, x = schedule.cosine(), torch.zeros(2, 1, 4, 4)
    for t, s in ((5, 5), (5, 6)):
        with refused(ValueError, f"s must be an earlier time than t; got s = {s} and t = 5"):
            sample.posterior(sch, x, x, t, s)
        with refused(ValueError, f"s must be an earlier time than t; got s = {s} and t = 5"):
            sample.renoise(sch, x, s, t)
    with refused(ValueError, r"x_t and x0 must have one shape; got \(2, 1, 4, 4\) and \(2, 4, 4\)"):
        sample.posterior(sch, x, x[:, 0], 5, 3)
    with refused(ValueError, r"must have one shape; got \(2, 1, 4, 4\) and \(2, 4, 4\)"):
        sample.ddim_step(sch, x, x[:, 0], 3)
    with refused(TypeError, "x_s must be floating-point numbers; got torch.uint8"):
        sample.renoise(sch, x.to(torch.uint8), -1, 3)


def test_fresh_noise_is_drawn_where_its_generator_is(monkeypatch):
    """A generator on the CPU serves a model on a GPU, as the docstring says: PyTorch itself refuses
    to draw on one device with a generator of another."""
    drawn_on, randn = [], torch.randn

    def watched(*args, generator, device, **options):
        drawn_on.append(torch.device(device).type)
        return randn(*args, device=device, **options)

    monkeypatch.setattr(torch, "randn", watched)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = torch.zeros(2, 3, device="cuda")
        assert sample.draw(there, torch.Generator()).is_cuda
        assert sample.renoise(schedule.flow(8), there, -1, 5, torch.Generator()).is_cuda
        assert sample.draw(there, None).is_cuda
    assert drawn_on == ["cpu", "cpu", "cuda"]


# Against the exact denoiser of a finite data set

POINTS = torch.tensor([[-0.9, -0.6], [0.8, -0.7], [0.1, 0.9], [-0.5, 0.4]])
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4])
CLASSES = torch.tensor([0, 0, 1, 1])


def finite(sch: schedule.Schedule = schedule.cosine(256)) -> Denoiser:
    return Denoiser(FiniteData(POINTS, WEIGHTS, CLASSES, sch), sch, "v")


def nearest(x):
    """How far each sample is from its data point, and which that is."""
    return torch.cdist(x.flatten(1), POINTS).min(1)


@pytest.mark.parametrize("sch", [schedule.cosine(256), schedule.flow(256)], ids=lambda s: s.name)
@pytest.mark.parametrize("sampler", [sample.ddim, sample.ddpm, sample.stochastic, sample.heun])
def test_with_the_exact_denoiser_samples_are_the_data_points_as_often_as_they_should(sampler, sch):
    n = 2000
    z = torch.randn(n, 2, 1, 1, generator=generator(1))
    x = sample.last(sampler(finite(sch), z, 64, generator=generator(2)))
    distance, which = nearest(x)
    assert (distance < 1e-3).float().mean() > 0.999  # DDIM may leave one on the ridge between two
    found = torch.bincount(which, minlength=4) / n
    # χ² with 3 degrees of freedom: 16.3 is passed once in a thousand; 64 steps bias it a bit
    assert n * ((found - WEIGHTS) ** 2 / WEIGHTS).sum() < 16.3


def test_a_label_restricts_the_samples_to_its_class_and_guidance_does_not_leave_it():
    z, label = torch.randn(200, 2, 1, 1), torch.arange(200) % 2
    for guidance in (0.0, 1.0):
        _, which = nearest(sample.last(sample.ddim(finite(), z, 64, label, guidance)))
        assert torch.equal(CLASSES[which], label)


@pytest.mark.parametrize("sch", [schedule.cosine(256), schedule.flow(256)], ids=lambda s: s.name)
def test_few_steps_do_not_reach_the_data_points(sch):
    """One step gives the mean of the data: the reason why the course exists."""
    x = sample.last(sample.ddim(finite(sch), torch.randn(50, 2, 1, 1), 1))
    close(x.flatten(1), (WEIGHTS @ POINTS).expand(50, 2))


# Against the closed form for a Gaussian

M, S = 0.25, 0.4


def gaussian(kind: str = "v", sch: schedule.Schedule = schedule.cosine()) -> Denoiser:
    return Denoiser(Gaussian(M, S, sch, kind), sch, kind)


def tables(sch: schedule.Schedule, t: int) -> tuple[float, float]:
    return (sch.alpha[t].item(), sch.sigma[t].item()) if t >= 0 else (1.0, 0.0)


def slopes(sch: schedule.Schedule, t: int, s: int) -> tuple[float, float]:
    """By hand, in y = x − α M at t: E[x|y] = M + K y with K = α S²/(α² S² + σ²), and
    ε = y (1 − α K)/σ. Returns K, and by what a DDIM step to s multiplies y."""
    (a, b), (a_s, b_s) = tables(sch, t), tables(sch, s)
    gain = a * S**2 / (a**2 * S**2 + b**2)
    return gain, a_s * gain + b_s * (1 - a * gain) / b


@pytest.mark.parametrize("kind, sch", [
    *[(kind, schedule.linear()) for kind in ("v", "x", "eps", "both")],
    *[(kind, schedule.flow(400)) for kind in ("v", "x", "both")], ("v", BENT)],
    ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("n", [1, 5, 100])
def test_ddims_map_for_a_gaussian_is_the_product_of_its_steps(n, kind, sch):
    z = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    times = [round(sch.T * k / n) - 1 for k in range(n, 0, -1)] + [-1]
    slope = math.prod(slopes(sch, t, s)[1] for t, s in zip(times, times[1:]))
    by_hand = M + slope * (z - sch.alpha[-1] * M)
    close(sample.last(sample.ddim(gaussian(kind, sch), z, n)), by_hand, 1e-8)


def slope_of(sampler, sch: schedule.Schedule, n: int) -> float:
    """A sampler's n-step map for a Gaussian is linear in z; its slope, from two inputs."""
    points = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    zero, one = sample.last(sampler(gaussian(sch=sch), points, n)).flatten().tolist()
    return one - zero


@pytest.mark.parametrize("sampler, order", [(sample.ddim, 1), (sample.euler, 1), (sample.heun, 2)])
@pytest.mark.parametrize("sch, scale", [
    (schedule.cosine(256), 1), (schedule.flow(256), 1), (BENT, 2)],
    ids=lambda value: getattr(value, "name", ""))
def test_a_solver_converges_to_the_exact_flow_at_its_order(sampler, order, sch, scale):
    """The probability-flow ODE keeps quantiles: of z ~ N(0, σ_T²), z/σ_T goes to M + S z/σ_T."""
    assert sch.sigma[-1].item() == pytest.approx(scale)
    errors = [abs(slope_of(sampler, sch, n) - S / scale) for n in (16, 32, 64, 128)]
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)
    assert errors[-1] < (2e-2 if order == 1 else 1e-3)


def ancestral_law(n: int, sch: schedule.Schedule, s_noise: float = 1.0, s_tmax: float = 1.0
                  ) -> tuple[float, float]:
    """Mean and variance of the image that n ancestral steps draw for a Gaussian, carried along
    exactly: each step is linear in x_t plus noise, so that the library's own posterior at two
    points gives its slope and offset."""
    denoiser = gaussian(sch=sch)
    points = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    times = sch.times(n)
    mean, variance = 0.0, 1.0
    for t, s in zip(times, times[1:] + [-1]):
        moved, added = sample.posterior(sch, points, denoiser(points, t).x, t, s)
        offset, slope = moved[0].item(), (moved[1] - moved[0]).item()
        scale = s_noise if t < s_tmax * sch.T else 1.0
        mean, variance = offset + slope * mean, slope**2 * variance + scale**2 * added.item()
    return mean, variance


@pytest.mark.parametrize("sch", [schedule.cosine(512), schedule.flow(512)], ids=lambda s: s.name)
def test_ancestral_sampling_reproduces_the_gaussian_in_the_limit(sch):
    laws = [ancestral_law(n, sch) for n in (128, 256, 512)]
    for mean, variance in laws:
        assert mean == pytest.approx(M, abs=1e-6) and variance < S**2
    errors = [S**2 - variance for _, variance in laws]
    assert errors[-1] < 0.04 * S**2
    for coarse, fine in zip(errors, errors[1:]):
        assert 1.7 < coarse / fine < 2.3


@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.flow()], ids=lambda s: s.name)
@pytest.mark.parametrize("noise", [{}, {"s_noise": 0.5}, {"s_noise": 0.5, "s_tmax": 0.5},
                                   {"s_noise": 0.0, "s_tmax": 0.9}], ids=str)
def test_ancestral_sampling_draws_from_the_law_that_its_steps_imply(noise, sch):
    n, (mean, variance) = 20_000, ancestral_law(12, sch, **noise)
    z = torch.randn(n, 1, 1, 1, generator=generator(3))
    states = sample.ddpm(gaussian(sch=sch), z, 12, generator=generator(4), clip=False, **noise)
    x = sample.last(states)
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


# The sampler of distilled models

def test_stochastic_sampling_by_hand(tiny):
    """From 1023 to 340 and back to 682, from there to clean data and back to 340, and the
    prediction there."""
    z, g = torch.randn(2, 1, 28, 28), generator(5)
    (a, b), (a_far, b_far) = tiny.schedule.at(682, z), tiny.schedule.at(340, z)
    r = a / a_far
    with torch.no_grad():
        first = tiny(z, 1023, LABEL, 0.5)
        x = r * (a_far * first.x + b_far * first.eps)
        x = x + (b**2 - r**2 * b_far**2).sqrt() * torch.randn(z.shape, generator=g)
        second = tiny(x, 682, LABEL, 0.5)
        x = a_far * second.x + b_far * torch.randn(z.shape, generator=g)
        by_hand = tiny(x, 340, LABEL, 0.5).x
    close(sample.last(sample.stochastic(tiny, z, 3, LABEL, 0.5, generator(5))), by_hand)


def test_in_one_step_stochastic_sampling_is_ddim(tiny):
    z = torch.randn(2, 1, 28, 28)
    by_ddim = sample.last(sample.ddim(tiny, z, 1, LABEL))
    assert torch.equal(sample.last(sample.stochastic(tiny, z, 1, LABEL)), by_ddim)


def stochastic_variance(n: int, sch: schedule.Schedule) -> float:
    """Of what n such steps draw for a Gaussian, by hand in y = x − α M, whose mean stays 0."""
    variance, times = 1.0, sch.times(n) + [-1]
    for t, s, far in zip(times, times[1:], times[2:] + [-1]):
        (a_s, b_s), (a_far, b_far) = tables(sch, s), tables(sch, far)
        r = a_s / a_far
        variance = r**2 * slopes(sch, t, far)[1] ** 2 * variance + b_s**2 - r**2 * b_far**2
    return variance


@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.flow()], ids=lambda s: s.name)
def test_stochastic_sampling_draws_from_its_steps_law_which_is_the_gaussian_in_the_limit(sch):
    errors = [abs(stochastic_variance(n, sch) - S**2) for n in (256, 512, 1024)]
    assert errors[-1] < 0.03 * S**2
    for coarse, fine in zip(errors, errors[1:]):
        assert 1.7 < coarse / fine < 2.3
    n, z = 20_000, torch.randn(20_000, 1, 1, 1, generator=generator(3))
    for steps in (6, 128):
        x = sample.last(sample.stochastic(gaussian(sch=sch), z, steps, generator=generator(4)))
        variance = stochastic_variance(steps, sch)
        assert x.mean().item() == pytest.approx(M, abs=4 * math.sqrt(variance / n))
        assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.flow()], ids=lambda s: s.name)
def test_in_several_steps_a_student_meets_its_predictions_noised_anew(sch):
    denoiser, z, g = gaussian(sch=sch), torch.randn(3, 1, 1, 1), generator(6)
    x, by_hand = z, []
    for t, s in ((1023, 682), (682, 340), (340, None)):
        by_hand.append(denoiser(x, t).x)
        if s is not None:
            x = sch.alpha[s].float() * by_hand[-1] + sch.sigma[s].float() * torch.randn(
                z.shape, generator=g)
    states = sample.multistep(denoiser, z, 3, generator=generator(6))
    for state, expected in zip(states, by_hand):
        close(state.x0, expected, 1e-6)


# The step as a rotation

def ends(sch: schedule.Schedule) -> tuple[torch.Tensor, torch.Tensor]:
    """Every t with every s below it, clean data included."""
    t, s = torch.tril_indices(sch.T, sch.T)
    return t, s - 1


@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.linear()], ids=lambda s: s.name)
def test_a_ddim_step_is_a_rotation_by_the_difference_of_the_angles(sch):
    t, s = ends(sch)
    x_t, v = torch.randn(2, len(t), dtype=torch.float64)
    phi = torch.cat([torch.atan2(sch.sigma, sch.alpha), torch.zeros(1).double()])  # t = −1 is last
    alpha, sigma = sch.at(t, x_t)
    x, eps = schedule.x_from_v(x_t, v, alpha, sigma), schedule.eps_from_v(x_t, v, alpha, sigma)
    delta = phi[t] - phi[s]
    by_hand = delta.cos() * x_t - delta.sin() * v
    torch.testing.assert_close(sample.ddim_step(sch, x, eps, s), by_hand, rtol=0, atol=1e-9)


def test_a_ddim_step_of_a_flow_is_a_step_along_its_straight_line():
    """x_s = x_t + (u_s − u_t)(ε − x), with u = σ."""
    sch = schedule.flow(64)
    t, s = ends(sch)
    x, eps = torch.randn(2, len(t), dtype=torch.float64)
    by_hand = sch.noise(x, t, eps) + ((s - t) / 64) * (eps - x)
    torch.testing.assert_close(sample.ddim_step(sch, x, eps, s), by_hand, rtol=0, atol=1e-9)


# Solvers of the probability-flow ODE

TILTED = score.GaussianMixture(
    torch.tensor([[0.3, -0.2]]), torch.tensor([[[0.25, 0.1], [0.1, 0.09]]]), torch.ones(1))


def flow(z: torch.Tensor) -> torch.Tensor:
    """Where the ODE leads z if the data are TILTED: it keeps the coordinates along the covariance's
    axes, in units of the spread, so that z ends at m + Σ^½ z."""
    values, vectors = torch.linalg.eigh(TILTED.covariances[0].double())
    return TILTED.means.double() + z @ vectors * values.sqrt() @ vectors.T


def distance_from_flow(sampler, sch: schedule.Schedule, start, z, n: int) -> float:
    """Of what n steps make of a start, from where the ODE leads the z that belongs to it."""
    x = sample.last(sampler(score.Exact(TILTED, sch), start, n))
    return (x - flow(z)).norm(dim=1).mean().item()


@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.flow()], ids=lambda s: s.name)
@pytest.mark.parametrize("sampler, order", [(sample.ddim, 1), (sample.euler, 1), (sample.heun, 2)])
def test_a_solver_has_its_order_against_the_closed_flow_of_two_dimensions(sampler, order, sch):
    z = torch.randn(50, 2, generator=generator(5), dtype=torch.float64)
    errors = [distance_from_flow(sampler, sch, z, z, n) for n in (32, 64, 128)]
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert errors[-1] < (2e-2 if order == 1 else 8e-4)


@pytest.mark.parametrize("sampler", [sample.ddim, sample.euler, sample.heun])
def test_a_solver_follows_the_flow_of_an_uneven_schedule_too(sampler):
    """The linear schedule's angles are not equally spaced, and it stops at α = 0.13: so start where
    its flow does."""
    sch, z = schedule.linear(), torch.randn(20, 2, generator=generator(6), dtype=torch.float64)
    alpha, sigma = sch.alpha[-1], sch.sigma[-1]
    values, vectors = torch.linalg.eigh(TILTED.covariances[0].double())
    spread = (alpha**2 * values + sigma**2).sqrt()
    start = alpha * TILTED.means.double() + z @ vectors * spread @ vectors.T
    coarse, fine = (distance_from_flow(sampler, sch, start, z, n) for n in (100, 200))
    assert coarse < 0.04 and fine < 0.6 * coarse


def test_a_step_of_euler_and_of_heun_is_the_formula_in_the_angle():
    denoiser = score.Exact(score.ring(), schedule.cosine())
    z = torch.randn(4, 2, dtype=torch.float64)
    stride = math.pi / 2 * 512 / 1024  # from t = 1023 to 511
    slope = denoiser(z, 1023).v
    ahead = z - stride * slope
    mean = (slope + denoiser(ahead, 511).v) / 2
    for sampler, wanted in ((sample.euler, ahead), (sample.heun, z - stride * mean)):
        close(next(sampler(denoiser, z, 2)).x, wanted, 1e-9)


@pytest.mark.parametrize("sampler", [sample.euler, sample.heun])
def test_every_solver_ends_on_its_last_prediction_and_in_one_step_they_agree(tiny, sampler):
    z = torch.randn(2, 1, 28, 28)
    states = list(sampler(tiny, z, 3, LABEL))
    assert [state.t for state in states] == [1023, 682, 340]
    assert torch.equal(states[-1].x, states[-1].x0)
    assert not any(state.x.requires_grad for state in states)
    in_one = sample.last(sampler(tiny, z, 1, LABEL))
    assert torch.equal(in_one, sample.last(sample.ddim(tiny, z, 1, LABEL)))
    again = sampler(tiny, z, 3, LABEL, generator=generator(1))
    assert all(torch.equal(a.x, b.x) for a, b in zip(states, again))


@pytest.mark.parametrize("sampler, calls", [(sample.euler, 5), (sample.heun, 9)])
def test_the_number_of_network_calls(tiny, sampler, calls):
    tiny.net = Counted(tiny.net)
    for guidance in (0.0, 1.0):  # guided, both evaluations are one call of a double batch
        tiny.net.calls = 0
        sample.last(sampler(tiny, torch.randn(2, 1, 28, 28), 5, LABEL, guidance))
        assert tiny.net.calls == calls


# Clamping

@every_sampler
def test_clipping_keeps_every_prediction_in_range(tiny, sampler):
    z = 3 * torch.randn(2, 1, 28, 28)
    free = sampler(tiny, z, 4, LABEL, clip=False, generator=generator())
    kept = sampler(tiny, z, 4, LABEL, clip=True, generator=generator())
    assert max(state.x0.abs().max() for state in free) > 1
    assert all(state.x0.abs().max() <= 1 for state in kept)


def clamped(denoiser: Denoiser, x: torch.Tensor, t: int) -> torch.Tensor:
    return denoiser(x, t).x.clamp(-1, 1)


@any_schedule
def test_a_clamped_prediction_brings_the_noise_that_goes_with_it(sch):
    """α x̂ + σ ε̂ stays x_t: with the ε̂ of before the clamp, guidance seemed to break digits."""
    denoiser, x = Denoiser(Gaussian(1.3, 0.8, sch), sch, "v"), 2 * torch.randn(50, 1, 1, 1)
    t, s = sch.times(2)
    x_hat = clamped(denoiser, x, t)
    assert (denoiser(x, t).x - x_hat).abs().max() > 0.1
    (a, b), (a_s, b_s) = tables(sch, t), tables(sch, s)
    eps = (x - a * x_hat) / b
    state = next(sample.ddim(denoiser, x, 2, clip=True))
    assert torch.equal(state.x0, x_hat)
    close(state.x, a_s * x_hat + b_s * eps, 1e-5)
    stochastic = next(sample.stochastic(denoiser, x, 2, clip=True, generator=generator()))
    fresh = torch.randn(x.shape, generator=generator())
    close(stochastic.x, a_s * x_hat + b_s * fresh, 1e-5)


def test_the_solvers_clamp_every_prediction_on_their_way():
    """They took the clamp at the last step alone, and went there with the velocities of before."""
    sch = schedule.cosine()
    denoiser, z = Denoiser(Gaussian(1.3, 0.8, sch), sch, "v"), 2 * torch.randn(50, 1, 1, 1)
    stride = math.pi / 2 * 512 / 1024  # from t = 1023 to 511
    slope = predict("x", clamped(denoiser, z, 1023), z, *sch.at(1023, z)).v
    ahead = z - stride * slope
    there = predict("x", clamped(denoiser, ahead, 511), ahead, *sch.at(511, z)).v
    heun = z - stride * (slope + there) / 2
    for sampler, wanted in ((sample.euler, ahead), (sample.heun, heun)):
        state = next(sampler(denoiser, z, 2, clip=True))
        close(state.x, wanted, 1e-5)
        assert not torch.allclose(state.x, next(sampler(denoiser, z, 2)).x, atol=1e-2)


def test_ancestral_sampling_clamps_images_and_leaves_points_alone(tiny):
    z = 3 * torch.randn(2, 1, 28, 28)
    states = {clip: [state.x0 for state in sample.ddpm(tiny, z, 3, LABEL, 0.0, generator(), clip)]
              for clip in (None, True, False)}
    assert all(map(torch.equal, states[None], states[True]))
    assert not all(map(torch.equal, states[None], states[False]))
    far = score.Exact(score.GaussianMixture.round(torch.tensor([[3.0, 0.0]]), 0.1), tiny.schedule)
    assert sample.last(sample.ddpm(far, torch.randn(9, 2), 8, generator=generator())).max() > 2.5


# The noise of ancestral sampling

def test_only_steps_from_below_s_tmax_have_their_noise_scaled(tiny):
    z = torch.randn(2, 1, 28, 28)

    def run(s_noise, s_tmax):
        noise = {"s_noise": s_noise, "s_tmax": s_tmax}
        return list(sample.ddpm(tiny, z, 8, LABEL, generator=generator(), **noise))

    plain, half, below = run(1.0, 1.0), run(0.5, 0.5), run(0.5, 511 / 1024)
    assert [state.t for state in plain[3:6]] == [639, 511, 383]
    assert [torch.equal(a.x, b.x) for a, b in zip(plain, half)] == [True] * 4 + [False] * 4
    assert [torch.equal(a.x, b.x) for a, b in zip(plain, below)] == [True] * 5 + [False] * 3
    assert torch.equal(plain[-1].x, run(1.0, 0.5)[-1].x)


@pytest.mark.parametrize("options, sentence", [
    ({"s_noise": -0.1}, "s_noise must be 0 or more, and s_tmax a share of T"),
    ({"s_noise": float("nan")}, "got nan and 1"),
    ({"s_tmax": 0.0}, "got 1 and 0"),
    ({"s_tmax": 1.1}, "got 1 and 1.1"),
])
def test_noise_that_cannot_be_is_refused(tiny, options, sentence):
    with refused(ValueError, sentence):
        sample.ddpm(tiny, torch.randn(2, 1, 28, 28), 4, LABEL, **options)


# What a sampler yields

@pytest.mark.parametrize("sampler", SAMPLERS[:4])
def test_a_sampler_yields_every_state_and_calls_its_network_once_a_step(tiny, sampler):
    tiny.net = Counted(tiny.net)
    z = torch.randn(2, 1, 28, 28)
    states = list(sampler(tiny, z, 5, LABEL, generator=generator()))
    assert [state.step for state in states] == [1, 2, 3, 4, 5] and tiny.net.calls == 5
    assert [state.t for state in states] == [1023, 818, 613, 409, 204]
    assert all(state.x.shape == state.x0.shape == z.shape for state in states)
    assert torch.equal(states[-1].x, states[-1].x0)
    assert not torch.equal(states[0].x, states[0].x0)
    assert not any(state.x.requires_grad for state in states)
    with torch.no_grad():
        x0 = tiny(z, 1023, LABEL).x
    assert torch.equal(states[0].x0, x0.clamp(-1, 1) if sampler is sample.ddpm else x0)


def test_a_sampler_that_has_run_or_has_no_state_has_no_images(tiny):
    states = sample.ddim(tiny, torch.randn(2, 1, 28, 28), 1)
    sample.last(states)
    for empty in (states, []):
        with refused(ValueError, "This sampler yields no state: it has been run already"):
            sample.last(empty)


def test_ddim_is_deterministic_and_leaves_the_random_state_alone(tiny):
    z, g = torch.randn(2, 1, 28, 28), generator()
    before, own = torch.get_rng_state(), g.get_state()
    first = sample.last(sample.ddim(tiny, z, 4, LABEL, generator=g))
    assert torch.equal(first, sample.last(sample.ddim(tiny, z, 4, LABEL)))
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(g.get_state(), own)


@pytest.mark.parametrize("sampler", [sample.ddpm, sample.stochastic, sample.multistep])
def test_a_random_sampler_repeats_itself_from_the_same_seed_only(tiny, sampler):
    z = torch.randn(2, 1, 28, 28)
    first, again, other = (sample.last(sampler(tiny, z, 4, LABEL, generator=generator(seed)))
                           for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-2)


def test_the_samples_of_a_batch_do_not_know_of_each_other(tiny):
    z, label = torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 3])
    together = sample.last(sample.ddim(tiny, z, 4, label, guidance=0.5))
    alone = [sample.last(sample.ddim(tiny, z[i:i + 1], 4, label[i:i + 1], guidance=0.5))
             for i in range(4)]
    close(together, torch.cat(alone))


@pytest.mark.parametrize("sampler", SAMPLERS[:4])
def test_guidance_zero_is_the_conditional_prediction_and_costs_one_call(tiny, sampler):
    tiny.net = Counted(tiny.net)
    z = torch.randn(2, 1, 28, 28)
    plain = sample.last(sampler(tiny, z, 4, LABEL, generator=generator()))
    zero = sample.last(sampler(tiny, z, 4, LABEL, guidance=0.0, generator=generator()))
    more = sample.last(sampler(tiny, z, 4, LABEL, guidance=2.0, generator=generator()))
    assert torch.equal(plain, zero) and not torch.allclose(plain, more, atol=1e-3)
    assert tiny.net.calls == 12  # guided steps stack both evaluations into one call


def test_no_label_is_the_label_no_class(tiny):
    z = torch.randn(2, 1, 28, 28)
    no_class = sample.last(sample.ddim(tiny, z, 2, torch.full((2,), 10)))
    assert torch.equal(sample.last(sample.ddim(tiny, z, 2)), no_class)


@every_sampler
@pytest.mark.parametrize("prediction, sch", [
    *[(kind, schedule.flow(64)) for kind in ("v", "x", "both")],  # ε says nothing where α is 0
    *[(kind, schedule.linear(64, beta_end=0.2)) for kind in ("v", "x", "eps", "both")]],
    ids=lambda value: getattr(value, "name", value))
def test_every_sampler_takes_every_prediction_of_every_schedule(sampler, prediction, sch):
    denoiser, z = small_denoiser(sch, prediction), torch.randn(2, 1, 8, 8)
    assert sample.last(sampler(denoiser, z, 3, LABEL, 0.5, generator())).isfinite().all()


# Bad input: one sentence, before any work

Z = torch.randn(2, 1, 28, 28)
WHOLE = r"label must be a tensor of whole numbers \(torch.int64\), one a sample; got "
BAD = [
    ({"n_steps": 0}, ValueError, r"n_steps must be a whole number from 1 to 1024; got 0\."),
    ({"n_steps": 1025}, ValueError, r"n_steps must be a whole number from 1 to 1024; got 1025\."),
    ({"n_steps": 1.5}, ValueError, r"n_steps must be a whole number from 1 to 1024; got 1\.5\."),
    ({"n_steps": True}, ValueError, r"n_steps must be a whole number from 1 to 1024; got True\."),
    ({"label": torch.tensor([0, 11])}, ValueError, r"label must lie in 0 … 9 .*; got 11\."),
    ({"label": torch.tensor([-1, 3])}, ValueError, r"label must lie in 0 … 9 .*; got -1\."),
    ({"label": torch.tensor([1.0, 3.0])}, TypeError, f"{WHOLE}torch.float32"),
    ({"label": torch.tensor([True, False])}, TypeError, f"{WHOLE}torch.bool"),
    ({"label": torch.tensor([1, 2], dtype=torch.uint8)}, TypeError, f"{WHOLE}torch.uint8"),
    ({"label": [1, 2]}, TypeError, f"{WHOLE}list"),
    ({"label": 3}, TypeError, f"{WHOLE}int"),
    ({"label": torch.tensor([1, 2, 3])}, ValueError,
     r"label must have shape \(2,\), one a sample; got \(3,\)\."),
    ({"label": torch.tensor([[1], [2]])}, ValueError,
     r"label must have shape \(2,\), one a sample; got \(2, 1\)\."),
    ({"guidance": 0.5, "label": None}, ValueError, "guidance = 0.5 needs labels"),
    ({"guidance": float("nan")}, ValueError, "guidance must be a finite number; got nan"),
    ({"z": torch.randn(2, 1, 32, 32)}, ValueError,
     r"samples must have shape \(B, 1, 28, 28\); got \(2, 1, 32, 32\)\."),
    ({"z": torch.randn(2, 3, 28, 28)}, ValueError,
     r"samples must have shape \(B, 1, 28, 28\); got \(2, 3, 28, 28\)\."),
    ({"z": torch.randn(2, 784)}, ValueError,
     r"samples must have shape \(B, 1, 28, 28\); got \(2, 784\)\."),
    ({"z": torch.randn(2, 28, 28)}, ValueError,
     r"samples must have shape \(B, 1, 28, 28\); got \(2, 28, 28\)\."),
    ({"z": Z.to(torch.uint8)}, TypeError, "z must be floating-point numbers; got torch.uint8"),
    ({"z": Z.double()}, TypeError, "are torch.float64 and the network's weights torch.float32"),
]


@every_sampler
@pytest.mark.parametrize("change, error, sentence", BAD, ids=lambda value: "")
def test_bad_input_is_one_sentence_before_any_network_call(sampler, change, error, sentence):
    denoiser = tiny_denoiser()
    denoiser.net = Counted(denoiser.net)
    arguments = {"z": Z, "n_steps": 4, "label": LABEL} | change
    with refused(error, sentence):
        sample.last(sampler(denoiser, **arguments))
    assert denoiser.net.calls == 0


@every_sampler
@pytest.mark.parametrize("change, error, sentence", BAD[:15], ids=lambda value: "")
def test_steps_labels_and_guidance_are_refused_when_the_sampler_is_made(
        tiny, sampler, change, error, sentence):
    with refused(error, sentence):
        sampler(tiny, **{"z": Z, "n_steps": 4, "label": LABEL} | change)


@every_sampler
def test_a_sampler_checks_labels_itself(sampler):
    """On a GPU a Denoiser does not look at the labels' values, since it would wait for the GPU at
    every step."""
    unchecked = SimpleNamespace(schedule=schedule.cosine(), n_classes=10)  # a call would show
    with refused(ValueError, r"label must lie in 0 … 9 .*; got 11\."):
        sampler(unchecked, Z, 4, torch.tensor([0, 11]))
