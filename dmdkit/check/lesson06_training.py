"""Lesson 06, training: 6.3 the weight between two losses, 6.4 backward simulation.

The oracles are written another way than the lesson's solutions: by lesson 04's root of a line, by
recursion. The student is a stand-in, a function of three weights.
"""
import math

import torch
from torch import Tensor

from . import probes
from .cases import image_norms, mean_norm, randn
from .harness import Exercise
from .lesson04_pairs import root_of_a_line, weight_cases
from .standins import Student


# 6.3 matched_weight(x, matching, gan, share) -> w

def _balance(formula, norm=mean_norm):
    """The mistaken weight: formula(m, n, share) of these norms of the gradients of both losses."""
    def wrong(x, matching, gan, share):
        m = norm(torch.autograd.grad(matching, x, retain_graph=True)[0])
        n = norm(torch.autograd.grad(gan, x, retain_graph=True)[0])
        return formula(m, n, share)
    return wrong


def _ratio(m, n, share):
    return share * m / n


def _root(matching_gradient, gan_gradient, share):
    return root_of_a_line(matching_gradient, gan_gradient, share)


ex_6_3 = Exercise("6.3", _root, weight_cases, {
    "The ratio is upside down: the longer the gradient of gan is by itself, the *smaller* w.":
        _balance(lambda m, n, share: share * n / m),
    "This is 1/w, the weight that *matching* would need.":
        _balance(lambda m, n, share: n / (share * m)),
    "share is not used: with this weight both gradients are equally long.":
        _balance(lambda m, n, share: m / n),
    "You divided by share, but gan's gradient is to be share *times* as long.":
        _balance(lambda m, n, share: m / (share * n)),
    "This is the ratio of the two *losses*. The value of matching means nothing (exercise 3.4), "
    "and only gradients move the images: use torch.autograd.grad.":
        lambda x, matching, gan, share: share * matching.detach() / gan.detach(),
    "You took one norm over the whole batch, in which the few images with the longest gradients "
    "decide. Take each image's norm, then their mean.":
        _balance(_ratio, Tensor.norm),
    "You took the mean absolute value of the entries. Take each image's norm, the root of "
    "its sum of squares.":
        _balance(_ratio, lambda gradient: gradient.abs().mean()),
    "The norms are squared: the root is missing. A gradient that is twice as long should count "
    "twice, not four times.":
        _balance(_ratio, lambda gradient: image_norms(gradient).square().mean()),
    "This is the mean of all images' ratios. Take means first.":
        _balance(lambda m, n, share: share * (m / n).mean(), image_norms),
    "This is one weight an image. w is one number: take the means over the batch first.":
        _balance(_ratio, image_norms),
}, hint="The weight is one number: a float, or a tensor of shape ().", probe=probes.weighed)


# 6.4 simulate(student, alpha, sigma, z, eps) -> the state at the last of the times

@torch.no_grad()
def _from_the_end(student, alpha, sigma, z, eps):
    """The last state is noised from what the student says of the state before, and so on."""
    if len(alpha) == 1:
        return z
    before = _from_the_end(student, alpha[:-1], sigma[:-1], z, eps[:-1])
    return torch.addcmul(sigma[-1] * eps[-1], alpha[-1], student(before, len(alpha) - 2))


def _walk_cases(g):
    """Lists of 4, 2, 3 and 1 times from pure noise, the last one with no step."""
    cases = []
    for n, shape in ((4, (5, 2)), (2, (3, 1, 4, 4)), (3, (2, 3, 2)), (1, (4, 2))):
        student = Student(randn(g, 3).requires_grad_())
        angle = math.pi / 2 * (1 - (torch.arange(n) / n)**0.8)
        alpha = angle.cos()
        alpha[0] = 0  # in the kit's schedule too it is exactly 0 at pure noise
        cases.append((student, alpha, angle.sin(), randn(g, *shape), randn(g, n - 1, *shape)))
    return cases


def _walk(step, fewer=1):
    """The mistaken walk: step(student, x_t, k, α, σ, z, ε) leads to the next state, for all k but
    the last ones."""
    @torch.no_grad()
    def wrong(student, alpha, sigma, z, eps):
        x_t = z
        for k in range(len(alpha) - fewer):
            x_t = step(student, x_t, k, alpha, sigma, z, eps)
        return x_t
    return wrong


def _right(G, x, k, a, s, z, e):
    return a[k + 1] * G(x, k) + s[k + 1] * e[k]


@torch.no_grad()
def _last_answer(student, alpha, sigma, z, eps):
    if len(alpha) == 1:
        return z
    return student(_from_the_end(student, alpha[:-1], sigma[:-1], z, eps[:-1]), len(alpha) - 2)


@torch.no_grad()
def _one_call_more(student, alpha, sigma, z, eps):
    return student(_from_the_end(student, alpha, sigma, z, eps), len(alpha) - 1)


def _as_ddim(G, x, k, a, s, z, e):
    answer = G(x, k)
    return a[k + 1] * answer + s[k + 1] * (x - a[k] * answer) / s[k]


ex_6_4 = Exercise("6.4", _from_the_end, _walk_cases, {
    "You noised to alpha[k], where the step began: at k = 0 that is pure noise again. Noise "
    "to k + 1.":
        _walk(lambda G, x, k, a, s, z, e: a[k] * G(x, k) + s[k] * e[k]),
    "This is x̂ at the last time, one call too many. Return the state there.":
        _one_call_more,
    "This is x̂ of the last call. Noise it to the last time: training needs a *state*.":
        _last_answer,
    "This is one step too few, the state at the last time but one: n times have n − 1 steps.":
        _walk(_right, fewer=2),
    "The student's answer is clamped to [−1, 1], as the sampler of lesson 01 does it. This one is "
    "trained on what it answers: leave it as it is.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, k).clamp(-1, 1) + s[k + 1] * e[k]),
    "You noised with z again. Take fresh noise after each step, eps[k].":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, k) + s[k + 1] * z),
    "You noised with the predicted noise, as DDIM does. This student takes fresh noise "
    "after each step, eps[k].":
        _walk(_as_ddim),
    "Every step took the same noise, eps[0]. Step k has its own, eps[k].":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, k) + s[k + 1] * e[0]),
    "α and σ are exchanged: the state is α x̂ + σ ε.":
        _walk(lambda G, x, k, a, s, z, e: s[k + 1] * G(x, k) + a[k + 1] * e[k]),
    "x̂ is not scaled: the state is α x̂ + σ ε, and α is missing.":
        _walk(lambda G, x, k, a, s, z, e: G(x, k) + s[k + 1] * e[k]),
    "The noise is not scaled: the state is α x̂ + σ ε, and σ is missing.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, k) + e[k]),
    "The noise is missing: the state is α x̂ + σ ε.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, k)),
    "You fed x̂ back as it is, but the student wants a *noisy* state: noise x̂.":
        _walk(lambda G, x, k, a, s, z, e: G(x, k)),
    "You noised z. Noise x̂, what the student makes of the state.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * z + s[k + 1] * e[k]),
    "You noised the state before, noisy already. Noise x̂, the answer.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * x + s[k + 1] * e[k]),
    "The student was told k = 0 in every call, not its state's place, k.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, 0) + s[k + 1] * e[k]),
    "The student was told k + 1, where the step leads. It wants the place of the state that "
    "it is given: k.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(x, k + 1) + s[k + 1] * e[k]),
    "The student was shown z in every call. Show it the new state.":
        _walk(lambda G, x, k, a, s, z, e: a[k + 1] * G(z, k) + s[k + 1] * e[k]),
}, hint="Return one state, in the shape of z.", probe=probes.detached_state,
    random="It draws its own noise. The noise between the steps is handed in as eps.")
