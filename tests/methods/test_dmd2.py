"""DMD2: its losses by hand, what the discriminator sees, and who learns what."""
import copy
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import training_run
from conftest import refused
from painters import (ALONE, Judge, Recorder, adversarial, as_one_of, double,  # noqa: F401
                      drawn, generator, judged, learner, noised, painted_images, painter)
from torch import Tensor

from dmdkit.methods import dmd2
from dmdkit.methods.discriminator import Discriminator


def softplus(logit: float) -> float:
    return math.log1p(math.exp(logit))


# The losses

def test_the_adversarial_losses_by_hand(double):
    fake, real = (-2.0, 0.5, 3.0), (1.0, -0.5)
    by_hand = sum(softplus(-logit) for logit in fake) / 3
    assert dmd2.generator_loss(torch.tensor(fake)).item() == pytest.approx(by_hand, rel=1e-12)
    by_hand = sum(softplus(logit) for logit in fake) / 3
    by_hand += sum(softplus(-logit) for logit in real) / 2
    found = dmd2.discriminator_loss(torch.tensor(fake), torch.tensor(real)).item()
    assert found == pytest.approx(by_hand, rel=1e-12)
    clueless = torch.zeros(4)
    found = dmd2.discriminator_loss(clueless, clueless).item()
    assert found == pytest.approx(2 * math.log(2), rel=1e-12)


def test_the_generators_loss_pulls_hardest_where_the_discriminator_is_sure_and_never_overflows():
    fake = torch.tensor([-1000.0, 0.0, 1000.0], requires_grad=True)
    real = fake.detach().clone().requires_grad_()
    loss = dmd2.generator_loss(fake)
    assert loss.item() == pytest.approx((1000 + math.log(2)) / 3)
    slope, = torch.autograd.grad(loss, fake)
    assert (3 * slope).tolist() == pytest.approx([-1, -0.5, 0])
    to_fake, to_real = torch.autograd.grad(dmd2.discriminator_loss(fake, real), (fake, real))
    assert (3 * to_fake).tolist() == pytest.approx([0, 0.5, 1])
    assert (3 * to_real).tolist() == pytest.approx([-1, -0.5, 0])


# The step, with networks that one can follow by hand

def drawn_again(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """The times and the noise that one side of the discriminator draws."""
    return torch.randint(1024, (n,), generator=g), torch.randn(n, 1, 2, 2, generator=g)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_generators_adversarial_gradient_by_hand(double, weight):
    one, other, _, step = judged(6, matching=False, generator_weight=weight)
    values = step(generator(3))
    g = generator(3)
    z, _, label, _ = drawn(g, 6, 20, 1004)
    t, eps = drawn_again(g, 6)
    x_t = noised(0.5 * z + one.net.net.b.detach()[label], t, eps)
    logits = 0.3 * 0.4 * x_t.sum((1, 2, 3)) + other.net.d.detach()[label] + t / 1024
    alpha = torch.cos(math.pi / 2 * (t + 1) / 1024)
    slope = -weight / (1 + logits.exp()) * alpha * 0.3 * 0.4  # B dL/dx, every pixel's
    to_a, to_b = one.gradients[0]
    torch.testing.assert_close(to_a, (slope * z.sum((1, 2, 3))).sum() / 6)
    by_label = slope.reshape(-1, 1, 1, 1).expand(6, 1, 2, 2) / 6
    torch.testing.assert_close(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, by_label))
    by_hand = sum(softplus(-logit) for logit in logits.tolist()) / 6
    assert values["gan"].item() == pytest.approx(by_hand)
    assert values["gan gradient"].item() == pytest.approx(slope.abs().sum().item() * 2 / 6)


def test_the_generators_gradient_is_the_matching_terms_and_the_weighted_adversarial_terms(double):
    """And each term's gradient norm is what it is when the other is not there."""
    found = [judged(6, **changes)[::3] for changes in (
        {}, ALONE, dict(matching=False, generator_weight=1.0))]
    values = [step(generator(3)) for _, step in found]
    both, matching, gan = (one.gradients[0] for one, _ in found)
    for total, first, second in zip(both, matching, gan):
        assert first.abs().max() > 1e-3 and second.abs().max() > 1e-3
        torch.testing.assert_close(total, first + 0.25 * second)
    assert set(values[0]) == {"matching", "matching gradient", "gan", "gan gradient", "fake",
                              "discriminator"}
    assert set(values[1]) == {"matching", "matching gradient", "fake"}
    assert "matching" not in values[2]
    norms = {name: values[0][name].item() for name in ("matching gradient", "gan gradient")}
    assert norms == pytest.approx({
        "matching gradient": values[1]["matching gradient"].item(),
        "gan gradient": 0.25 * values[2]["gan gradient"].item()})


def test_the_discriminator_sees_both_sides_noised_each_at_times_and_with_labels_of_its_own(double):
    """Its update by hand: the denoising loss and 0.75 times the discriminator's."""
    one, other, _, step = judged(6)
    values, images, g = step(generator(3)), painted_images(), generator(3)
    drawn(g, 6, 20, 1004)
    drawn_again(g, 6)
    z, eps, label, t = drawn(g, 6, 0, 1024)
    index = torch.randint(7, (6,), generator=g)
    fake_at, fake_eps = drawn_again(g, 6)
    real_at, real_eps = drawn_again(g, 6)
    x = 0.5 * z + one.net.net.b.detach()[label]
    real = images.pixels[index] / 127.5 - 1
    sides = torch.cat([noised(x, fake_at, fake_eps), noised(real, real_at, real_eps)])
    at, labels = torch.cat([fake_at, real_at]), torch.cat([label, images.labels[index]])
    x_t, t_seen, label_seen = other.net.judged[1]
    torch.testing.assert_close(x_t, sides, rtol=1e-6, atol=1e-6)  # pixels are float32
    assert torch.equal(t_seen, at) and torch.equal(label_seen, labels)
    assert not torch.equal(*labels.chunk(2))
    assert not torch.equal(fake_at, real_at) and not torch.equal(fake_at, t)

    logits = 0.3 * 0.4 * sides.sum((1, 2, 3)) + other.net.d.detach()[labels] + at / 1024
    sign = torch.tensor([1.0] * 6 + [-1.0] * 6)
    slope = 0.75 * sign * torch.sigmoid(sign * logits) / 6
    by_hand = sum(softplus(logit) for logit in (sign * logits).tolist()) / 6
    assert values["discriminator"].item() == pytest.approx(by_hand, rel=1e-6)
    x_t = noised(x, t, eps)
    error = 0.4 * x_t + other.net.net.b.detach()[label] - x
    to_c, to_d, to_a, to_b = other.gradients[0]
    near = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)
    through = (slope * sides.sum((1, 2, 3))).sum()
    near(to_c, 0.4 * through)
    near(to_d, torch.zeros(4).index_add(0, labels, slope))
    near(to_a, 0.3 * through + 2 * (error * x_t).mean())
    near(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, 2 * error / 24))


@pytest.mark.parametrize("options, wanted", [
    (dict(updates=(1, 5)), (1, 5)), (dict(updates=(1, 2)), (1, 2)), (dict(updates=(3, 1)), (3, 1)),
    ({}, (1, 5))])
def test_the_fake_score_learns_on_a_time_scale_of_its_own(options, wanted):
    for fake in (Recorder(painter(0.4, 2)), Recorder(Judge(2))):
        one, weight = Recorder(painter(0.5, 1)), float(isinstance(fake.net, Judge))
        how = dmd2.Settings(generator_weight=weight, discriminator_weight=weight, **options)
        step = dmd2.DMD2(one, fake, painter(0.6, 3), 4, how, painted_images())
        for _ in range(2):
            step(generator())
        assert (len(one.gradients), len(fake.gradients)) == (2 * wanted[0], 2 * wanted[1])


def test_each_loss_reaches_its_own_network_alone_also_in_a_unet(double):
    """And the generator's gradient of both terms is what autograd gives through a copy of the
    discriminator."""
    networks = {name: training_run.denoiser(seed)
                for seed, name in enumerate(("generator", "fake", "teacher"))}
    networks["fake"], found = Discriminator(networks["fake"]), []
    one, other = Recorder(networks["generator"]), Recorder(networks["fake"])

    def update(name, loss):
        assert all(p.requires_grad for net in networks.values() for p in net.parameters())
        loss.backward()
        found.append((name, {key: [p.grad for p in net.parameters()]
                             for key, net in networks.items()
                             if any(p.grad is not None for p in net.parameters())}))
        for net in networks.values():
            net.zero_grad(set_to_none=True)

    one.update, other.update = partial(update, "generator"), partial(update, "fake")
    original, g = copy.deepcopy(networks["fake"]), generator(3)
    how = adversarial(generator_weight=0.5, discriminator_weight=0.5)
    dmd2.DMD2(one, other, networks["teacher"], 2, how, training_run.images(16))(generator(3))
    reached = [(name, list(gradients)) for name, gradients in found]
    assert reached == [("generator", ["generator"]), ("fake", ["fake"])]
    names = [name for name, _ in other.net.named_parameters()]
    to_fake = dict(zip(names, found[1][1]["fake"]))
    assert all(gradient is not None for gradient in to_fake.values())
    for name in ("head.body.1.weight", "net.conv_in.weight", "net.conv_out.bias"):
        assert to_fake[name].abs().max() > 0, name

    z, eps, label, t = drawn(g, 2, 20, 1004, (1, 28, 28), 10)
    at = torch.randint(1024, (2,), generator=g)
    again = torch.randn(2, 1, 28, 28, generator=g)
    x = networks["generator"](z, 1023, label).x
    with torch.no_grad():
        mu_real, mu_fake = (net(noised(x, t, eps), t, label).x
                            for net in (networks["teacher"], original))
        size = (x - mu_real).abs().mean((1, 2, 3), keepdim=True)
        gradient = (mu_fake - mu_real) / size / x.numel()
    logits = original(noised(x, at, again), at, label, judge=True)
    loss = 0.5 * torch.log1p(torch.exp(-logits)).mean()
    parameters = list(one.net.parameters())
    by_hand = torch.autograd.grad([x, loss], parameters, [gradient, torch.ones(())])
    for got, wanted in zip(found[0][1]["generator"], by_hand):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)


def test_the_generators_update_leaves_no_gradient_in_the_fake_score():
    """What it left would be added to the fake score's own at its next update."""
    learners = [learner(painter(0.5, 1)), learner(Judge(2))]
    step = dmd2.DMD2(*learners, painter(0.6, 3), 4, adversarial(), painted_images())
    step.update_generator(generator())
    assert all(p.grad is None and p.requires_grad for p in learners[1].net.parameters())


def test_processes_share_the_adversarial_losses(double):
    x, label = torch.randn(8, 1, 2, 2), torch.arange(8) % 3
    learners = [Recorder(painter(0.5, 1)), *(as_one_of(2, index, painter(0.5, 1))
                                             for index in (0, 1))]
    shares = (slice(None), slice(0, None, 2), slice(1, None, 2))
    found = {"generator": [], "discriminator": []}
    for one, share in zip(learners, shares):
        other, teacher = Recorder(Judge(2)), painter(0.6, 3)
        step = dmd2.DMD2(one, other, teacher, 8, adversarial(), painted_images())
        samples = SimpleNamespace(x=x[share], fake_label=label[share])
        found["generator"].append(step.gan_loss(samples, generator(5), {}).item())
        found["discriminator"].append(step.discriminator_loss(samples, generator(5)).item())
    for whole, *parts in found.values():
        assert sum(parts) / 2 == pytest.approx(whole, rel=1e-9) and parts[0] != parts[1]


# Weights

def test_a_matched_weight_by_hand_makes_both_gradients_alike():
    x = torch.zeros(2, 1, 1, 2, requires_grad=True)
    gradients = (torch.tensor([[3.0, 4.0], [0.0, 1.0]]),  # of norms 5 and 1
                 torch.tensor([[0.5, 0.0], [0.0, 1.5]]))  # of norms 0.5 and 1.5
    reference, term = ((one.reshape(2, 1, 1, 2) * x).sum() for one in gradients)
    assert dmd2.matched_weight(x, reference, term) == pytest.approx(3)
    assert dmd2.matched_weight(x, reference, term, share=0.5) == pytest.approx(1.5)
    weight = dmd2.matched_weight(x, reference, term, share=0.25)
    lengths = [torch.autograd.grad(loss, x)[0].flatten(1).norm(dim=1).mean().item()
               for loss in (reference, weight * term)]
    assert lengths[1] == pytest.approx(0.25 * lengths[0])
    sentence = "The term has no gradient at these samples, so no weight can make it as strong"
    for nothing in (0 * x.sum(), torch.ones(())):
        with refused(ValueError, sentence):
            dmd2.matched_weight(x, (x * 2).sum(), nothing)


def test_the_papers_weights_grow_as_the_pixels_become_fewer():
    assert dmd2.rescaled_weights((3, 64, 64)) == pytest.approx((3e-3, 1e-2))
    assert dmd2.rescaled_weights((1, 28, 28)) == pytest.approx((0.04702, 0.15673), rel=1e-4)
