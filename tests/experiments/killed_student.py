"""A student whose training is killed before each of its writings in turn: the log is never behind
the checkpoint, and what goes on from there ends with the same bytes.

    PYTHONPATH=tests python tests/experiments/killed_student.py

in an empty folder raises AssertionError where that is not so.
"""
import os
import signal
import traceback
from pathlib import Path

import torch
from toys import STUDENT, bytes_of, equal, trained

from dmdkit import disk, files, store, train
from dmdkit.experiments import runner
from dmdkit.experiments.recipe import Recipe

WORK = "dots-student.training"


def student(out, recipe: Recipe = STUDENT, **options):
    """Train the student of dots into ``out``."""
    options = {"roots": (trained(),)} | options
    return runner.train_artefact("dots-student", recipe, out, cpu=True, **options)


def kept(out) -> tuple[list[int], dict, list[int]]:
    """At which steps there are snapshots, what they show, and the steps in the log."""
    found = runner.recorded(out / WORK)
    log = files.read_lines(out / WORK / runner.LOG).entries
    return found["steps"].tolist(), found["snapshots"], [entry["step"] for entry in log]


def killed_at(write: int, work) -> int:
    """Do ``work`` in a process of its own that is killed before its ``write``-th writing; how many
    there were if it is never reached, else 0."""
    child = os.fork()
    if child == 0:
        done = 0
        whole, line = os.replace, files.append_line

        def count() -> None:
            nonlocal done
            done += 1
            if done == write:
                os.kill(os.getpid(), signal.SIGKILL)

        def replace(source, target) -> None:
            count()
            whole(source, target)

        def append(path, entry) -> None:
            count()
            line(path, entry)

        disk.os.replace, runner.files.append_line, train.SAVE_SECONDS = replace, append, 0.0
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(255)
        os._exit(done)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return 0
    assert os.WEXITSTATUS(status) != 255, "the training raised"
    return os.WEXITSTATUS(status)


def main(here: Path) -> None:
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork: the child would wait for them
    short = STUDENT.changed(n_steps=2, updates=(1, 1))
    student(here / "whole", short)
    steps, seen, logged = kept(here / "whole")
    wanted = bytes_of(here / "whole", "dots-student")
    n_writes = killed_at(-1, lambda: student(here / "all", short))
    assert n_writes > 9  # a snapshot, a line and a checkpoint a step, and the artefact
    for write in range(1, n_writes + 1):
        out = here / f"killed-{write}"
        assert killed_at(write, lambda: student(out, short)) == 0
        if store.names(out):  # killed when it was done
            continue
        checkpoint = out / WORK / runner.CHECKPOINT
        if checkpoint.exists():
            done = files.load_state(checkpoint)["step"]
            log = out / WORK / runner.LOG
            lines = files.read_lines(log).entries if log.exists() else []
            assert len(lines) >= done, write
            assert set(steps[:done + 1]) <= set(kept(out)[0]) if lines else done == 0
        student(out, short, resume=checkpoint.exists())
        assert bytes_of(out, "dots-student") == wanted, write
        again = kept(out)
        assert again[0] == steps and again[2] == logged, write
        assert equal(list(again[1].values()), list(seen.values())), write


if __name__ == "__main__":
    main(Path.cwd())
