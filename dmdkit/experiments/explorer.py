"""The step explorer of lesson 00: the pictures behind its sliders, computed once and shipped.

    data/explorer/teacher.png    every picture of one model, a row each of sampler × digit × guidance, a column a step
                  teacher.json   its card: axes, seed, the checksums of the picture and of the model, versions, time
                  teacher-contact-sheet.png    the README's picture
"""
import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from . import files, sample, widgets
from .data import ROOT, to_uint8
from .denoiser import Denoiser

SAMPLERS = {"DDIM": sample.ddim, "DDPM": sample.ddpm}
STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 400)
GUIDANCES = (0.0, 0.5, 1.0, 2.0)
AXES = ("sampler", "digit", "guidance", "steps")


def noise(denoiser: Denoiser, seed: int = 0) -> Tensor:
    """The explorer's starting noise, one for each class, (n_classes, C, H, W). It is drawn on the CPU, so that every
    machine starts from the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(denoiser.n_classes, *denoiser.sample_shape, generator=generator)


def cell(denoiser: Denoiser, sampler: str, guidance: float, n_steps: int, seed: int = 0, progress=None) -> Tensor:
    """All digits by one sampler, guidance and number of steps, from the explorer's noise: (10, 28, 28) uint8.

    The noise that DDPM adds on the way comes from a generator of the same seed in every cell. Nothing but the
    settings differs, therefore, between two pictures of a digit.
    """
    device = next(denoiser.parameters()).device
    z, label = noise(denoiser, seed).to(device), torch.arange(denoiser.n_classes, device=device)
    generator = torch.Generator(device).manual_seed(seed + 1)  # seed itself would add z again in the first step
    for state in SAMPLERS[sampler](denoiser, z, n_steps, label, guidance, generator):
        if progress is not None:
            progress.update(len(z) * (1 if guidance == 0 else 2))
    return to_uint8(state.x).squeeze(1).cpu()


def compute(denoiser: Denoiser, samplers=tuple(SAMPLERS), guidances=GUIDANCES, steps=STEPS, seed: int = 0) -> Tensor:
    """Every cell: (samplers, digits, guidances, steps, 28, 28) uint8. With the default settings 127,540 network
    evaluations: some minutes on two CPU cores."""
    total = denoiser.n_classes * sum(steps) * len(samplers) * sum(1 if w == 0 else 2 for w in guidances)
    with tqdm(total=total, unit="evaluation", unit_scale=True, desc="explorer") as bar:
        cells = [[torch.stack([cell(denoiser, sampler, w, n, seed, bar) for n in steps], 1) for w in guidances]
                 for sampler in samplers]
    return torch.stack([torch.stack(row, 1) for row in cells])


def build(name: str = "teacher", root: Path = ROOT, device: str = "cpu", samplers=tuple(SAMPLERS),
          guidances=GUIDANCES, steps=STEPS, seed: int = 0) -> Path:
    """Compute and store the pictures of the artefact ``name``; returns the picture's path.

    For a distilled model give what applies to it, ``steps=(1,)`` say. Raises ValueError for an unknown name,
    RuntimeError if the folder cannot be written.
    """
    from . import store  # here, since it needs diffusers: seconds that whoever only wants the pictures can do without

    model = store.load(name, device, root)
    begun = time.perf_counter()
    frames = compute(model, samplers, guidances, steps, seed)
    seconds = time.perf_counter() - begun
    axes = dict(zip(AXES, ([*samplers], [str(i) for i in range(model.n_classes)], [f"{w:g}" for w in guidances],
                           [str(n) for n in steps])))
    picture = widgets.encode(widgets.grid(frames.flatten(0, 2), gap=0))
    path = Path(root) / "explorer" / f"{name}.png"
    card = {"name": name, "what": "One noise a digit, sampled at every setting (dmdkit.explorer).", "axes": axes,
            "frame": list(frames.shape[-2:]), "seed": seed, "model_sha256": store.card(name, root)["sha256"],
            "device": torch.cuda.get_device_name(device) if "cuda" in str(device) else
            f"CPU, {torch.get_num_threads()} threads", "wall_time_s": round(seconds),
            "versions": files.versions()}
    files.write_atomically(path, picture)
    files.write_json(path.with_suffix(".json"), card | {"sha256": files.sha256(path)})
    if len(steps) == 1:
        return path  # one column is no contact sheet
    frames, axes = load([name], root)
    sheet = widgets.contact_sheet(frames, axes, rows="digit", sampler=axes["sampler"][0], guidance=axes["guidance"][0],
                                  title=f"{name}: one noise a row, ever more steps")
    files.write_atomically(path.with_name(f"{name}-contact-sheet.png"), widgets.png(sheet))
    return path


def card(name: str, root: Path = ROOT) -> dict:
    """The card of a model's pictures. Raises ValueError for a model that has none."""
    folder = Path(root) / "explorer"
    names = sorted(path.stem for path in folder.glob("*.json"))
    if name not in names:
        raise ValueError(f"The explorer has no pictures of {name!r} in {folder}; it has "
                         f"{', '.join(names) or 'none'}. Compute them with dmdkit.explorer.build({name!r}).")
    return json.loads((folder / f"{name}.json").read_text())


def _frames(name: str, root: Path) -> Tensor:
    entry, path = card(name, root), Path(root) / "explorer" / f"{name}.png"
    found = files.sha256(path) if path.exists() else "missing"
    if found != entry["sha256"]:
        raise RuntimeError(f"{path} is damaged: its SHA-256 should be {entry['sha256']} and is {found}. Restore it "
                           f"with `git checkout {path.name}`, or compute it again: dmdkit.explorer.build({name!r}).")
    height, width = entry["frame"]
    lengths = [len(values) for values in entry["axes"].values()]
    sheet = torch.from_numpy(np.array(Image.open(io.BytesIO(path.read_bytes()))))
    return sheet.unflatten(0, (-1, height)).unflatten(-1, (-1, width)).transpose(1, 2).reshape(*lengths, height, width)


def load(models: list[str] = ("teacher",), root: Path = ROOT) -> tuple[Tensor, dict[str, list[str]]]:
    """The pictures of several models: frames (model, sampler, digit, guidance, steps, 28, 28) uint8, ink dark on
    white, and their axes. A model that has only one entry on an axis, a one-step student say, shows that one everywhere
    along it, and its name says so.

    Raises ValueError for an unknown model or one whose axes do not fit the first's, RuntimeError for a damaged file.
    """
    first = card(models[0], root)["axes"]
    names, stack = [], []
    for name in models:
        own, frames = card(name, root)["axes"], _frames(name, root)
        misfits = [axis for axis in first if own[axis] != first[axis] and len(own[axis]) != 1]
        if misfits:
            raise ValueError(f"{name!r} has other values of {', '.join(misfits)} than {models[0]!r}: build both alike.")
        fixed = [axis for axis in ("steps",) if len(own[axis]) < len(first[axis])]
        names.append(name + "".join(f" ({own[axis][0]} {axis.rstrip('s') if own[axis][0] == '1' else axis})"
                                    for axis in fixed))
        stack.append(frames.expand(*map(len, first.values()), *frames.shape[-2:]))
    return 255 - torch.stack(stack), {"model": names, **first}


def show(models: list[str] = ("teacher",), root: Path = ROOT, panels: str | None = None, **start) -> widgets.Bundle:
    """The player over the models' pictures. start: values to start from, ``digit=3`` say."""
    frames, axes = load(models, root)
    captions = [f"{n} network call{'s' * (n > 1)} a picture" for n in map(int, axes["steps"])]
    start = {"digit": "3", "guidance": axes["guidance"][min(1, len(axes["guidance"]) - 1)]} | {
        name: str(value) for name, value in start.items()}
    return widgets.player(frames, axes, start=start, panels=panels, rows="guidance", captions=captions,
                          title=f"Digit {start['digit']} from one noise, at every number of steps")


def draw(frames: Tensor, axes: dict[str, list[str]], columns: int = 5, scale: int = 4, **values) -> bytes:
    """All digits at one setting as a PNG file, in rows of ``columns``: what the live slider paints, in a few ms."""
    chosen = widgets.pick(frames, axes, **{"model": axes["model"][0], **values})
    return widgets.encode(widgets.grid(chosen.unflatten(0, (-1, columns)), gap=1), scale)
