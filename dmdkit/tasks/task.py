"""What belongs to a data set, whatever the method: its shape, classes, networks and scores."""
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from ..data import Images, Points
from ..methods import perceptual

Scores = dict[str, dict[str, float]]
"""By feature space and metric."""


@dataclass(frozen=True)
class Task:
    """A data set and what is needed to train on it and to score samples of it.

    Args:
        name: as recipes and cards name it.
        shape: of one sample, (C, H, W) or (2,).
        n_classes: labels are 0 … n_classes − 1; 0 is a set without classes.
        read: data(train) reads the training or the test data.
        networks: fresh networks by name, each made by a call without arguments. "network" is the
            teacher's where a recipe does not say another.
        make_scorer: makes what scores samples (N, *shape) with their labels against the test data.
        distances: by name what a regression may compare by, made by a call with a device; those
            of ``perceptual.distance`` go without saying.
        classify: names the class of samples, (N, *shape) → (N,), for snapshots.
        exact: makes the exact denoiser, where there is a closed form.
        read_baseline: reads the real samples that are scored beside a model's, where they are not
            the training data: a set without test data is compared half against half.
        terms: of the data, and what may be done with weights that learned from it; cards say it.
    """
    name: str
    shape: tuple[int, ...]
    n_classes: int
    read: Callable[[bool], Images | Points]
    networks: dict[str, Callable[[], nn.Module]]
    make_scorer: Callable[[], Callable[[Tensor, Tensor | None], Scores]] | None = None
    distances: dict[str, Callable] = field(default_factory=dict)
    classify: Callable[[Tensor], Tensor] | None = None
    exact: Callable | None = None
    read_baseline: Callable[[], Images | Points] | None = None
    terms: str = ""

    def data(self, train: bool = True) -> Images | Points:
        """The training data, or the test data. Raises RuntimeError where they cannot be had."""
        return self.read(train)

    def baseline(self) -> Images | Points:
        """What the real-data baseline is drawn from. Raises what ``data`` raises."""
        return self.read_baseline() if self.read_baseline else self.data()

    def examples(self) -> Images | Points:
        """Real samples to show beside a model's: the test data, or the baseline's, which were
        trained on, where a set is compared half against half. Raises what ``data`` raises."""
        return self.read_baseline() if self.read_baseline else self.data(False)

    def network(self, name: str) -> nn.Module:
        """A fresh network. Raises ValueError for a name that the task has not."""
        if name not in self.networks:
            raise ValueError(f"The task {self.name} has no network {name!r}; it has "
                             f"{', '.join(self.networks)}.")
        return self.networks[name]()

    def distance(self, kind: str, device="cpu") -> perceptual.Distance:
        """What a regression compares samples by. Raises ValueError for an unknown kind."""
        if kind in self.distances:
            perceptual.announce(f"Distance of the regression: {kind} of the task {self.name}.")
            return self.distances[kind](device)
        if kind not in perceptual.KINDS:
            known = ", ".join([*self.distances, *perceptual.KINDS])
            raise ValueError(f"The task {self.name} has no distance {kind!r}; it has {known}.")
        return perceptual.distance(kind, device=device)

    def scorer(self) -> Callable[[Tensor, Tensor | None], Scores]:
        """What scores samples: a call with samples (N, *shape) and labels (N,) gives ``Scores``.
        Raises ValueError for a task whose samples are not scored."""
        if self.make_scorer is None:
            raise ValueError(f"The task {self.name} has no scorer: its samples are looked at.")
        return self.make_scorer()

