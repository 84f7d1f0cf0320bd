"""Keep the lessons in one state, and make what learners open from what is written.

    python tools/notebooks.py trust            Jupyter may run the scripts in the lessons' outputs
    python tools/notebooks.py stamp [NAME …]   write badge row, setup cell, metadata, both editions
    python tools/notebooks.py run [NAME …]     stamp, execute in a kernel of its own, keep outputs

`trust` is for readers: the players are such scripts. The rest is for maintainers. Lessons are
written in notebooks/solutions, where exercises have their solutions. notebooks/ is made from it:
exercises are blank, and what a learner is asked to predict is folded. Pictures are stored there
alone, since a clone would hold each of them twice; the solutions keep their words.
"""
import copy
import os
import re
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
# By name, not by pattern: a trusted notebook's outputs run scripts, so a stranger's is not trusted.
NAMES = ("00_start_here", "01_ddpm", "02_scores", "03_dmd_in_2d", "04_dmd_mnist",
         "05_progressive_distillation", "06_dmd2", "08_in_colour")
FOLDER = ROOT / "notebooks"
LESSONS = tuple(FOLDER / f"{name}.ipynb" for name in NAMES)
BADGES, BADGES_END = "<!-- badges -->", "<!-- /badges -->"
SETUP = '''\
# @title Setup: run it first, as often as you like. Outside Colab it does nothing.
import importlib.util, pathlib, subprocess, sys
REPOSITORY, CLONE = "{repository}", pathlib.Path("/content/dmdkit")
found = importlib.util.find_spec("dmdkit")  # a mere folder has no origin
if "google.colab" in sys.modules and (found is None or found.origin is None):
    if not REPOSITORY and not (CLONE / "pyproject.toml").exists():
        raise RuntimeError(
            "The kit has no public address yet. Zip its folder dmdkit, upload dmdkit.zip "
            "in Colab's file list, run `!unzip -q dmdkit.zip`, then run this cell again.")
    if not (CLONE / "pyproject.toml").exists():
        subprocess.check_call(["git", "clone", "-q", "--depth=1", REPOSITORY, CLONE])
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "-e", CLONE])
    sys.path.insert(0, str(CLONE))
    sys.modules.pop("dmdkit", None)
    importlib.invalidate_caches()'''
SETUP_METADATA = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["setup"]}
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
SMALL = 10_000  # characters of an output that the solutions keep
PREDICT = re.compile(r"^\W*\*\*Predict\b", re.MULTILINE)
FOLDED = {"collapsed": True, "jupyter": {"outputs_hidden": True}}  # as JupyterLab writes it
# JupyterLab shows the first line of what is folded; else that would be a player's HTML, or the answer.
FOLD_SAYS = nbformat.v4.new_output("display_data", {
    "text/html": "<!-- Folded: predict, then run the cell, or click here. -->"})
CHECKED = "nbval-check-output"
UNFOLDED = "unfolded"  # the tag of a cell whose output is there to be seen before one predicts
WIDGET = "application/vnd.jupyter.widget-view+json"
# A line of tqdm's: "12%|█▏  | 240/2000 [00:03<00:25, 69.1it/s]"; without a total "240it [00:03, …".
PROGRESS = re.compile(r"\d+%\|.*\|\s*[\d.]+\w*/[\d.]+|\d+\w+ \[\d+:\d+")


def repository() -> str:
    """The public address in pyproject.toml, or "" while there is none."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^repository = "([^"]*)"', text, re.MULTILINE)[1].rstrip("/")


def badge_row(lesson: str, address: str) -> str:
    """The badges of a lesson; without a public address, what can be said without one."""
    if not address:
        return "*Run it: `make lab` in a clone, or the setup cell below on Colab.*"
    path = f"{address.removeprefix('https://github.com/')}/blob/main/notebooks/{lesson}.ipynb"
    return (f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{path}) [Source]({address})")


def language_info(version: str) -> dict:
    """What ipykernel says of Python ``version``, and JupyterLab stores."""
    return {"codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py",
            "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python",
            "pygments_lexer": "ipython3", "version": version}


def as_saved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """With the metadata and outputs that JupyterLab writes: opening and saving changes nothing."""
    here = ".".join(map(str, sys.version_info[:3]))
    version = notebook.metadata.get("language_info", {}).get("version", here)
    metadata = {"kernelspec": KERNELSPEC, "language_info": language_info(version)}
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps would make every run a change
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    return notebook


def tidy(outputs: list) -> list:
    """A cell's outputs as JupyterLab would save them, and without progress bars.

    A stored bar would stand still for ever. JupyterLab joins neighbouring pieces of a stream.
    """
    outputs = _joined(outputs)
    for output in outputs:
        if output.output_type == "stream":
            output.text = _without_bars(output.text)
    return _joined([output for output in outputs if not _is_progress(output)])


def _joined(outputs: list) -> list:
    joined = []
    for output in outputs:
        if joined and _continues(joined[-1], output):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _continues(before: nbformat.NotebookNode, output: nbformat.NotebookNode) -> bool:
    both_streams = before.output_type == output.output_type == "stream"
    return both_streams and before.name == output.name


def _without_bars(text: str) -> str:
    """The lines of ``text`` as a terminal would leave them, without overwritten states and bars."""
    lines = []
    for line in text.split("\n"):
        state = line.rstrip("\r").split("\r")[-1]
        wiped = "\r" in line and not state.strip()
        if not wiped and not PROGRESS.search(state):
            lines.append(state)
    return "\n".join(lines)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """Whether nothing is left of a stream, or a widget is one of tqdm's bars."""
    if output.output_type == "stream":
        return not output.text
    data = output.get("data", {})
    return WIDGET in data and bool(PROGRESS.search(data.get("text/plain", "")))


# The editions

def source(lesson: Path) -> Path:
    """Where a lesson is written: among the solutions, unless it has no exercises."""
    solved = lesson.parent / "solutions" / lesson.name
    return solved if solved.exists() else lesson


def solved(lesson: Path) -> nbformat.NotebookNode:
    """A lesson with its solutions and all its outputs."""
    notebook = nbformat.read(source(lesson), 4)
    stored = nbformat.read(lesson, 4).cells if lesson.exists() else []
    pictures = {cell.id: cell for cell in stored if cell.get("outputs")}
    for cell in notebook.cells:
        if cell.id in pictures:
            stored = copy.deepcopy(pictures[cell.id].outputs)
            cell.outputs = [output for output in stored if output != FOLD_SAYS]
    return notebook


def for_learners(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Exercises blank, what the checks said of them gone; links as seen from one folder up."""
    from dmdkit.check import course

    notebook = nbformat.from_dict(course.blank(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](")
    return notebook


def folded(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What answers a Predict is hidden, until it is clicked on or its cell is run."""
    notebook = copy.deepcopy(notebook)
    asked = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            asked = asked or bool(PREDICT.search(cell.source))
        elif "nbgrader" not in cell.metadata:
            if asked and cell.outputs and UNFOLDED not in cell.metadata.get("tags", []):
                cell.metadata |= copy.deepcopy(FOLDED)
                cell.outputs = [copy.deepcopy(FOLD_SAYS), *cell.outputs]
                tags = cell.metadata.get("tags", [])
                if CHECKED in tags:  # among the solutions, where its output stands alone
                    tags.remove(CHECKED)
            asked = False
    return notebook


def without_pictures(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Outputs in words: of what is drawn, the text that stands for it."""
    notebook = copy.deepcopy(notebook)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        for kind, content in list(output.get("data", {}).items()):
            if kind == "image/png" or len(content) > SMALL:
                del output.data[kind]
    return notebook


def write(notebook: nbformat.NotebookNode, lesson: Path) -> None:
    """Both editions of an executed lesson; the one, if it has no exercises."""
    written = source(lesson)
    if written != lesson:
        nbformat.write(as_saved(without_pictures(notebook)), written)
        notebook = for_learners(notebook)
    nbformat.write(as_saved(folded(notebook)), lesson)


def stamp(lesson: Path, address: str) -> None:
    """Write what the lessons share: badge row, setup cell, metadata; outputs as they are saved.

    Raises SystemExit if the notebook does not have one place for each.
    """
    notebook = solved(lesson)
    first = notebook.cells[0]
    setup = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    if first.source.count(BADGES) != 1 or first.source.count(BADGES_END) != 1 or len(setup) != 1:
        raise SystemExit(f"{lesson.name} must have {BADGES} and {BADGES_END} once each in its "
                         f"first cell, and one cell tagged 'setup'; it has {len(setup)} of those.")
    before, rest = first.source.split(BADGES)
    after = rest.split(BADGES_END)[1]
    first.source = f"{before}{BADGES}\n{badge_row(lesson.stem, address)}\n{BADGES_END}{after}"
    setup[0].source = SETUP.format(repository=address)
    setup[0].metadata = nbformat.from_dict(SETUP_METADATA)
    write(notebook, lesson)


def with_outputs(notebook: nbformat.NotebookNode,
                 executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A lesson as it is now, which may have been edited meanwhile, with what its execution gave."""
    gave = {cell.id: cell for cell in executed.cells}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id in gave:
            cell.outputs, cell.execution_count = gave[cell.id].outputs, gave[cell.id].execution_count
    return notebook


def run(lesson: Path) -> None:
    """Execute a lesson from top to bottom with its full budget and store its outputs."""
    from nbclient import NotebookClient

    notebook = nbformat.read(source(lesson), 4)
    begun = time.perf_counter()
    full = {name: value for name, value in os.environ.items() if name != "DMDKIT_FAST"}
    full["ACCELERATE_MIXED_PRECISION"] = "no"  # the same figures on every kind of CPU
    folder = source(lesson).parent
    NotebookClient(notebook, timeout=3600, kernel_name="python3", store_widget_state=False,
                   resources={"metadata": {"path": folder}}).execute(env=full)
    write(with_outputs(nbformat.read(source(lesson), 4), notebook), lesson)
    seconds, size = time.perf_counter() - begun, lesson.stat().st_size / 1e6
    print(f"{lesson.name}: {seconds:.0f} s, {size:.2f} MB")


# What one calls

def trust(paths: tuple[Path, ...] = LESSONS) -> None:
    """Sign the lessons as they are now, for the user who calls this."""
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary()
    there = [path for path in paths if path.exists()]  # a course has some of them
    for path in there:
        notary.sign(nbformat.read(path, 4))
    print(f"{len(there)} lessons are trusted: their players run as soon as they are opened.")


def lessons(names: list[str]) -> list[Path]:
    """The named lessons, or all. Raises SystemExit for a name that is none."""
    unknown = set(names) - set(NAMES)
    if unknown:
        raise SystemExit(f"There is no lesson {', '.join(sorted(unknown))}; there are "
                         f"{', '.join(NAMES)}.")
    return [path for path in LESSONS if not names or path.stem in names]


def main(command: str = "", *names: str) -> None:
    if command == "trust" and not names:
        trust()
    elif command in ("stamp", "run"):
        for path in lessons(list(names)):
            stamp(path, repository())
            if command == "run":
                run(path)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
