"""What installs the kit and keeps its lessons: PyTorch's build, trust, shared cells, Colab."""
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import gpu_report
import install_torch
import nbformat
import notebooks
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = pytest.mark.skipif(os.name == "nt", reason="needs shell scripts as stand-ins")


def program(folder: Path, name: str, script: str) -> None:
    """An executable ``name`` in ``folder`` that runs ``script``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


# PyTorch's build

@PROGRAMS
@pytest.mark.parametrize("script, there", [
    ("echo 'GPU 0: NVIDIA T4 (UUID: GPU-1)'", True), ("echo 'No devices were found'", False),
    ("echo GPU; exit 9", False), (None, False)])
def test_a_gpu_is_one_that_the_driver_lists(tmp_path, monkeypatch, script, there):
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        program(tmp_path, "nvidia-smi", script)
    assert install_torch.has_nvidia_gpu() is there


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """On Linux without a GPU and without PyTorch: the indexes from which pip was to install."""
    indexes = []
    monkeypatch.setattr(install_torch.sys, "platform", "linux")
    monkeypatch.setattr(install_torch, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(install_torch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(install_torch, "unreachable", lambda index: "")
    monkeypatch.setattr(install_torch, "install", lambda index: indexes.append(index) or True)
    return indexes


def one_line(capsys) -> str:
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    return printed


def test_linux_without_a_gpu_takes_the_builds_without_cuda(asked, capsys):
    install_torch.main()
    assert asked == [install_torch.CPU_BUILDS] and "without CUDA" in one_line(capsys)


@pytest.mark.parametrize("name, value", [
    ("has_nvidia_gpu", lambda: True), ("unreachable", lambda index: "timed out")])
def test_a_gpu_or_no_way_to_the_index_means_pypi(asked, capsys, monkeypatch, name, value):
    monkeypatch.setattr(install_torch, name, value)
    install_torch.main("auto")
    assert not asked and "PyPI" in one_line(capsys)


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_take_pypi(asked, capsys, monkeypatch, system):
    monkeypatch.setattr(install_torch.sys, "platform", system)
    install_torch.main("auto")
    assert not asked and "PyPI" in one_line(capsys)


def test_an_index_without_a_build_for_this_python_means_pypi(asked, capsys, monkeypatch):
    monkeypatch.setattr(install_torch, "install", lambda index: False)
    install_torch.main("auto")
    assert "no build there" in one_line(capsys)


def test_a_named_index_is_taken_or_refused_in_a_sentence(asked, monkeypatch):
    install_torch.main("some/folder")
    install_torch.main("pypi")
    assert asked == ["some/folder"]
    monkeypatch.setattr(install_torch, "install", lambda index: False)
    with pytest.raises(SystemExit, match="TORCH_INDEX=some/folder.*auto"):
        install_torch.main("some/folder")


def test_a_pytorch_that_is_there_stays(asked, capsys, monkeypatch):
    monkeypatch.setattr(install_torch.importlib.util, "find_spec", lambda name: name)
    install_torch.main("some/folder")
    assert not asked and "stays" in one_line(capsys)


def stub_wheel(folder: Path, name: str, version: str) -> None:
    """A package index's page and wheel for a package that holds nothing but its version."""
    page, info = folder / name, f"{name}-{version}.dist-info"
    page.mkdir(parents=True)
    wheel = f"{name}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(page / wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    link = f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>'
    (page / "index.html").write_text(link, encoding="utf-8")


@contextmanager
def served(folder: Path):
    """The address of a server of ``folder`` on this machine."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pip_really_installs_both_from_an_index(tmp_path):
    """The whole way, with pip, from a server on this machine that holds two empty packages."""
    for name, version in (("torch", "9.9.0+cpu"), ("torchvision", "0.99.0+cpu")):
        stub_wheel(tmp_path / "index", name, version)
    code = ("import sys, install_torch; sys.platform = 'linux'; "
            "install_torch.has_nvidia_gpu = bool; install_torch.CPU_BUILDS = sys.argv[1]; "
            "print(install_torch.cpu_builds_if_possible())")
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_TARGET": str(tmp_path / "site"),
                "PIP_NO_CACHE_DIR": "1", "PYTHONPATH": str(ROOT / "tools")}
    own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    with served(tmp_path / "index") as address:
        done = subprocess.run([sys.executable, "-c", code, address], env=own | settings,
                              capture_output=True, cwd=tmp_path)
    assert b"is installed without CUDA" in done.stdout, done.stderr[-800:]
    versions = {path.parent.name: path.read_text(encoding="utf-8")
                for path in (tmp_path / "site").glob("*/__init__.py")}
    assert versions == {"torch": "__version__ = '9.9.0+cpu'\n",
                        "torchvision": "__version__ = '0.99.0+cpu'\n"}


def test_an_index_is_given_up_after_two_short_attempts(monkeypatch):
    monkeypatch.setattr(install_torch, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "timed out" in install_torch.unreachable(address)
        silent.settimeout(5)
        assert [silent.accept()[0].close() for _ in range(2)] == [None, None]
        silent.settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent.accept()
    assert "refused" in install_torch.unreachable(address).lower()


# The Makefile

def dry_run(*arguments: str) -> str:
    """What `make` would run, in a folder where nothing is built."""
    if not shutil.which("make"):
        pytest.skip("there is no make here")
    command = ["make", "--dry-run", "--always-make", "-f", str(ROOT / "Makefile"), *arguments]
    # what `make test` hands on to a make beneath it: -w, the level that it prints, and EXTRAS
    handed = ("MAKE", "MFLAGS", "EXTRAS")
    alone = {key: value for key, value in os.environ.items() if not key.startswith(handed)}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, check=True)
    return done.stdout.decode("utf-8")


def test_make_lab_takes_pytorch_first_and_trusts_no_pattern():
    steps = dry_run("lab", "TORCH_INDEX=some/folder")
    assert steps.index('install_torch.py "some/folder"') < steps.index('-e ".[lab,test]"')
    assert "notebooks.py trust" in steps and "*" not in steps
    assert 'install_torch.py "auto"' in dry_run("test")


def test_make_clean_leaves_trainings_alone():
    assert dry_run("clean").strip() == "rm -rf .venv"


# Trust

def test_only_the_lessons_are_trusted(tmp_path, monkeypatch, capsys):
    from nbformat.sign import NotebookNotary

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    notebooks.main("trust")
    notary = NotebookNotary()
    kept = [nbformat.read(path, 4) for path in notebooks.LESSONS]
    assert all(notary.check_signature(notebook) for notebook in kept)
    stranger = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    assert not notary.check_signature(stranger)
    kept[0].cells[0].source += " changed"
    assert not notary.check_signature(kept[0])
    assert str(len(notebooks.NAMES)) in capsys.readouterr().out
    notebooks.trust((notebooks.LESSONS[0], tmp_path / "of_another_course.ipynb"))
    assert "1 lessons are trusted" in capsys.readouterr().out


# Stamping and running

@pytest.fixture
def draft(tmp_path) -> Path:
    """A lesson as an author writes it: no shared cells yet, and what an editor leaves behind."""
    head = nbformat.v4.new_markdown_cell("# Title\n<!-- badges -->\n<!-- /badges -->\nText.")
    setup = nbformat.v4.new_code_cell("", metadata={"tags": ["setup"]})
    work = nbformat.v4.new_code_cell("""\
import os, sys
from tqdm import tqdm
for i in tqdm(range(3)):
    pass
print("fast", os.environ.get("DMDKIT_FAST"), file=sys.stderr)
__import__("ipywidgets").IntSlider()""", metadata={"execution": {"shell.execute_reply": "2026"}})
    notebook = nbformat.v4.new_notebook(cells=[head, setup, work])
    notebook.metadata["widgets"] = {"state": {}}
    path = tmp_path / "draft.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_stamped_lesson_has_shared_cells_and_metadata(draft):
    notebooks.stamp(draft, "https://github.com/some/kit")
    once = draft.read_bytes()
    notebooks.stamp(draft, "https://github.com/some/kit")
    assert draft.read_bytes() == once
    notebook = nbformat.read(draft, 4)
    assert "some/kit/blob/main/notebooks/draft.ipynb" in notebook.cells[0].source
    assert notebook.cells[0].source.endswith("\nText.")
    assert 'REPOSITORY, CLONE = "https://github.com/some/kit"' in notebook.cells[1].source
    assert notebook.cells[1].metadata.jupyter == {"source_hidden": True}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not any("execution" in cell.metadata for cell in notebook.cells)


def test_the_setup_cell_fits_the_page():
    lines = notebooks.SETUP.splitlines()
    assert len(lines) <= 16 and max(map(len, lines)) <= 90


def test_a_lesson_without_a_place_for_the_shared_cells_is_refused(draft):
    notebook = nbformat.read(draft, 4)
    del notebook.cells[1]
    nbformat.write(notebook, draft)
    before = draft.read_bytes()
    with pytest.raises(SystemExit, match="draft.ipynb must have .* it has 0"):
        notebooks.stamp(draft, "")
    assert draft.read_bytes() == before


def test_a_name_that_is_no_lesson_is_refused():
    with pytest.raises(SystemExit, match="There is no lesson 99_strange; there are 00_start_here"):
        notebooks.main("run", "99_strange")


def test_a_run_has_the_full_budget_and_leaves_no_bar(draft, monkeypatch):
    monkeypatch.setenv("DMDKIT_FAST", "1")
    notebooks.run(draft)
    notebook = nbformat.read(draft, 4)
    stream, slider = notebook.cells[2].outputs
    assert stream.text == "fast None\n"
    assert notebooks.WIDGET in slider.data
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    version = ".".join(map(str, sys.version_info[:3]))
    assert notebook.metadata.language_info == notebooks.language_info(version)


def stream(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stderr", text=text)


@pytest.mark.parametrize("text, left", [
    ("\r  0%|          | 0/2000 [00:00<?, ?it/s]\r 34%|███▍  | 680/2000 [00:01<00:02]", None),
    ("ring:   0%|          | 0/2.00k [00:00<?, ?step/s]\n", None),
    ("0it [00:00, ?it/s]\r", None),
    ("Careful.\n\r100%|██████████| 3/3 [00:00<00:00, 9.0it/s]\nDone.\n", "Careful.\nDone.\n"),
    ("\r 50%|█████     | 1/2 [00:00<00:00]\r                    \rDone.\n", "Done.\n"),
    ("40 % | of 3/4\n", "40 % | of 3/4\n"), ("a\r\nb\r\n", "a\nb\n"), ("  \n", "  \n")])
def test_bars_go_and_words_stay(text, left):
    assert [output.text for output in notebooks.tidy([stream(text)])] == ([left] if left else [])


def test_pieces_of_a_stream_are_joined_before_bars_are_looked_for():
    other = nbformat.v4.new_output("stream", name="stdout", text="b\n")
    pieces = [stream("a\n\r 50%|█████  | 1/2 [00:00"), stream("<00:00]"), stream("\n")]
    pieces += [other, stream("0it [00:00, ?it/s]\n"), other.copy(), stream("c\n")]
    assert [output.text for output in notebooks.tidy(pieces)] == ["a\n", "b\nb\n", "c\n"]


def test_a_bar_that_is_a_widget_goes_and_a_slider_stays():
    def shown(text):
        return nbformat.v4.new_output("display_data", {notebooks.WIDGET: {}, "text/plain": text})

    text = "  0%|          | 0/2000 [00:00<?, ?it/s]"
    bar, slider = shown(text), shown("IntSlider(value=0)")
    table = nbformat.v4.new_output("execute_result", {"text/plain": text})
    assert notebooks.tidy([bar, slider, table]) == [slider, table]


# Colab: a real kernel, with stand-ins for google.colab, git and pip

# pip's stand-in builds the editable wheel by setuptools, as pip does, and unpacks it into what
# stands in for site-packages. (In a process of its own: setuptools behaves otherwise inside pip.)
BUILD = """
import os
from setuptools import build_meta
build_meta.build_editable(os.environ["SITE"])
"""
PIP = f"""
import glob, os, subprocess, sys, zipfile
with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
    calls.write("pip " + " ".join(sys.argv[1:]) + "\\n")
subprocess.run([sys.executable, "-c", {BUILD!r}], cwd=sys.argv[-1], check=True, capture_output=True)
wheel, = glob.glob(os.environ["SITE"] + "/*.whl")
zipfile.ZipFile(wheel).extractall(os.environ["SITE"])
"""
# The kit that these tests run in must not be found: neither its folder nor setuptools' finder.
HIDE = """
import os, site, sys
site.addsitedir(os.environ["SITE"])
sys.path[:] = [entry for entry in sys.path if entry != os.environ["KIT"]]
finder = "__editable___dmdkit"
sys.meta_path[:] = [f for f in sys.meta_path if finder not in getattr(f, "__module__", "")]
"""


class Colab:
    """A folder like Colab's /content, and kernels that work in it."""

    def __init__(self, folder: Path):
        self.content, self.site, self.calls = folder / "content", folder / "site", folder / "calls"
        self.content.mkdir()
        self.site.mkdir()
        self.calls.touch()
        stubs, programs = folder / "stubs", folder / "bin"
        for name, text in (("google/colab/__init__.py", ""), ("pip/__init__.py", ""),
                           ("pip/__main__.py", PIP), ("sitecustomize.py", HIDE)):
            (stubs / name).parent.mkdir(parents=True, exist_ok=True)
            (stubs / name).write_text(text, encoding="utf-8")
        program(programs, "git", f'echo "git $*" >> "$CALLS"; cp -r "{folder}/origin" "$5"')
        self.environment = {
            **os.environ, "PYTHONPATH": str(stubs), "SITE": str(self.site),
            "CALLS": str(self.calls), "KIT": str(ROOT),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def kit(self, folder: Path) -> None:
        """A clone of a kit that is one line long, with the settings of the real one."""
        (folder / "dmdkit").mkdir(parents=True)
        (folder / "dmdkit" / "__init__.py").write_text("budget = 'found'\n", encoding="utf-8")
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder)

    def setup(self, address: str = "") -> str:
        """The lessons' setup cell, with this folder for /content."""
        cell = notebooks.SETUP.format(repository=address)
        assert cell.count('"/content/dmdkit"') == 1
        return cell.replace('"/content/dmdkit"', repr(str(self.content / "dmdkit")))

    @contextmanager
    def kernel(self, colab: bool = True):
        """A new kernel in the folder; yields what runs code in it and returns its printed text."""
        where = {"env": self.environment, "cwd": str(self.content)}
        manager, client = start_new_kernel(kernel_name="python3", **where)
        try:
            run = partial(execute, client)
            run("import google.colab" if colab else "")
            yield run
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def execute(client, code: str) -> str:
    """Runs ``code``; raises RuntimeError with the error that the kernel's reader would see."""
    printed = []

    def collect(message):
        printed.append(message["content"].get("text", ""))

    reply = client.execute_interactive(code, timeout=60, output_hook=collect)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    return "".join(printed)


@pytest.fixture
def colab(tmp_path) -> Colab:
    return Colab(tmp_path)


USE = "from dmdkit import budget; print(budget)"


@PROGRAMS
def test_on_colab_an_uploaded_kit_is_installed_and_outlives_a_restart(colab):
    """Notebooks run in the folder above the clone, where the clone itself looks like a package."""
    colab.kit(colab.content / "dmdkit")
    with colab.kernel() as run:
        run("import dmdkit")  # finds the bare folder
        run(colab.setup())
        assert run(USE) == "found\n"
        run(colab.setup())
    with colab.kernel() as run:  # *Restart session*
        assert run(USE) == "found\n"
        run(colab.setup())
    expected = f"pip install -q -e {colab.content / 'dmdkit'}\n"
    assert colab.calls.read_text(encoding="utf-8") == expected


@PROGRAMS
def test_on_colab_a_kit_with_an_address_is_cloned(colab, tmp_path):
    colab.kit(tmp_path / "origin")
    address, clone = "https://example.com/kit", colab.content / "dmdkit"
    with colab.kernel() as run:
        run(colab.setup(address))
        run(colab.setup(address))
        assert run(USE) == "found\n"
    assert colab.calls.read_text(encoding="utf-8").splitlines() == [
        f"git clone -q --depth=1 {address} {clone}", f"pip install -q -e {clone}"]


@PROGRAMS
def test_on_colab_without_kit_and_address_a_sentence_says_what_to_do(colab):
    (colab.content / "dmdkit").mkdir()  # a folder that something else made
    with colab.kernel() as run:
        with pytest.raises(RuntimeError, match="no public address yet.*upload .*unzip.*again"):
            run(colab.setup())
        colab.kit(colab.content / "dmdkit")
        run(colab.setup())
        assert run(USE) == "found\n"


@PROGRAMS
def test_outside_colab_the_setup_cell_does_nothing(colab):
    colab.kit(colab.content / "dmdkit")
    with colab.kernel(colab=False) as run:
        run(colab.setup("https://example.com/kit"))
        run("assert str(CLONE) not in sys.path and 'dmdkit' not in sys.modules")
    assert colab.calls.read_text(encoding="utf-8") == ""


def test_the_kernel_says_of_itself_what_the_lessons_say():
    """Else opening a lesson would change it."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        told = client.kernel_info(reply=True, timeout=60)["content"]["language_info"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert told == notebooks.language_info(told["version"])
    spec = KernelSpecManager().get_kernel_spec("python3")
    assert notebooks.KERNELSPEC == {
        "display_name": spec.display_name, "language": spec.language, "name": "python3"}


# The day that there is a GPU

def test_figures_are_found_among_other_lines_and_what_was_cut_off_is_left_out():
    text = 'Timing a, b on cuda.\n{\n "a": {\n  "step_s": 0.1\n }\n}\n{"b": 2}\n{\n "c": {\n'
    assert gpu_report.json_objects(text) == {"a": {"step_s": 0.1}, "b": 2}


@PROGRAMS
def test_what_takes_too_long_is_stopped_with_all_that_it_started(capsys):
    begun = time.monotonic()
    slow = ["sh", "-c", "echo first; sleep 60 & sleep 60"]
    assert gpu_report.run(slow, 0.3) == ("first\n", False)
    assert time.monotonic() - begun < 20
    assert gpu_report.run(["sh", "-c", "echo well"], 30) == ("well\n", True)


@pytest.fixture
def machine(monkeypatch) -> dict[str, tuple[str, bool]]:
    """What commands print and whether they end well, by a word in them."""
    answers = {"torch.cuda": ('{"torch": "9", "gpu": "H"}\n', True),
               "DMDKIT_GPU=1": ("5 passed in 3s\n", True),
               "pytest": ("FAILED tests/test_a.py::test_b\n1 failed, 20 passed in 9s\n", False),
               "benchmark": ('Timing.\n{"teacher": {"step_s": 0.5}}\nout of memory\n', False)}

    def run(command, seconds):
        assert seconds > 0
        return next(answer for word, answer in answers.items() if word in " ".join(command))

    monkeypatch.setattr(gpu_report, "run", run)
    return answers


def test_a_report_holds_what_was_found_before_something_failed(machine, tmp_path):
    with pytest.raises(SystemExit) as caught:
        gpu_report.main(str(tmp_path / "gpu.json"))
    report = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert caught.value.code == 1 and report["machine"] == {"torch": "9", "gpu": "H"}
    assert report["on the GPU"]["passed"] == 5 and report["on the GPU"]["failures"] == []
    beside = report["beside it"]
    assert beside["failures"] == ["tests/test_a.py::test_b"]
    assert (beside["passed"], beside["failed"]) == (20, 1)
    assert report["recipes"]["found"] == {"teacher": {"step_s": 0.5}}
    assert report["recipes"]["last_lines"][-1] == "out of memory"


def test_a_report_of_a_sound_machine_ends_well(machine, tmp_path):
    machine |= {"pytest": ("20 passed in 9s\n", True), "benchmark": ('{"teacher": {}}\n', True)}
    gpu_report.main(str(tmp_path / "gpu.json"))
    assert (tmp_path / "gpu.json").exists()


def test_a_missing_gpu_or_package_is_told_before_any_work(machine, tmp_path, monkeypatch):
    machine["torch.cuda"] = ('{"torch": "9", "gpu": null}\n', True)
    with pytest.raises(SystemExit, match="no NVIDIA GPU here.*--cpu"):
        gpu_report.main(str(tmp_path / "gpu.json"))
    monkeypatch.setattr(gpu_report, "NEEDED", ("torch", "lpips_of_another_planet"))
    with pytest.raises(SystemExit, match="lacks lpips_of_another_planet: .* WHEELS"):
        gpu_report.main(str(tmp_path / "gpu.json"))
    assert not list(tmp_path.iterdir())


@PROGRAMS
def test_the_gpu_command_unpacks_wheels_and_keeps_what_was_printed(tmp_path):
    program(tmp_path / "bin", "python", 'echo "$@"; echo "$PYTHONPATH"; test "$2" != "-m"')
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "lpips-1-py3-none-any.whl").touch()
    settings = {"PYTHON": "bin/python", "OUT": "out", "WHEELS": "wheels"}
    environment = os.environ | {name: str(tmp_path / path) for name, path in settings.items()}
    done = subprocess.run(["bash", str(ROOT / "tools" / "on_gpu.sh"), "--cpu"],
                          env=environment, cwd=tmp_path, capture_output=True)
    printed = done.stdout.decode("utf-8").splitlines()
    assert done.returncode == 0
    assert "--no-index" in printed[0] and printed[0].endswith("wheels/lpips-1-py3-none-any.whl")
    assert "tools/gpu_report.py" in printed[2] and printed[2].endswith("--cpu")
    assert printed[3].startswith(f"{ROOT}:")
    kept = (tmp_path / "out" / "gpu.txt").read_text(encoding="utf-8")
    assert kept.splitlines() == printed[2:]
