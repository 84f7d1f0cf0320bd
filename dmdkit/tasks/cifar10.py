"""CIFAR-10: 32 × 32, in colour, ten classes of animals and vehicles."""
from functools import partial

from .. import data, nets, store
from ..metrics import Scorer, Space
from . import colour
from .task import Task

CLASSES, SCORED = 10, 5000
NAMES = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")


def pictures(train: bool = True) -> data.Images:
    """CIFAR-10; what is to train on mirrored too."""
    found = data.cifar10(train)
    return data.mirrored(found) if train else found


def judge(device="cpu"):
    """The classifier that says what a picture shows, wherever it lies."""
    name = "classifier-cifar10"
    return store.load(name, device, store.find(name, data.ROOT, data.RUNS))


def classes(x):
    """What the classifier sees in each of the pictures (N, 3, 32, 32), (N,)."""
    return judge(x.device)(x).argmax(1)


def scorer() -> Scorer:
    """Scores pictures against the first ``SCORED`` of the test pictures, as many as faces are."""
    real = pictures(False)
    return colour.scorer(real.take(slice(SCORED)), {"classifier": Space.of(judge())})


TERMS = ("Learned from CIFAR-10 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny "
         "Images), pictures collected from the web for research.")

CIFAR10 = Task(
    "cifar10", colour.SHAPE, CLASSES, pictures,
    networks={"network": partial(colour.denoiser, CLASSES),
              "classifier": partial(nets.build, "SmoothClassifier", 3, 32, n_classes=CLASSES)},
    make_scorer=scorer, classify=classes, terms=TERMS)
