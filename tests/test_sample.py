"""Samplers: against diffusers where the grids agree, against exact denoisers, and against bad input."""
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import Counted, refused, tiny_denoiser
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from oracles import FiniteData, Gaussian

from dmdkit import sample, schedule, score, store
from dmdkit.denoiser import Denoiser, Guided
from dmdkit.evaluation import Sampling

LABEL = torch.tensor([3, 7])
CLASSICAL = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_denoiser(sch: schedule.Schedule, prediction: str) -> Denoiser:
    """One-channel 8 × 8 images without pixel-unshuffle, so that diffusers draws its noise in our shape."""
    torch.manual_seed(1)
    net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1,
                      down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
                      attention_head_dim=8, num_class_embeds=11)
    return Denoiser(net, sch, prediction).eval()


@torch.no_grad()
def by_diffusers(denoiser: Denoiser, scheduler, z, n, label, **step):
    """The sampling loop of diffusers' own examples, on the bare network."""
    x = F.pixel_unshuffle(z, denoiser.patch)
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        x = scheduler.step(denoiser.net(x, t, class_labels=label).sample, t, x, **step).prev_sample
    return F.pixel_shuffle(x, denoiser.patch)


# Against diffusers

@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_ddim_draws_what_diffusers_ddim_draws_with_v_and_the_cosine_schedule(tiny, n):
    z = torch.randn(2, 1, 28, 28)
    ours = sample.last(sample.ddim(tiny, z, n, LABEL))
    theirs = by_diffusers(tiny, store.scheduler(tiny.schedule, "v"), z, n, LABEL)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("n", [1, 8, 50])
def test_ddim_draws_what_diffusers_ddim_draws_with_eps_and_the_linear_schedule(n, clip):
    denoiser, z = small_denoiser(schedule.linear(), "eps"), torch.randn(2, 1, 8, 8)
    scheduler = DDIMScheduler(400, **CLASSICAL, clip_sample=clip, timestep_spacing="trailing")
    ours = sample.last(sample.ddim(denoiser, z, n, LABEL, clip=clip))
    torch.testing.assert_close(ours, by_diffusers(denoiser, scheduler, z, n, LABEL), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("n", [1, 7, 50])  # 7 does not divide 400; diffusers' DDPM, unlike its DDIM, knows what to do
def test_ddpm_draws_what_diffusers_ddpm_draws_with_the_same_noise(n, clip):
    denoiser, z = small_denoiser(schedule.linear(), "eps"), torch.randn(2, 1, 8, 8)
    scheduler = DDPMScheduler(400, **CLASSICAL, clip_sample=clip, timestep_spacing="trailing",
                              variance_type="fixed_small")
    ours = sample.last(sample.ddpm(denoiser, z, n, LABEL, generator=generator(), clip=clip))
    theirs = by_diffusers(denoiser, scheduler, z, n, LABEL, generator=generator())
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_ddpm_draws_what_diffusers_ddpm_draws_from_pure_noise(n):
    denoiser, z = small_denoiser(schedule.cosine(), "v"), torch.randn(2, 1, 8, 8)
    scheduler = DDPMScheduler(1024, trained_betas=denoiser.schedule.betas().tolist(), clip_sample=True,
                              prediction_type="v_prediction", timestep_spacing="trailing")
    ours = sample.last(sample.ddpm(denoiser, z, n, LABEL, generator=generator()))
    theirs = by_diffusers(denoiser, scheduler, z, n, LABEL, generator=generator())
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


# The posterior

@pytest.mark.parametrize("t, s", [(1023, 1022), (1023, 511), (1023, 0), (512, 511), (700, 13), (1, 0)])
def test_the_posterior_is_bayes_rule_for_two_gaussians(t, s):
    sch, x_t, x = schedule.cosine(), *torch.randn(2, 3, dtype=torch.float64)
    # the chain from s to t, a step at a time: x_t | x_s ~ N(r x_s, added)
    r, added = 1.0, 0.0
    for beta in sch.betas()[s + 1:t + 1].tolist():
        r, added = r * math.sqrt(1 - beta), (1 - beta) * added + beta
    # prior x_s ~ N(α_s x, σ_s²): precisions add, means add weighted by them
    alpha_s, var_s = sch.alpha[s].item(), sch.sigma[s].item() ** 2
    precision = 1 / var_s + r**2 / added
    by_hand = (alpha_s * x / var_s + r * x_t / added) / precision
    mean, variance = sample.posterior(sch, x_t, x, t, s)
    torch.testing.assert_close(mean, by_hand, rtol=1e-9, atol=1e-9)
    assert variance.item() == pytest.approx(1 / precision, rel=1e-9)


@pytest.mark.parametrize("t", [1023, 400, 0])
def test_the_posterior_of_clean_data_is_the_data(t):
    x_t, x = torch.randn(2, 3)
    mean, variance = sample.posterior(schedule.cosine(), x_t, x, t, -1)
    torch.testing.assert_close(mean, x, rtol=1e-6, atol=1e-6)
    assert variance.item() == 0


# Against the exact denoiser of a finite data set

POINTS = torch.tensor([[-0.9, -0.6], [0.8, -0.7], [0.1, 0.9], [-0.5, 0.4]])
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4])
CLASSES = torch.tensor([0, 0, 1, 1])


def finite(T: int = 256) -> Denoiser:
    return Denoiser(FiniteData(POINTS, WEIGHTS, CLASSES, schedule.cosine(T)), schedule.cosine(T), "v")


def nearest(x):
    """How far each sample is from its data point, and which that is."""
    return torch.cdist(x.flatten(1), POINTS).min(1)


@pytest.mark.parametrize("sampler", [sample.ddim, sample.ddpm, sample.stochastic])
def test_with_the_exact_denoiser_samples_are_the_data_points_as_often_as_they_should(sampler):
    n = 4000
    x = sample.last(sampler(finite(), torch.randn(n, 2, 1, 1, generator=generator(1)), 128, generator=generator(2)))
    distance, which = nearest(x)
    assert (distance < 1e-3).float().mean() > 0.999  # DDIM may leave one on the ridge between two points
    found = torch.bincount(which, minlength=4) / n
    # χ² with 3 degrees of freedom: 16.3 is passed once in a thousand; the samplers' own bias at 128 steps takes a bit
    assert n * ((found - WEIGHTS) ** 2 / WEIGHTS).sum() < 16.3


def test_a_label_restricts_the_samples_to_its_class_and_guidance_does_not_leave_it():
    z, label = torch.randn(200, 2, 1, 1), torch.arange(200) % 2
    for guidance in (0.0, 1.0):
        _, which = nearest(sample.last(sample.ddim(finite(), z, 64, label, guidance)))
        assert torch.equal(CLASSES[which], label)


def test_few_steps_do_not_reach_the_data_points():
    """One step gives the mean of the data: the reason why the course exists."""
    x = sample.last(sample.ddim(finite(), torch.randn(50, 2, 1, 1), 1))
    torch.testing.assert_close(x.flatten(1), (WEIGHTS @ POINTS).expand(50, 2), rtol=1e-4, atol=1e-4)


# Against the closed form for a Gaussian

M, S = 0.25, 0.4


def gaussian(kind: str = "v", sch: schedule.Schedule = schedule.cosine()) -> Denoiser:
    return Denoiser(Gaussian(M, S, sch, kind), sch, kind)


def ddim_slope(n: int) -> float:
    """DDIM's n-step map for a Gaussian is linear in z; its slope, measured on two inputs."""
    zero, one = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return (sample.last(sample.ddim(gaussian(), one, n)) - sample.last(sample.ddim(gaussian(), zero, n))).item()


@pytest.mark.parametrize("kind", ["v", "x", "eps"])
@pytest.mark.parametrize("n", [1, 5, 100])
def test_ddims_map_for_a_gaussian_is_the_product_of_its_steps(n, kind):
    sch = schedule.linear()
    z = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    # by hand, in y = x − α M: with K = α S²/(α² S² + σ²), E[x|y] = M + K y and ε = y (1 − α K)/σ
    times = [round(400 * k / n) - 1 for k in range(n, 0, -1)] + [-1]
    slope = 1.0
    for t, s in zip(times, times[1:]):
        a, b = sch.alpha[t].item(), sch.sigma[t].item()
        a_s, b_s = (sch.alpha[s].item(), sch.sigma[s].item()) if s >= 0 else (1.0, 0.0)
        gain = a * S**2 / (a**2 * S**2 + b**2)
        slope *= a_s * gain + b_s * (1 - a * gain) / b
    by_hand = M + slope * (z - sch.alpha[-1] * M)
    torch.testing.assert_close(sample.last(sample.ddim(gaussian(kind, sch), z, n)), by_hand, rtol=1e-8, atol=1e-8)


def test_ddim_converges_to_the_exact_flow_at_first_order():
    # the probability-flow ODE keeps quantiles: z ~ N(0, 1) goes to M + S z
    errors = [abs(ddim_slope(n) - S) for n in (64, 128, 256, 512, 1024)]
    for coarse, fine in zip(errors, errors[1:]):
        assert 1.8 < coarse / fine < 2.2
    assert errors[-1] < 5e-3


def ancestral_law(n: int, s_noise: float = 1.0, s_tmax: float = 1.0) -> tuple[float, float]:
    """Mean and variance of the image that n ancestral steps draw for a Gaussian, carried along exactly: each step
    is linear in x_t plus noise, so that the library's own posterior at two points gives its slope and offset."""
    denoiser, points = gaussian(), torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    times = denoiser.schedule.steps(n).tolist()
    mean, variance = 0.0, 1.0
    for t, s in zip(times, times[1:] + [-1]):
        moved, added = sample.posterior(denoiser.schedule, points, denoiser(points, t).x, t, s)
        offset, slope = moved[0].item(), (moved[1] - moved[0]).item()
        scale = s_noise if t < s_tmax * denoiser.schedule.T else 1.0
        mean, variance = offset + slope * mean, slope**2 * variance + scale**2 * added.item()
    return mean, variance


def test_ancestral_sampling_reproduces_the_gaussian_in_the_limit():
    laws = [ancestral_law(n) for n in (256, 512, 1024)]
    for mean, variance in laws:
        assert mean == pytest.approx(M, abs=1e-6) and variance < S**2
    errors = [S**2 - variance for _, variance in laws]
    assert errors[-1] < 0.02 * S**2
    for coarse, fine in zip(errors, errors[1:]):
        assert 1.7 < coarse / fine < 2.3


@pytest.mark.parametrize("noise", [{}, {"s_noise": 0.5}, {"s_noise": 0.5, "s_tmax": 0.5},
                                   {"s_noise": 0.0, "s_tmax": 0.9}], ids=str)
def test_ancestral_sampling_draws_from_the_law_that_its_steps_imply(noise):
    n, mean, variance = 20_000, *ancestral_law(12, **noise)
    x = sample.last(sample.ddpm(gaussian(), torch.randn(n, 1, 1, 1, generator=generator(3)), 12,
                                generator=generator(4), clip=False, **noise))
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


# The sampler of distilled models

@pytest.mark.parametrize("t, s", [(1023, 511), (1023, -1), (512, 511), (700, 13), (300, -1), (0, -1)])
def test_noise_is_added_as_the_chain_does_a_step_at_a_time(t, s):
    sch, x_s = schedule.cosine(), torch.randn(5, dtype=torch.float64)
    r, added = 1.0, 0.0
    for beta in sch.betas()[s + 1:t + 1].tolist():
        r, added = r * math.sqrt(1 - beta), (1 - beta) * added + beta
    by_hand = r * x_s + math.sqrt(added) * torch.randn(5, dtype=torch.float64, generator=generator(1))
    torch.testing.assert_close(sample.renoise(sch, x_s, s, t, generator(1)), by_hand, rtol=1e-9, atol=1e-9)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = (tuple(map(float, sch.at(u, x_s))) for u in (s, t))
    assert (r * alpha_s, r**2 * sigma_s**2 + added) == pytest.approx((alpha_t, sigma_t**2))  # q(x_t | x), as one step


def test_stochastic_sampling_by_hand(tiny):
    """From 1023 to 340 and back to 682, from there to clean data and back to 340, and the prediction there."""
    z, g, said = torch.randn(2, 1, 28, 28), generator(5), lambda x, t: tiny(x, t, LABEL, 0.5)
    near, far = (dict(zip("as", tiny.schedule.at(t, z))) for t in (682, 340))
    with torch.no_grad():
        first = said(z, 1023)
        x = far["a"] * first.x + far["s"] * first.eps
        r = near["a"] / far["a"]
        x = r * x + (1 - near["a"]**2 - r**2 * (1 - far["a"]**2)).sqrt() * torch.randn(z.shape, generator=g)
        x = far["a"] * said(x, 682).x + far["s"] * torch.randn(z.shape, generator=g)
        by_hand = said(x, 340).x
    found = sample.last(sample.stochastic(tiny, z, 3, LABEL, 0.5, generator(5)))
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-4)


def test_in_one_step_stochastic_sampling_is_ddim(tiny):
    z = torch.randn(2, 1, 28, 28)
    assert torch.equal(sample.last(sample.stochastic(tiny, z, 1, LABEL)), sample.last(sample.ddim(tiny, z, 1, LABEL)))


def stochastic_variance(n: int) -> float:
    """Of what n such steps draw for a Gaussian, by hand in y = x − α M, whose mean stays 0; see DDIM's map above."""
    sch, variance = schedule.cosine(), 1.0
    times = sch.steps(n).tolist() + [-1]
    table = lambda t: (sch.alpha[t].item(), sch.sigma[t].item()) if t >= 0 else (1.0, 0.0)
    for t, s, far in zip(times, times[1:], times[2:] + [-1]):
        (a, b), (a_s, b_s), (a_far, b_far) = map(table, (t, s, far))
        gain, r = a * S**2 / (a**2 * S**2 + b**2), a_s / a_far
        slope = a_far * gain + b_far * (1 - a * gain) / b
        variance = r**2 * slope**2 * variance + b_s**2 - r**2 * b_far**2
    return variance


def test_stochastic_sampling_draws_from_the_law_that_its_steps_imply_which_is_the_gaussian_in_the_limit():
    errors = [abs(stochastic_variance(n) - S**2) for n in (256, 512, 1024)]
    assert errors[-1] < 0.03 * S**2
    for coarse, fine in zip(errors, errors[1:]):
        assert 1.7 < coarse / fine < 2.3
    n = 20_000
    for steps in (6, 256):
        x = sample.last(sample.stochastic(gaussian(), torch.randn(n, 1, 1, 1, generator=generator(3)), steps,
                                          generator=generator(4)))
        variance = stochastic_variance(steps)
        assert x.mean().item() == pytest.approx(M, abs=4 * math.sqrt(variance / n))
        assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


# The step as a rotation

@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.linear()], ids=lambda s: s.name)
def test_a_ddim_step_is_a_rotation_by_the_difference_of_the_angles(sch):
    """Between every t and every s below it, clean data included."""
    t, s = torch.tril_indices(sch.T, sch.T)
    s = s - 1
    x_t, v = torch.randn(2, len(t), dtype=torch.float64)
    phi = torch.cat([torch.atan2(sch.sigma, sch.alpha), torch.zeros(1, dtype=torch.float64)])  # its last is t = −1
    alpha, sigma = sch.at(t, x_t)
    x, eps = schedule.x_from_v(x_t, v, alpha, sigma), schedule.eps_from_v(x_t, v, alpha, sigma)
    by_ddim = sample.ddim_step(sch, x, eps, s)
    torch.testing.assert_close(sample.angular_step(x_t, v, phi[t] - phi[s]), by_ddim, rtol=0, atol=1e-9)
    torch.testing.assert_close(sample.angular_step(x_t[:1].float(), v[:1].float(), 0.25),
                               (math.cos(0.25) * x_t[:1] - math.sin(0.25) * v[:1]).float())


# Solvers of the probability-flow ODE

TILTED = score.GaussianMixture(torch.tensor([[0.3, -0.2]]), torch.tensor([[[0.25, 0.1], [0.1, 0.09]]]), torch.ones(1))


def flow(z: torch.Tensor) -> torch.Tensor:
    """Where the ODE leads z if the data are TILTED: it keeps the coordinates along the covariance's axes, in units of
    the spread, so that z ends at m + Σ^½ z."""
    values, vectors = torch.linalg.eigh(TILTED.covariances[0].double())
    return TILTED.means.double() + z @ vectors * values.sqrt() @ vectors.T


@pytest.mark.parametrize("sampler, order", [(sample.ddim, 1), (sample.euler, 1), (sample.heun, 2)])
def test_a_solver_has_its_order_against_the_closed_flow_of_a_gaussian(sampler, order):
    z, sch = torch.randn(50, 2, generator=generator(5), dtype=torch.float64), schedule.cosine()
    error = lambda n: (sample.last(sampler(score.Exact(TILTED, sch), z, n)) - flow(z)).norm(dim=1).mean().item()
    errors = [error(n) for n in (32, 64, 128, 256)]
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert errors[-1] < (1e-2 if order == 1 else 2e-4)


@pytest.mark.parametrize("sampler", [sample.ddim, sample.euler, sample.heun])
def test_a_solver_follows_the_flow_of_an_uneven_schedule_too(sampler):
    """The linear schedule's angles are not equally spaced, and it stops at α = 0.13: so start where its flow does."""
    sch, z = schedule.linear(), torch.randn(20, 2, generator=generator(6), dtype=torch.float64)
    alpha, sigma = sch.alpha[-1], sch.sigma[-1]
    values, vectors = torch.linalg.eigh(TILTED.covariances[0].double())
    start = alpha * TILTED.means.double() + z @ vectors * (alpha**2 * values + sigma**2).sqrt() @ vectors.T
    error = lambda n: (sample.last(sampler(score.Exact(TILTED, sch), start, n)) - flow(z)).norm(dim=1).mean().item()
    coarse, fine = error(100), error(200)
    assert coarse < 0.04 and fine < 0.6 * coarse


def test_a_step_of_euler_and_of_heun_is_the_formula_in_the_angle():
    denoiser, z = score.Exact(score.ring(), schedule.cosine()), torch.randn(4, 2, dtype=torch.float64)
    stride = math.pi / 2 * 512 / 1024  # from t = 1023 to 511
    slope = denoiser(z, 1023).v
    ahead = z - stride * slope
    for sampler, want in ((sample.euler, ahead), (sample.heun, z - stride * (slope + denoiser(ahead, 511).v) / 2)):
        torch.testing.assert_close(next(sampler(denoiser, z, 2)).x, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [sample.euler, sample.heun])
def test_every_solver_ends_on_its_last_prediction_and_in_one_step_they_agree(tiny, sampler):
    z = torch.randn(2, 1, 28, 28)
    states = list(sampler(tiny, z, 3, LABEL))
    assert [state.t for state in states] == [1023, 682, 340] and torch.equal(states[-1].x, states[-1].x0)
    assert not any(state.x.requires_grad for state in states)
    assert torch.equal(sample.last(sampler(tiny, z, 1, LABEL)), sample.last(sample.ddim(tiny, z, 1, LABEL)))
    assert all(torch.equal(a.x, b.x) for a, b in zip(states, sampler(tiny, z, 3, LABEL, generator=generator(1))))


@pytest.mark.parametrize("sampler, calls", [(sample.euler, 5), (sample.heun, 9)])
def test_the_number_of_network_calls(tiny, sampler, calls):
    tiny.net = Counted(tiny.net)
    for guidance in (0.0, 1.0):  # guided, both evaluations are one call of a double batch
        tiny.net.calls = 0
        sample.last(sampler(tiny, torch.randn(2, 1, 28, 28), 5, LABEL, guidance))
        assert tiny.net.calls == calls


# Guidance

def test_guidance_is_the_hand_written_combination_of_two_calls(tiny):
    x_t, t, w = torch.randn(2, 1, 28, 28), torch.tensor([900, 200]), 1.5
    with torch.no_grad():
        guided, with_label, without = tiny(x_t, t, LABEL, w), tiny(x_t, t, LABEL), tiny(x_t, t)
    assert (with_label.eps - without.eps).abs().max() > 1e-3  # the label does something
    for form in ("x", "eps", "v", "score"):
        by_hand = (1 + w) * getattr(with_label, form) - w * getattr(without, form)
        torch.testing.assert_close(getattr(guided, form), by_hand, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampler", [sample.ddim, sample.ddpm, sample.stochastic, sample.multistep])
def test_guidance_zero_is_the_conditional_prediction_and_costs_one_call(tiny, sampler):
    tiny.net = Counted(tiny.net)
    z = torch.randn(2, 1, 28, 28)
    plain = sample.last(sampler(tiny, z, 4, LABEL, generator=generator()))
    zero = sample.last(sampler(tiny, z, 4, LABEL, guidance=0.0, generator=generator()))
    more = sample.last(sampler(tiny, z, 4, LABEL, guidance=2.0, generator=generator()))
    assert torch.equal(plain, zero) and not torch.allclose(plain, more, atol=1e-3)
    assert tiny.net.calls == 12  # guided steps stack both evaluations into one call of a double batch


@pytest.mark.parametrize("w", [0.0, 1.5])
def test_a_guide_leads_away_from_its_prediction_with_the_same_label(tiny, w):
    x_t, t, away, worse = torch.randn(2, 1, 28, 28), torch.tensor([900, 200]), 0.7, tiny_denoiser(seed=5)
    with torch.no_grad():
        guided = Guided(tiny, guide=worse, guide_weight=away)(x_t, t, LABEL, w)
        with_guidance, with_label, other = tiny(x_t, t, LABEL, w), tiny(x_t, t, LABEL), worse(x_t, t, LABEL)
    for form in ("x", "eps", "v", "score"):
        by_hand = getattr(with_guidance, form) + away * (getattr(with_label, form) - getattr(other, form))
        torch.testing.assert_close(getattr(guided, form), by_hand, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("away", [0.0, 0.7])
def test_within_the_interval_guidance_is_guidance_and_outside_it_costs_nothing(tiny, away):
    x_t, t = torch.randn(4, 1, 28, 28), torch.tensor([511, 512, 767, 768])  # T = 1024
    label, inside = torch.tensor([1, 2, 3, 4]), torch.tensor([False, True, True, False])
    worse = tiny_denoiser(seed=5)
    led = dict(guide=worse, guide_weight=away) if away else {}
    guided = Guided(tiny, (0.5, 0.75), **led)
    with torch.no_grad():
        plain, everywhere = tiny(x_t, t, label).v, Guided(tiny, **led)(x_t, t, label, 2.0).v
        assert not torch.allclose(plain, everywhere, atol=1e-3)
        expected = torch.where(inside[:, None, None, None], everywhere, plain)
        torch.testing.assert_close(guided(x_t, t, label, 2.0).v, expected)
        assert torch.equal(guided(x_t, t, None, 2.0).v, tiny(x_t, t).v)  # without label there is nothing to guide by
    guided.net, worse.net = Counted(tiny.net), Counted(worse.net)
    sample.last(sample.ddim(guided, x_t, 8, label, 2.0))
    assert (guided.net.calls, worse.net.calls) == (8 + 2, 2 * bool(away))  # two of the eight times are inside


@pytest.mark.parametrize("options, sentence", [
    (dict(interval=(0.8, 0.2)), "interval must be two shares of T, 0 ≤ low < high ≤ 1; got 0.8 and 0.2"),
    (dict(interval=(0.2, 1.5)), "got 0.2 and 1.5"),
    (dict(interval=(float("nan"), 1.0)), "got nan and 1"),
    (dict(guide_weight=0.5), "A guide and its weight go together"),
    (dict(guide=tiny_denoiser()), "A guide and its weight go together"),
    (dict(guide=small_denoiser(schedule.cosine(), "v"), guide_weight=0.5), "guide must have the denoiser's schedule"),
    (dict(guide=torch.nn.Identity(), guide_weight=0.5), "guide must be a Denoiser; got Identity"),
])
def test_guidance_that_cannot_be_is_refused(tiny, options, sentence):
    with refused(ValueError, sentence):
        Guided(tiny, **options)


def test_only_steps_from_below_s_tmax_have_their_noise_scaled(tiny):
    z = torch.randn(2, 1, 28, 28)
    plain, quiet, none = (list(sample.ddpm(tiny, z, 8, LABEL, generator=generator(), s_noise=s_noise, s_tmax=s_tmax))
                          for s_noise, s_tmax in ((1.0, 1.0), (0.5, 0.5), (1.0, 0.5)))
    assert [state.t < 512 for state in plain] == [False] * 4 + [True] * 4
    assert [torch.equal(a.x, b.x) for a, b in zip(plain, quiet)] == [True] * 4 + [False] * 4
    assert torch.equal(plain[-1].x, none[-1].x)


def test_a_sampling_hands_on_what_it_names(tiny):
    z = torch.randn(2, 1, 28, 28)
    how = Sampling("ddpm", 4, 1.5, (0.2, 0.8), clip=False, s_noise=0.5, s_tmax=0.6)
    by_hand = sample.last(sample.ddpm(Guided(tiny, (0.2, 0.8)), z, 4, LABEL, 1.5, generator(), False, 0.5, 0.6))
    assert torch.equal(how.images(tiny, z, LABEL, generator()), by_hand.clamp(-1, 1))
    assert how.key == "ddpm-4-w1.5-within-0.2-0.8-noclip-noise0.5-below0.6"


@pytest.mark.parametrize("options, sentence", [
    (dict(s_noise=-0.1), "s_noise must be 0 or more, and s_tmax a share of T"),
    (dict(s_noise=float("nan")), "got nan and 1"),
    (dict(s_tmax=0.0), "got 1 and 0"),
    (dict(s_tmax=1.1), "got 1 and 1.1"),
])
def test_noise_that_cannot_be_is_refused(tiny, options, sentence):
    with refused(ValueError, sentence):
        sample.ddpm(tiny, torch.randn(2, 1, 28, 28), 4, LABEL, **options)


def test_no_label_is_the_label_no_class(tiny):
    z = torch.randn(2, 1, 28, 28)
    no_class = torch.full((2,), 10)
    assert torch.equal(sample.last(sample.ddim(tiny, z, 2)), sample.last(sample.ddim(tiny, z, 2, no_class)))


# What a sampler yields

@pytest.mark.parametrize("sampler", [sample.ddim, sample.ddpm, sample.stochastic, sample.multistep])
def test_a_sampler_yields_every_state_and_calls_its_network_once_a_step(tiny, sampler):
    tiny.net = Counted(tiny.net)
    z = torch.randn(2, 1, 28, 28)
    states = list(sampler(tiny, z, 5, LABEL, generator=generator()))
    assert [state.step for state in states] == [1, 2, 3, 4, 5] and tiny.net.calls == 5
    assert [state.t for state in states] == [1023, 818, 613, 409, 204]
    assert all(state.x.shape == state.x0.shape == z.shape for state in states)
    assert torch.equal(states[-1].x, states[-1].x0) and not torch.equal(states[0].x, states[0].x0)
    assert not any(state.x.requires_grad for state in states)
    with torch.no_grad():
        x0 = tiny(z, 1023, LABEL).x
    assert torch.equal(states[0].x0, x0.clamp(-1, 1) if sampler is sample.ddpm else x0)


def test_clipping_keeps_every_prediction_in_range(tiny):
    z = 3 * torch.randn(2, 1, 28, 28)
    assert max(state.x0.abs().max() for state in sample.ddpm(tiny, z, 4, LABEL, clip=False)) > 1
    for sampler in (sample.ddim, sample.ddpm, sample.stochastic):
        assert all(state.x0.abs().max() <= 1 for state in sampler(tiny, z, 4, LABEL, clip=True))


def test_ddim_is_deterministic_and_leaves_the_random_state_alone(tiny):
    z, g = torch.randn(2, 1, 28, 28), generator()
    before, own = torch.get_rng_state(), g.get_state()
    first = sample.last(sample.ddim(tiny, z, 4, LABEL, generator=g))
    assert torch.equal(first, sample.last(sample.ddim(tiny, z, 4, LABEL)))
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(g.get_state(), own)


@pytest.mark.parametrize("sampler", [sample.ddpm, sample.stochastic, sample.multistep])
def test_a_random_sampler_repeats_itself_from_the_same_seed_only(tiny, sampler):
    z = torch.randn(2, 1, 28, 28)
    draw = lambda seed: sample.last(sampler(tiny, z, 4, LABEL, generator=generator(seed)))
    assert torch.equal(draw(1), draw(1)) and not torch.allclose(draw(1), draw(2), atol=1e-2)


def test_the_samples_of_a_batch_do_not_know_of_each_other(tiny):
    z, label = torch.randn(4, 1, 28, 28), torch.tensor([0, 1, 2, 3])
    together = sample.last(sample.ddim(tiny, z, 4, label, guidance=0.5))
    alone = torch.cat([sample.last(sample.ddim(tiny, z[i:i + 1], 4, label[i:i + 1], guidance=0.5)) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_one_step_generator_is_the_clamped_x_prediction_of_pure_noise(tiny):
    z = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(tiny.generate(z, LABEL), sample.last(sample.ddim(tiny, z, 1, LABEL)).clamp(-1, 1))
    assert not tiny.generate(z, LABEL).requires_grad


# Bad input: one sentence, before any work

BAD = [
    (dict(n_steps=0), ValueError, r"n_steps must be a whole number from 1 to 1024 .* got 0\."),
    (dict(n_steps=1025), ValueError, r"n_steps must be a whole number from 1 to 1024 .* got 1025\."),
    (dict(n_steps=1.5), ValueError, r"n_steps must be a whole number from 1 to 1024 .* got 1\.5\."),
    (dict(n_steps=True), ValueError, r"n_steps must be a whole number from 1 to 1024 .* got True\."),
    (dict(label=torch.tensor([0, 11])), ValueError, r"label must lie in 0 … 9 .*; got 11\."),
    (dict(label=torch.tensor([-1, 3])), ValueError, r"label must lie in 0 … 9 .*; got -1\."),
    (dict(label=torch.tensor([1.0, 3.0])), TypeError, r"label must be a tensor of whole numbers .*; got torch.float32"),
    (dict(label=torch.tensor([True, False])), TypeError, r"label must be a tensor of whole numbers .*; got torch.bool"),
    (dict(label=[1, 2]), TypeError, r"label must be a tensor of whole numbers .*; got list\."),
    (dict(label=3), TypeError, r"label must be a tensor of whole numbers .*; got int\."),
    (dict(label=torch.tensor([1, 2, 3])), ValueError, r"label must have shape \(2,\), one a sample; got \(3,\)\."),
    (dict(label=torch.tensor([[1], [2]])), ValueError, r"label must have shape \(2,\), one a sample; got \(2, 1\)\."),
    (dict(z=torch.randn(2, 1, 32, 32)), ValueError,
     r"samples must have shape \(B, 1, 28, 28\); got \(2, 1, 32, 32\)\."),
    (dict(z=torch.randn(2, 3, 28, 28)), ValueError,
     r"samples must have shape \(B, 1, 28, 28\); got \(2, 3, 28, 28\)\."),
    (dict(z=torch.randn(2, 784)), ValueError, r"samples must have shape \(B, 1, 28, 28\); got \(2, 784\)\."),
]


@pytest.mark.parametrize("sampler", [sample.ddim, sample.ddpm, sample.stochastic, sample.multistep, sample.euler,
                                     sample.heun])
@pytest.mark.parametrize("change, error, sentence", BAD, ids=lambda value: "")
def test_bad_input_is_one_sentence_before_any_network_call(sampler, change, error, sentence):
    denoiser = tiny_denoiser()
    denoiser.net = Counted(denoiser.net)
    arguments = dict(z=torch.randn(2, 1, 28, 28), n_steps=4, label=LABEL) | change
    with pytest.raises(error, match=sentence) as caught:
        sample.last(sampler(denoiser, **arguments))
    assert denoiser.net.calls == 0 and "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", [sample.ddim, sample.ddpm, sample.stochastic, sample.multistep, sample.euler,
                                     sample.heun])
def test_a_sampler_checks_labels_itself(sampler):
    """On a GPU a Denoiser does not look at the labels' values, since that would wait for the GPU at every step."""
    unchecked = SimpleNamespace(schedule=schedule.cosine(), n_classes=10)  # not callable: a network call would show
    with pytest.raises(ValueError, match=r"label must lie in 0 … 9 .*; got 11\."):
        sample.last(sampler(unchecked, torch.randn(2, 1, 28, 28), 4, torch.tensor([0, 11])))


def test_a_denoiser_alone_refuses_the_same(tiny):
    tiny.net = Counted(tiny.net)
    x_t = torch.randn(2, 1, 28, 28)
    with pytest.raises(ValueError, match=r"samples must have shape \(B, 1, 28, 28\)"):
        tiny(x_t[:, :, :27], 5, LABEL)
    with pytest.raises(ValueError, match=r"label must lie in 0 … 9"):
        tiny(x_t, 5, LABEL + 9)
    with pytest.raises(IndexError, match=r"t must lie in 0 … 1023"):
        tiny(x_t, 1024, LABEL)
    assert tiny.net.calls == 0
