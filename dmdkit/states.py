"""States: nested dicts and lists of tensors, numbers and strings as one safetensors file."""
import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .disk import damaged, read_bytes, write_atomically


def save_state(path: Path, state: dict) -> None:
    """Save nested dicts and lists of tensors, numbers and strings with a checksum over all.

    Nothing is pickled: the tensors go into the file's body, the rest as JSON into its header. The
    same state gives the same bytes. Raises TypeError for anything else in it.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors))
    header = {"tree": tree, "sha256": _digest(tree, tensors)}
    write_atomically(path, _in_order(safetensors.torch.save(tensors, header)))


def _in_order(raw: bytes) -> bytes:
    """A safetensors file with its header's keys in order: the library's own differs by the run."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[end:]


def load_state(path: Path) -> dict:
    """What ``save_state`` saved, on the CPU, in memory of its own: the file may change or go.

    Raises RuntimeError, a sentence that names the file, if it is missing, cut short or altered.
    """
    raw = read_bytes(path)
    try:
        end = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:end])["__metadata__"]
        tensors = {name: value.clone() for name, value in safetensors.torch.load(raw).items()}
        if header["sha256"] != _digest(header["tree"], tensors):
            raise ValueError("its checksum does not fit its contents")
        return _join(json.loads(header["tree"]), tensors)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise damaged(path, f"it is no state that dmdkit saved ({error})") from None


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _split(node, name: str, tensors: dict[str, Tensor]):
    """A JSON tree in which each tensor is replaced by its name and put into ``tensors``."""
    if isinstance(node, Tensor):
        while name in tensors:  # {"a/b": …} and {"a": {"b": …}} are two
            name += "'"
        tensors[name] = node.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[k, _split(v, f"{name}/{k}", tensors)] for k, v in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_split(value, f"{name}/{i}", tensors) for i, value in enumerate(node)]
    if node is not None and not isinstance(node, (bool, int, float, str)):
        raise TypeError("A state holds dicts, lists, tensors, numbers and strings; got "
                        f"{type(node).__name__} at {name or 'its top'}.")
    return node


def _join(node, tensors: dict[str, Tensor]):
    if isinstance(node, list):
        return [_join(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return tensors[node["tensor"]]
    return {key: _join(value, tensors) for key, value in node["dict"]}
