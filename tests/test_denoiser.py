"""The Denoiser: what it says and refuses, guidance, copies, and folders that diffusers wrote."""
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import needs_fake_cuda, Counted, refused, tiny_denoiser
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from oracles import Gaussian
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dmdkit import nets, sample, schedule, score
from dmdkit.data import ROOT
from dmdkit.denoiser import Denoiser, Guided

LABEL = torch.tensor([3, 7])
COSINE = schedule.cosine()


def small(prediction: str = "v", n_classes: int = 10, sch: schedule.Schedule = COSINE,
          patch: int = 1) -> Denoiser:
    """A network for colour images of 16 × 8."""
    torch.manual_seed(1)
    outputs = 2 if prediction == "both" else 1
    net = nets.unet((3, 16, 8), (8, 16), patch=patch, n_classes=n_classes, outputs=outputs)
    return Denoiser(net, sch, prediction, patch, n_classes).eval()


def points(prediction: str = "v", **config) -> Denoiser:
    torch.manual_seed(1)
    net = nets.PointMLP(16, 2, outputs=2 if prediction == "both" else 1, **config)
    return Denoiser(net, COSINE, prediction, n_classes=0)


def close(a, b, tolerance: float = 1e-4):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# What it says

def test_shapes_need_not_be_square_and_a_patch_changes_nothing_in_them():
    for patch in (1, 2):
        denoiser = small(patch=patch)
        assert denoiser.sample_shape == (3, 16, 8)
        x_t = torch.randn(2, 3, 16, 8)
        assert all(form.shape == x_t.shape for form in denoiser(x_t, 500, LABEL))


@torch.no_grad()
@pytest.mark.parametrize("t", [900, torch.tensor(900), torch.tensor([900, 900])])
def test_the_network_is_called_with_the_times_and_the_labels(t):
    denoiser, x_t = small(patch=2), torch.randn(2, 3, 16, 8)
    inputs = F.pixel_unshuffle(x_t, 2)
    times = torch.tensor([900, 900])
    for label, told in ((LABEL, LABEL), (None, torch.tensor([10, 10]))):
        v = F.pixel_shuffle(denoiser.net(inputs, times, class_labels=told).sample, 2)
        said = denoiser(x_t, t, label)
        alpha, sigma = COSINE.alpha[900].float(), COSINE.sigma[900].float()
        close(said.v, v)
        close(said.x, alpha * x_t - sigma * v)
        close(said.eps, sigma * x_t + alpha * v)
        close(said.score, -said.eps / sigma)


@torch.no_grad()
def test_each_sample_has_its_own_time():
    denoiser, x_t = small(), torch.randn(2, 3, 16, 8)
    together = denoiser(x_t, torch.tensor([900, 200]), LABEL)
    for i, t in enumerate((900, 200)):
        close(together.x[i:i + 1], denoiser(x_t[i:i + 1], t, LABEL[i:i + 1]).x)


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 4])
def test_a_network_of_two_outputs_says_x_first_and_then_eps(patch):
    denoiser, x_t, t = small("both", patch=patch), torch.randn(2, 3, 16, 8), torch.tensor([900, 20])
    out = denoiser.net(F.pixel_unshuffle(x_t, patch), t, class_labels=LABEL).sample
    x, eps = F.pixel_shuffle(out, patch).split(3, 1)
    alpha, sigma = denoiser.schedule.at(t, x_t)
    said = denoiser(x_t, t, LABEL)
    close(said.x, sigma**2 * x + alpha * (x_t - sigma * eps), 1e-5)
    close(alpha * said.x + sigma * said.eps, x_t, 1e-5)


@torch.no_grad()
def test_points_are_predicted_in_every_form():
    x_t = torch.randn(6, 2)
    for prediction in ("v", "x", "both"):
        denoiser = points(prediction, copies=3, frequencies=1)
        said, (alpha, sigma) = denoiser(x_t, 500), COSINE.at(500, x_t)
        assert denoiser.sample_shape == (2,) and said.x.shape == x_t.shape
        close(alpha * said.x + sigma * said.eps, x_t, 1e-5)


# The one-step generator

def test_the_one_step_generator_is_the_x_prediction_of_pure_noise_clamped_if_an_image(tiny):
    z = 3 * torch.randn(2, 1, 28, 28)
    x = tiny(z, 1023, LABEL, 0.5).x.detach()
    assert x.abs().max() > 1
    assert torch.equal(tiny.generate(z, LABEL, 0.5), x.clamp(-1, 1))
    assert not tiny.generate(z, LABEL).requires_grad


def test_points_are_never_clamped():
    far = points("x")
    with torch.no_grad():
        far.net.biases[-1].fill_(5.0)
        z = torch.randn(4, 2)
        assert far.generate(z).min() > 1
        assert torch.equal(far.generate(z), far(z, 1023).x)


# Without classes

def test_an_unconditional_network_is_called_without_labels():
    """UNet2DModel refuses labels that it has no embedding for."""
    denoiser, z = small(n_classes=0), torch.randn(2, 3, 16, 8)
    assert denoiser.net.config.num_class_embeds is None
    for sampler in (sample.ddim, sample.ddpm, sample.euler, sample.heun):
        assert sample.last(sampler(denoiser, z, 2)).isfinite().all()
    no_class = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(denoiser.generate(z, no_class), denoiser.generate(z))
    copy = denoiser.copy().eval()
    assert copy.n_classes == 0 and torch.equal(copy.generate(z), denoiser.generate(z))


def test_a_network_that_asks_for_labels_gets_no_class_even_if_there_are_none():
    net = nets.build("UNet2DModel", sample_size=8, in_channels=1, out_channels=1,
                     block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
                     down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
                     attention_head_dim=8, num_class_embeds=1)
    denoiser, z = Denoiser(net, COSINE, n_classes=0).eval(), torch.randn(2, 1, 8, 8)
    v = net(z, 1023, class_labels=torch.zeros(2, dtype=torch.int64)).sample
    close(denoiser(z, 1023).v, v)


def test_labels_and_guidance_are_refused_where_there_are_no_classes():
    exact = score.Exact(score.ring(), COSINE)
    for denoiser in (small(n_classes=0), points(), exact):
        x_t = torch.randn(2, *denoiser.sample_shape)
        with refused(ValueError, r"label must lie in no class at all \(0, or label=None.*; got 7"):
            denoiser(x_t, 5, LABEL)
        for label in (None, torch.zeros(2, dtype=torch.int64)):
            with refused(ValueError, "There are no classes to guide by: leave guidance at 0"):
                denoiser(x_t, 5, label, 2.0)


# What it refuses

GOOD = torch.randn(2, 1, 28, 28)


@pytest.mark.parametrize("change, kind, sentence", [
    ({"x_t": GOOD[:, :, :27]}, ValueError, r"must have shape \(B, 1, 28, 28\); got \(2, 1, 27"),
    ({"x_t": GOOD[:, 0]}, ValueError, r"must have shape \(B, 1, 28, 28\); got \(2, 28, 28\)"),
    ({"x_t": torch.tensor(1.0)}, ValueError, r"samples must have shape .*; got \(\)"),
    ({"x_t": GOOD.to(torch.uint8)}, TypeError, "samples must be floating-point .*data.scale"),
    ({"x_t": GOOD.double()}, TypeError, r"samples are torch.float64 .* torch.float32: convert"),
    ({"x_t": GOOD.half()}, TypeError, r"samples are torch.float16 .*\.to\(torch.float32\)"),
    ({"x_t": [1.0]}, TypeError, "samples must be a tensor; got list"),
    ({"t": 500.0}, TypeError, "t must be a whole number, or a tensor of them; got 500.0"),
    ({"t": torch.tensor([1.0, 2.0])}, TypeError, "t must be whole numbers .*; got torch.float32"),
    ({"t": torch.tensor([1, 2, 3])}, ValueError, "t must be one time, or one for each of the 2"),
    ({"t": 1024}, IndexError, "t must lie in 0 … 1023; got 1024"),
    ({"t": -1}, IndexError, "t must lie in 0 … 1023; got -1"),
    ({"t": torch.tensor([5, 1024])}, IndexError, "t must lie in 0 … 1023; got 1024"),
    ({"label": LABEL + 9}, ValueError, "label must lie in 0 … 9 .*; got 16"),
    ({"label": LABEL.to(torch.uint8)}, TypeError, "torch.int64.*; got torch.uint8"),
    ({"label": LABEL[:1]}, ValueError, r"label must have shape \(2,\), one a sample; got \(1,\)"),
    ({"guidance": float("inf")}, ValueError, "guidance must be a finite number; got inf"),
    ({"label": None, "guidance": 1.0}, ValueError, "guidance = 1 needs labels"),
])
@pytest.mark.parametrize("how", ["plain", "guided"])
def test_what_does_not_fit_is_one_sentence_before_the_network_is_called(
        change, kind, sentence, how):
    tiny = tiny_denoiser()
    tiny.net = Counted(tiny.net)
    denoiser = Guided(tiny, (0.2, 0.8)) if how == "guided" else tiny
    with refused(kind, sentence):
        denoiser(**{"x_t": GOOD, "t": 5, "label": LABEL, "guidance": 0.0} | change)
    assert tiny.net.calls == 0


def test_under_autocast_samples_may_be_of_the_lower_precision():
    denoiser, x_t = small(), torch.randn(2, 3, 16, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert denoiser(x_t, 500, LABEL).x.dtype == torch.bfloat16


def on_a_gpu() -> tuple[FakeTensorMode, Denoiser]:
    """A denoiser on a GPU that is none; what is made within the mode has shapes and no values."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.device("cuda"):
        return mode, small()


@needs_fake_cuda
def test_samples_labels_and_network_on_unlike_devices_are_refused():
    mode, denoiser = on_a_gpu()
    with mode:
        x_t, label = torch.randn(2, 3, 16, 8), torch.tensor([1, 2])
        assert denoiser(x_t.cuda(), 500, label.cuda()).x.is_cuda
        with refused(ValueError, "The samples are on cpu and the network is on cuda:0: move one"):
            denoiser(x_t, 500, label.cuda())
        with refused(ValueError, "The labels are on cpu and the network is on cuda:0: move one"):
            denoiser(x_t.cuda(), 500, label)


@pytest.mark.parametrize("sch", [COSINE, schedule.flow()], ids=lambda s: s.name)
def test_a_network_that_predicts_eps_is_refused_where_the_schedule_ends_in_pure_noise(sch):
    """It trained, and then sampled NaN, which generate turned into ±1."""
    net = nets.unet((1, 8, 8), (8,))
    with refused(ValueError, f"predicts ε says nothing of x where α = 0, .* {sch.name!r}.*clipped"):
        Denoiser(net, sch, "eps", n_classes=0)
    for other in (schedule.clipped(), schedule.linear()):
        denoiser = Denoiser(net, other, "eps", n_classes=0)
        assert denoiser(torch.randn(2, 1, 8, 8), other.T - 1).x.isfinite().all()


@pytest.mark.parametrize("options, sentence", [
    ({"prediction": "noise"}, "A network predicts one of v, x, eps, both; got 'noise'"),
    ({"prediction": "both"}, "predicts 'both' of 3 input channels has 6 output channels; .* has 3"),
    ({"patch": 2}, "With patch = 2 the network's input channels must be a multiple of 4; it has 3"),
    ({"patch": 0}, "patch must be a whole number of at least 1; got 0"),
    ({"n_classes": 11}, "For 11 classes and \"no class\" the network needs 12 labels; it has 11"),
    ({"n_classes": -1}, "n_classes must be a whole number of at least 0; got -1"),
])
def test_a_network_that_does_not_fit_is_refused(options, sentence):
    with refused(ValueError, sentence):
        Denoiser(small().net, COSINE, **options)


def test_classes_are_refused_of_a_network_that_has_others_or_none():
    with refused(ValueError, "The network takes no labels, so it has no 10 classes: say n_cl"):
        Denoiser(small(n_classes=0).net, COSINE)
    with refused(ValueError, "The network has 3 classes; say n_classes=3, not 10"):
        Denoiser(nets.ContextUNet((1, 8, 8), 8, n_classes=3), COSINE)


# Guidance

@pytest.mark.parametrize("prediction", ["v", "x", "both"])
def test_guidance_is_the_hand_written_combination_of_two_calls(prediction):
    denoiser, x_t, w = small(prediction), torch.randn(2, 3, 16, 8), 1.5
    t = torch.tensor([900, 200])
    with torch.no_grad():
        guided = denoiser(x_t, t, LABEL, w)
        with_label, without = denoiser(x_t, t, LABEL), denoiser(x_t, t)
    assert (with_label.eps - without.eps).abs().max() > 1e-3  # the label does something
    for form in ("x", "eps", "v", "score"):
        by_hand = (1 + w) * getattr(with_label, form) - w * getattr(without, form)
        close(getattr(guided, form), by_hand, 1e-3)


@pytest.mark.parametrize("w", [0.0, 1.5])
def test_a_guide_leads_away_from_its_prediction_with_the_same_label(tiny, w):
    x_t, t, away = torch.randn(2, 1, 28, 28), torch.tensor([900, 200]), 0.7
    worse = tiny_denoiser(seed=5)
    with torch.no_grad():
        guided = Guided(tiny, guide=worse, guide_weight=away)(x_t, t, LABEL, w)
        plain, with_label = tiny(x_t, t, LABEL, w), tiny(x_t, t, LABEL)
        other = worse(x_t, t, LABEL)
    for form in ("x", "eps", "v", "score"):
        difference = getattr(with_label, form) - getattr(other, form)
        close(getattr(guided, form), getattr(plain, form) + away * difference, 1e-3)


@pytest.mark.parametrize("away", [0.0, 0.7])
def test_within_the_interval_guidance_is_guidance_and_outside_it_costs_nothing(tiny, away):
    x_t, t = torch.randn(4, 1, 28, 28), torch.tensor([511, 512, 767, 768])  # T = 1024
    label, inside = torch.tensor([1, 2, 3, 4]), torch.tensor([False, True, True, False])
    worse = tiny_denoiser(seed=5)
    led = {"guide": worse, "guide_weight": away} if away else {}
    guided = Guided(tiny, (0.5, 0.75), **led)
    with torch.no_grad():
        plain, everywhere = tiny(x_t, t, label).v, Guided(tiny, **led)(x_t, t, label, 2.0).v
        assert not torch.allclose(plain, everywhere, atol=1e-3)
        expected = torch.where(inside[:, None, None, None], everywhere, plain)
        close(guided(x_t, t, label, 2.0).v, expected, 1e-5)
        for one in (600, 100):
            alone = Guided(tiny, **led) if one == 600 else tiny
            wanted = alone(x_t, one, label, 2.0 if one == 600 else 0.0).v
            close(guided(x_t, one, label, 2.0).v, wanted, 1e-5)
        unlabelled = tiny(x_t, t).v  # a guide needs no label
        wanted = unlabelled + away * inside[:, None, None, None] * (unlabelled - worse(x_t, t).v)
        close(guided(x_t, t).v, wanted, 1e-5)
    guided.net, worse.net = Counted(tiny.net), Counted(worse.net)
    sample.last(sample.ddim(guided, x_t, 8, label, 2.0))
    # two of the eight times are inside
    assert (guided.net.calls, worse.net.calls) == (8 + 2, 2 if away else 0)


def of_schedule(sch: schedule.Schedule) -> Denoiser:
    """The tiny denoiser with another schedule."""
    return Denoiser(tiny_denoiser().net, sch, "v", patch=4)


SAME_NAME = schedule.Schedule("cosine", schedule.flow().alpha, schedule.flow().sigma)



@pytest.mark.parametrize("options, sentence", [
    ({"interval": (0.8, 0.2)}, "interval must be two shares of T, 0 ≤ low < high ≤ 1; got 0.8 and"),
    ({"interval": (0.2, 1.5)}, "got 0.2 and 1.5"),
    ({"interval": (float("nan"), 1.0)}, "got nan and 1"),
    ({"guide_weight": 0.5}, "A guide and its weight go together"),
    ({"guide": tiny_denoiser()}, "A guide and its weight go together"),
    ({"guide": tiny_denoiser(), "guide_weight": float("nan")}, "A guide and its weight go"),
    ({"guide": small(), "guide_weight": 0.5},
     r"guide must have the denoiser's sample_shape, \(1, 28, 28\); it has \(3, 16, 8\)"),
    ({"guide": of_schedule(schedule.clipped()), "guide_weight": 0.5},
     "guide must have the denoiser's schedule, 'cosine' of T = 1024.*'clipped' of T = 1024"),
    ({"guide": of_schedule(SAME_NAME), "guide_weight": 0.5},
     "guide must have the denoiser's schedule, 'cosine' .*value by value; it has 'cosine'"),
    ({"guide": nn.Identity(), "guide_weight": 0.5}, "guide must be a Denoiser; got Identity"),
])
def test_guidance_that_cannot_be_is_refused(tiny, options, sentence):
    with refused(ValueError, sentence):
        Guided(tiny, **options)


# Copies and bottlenecks

def context() -> Denoiser:
    net = nets.ContextUNet((1, 8, 8), 8, n_classes=10)
    return Denoiser(net, schedule.linear(), "eps")


@pytest.mark.parametrize("made", [
    tiny_denoiser, lambda: small("both"), lambda: small(n_classes=0), context,
    lambda: points("x", copies=2)], ids=["unet", "both", "unconditional", "context", "points"])
def test_a_copy_says_the_same_and_goes_its_own_way(made):
    original = made().eval().requires_grad_(False)
    copy, x_t = original.copy(), torch.randn(2, *original.sample_shape)
    assert copy.training and all(p.requires_grad for p in copy.parameters())
    assert not original.training and copy.schedule is original.schedule
    for name in ("prediction", "patch", "n_classes"):
        assert getattr(copy, name) == getattr(original, name)
    with torch.no_grad():
        wanted = original(x_t, 5).x
        assert torch.equal(copy.eval()(x_t, 5).x, wanted)
        for p in copy.parameters():
            p.add_(0.1)
        assert torch.equal(original(x_t, 5).x, wanted)
        assert not torch.equal(copy(x_t, 5).x, wanted)


@needs_fake_cuda
def test_a_copy_lies_where_the_original_does():
    mode, denoiser = on_a_gpu()
    with mode:
        assert all(p.is_cuda for p in denoiser.copy().parameters())


ATTENTION = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
             "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
SKIPPING = {"down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D")}


@torch.no_grad()
@pytest.mark.parametrize("options, n_classes", [
    ({}, 3), ({}, 0), (ATTENTION, 0), (SKIPPING, 3), ({"center_input_sample": True}, 0)])
def test_the_bottleneck_is_what_the_middle_block_says(options, n_classes):
    net = UNet2DModel(**{
        "sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 32),
        "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2,
        "num_class_embeds": n_classes + 1 if n_classes else None} | options)
    denoiser, x_t = Denoiser(net, COSINE, n_classes=n_classes).eval(), torch.randn(2, 3, 16, 16)
    seen = []
    net.mid_block.register_forward_hook(lambda module, inputs, out: seen.append(out))
    for t, label in ((torch.tensor([900, 5]), None), (17, torch.tensor([1, 0]) % (n_classes + 1))):
        denoiser(x_t, t, label)
        close(denoiser.bottleneck(x_t, t, label), seen[-2] if len(seen) > 1 else seen[-1], 1e-5)
        seen.clear()


def test_a_bottleneck_is_refused_of_what_has_none():
    with refused(TypeError, "Only a UNet2DModel has a bottleneck to look at; got ContextUNet"):
        context().bottleneck(torch.randn(2, 1, 8, 8), 5)
    with refused(ValueError, r"samples must have shape \(B, 3, 16, 8\)"):
        small().bottleneck(torch.randn(2, 3, 8, 8), 5)


# Folders that diffusers wrote

@pytest.fixture(scope="module")
def network() -> UNet2DModel:
    """google/ddpm-cifar10-32's kind, smaller: unconditional, attention on the second level."""
    torch.manual_seed(2)
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), **ATTENTION,
        layers_per_block=2, norm_num_groups=32, attention_head_dim=None, freq_shift=1,
        flip_sin_to_cos=False, downsample_padding=0, norm_eps=1e-6).eval()


CLASSICAL = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


def saved(folder, network, scheduler) -> None:
    network.save_pretrained(folder)
    scheduler.save_pretrained(folder)


def test_an_unconditional_folder_is_loaded_and_draws_what_diffusers_draws(tmp_path, network):
    scheduler = DDPMScheduler(**CLASSICAL, beta_schedule="linear", clip_sample=False)
    saved(tmp_path, network, scheduler)
    denoiser = Denoiser.from_pretrained(tmp_path)
    assert (denoiser.prediction, denoiser.patch, denoiser.n_classes) == ("eps", 1, 0)
    assert denoiser.sample_shape == (3, 8, 8) and not denoiser.training
    assert denoiser.schedule.arguments == {
        "kind": "linear", "T": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    z = torch.randn(2, 3, 8, 8)
    ddim = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    ddim.set_timesteps(5)
    x = z
    with torch.no_grad():
        for t in ddim.timesteps:
            x = ddim.step(network(x, t).sample, t, x).prev_sample
    close(sample.last(sample.ddim(denoiser, z, 5)), x, 1e-3)


@pytest.mark.parametrize("options", [
    {"beta_schedule": "scaled_linear"}, {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": [0.1, 0.2, 0.3, 0.4]},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {"prediction_type": "sample"}], ids=str)
def test_every_schedule_of_betas_is_read(tmp_path, network, options):
    scheduler = DDPMScheduler(**CLASSICAL | options)
    saved(tmp_path, network, scheduler)
    denoiser = Denoiser.from_pretrained(tmp_path)
    theirs = scheduler.alphas_cumprod
    torch.testing.assert_close((denoiser.schedule.alpha**2).float(), theirs, rtol=1e-4, atol=1e-6)
    kind = options.get("prediction_type", "epsilon")
    assert denoiser.prediction == {"epsilon": "eps", "v_prediction": "v", "sample": "x"}[kind]


def test_a_pipelines_folder_and_classes_are_read(tmp_path):
    net = small(n_classes=3).net
    DDIMPipeline(net, DDIMScheduler(prediction_type="v_prediction")).save_pretrained(tmp_path)
    denoiser = Denoiser.from_pretrained(str(tmp_path))
    assert denoiser.n_classes == 3 and denoiser.sample_shape == (3, 16, 8)
    x_t, label = torch.randn(2, 3, 16, 8), torch.tensor([0, 3])
    close(denoiser(x_t, 7, label).v, Denoiser(net, denoiser.schedule, "v", 1, 3)(x_t, 7, label).v)


def changed(name, **entries):
    def change(folder):
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) | entries
        path.write_text(json.dumps(content), encoding="utf-8")
    return change


def emptied(name, content=""):
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def removed(name):
    return lambda folder: (folder / name).unlink()


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("damage, kind, sentence", [
    (removed("config.json"), RuntimeError, "config.json cannot be read .*scheduler_config.json"),
    (removed("scheduler_config.json"), RuntimeError, "scheduler_config.json cannot be read"),
    (emptied("scheduler_config.json"), RuntimeError, "scheduler_config.json cannot be read"),
    (emptied("config.json", "[1]"), RuntimeError, "config.json is not one of diffusers' configs"),
    (removed(WEIGHTS), RuntimeError, f"{WEIGHTS} is missing: weights are read from safetensors"),
    (emptied(WEIGHTS), RuntimeError, "The network in .* cannot be read"),
    (changed("config.json", block_out_channels=[32, 32]), RuntimeError, "The network in .* cannot"),
    (changed("config.json", _class_name="UNet1DModel"), ValueError, "is of a UNet1DModel; a U"),
    (changed("scheduler_config.json", prediction_type="flow"), ValueError,
     "prediction_type must be one of epsilon, sample, v_prediction; it is 'flow'"),
    (emptied("scheduler_config.json", '{"_class_name": "FlowMatchEulerDiscreteScheduler"}'),
     ValueError, "The scheduler FlowMatchEulerDiscreteScheduler has no betas"),
    (changed("scheduler_config.json", rescale_betas_zero_snr=True), ValueError,
     "predicts ε says nothing of x where α = 0"),
    (changed("scheduler_config.json", beta_schedule="round"), ValueError, "The scheduler's betas cannot be read"),
])
def test_a_folder_that_is_damaged_or_of_another_kind_is_one_sentence(
        tmp_path, network, damage, kind, sentence):
    saved(tmp_path, network, DDPMScheduler(**CLASSICAL))
    damage(tmp_path)
    with refused(kind, sentence):
        Denoiser.from_pretrained(tmp_path)


def test_an_artefact_of_ours_is_not_read_as_one_of_diffusers():
    """It would have been one of (4, 14, 14) images: diffusers knows nothing of the patch."""
    with refused(ValueError, "teacher is an artefact of dmdkit's, .*: use store.load"):
        Denoiser.from_pretrained(ROOT / "teacher")


def test_offline_a_name_of_the_hub_says_what_to_give_instead(monkeypatch):
    import huggingface_hub

    def unreachable(name, allow_patterns):
        assert name == "google/ddpm-cifar10-32" and not any("bin" in one for one in allow_patterns)
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with refused(RuntimeError, "no folder 'google/ddpm-cifar10-32', and .*service not known"
                               r".* Offline, give the path of a folder with config.json, .*"):
        Denoiser.from_pretrained("google/ddpm-cifar10-32")


def test_a_name_of_the_hub_is_read_from_the_copy_that_the_hub_leaves(
        monkeypatch, tmp_path, network):
    import huggingface_hub

    saved(tmp_path, network, DDPMScheduler(**CLASSICAL))
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda name, allow_patterns: str(tmp_path))
    assert Denoiser.from_pretrained("somebody/something").sample_shape == (3, 8, 8)


@pytest.mark.parametrize("patch", [1, 2])
def test_an_empty_batch_is_refused_whatever_the_patch(patch):
    denoiser = Denoiser(nets.unet((1, 8, 8), (8,), patch=patch), schedule.cosine(8),
                        patch=patch, n_classes=0)
    for call in (denoiser.generate, lambda x: denoiser(x, 3), lambda x: denoiser.bottleneck(x, 3)):
        with pytest.raises(ValueError, match="the batch is empty"):
            call(torch.randn(0, 1, 8, 8))


@pytest.mark.parametrize("other", ["cosine", None])
def test_what_is_no_schedule_is_refused(other):
    with pytest.raises(TypeError, match="schedule must be a Schedule"):
        Denoiser(nets.PointMLP(8, 1), other, n_classes=0)
