"""Keep the lessons in one state: `stamp` writes the shared cells into them, `run` executes them for commit.

    python tools/notebooks.py stamp            badge row and setup cell, from pyproject.toml's repository address
    python tools/notebooks.py run [NAME …]     stamp, execute from top to bottom, keep outputs, drop widget state
"""
import sys
import time
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

import nbformat

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
BADGES, BADGES_END = "<!-- badges -->", "<!-- /badges -->"
SETUP = '''\
# Setup: safe to run again. On Colab it fetches and installs the kit; anywhere else it does nothing.
import importlib.util, pathlib, subprocess, sys
REPOSITORY = "{repository}"
if "google.colab" in sys.modules and importlib.util.find_spec("dmdkit") is None:
    clone = pathlib.Path("/content/dmdkit")
    if not clone.exists():
        assert REPOSITORY, "No public address yet: upload the repository to /content/dmdkit, then run this again."
        subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", str(clone)], check=True)
    sys.path.insert(0, str(clone))'''


def repository() -> str:
    """The public address in pyproject.toml, or "" while there is none."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dmdkit"]["repository"].rstrip("/")


def badge_row(lesson: str, address: str) -> str:
    """The badges of a lesson; without a public address, what can be said without one."""
    if not address:
        return "*Run it: `make lab` in a clone, or the setup cell below on Colab.*"
    path = f"{address.removeprefix('https://github.com/')}/blob/main/notebooks/{lesson}.ipynb"
    return (f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{path}) [Source]({address})")


def stamp(path: Path, address: str) -> None:
    """Write the badge row into the first cell and the setup cell into the cell tagged "setup"; check the layout."""
    notebook = nbformat.read(path, 4)
    first = notebook.cells[0]
    before, rest = first.source.split(BADGES, 1)
    first.source = f"{before}{BADGES}\n{badge_row(path.stem, address)}\n{BADGES_END}{rest.split(BADGES_END, 1)[1]}"
    setup = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    if len(setup) != 1:
        raise SystemExit(f"{path.name} must have exactly one cell tagged 'setup'; it has {len(setup)}.")
    setup[0].source = SETUP.format(repository=address)
    nbformat.write(notebook, path)


def run(path: Path) -> None:
    """Execute a lesson from top to bottom with its full budget and store its outputs."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    begun = time.perf_counter()
    NotebookClient(notebook, timeout=3600, kernel_name="python3", store_widget_state=False,
                   resources={"metadata": {"path": path.parent}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps would make every run a change
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.perf_counter() - begun:.0f} s, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    command, wanted = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if command not in ("stamp", "run"):
        raise SystemExit(__doc__)
    for lesson in LESSONS:
        if not wanted or lesson.stem in wanted:
            stamp(lesson, repository())
            if command == "run":
                run(lesson)
