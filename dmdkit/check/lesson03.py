"""Lesson 03: from the KL to a difference of scores, DMD's gradient, the loss that carries it, the fake score's loss.

The oracles are written another way than the lesson's solutions: by autograd of log-densities, one sample at a time,
by the derivative that is wanted, by calculus.
"""
import torch
from torch import Tensor

from .harness import Exercise, randn, tables


# 3.1 kl_gradient(x, m_fake, v_fake, m_real, v_real) -> s_fake(x) − s_real(x)

def _log_ratio_slope(x, m_fake, v_fake, m_real, v_real):
    """The slope of log p_fake − log p_real at x, by autograd of torch's own densities."""
    normal = torch.distributions.Normal
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        ratio = normal(m_fake, v_fake**0.5).log_prob(x) - normal(m_real, v_real**0.5).log_prob(x)
        return torch.autograd.grad(ratio.sum(), x)[0]


ex_3_1 = Exercise("3.1", _log_ratio_slope, lambda g: [
    (randn(g, 5), 0.3, 0.5, -0.4, 2.0), (randn(g, 3, 2), -1.0, 0.2, 0.7, 0.3), (randn(g, 7), 0.0, 1.7, 0.0, 0.6)], {
    "The sign is flipped: s_real − s_fake is the way to *go*. The gradient of the KL is s_fake − s_real, and a descent "
    "goes against it.": lambda x, a, v, b, w: (x - a) / v - (x - b) / w,
    "You divided by the standard deviation √v. The score of N(m, v) is −(x − m)/v: by the *variance*.":
        lambda x, a, v, b, w: -(x - a) / v**0.5 + (x - b) / w**0.5,
    "The variances are missing: the score of N(m, v) is −(x − m)/v.": lambda x, a, v, b, w: -(x - a) + (x - b),
    "You divided by v²: the second argument is the variance v itself.":
        lambda x, a, v, b, w: -(x - a) / v**2 + (x - b) / w**2,
    "This is the fake score alone. Subtract the real one.": lambda x, a, v, b, w: -(x - a) / v,
    "This is minus the real score alone: what a generator follows that only maximises the real density.":
        lambda x, a, v, b, w: (x - b) / w,
    "You added the two scores. The gradient is their difference, s_fake − s_real.":
        lambda x, a, v, b, w: -(x - a) / v - (x - b) / w,
})


# 3.2 score_difference(mu_real, mu_fake, alpha, sigma) -> s_fake − s_real

def _by_scores(mu_real, mu_fake, alpha, sigma):
    """Each score on its own, at an arbitrary x_t that drops out."""
    x_t = torch.ones_like(mu_real)
    score = lambda mu: -(x_t - alpha * mu) / sigma**2
    return score(mu_fake) - score(mu_real)


ex_3_2 = Exercise("3.2", _by_scores, lambda g: [
    (randn(g, 4, 2), randn(g, 4, 2), 0.8, 0.6), (randn(g, 2, 1, 3, 3), randn(g, 2, 1, 3, 3), 0.28, 0.96),
    (randn(g, 5, 2), randn(g, 5, 2), 0.96, 0.28)], {
    "The sign is flipped: a score *grows* with its mean, s = −(x_t − α μ)/σ², so s_fake − s_real goes with "
    "μ_fake − μ_real.": lambda r, f, a, s: a * (r - f) / s**2,
    "You divided by σ. In s = −(x_t − α μ)/σ² it is σ².": lambda r, f, a, s: a * (f - r) / s,
    "α is missing: the mean enters the score as α μ.": lambda r, f, a, s: (f - r) / s**2,
    "You divided by α. It multiplies: s = −(x_t − α μ)/σ².": lambda r, f, a, s: (f - r) / (a * s**2),
    "σ² is missing: this is the difference of the two α μ.": lambda r, f, a, s: a * (f - r),
    "α and σ are swapped.": lambda r, f, a, s: s * (f - r) / a**2,
    "You multiplied by σ² where the formula divides by it: this goes back from scores to means.":
        lambda r, f, a, s: s**2 / a * (f - r),
    "This is μ_fake − μ_real itself; α/σ² turns it into a difference of scores.": lambda r, f, a, s: f - r,
})


# 3.3 dm_gradient(x, t, eps, real, fake, alpha, sigma) -> g

def _one_by_one(x, t, eps, real, fake, alpha, sigma):
    """For one sample at a time."""
    rows = []
    for i in range(len(x)):
        noised = float(alpha[t[i]]) * x[i:i + 1] + float(sigma[t[i]]) * eps[i:i + 1]
        mu_real, mu_fake = real(noised, t[i:i + 1]), fake(noised, t[i:i + 1])
        rows.append((mu_fake - mu_real) * x[i].numel() / (x[i:i + 1] - mu_real).abs().sum())
    return torch.cat(rows)


def real_mean(x_t: Tensor, t: Tensor) -> Tensor:
    """A stand-in for the real score's x-prediction: any function of x_t and t does."""
    return torch.tanh(2 * x_t) + 0.01 * t.reshape(-1, *[1] * (x_t.ndim - 1))


def fake_mean(x_t: Tensor, t: Tensor) -> Tensor:
    """A stand-in for the fake score's x-prediction."""
    return 0.5 * x_t - 0.02 * t.reshape(-1, *[1] * (x_t.ndim - 1))


def _gradient_cases(g):
    cases = []
    for T, shape in ((30, (6, 2)), (50, (3, 2)), (20, (4, 1, 3, 3))):
        t = torch.randperm(T - 2, generator=g)[:shape[0]] + 1
        cases.append((randn(g, *shape), t, randn(g, *shape), real_mean, fake_mean, *tables(T)))
    return cases


def _gradient(noise=lambda a, x, s, e: a * x + s * e, g=lambda r, f, x, x_t, a, s: (f - r),
              size=lambda d: d.abs().flatten(1).mean(1), difference=lambda x, r, f, x_t: x - r):
    """The mistaken gradient with this x_t, this numerator and this size of that difference."""
    def wrong(x, t, eps, real, fake, alpha, sigma):
        column = lambda value: value.reshape(-1, *[1] * (x.ndim - 1))
        a, s = column(alpha[t]), column(sigma[t])
        x_t = noise(a, x, s, eps)
        r, f = real(x_t, t), fake(x_t, t)
        return g(r, f, x, x_t, a, s) / column(size(difference(x, r, f, x_t)))
    return wrong


ex_3_3 = Exercise("3.3", _one_by_one, _gradient_cases, {
    "The sign is flipped: the gradient is μ_fake − μ_real. Gradient *descent* then moves x towards μ_real.":
        _gradient(g=lambda r, f, x, x_t, a, s: r - f),
    "It is not normalised: divide by the mean of |x − μ_real| over each sample.":
        _gradient(size=lambda d: torch.ones(len(d))),
    "You normalised by one number for the whole batch. Each sample has its own t, and so its own size: take the mean "
    "over everything but the batch.": _gradient(size=lambda d: d.abs().mean().expand(len(d))),
    "You divided by the sum of |x − μ_real|, where the formula has the mean.":
        _gradient(size=lambda d: d.abs().flatten(1).sum(1)),
    "You divided by the Euclidean norm. The formula has the mean absolute value, mean |x − μ_real|.":
        _gradient(size=lambda d: d.flatten(1).norm(dim=1)),
    "The size is that of x − μ_fake. It should be x − μ_real: the real score is the one that does not move.":
        _gradient(difference=lambda x, r, f, x_t: x - f),
    "The size is that of x_t − μ_real. Compare μ_real with the clean sample x.":
        _gradient(difference=lambda x, r, f, x_t: x_t - r),
    "You divided by the size of the difference itself, so every gradient has length one, also where real and fake "
    "agree. Divide by mean |x − μ_real|.": _gradient(difference=lambda x, r, f, x_t: f - r),
    "The networks were shown x, not x_t: noise it first, x_t = α_t x + σ_t ε.": _gradient(noise=lambda a, x, s, e: x),
    "α and σ are swapped in x_t = α_t x + σ_t ε.": _gradient(noise=lambda a, x, s, e: s * x + a * e),
    "This is the difference of *scores*, with its factor α/σ². The released weighting drops it, so that every noise "
    "level speaks as loudly.": _gradient(g=lambda r, f, x, x_t, a, s: a / s**2 * (f - r)),
    "This is the paper's weighting, with α_t in front; this exercise wants the released code's, without.":
        _gradient(g=lambda r, f, x, x_t, a, s: a * (f - r)),
    "The fake score is missing: this is x − μ_real, the real score alone, and every point runs to a mode.":
        _gradient(g=lambda r, f, x, x_t, a, s: x - r),
}, error="alpha[t] has shape (B,): reshape it so that it multiplies x, alpha[t].reshape(-1, *[1] * (x.ndim - 1)).",
   random="It draws fresh noise. Use the given eps, and show both networks the same x_t.")


# 3.4 matching_loss(x, g) -> a scalar; compared is dL/dx

def _derivative(loss, x, g):
    x = x.clone().requires_grad_()
    value = loss(x, g)
    return torch.autograd.grad(value, x)[0] if isinstance(value, Tensor) else value


def _half_square(of):
    return lambda x, g: 0.5 * of(x, g).square().mean()


ex_3_4 = Exercise("3.4", lambda x, g: g / g.numel(), lambda g: [
    (randn(g, *shape), randn(g, *shape)) for shape in ((6, 2), (2, 1, 4, 4), (1, 3))], {
    "The derivative is zero everywhere: without stop-gradient x − (x − g) is just g, and x is gone. Detach the target: "
    "(x − g).detach().": _half_square(lambda x, g: x - (x - g)),
    "The sign is flipped: the target is x − g, where a step down the gradient leads, and it is the target that is "
    "detached. With x + g, or with x itself detached in its place, the loss climbs.":
        _half_square(lambda x, g: x - (x + g).detach()),
    "The ½ is missing: the square brings a factor of 2 when it is differentiated.":
        lambda x, g: (x - (x - g).detach()).square().mean(),
    "Take the mean, not the sum, so that the size of a batch does not change the learning rate.":
        lambda x, g: 0.5 * (x - (x - g).detach()).square().sum(),
    "This pulls x towards g. The target is x − g: the place to go, not the way to go.":
        _half_square(lambda x, g: x - g),
    "You took the mean of each sample and then their sum: it should be one mean over everything.":
        lambda x, g: 0.5 * (x - (x - g).detach()).square().flatten(1).mean(1).sum(),
}, error="Is anything in the loss still attached to x? Detach the target only.", probe=_derivative)


# 3.5 fake_loss(fake, generator, z, t, eps, alpha, sigma) -> a scalar; compared are its value and its derivatives

def _learned(loss, weights, z, t, eps, alpha, sigma):
    """The loss, and its derivative by the fake's two weights and by the generator's two, for fake(x_t, t) = a x_t + b
    and generator(z) = c z + d. What a loss does not depend on has the derivative 0."""
    a, b, c, d = parameters = [value.clone().requires_grad_() for value in weights]
    value = loss(lambda x_t, t: a * x_t + b, lambda z: c * z + d, z, t, eps, alpha, sigma)
    if not isinstance(value, Tensor):
        return value
    slopes = torch.autograd.grad(value, parameters, allow_unused=True)
    return torch.stack([value.detach(), *(torch.tensor(0.0) if slope is None else slope for slope in slopes)])


def _calculus(weights, z, t, eps, alpha, sigma):
    a, b, c, d = weights
    x = c * z + d
    column = lambda value: value.reshape(-1, *[1] * (x.ndim - 1))
    x_t = column(alpha[t]) * x + column(sigma[t]) * eps
    error = a * x_t + b - x
    zero = torch.tensor(0.0)
    return torch.stack([(error**2).mean(), 2 * (error * x_t).mean(), 2 * error.mean(), zero, zero])


def _fake_cases(g):
    cases = []
    for T, shape in ((30, (6, 2)), (50, (9, 2)), (20, (3, 1, 4, 4))):
        t = torch.randint(1, T, (shape[0],), generator=g)
        cases.append((randn(g, 4), randn(g, *shape), t, randn(g, *shape), *tables(T)))
    return cases


def _regress(sees=lambda x: x.detach(), target=lambda x, eps: x.detach(), says=lambda out: out,
             reduce=lambda square: square.mean(), noised=True):
    def wrong(fake, generator, z, t, eps, alpha, sigma):
        x = generator(z)
        column = lambda value: value.reshape(-1, *[1] * (x.ndim - 1))
        x_t = column(alpha[t]) * sees(x) + column(sigma[t]) * eps if noised else sees(x)
        return reduce((says(fake(x_t, t)) - target(x, eps)).square())
    return wrong


ex_3_5 = Exercise("3.5", _calculus, _fake_cases, {
    "The fake score is not detached from the generator: this loss would also teach the *generator* to draw samples "
    "that are easy to denoise, which are all alike. Use x = generator(z).detach().":
        _regress(sees=lambda x: x, target=lambda x, eps: x),
    "Half detached: what the fake score is shown is, its target is not. Detach the samples once, "
    "x = generator(z).detach().":
        _regress(target=lambda x, eps: x),
    "Half detached: the target is, what the fake score is shown is not. Detach the samples once, "
    "x = generator(z).detach().": _regress(sees=lambda x: x),
    "You detached the fake score's answer, so nothing learns. Detach the samples.":
        _regress(sees=lambda x: x, target=lambda x, eps: x, says=lambda out: out.detach()),
    "The target is ε. This fake score predicts x, the clean sample.": _regress(target=lambda x, eps: eps),
    "The fake score was shown the clean samples. It has to denoise x_t = α_t x + σ_t ε.": _regress(noised=False),
    "Take the mean, not the sum.": _regress(reduce=lambda square: square.sum()),
    "There is a factor ½ that the formula does not have.": _regress(reduce=lambda square: 0.5 * square.mean()),
}, error="Is the fake score's answer still attached to its weights? Detach the samples only.", probe=_learned)
