"""Data: MNIST as it ships, what happens when it is damaged, and the sets that are downloaded."""
import gzip
import hashlib
import pickle
import shutil
import struct
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from dmdkit import data

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


# MNIST as it ships

def test_mnist_has_its_known_counts_and_first_digits(test_images):
    train = data.mnist()
    assert train.pixels.shape == (60_000, 1, 28, 28) and test_images.pixels.shape == (10_000, 1, 28, 28)
    assert train.pixels.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert len(train) == 60_000 and len(test_images) == 10_000
    assert torch.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test_images.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test_images.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # LeCun's published mean and deviation of the training pixels
    pixels = train.pixels.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3081, abs=1e-4)


def test_a_batch_is_scaled_to_minus_one_one_and_keeps_its_labels(test_images):
    x, label = test_images.batch(torch.tensor([3, 0]))
    assert x.shape == (2, 1, 28, 28) and x.dtype == torch.float32 and label.tolist() == [0, 7]
    assert x.min() == -1 and x.max() <= 1 and x.max() > 0.9
    torch.testing.assert_close(x[1] * 127.5 + 127.5, test_images.pixels[0].float())


def test_every_grey_value_survives_the_way_to_minus_one_one_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    x = data.scale(pixels)
    assert x[0] == -1 and x[255] == 1 and x[51].item() == pytest.approx(-0.6)
    assert torch.equal(data.to_uint8(x), pixels)
    assert data.to_uint8(torch.tensor([-3.0, 3.0, 0.0])).tolist() == [0, 255, 128]


def test_balanced_draws_each_class_equally_often_without_repetition():
    images = data.Images(torch.arange(60, dtype=torch.uint8).reshape(60, 1, 1, 1), torch.arange(60) % 3)
    some = images.balanced(12, torch.Generator().manual_seed(0))
    assert some.labels.tolist() == [0, 1, 2] * 4
    values = some.pixels.flatten()
    assert len(values.unique()) == 12 and torch.equal(values % 3, some.labels)  # images kept their own labels
    assert not torch.equal(values, images.balanced(12, torch.Generator().manual_seed(1)).pixels.flatten())
    assert torch.equal(values, images.balanced(12, torch.Generator().manual_seed(0)).pixels.flatten())
    assert len(images.balanced(60).pixels.unique()) == 60


@pytest.mark.parametrize("n", [0, 10, 63, -3])
def test_balanced_refuses_what_it_cannot_balance(n):
    images = data.Images(torch.zeros(60, 1, 1, 1, dtype=torch.uint8), torch.arange(60) % 3)
    with pytest.raises(ValueError, match=f"n must be a multiple of 3 from 3 to 60 for this set; got {n}"):
        images.balanced(n)


# Damage. Most of it is done to a set of the same format and twenty images, whose checksums are its own.

def idx(array: np.ndarray) -> bytes:
    """LeCun's idx format: two zero bytes, 8 for uint8, the number of axes, their lengths, the bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def small_set(folder: Path) -> None:
    """Four archives of twenty images and MD5SUMS as they lie in data/MNIST/raw."""
    folder.mkdir(parents=True)
    lines = []
    for name in NAMES:
        array = np.arange(20) % 10 if "labels" in name else np.arange(20 * 784).reshape(20, 28, 28) % 251
        content = idx(array)
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        lines += [f"{hashlib.md5(content).hexdigest()}  {name}", f"{hashlib.md5(packed).hexdigest()}  {name}.gz"]
    (folder / "MD5SUMS").write_text("\n".join(lines) + "\n")


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """The folder of a small set, at which ``data.mnist`` looks; its archives are still packed."""
    monkeypatch.setattr(data, "ROOT", tmp_path)
    small_set(tmp_path / "MNIST" / "raw")
    return tmp_path / "MNIST" / "raw"


def flip(path: Path, at: int) -> tuple[str, str]:
    """Flip a byte of a file; returns its MD5 before and after."""
    content = bytearray(path.read_bytes())
    before = hashlib.md5(content).hexdigest()
    content[at] ^= 0x10
    path.write_bytes(content)
    return before, hashlib.md5(content).hexdigest()


def test_one_wrong_byte_in_the_shipped_archive_is_named_with_both_checksums(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(data.ROOT / "MNIST" / "raw", raw, ignore=shutil.ignore_patterns("*ubyte"))
    monkeypatch.setattr(data, "ROOT", tmp_path)
    archive = raw / "train-images-idx3-ubyte.gz"
    before, after = flip(archive, 5_000_000)
    with pytest.raises(RuntimeError, match=f"{archive} is damaged: its MD5 should be {before} and is {after}. Restore"):
        data.mnist()


def test_a_small_set_unpacks_beside_its_archives(raw):
    images = data.mnist(train=False)
    assert images.pixels.shape == (20, 1, 28, 28) and images.labels.tolist() == list(range(10)) * 2
    assert images.pixels[0, 0, 1].tolist() == list(range(28, 56))
    assert sorted(p.name for p in raw.iterdir()) == sorted([*NAMES, *(f"{n}.gz" for n in NAMES), "MD5SUMS"])


@pytest.mark.parametrize("name", NAMES)
def test_any_damaged_or_missing_archive_is_named(raw, name):
    before, after = flip(raw / f"{name}.gz", 30)
    with pytest.raises(RuntimeError, match=f"{name}.gz is damaged: its MD5 should be {before} and is {after}"):
        data.mnist()
    assert not (raw / name).exists()
    (raw / f"{name}.gz").unlink()
    with pytest.raises(RuntimeError, match=f"{name}.gz is missing. Restore it with `git checkout`"):
        data.mnist()


def test_an_unpacked_file_that_was_cut_short_is_named_and_not_read(raw):
    data.mnist()
    path = raw / NAMES[2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=f"{path} is damaged: .*Delete it: it is unpacked again"):
        data.mnist(train=False)
    path.unlink()
    assert len(data.mnist(train=False)) == 20


def test_without_its_folder_mnist_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "ROOT", tmp_path / "nowhere")
    with pytest.raises(RuntimeError, match="nowhere.*MD5SUMS is missing.*DMDKIT_DATA"):
        data.mnist()


def test_an_interrupted_unpacking_leaves_nothing_that_the_next_one_would_read(raw, monkeypatch):
    def stopped(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            data.mnist()
    assert not any((raw / name).exists() for name in NAMES)
    assert len(data.mnist()) == 20


def test_a_full_disk_during_unpacking_is_one_sentence_and_leaves_no_part(raw, monkeypatch):
    before = sorted(raw.iterdir())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RuntimeError, match="Could not write .*ubyte: No space left on device; nothing was written"):
        data.mnist()
    assert sorted(raw.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_unpacked_elsewhere(raw, tmp_path, monkeypatch):
    before = sorted(raw.iterdir())
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != raw)  # root may write everywhere
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for _ in range(2):  # the second call finds what the first unpacked
        assert len(data.mnist()) == 20
    assert sorted(raw.iterdir()) == before
    assert sorted(p.name for p in (tmp_path / "temporary").rglob("*ubyte")) == sorted(NAMES)


# The sets that torchvision downloads

@pytest.fixture
def offline(monkeypatch):
    """A machine without network (and with no gdown, which CelebA's download needs)."""
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setitem(sys.modules, "gdown", None)


@pytest.mark.parametrize("load, name, what", [
    (data.fashion_mnist, "FashionMNIST", "put its four .gz archives into {root}/FashionMNIST/raw"),
    (data.cifar10, "CIFAR10", "put cifar-10-python.tar.gz into {root}"),
    (data.celeba, "CelebA", "put the folder img_align_celeba .* and the set's five .txt files into {root}/celeba"),
])
def test_offline_a_set_says_in_one_sentence_what_to_put_where(load, name, what, tmp_path, offline):
    what = what.format(root=tmp_path)
    sentence = f"{name} is not on this disk and could not be downloaded .*; to work offline, {what}"
    with pytest.raises(RuntimeError, match=sentence) as caught:
        load(root=tmp_path)
    assert "\n" not in str(caught.value) and caught.value.__suppress_context__


def trust(monkeypatch, dataset, **checksums):
    """Let torchvision accept the small stand-ins made here: swap its table of MD5s, not its check."""
    for attribute, value in checksums.items():
        monkeypatch.setattr(dataset, attribute, value)


def test_fashion_mnist_loads_from_the_archives_that_the_sentence_asks_for(tmp_path, offline, monkeypatch):
    folder = tmp_path / "FashionMNIST" / "raw"
    small_set(folder)
    (folder / "MD5SUMS").unlink()
    trust(monkeypatch, torchvision.datasets.FashionMNIST,
          resources=[(f"{n}.gz", hashlib.md5((folder / f"{n}.gz").read_bytes()).hexdigest()) for n in NAMES])
    for train in (True, False):
        images = data.fashion_mnist(train, tmp_path)
        assert images.pixels.shape == (20, 1, 28, 28) and images.pixels.dtype == torch.uint8
        assert images.labels.tolist() == list(range(10)) * 2


def test_cifar10_loads_with_channels_first_and_its_labels(tmp_path, offline, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def pickled(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    # a row is 1024 red values, then green, then blue; image i has red = i, green = 100, blue = 200
    rows = np.repeat(np.array([[i, 100, 200] for i in range(4)], dtype=np.uint8), 1024, axis=1)
    batch = {"data": rows, "labels": [6, 9, 9, 4]}
    trust(monkeypatch, torchvision.datasets.CIFAR10,
          train_list=[[f"data_batch_{i}", pickled(f"data_batch_{i}", batch)] for i in (1, 2, 3, 4, 5)],
          test_list=[["test_batch", pickled("test_batch", batch)]],
          meta={"filename": "batches.meta", "key": "label_names",
                "md5": pickled("batches.meta", {"label_names": list("abcdefghij")})})
    train, test = data.cifar10(True, tmp_path), data.cifar10(False, tmp_path)
    assert train.pixels.shape == (20, 3, 32, 32) and test.pixels.shape == (4, 3, 32, 32)
    assert test.pixels.dtype == torch.uint8 and test.labels.tolist() == [6, 9, 9, 4]
    assert test.pixels[:, 0].flatten(1).unique(dim=1).flatten().tolist() == [0, 1, 2, 3]
    assert test.pixels[3].flatten(1).unique(dim=1).flatten().tolist() == [3, 100, 200]
    x, _ = test.batch(torch.tensor([0]))
    assert x.min() == -1 and x[0, 2, 0, 0].item() == pytest.approx(200 / 127.5 - 1)


def test_celeba_is_cropped_to_the_face_and_resized(tmp_path, offline, monkeypatch):
    from PIL import Image

    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 6)]
    for i, name in enumerate(names):
        picture = np.full((218, 178, 3), 10, np.uint8)
        picture[20:198] = 50 * i  # the middle 178 rows, the rest is cut away
        Image.fromarray(picture).save(folder / "img_align_celeba" / name, quality=100)
    table = lambda head, row: head + "".join(f"{name} {row}\n" for name in names)
    texts = {"list_attr_celeba.txt": table("4\nSmiling\n", "1"), "identity_CelebA.txt": table("", "7"),
             **{f"list_{what}_celeba.txt": table("4\nx y\n", "1 2") for what in ("bbox", "landmarks_align")},
             "list_eval_partition.txt": "".join(f"{name} {2 if i >= 3 else 0}\n" for i, name in enumerate(names))}
    for name, text in texts.items():
        (folder / name).write_text(text)
    trust(monkeypatch, torchvision.datasets.CelebA,
          file_list=[("id", None, "img_align_celeba.zip")] +
                    [("id", hashlib.md5(text.encode()).hexdigest(), name) for name, text in texts.items()])
    images = data.celeba(True, tmp_path, size=32)
    assert images.pixels.shape == (3, 3, 32, 32) and images.pixels.dtype == torch.uint8
    assert [images.pixels[i].float().mean().item() for i in range(3)] == pytest.approx([0, 50, 100], abs=1)
    assert images.labels.tolist() == [0, 0, 0]
    assert len(data.celeba(True, tmp_path, size=8, limit=2)) == 2
    assert data.celeba(False, tmp_path, size=8).pixels.shape == (2, 3, 8, 8)
