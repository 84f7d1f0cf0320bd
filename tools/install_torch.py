"""Install PyTorch and torchvision before the rest: without CUDA where there is no GPU to use it.

    python tools/install_torch.py [INDEX]

INDEX is one of
    auto     the default. On Linux without an NVIDIA GPU: PyTorch's own builds for CPUs, if they
             can be reached. Else nothing, and `pip install -e .` takes what PyPI has
    pypi     nothing: what PyPI has, which on Linux is a build with CUDA
    ADDRESS  of a package index, or a folder laid out like one, e.g.
             https://download.pytorch.org/whl/cu126

Needs only Python and pip. The environment that it installs into is that of the Python that runs it.
"""
import importlib.util
import subprocess
import sys
import urllib.request

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
SECONDS, ATTEMPTS = 5, 2


def has_nvidia_gpu() -> bool:
    """Whether the driver's own tool lists a GPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return True  # there is a driver, only slow: rather a download too many than a GPU left idle
    except OSError:
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def unreachable(index: str) -> str:
    """Why ``index`` does not answer; "" if it does."""
    request = urllib.request.Request(f"{index}/torch/", headers={"User-Agent": "dmdkit"})
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            urllib.request.urlopen(request, timeout=SECONDS).close()
        except OSError as error:
            reason = str(getattr(error, "reason", error))
        else:
            return ""
    return reason


def install(index: str) -> bool:
    """PyTorch and torchvision together, from ``index`` alone; whether pip could."""
    command = [sys.executable, "-m", "pip", "install", "--index-url", index, "torch", "torchvision"]
    return subprocess.run(command).returncode == 0


def cpu_builds_if_possible() -> str:
    """Install the builds for CPUs if they fit and can be had; what was done, in one line."""
    if sys.platform != "linux":
        return f"PyTorch comes from PyPI: there its build for {sys.platform} brings no CUDA."
    if has_nvidia_gpu():
        return "PyTorch comes from PyPI with CUDA: there is an NVIDIA GPU."
    reason = unreachable(CPU_BUILDS)
    if not reason and install(CPU_BUILDS):
        return f"PyTorch is installed without CUDA, from {CPU_BUILDS}: no NVIDIA GPU was found."
    reason = reason or "pip found no build there for this Python"
    return f"PyTorch comes from PyPI, with CUDA (3 GB): {CPU_BUILDS} cannot be used ({reason})."


def main(index: str = "auto") -> None:
    """Raises SystemExit if an index that the caller named has no PyTorch for this Python."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
        print("PyTorch is already in this environment and stays. For another build: make clean.")
    elif index == "auto":
        print(cpu_builds_if_possible())
    elif index == "pypi":
        print("PyTorch comes from PyPI.")
    elif not install(index):
        raise SystemExit(
            f"pip found no PyTorch for this Python in TORCH_INDEX={index}. Name the address of a "
            "package index, a folder laid out like one, `pypi` or `auto`.")


if __name__ == "__main__":
    main(*sys.argv[1:])
