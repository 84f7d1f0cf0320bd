"""What is compared of an exercise: mostly the function's result, else a loss and its derivatives.

A probe takes the learner's function and a case's arguments. No exercise's answer is in this file:
learners' functions are graded beside it.
"""
import numbers
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .answers import NOTHING, Answer, Unfit, answer, plain, several, subject
from .standins import Generator, distance, tell, time

GONE = ("The graph of a loss is gone after the call, and training on it fails: “backward through "
        "the graph a second time”. Pass retain_graph=True to each torch.autograd.grad.")
LEFT = ("backward() leaves its gradient in the generator's weights, where the next step of "
        "training would add it. Use torch.autograd.grad, which leaves none.")
ATTACHED = ("w is attached to the losses, so training would change the images in order to change w "
            "too. Return a number: detach it, and no create_graph=True.")
WALKED = ("The state is attached to the student, so a loss on it would train all the steps that "
          "led there. They only show what the last step will meet: put them under torch.no_grad().")


class Answered(NamedTuple):
    """What a stand-in for a network says, as a ``Prediction`` does."""
    v: Tensor


def attempt(function: Callable, probe: Callable, case: tuple, want: Sequence[Tensor],
            parts: Sequence[str], hint: str) -> Answer:
    """What a function gives for a copy of this case, where parts like these are wanted."""
    copy = [a.clone() if isinstance(a, Tensor) else a for a in case]
    given = answer(partial(probe, function, *copy), want, parts, hint)
    return replace(given, changed=not all(map(_unchanged, case, copy)))


def _unchanged(before, after) -> bool:
    if not isinstance(before, Tensor):
        return True
    try:
        return torch.equal(before, after)
    except Exception:  # made sparse, or moved to another device
        return False


def call(function: Callable, *case):
    """What is compared where nothing else is said: what the function itself returns."""
    return function(*case)


def leaf(value: Tensor) -> Tensor:
    """A copy to differentiate by."""
    return value.detach().clone().requires_grad_()


def slopes(loss, *weights: Tensor, name: str = "the loss") -> tuple[Tensor, ...]:
    """The loss and its derivative by each of these, 0 by what it does not depend on.

    Raises Unfit for what is no loss: no tensor, or more than one value.
    """
    if loss is None:
        raise Unfit(NOTHING)
    if isinstance(loss, numbers.Real):
        raise Unfit(f"{subject(name)} should be a tensor: a Python number has no derivative. Leave "
                    "out .item() or float().")
    if plain(loss, torch.zeros(()), name).ndim:
        raise Unfit(f"{subject(name)} should be one number, of shape (); yours has shape "
                    f"{tuple(loss.shape)}. Take the mean of all of it.")
    if not loss.requires_grad:
        return (loss, *map(torch.zeros_like, weights))
    return (loss, *torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True,
                                       materialize_grads=True))


def denoising(loss, weights, x, label, t, eps, alpha, sigma):
    """1.2: for a model whose v is a x_t + b t/10 + e times what the label tells: the loss and its
    derivative by (a, b, e)."""
    weights = leaf(weights)

    def model(x_t, t, label=None):
        told = tell(label, len(x_t))
        return Answered(weights[0] * x_t + weights[1] * time(t, x_t) + weights[2] * told)

    return slopes(loss(model, x, label, t, eps, alpha, sigma), weights)


def matching(loss, x, g):
    """3.4: the derivatives by x and g. The value means nothing."""
    x = leaf(x)
    g = leaf(g)  # as if networks that learn had made it
    return slopes(loss(x, g), x, g)[1:]


def fake_score(loss, weights, z, t, eps, alpha, sigma):
    """3.5: for fake(x_t, t) = a x_t + b t/10 and generator(z) = c z + d: the loss and its
    derivatives by (a, b) and (c, d)."""
    of_fake = leaf(weights[:2])
    of_generator = leaf(weights[2:])

    def fake(x_t, t):
        return of_fake[0] * x_t + of_fake[1] * time(t, x_t)

    def generator(z):
        return of_generator[0] * z + of_generator[1]

    value = loss(fake, generator, z, t, eps, alpha, sigma)
    return slopes(value, of_fake, of_generator)


def regression(loss, weights, z, y, label):
    """4.2: the loss and its derivative by the generator's weights."""
    weights = leaf(weights)
    return slopes(loss(Generator(weights), distance, z, y, label), weights)


def labelled_fake_score(loss, weights, z, label, t, eps, alpha, sigma):
    """4.5: for fake(x_t, t, label) = a x_t + b t/10 + e times what the label tells: the loss and
    its derivatives by (a, b, e) and by the generator's three weights."""
    of_fake = leaf(weights[:3])
    of_generator = leaf(weights[3:])

    def fake(x_t, t, label=None):
        told = tell(label, len(x_t))
        return of_fake[0] * x_t + of_fake[1] * time(t, x_t) + of_fake[2] * told

    value = loss(fake, Generator(of_generator), z, label, t, eps, alpha, sigma)
    return slopes(value, of_fake, of_generator)


def both_losses(function, fake, real):
    """6.1: both losses and their derivatives by the logits."""
    fake = leaf(fake)
    real = leaf(real)
    L_G, L_D = several(function(fake, real), ("L_G", "L_D"))
    G, G_by_fake = slopes(L_G, fake, name="L_G")
    D, *D_by_logits = slopes(L_D, fake, real, name="L_D")
    return G, D, G_by_fake, *D_by_logits


def adversarial(loss, discriminator, weights, x, real):
    """6.2: the loss and its derivatives by x and by the weights."""
    weights = leaf(weights)
    x = leaf(x)
    return slopes(loss(discriminator, weights, x, real), x, weights)


def weighed(function, matching_gradient, gan_gradient, share):
    """6.3: w, for images of a generator with one weight, 1, and losses with these gradients there.

    Raises Unfit if the losses cannot be trained on afterwards, if a gradient is left behind, and if
    w is attached.
    """
    one = torch.ones(()).requires_grad_()
    x = one * matching_gradient.cos()
    losses = [_loss_with(gradient, x) for gradient in (matching_gradient, gan_gradient)]
    try:
        w = function(x, *losses, share)
        torch.autograd.grad(sum(losses), one)
    except RuntimeError as error:
        if "second time" in str(error):
            raise Unfit(GONE) from None
        raise
    if one.grad is not None:
        raise Unfit(LEFT)
    if isinstance(w, Tensor) and w.requires_grad:
        raise Unfit(ATTACHED, w)
    return w


def _loss_with(gradient, x):
    """A loss with this gradient at x. It is not linear, so that its derivative depends on x."""
    return 0.5 * (x - (x - gradient).detach()).square().sum() + x.numel()


def detached_state(function, student, alpha, sigma, z, eps):
    """6.4: the state, attached to nothing. Raises Unfit if it is."""
    state = function(student, alpha, sigma, z, eps)
    if isinstance(state, Tensor) and state.requires_grad:
        raise Unfit(WALKED)
    return state
