"""Networks: U-Nets of any size, the classes by name, and what importing them costs."""
import json
import subprocess
import sys

import pytest
import torch
from conftest import refused
from torch import nn

from dmdkit import nets, networks, schedule
from dmdkit.data import ROOT
from dmdkit.denoiser import Denoiser


# U-Nets

def test_a_unet_is_made_for_its_images():
    net = nets.unet((3, 32, 16), (16, 24, 32), patch=2, n_classes=5, layers=2)
    config = net.config
    assert (config.in_channels, config.out_channels, config.sample_size) == (12, 12, (16, 8))
    assert tuple(config.block_out_channels) == (16, 24, 32) and config.layers_per_block == 2
    assert config.num_class_embeds == 6
    x, t, label = torch.randn(2, 12, 16, 8), torch.tensor([3, 900]), torch.tensor([0, 5])
    assert net(x, t, class_labels=label).sample.shape == x.shape


def test_without_classes_a_unet_takes_no_labels():
    net = nets.unet((1, 8, 8), (8,), outputs=2)
    assert net.config.num_class_embeds is None and net.config.sample_size == 8
    assert net(torch.randn(2, 1, 8, 8), torch.tensor([3, 900])).sample.shape == (2, 2, 8, 8)


def test_the_teachers_network_is_what_the_shipped_weights_are_of():
    made = nets.unet((1, 28, 28), (32, 64), patch=2, n_classes=10).config
    shipped = json.loads((ROOT / "teacher" / "config.json").read_text(encoding="utf-8"))
    made = json.loads(json.dumps({name: made[name] for name in shipped if name[0] != "_"}))
    assert made == {name: value for name, value in shipped.items() if name[0] != "_"}


@pytest.mark.parametrize("arguments, options, sentence", [
    (((28, 28), (32,)), {}, r"shape must be \(C, H, W\); got \(28, 28\)"),
    (((1, 28, 28), ()), {}, r"channels must be multiples of 8, one a level; got \(\)"),
    (((1, 28, 28), (12,)), {}, r"channels must be multiples of 8, one a level; got \(12,\)"),
    (((1, 28, 28), (8, 8)), {"patch": 4}, "patch = 4 and 2 levels .* multiples of 8; got 28 × 28"),
    (((1, 32, 30), (8, 8, 8)), {}, "patch = 1 and 3 levels .* multiples of 4; got 32 × 30"),
    (((1, 28, 28), (8,)), {"patch": 0}, "patch must be a whole number of at least 1; got 0"),
])
def test_sizes_that_do_not_fit_are_refused(arguments, options, sentence):
    with refused(ValueError, sentence):
        nets.unet(*arguments, **options)


# Classes by name

def test_a_class_is_had_by_its_name_and_nothing_else():
    for name in ("UNet2DModel", "PointMLP", "ContextUNet", "SmoothClassifier", "PoolingClassifier"):
        assert nets.network_class(name).__name__ == name and nets.NETWORKS[name].from_pretrained
    assert nets.PointMLP is networks.PointMLP and nets.build("PointMLP", 8).config.width == 8
    for name in ("DigitClassifier", "", None, ["PointMLP"]):
        with refused(ValueError, "A network is one of UNet2DModel, PointMLP, .*; got "):
            nets.network_class(name)
    with pytest.raises(AttributeError, match="no attribute 'PointNet'"):
        nets.PointNet


def test_importing_the_ground_imports_neither_diffusers_nor_torchmetrics():
    """They take seconds, which a look at a card need not wait for."""
    modules = "data, denoiser, metrics, nets, sample, schedule, score"
    code = (f"import sys; from dmdkit import {modules}; "
            "print([name for name in ('diffusers', 'torchmetrics', 'scipy', 'torchvision') "
            "if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# Classifiers, and the discriminator's head

@pytest.mark.parametrize("name", ["classifier", "judge"])
def test_a_shipped_classifiers_config_says_its_size(name):
    config = json.loads((ROOT / name / "config.json").read_text(encoding="utf-8"))
    assert (config["in_channels"], config["size"], config["n_classes"]) == (1, 28, 10)
    fresh = nets.network_class(config["_class_name"]).from_config(config)
    shipped = type(fresh).from_pretrained(ROOT / name, low_cpu_mem_usage=False)
    assert fresh.state_dict().keys() == shipped.state_dict().keys()


@torch.no_grad()
@pytest.mark.parametrize("size", [28, 32, 30, 17])
@pytest.mark.parametrize("name, n_features", [("SmoothClassifier", 96), ("PoolingClassifier", 256)])
def test_a_classifier_takes_images_of_its_size(name, n_features, size):
    net = nets.build(name, 3, size, n_classes=4).eval()
    x = torch.randn(2, 3, size, size)
    assert net.features(x).shape == (2, n_features)
    assert net(x).shape == (2, 4) and torch.equal(net(x), net.head(net.features(x)))


@pytest.mark.parametrize("name", ["SmoothClassifier", "PoolingClassifier"])
def test_a_classifiers_size_is_required(name):
    with pytest.raises(TypeError, match="missing .* required positional arguments"):
        nets.build(name)


@pytest.mark.parametrize("size", [1, 4, 7, (8, 5)])
def test_a_discriminator_sees_where_a_feature_is(size):
    height, width = (size, size) if isinstance(size, int) else size
    torch.manual_seed(0)
    head = nets.DiscriminatorHead((16, height, width))
    features = torch.randn(3, 16, height, width)
    logits = head(features)
    assert logits.shape == (3,)
    if height > 1:
        moved = head(features.roll(1, 2))
        assert not torch.allclose(moved, logits, atol=1e-3)


def test_a_discriminator_of_points_has_a_logit_a_point():
    assert nets.DiscriminatorHead((16,))(torch.randn(5, 16)).shape == (5,)


# The documented small U-Net

def context(n_classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nets.ContextUNet((1, 28, 28), 8, n_classes=n_classes).eval()


def test_the_documented_network_has_as_many_parameters_as_is_said():
    net = nets.ContextUNet((1, 28, 28), n_classes=10)
    assert sum(p.numel() for p in net.parameters()) == 6_585_601


def test_it_depends_on_time_and_label_and_no_class_is_no_digit():
    net, x = context(), torch.randn(1, 1, 28, 28)

    def call(t, label):
        return net(x, torch.tensor([t]), torch.tensor([label])).sample

    assert call(0, 3).shape == x.shape
    seen = [call(0, 3), call(399, 3), *(call(0, label) for label in (0, 9, 10))]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert torch.equal(net(x, torch.tensor([0])).sample, call(0, 10))


def test_each_sample_of_a_batch_is_on_its_own():
    """As batch norm's would not be: three networks of equal weights have to be one function."""
    net, x = context().train(), torch.randn(4, 1, 28, 28)
    t, y = torch.tensor([0, 9, 200, 399]), torch.tensor([0, 5, 9, 10])
    alone = [net(x[i:i + 1], t[i:i + 1], y[i:i + 1]).sample for i in range(4)]
    torch.testing.assert_close(net(x, t, y).sample, torch.cat(alone), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("n_classes", [0, 3])
def test_it_is_made_for_other_images_too_and_comes_back_from_its_folder(tmp_path, n_classes):
    net = nets.ContextUNet((3, 16, 24), 8, n_classes=n_classes)
    denoiser = Denoiser(net, schedule.linear(), "eps", n_classes=n_classes)
    assert denoiser.sample_shape == (3, 16, 24)
    net.save_pretrained(tmp_path)
    again = nets.ContextUNet.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    loaded = Denoiser(again, schedule.linear(), "eps", n_classes=n_classes)
    x_t = torch.randn(2, 3, 16, 24)
    assert loaded.sample_shape == (3, 16, 24) and torch.equal(loaded(x_t, 5).x, denoiser(x_t, 5).x)


def test_sides_that_4_does_not_divide_are_refused():
    with refused(ValueError, r"sides that 4 divides; got \(1, 28, 30\)"):
        nets.ContextUNet((1, 28, 30), 8)


# The network for points

@pytest.mark.parametrize("frequencies", [0, 3])
def test_the_copies_of_a_network_are_independent(frequencies):
    net = nets.PointMLP(width=16, depth=2, copies=3, frequencies=frequencies)
    x, t = torch.randn(12, 2), torch.randint(0, 1024, (12,))
    together = net(x, t).sample
    assert together.shape == (12, 2)
    for i in range(3):
        part = slice(4 * i, 4 * i + 4)
        torch.testing.assert_close(net.copy(i)(x[part], t[part]).sample, together[part])
    together[4:8].sum().backward()  # the second copy's own
    for weight in net.parameters():
        assert weight.grad[1].abs().sum() > 0 and weight.grad[[0, 2]].abs().sum() == 0
    alike = net(x[:4].repeat(3, 1), t[:4].repeat(3)).sample
    assert not torch.allclose(alike[:4], alike[4:8])  # they start from weights of their own


def test_the_network_knows_the_time_and_the_sign_of_a_point():
    net, x = nets.PointMLP(frequencies=2), torch.randn(5, 2)

    def at(x, t):
        return net(x, torch.full((len(x),), t)).sample

    assert not torch.allclose(at(x, 3), at(x, 900)) and not torch.allclose(at(x, 3), at(-x, 3))
    torch.testing.assert_close(at(x, 3)[:2], at(x[:2], 3))


def test_points_that_cannot_be_divided_among_the_copies_are_refused():
    with refused(ValueError, "must be a multiple of the network's 3 copies; got 4"):
        nets.PointMLP(8, copies=3)(torch.randn(4, 2), torch.zeros(4, dtype=torch.int64))


def test_the_bottleneck_of_points_is_their_last_hidden_layer():
    net = nets.PointMLP(16, 2, copies=2)
    denoiser = Denoiser(net, schedule.cosine(), n_classes=0)
    x, t = torch.randn(6, 2), torch.full((6,), 5)
    h = denoiser.bottleneck(x, 5)
    assert h.shape == (6, 16)
    last = torch.baddbmm(net.biases[-1], h.unflatten(0, (2, 3)), net.weights[-1]).flatten(0, 1)
    torch.testing.assert_close(last, net(x, t).sample)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2), (4,), (4, 2, 1, 1)])
def test_a_denoiser_of_points_refuses_what_are_none(shape):
    denoiser = Denoiser(nets.PointMLP(), schedule.cosine(), "v", n_classes=0)
    with refused(ValueError, r"samples must have shape \(B, 2\); got"):
        denoiser(torch.randn(shape), 5)
