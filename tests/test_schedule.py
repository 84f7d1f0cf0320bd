"""Schedules, step sequences and the conversions between ε, x, v and the score."""
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import refused
from diffusers import DDIMScheduler, DDPMScheduler

from dmdkit import schedule as sch
from dmdkit.denoiser import predict

COSINE, LINEAR, FLOW, CLIPPED = sch.cosine(), sch.linear(), sch.flow(), sch.clipped()
ODD = sch.table("odd", [1.5, 1.5, 0.7, 0.2, 0.0], [0.1, 0.5, 0.5, 2.0, 3.0])  # nothing preserved
PRESERVING = [COSINE, LINEAR, CLIPPED]
every = pytest.mark.parametrize("schedule", [*PRESERVING, FLOW, ODD], ids=lambda s: s.name)
preserving = pytest.mark.parametrize("schedule", PRESERVING, ids=lambda s: s.name)


def close(a, b, tolerance: float = 1e-6):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# Tables

@preserving
def test_a_schedule_preserves_variance_and_only_ever_adds_noise(schedule):
    assert schedule.alpha.dtype == schedule.sigma.dtype == torch.float64
    ones = torch.ones(schedule.T, dtype=torch.float64)
    close(schedule.alpha**2 + schedule.sigma**2, ones, 1e-12)
    assert (schedule.alpha >= 0).all() and (schedule.sigma > 0).all()
    assert (schedule.snr().diff() <= 0).all() and schedule.snr()[0] > 1000 * schedule.snr()[-1]


def test_cosine_is_an_eighth_of_a_circle_at_the_middle_and_ends_in_pure_noise():
    assert COSINE.T == 1024
    assert COSINE.alpha[-1] == 0 and COSINE.sigma[-1] == 1 and COSINE.snr()[-1] == 0
    half = math.sqrt(0.5)
    assert COSINE.alpha[511].item() == pytest.approx(half)
    assert COSINE.sigma[511].item() == pytest.approx(half)
    assert COSINE.sigma[0].item() == pytest.approx(math.sin(math.pi / 2048))
    assert sch.cosine(2).alpha.tolist() == pytest.approx([half, 0])


def test_linear_is_diffusers_linear_and_leaves_a_trace_of_the_data():
    theirs = DDPMScheduler(400, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    torch.testing.assert_close((LINEAR.alpha**2).float(), theirs.alphas_cumprod, rtol=1e-5, atol=0)
    # by hand: ln Π (1 − β) = −Σ β − Σ β²/2 − … = −400 · 0.01005 − 200 · (0.01005² + 0.0199²/12)
    assert (LINEAR.alpha[-1] ** 2).item() == pytest.approx(math.exp(-4.047), rel=1e-3)


def test_flow_is_a_straight_line_that_ends_in_pure_noise():
    four = sch.flow(4)
    assert four.alpha.tolist() == [0.75, 0.5, 0.25, 0]
    assert four.sigma.tolist() == [0.25, 0.5, 0.75, 1]
    assert FLOW.T == 1024 and FLOW.alpha[-1] == 0 and FLOW.sigma[-1] == 1
    x, eps = torch.tensor([[0.3], [-0.8]]), torch.tensor([[-1.0], [2.0]])
    close(four.noise(x, torch.tensor([0, 2]), eps), torch.tensor([[-0.025], [1.3]]))
    close(four.noise(x, 3, eps), eps)


def test_a_clipped_schedule_is_the_cosine_one_that_never_loses_all_of_the_data():
    assert CLIPPED.snr().log().min().item() == pytest.approx(-20)
    assert torch.equal(CLIPPED.alpha[:1000], COSINE.alpha[:1000])
    assert sch.clipped(64, 4.0).snr()[-1].item() == pytest.approx(math.exp(-4))


def test_a_schedule_of_betas_multiplies_their_complements():
    of_three = sch.from_betas([0.1, 0.5, 1.0])
    close(of_three.alpha**2, torch.tensor([0.9, 0.45, 0.0]).double())
    close(of_three.sigma**2, torch.tensor([0.1, 0.55, 1.0]).double())
    assert of_three.alpha[-1] == 0


@preserving
def test_betas_rebuild_the_table_in_diffusers(schedule):
    theirs = DDPMScheduler(schedule.T, trained_betas=schedule.betas().tolist()).alphas_cumprod
    torch.testing.assert_close(theirs.double(), schedule.alpha**2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", [FLOW, ODD], ids=lambda s: s.name)
def test_betas_are_refused_where_variance_is_not_preserved(schedule):
    with refused(ValueError, "Only a variance-preserving schedule .* has betas; '(flow|odd)'"):
        schedule.betas()


@pytest.mark.parametrize("alpha, sigma, kind, sentence", [
    ([1.0, 0.5], [0.1], ValueError, r"alpha and sigma must have one shape; got \(2,\) and \(1,\)"),
    ([], [], ValueError, r"must be tables \(T,\); got \(0,\)"),
    ([1.0, math.nan], [0.1, 0.2], ValueError, "must be finite"),
    ([1.0, -0.1], [0.1, 0.2], ValueError, "alpha must be 0 or more, and sigma positive"),
    ([1.0, 0.5], [0.0, 0.2], ValueError, "alpha must be 0 or more, and sigma positive"),
    ([0.5, 1.0], [0.5, 0.5], ValueError, "only adds noise: σ/α must never fall"),
    ([1, 0], [1, 1], TypeError, "alpha must be floating-point numbers; got torch.int64"),
])
def test_tables_that_are_none_are_refused(alpha, sigma, kind, sentence):
    with refused(kind, sentence):
        sch.Schedule("wrong", torch.tensor(alpha), torch.tensor(sigma))


@pytest.mark.parametrize("make, sentence", [
    (lambda: sch.cosine(0), "T must be a whole number of at least 1; got 0"),
    (lambda: sch.flow(2.5), "T must be a whole number of at least 1; got 2.5"),
    (lambda: sch.linear(400, -0.1, 0.02), r"betas must be a table \(T,\) of numbers in \(0, 1\]"),
    (lambda: sch.linear(400, 1e-4, 2.0), r"betas must be a table \(T,\) of numbers in \(0, 1\]"),
    (lambda: sch.from_betas([]), r"must be tables \(T,\); got \(0,\)"),
    (lambda: sch.clipped(64, math.nan), "must be finite"),
])
def test_arguments_that_make_no_schedule_are_refused(make, sentence):
    with refused(ValueError, sentence):
        make()


# Arguments, of which what is stored is built again

@pytest.mark.parametrize("schedule", [
    COSINE, sch.cosine(64), LINEAR, sch.linear(400, 1e-4, 0.05), sch.flow(7), CLIPPED,
    sch.clipped(64, 4.0), ODD, sch.from_betas([0.1, 0.5, 1.0]),
    replace(COSINE, alpha=0.9 * COSINE.alpha)], ids=lambda s: s.name)
def test_a_schedule_is_rebuilt_from_its_arguments_by_way_of_json(schedule):
    rebuilt = sch.from_arguments(json.loads(json.dumps(schedule.arguments)))
    assert torch.equal(rebuilt.alpha, schedule.alpha)
    assert torch.equal(rebuilt.sigma, schedule.sigma)
    assert rebuilt.name == schedule.name and rebuilt.arguments == schedule.arguments


def test_arguments_are_those_of_the_function_or_the_table():
    assert COSINE.arguments == {"kind": "cosine", "T": 1024}
    assert sch.linear(400, beta_end=0.05).arguments == {
        "kind": "linear", "T": 400, "beta_start": 1e-4, "beta_end": 0.05}
    assert sch.clipped().arguments == {"kind": "clipped", "T": 1024, "log_snr": 20.0}
    assert ODD.arguments == {"kind": "table", "name": "odd", "alpha": [1.5, 1.5, 0.7, 0.2, 0.0],
                             "sigma": [0.1, 0.5, 0.5, 2.0, 3.0]}


@pytest.mark.parametrize("arguments, sentence", [
    ({"kind": "cosinu", "T": 4}, "one of the kinds cosine, linear, .*; got 'cosinu'"),
    ({"T": 4}, "one of the kinds .*; got None"),
    ({"kind": ["cosine"]}, r"one of the kinds .*; got \['cosine'\]"),
    ("cosine", "one of the kinds .*; got None"),
    ({"kind": "cosine", "T": "4"}, "A cosine schedule .*: T must be a whole number"),
    ({"kind": "cosine", "U": 4}, "A cosine schedule cannot be built .*unexpected keyword"),
    ({"kind": "linear", "T": 4, "beta_end": "big"}, "A linear schedule cannot be built"),
    ({"kind": "table", "name": "a", "alpha": [1.0, 0.5], "sigma": [0.5]}, "A table schedule"),
    ({"kind": "table", "name": "a", "alpha": [0.5, 1.0], "sigma": [1.0, 0.5]}, "must never fall"),
])
def test_arguments_of_no_schedule_are_refused(arguments, sentence):
    with refused(ValueError, sentence):
        sch.from_arguments(arguments)


def test_schedules_are_compared_value_by_value():
    assert COSINE.same(sch.cosine(1024)) and not COSINE.same(sch.cosine(512))
    assert not LINEAR.same(sch.linear(400, 1e-4, 0.05))
    assert sch.table("another name", COSINE.alpha.tolist(), COSINE.sigma.tolist()).same(COSINE)


# Picking and noising

def test_alpha_and_sigma_are_picked_sample_by_sample():
    x = torch.zeros(3, 1, 2, 2)
    alpha, sigma = COSINE.at(torch.tensor([-1, 511, 1023]), x)
    assert alpha.shape == sigma.shape == (3, 1, 1, 1) and alpha.dtype == torch.float32
    assert alpha.flatten().tolist() == pytest.approx([1, math.sqrt(0.5), 0])
    assert sigma.flatten().tolist() == pytest.approx([0, math.sqrt(0.5), 1])
    assert COSINE.at(511, x)[0].shape == COSINE.at(torch.tensor(511), x)[0].shape == (1, 1, 1, 1)
    assert COSINE.at(511, x.double())[0].item() == COSINE.alpha[511].item()
    assert [one.item() for one in COSINE.at(-1, x)] == [1, 0]
    for outside in (-2, 1024, torch.tensor([0, 1, 1024]), torch.tensor(-2)):
        with refused(IndexError, r"t must lie in 0 … 1023 .*clean.*; got (-2|1024)"):
            COSINE.at(outside, x)


@pytest.mark.parametrize("t, kind, sentence", [
    (500.0, TypeError, "t must be a whole number, or a tensor of them; got 500.0"),
    (True, TypeError, "t must be a whole number, or a tensor of them; got True"),
    (torch.tensor([1.0, 2.0]), TypeError, r"\(torch.int64\); got torch.float"),
    (torch.tensor([1, 2]).int(), TypeError, "torch.int64.; got torch.int32"),
    (torch.tensor([1, 2, 3]), ValueError, r"one for each of the 2 samples; got shape \(3,\)"),
    (torch.tensor([[1], [2]]), ValueError, r"one for each of the 2 samples; got shape \(2, 1\)"),
])
def test_times_that_are_none_are_refused(t, kind, sentence):
    x = torch.zeros(2, 1, 3, 3)
    with refused(kind, sentence):
        COSINE.at(t, x)
    with refused(kind, sentence):
        COSINE.noise(x, t, x)


@preserving
def test_noise_is_diffusers_add_noise(schedule):
    x, eps = torch.randn(2, 4, 3, 5, 5)
    t = torch.tensor([0, 7, 200, 399])
    theirs = DDPMScheduler(schedule.T, trained_betas=schedule.betas().tolist())
    close(schedule.noise(x, t, eps), theirs.add_noise(x, eps, t), 1e-4)


def test_noise_takes_samples_of_one_shape_and_of_floats_only():
    """Pixels came out all 0, and (B, 1, 28, 28) with (B, 28, 28) as (B, B, 28, 28)."""
    x = torch.zeros(5, 1, 28, 28)
    with refused(TypeError, "x must be floating-point numbers; got torch.uint8. Scale pixels with"):
        COSINE.noise(x.to(torch.uint8), 300, x)
    with refused(ValueError, r"x and eps must have one shape; got \(5, 1, 28, 28\) and \(5"):
        COSINE.noise(x, 300, x[:, 0])
    with refused(TypeError, "eps must be a tensor; got float"):
        COSINE.noise(x, 300, 0.5)


# Step sequences

@pytest.mark.parametrize("T, n", [
    (T, n) for T in (1024, 400) for n in range(1, T + 1) if T % n == 0])
def test_steps_that_divide_T_are_diffusers_trailing_steps(T, n):
    theirs = DDIMScheduler(T, timestep_spacing="trailing")
    theirs.set_timesteps(n)
    assert sch.cosine(T).steps(n).tolist() == theirs.timesteps.tolist()
    assert sch.cosine(T).times(n) == [k * T // n - 1 for k in range(n, 0, -1)]


@pytest.mark.parametrize("T, n", [
    (1024, 3), (1024, 10), (1024, 50), (1024, 100), (1024, 400), (1024, 1000), (400, 7), (400, 30),
    (400, 128), (400, 256), (400, 399)])
def test_steps_that_do_not_divide_T_are_rounded_trailing_steps(T, n):
    steps = sch.cosine(T).steps(n)
    assert steps.tolist() == (np.round(np.arange(T, 0, -T / n))[:n] - 1).astype(int).tolist()
    assert len(steps) == n and steps[0] == T - 1 and (steps.diff() < 0).all() and steps[-1] >= 0
    # the step before is the next element; t − T//n walks past the end or stops short of it
    assert set(steps.diff().neg().tolist()) <= {T // n, T // n + 1}


@pytest.mark.parametrize("n", [0, -1, 1025, 1.5, 16.0, True, "16", None])
def test_a_number_of_steps_that_makes_no_sense_is_refused(n):
    with refused(ValueError, r"n_steps must be a whole number from 1 to 1024; got " + repr(n)):
        COSINE.steps(n)


# Conversions

def times(schedule):
    """Some times of a schedule without its last, where α may be 0."""
    return torch.tensor([0, 1, schedule.T // 3, schedule.T // 2, schedule.T - 2])


@every
def test_each_form_of_a_prediction_gives_back_the_x_and_eps_that_made_x_t(schedule):
    x, eps = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64)
    alpha, sigma = (one[times(schedule)].reshape(-1, 1, 1, 1)
                    for one in (schedule.alpha, schedule.sigma))
    x_t = alpha * x + sigma * eps
    # by hand: (x_t, v) is (x, ε) turned and stretched, and the score points from x_t to α x
    v, score = alpha * eps - sigma * x, (alpha * x - x_t) / sigma**2
    close(schedule.noise(x, times(schedule), eps), x_t)
    close(sch.v_from_x_eps(x, eps, alpha, sigma), v)
    close(sch.x_from_v(x_t, v, alpha, sigma), x)
    close(sch.eps_from_v(x_t, v, alpha, sigma), eps)
    close(sch.x_from_eps(x_t, eps, alpha, sigma), x)
    close(sch.eps_from_x(x_t, x, alpha, sigma), eps)
    close(sch.score_from_eps(eps, sigma), score)
    close(sch.x_from_score(x_t, score, alpha, sigma), x)
    close(sch.x_from_both(x_t, x, eps, alpha, sigma), x)
    for kind, out in (("v", v), ("x", x), ("eps", eps), ("both", torch.cat([x, eps], 1))):
        for found, expected in zip(predict(kind, out, x_t, alpha, sigma), (x, eps, v, score)):
            close(found, expected)


@pytest.mark.parametrize("kind", ["v", "x", "both"])
@pytest.mark.parametrize("schedule", [COSINE, FLOW, ODD], ids=lambda s: s.name)
def test_where_alpha_is_0_x_is_still_what_a_network_says_it_is(schedule, kind):
    x, eps = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    alpha, sigma = schedule.at(schedule.T - 1, x)
    assert alpha == 0
    out = {"v": -sigma * x, "x": x, "both": torch.cat([x, eps], 1)}[kind]
    found = predict(kind, out, sigma * eps, alpha, sigma)
    for form, expected in zip(found, (x, eps, -sigma * x, -eps / sigma)):
        close(form, expected)


def test_of_a_network_that_says_x_and_eps_x_is_heard_at_pure_noise_and_eps_near_the_data():
    x_t, x, eps = torch.randn(3, 4, 1, 2, 2, dtype=torch.float64)

    def both(t, schedule=COSINE):
        return predict("both", torch.cat([x, eps], 1), x_t, *schedule.at(t, x_t))

    assert torch.equal(both(1023).x, x) and torch.equal(both(1023).eps, x_t)
    alpha, sigma = COSINE.at(0, x_t)  # σ = 0.0015
    torch.testing.assert_close(both(0).x, (x_t - sigma * eps) / alpha, rtol=0, atol=1e-4)
    close(both(511).x, (x - eps) / 2 + math.sqrt(0.5) * x_t)  # by hand at α = σ = √½
    close(both(511, FLOW).x, (x - eps) / 2 + x_t)  # by hand at α = σ = ½


@pytest.mark.parametrize("kind", ["noise", "", None, ["v"]])
def test_a_prediction_of_an_unknown_kind_is_refused(kind):
    one = torch.ones(1)
    with pytest.raises(ValueError, match="predicts one of v, x, eps, both; got "):
        predict(kind, one, one, one, one)


@pytest.mark.parametrize("convert, n", [
    (sch.v_from_x_eps, 2), (sch.x_from_v, 2), (sch.eps_from_v, 2), (sch.x_from_eps, 2),
    (sch.eps_from_x, 2), (sch.x_from_both, 3), (sch.x_from_score, 2)], ids=lambda c: str(c)[:22])
def test_conversions_refuse_what_would_broadcast_or_is_not_floating(convert, n):
    image = torch.zeros(5, 1, 5, 5)
    half = torch.tensor(0.5)
    with refused(ValueError, r"must have one shape; got \(5, 1, 5, 5\) and \(5, 5, 5\)"):
        convert(*[image] * (n - 1), image[:, 0], half, half)
    with refused(TypeError, "must be floating-point numbers; got torch.uint8"):
        convert(*[image.to(torch.uint8)] * n, half, half)
    with refused(ValueError, r"alpha must be a number or broadcast against \(5, 1, 5, 5\)"):
        convert(*[image] * n, torch.full((5,), 0.5), half)
    assert convert(*[image] * n, 0.5, 0.5).shape == image.shape  # plain numbers will do
    assert convert(*[image] * n, *COSINE.at(torch.arange(5), image)).shape == image.shape


@every
def test_the_exact_mean_of_a_gaussian_gives_the_gradient_of_its_log_density(schedule):
    m, s = 0.3, 0.5
    t = times(schedule)
    alpha, sigma = schedule.alpha[t], schedule.sigma[t]
    x_t = torch.linspace(-2, 2, 5, dtype=torch.float64).requires_grad_()
    # x ~ N(m, s²), so x_t ~ N(α m, α² s² + σ²); autograd differentiates the log density
    density = torch.distributions.Normal(alpha * m, (alpha**2 * s**2 + sigma**2).sqrt())
    score = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)[0]
    x_t = x_t.detach()
    # E[x | x_t] by Bayes' rule for two Gaussians: precisions add
    mean = (m / s**2 + x_t * alpha / sigma**2) / (1 / s**2 + alpha**2 / sigma**2)
    close(predict("x", mean, x_t, alpha, sigma).score, score, 1e-7)
    close(sch.score_from_eps((x_t - alpha * mean) / sigma, sigma), score, 1e-7)
    close(sch.x_from_score(x_t, score, alpha, sigma), mean, 1e-7)


def test_an_error_in_eps_grows_by_sigma_over_alpha_and_an_error_in_v_does_not():
    """At the last of 400 linear steps a wrong ε spoils x 7.5 times as much; a wrong v, never more
    than once."""
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
    assert torch.equal(sch.x_from_v(x_t, v, zero, one), -v)
    assert torch.equal(sch.eps_from_v(x_t, v, zero, one), x_t)
    for form in predict("v", v, x_t, zero, one):
        assert form.isfinite().all()
    assert torch.equal(predict("v", v, x_t, zero, one).score, -x_t)
