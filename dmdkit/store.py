"""Artefacts on disk: a folder each, with weights in safetensors, diffusers' configs, and a card.

    data/teacher/  config.json  diffusion_pytorch_model.safetensors  UNet2DModel.from_pretrained
                   scheduler_config.json                             DDIMScheduler.from_pretrained
                   denoiser.json    schedule, prediction, patch and classes, for ``load``
                   card.json        recipe, versions, time, results, a checksum of every file here
"""
import json
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from . import disk, files, folders, nets, schedule
from .data import ROOT
from .denoiser import Denoiser

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = {"card.json", "config.json", "denoiser.json", "scheduler_config.json", WEIGHTS}
PREDICTION_TYPES = {"v": "v_prediction", "eps": "epsilon", "x": "sample"}  # ours → diffusers'
ALMOST_ONE = 1 - 2**-24  # in float32; at α = 0 the σ/α of diffusers' solvers would be infinite


# Looking

def names(root: Path = ROOT) -> list[str]:
    """Names of the artefacts in a folder, sorted; by default of those that ship.

    Raises RuntimeError if what ships is nowhere, since DMDKIT_DATA names no folder for instance.
    """
    root = Path(root)
    if root == ROOT and not root.is_dir():
        raise RuntimeError(f"{root} is no folder. Point the environment variable DMDKIT_DATA at "
                           "the clone's data folder, or leave it out.")
    found = (path.parent.name for path in root.glob("*/card.json"))
    return sorted(name for name in found if not name.startswith("."))


def find(name: str, *roots: Path) -> Path:
    """The first of the folders that has an artefact of that name; if none has, the last, which
    will say so. Without folders, the one of what ships."""
    for root in roots:
        if name in names(root):
            return root
    return roots[-1] if roots else ROOT


def card(name: str, root: Path = ROOT) -> dict:
    """An artefact's card.

    Raises ValueError for a name that is not there, RuntimeError for a card that is damaged.
    """
    there = names(root)
    if name not in there:
        raise ValueError(f"There is no artefact {name!r} in {root}; there are "
                         f"{', '.join(there) or 'none yet'}.")
    return files.read_json(Path(root) / name / "card.json", "files", "sha256")


def has_weights(entry: dict) -> bool:
    """Whether an artefact's weights ship, by its card: of some only the card does."""
    return not entry.get("card_only", False)


def checksum(name: str, *roots: Path) -> str:
    """The SHA-256 of an artefact's weights, by its card in the folder that ``find`` finds. Raises
    what ``card`` raises."""
    return card(name, find(name, *roots))["sha256"]


def change_card(name: str, change: Callable[[dict], dict], root: Path = ROOT) -> dict:
    """Replace an artefact's card by ``change`` of it, and return that.

    Nothing that another process writes onto it meanwhile is lost. Raises what ``card`` raises, and
    RuntimeError where it cannot be written.
    """
    card(name, root)  # refuses an unknown name
    with files.locked(root):  # as for a folder that is being replaced
        new = change(card(name, root))
        files.write_json(Path(root) / name / "card.json", new)
    return new


# Loading

def load(name: str, device: torch.device | str = "cpu", root: Path = ROOT) -> nn.Module:
    """An artefact in eval mode: a Denoiser, or a classifier. Weights are float32, whatever they are
    stored as, and in memory of their own.

    Raises ValueError for an unknown name, RuntimeError for a file that is missing or damaged and
    for weights that do not ship.
    """
    entry = card(name, root)
    if not has_weights(entry):
        raise RuntimeError(f"Of {name!r} only the card ships, since the clone has to stay small. "
                           f"Train it again: `python -m dmdkit train {name}`, then load it with "
                           "root=\"runs\".")
    content = _content(Path(root) / name, entry["files"])
    net = _network(Path(root) / name, content)
    if "denoiser.json" not in content:
        return net.eval().to(device)
    spec = json.loads(content["denoiser.json"])
    table = schedule.from_arguments(spec["schedule"])
    denoiser = Denoiser(net, table, spec["prediction"], spec["patch"], spec["n_classes"])
    return denoiser.eval().to(device, memory_format=torch.channels_last)


def _content(folder: Path, checksums: dict[str, str]) -> dict[str, bytes]:
    """The bytes of the files that a card lists, and of no others, compared with its checksums."""
    content = {}
    for name, expected in checksums.items():
        content[name] = files.read_bytes(folder / name)
        found = disk.sha256_of(content[name])
        if found != expected:
            raise disk.damaged(folder / name, f"its SHA-256 should be {expected} and is {found}")
    return content


def _network(folder: Path, content: dict[str, bytes]) -> nn.Module:
    """The network of a folder, from bytes that were compared: from_pretrained would read others."""
    config = json.loads(content["config.json"])
    try:
        kind = nets.network_class(config["_class_name"])
    except ValueError as error:
        raise RuntimeError(f"{folder} was written by another version of dmdkit. {error}") from None
    with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's numbers
        net = kind.from_config(config)
    net.load_state_dict(safetensors.torch.load(content[WEIGHTS]))
    return net


# Saving

def save(net: nn.Module, folder: Path, card: dict, half: bool = False,
         overwrite: bool = False) -> None:
    """Write an artefact's folder, whole or not at all.

    Args:
        net: a Denoiser, or a classifier of ``nets.NETWORKS``.
        card: what its card says; checksums are added.
        half: weights in float16.
        overwrite: whether an artefact that is there may be replaced. Nothing else ever is.
    Raises TypeError for what a folder cannot hold, ValueError for weights that are not finite,
    and RuntimeError if something is in the way or the folder cannot be written; what was there
    before is then left as it was.
    """
    content = _files_of(net, half)
    checksums = {name: disk.sha256_of(raw) for name, raw in sorted(content.items())}
    card = card | {"sha256": checksums[WEIGHTS], "files": checksums}
    content["card.json"] = files.as_json(card).encode("utf-8")
    folders.write(Path(folder), content, FILES, overwrite)


def _files_of(net: nn.Module, half: bool) -> dict[str, bytes]:
    """What is in an artefact's folder beside its card."""
    inner = net.net if isinstance(net, Denoiser) else net
    if isinstance(net, Denoiser) and type(net) is not Denoiser:
        raise TypeError(f"A {type(net).__name__} is more than the Denoiser that a folder holds; "
                        "save the plain Denoiser in it.")
    if type(inner) not in nets.NETWORKS.values():
        raise TypeError(f"A folder holds one of {', '.join(nets.NETWORKS)}, alone or in a "
                        f"Denoiser; got {type(inner).__name__}.")
    content = {"config.json": _config(inner), WEIGHTS: _weights(inner, half)}
    if isinstance(net, Denoiser):
        spec = {"schedule": net.schedule.arguments, "prediction": net.prediction,
                "patch": net.patch, "n_classes": net.n_classes}
        content["denoiser.json"] = files.as_json(spec).encode("utf-8")
        if sampled_by_diffusers(net):
            made = json.loads(scheduler(net.schedule, net.prediction).to_json_string())
            # on one line, since it has T betas
            content["scheduler_config.json"] = json.dumps(made).encode("utf-8")
    return content


def _config(net: nn.Module) -> bytes:
    config = json.loads(net.to_json_string())
    config.pop("_name_or_path", None)  # a folder of the trainer's machine
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode("utf-8")


def _weights(net: nn.Module, half: bool) -> bytes:
    dtype = torch.float16 if half else torch.float32
    state = {}
    for name, value in net.state_dict().items():
        value = value.detach().cpu().contiguous()
        state[name] = value.to(dtype) if value.is_floating_point() else value
        if not state[name].isfinite().all():
            raise ValueError(f"{name} is not finite in {dtype}; these weights are of no use.")
    return safetensors.torch.save(state, {"format": "pt"})


# diffusers

def sampled_by_diffusers(net: Denoiser) -> bool:
    """Whether diffusers has a scheduler for its schedule and prediction."""
    table = net.schedule
    preserving = torch.allclose(table.alpha**2 + table.sigma**2, torch.ones_like(table.alpha))
    return preserving and net.prediction in PREDICTION_TYPES


def scheduler(table: schedule.Schedule, prediction: str):
    """diffusers' DDIMScheduler of the same table.

    It samples what ``sample.ddim`` does where n divides T: its step before t is t − T // n. For
    every n do so diffusers' DPMSolverMultistepScheduler of the same config with solver_order=1,
    which is DDIM, and ``timesteps=schedule.times(n)``.
    Raises ValueError for a prediction or a schedule that diffusers does not know.
    """
    if prediction not in PREDICTION_TYPES:
        raise ValueError(f"diffusers samples networks that predict {', '.join(PREDICTION_TYPES)}, "
                         f"not {prediction!r}.")
    betas = [float(f"{beta:.8g}") for beta in table.betas().clamp(max=ALMOST_ONE).tolist()]
    from diffusers import DDIMScheduler  # seconds that a look at a card need not wait for
    return DDIMScheduler(
        num_train_timesteps=table.T, trained_betas=betas, clip_sample=False,
        prediction_type=PREDICTION_TYPES[prediction], timestep_spacing="trailing")
