"""DMD2 (Yin et al. 2024, "Improved Distribution Matching Distillation"): distribution matching
without the regression on noise–image pairs, and what it takes instead.

Two time scales (section 4.2) are DMD's ``updates``. Here are the discriminator on the fake score's
bottleneck (section 4.3) and the several steps with backward simulation (sections 4.4–4.5).
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Images, Points
from ..denoiser import Denoiser, Prediction
from ..schedule import Schedule
from ..train import Learner
from .ddpm import check_data
from .discriminator import Discriminator, check_fake_score, frozen, label_shift, step_aware
from .distillation import Distillation
from .dmd import DMD, Samples, watch


def generator_loss(fake: Tensor) -> Tensor:
    """softplus(−D) of the logits of generated samples (B,), their mean: −log of the probability
    that the discriminator takes them for real (DMD2, eq. 4). It is large, and its slope −1, where
    the discriminator is sure that they are not."""
    return F.softplus(-fake).mean()


def discriminator_loss(fake: Tensor, real: Tensor) -> Tensor:
    """softplus(D(fake)) + softplus(−D(real)), their means over logits (B,) each: what the
    discriminator wins by telling generated samples from real ones (DMD2, eq. 4). One that cannot
    tell has 2 ln 2 = 1.386."""
    return F.softplus(fake).mean() + F.softplus(-real).mean()


def matched_weight(x: Tensor, reference: Tensor, term: Tensor, share: float = 1.0) -> float:
    """The weight at which the gradient norm of ``term`` at the samples x is ``share`` times that of
    ``reference``.

    x: what both scalars are differentiated with respect to. The graph is kept, so that both can
    still be used. Raises ValueError where ``term`` has no gradient at all.
    """
    own = _gradient_norm(term, x)
    if not own > 0:
        raise ValueError("The term has no gradient at these samples, so no weight can make it as "
                         "strong.")
    return share * _gradient_norm(reference, x) / own


def _gradient_norm(loss: Tensor, x: Tensor) -> float:
    if not loss.requires_grad:
        return 0.0
    gradient, = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True,
                                    materialize_grads=True)
    return gradient.flatten(1).norm(dim=1).mean().item()


def rescaled_weights(sample_shape: tuple[int, ...]) -> tuple[float, float]:
    """The paper's weights of the generator's and the discriminator's loss, 3e-3 and 1e-2 for
    64 × 64 × 3 images, rescaled by the number of pixels. The rescaling is ours, and the released
    weights for latent images do not follow it: take it as a start, and measure the pulls."""
    pixels = 64 * 64 * 3 / torch.Size(sample_shape).numel()
    return 3e-3 * pixels, 1e-2 * pixels


@torch.no_grad()
def simulate(denoiser: Callable[..., Prediction], schedule: Schedule, z: Tensor,
             label: Tensor | None, times: Tensor, exits: Tensor, eps: Tensor) -> Tensor:
    """Backward simulation (DMD2, section 4.5): run the student from noise as in use, and stop where
    it will be trained.

    Args:
        z: noise (B, …), the state at times[0].
        times: (n,), the student's list, from T−1 downwards.
        exits: (B,) for each sample the place 0 … n−1 in ``times`` where it stops.
        eps: (n−1, B, …), the fresh noise between the steps.
    Returns the states (B, …): z itself where exits is 0, else x̂ of the step before, noised to
    times[exits].
    """
    x_t = z.clone()
    for k in range(1, len(times)):
        going = exits >= k
        if not going.any():
            break
        told = None if label is None else label[going]
        x = denoiser(x_t[going], int(times[k - 1]), told).x
        x_t[going] = schedule.noise(x, int(times[k]), eps[k - 1][going])
    return x_t


def exit_steps(learner: Learner, n_steps: int, batch_size: int) -> Tensor:
    """(B,) of this process: the step, 0 … n_steps − 1, that each sample of a batch is made by; each
    n-th by another. Raises ValueError if a process's share has not a sample for each step."""
    every = [i * n_steps // batch_size for i in range(batch_size)]
    exits = every[learner.share(batch_size)]
    if len(set(exits)) < n_steps:
        raise ValueError(f"Each process's share of a batch needs a sample for each of the "
                         f"{n_steps} steps; batch_size {batch_size} is too small.")
    return torch.tensor(exits, device=learner.accelerator.device)


@dataclass(frozen=True)
class Settings(Distillation):
    """One distillation by DMD2; see ``DMD2`` for what its values mean."""
    updates: tuple[int, int] = (1, 5)
    generator_weight: float = 0.0      # of the adversarial losses; 0 leaves them out
    discriminator_weight: float = 0.0
    student_steps: int = 1
    backward_simulation: bool = True
    step_aware: bool = False           # the fake score is told which step made a sample

    has_fake = True

    def __post_init__(self):
        super().__post_init__()
        weights = self.generator_weight, self.discriminator_weight
        positive = all(0 < weight < math.inf for weight in weights)
        if not positive and any(weight != 0 for weight in weights):
            raise ValueError("The weights of the generator's and the discriminator's loss must "
                             f"both be positive, or both 0; got {weights[0]} and {weights[1]}.")
        if not (self.matching or self.adversarial):
            raise ValueError("Without the matching term and without a discriminator the generator "
                             "has nothing to learn from.")
        if self.student_steps == 1 and (self.step_aware or not self.backward_simulation):
            raise ValueError("step_aware and backward_simulation are about students of several "
                             "steps; with one they would be ignored. Leave them out.")

    @property
    def adversarial(self) -> bool:
        return self.generator_weight > 0

    @property
    def told_steps(self) -> int:
        """How many steps the fake score tells apart."""
        return self.student_steps if self.step_aware else 1

    def fake_score(self, task, teacher) -> Denoiser:
        fake = super().fake_score(task, teacher)
        if self.step_aware:
            fake = step_aware(fake, self.student_steps)
        return Discriminator(fake) if self.adversarial else fake

    def step(self, task, learners, real, batch_size: int, sources) -> "DMD2":
        images = task.data() if self.adversarial or not self.backward_simulation else None
        return DMD2(learners["generator"], learners["fake"], real, batch_size, self, images)


class DMD2(DMD):
    """DMD's step without pairs: the fake score learns more often than the generator, tells real
    samples from generated ones, and the student may take several steps.

    Both sides of the discriminator are noised, each sample to a time of its own: a discriminator of
    clean images tells them apart by what no eye sees, and its gradient then says nothing.

    Args:
        generator, fake, real, batch_size: as ``DMD``'s. With weights of the adversarial losses,
            fake.net is a ``Discriminator``.
        settings: also its adversarial weights, student_steps and backward_simulation. Without
            backward simulation real images are noised in place of the states that the student
            meets in use: the mismatch of training and use which it is there to mend.
        images: real samples, for the discriminator and where there is no backward simulation.
    Raises ValueError for missing images or a bad number of steps, and what ``DMD`` and
    ``check_fake_score`` raise.
    """

    def __init__(self, generator: Learner, fake: Learner, real: Callable[..., Prediction],
                 batch_size: int, settings: Settings, images: Images | Points | None = None):
        self.adversarial = settings.adversarial
        super().__init__(generator, fake, real, batch_size, settings)
        if images is None and (self.adversarial or not settings.backward_simulation):
            raise ValueError("The discriminator, and inputs without backward simulation, need real "
                             "samples; pass images=.")
        self.times = self.schedule.steps(settings.student_steps)
        check_fake_score(fake.net, generator.net, settings.told_steps, self.adversarial)
        if images is not None:
            check_data(images, generator.net)
        self.images = images and images.to(generator.accelerator.device)
        self.exits = exit_steps(generator, settings.student_steps, batch_size)
        self.shift = label_shift(generator.net, fake.net, self.exits)
        self.weights |= {"gan": settings.generator_weight,
                         "discriminator": settings.discriminator_weight}

    def inputs(self, z: Tensor, label: Tensor | None, g: torch.Generator) -> tuple:
        """Each n-th of a batch at another time of the student's list."""
        if len(self.times) == 1:
            return super().inputs(z, label, g)
        t = self.times.to(self.exits.device)[self.exits]
        if self.settings.backward_simulation:
            x_t = self.simulated(z, label, g)
        else:
            x, label = self.real_batch(g)
            x_t = self.schedule.noise(x, t, z)  # z at T−1, where α is 0 there
        return x_t, t, label, None if label is None else label + self.shift

    def simulated(self, z: Tensor, label: Tensor | None, g: torch.Generator) -> Tensor:
        """The states that the student itself arrives at, (B, …)."""
        size = (len(self.times) - 1, self.batch_size, *z.shape[1:])
        eps = torch.randn(size, generator=g, device=g.device)[:, self.rows]
        model = self.generator.model
        return simulate(model, self.schedule, z, label, self.times, self.exits, eps)

    def real_batch(self, g: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """This process's share of a batch of real samples (B, …), and their labels (B,)."""
        n = len(self.images)
        index = torch.randint(n, (self.batch_size,), generator=g, device=g.device)
        x, label = self.images.batch(index[self.rows])
        return x, label if self.generator.net.n_classes else None

    def generator_losses(self, g: torch.Generator, norms: dict[str, Tensor]) -> dict[str, Tensor]:
        samples, losses = self.sample(g, *self.settings.t_range), {}
        if self.settings.matching:
            losses["matching"] = self.matching_loss(samples, norms)
        if self.adversarial:
            losses["gan"] = self.gan_loss(samples, g, norms)
        return losses

    def gan_loss(self, samples: Samples, g: torch.Generator, norms: dict[str, Tensor]) -> Tensor:
        x_t, t = self.noised(watch(samples.x, "gan gradient", norms), g)
        with frozen(self.fake.net):  # the generator's loss must not train it to be deceived
            return generator_loss(self.fake.net(x_t, t, samples.fake_label, judge=True))

    def fake_losses(self, samples: Samples, g: torch.Generator) -> dict[str, Tensor]:
        losses = super().fake_losses(samples, g)
        if self.adversarial:
            losses["discriminator"] = self.discriminator_loss(samples, g)
        return losses

    def discriminator_loss(self, samples: Samples, g: torch.Generator) -> Tensor:
        real, label = self.real_batch(g)
        fake_t, t = self.noised(samples.x, g)
        real_t, real_at = self.noised(real, g)
        labels = None
        if label is not None:
            labels = torch.cat([samples.fake_label, label + self.shift])
        logits = self.fake.model(torch.cat([fake_t, real_t]), torch.cat([t, real_at]), labels,
                                 judge=True)
        return discriminator_loss(*logits.chunk(2))

    def noised(self, x: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (B, …) noised, each sample to a time of its own, and these times (B,)."""
        n, draw = self.batch_size, {"generator": g, "device": g.device}
        t = torch.randint(self.schedule.T, (n,), **draw)[self.rows]
        eps = torch.randn(n, *x.shape[1:], **draw)[self.rows]
        return self.schedule.noise(x, t, eps), t
