"""Lesson 05, two steps in one: 5.1 the distillation target, 5.2 one DDIM step as a rotation.

The oracles are written another way than the lesson's solutions: by solving two equations for x and
ε, by way of x̂ and ε̂.
"""
import math

import torch
from torch import Tensor

from .cases import randn
from .harness import Exercise

SHAPES = (((5, 2), (5, 1)), ((3, 1, 6, 4), (3, 1, 1, 1)), ((7, 2), ()),  # of x_t and of its times
          ((2, 3, 4, 5), (2, 1, 1, 1)))
MULTIPLY = "{} come in shapes that multiply x_t as they are: nothing has to be reshaped."


def _steps(g: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Two tensors like x_t, and φ_t > φ_s, far from each other and from both ends; but the third
    case ends at clean data, and the last one starts at pure noise."""
    cases = []
    for shape, times in SHAPES:
        share = torch.rand(2, *times, generator=g)
        phi_t = math.pi / 2 * (0.6 + 0.25 * share[0])
        phi_s = math.pi / 2 * (0.15 + 0.3 * share[1])
        cases.append((randn(g, *shape), randn(g, *shape), phi_t, phi_s))
    cases[2][3].fill_(0)
    cases[3][2].fill_(math.pi / 2)
    return cases


# 5.1 distillation_target(x_t, x_s, alpha_t, sigma_t, alpha_s, sigma_s) -> x̃

def _solve(x_t, x_s, alpha_t, sigma_t, alpha_s, sigma_s):
    """α_t x + σ_t ε = x_t and α_s x + σ_s ε = x_s, two equations for x and ε: x, in float64."""
    rows = torch.stack([alpha_t, sigma_t, alpha_s, sigma_s], -1).double().unflatten(-1, (2, 2))
    values = torch.stack([x_t, x_s], -1).double()[..., None]
    return torch.linalg.solve(rows.expand(*x_t.shape, 2, 2), values)[..., 0, 0].to(x_t.dtype)


def _target_cases(g):
    cases = []
    for x_t, x_s, phi_t, phi_s in _steps(g):
        alpha_t = torch.where(phi_t < 1.57, phi_t.cos(), 0.0)  # at π/2 exactly 0, as in the kit
        cases.append((x_t, x_s, alpha_t, phi_t.sin(), phi_s.cos(), phi_s.sin()))
    return cases


def _of_noise(A, S, a, s):
    return s / S


def _quotient(formula, ratio=_of_noise):
    """The mistaken target: formula(x_t, x_s, r, α_t, α_s) with this ratio r. Capitals are of t."""
    def wrong(x_t, x_s, A, S, a, s):
        return formula(x_t, x_s, ratio(A, S, a, s), A, a)
    return wrong


def _right(Z, z, r, A, a):
    return (z - r * Z) / (a - r * A)


def _other(formula):
    """What formula(x̃, ε̃, α_t, σ_t) makes of the right x̃ and of the ε̃ that goes with it."""
    def wrong(x_t, x_s, A, S, a, s):
        x = _solve(x_t, x_s, A, S, a, s)
        return formula(x, (x_t - A * x) / S, A, S)
    return wrong


def _eps_without_x(x_t, x_s, A, S, a, s):
    return (x_s - a / A * x_t) / (s - a / A * S)


def _by_eps(x_t, x_s, A, S, a, s):
    return (x_t - S * _eps_without_x(x_t, x_s, A, S, a, s)) / A


ex_5_1 = Exercise("5.1", _solve, _target_cases, {
    "The ratio is upside down: σ_s/σ_t is below 1, since there is less noise at s. And at the end "
    "of the chain, where σ_s = 0, σ_t/σ_s is infinite.":
        _quotient(_right, lambda A, S, a, s: S / s),
    "t and s are exchanged throughout. That is the same formula in the middle of the chain, but "
    "at its end σ_s is 0, and you divide by it. Divide by σ_t, which is never 0.":
        lambda Z, z, A, S, a, s: _right(z, Z, S / s, a, A),
    "You took α_s/α_t for the ratio, which makes the denominator 0. The ratio is that of the "
    "*noise*, σ_s/σ_t: it is the noise that has to cancel.":
        _quotient(_right, lambda A, S, a, s: a / A),
    "With α_s/α_t in place of σ_s/σ_t you eliminated x, and this is ε̃. Eliminate the "
    "noise, and x̃ is left.":
        _eps_without_x,
    "This is ε̃, the noise that goes with the target. The target is x̃.":
        _other(lambda x, eps, A, S: eps),
    "This is the target in v, α_t ε̃ − σ_t x̃. Return x̃ itself.":
        _other(lambda x, eps, A, S: A * eps - S * x),
    "Right, but not where α_t = 0: you found ε̃ first and divided by α_t for x. The chain starts "
    "there, so solve for x directly.":
        _by_eps,
    "This is x_s itself. It is the target only at the end of the chain, where α_s = 1 and σ_s = "
    "0. Elsewhere x_s is noisy, and the target is the x whose one DDIM step *lands* on x_s.":
        _quotient(lambda Z, z, r, A, a: z.clone()),
    "You divided by α_s alone: x_t holds α_t x too, so with it you took a part of x away. The "
    "denominator is α_s − (σ_s/σ_t) α_t.":
        _quotient(lambda Z, z, r, A, a: (z - r * Z) / a),
    "The division is missing: this is x̃ times α_s − (σ_s/σ_t) α_t.":
        _quotient(lambda Z, z, r, A, a: z - r * Z),
    "This is x_s/α_s, which leaves the noise of x_s in. Take (σ_s/σ_t) x_t off before you divide.":
        _quotient(lambda Z, z, r, A, a: z / a),
    "The sign is flipped: the denominator is α_s − (σ_s/σ_t) α_t, in the numerator's order.":
        _quotient(lambda Z, z, r, A, a: (z - r * Z) / (r * A - a)),
    "There is a plus above and below where the formula has a minus: the noise adds up, and "
    "should cancel.":
        _quotient(lambda Z, z, r, A, a: (z + r * Z) / (a + r * A)),
    "There is a plus in the numerator: x_s *minus* (σ_s/σ_t) x_t, so that the noise cancels.":
        _quotient(lambda Z, z, r, A, a: (z + r * Z) / (a - r * A)),
    "There is a plus in the denominator: α_s *minus* (σ_s/σ_t) α_t.":
        _quotient(lambda Z, z, r, A, a: (z - r * Z) / (a + r * A)),
    "x_t and x_s are exchanged in the numerator.":
        _quotient(lambda Z, z, r, A, a: (Z - r * z) / (a - r * A)),
    "α_t and α_s are exchanged in the denominator.":
        _quotient(lambda Z, z, r, A, a: (z - r * Z) / (A - r * a)),
    "The ratio is missing: x_t and x_s hold unequal shares of noise, and only σ_s/σ_t makes "
    "them equal.":
        _quotient(_right, lambda A, S, a, s: 1),
    "You used σ_s for the ratio: divide it by σ_t.":
        _quotient(_right, lambda A, S, a, s: s),
}, hint=MULTIPLY.format("alpha_t, sigma_t, alpha_s and sigma_s"),
    random="It draws fresh noise. x̃ follows from x_t and x_s alone.")


# 5.2 v_to_x_step(x_t, v, phi_t, phi_s) -> x_s

def _by_x_and_eps(x_t, v, phi_t, phi_s):
    """The DDIM step as lesson 01 has it: take x_t apart into x̂ and ε̂, put them together at s."""
    x = phi_t.cos() * x_t - phi_t.sin() * v
    eps = phi_t.sin() * x_t + phi_t.cos() * v
    return phi_s.cos() * x + phi_s.sin() * eps


def _turn(angle):
    """The step, turned by the mistaken angle(φ_t, φ_s)."""
    def wrong(x_t, v, phi_t, phi_s):
        delta = angle(phi_t, phi_s)
        return delta.cos() * x_t - delta.sin() * v
    return wrong


def _by_delta(formula):
    """The mistaken step: formula(x_t, v, δ) with the right δ."""
    return lambda x_t, v, phi_t, phi_s: formula(x_t, v, phi_t - phi_s)


ex_5_2 = Exercise("5.2", _by_x_and_eps, _steps, {
    "This turns the other way, to more noise: either δ is φ_s − φ_t, or there is a plus before "
    "sin δ v. The step is cos δ x_t − sin δ v with δ = φ_t − φ_s, which is positive.":
        _turn(lambda t, s: s - t),
    "This is Euler's step, x_t − δ v, along the tangent, which leads off the circle. DDIM turns: "
    "cos δ x_t − sin δ v.":
        _by_delta(lambda z, v, d: z - d * v),
    "cos and sin are exchanged: where δ = 0 nothing should move, so x_t gets cos δ.":
        _by_delta(lambda z, v, d: d.sin() * z - d.cos() * v),
    "This is x̂: you turned by all of φ_t, to clean data. Turn by δ = φ_t − φ_s only.":
        _turn(lambda t, s: t),
    "You turned by φ_s, the angle at which to arrive. The way there is δ = φ_t − φ_s.":
        _turn(lambda t, s: s),
    "You turned by φ_t + φ_s. The way from one angle to the other is their difference.":
        _turn(lambda t, s: t + s),
    "You converted the angles to radians, which they are already.":
        _turn(lambda t, s: torch.deg2rad(t - s)),
    "You converted the angles to degrees. torch's cos and sin take radians, and radians they are.":
        _turn(lambda t, s: torch.rad2deg(t - s)),
    "This is v after the step: the same rotation takes v to sin δ x_t + cos δ v. Return x_s.":
        _by_delta(lambda z, v, d: d.sin() * z + d.cos() * v),
    "This is cos φ_s x̂: the noise is missing, and at s there still is sin φ_s of it.":
        lambda x_t, v, t, s: s.cos() * (t.cos() * x_t - t.sin() * v),
    "x_t is not scaled: cos δ is missing.":
        _by_delta(lambda z, v, d: z - d.sin() * v),
    "v is not scaled: sin δ is missing.":
        _by_delta(lambda z, v, d: d.cos() * z - v),
}, hint=MULTIPLY.format("phi_t and phi_s"), random="It draws fresh noise. DDIM is deterministic.")
