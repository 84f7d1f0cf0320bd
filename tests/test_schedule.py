"""Schedules, step sequences and the conversions between ε, x, v and the score."""
import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from dmdkit import schedule as sch
from dmdkit.denoiser import predict

COSINE, LINEAR = sch.cosine(), sch.linear()


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=lambda s: s.name)
def test_a_schedule_preserves_variance_and_only_ever_adds_noise(schedule):
    assert schedule.alpha.dtype == schedule.sigma.dtype == torch.float64
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(schedule.T, dtype=torch.float64),
                               rtol=0, atol=1e-12)
    assert (schedule.alpha >= 0).all() and (schedule.sigma > 0).all()
    assert (schedule.snr().diff() < 0).all()


def test_cosine_is_an_eighth_of_a_circle_at_the_middle_and_ends_in_pure_noise():
    assert COSINE.T == 1024
    assert COSINE.alpha[-1] == 0 and COSINE.sigma[-1] == 1 and COSINE.snr()[-1] == 0
    half = math.sqrt(0.5)
    assert COSINE.alpha[511].item() == pytest.approx(half) and COSINE.sigma[511].item() == pytest.approx(half)
    assert COSINE.sigma[0].item() == pytest.approx(math.sin(math.pi / 2048))
    assert sch.cosine(2).alpha.tolist() == pytest.approx([half, 0])


def test_linear_is_diffusers_linear_and_leaves_a_trace_of_the_data():
    theirs = DDPMScheduler(400, beta_start=1e-4, beta_end=0.02, beta_schedule="linear").alphas_cumprod
    torch.testing.assert_close((LINEAR.alpha**2).float(), theirs, rtol=1e-5, atol=0)
    # by hand: ln Π (1 − β) = −Σ β − Σ β²/2 − … = −400 · 0.01005 − 200 · (0.01005² + 0.0199²/12) = −4.047
    assert (LINEAR.alpha[-1] ** 2).item() == pytest.approx(math.exp(-4.047), rel=1e-3)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=lambda s: s.name)
def test_betas_rebuild_the_table_in_diffusers(schedule):
    theirs = DDPMScheduler(schedule.T, trained_betas=schedule.betas().tolist()).alphas_cumprod
    torch.testing.assert_close(theirs.double(), schedule.alpha**2, rtol=1e-3, atol=1e-6)


def test_alpha_and_sigma_are_picked_sample_by_sample():
    x = torch.zeros(3, 1, 2, 2)
    alpha, sigma = COSINE.at(torch.tensor([-1, 511, 1023]), x)
    assert alpha.shape == sigma.shape == (3, 1, 1, 1) and alpha.dtype == torch.float32
    assert alpha.flatten().tolist() == pytest.approx([1, math.sqrt(0.5), 0])
    assert sigma.flatten().tolist() == pytest.approx([0, math.sqrt(0.5), 1])
    assert COSINE.at(511, x)[0].shape == (1, 1, 1, 1)
    assert COSINE.at(511, x.double())[0].item() == COSINE.alpha[511].item()
    for outside in (-2, 1024, torch.tensor([0, 1024])):
        with pytest.raises(IndexError, match=r"t must lie in 0 … 1023 .* got .*(-2|1024)"):
            COSINE.at(outside, x)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=lambda s: s.name)
def test_noise_is_diffusers_add_noise(schedule):
    x, eps = torch.randn(2, 4, 3, 5, 5)
    t = torch.tensor([0, 7, 200, 399])
    theirs = DDPMScheduler(schedule.T, trained_betas=schedule.betas().tolist()).add_noise(x, eps, t)
    torch.testing.assert_close(schedule.noise(x, t, eps), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("T, n", [(T, n) for T in (1024, 400) for n in range(1, T + 1) if T % n == 0])
def test_steps_that_divide_T_are_diffusers_trailing_steps(T, n):
    theirs = DDIMScheduler(T, timestep_spacing="trailing")
    theirs.set_timesteps(n)
    assert sch.cosine(T).steps(n).tolist() == theirs.timesteps.tolist()
    assert sch.cosine(T).steps(n).tolist() == [k * T // n - 1 for k in range(n, 0, -1)]


@pytest.mark.parametrize("T, n", [(1024, 3), (1024, 10), (1024, 50), (1024, 100), (1024, 400), (1024, 1000), (400, 7),
                                  (400, 30), (400, 128), (400, 256), (400, 399)])
def test_steps_that_do_not_divide_T_are_rounded_trailing_steps(T, n):
    steps = sch.cosine(T).steps(n)
    assert steps.tolist() == (np.round(np.arange(T, 0, -T / n))[:n] - 1).astype(int).tolist()
    assert len(steps) == n and steps[0] == T - 1 and (steps.diff() < 0).all() and steps[-1] >= 0
    # the step before is the next element; t − T//n walks past the end or stops short of it
    assert set(steps.diff().neg().tolist()) <= {T // n, T // n + 1}


@pytest.mark.parametrize("n", [0, -1, 1025, 1.5, 16.0, True, "16", None])
def test_a_number_of_steps_that_makes_no_sense_is_refused(n):
    with pytest.raises(ValueError, match=r"n_steps must be a whole number from 1 to 1024 .* got " + repr(n)):
        COSINE.steps(n)


def times(schedule):
    """Some times of a schedule without its last, where α may be 0."""
    return torch.tensor([0, 1, schedule.T // 3, schedule.T // 2, schedule.T - 2])


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=lambda s: s.name)
def test_each_form_of_a_prediction_gives_back_the_x_and_eps_that_made_x_t(schedule):
    x, eps = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64)
    angle = torch.atan2(schedule.sigma, schedule.alpha)[times(schedule)].reshape(-1, 1, 1, 1)
    alpha, sigma = angle.cos(), angle.sin()
    x_t = schedule.noise(x, times(schedule), eps)
    # by hand: (x_t, v) is (x, ε) turned by the angle, and the score points from x_t to α x
    v, score = angle.cos() * eps - angle.sin() * x, (alpha * x - x_t) / sigma**2
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    close(sch.v_from_x_eps(x, eps, alpha, sigma), v)
    close(sch.x_from_v(x_t, v, alpha, sigma), x)
    close(sch.eps_from_v(x_t, v, alpha, sigma), eps)
    close(sch.x_from_eps(x_t, eps, alpha, sigma), x)
    close(sch.eps_from_x(x_t, x, alpha, sigma), eps)
    close(sch.score_from_eps(eps, sigma), score)
    close(sch.score_from_x(x_t, x, alpha, sigma), score)
    close(sch.x_from_score(x_t, score, alpha, sigma), x)
    close(sch.x_from_both(x_t, x, eps, alpha, sigma), x)
    for kind, out in (("v", v), ("x", x), ("eps", eps), ("both", torch.cat([x, eps], 1))):
        for found, expected in zip(predict(kind, out, x_t, alpha, sigma), (x, eps, v, score)):
            close(found, expected)


def test_of_a_network_that_says_x_and_eps_x_is_heard_at_pure_noise_and_eps_near_the_data():
    x_t, x, eps = torch.randn(3, 4, 1, 2, 2, dtype=torch.float64)
    both = lambda t: predict("both", torch.cat([x, eps], 1), x_t, *COSINE.at(t, x_t))
    assert torch.equal(both(1023).x, x) and torch.equal(both(1023).eps, x_t)
    alpha, sigma = COSINE.at(0, x_t)  # σ = 0.0015
    torch.testing.assert_close(both(0).x, sch.x_from_eps(x_t, eps, alpha, sigma), rtol=0, atol=1e-4)
    torch.testing.assert_close(both(511).x, (x - eps) / 2 + math.sqrt(0.5) * x_t)  # by hand at α = σ = √½


def test_a_prediction_of_an_unknown_kind_is_refused():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="predicts one of v, x, eps, both; got 'noise'"):
        predict("noise", one, one, one, one)


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=lambda s: s.name)
def test_the_exact_mean_of_a_gaussian_gives_the_gradient_of_its_log_density(schedule):
    m, s = 0.3, 0.5
    t = times(schedule)
    alpha, sigma = (table[t] for table in (schedule.alpha, schedule.sigma))
    x_t = torch.linspace(-2, 2, 5, dtype=torch.float64).requires_grad_()
    # x ~ N(m, s²), so x_t ~ N(α m, α² s² + σ²); autograd differentiates the log density, no formula of ours
    density = torch.distributions.Normal(alpha * m, (alpha**2 * s**2 + sigma**2).sqrt())
    score = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)[0]
    x_t = x_t.detach()
    # E[x | x_t] by Bayes' rule for two Gaussians: precisions add
    mean = (m / s**2 + x_t * alpha / sigma**2) / (1 / s**2 + alpha**2 / sigma**2)
    torch.testing.assert_close(sch.score_from_x(x_t, mean, alpha, sigma), score, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(sch.score_from_eps((x_t - alpha * mean) / sigma, sigma), score, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(sch.x_from_score(x_t, score, alpha, sigma), mean, rtol=1e-7, atol=1e-7)


def test_an_error_in_eps_grows_by_sigma_over_alpha_and_an_error_in_v_does_not():
    """Trap 4: at the last of 400 linear steps a wrong ε spoils x 7.5 times as much; a wrong v, never more than once."""
    alpha, sigma = LINEAR.alpha[-1], LINEAR.sigma[-1]
    x, eps, error = torch.tensor([0.5, 1.5, 0.01], dtype=torch.float64)
    x_t = alpha * x + sigma * eps
    from_eps = sch.x_from_eps(x_t, eps + error, alpha, sigma) - x
    v = alpha * eps - sigma * x
    from_v = sch.x_from_v(x_t, v + error, alpha, sigma) - x
    assert abs(from_eps / error).item() == pytest.approx(7.5, abs=0.01)
    assert abs(from_v / error).item() < 1


def test_at_pure_noise_v_and_x_stay_finite():
    x_t, v = torch.randn(2, 3)
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    assert torch.equal(sch.x_from_v(x_t, v, zero, one), -v) and torch.equal(sch.eps_from_v(x_t, v, zero, one), x_t)
    for form in predict("v", v, x_t, zero, one):
        assert form.isfinite().all()
    assert torch.equal(predict("v", v, x_t, zero, one).score, -x_t)
