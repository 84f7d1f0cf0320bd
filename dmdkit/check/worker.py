"""The process that runs learners' functions. It is started by ``judge`` from a copy of a few files
that hold no answer, is sent inputs, and returns what the functions made of them. It judges nothing.

A line on its input, {"folder": …, "seconds": …, "apart": …}, is a job; for each it prints how that
ended, after a first line that says that it is ready. A job that is not done apart is done in this
process, which ends then.
"""
import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # a copy, which is run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    # An editable install would add what is missing in the copy from the clone.
    sys.meta_path[:] = [finder for finder in sys.meta_path
                        if not getattr(finder, "__module__", "").startswith("__editable__")]

import torch

from dmdkit.check import probes, wire
from dmdkit.check.answers import Answer, raised

READY = "ready"
MEMORY = 4 * 2**30  # bytes beyond what torch takes
LARGEST_FILE = 2**26
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork",
             "os.kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
             "os.chmod", "os.chown", "os.truncate", "os.putenv", "shutil.", "ctypes.", "pty.",
             "resource.setrlimit", "gc.get_", "pickle.find_class", "signal.pthread_kill")
READ = ("open", "os.listdir", "os.scandir")
MODES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Do the jobs."""
    torch.set_num_threads(1)
    torch.func.grad(torch.sum)(torch.ones(3))  # its imports take seconds, nobody's own
    print(READY, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["folder"])
        if not job["apart"]:
            _hush()
            return work(folder, job["seconds"])
        print(apart(folder, job["seconds"]), flush=True)


def apart(folder: Path, seconds: float) -> str:
    """Do a job in a process of its own, which is ended after this time."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _hush()
            work(folder, seconds)
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return "done"
        time.sleep(0.005)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return "late"


def _hush() -> None:
    """What a learner's function prints goes nowhere, and it has no line to the judge."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)


def work(folder: Path, seconds: float) -> None:
    """Run one exercise's code on its cases, and write the answers."""
    job, tensors = wire.read(folder, "job")
    rounds = wire.unpack(job["rounds"], tensors)
    os.chdir(folder)
    _limit(seconds)
    _forbid(folder, job["library"])
    answers = _answers(job, rounds)
    kept = {}
    content = [[wire.pack_answer(one, kept) for one in of] for of in answers]
    wire.write(folder, "answers", content, kept)


def _answers(job: dict, rounds: tuple) -> list[list[Answer]]:
    scope = {"torch": torch, "__name__": "submission"}
    try:
        exec(compile(job["source"], "the exercise", "exec"), scope)
        function = scope[job["function"]]
    except (Exception, SystemExit) as error:
        fault = Answer(fault=raised(error, ""), kind=type(error).__name__)
        return [[fault] * len(cases) for cases in rounds]
    probe = getattr(probes, job["probe"])
    return [[probes.attempt(function, probe, case, want, job["parts"], job["hint"])
             for case, want in cases] for cases in rounds]


def _limit(seconds: float) -> None:
    """Limits of time, memory and files, which cannot be raised again."""
    try:
        import resource
    except ImportError:  # Windows: the judge's time limit is the only one
        return
    limits = {"RLIMIT_CPU": int(time.process_time() + seconds) + 1,
              "RLIMIT_FSIZE": LARGEST_FILE, "RLIMIT_CORE": 0}
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text(encoding="ascii").split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + MEMORY
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))


def _forbid(folder: Path, library: str) -> None:
    """From here on: no network, no other processes; reading only what Python and torch consist of,
    nothing of the library in its full state; writing only into the job's folder."""
    code = [Path(entry).resolve() for entry in sys.path[1:] if entry]
    code = [str(entry) for entry in code if "site-packages" in entry.parts or
            entry.is_relative_to(sys.base_prefix)]
    sys.path[1:] = code  # an editable install has put the clone there
    torch.from_file = torch.UntypedStorage.from_file = _no_file  # they open unseen by the hook
    readable = (*code, str(Path(torch.__file__).parent), str(folder), os.devnull, "/dev/urandom")

    def allowed(path, writes: bool) -> bool:
        if isinstance(path, int):
            return True
        path = os.path.realpath(os.fsdecode(path))
        return path.startswith(str(folder) if writes else readable) and library not in path

    def watch(event: str, given: tuple) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} is not allowed in a function that is graded")
        if event in READ and given[0] is not None:
            writes = event == "open" and bool((given[2] or 0) & MODES)
            if not allowed(given[0], writes):
                raise PermissionError("a function that is graded has no files of its own")

    sys.addaudithook(watch)


def _no_file(*given, **options):
    raise PermissionError("a function that is graded has no files of its own")


if __name__ == "__main__":
    main()
