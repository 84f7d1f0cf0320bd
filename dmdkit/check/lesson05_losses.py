"""Lesson 05, the loss: 5.3 its weights, 5.4 what a target leaves of it.

The oracles are written another way than the lesson's solutions: by the errors that a weight stands
for, by the differences between the targets.
"""
import math

import torch

from .cases import randn
from .harness import Exercise


# 5.3 loss_weight(alpha, sigma, kind) -> w, shaped like alpha

def _by_errors(alpha, sigma, kind):
    """A prediction of x that is 1 too high: what are the squared errors in x, ε and v with it?"""
    x = torch.full_like(alpha, 0.3, dtype=torch.float64)
    eps = -0.5
    off = x + 1
    eps_off = (alpha * x + sigma * eps - alpha * off) / sigma
    in_x = (off - x)**2
    in_eps = (eps_off - eps)**2
    in_v = (alpha * eps_off - sigma * off - (alpha * eps - sigma * x))**2
    weights = {"snr": in_eps, "truncated": torch.maximum(in_x, in_eps), "snr+1": in_v}
    return weights[kind].to(alpha.dtype)


def _weight_cases(g):
    """Angles on both sides of SNR = 1, the last one at α = 0."""
    cases = []
    for kind, shape in (("snr", (6, 1)), ("truncated", (9,)), ("snr+1", (7, 1, 1, 1))):
        share = torch.linspace(0.15, 0.85, shape[0]) + 0.1 * torch.rand(shape[0], generator=g)
        alpha = (math.pi / 2 * share).cos()
        sigma = (math.pi / 2 * share).sin()
        alpha[-1] = 0
        sigma[-1] = 1
        cases.append((alpha.reshape(shape), sigma.reshape(shape), kind))
    return cases


def _snr(a, s):
    return a**2 / s**2


def _at_least_1(r):
    return r.clamp(min=1)


def _plus_1(r):
    return r + 1


def _weights(snr=_snr, truncated=_at_least_1, plus=_plus_1):
    """The mistaken weight with this SNR, and these functions of it for two of the kinds."""
    def wrong(alpha, sigma, kind):
        r = snr(alpha, sigma)
        rules = {"snr": torch.clone, "truncated": truncated, "snr+1": plus}
        return rules[kind](r)
    return wrong


def _added_below(a, s, kind):
    return a**2 / (s**2 + 1) if kind == "snr+1" else _weights()(a, s, kind)


ex_5_3 = Exercise("5.3", _by_errors, _weight_cases, {
    "'truncated' is cut from above: this is min(SNR, 1). It is meant to keep the weight from "
    "*vanishing* where there is much noise: max(SNR, 1). The minimum, at some bound, belongs to "
    "another method, min-SNR.":
        _weights(truncated=lambda r: r.clamp(max=1)),
    "'truncated' is not truncated: this is SNR, which is 0 at α = 0. Take max(SNR, 1).":
        _weights(truncated=torch.clone),
    "'truncated' is 0 where SNR is below 1, so nothing would be learned there. It should be "
    "1: max(SNR, 1).":
        _weights(truncated=lambda r: torch.where(r > 1, r, 0.0)),
    "'truncated' and 'snr+1' are exchanged.":
        _weights(truncated=_plus_1, plus=_at_least_1),
    "The 1 is missing from 'snr+1': this is SNR.":
        _weights(plus=torch.clone),
    "'snr+1' is truncated instead: this is max(SNR, 1). Add the 1.":
        _weights(plus=_at_least_1),
    "The 1 has slipped into the denominator of 'snr+1': α²/(σ² + 1) is not α²/σ² + 1.":
        _added_below,
    "kind is not used: this is SNR for all three.":
        _weights(truncated=torch.clone, plus=torch.clone),
    "The squares are missing: SNR is a ratio of *variances*, α²/σ². This one is its root.":
        _weights(lambda a, s: a / s),
    "SNR is upside down: signal over noise, α²/σ². This one grows with the noise.":
        _weights(lambda a, s: s**2 / a**2),
    "Only σ is squared: SNR = α²/σ².": _weights(lambda a, s: a / s**2),
    "Only α is squared: SNR = α²/σ².": _weights(lambda a, s: a**2 / s),
    "σ² is missing: you took SNR to be α².": _weights(lambda a, s: a**2),
    "This is log SNR, by which schedules are often described. The weight is SNR itself.":
        _weights(lambda a, s: (a**2 / s**2).log()),
}, hint="The weight is shaped like alpha: one value for each noise level.")


# 5.4 least_loss(z_t, points, targets, alpha, sigma) -> the least mean squared error at z_t, (B,)

def _by_differences(z_t, points, targets, alpha, sigma):
    """Half the mean squared distance of two targets, each drawn by its probability; one z_t at a
    time in float64."""
    losses = []
    for z, ys in zip(z_t.double(), targets.double()):
        logs = -(z - alpha * points.double()).square().sum(1) / (2 * sigma**2)
        shares = (logs - logs.max()).exp()
        squares = (ys[:, None] - ys[None]).square().sum(2)
        losses.append((shares[:, None] * shares[None] * squares).sum() / (2 * shares.sum()**2))
    return torch.stack(losses).to(z_t.dtype)


def _loss_cases(g):
    """Targets of any kind, with B = N so that a softmax over the wrong axis gives a result; the
    points themselves, for z_t between two that are so far away that e^(−d²/2σ²) is 0; and one
    target for each z_t, whatever the point."""
    pair = torch.nn.functional.normalize(randn(g, 1, 2)) * torch.tensor([[1.0], [-1.0]])
    cases = [(randn(g, 4, 2), randn(g, 4, 2), randn(g, 4, 4, 2), 0.4),
             (0.002 * randn(g, 6, 2), pair, pair.repeat(6, 1, 1), 0.04),
             (randn(g, 3, 2), randn(g, 5, 2), randn(g, 3, 1, 2).repeat(1, 5, 1), 0.6)]
    return [(z_t, points, targets, math.cos(math.pi / 2 * share), math.sin(math.pi / 2 * share))
            for z_t, points, targets, share in cases]


def _mean(share, y):
    return (share * y).sum(1, keepdim=True)


def _likeliest(share, y):
    return y.gather(1, share.argmax(1, keepdim=True).expand(-1, 1, y.shape[2]))


def _shares(share):
    """The loss with mistaken probabilities: share(distances of z_t and α x_i, σ), (B, N)."""
    def wrong(z_t, points, targets, alpha, sigma):
        p = share(torch.cdist(z_t, alpha * points), sigma)[..., None]
        return (p * (targets - _mean(p, targets))**2).sum((1, 2))
    return wrong


def _log(d, s):
    return -d**2 / (2 * s**2)


def _softmax(d, s):
    return _log(d, s).softmax(1)


def _left(loss, best=_mean):
    """The mistaken loss(probabilities (B, N, 1), errors (B, N, D)) of this best answer."""
    def wrong(z_t, points, targets, alpha, sigma):
        p = _softmax(torch.cdist(z_t, alpha * points), sigma)[..., None]
        return loss(p, targets - best(p, targets))
    return wrong


def _squares(p, error):
    return (p * error**2).sum((1, 2))


ex_5_4 = Exercise("5.4", _by_differences, _loss_cases, {
    "Where σ is small e^(−d²/2σ²) is 0 for *every* point in float32, and 0/0 is not a number. Use "
    "softmax, as in exercise 2.3.":
        _shares(lambda d, s: _log(d, s).exp() / _log(d, s).exp().sum(1, keepdim=True)),
    "The probabilities do not sum to 1: these are only proportional to them. Use softmax in "
    "place of exp.":
        _shares(lambda d, s: _log(d, s).exp()),
    "The probabilities sum to 1 over the wrong axis. For each z_t (a row) they must sum to 1 over "
    "the points (the columns): softmax(1).":
        _shares(lambda d, s: _log(d, s).softmax(0)),
    "The sign of the exponent is missing: the *farthest* point becomes the likeliest.":
        _shares(lambda d, s: (-_log(d, s)).softmax(1)),
    "α is missing: z_t is noise around α x_i, not around x_i.":
        lambda z_t, points, targets, a, s: _shares(_softmax)(z_t, points, targets, 1, s),
    "The distance in the exponent must be squared.":
        _shares(lambda d, s: (-d / (2 * s**2)).softmax(1)),
    "σ must be squared: the exponent is −‖z_t − α x_i‖²/2σ².":
        _shares(lambda d, s: (-d**2 / (2 * s)).softmax(1)),
    "The ½ is missing: the exponent of a Gaussian is −d²/2σ².":
        _shares(lambda d, s: (-d**2 / s**2).softmax(1)),
    "You divided by σ²/2 instead of 2σ²: brackets, as in d**2 / (2 * sigma**2).":
        _shares(lambda d, s: (-2 * d**2 / s**2).softmax(1)),
    "All points count alike here, as if z_t told nothing. Weigh each by p_i, in the answer "
    "and in the loss.":
        _shares(lambda d, s: torch.full_like(d, 1 / d.shape[1])),
    "The answer is the plain mean of the targets. The best one is their mean under p_i.":
        _left(_squares, lambda p, y: y.mean(1, keepdim=True)),
    "The answer is the likeliest target. The least squared error has the *mean* of the "
    "targets, under p_i.":
        _left(_squares, _likeliest),
    "This is the loss of the answer 0: subtract the best answer from the targets before you "
    "square.":
        _left(_squares, lambda p, y: 0),
    "The errors count alike in the loss: each target occurs with probability p_i, in the "
    "loss as in the mean.":
        _left(lambda p, error: error.square().sum(2).mean(1)),
    "This is the mean over the coordinates. ‖·‖² is the sum of their squares.":
        _left(lambda p, error: (p * error**2).sum(1).mean(1)),
    "You took the root. The loss is the mean of the *squares*.":
        _left(lambda p, error: _squares(p, error).sqrt()),
    "This is the mean of the error, which is 0: square it first, then take the mean.":
        _left(lambda p, error: (p * error).sum((1, 2))),
    "This is the best answer. Asked for is the loss that it leaves.":
        _left(lambda p, y: (p * y).sum(1), lambda p, y: 0),
    "This is one number for the batch: the loss is asked for each z_t, (B,).":
        _left(lambda p, error: _squares(p, error).mean()),
}, hint="The loss has shape (B,). The probabilities are (B, N), one for each point; as "
        "p[..., None], (B, N, 1), they multiply the targets, (B, N, D).")
