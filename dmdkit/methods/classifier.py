"""Training the classifiers in whose features samples are measured: augmentation, step, settings."""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import expect
from ..data import Images
from ..train import Learner, Training


def augment(x: Tensor, noise: float, generator: torch.Generator, shift: float = 2.0) -> Tensor:
    """Shift by up to ``shift`` pixels each way, and add white noise of a random strength up to
    ``noise``. x: (B, C, H, W) in [−1, 1] → the same shape.

    No turning, zooming or shearing: a classifier that learns to ignore those has features that
    cannot see them, and they are among a sampler's faults. Raises TypeError for what is not
    floating.
    """
    expect.floating(x=x)
    n, device = len(x), x.device
    draw = {"generator": generator, "device": device}
    height, width = x.shape[-2:]
    size = torch.tensor([width, height], device=device)
    affine = torch.eye(2, 3, device=device).repeat(n, 1, 1)
    affine[:, :, 2] = (2 * torch.rand(n, 2, **draw) - 1) * shift / (size / 2)
    grid = F.affine_grid(affine, x.shape, align_corners=False)
    moved = F.grid_sample(x + 1, grid, align_corners=False) - 1  # outside the image is −1
    strength = noise * torch.rand(n, 1, 1, 1, **draw)
    return moved + strength * torch.randn(x.shape, **draw)


class ClassifierStep:
    """The step that trains ``learner.net`` by cross-entropy on augmented images.

    batch_size is of all processes together. Batch norm and dropout see a process's share alone,
    so a network that has them is not what one process trains. Raises ValueError for a noise or a
    smoothing that is none.
    """

    def __init__(self, learner: Learner, images: Images, batch_size: int, noise: float,
                 label_smoothing: float = 0.1):
        if not 0 <= noise < math.inf or not 0 <= label_smoothing <= 1:
            raise ValueError("noise must be 0 or more, and label_smoothing a share, 0 … 1; "
                             f"got {noise} and {label_smoothing}.")
        self.learner, self.batch_size = learner, batch_size
        self.noise, self.label_smoothing = noise, label_smoothing
        self.rows = learner.share(batch_size)
        self.images = images.to(learner.accelerator.device)

    def __call__(self, g: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(len(self.images), (self.batch_size,), generator=g, device=g.device)
        x, label = self.images.batch(index)
        x, label = augment(x, self.noise, g)[self.rows], label[self.rows]
        logits = self.learner.model(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, label, label_smoothing=self.label_smoothing)
        norm = self.learner.update(loss)
        right = (logits.argmax(1) == label).float().mean()
        values = torch.stack([loss.detach(), right])
        loss, right = self.learner.accelerator.reduce(values, "mean")
        return {"loss": loss, "accuracy": right, "gradient norm": norm}


@dataclass(frozen=True)
class Settings:
    """A classifier; see ``ClassifierStep`` and ``Learner`` for what the values mean."""
    network: str                  # one of the task's classifiers
    noise: float
    label_smoothing: float = 0.1
    lr: float = 2e-3
    weight_decay: float = 0.05
    ema: float = 0.999

    @property
    def requires(self) -> dict[str, str]:
        """Artefacts that the training starts from, by their part in it: none."""
        return {}

    def prepare(self, task, accelerator, n_steps: int, batch_size: int, sources) -> Training:
        """The training, ready to run. Raises ValueError for a network that the task has not."""
        learner = Learner(task.network(self.network), accelerator, lr=self.lr, n_steps=n_steps,
                          weight_decay=self.weight_decay, ema=self.ema)
        step = ClassifierStep(learner, task.data(), batch_size, self.noise, self.label_smoothing)
        return Training({"net": learner}, step)
