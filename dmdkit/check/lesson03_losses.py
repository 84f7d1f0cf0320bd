"""Lesson 03, losses: 3.4 the one that carries DMD's gradient, 3.5 the fake score's.

The oracles are written another way than the lesson's solutions: by the derivative that is wanted,
by calculus.
"""
import torch

from . import probes
from .cases import RESHAPE, randn, tables
from .harness import Exercise
from .standins import column, time


# 3.4 matching_loss(x, g) -> a scalar; compared are its derivatives

def _wanted(x, g):
    return g / g.numel(), torch.zeros_like(g)


def _matching_cases(g):
    return [(randn(g, *shape), randn(g, *shape)) for shape in ((6, 2), (2, 1, 4, 4), (1, 3))]


ex_3_4 = Exercise("3.4", _wanted, _matching_cases, {
    "The derivative is zero everywhere: without stop-gradient x − (x − g) is just g, and x is "
    "gone. Detach the target: (x − g).detach().":
        lambda x, g: 0.5 * (x - (x - g)).square().mean(),
    "The derivative by x is zero: x is detached, or it cancels, x − (x − g) = g. Detach the target "
    "only, (x − g).detach().":
        lambda x, g: g.square().mean().detach(),
    "The target is half detached. g comes from networks, which this loss would train as well: "
    "detach all of the target, (x − g).detach().":
        lambda x, g: 0.5 * (x - (x.detach() - g)).square().mean(),
    "The derivative by x is right, but g is attached too. It comes from networks, which this loss "
    "would train as well: detach it.":
        lambda x, g: (x * g).mean(),
    "The sign is flipped: the target is x − g, where a step down the gradient leads. With x + g "
    "the loss climbs.":
        lambda x, g: 0.5 * (x - (x + g).detach()).square().mean(),
    "The wrong one is detached: x, where it should be the target. So the loss climbs.":
        lambda x, g: 0.5 * (x.detach() - (x - g)).square().mean(),
    "The ½ is missing: the square brings a factor of 2 when it is differentiated.":
        lambda x, g: (x - (x - g).detach()).square().mean(),
    "Take the mean, not the sum, so that the size of a batch does not change the learning rate.":
        lambda x, g: 0.5 * (x - (x - g).detach()).square().sum(),
    "This pulls x towards g. The target is x − g: the place to go, not the way to go.":
        lambda x, g: 0.5 * (x - g).square().mean(),
    "You took the mean of each sample and then their sum: it should be one mean over everything.":
        lambda x, g: 0.5 * (x - (x - g).detach()).square().flatten(1).mean(1).sum(),
}, probe=probes.matching, parts=("the derivative by x", "the derivative by g"))


# 3.5 fake_loss(fake, generator, z, t, eps, alpha, sigma) -> a scalar; compared are its value and
# its derivatives

def _calculus(weights, z, t, eps, alpha, sigma):
    a, b, c, d = weights
    x = c * z + d
    x_t = column(alpha[t], x) * x + column(sigma[t], x) * eps
    error = a * x_t + b * time(t, x) - x
    by_fake = torch.stack([2 * (error * x_t).mean(), 2 * (error * time(t, x)).mean()])
    return error.square().mean(), by_fake, torch.zeros(2)


def _fake_cases(g):
    cases = []
    for T, shape in ((30, (6, 2)), (50, (9, 2)), (20, (3, 1, 4, 4))):
        t = torch.randint(1, T, (shape[0],), generator=g)
        cases.append((randn(g, 4), randn(g, *shape), t, randn(g, *shape), *tables(T)))
    return cases


def _regress(formula):
    """The mistaken loss: formula(x_t → fake(x_t, t), x, ε, α_t, σ_t)."""
    def wrong(fake, generator, z, t, eps, alpha, sigma):
        x = generator(z)
        return formula(lambda x_t: fake(x_t, t), x, eps, column(alpha[t], x), column(sigma[t], x))
    return wrong


def _right(net, x, eps, a, s):
    x = x.detach()
    return (net(a * x + s * eps) - x).square().mean()


ex_3_5 = Exercise("3.5", _calculus, _fake_cases, {
    "The fake score is not detached from the generator: this loss would also teach the *generator* "
    "to draw samples that are easy to denoise, which are all alike. Use x = generator(z).detach().":
        _regress(lambda net, x, e, a, s: (net(a * x + s * e) - x).square().mean()),
    "Half detached: what the fake score is shown is, its target is not. Detach the samples once, "
    "x = generator(z).detach().":
        _regress(lambda net, x, e, a, s: (net(a * x.detach() + s * e) - x).square().mean()),
    "Half detached: the target is, what the fake score is shown is not. Detach the samples once, "
    "x = generator(z).detach().":
        _regress(lambda net, x, e, a, s: (net(a * x + s * e) - x.detach()).square().mean()),
    "You detached the fake score's answer, so only the generator learns. Detach the samples.":
        _regress(lambda net, x, e, a, s: (net(a * x + s * e).detach() - x).square().mean()),
    "The value is right, and nothing learns from it: the fake score's answer is detached as well. "
    "Detach the samples only.":
        _regress(lambda net, x, e, a, s: _right(net, x, e, a, s).detach()),
    "The target is ε. This fake score predicts x, the clean sample.":
        _regress(lambda net, x, e, a, s: (net(a * x.detach() + s * e) - e).square().mean()),
    "The fake score was shown the clean samples. It has to denoise x_t = α_t x + σ_t ε.":
        _regress(lambda net, x, e, a, s: (net(x.detach()) - x.detach()).square().mean()),
    "Take the mean, not the sum.":
        _regress(lambda net, x, e, a, s: _right(net, x, e, a, s) * x.numel()),
    "There is a factor ½ that the formula does not have.":
        _regress(lambda net, x, e, a, s: _right(net, x, e, a, s) / 2),
}, hint=RESHAPE, random="It draws fresh noise. Use the given z, t and eps.",
    probe=probes.fake_score,
    parts=("the loss", "its derivative by fake", "its derivative by generator"))
