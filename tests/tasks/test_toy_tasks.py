"""The proof of the architecture: two tasks of other shapes, each defined in a few lines, go through
the same recipes, runner, evaluation and pictures as MNIST, with nothing patched."""
from functools import partial

import pytest
import torch

from dmdkit import data, nets, noise, store
from dmdkit.denoiser import Denoiser
from dmdkit.experiments import evaluate, runner
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Recipe
from dmdkit.experiments.snapshot import N_PLAYED
from dmdkit.experiments.study import Study
from dmdkit.experiments import study
from dmdkit.methods import ddpm, dmd, dmd2, progressive
from dmdkit.metrics import Scorer, Space
from dmdkit.schedule import cosine
from dmdkit.show import dashboards
from dmdkit.tasks.task import Task


# Images, 3 × 16 × 16, without classes.

def flags(train: bool) -> data.Images:
    """Horizontal stripes of three colours."""
    colours = torch.randint(256, (64, 3, 4, 1), generator=noise.generator("training", int(train)))
    pixels = colours.repeat_interleave(4, 2).expand(-1, -1, -1, 16).to(torch.uint8).contiguous()
    return data.Images(pixels, torch.zeros(64, dtype=torch.int64))


def flag_network() -> Denoiser:
    return Denoiser(nets.unet((3, 16, 16), (8,), patch=4), cosine(64), "v", patch=4, n_classes=0)


def corners(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, ::8, ::8].flatten(1)


FLAGS = Task("flags", (3, 16, 16), 0, flags, {"network": flag_network},
             lambda: Scorer({"corners": Space(corners)}, flags(False), (3, 16, 16)))


# Points of the plane.

def dots(train: bool) -> data.Points:
    return data.two_moons(64, noise.generator("training", int(train)))


def dot_network() -> Denoiser:
    return Denoiser(nets.PointMLP(width=16), cosine(64), "v", n_classes=0)


DOTS = Task("dots", (2,), 0, dots, {"network": dot_network},
            lambda: Scorer({"plane": Space(torch.nn.Identity())}, dots(False), (2,)))


TASKS = pytest.mark.parametrize("task", [FLAGS, DOTS], ids=["3x16x16", "points"])
TEACHER = {"warmup": 1, "ema": 0.5}


def recipes(task: Task) -> dict[str, Recipe]:
    """A teacher, and every kind of student of it, by name."""
    short = partial(Recipe, "A few updates.", task, n_steps=2, batch_size=4)
    teacher = f"{task.name}-teacher"
    adversarial = {"generator_weight": 0.1, "discriminator_weight": 0.1}
    return {
        teacher: short(ddpm.Settings(**TEACHER), samplings=(Sampling("ddim", 4),)),
        "dmd": short(dmd.Settings(teacher, n_pairs=8, solver_steps=2, updates=(1, 2)),
                     samplings=(Sampling("ddim", 1),)),
        "dmd2": short(dmd2.Settings(teacher, **adversarial), samplings=(Sampling("multistep", 1),)),
        "dmd2-2step": short(dmd2.Settings(teacher, student_steps=2, **adversarial),
                            samplings=(Sampling("multistep", 2),)),
        "halved-2": short(progressive.Settings(2, teacher), samplings=(Sampling("ddim", 2),)),
        "halved-1": short(progressive.Settings(1, teacher="halved-2"),
                          samplings=(Sampling("ddim", 1),))}


@TASKS
def test_a_task_of_another_shape_goes_through_every_method(task, tmp_path, monkeypatch):
    """Trained, kept, loaded, drawn and scored: by name, from the folder that the teacher is in."""
    monkeypatch.chdir(tmp_path)  # where runs/ is
    for name, recipe in recipes(task).items():
        folder = runner.train_artefact(name, recipe, cpu=True)
        assert store.card(name, folder.parent)["recipe"] == _as_json(recipe.settings)
        how, = recipe.samplings
        *_, entry = evaluate.evaluate(name, task, (how,), n=12, root=folder.parent)
        assert entry["sampling"] == how.entry and entry["images"] == 12
        net = store.load(name, root=folder.parent)
        x, label = evaluate.draw(net, how, 6)
        assert x.shape == (6, *task.shape) and label is None and x.isfinite().all()


def _as_json(settings: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()}


@TASKS
def test_a_study_of_another_task_keeps_what_was_seen(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = recipes(task)
    name = f"{task.name}-teacher"
    runner.train_artefact(name, made[name], cpu=True)
    one = Study("toy", "Two settings.", {"with": made["dmd2"], "without": made["dmd2"].changed(
        generator_weight=0.0, discriminator_weight=0.0)}, seeds={"without": 2}, n_images=12,
        n_frames=3)
    study.build(one, root=tmp_path)
    seen, card = study.load(one, tmp_path), study.card(one, tmp_path)
    assert seen["with"]["steps"].tolist() == [0, 1, 2]
    assert seen["with"]["snapshots"]["samples"].shape == (3, N_PLAYED, *task.shape)
    assert seen["with"]["snapshots"]["discriminator"].shape[:2] == (3, 2)
    space = next(iter(card["baseline"]))
    assert len(study.values(card, "without", space, "frechet_distance")) == 2


@TASKS
def test_the_pictures_of_another_task(task):
    """The live dashboard of a distillation, and a grid or a cloud of samples."""
    made = recipes(task)
    teacher = task.network("network").eval()
    seen = {}
    for frame in runner.run(made["dmd2"], n_frames=2, **{f"{task.name}-teacher": teacher}):
        seen[frame.step] = frame.training.snapshot()._asdict()
    figure = dashboards.dashboard(seen, frame.values, total=2, real_brightness=0.0)
    figure.canvas.draw()
