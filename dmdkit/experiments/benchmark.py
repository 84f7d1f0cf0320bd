"""How fast: a training step of a recipe, and a student's sampling against its teacher's."""
import statistics
import time
from collections.abc import Callable

import torch

from .. import sample, store
from ..data import ROOT, RUNS
from ..methods.distillation import Distillation
from . import cost
from .evaluate import labels_of
from .recipe import Recipe
from .runner import environment, ready

STEPS = 400    # of the teacher, against which a student is timed
N_PAIRS = 128  # as many as a step's time needs


def benchmark(recipe: Recipe, accelerator, n: int = 10) -> dict:
    """A training step of a recipe: images a second, the median seconds of n steps after a warm-up,
    and its memory in MiB; on a GPU also the most that was allocated."""
    if getattr(recipe.method, "n_pairs", 0) > N_PAIRS:
        recipe = recipe.changed(n_pairs=N_PAIRS)
    training = ready(recipe, accelerator)
    device = accelerator.device
    g = torch.Generator(device).manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, = in_turns([lambda: training.step(g)], n, device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    used = {part: round(size / 2**20, 1) for part, size in cost.memory(training).items()}
    found = {"images_per_second": round(recipe.batch_size / seconds, 1),
             "step_s": round(seconds, 4), "memory_mb": used}
    if peak:
        found["allocated_mb"] = round(peak / 2**20, 1)
    return found | environment(accelerator)


def entries(name: str, recipe: Recipe, accelerator, speeds: bool = True) -> dict:
    """What a card says of a recipe's speed: "throughput", and of a student that ships "speed".
    Raises what ``benchmark`` and ``speed`` raise."""
    found = {"throughput": benchmark(recipe, accelerator)}
    if speeds and isinstance(recipe.method, Distillation) and name in store.names(ROOT):
        found["speed"] = speed(name, recipe, accelerator)
    return found


def speed(name: str, recipe: Recipe, accelerator, repeats: int = 3) -> dict:
    """A student's sampling against ``STEPS`` DDIM steps of its teacher for the same samples, in
    seconds: medians, timed in turns in one run. Without guidance a step of the teacher is one
    network evaluation, with the guidance that the student was distilled with it is two.

    Raises ValueError for what is no student of a teacher.
    """
    if not isinstance(recipe.method, Distillation) or recipe.method.teacher == "exact":
        raise ValueError(f"{name!r} is not a student of a teacher that ships.")
    device, n = accelerator.device, 10
    student = store.load(name, device, store.find(name, ROOT, RUNS))
    teacher = store.load(recipe.method.teacher, device,
                         store.find(recipe.method.teacher, ROOT, RUNS))
    z = torch.randn(n, *student.sample_shape, device=device)
    label = labels_of(n, student.n_classes)
    label = None if label is None else label.to(device)
    how, many = recipe.samplings[0], 20

    def one_step() -> None:
        for _ in range(many):
            how.samples(student, z, label)

    found = {"images": n, "steps": STEPS}
    for key, guidance in (("", 0.0), ("_guided", recipe.method.guidance)):
        slow, fast = in_turns([_teacher(teacher, z, label, guidance), one_step], repeats, device)
        found |= {f"teacher{key}_s": round(slow, 4), f"student{key}_s": round(fast / many, 6),
                  f"ratio{key}": round(slow / (fast / many))}
    return found | {"device": environment(accelerator)["device"]}


def _teacher(teacher, z, label, guidance: float) -> Callable[[], None]:
    def many_steps() -> None:
        sample.last(sample.ddim(teacher, z, STEPS, label, guidance))

    return many_steps


def in_turns(functions: list[Callable], n: int, device: torch.device) -> list[float]:
    """The median seconds of each function, timed in turns so that a slow spell of the machine
    meets all of them; the first two rounds are a warm-up."""
    times = [[] for _ in functions]
    for _ in range(n + 2):
        for function, seconds in zip(functions, times):
            begun = time.perf_counter()
            function()
            if device.type != "cpu":
                getattr(torch, device.type).synchronize()
            seconds.append(time.perf_counter() - begun)
    return [statistics.median(seconds[2:]) for seconds in times]
