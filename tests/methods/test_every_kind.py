"""Every kind of teacher goes through every step: what it predicts, on which schedule, with classes
or without, of images and of points."""
from dataclasses import replace

import pytest
import torch
from painters import equal, generator, weights

from dmdkit import data, nets, sample, schedule, train
from dmdkit.denoiser import Denoiser
from dmdkit.experiments.recipe import Sources
from dmdkit.methods import ddpm, dmd, dmd2, pairs, progressive
from dmdkit.methods.pairs import Solver
from dmdkit.tasks.task import Task

SCHEDULES = {"cosine": schedule.cosine(64), "flow": schedule.flow(64),
             "linear": schedule.linear(64), "clipped": schedule.clipped(64, log_snr=4.0)}
DIGITS, FLAGS, POINTS = "8 × 8, 3 classes", "3 × 8 × 8, no classes", "points"
KINDS = [  # what a network is for, what it predicts, and on which schedule
    (DIGITS, "v", "cosine"), (DIGITS, "x", "flow"), (DIGITS, "eps", "linear"),
    (DIGITS, "both", "flow"), (FLAGS, "v", "flow"), (FLAGS, "eps", "clipped"),
    (FLAGS, "both", "cosine"), (POINTS, "v", "cosine"), (POINTS, "x", "flow"),
    (POINTS, "eps", "linear"), (POINTS, "both", "clipped")]


def denoiser(network: str, prediction: str, name: str) -> Denoiser:
    torch.manual_seed(1)
    outputs, sch = 2 if prediction == "both" else 1, SCHEDULES[name]
    if network == POINTS:
        net = nets.PointMLP(8, 1, outputs=outputs)
        return Denoiser(net, sch, prediction, n_classes=0)
    shape, n_classes = ((1, 8, 8), 3) if network == DIGITS else ((3, 8, 8), 0)
    net = nets.unet(shape, (8,), n_classes=n_classes, outputs=outputs)
    return Denoiser(net, sch, prediction, n_classes=n_classes)


def task(network: str, prediction: str, name: str) -> Task:
    teacher = denoiser(network, prediction, name)

    def read(train: bool):
        if network == POINTS:
            return data.two_moons(12, generator())
        pixels = torch.randint(256, (12, *teacher.sample_shape), generator=generator()).byte()
        return data.Images(pixels, torch.arange(12) % max(teacher.n_classes, 1))

    def made() -> Denoiser:
        return denoiser(network, prediction, name)

    return Task("toy", teacher.sample_shape, teacher.n_classes, read, {"network": made})


def prepare(settings, kind: tuple[str, str, str], folder) -> train.Training:
    """The training of one kind; pairs come from its own teacher."""
    one, teacher = task(*kind), denoiser(*kind).eval()
    given = {"teacher": teacher}
    if isinstance(settings, dmd.Settings):
        given["pairs"] = pairs.make_pairs(teacher, 6, folder, Solver("heun", 2))
    sources = Sources(one, given=given)
    return settings.prepare(one, train.accelerator(cpu=True), 4, 6, sources)


def of(kind: tuple[str, str, str]) -> dict:
    """The method's settings that this kind can have, by name."""
    network, prediction, _ = kind
    guidance = {"guidance": 0.5} if network == DIGITS else {}
    found = {"ddpm": ddpm.Settings(weighting="truncated", warmup=0),
             "progressive": progressive.Settings(4, warmup=0, **guidance)}
    if prediction == "both":  # the denoising loss has no target for it
        return found
    # a fake score that has just been copied says what the teacher says: it learns a little first
    more = {"warmup": 0, "head_start": 1, **guidance}
    discriminator = {"generator_weight": 0.1, "discriminator_weight": 0.1}
    improved = dmd2.Settings(updates=(1, 1), **more)
    return found | {
        "ddpm, its own loss": ddpm.Settings(warmup=0),
        "dmd": dmd.Settings(n_pairs=6, **more),
        "dmd2": replace(improved, **discriminator),
        "dmd2, 2 steps": replace(improved, student_steps=2),
        "dmd2, 2 steps, real inputs": replace(improved, student_steps=2,
                                              backward_simulation=False)}


CASES = [(kind, name) for kind in KINDS for name in of(kind)]


@pytest.mark.parametrize("kind, method", CASES, ids=[f"{', '.join(kind)}: {name}"
                                                     for kind, name in CASES])
def test_a_step_moves_what_it_trains_and_nothing_else(kind, method, tmp_path):
    training = prepare(of(kind)[method], kind, tmp_path)
    learners = training.learners
    before = {name: weights(one.net) for name, one in learners.items()}
    frozen = [weights(net) for net in training.frozen]
    values = training.step(generator(1))
    assert all(value.isfinite() for value in values.values())
    for name, one in learners.items():
        after = weights(one.net)
        assert not equal(after, before[name]) and all(w.isfinite().all() for w in after)
    assert all(map(equal, map(weights, training.frozen), frozen))
    assert len(frozen) == (0 if method.startswith("ddpm") else 1)


@pytest.mark.parametrize("kind", KINDS, ids=", ".join)
def test_a_trained_student_draws_samples_of_the_tasks_shape(kind, tmp_path):
    training = prepare(of(kind)["progressive"], kind, tmp_path)
    training.step(generator(1))
    net = next(iter(training.learners.values())).averaged()
    z = torch.randn(4, *net.sample_shape, generator=generator())
    label = torch.tensor([0, 1, 2, 3]) if net.n_classes else None  # 3 is "no class"
    for n in (1, 2):
        x = sample.last(sample.ddim(net, z, n, label))
        assert x.shape == z.shape and x.isfinite().all()
