"""Perceptual distances: LPIPS is the lpips package's own, the classifier's is what its docstring says, and no other."""
import re
import urllib.error

import lpips
import pytest
import torch
import torch.nn.functional as F
import torchvision.models._api
from conftest import refused
from safetensors.torch import load_file, save_file

from dmdkit import data, perceptual, store

pytestmark = pytest.mark.filterwarnings("ignore:.*(pretrained|weight enum).*:UserWarning")  # how lpips asks torchvision
NETS = ("squeeze", "alex")  # vgg takes seconds to fill with random weights, and its code is the same


@pytest.fixture(scope="module")
def random_lpips(tmp_path_factory) -> dict:
    """By network: the lpips package's own LPIPS with a random trunk, and that trunk in torchvision's file format."""
    torch.manual_seed(0)
    made = {}
    for net in NETS:
        own = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        with torch.no_grad():  # biases start as zeros, and zeros would hide one that was not loaded
            weights = {name: value.normal_(0, 0.1) if name.endswith("bias") else value
                       for name, value in own.net.state_dict().items()}
        path = tmp_path_factory.mktemp("trunk") / f"{net}.safetensors"
        save_file({f"features.{name.split('.', 1)[1]}": value.clone() for name, value in weights.items()}, path)
        made[net] = own, path
    return made


@pytest.fixture
def two(test_images) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches of digits, in [−1, 1]."""
    return data.scale(test_images.pixels[:6]), data.scale(test_images.pixels[6:12])


@pytest.fixture(scope="module", params=[kind for kind in perceptual.KINDS if kind != "lpips-vgg"])
def distance(request, random_lpips):
    net = request.param.removeprefix("lpips-")
    return perceptual.distance(request.param, random_lpips[net][1] if net in NETS else None)


# What every distance is

def test_a_distance_is_zero_between_equal_images_and_positive_and_symmetric_between_others(distance, two):
    x, y = two
    with torch.no_grad():
        assert distance(x, y).shape == (6,) and (distance(x, y) > 1e-4).all()
        assert torch.equal(distance(x, x), torch.zeros(6))
        torch.testing.assert_close(distance(x, y), distance(y, x))
        torch.testing.assert_close(distance(x[2:3], y[2:3]), distance(x, y)[2:3], rtol=1e-3, atol=1e-6)  # one by one


def test_the_gradient_reaches_the_image_and_no_weight(distance, two):
    x, y = two
    x = x.clone().requires_grad_()
    distance(x, y).sum().backward()
    assert (x.grad.flatten(1).norm(dim=1) > 1e-6).all()
    if isinstance(distance, torch.nn.Module):
        assert all(p.grad is None and not p.requires_grad for p in distance.parameters())
        assert not any(module.training for module in distance.modules() if not list(module.children()))  # no dropout


def test_moving_against_the_gradient_brings_the_images_together(distance, two):
    x, y = two
    x = (0.7 * x + 0.3 * y).requires_grad_()
    before = distance(x, y)
    gradient, = torch.autograd.grad(before.sum(), x)
    with torch.no_grad():
        step = 1e-2 * gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        assert (distance(x - step, y) < before).all()


# The mean squared error, and the kit's own

def test_squared_is_the_mean_squared_error(two):
    x, y = two
    wanted = [F.mse_loss(a, b) for a, b in zip(x, y)]
    torch.testing.assert_close(perceptual.distance("squared")(x, y), torch.stack(wanted))


@pytest.mark.parametrize("name, places, shapes", [
    ("classifier", range(5), [(24, 28, 28), (48, 14, 14), (48, 14, 14), (96, 7, 7), (96, 7, 7)]),
    ("judge", (2, 6), [(32, 28, 28), (64, 14, 14)])])
def test_a_classifiers_distance_is_lpips_formula_on_its_layers_by_hand(two, name, places, shapes):
    """With features from hooks in the whole classifier."""
    classifier, seen = store.load(name), []
    for place in places:
        classifier.body[place].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        classifier(torch.cat(two))
        assert [h.shape[1:] for h in seen] == shapes
        layers = [(F.normalize(h[:6], dim=1) - F.normalize(h[6:], dim=1)).square().sum(1).mean((1, 2)) for h in seen]
        torch.testing.assert_close(perceptual.distance(name)(*two), sum(layers) / len(places), rtol=1e-4, atol=1e-6)


def test_one_place_of_one_layer_by_hand():
    """Features (3, 0) of a pixel 1, and (6, 8) of a pixel 2: of unit length (1, 0) and (0.6, 0.8)."""
    class Two(torch.nn.Module):
        def forward(self, x):
            return torch.cat([3 * x, 4 * x * (x - 1)], 1)

    one, x = perceptual.LayerDistance(torch.nn.Sequential(Two(), torch.nn.Identity()), (1,)), torch.ones(1, 1, 1, 1)
    assert one(x, x).item() == 0 and one(2 * x, x).item() == pytest.approx(0.4**2 + 0.8**2)


def test_the_classifiers_distance_sees_strokes_where_the_squared_error_sees_pixels(test_images):
    """A digit moved by a pixel is nearer than another digit, by far more than by the mean squared error."""
    x = data.scale(test_images.pixels[:100])
    ratios = {}
    for kind in ("squared", "classifier"):
        distance = perceptual.distance(kind)
        with torch.no_grad():
            ratios[kind] = (distance(x.roll(1, 3), x).mean() / distance(x.roll(1, 0), x).mean()).item()
    assert ratios["classifier"] < 0.8 * ratios["squared"]


# LPIPS

@pytest.mark.parametrize("net", NETS)
def test_lpips_is_the_packages_own_on_the_image_in_three_channels_with_a_margin(random_lpips, two, net):
    own, path = random_lpips[net]
    x, y = two
    framed = [torch.full((6, 3, 32, 32), -1.0) for _ in two]
    for frame, image in zip(framed, two):
        frame[:, :, 2:30, 2:30] = image
    with torch.no_grad():
        wanted, without_margin = own(*framed).flatten(), own(F.pad(x, [3] * 4).expand(-1, 3, -1, -1),
                                                             F.pad(y, [3] * 4).expand(-1, 3, -1, -1)).flatten()
        got = perceptual.distance(f"lpips-{net}", path)(x, y)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(got, without_margin, rtol=1e-3)


def test_larger_images_and_those_in_colour_have_no_margin(random_lpips):
    own, path = random_lpips["squeeze"]
    x, y = torch.rand(2, 2, 3, 40, 40) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(perceptual.distance("lpips-squeeze", path)(x, y), own(x, y).flatten())


def test_the_environment_variable_names_the_trunk(random_lpips, two, monkeypatch, tmp_path):
    _, path = random_lpips["squeeze"]
    with torch.no_grad():
        wanted = perceptual.distance("lpips-squeeze", path)(*two)
        monkeypatch.setenv("DMDKIT_LPIPS_SQUEEZE", str(path))
        assert torch.equal(perceptual.distance("lpips-squeeze")(*two), wanted)
        monkeypatch.setenv("DMDKIT_LPIPS_SQUEEZE", str(tmp_path / "none"))
        assert torch.equal(perceptual.distance("lpips-squeeze", path)(*two), wanted)  # what is given comes first
    with refused(RuntimeError, f"There is no LPIPS trunk at {re.escape(str(tmp_path / 'none'))}. Check the path"):
        perceptual.distance("lpips-squeeze")


# What it says

def test_it_says_once_which_distance_it_is(capsys):
    perceptual._say.cache_clear()
    for kind in ("squared", "squared", "classifier", "squared", "classifier"):
        perceptual.distance(kind)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Perceptual distance: the mean squared error." and "this is not LPIPS" in second


def test_an_unknown_distance_is_one_sentence():
    with refused(ValueError, "must be one of lpips-alex, lpips-vgg, lpips-squeeze, classifier, .*; got 'ssim'"):
        perceptual.distance("ssim")


def test_the_trunk_of_another_network_is_one_sentence(random_lpips):
    path = random_lpips["alex"][1]
    with refused(RuntimeError, f"{re.escape(str(path))} is not the trunk of lpips-squeeze: features.0.weight is missing"
                               r" there or has another shape than \(64, 3, 3, 3\)"):
        perceptual.distance("lpips-squeeze", path)


def test_a_trunk_without_one_of_its_layers_is_one_sentence(random_lpips, tmp_path):
    weights = load_file(random_lpips["squeeze"][1])
    weights.pop("features.12.expand3x3.bias")
    save_file(weights, tmp_path / "part.safetensors")
    with refused(RuntimeError, "part.safetensors is not the trunk of lpips-squeeze: features.12.expand3x3.bias is"):
        perceptual.distance("lpips-squeeze", tmp_path / "part.safetensors")


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
def test_a_trunk_cut_short_is_one_sentence(random_lpips, tmp_path, share):
    whole, path = random_lpips["squeeze"][1].read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(whole[:int(share * len(whole))])
    with refused(RuntimeError, "cut.safetensors is not a whole safetensors file .* Convert torchvision's weights"):
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
    with refused(RuntimeError, "could not download the trunk of lpips-squeeze .*no network here.*; let the environment "
                               "variable DMDKIT_LPIPS_SQUEEZE name .*, or take the distance 'classifier'"):
        perceptual.distance("lpips-squeeze")
