"""What one looks at while a student trains, since its losses do not show it."""
from typing import NamedTuple

import torch
from torch import Tensor

from .. import noise
from ..data import to_uint8
from ..denoiser import Denoiser
from ..methods.discriminator import Discriminator, label_shift
from ..tasks.task import Task
from ..train import Training
from .evaluate import Sampling, labels_of

N_SHOWN, N_NOISED, N_COUNTED = 20, 4, 200
N_PLAYED = 10  # samples that a player shows


class Snapshot(NamedTuple):
    """A student as it is at one moment. Images are uint8, points float32, without gradients."""
    samples: Tensor        # (20, …), G(z) for always the same z
    brightness: Tensor     # (N,), the mean of each of N samples
    classes: Tensor        # (n_classes,) int64, how many of the N are of each; or empty
    noised: Tensor         # (4, …), samples noised to t = T/2
    real: Tensor           # (4, …), what the real score predicts of them
    fake: Tensor           # (4, …), what the fake score predicts; without one the samples
    discriminator: Tensor  # (2, N), its p("real") of N real samples and of these; or (2, 0)


@torch.no_grad()
def take(task: Task, training: Training, how: Sampling, n: int = N_COUNTED) -> Snapshot:
    """A snapshot of a distillation: of n samples of always the same noise, and of what both scores
    say of the same noised ones. how: the way the student draws."""
    generator = training.learners["generator"].net
    fake = training.learners["fake"].net if "fake" in training.learners else None
    device = next(generator.parameters()).device
    z = torch.randn(n, *generator.sample_shape, generator=noise.generator("pictures"))
    label = labels_of(n, generator.n_classes)
    label = None if label is None else label.to(device)
    x = _drawn(generator, how, z.to(device), label)
    shift = label_shift(generator, fake, how.n_steps - 1) if fake else 0  # the last step made x
    seen = _denoised(training.step.real, fake, x[:N_NOISED], label, shift)
    return Snapshot(kept(x[:N_SHOWN]), x.flatten(1).mean(1).cpu(), _classes(task, x),
                    *(kept(images) for images in seen),
                    _verdicts(task, fake, x, label, shift))


def seen(frame) -> dict[str, Tensor]:
    """What a study keeps of a training at a milestone, a ``runner.Frame``: its snapshot, where it
    has one."""
    if not frame.training.snapshot:
        return {}
    found = frame.training.snapshot()
    return found._replace(samples=found.samples[:N_PLAYED])._asdict()


def kept(x: Tensor) -> Tensor:
    """Samples as a snapshot has them: images as uint8, points as they are."""
    return to_uint8(x).cpu() if x.ndim == 4 else x.float().cpu()


def _drawn(generator: Denoiser, how: Sampling, z: Tensor, label: Tensor | None) -> Tensor:
    """Samples in eval mode; the network goes back to the mode that it was in."""
    training = generator.training
    generator.eval()
    x = how.samples(generator, z, label, noise.generator("pictures", 0, 1, z.device))
    generator.train(training)
    return x


def _denoised(real, fake: Denoiser | None, x: Tensor, label: Tensor | None,
              shift: int) -> tuple[Tensor, Tensor, Tensor]:
    """A few samples x noised to T/2, and what both scores predict of them."""
    schedule = real.func.schedule if hasattr(real, "func") else real.schedule
    t = schedule.T // 2
    eps = torch.randn(x.shape, generator=noise.generator("pictures", 0, 2)).to(x.device)
    x_t = schedule.noise(x, t, eps)
    label = None if label is None else label[:len(x)]
    told = None if label is None else label + shift
    return x_t, real(x_t, t, label).x, fake(x_t, t, told).x if fake else x


def _classes(task: Task, x: Tensor) -> Tensor:
    if not (task.classify and task.n_classes):
        return torch.zeros(0, dtype=torch.int64)
    return torch.bincount(task.classify(x).cpu(), minlength=task.n_classes)


def _verdicts(task: Task, fake: Denoiser | None, x: Tensor, label: Tensor | None,
              shift: int) -> Tensor:
    """The discriminator's probability of "real" for as many real samples as samples x, and for
    these, noised to all levels."""
    if not isinstance(fake, Discriminator):
        return torch.zeros(2, 0)
    examples = task.examples()
    n, device = min(len(x), len(examples)), x.device
    x, label = x[:n], None if label is None else label[:n]
    real, real_label = examples.batch(torch.arange(n))
    t = torch.arange(n, device=device) * fake.schedule.T // n
    eps = torch.randn(x.shape, generator=noise.generator("pictures", 0, 3)).to(device)
    found = []
    for side, labels in ((real.to(device), real_label.to(device)), (x, label)):
        told = None if label is None else labels + shift
        logits = fake(fake.schedule.noise(side, t, eps), t, told, judge=True)
        found.append(logits.sigmoid().cpu())
    return torch.stack(found)
