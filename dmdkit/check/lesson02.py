"""Lesson 02: the score from v, Tweedie's formula, the ideal denoiser of a finite set, one step of
Langevin dynamics.

The oracles are written another way than the lesson's solutions: by way of x̂, in the units of
x_t/α, one sample at a time in float64, as a step of length √η.
"""
import math

import torch
from torch import Tensor

from .cases import randn
from .harness import Exercise

BROADCAST = "alpha and sigma broadcast against x_t as they are; nothing has to be reshaped."


def _batches(g: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Two tensors of one shape and α, σ that broadcast against them, with α² + σ² = 1 and neither
    near 0: for points, for images, and one time for all."""
    cases = []
    for shape, times in (((5, 2), (5, 1)), ((3, 1, 6, 4), (3, 1, 1, 1)), ((7, 2), ())):
        angle = math.pi / 2 * (0.15 + 0.7 * torch.rand(times, generator=g))
        cases.append((randn(g, *shape), randn(g, *shape), angle.cos(), angle.sin()))
    return cases


# 2.1 score_from_v(x_t, v, alpha, sigma) -> score

def _by_the_mean(x_t, v, alpha, sigma):
    """With μ = α x_t − σ v: the score points from x_t to α μ, and is that way in units of σ²."""
    mean = alpha * x_t - sigma * v
    return (alpha * mean - x_t) / sigma**2


ex_2_1 = Exercise("2.1", _by_the_mean, _batches, {
    "The sign is flipped: the score points *away* from the noise, to where x_t is more likely: "
    "s = −ε̂/σ.":
        lambda x_t, v, a, s: (s * x_t + a * v) / s,
    "This is −ε̂. The score is steeper the less noise there is: divide by σ.":
        lambda x_t, v, a, s: -(s * x_t + a * v),
    "This is ε̂. The score is s = −ε̂/σ.":
        lambda x_t, v, a, s: s * x_t + a * v,
    "You divided by σ². That belongs to the other form, −(x_t − α μ)/σ²; from ε̂ it is −ε̂/σ.":
        lambda x_t, v, a, s: -(s * x_t + a * v) / s**2,
    "You multiplied by σ; divide by it.":
        lambda x_t, v, a, s: -(s * x_t + a * v) * s,
    "You took v for the noise. Make ε̂ = σ x_t + α v of it first.":
        lambda x_t, v, a, s: -v / s,
    "This is x̂ = α x_t − σ v. The score needs the noise, ε̂ = σ x_t + α v, divided by −σ.":
        lambda x_t, v, a, s: a * x_t - s * v,
    "You put x̂ where ε̂ belongs: α x_t − σ v is the data, σ x_t + α v is the noise.":
        lambda x_t, v, a, s: -(a * x_t - s * v) / s,
    "α and σ are swapped in ε̂ = σ x_t + α v.":
        lambda x_t, v, a, s: -(a * x_t + s * v) / s,
    "There is a minus where ε̂ has a plus: ε̂ = σ x_t + α v.":
        lambda x_t, v, a, s: -(s * x_t - a * v) / s,
    "This is the score of x_t = ε, −x_t/σ: it does not use v.":
        lambda x_t, v, a, s: -x_t / s,
}, hint=BROADCAST)


# 2.2 x_from_score(x_t, score, alpha, sigma) -> the denoised mean

def _unscaled(x_t, score, alpha, sigma):
    """y = x_t/α is the data plus noise of size ς = σ/α, and its score is α s. There Tweedie's
    formula is y + ς² times that."""
    return x_t / alpha + (sigma / alpha)**2 * (alpha * score)


ex_2_2 = Exercise("2.2", _unscaled, _batches, {
    "The sign is flipped: the score points uphill, to where the data are, and that is where to go: "
    "x_t *plus* σ² s.":
        lambda x_t, score, a, s: (x_t - s**2 * score) / a,
    "You used σ where the formula has σ²: a slope of log p times a *variance* is a way.":
        lambda x_t, score, a, s: (x_t + s * score) / a,
    "σ² is missing: the score is a slope, and σ² makes a way of it.":
        lambda x_t, score, a, s: (x_t + score) / a,
    "The division by α is missing: x_t + σ² s is the mean of α x.":
        lambda x_t, score, a, s: x_t + s**2 * score,
    "You multiplied by α; x_t holds α x, so divide.":
        lambda x_t, score, a, s: (x_t + s**2 * score) * a,
    "Only the score is divided by α. Put brackets around the sum: (x_t + σ² s)/α.":
        lambda x_t, score, a, s: x_t + s**2 * score / a,
    "Only x_t is divided by α. Put brackets around the sum: (x_t + σ² s)/α.":
        lambda x_t, score, a, s: x_t / a + s**2 * score,
    "You divided by σ² where the score should be multiplied by it.":
        lambda x_t, score, a, s: (x_t + score / s**2) / a,
    "α and σ are swapped: the noise's variance is σ², and what is left of the data is α.":
        lambda x_t, score, a, s: (x_t + a**2 * score) / s,
}, hint=BROADCAST)


# 2.3 ideal_denoiser(x_t, points, alpha, sigma) -> E[x | x_t] for data that are one of the points

def _bayes(x_t, points, alpha, sigma):
    """One sample and one point at a time: how likely is x_t if the data was this point, relative to
    the likeliest?"""
    points = points.double()
    means = []
    for x in x_t.double():
        logs = [-float((x - alpha * point).square().sum()) / (2 * sigma**2) for point in points]
        shares = [math.exp(log - max(logs)) for log in logs]
        means.append(sum(p * point for p, point in zip(shares, points)) / sum(shares))
    return torch.stack(means).to(x_t.dtype)


def _set_cases(g):
    """B = N once, so that a softmax over the wrong axis gives a result; and σ so small that
    e^(−d²/2σ²) is 0. Every x_t is farther from its point than the noise would explain, so that only
    the ratio of the shares is left."""
    cases = []
    for b, n, share in ((4, 4, 0.25), (6, 3, 0.6), (3, 8, 0.02)):
        points = randn(g, n, 2)
        alpha = math.cos(math.pi / 2 * share)
        sigma = math.sin(math.pi / 2 * share)
        x_t = alpha * points[torch.arange(b) % n] + (sigma + 0.5) * randn(g, b, 2)
        cases.append((x_t, points, alpha, sigma))
    return cases


def _softmax(log):
    """The mistaken denoiser with these exponents: log(distances, σ)."""
    def wrong(x_t, points, alpha, sigma):
        return log(torch.cdist(x_t, alpha * points), sigma).softmax(1) @ points
    return wrong


def _log(x_t, points, alpha, sigma):
    return -torch.cdist(x_t, alpha * points)**2 / (2 * sigma**2)


def _plain(x_t, points, alpha, sigma):
    weight = _log(x_t, points, alpha, sigma).exp()
    return weight / weight.sum(1, keepdim=True) @ points


ex_2_3 = Exercise("2.3", _bayes, _set_cases, {
    "Where σ is small e^(−d²/2σ²) is 0 for *every* point in float32, and 0/0 is not a number. "
    "torch.softmax takes the exponents themselves and subtracts their maximum first: use it.":
        _plain,
    "The shares sum to 1 over the wrong axis. For each x_t (a row) they must sum to 1 over the "
    "points (the columns): softmax(1).":
        lambda x_t, points, a, s: _log(x_t, points, a, s).softmax(0) @ points,
    "The sign is missing: this prefers the *farthest* point. The exponent is −|x_t − α x_i|²/2σ².":
        _softmax(lambda d, s: d**2 / (2 * s**2)),
    "α is missing: x_t is noise around α x_i, not around x_i.":
        lambda x_t, points, a, s: _log(x_t, points, 1, s).softmax(1) @ points,
    "The distance must be squared.": _softmax(lambda d, s: -d / (2 * s**2)),
    "σ must be squared: the exponent is −|x_t − α x_i|²/2σ².":
        _softmax(lambda d, s: -d**2 / (2 * s)),
    "The 2 is missing: the exponent of a Gaussian is −d²/2σ².": _softmax(lambda d, s: -d**2 / s**2),
    "You divided by σ²/2 instead of 2σ²: brackets, as in d**2 / (2 * sigma**2).":
        _softmax(lambda d, s: -2 * d**2 / s**2),
    "This is the mean of α x, not of x: weigh the points themselves.":
        lambda x_t, points, a, s: a * _log(x_t, points, a, s).softmax(1) @ points,
    "This is the *nearest* point. The ideal denoiser averages: all points that could have become "
    "x_t count.":
        lambda x_t, points, a, s: points[torch.cdist(x_t, a * points).argmin(1)],
    "This is the plain mean of all points: weigh each by how likely it makes x_t.":
        lambda x_t, points, a, s: points.mean(0).expand_as(x_t),
}, hint="The distances should be (B, N): x_t[:, None] − alpha * points[None] is (B, N, 2), or "
        "torch.cdist(x_t, …).")


# 2.4 langevin_step(x, score, step_size, z) -> the next x

def _leap(x, score, step_size, z):
    """A step of length h = √η: h of the noise, and half of h² of the slope, as a body falls."""
    h = math.sqrt(step_size)
    return x + h * (z + h * score / 2)


def _langevin_cases(g):
    cases = []
    for shape, step in (((6, 2), 0.3), ((5, 2), 0.02), ((2, 1, 4, 3), 1.7)):
        cases.append((randn(g, *shape), randn(g, *shape), step, randn(g, *shape)))
    return cases


ex_2_4 = Exercise("2.4", _leap, _langevin_cases, {
    "The noise is missing: without √η z this climbs to the top of a mode and stays there.":
        lambda x, s, step, z: x + step / 2 * s,
    "The score is missing: this is a random walk.":
        lambda x, s, step, z: x + step**0.5 * z,
    "The root is missing: η is the *variance* of the noise, so z is multiplied by √η.":
        lambda x, s, step, z: x + step / 2 * s + step * z,
    "The ½ is missing: half a step of the score goes with √η of noise. With a whole one the "
    "samples crowd too closely.":
        lambda x, s, step, z: x + step * s + step**0.5 * z,
    "This is the other convention, η s + √(2η) z, in which η is half as large. Here it is "
    "(η/2) s + √η z.":
        lambda x, s, step, z: x + step * s + (2 * step)**0.5 * z,
    "There is too much noise: √η z, not √(2η) z, since the score counts η/2.":
        lambda x, s, step, z: x + step / 2 * s + (2 * step)**0.5 * z,
    "The sign is flipped: the score points uphill, and that is where to go.":
        lambda x, s, step, z: x - step / 2 * s + step**0.5 * z,
    "z is added unscaled: multiply it by √η.":
        lambda x, s, step, z: x + step / 2 * s + z,
    "The score is multiplied by √η; it should be η/2.":
        lambda x, s, step, z: x + step**0.5 * s + step**0.5 * z,
    "The noise is halved too: only the score has the ½.":
        lambda x, s, step, z: x + (step * s + step**0.5 * z) / 2,
    "x itself is missing: this is the way to go, not where it leads.":
        lambda x, s, step, z: step / 2 * s + step**0.5 * z,
}, hint="x, score and z have one shape, step_size is a number; the result is shaped like x.",
    random="It draws fresh noise. Use z, which is handed in so that the step can be checked.")
