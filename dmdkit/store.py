"""Artefacts on disk: a folder each, with weights in safetensors, diffusers' own configs, and a card.

    data/teacher/  config.json  diffusion_pytorch_model.safetensors    UNet2DModel.from_pretrained reads these
                   scheduler_config.json                               DDIMScheduler.from_pretrained reads this
                   denoiser.json                                       schedule, prediction and patch, for ``load``
                   card.json                                           recipe, versions, time, metrics, checksum
"""
import copy
import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from torch import nn

from . import files, nets
from .data import ROOT, RUNS
from .denoiser import Denoiser
from .schedule import SCHEDULES, Schedule

PREDICTION_TYPES = {"v": "v_prediction", "eps": "epsilon", "x": "sample"}  # ours → diffusers'
DENOISERS = {"UNet2DModel": UNet2DModel, "ContextUNet": nets.ContextUNet}
CLASSIFIERS = {"DigitClassifier": nets.DigitClassifier, "JudgeClassifier": nets.JudgeClassifier}


def names(root: Path = ROOT) -> list[str]:
    """Names of the artefacts that ship, sorted."""
    return sorted(path.parent.name for path in Path(root).glob("*/card.json"))


def find(name: str, *roots: Path) -> Path:
    """The first of the folders that has an artefact of that name; if none has, the last, which will say so."""
    return next((root for root in roots if name in names(root)), roots[-1])


def card(name: str, root: Path = ROOT) -> dict:
    """An artefact's card. Raises ValueError for a name that does not ship."""
    if name not in names(root):
        raise ValueError(f"There is no artefact {name!r} in {root}; there are {', '.join(names(root)) or 'none yet'}.")
    return json.loads((Path(root) / name / "card.json").read_text())


def load(name: str, device: torch.device | str = "cpu", root: Path = ROOT) -> nn.Module:
    """An artefact in eval mode: a Denoiser, or a classifier. Weights are float32 whatever they ship as.

    Raises ValueError for an unknown name, RuntimeError for weights that are missing or damaged.
    """
    folder, expected = Path(root) / name, card(name, root)["sha256"]
    weights = folder / SAFETENSORS_WEIGHTS_NAME
    found = files.sha256(weights) if weights.exists() else "missing"
    if found != expected:
        raise RuntimeError(f"{weights} is damaged: its SHA-256 should be {expected} and is {found}. Restore it with "
                           f"`git checkout {weights.name}`, or train it again: `python -m dmdkit train {name}`.")
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    net = (DENOISERS | CLASSIFIERS)[kind].from_pretrained(folder, low_cpu_mem_usage=False).float()
    if kind in CLASSIFIERS:
        return net.eval().to(device)
    spec = json.loads((folder / "denoiser.json").read_text())
    made = Denoiser(net, SCHEDULES[spec["schedule"]](spec["T"]), spec["prediction"], spec["patch"], spec["n_classes"])
    return made.eval().to(device, memory_format=torch.channels_last)


def load_artefact(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """``load`` from those that ship or, if it is not among them, from ``runs``."""
    return load(name, device, find(name, ROOT, RUNS))


def checksum(name: str) -> str:
    """The SHA-256 of the weights that ``load_artefact`` takes, by their card."""
    return card(name, find(name, ROOT, RUNS))["sha256"]


def save(net: nn.Module, folder: Path, card: dict, half: bool = False) -> None:
    """Write an artefact's folder, whole or not at all. ``half``: weights in float16.

    Raises RuntimeError if the folder cannot be written; what was there before is then left as it was.
    """
    folder = Path(folder)
    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        inner = copy.deepcopy(net.net if isinstance(net, Denoiser) else net).cpu()
        (inner.half() if half else inner).save_pretrained(partial)
        config = json.loads((partial / "config.json").read_text())
        config.pop("_name_or_path", None)  # the folder that the network was once loaded from, on the trainer's machine
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        if isinstance(net, Denoiser):
            scheduler(net.schedule, net.prediction).save_pretrained(partial)
            spec = {"schedule": net.schedule.name, "T": net.schedule.T, "prediction": net.prediction,
                    "patch": net.patch, "n_classes": net.n_classes}
            (partial / "denoiser.json").write_text(json.dumps(spec, indent=1) + "\n")
        card = card | {"sha256": files.sha256(partial / SAFETENSORS_WEIGHTS_NAME)}
        (partial / "card.json").write_text(files.as_json(card))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise RuntimeError(f"Could not write {folder}: {reason}. Free some space or choose a folder "
                           "that you may write to; what was there before is untouched.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():  # stopped between the two renames
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def scheduler(schedule: Schedule, prediction: str) -> DDIMScheduler:
    """diffusers' scheduler of the same table. It samples what ``sample.ddim`` does wherever n_steps divides T.
    Raises ValueError for a prediction that diffusers does not know."""
    if prediction not in PREDICTION_TYPES:
        raise ValueError(f"diffusers samples networks that predict {', '.join(PREDICTION_TYPES)}, not {prediction!r}.")
    return DDIMScheduler(num_train_timesteps=schedule.T, trained_betas=schedule.betas().tolist(), clip_sample=False,
                         prediction_type=PREDICTION_TYPES[prediction], timestep_spacing="trailing")


def update_card(name: str, changes: dict, root: Path = ROOT) -> None:
    """Replace entries of an artefact's card, its metrics say."""
    files.write_json(Path(root) / name / "card.json", card(name, root) | changes)
