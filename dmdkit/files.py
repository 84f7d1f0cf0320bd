"""Files that are whole or not there: atomic writes, and tensors with a checksum over every byte."""
import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a neighbour and rename: whoever reads ``path`` sees the old file or the new one, never a part.

    Raises RuntimeError, with what was there before left as it was, if the folder or the disk refuses.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        kept = "the earlier file there is untouched" if path.exists() else "nothing was written"
        raise RuntimeError(f"Could not write {path}: {error.strerror or error}; {kept}. "
                           "Free some space or choose a folder that you may write to, then run this again.") from None


def as_json(content: dict) -> str:
    """A card's text: one entry a line, letters as they are."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path, content: dict) -> None:
    """``write_atomically`` of a card."""
    write_atomically(path, as_json(content).encode())


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of ``packages``, and of dmdkit, torch and diffusers, for a card."""
    return {package: version(package) for package in ("dmdkit", "torch", "diffusers", *packages)}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the folder itself is not accessible: there is nothing to tidy up


def save_state(path: Path, state: dict) -> None:
    """Save nested dicts and lists of tensors, numbers and strings as one safetensors file with a checksum.

    Nothing is pickled: the tensors go into the file's body, the rest as JSON into its header.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors))
    write_atomically(path, safetensors.torch.save(tensors, {"tree": tree, "sha256": _digest(tree, tensors)}))


def load_state(path: Path) -> dict:
    """What ``save_state`` saved, on the CPU. Raises RuntimeError if the file is missing, cut short or altered."""
    path = Path(path)
    if not path.is_file():
        raise RuntimeError(f"There is no checkpoint at {path}. Check the path, or start without resuming.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if header["sha256"] != _digest(header["tree"], tensors):
            raise ValueError("its checksum does not fit its contents")
        return _join(json.loads(header["tree"]), tensors)
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise RuntimeError(f"The checkpoint {path} is damaged or not one of dmdkit's ({error}). Delete it and start "
                           "again, or put an intact copy in its place.") from None


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _split(node, name: str, tensors: dict[str, Tensor]):
    """A JSON tree in which each tensor is replaced by {"tensor": its name} and put into ``tensors``."""
    if isinstance(node, Tensor):
        tensors[name] = node.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[key, _split(value, f"{name}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_split(value, f"{name}/{i}", tensors) for i, value in enumerate(node)]
    return node


def _join(node, tensors: dict[str, Tensor]):
    if isinstance(node, list):
        return [_join(value, tensors) for value in node]
    if isinstance(node, dict):
        return tensors[node["tensor"]] if "tensor" in node else {k: _join(v, tensors) for k, v in node["dict"]}
    return node
