"""Lesson 05's checks: what learners get wrong, what is right as well, and the oracles."""
import pytest
import torch
from exercises import answered, listed, verdict

from dmdkit import check, sample, schedule, score
from dmdkit.methods import ddpm, progressive

RIGHT = {
    "ex_5_1": ["(sigma_t * z_s - sigma_s * z_t) / (sigma_t * alpha_s - sigma_s * alpha_t)"],
    "ex_5_2": ["phi_s.cos() * (phi_t.cos() * z_t - phi_t.sin() * v) "
               "+ phi_s.sin() * (phi_t.sin() * z_t + phi_t.cos() * v)"],
    "ex_5_3": ["{'snr': snr, 'truncated': torch.maximum(snr, one), 'snr+1': 1 + snr}[kind]"],
    "ex_5_4": ["(p[..., None] * targets**2).sum((1, 2)) - mean(p)[:, 0].square().sum(1)"],
}

LEFT = """
distance = torch.cdist(z_t, alpha * points)
p = (-distance**2 / (2 * sigma**2)).softmax(1)

def mean(p):
    return (p[..., None] * targets).sum(1, keepdim=True)

def left(p, answer=None):
    answer = mean(p) if answer is None else answer
    return (p[..., None] * (targets - answer)**2).sum((1, 2))
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_5_1": "ratio = sigma_s / sigma_t\n"
              "x = solved(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s)",
    "ex_5_2": "delta = phi_t - phi_s",
    "ex_5_3": "snr = (alpha / sigma)**2\none = torch.ones(())\nkinds = 'snr', 'truncated', 'snr+1'",
    "ex_5_4": LEFT,
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_5_1": {
        "(z_s - sigma_t / sigma_s * z_t) / (alpha_s - sigma_t / sigma_s * alpha_t)": "upside down",
        "solved(z_s, z_t, alpha_s, sigma_s, alpha_t, sigma_t)": "exchanged throughout",
        "(z_s - alpha_s / alpha_t * z_t) / (alpha_s - alpha_s / alpha_t * alpha_t)":
            "makes the denominator 0",
        "(z_s - alpha_s / alpha_t * z_t) / (sigma_s - alpha_s / alpha_t * sigma_t)":
            "you eliminated x",
        "(z_t - alpha_t * x) / sigma_t": "This is ε̃, the noise",
        "alpha_t * (z_t - alpha_t * x) / sigma_t - sigma_t * x": "target in v",
        "(z_t - sigma_t * (z_s - alpha_s / alpha_t * z_t) / (sigma_s - alpha_s / alpha_t * "
        "sigma_t)) / alpha_t": "not where α_t = 0",
        "z_s": "z_s itself",
        "(z_s - ratio * z_t) / alpha_s": "α_s alone",
        "z_s - ratio * z_t": "division is missing",
        "z_s / alpha_s": "leaves the noise of z_s in",
        "(z_s - ratio * z_t) / (ratio * alpha_t - alpha_s)": "sign is flipped",
        "(ratio * z_t - z_s) / (alpha_s - ratio * alpha_t)": "sign is flipped",
        "(z_s + ratio * z_t) / (alpha_s + ratio * alpha_t)": "above and below",
        "(z_s + ratio * z_t) / (alpha_s - ratio * alpha_t)": "plus in the numerator",
        "(z_s - ratio * z_t) / (alpha_s + ratio * alpha_t)": "plus in the denominator",
        "(z_t - ratio * z_s) / (alpha_s - ratio * alpha_t)": "exchanged in the numerator",
        "(z_s - ratio * z_t) / (alpha_t - ratio * alpha_s)": "exchanged in the denominator",
        "(z_s - z_t) / (alpha_s - alpha_t)": "ratio is missing",
        "(z_s - sigma_s * z_t) / (alpha_s - sigma_s * alpha_t)": "divide it by σ_t",
        "z_s - ratio * z_t / alpha_s - ratio * alpha_t": "z_s is multiplied by 1 where",
        "x + 1e-2 * torch.randn_like(z_t)": "fresh noise",
        "(z_s - sigma_s.reshape(-1) / sigma_t.reshape(-1) * z_t) / alpha_s":
            "nothing has to be reshaped",
        "x.flatten(1)": "nothing has to be reshaped",
        "z_s.sub_(ratio * z_t).div_(alpha_s - ratio * alpha_t)": "in place",
        "(x - x) / 0": "division by zero",
    },
    "ex_5_2": {
        "solved(z_t, v, phi_s, phi_t)": "turns the other way",
        "delta.cos() * z_t + delta.sin() * v": "turns the other way",
        "z_t - delta * v": "Euler",
        "delta.sin() * z_t - delta.cos() * v": "cos and sin are exchanged",
        "phi_t.cos() * z_t - phi_t.sin() * v": "This is x̂",
        "phi_s.cos() * z_t - phi_s.sin() * v": "at which to arrive",
        "torch.cos(phi_t + phi_s) * z_t - torch.sin(phi_t + phi_s) * v": "their difference",
        "solved(z_t, v, phi_t * torch.pi / 180, phi_s * torch.pi / 180)": "to radians",
        "solved(z_t, v, phi_t * 180 / torch.pi, phi_s * 180 / torch.pi)": "to degrees",
        "delta.sin() * z_t + delta.cos() * v": "v after the step",
        "phi_s.cos() * (phi_t.cos() * z_t - phi_t.sin() * v)": "noise is missing",
        "z_t - delta.sin() * v": "z_t is not scaled",
        "delta.cos() * z_t - v": "v is not scaled",
        "delta.cos() * z_t - delta.sin() * torch.randn_like(v)": "deterministic",
        "delta.cos() * (z_t - delta.sin() * v)": "What multiplies z_t is right",
        "delta.reshape(-1).cos() * z_t - delta.reshape(-1).sin() * v": "nothing has to be reshaped",
        "z_t.mul_(delta.cos()).sub_(delta.sin() * v)": "in place",
    },
    "ex_5_3": {
        "dict(zip(kinds, (snr, torch.minimum(snr, one), snr + 1)))[kind]": "cut from above",
        "dict(zip(kinds, (snr, snr, snr + 1)))[kind]": "not truncated",
        "dict(zip(kinds, (snr, snr * (snr > 1), snr + 1)))[kind]": "nothing would be learned",
        "dict(zip(kinds, (snr, snr + 1, snr.clamp(min=1))))[kind]": "are exchanged",
        "dict(zip(kinds, (snr, snr.clamp(min=1), snr)))[kind]": "1 is missing from",
        "dict(zip(kinds, (snr, snr.clamp(min=1), snr.clamp(min=1))))[kind]": "truncated instead",
        "dict(zip(kinds, (snr, snr.clamp(min=1), alpha**2 / (sigma**2 + 1))))[kind]":
            "into the denominator",
        "snr": "kind is not used",
        "solved(alpha.sqrt(), sigma.sqrt(), kind)": "squares are missing",
        "solved(sigma, alpha, kind)": "upside down",
        "solved(alpha.sqrt(), sigma, kind)": "Only σ",
        "solved(alpha, sigma.sqrt(), kind)": "Only α",
        "solved(alpha, torch.ones_like(sigma), kind)": "σ² is missing",
        "dict(zip(kinds, (snr.log(), snr.log().clamp(min=1), snr.log() + 1)))[kind]": "log SNR",
        "solved(alpha**2, sigma**2, kind)": "values are not",
        "snr + 1": "values are not",
        "snr if kind == 'snr' else max(snr, 1) if kind == 'truncated' else snr + 1": "clamp",
        "snr if kind == 'snr' else snr.max(one) if kind == 'truncated' else None": "returned None",
        "snr if kind == 'snr' else torch.max(snr, 0) if kind == 'truncated' else snr + 1":
            "should be a tensor",
        "snr.mean()": "one value for each noise level",
    },
    "ex_5_4": {
        "left((-distance**2 / (2 * sigma**2)).exp() / (-distance**2 / (2 * "
        "sigma**2)).exp().sum(1, True))": "0/0",
        "left((-distance**2 / (2 * sigma**2)).exp())": "do not sum to 1",
        "left((-distance**2 / (2 * sigma**2)).softmax(0))": "wrong axis",
        "left((distance**2 / (2 * sigma**2)).softmax(1))": "farthest",
        "left((-torch.cdist(z_t, points)**2 / (2 * sigma**2)).softmax(1))": "α is missing",
        "left((-distance / (2 * sigma**2)).softmax(1))": "in the exponent must be squared",
        "left((-distance**2 / (2 * sigma)).softmax(1))": "σ must be squared",
        "left((-distance**2 / sigma**2).softmax(1))": "½ is missing",
        "left((-distance**2 / (sigma**2 / 2)).softmax(1))": "brackets",
        "left(torch.ones_like(p) / len(points))": "as if z_t told nothing",
        "targets.var(1, correction=0).sum(1)": "as if z_t told nothing",
        "left(p, targets.mean(1, keepdim=True))": "plain mean",
        "left(p, targets[torch.arange(len(z_t)), p.argmax(1)][:, None])": "likeliest target",
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
        "left(p) * (1 + torch.rand(len(z_t)))": "random numbers",
    },
}


@pytest.mark.parametrize("name, answer, said", listed(WRONG))
def test_a_check_of_lesson_05_names_what_learners_get_wrong(name, answer, said, capsys):
    text = verdict(name, answered(name, answer, BEFORE.get(name, "")), capsys)
    assert text.startswith("✗") and said in text


@pytest.mark.parametrize("name, answer", [(name, a) for name, of in RIGHT.items() for a in of])
def test_a_check_of_lesson_05_accepts_other_right_answers(name, answer, capsys):
    assert verdict(name, answered(name, answer, BEFORE.get(name, "")), capsys).startswith("✓")


def test_the_oracles_of_5_1_5_2_and_5_3_are_the_kits_target_step_and_weight():
    s = schedule.cosine()
    z_t, v = torch.randn(2, 4, 2)
    t = torch.tensor([1023, 767, 255, 511])
    end = torch.tensor([511, 255, -1, 127])
    alpha_t, sigma_t = s.at(t, z_t)
    alpha_s, sigma_s = s.at(end, z_t)
    x = schedule.x_from_v(z_t, v, alpha_t, sigma_t)
    eps = schedule.eps_from_v(z_t, v, alpha_t, sigma_t)
    z_s = sample.ddim_step(s, x, eps, end)
    got = check.ex_5_1.oracle(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s)
    torch.testing.assert_close(got, x)
    phi_t = torch.atan2(sigma_t, alpha_t)
    phi_s = torch.atan2(sigma_s, alpha_s)
    torch.testing.assert_close(check.ex_5_2.oracle(z_t, v, phi_t, phi_s), z_s)
    for kind in ddpm.WEIGHTINGS:
        wanted = ddpm.weight(alpha_t, sigma_t, kind)
        torch.testing.assert_close(check.ex_5_3.oracle(alpha_t, sigma_t, kind), wanted)


def test_the_oracle_of_5_4_is_the_slope_of_the_ideal_denoiser():
    """Cov[x | z_t] = (σ²/α) ∂μ/∂z_t, the second half of Tweedie."""
    points = torch.randn(5, 2, dtype=torch.float64)
    z_t = torch.randn(3, 2, dtype=torch.float64)
    alpha, sigma = 0.8, 0.6

    def means(z):
        return score.FiniteSet(points).denoise(z, alpha, sigma).sum(0)

    slope = torch.autograd.functional.jacobian(means, z_t)
    wanted = sigma**2 / alpha * torch.einsum("ibi->b", slope)
    got = check.ex_5_4.oracle(z_t, points, points.expand(3, 5, 2), alpha, sigma)
    torch.testing.assert_close(got, wanted)


def test_exercise_5_4_finds_a_loss_for_x_and_none_for_the_distillation_target():
    """The pairs (x, ε) that lead to one z_t have different x, and one x̃."""
    points = torch.randn(5, 2)
    z_t = torch.randn(1, 2)
    cosine = schedule.cosine()
    t, middle, end = progressive.stage_times(cosine, 4)[1:2].unbind(1)
    alpha, sigma = cosine.at(t, z_t)
    z = alpha * points + sigma * ((z_t - alpha * points) / sigma)
    exact = score.Exact(score.FiniteSet(points), cosine)
    z_end = progressive.two_steps(exact, cosine, z, t, middle, end)
    targets = progressive.target(z, z_end, alpha, sigma, *cosine.at(end, z))
    least = check.ex_5_4.oracle
    assert least(z_t, points, targets[None], float(alpha), float(sigma)) < 1e-8
    assert least(z_t, points, points[None], float(alpha), float(sigma)) > 0.1
