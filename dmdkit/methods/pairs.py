"""Noise–image pairs: noise, and the image that a deterministic solver of the teacher makes of it (DMD, section 4.2).

    folder/pairs-00000.safetensors …    shards of ``SHARD`` pairs: noise in float16, images as uint8, labels
           pairs.json                   the card: solver, steps, guidance, the teacher's checksum, time
"""
import json
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import files, sample
from .data import scale, to_uint8
from .denoiser import Denoiser

SHARD = 640
SOLVERS = {"ddim": sample.ddim, "heun": sample.heun}
CALLS = {"ddim": lambda n: n, "heun": lambda n: 2 * n - 1}  # how often n steps call the denoiser, guided twice each


class Pairs(NamedTuple):
    """Noise and the sample that a deterministic solver of the teacher makes of it; the label travels with the pair."""
    z: Tensor                    # (N, …)
    x: Tensor                    # (N, …)
    label: Tensor | None = None  # (N,) or None for no class

    def batch(self, index: Tensor) -> "Pairs":
        return Pairs(self.z[index], self.x[index], None if self.label is None else self.label[index])

    def to(self, device) -> "Pairs":
        return Pairs(*(None if value is None else value.to(device) for value in self))


def make_pairs(teacher: Denoiser, n: int, folder: Path, *, solver: str = "ddim", n_steps: int = 16,
               guidance: float = 0.0, seed: int = 0, about: dict | None = None) -> Pairs:
    """Make n pairs with balanced labels 0, 1, … 9, 0, 1, … and write them to ``folder``; finished shards there are
    taken as they are, so that a stopped run goes on, and a larger n adds to a smaller one.

    The noise is rounded to float16 before the solver sees it, so that what is stored is what was solved.

    Args:
        solver: "ddim" or "heun". A sampler that draws noise would make x no function of z, and the regression average.
        about: what else the card should say, the teacher's checksum for instance; shards of another are refused.
    Raises ValueError for a solver, a count or a number of steps that makes no sense, RuntimeError if the folder holds
    other pairs, a damaged shard, or cannot be written; all before the first network call.
    """
    if solver not in SOLVERS:
        raise ValueError(f"Pairs need a deterministic solver, one of {', '.join(SOLVERS)}; got {solver!r}.")
    if n < 1:
        raise ValueError(f"The number of pairs must be at least 1; got {n}.")
    teacher.schedule.steps(n_steps)  # refuses a bad number
    settings = {"solver": solver, "n_steps": n_steps, "guidance": guidance, "seed": seed, "T": teacher.schedule.T,
                "schedule": teacher.schedule.name, "sample_shape": list(teacher.sample_shape),
                "n_classes": teacher.n_classes, **(about or {})}
    card = _claim(Path(folder), settings)
    device = next(teacher.parameters()).device
    sizes = [min(SHARD, n - start) for start in range(0, n, SHARD)]
    missing = [i for i, size in enumerate(sizes)
               if not _shard(folder, i).exists() or len(_checked(_shard(folder, i), card).z) < size]
    with tqdm(total=n, initial=n - sum(sizes[i] for i in missing), unit="pair", desc="pairs") as bar:
        for i in missing:
            begun = time.perf_counter()
            g = torch.Generator(device).manual_seed(seed * 1_000_003 + i)
            z = torch.randn(SHARD, *teacher.sample_shape, generator=g, device=device)[:sizes[i]].half()
            label = (i * SHARD + torch.arange(len(z), device=device)) % teacher.n_classes if teacher.n_classes else None
            parts = []
            for rows in torch.arange(len(z)).split(128):
                part = None if label is None else label[rows]
                parts.append(sample.last(SOLVERS[solver](teacher, z[rows].float(), n_steps, part, guidance)))
                bar.update(len(rows))
            state = {"z": z, "x": to_uint8(torch.cat(parts))}
            files.save_state(_shard(folder, i), state if label is None else state | {"label": label.to(torch.uint8)})
            card["wall_time_s"] = round(card["wall_time_s"] + time.perf_counter() - begun, 1)
            files.write_json(Path(folder) / "pairs.json", card)
    calls = CALLS[solver](n_steps) * (2 if guidance and teacher.n_classes else 1)
    card |= {"pairs": max(n, card.get("pairs", 0)), "network_evaluations_a_pair": calls}
    files.write_json(Path(folder) / "pairs.json", card)
    return load_pairs(folder, n, teacher)


def load_pairs(folder: Path, n: int | None = None, teacher: Denoiser | None = None) -> Pairs:
    """The first n pairs of a folder (all by default): z and x float32, (n, C, H, W), x in [−1, 1], label (n,) int64.

    With ``teacher``, they must be of its shape and schedule. Raises RuntimeError for pairs that are missing, damaged,
    of another teacher, or fewer than n.
    """
    card = pairs_card(folder)
    if teacher is not None:
        own = {"T": teacher.schedule.T, "schedule": teacher.schedule.name, "sample_shape": list(teacher.sample_shape)}
        _same(folder, card, own)
    shards, found = [], 0
    while found < (n or float("inf")) and _shard(folder, len(shards)).exists():
        shards.append(_checked(_shard(folder, len(shards)), card))
        found += len(shards[-1].z)
    if found < (n or 1):
        raise RuntimeError(f"{folder} holds {found} pairs; {n or 1} are wanted. Make the rest: "
                           "`python -m dmdkit pairs` with that number, or dmdkit.pairs.make_pairs.")
    joined = [None if values[0] is None else torch.cat(values)[:n] for values in zip(*shards)]
    return Pairs(joined[0].float(), scale(joined[1]), joined[2] if joined[2] is None else joined[2].long())


def pairs_card(folder: Path) -> dict:
    """The card of a folder of pairs. Raises RuntimeError if there is none."""
    path = Path(folder) / "pairs.json"
    if not path.exists():
        raise RuntimeError(f"There are no pairs in {folder}. Make them: `python -m dmdkit pairs`, or "
                           "dmdkit.pairs.make_pairs.")
    return json.loads(path.read_text())


def quality(teacher: Denoiser, z: Tensor, label: Tensor | None, solver: str, n_steps: int, reference: Tensor,
            guidance: float = 0.0) -> dict[str, float]:
    """How near a solver comes to ``reference`` (the same z (B, …) solved in many steps), and at what cost: the root of
    the mean squared difference per pixel, and network evaluations an image."""
    x = sample.last(SOLVERS[solver](teacher, z, n_steps, label, guidance))
    return {"error": (x - reference).square().mean().sqrt().item(),
            "evaluations": CALLS[solver](n_steps) * (2 if guidance else 1)}


def _shard(folder: Path, i: int) -> Path:
    return Path(folder) / f"pairs-{i:05d}.safetensors"


def _checked(path: Path, card: dict) -> Pairs:
    """A shard's tensors as stored. Raises RuntimeError if they are not pairs as the card has them."""
    state = files.load_state(path)
    made, shape = Pairs(state.get("z"), state.get("x"), state.get("label")), tuple(card["sample_shape"])
    n = 0 if made.z is None else len(made.z)
    good = n and made.x is not None and made.z.shape == made.x.shape == (n, *shape) and made.x.dtype == torch.uint8 \
        and bool(made.z.isfinite().all())
    if good and card["n_classes"]:
        good = made.label is not None and made.label.shape == (n,) and int(made.label.max()) < card["n_classes"]
    if not good:
        raise RuntimeError(f"{path} does not hold pairs of finite noise and images of shape {shape} with a label each. "
                           "Delete it and make it again: `python -m dmdkit pairs`.")
    return made


def _same(folder: Path, card: dict, settings: dict) -> None:
    other = [name for name, value in settings.items() if card.get(name) != value]
    if other:
        raise RuntimeError(f"The pairs in {folder} are others: their {other[0]} is {card.get(other[0])!r}, wanted is "
                           f"{settings[other[0]]!r}. Use another folder, or delete this one and make them again.")


def _claim(folder: Path, settings: dict) -> dict:
    """The card of a folder that holds pairs of these settings, or none yet."""
    if (folder / "pairs.json").exists():
        card = pairs_card(folder)
        _same(folder, card, settings)
        return card
    card = {"what": "Noise–image pairs of the teacher by a deterministic solver.", **settings, "wall_time_s": 0.0,
            "versions": files.versions()}
    files.write_json(folder / "pairs.json", card)
    return card
