"""Images, scaled to [−1, 1]: MNIST, which ships, and three sets that torchvision downloads when asked. And clouds of
points of the plane."""
import gzip
import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import files

ROOT = Path(os.environ.get("DMDKIT_DATA") or Path(__file__).resolve().parent.parent / "data")
"""Where data and weights lie: the clone's ``data/``, or the folder that the variable DMDKIT_DATA names."""
RUNS = Path("runs")
"""Where trainings and experiments leave their work: in the folder that they are started from."""


class Images(NamedTuple):
    """A data set in memory. It stays uint8 (47 MB for MNIST) on its device, and batches are scaled as they are cut."""
    pixels: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1], (B, C, H, W) float32, and labels (B,) at ``index`` (B,)."""
        return scale(self.pixels[index]), self.labels[index]

    def to(self, device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))

    def balanced(self, n: int, generator: torch.Generator | None = None) -> "Images":
        """n images with as many of each of the classes, drawn without replacement, in the order 0, 1, … 9, 0, 1, …
        Raises ValueError if n is not a multiple of the number of classes, or a class has too few images."""
        classes = self.labels.unique()
        each, rest = divmod(n, len(classes))
        fewest = int(torch.bincount(self.labels)[classes].min())
        if rest or not 0 < each <= fewest:
            raise ValueError(f"n must be a multiple of {len(classes)} from {len(classes)} to "
                             f"{fewest * len(classes)} for this set; got {n}.")
        rows = []
        for label in classes:
            members = (self.labels == label).nonzero().flatten()
            rows.append(members[torch.randperm(len(members), generator=generator)[:each]])
        index = torch.stack(rows, 1).flatten()
        return Images(self.pixels[index], self.labels[index])


class Points(NamedTuple):
    """A cloud of points of the plane, to be used where ``Images`` are; all are of one class."""
    x: Tensor  # (N, 2) float32, within about ±1

    @property
    def labels(self) -> Tensor:
        return torch.zeros(len(self.x), dtype=torch.int64, device=self.x.device)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, 2) and labels (B,), all 0, at ``index`` (B,)."""
        return self.x[index], self.labels[index]

    def to(self, device) -> "Points":
        return Points(self.x.to(device))


def two_moons(n: int, generator: torch.Generator | None = None, noise: float = 0.05) -> Points:
    """Two half circles that reach into each other, with Gaussian noise of that standard deviation."""
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos() - 0.5, 0.5 - angle.cos())
    y = torch.where(upper, angle.sin() - 0.25, 0.25 - angle.sin())
    return Points(0.6 * torch.stack([x, y], 1) + noise * torch.randn(n, 2, generator=generator))


def spiral(n: int, generator: torch.Generator | None = None, turns: float = 1.75, noise: float = 0.02) -> Points:
    """One arm that winds outwards, evenly filled along its length, with Gaussian noise."""
    angle = 2 * math.pi * turns * torch.rand(n, generator=generator).sqrt()
    radius = 0.9 * angle / (2 * math.pi * turns)
    return Points(torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
                  + noise * torch.randn(n, 2, generator=generator))


def scale(pixels: Tensor) -> Tensor:
    """uint8 0 … 255 → float32 in [−1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """[−1, 1] → uint8 0 … 255, rounded; what lies outside is clipped."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def mnist(train: bool = True) -> Images:
    """MNIST: 60,000 training or 10,000 test images, (N, 1, 28, 28), by torchvision's own reader.

    It ships compressed; the first call unpacks it beside the archives (or, where that folder cannot be written,
    into a temporary one). Raises RuntimeError naming a file that is missing or damaged.
    """
    from torchvision.datasets import MNIST

    dataset = MNIST(_unpacked(ROOT / "MNIST" / "raw"), train=train)
    return Images(dataset.data.unsqueeze(1), dataset.targets)


def _unpacked(folder: Path) -> Path:
    """Unpack and verify MNIST's four files; returns the root that torchvision's MNIST takes."""
    checksums = dict(reversed(line.split()) for line in _read(folder / "MD5SUMS").decode().splitlines())
    raw = folder
    if not os.access(folder, os.W_OK):
        raw = Path(tempfile.gettempdir()) / "dmdkit" / "MNIST" / "raw"
    for name in [n for n in checksums if not n.endswith(".gz")]:
        if (raw / name).exists():
            _verified(raw / name, checksums[name], "Delete it: it is unpacked again from the archive beside it.")
            continue
        archive = folder / f"{name}.gz"
        packed = _verified(archive, checksums[archive.name], f"Restore it with `git checkout {archive.name}`.")
        files.write_atomically(raw / name, gzip.decompress(packed))  # a second process never reads half a file
    return raw.parent.parent


def _read(path: Path) -> bytes:
    if not path.exists():
        raise RuntimeError(f"{path} is missing. Restore it with `git checkout`, or point the environment variable "
                           "DMDKIT_DATA at the clone's data folder (a plain, not editable, install has none).")
    return path.read_bytes()


def _verified(path: Path, expected: str, advice: str) -> bytes:
    content = _read(path)
    found = hashlib.md5(content).hexdigest()
    if found != expected:
        raise RuntimeError(f"{path} is damaged: its MD5 should be {expected} and is {found}. {advice}")
    return content


def fashion_mnist(train: bool = True, root: Path = ROOT) -> Images:
    """Fashion-MNIST, (N, 1, 28, 28), downloaded on first use. Raises RuntimeError with what to put where if offline."""
    from torchvision.datasets import FashionMNIST

    dataset = _download(FashionMNIST, root, "its four .gz archives into {root}/FashionMNIST/raw", train=train)
    return Images(dataset.data.unsqueeze(1), dataset.targets)


def cifar10(train: bool = True, root: Path = ROOT) -> Images:
    """CIFAR-10, (N, 3, 32, 32), downloaded on first use. Raises RuntimeError with what to put where if offline."""
    from torchvision.datasets import CIFAR10

    dataset = _download(CIFAR10, root, "cifar-10-python.tar.gz into {root}", train=train)
    return Images(torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets))


def celeba(train: bool = True, root: Path = ROOT, size: int = 64, limit: int | None = None) -> Images:
    """CelebA, the first ``limit`` faces cropped to 178 × 178 and resized, (N, 3, size, size); all labels are 0.

    Downloaded on first use (1.4 GB). Raises RuntimeError with what to put where if offline.
    """
    from torchvision import transforms
    from torchvision.datasets import CelebA
    from tqdm.auto import tqdm

    crop = transforms.Compose([transforms.CenterCrop(178), transforms.Resize(size), transforms.PILToTensor()])
    dataset = _download(CelebA, root, "the folder img_align_celeba (unpacked from its .zip) and the set's five .txt "
                        "files into {root}/celeba",
                        split="train" if train else "test", transform=crop)
    n = min(limit or len(dataset), len(dataset))
    pixels = torch.stack([dataset[i][0] for i in tqdm(range(n), desc="CelebA", unit="image")])
    return Images(pixels, torch.zeros(n, dtype=torch.int64))


def _download(dataset_class, root: Path, what: str, **arguments):
    try:
        return dataset_class(root, download=True, **arguments)
    except (OSError, RuntimeError, ImportError) as error:  # no network, a damaged archive, or gdown (CelebA) missing
        raise RuntimeError(f"{dataset_class.__name__} is not on this disk and could not be downloaded ({error}); "
                           f"to work offline, put {what.format(root=root)} and call this again.".replace("\n", " ")
                           ) from None
