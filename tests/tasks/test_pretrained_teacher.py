"""A teacher from a diffusers folder of google/ddpm-cifar10-32's kind: unconditional, ε-prediction,
linear β, T = 1000, with its channel counts. The folder is made here, with random weights."""
from pathlib import Path

import pytest
import torch

from dmdkit import data, sample, train
from dmdkit.denoiser import Denoiser
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Recipe, Sources
from dmdkit.methods import dmd, dmd2
from dmdkit.methods.pairs import Pairs
from dmdkit.tasks.task import Task


def loaded(folder: Path, channels: tuple[int, ...]) -> Denoiser:
    """A folder as diffusers writes it, read by the kit."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    down = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
    up = ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    UNet2DModel(sample_size=32, in_channels=3, out_channels=3, layers_per_block=2,
                block_out_channels=channels, down_block_types=down,
                up_block_types=up, norm_num_groups=32, norm_eps=1e-6, attention_head_dim=None,
                downsample_padding=0, flip_sin_to_cos=False,
                freq_shift=1).save_pretrained(folder)
    DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02,
                  beta_schedule="linear").save_pretrained(folder)
    return Denoiser.from_pretrained(folder)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Denoiser:
    return loaded(tmp_path_factory.mktemp("ddpm-cifar10-32"), (128, 256, 256, 256))


def noisy(train: bool) -> data.Images:
    return data.Images(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4).long())


COLOUR = Task("colour", (3, 32, 32), 0, noisy, {})


def test_it_is_what_the_folder_says(teacher):
    assert sum(p.numel() for p in teacher.parameters()) == 35_746_307
    assert (teacher.prediction, teacher.n_classes, teacher.schedule.T) == ("eps", 0, 1000)
    assert teacher.sample_shape == (3, 32, 32)
    assert 1 - teacher.schedule.alpha[0]**2 == pytest.approx(1e-4)


def test_it_is_sampled(teacher):
    z = torch.randn(1, 3, 32, 32)
    x = sample.last(sample.ddim(teacher, z, 2, clip=True))
    assert x.shape == z.shape and x.isfinite().all()
    with pytest.raises(ValueError, match="label"):
        teacher(z, 500, torch.tensor([3]))


@pytest.mark.parametrize("method", [
    dmd.Settings("cifar10", n_pairs=2, solver="ddim", solver_steps=1),
    dmd2.Settings("cifar10", updates=(1, 1), generator_weight=0.1, discriminator_weight=0.1)],
    ids=["dmd", "dmd2"])
def test_one_with_fewer_channels_is_distilled(method, tmp_path):
    teacher = loaded(tmp_path, (32, 64, 64, 64))
    z = torch.randn(2, 3, 32, 32)
    recipe = Recipe("", COLOUR, method, 1, 1, samplings=(Sampling("ddim", 1),))
    given = {"cifar10": teacher, "pairs": Pairs(z, z.clamp(-1, 1))}
    sources = Sources(COLOUR, given=given)
    training = recipe.prepare(train.accelerator(True), sources)
    before = next(training.learners["generator"].net.parameters()).clone()
    values = training.step(torch.Generator().manual_seed(0))
    assert all(value.isfinite() for value in values.values())
    assert not torch.equal(before, next(training.learners["generator"].net.parameters()))
