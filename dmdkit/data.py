"""Images, scaled to [−1, 1]: MNIST, which ships, three sets that torchvision downloads when asked,
and any folder of pictures. And clouds of points of the plane."""
import gzip
import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import expect, pictures

ROOT = Path(os.environ.get("DMDKIT_DATA") or Path(__file__).resolve().parent.parent / "data")
"""Where data and weights lie: the clone's ``data/``, or the folder that DMDKIT_DATA names."""
RUNS = Path("runs")
"""Where trainings and experiments leave their work: in the folder that they are started from."""

MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "1d473e58ef44e25f798984071547abb4",
    "train-labels-idx1-ubyte.gz": "1609bf896b655359423ad367a6da51b2",
    "t10k-images-idx3-ubyte.gz": "78e7617d39dd0f4605369b825dfce8e6",
    "t10k-labels-idx1-ubyte.gz": "ef198d564bed981685c30c7da017ac89"}
CELEBA_PARTS = {True: (1, 162_770), False: (182_638, 202_599)}
"""The numbers of CelebA's faces, first and last, to train on and to test with."""


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory. It stays uint8 (47 MB for MNIST) on its device, and batches are scaled
    as they are cut. Raises TypeError or ValueError for tensors that are none of a set."""
    pixels: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64

    def __post_init__(self):
        for name, dtype in (("pixels", torch.uint8), ("labels", torch.int64)):
            found = getattr(getattr(self, name), "dtype", type(getattr(self, name)).__name__)
            if found != dtype:
                raise TypeError(f"{name} must be a tensor of {dtype}; got {found}.")
        if self.pixels.ndim != 4 or self.labels.shape != self.pixels.shape[:1]:
            raise ValueError("pixels must have shape (N, C, H, W) and labels (N,); got "
                             f"{tuple(self.pixels.shape)} and {tuple(self.labels.shape)}.")

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, index: Tensor | slice) -> "Images":
        """The images at ``index`` as a set of their own."""
        return Images(self.pixels[index], self.labels[index])

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [−1, 1], (B, C, H, W) float32, and labels (B,) at ``index`` (B,) int64."""
        check_index(index, len(self))
        return scale(self.pixels[index]), self.labels[index]

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))

    def balanced(self, n: int, generator: torch.Generator | None = None) -> "Images":
        """n images with as many of each of the classes, drawn without replacement, in the order
        0, 1, … 9, 0, 1, … Raises ValueError if n is not a multiple of the number of classes, or a
        class has too few images."""
        classes = self.labels.unique()
        fewest = int(torch.bincount(self.labels)[classes].min())
        each, rest = divmod(expect.whole("n", n), len(classes))
        if rest or not 0 < each <= fewest:
            raise ValueError(f"n must be a multiple of {len(classes)} from {len(classes)} to "
                             f"{fewest * len(classes)} for this set; got {n}.")
        rows = []
        for label in classes:
            members = (self.labels == label).nonzero().flatten()
            order = torch.randperm(len(members), generator=generator)[:each]
            rows.append(members[order.to(members.device)])
        return self.take(torch.stack(rows, 1).flatten())


@dataclass(frozen=True, eq=False)
class Points:
    """A cloud of points of the plane, to be used where ``Images`` are; all are of one class.
    Raises TypeError or ValueError for a tensor that is none."""
    x: Tensor  # (N, 2) float32, within about ±1

    def __post_init__(self):
        expect.batch("points", self.x, (2,))

    @property
    def labels(self) -> Tensor:
        return torch.zeros(len(self.x), dtype=torch.int64, device=self.x.device)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor | slice) -> "Points":
        """The points at ``index`` as a cloud of their own."""
        return Points(self.x[index])

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, 2) and labels (B,), all 0, at ``index`` (B,) int64."""
        check_index(index, len(self))
        return self.x[index], self.labels[index]

    def to(self, device: torch.device | str) -> "Points":
        return Points(self.x.to(device))

    def balanced(self, n: int, generator: torch.Generator | None = None) -> "Points":
        """n points, drawn without replacement. Raises ValueError for more than there are."""
        n = expect.whole("n", n, 1, len(self))
        order = torch.randperm(len(self), generator=generator)[:n]
        return self.take(order.to(self.x.device))


def check_index(index: Tensor, n: int) -> None:
    """Raises TypeError or IndexError unless ``index`` is a tensor of places in 0 … n − 1."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.ndim != 1:
        raise TypeError("index must be a tensor (B,) of whole numbers (torch.int64); got "
                        f"{getattr(index, 'dtype', type(index).__name__)}.")
    low, high = expect.extremes(index) or (0, 0)
    if low < 0 or high >= max(n, 1):
        raise IndexError(f"index must lie in 0 … {n - 1}; got {low if low < 0 else high}.")


def two_moons(n: int, generator: torch.Generator | None = None, noise: float = 0.05) -> Points:
    """Two half circles that reach into each other, with Gaussian noise of that standard
    deviation."""
    angle = math.pi * torch.rand(expect.whole("n", n), generator=generator)
    upper = torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos() - 0.5, 0.5 - angle.cos())
    y = torch.where(upper, angle.sin() - 0.25, 0.25 - angle.sin())
    return Points(0.6 * torch.stack([x, y], 1) + noise * torch.randn(n, 2, generator=generator))


def spiral(n: int, generator: torch.Generator | None = None, turns: float = 1.75,
           noise: float = 0.02) -> Points:
    """One arm that winds outwards, evenly filled along its length, with Gaussian noise."""
    share = torch.rand(expect.whole("n", n), generator=generator).sqrt()
    angle = 2 * math.pi * turns * share
    x = 0.9 * share[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return Points(x + noise * torch.randn(n, 2, generator=generator))


def grid(n: int = 15, extent: float = 1.5) -> Tensor:
    """n × n points of the plane, row by row from the top, with half a stride of margin, (n², 2)."""
    line = torch.linspace(-1, 1, 2 * n + 1)[1::2] * extent
    y, x = torch.meshgrid(-line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def scale(pixels: Tensor) -> Tensor:
    """uint8 0 … 255 → float32 in [−1, 1]. Raises TypeError for another dtype."""
    if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8:
        raise TypeError("pixels must be a tensor of torch.uint8, 0 … 255; got "
                        f"{getattr(pixels, 'dtype', type(pixels).__name__)}.")
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """[−1, 1] → uint8 0 … 255, rounded; what lies outside is clipped. Raises TypeError for what is
    not floating, and ValueError for NaN, which would be black."""
    expect.floating(x=x)
    low, _ = expect.extremes(x) or (0, 0)
    if math.isnan(low):
        raise ValueError("x must be numbers; some are NaN. Look for where they arose.")
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def mnist(train: bool = True) -> Images:
    """MNIST: 60,000 training or 10,000 test images, (N, 1, 28, 28), read from the archives that
    ship; nothing is unpacked. Raises RuntimeError naming a file that is missing or damaged."""
    part, folder = "train" if train else "t10k", ROOT / "MNIST" / "raw"
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return Images(pixels, _idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).long())


def _idx(archive: Path, header: int) -> Tensor:
    """The values of one of LeCun's idx files, whose checksum is compared first, (N,) uint8."""
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise RuntimeError(f"{archive} is missing or cannot be read ({error.strerror}). Restore it "
                           "with `git checkout`, or point the environment variable DMDKIT_DATA at "
                           "the clone's data folder (a plain, not editable, install has none)."
                           ) from None
    expected, found = MNIST_MD5[archive.name], hashlib.md5(content).hexdigest()
    if found != expected:
        raise RuntimeError(f"{archive} is damaged: its MD5 should be {expected} and is {found}. "
                           f"Restore it with `git checkout {archive.name}`.")
    return torch.frombuffer(bytearray(gzip.decompress(content)), dtype=torch.uint8)[header:]


def fashion_mnist(train: bool = True, root: Path = ROOT) -> Images:
    """Fashion-MNIST, (N, 1, 28, 28), downloaded on first use. Raises RuntimeError with what to put
    where if offline."""
    from torchvision.datasets import FashionMNIST

    what = "its four .gz archives into {root}/FashionMNIST/raw"
    dataset = _download(FashionMNIST, root, what, train=train)
    return Images(dataset.data.unsqueeze(1), dataset.targets)


def cifar10(train: bool = True, root: Path = ROOT) -> Images:
    """CIFAR-10, (N, 3, 32, 32), downloaded on first use. Raises RuntimeError with what to put where
    if offline."""
    from torchvision.datasets import CIFAR10

    dataset = _download(CIFAR10, root, "cifar-10-python.tar.gz into {root}", train=train)
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(dataset.targets))


def celeba(train: bool = True, root: Path = ROOT, size: int = 32,
           limit: int | None = None) -> Images:
    """CelebA, the first ``limit`` of the aligned faces, each whole and resized, (N, 3, size, size);
    all labels are 0. Downloaded on first use (1.4 GB). Raises RuntimeError with what to put where
    if offline."""
    folder, size = Path(root) / "celeba" / "img_align_celeba", expect.whole("size", size)
    limit = limit if limit is None else expect.whole("limit", limit)
    if not folder.is_dir():
        from torchvision.datasets import CelebA

        _download(CelebA, root, "the unpacked img_align_celeba.zip into {root}/celeba")
    paths = pictures.numbered(folder, *CELEBA_PARTS[train])
    return _unlabelled(pictures.read(paths[:limit], size, crop=False))


def folder(path: Path | str, size: int = 32) -> Images:
    """The pictures in a folder of your own and in the folders in it: of each the largest square in
    the middle, resized, (N, 3, size, size); all labels are 0. Raises RuntimeError for a folder that
    is missing or empty, and once for all pictures that cannot be read."""
    return _unlabelled(pictures.read(pictures.find(Path(path)), expect.whole("size", size)))


def _unlabelled(pixels: Tensor) -> Images:
    return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))


def mirrored(images: Images) -> Images:
    """The images, and behind them their mirror images: twice as many to learn from."""
    pixels = torch.cat([images.pixels, images.pixels.flip(3)])
    return Images(pixels, images.labels.repeat(2))


def _download(dataset_class, root: Path, what: str, **arguments):
    try:
        return dataset_class(root, download=True, **arguments)
    except Exception as error:  # no network, a damaged archive; gdown has errors of its own
        reason = " ".join(str(error).split())
        raise RuntimeError(f"{dataset_class.__name__} is not on this disk and could not be "
                           f"downloaded ({reason}); to work offline, put {what.format(root=root)} "
                           "and call this again.") from None
