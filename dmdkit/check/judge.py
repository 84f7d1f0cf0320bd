"""Who decides about a learner's function: it runs elsewhere, and here its results are compared.

The process that runs it is started from a copy of the few files that hold no oracle and no
solution. It is sent inputs on a seed of the lecturer's and sends numbers back, so what it says
about itself counts for nothing: who alters that process still has to come up with right numbers.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from torch import Tensor

from .. import check
from . import wire
from .answers import Answer
from .points import TABLE
from .trial import Plan, Trial

KIT = Path(__file__).resolve().parents[1]
COPIED = ("expect.py", "check/answers.py", "check/standins.py", "check/probes.py", "check/wire.py",
          "check/worker.py")
FORKS = sys.platform == "linux"  # elsewhere a process that holds torch cannot be forked safely
KEPT = ("SYSTEMROOT", "LD_LIBRARY_PATH")  # of the environment: what Python may need to start
GONE = ("It ended without an answer: it left Python, crashed, used too much memory or returned "
        "far too much.")


class Judge:
    """Tells what is wrong with learners' functions. To be used in ``with``.

    Args:
        seed: of the cases.
        seconds: how long one exercise may run.
    """

    def __init__(self, seed: int, seconds: float = 10):
        self.seconds = seconds
        self.plan = cache(lambda name: getattr(check, name).plan(seed))
        self.worker = None
        self.n_jobs = 0

    def __enter__(self) -> "Judge":
        self.home = Path(tempfile.mkdtemp(prefix="dmdkit-grade-")).resolve()
        for name in COPIED:
            copy = self.home / "kit" / "dmdkit" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(KIT / name, copy)
        for package in ("dmdkit", "dmdkit/check"):
            (self.home / "kit" / package / "__init__.py").touch()
        return self

    def __exit__(self, *error) -> None:
        self._end()
        shutil.rmtree(self.home, ignore_errors=True)

    def fault(self, name: str, source: str) -> str:
        """What is wrong with the function that this code defines for the exercise ``name``
        (``ex_3_1``), in words for the learner; "" if nothing is."""
        plan = self.plan(name)
        self.n_jobs += 1
        folder = self.home / f"job{self.n_jobs}"
        folder.mkdir()
        try:
            _write(folder, plan, TABLE[name].function, source)
            if self._run(folder) == "late":
                return f"It did not end within {self.seconds:g} s: is there an endless loop?"
            answers = _read(folder, plan)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Trial(plan, answers.__getitem__).fault() if answers else GONE

    def _run(self, folder: Path) -> str:
        job = {"folder": str(folder), "seconds": self.seconds, "apart": FORKS}
        line = json.dumps(job) + "\n"
        if not FORKS:
            return self._run_once(line)
        if self.worker is None or self.worker.poll() is not None:
            self.worker = self._start()
        try:
            self.worker.stdin.write(line)
            self.worker.stdin.flush()
            return self.worker.stdout.readline().strip()
        except OSError:  # it was ended
            return ""

    def _run_once(self, line: str) -> str:
        worker = self._start()
        try:
            worker.communicate(line, timeout=self.seconds)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.communicate()
            return "late"
        return "done"

    def _start(self) -> subprocess.Popen:
        kit = self.home / "kit" / "dmdkit" / "check" / "worker.py"
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "HOME": str(self.home), "TMPDIR": str(self.home),
                        "CUDA_VISIBLE_DEVICES": ""}  # neither it nor autograd survives a fork
        with open(self.home / "log", "wb") as log:
            worker = subprocess.Popen([sys.executable, "-I", str(kit)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=log, text=True,
                                      encoding="utf-8", cwd=self.home, env=environment)
        if worker.stdout.readline().strip() != "ready":
            said = (self.home / "log").read_text(encoding="utf-8", errors="replace").splitlines()
            raise RuntimeError("The process that runs learners' functions did not start, so nobody "
                               f"is graded: {said[-1] if said else 'it said nothing'}")
        return worker

    def _end(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.communicate()


def _write(folder: Path, plan: Plan, function: str, source: str) -> None:
    """The job, with zeros in the shapes of what is wanted: those are no secret."""
    exercise = plan.exercise
    tensors = {}
    rounds = [[[wire.pack(tuple(case), tensors), wire.pack([0 * part for part in want], tensors)]
               for case, want in cases] for cases in plan.rounds.values()]
    job = {"source": source, "function": function, "probe": exercise.probe.__name__,
           "parts": exercise.parts, "hint": exercise.hint, "rounds": rounds, "library": str(KIT)}
    wire.write(folder, "job", job, tensors)


def _read(folder: Path, plan: Plan) -> dict[str, list[Answer]]:
    """The answers of each round; none if they are not there, or not what was asked for."""
    try:
        content, tensors = wire.read(folder, "answers")
        rounds = [[wire.unpack_answer(one, tensors) for one in of] for of in content]
        fit = all(_fits(one, want) for of, asked in zip(rounds, plan.rounds.values(), strict=True)
                  for one, (_, want) in zip(of, asked, strict=True))
    except Exception:  # whatever a learner's process has left there
        return {}
    return dict(zip(plan.rounds, rounds)) if fit else {}


def _fits(given: Answer, want: Sequence[Tensor]) -> bool:
    """Is it an answer with a fault, or one that can be compared?"""
    shapes = [value.shape for value in given.values]
    comparable = shapes == [part.shape for part in want]
    return bool(given.fault) or comparable and all(value.isfinite().all() for value in given.values)
