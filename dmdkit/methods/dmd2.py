"""DMD2 (Yin et al. 2024, "Improved Distribution Matching Distillation"): distribution matching without the regression
on noise–image pairs, and what it takes instead.

Two time scales (section 4.2) are ``dmd.dmd_step``'s ``updates``. Here are the critic on the fake score's bottleneck
(section 4.3) and the several steps with backward simulation (sections 4.4–4.5), as what that step takes more.
"""
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import dmd
from .data import Images
from .denoiser import Denoiser, Prediction
from .nets import CriticHead
from .schedule import Schedule
from .train import Learner, Step


def generator_loss(fake: Tensor) -> Tensor:
    """softplus(−D) of the logits of generated samples (B,), their mean: −log of the probability that the critic takes
    them for real (DMD2, eq. 4). It is large, and its slope −1, where the critic is sure that they are not."""
    return F.softplus(-fake).mean()


def critic_loss(fake: Tensor, real: Tensor) -> Tensor:
    """softplus(D(fake)) + softplus(−D(real)), their means over logits (B,) each: what the critic wins by telling
    generated samples from real ones (DMD2, eq. 4). A critic that cannot tell has 2 ln 2 = 1.386."""
    return F.softplus(fake).mean() + F.softplus(-real).mean()


class Critic(Denoiser):
    """A fake score that can also tell real images from generated ones: a head on its bottleneck shares its way down."""

    def __init__(self, denoiser: Denoiser):
        """Takes the denoiser's own network, which must be a UNet2DModel. Raises TypeError for another kind."""
        super().__init__(denoiser.net, denoiser.schedule, denoiser.prediction, denoiser.patch, denoiser.n_classes)
        if not hasattr(self.net, "mid_block"):
            raise TypeError(f"A critic needs the middle block of a UNet2DModel; got {type(self.net).__name__}.")
        channels = self.net.config.block_out_channels
        self.head = CriticHead(channels[-1], self.net.config.sample_size // 2**(len(channels) - 1))

    def forward(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None, guidance: float = 0.0,
                judge: bool = False) -> Prediction | Tensor:
        """As ``Denoiser``'s; with ``judge``, the logits (B,) that x_t (B, C, H, W) is a noised real image."""
        if not judge:
            return super().forward(x_t, t, label, guidance)
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        label = torch.full_like(t, self.n_classes) if label is None else label
        return self.head(self.bottleneck(x_t, t, label)).to(x_t.dtype)


def step_aware(denoiser: Denoiser, n_steps: int) -> Denoiser:
    """A copy that is also told which of a student's n_steps steps made a sample: label + step (n_classes + 1), for step
    0 … n_steps − 1. The label's row of the embedding is there once a step, alike at first.

    A fake score that is not told describes the samples of all steps together. Then these must be distributed like
    the data together, and not those of the last step, the ones in use, by themselves.
    """
    copy, rows = denoiser.copy(), denoiser.n_classes + 1
    net = type(copy.net).from_config({**copy.net.config, "num_class_embeds": n_steps * rows})
    weights = copy.net.state_dict()
    weights["class_embedding.weight"] = weights["class_embedding.weight"].repeat(n_steps, 1)
    net.load_state_dict(weights)
    return Denoiser(net, copy.schedule, copy.prediction, copy.patch, n_steps * rows - 1)


def label_shift(student: Denoiser, fake: Denoiser, step: int | Tensor) -> int | Tensor:
    """What is added to a label to tell the fake score that ``step`` made the sample: 0 if it is not ``step_aware``."""
    return 0 if fake.n_classes == student.n_classes else step * (student.n_classes + 1)


@contextmanager
def frozen(net: nn.Module):
    """Within, a loss that passes through the network leaves no gradient in it."""
    trained = [p for p in net.parameters() if p.requires_grad]
    net.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


class Gan(NamedTuple):
    """The adversarial terms of ``dmd.dmd_step``. Both sides are noised, each image to a time of its own: a critic of
    clean images tells them apart by what no eye sees, and its gradient then says nothing."""
    fake: Learner           # its ``net`` is a ``Critic``
    images: Images          # what is real
    batch_size: int         # of all processes together
    generator_weight: float = 1.0
    critic_weight: float = 1.0
    shift: Tensor | int = 0  # (B,) of this process, what a label is to the critic beyond the digit: see ``step_aware``

    def _noise(self, x: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """x noised, and its times (B,)."""
        schedule, mine = self.fake.net.schedule, self.fake.share(self.batch_size)
        t = torch.randint(schedule.T, (self.batch_size,), generator=g, device=g.device)[mine]
        eps = torch.randn(self.batch_size, *x.shape[1:], generator=g, device=g.device)[mine]
        return schedule.noise(x, t, eps), t

    def generator_loss(self, x: Tensor, label: Tensor | None, g: torch.Generator) -> Tensor:
        x_t, t = self._noise(x, g)
        with frozen(self.fake.net):  # the generator's loss must not train the critic to be deceived
            return generator_loss(self.fake.net(x_t, t, label, judge=True))

    def critic_loss(self, x: Tensor, label: Tensor | None, g: torch.Generator) -> Tensor:
        real, real_label = real_batch(self.images, self.fake, self.batch_size, g)
        (fake_t, t), (real_t, real_at) = self._noise(x, g), self._noise(real, g)
        labels = None if label is None else torch.cat([label, real_label + self.shift])
        logits = self.fake.model(torch.cat([fake_t, real_t]), torch.cat([t, real_at]), labels, judge=True)
        return critic_loss(*logits.chunk(2))


def real_batch(images: Images, learner: Learner, batch_size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """This process's share of a batch of real images, (B, C, H, W) in [−1, 1], and their labels (B,)."""
    index = torch.randint(len(images), (batch_size,), generator=g, device=g.device)
    return images.batch(index[learner.share(batch_size)])


def matched_weight(x: Tensor, reference: Tensor, term: Tensor, share: float = 1.0) -> float:
    """The weight at which ``term`` pulls at the images x ``share`` times as hard as ``reference`` does.

    x: what both scalars are differentiated with respect to. The graph is kept, so that both can still be used.
    Raises ValueError where ``term`` does not pull at all.
    """
    def pull(loss: Tensor) -> float:
        if not loss.requires_grad:
            return 0.0
        gradient, = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True, materialize_grads=True)
        return gradient.flatten(1).norm(dim=1).mean().item()

    own = pull(term)
    if not own > 0:
        raise ValueError("The term has no gradient at these images, so no weight can make it as strong.")
    return share * pull(reference) / own


def paper_weights(sample_shape: tuple[int, ...]) -> tuple[float, float]:
    """The paper's weights of the generator's and the critic's loss, 3e-3 and 1e-2 for 64 × 64 × 3 images, at another
    size. The matching loss is a mean over pixels, and the critic's logit is not: fewer pixels, more weight."""
    pixels = 64 * 64 * 3 / torch.Size(sample_shape).numel()
    return 3e-3 * pixels, 1e-2 * pixels


# Several steps.

@torch.no_grad()
def simulate(denoiser: Callable[..., Prediction], schedule: Schedule, z: Tensor, label: Tensor | None, times: Tensor,
             exits: Tensor, eps: Tensor) -> Tensor:
    """Backward simulation (DMD2, section 4.5): run the student from noise as in use, and stop where it will be trained.

    Args:
        z: noise (B, …), the state at times[0]. times: (n,), the student's list, from T−1 downwards.
        exits: (B,) for each sample the place 0 … n−1 in ``times`` where it stops.
        eps: (n−1, B, …), the fresh noise between the steps.
    Returns the states (B, …): z itself where exits is 0, else x̂ of the step before, noised to times[exits].
    """
    x_t = z.clone()
    for k in range(1, len(times)):
        going = exits >= k
        if not going.any():
            break
        x = denoiser(x_t[going], int(times[k - 1]), None if label is None else label[going]).x
        x_t[going] = schedule.noise(x, int(times[k]), eps[k - 1][going])
    return x_t


def exit_steps(learner: Learner, n_steps: int, batch_size: int) -> Tensor:
    """(B,) of this process: the step, 0 … n_steps − 1, that each sample of a batch is made by; each n-th by another.
    Raises ValueError if a process's share of the batch has not a sample for each step."""
    exits = (torch.arange(batch_size) * n_steps // batch_size)[learner.share(batch_size)]
    if len(exits.unique()) < n_steps:
        raise ValueError(f"Each process's share of a batch needs a sample for each of the {n_steps} steps; "
                         f"batch_size {batch_size} is too small.")
    return exits.to(learner.accelerator.device)


def several_steps(generator: Learner, n_steps: int, batch_size: int, images: Images | None = None,
                  shift: Tensor | int = 0) -> dmd.Inputs:
    """What an n-step student is trained on: each n-th of a batch at another time of its list.

    images: noise real images instead of simulating what the student itself will meet there. That is the mismatch
    of training and use which backward simulation is there to mend.
    shift: (B,) added to the labels that the fake score is told.
    Raises what ``exit_steps`` raises.
    """
    schedule, mine = generator.net.schedule, generator.share(batch_size)
    times, exits = schedule.steps(n_steps), exit_steps(generator, n_steps, batch_size)
    t = times.to(exits.device)[exits]

    def inputs(z: Tensor, label: Tensor | None, g: torch.Generator):
        if images:
            x, label = real_batch(images, generator, batch_size, g)
            x_t = schedule.noise(x, t, z)  # at T−1 α is 0, and this is z
        else:
            eps = torch.randn(n_steps - 1, batch_size, *z.shape[1:], generator=g, device=g.device)[:, mine]
            x_t = simulate(generator.model, schedule, z, label, times, exits, eps)
        return x_t, t, label, None if label is None else label + shift

    return inputs


def dmd2_step(generator: Learner, fake: Learner, real: Callable[..., Prediction], batch_size: int, *,
              images: Images | None = None, fake_updates: int = 5, generator_weight: float = 0.0,
              critic_weight: float = 0.0, t_range: tuple[float, float] = (0.02, 0.98), weighting: str = "released",
              matching: bool = True, n_steps: int = 1, backward_simulation: bool = True) -> Step:
    """The step of DMD2: one update of the generator, ``fake_updates`` of the fake score and its critic.

    Args:
        generator, fake, real, t_range, weighting, matching: as ``dmd.dmd_step``'s. With a weight of the critic's,
            fake.net is a ``Critic``. A fake score that is ``step_aware`` is told the step of every sample.
        images: real images, for the critic and where ``backward_simulation`` is off.
        generator_weight, critic_weight: of the adversarial losses; 0 leaves them out.
        n_steps: the student's number of steps.
    Raises ValueError for weights that do not go together, missing images, a bad n_steps or a fake score that is aware
    of other steps, and what ``dmd.dmd_step`` raises.
    """
    if not (generator_weight == critic_weight == 0 or generator_weight > 0 and critic_weight > 0):
        raise ValueError("The weights of the generator's and the critic's loss must both be positive, or both 0; got "
                         f"{generator_weight} and {critic_weight}.")
    if images is None and (critic_weight or not backward_simulation):
        raise ValueError("The critic, and inputs without backward simulation, need real images; pass images=.")
    generator.net.schedule.steps(n_steps)  # refuses a bad number before any work
    shift = label_shift(generator.net, fake.net, exit_steps(generator, n_steps, batch_size))
    labels, known = generator.net.n_classes + 1, fake.net.n_classes + 1
    if known not in (labels, labels * n_steps):
        raise ValueError(f"The fake score knows {known} labels, no class among them; for a student of {n_steps} steps "
                         f"it must know {labels}, or {labels * n_steps} to be told the step as well.")
    images = images and images.to(generator.accelerator.device)
    gan = Gan(fake, images, batch_size, generator_weight, critic_weight, shift) if critic_weight else None
    met = None if backward_simulation else images
    inputs = several_steps(generator, n_steps, batch_size, met, shift) if n_steps > 1 else None
    return dmd.dmd_step(generator, fake, real, batch_size, updates=(1, fake_updates), t_range=t_range,
                        weighting=weighting, matching=matching, inputs=inputs, adversary=gan)
