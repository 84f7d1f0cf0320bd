"""Perceptual distances: LPIPS is the lpips package's own, the classifier's is what its docstring
says, and no other."""
import re
import urllib.error

import lpips
import pytest
import torch
import torch.nn.functional as F
import torchvision.models._api
from accelerate import PartialState
from conftest import refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmdkit import data, store, train
from dmdkit.methods import perceptual
from dmdkit.methods.perceptual import LayerDistance
from dmdkit.tasks.mnist import MNIST
from dmdkit.tasks.plane import MIXTURES, plane

# how lpips asks torchvision
pytestmark = pytest.mark.filterwarnings("ignore:.*(pretrained|weight enum).*:UserWarning")
NETS = ("squeeze", "alex")  # vgg takes seconds to fill with random weights; its code is the same
KINDS = ("squared", "classifier", "judge", *(f"lpips-{net}" for net in NETS))


@pytest.fixture(scope="module")
def random_lpips(tmp_path_factory) -> dict:
    """By network: the lpips package's own LPIPS with a random trunk, and that trunk in
    torchvision's file format."""
    torch.manual_seed(0)
    made = {}
    for net in NETS:
        own = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        weights = {}
        for name, value in own.net.state_dict().items():
            if name.endswith("bias"):  # they start as zeros, which would hide one not loaded
                value.normal_(0, 0.1)
            weights[f"features.{name.split('.', 1)[1]}"] = value.clone()
        path = tmp_path_factory.mktemp("trunk") / f"{net}.safetensors"
        save_file(weights, path)
        made[net] = own, path
    return made


@pytest.fixture
def two(test_images) -> tuple[Tensor, Tensor]:
    """Two batches of digits, in [−1, 1]."""
    return data.scale(test_images.pixels[:6]), data.scale(test_images.pixels[6:12])


@pytest.fixture(scope="module", params=KINDS)
def distance(request, random_lpips):
    kind = request.param
    if kind.startswith("lpips"):
        return perceptual.distance(kind, random_lpips[kind.removeprefix("lpips-")][1])
    return MNIST.distance(kind)


# What every distance is

def test_a_distance_is_zero_between_equal_images_and_positive_and_symmetric_between_others(
        distance, two):
    x, y = two
    with torch.no_grad():
        found = distance(x, y)
        assert found.shape == (6,) and (found > 1e-4).all()
        assert torch.equal(distance(x, x), torch.zeros(6))
        torch.testing.assert_close(found, distance(y, x))
        one = distance(x[2:3], y[2:3])  # one by one
        torch.testing.assert_close(one, found[2:3], rtol=1e-3, atol=1e-6)


def test_the_gradient_reaches_the_image_and_no_weight(distance, two):
    x, y = two
    x = x.clone().requires_grad_()
    distance(x, y).sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 1e-6).all()
    if isinstance(distance, torch.nn.Module):
        assert all(p.grad is None and not p.requires_grad for p in distance.parameters())
        leaves = [module for module in distance.modules() if not list(module.children())]
        assert not any(module.training for module in leaves)  # no dropout


def test_moving_against_the_gradient_brings_the_images_together(distance, two):
    x, y = two
    x = (0.7 * x + 0.3 * y).requires_grad_()
    before = distance(x, y)
    gradient, = torch.autograd.grad(before.sum(), x)
    with torch.no_grad():
        step = 1e-2 * gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        assert (distance(x - step, y) < before).all()


def test_what_would_broadcast_or_are_pixels_is_refused(distance, two):
    x, y = two
    for other in (y[:1], y[:, 0]):
        with refused(ValueError, "x and y must have one shape"):
            distance(x, other)
    with refused(TypeError, "y must be floating-point numbers; got torch.uint8"):
        distance(x, data.to_uint8(y))


# The mean squared error, and the kit's own

def test_squared_is_the_mean_squared_error(two):
    x, y = two
    wanted = torch.stack([F.mse_loss(a, b) for a, b in zip(x, y)])
    torch.testing.assert_close(perceptual.distance("squared")(x, y), wanted)
    points = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    assert perceptual.squared_distance(*points).tolist() == [5.0]


@pytest.mark.parametrize("name, places, shapes", [
    ("classifier", range(5), [(24, 28, 28), (48, 14, 14), (48, 14, 14), (96, 7, 7), (96, 7, 7)]),
    ("judge", (2, 6), [(32, 28, 28), (64, 14, 14)])])
def test_a_classifiers_distance_is_lpips_formula_on_its_layers_by_hand(two, name, places, shapes):
    """With features from hooks in the whole classifier."""
    classifier, seen = store.load(name), []
    for place in places:
        layer = classifier.body[place]
        layer.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        classifier(torch.cat(two))
        found = MNIST.distance(name)(*two)
    assert [h.shape[1:] for h in seen] == shapes
    total = 0.0
    for h in seen:
        unit = F.normalize(h, dim=1)
        total = total + (unit[:6] - unit[6:]).square().sum(1).mean((1, 2))
    torch.testing.assert_close(found, total / len(places), rtol=1e-4, atol=1e-6)


def test_one_place_of_one_layer_by_hand():
    """Features (3, 0) of a pixel 1, (6, 8) of a pixel 2: of unit length (1, 0) and (0.6, 0.8)."""
    class Two(torch.nn.Module):
        def forward(self, x):
            return torch.cat([3 * x, 4 * x * (x - 1)], 1)

    one = LayerDistance(torch.nn.Sequential(Two(), torch.nn.Identity()), (1,))
    x = torch.ones(1, 1, 1, 1)
    assert one(x, x).item() == 0 and one(2 * x, x).item() == pytest.approx(0.4**2 + 0.8**2)


def test_the_classifiers_distance_sees_strokes_where_the_squared_error_sees_pixels(test_images):
    """A digit moved by a pixel is nearer than another digit, by far more than by the mean squared
    error."""
    x = data.scale(test_images.pixels[:100])
    ratios = {}
    for kind in ("squared", "classifier"):
        distance = MNIST.distance(kind)
        with torch.no_grad():
            moved, others = distance(x.roll(1, 3), x).mean(), distance(x.roll(1, 0), x).mean()
        ratios[kind] = (moved / others).item()
    assert ratios["classifier"] < 0.8 * ratios["squared"]


# LPIPS

@pytest.mark.parametrize("net", NETS)
def test_lpips_is_the_packages_own_on_the_image_in_three_channels_with_a_margin(
        random_lpips, two, net):
    own, path = random_lpips[net]
    framed, wide = [], []
    for image in two:
        frame = torch.full((6, 3, 32, 32), -1.0)
        frame[:, :, 2:30, 2:30] = image
        framed.append(frame)
        wide.append(F.pad(image, [3] * 4).expand(-1, 3, -1, -1))
    with torch.no_grad():
        wanted, without_margin = own(*framed).flatten(), own(*wide).flatten()
        got = perceptual.distance(f"lpips-{net}", path)(*two)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(got, without_margin, rtol=1e-3)


def test_larger_images_and_those_in_colour_have_no_margin(random_lpips):
    own, path = random_lpips["squeeze"]
    x, y = torch.rand(2, 2, 3, 40, 40) * 2 - 1
    with torch.no_grad():
        found = perceptual.distance("lpips-squeeze", path)(x, y)
        torch.testing.assert_close(found, own(x, y).flatten())


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 28, 28), (4, 28, 28)])
def test_lpips_refuses_what_are_no_images(random_lpips, shape):
    distance = perceptual.distance("lpips-squeeze", random_lpips["squeeze"][1])
    with refused(ValueError, r"LPIPS compares images \(B, C, H, W\) of one or three channels; got"):
        distance(torch.zeros(shape), torch.zeros(shape))


def test_the_environment_variable_names_the_trunk(random_lpips, two, monkeypatch, tmp_path):
    _, path = random_lpips["squeeze"]
    with torch.no_grad():
        wanted = perceptual.distance("lpips-squeeze", path)(*two)
        monkeypatch.setenv("DMDKIT_LPIPS_SQUEEZE", str(path))
        assert torch.equal(perceptual.distance("lpips-squeeze")(*two), wanted)
        monkeypatch.setenv("DMDKIT_LPIPS_SQUEEZE", str(tmp_path / "none"))
        given = perceptual.distance("lpips-squeeze", path)  # what is given comes first
        assert torch.equal(given(*two), wanted)
    there = re.escape(str(tmp_path / "none"))
    with refused(RuntimeError, f"There is no LPIPS trunk at {there}. Check the path"):
        perceptual.distance("lpips-squeeze")


def test_the_trunk_that_ships_gives_lpips_values_offline(two, monkeypatch):
    """To three digits what the package gives on these digits with torchvision's weights in full
    precision, by which it reproduced the values published with its example images."""
    monkeypatch.delenv("DMDKIT_LPIPS_ALEX", raising=False)
    in_full = torch.tensor([0.03639, 0.08804, 0.22066, 0.10644, 0.09302, 0.17584])
    with torch.no_grad():
        found = perceptual.distance("lpips-alex")(*two)
    torch.testing.assert_close(found, in_full, rtol=1e-3, atol=0)


def test_a_damaged_trunk_that_ships_is_one_sentence(monkeypatch, tmp_path):
    shipped = perceptual.SHIPPED["alex"].read_bytes()
    damaged = tmp_path / "alex.safetensors"
    damaged.write_bytes(shipped[:-1] + bytes([shipped[-1] ^ 1]))
    monkeypatch.setitem(perceptual.SHIPPED, "alex", damaged)
    with refused(RuntimeError, "alex.safetensors is damaged.*checksum"):
        perceptual.distance("lpips-alex")


# What it says

def test_it_says_once_which_distance_it_is(capsys):
    perceptual.announce.cache_clear()
    for kind in ("squared", "classifier", "squared", "classifier"):
        MNIST.distance(kind)
    said, = capsys.readouterr().out.splitlines()
    assert said == "Distance of the regression: classifier of the task mnist."


@pytest.mark.parametrize("kind", ["squared", "classifier"])
def test_choosing_a_distance_does_not_choose_the_device_of_the_process(kind, monkeypatch):
    """Or a training that asks for the CPU afterwards would be refused on a machine with a GPU."""
    monkeypatch.setattr(PartialState, "_shared_state", {})
    perceptual.announce.cache_clear()
    MNIST.distance(kind)
    assert PartialState._shared_state == {}


def test_of_several_processes_only_one_speaks(capsys, monkeypatch):
    train.accelerator(cpu=True)
    monkeypatch.setattr(PartialState, "is_main_process", False)
    perceptual.announce.cache_clear()
    perceptual.announce("what only one says")
    assert capsys.readouterr().out == ""


# Bad input

def test_an_unknown_distance_is_one_sentence():
    known = "squared, lpips-alex, lpips-vgg, lpips-squeeze"
    with refused(ValueError, f"A distance must be one of {known}; got 'ssim'"):
        perceptual.distance("ssim")
    with refused(ValueError, f"mnist has no distance 'ssim'; it has classifier, judge, {known}"):
        MNIST.distance("ssim")
    with refused(ValueError, f"no distance 'classifier'; it has {known}"):
        plane("two modes", MIXTURES["two modes"]).distance("classifier")


def test_a_trunk_that_would_be_ignored_is_refused(random_lpips):
    with refused(ValueError, "The squared distance has no trunk. Leave it out, or take LPIPS"):
        perceptual.distance("squared", random_lpips["alex"][1])


def test_the_trunk_of_another_network_is_one_sentence(random_lpips):
    path = random_lpips["alex"][1]
    sentence = (f"{re.escape(str(path))} is not the trunk of lpips-squeeze: features.0.weight is "
                r"missing or has another shape than \(64, 3, 3, 3\)")
    with refused(RuntimeError, sentence):
        perceptual.distance("lpips-squeeze", path)


def test_a_trunk_without_one_of_its_layers_is_one_sentence(random_lpips, tmp_path):
    weights = load_file(random_lpips["squeeze"][1])
    weights.pop("features.12.expand3x3.bias")
    save_file(weights, tmp_path / "part.safetensors")
    sentence = ("part.safetensors is not the trunk of lpips-squeeze: "
                "features.12.expand3x3.bias is missing")
    with refused(RuntimeError, sentence):
        perceptual.distance("lpips-squeeze", tmp_path / "part.safetensors")


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_a_trunk_cut_short_is_one_sentence(random_lpips, tmp_path, share):
    whole, path = random_lpips["squeeze"][1].read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(whole[:int(share * len(whole))])
    sentence = "cut.safetensors is not a whole safetensors file .* Convert torchvision's weights"
    with refused(RuntimeError, sentence):
        perceptual.distance("lpips-squeeze", path)


def test_a_missing_trunk_is_one_sentence(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with refused(RuntimeError, f"There is no LPIPS trunk at {re.escape(str(path))}"):
            perceptual.distance("lpips-squeeze", path)


def test_a_download_that_fails_names_the_variable_and_the_alternative(monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network here")

    monkeypatch.delenv("DMDKIT_LPIPS_SQUEEZE", raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    sentence = ("could not download the trunk of lpips-squeeze .*no network here.*; let the "
                "environment variable DMDKIT_LPIPS_SQUEEZE name .*, or take lpips-alex, whose trunk ships")
    with refused(RuntimeError, sentence):
        perceptual.distance("lpips-squeeze")
