"""Any folder of pictures: cropped to squares, 32 × 32, in colour, without classes."""
from pathlib import Path

from .. import data
from . import colour
from .task import Task


def pictures(folder: Path | str) -> Task:
    """The task of learning a folder's pictures, mirrored ones too.

    Its network is that of the faces, so that a training may start from their teacher.
    ``runner.run`` trains on it as on any other. It has no scorer: its samples are looked at.
    Reading raises what ``data.folder`` raises.
    """
    def read(train: bool = True) -> data.Images:
        return data.mirrored(data.folder(folder))

    return Task("pictures", colour.SHAPE, 0, read, networks={"network": colour.denoiser})
