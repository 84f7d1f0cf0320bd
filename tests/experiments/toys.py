"""Small tasks and trainings for the tests of experiments, each trained once a session.

``DOTS``: points of the plane, trained in milliseconds. ``DIGITS``: MNIST's own task with its
smallest network and a few hundred images.
"""
import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dmdkit import data, nets, train
from dmdkit.denoiser import Denoiser
from dmdkit.experiments import mnist, runner
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Recipe, Sources
from dmdkit.methods import ddpm, dmd
from dmdkit.methods.pairs import Pairs
from dmdkit.metrics import Scorer, Space
from dmdkit.schedule import cosine
from dmdkit.tasks.mnist import MNIST, spaces
from dmdkit.tasks.task import Task

WEIGHTS = "diffusion_pytorch_model.safetensors"


# Points

def dots(train: bool = True) -> data.Points:
    return data.two_moons(64, torch.Generator().manual_seed(int(train)))


def dot_network() -> Denoiser:
    return Denoiser(nets.PointMLP(width=16), cosine(64), "v", n_classes=0)


def dot_scorer() -> Scorer:
    return Scorer({"plane": Space(nn.Identity())}, dots(False), (2,))


DOTS = Task("dots", (2,), 0, dots, {"network": dot_network}, dot_scorer)
TEACHER = Recipe("A teacher of dots.", DOTS, ddpm.Settings(warmup=1, ema=0.5), 3, 4,
                 samplings=(Sampling("ddim", 4),))
STUDENT = Recipe("A student of dots.", DOTS,
                 dmd.Settings("dots-teacher", n_pairs=8, solver_steps=2, updates=(1, 2), lr=1e-2,
                              warmup=1, ema=0.5), 6, 4, samplings=(Sampling("ddim", 1),))
RECIPES = {"dots-teacher": TEACHER, "dots-student": STUDENT}


@functools.cache
def trained() -> Path:
    """A folder with the teacher of dots, as it is trained by its recipe."""
    runner.train_artefact("dots-teacher", TEACHER, folder(), cpu=True)
    return folder()


@functools.cache
def folder() -> Path:
    """A folder for the session."""
    folder.kept = tempfile.TemporaryDirectory()
    return Path(folder.kept.name)


# Digits

@functools.cache
def digits(train: bool = True) -> data.Images:
    """256 images with some of each class; the training and the test images have none in common."""
    test = data.mnist(train=False)
    return test.take(slice(0, 256) if train else slice(256, 512))


@functools.cache
def digit_scorer() -> Scorer:
    return Scorer(spaces(), digits(False), MNIST.shape)


DIGITS = replace(MNIST, name="digits", read=digits, make_scorer=digit_scorer,
                 networks=MNIST.networks | {"network": MNIST.networks["tiny"]})


def tiny(seed: int = 0) -> Denoiser:
    """A denoiser of digits with random weights."""
    torch.manual_seed(seed)
    return DIGITS.network("tiny").eval()


# In place of what ships

def dot(seed: int = 0) -> Denoiser:
    """A denoiser of dots with random weights."""
    torch.manual_seed(seed)
    return dot_network().eval()


def some_pairs(n: int, task: Task = DIGITS) -> Pairs:
    """n pairs, of which each eighth is alike: noise, and a sample that it did not make."""
    z = torch.randn(8, *task.shape, generator=torch.Generator().manual_seed(1))
    index = torch.arange(n) % 8
    x, label = task.data().batch(torch.arange(8))
    return Pairs(z[index], x[index], label[index] if task.n_classes else None)


NAMES = ("teacher", "teacher-weak", "student-dmd-paired", "student-dmd2-no-critic",
         "student-dmd2-4step-no-critic", "poster-teacher",
         *(mnist.stage_name(n) for n in mnist.STAGES))


@functools.cache
def given() -> dict[str, Denoiser]:
    """Small networks of digits by the names of those that ship."""
    return {name: tiny(seed) for seed, name in enumerate(NAMES)}


@functools.cache
def given_dots() -> dict[str, Denoiser]:
    """Such networks of dots."""
    return {name: dot(seed) for seed, name in enumerate(NAMES)}


def prepared(recipe: Recipe) -> train.Training:
    """A recipe's training, of small networks and as many pairs as it wants."""
    hand = dict(given_dots() if recipe.task.shape == (2,) else given())
    hand["pairs"] = some_pairs(getattr(recipe.method, "n_pairs", 0), recipe.task)
    torch.manual_seed(recipe.seed)
    return recipe.prepare(train.accelerator(cpu=True), Sources(recipe.task, given=hand))


def outcome(recipe: Recipe) -> list:
    """All that a recipe's training is, and what it has done after its first steps. In the first
    one of dots, which nothing guides, the fake score is still the real one."""
    made = prepared(recipe)
    for i in range(2 if recipe.task.shape == (2,) else 1):
        values = made.step(torch.Generator().manual_seed(i))
    found = [sorted(learner.settings.items(), key=str) for learner in made.learners.values()]
    for net in (*(learner.net for learner in made.learners.values()), *made.frozen):
        found.append([p.double().sum().item() for p in net.parameters()])
    kept = made.finish() if made.finish else next(iter(made.learners.values())).averaged()
    found.append([p.double().sum().item() for p in kept.parameters()])
    numbers = {name: value.item() for name, value in values.items()}
    return [found, numbers, type(made.step).__name__]


# Looking

def weights(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def equal(a, b) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def bytes_of(root: Path, name: str) -> bytes:
    return (root / name / WEIGHTS).read_bytes()
