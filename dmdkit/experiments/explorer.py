"""The pictures behind lesson 00's sliders, computed once and shipped.

    data/explorer/teacher.png    every picture of one model: a row each of sampler × class × w,
                                 a column a number of steps
                  teacher.json   its card: axes, noise, checksums, versions, time
"""
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import noise, sample
from ..data import ROOT, to_uint8
from ..denoiser import Denoiser
from . import sheet

SAMPLERS = {"DDIM": sample.ddim, "DDPM": sample.ddpm}
STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 400)
GUIDANCES = (0.0, 0.5, 1.0, 2.0)
AXES = ("sampler", "digit", "guidance", "steps")
SHOWN = ("teacher", "student-dmd", "student-dmd2")


def start(denoiser: Denoiser, seed: int = 0) -> Tensor:
    """The noise that the pictures start from, one for each class, (n_classes, C, H, W). It is drawn
    on the CPU, so that every machine starts from the same."""
    g = noise.generator("pictures", seed)
    return torch.randn(denoiser.n_classes, *denoiser.sample_shape, generator=g)


def cell(denoiser: Denoiser, sampler: str, guidance: float, n_steps: int, seed: int = 0,
         bar: tqdm | None = None) -> Tensor:
    """All classes by one sampler, guidance and number of steps, (n_classes, H, W) uint8.

    The noise that DDPM adds on the way is the same in every cell: nothing but the settings differs
    between two pictures of a class.
    """
    device = next(denoiser.parameters()).device
    z = start(denoiser, seed).to(device)
    label = torch.arange(denoiser.n_classes, device=device)
    g = noise.generator("pictures", seed, 1, device)
    for state in SAMPLERS[sampler](denoiser, z, n_steps, label, guidance, g):
        if bar is not None:
            bar.update(len(z) * (2 if guidance else 1))
    return to_uint8(state.x).squeeze(1).cpu()


def compute(denoiser: Denoiser, samplers: Sequence[str] = tuple(SAMPLERS),
            guidances: Sequence[float] = GUIDANCES, steps: Sequence[int] = STEPS,
            seed: int = 0) -> Tensor:
    """Every cell: (samplers, classes, guidances, steps, H, W) uint8. With the default settings
    127,540 network evaluations: some minutes on two CPU cores."""
    each = denoiser.n_classes * sum(steps) * len(samplers)
    total = each * sum(2 if w else 1 for w in guidances)
    with tqdm(total=total, unit="evaluation", unit_scale=True, desc="explorer") as bar:
        by_sampler = []
        for sampler in samplers:
            rows = []
            for w in guidances:
                row = [cell(denoiser, sampler, w, n, seed, bar) for n in steps]
                rows.append(torch.stack(row, 1))
            by_sampler.append(torch.stack(rows, 1))
    return torch.stack(by_sampler)


def build(name: str, root: Path = ROOT, device="cpu", **axes) -> Path:
    """Compute and store the pictures of the artefact ``name``; returns the picture's path.

    axes: what ``compute`` takes; for a one-step student guidances=(0.0,), steps=(1,) and one
    sampler. Raises ValueError for an unknown name, RuntimeError if the folder cannot be written.
    """
    from .. import store  # here, since it needs diffusers: whoever only looks can do without

    model, begun = store.load(name, device, root), time.perf_counter()
    frames = compute(model, **axes)
    values = {"sampler": axes.get("samplers", tuple(SAMPLERS)), "digit": range(model.n_classes),
              "guidance": axes.get("guidances", GUIDANCES), "steps": axes.get("steps", STEPS)}
    return sheet.write(_path(name, root), frames.flatten(0, 2), {
        "name": name, "what": "One noise a digit, sampled at every setting.",
        "axes": {axis: [_said(value) for value in values[axis]] for axis in AXES},
        "noise": "pictures", "seed": axes.get("seed", 0),
        "model_sha256": store.checksum(name, root),
        "wall_time_s": round(time.perf_counter() - begun)})


def _path(name: str, root: Path) -> Path:
    return Path(root) / "explorer" / f"{name}.png"


def _said(value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def card(name: str, root: Path = ROOT) -> dict:
    """The card of a model's pictures. Raises ValueError for a model that has none."""
    folder = Path(root) / "explorer"
    names = sorted(path.stem for path in folder.glob("*.json"))
    if name not in names:
        raise ValueError(f"The explorer has no pictures of {name!r} in {folder}; it has "
                         f"{', '.join(names) or 'none'}. Compute them: "
                         "`python -m dmdkit build explorer`.")
    return sheet.card(_path(name, root), "axes")


def _frames(name: str, root: Path) -> Tensor:
    counts = map(len, card(name, root)["axes"].values())
    frames = sheet.read(_path(name, root))
    return frames.reshape(*counts, *frames.shape[-2:])


def load(models: Sequence[str] = ("teacher",), root: Path = ROOT
         ) -> tuple[Tensor, dict[str, list[str]]]:
    """The pictures of several models: frames (model, sampler, digit, guidance, steps, H, W) uint8,
    ink dark on white, and their axes. A model that has one entry on an axis, as a one-step student
    has, shows that one everywhere along it, and its name says so.

    Raises ValueError for an unknown model or one whose axes do not fit the first's, RuntimeError
    for a damaged file.
    """
    first = card(models[0], root)["axes"]
    names, stack = [], []
    for name in models:
        own = card(name, root)["axes"]
        misfits = [axis for axis in first if own[axis] != first[axis] and len(own[axis]) != 1]
        if misfits:
            raise ValueError(f"{name!r} has other values of {', '.join(misfits)} than "
                             f"{models[0]!r}: build both alike.")
        alone = len(own["steps"]) < len(first["steps"])
        count = f"{own['steps'][0]} step" if own["steps"][0] == "1" else f"{own['steps'][0]} steps"
        names.append(f"{name} ({count})" if alone else name)
        frames = _frames(name, root)
        stack.append(frames.expand(*map(len, first.values()), *frames.shape[-2:]))
    return 255 - torch.stack(stack), {"model": names, **first}
