"""Noise–image pairs: noise, and the sample that a deterministic solver of the teacher makes of it
(DMD, section 3.3).

    folder/pairs-00000.safetensors …  shards of ``SHARD`` pairs; images as uint8, points as they are
           pairs.json                 the card: solver, steps, guidance, teacher's checksum, time
"""
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import expect, files, noise, sample
from ..data import check_index, scale, to_uint8
from ..denoiser import Denoiser

SHARD, BATCH = 640, 128
MOST = SHARD * 100_000  # a shard's number has five digits
SOLVERS = {"ddim": sample.ddim, "heun": sample.heun}
CARD = "pairs.json"


class Pairs(NamedTuple):
    """Noise and the sample that the teacher makes of it; the label travels with the pair."""
    z: Tensor                    # (N, …)
    x: Tensor                    # (N, …)
    label: Tensor | None = None  # (N,), or None for no class

    def batch(self, index: Tensor) -> "Pairs":
        """The pairs of these numbers, (B,) int64. Raises what ``data.check_index`` raises."""
        check_index(index, len(self.z))
        label = None if self.label is None else self.label[index]
        return Pairs(self.z[index], self.x[index], label)

    def to(self, device) -> "Pairs":
        return Pairs(*(None if value is None else value.to(device) for value in self))

    def check(self, denoiser: Denoiser) -> None:
        """Raises TypeError or ValueError unless they are noise and samples of the network's shape,
        in floating point, with labels of its classes."""
        for name, value in (("The pairs' z", self.z), ("The pairs' x", self.x)):
            expect.batch(name, value, denoiser.sample_shape)
        expect.alike(z=self.z, x=self.x)
        expect.check_label(self.label, len(self.z), denoiser.n_classes)


@dataclass(frozen=True)
class Solver:
    """How pairs are made: "ddim" or "heun", n_steps of it, and the teacher's guidance."""
    name: str = "heun"
    n_steps: int = 8
    guidance: float = 0.0

    def __post_init__(self):
        if self.name not in SOLVERS:
            raise ValueError(f"Pairs need a deterministic solver, one of {', '.join(SOLVERS)}; "
                             f"got {self.name!r}. With fresh noise x is no function of z.")
        expect.whole("n_steps", self.n_steps)
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number; got {self.guidance}.")

    def solve(self, teacher: Denoiser, z: Tensor, label: Tensor | None) -> Tensor:
        """The samples of noise z (B, …), shaped like it."""
        return sample.last(SOLVERS[self.name](teacher, z, self.n_steps, label, self.guidance))

    def evaluations(self) -> int:
        """Network evaluations a pair; guidance doubles each."""
        calls = 2 * self.n_steps - 1 if self.name == "heun" else self.n_steps
        return calls * (2 if self.guidance else 1)


def settings_of(teacher: Denoiser, solver: Solver, seed: int = 0) -> dict:
    """What has to agree between two halves of one set of pairs."""
    return {"solver": solver.name, "n_steps": solver.n_steps, "guidance": solver.guidance,
            "seed": seed, "schedule": teacher.schedule.arguments,
            "sample_shape": list(teacher.sample_shape), "n_classes": teacher.n_classes}


def make_pairs(teacher: Denoiser, n: int, folder: Path, solver: Solver, *, seed: int = 0,
               about: dict | None = None) -> Pairs:
    """Make n pairs with balanced labels and write them to ``folder``. Finished shards there are
    taken as they are: a stopped run goes on, and a larger n adds to a smaller one.

    The noise is rounded to float16 before the solver sees it: what is stored is what was solved.

    Args:
        about: what else the card says and has to agree, the teacher's checksum for instance.
    Raises ValueError for a count or a number of steps that makes no sense, RuntimeError if the
    folder holds other pairs or a damaged shard, or cannot be written; all before the first network
    call. Raises FloatingPointError where the teacher's samples are not finite.
    """
    n = expect.whole("The number of pairs", n, 1, MOST)
    teacher.schedule.steps(solver.n_steps)  # refuses more than T
    if solver.guidance and not teacher.n_classes:
        raise ValueError("This teacher has no classes to guide by: leave the solver's guidance at "
                         f"0; got {solver.guidance:g}.")
    folder = Path(folder)
    card = _claim(folder, settings_of(teacher, solver, seed) | (about or {}))
    sizes = [min(SHARD, n - start) for start in range(0, n, SHARD)]
    missing = [i for i, size in enumerate(sizes) if _made(folder, i, card) < size]
    done = n - sum(sizes[i] for i in missing)
    with tqdm(total=n, initial=done, unit="pair", desc="pairs", disable=not missing) as bar:
        for i in missing:
            begun = time.perf_counter()
            shard = _solve(teacher, solver, i, sizes[i], seed, bar)
            files.save_state(_shard(folder, i), {k: v for k, v in shard.items() if v is not None})
            card["wall_time_s"] = round(card["wall_time_s"] + time.perf_counter() - begun, 1)
            card["pairs"] = max(card["pairs"], min(n, i * SHARD + sizes[i]))
            files.write_json(folder / CARD, card)
    return load_pairs(folder, n, teacher)


def _solve(teacher: Denoiser, solver: Solver, i: int, n: int, seed: int, bar: tqdm) -> dict:
    """The i-th shard as it is stored."""
    device = next(teacher.parameters()).device
    g = noise.generator("pairs", seed, i, device)
    z = torch.randn(SHARD, *teacher.sample_shape, generator=g, device=device)[:n].half()
    label = None
    if teacher.n_classes:
        label = (i * SHARD + torch.arange(n, device=device)) % teacher.n_classes
    parts = []
    for rows in torch.arange(n).split(BATCH):
        part = None if label is None else label[rows]
        parts.append(solver.solve(teacher, z[rows].float(), part))
        bar.update(len(rows))
    x = torch.cat(parts)
    if not x.isfinite().all():
        raise FloatingPointError("The teacher's samples are not finite, so they make no pairs. "
                                 "Check its weights, and that its prediction fits its schedule.")
    return {"z": z, "x": to_uint8(x) if x.ndim == 4 else x,
            "label": None if label is None else label.to(torch.int16)}


def load_pairs(folder: Path, n: int | None = None, teacher: Denoiser | None = None) -> Pairs:
    """The first n pairs of a folder (all by default): z and x float32, (n, …), images in [−1, 1],
    label (n,) int64.

    With ``teacher``, they must be of its shape and schedule. Raises ValueError for a count that
    makes no sense, RuntimeError for pairs that are missing, damaged, of another teacher, or fewer
    than n.
    """
    folder, n = Path(folder), n if n is None else expect.whole("The number of pairs", n)
    card = pairs_card(folder)
    if teacher is not None:
        own = settings_of(teacher, Solver())
        _same(folder, card, {name: own[name] for name in ("schedule", "sample_shape", "n_classes")})
    shards, found = [], 0
    while (n is None or found < n) and _shard(folder, len(shards)).exists():
        shards.append(_checked(_shard(folder, len(shards)), card))
        found += len(shards[-1].z)
    wanted = n or 1
    if found < wanted:
        raise RuntimeError(f"{folder} holds {found} pairs; {wanted} are wanted. Make the rest with "
                           "methods.pairs.make_pairs.")
    z = torch.cat([shard.z for shard in shards])[:n]
    x = torch.cat([shard.x for shard in shards])[:n]
    label = torch.cat([shard.label for shard in shards])[:n].long() if card["n_classes"] else None
    return Pairs(z.float(), scale(x) if x.dtype == torch.uint8 else x, label)


def pairs_card(folder: Path) -> dict:
    """The card of a folder of pairs. Raises RuntimeError if there is none, or it is damaged."""
    path = Path(folder) / CARD
    if not path.exists():
        raise RuntimeError(f"There are no pairs in {folder}. `python -m dmdkit train` makes those "
                           "that a student needs; methods.pairs.make_pairs makes any.")
    return files.read_json(path, "schedule", "sample_shape", "n_classes", "pairs", "wall_time_s")


def quality(teacher: Denoiser, z: Tensor, label: Tensor | None, solver: Solver,
            reference: Tensor) -> dict[str, float]:
    """How near a solver comes to ``reference`` (the same z (B, …) solved in many steps): the root
    of the mean squared difference a value; and its network evaluations a sample. Raises TypeError
    or ValueError for a reference that is not like z."""
    expect.alike(z=z, reference=reference)
    x = solver.solve(teacher, z, label)
    error = (x - reference).square().mean().sqrt().item()
    return {"error": error, "evaluations": solver.evaluations()}


def _shard(folder: Path, i: int) -> Path:
    return folder / f"pairs-{i:05d}.safetensors"


def _made(folder: Path, i: int, card: dict) -> int:
    """How many pairs the i-th shard holds."""
    path = _shard(folder, i)
    return len(_checked(path, card).z) if path.exists() else 0


def _checked(path: Path, card: dict) -> Pairs:
    """A shard's tensors as stored. Raises RuntimeError if they are not pairs as the card says."""
    state = files.load_state(path)
    made = Pairs(state.get("z"), state.get("x"), state.get("label"))
    if not (_fits(made, tuple(card["sample_shape"])) and _labelled(made, card["n_classes"])):
        raise RuntimeError(f"{path} does not hold pairs of finite noise and samples of shape "
                           f"{tuple(card['sample_shape'])} with a label each. Delete it and make "
                           "it again with methods.pairs.make_pairs.")
    return made


def _fits(made: Pairs, shape: tuple[int, ...]) -> bool:
    if made.z is None or made.x is None or not len(made.z):
        return False
    stored = torch.uint8 if len(shape) == 3 else torch.float32
    if (made.z.dtype, made.x.dtype) != (torch.float16, stored):
        return False
    finite = made.z.isfinite().all() and made.x.isfinite().all()
    return made.z.shape == made.x.shape == (len(made.z), *shape) and bool(finite)


def _labelled(made: Pairs, n_classes: int) -> bool:
    if not n_classes:
        return True
    label = made.label
    if label is None or label.shape != (len(made.z),) or label.is_floating_point():
        return False
    return 0 <= int(label.min()) and int(label.max()) < n_classes


def _same(folder: Path, card: dict, settings: dict) -> None:
    for name, value in settings.items():
        if card.get(name) != value:
            raise RuntimeError(f"The pairs in {folder} are others: their {name} is "
                               f"{card.get(name)!r}, wanted is {value!r}. Use another folder.")


def _claim(folder: Path, settings: dict) -> dict:
    """The card of a folder that holds pairs of these settings, or none yet."""
    if (folder / CARD).exists():
        card = pairs_card(folder)
        _same(folder, card, settings)
        return card
    if _shard(folder, 0).exists():
        raise RuntimeError(f"{folder} holds pairs, but not their card {CARD}, so nobody knows "
                           "whose they are. Put it back, or use another folder.")
    card = {"what": "Noise–image pairs of the teacher by a deterministic solver.", **settings,
            "pairs": 0, "wall_time_s": 0.0, "versions": files.versions()}
    files.write_json(folder / CARD, card)
    return card
