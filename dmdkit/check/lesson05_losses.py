"""Lesson 05, the loss: 5.3 the one that pure noise counts in, 5.4 what a target leaves of it.

The oracles are written another way than the lesson's solutions: by the errors that a weight stands
for, by the differences between the targets.
"""
import math

import torch

from .cases import randn
from .harness import Exercise


# 5.3 halving_loss(x, target, alpha, sigma) -> one value a sample, (B,)

def _larger_error(x, target, alpha, sigma):
    """The squared errors in x and in ε of a sample, here of x_t = 0; the larger of the two."""
    off = x.double()
    right = target.double()
    of_x = (off - right).square().flatten(1).mean(1)
    eps, eps_off = (0 - alpha * right) / sigma, (0 - alpha * off) / sigma
    of_eps = (eps - eps_off).square().flatten(1).mean(1)
    return torch.maximum(of_x, of_eps).to(x.dtype)


def _error_cases(g):
    """Angles on both sides of SNR = 1, the last one at α = 0."""
    cases = []
    for shape in ((6, 2), (5, 1, 4, 3), (7, 3, 2, 2)):
        n = shape[0]
        share = torch.linspace(0.15, 0.85, n) + 0.1 * torch.rand(n, generator=g)
        alpha = (math.pi / 2 * share).cos()
        sigma = (math.pi / 2 * share).sin()
        alpha[-1] = 0
        sigma[-1] = 1
        like = (n, *[1] * (len(shape) - 1))
        cases.append((randn(g, *shape), randn(g, *shape), alpha.reshape(like),
                      sigma.reshape(like)))
    return cases


def _snr(a, s):
    return a**2 / s**2


def _truncated(r):
    return r.clamp(min=1)


def _squares(error):
    return error.square()


def _mean(values):
    return values.flatten(1).mean(1)


def _weighted(weight=_truncated, snr=_snr, of=_squares, reduce=_mean):
    """The mistaken loss: with this weight of this SNR, of the error, reduced so."""
    def wrong(x, target, alpha, sigma):
        return reduce(weight(snr(alpha, sigma)) * of(target - x))
    return wrong


ex_5_3 = Exercise("5.3", _larger_error, _error_cases, {
    "This is the broken loss: it is SNR-weighted, the squared error in ε alone. At α = 0 its weight "
    "is 0, whatever the student says of x.":
        _weighted(torch.clone),
    "The weight is cut from above: this is min(SNR, 1), which still is 0 at α = 0. The larger of "
    "the two errors never has a weight below 1.":
        _weighted(lambda r: r.clamp(max=1)),
    "This is the squared error in x alone, so pure noise counts. But where there is little noise "
    "the error in ε is the larger one.":
        _weighted(torch.ones_like),
    "This is the squared error in v: SNR + 1, the *sum* of the errors in x and in ε. It would mend "
    "the training as well; asked for is the larger of the two.":
        _weighted(lambda r: r + 1),
    "The weight is 0 where SNR is below 1, so nothing would be learned there. There the error in x "
    "is the larger one, and its weight is 1.":
        _weighted(lambda r: torch.where(r > 1, r, 0.0)),
    "The squares are missing in the weight: an error in x becomes α/σ times itself in ε, and its "
    "*square* α²/σ² times itself.":
        _weighted(snr=lambda a, s: a / s),
    "The weight is upside down: it grows with the noise. An error in x is multiplied by α/σ on its "
    "way to ε.":
        _weighted(snr=lambda a, s: s**2 / a**2),
    "Only σ is squared in the weight: SNR = α²/σ².": _weighted(snr=lambda a, s: a / s**2),
    "Only α is squared in the weight: SNR = α²/σ².": _weighted(snr=lambda a, s: a**2 / s),
    "The weight stands inside the square, so it counts twice.":
        _weighted(lambda r: _truncated(r)**2),
    "This is the absolute error. Square it.": _weighted(of=torch.abs),
    "The error is not squared, so that those of both signs cancel.": _weighted(of=torch.clone),
    "This is the sum over a sample's values. Take their mean, so that the size of an image does not "
    "change the learning rate.":
        _weighted(reduce=lambda values: values.flatten(1).sum(1)),
    "This is one number for the batch. Return one value a sample, (B,): the mean over all axes but "
    "the first.":
        _weighted(reduce=torch.mean),
    "The mean is over the batch, so this is one value a *pixel*. Return one a sample: the mean over "
    "all axes but the first.":
        _weighted(reduce=lambda values: values.mean(0)),
    "The values of a sample are averaged over one axis only. Take the mean over all axes but the "
    "first, one value a sample.":
        _weighted(reduce=lambda values: values.mean(-1)),
}, hint="One value a sample, (B,). alpha and sigma come in shapes that multiply x as they are.")


# 5.4 least_loss(x_t, points, targets, alpha, sigma) -> the least mean squared error at x_t, (B,)

def _by_differences(x_t, points, targets, alpha, sigma):
    """Half the mean squared distance of two targets, each drawn by its probability; one x_t at a
    time in float64."""
    losses = []
    for z, ys in zip(x_t.double(), targets.double()):
        logs = -(z - alpha * points.double()).square().sum(1) / (2 * sigma**2)
        shares = (logs - logs.max()).exp()
        squares = (ys[:, None] - ys[None]).square().sum(2)
        losses.append((shares[:, None] * shares[None] * squares).sum() / (2 * shares.sum()**2))
    return torch.stack(losses).to(x_t.dtype)


def _loss_cases(g):
    """Targets of any kind, with B = N so that a softmax over the wrong axis gives a result; the
    points themselves, for x_t between two that are so far away that e^(−d²/2σ²) is 0; and one
    target for each x_t, whatever the point."""
    pair = torch.nn.functional.normalize(randn(g, 1, 2)) * torch.tensor([[1.0], [-1.0]])
    cases = [(randn(g, 4, 2), randn(g, 4, 2), randn(g, 4, 4, 2), 0.4),
             (0.002 * randn(g, 6, 2), pair, pair.repeat(6, 1, 1), 0.04),
             (randn(g, 3, 2), randn(g, 5, 2), randn(g, 3, 1, 2).repeat(1, 5, 1), 0.6)]
    return [(x_t, points, targets, math.cos(math.pi / 2 * share), math.sin(math.pi / 2 * share))
            for x_t, points, targets, share in cases]


def _expected(share, y):
    return (share * y).sum(1, keepdim=True)


def _likeliest(share, y):
    return y.gather(1, share.argmax(1, keepdim=True).expand(-1, 1, y.shape[2]))


def _shares(share):
    """The loss with mistaken probabilities: share(distances of x_t and α x_i, σ), (B, N)."""
    def wrong(x_t, points, targets, alpha, sigma):
        p = share(torch.cdist(x_t, alpha * points), sigma)[..., None]
        return (p * (targets - _expected(p, targets))**2).sum((1, 2))
    return wrong


def _log(d, s):
    return -d**2 / (2 * s**2)


def _softmax(d, s):
    return _log(d, s).softmax(1)


def _left(loss, best=_expected):
    """The mistaken loss(probabilities (B, N, 1), errors (B, N, D)) of this best answer."""
    def wrong(x_t, points, targets, alpha, sigma):
        p = _softmax(torch.cdist(x_t, alpha * points), sigma)[..., None]
        return loss(p, targets - best(p, targets))
    return wrong


def _left_over(p, error):
    return (p * error**2).sum((1, 2))


ex_5_4 = Exercise("5.4", _by_differences, _loss_cases, {
    "Where σ is small e^(−d²/2σ²) is 0 for *every* point in float32, and 0/0 is not a number. Use "
    "softmax, as in exercise 2.3.":
        _shares(lambda d, s: _log(d, s).exp() / _log(d, s).exp().sum(1, keepdim=True)),
    "The probabilities do not sum to 1: these are only proportional to them. Use softmax in "
    "place of exp.":
        _shares(lambda d, s: _log(d, s).exp()),
    "The probabilities sum to 1 over the wrong axis. For each x_t (a row) they must sum to 1 over "
    "the points (the columns): softmax(1).":
        _shares(lambda d, s: _log(d, s).softmax(0)),
    "The sign of the exponent is missing: the *farthest* point becomes the likeliest.":
        _shares(lambda d, s: (-_log(d, s)).softmax(1)),
    "α is missing: x_t is noise around α x_i, not around x_i.":
        lambda x_t, points, targets, a, s: _shares(_softmax)(x_t, points, targets, 1, s),
    "The distance in the exponent must be squared.":
        _shares(lambda d, s: (-d / (2 * s**2)).softmax(1)),
    "σ must be squared: the exponent is −‖x_t − α x_i‖²/2σ².":
        _shares(lambda d, s: (-d**2 / (2 * s)).softmax(1)),
    "The ½ is missing: the exponent of a Gaussian is −d²/2σ².":
        _shares(lambda d, s: (-d**2 / s**2).softmax(1)),
    "You divided by σ²/2 instead of 2σ²: brackets, as in d**2 / (2 * sigma**2).":
        _shares(lambda d, s: (-2 * d**2 / s**2).softmax(1)),
    "All points count alike here, as if x_t told nothing. Weigh each by p_i, in the answer "
    "and in the loss.":
        _shares(lambda d, s: torch.full_like(d, 1 / d.shape[1])),
    "The answer is the plain mean of the targets. The best one is their mean under p_i.":
        _left(_left_over, lambda p, y: y.mean(1, keepdim=True)),
    "The answer is the likeliest target. The least squared error has the *mean* of the "
    "targets, under p_i.":
        _left(_left_over, _likeliest),
    "This is the loss of the answer 0: subtract the best answer from the targets before you "
    "square.":
        _left(_left_over, lambda p, y: 0),
    "The errors count alike in the loss: each target occurs with probability p_i, in the "
    "loss as in the mean.":
        _left(lambda p, error: error.square().sum(2).mean(1)),
    "This is the mean over the coordinates. ‖·‖² is the sum of their squares.":
        _left(lambda p, error: (p * error**2).sum(1).mean(1)),
    "You took the root. The loss is the mean of the *squares*.":
        _left(lambda p, error: _left_over(p, error).sqrt()),
    "This is the mean of the error, which is 0: square it first, then take the mean.":
        _left(lambda p, error: (p * error).sum((1, 2))),
    "This is the best answer. Asked for is the loss that it leaves.":
        _left(lambda p, y: (p * y).sum(1), lambda p, y: 0),
    "This is one number for the batch: the loss is asked for each x_t, (B,).":
        _left(lambda p, error: _left_over(p, error).mean()),
}, hint="The loss has shape (B,). The probabilities are (B, N), one for each point; as "
        "p[..., None], (B, N, 1), they multiply the targets, (B, N, D).")
