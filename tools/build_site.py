"""Make the course's site: static pages, with the outputs that the lessons were committed with.

    python tools/build_site.py [FOLDER]        build/site without FOLDER

Nothing is executed, and nothing on the pages is fetched from elsewhere: npm brings MathJax here.
"""
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nbformat
import notebooks

ROOT = notebooks.ROOT
SITE, STUDENT = ROOT / "build" / "site", ROOT / "build" / "page"
MATHJAX = "mathjax@3"
MATHJAX_FILES = ("LICENSE", "es5/tex-chtml.js", "es5/input/tex/extensions/",
                 "es5/output/chtml/fonts/")
COPIED = ("README.md", "RESULTS.md", "docs/install.md", "docs/teaching.md")
# The rooms of the library that the reference shows. dmdkit.check is for graders: docs/teaching.md.
ROOMS = ("dmdkit", "dmdkit.tasks", "dmdkit.methods", "dmdkit.experiments", "dmdkit.show",
         "dmdkit.show.players")
ANSWER = {"code_prompt_show": "Show an answer", "code_prompt_hide": "Hide the answer"}
PREDICTED = {"code_prompt_show": "Show what happens", "code_prompt_hide": "Hide what happens"}


# The pages' sources, laid out as in the clone, so that links between them hold

def lay_out(source: Path) -> None:
    for name in COPIED:
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copy(ROOT / "docs" / "index.md", source)
    results = (source / "RESULTS.md").read_text(encoding="utf-8")
    (source / "RESULTS.md").write_text(results.replace("(README.md)", "(index.md)"),
                                       encoding="utf-8")
    (source / "notebooks").mkdir()
    for path in notebooks.LESSONS:
        nbformat.write(lesson(path), source / "notebooks" / path.name)
    (source / "hero.html").write_text(hero(notebooks.LESSONS[0]), encoding="utf-8")
    write_reference(source / "reference")


def lesson(path: Path) -> nbformat.NotebookNode:
    """A lesson as a page: without badges and setup, with solutions and answers that unfold."""
    page, solved = nbformat.read(path, 4), nbformat.read(notebooks.source(path), 4)
    badges = rf"{re.escape(notebooks.BADGES)}.*?{re.escape(notebooks.BADGES_END)}\n*"
    page.cells[0].source = re.sub(badges, "", page.cells[0].source, flags=re.DOTALL)
    graded = {cell.id: cell for cell in solved.cells if "nbgrader" in cell.metadata}
    cells = [graded.get(cell.id, cell) for cell in page.cells]
    page.cells = [cell for cell in cells if "setup" not in cell.metadata.get("tags", [])]
    for cell in page.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.metadata |= {"tags": ["hide-input"], "mystnb": ANSWER}
        if cell.metadata.pop("collapsed", False):
            cell.metadata |= {"tags": ["hide-output"], "mystnb": PREDICTED}
    return page


def hero(path: Path) -> str:
    """The first lesson's first player, with which the course opens."""
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            html = output.get("data", {}).get("text/html", "")
            if 'class="dmd-player"' in html:
                return html
    raise SystemExit(f"{path.name} holds no player's output: run `make notebooks` first.")


def write_reference(folder: Path) -> None:
    """A page for each room of the library; Sphinx fills it from the docstrings."""
    folder.mkdir()
    for room in ROOMS:
        files = sorted((ROOT / room.replace(".", "/")).glob("*.py"))
        modules = [f"{room}.{path.stem}" for path in files if not path.stem.startswith("__")]
        parts = [heading(room, "="), f".. automodule:: {room}\n"]
        for name in modules:
            parts += [heading(name, "-"), f".. automodule:: {name}\n"]
        (folder / f"{room}.rst").write_text("\n".join(parts), encoding="utf-8")
    listed = "".join(f"   {room}\n" for room in ROOMS)
    (folder / "index.rst").write_text(
        f"{heading('The library', '=')}\n.. toctree::\n\n{listed}", encoding="utf-8")


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


# What the pages load

def bring_mathjax(folder: Path) -> None:
    """MathJax's script and fonts, from the registry that npm is set to."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing, which brings MathJax: install Node.js, then build again.")
    with tempfile.TemporaryDirectory() as packed:
        command = [npm, "pack", MATHJAX, "--prefer-offline", "--pack-destination", packed]
        done = subprocess.run(command, cwd=packed, capture_output=True, check=False)
        found = list(Path(packed).glob("*.tgz"))
        if done.returncode or not found:
            raise SystemExit(f"npm brought no {MATHJAX}: look whether you are online, then build "
                             f"again. `npm pack {MATHJAX}` says what is wrong.")
        unpack(found[0], folder)


def unpack(path: Path, folder: Path) -> None:
    with tarfile.open(path) as packed:
        for member in packed:
            name = member.name.removeprefix("package/")
            if member.isfile() and name.startswith(MATHJAX_FILES):
                target = folder / name.removeprefix("es5/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.extractfile(member).read())


# The site

def make_room(site: Path) -> None:
    """Remove an earlier site. Raises SystemExit where the folder holds something else."""
    if site.exists() and any(site.iterdir()) and not (site / "objects.inv").exists():
        raise SystemExit(f"{site} holds files that are no site: name another folder.")
    shutil.rmtree(site, ignore_errors=True)
    site.parent.mkdir(parents=True, exist_ok=True)


def build(site: Path) -> None:
    make_room(site)
    with tempfile.TemporaryDirectory() as work:  # myst-nb writes beside the pages, too
        source, pages = Path(work) / "source", Path(work) / "pages"
        source.mkdir()
        lay_out(source)
        bring_mathjax(pages / "_static" / "mathjax")
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", ROOT / "docs",
                   "-d", Path(work) / "doctrees", source, pages]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("Sphinx did not finish the site; what it says stands above.")
        if STUDENT.exists():
            shutil.copytree(STUDENT, pages / "_static" / "page")
        (pages / ".nojekyll").touch()  # GitHub Pages would leave out folders like _static
        shutil.move(pages, site)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE)
    print("The site is ready: open index.html in it, or serve the folder.")
