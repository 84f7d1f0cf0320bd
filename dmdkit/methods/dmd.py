"""Distribution Matching Distillation (Yin et al. 2024, "DMD"): its gradient, its losses and its training step.

One code serves points of the plane and images. Everything is written in x-predictions, since there
s_fake − s_real = α (μ_fake − μ_real)/σ²: the difference of two denoised means *is* a difference of scores.
"""
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .denoiser import Prediction
from .pairs import Pairs
from .train import Learner, Step, denoising_loss

WEIGHTINGS = ("released", "paper", "kl", "none")

Inputs = Callable[[Tensor, Tensor | None, torch.Generator],
                  tuple[Tensor, int | Tensor, Tensor | None, Tensor | None]]
"""(z, label, g) → what the generator is called with, a state x_t, its t and its label; and the fake score's label."""


class Adversary(Protocol):
    """Two more losses, scalars, of samples x (B, …) with their labels; all randomness is drawn from g."""
    generator_weight: float
    critic_weight: float

    def generator_loss(self, x: Tensor, label: Tensor | None, g: torch.Generator) -> Tensor:
        """Differentiated with respect to x; it must leave no gradient anywhere else."""

    def critic_loss(self, x: Tensor, label: Tensor | None, g: torch.Generator) -> Tensor:
        """Added to the fake score's loss."""


def matching_gradient(x: Tensor, mu_real: Tensor, mu_fake: Tensor, alpha: Tensor, sigma: Tensor,
                      weighting: str = "released") -> Tensor:
    """The gradient of KL(p_fake,t ‖ p_real,t) at the samples x, up to a weight: g = w (μ_fake − μ_real), like x.

    Args:
        x: the generator's samples, (B, …); mu_real, mu_fake: x-predictions at their noised versions x_t.
        alpha, sigma: α_t, σ_t, broadcasting against x.
        weighting: w. "released" (DMD's published code): 1/mean|x − μ_real|, per sample, so that every noise level
            speaks as loudly. "paper" (eq. 7–8): α times that. "kl": α²/σ², the KL's gradient itself. "none": 1.
    Raises ValueError for another weighting.
    """
    difference = mu_fake - mu_real
    if weighting == "none":
        return difference
    if weighting == "kl":
        return alpha**2 / sigma**2 * difference
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}.")
    size = (x - mu_real).abs().flatten(1).mean(1).reshape(-1, *[1] * (x.ndim - 1))
    g = torch.nan_to_num(difference / size)  # 0/0 where a sample is already what the teacher would say
    return alpha * g if weighting == "paper" else g


def matching_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """½ mean (x − stopgrad(x − g))²: a scalar whose value says nothing, and whose derivative is dL/dx = g / numel
    (DMD, Algorithm 2). It hands a gradient that we computed ourselves to autograd."""
    return 0.5 * (x - (x - gradient).detach()).square().mean()


def _watch(x: Tensor, name: str, values: dict[str, Tensor]) -> Tensor:
    """Note under ``name``, when the loss is differentiated, how hard what is made of the x returned here pulls at an
    image: the norm of B dL/dx_i, the mean over the batch."""
    x = x.view_as(x)  # other terms may use x itself, and have their own notes
    x.register_hook(lambda gradient: values.__setitem__(name, gradient.flatten(1).norm(dim=1).sum()))
    return x


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error, one a sample, (B,)."""
    return (x - y).square().flatten(1).mean(1)


def dmd_step(generator: Learner, fake: Learner | None, real: Callable[..., Prediction], batch_size: int, *,
             updates: tuple[int, int] = (1, 1), t_range: tuple[float, float] = (0.02, 0.98),
             weighting: str = "released", matching: bool = True, pairs: Pairs | None = None,
             regression_weight: float = 0.25, distance: Callable[[Tensor, Tensor], Tensor] = squared_distance,
             inputs: Inputs | None = None, adversary: Adversary | None = None) -> Step:
    """The step of DMD's Algorithm 1: some updates of the generator, then some of the fake score.

    It returns the last update's losses, and "… gradient" for each of the generator's: the length of its gradient at an
    image, weight included, by which the terms can be weighed against each other.

    Args:
        generator: learns G(z), its x-prediction at t = T−1.
        fake: learns to denoise the generator's samples; None puts x in place of μ_fake, so that the real score
            acts alone (which is DreamFusion's score distillation).
        real: the teacher, or an exact denoiser; it is never trained. ``partial(teacher, guidance=w)`` guides it.
        updates: of the generator and of the fake score in a step.
        t_range: noise levels of the matching term, as shares of T. The fake score is trained at all of them.
        matching: False leaves the matching term out, so that only the regression is left.
        pairs: with them, ``regression_weight`` times ``distance(G(z), x)`` is added (eq. 9); one value a sample.
        inputs: what the generator is called with, in place of noise at T−1; and
        adversary: two more losses, one for each network. Both are DMD2's (``dmd2.dmd2_step``).
    Raises ValueError for a range, a weighting or a batch size that makes no sense, or if no term is left.
    """
    denoiser, n_generator, n_fake = generator.net, *updates
    schedule, low, high = denoiser.schedule, *t_range
    if not 0 <= low < high <= 1:
        raise ValueError(f"t_range must be two shares of T, 0 ≤ low < high ≤ 1; got {t_range}.")
    if n_generator < 1 or n_fake < 0:
        raise ValueError(f"updates must be at least one of the generator and none of the fake; got {updates}.")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}.")
    if not (matching or pairs or adversary):
        raise ValueError("Without the matching term and without pairs the generator has nothing to learn from.")
    mine = generator.share(batch_size)
    pairs = pairs and pairs.to(generator.accelerator.device)

    def draw(g: torch.Generator):
        """Noise for a batch of samples, noise for noising them, and their labels."""
        z, eps = (torch.randn(batch_size, *denoiser.sample_shape, generator=g, device=g.device)[mine] for _ in "ze")
        label = torch.randint(denoiser.n_classes, (batch_size,), generator=g, device=g.device)[mine] \
            if denoiser.n_classes else None
        return z, eps, label

    def times(g: torch.Generator, low: float, high: float) -> Tensor:
        return torch.randint(round(low * schedule.T), round(high * schedule.T), (batch_size,), generator=g,
                             device=g.device)[mine]

    def samples(z: Tensor, label: Tensor | None, g: torch.Generator) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Samples, their labels, and the labels that the fake score and the adversary are told."""
        x_t, t, label, told = inputs(z, label, g) if inputs else (z, schedule.T - 1, label, label)
        return generator.model(x_t, t, label).x, label, told

    def matching_term(x: Tensor, eps: Tensor, t: Tensor, label: Tensor | None, told: Tensor | None) -> Tensor:
        with torch.no_grad():
            x_t = schedule.noise(x, t, eps)
            mu_real = real(x_t, t, label).x
            mu_fake = fake.model(x_t, t, told).x if fake else x
            gradient = matching_gradient(x, mu_real, mu_fake, *schedule.at(t, x), weighting)
        return matching_loss(x, gradient)

    def regression_term(g: torch.Generator, values: dict[str, Tensor]) -> Tensor:
        index = torch.randint(len(pairs.z), (batch_size,), generator=g, device=g.device)[mine]
        z, y, label = pairs.batch(index)
        x = generator.model(z, schedule.T - 1, label).x
        return distance(_watch(x, "regression gradient", values), y).mean()

    def update_generator(g: torch.Generator) -> dict[str, Tensor]:
        values, terms = {}, {}
        if matching or adversary:
            (z, eps, label), t = draw(g), times(g, low, high)
            x, label, told = samples(z, label, g)
        if matching:
            terms["matching"] = 1, matching_term(_watch(x, "matching gradient", values), eps, t, label, told)
        if pairs:
            terms["regression"] = regression_weight, regression_term(g, values)
        if adversary:
            x = _watch(x, "gan gradient", values)
            terms["gan"] = adversary.generator_weight, adversary.generator_loss(x, told, g)
        return values | down(generator, terms)

    def update_fake(g: torch.Generator) -> dict[str, Tensor]:
        (z, eps, label), t = draw(g), times(g, 0, 1)
        with torch.no_grad():  # the fake score describes the samples, it must not move them
            x, _, told = samples(z, label, g)
        terms = {"fake": (1, denoising_loss(fake.model, schedule, fake.net.prediction, x, eps, t, told).mean())}
        if adversary:
            terms["critic"] = adversary.critic_weight, adversary.critic_loss(x, told, g)
        return down(fake, terms)

    def down(learner: Learner, terms: dict[str, tuple[float, Tensor]]) -> dict[str, Tensor]:
        """Update down the weighted sum of the terms; the terms themselves are what is logged."""
        learner.update(sum(weight * loss for weight, loss in terms.values()))
        return {name: loss.detach() for name, (_, loss) in terms.items()}

    def step(g: torch.Generator) -> dict[str, Tensor]:
        values = {}
        for _ in range(n_generator):
            values |= update_generator(g)
        for _ in range(n_fake if fake else 0):
            values |= update_fake(g)
        return {name: generator.accelerator.reduce(value, "mean") for name, value in values.items()}

    return step
