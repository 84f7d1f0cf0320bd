"""A call of every function of dmdkit.show that draws a figure, with data as lessons have them."""
import io

import numpy as np
import torch
from PIL import Image

from dmdkit import sample, schedule, score
from dmdkit.show import (comparisons, curves, dashboards, diagrams, images, plane, progress,
                         schedules)

COSINE = schedule.cosine()
LINEAR = schedule.linear(400)
RING = score.ring()
EXACT = score.Exact(RING, COSINE)
G = torch.Generator().manual_seed(0)
TITLE = "A title that is as long as those in the lessons, and so is wrapped in a small figure"

X = torch.rand(10, 1, 28, 28, generator=G) * 2 - 1
EPS = torch.randn(10, 1, 28, 28, generator=G)
POINTS = RING.sample(40, G)
NOISE = torch.randn(20, 2, generator=G)
STATES = [sample.State(i, 100 - i, X, X) for i in range(4)]
LOSSES = [1 / (i + 2) for i in range(60)]
SPACES = {"classifier": {"precision": 0.9, "recall": 0.8, "frechet_distance": 2.0, "coverage": 0.5},
          "judge": {"accuracy": 0.99}}
RUN = {"steps": torch.tensor([0, 10, 20]), "brightness": torch.rand(3, 3, generator=G),
       "snapshots": {"classes": torch.tensor([[3, 1], [2, 2], [4, 0]])}}
COPIES = {"steps": torch.tensor([0, 10, 20]),
          "snapshots": {"modes": torch.tensor([[1, 1], [2, 1], [2, 2]]),
                        "distance": torch.rand(3, 2, generator=G) + 0.1}}
FIELD = [plane.Panel("score", plane.grid(5), plane.arrows(EXACT, 300, plane.grid(5)), POINTS,
                     plane.density(RING.log_density)), plane.Panel("points", points=POINTS)]


def snapshot(samples: torch.Tensor, n_classes: int = 0, judged: int = 0) -> dict:
    """What is seen of a student that draws these samples."""
    seen = samples[:4]
    return {"samples": samples, "brightness": torch.rand(30), "noised": seen, "real": seen,
            "fake": seen, "classes": torch.full((n_classes,), 3),
            "discriminator": torch.rand(2, judged)}


def rendered(figure) -> np.ndarray:
    """A figure's pixels, (H, W, 3) uint8: small, since that is quick."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return pixels(buffer.getvalue())


def pixels(png: bytes) -> np.ndarray:
    """A PNG file's pixels."""
    return np.array(Image.open(io.BytesIO(bytes(png))))


def uint8(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=G)


VALUES = {"matching": LOSSES, "fake": LOSSES, "gan": LOSSES, "discriminator": LOSSES,
          "seconds": LOSSES, "matching gradient": LOSSES, "gan gradient": LOSSES}
SEEN = {0: snapshot(uint8(20, 28, 28), 10, 30), 30: snapshot(uint8(20, 28, 28), 10, 30)}
STACKED = {"steps": torch.tensor([0, 30]), "log": {n: torch.tensor(v) for n, v in VALUES.items()},
           "snapshots": {name: torch.stack([SEEN[0][name], SEEN[30][name]]) for name in SEEN[0]}}


def log_file(folder):
    from dmdkit import files

    files.write_lines(folder / "log.jsonl", [{"step": i + 1, "loss": loss, "seconds": 0.1}
                                             for i, loss in enumerate(LOSSES)])
    return folder / "log.jsonl"


CALLS = {
    "images.grid": lambda: images.grid(X, 5, TITLE, ["one", "two"], list("01234")),
    "images.forward": lambda: images.forward([COSINE, LINEAR], X[3], EPS[3]),
    "images.targets": lambda: images.targets(COSINE, X[5], EPS[5]),
    "images.path": lambda: images.path(STATES, sample=3, title=TITLE),
    "images.pull": lambda: images.pull(EPS[:4], X[:4], X[4:8], TITLE),
    "images.gradients": lambda: images.gradients(
        X[:2], EPS[:6].unflatten(0, (2, 3)), ["one", "two"], list("abcd"), TITLE),
    "schedules.noised": lambda: schedules.noised(COSINE, X[:6], EPS[:6], 400),
    "schedules.alpha_sigma": lambda: schedules.alpha_sigma([COSINE, LINEAR]),
    "schedules.last_step": lambda: schedules.last_step([COSINE, LINEAR], X, EPS),
    "schedules.weightings": lambda: schedules.weightings(
        COSINE, {"snr": COSINE.snr(), "snr+1": COSINE.snr() + 1}),
    "schedules.posterior": lambda: schedules.posterior(COSINE, 700, 400),
    "schedules.on_a_line": lambda: schedules.on_a_line(
        score.GaussianMixture.round(torch.tensor([[-0.6], [0.6]]), 0.1), COSINE, [63, 511], TITLE),
    "curves.curve": lambda: curves.curve(LOSSES, TITLE, total=100),
    "curves.lines": lambda: curves.lines({"a": [1, 2], "b": [2, 3]}, [1, 8], TITLE, "x", "y",
                                         {"c": 2}),
    "curves.step_sizes": lambda: curves.step_sizes([0.5, 2], [1.1, 2.1], TITLE),
    "curves.orders": lambda: curves.orders([8, 16], {"ring": {"Heun": [0.1, 0.02]}},
                                           {"ring": {"Heun": 2.0}}, TITLE),
    "comparisons.guidance": lambda: comparisons.guidance([0, 1], [SPACES, SPACES], SPACES),
    "comparisons.against_steps": lambda: comparisons.against_steps(
        {"DDIM": {1: 90.0, 4: 9.0, 400: 3.0}, "mine": {1: 4.0}, "real data": 2.0}, TITLE,
        highlight=4),
    "comparisons.ablations": lambda: comparisons.ablations(
        {"base": [SPACES] * 3, "other": [SPACES, {}]}, SPACES, "base"),
    "comparisons.memory": lambda: comparisons.memory({"a": {"weights": 2**21, "rest": 2**20}},
                                                     limit=2**22, title=TITLE),
    "progress.drift": lambda: progress.drift({"1 : 1": RUN, "1 : 5": RUN}, 0.3, TITLE),
    "progress.modes": lambda: progress.modes({f"run {i}": COPIES for i in range(9)}, 0.1, 8, TITLE),
    "diagrams.unet": diagrams.unet,
    "diagrams.dmd": diagrams.dmd,
    "diagrams.dmd2": diagrams.dmd2,
    "plane.fields": lambda: plane.fields(FIELD, title=TITLE),
    "plane.clouds": lambda: plane.clouds({str(i): POINTS for i in range(5)}, TITLE, columns=4),
    "plane.paths": lambda: plane.paths({str(i): POINTS.reshape(4, 10, 2) for i in range(6)},
                                       RING.log_density, TITLE),
    "plane.aims": lambda: plane.aims(POINTS[:3], {"the data": POINTS[:9], "the one": POINTS[:1]},
                                     RING.log_density, TITLE),
    "plane.predictions": lambda: plane.predictions(
        RING.log_density, EXACT, score.Exact(score.two_modes(), COSINE), POINTS[0],
        [150, 400, 700, 950], NOISE, TITLE),
    "progress.training": lambda: progress.training(LOSSES, {3: X, 40: X}, 100),
    "progress.halving": lambda: progress.halving(LOSSES, {0: X, 40: X}, 100, X, TITLE),
    "progress.plane": lambda: progress.plane(FIELD, [0, 10], [0.9, 0.3], 100, 0.1),
    "dashboards.dashboard": lambda: dashboards.dashboard(SEEN, VALUES, 100, 0.4),
    "dashboards.of_run": lambda: dashboards.of_run(STACKED, 30, 0.4),
    "dashboards.epochs": lambda: dashboards.epochs(VALUES, 20, TITLE)}
MODULES = (images, schedules, curves, comparisons, diagrams, plane, progress, dashboards)
