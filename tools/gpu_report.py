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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS, OF_TESTS = 450, 210  # in all, and of the tests at most
NEEDED = ("torch", "torchvision", "diffusers", "accelerate", "torchmetrics", "lpips", "scipy",
          "safetensors", "tqdm", "matplotlib", "PIL", "ipywidgets", "pytest", "nbformat", "yaml")
# Pictures, notebooks and the repository itself are the same on every machine.
TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--ignore=tests/show",
         "--ignore=tests/test_repository.py", "--ignore=tests/test_tools.py", "tests")
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


def tests(seconds: float) -> dict:
    """How the tests ended: counts, and the names of those that failed."""
    several = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    begun = time.monotonic()
    text, well = run([sys.executable, *TESTS, *several], seconds)
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


def register(site: Path) -> None:
    """Cards name dmdkit's version: give the clone one where it is not installed."""
    try:
        version("dmdkit")
    except PackageNotFoundError:
        folder = site / "dmdkit-0.dist-info"
        folder.mkdir(parents=True)
        text = "Metadata-Version: 2.1\nName: dmdkit\nVersion: 0\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")


def main(target: str, site: str, *options: str) -> None:
    """Raises SystemExit at the start if something is missing, at the end if something failed."""
    begun = time.monotonic()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"This Python lacks {', '.join(missing)}: put their wheels into a folder "
                         "and name it in WHEELS.")
    machine = json_objects(run([sys.executable, "-c", MACHINE], 120)[0])
    if not machine.get("gpu") and "--cpu" not in options:
        raise SystemExit("PyTorch sees no NVIDIA GPU here. For a rehearsal: tools/on_gpu.sh --cpu")
    register(Path(site))
    report = {"machine": machine, "tests": tests(OF_TESTS)}
    report["recipes"] = recipes(SECONDS - (time.monotonic() - begun), list(options))
    text = json.dumps(report | {"seconds": seconds_since(begun)}, indent=1, ensure_ascii=False)
    Path(target).write_text(text + "\n", encoding="utf-8")
    print(text)
    if not (report["tests"]["ended_well"] and report["recipes"]["ended_well"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
