"""Lesson 08: 8.1 from one noise to another, 8.2 what one step makes of a network's error.

The oracles are written another way than the lesson's solutions: by complex numbers, and by
autograd.
"""
import math

import torch

from .. import schedule
from .cases import randn
from .harness import Exercise

QUARTER = math.pi / 2


# 8.1 walk(z_0, z_1, phi) -> the noise on the way

def _turned(z_0, z_1, phi):
    """The real part of (z_0 − i z_1) e^{iφ}."""
    return (torch.complex(z_0.double(), -z_1.double()) * torch.exp(1j * phi.double())).real.float()


def _walks(g):
    """Two noises and an angle for each sample; in the second case one for all, in the third the
    ends and the middle."""
    cases = [(randn(g, *shape), randn(g, *shape), QUARTER * torch.rand(angles, generator=g))
             for shape, angles in (((5, 2), (5, 1)), ((2, 3, 4, 4), ()), ((3, 1, 3, 3), (3, 1, 1, 1)))]
    cases[2][2][:] = torch.tensor([0.0, math.pi / 4, QUARTER]).reshape(3, 1, 1, 1)
    return cases


def _mixed(weights):
    """The mistaken walk by weights(φ, share) of z_0 and z_1, share = φ / (π/2)."""
    def wrong(z_0, z_1, phi):
        a, b = weights(phi, phi / QUARTER)
        return a * z_0 + b * z_1
    return wrong


def _by_their_own_angle(z_0, z_1, phi):
    """Slerp: the weights by the angle between the two, sample by sample."""
    a, b = z_0.flatten(1), z_1.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    omega = cosine.clamp(-0.999, 0.999).acos().reshape(-1, *[1] * (z_0.ndim - 1))
    share = phi / QUARTER
    return (((1 - share) * omega).sin() * z_0 + (share * omega).sin() * z_1) / omega.sin()


def _to_length_one(z_0, z_1, phi):
    share = phi / QUARTER
    straight = (1 - share) * z_0 + share * z_1
    return straight / ((1 - share)**2 + share**2).sqrt()


ex_8_1 = Exercise("8.1", _turned, _walks, {
    "This is the straight line. Halfway its values have variance ½: that is no noise that the "
    "student has ever met. Which two weights have squares that add up to 1 all the way?":
        _mixed(lambda phi, u: (1 - u, u)),
    "The variance is 1 all the way, but not the speed: √(1 − u) and √u rush at the ends. φ is an "
    "angle, and its cosine and sine have squares that add up to 1.":
        _mixed(lambda phi, u: ((1 - u).sqrt(), u.sqrt())),
    "This is the straight line, scaled to variance 1. It gets everywhere, but not at constant "
    "speed: fastest halfway. Weights that go around a circle do.":
        _to_length_one,
    "This is slerp, by the angle that these two happen to have. For many pixels that is nearly the "
    "same, and for few it is not: two independent noises are at a right angle only on average. "
    "Take φ itself.":
        _by_their_own_angle,
    "It goes from z_1 to z_0: cosine and sine are exchanged.":
        _mixed(lambda phi, u: (phi.sin(), phi.cos())),
    "The sign of the second noise is flipped, so the walk ends at −z_1.":
        _mixed(lambda phi, u: (phi.cos(), -phi.sin())),
    "The weights are squared: they add up to 1, and their squares do not. Variances add, and "
    "they go by the squares.":
        _mixed(lambda phi, u: (phi.cos()**2, phi.sin()**2)),
    "phi is an angle already, from 0 to π/2. You multiplied it by π/2 once more.":
        _mixed(lambda phi, u: ((phi * QUARTER).cos(), (phi * QUARTER).sin())),
    "phi is in radians already.":
        _mixed(lambda phi, u: (torch.deg2rad(phi).cos(), torch.deg2rad(phi).sin())),
}, hint="phi comes in a shape that multiplies z_0 as it is: nothing has to be reshaped.",
    random="It draws fresh noise. The walk follows from its two ends.")


# 8.2 error_gains(alpha, sigma) -> |dx̂ / d output| of a network of ε and of one of v, (2, B)

def _by_autograd(alpha, sigma):
    """How x̂ changes with the output, differentiated through the kit's conversions."""
    found = []
    for x_from in (schedule.x_from_eps, schedule.x_from_v):
        out = torch.zeros(alpha.shape, dtype=torch.float64, requires_grad=True)
        x = x_from(torch.ones_like(out), out, alpha.double(), sigma.double())
        gradient, = torch.autograd.grad(x.sum(), out)
        found.append(gradient.abs().float())
    return torch.stack(found)


def _levels(g):
    """α and σ of a cosine, some near pure noise, and of a linear schedule's last times."""
    phi = QUARTER * (0.05 + 0.9 * torch.rand(6, generator=g))
    linear = schedule.linear(1000)
    t = torch.tensor([500, 900, 999])
    like = torch.zeros(3, 1)
    alpha, sigma = linear.at(t, like)
    return [(phi.cos(), phi.sin()), (alpha.flatten(), sigma.flatten())]


def _rows(gains):
    """The mistaken rows: gains(α, σ), one above the other."""
    return lambda alpha, sigma: torch.stack(gains(alpha, sigma))


ex_8_2 = Exercise("8.2", _by_autograd, _levels, {
    "The two are exchanged: return ε's first, then v's.":
        _rows(lambda a, s: (s, s / a)),
    "σ/α is upside down in the first: near pure noise α is small, and ε's errors grow.":
        _rows(lambda a, s: (a / s, s)),
    "The first is 1/α: in x̂ = (x_t − σ ε̂)/α the network's output is multiplied by σ too.":
        _rows(lambda a, s: (1 / a, s)),
    "The second is α. In x̂ = α x_t − σ v̂ it is x_t that α multiplies.":
        _rows(lambda a, s: (s / a, a)),
    "The second is σ/α, as for ε. In x̂ = α x_t − σ v̂ nothing is divided by α.":
        _rows(lambda a, s: (s / a, s / a)),
    "The second is 1. That is a network's that predicts x itself; v is multiplied by σ.":
        _rows(lambda a, s: (s / a, torch.ones_like(s))),
    "These are the derivatives, which are negative. Asked for is by how much an error grows: "
    "their absolute values.":
        _rows(lambda a, s: (-s / a, -s)),
    "These are the factors of a *squared* error. Asked for are those of the error.":
        _rows(lambda a, s: ((s / a)**2, s**2)),
    "The first is σ: the division by α is missing.":
        _rows(lambda a, s: (s, s)),
}, hint="alpha and sigma are tensors (B,); return two rows of that shape, (2, B): torch.stack.",
    random="It draws random numbers. The factors follow from α and σ.")
