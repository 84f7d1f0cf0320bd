"""A recipe: a task, a method's settings, and how long. It is all that a training needs to know."""
import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from torch import nn

from .. import noise, store
from ..data import ROOT, RUNS
from ..denoiser import Denoiser
from ..methods import pairs
from ..tasks.task import Task
from ..train import Training
from .evaluate import Sampling


class Method(Protocol):
    """What the settings of every method in ``methods/`` offer."""

    @property
    def requires(self) -> dict[str, str]:
        """The artefacts that a training starts from, by their part in it."""

    def prepare(self, task: Task, accelerator, n_steps: int, batch_size: int,
                sources: "Sources") -> Training:
        """A training, ready to run."""


@dataclass(frozen=True)
class Recipe:
    """How something is trained, and how it is measured.

    Args:
        what: one sentence for the card.
        task: the data set.
        method: settings, of one of the methods.
        n_steps: of the training. batch_size: of all processes together.
        seed: of the weights and of what the training draws; a head start draws the same in all.
        samplings: how samples are drawn to measure it; none for a classifier.
    Raises ValueError for numbers that make no sense.
    """
    what: str
    task: Task
    method: Method
    n_steps: int
    batch_size: int = 64
    seed: int = 0
    samplings: tuple[Sampling, ...] = ()

    def __post_init__(self):
        if self.n_steps < 1:
            raise ValueError("The number of training steps must be at least 1; "
                             f"got {self.n_steps}.")
        if self.batch_size < 1:
            raise ValueError(f"The batch size must be at least 1; got {self.batch_size}.")

    @property
    def settings(self) -> dict:
        """What a card says of it."""
        method = type(self.method).__module__.rsplit(".", 1)[1]
        return {"task": self.task.name, "method": method, **asdict(self.method),
                "n_steps": self.n_steps, "batch_size": self.batch_size, "seed": self.seed}

    def changed(self, **changes) -> "Recipe":
        """The recipe with other values: its own (n_steps, batch_size, seed, …) or its method's.
        Raises TypeError for a value that neither has."""
        own = {name: changes.pop(name) for name in list(changes)
               if name in type(self).__dataclass_fields__}
        return replace(self, **own, method=replace(self.method, **changes))

    def prepare(self, accelerator, sources: "Sources | None" = None) -> Training:
        """The training, ready to run. sources: where it takes networks and pairs from."""
        sources = sources or Sources(self.task, device=accelerator.device)
        return self.method.prepare(self.task, accelerator, self.n_steps, self.batch_size, sources)


class Sources:
    """Where a training takes its networks and its pairs from.

    Args:
        task: "exact" is its closed form.
        roots: folders of artefacts, the first that has a name counts.
        device: where networks go.
        given: networks by name, and under "pairs" pairs, that are at hand already.
    """

    def __init__(self, task: Task, roots: tuple[Path, ...] = (ROOT, RUNS), device="cpu",
                 given: dict | None = None):
        self.task, self.roots, self.device = task, roots, device
        self.given = given or {}

    def load(self, name: str) -> nn.Module | Callable:
        """A network, ready to use: an artefact, or with a slash in its name what diffusers left in
        a folder or on the hub. Raises what ``store.load`` and ``Denoiser.from_pretrained`` raise,
        and ValueError for a task that has no exact denoiser."""
        if name in self.given:
            return self.given[name].to(self.device)
        if _of_diffusers(name):
            return self._of_task(name, Denoiser.from_pretrained(name).to(self.device))
        if name != "exact":
            return self._of_task(name, store.load(name, self.device,
                                                  store.find(name, *self.roots)))
        if self.task.exact is None:
            raise ValueError(f"The task {self.task.name} has no exact denoiser; name a teacher.")
        return self.task.exact()

    def _of_task(self, name: str, net: nn.Module) -> nn.Module:
        """The network, if its samples are the task's. Raises ValueError for another's."""
        if isinstance(net, Denoiser) and net.sample_shape != tuple(self.task.shape):
            raise ValueError(f"{name!r} makes samples of shape {net.sample_shape}; those of the "
                             f"task {self.task.name} have {tuple(self.task.shape)}. Name another.")
        return net

    def origin(self, requires: dict[str, str]) -> dict[str, str]:
        """What a card says of the artefacts that a training starts from."""
        found = {}
        for role, name in requires.items():
            found |= {role: name, f"{role}_sha256": self.checksum(name)}
        return found

    def checksum(self, name: str) -> str:
        """The SHA-256 of an artefact's weights, or of those of a network that was given."""
        if name not in self.given and not _of_diffusers(name):
            return store.checksum(name, *self.roots)
        weights = self.load(name).state_dict()
        raw = safetensors.torch.save({key: weights[key].cpu().contiguous() for key in weights})
        return hashlib.sha256(raw).hexdigest()

    def pairs(self, name: str, n: int, solver: pairs.Solver) -> pairs.Pairs:
        """n pairs of a teacher. They are kept in ``RUNS``, and what is missing there is made.
        Raises what ``pairs.make_pairs`` raises."""
        if "pairs" in self.given:
            return _enough(self.given["pairs"], n)
        teacher = self.load(name)
        if not isinstance(teacher, Denoiser):
            return exact_pairs(teacher, self.task.shape, n, solver)
        about = {"teacher": name, "teacher_sha256": self.checksum(name)}
        whose = f"{Path(name).name}-{about['teacher_sha256'][:8]}"  # another teacher's pairs lie elsewhere
        folder = RUNS / f"pairs-{whose}-{solver.name}{solver.n_steps}-w{solver.guidance:g}"
        return pairs.make_pairs(teacher, n, folder, solver, about=about)


def _of_diffusers(name: str) -> bool:
    """Whether a name is a folder's or one of the hub's; an artefact's has no slash."""
    return "/" in name or os.sep in name


def exact_pairs(real, shape: tuple[int, ...], n: int, solver: pairs.Solver) -> pairs.Pairs:
    """n pairs of an exact denoiser, in memory: they are solved in no time."""
    z = torch.randn(n, *shape, generator=noise.generator("pairs"))
    return pairs.Pairs(z, solver.solve(real, z, None))


def _enough(given: pairs.Pairs, n: int) -> pairs.Pairs:
    """The first n of the pairs that are at hand. Raises ValueError where they are fewer."""
    if len(given.z) < n:
        raise ValueError(f"{len(given.z)} pairs were given; {n} are wanted.")
    label = None if given.label is None else given.label[:n]
    return pairs.Pairs(given.z[:n], given.x[:n], label)
