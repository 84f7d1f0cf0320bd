"""How an artefact is measured: the ways to draw samples, and what they and real ones score."""
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import expect, files, noise, sample, store
from ..data import ROOT, RUNS, Images
from ..denoiser import EVERYWHERE, Denoiser, Guided, check_guides
from ..metrics import in_batches
from ..tasks.task import Scores, Task
from .results import REAL, merged

N_IMAGES = 5000     # how many samples a figure is of, unless it says another count
BATCH = 250
SAMPLERS = ("ddim", "ddpm", "heun", "euler", "stochastic", "multistep")


@dataclass(frozen=True)
class Sampling:
    """One way to draw samples. Raises ValueError for what its sampler would ignore or cannot do.

    Args:
        sampler: one of ``SAMPLERS``; n_steps of it.
        guidance: classifier-free.
        interval: of t/T, in which to guide.
        guide, guide_weight: the artefact to lead away from, and how far (autoguidance).
        clip: whether x-predictions are clamped; None is the sampler's own default.
        s_noise, s_tmax: a factor of ddpm's fresh noise, at t/T below s_tmax.
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
        if self.sampler not in SAMPLERS:
            raise ValueError(f"{self.sampler!r} is none of the samplers {', '.join(SAMPLERS)}.")
        expect.whole("n_steps", self.n_steps)
        check_guides(self.interval, bool(self.guide), self.guide_weight)
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance must be a number, 0 or more; got {self.guidance}.")
        if self.interval != EVERYWHERE and not (self.guidance or self.guide):
            raise ValueError("interval says where to guide; unguided, it has no effect.")
        sample.check_noise(self.s_noise, self.s_tmax)
        if self.sampler != "ddpm" and (self.s_noise, self.s_tmax) != (1.0, 1.0):
            raise ValueError("s_noise and s_tmax scale the noise of ancestral sampling, ddpm; "
                             f"{self.sampler} has none of that kind.")
        if self.s_tmax != 1.0 and self.s_noise == 1.0:
            raise ValueError("s_tmax says where s_noise acts; without s_noise it has no effect.")

    @property
    def more(self) -> str:
        """What is told beyond sampler, steps and guidance, in words."""
        said = []
        if self.guide:
            said.append(f"away {self.guide_weight:g} from {self.guide}")
        if self.interval != EVERYWHERE:
            said.append("guided at t/T {:g}–{:g}".format(*self.interval))
        if self.clip is not None:
            said.append("clamped" if self.clip else "not clamped")
        if self.s_noise != 1.0:
            said.append(f"noise {self.s_noise:g} at t/T < {self.s_tmax:g}")
        return ", ".join(said)

    @property
    def evaluations(self) -> int:
        """Network evaluations a sample, guidance and a guide being one more each at every step."""
        calls = 2 * self.n_steps - 1 if self.sampler == "heun" else self.n_steps
        return calls * (1 + bool(self.guidance) + bool(self.guide))

    @property
    def entry(self) -> dict:
        """What a card says of it."""
        entry = {"sampler": self.sampler, "n_steps": self.n_steps, "guidance": self.guidance}
        return entry | ({"more": self.more} if self.more else {})

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser with this guidance. Raises what ``Guided`` and ``store.load`` do, and
        ValueError for guidance of a denoiser without classes."""
        expect.guidance(self.guidance, labels_of(1, denoiser.n_classes), denoiser.n_classes)
        if not self.guide and not self.guide_weight and self.interval == EVERYWHERE:
            return denoiser
        device, guide = next(denoiser.parameters()).device, None
        if self.guide:
            guide = store.load(self.guide, device, store.find(self.guide, ROOT, RUNS))
        return Guided(denoiser, self.interval, guide, self.guide_weight)

    def states(self, denoiser: Denoiser, z: Tensor, label: Tensor | None,
               generator: torch.Generator | None = None) -> Iterator[sample.State]:
        """Every state of the sampler, from noise z, for a denoiser that is ``guided`` already."""
        more = {} if self.clip is None else {"clip": self.clip}
        if self.s_noise != 1.0:
            more |= {"s_noise": self.s_noise, "s_tmax": self.s_tmax}
        sampler = getattr(sample, self.sampler)
        return sampler(denoiser, z, self.n_steps, label, self.guidance, generator, **more)

    def samples(self, denoiser: Denoiser, z: Tensor, label: Tensor | None,
                generator: torch.Generator | None = None) -> Tensor:
        """The samples from noise z, images clamped to [−1, 1]."""
        return clamped(sample.last(self.states(self.guided(denoiser), z, label, generator)))


def clamped(x: Tensor) -> Tensor:
    """Images (B, C, H, W) clamped to [−1, 1]; points as they are."""
    return x.clamp(-1, 1) if x.ndim == 4 else x


def labels_of(n: int, n_classes: int) -> Tensor | None:
    """Balanced labels 0, 1, … n_classes − 1, 0, 1, …, (n,); None for a set without classes."""
    return torch.arange(n) % n_classes if n_classes else None


def draw(denoiser: Denoiser, how: Sampling, n: int, purpose: str = "selection", seed: int = 0,
         keep: Path | None = None) -> tuple[Tensor, Tensor | None]:
    """n samples (n, …) with balanced labels (n,), or None where there are no classes.

    Each batch has a generator of its own, made of purpose, seed and the batch's number, so that
    several processes, which share the batches out, draw together what one draws. ``keep``: a folder
    for this denoiser's finished batches, which a later call takes from there.
    Raises RuntimeError if that folder cannot be written, before the first batch.
    """
    processes = PartialState()
    denoiser = how.guided(denoiser)
    sizes = [min(BATCH, n - start) for start in range(0, n, BATCH)]
    mine = list(enumerate(sizes))[processes.process_index::processes.num_processes]
    if keep:
        files.check_writable(keep)
    parts = []
    with tqdm(total=len(mine) * how.n_steps, unit="step", desc=f"{how.sampler} {how.n_steps}",
              disable=not processes.is_main_process) as bar:
        for i, size in mine:
            parts.append((i, _batch(denoiser, how, (purpose, seed, i), size, keep, bar)))
    parts = sorted(gather_object(parts), key=itemgetter(0))
    return torch.cat([part for _, part in parts]), labels_of(n, denoiser.n_classes)


def _batch(denoiser: Denoiser, how: Sampling, stream: tuple[str, int, int], n: int,
           keep: Path | None, bar: tqdm) -> Tensor:
    """One batch, from ``keep`` if it is there."""
    purpose, seed, number = stream
    kept = keep and keep / _kept_as(how, stream)
    if kept and kept.exists():
        images = files.load_state(kept)["images"]
        if len(images) == n:
            bar.update(how.n_steps)
            return images
    device = next(denoiser.parameters()).device
    g = noise.generator(purpose, seed, number, device)
    z = torch.randn(n, *denoiser.sample_shape, generator=g, device=device)
    label = labels_of(BATCH * number + n, denoiser.n_classes)
    label = None if label is None else label[-n:].to(device)
    for state in how.states(denoiser, z, label, g):
        bar.update()
    if not state.x.isfinite().all():  # before clamping, which would make white of infinity
        raise FloatingPointError(f"The samples of {how.sampler} are not finite: check the guidance "
                                 "and the weights.")
    images = clamped(state.x).cpu()
    if kept:
        files.save_state(kept, {"images": images})
    return images


def _kept_as(how: Sampling, stream: tuple[str, int, int]) -> str:
    """The file of a batch, named after all that it depends on, a guide's weights among it."""
    guide = store.checksum(how.guide, ROOT, RUNS) if how.guide else ""
    start = "-".join(map(str, (how.sampler, how.n_steps, *stream)))
    return f"{start}-{_short([asdict(how), guide])}.safetensors"


def _short(content) -> str:
    """A short checksum of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def real_samples(task: Task, n: int, purpose: str = "selection", seed: int = 0
                 ) -> tuple[Tensor, Tensor | None]:
    """The real-data baseline: n of the task's samples (n, …), as many of each class, and their
    labels (n,), or None without classes. Raises ValueError for an n that cannot be had."""
    real = task.baseline().balanced(n, noise.generator(purpose, seed, -1))
    x, label = real.batch(torch.arange(n))
    return x, label if task.n_classes else None


def evaluate(name: str, task: Task, samplings: tuple[Sampling, ...], *, n: int = N_IMAGES,
             purpose: str = "report", seeds: tuple[int, ...] = (0,), root: Path = ROOT,
             device="cpu") -> Iterator[dict]:
    """Measure an artefact, yielding an entry of its results as each is done: by each seed the
    real-data baseline, then each of the samplings. A classifier has its accuracy on the test data.

    Finished batches of samples are kept in ``runs/name.samples``, so that a stopped evaluation goes
    on where it was. Raises before any work what bad settings raise.
    """
    net = store.load(name, device, root)
    if not isinstance(net, Denoiser):
        test = task.data(False)
        values = {"test": {"accuracy": accuracy(net, test)}}
        yield _entry({"sampler": REAL}, "report", 0, len(test), values)
        return
    for how in samplings:
        how.guided(net).schedule.steps(how.n_steps)  # refuses bad settings before any work
    reals = [real_samples(task, n, purpose, seed) for seed in seeds]
    keep = RUNS / f"{name}.samples" / _short(store.card(name, root)["files"])
    files.check_writable(keep)
    main = PartialState().is_main_process  # the others only draw their share
    score = task.scorer() if main else None
    for seed, real in zip(seeds, reals):
        if main:
            yield _entry({"sampler": REAL}, purpose, seed, n, score(*real))
        for how in samplings:
            x, label = draw(net, how, n, purpose, seed, keep)
            if main:
                yield _entry(how.entry, purpose, seed, n, score(x, label))


def _entry(sampling: dict, purpose: str, seed: int, n: int, values: Scores) -> dict:
    rounded = {space: {metric: round(float(value), 5) for metric, value in found.items()}
               for space, found in values.items()}
    return {"sampling": sampling, "noise": purpose, "seed": seed, "images": n, "values": rounded}


def accuracy(net: nn.Module, test: Images) -> float:
    """The share of the test images that a classifier names rightly."""
    (x, label), device = test.batch(torch.arange(len(test))), next(net.parameters()).device

    def named(part: Tensor) -> Tensor:
        return net(part.to(device)).argmax(1).cpu()

    return (in_batches(named, x) == label).float().mean().item()


def save(name: str, entry: dict, root: Path) -> None:
    """Put an entry onto an artefact's card, in place of an earlier one of the same thing."""
    def add(card: dict) -> dict:
        return card | {"results": merged(card.get("results", []), entry)}

    store.change_card(name, add, root)
