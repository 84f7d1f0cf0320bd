"""Training a classifier: how digits are moved and blurred by noise, and what a step learns from."""
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import refused
from painters import Recorder, generator, painted_images, weights
from torch import Tensor, nn

from dmdkit import data, train
from dmdkit.methods import classifier


# The augmentation

def spot(n: int, height: int = 9, width: int = 9) -> Tensor:
    """Images that are −1 but for one pixel of +1 in the middle."""
    x = torch.full((n, 1, height, width), -1.0)
    x[:, :, height // 2, width // 2] = 1
    return x


def places(x: Tensor) -> Tensor:
    """Where the centre of what is not −1 lies, in pixels from the middle, (N, 2): x and y."""
    ink = (x[:, 0] + 1) / 2
    height, width = ink.shape[1:]
    across = torch.arange(width) - width // 2
    down = torch.arange(height) - height // 2
    total = ink.sum((1, 2))
    sums = [(ink.sum(1) * across).sum(1), (ink.sum(2) * down).sum(1)]
    return torch.stack(sums, 1) / total[:, None]


@pytest.mark.parametrize("size", [(9, 9), (9, 15)])
def test_an_image_is_moved_by_up_to_two_pixels_each_way(size):
    """Bilinear interpolation keeps the sum and the centre of a spot."""
    moved = classifier.augment(spot(2000, *size), 0.0, generator())
    found = places(moved)
    torch.testing.assert_close(((moved + 1) / 2).sum((1, 2, 3)), torch.ones(2000))
    assert found.abs().max() <= 2 and (found.abs().max(0).values > 1.95).all()
    chance = 4 * 2 / math.sqrt(3 * 2000)  # uniform on ±2: its standard deviation is 2/√3
    assert (found.mean(0).abs() < chance).all()
    assert found.std(0).sub(2 / math.sqrt(3)).abs().max() < 0.1
    assert found.T.corrcoef()[0, 1].abs() < 0.1  # each way by itself


def test_an_image_is_moved_as_far_as_is_asked_and_what_comes_in_is_empty():
    still = classifier.augment(spot(3), 0.0, generator(), shift=0.0)
    torch.testing.assert_close(still, spot(3), rtol=0, atol=1e-5)
    assert places(classifier.augment(spot(500), 0.0, generator(), shift=1.0)).abs().max() <= 1
    white = classifier.augment(torch.ones(200, 1, 9, 9), 0.0, generator())
    assert white.min() < -0.9 and white.max() <= 1 + 1e-5


def test_noise_has_a_strength_of_its_own_on_each_image_up_to_what_is_asked():
    noisy = classifier.augment(torch.full((2000, 1, 9, 9), -1.0), 0.3, generator(), shift=0.0) + 1
    strength = noisy.flatten(1).std(1)
    assert strength.max() < 0.3 * 1.4 and abs(noisy.mean()) < 0.01
    for share in (0.1, 0.5, 0.9):  # uniform from 0 to 0.3
        assert strength.quantile(share).item() == pytest.approx(0.3 * share, abs=0.02)


def test_an_augmentation_repeats_itself_with_its_seed():
    x = spot(4)
    assert torch.equal(classifier.augment(x, 0.3, generator(1)),
                       classifier.augment(x, 0.3, generator(1)))
    assert not torch.equal(classifier.augment(x, 0.3, generator(1)),
                           classifier.augment(x, 0.3, generator(2)))
    with refused(TypeError, "x must be floating-point numbers; got torch.uint8"):
        classifier.augment(x.byte(), 0.3, generator())


# The step

class Linear(nn.Module):
    """Logits of 2 × 2 images. It notes what it is shown."""

    def __init__(self, n_classes: int = 3):
        super().__init__()
        self.layer = nn.Linear(4, n_classes)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(n_classes, 4, generator=generator(5)))
        self.shown = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach())
        return self.layer(x.flatten(1))


def shown(g: torch.Generator, n: int, noise: float) -> tuple[Tensor, Tensor]:
    """What a step draws: images with their labels, moved and with noise."""
    images = painted_images()
    index = torch.randint(7, (n,), generator=g)
    x = images.pixels[index] / 127.5 - 1
    return classifier.augment(x, noise, g), images.labels[index]


@pytest.mark.parametrize("noise, smoothing", [(0.0, 0.0), (0.3, 0.1), (0.3, 0.4)])
def test_a_step_by_hand(noise, smoothing):
    """Its images are moved, have noise and keep their labels; its loss is the cross-entropy with
    labels of which ``smoothing`` goes to all classes alike."""
    torch.manual_seed(0)
    net = Linear()
    one = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=5, warmup=0, ema=0.0)
    before = weights(net)
    step = classifier.ClassifierStep(one, painted_images(), 6, noise, smoothing)
    values = step(generator(3))
    x, label = shown(generator(3), 6, noise)
    assert torch.equal(net.shown[0], x)
    logits = x.flatten(1) @ before[0].T + before[1]
    target = (1 - smoothing) * F.one_hot(label, 3) + smoothing / 3
    loss = -(target * logits.log_softmax(1)).sum(1).mean()
    slope = (logits.softmax(1) - target) / 6
    norm = torch.cat([(slope.T @ x.flatten(1)).flatten(), slope.sum(0)]).norm()
    found = {name: value.item() for name, value in values.items()}
    right = (logits.argmax(1) == label).float().mean()
    wanted = {"loss": loss.item(), "accuracy": right.item(), "gradient norm": norm.item()}
    assert found == pytest.approx(wanted, rel=1e-4)
    assert not any(map(torch.equal, weights(net), before))


def test_a_steps_images_are_moved_have_noise_and_keep_their_labels():
    """Whatever is drawn: of images all of the grey of their label, the middle tells the label, and
    what is at the edge has moved."""
    greys = torch.tensor([60, 130, 250])
    labels = torch.arange(30) % 3
    pixels = greys[labels].byte().reshape(-1, 1, 1, 1).expand(-1, 1, 9, 9)
    seen = []

    class Seer(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            seen.append(x.detach())
            middle = ((x[:, 0, 4, 4] + 1) * 127.5)[:, None]
            return 10.0 * (self.w + 1) * -(middle - greys).abs() / 50

    step = classifier.ClassifierStep(Recorder(Seer()), data.Images(pixels, labels), 400, 0.05)
    values = step(generator())
    assert values["accuracy"] == 1
    x, = seen
    assert ((x[:, 0, 0] + 1).amin(1) < 0.3).float().mean() > 0.3  # an empty row has come in
    assert x[:, 0, 3:6, 3:6].flatten(1).std(1).median() > 0.01    # and noise lies on it


def test_smoothing_keeps_a_sure_classifier_from_being_free_of_loss():
    """By hand: one logit of 50 above two others of 0 has cross-entropy 0, and with a share of 0.1
    for all alike 2/3 · 0.1 · 50."""
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.w * torch.tensor([50.0, 0.0, 0.0]).expand(len(x), 3)

    images = data.Images(torch.zeros(5, 1, 2, 2).byte(), torch.zeros(5, dtype=torch.int64))
    for smoothing, wanted in ((0.0, 0.0), (None, 0.1 * 100 / 3), (0.3, 0.3 * 100 / 3)):
        options = {} if smoothing is None else {"label_smoothing": smoothing}
        step = classifier.ClassifierStep(Recorder(Sure()), images, 4, 0.1, **options)
        assert step(generator())["loss"].item() == pytest.approx(wanted, abs=1e-5)


def alone(value: Tensor, how: str) -> Tensor:
    """Accelerate's reduce where no other process is."""
    return value


def test_processes_share_a_batch():
    whole = Linear()
    classifier.ClassifierStep(Recorder(whole), painted_images(), 6, 0.3)(generator(4))
    for index in (0, 1):
        one = Recorder(Linear())
        one.accelerator = SimpleNamespace(num_processes=2, process_index=index, device="cpu",
                                          reduce=alone)
        classifier.ClassifierStep(one, painted_images(), 6, 0.3)(generator(4))
        assert torch.equal(one.net.shown[0], whole.shown[0][index::2])


# Bad input

@pytest.mark.parametrize("noise, smoothing", [(-0.1, 0.1), (math.nan, 0.1), (math.inf, 0.1),
                                              (0.3, -0.1), (0.3, 1.5), (0.3, math.nan)])
def test_a_noise_or_a_smoothing_that_is_none_is_refused_before_any_work(noise, smoothing):
    sentence = "noise must be 0 or more, and label_smoothing a share, 0 … 1; got "
    with refused(ValueError, f"{sentence}{noise} and {smoothing}"):
        classifier.ClassifierStep(Recorder(Linear()), painted_images(), 6, noise, smoothing)


def test_a_batch_that_the_processes_cannot_share_is_refused():
    one = Recorder(Linear())
    one.accelerator = SimpleNamespace(num_processes=3, process_index=0, device="cpu")
    with refused(ValueError, "batch_size must be a positive multiple of the 3 processes.*; got 8"):
        classifier.ClassifierStep(one, painted_images(), 8, 0.0)
