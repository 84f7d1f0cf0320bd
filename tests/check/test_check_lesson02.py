"""Lesson 02's checks: what learners get wrong, what is right as well, and the oracles."""
import pytest
import torch
from exercises import TestAnswers  # noqa: F401, collected here

from dmdkit import check, schedule

RIGHT = {
    "ex_2_1": ["-(sigma * x_t + alpha * v) / sigma", "-x_t - alpha / sigma * v"],
    "ex_2_2": ["x_t / alpha + sigma**2 / alpha * score"],
    "ex_2_3": [
        "torch.nn.functional.softmax(-distance**2 / (2 * sigma**2), dim=1) @ points",
        "torch.stack([solved(x[None], points, alpha, sigma)[0] for x in x_t])",
        "torch.from_numpy(solved(x_t.double(), points.double(), alpha, sigma).numpy())",
    ],
    "ex_2_4": ["torch.addcmul(x + step_size / 2 * score, z, torch.tensor(step_size).sqrt())"],
}

BEFORE = {"ex_2_3": "distance = torch.cdist(x_t, alpha * points)"}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_2_1": {
        "(sigma * x_t + alpha * v) / sigma": "sign is flipped",
        "-sigma * x_t - alpha * v": "This is −ε̂",
        "sigma * x_t + alpha * v": "This is ε̂",
        "-(sigma * x_t + alpha * v) / sigma**2": "divided by σ²",
        "-v / sigma": "v for the noise",
        "alpha * x_t - sigma * v": "This is x̂",
        "-(alpha * x_t - sigma * v) / sigma": "x̂ where ε̂ belongs",
        "-(alpha * x_t + sigma * v) / sigma": "α and σ are swapped",
        "-(sigma * x_t - alpha * v) / sigma": "minus where",
        "x_t.mul_(-sigma).sub_(alpha * v).div_(sigma)": "in place",
        "-(sigma[:, None] * x_t + alpha * v) / sigma": "nothing has to be reshaped",
    },
    "ex_2_2": {
        "(x_t - sigma**2 * score) / alpha": "sign is flipped",
        "(x_t + sigma * score) / alpha": "σ where the formula has σ²",
        "(x_t + score) / alpha": "σ² is missing",
        "x_t + sigma**2 * score": "division by α is missing",
        "x_t + sigma**2 * score / alpha": "Only the score",
        "x_t / alpha + sigma**2 * score": "Only x_t",
        "alpha * (x_t + sigma**2 * score)": "multiplied by α",
        "(x_t + sigma**2 * score) / alpha**2": "in each sample but for a factor",
    },
    "ex_2_3": {
        "(-distance**2 / (2 * sigma**2)).softmax(0) @ points": "wrong axis",
        "(distance**2 / (2 * sigma**2)).softmax(1) @ points": "farthest",
        "(-torch.cdist(x_t, points)**2 / (2 * sigma**2)).softmax(1) @ points": "α is missing",
        "(-distance / (2 * sigma**2)).softmax(1) @ points": "distance must be squared",
        "(-distance**2 / (2 * sigma)).softmax(1) @ points": "σ must be squared",
        "(-distance**2 / sigma**2).softmax(1) @ points": "2 is missing",
        "(-distance**2 / 2 * sigma**2).softmax(1) @ points": "1/sigma in place of sigma",
        "alpha * (-distance**2 / (2 * sigma**2)).softmax(1) @ points": "mean of α x",
        "points[distance.argmin(1)]": "nearest",
        "points.mean(0).expand(len(x_t), 2)": "plain mean",
        "(-distance**2 / (2 * sigma**2)).exp() @ points / (-distance**2 / (2 * "
        "sigma**2)).exp().sum(1, True)": "0/0",
        "(-(x_t - alpha * points)**2 / (2 * sigma**2)).softmax(1) @ points": "should be (B, N)",
    },
    "ex_2_4": {
        "x + step_size / 2 * score": "noise is missing",
        "x + step_size**0.5 * z": "random walk",
        "x + step_size / 2 * score + step_size * z": "root is missing",
        "x + step_size * score + step_size**0.5 * z": "½ is missing",
        "x + step_size * score + (2 * step_size)**0.5 * z": "other convention",
        "x - step_size / 2 * score + step_size**0.5 * z": "sign is flipped",
        "x + step_size / 2 * score + z": "unscaled",
        "step_size / 2 * score + step_size**0.5 * z": "x itself",
        "x + step_size / 2 * score + step_size**0.5 * torch.randn_like(x)": "Use z",
        "x.add_(step_size / 2 * score).add_(step_size**0.5 * z)": "in place",
    },
}


def known_noise(*shape: int):
    """x_t, α and σ in float64; for data that are one of two points, the score by autograd and the
    mean by Bayes' rule."""
    one, other = torch.randn(2, *shape[1:], dtype=torch.float64)
    t = torch.randint(50, 900, (shape[0],))
    x_t = torch.randn(shape, dtype=torch.float64).requires_grad_()
    alpha, sigma = schedule.cosine().at(t, x_t)
    squares = [((x_t - alpha * x) / sigma).square().flatten(1).sum(1) for x in (one, other)]
    log = -torch.stack(squares) / 2
    slope, = torch.autograd.grad(log.logsumexp(0).sum(), x_t)
    share = log.detach().softmax(0).reshape(2, -1, *[1] * (len(shape) - 1))
    return x_t.detach(), alpha, sigma, slope, share[0] * one + share[1] * other


@pytest.mark.parametrize("shape", [(7, 2), (5, 1, 3, 2)])
def test_the_oracles_of_2_1_and_2_2_are_the_slope_of_the_log_density_and_bayes_rule(shape):
    x_t, alpha, sigma, slope, mean = known_noise(*shape)
    v = alpha * (x_t - alpha * mean) / sigma - sigma * mean
    torch.testing.assert_close(check.ex_2_1.oracle(x_t, v, alpha, sigma), slope)
    torch.testing.assert_close(check.ex_2_2.oracle(x_t, slope, alpha, sigma), mean)


def test_the_oracle_of_2_3_is_tweedie_on_the_gradient_of_the_log_density():
    points = torch.randn(6, 2, dtype=torch.float64)
    alpha, sigma = 0.8, 0.6
    x_t = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    log = (-torch.cdist(x_t, alpha * points).square() / (2 * sigma**2)).logsumexp(1)
    slope, = torch.autograd.grad(log.sum(), x_t)
    wanted = ((x_t + sigma**2 * slope) / alpha).detach()
    got = check.ex_2_3.oracle(x_t.detach(), points, alpha, sigma)
    torch.testing.assert_close(got, wanted)


def test_the_oracle_of_2_4_moves_mean_and_variance_as_the_closed_form_says():
    """For the standard normal, whose score is −x: x ← (1 − η/2) x + √η z."""
    x = torch.randn(9, 2, dtype=torch.float64)
    z = torch.randn(9, 2, dtype=torch.float64)
    step = 0.4
    got = check.ex_2_4.oracle(x, -x, step, z)
    torch.testing.assert_close(got, (1 - step / 2) * x + step**0.5 * z)
