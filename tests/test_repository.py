"""The repository: dependencies, order of the rooms, house figures, lessons, a clone's size."""
import ast
import copy
import graphlib
import re
import shutil
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

import install_torch
import nbformat
import notebooks
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dmdkit"
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
EDITIONS = [*LESSONS, *SOLUTIONS]
lessons = pytest.mark.parametrize("path", EDITIONS, ids=lambda path: "-".join(path.parts[-2:]))

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# Dependencies

def requirements(lines) -> dict[str, Requirement]:
    return {Requirement(line).name.lower(): Requirement(line) for line in lines}


def all_requirements() -> list[str]:
    project = PROJECT["project"]
    return [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]


def test_conda_and_pip_install_the_same_packages():
    """environment.yml's pip section is the package; what conda brings must be in its range."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    sections = [entry for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert [section["pip"] for section in sections] == [["-e .[lab,test]"]]
    python = PROJECT["project"]["requires-python"]
    ranges = requirements([*all_requirements(), f"python{python}"])
    beside = requirements(entry for entry in conda["dependencies"] if isinstance(entry, str))
    assert {"python", "pip"} <= set(beside)
    for name, wanted in beside.items():
        if name != "pip":
            assert name in ranges, f"environment.yml asks for {name}; pyproject.toml does not"
            assert wanted.specifier == ranges[name].specifier, f"{name}: two ranges"


def test_dependencies_are_ranges_with_a_lower_end_and_no_pin():
    for name, wanted in requirements(all_requirements()).items():
        operators = {part.operator for part in wanted.specifier}
        assert ">=" in operators, f"{name} has no lower end"
        assert not operators & {"==", "==="}, f"{name} is pinned"


def modules_imported(path: Path) -> set[str]:
    """The top names of what a file imports from outside the package."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - {"dmdkit"} - set(sys.stdlib_module_names)


def test_what_the_library_imports_is_what_it_depends_on():
    declared = {name.replace("-", "_") for name in requirements(PROJECT["project"]["dependencies"])}
    # pillow's name; what torch and matplotlib, ipywidgets, diffusers bring
    allowed = declared | {"PIL", "numpy", "IPython", "huggingface_hub"}
    for path in PACKAGE.rglob("*.py"):
        assert modules_imported(path) <= allowed, f"{path.name}: {modules_imported(path) - allowed}"


# What a user of pip gets

@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """The names of the files in a wheel that is built from the files of the clone."""
    clone, folder = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for path in files_of_the_clone():
        if path.suffix in (".py", ".js", ".css", ".mplstyle", ".toml", ".md"):
            copy = clone / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_a_wheel_holds_every_file_of_the_library(wheel):
    wanted = {path.relative_to(ROOT).as_posix() for path in files_of_the_clone()
              if PACKAGE in path.parents}
    packed = {name for name in wheel if ".dist-info/" not in name}
    assert packed == wanted


# The order of the rooms

ROWS = ("ground", "methods", "tasks", "experiments", "show", "check", "commands", "__main__")
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path
         for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}


def row(module: str) -> int:
    """The row of a module: its folder's; `ground` for a file at the top that is no row itself."""
    parts = module.split(".")
    folder = parts[1] if len(parts) > 2 or parts[1] in ROWS else "ground"
    assert folder in ROWS, f"dmdkit/{folder} is no room of the house: give it a row in this test"
    return ROWS.index(folder)


def neighbours(module: str, path: Path) -> set[str]:
    """The files of dmdkit that a file of dmdkit imports, inside functions too."""
    found = set()
    for node in ast.walk(tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[:-node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        found |= set(names) & set(FILES)
    return found


def test_a_file_imports_only_from_rows_above_it():
    for module, path in FILES.items():
        for other in neighbours(module, path):
            assert row(other) <= row(module), f"{module} imports {other}, which stands below it"


def test_the_files_of_a_row_can_be_read_one_after_the_other():
    """No two files need each other: every row has a reading order."""
    graph = {module: neighbours(module, path) for module, path in FILES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def test_every_folder_of_the_library_is_a_package():
    for path in PACKAGE.rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), f"{path.parent.name} has no __init__.py"


HEAVY = ("diffusers", "matplotlib", "torchvision", "lpips", "torchmetrics", "IPython", "scipy")


def test_the_store_and_the_list_import_no_more_than_they_need():
    """diffusers is imported when a network is built, matplotlib when something is drawn."""
    code = f"""
import runpy, sys
heavy = lambda: sorted(set({HEAVY}) & set(sys.modules))
import torch
import dmdkit.store
assert not heavy(), f"import dmdkit.store imports {{heavy()}}"
sys.argv = ["dmdkit", "list"]
try:
    runpy.run_module("dmdkit", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop
assert not heavy(), f"python -m dmdkit list imports {{heavy()}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-600:]


# House figures

def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def functions() -> list[tuple[str, ast.FunctionDef]]:
    return [(f"{module}.{node.name}", node) for module, path in FILES.items()
            for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def code(node: ast.AST, lines: list[str]) -> int:
    """The lines of a definition or a file, without blank ones, comments and docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    said = [inner.body[0] for inner in ast.walk(node)
            if isinstance(inner, documented) and ast.get_docstring(inner) is not None]
    docstrings = {number for one in said for number in range(one.lineno, one.end_lineno + 1)}
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(lines))
    return sum(bool(lines[number - 1].strip()) and not lines[number - 1].strip().startswith("#")
               for number in range(first, last + 1) if number not in docstrings)


def test_functions_are_short():
    lengths = {name: code(node, lines_of(FILES[name.rpartition(".")[0]]))
               for name, node in functions()}
    ordered = sorted(lengths.values())
    longest = max(lengths, key=lengths.get)
    assert lengths[longest] <= 40, f"{longest} has {lengths[longest]} lines"
    assert statistics.median(ordered) <= 6
    assert ordered[int(0.9 * len(ordered))] <= 16


def test_functions_take_few_parameters():
    for name, node in functions():
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = [argument.arg for argument in every if argument.arg not in ("self", "cls")]
        assert len(named) <= 8, f"{name} takes {len(named)} parameters: {', '.join(named)}"


def test_modules_and_tasks_are_short():
    for path in PACKAGE.rglob("*.py"):
        most = 60 if path.parent.name == "tasks" and path.name != "task.py" else 250
        count = len(lines_of(path)) if most == 250 else code(tree(path), lines_of(path))
        assert count <= most, f"{path.relative_to(ROOT)} has {count} lines; at most {most}"


def test_a_name_stands_where_a_lambda_could():
    found = [f"{module}:{node.lineno}" for module, path in FILES.items()
             if ROWS[row(module)] != "check"
             for node in ast.walk(tree(path)) if isinstance(node, ast.Lambda)]
    assert len(found) <= 10, f"{len(found)} lambdas: {', '.join(found)}"


def test_few_lines_of_the_library_are_long():
    lengths = [len(line) for path in PACKAGE.rglob("*.py") for line in lines_of(path)]
    assert sum(count > 100 for count in lengths) <= 0.02 * len(lengths)


def test_lines_of_code_fit_a_screen():
    for path in files_of_the_clone():
        if path.suffix == ".py":
            for number, line in enumerate(lines_of(path), 1):
                assert len(line) <= 120, f"{path.relative_to(ROOT)}:{number} has {len(line)}"


OUR_OWN = ("files",)  # files.read_text reads UTF-8


def says_its_encoding(call: ast.Call) -> bool:
    """Whether a call opens no text, or names the text's encoding."""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    name = call.func.id if isinstance(call.func, ast.Name) else method
    keywords = {keyword.arg for keyword in call.keywords}
    if name not in ("open", "read_text", "write_text") or "encoding" in keywords:
        return True
    if name == "read_text" and isinstance(call.func, ast.Attribute):
        owner = call.func.value
        return bool(call.args) or (isinstance(owner, ast.Name) and owner.id in OUR_OWN)
    if name == "write_text":
        return not method
    return name == "read_text" or opens_bytes(call, method)


def opens_bytes(call: ast.Call, method: str) -> bool:
    """Whether an ``open`` reads or writes bytes; other classes' ``open`` without a mode passes."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    constants = [str(node.value) for node in given if isinstance(node, ast.Constant)]
    modes = [text for text in constants if re.fullmatch("[rwax+bt]{1,3}", text)]
    return "b" in modes[0] if modes else bool(method)


@pytest.mark.parametrize("code, says", [
    ("path.read_text()", False), ("path.read_text(encoding='utf-8')", True),
    ("path.read_text('utf-8')", True), ("files.read_text(path)", True),
    ("path.write_text(text)", False), ("path.write_text(text, encoding='utf-8')", True),
    ("open(path)", False), ("open(path, 'w')", False), ("open(path, mode='w')", False),
    ("path.open('a')", False), ("open(path, 'a', encoding='utf-8')", True),
    ("open(path, 'rb')", True), ("gzip.open(path)", True), ("Image.open(path)", True)])
def test_a_call_that_leaves_the_encoding_to_the_system_is_found(code, says):
    assert says_its_encoding(ast.parse(code).body[0].value) is says


def test_every_text_file_is_opened_with_its_encoding():
    for path in files_of_the_clone():
        if path.suffix == ".py":
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Call) and not says_its_encoding(node):
                    pytest.fail(f"{path.relative_to(ROOT)}:{node.lineno} names no encoding")


# Lessons

def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_the_lessons_are_those_that_the_tool_knows():
    assert tuple(path.stem for path in LESSONS) == notebooks.NAMES
    with_exercises = [path.stem for path in LESSONS if "ex_" in path.read_text(encoding="utf-8")]
    assert [path.stem for path in SOLUTIONS] == with_exercises


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_both_editions_of_a_lesson_are_one(path, tmp_path):
    """What learners open is what the tool makes of the solutions and the stored pictures."""
    copies = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", copies)
    notebooks.write(notebooks.solved(copies / path.name), copies / path.name)
    for edition in (path, notebooks.source(path)):
        made = copies / edition.relative_to(ROOT / "notebooks")
        assert made.read_bytes() == edition.read_bytes()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_learners_see_no_answer_unasked(path):
    text = path.read_text(encoding="utf-8")
    assert "SOLUTION" not in text
    for cell in code_cells(path):
        assert not ("nbgrader" in cell.metadata and cell.outputs), cell.id
    hidden = [cell for cell in code_cells(path) if cell.metadata.get("collapsed")]
    predicts = len(re.findall(r"^\W*\*\*Predict\b", "\n\n".join(
        cell.source for cell in nbformat.read(path, 4).cells), re.MULTILINE))
    assert 0.8 * predicts <= len(hidden) <= predicts


def test_every_way_to_install_makes_the_players_run():
    """`make lab` trusts the lessons; Windows, conda and other environments are told to."""
    guide = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").replace("\\", "/")
    assert "docs/install.md" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert guide.count("python tools/notebooks.py trust") >= 3
    assert "TORCH_INDEX" in guide


@lessons
def test_a_lesson_is_a_valid_notebook_of_version_45(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert path.stat().st_size < 2_000_000


@lessons
def test_opening_and_saving_a_lesson_changes_nothing(path):
    """Metadata, outputs and layout are what JupyterLab and its server would write."""
    notebook = nbformat.read(path, 4)
    assert notebook.metadata.kernelspec == notebooks.KERNELSPEC
    version = notebook.metadata.language_info.version
    assert re.fullmatch(r"3\.\d+\.\d+", version)
    assert notebook.metadata.language_info == notebooks.language_info(version)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not any("execution" in cell.metadata for cell in notebook.cells)
    assert path.read_bytes() == (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


@lessons
def test_a_lesson_holds_no_progress_bar_that_stands_still(path):
    for cell in code_cells(path):
        outputs = copy.deepcopy(cell.outputs)
        assert notebooks.tidy(outputs) == cell.outputs, f"cell {cell.id}"


@lessons
def test_a_lesson_was_run_from_top_to_bottom_without_an_error(path):
    cells = [cell for cell in code_cells(path) if cell.source.strip()]
    counts = {cell.execution_count: n for n, cell in enumerate(cells, 1)}
    counts.pop(None, None)  # blank exercises
    assert all(count == n for count, n in counts.items())
    assert path in LESSONS or len(counts) == len(cells)
    assert any(cell.outputs for cell in cells)
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {cell.id} ended in {output.get('ename')}"


@lessons
def test_a_lesson_names_no_path_of_the_machine_that_ran_it(path):
    text = path.read_text(encoding="utf-8")
    folders = "work|home|root|tmp|Users|mnt|opt|venv"
    found = re.search(rf"(?<![\w.:/-])/(?:{folders})/|\b[A-Z]:\\\\\w", text)
    assert not found, f"…{text[max(found.start() - 60, 0):found.end() + 40]}…"


@lessons
def test_a_lesson_carries_the_shared_cells_as_the_tool_stamps_them(path):
    notebook, address = nbformat.read(path, 4), notebooks.repository()
    setup = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in setup] == [notebooks.SETUP.format(repository=address)]
    assert setup[0].metadata == notebooks.SETUP_METADATA
    head = notebook.cells[0].source
    assert head.startswith("# ") and head.count(notebooks.BADGES) == 1
    between = head.split(notebooks.BADGES)[1].split(notebooks.BADGES_END)[0].strip()
    assert between == notebooks.badge_row(path.stem, address)


@lessons
def test_an_exercise_is_marked_for_nbgrader(path):
    cells = [(cell, cell.metadata.nbgrader) for cell in code_cells(path)
             if "nbgrader" in cell.metadata]
    ids = [mark.grade_id for _, mark in cells]
    assert len(set(ids)) == len(ids)
    for cell, mark in cells:
        assert mark.schema_version == 3 and mark.grade != mark.solution and not mark.task
        if mark.solution:
            begin, end = (cell.source.count(f"### {word} SOLUTION") for word in ("BEGIN", "END"))
            assert begin == end == (path in SOLUTIONS), mark.grade_id
        else:
            assert mark.points > 0 and mark.locked and "check.ex_" in cell.source, mark.grade_id
    for cell in code_cells(path):
        if "### BEGIN SOLUTION" in cell.source or re.search(r"^check\.ex_", cell.source, re.M):
            assert "nbgrader" in cell.metadata, f"cell {cell.id} lacks nbgrader's metadata"
    graded = [mark.grade for _, mark in cells]
    assert graded == [False, True] * (len(cells) // 2)  # each exercise is followed by its check


@pytest.mark.parametrize("path", [*EDITIONS, ROOT / "README.md"], ids=lambda path: "-".join(path.parts[-2:]))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    targets += re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
    for target in targets:
        if not re.match(r"https?:|mailto:|#|attachment:|data:", target):
            there = path.parent / target.split("#")[0]
            assert there.exists(), f"{path.name} links to {target}, which is not there"


# What a clone holds

def git(*arguments: str, given: bytes = b"") -> bytes:
    """What git says of the clone; skips the test where there is no clone or no git."""
    command = ["git", "-c", f"safe.directory={ROOT}", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git clone")
    return done.stdout


def files_of_the_clone() -> list[Path]:
    """Tracked files, and those that are about to be."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = [ROOT / name for name in listed.decode("utf-8").split("\0") if name]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def test_line_ends_are_never_converted():
    """Else a clone on Windows would hold other bytes than the checksums say."""
    names = b"\0".join(str(path.relative_to(ROOT)).encode() for path in files_of_the_clone())
    told = git("check-attr", "-z", "--stdin", "text", given=names + b"\0").split(b"\0")
    assert set(told[2::3]) == {b"unset"}


def test_a_clone_with_its_history_stays_under_150_megabytes():
    history = len(git("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q",
                      given=b"HEAD\n"))  # what `git clone` would fetch
    files = sum(path.stat().st_size for path in files_of_the_clone())
    sizes = f"history {history / 1e6:.0f} MB, files {files / 1e6:.0f} MB"
    assert history + files < 150e6, sizes


def test_no_file_names_the_machine_it_was_written_on_or_a_private_package_index():
    public = re.escape(install_torch.CPU_BUILDS.rpartition("/")[0])
    index = rf"index[-_]url[\"',=\s]+(?=\w+:|/)(?!{public})"
    parts = [["/wo", "rk/"], ["trusted[-_]", "host"], ["file:", "///"], ["/opt/", "pypi"]]
    # In parts, so that this file does not name them itself.
    here = re.compile("|".join([index, *map("".join, parts)]))
    assert here.search("pip install --index-url " + "https://example.com/simple")
    for path in files_of_the_clone():
        content = path.read_bytes()
        if b"\0" not in content[:8000]:
            found = here.search(content.decode("utf-8"))
            assert not found, f"{path.relative_to(ROOT)} contains {found.group()!r}"
