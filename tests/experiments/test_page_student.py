"""The student for a web page: its ONNX graph, and what npm brings to run it."""
import io
import json
import subprocess
import sys
import tarfile
from importlib.util import find_spec

import pytest
import torch
from conftest import refused

from dmdkit import files, store
from dmdkit.experiments import build, page_student

PACKED = {f"dist/{page_student.SCRIPT}": b"script", f"dist/{page_student.WASM}": b"code",
          "package.json": json.dumps({"version": "1.99.0"}).encode()}


needs_onnx = pytest.mark.skipif(find_spec("onnx") is None, reason="there is no onnx")


@needs_onnx
def test_the_graph_draws_what_the_student_draws():
    onnxruntime = pytest.importorskip("onnxruntime", reason="there is no onnxruntime")
    student = store.load(page_student.STUDENT)
    session = onnxruntime.InferenceSession(page_student.export(student),
                                           providers=["CPUExecutionProvider"])
    for label in torch.arange(10).split(page_student.BATCH):
        z = torch.randn(len(label), 1, 28, 28)
        [drawn] = session.run(["x"], {"z": z.numpy(), "label": label.numpy()})
        torch.testing.assert_close(torch.tensor(drawn), student.generate(z, label), rtol=0,
                                   atol=1e-3)


def test_without_onnx_a_sentence_says_so(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with refused(RuntimeError, "the package onnx, which is missing: pip install onnx"):
        page_student.export(tiny)


@needs_onnx
def test_a_pytorch_that_cannot_export_is_told(tiny, monkeypatch):
    def without(*given, **options):
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr(torch.onnx, "export", without)
    with refused(RuntimeError, r"^PyTorch .* cannot export the student \(export\(\) got an unexp"):
        page_student.export(tiny)


# npm

@pytest.fixture
def npm(monkeypatch):
    """Let npm bring a package of these files, by name, or fail with these words."""
    def brings(content: dict[str, bytes] | str) -> None:
        def run(command, cwd, **options):
            if isinstance(content, str):
                return subprocess.CompletedProcess(command, 1, b"", content.encode())
            with tarfile.open(f"{cwd}/onnxruntime-web-1.99.0.tgz", "w:gz") as packed:
                for name, raw in content.items():
                    entry = tarfile.TarInfo(f"package/{name}")
                    entry.size = len(raw)
                    packed.addfile(entry, io.BytesIO(raw))
            return subprocess.CompletedProcess(command, 0, b"", b"")

        monkeypatch.setattr(page_student.shutil, "which", lambda name: f"/bin/{name}")
        monkeypatch.setattr(page_student.subprocess, "run", run)

    return brings


def test_without_npm_a_sentence_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with refused(RuntimeError, "npm is missing, which brings onnxruntime-web: install Node.js"):
        page_student.runtime()


@pytest.mark.parametrize("content, sentence", [
    ("npm error code ENOTFOUND\nnpm error network no such host\n", "no onnxruntime-web.*no such h"),
    ("", "it says nothing"), ({"package.json": b"{}"}, "laid out as dmdkit does not know it: .*ort")])
def test_what_npm_does_not_bring_is_told(npm, content, sentence):
    npm(content)
    with refused(RuntimeError, sentence):
        page_student.runtime()


# The folder

@needs_onnx
def test_the_folder_is_whole_and_up_to_date_until_the_student_is_another(npm, tmp_path):
    npm(PACKED)
    folder = tmp_path / "build" / "page"
    assert page_student.why(folder=folder) == "it is missing"
    page_student.build(folder=folder)
    assert page_student.why(folder=folder) == ""
    assert {path.name for path in folder.iterdir()} == {
        page_student.MODEL, page_student.SCRIPT, page_student.WASM, page_student.LICENCE,
        "card.json"}
    licence = (folder / page_student.LICENCE).read_text(encoding="utf-8")
    assert licence.startswith("onnxruntime-web 1.99.0\n") and "without restriction" in licence
    assert "Microsoft" in licence and "dmdkit" not in licence
    card = files.read_json(folder / "card.json")
    files.write_json(folder / "card.json", card | {"sha256": "0"})
    assert page_student.why(folder=folder) == "student-dmd is another now"
    page_student.build(folder=folder)
    assert page_student.why(folder=folder) == ""


@needs_onnx
def test_a_folder_of_somebody_elses_is_left_alone(npm, tmp_path):
    npm(PACKED)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with refused(RuntimeError, "holds what is no artefact's"):
        page_student.build(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_page_is_built_only_where_it_is_named(monkeypatch):
    monkeypatch.setattr(page_student, "why", lambda root: "it is missing")
    assert "page" not in [target.name for target, _ in build.plan()]
    assert ("page", "it is missing") in [(target.name, why) for target, why in build.plan(["page"])]
