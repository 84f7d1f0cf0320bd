"""What tools/on_gpu.sh runs: tests and a step of every recipe, gathered in one JSON file."""
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS, OF_A_PART = 450, 150  # in all, and of a part but the last at most
NEEDED = ("torch", "torchvision", "diffusers", "accelerate", "torchmetrics", "lpips", "scipy",
          "safetensors", "tqdm", "matplotlib", "PIL", "ipywidgets", "pytest", "nbformat", "yaml")
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
ON_GPU = ("env", "DMDKIT_GPU=1", *PYTEST, "tests/test_gpu.py")
# The others compute on the CPU beside the GPU. Pictures, notebooks and the repository itself are the
# same on every machine.
BESIDE = (*PYTEST, "--ignore=tests/show", "--ignore=tests/test_repository.py",
          "--ignore=tests/test_tools.py", "tests")
MACHINE = """
import json, platform, torch
found = {"python": platform.python_version(), "torch": torch.__version__, "gpu": None}
if torch.cuda.is_available():
    gpu = torch.cuda.get_device_properties(0)
    found |= {"gpu": gpu.name, "memory_mb": gpu.total_memory // 2**20, "cuda": torch.version.cuda}
print(json.dumps(found))
"""


def run(command: list[str], seconds: float) -> tuple[str, bool]:
    """What a command printed, shown as it comes, and whether it ended well within ``seconds``.

    After them it is killed, with all that it started.
    """
    lines = []
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               encoding="utf-8", errors="replace", start_new_session=True)
    timer = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    with process:
        for line in process.stdout:
            print(line, end="")
            lines.append(line)
    timer.cancel()
    return "".join(lines), process.returncode == 0


def json_objects(text: str) -> dict:
    """All JSON objects that begin a line of ``text``, merged; what was cut off is left out."""
    found, decoder = {}, json.JSONDecoder()
    for start in re.finditer(r"^\{", text, re.MULTILINE):
        try:
            found |= decoder.raw_decode(text, start.start())[0]
        except ValueError:
            continue
    return found


def tests(command: tuple[str, ...], seconds: float) -> dict:
    """How tests ended: counts, and the names of those that failed."""
    begun = time.monotonic()
    text, well = run(list(command), seconds)
    ends = re.findall(r"(\d+) (passed|failed|errors?)", text)
    counts = {what: int(count) for count, what in ends}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    return {"ended_well": well, **counts, "failures": failed, "seconds": seconds_since(begun)}


def recipes(seconds: float, options: list[str]) -> dict:
    """A step of every recipe, by the library's own benchmark, as far as the time goes."""
    begun = time.monotonic()
    text, well = run([sys.executable, "-m", "dmdkit", "benchmark", "all", *options], seconds)
    last = [] if well else text.splitlines()[-3:]
    return {"ended_well": well, "found": json_objects(text), "last_lines": last,
            "seconds": seconds_since(begun)}


def seconds_since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)


def main(target: str, *options: str) -> None:
    """Raises SystemExit at the start if something is missing, at the end if something failed."""
    begun = time.monotonic()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"This Python lacks {', '.join(missing)}: put their wheels into a folder "
                         "and name it in WHEELS.")
    machine = json_objects(run([sys.executable, "-c", MACHINE], 120)[0])
    if not machine.get("gpu") and "--cpu" not in options:
        raise SystemExit("PyTorch sees no NVIDIA GPU here. For a rehearsal: tools/on_gpu.sh --cpu")
    several = ("-n", "4", "--dist", "loadfile") if importlib.util.find_spec("xdist") else ()
    on_gpu = ON_GPU if machine.get("gpu") else (*PYTEST, "tests/test_gpu.py")
    report = {"machine": machine, "on the GPU": tests(on_gpu, OF_A_PART),
              "recipes": recipes(OF_A_PART, list(options))}
    report["beside it"] = tests((*BESIDE, *several), SECONDS - (time.monotonic() - begun))
    text = json.dumps(report | {"seconds": seconds_since(begun)}, indent=1, ensure_ascii=False)
    Path(target).write_text(text + "\n", encoding="utf-8")
    print(text)
    if not all(report[part]["ended_well"] for part in ("on the GPU", "recipes", "beside it")):
        raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
