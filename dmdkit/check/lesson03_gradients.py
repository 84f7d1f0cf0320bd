"""Lesson 03, from the KL to DMD's gradient: 3.1 the KL's gradient, 3.2 a difference of scores, 3.3
DMD's gradient.

The oracles are written another way than the lesson's solutions: by autograd of log-densities, by
two scores at an arbitrary x_t, one sample at a time.
"""
import torch

from .cases import RESHAPE, randn, tables
from .harness import Exercise
from .probes import leaf
from .standins import column, fake_mean, real_mean


# 3.1 kl_gradient(x, m_fake, v_fake, m_real, v_real) -> s_fake(x) − s_real(x)

def _log_ratio_slope(x, m_fake, v_fake, m_real, v_real):
    """The slope of log p_fake − log p_real at x, by autograd of torch's own densities."""
    normal = torch.distributions.Normal
    with torch.enable_grad():
        x = leaf(x)
        log_fake = normal(m_fake, v_fake**0.5).log_prob(x)
        log_real = normal(m_real, v_real**0.5).log_prob(x)
        return torch.autograd.grad((log_fake - log_real).sum(), x)[0]


def _normal_cases(g):
    return [(randn(g, 5), 0.3, 0.5, -0.4, 2.0), (randn(g, 3, 2), -1.0, 0.2, 0.7, 0.3),
            (randn(g, 7), 0.0, 1.7, 0.0, 0.6)]


ex_3_1 = Exercise("3.1", _log_ratio_slope, _normal_cases, {
    "The sign is flipped: s_real − s_fake is the way to *go*. The gradient of the KL is "
    "s_fake − s_real, and a descent goes against it.":
        lambda x, a, v, b, w: (x - a) / v - (x - b) / w,
    "You divided by the standard deviation √v. The score of N(m, v) is −(x − m)/v: by the "
    "*variance*.":
        lambda x, a, v, b, w: -(x - a) / v**0.5 + (x - b) / w**0.5,
    "The variances are missing: the score of N(m, v) is −(x − m)/v.":
        lambda x, a, v, b, w: -(x - a) + (x - b),
    "You divided by v²: the second argument is the variance v itself.":
        lambda x, a, v, b, w: -(x - a) / v**2 + (x - b) / w**2,
    "This is the fake score alone. Subtract the real one.":
        lambda x, a, v, b, w: -(x - a) / v,
    "This is minus the real score alone: what a generator follows that only maximises the real "
    "density.":
        lambda x, a, v, b, w: (x - b) / w,
    "You added the two scores. The gradient is their difference, s_fake − s_real.":
        lambda x, a, v, b, w: -(x - a) / v - (x - b) / w,
})


# 3.2 score_difference(mu_real, mu_fake, alpha, sigma) -> s_fake − s_real

def _by_scores(mu_real, mu_fake, alpha, sigma):
    """Each score on its own, at an arbitrary x_t that drops out."""
    x_t = torch.ones_like(mu_real)
    s_real = -(x_t - alpha * mu_real) / sigma**2
    s_fake = -(x_t - alpha * mu_fake) / sigma**2
    return s_fake - s_real


def _mean_cases(g):
    return [(randn(g, 4, 2), randn(g, 4, 2), 0.8, 0.6),
            (randn(g, 5, 2), randn(g, 5, 2), 0.96, 0.28),
            (randn(g, 2, 1, 3, 3), randn(g, 2, 1, 3, 3), 0.28, 0.96)]


ex_3_2 = Exercise("3.2", _by_scores, _mean_cases, {
    "The sign is flipped: a score *grows* with its mean, s = −(x_t − α μ)/σ², so s_fake − s_real "
    "goes with μ_fake − μ_real.":
        lambda r, f, a, s: a * (r - f) / s**2,
    "You divided by σ. In s = −(x_t − α μ)/σ² it is σ².": lambda r, f, a, s: a * (f - r) / s,
    "α is missing: the mean enters the score as α μ.": lambda r, f, a, s: (f - r) / s**2,
    "You divided by α. It multiplies: s = −(x_t − α μ)/σ².":
        lambda r, f, a, s: (f - r) / (a * s**2),
    "σ² is missing: this is the difference of the two α μ.": lambda r, f, a, s: a * (f - r),
    "α and σ are swapped.": lambda r, f, a, s: s * (f - r) / a**2,
    "You multiplied by σ² where the formula divides by it: this goes back from scores to means.":
        lambda r, f, a, s: s**2 / a * (f - r),
    "This is μ_fake − μ_real itself; α/σ² turns it into a difference of scores.":
        lambda r, f, a, s: f - r,
})


# 3.3 dm_gradient(x, t, eps, real, fake, alpha, sigma) -> g

def _one_by_one(x, t, eps, real, fake, alpha, sigma):
    """For one sample at a time."""
    rows = []
    for k in range(len(x)):
        one = slice(k, k + 1)
        x_t = float(alpha[t[k]]) * x[one] + float(sigma[t[k]]) * eps[one]
        mu_real = real(x_t, t[one])
        mu_fake = fake(x_t, t[one])
        rows.append((mu_fake - mu_real) * x[k].numel() / (x[one] - mu_real).abs().sum())
    return torch.cat(rows)


def _gradient_cases(g):
    cases = []
    for T, shape in ((30, (6, 2)), (50, (3, 2)), (20, (4, 1, 3, 3))):
        t = torch.randperm(T - 2, generator=g)[:shape[0]] + 1
        cases.append((randn(g, *shape), t, randn(g, *shape), real_mean, fake_mean, *tables(T)))
    return cases


def _size(difference):
    """The mean absolute value of each sample, shaped to divide it."""
    return column(difference.abs().flatten(1).mean(1), difference)


def _released(x, x_t, r, f, a, s):
    return (f - r) / _size(x - r)


def _state(x, eps, a, s):
    return a * x + s * eps


def _gradient(formula=_released, noise=_state):
    """The mistaken gradient: formula(x, x_t, μ_real, μ_fake, α_t, σ_t), at this x_t."""
    def wrong(x, t, eps, real, fake, alpha, sigma):
        a = column(alpha[t], x)
        s = column(sigma[t], x)
        x_t = noise(x, eps, a, s)
        return formula(x, x_t, real(x_t, t), fake(x_t, t), a, s)
    return wrong


ex_3_3 = Exercise("3.3", _one_by_one, _gradient_cases, {
    "The sign is flipped: the gradient is μ_fake − μ_real. Gradient *descent* then moves x towards "
    "μ_real.":
        _gradient(lambda x, x_t, r, f, a, s: (r - f) / _size(x - r)),
    "It is not normalised: divide by the mean of |x − μ_real| over each sample.":
        _gradient(lambda x, x_t, r, f, a, s: f - r),
    "You normalised by one number for the whole batch. Each sample has its own t, and so its own "
    "size: take the mean over everything but the batch.":
        _gradient(lambda x, x_t, r, f, a, s: (f - r) / (x - r).abs().mean()),
    "You divided by the sum of |x − μ_real|, where the formula has the mean.":
        _gradient(lambda x, x_t, r, f, a, s: (f - r) / _size(x - r) / x[0].numel()),
    "You divided by the Euclidean norm. The formula has the mean absolute value of x − μ_real.":
        _gradient(lambda x, x_t, r, f, a, s: (f - r) / column((x - r).flatten(1).norm(dim=1), x)),
    "The size is that of x − μ_fake. It should be x − μ_real: the real score does not move.":
        _gradient(lambda x, x_t, r, f, a, s: (f - r) / _size(x - f)),
    "The size is that of x_t − μ_real. Compare μ_real with the clean sample x.":
        _gradient(lambda x, x_t, r, f, a, s: (f - r) / _size(x_t - r)),
    "You divided by the size of the difference itself, so every gradient has length one, also "
    "where real and fake agree. Divide by mean |x − μ_real|.":
        _gradient(lambda x, x_t, r, f, a, s: (f - r) / _size(f - r)),
    "The networks were shown x, not x_t: noise it first, x_t = α_t x + σ_t ε.":
        _gradient(noise=lambda x, e, a, s: x),
    "α and σ are swapped in x_t = α_t x + σ_t ε.":
        _gradient(noise=lambda x, e, a, s: s * x + a * e),
    "This is the difference of *scores*, with its factor α/σ². The released weighting drops it, so "
    "that every noise level speaks as loudly.":
        _gradient(lambda x, x_t, r, f, a, s: a / s**2 * (f - r) / _size(x - r)),
    "This is the paper's weighting, with α_t in front; this exercise wants the released code's, "
    "without.":
        _gradient(lambda x, x_t, r, f, a, s: a * (f - r) / _size(x - r)),
    "The fake score is missing: this is x − μ_real, the real score alone, and every point runs to "
    "a mode.":
        _gradient(lambda x, x_t, r, f, a, s: (x - r) / _size(x - r)),
}, hint=RESHAPE,
    random="It draws fresh noise. Use the given eps, and show both networks the same x_t.")
