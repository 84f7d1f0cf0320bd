"""Lesson 04: a batch of pairs, the regression loss, the guided gradient, the weight between the two, the fake loss.

The oracles are written another way than the lesson's solutions: one sample at a time, by lesson 03's oracle, as the
root of a line, by calculus. Networks are stand-ins: functions of x_t, t and label that refuse the labels that the
kit's denoisers refuse.
"""
import torch
from torch import Tensor

from ..denoiser import check_label
from .harness import Exercise, randn, tables
from .lesson03 import ex_3_3, fake_mean, real_mean

N_CLASSES = 10
SHAPES = (5, 1, 4, 3), (6, 1, 2, 2), (3, 2, 4, 4)  # of images; B is never W, so that a wrong broadcast is an error


def _column(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1)


def _tell(label: Tensor | None, n: int, n_classes: int = N_CLASSES) -> Tensor:
    """What a stand-in adds for each label, (n, 1, 1, 1). None is no class, as everywhere in the kit."""
    check_label(label, n, n_classes)
    return _column((1.7 * (torch.full((n,), n_classes) if label is None else label) + 0.4).sin())


def _labels(g: torch.Generator, n: int, n_classes: int = N_CLASSES) -> Tensor:
    return torch.randperm(n_classes, generator=g)[:n]


def _slopes(value, weights: list[Tensor]):
    """A loss and its derivatives by the weights, in one row; of what it does not depend on, 0. What is no loss, one
    value an image for instance, comes back as it is."""
    if not isinstance(value, Tensor) or value.ndim:
        return value.detach() if isinstance(value, Tensor) else value
    slopes = torch.autograd.grad(value, weights, allow_unused=True) if value.requires_grad else [None] * len(weights)
    return torch.stack([value.detach(), *(torch.zeros(()) if slope is None else slope for slope in slopes)])


def _generator(c: Tensor, d: Tensor, f: Tensor):
    """A generator of three weights, G(z, label) = c z + d + f times what the label tells."""
    return lambda z, label=None: c * z + d + f * _tell(label, len(z))


ONE_NUMBER = ("The loss is one number, of shape (). Compared are that number and its derivatives by the weights, {} "
              "values in all.")


# 4.1 pair_batch(z, y, label, index) -> (z, y, label) of the batch; compared is a row a pair: noise, image, label

def _rows(function, *case):
    """The three tensors that the function returns side by side, or end to end if they have not equally many rows."""
    batch = function(*case)
    if batch is None or isinstance(batch, Tensor):
        return batch
    if not (isinstance(batch, (tuple, list)) and all(isinstance(value, Tensor) for value in batch)):
        raise TypeError(f"three tensors should come back, `return …, …, …`; this is a {type(batch).__name__}")
    parts = [value.double().reshape(len(value) if value.ndim else 1, -1) for value in batch]
    return torch.cat(parts, 1) if len({*map(len, parts)}) == 1 else torch.cat([part.flatten() for part in parts])


def _pair_by_pair(z, y, label, index):
    return torch.stack([torch.cat([z[i].flatten(), y[i].flatten(), label[i:i + 1]]) for i in index.tolist()])


def _pair_cases(g):
    """One index takes a pair twice, another takes each pair once, so that its batch is as long as the set."""
    return [(randn(g, n, *shape), randn(g, n, *shape), _labels(g, n), torch.tensor(index)) for n, shape, index in (
        (9, (1, 4, 3), [7, 2, 5, 2]), (6, (1, 3, 3), [3, 0, 5, 1, 4, 2]), (8, (3, 2, 2), [6, 1, 4]))]


def _batch(z=lambda z, i: z[i], y=lambda y, i: y[i], label=lambda label, i: label[i]):
    return lambda all_z, all_y, all_labels, index: (z(all_z, index), y(all_y, index), label(all_labels, index))


def _first(value, index):
    return value[:len(index)]


ex_4_1 = Exercise("4.1", _pair_by_pair, _pair_cases, {
    "The labels are the first B of the set, while noise and images are those of index. So nearly every image gets "
    "another pair's label, and the regression pulls digits towards other classes' digits. Take label[index].":
        _batch(label=_first),
    "The labels are all N, as they were. A batch has one label a pair: take label[index].":
        _batch(label=lambda label, i: label),
    "The noise is the first B of the set, while images and labels are those of index: z and y belong together only "
    "within a pair. Take z[index].": _batch(z=_first),
    "The images are the first B of the set, while noise and labels are those of index: z and y belong together only "
    "within a pair. Take y[index].": _batch(y=_first),
    "index is not used: these are the first B pairs, in every batch the same ones. Take z[index], y[index] and "
    "label[index].": _batch(_first, _first, _first),
    "The labels count 0, 1, 2, … 9, 0, … by place in the batch. The pairs may have been made in that order, but "
    "index has shuffled them. Take label[index].": _batch(label=lambda label, i: torch.arange(len(i)) % N_CLASSES),
    "You worked the labels out of the pairs' numbers, index % 10. That holds only as long as the pairs lie as they "
    "were made. Each pair has its label stored with it: label[index].": _batch(label=lambda label, i: i % N_CLASSES),
    "The labels are in another order than the pairs: you sorted index for them. Use index as it is for all three.":
        _batch(label=lambda label, i: label[i.sort().values]),
    "These are the right pairs in another order: you sorted index. Use it as it is, so that row k of the batch is pair "
    "index[k].": _batch(*[lambda value, i: value[i.sort().values]] * 3),
    "You dropped what index names twice. A batch drawn at random may hold a pair twice, and it should have one row for "
    "each entry of index.": _batch(*[lambda value, i: value[i.unique()]] * 3),
    "The label is missing: return three tensors, z[index], y[index] and label[index].":
        lambda z, y, label, index: (z[index], y[index]),
    "Noise and image are exchanged: return z first, then y, then the label.":
        lambda z, y, label, index: (y[index], z[index], label[index]),
    "The three are in another order: return z, then y, and the label last.":
        lambda z, y, label, index: (z[index], label[index], y[index]),
}, error="Return three tensors, in this order: z, y and label of the batch, each with one row for each entry of index.",
   random="It draws something of its own: a second shuffle, or new noise or labels. All three follow from index alone.",
   probe=_rows)


# 4.2 regression_loss(generate, distance, z, y, label) -> a scalar; compared are its value and its derivatives

def _distance(x: Tensor, y: Tensor) -> Tensor:
    """A stand-in for LPIPS, (B,): between the mean absolute and the mean squared difference."""
    return (1 + (x - y).square()).sqrt().flatten(1).mean(1) - 1


def _regressed(loss, weights, z, y, label):
    """The loss and its derivatives by the generator's three weights."""
    weights = [value.clone().requires_grad_() for value in weights]
    return _slopes(loss(_generator(*weights), _distance, z, y, label), weights)


def _regression_by_calculus(weights, z, y, label):
    c, d, f = weights
    told = _tell(label, len(z))
    error = c * z + d + f * told - y
    root = torch.hypot(error, torch.ones(()))
    return torch.stack([(root - 1).mean(), *((error / root * by).mean() for by in (z, 1, told))])


def _regression_cases(g):
    return [(randn(g, 3), randn(g, *shape), randn(g, *shape), _labels(g, shape[0])) for shape in SHAPES]


ex_4_2 = Exercise("4.2", _regression_by_calculus, _regression_cases, {
    "The value is right, and nothing learns from it: the generated image is detached (or made under no_grad, as "
    "Denoiser.generate does), so no gradient reaches the generator. Leave it attached.":
        lambda generate, d, z, y, label: d(generate(z, label).detach(), y).mean(),
    "The label is left out: y is the image of z *for this label*, so the generator has to be told it. "
    "Call generate(z, label).": lambda generate, d, z, y, label: d(generate(z, None), y).mean(),
    "Take the mean over the batch, not the sum, so that the size of a batch does not change λ's meaning.":
        lambda generate, d, z, y, label: d(generate(z, label), y).sum(),
    "This is one value an image, as distance gives it. A loss is one number: take the mean over the batch.":
        lambda generate, d, z, y, label: d(generate(z, label), y),
    "The generator was shown y, the image. It makes images from noise: generate(z, label).":
        lambda generate, d, z, y, label: d(generate(y, label), y).mean(),
    "Noise and image are exchanged: the generator makes an image of z, and y is what that should be.":
        lambda generate, d, z, y, label: d(generate(y, label), z).mean(),
    "The target is z, so the generator learns to return its noise. Compare with y, the image that the teacher's solver "
    "made of z.": lambda generate, d, z, y, label: d(generate(z, label), z).mean(),
    "The generator is missing: this is the distance of the noise itself from y, and no weight can change it.":
        lambda generate, d, z, y, label: d(z, y).mean(),
    "This is the mean squared error. Use the given distance: it says how unlike two images look.":
        lambda generate, d, z, y, label: (generate(z, label) - y).square().mean(),
    "This is the mean absolute error. Use the given distance: it says how unlike two images look.":
        lambda generate, d, z, y, label: (generate(z, label) - y).abs().mean(),
    "You squared the distance. It is compared as it is: only its mean over the batch is left to take.":
        lambda generate, d, z, y, label: d(generate(z, label), y).square().mean(),
    "There is a factor ½ that the formula does not have.":
        lambda generate, d, z, y, label: 0.5 * d(generate(z, label), y).mean(),
}, error=ONE_NUMBER.format(4), probe=_regressed,
   random="It draws fresh noise. y is the image of the given z and of no other: use that z.")


# 4.3 guided_gradient(x, t, eps, label, real, fake, w, no_class, alpha, sigma) -> g

def _step_from_unguided(x, t, eps, label, real, fake, w, no_class, alpha, sigma):
    """For one sample at a time: lesson 03's oracle with a real score that starts from the prediction without class and
    goes 1 + w times the way to the one with it."""
    rows = []
    for i in range(len(x)):
        one, none = label[i:i + 1], torch.tensor([no_class])
        guided = lambda x_t, t: torch.lerp(real(x_t, t, none), real(x_t, t, one), 1 + w)
        rows.append(ex_3_3.oracle(x[i:i + 1], t[i:i + 1], eps[i:i + 1], guided, lambda x_t, t: fake(x_t, t, one),
                                  alpha, sigma))
    return torch.cat(rows)


def _labelled(mean, share: float, n_classes: int):
    """A stand-in for a labelled denoiser's x-prediction: one of lesson 03's, and what the label tells."""
    return lambda x_t, t, label=None: mean(x_t, t) + share * _tell(label, len(x_t), n_classes)


def _guided_cases(g):
    cases = []
    for shape, T, w, n_classes in zip(SHAPES, (30, 50, 20), (0.5, 2.0, 1.3), (N_CLASSES, N_CLASSES, 4)):
        t = torch.randperm(T - 2, generator=g)[:shape[0]] + 1
        nets = _labelled(real_mean, 0.6, n_classes), _labelled(fake_mean, 0.4, n_classes)
        cases.append((randn(g, *shape), t, randn(g, *shape), _labels(g, shape[0], n_classes), *nets, w, n_classes,
                      *tables(T)))
    return cases


def _guide(c, u, w):
    return (1 + w) * c - w * u


def _guided(mu_real=_guide, mu_fake=lambda c, u, w: c, compared=None, none=torch.full_like):
    """The mistaken gradient with these mixtures of the predictions with the label and without, and the size of
    x − this one (μ_real by default)."""
    def wrong(x, t, eps, label, real, fake, w, no_class, alpha, sigma):
        x_t = _column(alpha[t]) * x + _column(sigma[t]) * eps
        mixed = lambda mix, net: mix(net(x_t, t, label), net(x_t, t, none(label, no_class)), w)
        size = (x - mixed(compared or mu_real, real)).abs().mean((1, 2, 3), keepdim=True)
        return (mixed(mu_fake, fake) - mixed(mu_real, real)) / size
    return wrong


def _from_lesson_3(wrong):
    """Exercise 3.3's mistake, made with the right guidance."""
    def labelled(x, t, eps, label, real, fake, w, no_class, alpha, sigma):
        none = torch.full_like(label, no_class)
        guided = lambda x_t, t: _guide(real(x_t, t, label), real(x_t, t, none), w)
        return wrong(x, t, eps, guided, lambda x_t, t: fake(x_t, t, label), alpha, sigma)
    return labelled


ex_4_3 = Exercise("4.3", _step_from_unguided, _guided_cases, {
    "The fake score is guided too. It has to describe the generator's samples as they are: guide the real one only.":
        _guided(mu_fake=_guide),
    "You guided the fake score in place of the real one. The guided distribution is where the samples should go, so "
    "guidance belongs to the real score.": _guided(mu_real=lambda c, u, w: c, mu_fake=_guide),
    "The guidance is left out: μ_real is the prediction with the label alone. Subtract w times the one without class "
    "from (1 + w) times it.": _guided(mu_real=lambda c, u, w: c),
    "This is the other convention of guidance, w c + (1 − w) u, in which 1 means none. Here w = 0 means none: "
    "(1 + w) c − w u.": _guided(mu_real=lambda c, u, w: w * c + (1 - w) * u),
    "Label and no class have exchanged their roles in the guidance: this steers *away* from the label. (1 + w) belongs "
    "to the prediction with the label.": _guided(mu_real=lambda c, u, w: _guide(u, c, w)),
    "The sign of the guidance is flipped: this mixes the prediction without class *in*, so the label counts less.":
        _guided(mu_real=lambda c, u, w: _guide(c, u, -w)),
    "The 1 is missing from the guidance: (1 + w) times the prediction with the label, so that the weights sum to 1.":
        _guided(mu_real=lambda c, u, w: w * (c - u)),
    "The label is left out of both scores. The teacher and the fake score both know classes: tell them.":
        _guided(mu_real=lambda c, u, w: u, mu_fake=lambda c, u, w: u),
    "The real score was asked without class only. Guidance needs it twice: with the label and without.":
        _guided(mu_real=lambda c, u, w: u),
    "The fake score was asked without class. It learns from labelled samples: ask it with their label.":
        _guided(mu_fake=lambda c, u, w: u),
    "The size is that of x minus the *unguided* prediction. The μ_real in the denominator is the guided one, the same "
    "as in the numerator.": _guided(compared=lambda c, u, w: c),
    "You took label 0 for no class, but 0 is the digit zero. No class has a number of its own, no_class.":
        _guided(none=lambda label, no_class: torch.zeros_like(label)),
    "You wrote the number 10 for no class. How many classes there are is the network's affair: use no_class.":
        _guided(none=lambda label, no_class: torch.full_like(label, 10)),
    **{message: _from_lesson_3(wrong) for message, wrong in ex_3_3.mistakes.items()},
}, error="alpha[t] has shape (B,), and x has (B, C, H, W): reshape the first to (B, 1, 1, 1).", random=ex_3_3.random)


# 4.4 regression_weight(matching_gradient, regression_gradient, share) -> λ

def _root_of_a_line(matching_gradient, regression_gradient, share):
    """Where the length of λ times the regression's gradient minus share times the matching's is zero: that is a line
    in λ. One image at a time."""
    length = lambda gradient: sum((image * image).sum()**0.5 for image in gradient) / len(gradient)
    excess = lambda weight: length(weight * regression_gradient) - share * length(matching_gradient)
    return -excess(0) / (excess(1) - excess(0))


def _weight_cases(g):
    """Gradients whose length differs from image to image."""
    cases = []
    for shape, share in (((5, 1, 4, 3), 0.25), ((4, 2, 3, 3), 0.6), ((7, 3, 2, 5), 3.0)):
        m, r = (randn(g, *shape) * randn(g, shape[0], 1, 1, 1).exp() for _ in "mr")
        cases.append((m, 0.3 * r, share))
    return cases


def _norms(gradient):
    return gradient.flatten(1).norm(dim=1)


def _balance(size=lambda gradient: _norms(gradient).mean(), weight=lambda m, r, share: share * m / r):
    """The mistaken weight from this size of both gradients."""
    return lambda m, r, share: weight(size(m), size(r), share)


ex_4_4 = Exercise("4.4", _root_of_a_line, _weight_cases, {
    "The ratio is upside down: the longer the regression's gradient is by itself, the *smaller* its weight. "
    "λ = share · (matching's length)/(regression's length).": _balance(weight=lambda m, r, share: share * r / m),
    "This is 1/λ, the weight that the *matching* term would need. λ multiplies the regression term.":
        _balance(weight=lambda m, r, share: r / (share * m)),
    "share is not used: this λ makes both gradients equally long.": _balance(weight=lambda m, r, share: m / r),
    "You divided by share. The weighted regression is to be share *times* as long as the matching term.":
        _balance(weight=lambda m, r, share: m / (share * r)),
    "You took share as a share of the sum of both. It compares the regression with the matching term alone: λ r = "
    "share · m.": _balance(weight=lambda m, r, share: share / (1 - share) * m / r),
    "You took one norm over the whole batch, in which the few images with the longest gradients decide. Take each "
    "image's norm, then their mean.": _balance(lambda gradient: gradient.norm()),
    "You took the mean absolute value of all entries. Take the norm of each image's gradient, the root of its sum of "
    "squares, then the mean over the batch.": _balance(lambda gradient: gradient.abs().mean()),
    "The norms are squared: the root is missing. A gradient that is twice as long should count twice, not four times.":
        _balance(lambda gradient: _norms(gradient).square().mean()),
    "You took the mean of each image's own ratio. It is one ratio, of two means: the images of the two terms are not "
    "the same ones, so there is nothing to compare image by image.":
        lambda m, r, share: share * (_norms(m) / _norms(r)).mean(),
    "This is one weight an image. λ is one number: take the mean of the norms over the batch, then divide.":
        _balance(_norms),
    "You took the norm over the channels only. An image's gradient has C·H·W entries: flatten(1) first, then the norm "
    "over dimension 1.": _balance(lambda gradient: gradient.norm(dim=1).mean()),
    "You compared the longest gradients of the batch. Compare the means over the batch.":
        _balance(lambda gradient: _norms(gradient).max()),
}, error="λ is one number, a tensor of shape ().")


# 4.5 fake_loss(fake, generate, z, label, t, eps, alpha, sigma) -> a scalar; compared are its value and derivatives

def _learned(loss, weights, z, label, t, eps, alpha, sigma):
    """The loss, and its derivatives by the fake's three weights and by the generator's three, for
    fake(x_t, t, label) = a x_t + b t/10 + e times what the label tells."""
    a, b, e, *_ = weights = [value.clone().requires_grad_() for value in weights]
    fake = lambda x_t, t, label=None: a * x_t + b * _column(t) / 10 + e * _tell(label, len(x_t))
    return _slopes(loss(fake, _generator(*weights[3:]), z, label, t, eps, alpha, sigma), weights)


def _fake_by_calculus(weights, z, label, t, eps, alpha, sigma):
    a, b, e, c, d, f = weights
    told, time = _tell(label, len(z)), _column(t) / 10
    x = c * z + d + f * told
    x_t = _column(alpha[t]) * x + _column(sigma[t]) * eps
    error = a * x_t + b * time + e * told + _column(sigma[t]) * x - _column(alpha[t]) * eps
    return torch.stack([(error**2).mean(), *((2 * error * by).mean() for by in (x_t, time, told)), *torch.zeros(3)])


def _fake_cases(g):
    cases = []
    for shape, T in zip(SHAPES, (30, 50, 20)):
        t = torch.randint(1, T, (shape[0],), generator=g)
        cases.append((randn(g, 6), randn(g, *shape), _labels(g, shape[0]), t, randn(g, *shape), *tables(T)))
    return cases


def _taught(seen=Tensor.detach, compared=Tensor.detach, says=lambda out: out, x_t=lambda x, eps, a, s: a * x + s * eps,
            v=lambda x, eps, a, s: a * eps - s * x, factor=lambda a, s: 1, reduce=Tensor.mean, told=(True, True)):
    """The mistaken loss with these samples shown and compared with, this answer, this x_t, target, factor on the error
    and mean; ``told`` says whether the generator and the fake score get the label."""
    def wrong(fake, generate, z, label, t, eps, alpha, sigma):
        a, s = _column(alpha[t]), _column(sigma[t])
        x = generate(z, label if told[0] else None)
        out = says(fake(x_t(seen(x), eps, a, s), t, label if told[1] else None))
        return reduce((factor(a, s) * (out - v(compared(x), eps, a, s))).square())
    return wrong


def _attached(x):
    return x


def _same_noise(fake, generate, z, label, t, eps, alpha, sigma):
    return _taught()(fake, generate, z, label, t, z, alpha, sigma)


ex_4_5 = Exercise("4.5", _fake_by_calculus, _fake_cases, {
    "The samples are not detached: this loss would also teach the *generator* to draw what is easy to denoise. Use "
    "x = generate(z, label).detach().": _taught(_attached, _attached),
    "Half detached: the x in x_t is, the x in the target v is not. Detach the samples once, "
    "x = generate(z, label).detach(), before either.": _taught(compared=_attached),
    "Half detached: the x in the target v is, the x in x_t is not. Detach the samples once, "
    "x = generate(z, label).detach(), before either.": _taught(seen=_attached),
    "Nothing learns from this: the fake score's answer is detached too (or all is under no_grad). Detach the samples "
    "only.": _taught(says=Tensor.detach),
    "The target is x. This fake score starts as a copy of the teacher and predicts v = α ε − σ x.":
        _taught(v=lambda x, eps, a, s: x),
    "The target is ε. This fake score starts as a copy of the teacher and predicts v = α ε − σ x.":
        _taught(v=lambda x, eps, a, s: eps),
    "The sign of v is flipped: v = α ε − σ x.": _taught(v=lambda x, eps, a, s: s * x - a * eps),
    "There is a plus in v where the formula has a minus: v = α ε − σ x.":
        _taught(v=lambda x, eps, a, s: a * eps + s * x),
    "α and σ are swapped in v: it is α ε − σ x, nearly ε where there is little noise.":
        _taught(v=lambda x, eps, a, s: s * eps - a * x),
    "You turned v into a prediction of x before comparing, which multiplies each squared error by σ². Compare v "
    "itself, as the teacher was trained.":
        _taught(factor=lambda a, s: s),
    "The fake score is not told the label. It has to know what the generator draws *for this class*: "
    "fake(x_t, t, label).": _taught(told=(True, False)),
    "The generator is not told the label: its samples are of no class, and the fake score takes them for that label's. "
    "Call generate(z, label).": _taught(told=(False, True)),
    "The label is left out twice: both networks are to be told it, generate(z, label) and fake(x_t, t, label).":
        _taught(told=(False, False)),
    "The fake score was shown the clean samples. It has to denoise x_t = α_t x + σ_t ε.":
        _taught(x_t=lambda x, eps, a, s: x),
    "α and σ are swapped in x_t = α_t x + σ_t ε.": _taught(x_t=lambda x, eps, a, s: s * x + a * eps),
    "You noised the samples with z, the noise that they were made of. They are noised with ε, which is independent.":
        _same_noise,
    "Take the mean, not the sum.": _taught(reduce=Tensor.sum),
    "There is a factor ½ that the formula does not have.": _taught(reduce=lambda square: 0.5 * square.mean()),
    "This is one value an image. A loss is one number: take the mean over the batch too.":
        _taught(reduce=lambda square: square.mean((1, 2, 3))),
}, error=f"{ONE_NUMBER.format(7)} alpha[t] has shape (B,): reshape it to (B, 1, 1, 1).", probe=_learned,
   random="It draws fresh noise. Use the given z, t and eps.")
