"""Lesson 04: 4.5 the fake score's loss.

The oracle is written another way than the lesson's solution: by calculus.
"""
import torch

from . import probes
from .cases import RESHAPE_IMAGES, SHAPES, WRONG_V, labels, randn, tables
from .harness import Exercise
from .standins import Generator, column, tell, time


# 4.5 fake_loss(fake, generate, z, label, t, eps, alpha, sigma) -> a scalar; compared are its value
# and its derivatives

def _fake_by_calculus(weights, z, label, t, eps, alpha, sigma):
    x = Generator(weights[3:])(z, label)
    a = column(alpha[t], x)
    s = column(sigma[t], x)
    inputs = (a * x + s * eps, time(t, x), tell(label, len(z)))
    answer = sum(weight * value for weight, value in zip(weights, inputs))
    error = answer - (a * eps - s * x)
    by_fake = torch.stack([2 * (error * value).mean() for value in inputs])
    return error.square().mean(), by_fake, torch.zeros(3)


def _fake_cases(g):
    cases = []
    for shape, T in zip(SHAPES, (30, 50, 20)):
        t = torch.randint(1, T, (shape[0],), generator=g)
        cases.append((randn(g, 6), randn(g, *shape), labels(g, shape[0]), t, randn(g, *shape),
                      *tables(T)))
    return cases


def _taught(formula, told=(True, True)):
    """The mistaken loss: formula(x_t → fake(x_t, t, label), x, ε, α_t, σ_t). ``told`` says whether
    the generator and the fake score get the label."""
    def wrong(fake, generate, z, label, t, eps, alpha, sigma):
        x = generate(z, label if told[0] else None)
        a = column(alpha[t], x)
        s = column(sigma[t], x)
        return formula(lambda x_t: fake(x_t, t, label if told[1] else None), x, eps, a, s)
    return wrong


def _state(x, eps, a, s):
    return a * x.detach() + s * eps


def _v(x, eps, a, s):
    return a * eps - s * x.detach()


def _error(net, x, eps, a, s):
    return net(_state(x, eps, a, s)) - _v(x, eps, a, s)


def _right(net, x, eps, a, s):
    return _error(net, x, eps, a, s).square().mean()


def _detached(state=_state, v=_v):
    """The mistaken loss with this state shown and this target, each of (x, ε, α_t, σ_t)."""
    def formula(net, x, eps, a, s):
        x = x.detach()
        return (net(state(x, eps, a, s)) - v(x, eps, a, s)).square().mean()
    return _taught(formula)


def _noised_with_z(fake, generate, z, label, t, eps, alpha, sigma):
    return _taught(_right)(fake, generate, z, label, t, z, alpha, sigma)


ex_4_5 = Exercise("4.5", _fake_by_calculus, _fake_cases, {
    "The samples are not detached: this loss would also teach the *generator* to draw what is "
    "easy to denoise. Use x = generate(z, label).detach().":
        _taught(lambda net, x, e, a, s: (net(a * x + s * e) - (a * e - s * x)).square().mean()),
    "Half detached: the x in x_t is, the x in the target v is not. Detach the samples once, "
    "x = generate(z, label).detach(), before either.":
        _taught(lambda net, x, e, a, s: (net(_state(x, e, a, s)) - a * e + s * x).square().mean()),
    "Half detached: the x in the target v is, the x in x_t is not. Detach the samples once, "
    "x = generate(z, label).detach(), before either.":
        _taught(lambda net, x, e, a, s: (net(a * x + s * e) - _v(x, e, a, s)).square().mean()),
    "Nothing learns from this: the fake score's answer is detached too (or all is under no_grad). "
    "Detach the samples only.":
        _taught(lambda *given: _right(*given).detach()),
    "The target is x. This fake score starts as a copy of the teacher and predicts v = α ε − σ x.":
        _detached(v=lambda x, e, a, s: x),
    "The target is ε. This fake score starts as a copy of the teacher and predicts v = α ε − σ x.":
        _detached(v=lambda x, e, a, s: e),
    **{said: _detached(v=v) for said, v in WRONG_V.items()},
    "You turned v into a prediction of x before comparing, which multiplies each squared error by "
    "σ². Compare v itself, as the teacher was trained.":
        _taught(lambda net, x, e, a, s: (s * _error(net, x, e, a, s)).square().mean()),
    "The fake score is not told the label. It has to know what the generator draws *for this "
    "class*: fake(x_t, t, label).":
        _taught(_right, told=(True, False)),
    "The generator is not told the label: its samples are of no class, and the fake score takes "
    "them for that label's. Call generate(z, label).":
        _taught(_right, told=(False, True)),
    "The label is left out twice: both networks are to be told it, generate(z, label) and "
    "fake(x_t, t, label).":
        _taught(_right, told=(False, False)),
    "The fake score was shown the clean samples. It has to denoise x_t = α_t x + σ_t ε.":
        _detached(lambda x, e, a, s: x),
    "α and σ are swapped in x_t = α_t x + σ_t ε.":
        _detached(lambda x, e, a, s: s * x + a * e),
    "You noised the samples with z, the noise that they were made of. They are noised with ε, "
    "which is independent.":
        _noised_with_z,
    "Take the mean, not the sum.":
        _taught(lambda *given: _error(*given).square().sum()),
    "There is a factor ½ that the formula does not have.":
        _taught(lambda *given: _right(*given) / 2),
}, hint=RESHAPE_IMAGES, probe=probes.labelled_fake_score,
    random="It draws fresh noise. Use the given z, t and eps.",
    parts=("the loss", "its derivative by fake", "its derivative by generate"))
