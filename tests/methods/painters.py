"""Networks that one can follow by hand, learners that only note their gradients, and what a step
draws."""
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from dmdkit import data, schedule, score, train
from dmdkit.denoiser import Denoiser, Prediction, predict
from dmdkit.methods import dmd2
from dmdkit.methods.discriminator import Discriminator
from dmdkit.methods.pairs import Pairs

S = schedule.cosine()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def double():
    """Everything in float64, so that a value by hand is the value."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Line(nn.Module):
    """A network of two weights: x-prediction a z + b at every t."""
    sample_shape = (1,)

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x, t, class_labels=None):
        return SimpleNamespace(sample=self.a * x + self.b)


def line(a: float, b: float, sch: schedule.Schedule = S) -> Denoiser:
    return Denoiser(Line(a, b), sch, "x", n_classes=0)


def half(x_t: Tensor, t, label=None, sch: schedule.Schedule = S) -> Prediction:
    """What the lines have for a teacher: x-prediction x_t / 2 − 1."""
    return predict("x", 0.5 * x_t - 1, x_t, *sch.at(t, x_t))


def gaussian(mean: Tensor, covariance: Tensor) -> score.GaussianMixture:
    return score.GaussianMixture(mean[None], covariance[None], torch.ones(1))


class Painter(nn.Module):
    """A network for 2 × 2 images: x-prediction a x + b[label]. It notes the labels that it is asked
    for."""
    sample_shape = (1, 2, 2)

    def __init__(self, a: float, seed: int, n_classes: int = 3):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))
        self.b = nn.Parameter(torch.randn(n_classes + 1, 1, 2, 2, generator=generator(seed)))
        self.asked = []

    def forward(self, x, t, class_labels):
        self.asked.append(class_labels.tolist())
        return SimpleNamespace(sample=self.a * x + self.b[class_labels])


def painter(a: float, seed: int) -> Denoiser:
    return Denoiser(Painter(a, seed), S, "x", n_classes=3)


def painted_images() -> data.Images:
    """Seven real images 2 × 2, of three classes."""
    pixels = torch.randint(256, (7, 1, 2, 2), generator=generator(9)).byte()
    return data.Images(pixels, torch.tensor([0, 1, 2, 1, 0, 2, 0]))


def painted_pairs(n: int = 12, seed: int = 4) -> Pairs:
    """Pairs that a Painter of (0.7, seed 1) maps onto one another: x is a function of the noise and
    of the label."""
    z = torch.randn(n, 1, 2, 2, generator=generator(seed))
    net, label = Painter(0.7, 1), torch.arange(n) % 3
    return Pairs(z, net(z, None, label).sample.detach(), label)


class Recorder(train.Learner):
    """A learner that keeps its gradients and takes no step."""

    def __init__(self, net: nn.Module):
        super().__init__(net, train.accelerator(cpu=True), lr=1.0, n_steps=10, ema=0.0,
                         max_grad_norm=1e9)
        self.gradients = []

    def update(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, list(self.net.parameters()), allow_unused=True)
        self.gradients.append(found)
        return loss.detach()

    @property
    def seen(self) -> list[list[float | None]]:
        return [[g.item() if g is not None else None for g in gradients]
                for gradients in self.gradients]


def as_one_of(processes: int, index: int, net: Denoiser) -> Recorder:
    """A recorder that believes to be one of several processes."""
    one = Recorder(net)
    one.accelerator = SimpleNamespace(num_processes=processes, process_index=index, device="cpu")
    return one


def drawn(g: torch.Generator, n: int, low: int, high: int, shape=(1, 2, 2), n_classes: int = 3):
    """What a term of DMD's step draws: noise for the samples, noise for noising them, labels and
    times."""
    z = torch.randn(n, *shape, generator=g)
    eps = torch.randn(n, *shape, generator=g)
    label = torch.randint(n_classes, (n,), generator=g) if n_classes else None
    return z, eps, label, torch.randint(low, high, (n,), generator=g)


def noised(x: Tensor, t: Tensor, eps: Tensor, T: int = 1024) -> Tensor:
    """x_t on the cosine schedule, by its angle."""
    angle = (torch.pi / 2 * (t + 1) / T).reshape(-1, *[1] * (x.ndim - 1))
    return angle.cos() * x + angle.sin() * eps


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def learner(net: nn.Module, lr: float = 0.1, n_steps: int = 5, warmup: int = 0) -> train.Learner:
    return train.Learner(net, train.accelerator(cpu=True), lr=lr, n_steps=n_steps, warmup=warmup,
                         ema=0.0)


def run(step, learners: dict[str, train.Learner], n_steps: int, **options) -> list[train.Record]:
    return list(train.train(step, learners, n_steps=n_steps, **options))


# DMD2's, with a discriminator

class Judge(Discriminator):
    """A painter whose logit of x_t is c a Σ x_t + d[label] + t/1024; it notes what it judges."""

    def __init__(self, seed: int, n_classes: int = 3):
        Denoiser.__init__(self, Painter(0.4, seed, n_classes), S, "x", n_classes=n_classes)
        self.c = nn.Parameter(torch.tensor(0.3))
        self.d = nn.Parameter(torch.randn(n_classes + 1, generator=generator(seed)))
        self.judged = []

    def forward(self, x_t, t, label=None, guidance=0.0, judge=False):
        if not judge:
            return super().forward(x_t, t, label, guidance)
        self.judged.append((x_t.detach(), t, label))
        return self.c * self.net.a * x_t.flatten(1).sum(1) + self.d[label] + t / 1024


ALONE = {"generator_weight": 0.0, "discriminator_weight": 0.0}


def adversarial(**changes) -> dmd2.Settings:
    """With a discriminator, and one update of each, unless changed."""
    options = {"updates": (1, 1), "generator_weight": 0.25, "discriminator_weight": 0.75}
    return dmd2.Settings(**options | changes)


def judged(n: int, labels: int = 3, images: data.Images | None = painted_images(), **changes):
    """Generator, fake score (that knows so many labels) and teacher, and the step of n samples."""
    one, other = Recorder(painter(0.5, 1)), Recorder(Judge(2, labels))
    teacher = painter(0.6, 3)
    step = dmd2.DMD2(one, other, teacher, n, adversarial(**changes), images)
    return one, other, teacher, step
