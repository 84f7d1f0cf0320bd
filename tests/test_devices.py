"""Every public path on another device than the CPU, on a machine that has none: tensors are fake
CUDA tensors, which have a shape and a device and no values, so that two devices meeting is an error
here as it is there. Generators and the accelerator are stand-ins that know their device.
"""
import json
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from conftest import needs_fake_cuda
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from dmdkit import data, learner, metrics, nets, noise, sample, score, store
from dmdkit.denoiser import Denoiser, Guided
from dmdkit.experiments import evaluate, lesson03, snapshot
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Recipe, Sources
from dmdkit.experiments.runner import Frame
from dmdkit.methods import ddpm, dmd, dmd2, pairs, progressive
from dmdkit.schedule import cosine, flow
from dmdkit.tasks.mnist import MNIST

pytestmark = needs_fake_cuda
CUDA = torch.device("cuda", 0)


class FakeGenerator:
    """A generator that only knows where it is."""

    def __init__(self, device="cpu"):
        self.device = torch.device(device)
        if self.device.type == "cuda":
            self.device = CUDA

    def manual_seed(self, seed: int) -> "FakeGenerator":
        return self


def moved(module: torch.nn.Module, *args, **options) -> torch.nn.Module:
    """``Module.to``, which cannot change the device of fake parameters in place."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **options)
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                there = value.detach().to(device=device, dtype=dtype)
                part._parameters[name] = torch.nn.Parameter(there, value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = value.to(device=device)
    return module


DRAWS = ("rand", "randn", "randint", "randperm", "multinomial")


def drawn_where_its_generator_is(function):
    """What is drawn must be drawn where its generator is; the values do not matter."""
    def draw(*args, generator=None, **kwargs):
        out = function(*args, **kwargs)
        if generator is not None and out.device.type != generator.device.type:
            raise RuntimeError(f"{function.__name__} draws on {out.device} with a generator on "
                               f"the device {generator.device}")
        return out

    return draw


class FakeAccelerator:
    """One process on a fake GPU."""
    device, num_processes, process_index, is_main_process = CUDA, 1, 0, True
    mixed_precision = "no"

    def __init__(self):
        self._models, self._optimizers, self._schedulers, self._dataloaders = [], [], [], []
        self.nets = []

    def prepare(self, net, optimizer):
        self.nets.append(net)
        return net, optimizer

    def backward(self, loss):
        """Autograd's own needs a real device; gradients are where the weights are."""
        assert loss.device == CUDA and loss.requires_grad
        for weight in (weight for net in self.nets for weight in net.parameters()):
            weight.grad = torch.zeros_like(weight)

    def clip_grad_norm_(self, parameters, max_norm):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False)

    def reduce(self, value, reduction="mean"):
        assert value.device == CUDA
        return value

    def wait_for_everyone(self):
        pass


@pytest.fixture
def gpu(monkeypatch):
    """Inside, tensors are fake and "cuda" is there."""
    monkeypatch.setattr(torch, "Generator", FakeGenerator)
    monkeypatch.setattr(learner, "check_finite", lambda name, value: None)
    monkeypatch.setattr(metrics, "check_samples", lambda samples, shape: None)
    for name in DRAWS:
        monkeypatch.setattr(torch, name, drawn_where_its_generator_is(getattr(torch, name)))
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield FakeAccelerator()


def fake_images(n: int = 32) -> data.Images:
    return data.Images(torch.zeros(n, 1, 28, 28, dtype=torch.uint8), torch.arange(n) % 10)


def tiny() -> Denoiser:
    return MNIST.network("tiny").to(CUDA)


def points() -> Denoiser:
    return Denoiser(nets.PointMLP(), cosine(), "v", n_classes=0).to(CUDA)


def test_two_devices_that_meet_are_an_error(gpu):
    with pytest.raises(Exception, match="device"):
        torch.zeros(2, device=CUDA) + torch.zeros(2)
    with pytest.raises(RuntimeError, match="generator on the device"):
        torch.randn(2, device=CUDA, generator=torch.Generator("cpu"))


def test_a_shipped_artefact_is_loaded_onto_the_device(gpu):
    net = store.load("teacher", CUDA)
    assert {p.device for p in net.parameters()} == {CUDA}
    label = torch.arange(2, device=CUDA)
    assert net.generate(torch.zeros(2, 1, 28, 28, device=CUDA), label).device == CUDA


@pytest.mark.parametrize("sampler", evaluate.SAMPLERS)
@pytest.mark.parametrize("guided", [False, True])
def test_samplers(gpu, sampler, guided):
    net, label = tiny(), torch.arange(2, device=CUDA)
    net = Guided(net, (0.3, 0.9), tiny(), 0.5) if guided else net
    z, g = torch.zeros(2, 1, 28, 28, device=CUDA), torch.Generator(CUDA)
    for state in Sampling(sampler, 3, 0.5).states(net, z, label, g):
        assert state.x.device == state.x0.device == CUDA


def test_draws_a_generator_on_the_cpu_makes_go_to_the_device(gpu):
    z, g = torch.zeros(2, 1, 28, 28, device=CUDA), torch.Generator("cpu")
    for sampler in (sample.ddpm, sample.stochastic, sample.multistep):
        assert sample.last(sampler(tiny(), z, 3, generator=g)).device == CUDA


@pytest.mark.parametrize("schedule", [cosine(), flow()], ids=["cosine", "flow"])
def test_points_and_exact_scores(gpu, schedule):
    z = torch.zeros(4, 2, device=CUDA)
    exact = score.Exact(score.ring(), schedule)
    for denoiser in (points(), exact):
        for sampler in (sample.ddim, sample.heun, sample.euler):
            assert sample.last(sampler(denoiser, z, 3)).device == CUDA
    finite = score.Exact(score.FiniteSet(torch.zeros(5, 2, device=CUDA)), schedule)
    assert finite(z, 300).score.device == CUDA
    moved = sample.last(score.langevin(exact, z, 100, 0.01, 2, torch.Generator(CUDA)))
    assert moved.device == CUDA


METHODS = {
    "ddpm": ddpm.Settings("tiny"),
    "ddpm, weighted": ddpm.Settings("tiny", weighting="truncated"),
    "dmd": dmd.Settings("t", guidance=0.25, n_pairs=8, updates=(1, 2)),
    "dmd, frozen": dmd.Settings("t", updates=(2, 0)),
    "dmd2": dmd2.Settings("t", guidance=0.25, generator_weight=0.1, discriminator_weight=0.1),
    "dmd2, two steps": dmd2.Settings("t", student_steps=2, step_aware=True, generator_weight=0.1,
                                     discriminator_weight=0.1),
    "dmd2, real inputs": dmd2.Settings("t", student_steps=2, backward_simulation=False),
    "progressive": progressive.Settings(4, "t", 0.25)}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_each_method_and_its_snapshot(gpu, monkeypatch, name):
    monkeypatch.setattr(dmd2, "simulate", _simulate)
    task = _fake_task()
    given = {"t": tiny(), "pairs": pairs.Pairs(torch.zeros(8, 1, 28, 28),
                                               torch.zeros(8, 1, 28, 28), torch.arange(8))}
    recipe = Recipe("", task, METHODS[name], 3, 8, samplings=(Sampling("multistep", 1),))
    training = recipe.prepare(gpu, Sources(task, device=CUDA, given=given))
    values = training.step(noise.generator("training", device=CUDA))
    assert {value.device for value in values.values()} == {CUDA}
    if "generator" in training.learners:
        seen = snapshot.take(task, training, recipe.samplings[0])
        assert {value.device.type for value in seen} == {"cpu"}  # a snapshot is kept and drawn
    if training.finish:
        assert next(training.finish().parameters()).device == CUDA


def test_what_is_kept_of_points_lies_on_the_cpu(gpu, monkeypatch):
    for name in ("modes_covered", "wasserstein"):
        monkeypatch.setattr(metrics, name, _no_figure)
    monkeypatch.setattr(lesson03, "PlaneScorer", Mock())
    recipe = lesson03.recipe(copies=2, n_steps=4).changed(head_start=0, batch_size=8)
    training = recipe.prepare(gpu, Sources(recipe.task, device=CUDA))
    seen = lesson03.observe(Frame(4, training, {}))
    assert {value.device.type for value in seen.values()} == {"cpu"}


def _no_figure(points, *target) -> float:
    assert points.device.type == "cpu"
    return 0.0


def _fake_task():
    from dataclasses import replace

    return replace(MNIST, read=lambda train: fake_images(256), classify=None)


def _simulate(denoiser, schedule, z, label, times, exits, eps):
    """Backward simulation chooses rows by value, which fakes have not: all go on to the end."""
    x_t = z
    for k in range(1, len(times)):
        x = denoiser(x_t, int(schedule.times(len(times))[k - 1]), label).x
        x_t = schedule.noise(x, schedule.times(len(times))[k], eps[k - 1])
    return x_t


def test_scoring(gpu):
    spaces = {"a": metrics.Space(torch.nn.Flatten())}
    classifier = nets.SmoothClassifier(1, 28).to(CUDA)
    spaces["b"] = metrics.Space(classifier.features, classifier.head)
    scorer = metrics.Scorer(spaces, fake_images(8), (1, 28, 28), CUDA)
    assert {features.device.type for features in scorer.real.values()} == {"cpu"}


def test_pairs_are_made_where_the_teacher_is(gpu):
    solver = pairs.Solver("heun", 2, 0.25)
    z = torch.zeros(2, 1, 28, 28, device=CUDA)
    assert solver.solve(tiny(), z, torch.arange(2, device=CUDA)).device == CUDA


def test_half_precision_and_mps_know_no_float64(gpu):
    """What goes to the device is never float64: Apple's has none."""
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.device == CUDA:
                seen.append(out.dtype)
            return out

    net, z = tiny(), torch.zeros(2, 1, 28, 28, device=CUDA)
    exact = score.Exact(score.ring(), cosine())
    with Watch():
        for run in (partial(sample.ddim, net), partial(sample.heun, net)):
            sample.last(run(z, 3))
        sample.last(sample.ddim(exact, torch.zeros(2, 2, device=CUDA), 3))
        ddpm.stratified_times(8, 1024, torch.Generator(CUDA))
    assert torch.float32 in seen and torch.float64 not in seen


LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_for_one_accelerator(path):
    """A second one, of another device, is refused where there is a GPU."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert code.count("train.accelerator(") <= 1
    assert "cuda.is_available" not in code or "train.accelerator(" not in code
