"""Lesson 05's checks: what learners get wrong, what is right as well, and the oracles."""
import pytest
import torch
from exercises import TestAnswers  # noqa: F401, collected here

from dmdkit import check, sample, schedule, score
from dmdkit.methods import ddpm, progressive

RIGHT = {
    "ex_5_1": ["(sigma_t * x_s - sigma_s * x_t) / (sigma_t * alpha_s - sigma_s * alpha_t)"],
    "ex_5_2": ["phi_s.cos() * (phi_t.cos() * x_t - phi_t.sin() * v) "
               "+ phi_s.sin() * (phi_t.sin() * x_t + phi_t.cos() * v)"],
    "ex_5_3": ["torch.maximum(squares, snr * squares).flatten(1).mean(1)",
               "torch.maximum(each(squares), each(snr * squares))"],
    "ex_5_4": ["(p[..., None] * targets**2).sum((1, 2)) - mean(p)[:, 0].square().sum(1)"],
}

LEFT = """
distance = torch.cdist(x_t, alpha * points)
p = (-distance**2 / (2 * sigma**2)).softmax(1)

def mean(p):
    return (p[..., None] * targets).sum(1, keepdim=True)

def left(p, answer=None):
    answer = mean(p) if answer is None else answer
    return (p[..., None] * (targets - answer)**2).sum((1, 2))
"""
ERRORS = """
snr = (alpha / sigma)**2
squares = (target - x)**2

def each(values):
    return values.flatten(1).mean(1)
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_5_1": "ratio = sigma_s / sigma_t\n"
              "x = solved(x_t, x_s, alpha_t, sigma_t, alpha_s, sigma_s)",
    "ex_5_2": "delta = phi_t - phi_s",
    "ex_5_3": ERRORS,
    "ex_5_4": LEFT,
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_5_1": {
        "(x_s - sigma_t / sigma_s * x_t) / (alpha_s - sigma_t / sigma_s * alpha_t)": "upside down",
        "solved(x_s, x_t, alpha_s, sigma_s, alpha_t, sigma_t)": "exchanged throughout",
        "(x_s - alpha_s / alpha_t * x_t) / (alpha_s - alpha_s / alpha_t * alpha_t)":
            "makes the denominator 0",
        "(x_s - alpha_s / alpha_t * x_t) / (sigma_s - alpha_s / alpha_t * sigma_t)":
            "you eliminated x",
        "(x_t - alpha_t * x) / sigma_t": "This is ε̃, the noise",
        "alpha_t * (x_t - alpha_t * x) / sigma_t - sigma_t * x": "target in v",
        "(x_t - sigma_t * (x_s - alpha_s / alpha_t * x_t) / (sigma_s - alpha_s / alpha_t * "
        "sigma_t)) / alpha_t": "not where α_t = 0",
        "x_s": "x_s itself",
        "(x_s - ratio * x_t) / alpha_s": "α_s alone",
        "x_s - ratio * x_t": "division is missing",
        "x_s / alpha_s": "leaves the noise of x_s in",
        "(x_s - ratio * x_t) / (ratio * alpha_t - alpha_s)": "sign is flipped",
        "(ratio * x_t - x_s) / (alpha_s - ratio * alpha_t)": "sign is flipped",
        "(x_s + ratio * x_t) / (alpha_s + ratio * alpha_t)": "above and below",
        "(x_s + ratio * x_t) / (alpha_s - ratio * alpha_t)": "plus in the numerator",
        "(x_s - ratio * x_t) / (alpha_s + ratio * alpha_t)": "plus in the denominator",
        "(x_t - ratio * x_s) / (alpha_s - ratio * alpha_t)": "exchanged in the numerator",
        "(x_s - ratio * x_t) / (alpha_t - ratio * alpha_s)": "exchanged in the denominator",
        "(x_s - x_t) / (alpha_s - alpha_t)": "ratio is missing",
        "(x_s - sigma_s * x_t) / (alpha_s - sigma_s * alpha_t)": "divide it by σ_t",
        "x_s - ratio * x_t / alpha_s - ratio * alpha_t": "x_s is multiplied by 1 where",
        "x + 1e-2 * torch.randn_like(x_t)": "fresh noise",
        "(x_s - sigma_s.reshape(-1) / sigma_t.reshape(-1) * x_t) / alpha_s":
            "nothing has to be reshaped",
        "x.flatten(1)": "nothing has to be reshaped",
        "x_s.sub_(ratio * x_t).div_(alpha_s - ratio * alpha_t)": "in place",
        "(x - x) / 0": "division by zero",
    },
    "ex_5_2": {
        "solved(x_t, v, phi_s, phi_t)": "turns the other way",
        "delta.cos() * x_t + delta.sin() * v": "turns the other way",
        "x_t - delta * v": "Euler",
        "delta.sin() * x_t - delta.cos() * v": "cos and sin are exchanged",
        "phi_t.cos() * x_t - phi_t.sin() * v": "This is x̂",
        "phi_s.cos() * x_t - phi_s.sin() * v": "at which to arrive",
        "torch.cos(phi_t + phi_s) * x_t - torch.sin(phi_t + phi_s) * v": "their difference",
        "solved(x_t, v, phi_t * torch.pi / 180, phi_s * torch.pi / 180)": "to radians",
        "solved(x_t, v, phi_t * 180 / torch.pi, phi_s * 180 / torch.pi)": "to degrees",
        "delta.sin() * x_t + delta.cos() * v": "v after the step",
        "phi_s.cos() * (phi_t.cos() * x_t - phi_t.sin() * v)": "noise is missing",
        "x_t - delta.sin() * v": "x_t is not scaled",
        "delta.cos() * x_t - v": "v is not scaled",
        "delta.cos() * x_t - delta.sin() * torch.randn_like(v)": "deterministic",
        "delta.cos() * (x_t - delta.sin() * v)": "What multiplies x_t is right",
        "delta.reshape(-1).cos() * x_t - delta.reshape(-1).sin() * v": "nothing has to be reshaped",
        "x_t.mul_(delta.cos()).sub_(delta.sin() * v)": "in place",
    },
    "ex_5_3": {
        "each(snr * squares)": "This is the broken loss",
        "each(snr.clamp(max=1) * squares)": "cut from above",
        "each(squares)": "in x alone",
        "each((snr + 1) * squares)": "in v",
        "each(snr * (snr > 1) * squares)": "nothing would be learned",
        "each((alpha / sigma).clamp(min=1) * squares)": "squares are missing",
        "each((1 / snr).clamp(min=1) * squares)": "upside down",
        "each((alpha / sigma**2).clamp(min=1) * squares)": "Only σ",
        "each((alpha**2 / sigma).clamp(min=1) * squares)": "Only α",
        "each((snr.clamp(min=1) * (target - x))**2)": "inside the square",
        "each(snr.clamp(min=1) * (target - x).abs())": "absolute error",
        "each(snr.clamp(min=1) * (target - x))": "not squared",
        "(snr.clamp(min=1) * squares).flatten(1).sum(1)": "sum over a sample",
        "(snr.clamp(min=1) * squares).mean()": "one number for the batch",
        "(snr.clamp(min=1) * squares).mean(0)": "one value a *pixel*",
        "(snr.clamp(min=1) * squares).mean(-1)": "over one axis only",
        "each(max(snr, 1) * squares)": "clamp",
        "each(2 * snr.clamp(min=1) * squares)": "values are not",
        "[each(squares)]": "should be a tensor",
    },
    "ex_5_4": {
        "left((-distance**2 / (2 * sigma**2)).exp() / (-distance**2 / (2 * "
        "sigma**2)).exp().sum(1, True))": "0/0",
        "left((-distance**2 / (2 * sigma**2)).exp())": "do not sum to 1",
        "left((-distance**2 / (2 * sigma**2)).softmax(0))": "wrong axis",
        "left((distance**2 / (2 * sigma**2)).softmax(1))": "farthest",
        "left((-torch.cdist(x_t, points)**2 / (2 * sigma**2)).softmax(1))": "α is missing",
        "left((-distance / (2 * sigma**2)).softmax(1))": "in the exponent must be squared",
        "left((-distance**2 / (2 * sigma)).softmax(1))": "σ must be squared",
        "left((-distance**2 / sigma**2).softmax(1))": "½ is missing",
        "left((-distance**2 / (sigma**2 / 2)).softmax(1))": "brackets",
        "left(torch.ones_like(p) / len(points))": "as if x_t told nothing",
        "targets.var(1, correction=0).sum(1)": "as if x_t told nothing",
        "left(p, targets.mean(1, keepdim=True))": "plain mean",
        "left(p, targets[torch.arange(len(x_t)), p.argmax(1)][:, None])": "likeliest target",
        "(p[..., None] * targets**2).sum((1, 2))": "the answer 0",
        "(targets - mean(p)).square().sum(2).mean(1)": "count alike in the loss",
        "left(p) / 2": "over the coordinates",
        "left(p).sqrt()": "root",
        "(p[..., None] * (targets - mean(p))).sum((1, 2))": "which is 0",
        "mean(p)[:, 0]": "best answer",
        "left(p).mean()": "one number for the batch",
        "left(p)[:, None]": "shape (B,)",
        "(p * targets).sum(1)": "p[..., None]",
        "2 * left(p)": "values are not",
        "float(left(p).mean())": "should be a tensor",
        "left(p) * (1 + torch.rand(len(x_t)))": "random numbers",
    },
}


def test_the_oracles_of_5_1_5_2_and_5_3_are_the_kits_target_step_and_loss():
    s = schedule.cosine()
    x_t, v = torch.randn(2, 4, 2)
    t = torch.tensor([1023, 767, 255, 511])
    end = torch.tensor([511, 255, -1, 127])
    alpha_t, sigma_t = s.at(t, x_t)
    alpha_s, sigma_s = s.at(end, x_t)
    x = schedule.x_from_v(x_t, v, alpha_t, sigma_t)
    eps = schedule.eps_from_v(x_t, v, alpha_t, sigma_t)
    x_s = sample.ddim_step(s, x, eps, end)
    got = check.ex_5_1.oracle(x_t, x_s, alpha_t, sigma_t, alpha_s, sigma_s)
    torch.testing.assert_close(got, x)
    phi_t = torch.atan2(sigma_t, alpha_t)
    phi_s = torch.atan2(sigma_s, alpha_s)
    torch.testing.assert_close(check.ex_5_2.oracle(x_t, v, phi_t, phi_s), x_s)
    torch.testing.assert_close(progressive.rotate(x_t, v, phi_t, phi_s), x_s)
    wanted = ddpm.weighted_loss(v, x_t, alpha_t, sigma_t)
    torch.testing.assert_close(check.ex_5_3.oracle(v, x_t, alpha_t, sigma_t), wanted)


def test_the_oracle_of_5_4_is_the_slope_of_the_ideal_denoiser():
    """Cov[x | x_t] = (σ²/α) ∂μ/∂x_t, the second half of Tweedie."""
    points = torch.randn(5, 2, dtype=torch.float64)
    x_t = torch.randn(3, 2, dtype=torch.float64)
    alpha, sigma = 0.8, 0.6

    def means(z):
        return score.FiniteSet(points).denoise(z, alpha, sigma).sum(0)

    slope = torch.autograd.functional.jacobian(means, x_t)
    wanted = sigma**2 / alpha * torch.einsum("ibi->b", slope)
    got = check.ex_5_4.oracle(x_t, points, points.expand(3, 5, 2), alpha, sigma)
    torch.testing.assert_close(got, wanted)


def test_the_librarys_least_loss_is_the_oracle_and_refuses_targets_that_do_not_fit():
    x_t, points, targets = torch.randn(3, 2), torch.randn(5, 2), torch.randn(3, 5, 2)
    wanted = check.ex_5_4.oracle(x_t, points, targets, 0.8, 0.6)
    torch.testing.assert_close(progressive.least_loss(x_t, points, targets, 0.8, 0.6), wanted)
    with pytest.raises(ValueError, match="targets must be"):
        progressive.least_loss(x_t, points, targets[:, :4], 0.8, 0.6)


def test_exercise_5_4_finds_a_loss_for_x_and_none_for_the_distillation_target():
    """The pairs (x, ε) that lead to one x_t have different x, and one x̃."""
    points = torch.randn(5, 2)
    x_t = torch.randn(1, 2)
    cosine = schedule.cosine()
    t, middle, end = progressive.stage_times(cosine, 4)[1:2].unbind(1)
    alpha, sigma = cosine.at(t, x_t)
    z = alpha * points + sigma * ((x_t - alpha * points) / sigma)
    exact = score.Exact(score.FiniteSet(points), cosine)
    x_end = progressive.two_steps(exact, cosine, z, t, middle, end)
    targets = progressive.target(z, x_end, alpha, sigma, *cosine.at(end, z))
    least = check.ex_5_4.oracle
    assert least(x_t, points, targets[None], float(alpha), float(sigma)) < 1e-8
    assert least(x_t, points, points[None], float(alpha), float(sigma)) > 0.1
