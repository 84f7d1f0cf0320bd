"""What runs on the device at hand: a GPU where there is one and DMDKIT_GPU is set, else the CPU.

Run it alone, since a process computes on one device: DMDKIT_GPU=1 pytest tests/test_gpu.py
"""
import os

import pytest
import torch

from dmdkit import sample, store, train
from dmdkit.experiments import evaluate, runner
from dmdkit.experiments.build import RECIPES
from dmdkit.experiments.evaluate import Sampling
from dmdkit.tasks.mnist import MNIST

SHORT = {
    "teacher": RECIPES["teacher"],
    "student-dmd-paired": RECIPES["student-dmd-paired"].changed(n_pairs=64),
    "student-dmd2": RECIPES["student-dmd2"].changed(start=""),
    "student-dmd2-4step": RECIPES["student-dmd2-4step"].changed(start=""),
    "progressive-1": RECIPES["progressive-1"].changed(teacher="teacher")}


@pytest.fixture(scope="module")
def device() -> torch.device:
    """Raises AssertionError if there is a GPU and it is not taken."""
    found = train.accelerator().device
    assert found.type == "cuda" or not os.environ.get("DMDKIT_GPU")
    return found


@pytest.fixture
def noise() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, *MNIST.shape), torch.arange(8)


@pytest.mark.parametrize("name", ["teacher", "student-dmd2", "classifier"])
def test_a_network_says_what_it_says_on_the_cpu(device, noise, name):
    x, label = noise
    there, here = store.load(name, device), store.load(name)
    arguments = (x,) if name == "classifier" else (x, 900, label)
    moved = [one.to(device) if isinstance(one, torch.Tensor) else one for one in arguments]
    with torch.no_grad():
        found, expected = there(*moved), here(*arguments)
    if name != "classifier":
        found, expected = found.x, expected.x
    error = (found.cpu() - expected).norm() / expected.norm()
    assert error < 5e-3  # convolutions in TF32


def test_samples_from_the_same_noise_are_the_same_digits(device, noise):
    x, label = noise
    made = [sample.last(sample.ddim(store.load("teacher", at), x.to(at), 16, label.to(at))).cpu()
            for at in ("cpu", device)]
    assert (made[0] - made[1]).abs().mean() < 0.01


@pytest.mark.parametrize("name", SHORT)
def test_a_method_trains_and_what_it_made_is_kept_and_draws(device, tmp_path, monkeypatch, name):
    monkeypatch.setattr("dmdkit.experiments.recipe.RUNS", tmp_path)
    recipe = SHORT[name].changed(n_steps=2, batch_size=8)
    folder = runner.train_artefact(name, recipe, tmp_path)
    card = store.card(name, tmp_path)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    assert named in card["device"] and folder == tmp_path / name
    z = torch.randn(4, *MNIST.shape, device=device)
    made = Sampling("ddim", 1).samples(store.load(name, device, tmp_path), z,
                                       torch.arange(4, device=device))
    assert made.isfinite().all()


def test_what_is_drawn_to_be_measured_comes_back_to_the_cpu(device):
    x, label = evaluate.draw(store.load("student-dmd2", device), Sampling("ddim", 1), 10)
    assert x.device.type == label.device.type == "cpu" and x.shape == (10, *MNIST.shape)
