"""Random streams by purpose: what a student was trained on is never what it is judged on.

Streams of different purposes, seeds or numbers share no draw. torch's generator on the CPU keeps 32
bits of a seed, so that this is no law of large numbers: a test compares all streams that are in use.
"""
import hashlib

import torch

PURPOSES = ("training", "pairs", "pictures", "selection", "report")
"""training: steps of a training. pairs: noise–image pairs. pictures: what lessons show. selection: by what settings and
weights are chosen. report: by what they are judged, once, when they are final."""


def seed_of(purpose: str, seed: int = 0, number: int = 0) -> int:
    """The seed of one stream, in 0 … 2⁶³ − 1. number: of a batch or a step within the stream.

    Raises ValueError for a purpose that is not in ``PURPOSES``.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"Noise is for one of {', '.join(PURPOSES)}; got {purpose!r}.")
    digest = hashlib.sha256(f"{purpose}/{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(
    purpose: str, seed: int = 0, number: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator at the start of its stream. Raises what ``seed_of`` raises."""
    return torch.Generator(device).manual_seed(seed_of(purpose, seed, number))
