"""Lesson 04: 4.3 DMD's gradient with guidance.

The oracle is written another way than the lesson's solution: one sample at a time by lesson 03's.
"""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .cases import RESHAPE_IMAGES, SHAPES, labels, randn, tables
from .harness import Exercise
from .lesson03_gradients import ex_3_3
from .standins import N_CLASSES, Labelled, column, fake_mean, real_mean


# 4.3 guided_gradient(x, t, eps, label, real, fake, w, no_class, alpha, sigma) -> g

class Given(NamedTuple):
    """What guided_gradient is called with, in this order."""
    x: Tensor
    t: Tensor
    eps: Tensor
    label: Tensor
    real: Callable
    fake: Callable
    w: float
    no_class: int
    alpha: Tensor
    sigma: Tensor


def _step_from_unguided(*case):
    """For one sample at a time: lesson 03's oracle with a real score that starts from the
    prediction without class and goes 1 + w times the way to the one with it."""
    given = Given(*case)
    rows = []
    for k in range(len(given.x)):
        one = slice(k, k + 1)

        def real(x_t, t, label=given.label[one]):
            without = given.real(x_t, t, torch.tensor([given.no_class]))
            return torch.lerp(without, given.real(x_t, t, label), 1 + given.w)

        def fake(x_t, t, label=given.label[one]):
            return given.fake(x_t, t, label)

        rows.append(ex_3_3.oracle(given.x[one], given.t[one], given.eps[one], real, fake,
                                  given.alpha, given.sigma))
    return torch.cat(rows)


def _guided_cases(g):
    """The last one knows four classes, so that "no class" is not always 10."""
    cases = []
    for shape, T, w, n_classes in ((SHAPES[0], 30, 0.5, N_CLASSES), (SHAPES[1], 50, 2.0, N_CLASSES),
                                   (SHAPES[2], 20, 1.3, 4)):
        t = torch.randperm(T - 2, generator=g)[:shape[0]] + 1
        real = Labelled(real_mean, 0.6, n_classes)
        fake = Labelled(fake_mean, 0.4, n_classes)
        cases.append(Given(randn(g, *shape), t, randn(g, *shape), labels(g, shape[0], n_classes),
                           real, fake, w, n_classes, *tables(T)))
    return cases


def _guide(c, u, w):
    return (1 + w) * c - w * u


def _with(c, u, w):
    return c


def _without(c, u, w):
    return u


def _guided(mu_real=_guide, mu_fake=_with, compared=None, none=torch.full_like):
    """The mistaken gradient with these mixtures of the predictions with the label and without, and
    the size of x − ``compared`` (μ_real by default)."""
    def wrong(*case):
        given = Given(*case)
        x_t = column(given.alpha[given.t], given.x) * given.x
        x_t = x_t + column(given.sigma[given.t], given.x) * given.eps

        def mean(mix, net):
            unlabelled = net(x_t, given.t, none(given.label, given.no_class))
            return mix(net(x_t, given.t, given.label), unlabelled, given.w)

        size = (given.x - mean(compared or mu_real, given.real)).abs().mean((1, 2, 3), keepdim=True)
        return (mean(mu_fake, given.fake) - mean(mu_real, given.real)) / size
    return wrong


def _from_lesson_3(wrong):
    """Exercise 3.3's mistake, made with the right guidance."""
    def labelled(*case):
        given = Given(*case)
        none = torch.full_like(given.label, given.no_class)

        def real(x_t, t):
            return _guide(given.real(x_t, t, given.label), given.real(x_t, t, none), given.w)

        def fake(x_t, t):
            return given.fake(x_t, t, given.label)

        return wrong(given.x, given.t, given.eps, real, fake, given.alpha, given.sigma)
    return labelled


ex_4_3 = Exercise("4.3", _step_from_unguided, _guided_cases, {
    "The fake score is guided too. It has to describe the generator's samples as they are: "
    "guide the real one only.":
        _guided(mu_fake=_guide),
    "You guided the fake score in place of the real one. The guided distribution is where the "
    "samples should go, so guidance belongs to the real score.":
        _guided(_with, _guide),
    "The guidance is left out: μ_real is the prediction with the label alone. Subtract w times "
    "the one without class from (1 + w) times it.":
        _guided(_with),
    "This is the other convention of guidance, w c + (1 − w) u, in which 1 means none. Here w = 0 "
    "means none: (1 + w) c − w u.":
        _guided(lambda c, u, w: w * c + (1 - w) * u),
    "Label and no class have exchanged their roles in the guidance: this steers *away* from the "
    "label. (1 + w) belongs to the prediction with the label.":
        _guided(lambda c, u, w: _guide(u, c, w)),
    "The sign of the guidance is flipped: this mixes the prediction without class *in*, so "
    "the label counts less.":
        _guided(lambda c, u, w: _guide(c, u, -w)),
    "The 1 is missing from the guidance: (1 + w) times the prediction with the label, so "
    "that the weights sum to 1.":
        _guided(lambda c, u, w: w * (c - u)),
    "The label is left out of both scores. The teacher and the fake score both know "
    "classes: tell them.":
        _guided(_without, _without),
    "The real score was asked without class only. Guidance needs it twice: with the label "
    "and without.":
        _guided(_without),
    "The fake score was asked without class. It learns from labelled samples: ask it with "
    "their label.":
        _guided(mu_fake=_without),
    "The size is that of x minus the *unguided* prediction. The μ_real in the denominator is the "
    "guided one, the same as in the numerator.":
        _guided(compared=_with),
    "You took label 0 for no class, but 0 is the digit zero. No class has a number of its "
    "own, no_class.":
        _guided(none=lambda label, no_class: torch.zeros_like(label)),
    "You wrote the number 10 for no class. How many classes there are is the network's "
    "affair: use no_class.":
        _guided(none=lambda label, no_class: torch.full_like(label, 10)),
    **{message: _from_lesson_3(wrong) for message, wrong in ex_3_3.mistakes.items()},
}, hint=RESHAPE_IMAGES, random=ex_3_3.random)
