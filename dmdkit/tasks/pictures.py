"""Any folder of pictures: cropped to squares, 32 × 32, in colour, without classes."""
from pathlib import Path

from .. import data
from ..disk import sha256_of
from ..pictures import find
from . import colour
from .task import Task


def pictures(folder: Path | str) -> Task:
    """The task of learning a folder's pictures, mirrored ones too.

    Its network is that of the faces, so that a training may start from their teacher.
    ``runner.run`` trains on it as on any other. It has no scorer: its samples are looked at. Its
    name tells the pictures' names, so that no training goes on with others.
    Raises RuntimeError for a folder that is none or holds no pictures; reading raises what
    ``data.folder`` raises.
    """
    names = [path.relative_to(folder).as_posix() for path in find(Path(folder))]

    def read(train: bool = True) -> data.Images:
        return data.mirrored(data.folder(folder))

    return Task(f"pictures {sha256_of(repr(names).encode())[:8]}", colour.SHAPE, 0, read,
                networks={"network": colour.denoiser})
