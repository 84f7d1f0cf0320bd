"""Reading what diffusers wrote: a UNet2DModel and its scheduler, from a folder or from the Hugging
Face hub. Imported when asked for: diffusers takes seconds to import."""
import json
from pathlib import Path

from diffusers import DDPMScheduler, UNet2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor

from . import schedule

PREDICTION_TYPES = {"epsilon": "eps", "sample": "x", "v_prediction": "v"}  # diffusers' → ours
MODEL = ("config.json", SAFETENSORS_WEIGHTS_NAME)
SCHEDULER = "scheduler_config.json"
IN_A_PIPELINE = [*(f"unet/{name}" for name in MODEL), f"scheduler/{SCHEDULER}"]


def read(source: str | Path) -> tuple:
    """The arguments of ``Denoiser``: network, schedule, prediction, patch and number of classes.

    Raises RuntimeError for files that are missing, damaged or out of reach, and ValueError for a
    network, a scheduler or a prediction that is unknown here.
    """
    folder = Path(source) if Path(source).is_dir() else download(str(source))
    if (folder / "denoiser.json").exists():
        raise ValueError(f"{folder} is an artefact of dmdkit's, which says more than diffusers "
                         "reads: use store.load.")
    model = folder / "unet" if (folder / "unet").is_dir() else folder
    scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    table, prediction = scheduler_of(read_config(scheduler / SCHEDULER))
    net = network_of(model)
    rows = net.config.num_class_embeds
    return net, table, prediction, 1, rows - 1 if rows else 0


def download(name: str) -> Path:
    """The folder that holds a copy of what the hub has under that name. Only JSON and safetensors
    are taken: nothing is unpickled. Raises RuntimeError where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*MODEL, SCHEDULER, *IN_A_PIPELINE]))
    except Exception as error:  # offline, refused, an unknown or impossible name: the hub has many
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(f"There is no folder {name!r}, and the Hugging Face hub could not be "
                           f"read under that name ({reason[0]}) Offline, give the path of a folder "
                           f"with {', '.join(MODEL)} and {SCHEDULER}.") from None


def read_config(path: Path) -> dict:
    """A JSON file of diffusers'. Raises RuntimeError, naming it, if it is missing or damaged."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{path} cannot be read ({error}); a folder of diffusers' has "
                           f"{', '.join(MODEL)} and {SCHEDULER}.") from None
    if not isinstance(config, dict):
        raise RuntimeError(f"{path} is not one of diffusers' configs: it holds no entries.")
    return config


def scheduler_of(config: dict) -> tuple[schedule.Schedule, str]:
    """The schedule and the prediction that a scheduler_config.json describes.
    Raises ValueError for those of another kind than DDPM's."""
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise ValueError(f"The scheduler's prediction_type must be one of "
                         f"{', '.join(PREDICTION_TYPES)}; it is {kind!r}.")
    own_betas = config.get("trained_betas") is not None
    if "num_train_timesteps" not in config or not (own_betas or "beta_start" in config):
        raise ValueError(f"The scheduler {config.get('_class_name')} has no betas: only those of "
                         "DDPM's kind can be read.")
    shape = "trained" if own_betas else config.get("beta_schedule", "linear")
    if shape == "linear" and not config.get("rescale_betas_zero_snr"):
        table = schedule.linear(config["num_train_timesteps"], config["beta_start"],
                                config["beta_end"])
    else:
        table = schedule.from_betas(betas_of(config), shape)
    return table, PREDICTION_TYPES[kind]


def betas_of(config: dict) -> Tensor:
    """The betas (T,) that a scheduler of DDPM's kind makes of its config. Raises ValueError."""
    try:
        return DDPMScheduler.from_config(config).betas
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"The scheduler's betas cannot be read ({error}).") from None


def network_of(folder: Path) -> UNet2DModel:
    """The UNet2DModel of a folder, in float32. Raises RuntimeError or ValueError."""
    name = read_config(folder / "config.json").get("_class_name")
    if name != "UNet2DModel":
        raise ValueError(f"{folder / 'config.json'} is of a {name}; a UNet2DModel is needed.")
    if not (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise RuntimeError(f"{folder / SAFETENSORS_WEIGHTS_NAME} is missing: weights are read from "
                           "safetensors only. Convert a .bin with diffusers' save_pretrained.")
    try:
        net = UNet2DModel.from_pretrained(folder, use_safetensors=True, low_cpu_mem_usage=False)
    except Exception as error:
        raise RuntimeError(f"The network in {folder} cannot be read "
                           f"({str(error).splitlines()[0]}).") from None
    return net.float()
