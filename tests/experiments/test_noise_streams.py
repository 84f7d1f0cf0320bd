"""Noise has a purpose: no two things that are compared, trained or shown share a draw.

Every stream that pairs, trainings, evaluations and pictures really open is noted here as they run.
"""
from collections import defaultdict

import pytest
import torch
from toys import DOTS, STUDENT, TEACHER, dot_network, tiny

from dmdkit import noise, train
from dmdkit.experiments import evaluate, explorer, lesson03, runner
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Sources
from dmdkit.methods import pairs
from dmdkit.tasks.plane import MIXTURES, plane

Stream = tuple[str, int, int]


@pytest.fixture
def opened(monkeypatch) -> dict[Stream, set[str]]:
    """By stream, what it was opened for: whatever ``opened.now`` says at that time."""
    found = _Opened()
    honest = noise.seed_of

    def seed_of(purpose: str, seed: int = 0, number: int = 0) -> int:
        found[purpose, seed, number].add(found.now)
        return honest(purpose, seed, number)

    monkeypatch.setattr(noise, "seed_of", seed_of)
    return found


class _Opened(defaultdict):
    def __init__(self):
        super().__init__(set)
        self.now = ""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def all_that_draws(opened, folder):
    """Pairs of two shards, trainings of two seeds, evaluations of two purposes, seeds and batches,
    their baselines, and the pictures of a lesson. Yields what runs next."""
    net, how = dot_network(), Sampling("ddim", 1)
    yield "pairs"
    pairs.make_pairs(net, pairs.SHARD + 1, folder / "pairs", pairs.Solver("ddim", 1))
    for seed in (0, 1):
        yield f"training, seed {seed}"
        *_, _ = runner.run(TEACHER.changed(seed=seed))
    yield "training, head start"
    recipe = STUDENT.changed(head_start=3, n_pairs=0, solver_steps=8)
    recipe.prepare(train.accelerator(cpu=True), Sources(DOTS, given={"dots-teacher": net}))
    for purpose in ("selection", "report"):
        for seed in (0, 1):
            yield f"evaluation, {purpose} {seed}"
            evaluate.draw(net, how, evaluate.BATCH + 1, purpose, seed)
            yield f"baseline, {purpose} {seed}"
            evaluate.real_samples(DOTS, 6, purpose, seed)
    yield "explorer"
    explorer.cell(tiny(), "DDPM", 0.0, 2)
    mixture = MIXTURES["two modes"]
    task = plane("two modes", mixture)
    for part in (True, False):
        yield f"points, {part}"
        task.data(part)
    yield "points, what they are scored against"
    task.scorer()
    yield "points, the start"
    task.network("one mode")
    yield "points, the baseline"
    lesson03.baseline(2)


def streams(opened, folder) -> dict[str, set[Stream]]:
    """By what draws, the streams that it opens."""
    work = all_that_draws(opened, folder)
    opened.now = next(work)
    for following in work:
        opened.now = following
    found = defaultdict(set)
    for stream, uses in opened.items():
        for use in uses:
            found[use].add(stream)
    return found


def purposes(use: str) -> set[str]:
    """The purposes that something may draw for. The snapshots of a training are pictures."""
    start = use.split(",")[0]
    if start in ("evaluation", "baseline"):
        return {use.split()[1]}
    return {"pairs": {"pairs"}, "training": {"training", "pictures"}, "explorer": {"pictures"},
            "points": {"training", "report"}}[start]


def test_no_two_things_open_one_stream_and_no_two_streams_share_a_draw(here, opened):
    found = streams(opened, here)
    assert len(found) == 18 and all(found.values())
    assert {purpose for uses in found.values() for purpose, *_ in uses} == set(noise.PURPOSES)
    for use, own in found.items():
        assert {purpose for purpose, *_ in own} <= purposes(use), use
    for use, own in found.items():
        for other, theirs in found.items():
            if use < other:
                shared = {one for one in own & theirs if one[0] != "pictures"}
                assert not shared, (use, other)
    seeds = {noise.seed_of(*stream) for stream in list(opened)}
    assert len(seeds) == len(opened) > 30
    draws = set()
    for stream in list(opened):
        values = torch.randn(8, generator=noise.generator(*stream)).tolist()
        assert not draws & set(values), stream
        draws |= set(values)


def test_an_evaluations_noise_is_none_that_pairs_were_made_of(here):
    """The noise itself: at the old fault each batch's was the beginning of a shard's."""
    net = dot_network()
    solved = pairs.make_pairs(net, 2 * pairs.SHARD, here / "pairs", pairs.Solver("ddim", 1))
    mine = {tuple(z) for z in solved.z.tolist()}
    for purpose in ("selection", "report"):
        for number in (0, 1):
            z = torch.randn(250, 2, generator=noise.generator(purpose, 0, number)).half().float()
            assert not mine & {tuple(one) for one in z.tolist()}


def test_a_steps_noise_is_another_in_every_step_and_seed(monkeypatch):
    seen = []

    def step(g: torch.Generator) -> dict[str, torch.Tensor]:
        seen.append(torch.randn(4, generator=g))
        seen.append(torch.rand(4))  # what dropout draws from
        return {"loss": torch.zeros(())}

    for seed in (0, 1):
        learner = train.Learner(dot_network(), train.accelerator(cpu=True), lr=1e-3, n_steps=3)
        for _ in train.train(step, {"net": learner}, n_steps=3, seed=seed):
            pass
    values = torch.cat(seen)
    assert len(values.unique()) == len(values) == 48


def test_a_picture_of_digits_starts_from_the_pictures_noise():
    assert torch.equal(explorer.start(tiny()), torch.randn(
        10, 1, 28, 28, generator=noise.generator("pictures")))
