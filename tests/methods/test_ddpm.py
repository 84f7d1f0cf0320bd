"""Training a denoiser: its loss and weightings by hand, and what a step shows to its network."""
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import refused
from painters import (S, Painter, Recorder, as_one_of, double, equal, generator,  # noqa: F401
                      noised, painted_images, weights)
from torch import Tensor, nn

from dmdkit import data, nets, schedule, train
from dmdkit.denoiser import Denoiser, predict
from dmdkit.methods import ddpm


# The loss and what goes into it

def test_the_loss_is_the_squared_distance_to_the_target_by_hand():
    t, label = torch.tensor([511, 1023]), torch.tensor([4, 10])
    x = torch.tensor([[0.5, -1.0], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    eps = torch.tensor([[2.0, 0.0], [-1.0, 3.0]]).reshape(2, 1, 1, 2)
    half = math.sqrt(0.5)  # α and σ at t = 511; at 1023 they are 0 and 1
    seen = []

    def zero(x_t, t, label):
        seen.append((x_t, t, label))
        return SimpleNamespace(x=0 * x_t, eps=0 * x_t, v=0 * x_t)

    by_hand = {"x": [(0.25 + 1) / 2, 0.5], "eps": [2.0, 5.0],
               "v": [((2 - 0.5) ** 2 + 1) / 4, 0.5]}  # v = half (2 − 0.5), half (0 + 1); then −x
    for kind, expected in by_hand.items():
        found = ddpm.denoising_loss(zero, S, kind, x, eps, t, label)
        assert found.tolist() == pytest.approx(expected, rel=1e-5)
    x_t, t_seen, label_seen = seen[0]
    assert x_t.flatten().tolist() == pytest.approx([half * 2.5, -half, -1, 3], rel=1e-5)
    assert t_seen is t and label_seen is label


@pytest.mark.parametrize("kind, power", [("x", None), ("eps", 0), ("v", 1)])
def test_each_loss_is_the_error_in_x_weighted_as_salimans_and_ho_say(kind, power):
    """1, SNR and SNR + 1."""
    x, eps, out = torch.randn(3, 4, 1, 3, 3, dtype=torch.float64)
    t = torch.tensor([10, 300, 700, 1000])
    alpha, sigma = (table[t].reshape(-1, 1, 1, 1) for table in (S.alpha, S.sigma))
    prediction = predict("v", out, alpha * x + sigma * eps, alpha, sigma)

    def model(*_):
        return prediction

    loss = ddpm.denoising_loss(model, S, kind, x, eps, t, None)
    error = (prediction.x - x).square().flatten(1).mean(1)
    snr = S.alpha[t] ** 2 / S.sigma[t] ** 2
    wanted = error if power is None else (snr + power) * error
    torch.testing.assert_close(loss, wanted, rtol=1e-8, atol=0)


@pytest.mark.parametrize("n", [1, 8, 50, 64])
def test_stratified_times_put_one_time_into_each_part_of_the_range(n):
    T = 1000
    for seed in range(20):
        t = ddpm.stratified_times(n, T, generator(seed))
        assert t.dtype == torch.int64 and t.shape == (n,) and 0 <= t.min() and t.max() < T
        gaps = t.sort().values.diff()
        assert n == 1 or (gaps.min() >= T // n and gaps.max() <= -(-T // n))


def test_each_stratified_time_alone_is_uniform():
    n, T, draws = 8, 16, 4000
    g = generator()
    t = torch.stack([ddpm.stratified_times(n, T, g) for _ in range(draws)])
    for i in range(n):  # χ² with 15 degrees of freedom stays under 45 but once in ten thousand
        counts = torch.bincount(t[:, i], minlength=T).double()
        assert ((counts - draws / T) ** 2 / (draws / T)).sum() < 45


def test_labels_are_dropped_as_often_as_asked_and_otherwise_kept():
    label = torch.arange(100_000) % 10
    kept = ddpm.drop_labels(label, 10, 0.1, generator())
    dropped = kept == 10
    chance = 4 * math.sqrt(0.09 / 100_000)
    assert dropped.double().mean().item() == pytest.approx(0.1, abs=chance)
    assert torch.equal(kept[~dropped], label[~dropped])
    assert torch.equal(ddpm.drop_labels(label, 10, 0.0, generator()), label)
    assert (ddpm.drop_labels(label, 10, 1.0, generator()) == 10).all()


# The weightings

@pytest.mark.parametrize("kind", ["v", "x", "eps"])
def test_each_weighting_is_the_error_that_it_claims_to_be(kind):
    x, eps, out = torch.randn(3, 6, 1, 3, 3, dtype=torch.float64)
    t = torch.tensor([10, 300, 511, 600, 900, 1022])
    z_t = S.noise(x, t, eps)
    alpha, sigma = S.at(t, z_t)
    said = predict(kind, out, z_t, alpha, sigma)

    def error(a, b):
        return (a - b).square().mean((1, 2, 3))

    in_x, in_eps = error(said.x, x), error(said.eps, eps)
    by_hand = {"snr": in_eps, "truncated": torch.maximum(in_x, in_eps),
               "snr+1": error(said.v, alpha * eps - sigma * x)}
    assert tuple(by_hand) == ddpm.WEIGHTINGS and len((in_x > in_eps).unique()) == 2
    for weighting, wanted in by_hand.items():
        found = ddpm.weighted_loss(said.x, x, alpha, sigma, weighting)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert torch.equal(ddpm.weighted_loss(said.x, x, alpha, sigma),
                       ddpm.weighted_loss(said.x, x, alpha, sigma, "truncated"))


def test_at_pure_noise_snr_weighs_nothing_and_the_others_one():
    alpha, sigma = S.at(S.T - 1, torch.empty(2, 3))
    found = [ddpm.weight(alpha, sigma, weighting).tolist()
             for weighting in ("snr", "truncated", "snr+1")]
    assert found == [[[0.0]], [[1.0]], [[1.0]]]


def test_where_variance_is_not_preserved_a_weighting_goes_by_the_snr_alone():
    """Flow's α = 1 − u and σ = u at u = 1/4: SNR = 9."""
    alpha, sigma = schedule.flow(8).at(1, torch.empty(1, 2))
    assert [ddpm.weight(alpha, sigma, one).item() for one in ddpm.WEIGHTINGS] == [9, 9, 10]


def test_an_unknown_weighting_is_one_sentence():
    with refused(ValueError, r"weighting must be one of snr, truncated, snr\+1; got 'heavy'"):
        ddpm.weight(*S.at(3, torch.empty(1)), "heavy")


# The step

N, T = 6, 1024


class Velocity(Painter):
    """A painter whose answer tells its time too, and that also notes what it saw."""

    def __init__(self):
        super().__init__(0.4, seed=2)
        self.shown = []

    def forward(self, x, t, class_labels):
        self.shown.append((x.detach(), t))
        out = super().forward(x, t, class_labels).sample
        return SimpleNamespace(sample=out + t.reshape(-1, 1, 1, 1) / T)


def velocity() -> Denoiser:
    return Denoiser(Velocity(), S, "v", n_classes=3)


def batch(g: torch.Generator, dropout: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a step draws and shows, by hand: images with their own labels, of which some are
    dropped, noise, and one time in each sixth of the range, which is a ring."""
    images = painted_images()
    index = torch.randint(7, (N,), generator=g)
    eps = torch.randn(N, 1, 2, 2, generator=g)
    shift = torch.rand(1, generator=g)
    t = torch.tensor([int((i / N + shift.item()) % 1 * T) for i in range(N)])
    drop = torch.rand(N, generator=g) < dropout
    x = images.pixels[index] / 127.5 - 1
    return x, eps, t, torch.where(drop, 3, images.labels[index])


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("weighting", ["", "snr", "truncated", "snr+1"])
def test_a_step_by_hand(double, dropout, weighting):
    """The network sees x_t of images with their own labels, and learns v; loss, norm and gradients
    are autograd's of that."""
    one = Recorder(velocity())
    values = ddpm.DDPM(one, painted_images(), N, dropout, weighting)(generator(3))
    x, eps, t, label = batch(generator(3), dropout)
    x_t, net = noised(x, t, eps), velocity()
    (x_seen, t_seen), = one.net.net.shown
    torch.testing.assert_close(x_seen, x_t, rtol=1e-6, atol=1e-6)  # pixels are float32
    assert torch.equal(t_seen, t) and one.net.net.asked == [label.tolist()]
    assert dropout != 0.5 or 0 < (label == 3).sum() < N

    alpha, sigma = S.at(t, x_t)
    error = (net(x_t, t, label).v - (alpha * eps - sigma * x)).square()
    snr = alpha**2 / sigma**2
    of_v = 1 / (snr + 1)  # ‖x − x̂‖² = σ² ‖v − v̂‖²
    factor = {"": 1, "snr+1": 1, "snr": snr * of_v, "truncated": snr.clamp(min=1) * of_v}
    loss = (factor[weighting] * error).mean()
    by_hand = torch.autograd.grad(loss, list(net.parameters()))
    assert values["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for got, wanted in zip(one.gradients[0], by_hand):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_every_image_comes_with_its_own_label_and_enough_of_them_are_dropped():
    """Images that are all of the grey of their label: whatever is drawn, what the network sees at
    t = 0 is that grey, and one label in ten is none."""
    pixels = torch.tensor([50, 130, 220]).repeat(40).byte()
    images = data.Images(pixels.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2), torch.arange(120) % 3)
    net = velocity()
    step = ddpm.DDPM(Recorder(net), images, 600)
    step.schedule = schedule.table("clean", [1.0] * 1024, [1e-6] * 1024)
    step(generator())
    (x, _), asked = net.net.shown[0], torch.tensor(net.net.asked[0])
    grey = ((x[:, 0, 0, 0] + 1) * 127.5).round()
    for label, wanted in enumerate((50, 130, 220)):
        assert (grey[asked == label] == wanted).all() and (asked == label).sum() > 100
    assert (asked == 3).double().mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 600))


def test_the_times_of_a_step_are_stratified():
    net = velocity()
    ddpm.DDPM(Recorder(net), painted_images(), 32)(generator())
    _, t = net.net.shown[0]
    assert torch.equal((t // 32).sort().values, torch.arange(32))  # one in each 32nd of 1024


def test_the_gradient_norm_is_reported_and_the_weights_move():
    net = velocity()
    one = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=5, warmup=0, ema=0.0)
    before = weights(net)
    values = ddpm.DDPM(one, painted_images(), N)(generator(3))
    x, eps, t, label = batch(generator(3), 0.1)
    fresh = velocity()
    loss = ddpm.denoising_loss(fresh, S, "v", x, eps, t, label).mean()
    gradients = torch.autograd.grad(loss, list(fresh.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    found = {name: value.item() for name, value in values.items()}
    assert found == pytest.approx({"loss": loss.item(), "gradient norm": norm.item()}, rel=1e-4)
    assert not any(map(torch.equal, weights(net), before))


def moons() -> data.Points:
    return data.two_moons(9, generator())


def of_points() -> Denoiser:
    return Denoiser(nets.PointMLP(8, 1), S, "v", n_classes=0)


def of_both() -> Denoiser:
    return Denoiser(nets.PointMLP(8, 1, outputs=2), S, "both", n_classes=0)


class Silent(nn.Module):
    """A network that fails if it is given a label."""
    sample_shape = (2,)

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, t):
        return SimpleNamespace(sample=self.a * x)


def test_a_network_without_classes_is_given_no_label():
    net = Denoiser(Silent(), S, "x", n_classes=0)
    values = ddpm.DDPM(Recorder(net), moons(), 4)(generator())
    assert values["loss"].isfinite()


@pytest.mark.parametrize("weighting", ddpm.WEIGHTINGS)
def test_a_network_that_predicts_both_is_trained_by_a_weighting(weighting):
    net = of_both()
    one = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=5, warmup=0, ema=0.0)
    before = weights(net)
    values = ddpm.DDPM(one, moons(), 4, weighting=weighting)(generator())
    assert values["loss"].isfinite() and not equal(weights(net), before)


def test_processes_share_a_batch(double):
    """Each sees every second sample of what one would draw alone."""
    whole = Recorder(velocity())
    ddpm.DDPM(whole, painted_images(), N, 0.5)(generator(4))
    (x, t), asked = whole.net.net.shown[0], whole.net.net.asked[0]
    for index in (0, 1):
        one = as_one_of(2, index, velocity())
        found = ddpm.DDPM(one, painted_images(), N, 0.5).sample(generator(4))
        torch.testing.assert_close(noised(found[0], found[2], found[1]), x[index::2],
                                   rtol=1e-6, atol=1e-6)
        assert torch.equal(found[2], t[index::2]) and found[3].tolist() == asked[index::2]


# Bad input

IMAGE = torch.zeros(3, 1, 2, 2)


@pytest.mark.parametrize("change, error, sentence", [
    (dict(x=IMAGE.byte()), TypeError, "prediction must be floating-point numbers"),
    (dict(target=IMAGE.byte()), TypeError, "target must be floating-point .* Scale pixels with"),
    (dict(target=IMAGE[:, 0]), ValueError, "prediction and target must have one shape"),
    (dict(target=IMAGE[:1]), ValueError, "prediction and target must have one shape"),
    (dict(alpha=torch.ones(3)), ValueError, "alpha must be a number or broadcast"),
    (dict(weighting="heavy"), ValueError, "weighting must be one of .*; got 'heavy'"),
])
def test_what_would_broadcast_or_is_no_number_is_refused_by_the_weighted_loss(
        change, error, sentence):
    alpha, sigma = S.at(3, IMAGE)
    given = dict(x=IMAGE, target=IMAGE, alpha=alpha, sigma=sigma)
    with refused(error, sentence):
        ddpm.weighted_loss(**given | change)


def test_the_denoising_loss_refuses_what_would_broadcast():
    t = torch.tensor([1, 2, 3])

    def flat(x_t, t, label):
        return SimpleNamespace(x=x_t[:, 0])

    with refused(ValueError, "prediction and target must have one shape"):
        ddpm.denoising_loss(flat, S, "x", IMAGE, IMAGE, t, None)
    with refused(TypeError, "x must be floating-point numbers.* Scale pixels with data.scale"):
        ddpm.denoising_loss(flat, S, "x", IMAGE.byte(), IMAGE, t, None)
    with refused(ValueError, "networks that predict x, eps or v; 'both' is trained with a "
                             r"weighting .*: give one of snr, truncated, snr\+1"):
        ddpm.denoising_loss(flat, S, "both", IMAGE, IMAGE, t, None)


@pytest.mark.parametrize("n, T", [(0, 8), (2.5, 8), (3, 0), (True, 8)])
def test_stratified_times_want_whole_numbers(n, T):
    with refused(ValueError, "must be a whole number of at least 1"):
        ddpm.stratified_times(n, T, generator())


def test_labels_that_are_none_cannot_be_dropped():
    with refused(ValueError, "label must lie in 0 … 2 .*; got 7"):
        ddpm.drop_labels(torch.tensor([0, 7]), 3, 0.1, generator())
    with refused(TypeError, "label must be a tensor of whole numbers"):
        ddpm.drop_labels(torch.tensor([0.0, 1.0]), 3, 0.1, generator())


@pytest.mark.parametrize("net, images, changes, sentence", [
    (velocity, painted_images, dict(label_dropout=1.5), "label_dropout is a share, 0 … 1; got 1.5"),
    (velocity, painted_images, dict(label_dropout=float("nan")), "label_dropout is a share"),
    (velocity, painted_images, dict(weighting="heavy"), "weighting must be one of .*; got 'heavy'"),
    (velocity, painted_images, dict(batch_size=0), "batch_size must be a positive multiple"),
    (velocity, moons, {},
     r"The data are of shape \(2,\), and the network is for \(1, 2, 2\)"),
    (of_points, moons, dict(label_dropout=0.2), "there are no labels to drop"),
    (of_both, moons, {},
     "'both' is trained with a weighting of the error in x"),
])
def test_bad_input_is_one_sentence_before_any_work(net, images, changes, sentence):
    one = Recorder(net())
    with refused(ValueError, sentence):
        ddpm.DDPM(one, images(), **{"batch_size": 4} | changes)


def test_a_batch_that_the_processes_cannot_share_is_refused():
    with refused(ValueError, "batch_size must be a positive multiple of the 3 processes.*; got 8"):
        ddpm.DDPM(as_one_of(3, 0, velocity()), painted_images(), 8)
