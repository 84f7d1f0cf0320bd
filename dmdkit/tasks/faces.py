"""CelebA's aligned faces: 32 × 32, in colour, without classes."""
from functools import partial

from .. import data, nets
from ..denoiser import Denoiser
from ..metrics import Scorer
from ..schedule import linear
from . import colour
from .task import Task


N_FACES = 10_000  # of CelebA's 162,770 to train on, what ships was trained on the first so many


def faces(train: bool = True, limit: int | None = N_FACES) -> data.Images:
    """CelebA's first faces; those to train on mirrored too."""
    found = data.celeba(train, limit=limit)
    return data.mirrored(found) if train else found


def half(first: bool) -> data.Images:
    """Every second face of those to train on, or the others: what is scored is compared with one
    half, and so is the other."""
    return data.celeba(limit=N_FACES).take(slice(0 if first else 1, None, 2))


def scorer() -> Scorer:
    """Scores pictures against half of the faces."""
    return colour.scorer(half(True), {})


def documented() -> Denoiser:
    """A network of the well-known set-up's size and kind: groups of 8, one attention head, whole
    pixels, ε-prediction, T = 1000, linear β. That one has 426,691 parameters, in a layout that is
    not published; this one has 128 more."""
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=32, block_out_channels=(24, 24, 24, 40), layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3 + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 3,
        norm_num_groups=nets.GROUPS, attention_head_dim=None)
    return Denoiser(net, linear(1000), "eps", n_classes=0)


TERMS = ("Learned from CelebA (Liu et al. 2015, Deep Learning Face Attributes in the Wild), whose "
         "images are for non-commercial research and may not be passed on; none of them is here. "
         "Use these weights for research and teaching, and what they draw for nothing that could "
         "be taken for a real person.")

FACES = Task(
    "faces", colour.SHAPE, 0, faces,
    networks={"network": colour.denoiser, "documented": documented},
    make_scorer=scorer, read_baseline=partial(half, False), terms=TERMS)
