"""Lesson 05: the distillation target, one DDIM step as a rotation, the loss weights, the loss that a target leaves.

The oracles are written another way than the lesson's solutions: by solving two equations for x and ε, by way of x̂ and
ε̂, by the errors that a weight stands for, by the differences between the targets.
"""
import math

import torch
from torch import Tensor

from .harness import Exercise, randn


def _two_angles(g: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    """φ_t and φ_s of that shape, far from each other and from both ends, φ_s < φ_t."""
    share = torch.rand(2, *shape, generator=g)
    return math.pi / 2 * (0.6 + 0.25 * share[0]), math.pi / 2 * (0.15 + 0.3 * share[1])


SHAPES = ((5, 2), (5, 1)), ((3, 1, 6, 4), (3, 1, 1, 1)), ((7, 2), ()), ((2, 3, 4, 5), (2, 1, 1, 1))  # of z, of times
MULTIPLY = "{} come in shapes that multiply z_t as they are: nothing has to be reshaped."


def _steps(g: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Two tensors like z_t, φ_t, φ_s. The third case ends at clean data, the last one starts at pure noise."""
    cases = [(randn(g, *shape), randn(g, *shape), *_two_angles(g, *times)) for shape, times in SHAPES]
    cases[2][3].fill_(0)
    cases[3][2].fill_(math.pi / 2)
    return cases


# 5.1 distillation_target(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s) -> x̃

def _solve(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s):
    """α_t x + σ_t ε = z_t and α_s x + σ_s ε = z_s, two equations for x and ε: x, solved in float64."""
    rows = torch.stack([alpha_t, sigma_t, alpha_s, sigma_s], -1).double().unflatten(-1, (2, 2))
    values = torch.stack([z_t, z_s], -1).double()[..., None]
    return torch.linalg.solve(rows.expand(*z_t.shape, 2, 2), values)[..., 0, 0].to(z_t.dtype)


def _target_cases(g):
    cases = []
    for z_t, z_s, phi_t, phi_s in _steps(g):
        alpha_t = torch.where(phi_t < 1.57, phi_t.cos(), 0.0)  # at π/2 exactly 0, as in the kit's schedule
        cases.append((z_t, z_s, alpha_t, phi_t.sin(), phi_s.cos(), phi_s.sin()))
    return cases


def _quotient(top=lambda Z, z, r: z - r * Z, bottom=lambda A, a, r: a - r * A, ratio=lambda A, S, a, s: s / S):
    """The mistaken target with this numerator, denominator and ratio. Capitals are of t, small letters of s."""
    def wrong(z_t, z_s, A, S, a, s):
        r = ratio(A, S, a, s)
        return top(z_t, z_s, r) / bottom(A, a, r)
    return wrong


def _other(of):
    """What ``of`` makes of the right x̃, of the ε̃ that goes with it, and of α_t and σ_t."""
    def wrong(z_t, z_s, A, S, a, s):
        x = _solve(z_t, z_s, A, S, a, s)
        return of(x, (z_t - A * x) / S, A, S)
    return wrong


def _eps_without_x(z_t, z_s, A, S, a, s):
    return (z_s - a / A * z_t) / (s - a / A * S)


ex_5_1 = Exercise("5.1", _solve, _target_cases, {
    "The ratio is upside down: σ_s/σ_t is below 1, since there is less noise at s. And at the end of the chain, where "
    "σ_s = 0, σ_t/σ_s is infinite.": _quotient(ratio=lambda A, S, a, s: S / s),
    "t and s are exchanged throughout. That is the same formula in the middle of the chain, but at its end σ_s is 0, "
    "and you divide by it. Divide by σ_t, which is never 0.":
        lambda Z, z, A, S, a, s: _quotient()(z, Z, a, s, A, S),
    "You took α_s/α_t for the ratio, which makes the denominator 0. The ratio is that of the *noise*, σ_s/σ_t: it is "
    "the noise that has to cancel.": _quotient(ratio=lambda A, S, a, s: a / A),
    "With α_s/α_t in place of σ_s/σ_t you eliminated x, and this is ε̃. Eliminate the noise, and x̃ is left.":
        _eps_without_x,
    "This is ε̃, the noise that goes with the target. The target is x̃.": _other(lambda x, eps, A, S: eps),
    "This is the target in v, α_t ε̃ − σ_t x̃. Return x̃ itself.": _other(lambda x, eps, A, S: A * eps - S * x),
    "Right, but not where α_t = 0: you found ε̃ first and divided by α_t for x. The chain starts there, so solve for x "
    "directly.": lambda Z, z, A, S, a, s: (Z - S * _eps_without_x(Z, z, A, S, a, s)) / A,
    "This is z_s itself. It is the target only at the end of the chain, where α_s = 1 and σ_s = 0. Elsewhere z_s is "
    "noisy, and the target is the x whose one DDIM step *lands* on z_s.": lambda Z, z, A, S, a, s: z,
    "You divided by α_s alone: z_t holds α_t x too, so with it you took a part of x away. The denominator is "
    "α_s − (σ_s/σ_t) α_t.": _quotient(bottom=lambda A, a, r: a),
    "The division is missing: this is x̃ times α_s − (σ_s/σ_t) α_t.": _quotient(bottom=lambda A, a, r: 1),
    "This is z_s/α_s, which leaves the noise of z_s in. Take (σ_s/σ_t) z_t off before you divide.":
        _quotient(lambda Z, z, r: z, lambda A, a, r: a),
    "The sign is flipped: the denominator is α_s − (σ_s/σ_t) α_t, in the numerator's order.":
        _quotient(bottom=lambda A, a, r: r * A - a),
    "There is a plus above and below where the formula has a minus: the noise adds up, and should cancel.":
        _quotient(lambda Z, z, r: z + r * Z, lambda A, a, r: a + r * A),
    "There is a plus in the numerator: z_s *minus* (σ_s/σ_t) z_t, so that the noise cancels.":
        _quotient(lambda Z, z, r: z + r * Z),
    "There is a plus in the denominator: α_s *minus* (σ_s/σ_t) α_t.": _quotient(bottom=lambda A, a, r: a + r * A),
    "z_t and z_s are exchanged in the numerator.": _quotient(lambda Z, z, r: Z - r * z),
    "α_t and α_s are exchanged in the denominator.": _quotient(bottom=lambda A, a, r: A - r * a),
    "The ratio is missing: z_t and z_s hold unequal shares of noise, and only σ_s/σ_t makes them equal.":
        _quotient(ratio=lambda A, S, a, s: 1),
    "You used σ_s for the ratio: divide it by σ_t.": _quotient(ratio=lambda A, S, a, s: s),
}, error=MULTIPLY.format("alpha_t, sigma_t, alpha_s and sigma_s"),
   random="It draws fresh noise. x̃ follows from z_t and z_s alone.")


# 5.2 v_to_x_step(z_t, v, phi_t, phi_s) -> z_s

def _by_x_and_eps(z_t, v, phi_t, phi_s):
    """The DDIM step as lesson 01 has it: take z_t apart into x̂ and ε̂ at t, put them together at s."""
    x = phi_t.cos() * z_t - phi_t.sin() * v
    eps = phi_t.sin() * z_t + phi_t.cos() * v
    return phi_s.cos() * x + phi_s.sin() * eps


def _turn(by=lambda t, s: t - s, on_z=Tensor.cos, on_v=lambda d: -d.sin()):
    """The mistaken step on_z(δ) z_t + on_v(δ) v with this angle δ."""
    def wrong(z_t, v, phi_t, phi_s):
        delta = by(phi_t, phi_s)
        return on_z(delta) * z_t + on_v(delta) * v
    return wrong


ex_5_2 = Exercise("5.2", _by_x_and_eps, _steps, {
    "This turns the other way, to more noise: either δ is φ_s − φ_t, or there is a plus before sin δ v. The step is "
    "cos δ z_t − sin δ v with δ = φ_t − φ_s, which is positive.": _turn(lambda t, s: s - t),
    "This is Euler's step, z_t − δ v, along the tangent, which leads off the circle. DDIM turns: cos δ z_t − sin δ v.":
        _turn(on_z=lambda d: 1, on_v=lambda d: -d),
    "cos and sin are exchanged: where δ = 0 nothing should move, so z_t gets cos δ.":
        _turn(on_z=Tensor.sin, on_v=lambda d: -d.cos()),
    "This is x̂: you turned by all of φ_t, to clean data. Turn by δ = φ_t − φ_s only.": _turn(lambda t, s: t),
    "You turned by φ_s, the angle at which to arrive. The way there is δ = φ_t − φ_s.": _turn(lambda t, s: s),
    "You turned by φ_t + φ_s. The way from one angle to the other is their difference.": _turn(lambda t, s: t + s),
    "You converted the angles to radians, which they are already.": _turn(lambda t, s: torch.deg2rad(t - s)),
    "You converted the angles to degrees. torch's cos and sin take radians, and radians they are.":
        _turn(lambda t, s: torch.rad2deg(t - s)),
    "This is v after the step: the same rotation takes v to sin δ z_t + cos δ v. Return z_s.":
        _turn(on_z=Tensor.sin, on_v=Tensor.cos),
    "This is cos φ_s x̂: the noise is missing, and at s there still is sin φ_s of it.":
        lambda z_t, v, t, s: s.cos() * (t.cos() * z_t - t.sin() * v),
    "z_t is not scaled: cos δ is missing.": _turn(on_z=lambda d: 1),
    "v is not scaled: sin δ is missing.": _turn(on_v=lambda d: -1),
}, error=MULTIPLY.format("phi_t and phi_s"), random="It draws fresh noise. DDIM is deterministic.")


# 5.3 loss_weight(alpha, sigma, kind) -> w, shaped like alpha

def _by_errors(alpha, sigma, kind):
    """A prediction of x that is 1 too high: what are the squared errors in x, ε and v that go with it?"""
    x, eps = torch.full_like(alpha, 0.3, dtype=torch.float64), -0.5
    z, off = alpha * x + sigma * eps, x + 1
    eps_off = (z - alpha * off) / sigma
    in_x, in_eps = (off - x)**2, (eps_off - eps)**2
    in_v = (alpha * eps_off - sigma * off - (alpha * eps - sigma * x))**2
    return {"snr": in_eps, "truncated": torch.maximum(in_x, in_eps), "snr+1": in_v}[kind].to(alpha.dtype)


def _weight_cases(g):
    """Angles on both sides of SNR = 1, the last one at α = 0."""
    cases = []
    for kind, shape in (("snr", (6, 1)), ("truncated", (9,)), ("snr+1", (7, 1, 1, 1))):
        angle = math.pi / 2 * (torch.linspace(0.15, 0.85, shape[0]) + 0.1 * torch.rand(shape[0], generator=g))
        alpha, sigma = angle.cos(), angle.sin()
        alpha[-1], sigma[-1] = 0, 1
        cases.append((alpha.reshape(shape), sigma.reshape(shape), kind))
    return cases


def _weights(snr=lambda a, s: a**2 / s**2, plain=lambda r: r.clone(), truncated=lambda r: r.clamp(min=1),
             plus=lambda r: r + 1):
    """The mistaken weight with this SNR, and these functions of it for the three kinds."""
    kinds = {"snr": plain, "truncated": truncated, "snr+1": plus}
    return lambda alpha, sigma, kind: kinds[kind](snr(alpha, sigma))


ex_5_3 = Exercise("5.3", _by_errors, _weight_cases, {
    "\"truncated\" is cut from above: this is min(SNR, 1). It is meant to keep the weight from *vanishing* where "
    "there is much noise: max(SNR, 1). The minimum, at some bound, belongs to another method, min-SNR.":
        _weights(truncated=lambda r: r.clamp(max=1)),
    "\"truncated\" is not truncated: this is SNR, which is 0 at α = 0. Take max(SNR, 1).":
        _weights(truncated=lambda r: r.clone()),
    "\"truncated\" is 0 where SNR is below 1, so nothing would be learned there. It should be 1: max(SNR, 1).":
        _weights(truncated=lambda r: torch.where(r > 1, r, 0.0)),
    "\"truncated\" and \"snr+1\" are exchanged.": _weights(truncated=lambda r: r + 1, plus=lambda r: r.clamp(min=1)),
    "The 1 is missing from \"snr+1\": this is SNR.": _weights(plus=lambda r: r.clone()),
    "\"snr+1\" is truncated instead: this is max(SNR, 1). Add the 1.": _weights(plus=lambda r: r.clamp(min=1)),
    "The 1 has slipped into the denominator of \"snr+1\": α²/(σ² + 1) is not α²/σ² + 1.":
        lambda a, s, kind: a**2 / (s**2 + 1) if kind == "snr+1" else _weights()(a, s, kind),
    "kind is not used: this is SNR for all three.": _weights(truncated=lambda r: r.clone(), plus=lambda r: r.clone()),
    "The squares are missing: SNR is a ratio of *variances*, α²/σ². This one is its root.":
        _weights(lambda a, s: a / s),
    "SNR is upside down: signal over noise, α²/σ². This one grows with the noise.": _weights(lambda a, s: s**2 / a**2),
    "Only σ is squared: SNR = α²/σ².": _weights(lambda a, s: a / s**2),
    "Only α is squared: SNR = α²/σ².": _weights(lambda a, s: a**2 / s),
    "σ² is missing: you took SNR to be α².": _weights(lambda a, s: a**2),
    "This is log SNR, by which schedules are often described. The weight is SNR itself.":
        _weights(lambda a, s: (a**2 / s**2).log()),
}, error="The weight is shaped like alpha: one value for each noise level. Python's max() and min() compare single "
         "numbers; a tensor has snr.clamp(…).")


# 5.4 least_loss(z_t, points, targets, alpha, sigma) -> the least mean squared error of any answer at z_t, (B,)

def _by_differences(z_t, points, targets, alpha, sigma):
    """Half the mean squared distance of two targets, each drawn by its probability; one z_t at a time in float64."""
    losses = []
    for z, ys in zip(z_t.double(), targets.double()):
        logs = [-float((z - alpha * point).square().sum()) / (2 * sigma**2) for point in points.double()]
        shares = [math.exp(log - max(logs)) for log in logs]
        total = sum(p * q * (y - other).square().sum() for p, y in zip(shares, ys) for q, other in zip(shares, ys))
        losses.append(total / (2 * sum(shares)**2))
    return torch.stack(losses).to(z_t.dtype)


def _loss_cases(g):
    """Targets of any kind, with B = N so that a softmax over the wrong axis gives a result; the points themselves, for
    z_t between two that are so far away that e^(−d²/2σ²) is 0; and one target for each z_t, whatever the point."""
    pair = torch.nn.functional.normalize(randn(g, 1, 2)) * torch.tensor([[1.0], [-1.0]])
    near, far = randn(g, 4, 2), randn(g, 5, 2)
    cases = [(randn(g, 4, 2), near, randn(g, 4, 4, 2), 0.4), (0.002 * randn(g, 6, 2), pair, pair.repeat(6, 1, 1), 0.04),
             (randn(g, 3, 2), far, randn(g, 3, 1, 2).repeat(1, 5, 1), 0.6)]
    return [(*case, math.cos(math.pi / 2 * share), math.sin(math.pi / 2 * share)) for *case, share in cases]


def _mean(share, y):
    return (share * y).sum(1, keepdim=True)


def _left(log=lambda d, s: -d**2 / (2 * s**2), scale=lambda a: a, share=lambda log: log.softmax(1), best=_mean,
          loss=lambda p, error: (p * error**2).sum((1, 2))):
    """The mistaken loss with these exponents of the distances, this factor on the points, these shares, this answer
    and this mean of the errors; shares are (B, N, 1), targets (B, N, D)."""
    def wrong(z_t, points, targets, alpha, sigma):
        p = share(log(torch.cdist(z_t, scale(alpha) * points), sigma))[..., None]
        return loss(p, targets - best(p, targets))
    return wrong


def _likeliest(share, y):
    return y.gather(1, share.argmax(1, keepdim=True).expand(-1, 1, y.shape[2]))


ex_5_4 = Exercise("5.4", _by_differences, _loss_cases, {
    "Where σ is small e^(−d²/2σ²) is 0 for *every* point in float32, and 0/0 is not a number. Use softmax, as in "
    "exercise 2.3.": _left(share=lambda log: log.exp() / log.exp().sum(1, keepdim=True)),
    "The probabilities do not sum to 1: these are only proportional to them. Use softmax in place of exp.":
        _left(share=lambda log: log.exp()),
    "The probabilities sum to 1 over the wrong axis. For each z_t (a row) they must sum to 1 over the points (the "
    "columns): softmax(1).": _left(share=lambda log: log.softmax(0)),
    "The sign of the exponent is missing: the *farthest* point becomes the likeliest.":
        _left(lambda d, s: d**2 / (2 * s**2)),
    "α is missing: z_t is noise around α x_i, not around x_i.": _left(scale=lambda a: 1),
    "The distance in the exponent must be squared.": _left(lambda d, s: -d / (2 * s**2)),
    "σ must be squared: the exponent is −‖z_t − α x_i‖²/2σ².": _left(lambda d, s: -d**2 / (2 * s)),
    "The ½ is missing: the exponent of a Gaussian is −d²/2σ².": _left(lambda d, s: -d**2 / s**2),
    "You divided by σ²/2 instead of 2σ²: brackets, as in d**2 / (2 * sigma**2).": _left(lambda d, s: -2 * d**2 / s**2),
    "All points count alike here, as if z_t told nothing. Weigh each by p_i, in the answer and in the loss.":
        _left(share=lambda log: torch.full_like(log, 1 / log.shape[1])),
    "The answer is the plain mean of the targets. The best one is their mean under p_i.":
        _left(best=lambda p, y: y.mean(1, keepdim=True)),
    "The answer is the likeliest target. The least squared error has the *mean* of the targets, under p_i.":
        _left(best=_likeliest),
    "This is the loss of the answer 0: subtract the best answer from the targets before you square.":
        _left(best=lambda p, y: 0),
    "The errors count alike in the loss: each target occurs with probability p_i, in the loss as in the mean.":
        _left(loss=lambda p, error: error.square().sum(2).mean(1)),
    "This is the mean over the coordinates. ‖·‖² is the sum of their squares.":
        _left(loss=lambda p, error: (p * error**2).sum(1).mean(1)),
    "You took the root. The loss is the mean of the *squares*.": _left(loss=lambda p, e: (p * e**2).sum((1, 2)).sqrt()),
    "This is the mean of the error, which is 0: square it first, then take the mean.":
        _left(loss=lambda p, error: (p * error).sum((1, 2))),
    "This is the best answer. Asked for is the loss that it leaves.":
        _left(best=lambda p, y: 0, loss=lambda p, y: (p * y).sum(1)),
    "This is one number for the batch: the loss is asked for each z_t, (B,).":
        _left(loss=lambda p, error: (p * error**2).sum((1, 2)).mean()),
}, error="The loss has shape (B,). The probabilities are (B, N), one for each point; as p[..., None], (B, N, 1), they "
         "multiply the targets, (B, N, D).")
