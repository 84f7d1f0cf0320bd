"""Lesson 01: add noise, the posterior's mean, one DDIM step, guidance.

The oracles are written another way than the lesson's solutions: one sample at a time, as a Kalman update, as a
rotation by an angle, as a step away from the unlabelled prediction.
"""
import torch
from torch import Tensor

from .harness import Exercise, tables


def _shape(g: torch.Generator, batch: int | None = None) -> tuple[int, int, int, int]:
    """A random (B, C, H, W); no two of B, H, W are equal, unless ``batch`` asks for B = W."""
    b, h, w = (torch.randperm(7, generator=g)[:3] + 2).tolist()
    c = int(torch.randint(1, 4, (), generator=g))
    return (batch, c, batch + 1, batch) if batch else (b, c, h, w)


def _by_sample(table: Tensor, t: Tensor) -> Tensor:
    return table[t].reshape(-1, 1, 1, 1)


# 1.1 add_noise(x, t, eps, alpha, sigma) -> x_t

def _noise(x, t, eps, alpha, sigma):
    return torch.stack([float(alpha[t_i]) * x_i + float(sigma[t_i]) * e_i for x_i, t_i, e_i in zip(x, t, eps)])


def _noise_cases(g):
    cases = []
    for T, shape in ((20, _shape(g, batch=5)), (20, _shape(g)), (100, _shape(g))):  # B = W, so that a wrong
        t = torch.randperm(T - 1, generator=g)[:shape[0]] + 1                       # broadcast gives a result
        cases.append((torch.randn(shape, generator=g), t, torch.randn(shape, generator=g), *tables(T)))
    return cases


def _weighted(a, b):
    """The mistaken add_noise with weights a(α_t, σ_t) on x and b(α_t, σ_t) on ε."""
    def wrong(x, t, eps, alpha, sigma):
        at, st = _by_sample(alpha, t), _by_sample(sigma, t)
        return a(at, st) * x + b(at, st) * eps
    return wrong


ex_1_1 = Exercise("1.1", _noise, _noise_cases, {
    "α and σ are swapped: α_t, which falls with t, belongs to the image x, and σ_t, which grows, to the noise ε.":
        _weighted(lambda a, s: s, lambda a, s: a),
    "You used σ_t² where the formula has σ_t. The noise's *variance* is σ_t²; ε is multiplied by its root.":
        _weighted(lambda a, s: a, lambda a, s: s**2),
    "You squared both weights. The tables hold α_t and σ_t themselves, not ᾱ_t: use them as they are.":
        _weighted(lambda a, s: a**2, lambda a, s: s**2),
    "You took the root of the weights. The tables hold α_t = √ᾱ_t already: use them as they are.":
        _weighted(lambda a, s: a.sqrt(), lambda a, s: s.sqrt()),
    "ε is added unscaled: multiply it by σ_t, or there is as much noise at t = 0 as at the end.":
        _weighted(lambda a, s: a, lambda a, s: 1),
    "x is not scaled: multiply it by α_t, or the image never leaves and the variance grows beyond 1.":
        _weighted(lambda a, s: 1, lambda a, s: s),
    "The sign of the noise is flipped: x_t = α_t x + σ_t ε, with a plus.":
        _weighted(lambda a, s: a, lambda a, s: -s),
    "The noise is missing: add σ_t ε.": _weighted(lambda a, s: a, lambda a, s: 0),
    "You gave every sample the time of the first one. t holds one time per sample: index the tables with all of t.":
        lambda x, t, eps, alpha, sigma: alpha[t[0]] * x + sigma[t[0]] * eps,
    "The times are off by one: α_t is alpha[t], since t counts from 0.":
        lambda x, t, eps, alpha, sigma: _noise(x, t - 1, eps, alpha, sigma),
    "α[t] of shape (B,) was broadcast along the image's last axis instead of the batch. "
    "Reshape it to (B, 1, 1, 1): alpha[t].reshape(-1, 1, 1, 1).":
        lambda x, t, eps, alpha, sigma: alpha[t] * x + sigma[t] * eps,
}, error="alpha[t] has shape (B,), and x has (B, C, H, W): reshape the first to (B, 1, 1, 1).")


# 1.2 posterior_mean(x_t, x0, t, s, alpha, sigma) -> mean of q(x_s | x_t, x)
# 1.3 ddim_step(x_t, x0, t, s, alpha, sigma) -> x_s

def _step_cases(g):
    """t and s at least two apart, so that t − 1 is not s; the last case starts at α_t = 0, pure noise."""
    cases = []
    for T, t, s in ((20, 12, 5), (100, 70, 40), (50, 9, 0)):
        shape = _shape(g)
        cases.append((torch.randn(shape, generator=g), torch.randn(shape, generator=g), t, s, *tables(T)))
    alpha, sigma = tables(20)
    alpha[-1], sigma[-1] = 0, 1
    shape = _shape(g)
    return cases + [(torch.randn(shape, generator=g), torch.randn(shape, generator=g), 19, 10, alpha, sigma)]


def _kalman(x_t, x0, t, s, alpha, sigma):
    """Before seeing x_t: x_s ~ N(α_s x, σ_s²). It is observed as x_t = r x_s + noise, whose variance is σ_t² in all.
    So move the prior mean by the gain times the surprise."""
    r = alpha[t] / alpha[s]
    gain = r * sigma[s]**2 / sigma[t]**2
    return alpha[s] * x0 + gain * (x_t - r * alpha[s] * x0)


def _mean(on_x_t=lambda r, fresh, a, s, S: r * s**2 / S**2, on_x=lambda r, fresh, a, s, S: a * fresh / S**2,
          ratio=lambda A, a: A / a):
    """The mistaken posterior mean with these weights on x_t and x, of r, σ²_{t|s}, α_s, σ_s and σ_t, and this r."""
    def wrong(x_t, x0, t, s, alpha, sigma):
        r = ratio(alpha[t], alpha[s])
        values = r, sigma[t]**2 - r**2 * sigma[s]**2, alpha[s], sigma[s], sigma[t]
        return on_x_t(*values) * x_t + on_x(*values) * x0
    return wrong


ex_1_2 = Exercise("1.2", _kalman, _step_cases, {
    "The two weights are swapped: r σ_s²/σ_t² belongs to x_t, and α_s σ²_{t|s}/σ_t² to x.":
        _mean(lambda r, f, a, s, S: a * f / S**2, lambda r, f, a, s, S: r * s**2 / S**2),
    "α_s is missing from the weight of x: at time s the image is already scaled by α_s.":
        _mean(on_x=lambda r, f, a, s, S: f / S**2),
    "You used α_t where the weight of x has α_s: the mean lives at time s.":
        lambda x_t, x0, t, s, alpha, sigma: _mean(on_x=lambda r, f, a, s, S: alpha[t] * f / S**2)(
            x_t, x0, t, s, alpha, sigma),
    "r = α_t/α_s is missing from the weight of x_t.": _mean(on_x_t=lambda r, f, a, s, S: s**2 / S**2),
    "r is upside down: r = α_t/α_s is below 1, since α falls with t.":
        _mean(ratio=lambda A, a: a / A),
    "You used σ where the formula has σ²: these are shares of *variance*.":
        _mean(lambda r, f, a, s, S: r * s / S, lambda r, f, a, s, S: a * f / S),
    "r² is missing from σ²_{t|s} = σ_t² − r² σ_s²: the noise that was there at s has shrunk by r since.":
        _mean(on_x=lambda r, f, a, s, S: a * (S**2 - s**2) / S**2),
    "You used t − 1 in place of s. This sampler may leap over many steps: take s as it is given.":
        lambda x_t, x0, t, s, alpha, sigma: _kalman(x_t, x0, t, t - 1, alpha, sigma),
    "This is α_s x alone: what x_t says about x_s is missing.":
        lambda x_t, x0, t, s, alpha, sigma: alpha[s] * x0,
    "This is DDIM's step (exercise 1.3), which keeps the predicted noise; the posterior's mean keeps less of it.":
        lambda x_t, x0, t, s, alpha, sigma: _rotate(x_t, x0, t, s, alpha, sigma),
    "t and s are exchanged: you go from the noisier x_t at t down to s, and s < t.":
        lambda x_t, x0, t, s, alpha, sigma: _kalman(x_t, x0, s, t, alpha, sigma),
}, error="t and s are whole numbers, so alpha[t] and alpha[s] are numbers that multiply a whole batch.")


def _rotate(x_t, x0, t, s, alpha, sigma):
    """α = cos φ, σ = sin φ: going from t to s turns the pair (x̂, v̂) back by φ_t − φ_s."""
    delta = torch.atan2(sigma[t], alpha[t]) - torch.atan2(sigma[s], alpha[s])
    v = (alpha[t] * x_t - x0) / sigma[t]
    return delta.cos() * x_t - delta.sin() * v


def _keep(eps, a=lambda at, as_: as_, b=lambda st, ss: ss):
    """The mistaken DDIM step a x̂ + b ε̂ with ε̂ = eps(x_t, x̂, α_t, σ_t)."""
    def wrong(x_t, x0, t, s, alpha, sigma):
        noise = eps(x_t, x0, alpha[t], sigma[t])
        return a(alpha[t], alpha[s]) * x0 + b(sigma[t], sigma[s]) * noise
    return wrong


def _eps(x_t, x0, at, st):
    return (x_t - at * x0) / st


ex_1_3 = Exercise("1.3", _rotate, _step_cases, {
    "This is x_t again: you took it apart and put it together at one and the same time. Take it apart with α_t and "
    "σ_t, where it was; put x̂ and ε̂ together with α_s and σ_s, where you go.":
        _keep(_eps, lambda at, as_: at, lambda st, ss: st),
    "You used α_t where x̂ should get α_s, of the time you go *to*.": _keep(_eps, a=lambda at, as_: at),
    "You used σ_t where ε̂ should get σ_s, of the time you go *to*.": _keep(_eps, b=lambda st, ss: st),
    "The noise is missing: x_s is α_s x̂ + σ_s ε̂, not yet a clean image.": _keep(_eps, b=lambda st, ss: 0),
    "x̂ is not scaled: at time s the image still counts α_s only.": _keep(_eps, a=lambda at, as_: 1),
    "You used σ_s² where the formula has σ_s.": _keep(_eps, b=lambda st, ss: ss**2),
    "You took x_t itself for the noise. Solve x_t = α_t x̂ + σ_t ε̂ for ε̂ first.": _keep(lambda x_t, x0, at, st: x_t),
    "ε̂ is not divided by σ_t: solve x_t = α_t x̂ + σ_t ε̂ for ε̂.": _keep(lambda x_t, x0, at, st: x_t - at * x0),
    "α_t is missing in ε̂ = (x_t − α_t x̂)/σ_t.": _keep(lambda x_t, x0, at, st: (x_t - x0) / st),
    "The sign of ε̂ is flipped: ε̂ = (x_t − α_t x̂)/σ_t.": _keep(lambda x_t, x0, at, st: (at * x0 - x_t) / st),
    "You used t − 1 in place of s. DDIM may leap over many steps: take s as it is given.":
        lambda x_t, x0, t, s, alpha, sigma: _rotate(x_t, x0, t, t - 1, alpha, sigma),
    "This is the posterior's mean (exercise 1.2), DDPM's step without its fresh noise; DDIM keeps all of ε̂.": _kalman,
}, error="t and s are whole numbers, so alpha[t] and alpha[s] are numbers that multiply a whole batch.",
    random="It draws fresh noise. DDIM is deterministic: re-noise x̂ with its own ε̂, the noise that x_t implies.")


# 1.4 guide(with_label, without, w) -> the guided prediction

def _away(with_label, without, w):
    return with_label + w * (with_label - without)


def _guide_cases(g):
    shapes = [_shape(g) for _ in range(3)]
    return [(torch.randn(shape, generator=g), torch.randn(shape, generator=g), w)
            for shape, w in zip(shapes, (0.0, 0.3, 2.5))]


ex_1_4 = Exercise("1.4", _away, _guide_cases, {
    "The two predictions are swapped: this steers *away* from the label. (1 + w) belongs to the one with the label.":
        lambda c, u, w: (1 + w) * u - w * c,
    "This is the other convention, in which 1 means no guidance: u + w (c − u). Here w = 0 means none: "
    "(1 + w) c − w u.":
        lambda c, u, w: w * c + (1 - w) * u,
    "The sign is flipped: this mixes the unlabelled prediction *in*, so the label counts less. Move away from it.":
        lambda c, u, w: (1 - w) * c + w * u,
    "There is a plus where the formula has a minus: take w times the unlabelled prediction *off*, so that the weights "
    "sum to 1.":
        lambda c, u, w: (1 + w) * c + w * u,
    "The 1 is missing: with w = 0 nothing would be left. (1 + w) times the labelled prediction.":
        lambda c, u, w: w * (c - u),
    "w is missing before the unlabelled prediction: the weights (1 + w) and −w must sum to 1.":
        lambda c, u, w: (1 + w) * c - u,
    "The unlabelled prediction is missing: this only makes the labelled one larger.": lambda c, u, w: (1 + w) * c,
    "w is not used: this is the labelled prediction as it was.": lambda c, u, w: c.clone(),
})
