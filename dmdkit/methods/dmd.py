"""Distribution Matching Distillation (Yin et al. 2024, "DMD"): its gradient, its losses, its step.

One code serves points of the plane and images. Everything is written in x-predictions, since there
s_fake − s_real = α (μ_fake − μ_real)/σ²: the difference of two denoised means *is* a difference of
scores.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import expect
from ..denoiser import Prediction
from ..train import Learner
from .ddpm import denoising_loss
from .distillation import WEIGHTINGS, Distillation, check_networks
from .pairs import Pairs, Solver
from .perceptual import Distance, squared_distance


def matching_gradient(x: Tensor, mu_real: Tensor, mu_fake: Tensor, alpha: Tensor, sigma: Tensor,
                      weighting: str = "released") -> Tensor:
    """The gradient of KL(p_fake,t ‖ p_real,t) at the samples x, up to a weight, shaped like x:
    g = w (μ_fake − μ_real).

    Args:
        x: the generator's samples, (B, …).
        mu_real, mu_fake: x-predictions at their noised versions x_t.
        alpha, sigma: α_t, σ_t, broadcasting against x.
        weighting: w. "released" (DMD's published code): 1/mean|x − μ_real|, per sample, so that
            every noise level speaks as loudly. "paper" (eq. 7–8): α times that. "kl": α²/σ²,
            the KL's gradient itself. "none": 1.
    A sample that is exactly what the teacher says of it, and not what the fake score says, has an
    infinite gradient under the first two. Raises ValueError for another weighting, TypeError or
    ValueError for tensors that are not floating or of unlike shapes.
    """
    expect.alike(x=x, mu_real=mu_real, mu_fake=mu_fake)
    expect.factors(x, alpha=alpha, sigma=sigma)
    difference = mu_fake - mu_real
    if weighting == "none":
        return difference
    if weighting == "kl":
        return alpha**2 / sigma**2 * difference
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}.")
    size = (x - mu_real).abs().flatten(1).mean(1).reshape(-1, *[1] * (x.ndim - 1))
    # 0/0 where a sample is already what the teacher would say; anything else that is not finite
    # is a fault, and has to be seen
    g = torch.where(difference == 0, difference, difference / size)
    return alpha * g if weighting == "paper" else g


def matching_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """½ mean (x − stopgrad(x − g))²: a scalar whose value says nothing, and whose derivative is
    dL/dx = g / numel (DMD, Algorithm 2). It hands a gradient that we computed to autograd. Raises
    TypeError or ValueError for tensors of unlike shapes."""
    expect.alike(x=x, gradient=gradient)
    return 0.5 * (x - (x - gradient).detach()).square().mean()


def watch(x: Tensor, name: str, values: dict[str, Tensor]) -> Tensor:
    """x, such that the gradient norm at a sample is noted as values[name] when the loss of what is
    made of it is differentiated: the norm of B dL/dx_i, the mean over the batch."""
    x = x.view_as(x)  # other terms may use x itself, and have their own notes

    def note(gradient: Tensor) -> None:
        values[name] = gradient.detach().flatten(1).norm(dim=1).sum()

    if x.requires_grad:
        x.register_hook(note)
    return x


@dataclass(frozen=True)
class Settings(Distillation):
    """One distillation by DMD; see ``DMD`` for what its values mean."""
    fake: bool = True             # False: the real score alone
    n_pairs: int = 0              # 0: no regression
    regression_weight: float = 0.25
    distance: str = "squared"     # one that the task knows
    solver: str = "heun"
    solver_steps: int = 8

    def __post_init__(self):
        super().__post_init__()
        expect.whole("n_pairs", self.n_pairs, 0)
        if not (self.matching or self.n_pairs):
            raise ValueError("Without the matching term and without pairs the generator has "
                             "nothing to learn from.")
        ignored = [name for name in ("regression_weight", "distance", "solver", "solver_steps")
                   if getattr(self, name) != getattr(Settings, name)]
        if ignored and not self.n_pairs:
            raise ValueError(f"{ignored[0]} belongs to the regression; without pairs (n_pairs = 0) "
                             "it would be ignored. Leave it out.")
        if not 0 < self.regression_weight < math.inf:
            raise ValueError("regression_weight must be positive: without a regression, n_pairs is "
                             f"0; got {self.regression_weight}.")
        self.pair_solver  # raises for what is no solver

    @property
    def has_fake(self) -> bool:
        """Whether there is a fake score."""
        return self.fake and self.matching

    @property
    def pair_solver(self) -> Solver:
        return Solver(self.solver, self.solver_steps, self.guidance)

    def step(self, task, learners, real, batch_size: int, sources) -> "DMD":
        device = learners["generator"].accelerator.device
        pairs, distance = None, squared_distance
        if self.n_pairs:
            distance = task.distance(self.distance, device)  # may refuse: before pairs are made
            pairs = sources.pairs(self.teacher, self.n_pairs, self.pair_solver).to(device)
        return DMD(learners["generator"], learners.get("fake"), real, batch_size, self,
                   pairs=pairs, distance=distance)


class Samples:
    """A batch of the generator's samples, and what else its losses need.

    x: samples (B, …). eps, t: the noise and the times at which they are noised. label: (B,) or
    None. fake_label: what the fake score and the discriminator are told, which may be more.
    """

    def __init__(self, x: Tensor, eps: Tensor, t: Tensor, label: Tensor | None,
                 fake_label: Tensor | None):
        self.x, self.eps, self.t = x, eps, t
        self.label, self.fake_label = label, fake_label


class DMD:
    """The step of Algorithm 1: some updates of the generator, then some of the fake score.

    It returns the last update's losses, and "… gradient" for each of the generator's: the gradient
    norm at a sample, weight included, by which the terms can be weighed against each other.

    Args:
        generator: learns G(z), its x-prediction at t = T−1.
        fake: learns to denoise the generator's samples; None puts x in place of μ_fake, so that
            the real score acts alone (DreamFusion's score distillation).
        real: the teacher, or an exact denoiser; it is never trained. ``partial(teacher,
            guidance=w)`` guides it.
        batch_size: of all processes together.
        settings: its updates, t_range, weighting, matching and regression_weight. The fake score
            is trained at all noise levels, whatever t_range is.
        pairs: with them ``regression_weight`` times distance(G(z), x) is added (eq. 9).
        distance: one value a sample, (B,).
    Raises ValueError for a batch that the processes cannot share, for what contradicts the
    settings, and for networks that do not fit each other.
    """

    def __init__(self, generator: Learner, fake: Learner | None, real: Callable[..., Prediction],
                 batch_size: int, settings: Distillation, *, pairs: Pairs | None = None,
                 distance: Distance = squared_distance):
        self.generator, self.fake, self.real = generator, fake, real
        self.settings, self.schedule = settings, generator.net.schedule
        self.batch_size, self.rows = batch_size, generator.share(batch_size)
        self.pairs, self.distance = pairs, distance
        self.weights = {"matching": 1.0, "fake": 1.0,
                        "regression": getattr(settings, "regression_weight", 0.0)}
        check_networks(settings, generator.net, fake and fake.net, real)
        n_pairs, given = getattr(settings, "n_pairs", 0), len(pairs.z) if pairs else 0
        if given != n_pairs:
            raise ValueError(f"The settings say {n_pairs} pairs; got {given} with pairs=.")
        if pairs:
            pairs.check(generator.net)

    adversarial = False  # whether losses of a discriminator are added: DMD2's are

    def __call__(self, g: torch.Generator) -> dict[str, Tensor]:
        n_generator, n_fake = self.settings.updates
        values = {}
        for _ in range(n_generator):
            values |= self.update_generator(g)
        for _ in range(n_fake if self.fake else 0):
            values |= self.update_fake(g)
        reduce = self.generator.accelerator.reduce
        return {name: reduce(value, "mean") for name, value in values.items()}

    def update_generator(self, g: torch.Generator) -> dict[str, Tensor]:
        norms = {}
        return self.descend(self.generator, self.generator_losses(g, norms)) | norms

    def generator_losses(self, g: torch.Generator, norms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The generator's losses by name; their gradient norms are noted in ``norms``."""
        losses = {}
        if self.settings.matching:
            samples = self.sample(g, *self.settings.t_range)
            losses["matching"] = self.matching_loss(samples, norms)
        if self.pairs:
            losses["regression"] = self.regression_loss(g, norms)
        return losses

    def update_fake(self, g: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():  # the fake score describes the samples, it must not move them
            samples = self.sample(g, 0, 1)
        return self.descend(self.fake, self.fake_losses(samples, g))

    def fake_losses(self, samples: Samples, g: torch.Generator) -> dict[str, Tensor]:
        """The fake score's losses by name."""
        kind = self.fake.net.prediction
        loss = denoising_loss(self.fake.model, self.schedule, kind, samples.x, samples.eps,
                              samples.t, samples.fake_label)
        return {"fake": loss.mean()}

    def sample(self, g: torch.Generator, low: float, high: float) -> Samples:
        """Samples, with noise and with times between low T and high T at which to noise them."""
        net, T = self.generator.net, self.schedule.T
        shape = (self.batch_size, *net.sample_shape)
        draw = {"generator": g, "device": g.device}
        z = torch.randn(shape, **draw)[self.rows]
        eps = torch.randn(shape, **draw)[self.rows]
        label = None
        if net.n_classes:
            label = torch.randint(net.n_classes, shape[:1], **draw)[self.rows]
        t = torch.randint(round(low * T), round(high * T), shape[:1], **draw)[self.rows]
        x_in, t_in, label, fake_label = self.inputs(z, label, g)
        return Samples(self.generator.model(x_in, t_in, label).x, eps, t, label, fake_label)

    def inputs(self, z: Tensor, label: Tensor | None, g: torch.Generator) -> tuple:
        """What the generator is called with, a state, its t and its label; and the label that the
        fake score is told. In one step: noise at T−1."""
        return z, self.schedule.T - 1, label, label

    def matching_loss(self, samples: Samples, norms: dict[str, Tensor]) -> Tensor:
        x, t = samples.x, samples.t
        with torch.no_grad():
            x_t = self.schedule.noise(x, t, samples.eps)
            mu_real = self.real(x_t, t, samples.label).x
            mu_fake = self.fake.model(x_t, t, samples.fake_label).x if self.fake else x
            alpha, sigma = self.schedule.at(t, x)
            gradient = matching_gradient(x, mu_real, mu_fake, alpha, sigma, self.settings.weighting)
        return matching_loss(watch(x, "matching gradient", norms), gradient)

    def regression_loss(self, g: torch.Generator, norms: dict[str, Tensor]) -> Tensor:
        n = len(self.pairs.z)
        index = torch.randint(n, (self.batch_size,), generator=g, device=g.device)[self.rows]
        z, y, label = self.pairs.batch(index)
        x = self.generator.model(z, self.schedule.T - 1, label).x
        return self.distance(watch(x, "regression gradient", norms), y).mean()

    def descend(self, learner: Learner, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Update down the weighted sum; the losses themselves are what is logged."""
        learner.update(sum(self.weights[name] * loss for name, loss in losses.items()))
        return {name: loss.detach() for name, loss in losses.items()}
