"""Data: MNIST as it ships, what happens when it is damaged, and the sets that are downloaded."""
import gzip
import hashlib
import pickle
import struct
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from conftest import refused

from dmdkit import data

NAMES = [f"{part}-{what}-ubyte" for part in ("train", "t10k")
         for what in ("images-idx3", "labels-idx1")]


# MNIST as it ships

def test_mnist_has_its_known_counts_and_first_digits(test_images):
    train = data.mnist()
    assert train.pixels.shape == (60_000, 1, 28, 28) and len(train) == 60_000
    assert test_images.pixels.shape == (10_000, 1, 28, 28) and len(test_images) == 10_000
    assert train.pixels.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert torch.bincount(train.labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test_images.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test_images.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # LeCun's published mean and deviation of the training pixels
    pixels = train.pixels.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3081, abs=1e-4)


def test_a_batch_is_scaled_to_minus_one_one_and_keeps_its_labels(test_images):
    x, label = test_images.batch(torch.tensor([3, 0]))
    assert x.shape == (2, 1, 28, 28) and x.dtype == torch.float32 and label.tolist() == [0, 7]
    assert x.min() == -1 and x.max() <= 1 and x.max() > 0.9
    torch.testing.assert_close(x[1] * 127.5 + 127.5, test_images.pixels[0].float())


# Sets of images and clouds of points

def sixty() -> data.Images:
    pixels = torch.arange(60, dtype=torch.uint8).reshape(60, 1, 1, 1)
    return data.Images(pixels, torch.arange(60) % 3)


def test_every_grey_value_survives_the_way_to_minus_one_one_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    x = data.scale(pixels)
    assert x[0] == -1 and x[255] == 1 and x[51].item() == pytest.approx(-0.6)
    assert torch.equal(data.to_uint8(x), pixels)
    outside = torch.tensor([-3.0, 3.0, 0.0, float("inf")])
    assert data.to_uint8(outside).tolist() == [0, 255, 128, 255]


def test_pixels_that_are_none_are_refused():
    with refused(TypeError, "pixels must be a tensor of torch.uint8, 0 … 255; got torch.float32"):
        data.scale(torch.zeros(3))
    with refused(TypeError, "got list"):
        data.scale([1, 2])
    with refused(TypeError, "x must be floating-point numbers; got torch.uint8"):
        data.to_uint8(torch.zeros(3, dtype=torch.uint8))
    with refused(ValueError, "x must be numbers; some are NaN"):  # they would be black
        data.to_uint8(torch.tensor([0.5, float("nan")]))


def test_balanced_draws_each_class_equally_often_without_repetition():
    images = sixty()

    def drawn(n, seed):
        return images.balanced(n, torch.Generator().manual_seed(seed))

    some = drawn(12, 0)
    assert some.labels.tolist() == [0, 1, 2] * 4
    values = some.pixels.flatten()
    assert len(values.unique()) == 12
    assert torch.equal(values % 3, some.labels)  # images kept their own labels
    assert torch.equal(values, drawn(12, 0).pixels.flatten())
    assert not torch.equal(values, drawn(12, 1).pixels.flatten())
    assert len(images.balanced(60).pixels.unique()) == 60


@pytest.mark.parametrize("n, sentence", [
    (10, "n must be a multiple of 3 from 3 to 60 for this set; got 10"),
    (63, "n must be a multiple of 3 from 3 to 60 for this set; got 63"),
    (0, "n must be a whole number of at least 1; got 0"),
    (3.0, "n must be a whole number of at least 1; got 3.0"),
])
def test_balanced_refuses_what_it_cannot_balance(n, sentence):
    with refused(ValueError, sentence):
        sixty().balanced(n)


def test_a_set_can_be_cut_and_changed_in_one_entry():
    images = sixty()
    assert images.take(slice(2)).labels.tolist() == [0, 1] and len(images.take(slice(2))) == 2
    assert images.take(torch.tensor([5, 0])).pixels.flatten().tolist() == [5, 0]
    other = replace(images, labels=torch.zeros(60, dtype=torch.int64))
    assert other.pixels is images.pixels and other.labels.sum() == 0
    cloud = data.Points(torch.randn(9, 2))
    assert torch.equal(cloud.take(slice(3)).x, cloud.x[:3])
    assert torch.equal(replace(cloud, x=cloud.x + 1).x, cloud.x + 1)


@pytest.mark.parametrize("pixels, labels, kind, sentence", [
    (torch.zeros(3, 1, 4, 4), torch.zeros(3).long(), TypeError,
     "pixels must be a tensor of torch.uint8; got torch.float32"),
    (torch.zeros(3, 1, 4, 4).byte(), torch.zeros(3).byte(), TypeError,
     "labels must be a tensor of torch.int64; got torch.uint8"),
    (torch.zeros(3, 1, 4, 4).byte(), [0, 1, 2], TypeError, "torch.int64; got list"),
    (torch.zeros(3, 4, 4).byte(), torch.zeros(3).long(), ValueError,
     r"pixels must have shape \(N, C, H, W\) and labels \(N,\); got \(3, 4, 4\) and \(3,\)"),
    (torch.zeros(3, 1, 4, 4).byte(), torch.zeros(2).long(), ValueError, r"and \(2,\)"),
])
def test_images_that_are_none_are_refused(pixels, labels, kind, sentence):
    with refused(kind, sentence):
        data.Images(pixels, labels)


@pytest.mark.parametrize("x, kind, sentence", [
    (torch.zeros(3, 3), ValueError, r"points must have shape \(B, 2\); got \(3, 3\)"),
    (torch.zeros(2), ValueError, r"points must have shape \(B, 2\); got \(2,\)"),
    (torch.zeros(3, 2).long(), TypeError, "points must be floating-point numbers; got torch.int64"),
])
def test_points_that_are_none_are_refused(x, kind, sentence):
    with refused(kind, sentence):
        data.Points(x)


@pytest.mark.parametrize("index, kind, sentence", [
    (torch.tensor([0.0]), TypeError, r"index must be .*\(torch.int64\); got torch.float32"),
    (torch.tensor([True]), TypeError, "got torch.bool"),
    ([0, 1], TypeError, "got list"),
    (torch.tensor([0, 60]), IndexError, "index must lie in 0 … 59; got 60"),
    (torch.tensor([-1]), IndexError, "index must lie in 0 … 59; got -1"),
])
def test_places_that_are_none_are_refused(index, kind, sentence):
    for one in (sixty(), data.Points(torch.zeros(60, 2))):
        with refused(kind, sentence):
            one.batch(index)


@pytest.mark.parametrize("make", [data.two_moons, data.spiral])
def test_a_cloud_lies_within_about_one_and_repeats_from_its_seed(make):
    def cloud(seed):
        return make(3000, torch.Generator().manual_seed(seed))

    one = cloud(20)
    assert one.x.shape == (3000, 2) and one.x.dtype == torch.float32 and len(one) == 3000
    assert one.x.abs().max() < 1.2 and one.x.mean(0).abs().max() < 0.2
    assert torch.equal(one.x, cloud(20).x) and not torch.equal(one.x, cloud(21).x)
    x, label = one.batch(torch.tensor([2, 0]))
    assert torch.equal(x, one.x[[2, 0]]) and label.tolist() == [0, 0]
    with refused(ValueError, "n must be a whole number of at least 1; got 0"):
        make(0)


def test_two_moons_are_two_half_circles():
    x = data.two_moons(2000, torch.Generator().manual_seed(22), noise=0.0).x / 0.6
    upper = (x - torch.tensor([-0.5, -0.25])).norm(dim=1)
    lower = (x - torch.tensor([0.5, 0.25])).norm(dim=1)
    assert torch.minimum((upper - 1).abs(), (lower - 1).abs()).max() < 1e-5


def test_a_spiral_is_filled_evenly_along_its_length():
    radius = data.spiral(4000, torch.Generator().manual_seed(23), noise=0.0).x.norm(dim=1) / 0.9
    # the length up to a radius grows about as its square, so the squares are about uniform
    assert abs((radius**2).mean() - 0.5) < 0.03 and abs((radius**2).var() - 1 / 12) < 0.01


def test_points_drawn_for_a_comparison_are_some_of_them_without_repetition():
    cloud = data.Points(torch.arange(20.0).reshape(10, 2))
    some = cloud.balanced(6, torch.Generator().manual_seed(0))
    assert len(some) == 6 and len(some.x[:, 0].unique()) == 6
    with refused(ValueError, "n must be a whole number from 1 to 10; got 11"):
        cloud.balanced(11)


# Damage. Most of it is done to a set of the same format and twenty images.

def idx(array: np.ndarray) -> bytes:
    """LeCun's idx format: two zero bytes, 8 for uint8, the number of axes, their lengths, the
    bytes."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def small_set(folder: Path) -> dict[str, str]:
    """Four archives of twenty images as they lie in data/MNIST/raw; returns their MD5s by name."""
    folder.mkdir(parents=True)
    checksums = {}
    for name in NAMES:
        images = np.arange(20 * 784).reshape(20, 28, 28) % 251
        packed = gzip.compress(idx(np.arange(20) % 10 if "labels" in name else images))
        (folder / f"{name}.gz").write_bytes(packed)
        checksums[f"{name}.gz"] = hashlib.md5(packed).hexdigest()
    return checksums


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """The folder of a small set, at which ``data.mnist`` looks."""
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(data, "MNIST_MD5", small_set(tmp_path / "MNIST" / "raw"))
    return tmp_path / "MNIST" / "raw"


def test_a_small_set_is_read_from_its_archives_and_nothing_is_written(raw):
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    images = data.mnist(train=False)
    assert images.pixels.shape == (20, 1, 28, 28) and images.labels.tolist() == [*range(10)] * 2
    assert images.pixels[0, 0, 1].tolist() == list(range(28, 56))
    assert {path: path.stat().st_mtime_ns for path in raw.iterdir()} == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_any_damaged_archive_is_named_with_both_checksums(raw, name, damage):
    path = raw / f"{name}.gz"
    content = bytearray(path.read_bytes())
    before = hashlib.md5(content).hexdigest()
    content[30] ^= 0x10
    path.write_bytes({"flipped": content, "cut": content[:-10], "empty": b""}[damage])
    after = hashlib.md5(path.read_bytes()).hexdigest()
    with refused(RuntimeError, f"{name}.gz is damaged: its MD5 should be {before} and is {after}"):
        data.mnist(train="train" in name)


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_that_is_missing_or_a_folder_is_named(raw, name):
    path = raw / f"{name}.gz"
    path.unlink()
    with refused(RuntimeError, f"{name}.gz is missing or cannot be read .*`git checkout`"):
        data.mnist(train="train" in name)
    path.mkdir()
    with refused(RuntimeError, f"{name}.gz is missing or cannot be read .*`git checkout`"):
        data.mnist(train="train" in name)


def test_without_its_folder_mnist_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "ROOT", tmp_path / "nowhere")
    with refused(RuntimeError, "nowhere.*images-idx3-ubyte.gz is missing .*DMDKIT_DATA"):
        data.mnist()


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
    (data.celeba, "CelebA", "put the unpacked img_align_celeba.zip into {root}/celeba"),
])
def test_offline_a_set_says_in_one_sentence_what_to_put_where(load, name, what, tmp_path, offline):
    what = what.format(root=tmp_path)
    sentence = f"{name} is not on this disk and could not be downloaded .*; to work offline, {what}"
    with refused(RuntimeError, sentence):
        load(root=tmp_path)


def test_gdowns_own_errors_are_a_sentence_too(tmp_path, monkeypatch):
    class FileURLRetrievalError(Exception):
        """As gdown raises it: of no kind that others do."""

    def refuse(*args, **kwargs):
        raise FileURLRetrievalError("Too many users have viewed\n\nthis file")

    monkeypatch.setattr(torchvision.datasets.CelebA, "__init__", refuse)
    with refused(RuntimeError, r"CelebA is not on this disk .*have viewed this file\)"):
        data.celeba(root=tmp_path)


def test_no_faces_at_all_are_refused_and_not_taken_for_all_of_them(tmp_path):
    for options, sentence in (({"limit": 0}, "limit must be a whole number of at least 1; got 0"),
                              ({"size": 0}, "size must be a whole number of at least 1; got 0")):
        with refused(ValueError, sentence):
            data.celeba(root=tmp_path, **options)


def trust(monkeypatch, dataset, **checksums):
    """Let torchvision accept the small stand-ins made here: swap its table of MD5s, not its
    check."""
    for attribute, value in checksums.items():
        monkeypatch.setattr(dataset, attribute, value)


def test_fashion_mnist_loads_from_the_archives_that_the_sentence_asks_for(
        tmp_path, offline, monkeypatch):
    folder = tmp_path / "FashionMNIST" / "raw"
    checksums = small_set(folder)
    trust(monkeypatch, torchvision.datasets.FashionMNIST, resources=list(checksums.items()))
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
          train_list=[[f"data_batch_{i}", pickled(f"data_batch_{i}", batch)]
                      for i in (1, 2, 3, 4, 5)],
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


def painted(folder, names, size=(178, 218)):
    """Pictures of grey 50 i, the i-th of the names, with a black margin of 20 above and below."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[20:-20] = 50 * i
        Image.fromarray(picture).save(folder / name)


def test_celebas_faces_are_whole_and_divided_by_their_numbers(tmp_path, offline):
    names = ["000001.jpg", "000002.jpg", "162770.jpg", "162771.jpg", "182638.jpg"]
    painted(tmp_path / "celeba" / "img_align_celeba", names)
    images = data.celeba(True, tmp_path, size=32)
    assert images.pixels.shape == (3, 3, 32, 32) and images.pixels.dtype == torch.uint8
    assert images.labels.tolist() == [0, 0, 0]
    middle = images.pixels[:, :, 16].float().mean((1, 2)).tolist()
    assert middle == pytest.approx([0, 50, 100], abs=1)
    assert images.pixels[2, :, 0].max() < 10  # the margin above is there: nothing was cut away
    assert len(data.celeba(True, tmp_path, size=8, limit=2)) == 2
    test = data.celeba(False, tmp_path, size=8).pixels
    assert test.shape == (1, 3, 8, 8) and test[0, :, 4].float().mean().item() == pytest.approx(200, abs=1)


def test_faces_of_another_part_are_missed_in_a_sentence(tmp_path, offline):
    painted(tmp_path / "celeba" / "img_align_celeba", ["000001.jpg", "000002.jpg"])
    with refused(RuntimeError, "holds none of the pictures numbered 182,638 to 202,599. Unpack"):
        data.celeba(False, tmp_path)


def test_a_folder_of_pictures_is_cropped_to_squares_and_resized(tmp_path):
    painted(tmp_path, ["a.png", "b.jpg"], (300, 140))
    painted(tmp_path / "more", ["c.webp"], (60, 100))
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    images = data.folder(tmp_path, 16)
    assert images.pixels.shape == (3, 3, 16, 16) and images.labels.tolist() == [0, 0, 0]
    assert images.pixels[1, :, 8].float().mean().item() == pytest.approx(50, abs=1)


def test_a_picture_is_upright_and_its_transparent_parts_are_white(tmp_path):
    half = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    half.paste((255, 0, 0, 255), (0, 0, 32, 16))  # red above
    turned = half.getexif()
    turned[0x0112] = 3  # the camera was upside down
    half.save(tmp_path / "a.png", exif=turned)
    pixels = data.folder(tmp_path).pixels[0]
    assert pixels[:, 2, 2].tolist() == [255, 255, 255] and pixels[:, 29, 2].tolist() == [255, 0, 0]


def test_a_picture_of_16_bits_a_pixel_keeps_its_greys(tmp_path):
    ramp = np.linspace(0, 65535, 32).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / "one.png")
    pixels = data.folder(tmp_path).pixels
    assert pixels[0, :, 0].tolist() == [(ramp // 256).tolist()] * 3


def test_pictures_that_cannot_be_read_are_named_in_one_sentence(tmp_path):
    painted(tmp_path, ["good.png"])
    for name in ("a.png", "b.jpg", "c.png", "d.png"):
        (tmp_path / name).write_bytes(b"no picture")
    half = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(half[:len(half) // 2])
    with refused(RuntimeError, "5 of 6 pictures cannot be read: a.png, b.jpg, c.png and 2 more"):
        data.folder(tmp_path)


@pytest.mark.parametrize("make, sentence", [
    (None, "There is no folder .*nowhere. Make it and put pictures there"),
    ([], "holds no pictures .*.jpg, .*Put some there")])
def test_a_folder_without_pictures_is_a_sentence(make, sentence, tmp_path):
    folder = tmp_path / "nowhere"
    if make is not None:
        painted(folder, make)
    with refused(RuntimeError, sentence):
        data.folder(folder)


def test_a_picture_far_too_large_is_named_like_any_other(tmp_path, monkeypatch):
    painted(tmp_path, ["good.png", "large.png"])
    Image.new("RGB", (400, 400)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # Pillow refuses twice as many
    with refused(RuntimeError, "1 of 2 pictures cannot be read: large.png"):
        data.folder(tmp_path)


def test_mirrored_pictures_stand_behind_the_others():
    pixels = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).reshape(2, 3, 2, 4)
    both = data.mirrored(data.Images(pixels, torch.tensor([1, 2])))
    assert torch.equal(both.pixels[:2], pixels) and both.labels.tolist() == [1, 2, 1, 2]
    assert torch.equal(both.pixels[2:, ..., 0], pixels[..., 3])
