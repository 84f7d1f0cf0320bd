"""Streams of random numbers: one a purpose, a seed and a number, the same on every machine."""
import itertools

import pytest
import torch
from conftest import refused

from dmdkit import noise

# More than is in use: steps of trainings, batches of everything else, and what a head start, a fit
# or a baseline draws (negative numbers).
TRAININGS = itertools.product(["training"], [0, 1, 2, 3, 17], range(-6, 15_000))
OTHERS = itertools.product([p for p in noise.PURPOSES if p != "training"], range(8), range(-6, 48))


def test_no_two_streams_in_use_start_alike():
    """torch's generator on the CPU keeps 32 bits of a seed."""
    streams = [*TRAININGS, *OTHERS]
    kept = {noise.seed_of(*stream) % 2**32 for stream in streams}
    assert len(kept) == len(streams)


def test_torch_keeps_32_bits_on_the_cpu():
    """If this fails, the test above asks for more than it has to."""
    low, high = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    assert torch.equal(torch.rand(3, generator=low), torch.rand(3, generator=high))


def test_a_stream_is_the_same_wherever_it_is_opened():
    assert noise.seed_of("report", 1, 2) == 7619821345103143599
    first, second = (noise.generator("report", 1, 2) for _ in range(2))
    assert torch.equal(torch.randn(4, generator=first), torch.randn(4, generator=second))


@pytest.mark.parametrize("purpose", ["evaluation", "", None])
def test_an_unknown_purpose_is_refused(purpose):
    with refused(ValueError, "Noise is for one of training, pairs, pictures, selection, report"):
        noise.generator(purpose)
