"""Trainings that are killed again and again end byte for byte as if they had not been."""
import random
import signal

import kills
import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
SAVE_EVERY = 3


@pytest.mark.parametrize("training, n_steps, n_kills", [("points", 110, 9), ("dmd2", 10, 3)])
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
        training, n_steps, n_kills, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"random.Random({seed})")  # shown if the test fails
    dice, folder, whole = random.Random(seed), tmp_path / "killed", tmp_path / "whole"
    kills.follow(whole, training, n_steps, SAVE_EVERY)
    for i in range(n_kills):
        span = n_steps // (n_kills + 2)
        goal = 1 + i * span + dice.randrange(span)
        number = kills.SIGNALS[i % 3]
        found = kills.killed(folder, training, n_steps, SAVE_EVERY, goal, dice, number)
        kills.check(found, goal, SAVE_EVERY)
    kills.follow(folder, training, n_steps, SAVE_EVERY)
    assert kills.same_end(folder, whole)
    assert {path.name for path in folder.iterdir()} == {kills.CHECKPOINT, kills.LOG}
