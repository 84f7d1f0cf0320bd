"""Lesson 06: the two losses of a GAN, both in one scalar, the weight between two losses, backward simulation.

The oracles are written another way than the lesson's solutions: by log(e⁰ + e^D) in float64, by calculus, by lesson
04's root of a line, by recursion. Critic and student are stand-ins: functions of a few weights.
"""
import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .harness import Exercise, randn
from .lesson04 import _norms, ex_4_4

KEEP, DROP = (lambda value: value), Tensor.detach


def _terms(signs=(-1, 1, -1), weights=(1, 1, 1), of=KEEP):
    """weight · softplus(sign · D) of three logits: D(fake) in L_G, D(fake) in L_D, D(real). The default is right."""
    return lambda *logits: [weight * softplus(sign * of(D)) for weight, sign, D in zip(weights, signs, logits)]


TERMS = {  # for 6.1 and 6.2: what to tell the learner → what makes these terms of the three logits
    "All signs are flipped: softplus(−D) is small where D is *large*. The generator wants D(fake) large; the critic "
    "wants D(real) large and D(fake) small.": _terms((1, -1, 1)),
    "The sign in L_G is flipped: softplus(D) is small where the critic is sure that the sample is generated, and the "
    "generator wants the contrary, softplus(−D).": _terms((1, 1, -1)),
    "L_D has fake and real exchanged (or both signs flipped): this critic learns to call generated samples real, and "
    "real ones generated.": _terms((-1, -1, 1)),
    "The sign of D(fake) in L_D is flipped: this critic wants every logit large.": _terms((-1, -1, -1)),
    "The sign of D(real) in L_D is flipped: this critic wants every logit small.": _terms((-1, 1, 1)),
    "L_G saturates: −softplus(D) = log(1 − p) is flat where the critic is sure (D very negative), and there the "
    "generator has most to learn. softplus(−D) has its full slope there.": _terms((1, 1, -1), (-1, 1, 1)),
    "L_G is −D itself, which pulls just as hard at samples that already deceive the critic. softplus(−D) lets go of "
    "them.": lambda G, f, r: [-G, *_terms()(G, f, r)[1:]],
    "These are hinge losses, which other GANs use. DMD2 has softplus in all three places.":
        lambda G, f, r: (-G, (1 + f).relu(), (1 - r).relu()),
    "These are log-probabilities, which are to become *large*. A loss is minus log sigmoid(D), and that is "
    "softplus(−D).": _terms(weights=(-1, -1, -1)),
    "L_D lacks its real half: calling everything generated would be perfect.": _terms(weights=(1, 1, 0)),
    "L_D lacks its fake half: calling everything real would be perfect.": _terms(weights=(1, 0, 1)),
    "L_D is the *sum* of two means. The mean over both together is half of that.": _terms(weights=(1, 0.5, 0.5)),
    "sigmoid is applied twice: softplus takes the logit itself, not a probability.": _terms(of=Tensor.sigmoid),
}


# 6.1 gan_losses(fake, real) -> L_G, L_D; compared are the two, side by side

def _side_by_side(function, *case):
    pair = function(*case)
    return torch.stack(pair) if isinstance(pair, (tuple, list)) else pair


def _log_sums(fake, real):
    loss = lambda logits: torch.logaddexp(torch.zeros(()).double(), -logits.double()).mean()
    return torch.stack([loss(fake), loss(-fake) + loss(real)]).float()


def _logit_cases(g):
    """Logits of both signs; some that could be probabilities; those of a critic that is very sure."""
    sure = torch.tensor([120.0, -120.0])
    return [(2 * randn(g, 6), 2 * randn(g, 6) + 1), tuple(0.05 + 0.9 * torch.rand(2, 9, generator=g)),
            (torch.cat([sure, randn(g, 3)]), torch.cat([randn(g, 3), sure]))]


def _pair(terms=_terms(), reduce=Tensor.mean, pair=lambda G, D: (G, D)):
    def wrong(fake, real):
        G, f, r = map(reduce, terms(fake, fake, real))
        return pair(G, f + r)
    return wrong


ex_6_1 = Exercise("6.1", _log_sums, _logit_cases, {
    **{message: _pair(terms) for message, terms in TERMS.items()},
    "fake and real are exchanged throughout: L_G is of the fake ones.": lambda fake, real: _pair()(real, fake),
    "The two come back in the other order: L_G first, then L_D.": _pair(pair=lambda G, D: (D, G)),
    "This is L_G + L_D, one number. Return the two: they train different networks.": _pair(pair=lambda G, D: G + D),
    "Take the means, not the sums: the size of a batch should not change the learning rate.": _pair(reduce=Tensor.sum),
    "The mean is missing: this is one value a logit. A loss is one number.": _pair(reduce=KEEP),
    "You took the logits for probabilities: a logit may be any number, and its logarithm means nothing. The "
    "probability is sigmoid(D), and −log sigmoid(D) is softplus(−D).":
        _pair(lambda G, f, r: (-G.log(), -(1 - f).log(), -r.log())),
    "Right for small logits, infinite for large ones: e^D overflows, or sigmoid rounds to 0 or 1 and you take the "
    "logarithm of 0. softplus(D) is log(1 + e^D) without either.":
        _pair(lambda G, f, r: [(1 + value.exp()).log() for value in (-G, f, -r)]),
}, error="fake and real are logits, numbers of any size. L_G and L_D are one number each, of shape (); the check puts "
         "the two side by side.", probe=_side_by_side)


# 6.2 adversarial_loss(critic, weights, x, real) -> a scalar; compared are it and its derivatives by x and weights

def critic(x: Tensor, weights: Tensor) -> Tensor:
    """A stand-in for the critic, w₀ · 3 mean sin x + w₁: logits (B,)."""
    return weights[0] * 3 * x.sin().flatten(1).mean(1) + weights[1]


def _slopes(loss, critic, weights, x, real):
    """The loss and its derivatives in one row; what is no loss, one value an image say, as it is."""
    x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
    value = loss(critic, weights, x, real)
    if not isinstance(value, Tensor) or value.ndim:
        return value
    slopes = torch.autograd.grad(value + x.sum() + weights.sum(), (x, weights))  # each is 1 where nothing is learned
    return torch.cat([value.detach()[None], *(slope.flatten() - 1 for slope in slopes)])


def _by_calculus(critic, weights, x, real):
    """By hand: the slope of softplus(−D) is p − 1 and that of softplus(D) is p, where p = sigmoid(D)."""
    p, q = critic(x, weights).sigmoid(), critic(real, weights).sigmoid()
    value = -(p.log() + (1 - p).log() + q.log()).mean()
    by_x = torch.einsum("b,b...->b...", p - 1, 3 * weights[0] * x.cos()) / x.numel()
    sine = lambda images: critic(images, torch.tensor([1.0, 0.0]))
    by_weights = torch.stack([p * sine(x) + (q - 1) * sine(real), p + q - 1]).mean(1)
    return torch.cat([value[None], by_x.flatten(), by_weights])


def _loss(G=(KEEP, DROP), f=(DROP, KEEP), r=KEEP, terms=_terms(), reduce=Tensor.mean, total=lambda *terms: sum(terms)):
    """The mistaken loss that keeps or drops x and weights in two terms, and the weights in the third."""
    def wrong(critic, weights, x, real):
        ask = lambda of_x, of_weights: critic(of_x(x), of_weights(weights))
        return total(*map(reduce, terms(ask(*G), ask(*f), critic(real, r(weights)))))
    return wrong


ex_6_2 = Exercise("6.2", _by_calculus, lambda g: [
    (critic, randn(g, 2), randn(g, *shape), randn(g, *shape) + 0.5) for shape in ((6, 2), (3, 1, 4, 4), (5, 2, 3))], {
    "Nothing is detached, so the two fight: L_D would teach the generator to be found out, and L_G would teach the "
    "critic to be deceived. Detach the weights in L_G and x in L_D.": _loss((KEEP, KEEP), (KEEP, KEEP)),
    "x is attached in L_D, which then teaches the generator to be found out: x.detach().": _loss(f=(KEEP, KEEP)),
    "The weights are attached in L_G, which teaches the critic to be deceived: weights.detach().": _loss((KEEP, KEEP)),
    "The two detachments are exchanged: L_G trains the critic now, and L_D the generator, each towards the other's "
    "aim. Detach the weights in L_G and x in L_D.": _loss((DROP, KEEP), (KEEP, DROP)),
    "Both are detached in L_G, so the generator learns nothing. There x stays attached.": _loss((DROP, DROP)),
    "In L_G x is detached, not the weights: the critic learns from it, to be deceived.": _loss((DROP, KEEP)),
    "Both are detached in the critic's term of x, so it never learns what samples look like.": _loss(f=(DROP, DROP)),
    "In the critic's term of x you detached the weights in place of x: the generator is pushed back, and the critic "
    "learns from real images only.": _loss(f=(KEEP, DROP)),
    "The weights are detached on the real images, so the critic never learns what those look like.": _loss(r=DROP),
    "The weights are detached in all three terms: the critic learns nothing.": _loss(f=(DROP, DROP), r=DROP),
    "The value is right and nobody learns from it: everything is detached.": _loss((DROP, DROP), (DROP, DROP), DROP),
    **{message: _loss(terms=terms) for message, terms in TERMS.items()},
    "x and real are exchanged: the generator's samples are x.": lambda D, w, x, real: _loss()(D, w, real, x),
    "This is L_G alone. Add L_D.": _loss(total=lambda G, f, r: G),
    "This is L_D alone. Add L_G.": _loss(total=lambda G, f, r: f + r),
    "Take the means, not the sums.": _loss(reduce=Tensor.sum),
    "This is one value an image. A loss is one number: take the mean over the batch.": _loss(reduce=KEEP),
}, error="The loss is one number, of shape (). Compared are that number and its derivatives by x and by the weights.",
   probe=_slopes)


# 6.3 matched_weight(x, matching, gan, share) -> w; compared is w, or ±∞ for what the call leaves behind

def _weighed(function, matching_gradient, gan_gradient, share):
    """w. A call after which the losses cannot be trained on counts as −∞, one that leaves a gradient in the generator
    as ∞, whatever w is. The generator has one weight, 1, and the losses have these gradients at its images."""
    one = torch.ones(()).requires_grad_()
    x = one * matching_gradient.cos()
    losses = [(gradient * x).sum() for gradient in (matching_gradient, gan_gradient)]
    try:
        w = function(x, *losses, share)
        torch.autograd.grad(sum(losses), one, retain_graph=True)
    except RuntimeError as error:
        return torch.tensor(-math.inf) if "second time" in str(error) else error
    return torch.tensor(math.inf) if one.grad is not None else torch.tensor(w) if isinstance(w, float) else w


def _balance(weight=lambda m, r, share: share * m / r, size=lambda gradient: _norms(gradient).mean()):
    """The mistaken weight from this size of both gradients."""
    pull = lambda loss, x: size(torch.autograd.grad(loss, x, retain_graph=True)[0])
    return lambda x, matching, gan, share: weight(pull(matching, x), pull(gan, x), share)


ex_6_3 = Exercise("6.3", lambda matching_gradient, gan_gradient, share: ex_4_4.oracle(
    matching_gradient, gan_gradient, share), ex_4_4.cases, {
    "The graph of a loss is gone after the call, and training on it fails: “backward through the graph a second time”. "
    "Pass retain_graph=True to each torch.autograd.grad.": lambda x, m, gan, c: torch.autograd.grad(gan, x)[0].sum(),
    "backward() leaves its gradient in the generator's weights, where the next step of training would add it. Use "
    "torch.autograd.grad, which leaves none.": lambda x, m, gan, share: gan.backward(retain_graph=True),
    "The ratio is upside down: the harder gan pulls by itself, the *smaller* w.": _balance(lambda m, r, c: c * r / m),
    "This is 1/w, the weight that *matching* would need.": _balance(lambda m, r, share: r / (share * m)),
    "share is not used: with this weight both pull equally hard.": _balance(lambda m, r, share: m / r),
    "You divided by share, but gan is to pull share *times* as hard.": _balance(lambda m, r, share: m / (share * r)),
    "This is the ratio of the two *losses*. The value of matching means nothing (exercise 3.4), and only gradients "
    "pull: use torch.autograd.grad.": lambda x, matching, gan, share: share * matching / gan,
    "You took one norm over the whole batch, in which the few images with the longest gradients decide. Take each "
    "image's norm, then their mean.": _balance(size=Tensor.norm),
    "You took the mean absolute value of the entries. Take each image's norm, the root of its sum of squares.":
        _balance(size=lambda gradient: gradient.abs().mean()),
    "The norms are squared: the root is missing. A gradient that is twice as long should count twice, not four times.":
        _balance(size=lambda gradient: _norms(gradient).square().mean()),
    "This is the mean of all images' ratios. Take means first.": _balance(lambda m, r, c: c * (m / r).mean(), _norms),
    "This is one weight an image. w is one number: take the means over the batch first.": _balance(size=_norms),
}, error="The weight is one number: a float, or a tensor of shape ().", probe=_weighed)


# 6.4 simulate(student, alpha, sigma, z, eps) -> the state at the last of the times; ∞ if attached to the student

def _attachment_first(function, student, alpha, sigma, z, eps):
    state = function(student, alpha, sigma, z, eps)
    attached = isinstance(state, Tensor) and state.requires_grad
    return state if not attached else torch.full_like(state, math.inf) if len(eps) else z


@torch.no_grad()
def _from_the_end(student, alpha, sigma, z, eps):
    """The last state is noised from what the student says of the state before, and that one likewise."""
    if len(alpha) == 1:
        return z
    before = _from_the_end(student, alpha[:-1], sigma[:-1], z, eps[:-1])
    return torch.addcmul(sigma[-1] * eps[-1], alpha[-1], student(before, len(alpha) - 2))


def _walks(g):
    """Lists of 4, 2, 3 and 1 times from pure noise, the last one with no step; students with weights to learn."""
    cases = []
    for n, shape in ((4, (5, 2)), (2, (3, 1, 4, 4)), (3, (2, 3, 2)), (1, (4, 2))):
        angle = math.pi / 2 * (1 - (torch.arange(n) / n)**0.8)
        alpha = torch.where(torch.arange(n) > 0, angle.cos(), 0.0)  # at π/2 exactly 0, as in the kit's schedule
        student = lambda x, k, w=randn(g, 3).requires_grad_(): w[0] * torch.tanh(2 * x) + w[1] * x + w[2] * (k + 1)
        cases.append((student, alpha, angle.sin(), randn(g, *shape), randn(g, n - 1, *shape)))
    return cases


def _walk(noised=lambda x, e, a, s: a * x + s * e, of=lambda x, x_t, z, e, *_: (x, e), to=1, steps=-1, keep=DROP,
          ask=lambda G, x_t, z, k: G(x_t, k), end=lambda x_t, x, ask: x_t, noise=lambda eps, k: eps[k]):
    """The mistaken walk: how is what noised, to which time, how often; what is the student asked, what comes back."""
    def wrong(student, alpha, sigma, z, eps):
        x, x_t = z, z
        for k in range(len(alpha) + steps):
            x = keep(ask(student, x_t, z, k))
            x_t = noised(*of(x, x_t, z, noise(eps, k), alpha[k], sigma[k]), alpha[k + to], sigma[k + to])
        return end(x_t, x, lambda state: student(state, len(alpha) - 1).detach())
    return wrong


ex_6_4 = Exercise("6.4", _from_the_end, _walks, {
    "The state is attached to the student, so a loss on it would train all the steps that led there. They only show "
    "what the last step will meet: put them under torch.no_grad().": _walk(keep=KEEP),
    "You noised to alpha[k], where the step began: at k = 0 that is pure noise again. Noise to k + 1.": _walk(to=0),
    "This is x̂ at the last time, one call too many. Return the state there.": _walk(end=lambda x_t, x, ask: ask(x_t)),
    "This is x̂ of the last call. Noise it to the last time: training needs a *state*.": _walk(end=lambda x_t, x, _: x),
    "This is one step too few, the state at the last time but one: n times have n − 1 steps.": _walk(steps=-2),
    "You noised with z again. Take fresh noise after each step, eps[k].": _walk(of=lambda x, x_t, z, *_: (x, z)),
    "You noised with the predicted noise, as DDIM does. This student takes fresh noise after each step, eps[k].":
        _walk(of=lambda x, x_t, z, e, a, s: (x, (x_t - a * x) / s)),
    "Every step took the same noise, eps[0]. Step k has its own, eps[k].": _walk(noise=lambda eps, k: eps[0]),
    "α and σ are exchanged: the state is α x̂ + σ ε.": _walk(lambda x, e, a, s: s * x + a * e),
    "x̂ is not scaled: the state is α x̂ + σ ε, and α is missing.": _walk(lambda x, e, a, s: x + s * e),
    "The noise is not scaled: the state is α x̂ + σ ε, and σ is missing.": _walk(lambda x, e, a, s: a * x + e),
    "The noise is missing: the state is α x̂ + σ ε.": _walk(lambda x, e, a, s: a * x),
    "You fed x̂ back as it is, but the student wants a *noisy* state: noise x̂.": _walk(lambda x, e, a, s: x),
    "You noised z. Noise x̂, what the student makes of the state.": _walk(of=lambda x, x_t, z, e, *_: (z, e)),
    "You noised the state before, noisy already. Noise x̂, the answer.": _walk(of=lambda x, x_t, z, e, *_: (x_t, e)),
    "The student was told k = 0 in every call, not its state's place, k.": _walk(ask=lambda G, x_t, z, k: G(x_t, 0)),
    "The student was told k + 1, where the step leads. It wants the place of the state that it is given: k.":
        _walk(ask=lambda G, x_t, z, k: G(x_t, k + 1)),
    "The student was shown z in every call. Show it the new state.": _walk(ask=lambda G, x_t, z, k: G(z, k)),
}, error="Return one state, in the shape of z.", probe=_attachment_first,
   random="It draws its own noise. The noise between the steps is handed in as eps.")
