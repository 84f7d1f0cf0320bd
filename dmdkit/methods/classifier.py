"""Training the digit classifiers: augmentation and the step."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .data import Images
from .train import Learner, Step


def augment(x: Tensor, noise: float, generator: torch.Generator, shift: float = 2.0) -> Tensor:
    """Shift by up to ``shift`` pixels each way and add white noise of a random strength up to ``noise``.

    No turning, zooming or shearing: a classifier that learns to ignore those has features that cannot see them, and
    they are among a sampler's faults. x: (B, 1, H, W) in [−1, 1] → the same shape.
    """
    B, device = len(x), x.device
    affine = torch.eye(2, 3, device=device).repeat(B, 1, 1)
    affine[:, :, 2] = (2 * torch.rand(B, 2, generator=generator, device=device) - 1) * shift / (x.shape[-1] / 2)
    grid = F.affine_grid(affine, x.shape, align_corners=False)
    moved = F.grid_sample(x + 1, grid, align_corners=False) - 1  # outside the image is ink-free: −1
    strength = noise * torch.rand(B, 1, 1, 1, generator=generator, device=device)
    return moved + strength * torch.randn(x.shape, generator=generator, device=device)


def classifier_step(learner: Learner, images: Images, batch_size: int, noise: float,
                    label_smoothing: float = 0.1) -> Step:
    """The step that trains ``learner.net`` by cross-entropy on augmented images, with global batches of
    ``batch_size`` that processes share as in ``train.denoiser_step``. Batch norm and dropout see a process's share
    alone, so a net that has them is not what one process trains."""
    images = images.to(learner.accelerator.device)
    mine = learner.share(batch_size)

    def step(generator: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(images), (batch_size,), generator=generator, device=generator.device)
        x, label = images.batch(index)
        x, label = augment(x, noise, generator)[mine], label[mine]
        logits = learner.model(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, label, label_smoothing=label_smoothing)
        norm = learner.update(loss)
        hits = (logits.argmax(1) == label).float().mean()
        loss, hits = learner.accelerator.reduce(torch.stack([loss.detach(), hits]), "mean")
        return {"loss": loss, "accuracy": hits, "gradient norm": norm}

    return step
