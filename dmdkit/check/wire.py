"""How cases go to the process that runs learners' functions, and answers come back: JSON and
safetensors. Nothing is unpickled."""
import json
from dataclasses import fields, is_dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from . import standins
from .answers import Answer

LONGEST = 1000  # characters of a sentence from another process


def write(folder: Path, name: str, content, tensors: dict[str, Tensor]) -> None:
    """Write ``name``.json and ``name``.safetensors. The JSON last: it says that both are there."""
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()},
              folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def read(folder: Path, name: str) -> tuple:
    """What ``write`` wrote: content and tensors."""
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return content, load_file(folder / f"{name}.safetensors")


def pack(value, tensors: dict[str, Tensor]):
    """A case's arguments, as JSON holds them. Tensors are put into ``tensors``."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value
        return {"tensor": key, "grad": value.requires_grad}
    if isinstance(value, (tuple, list)):
        return [pack(entry, tensors) for entry in value]
    if is_dataclass(value):
        of = [pack(getattr(value, field.name), tensors) for field in fields(value)]
        return {"stand-in": type(value).__name__, "of": of}
    return {"stand-in": value.__name__} if callable(value) else value


def unpack(packed, tensors: dict[str, Tensor]):
    """The reverse. Stand-ins are found by their names."""
    if isinstance(packed, list):
        return tuple(unpack(entry, tensors) for entry in packed)
    if not isinstance(packed, dict):
        return packed
    if "tensor" in packed:
        return tensors[packed["tensor"]].requires_grad_(packed["grad"])
    found = getattr(standins, packed["stand-in"])
    return found(*unpack(packed["of"], tensors)) if "of" in packed else found


def pack_answer(given: Answer, tensors: dict[str, Tensor]) -> dict:
    """An answer, as JSON holds it."""
    return {"values": pack(given.values, tensors), "fault": given.fault, "kind": given.kind,
            "changed": given.changed}


def unpack_answer(packed: dict, tensors: dict[str, Tensor]) -> Answer:
    """The reverse, of what another process wrote. Raises ValueError, KeyError or TypeError if it is
    not an answer."""
    values = tuple(tensors[str(entry["tensor"])].double() for entry in packed["values"])
    fault, kind = (" ".join(str(packed[name]).split())[:LONGEST] for name in ("fault", "kind"))
    return Answer(values, fault, kind, packed["changed"] is not False)
