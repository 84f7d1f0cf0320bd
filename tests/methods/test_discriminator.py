"""The discriminator on the fake score's bottleneck, and a fake score that is told the step."""
import pytest
import torch
from conftest import refused
from painters import S, painter
from torch import nn

from dmdkit import nets
from dmdkit.denoiser import Denoiser
from dmdkit.methods import discriminator
from dmdkit.methods.discriminator import Discriminator
from dmdkit.tasks.mnist import MNIST


@torch.no_grad()
@pytest.mark.parametrize("network", ["network", "tiny"])
def test_a_discriminator_judges_what_the_middle_block_gives_and_leaves_the_way_up_out(network):
    torch.manual_seed(0)
    plain = MNIST.network(network)
    net, x = plain.net, torch.randn(4, 1, 28, 28)
    t, label = torch.tensor([0, 300, 700, 1023]), torch.tensor([0, 3, 9, 10])
    seen = []
    with net.mid_block.register_forward_hook(lambda module, given, out: seen.append(out)):
        said = plain(x, t, label)
    judge = Discriminator(plain)
    assert all(map(torch.equal, judge(x, t, label), said)) and judge.net is net
    assert all(map(torch.equal, judge(x, t, label, 1.5), plain(x, t, label, 1.5)))
    net.up_blocks[0].register_forward_hook(lambda *_: pytest.fail("the way up was evaluated"))
    assert torch.equal(plain.bottleneck(x, t, label), seen[0])
    logits = judge(x, t, label, judge=True)
    assert logits.shape == (4,) and torch.equal(logits, judge.head(seen[0]))
    assert len(logits.unique()) == 4 and judge(x[:1], 300, judge=True).shape == (1,)
    no_class = judge(x, torch.full((4,), 300), torch.full((4,), 10), judge=True)
    assert torch.equal(judge(x, 300, judge=True), no_class)
    with refused(ValueError, r"A judgment cannot be guided; got guidance 1\.5"):
        judge(x, t, label, 1.5, judge=True)


@torch.no_grad()
def test_a_discriminator_of_points_judges_their_last_hidden_layer():
    net = nets.PointMLP(8, 2)
    judge = Discriminator(Denoiser(net, S, n_classes=0))
    x, t = torch.randn(5, 2), torch.tensor([0, 300, 700, 1000, 1023])
    logits = judge(x, t, judge=True)
    assert torch.equal(logits, judge.head(net.bottleneck(x, t))) and logits.shape == (5,)
    assert len(logits.unique()) == 5


def test_a_network_without_a_bottleneck_is_refused():
    with refused(TypeError, r"Only a UNet2DModel has a bottleneck to look at; got Painter\."):
        Discriminator(painter(0.5, 1))


def test_frozen_ends_also_when_what_is_inside_fails():
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), discriminator.frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        1 / 0
    assert net.weight.requires_grad and not net.bias.requires_grad  # what it was


# Told the step

def test_a_step_aware_copy_says_for_every_step_what_the_original_says(tiny):
    aware, x = discriminator.step_aware(tiny, 3), torch.randn(4, 1, 28, 28)
    t, label = torch.tensor([0, 300, 700, 1023]), torch.tensor([0, 3, 9, 10])
    wanted = tiny(x, t, label)
    assert aware.n_classes == 32 and discriminator.label_shift(tiny, tiny, 2) == 0
    original = tiny.net.state_dict()
    rows = original["class_embedding.weight"]
    original["class_embedding.weight"] = torch.cat([rows] * 3)
    copied = aware.net.state_dict()  # exactly the same; what is computed may differ in a last bit
    assert copied.keys() == original.keys()
    assert all(torch.equal(copied[name], weight) for name, weight in original.items())
    for step in range(3):
        said = aware(x, t, label + discriminator.label_shift(tiny, aware, step))
        torch.testing.assert_close(said.v, wanted.v, rtol=0, atol=1e-4)
    with torch.no_grad():
        aware.net.class_embedding.weight[11:22] += 1
    torch.testing.assert_close(aware(x, t, label + 22).v, wanted.v, rtol=0, atol=1e-4)
    assert not torch.allclose(aware(x, t, label + 11).v, wanted.v, atol=1e-2)


def test_a_fake_score_without_classes_cannot_be_told_the_step():
    net = Denoiser(nets.unet((1, 8, 8), (8,)), S, n_classes=0)
    with refused(ValueError, "has no embedding of labels, so it cannot be told the step"):
        discriminator.step_aware(net, 2)
