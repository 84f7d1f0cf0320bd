"""How fast: what is timed is what is said, counted in network evaluations and never in seconds."""
from collections import Counter

import pytest
import torch
from conftest import refused
from toys import DIGITS, DOTS, STUDENT, TEACHER, tiny, trained

from dmdkit import data, store, train
from dmdkit.experiments import benchmark
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.mnist import GUIDANCE, RECIPES
from dmdkit.experiments.recipe import Recipe, Sources
from dmdkit.methods import dmd, dmd2
from dmdkit.methods.pairs import Pairs


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_times_are_medians_taken_in_turns_after_a_warm_up(monkeypatch):
    clock, order = Clock(), []
    monkeypatch.setattr(benchmark, "time", clock)
    costs = {"a": [100, 100, 3, 1, 2], "b": [100, 100, 30, 50, 40]}

    def working(name: str):
        def work() -> None:
            order.append(name)
            clock.now += costs[name][order.count(name) - 1]

        return work

    found = benchmark.in_turns([working("a"), working("b")], 3, torch.device("cpu"))
    assert found == [2, 40] and order == ["a", "b"] * 5


@pytest.fixture
def counted(monkeypatch) -> Counter:
    """Network evaluations, one sample each, by artefact; they are what is taken for seconds."""
    rows, nets = Counter(), {}

    def load(name: str, device="cpu", root=data.ROOT):
        if name not in nets:
            nets[name] = tiny()
            nets[name].net.register_forward_hook(
                lambda module, given, out: rows.update({name: len(given[0])}))
        return nets[name]

    def in_turns(functions, n, device) -> list[float]:
        found = []
        for function in functions:
            before = sum(rows.values())
            function()
            found.append(float(sum(rows.values()) - before))
        return found

    monkeypatch.setattr(benchmark.store, "load", load)
    monkeypatch.setattr(benchmark, "in_turns", in_turns)
    monkeypatch.setattr(benchmark, "STEPS", 8)
    return rows


@pytest.mark.parametrize("name, steps", [("student-dmd", 1), ("student-dmd2-4step", 4)])
def test_a_speed_is_the_ratio_of_evaluations_for_the_same_samples(counted, name, steps):
    """Guided, the teacher evaluates twice a step; the student as often as its sampler does."""
    found = benchmark.speed(name, RECIPES[name], train.accelerator(cpu=True))
    n = found["images"]
    assert found["steps"] == 8
    assert (found["teacher_s"], found["teacher_guided_s"]) == (8 * n, 2 * 8 * n)
    assert (found["student_s"], found["student_guided_s"]) == (steps * n, steps * n)
    assert (found["ratio"], found["ratio_guided"]) == (8 // steps, 16 // steps)
    assert set(counted) == {"teacher", name}


def test_a_speed_is_of_the_teachers_400_steps_and_of_the_students_guidance():
    assert benchmark.STEPS == 400
    assert RECIPES["student-dmd"].method.guidance == GUIDANCE


@pytest.mark.parametrize("recipe", [TEACHER, STUDENT.changed(
    teacher="exact", network="network", n_pairs=0, solver_steps=8)])
def test_what_has_no_teacher_that_ships_has_no_speed(recipe):
    with refused(ValueError, "'x' is not a student of a teacher that ships"):
        benchmark.speed("x", recipe, train.accelerator(cpu=True))


def test_a_training_step_is_timed_with_its_memory(monkeypatch):
    """The time is that of one step, the rate that of its batch."""
    clock = Clock()
    monkeypatch.setattr(benchmark, "time", clock)
    recipe = Recipe("Small.", DIGITS, dmd.Settings(
        guidance=0.5, n_pairs=5000, updates=(1, 1)), 100, 4, samplings=(Sampling("ddim", 1),))
    asked = []

    def pairs(self, name: str, n: int, solver) -> Pairs:
        asked.append(n)
        zeros = torch.zeros(1, 1, 28, 28).expand(n, -1, -1, -1)
        return Pairs(zeros, zeros, torch.zeros(n, dtype=torch.int64))

    monkeypatch.setattr(Sources, "pairs", pairs)
    monkeypatch.setattr(Sources, "load", lambda self, name: tiny())
    honest = dmd.DMD.__call__

    def step(self, g):
        clock.now += 0.25
        return honest(self, g)

    monkeypatch.setattr(dmd.DMD, "__call__", step)
    found = benchmark.benchmark(recipe, train.accelerator(cpu=True), n=1)
    assert found["step_s"] == 0.25 and found["images_per_second"] == 16.0
    weights = sum(p.numel() for p in tiny().parameters()) * 4 / 2**20
    assert found["memory_mb"]["weights"] == pytest.approx(3 * weights, abs=0.1)  # three networks
    assert found["memory_mb"]["gradients"] == pytest.approx(2 * weights, abs=0.1)
    assert found["memory_mb"]["optimiser"] == pytest.approx(4 * weights, abs=0.1)
    assert found["device"].startswith("CPU, ") and "allocated_mb" not in found
    assert asked == [benchmark.N_PAIRS]  # and not an hour of pairs


def test_what_is_timed_is_the_recipes_own_step(monkeypatch):
    """By how often it updates the fake score."""
    calls = Counter()

    def in_turns(functions, n, device) -> list[float]:
        functions[0]()
        return [1.0]

    monkeypatch.setattr(benchmark, "in_turns", in_turns)
    monkeypatch.setattr(benchmark.cost, "memory", lambda training: {})
    honest = dmd.DMD.update_fake

    def update_fake(self, g):
        calls["fake"] += 1
        return honest(self, g)

    monkeypatch.setattr(dmd.DMD, "update_fake", update_fake)
    monkeypatch.setattr(store, "find", lambda name, *roots: trained())
    recipe = Recipe("", DOTS, dmd2.Settings("dots-teacher", updates=(1, 3)), 5, 4,
                    samplings=(Sampling("multistep", 1),))
    benchmark.benchmark(recipe, train.accelerator(cpu=True))
    assert calls["fake"] == 3
