"""Lesson 06, the discriminator: 6.1 the two losses of a GAN, 6.2 both in one scalar.

The oracles are written another way than the lesson's solutions: by log(e⁰ + e^D) in float64 and by
calculus. The discriminator is a stand-in, a function of two weights.
"""
import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import probes
from .cases import randn
from .harness import Exercise
from .standins import discriminator


def _terms(signs=(-1, 1, -1), weights=(1, 1, 1)):
    """weight · softplus(sign · D) of three logits: D(fake) in L_G, D(fake) in L_D and D(real). The
    default is right."""
    def terms(*logits):
        return [w * softplus(sign * D) for w, sign, D in zip(weights, signs, logits)]
    return terms


TERMS = {  # for 6.1 and 6.2: what to tell the learner → what makes these terms of the three logits
    "All signs are flipped: softplus(−D) is small where D is *large*. The generator wants D(fake) "
    "large; the discriminator wants D(real) large and D(fake) small.":
        _terms((1, -1, 1)),
    "The sign in L_G is flipped: softplus(D) is small where the discriminator is sure that the "
    "sample is generated, and the generator wants the contrary, softplus(−D).":
        _terms((1, 1, -1)),
    "L_D has fake and real exchanged (or both signs flipped): this discriminator learns to call "
    "generated samples real, and real ones generated.":
        _terms((-1, -1, 1)),
    "The sign of D(fake) in L_D is flipped: this discriminator wants every logit large.":
        _terms((-1, -1, -1)),
    "The sign of D(real) in L_D is flipped: this discriminator wants every logit small.":
        _terms((-1, 1, 1)),
    "L_G saturates: −softplus(D) = log(1 − p) is flat where the discriminator is sure (D very "
    "negative), and there the generator has most to learn. softplus(−D) has its full slope there.":
        _terms((1, 1, -1), (-1, 1, 1)),
    "L_G is −D itself, whose gradient is as long at samples that already deceive the "
    "discriminator. That of softplus(−D) fades there.":
        lambda G, f, r: (-G, softplus(f), softplus(-r)),
    "These are hinge losses, which other GANs use. DMD2 has softplus in all three places.":
        lambda G, f, r: (-G, (1 + f).relu(), (1 - r).relu()),
    "These are log-probabilities, which are to become *large*. A loss is minus log sigmoid(D), "
    "and that is softplus(−D).":
        _terms(weights=(-1, -1, -1)),
    "L_D lacks its real half: calling everything generated would be perfect.":
        _terms(weights=(1, 1, 0)),
    "L_D lacks its fake half: calling everything real would be perfect.":
        _terms(weights=(1, 0, 1)),
    "L_D is the *sum* of two means. The mean over both together is half of that.":
        _terms(weights=(1, 0.5, 0.5)),
    "sigmoid is applied twice: softplus takes the logit itself, not a probability.":
        lambda G, f, r: _terms()(G.sigmoid(), f.sigmoid(), r.sigmoid()),
}


# 6.1 gan_losses(fake, real) -> L_G, L_D; compared are both and their derivatives by the logits

def _log_sums(fake, real):
    n = len(fake)
    zero = torch.zeros(()).double()
    G = torch.logaddexp(zero, -fake.double()).mean()
    D = torch.logaddexp(zero, fake.double()).mean() + torch.logaddexp(zero, -real.double()).mean()
    return G, D, -(-fake).sigmoid() / n, fake.sigmoid() / n, -(-real).sigmoid() / n


def _logit_cases(g):
    """Logits of both signs; some that could be probabilities; some of a very sure
    discriminator."""
    sure = torch.tensor([120.0, -120.0])
    return [(2 * randn(g, 6), 2 * randn(g, 6) + 1),
            (0.05 + 0.9 * torch.rand(9, generator=g), 0.05 + 0.9 * torch.rand(9, generator=g)),
            (torch.cat([sure, randn(g, 3)]), torch.cat([randn(g, 3), sure]))]


def _pair(terms=_terms(), reduce=Tensor.mean):
    """The mistaken losses: these terms of the logits, reduced."""
    def wrong(fake, real):
        G, f, r = map(reduce, terms(fake, fake, real))
        return G, f + r
    return wrong


ex_6_1 = Exercise("6.1", _log_sums, _logit_cases, {
    **{message: _pair(terms) for message, terms in TERMS.items()},
    "fake and real are exchanged throughout: L_G is of the fake ones.":
        lambda fake, real: _pair()(real, fake),
    "The two come back in the other order: L_G first, then L_D.":
        lambda fake, real: _pair()(fake, real)[::-1],
    "This is L_G + L_D, one number. Return the two: they train different networks.":
        lambda fake, real: sum(_pair()(fake, real)),
    "Take the means, not the sums: the size of a batch should not change the learning rate.":
        _pair(reduce=Tensor.sum),
    "The values are right, and nothing learns from them. Leave the losses attached to the logits: "
    "no detach(), no .item(), no no_grad.":
        lambda fake, real: _pair()(fake.detach(), real.detach()),
    "You took the logits for probabilities: a logit may be any number, and its logarithm means "
    "nothing. The probability is sigmoid(D), and −log sigmoid(D) is softplus(−D).":
        _pair(lambda G, f, r: (-G.log(), -(1 - f).log(), -r.log())),
    "Right for small logits, infinite for large ones: e^D overflows, or sigmoid rounds to 0 or 1 "
    "and you take the logarithm of 0. softplus(D) is log(1 + e^D) without either.":
        _pair(lambda G, f, r: [(1 + D.exp()).log() for D in (-G, f, -r)]),
}, hint="fake and real are logits, numbers of any size. L_G and L_D are one number each.",
    probe=probes.both_losses,
    parts=("L_G", "L_D", "dL_G/dfake", "dL_D/dfake", "dL_D/dreal"))


# 6.2 adversarial_loss(discriminator, weights, x, real) -> a scalar; compared are it and its
# derivatives by x and by the weights

def _by_calculus(discriminator, weights, x, real):
    """The slope of softplus(−D) is p − 1 and that of softplus(D) is p, where p = sigmoid(D)."""
    p = discriminator(x, weights).sigmoid()
    q = discriminator(real, weights).sigmoid()
    value = -(p.log() + (1 - p).log() + q.log()).mean()
    by_x = torch.einsum("b,b...->b...", p - 1, 3 * weights[0] * x.cos()) / x.numel()
    sine = torch.tensor([1.0, 0.0])  # the weights that leave D without its constant
    by_first = p * discriminator(x, sine) + (q - 1) * discriminator(real, sine)
    return value, by_x, torch.stack([by_first.mean(), (p + q - 1).mean()])


def _sample_cases(g):
    return [(discriminator, randn(g, 2), randn(g, *shape), randn(g, *shape) + 0.5)
            for shape in ((6, 2), (3, 1, 4, 4), (5, 2, 3))]


def _loss(G="x", f="w", r="w", terms=_terms()):
    """The mistaken loss. Of x and the weights w those that are named stay attached: in L_G, in
    L_D's term of x and in that of real (which is as it comes)."""
    def wrong(discriminator, weights, x, real):
        def ask(images, attached):
            images = images if "x" in attached else images.detach()
            return discriminator(images, weights if "w" in attached else weights.detach())

        return sum(term.mean() for term in terms(ask(x, G), ask(x, f), ask(real, "x" + r)))
    return wrong


ex_6_2 = Exercise("6.2", _by_calculus, _sample_cases, {
    "Nothing is detached, so the two fight: L_D would teach the generator to be found out, and "
    "L_G would teach the discriminator to be deceived. Detach the weights in L_G and x in L_D.":
        _loss("xw", "xw"),
    "x is attached in L_D, which then teaches the generator to be found out: x.detach().":
        _loss(f="xw"),
    "The weights are attached in L_G, which teaches the discriminator to be deceived: "
    "weights.detach().":
        _loss("xw"),
    "The two detachments are exchanged: L_G trains the discriminator now, and L_D the generator, "
    "each towards the other's aim. Detach the weights in L_G and x in L_D.":
        _loss("w", "x"),
    "Both are detached in L_G, so the generator learns nothing. There x stays attached.":
        _loss(""),
    "In L_G x is detached, not the weights: the discriminator learns from it, to be deceived.":
        _loss("w"),
    "Both are detached in the discriminator's term of x, so it never learns what samples "
    "look like.":
        _loss(f=""),
    "In the discriminator's term of x you detached the weights in place of x: the generator is "
    "pushed back, and the discriminator learns from real images only.":
        _loss(f="x"),
    "The weights are detached on the real images, so the discriminator never learns what "
    "those look like.":
        _loss(r=""),
    "The weights are detached in all three terms: the discriminator learns nothing.":
        _loss(f="", r=""),
    "The value is right and nobody learns from it: everything is detached.":
        _loss("", "", ""),
    **{message: _loss(terms=terms) for message, terms in TERMS.items()},
    "x and real are exchanged: the generator's samples are x.":
        lambda D, w, x, real: _loss()(D, w, real, x),
    "This is L_G alone. Add L_D.":
        lambda D, w, x, real: softplus(-D(x, w.detach())).mean(),
    "This is L_D alone. Add L_G.":
        lambda D, w, x, real: (softplus(D(x.detach(), w)) + softplus(-D(real, w))).mean(),
    "Take the means, not the sums.":
        lambda D, w, x, real: len(x) * _loss()(D, w, x, real),
}, probe=probes.adversarial,
    parts=("the loss", "its derivative by x", "its derivative by the weights"))
