"""How an artefact is measured: the ways to draw samples, and what they and as many real images score."""
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from . import data, files, metrics, sample, store
from .denoiser import EVERYWHERE, Denoiser, Guided

N_IMAGES = 5000  # how many samples a card's figures are of, unless their name says another count


@dataclass(frozen=True)
class Sampling:
    """One way to draw samples: a sampler of ``sample``, its number of steps and its guidance; for ``Guided`` also the
    interval, the name of the artefact that is the guide, and its weight; and what the sampler takes beyond that, where
    it is not the sampler's own default. Raises ValueError for noise that cannot be, or that the sampler does not draw.
    """
    sampler: str
    n_steps: int
    guidance: float = 0.0
    interval: tuple[float, float] = EVERYWHERE
    guide: str = ""
    guide_weight: float = 0.0
    clip: bool | None = None
    s_noise: float = 1.0
    s_tmax: float = 1.0

    def __post_init__(self):
        sample.check_noise(self.s_noise, self.s_tmax)
        if self.sampler != "ddpm" and (self.s_noise, self.s_tmax) != (1.0, 1.0):
            raise ValueError(f"s_noise and s_tmax scale the noise of ancestral sampling, ddpm; {self.sampler} has none "
                             "of that kind.")

    @property
    def key(self) -> str:
        within = "" if self.interval == EVERYWHERE else "-within-{:g}-{:g}".format(*self.interval)
        away = f"-away{self.guide_weight:g}-from-{self.guide}" if self.guide else ""
        clip = {None: "", True: "-clip", False: "-noclip"}[self.clip]
        noise = f"-noise{self.s_noise:g}-below{self.s_tmax:g}" * (self.s_noise != 1.0)
        return f"{self.sampler}-{self.n_steps}-w{self.guidance:g}{away}{within}{clip}{noise}"

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser with this guidance. Raises what ``Guided`` and ``store.load_artefact`` do."""
        if not self.guide and not self.guide_weight and self.interval == EVERYWHERE:
            return denoiser
        device = next(denoiser.parameters()).device
        guide = store.load_artefact(self.guide, device) if self.guide else None
        return Guided(denoiser, self.interval, guide, self.guide_weight)

    def states(self, denoiser: Denoiser, z: Tensor, label: Tensor, generator: torch.Generator | None = None):
        """Every state of the sampler, from noise z, for a denoiser that is ``guided`` already."""
        more = {} if self.clip is None else {"clip": self.clip}
        if self.s_noise != 1.0:
            more |= {"s_noise": self.s_noise, "s_tmax": self.s_tmax}
        return getattr(sample, self.sampler)(denoiser, z, self.n_steps, label, self.guidance, generator, **more)

    def images(self, denoiser: Denoiser, z: Tensor, label: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images from noise z, in [−1, 1]."""
        return sample.last(self.states(self.guided(denoiser), z, label, generator)).clamp(-1, 1)


def suffix(n: int, seed: int = 0) -> str:
    """What a figure's name on a card ends in: figures of different counts do not compare, and with another seed the
    samples start from other noise."""
    return f"-{n}-images" * (n != N_IMAGES) + f"-seed{seed}" * (seed != 0)


def draw(denoiser: Denoiser, how: Sampling, n: int, seed: int = 0, batch_size: int = 250,
         keep: Path | None = None) -> tuple[Tensor, Tensor]:
    """n samples with balanced labels 0, 1, … 9, 0, 1, …: images (n, 1, 28, 28) in [−1, 1] and labels (n,).

    Each batch has a generator of its own, seeded by ``seed`` and the batch's number, so that several processes, which
    share the batches out and put their images together, draw what one draws. ``keep``: a folder for finished batches,
    which a later call with the same arguments takes from there; hundreds of steps take the better part of an hour.
    """
    device, processes = next(denoiser.parameters()).device, PartialState()
    denoiser = how.guided(denoiser)
    labels = torch.arange(n) % denoiser.n_classes
    mine = list(enumerate(labels.split(batch_size)))[processes.process_index::processes.num_processes]
    stem = how.key + (f"-{store.checksum(how.guide)[:12]}" if how.guide else "")
    images = []
    with tqdm(total=len(mine) * how.n_steps, unit="step", desc=how.key, disable=not processes.is_main_process) as bar:
        for i, label in mine:
            kept = keep and keep / f"{stem}-seed{seed}-batch{i}of{batch_size}.safetensors"
            if kept and kept.exists() and len(done := files.load_state(kept)["images"]) == len(label):
                images.append((i, done))
                bar.update(how.n_steps)
                continue
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + i)
            z = torch.randn(len(label), *denoiser.sample_shape, generator=generator, device=device)
            for state in how.states(denoiser, z, label.to(device), generator):
                bar.update()
            images.append((i, state.x.clamp(-1, 1).cpu()))
            if kept:
                files.save_state(kept, {"images": images[-1][1]})
    return torch.cat([batch for _, batch in sorted(gather_object(images), key=lambda pair: pair[0])]), labels


def scorer() -> metrics.Scorer:
    """The kit's own: features of ``classifier``, labels by ``judge``, against MNIST's 10,000 test images."""
    return metrics.Scorer(store.load("classifier"), store.load("judge"), data.mnist(train=False))


def floor(score: metrics.Scorer, n: int = N_IMAGES, seed: int = 0) -> dict[str, float]:
    """What n balanced real training images score: the best that a sampler can hope for."""
    real = data.mnist().balanced(n, torch.Generator().manual_seed(seed))
    return score(data.scale(real.pixels), real.labels)
