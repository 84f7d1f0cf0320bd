"""Lesson 01: add noise, the training loss, the posterior's mean, one DDIM step.

The oracles are written another way than the lesson's solutions: one sample at a time, by the error
in x, as a Kalman update, as a rotation by an angle.
"""
import torch

from . import probes
from .cases import RESHAPE_IMAGES, SHAPES, WRONG_V, image_shape, labels, randn, tables
from .harness import Exercise
from .standins import column, tell, time

NUMBERS = "t and s are whole numbers, so alpha[t] and alpha[s] are numbers that multiply a batch."


# 1.1 add_noise(x, t, eps, alpha, sigma) -> x_t

def _noise(x, t, eps, alpha, sigma):
    rows = [float(alpha[k]) * image + float(sigma[k]) * e for image, k, e in zip(x, t, eps)]
    return torch.stack(rows)


def _noise_cases(g):
    """B = W in the first case, so that a broadcast along the wrong axis gives a result there."""
    cases = []
    for T, shape in ((20, image_shape(g, batch=5)), (20, image_shape(g)), (100, image_shape(g))):
        t = torch.randperm(T - 1, generator=g)[:shape[0]] + 1
        cases.append((randn(g, *shape), t, randn(g, *shape), *tables(T)))
    return cases


def _sum(formula):
    """The mistaken add_noise: formula(x, ε, α_t, σ_t)."""
    def wrong(x, t, eps, alpha, sigma):
        return formula(x, eps, column(alpha[t], x), column(sigma[t], x))
    return wrong


ex_1_1 = Exercise("1.1", _noise, _noise_cases, {
    "α and σ are swapped: α_t, which falls with t, belongs to the image x, and σ_t to the noise ε.":
        _sum(lambda x, e, a, s: s * x + a * e),
    "You used σ_t² where the formula has σ_t. The noise's *variance* is σ_t²; ε is multiplied by "
    "its root.":
        _sum(lambda x, e, a, s: a * x + s**2 * e),
    "You squared both weights. The tables hold α_t and σ_t themselves: use them as they are.":
        _sum(lambda x, e, a, s: a**2 * x + s**2 * e),
    "You took the root of the weights. The tables hold α_t = √ᾱ_t already: use them as they are.":
        _sum(lambda x, e, a, s: a.sqrt() * x + s.sqrt() * e),
    "ε is added unscaled: multiply it by σ_t, or there is as much noise at t = 0 as at the end.":
        _sum(lambda x, e, a, s: a * x + e),
    "x is not scaled: multiply it by α_t, or the image never leaves and the variance exceeds 1.":
        _sum(lambda x, e, a, s: x + s * e),
    "The sign of the noise is flipped: x_t = α_t x + σ_t ε, with a plus.":
        _sum(lambda x, e, a, s: a * x - s * e),
    "The noise is missing: add σ_t ε.": _sum(lambda x, e, a, s: a * x),
    "You gave every sample the time of the first one. t holds one time per sample: index the "
    "tables with all of t.":
        lambda x, t, eps, alpha, sigma: alpha[t[0]] * x + sigma[t[0]] * eps,
    "The times are off by one: α_t is alpha[t], since t counts from 0.":
        lambda x, t, eps, alpha, sigma: _noise(x, t - 1, eps, alpha, sigma),
    "α[t] of shape (B,) was broadcast along the image's last axis instead of the batch. "
    "Reshape it to (B, 1, 1, 1): alpha[t].reshape(-1, 1, 1, 1).":
        lambda x, t, eps, alpha, sigma: alpha[t] * x + sigma[t] * eps,
}, hint=RESHAPE_IMAGES)


# 1.2 denoising_loss(model, x, label, t, eps, alpha, sigma) -> a scalar and, of it, a derivative

def _error_in_x(weights, x, label, t, eps, alpha, sigma):
    """x − x̂ is σ_t (v̂ − v), with x̂ = α_t x_t − σ_t v̂; the derivative by calculus."""
    a = column(alpha[t], x)
    s = column(sigma[t], x)
    inputs = (a * x + s * eps, time(t, x), tell(label, len(x)))
    answer = sum(weight * value for weight, value in zip(weights, inputs))
    error = (x - a * inputs[0] + s * answer) / s
    by_weights = torch.stack([2 * (error * value).mean() for value in inputs])
    return error.square().mean(), by_weights


def _loss_cases(g):
    cases = []
    for shape, T in zip(SHAPES, (30, 50, 20)):
        t = torch.randint(1, T, (shape[0],), generator=g)
        cases.append((randn(g, 3), randn(g, *shape), labels(g, shape[0]), t, randn(g, *shape),
                      *tables(T)))
    return cases


def _loss(state=None, v=None, told=True, size=None):
    """The mistaken loss with this state shown and this target, each of (x, ε, α_t, σ_t), and this
    size of the error, of (error, σ_t). ``told`` says whether the model gets the label."""
    state = state or (lambda x, e, a, s: a * x + s * e)
    v = v or (lambda x, e, a, s: a * e - s * x)
    size = size or (lambda error, s: error.square().mean())

    def wrong(model, x, label, t, eps, alpha, sigma):
        a = column(alpha[t], x)
        s = column(sigma[t], x)
        given = (x, eps, a, s)
        answer = model(state(*given), t, label if told else None).v
        return size(answer - v(*given), s)
    return wrong


ex_1_2 = Exercise("1.2", _error_in_x, _loss_cases, {
    "That is the bug itself: v is made of the *noised* image. Work through it line by line: which "
    "of its values is x when v is computed?":
        _loss(v=lambda x, e, a, s: a * e - s * (a * x + s * e)),
    "The model is shown the clean image: it has nothing to denoise. Show it x_t = α_t x + σ_t ε.":
        _loss(state=lambda x, e, a, s: x),
    "α and σ are swapped in x_t = α_t x + σ_t ε.":
        _loss(state=lambda x, e, a, s: s * x + a * e),
    "σ is squared in x_t: the noise's *variance* is σ_t²; ε is multiplied by its root.":
        _loss(state=lambda x, e, a, s: a * x + s**2 * e),
    "The target is x. This network predicts v = α ε − σ x.":
        _loss(v=lambda x, e, a, s: x),
    "The target is ε. This network predicts v = α ε − σ x.":
        _loss(v=lambda x, e, a, s: e),
    **{said: _loss(v=v) for said, v in WRONG_V.items()},
    "This compares predictions of x, which multiplies each squared error by σ². Compare v itself.":
        _loss(size=lambda error, s: (s * error).square().mean()),
    "The model is not told the label: call model(x_t, t, label).":
        _loss(told=False),
    "Nothing learns from this: the loss is detached (or all is under no_grad).":
        _loss(size=lambda error, s: error.square().mean().detach()),
    "Take the mean, not the sum.":
        _loss(size=lambda error, s: error.square().sum()),
    "There is a factor ½ that the formula does not have.":
        _loss(size=lambda error, s: error.square().mean() / 2),
}, hint=RESHAPE_IMAGES, probe=probes.denoising,
    random="It draws fresh noise. Use the given t and eps: the same ε is in x_t and in v.",
    parts=("the loss", "its derivative by the model's weights"))


# 1.3 posterior_mean(x_t, x0, t, s, alpha, sigma) -> mean of q(x_s | x_t, x)
# 1.4 ddim_step(x_t, x0, t, s, alpha, sigma) -> x_s

def _step_cases(g):
    """t and s at least two apart, so that t − 1 is not s; the last starts from pure noise."""
    cases = []
    for T, t, s in ((20, 12, 5), (100, 70, 40), (50, 9, 0), (20, 19, 10)):
        shape = image_shape(g)
        cases.append((randn(g, *shape), randn(g, *shape), t, s, *tables(T)))
    alpha, sigma = cases[-1][-2:]
    alpha[-1], sigma[-1] = 0, 1
    return cases


def _average(x_t, x0, t, s, alpha, sigma):
    """The mean of x_t/r and α_s x by their inverse variances: 0/0 where α_t = 0."""
    r = alpha[t] / alpha[s]
    fresh = sigma[t]**2 - r**2 * sigma[s]**2
    weight, own = r**2 / fresh, 1 / sigma[s]**2
    return (weight * (x_t / r) + own * alpha[s] * x0) / (weight + own)


def _kalman(x_t, x0, t, s, alpha, sigma):
    """Before x_t is seen, x_s ~ N(α_s x, σ_s²). It is observed as x_t = r x_s + noise, of variance
    σ_t² in all. So move the prior mean by the gain times the surprise."""
    r = alpha[t] / alpha[s]
    gain = r * sigma[s]**2 / sigma[t]**2
    return alpha[s] * x0 + gain * (x_t - r * alpha[s] * x0)


def _rotate(x_t, x0, t, s, alpha, sigma):
    """α = cos φ, σ = sin φ: from t to s the pair (x_t, v) turns back by φ_t − φ_s."""
    delta = torch.atan2(sigma[t], alpha[t]) - torch.atan2(sigma[s], alpha[s])
    v = (alpha[t] * x_t - x0) / sigma[t]
    return delta.cos() * x_t - delta.sin() * v


def _mean(formula):
    """The mistaken mean: formula(x_t, x, r, σ²_{t|s}, α_s, σ_s, σ_t)."""
    def wrong(x_t, x0, t, s, alpha, sigma):
        r = alpha[t] / alpha[s]
        fresh = sigma[t]**2 - r**2 * sigma[s]**2
        return formula(x_t, x0, r, fresh, alpha[s], sigma[s], sigma[t])
    return wrong


ex_1_3 = Exercise("1.3", _kalman, _step_cases, {
    "Right, but not where α_t = 0: there x_t/r is 0/0, and the sampler starts there. Bring it into "
    "a form that does not divide by r.":
        _average,
    "The two weights are swapped: r σ_s²/σ_t² belongs to x_t, and α_s σ²_{t|s}/σ_t² to x.":
        _mean(lambda y, x, r, f, a, s, S: (a * f * y + r * s**2 * x) / S**2),
    "α_s is missing from the weight of x: at time s the image is already scaled by α_s.":
        _mean(lambda y, x, r, f, a, s, S: (r * s**2 * y + f * x) / S**2),
    "You used α_t where the weight of x has α_s: the mean lives at time s.":
        _mean(lambda y, x, r, f, a, s, S: (r * s**2 * y + r * a * f * x) / S**2),
    "r = α_t/α_s is missing from the weight of x_t.":
        _mean(lambda y, x, r, f, a, s, S: (s**2 * y + a * f * x) / S**2),
    "r is upside down: r = α_t/α_s is below 1, since α falls with t.":
        _mean(lambda y, x, r, f, a, s, S: (s**2 / r * y + a * (S**2 - (s / r)**2) * x) / S**2),
    "You used σ where the formula has σ²: these are shares of *variance*.":
        _mean(lambda y, x, r, f, a, s, S: (r * s * y + a * f * x) / S),
    "r² is missing from σ²_{t|s} = σ_t² − r² σ_s²: the noise that was there at s has shrunk by r.":
        _mean(lambda y, x, r, f, a, s, S: (r * s**2 * y + a * (S**2 - s**2) * x) / S**2),
    "You used t − 1 in place of s. This sampler may leap over many steps: take s as it is given.":
        lambda x_t, x0, t, s, alpha, sigma: _kalman(x_t, x0, t, t - 1, alpha, sigma),
    "This is α_s x alone: what x_t says about x_s is missing.":
        lambda x_t, x0, t, s, alpha, sigma: alpha[s] * x0,
    "This is DDIM's step (exercise 1.4), which keeps all of the predicted noise; the posterior's "
    "mean keeps less of it.":
        _rotate,
    "t and s are exchanged: you go from the noisier x_t at t down to s, and s < t.":
        lambda x_t, x0, t, s, alpha, sigma: _kalman(x_t, x0, s, t, alpha, sigma),
}, hint=NUMBERS)


def _step(formula):
    """The mistaken step: formula(x_t, x̂, α_t, σ_t, α_s, σ_s), with capitals for t."""
    def wrong(x_t, x0, t, s, alpha, sigma):
        return formula(x_t, x0, alpha[t], sigma[t], alpha[s], sigma[s])
    return wrong


ex_1_4 = Exercise("1.4", _rotate, _step_cases, {
    "This is x_t again: you took it apart and put it together at the same time. Take it apart with "
    "α_t and σ_t, where it was; put x̂ and ε̂ together with α_s and σ_s, where you go.":
        _step(lambda y, x, A, S, a, s: y.clone()),
    "You used α_t where x̂ should get α_s, of the time you go *to*.":
        _step(lambda y, x, A, S, a, s: A * x + s * (y - A * x) / S),
    "You divided by a σ and multiplied by the same one. Divide by σ_t, of the time you come "
    "*from*, which gives ε̂; multiply that by σ_s, of the time you go *to*.":
        _step(lambda y, x, A, S, a, s: a * x + y - A * x),
    "The noise is missing: x_s is α_s x̂ + σ_s ε̂, not yet a clean image.":
        _step(lambda y, x, A, S, a, s: a * x),
    "x̂ is not scaled: at time s the image still counts α_s only.":
        _step(lambda y, x, A, S, a, s: x + s * (y - A * x) / S),
    "You used σ_s² where the formula has σ_s.":
        _step(lambda y, x, A, S, a, s: a * x + s**2 * (y - A * x) / S),
    "You took x_t itself for the noise. Solve x_t = α_t x̂ + σ_t ε̂ for ε̂ first.":
        _step(lambda y, x, A, S, a, s: a * x + s * y),
    "ε̂ is not divided by σ_t: solve x_t = α_t x̂ + σ_t ε̂ for ε̂.":
        _step(lambda y, x, A, S, a, s: a * x + s * (y - A * x)),
    "α_t is missing in ε̂ = (x_t − α_t x̂)/σ_t.":
        _step(lambda y, x, A, S, a, s: a * x + s * (y - x) / S),
    "The sign of ε̂ is flipped: ε̂ = (x_t − α_t x̂)/σ_t.":
        _step(lambda y, x, A, S, a, s: a * x - s * (y - A * x) / S),
    "You used t − 1 in place of s. DDIM may leap over many steps: take s as it is given.":
        lambda x_t, x0, t, s, alpha, sigma: _rotate(x_t, x0, t, t - 1, alpha, sigma),
    "This is the posterior's mean (exercise 1.3), DDPM's step without its fresh noise. DDIM keeps "
    "all of ε̂.":
        _kalman,
}, hint=NUMBERS, random="It draws fresh noise. DDIM is deterministic: put x̂ together with its own "
                        "ε̂, the noise that x_t implies.")
