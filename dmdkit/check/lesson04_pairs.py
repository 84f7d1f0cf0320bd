"""Lesson 04, the regression on pairs: 4.1 a batch of them, 4.2 the loss, 4.4 its weight.

The oracles are written another way than the lesson's solutions: one pair at a time, by calculus, as
the root of a line.
"""
import torch

from . import probes
from .cases import SHAPES, image_norms, labels, mean_norm, randn
from .harness import Exercise
from .standins import N_CLASSES, Generator, features, tell


# 4.1 pair_batch(z, y, label, index) -> (z, y, label) of the batch

def _pair_by_pair(z, y, label, index):
    rows = index.tolist()
    return [torch.stack([value[k] for k in rows]) for value in (z, y, label)]


def _pair_cases(g):
    """One index takes a pair twice, another takes each pair once, so that its batch is as long as
    the set."""
    cases = []
    for n, shape, index in ((9, (1, 4, 3), [7, 2, 5, 2]), (6, (1, 3, 3), [3, 0, 5, 1, 4, 2]),
                            (8, (3, 2, 2), [6, 1, 4])):
        z = randn(g, n, *shape)
        cases.append((z, randn(g, n, *shape), labels(g, n), torch.tensor(index)))
    return cases


ex_4_1 = Exercise("4.1", _pair_by_pair, _pair_cases, {
    "The labels are the first B of the set, while noise and images are those of index. So nearly "
    "every image gets another pair's label. Take label[index].":
        lambda z, y, label, i: (z[i], y[i], label[:len(i)]),
    "The labels are all N, as they were. A batch has one label a pair: take label[index].":
        lambda z, y, label, i: (z[i], y[i], label.clone()),
    "The noise is the first B of the set, while images and labels are those of index: z and y "
    "belong together only within a pair. Take z[index].":
        lambda z, y, label, i: (z[:len(i)], y[i], label[i]),
    "The images are the first B of the set, while noise and labels are those of index: z and y "
    "belong together only within a pair. Take y[index].":
        lambda z, y, label, i: (z[i], y[:len(i)], label[i]),
    "index is not used: these are the first B pairs, in every batch the same ones. Take z[index], "
    "y[index] and label[index].":
        lambda z, y, label, i: (z[:len(i)], y[:len(i)], label[:len(i)]),
    "The labels count 0, 1, 2, … 9, 0, … by place in the batch. The pairs may have been made in "
    "that order, but index has shuffled them. Take label[index].":
        lambda z, y, label, i: (z[i], y[i], torch.arange(len(i)) % N_CLASSES),
    "You worked the labels out of the pairs' numbers, index % 10. That holds only as long as the "
    "pairs lie as they were made. Each pair's label is stored with it: label[index].":
        lambda z, y, label, i: (z[i], y[i], i % N_CLASSES),
    "The labels are in another order than the pairs: you sorted index for them. Use index as it is "
    "for all three.":
        lambda z, y, label, i: (z[i], y[i], label[i.sort().values]),
    "These are the right pairs in another order: you sorted index. Use it as it is, so that row k "
    "of the batch is pair index[k].":
        lambda z, y, label, i: [value[i.sort().values] for value in (z, y, label)],
    "You dropped what index names twice. A batch drawn at random may hold a pair twice, and it has "
    "one row for each entry of index.":
        lambda z, y, label, i: [value[i.unique()] for value in (z, y, label)],
    "The label is missing: return three tensors, z[index], y[index] and label[index].":
        lambda z, y, label, i: (z[i], y[i]),
    "Noise and image are exchanged: return z first, then y, then the label.":
        lambda z, y, label, i: (y[i], z[i], label[i]),
    "The three are in another order: return z, then y, and the label last.":
        lambda z, y, label, i: (z[i], label[i], y[i]),
}, hint="Each has one row for each entry of index.", parts=("z", "y", "label"),
    random="It draws something of its own: a second shuffle, or new noise or labels. All three "
           "follow from index alone.")


# 4.2 regression_loss(generate, distance, z, y, label) -> a scalar; compared are its value and its
# derivative by the generator's weights

def _regression_by_calculus(weights, z, y, label):
    x = Generator(weights)(z, label)
    error = features(x) - features(y)
    root = torch.hypot(error, torch.ones(()))
    slope = error / root * (1 + 0.6 * x)
    by = [(slope * factor).mean() for factor in (z, torch.ones(()), tell(label, len(z)))]
    return (root - 1).mean(), torch.stack(by)


def _regression_cases(g):
    cases = []
    for shape in SHAPES:
        cases.append((randn(g, 3), randn(g, *shape), randn(g, *shape), labels(g, shape[0])))
    return cases


ex_4_2 = Exercise("4.2", _regression_by_calculus, _regression_cases, {
    "The value is right, and nothing learns from it: the generated image is detached (or "
    "made under no_grad, as Denoiser.generate does), so no gradient reaches the generator. "
    "Leave it attached.":
        lambda G, d, z, y, label: d(G(z, label).detach(), y).mean(),
    "The label is left out: y is the image of z *for this label*, so the generator has to be told "
    "it. Call generate(z, label).":
        lambda G, d, z, y, label: d(G(z, None), y).mean(),
    "Take the mean over the batch, not the sum, so that the size of a batch does not change λ's "
    "meaning.":
        lambda G, d, z, y, label: d(G(z, label), y).sum(),
    "The generator was shown y, the image. It makes images from noise: generate(z, label).":
        lambda G, d, z, y, label: d(G(y, label), y).mean(),
    "Noise and image are exchanged: the generator makes an image of z, and y is what that "
    "should be.":
        lambda G, d, z, y, label: d(G(y, label), z).mean(),
    "The target is z, so the generator learns to return its noise. Compare with y, the image that "
    "the teacher's solver made of z.":
        lambda G, d, z, y, label: d(G(z, label), z).mean(),
    "The generator is missing: this is the distance of the noise itself from y, and no weight can "
    "change it.":
        lambda G, d, z, y, label: d(z, y).mean(),
    "This is the mean squared error. Use the given distance: it says how unlike two images look.":
        lambda G, d, z, y, label: (G(z, label) - y).square().mean(),
    "This is the mean absolute error. Use the given distance: it says how unlike two images look.":
        lambda G, d, z, y, label: (G(z, label) - y).abs().mean(),
    "You squared the distance. It is compared as it is: only its mean over the batch is left to "
    "take.":
        lambda G, d, z, y, label: d(G(z, label), y).square().mean(),
    "distance is given the difference of the two images. It looks at the images themselves: "
    "distance(x, y).":
        lambda G, d, z, y, label: d(G(z, label) - y, torch.zeros_like(y)).mean(),
    "There is a factor ½ that the formula does not have.":
        lambda G, d, z, y, label: 0.5 * d(G(z, label), y).mean(),
}, probe=probes.regression, parts=("the loss", "its derivative by the weights"),
    random="It draws fresh noise. y is the image of the given z and of no other: use that z.")


# 4.4 regression_weight(matching_gradient, regression_gradient, share) -> λ

def _length(gradient):
    """The mean over the batch of the images' gradient norms, one image at a time."""
    return sum((image * image).sum()**0.5 for image in gradient) / len(gradient)


def root_of_a_line(matching_gradient, regression_gradient, share):
    """Where the length of λ times the regression's gradient minus share times the matching's is
    zero: that is a line in λ."""
    at_0 = -share * _length(matching_gradient)
    at_1 = _length(regression_gradient) + at_0
    return -at_0 / (at_1 - at_0)


def weight_cases(g):
    """Gradients whose norm differs from image to image."""
    cases = []
    for shape, share in (((5, 1, 4, 3), 0.25), ((4, 2, 3, 3), 0.6), ((7, 3, 2, 5), 3.0)):
        matching = randn(g, *shape) * randn(g, shape[0], 1, 1, 1).exp()
        regression = 0.3 * randn(g, *shape) * randn(g, shape[0], 1, 1, 1).exp()
        cases.append((matching, regression, share))
    return cases


def _balance(formula, norm=mean_norm):
    """The mistaken weight: formula(m, r, share) of these norms of the two gradients."""
    return lambda matching, regression, share: formula(norm(matching), norm(regression), share)


def _ratio(m, r, share):
    return share * m / r


ex_4_4 = Exercise("4.4", root_of_a_line, weight_cases, {
    "The ratio is upside down: the longer the regression's gradient is by itself, the *smaller* "
    "its weight. λ = share · (matching's norm)/(regression's norm).":
        _balance(lambda m, r, share: share * r / m),
    "This is 1/λ, the weight that the *matching* term would need. λ multiplies the regression.":
        _balance(lambda m, r, share: r / (share * m)),
    "share is not used: this λ makes both gradients equally long.":
        _balance(lambda m, r, share: m / r),
    "You divided by share. The weighted regression is to be share *times* as long as the matching "
    "term.":
        _balance(lambda m, r, share: m / (share * r)),
    "You took share as a share of the sum of both. It compares the regression with the matching "
    "term alone: λ r = share · m.":
        _balance(lambda m, r, share: share / (1 - share) * m / r),
    "You took one norm over the whole batch, in which the few images with the longest gradients "
    "decide. Take each image's norm, then their mean.":
        _balance(_ratio, torch.Tensor.norm),
    "You took the mean absolute value of all entries. Take the norm of each image's gradient, the "
    "root of its sum of squares, then the mean over the batch.":
        _balance(_ratio, lambda gradient: gradient.abs().mean()),
    "The norms are squared: the root is missing. A gradient that is twice as long should count "
    "twice, not four times.":
        _balance(_ratio, lambda gradient: image_norms(gradient).square().mean()),
    "You took the mean of each image's own ratio. It is one ratio, of two means: the images of the "
    "two terms are not the same ones, so there is nothing to compare image by image.":
        _balance(lambda m, r, share: share * (m / r).mean(), image_norms),
    "This is one weight an image. λ is one number: take the mean of the norms over the batch, then "
    "divide.":
        _balance(_ratio, image_norms),
    "You took the norm over the channels only. An image's gradient has C·H·W entries: flatten(1) "
    "first, then the norm over dimension 1.":
        _balance(_ratio, lambda gradient: gradient.norm(dim=1).mean()),
    "You compared the longest gradients of the batch. Compare the means over the batch.":
        _balance(_ratio, lambda gradient: image_norms(gradient).max()),
}, hint="λ is one number, a tensor of shape () or a float.")
