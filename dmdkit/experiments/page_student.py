"""The one-step student as files that a web page can run: an ONNX graph, and onnxruntime-web, whose
WebAssembly runs it. They do not ship: ``python -m dmdkit build page`` makes them, by npm.
"""
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import data, files, folders, store
from ..data import ROOT
from ..denoiser import Denoiser

STUDENT = "student-dmd"
HOME = Path(data.__file__).resolve().parent.parent
FOLDER = HOME / "build" / "page"
MODEL, CARD, LICENCE = "student.onnx", "card.json", "onnxruntime-web.LICENSE"
OPSET = 17                       # of ONNX; onnxruntime-web runs it, and older PyTorch writes it
BATCH = 5                        # images at a time: a page draws two rows at once
PACKAGE = "onnxruntime-web@^1.22"
SCRIPT = "ort.wasm.bundle.min.mjs"       # the smallest: for the CPU alone, 0.07 MB …
WASM = "ort-wasm-simd-threaded.wasm"     # … and its code, 14 MB, that runs on one thread too
PATIENCE = 600                   # seconds for npm


def why(root: Path = ROOT, folder: Path = FOLDER) -> str:
    """Why the page's files are out of date; "" if they are not."""
    if not (folder / CARD).exists():
        return "it is missing"
    if files.read_json(folder / CARD, "sha256")["sha256"] != store.checksum(STUDENT, root):
        return f"{STUDENT} is another now"
    return ""


def build(root: Path = ROOT, folder: Path = FOLDER) -> None:
    """Write the page's files: 17 MB, in seconds. Raises RuntimeError where onnx or npm is missing
    or npm brings nothing, where PyTorch cannot export, and where something of another's is in the
    way."""
    content = {MODEL: export(store.load(STUDENT, root=root)), **runtime()}
    card = {"what": f"{STUDENT} for a web page", "sha256": store.checksum(STUDENT, root)}
    content[CARD] = files.as_json(card).encode("utf-8")
    folders.write(folder, content, {MODEL, SCRIPT, WASM, LICENCE, CARD}, overwrite=True)


# The student

class OneStep(nn.Module):
    """``Denoiser.generate`` as a module's forward pass, which is what is exported."""

    def __init__(self, student: Denoiser):
        super().__init__()
        self.student = student

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.student.generate(z, label)


def export(student: Denoiser) -> bytes:
    """An ONNX graph of the one-step map in float32, for so many images at a time: z (BATCH,
    *sample_shape) and label (BATCH,) int64 → x like z.

    Raises RuntimeError where onnx is missing, and for a PyTorch without this exporter.
    """
    if find_spec("onnx") is None:
        raise RuntimeError("PyTorch exports with the package onnx, which is missing: pip install "
                           "onnx, then build again.")
    given = torch.zeros(BATCH, *student.sample_shape), torch.arange(BATCH)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of checks that a trace leaves out, and of its age
            torch.onnx.export(OneStep(student), given, buffer, opset_version=OPSET, dynamo=False,
                              input_names=["z", "label"], output_names=["x"])
    except TypeError as error:
        raise RuntimeError(f"PyTorch {torch.__version__} cannot export the student ({error}); "
                           "2.5 to 2.14 can.") from None
    return buffer.getvalue()


# What runs it

def runtime() -> dict[str, bytes]:
    """onnxruntime-web's script, code and licence, by name, from the registry that npm is set to.
    Raises RuntimeError where npm is missing or brings nothing."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is missing, which brings onnxruntime-web: install Node.js, then "
                           "build again.")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--prefer-offline", "--pack-destination", folder]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"npm brought no {PACKAGE}: {error}.") from None
        packed = list(Path(folder).glob("*.tgz"))
        if done.returncode or not packed:
            raise RuntimeError(f"npm brought no {PACKAGE}: {_complaint(done.stderr)}. Look whether "
                               "you are online, then build again.")
        return _unpacked(packed[0])


def _complaint(said: bytes) -> str:
    """The line of npm's that tells most: its first that is no code."""
    lines = said.decode("utf-8", "replace").splitlines()
    told = [line.removeprefix("npm error ") for line in lines if line.startswith("npm error ")]
    return next((line for line in told if not line.startswith("code ")), "it says nothing")


def _unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as packed:
        def read(name: str) -> bytes:
            return packed.extractfile(f"package/{name}").read()

        try:
            found = {name: read(f"dist/{name}") for name in (SCRIPT, WASM)}
            return found | {LICENCE: _licence(json.loads(read("package.json"))["version"])}
        except KeyError as error:
            raise RuntimeError(f"{path.name} is laid out as dmdkit does not know it: {error.args[0]}"
                               ".") from None


def _licence(version: str) -> bytes:
    """The licence of onnxruntime-web, MIT, whose text its package leaves out; the kit has the
    same."""
    own = files.read_text(HOME / "LICENSE")
    terms = own[own.index("Permission is hereby granted"):]
    return (f"onnxruntime-web {version}\n\nMIT License\n\nCopyright (c) Microsoft Corporation\n\n"
            f"{terms}").encode("utf-8")
