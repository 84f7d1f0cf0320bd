"""The repository itself: one dependency list, lessons in the state that the course promises, floors, size."""
import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def load_tool(name: str):
    """tools/name.py as a module: the folder is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool("notebooks")
PROJECT = TOOL.tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# Dependencies

def requirements(lines) -> dict[str, Requirement]:
    return {Requirement(line).name.lower(): Requirement(line) for line in lines}


def test_conda_and_pip_install_the_same_packages():
    """The pip section of environment.yml is the package itself; what conda brings besides must be in its range."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    sections = [entry for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert [section["pip"] for section in sections] == [["-e .[lab,test]"]]
    project = PROJECT["project"]
    ranges = requirements([*project["dependencies"], *sum(project["optional-dependencies"].values(), []),
                           f"python{project['requires-python']}"])
    beside = requirements(entry for entry in conda["dependencies"] if isinstance(entry, str))
    assert {"python", "pip"} <= set(beside)
    for name, wanted in beside.items():
        if name != "pip":
            assert name in ranges, f"environment.yml asks for {name}, which pyproject.toml does not know"
            assert wanted.specifier == ranges[name].specifier, f"{name}: two ranges"


def test_dependencies_are_ranges_with_a_floor_and_no_pin():
    project = PROJECT["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for name, wanted in requirements(lines).items():
        operators = {part.operator for part in wanted.specifier}
        assert ">=" in operators and not operators & {"==", "==="}, f"{name} is pinned or has no floor"


def test_what_the_library_imports_is_what_it_depends_on():
    declared = {name.replace("-", "_") for name in requirements(PROJECT["project"]["dependencies"])}
    declared |= {"PIL"} if "pillow" in declared else set()
    indirect = {"numpy"}  # torch, torchvision and matplotlib all bring it
    for path in sorted((ROOT / "dmdkit").rglob("*.py")):
        outside = {name for name, level in imported(path) if level == 0} - set(sys.stdlib_module_names)
        assert outside <= declared | indirect | {"dmdkit"}, f"{path.name} imports {outside - declared - indirect}"


# The library's floors: a file imports only from floors below its own

FLOORS = {0: ["__init__", "files", "page"],
          1: ["schedule", "data", "nets"],
          2: ["denoiser"],
          3: ["sample", "metrics", "plots", "widgets"],
          4: ["score", "train", "check", "fields", "pairs"],
          5: ["classify", "cost", "dmd", "progressive", "plots_2d", "plots_dmd", "plots_mnist", "plots_progressive"],
          6: ["store", "dmd2", "dmd_2d", "plots_dmd2"],
          7: ["explorer", "evaluation", "perceptual"],
          8: ["dmd_mnist"],
          9: ["dmd2_mnist", "progressive_mnist"],
          10: ["recipes"],
          11: ["__main__"]}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}


def imported(path: Path) -> set[tuple[str, int]]:
    """What a file imports, as (top name, level): ("torch", 0), ("schedule", 1) for `from .schedule import at`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name.split(".")[0], 0) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {(name.split(".")[0], node.level) for name in names}
    return found


def test_each_file_imports_only_from_floors_below():
    for path in sorted((ROOT / "dmdkit").rglob("*.py")):
        parts = path.relative_to(ROOT / "dmdkit").with_suffix("").parts
        assert parts[0] in FLOOR, f"dmdkit/{'/'.join(parts)}.py stands on no floor: give it one in this test"
        for name, level in imported(path):
            if level == len(parts):  # from dmdkit itself; fewer dots stay inside dmdkit/check
                assert FLOOR[name] < FLOOR[parts[0]], f"{'/'.join(parts)} (floor {FLOOR[parts[0]]}) imports {name}"


# Lessons

def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_there_are_lessons():
    assert {"00_start_here", "01_ddpm"} <= {path.stem for path in LESSONS}


@lessons
def test_a_lesson_is_a_valid_notebook_of_version_45(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert path.stat().st_size < 2_000_000


@lessons
def test_a_lesson_was_run_from_top_to_bottom_without_an_error(path):
    cells = [cell for cell in code_cells(path) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {cell.id} ended in {output.get('ename')}"


@lessons
def test_a_lesson_names_no_path_of_the_machine_that_ran_it(path):
    text = path.read_text(encoding="utf-8")
    found = re.search(r"(?<![\w.:/-])/(?:work|home|root|tmp|Users|mnt|opt|venv)/|\b[A-Z]:\\\\\w", text)
    assert not found, f"…{text[max(found.start() - 60, 0):found.end() + 40]}…"


@lessons
def test_a_lesson_carries_the_shared_cells_as_the_tool_stamps_them(path):
    notebook, address = nbformat.read(path, 4), TOOL.repository()
    setup = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in setup] == [TOOL.SETUP.format(repository=address)]
    head = notebook.cells[0].source
    assert head.startswith("# ") and head.count(TOOL.BADGES) == 1
    between = head.split(TOOL.BADGES)[1].split(TOOL.BADGES_END)[0].strip()
    assert between == TOOL.badge_row(path.stem, address)


@lessons
def test_the_setup_cell_does_nothing_outside_colab(path):
    setup, = [cell for cell in code_cells(path) if "setup" in cell.metadata.get("tags", [])]
    code = f"import subprocess\nsubprocess.run = None\n{setup.source}\n{setup.source}"  # twice: it is safe to rerun
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@lessons
def test_an_exercise_is_marked_for_nbgrader(path):
    cells = [(cell, cell.metadata.nbgrader) for cell in code_cells(path) if "nbgrader" in cell.metadata]
    ids = [mark.grade_id for _, mark in cells]
    assert len(set(ids)) == len(ids)
    for cell, mark in cells:
        assert mark.schema_version == 3 and mark.grade != mark.solution and not mark.task
        if mark.solution:
            assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") == 1, mark.grade_id
        else:
            assert mark.points > 0 and mark.locked and "check.ex_" in cell.source, mark.grade_id
    for cell in code_cells(path):
        if "### BEGIN SOLUTION" in cell.source or re.search(r"^check\.ex_", cell.source, re.M):
            assert "nbgrader" in cell.metadata, f"cell {cell.id} is an exercise without nbgrader's metadata"
    graded = [mark.grade for _, mark in cells]
    assert graded == [False, True] * (len(cells) // 2)  # each exercise is followed by its check


@pytest.mark.parametrize("path", [*LESSONS, ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
    for target in targets:
        if not re.match(r"https?:|mailto:|#|attachment:|data:", target):
            assert (path.parent / target.split("#")[0]).exists(), f"{path.name} links to {target}, which is not there"


# What a clone holds

def files_of_the_clone() -> list[Path]:
    """Tracked files, and those that are about to be."""
    try:
        listed = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others",
                                 "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git clone")
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_a_clone_stays_under_150_megabytes():
    assert sum(path.stat().st_size for path in files_of_the_clone()) < 150e6


def test_no_file_names_the_machine_it_was_written_on_or_a_private_package_index():
    parts = ["/wo", "rk/"], ["index[-_]", "url"], ["trusted[-_]", "host"], ["file:", "///"], ["/opt/", "pypi"]
    here = re.compile("|".join(map("".join, parts)))  # in parts, so that this file does not name them itself
    for path in files_of_the_clone():
        content = path.read_bytes()
        if b"\0" not in content[:8000]:
            found = here.search(content.decode("utf-8"))
            assert not found, f"{path.relative_to(ROOT)} contains {found.group()!r}"


def test_lines_of_code_fit_a_screen():
    for path in files_of_the_clone():
        if path.suffix == ".py":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert len(line) <= 120, f"{path.relative_to(ROOT)}:{number} has {len(line)} characters"
