"""The discriminator that shares the fake score's way down (DMD2, section 4.3), and what a fake
score may be told of a sample.
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser, Prediction
from ..nets import DiscriminatorHead


class Discriminator(Denoiser):
    """A fake score that also tells real samples from generated ones: a head on its bottleneck
    shares its way down."""

    def __init__(self, denoiser: Denoiser):
        """Takes the denoiser's own network. Raises TypeError for one without a bottleneck."""
        super().__init__(denoiser.net, denoiser.schedule, denoiser.prediction, denoiser.patch,
                         denoiser.n_classes)
        device = next(denoiser.parameters()).device
        x = torch.zeros(1, *self.sample_shape, device=device)
        with torch.no_grad():
            features = self.bottleneck(x, torch.zeros(1, dtype=torch.int64, device=device), None)
        self.head = DiscriminatorHead(features.shape[1:]).to(device)

    def forward(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None,
                guidance: float = 0.0, judge: bool = False) -> Prediction | Tensor:
        """As ``Denoiser``'s; with ``judge``, the logits (B,) that x_t (B, …) is a noised real
        sample. Raises ValueError for guidance of a judgment: there is none."""
        if not judge:
            return super().forward(x_t, t, label, guidance)
        if guidance:
            raise ValueError(f"A judgment cannot be guided; got guidance {guidance:g}.")
        t = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        return self.head(self.bottleneck(x_t, t, label)).to(x_t.dtype)


def step_aware(denoiser: Denoiser, n_steps: int) -> Denoiser:
    """A copy that is also told which of a student's n_steps steps made a sample, by the label
    label + step (n_classes + 1). The label's row of the embedding is there once a step, alike at
    first. This is ours, and no part of DMD2.

    A fake score that is not told describes the samples of all steps together. Then these must be
    distributed like the data together, and not those of the last step, the ones in use, alone.
    Raises ValueError for a denoiser without classes: it has no embedding to tell it by.
    """
    if not denoiser.n_classes:
        raise ValueError("A fake score without classes has no embedding of labels, so it cannot be "
                         "told the step. Leave step_aware out.")
    copy = denoiser.copy()
    rows = denoiser.n_classes + 1
    net = type(copy.net).from_config({**copy.net.config, "num_class_embeds": n_steps * rows})
    weights = copy.net.state_dict()
    weights["class_embedding.weight"] = weights["class_embedding.weight"].repeat(n_steps, 1)
    net.load_state_dict(weights)
    return Denoiser(net, copy.schedule, copy.prediction, copy.patch, n_steps * rows - 1)


def label_shift(student: Denoiser, fake: Denoiser, step: int | Tensor) -> int | Tensor:
    """What is added to a label to tell the fake score that ``step`` made the sample: 0 if it is not
    ``step_aware``."""
    return 0 if fake.n_classes == student.n_classes else step * (student.n_classes + 1)


def check_fake_score(fake: Denoiser, student: Denoiser, n_steps: int, adversarial: bool) -> None:
    """Raises ValueError unless the fake score knows the student's labels once for each of the
    n_steps that it is told apart, and TypeError unless it is a ``Discriminator`` where it has to
    be."""
    known, wanted = fake.n_classes + 1, n_steps * (student.n_classes + 1)
    if known != wanted:
        raise ValueError(f"The fake score knows {known} labels, no class among them; by these "
                         f"settings (student_steps, step_aware) it must know {wanted}.")
    if adversarial and not isinstance(fake, Discriminator):
        raise TypeError("With adversarial losses the fake score must be a Discriminator; "
                        f"got {type(fake).__name__}.")


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Within, a loss that passes through the network leaves no gradient in it."""
    trained = [p for p in net.parameters() if p.requires_grad]
    net.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
