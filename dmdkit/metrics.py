"""How good samples are: Fréchet distance, precision, recall, density and coverage in any feature
space, and class accuracy where a space belongs to a classifier. For points of the plane: an exact
Wasserstein distance, and modes covered.

No number here means anything without its count of samples and the real-data baseline: what as many
real training images score against the same test images.
"""
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import expect
from .data import Images, Points

K_NEAREST = 5  # neighbours that span a sample's ball, as in Naeem et al. 2020
BATCH = 500


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int = BATCH) -> Tensor:
    """function(x) for a long x (N, …), a batch at a time, without gradients."""
    return torch.cat([function(part) for part in x.split(expect.whole("size", size))])


def check_features(real: Tensor, fake: Tensor, least: int) -> None:
    """Raises TypeError or ValueError unless both are finite features, (N, D) and (M, D), of at
    least that many samples."""
    expect.floating(real=real, fake=fake)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError("Features must be (N, D) and (M, D); "
                         f"got {tuple(real.shape)} and {tuple(fake.shape)}.")
    if min(len(real), len(fake)) < least:
        raise ValueError(f"At least {least} samples of each kind are needed; "
                         f"got {len(real)} real and {len(fake)} fake.")
    for name, features in (("real", real), ("fake", fake)):
        if not features.isfinite().all():
            raise ValueError(f"The features of the {name} samples are not all finite.")


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """‖m_r − m_f‖² + Tr(C_r + C_f − 2 (C_r C_f)^½) of two sets of features, (N, D) and (M, D)
    (Heusel et al. 2017, eq. 6), by torchmetrics in float64 on the CPU. Not comparable across
    feature spaces or counts. Raises TypeError or ValueError for features that have none.

    Computed from what is given, in this process: under several processes torchmetrics would
    otherwise wait for all.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

    check_features(real, fake, least=2)
    identity = nn.Identity()  # torchmetrics takes any extractor; ours has run already
    identity.num_features = real.shape[1]
    fid = FrechetInceptionDistance(feature=identity, input_img_size=(real.shape[1],),
                                   sync_on_compute=False)
    fid.set_dtype(torch.float64)
    fid.update(real.cpu().double(), real=True)
    fid.update(fake.cpu().double(), real=False)
    return fid.compute().item()


def precision_recall_density_coverage(
    real: Tensor, fake: Tensor, k: int = K_NEAREST, real_radius: Tensor | None = None
) -> dict[str, float]:
    """Each real sample spans a ball up to its k-th real neighbour, each fake one to its k-th fake
    neighbour.

    precision: share of fakes inside some real ball; recall: share of reals inside some fake ball
    (Kynkäänniemi et al. 2019, eq. 2–3). density: real balls that a fake lies in, over k; coverage:
    share of real balls that hold a fake (Naeem et al. 2020, eq. 4–5). real (N, D), fake (M, D);
    real_radius: ``radius(real, k)`` where it is known already.
    Raises TypeError or ValueError for features that are none, or of k samples or fewer.
    """
    check_features(real, fake, least=expect.whole("k", k) + 1)
    real_radius = radius(real, k) if real_radius is None else real_radius
    origin = real[:1]  # of both: features that are all equal are then exactly 0 apart
    distance = torch.cdist(real - origin, fake - origin)
    same = distance == 0  # what coincides lies in each other's ball, even one of radius 0
    in_real = (distance < real_radius[:, None]) | same
    in_fake = (distance < radius(fake, k)) | same
    return {"precision": in_real.any(0).float().mean().item(),
            "recall": in_fake.any(1).float().mean().item(),
            "density": in_real.sum(0).float().mean().item() / k,
            "coverage": in_real.any(1).float().mean().item()}


def radius(x: Tensor, k: int = K_NEAREST) -> Tensor:
    """The Euclidean distance of each sample of x (N, D) to its k-th nearest other, (N,)."""
    x = x - x[:1]
    rows = [torch.cdist(part, x).topk(k + 1, largest=False).values[:, -1] for part in x.split(1000)]
    return torch.cat(rows)


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The 2-Wasserstein distance of two clouds of as many points, (N, D): the root of the mean
    squared distance under the best one-to-one assignment, which is exact. N = 400 takes some 20 ms,
    and grows with N³.

    It is not zero for two samples of one distribution either: compare with that baseline. Raises
    TypeError or ValueError for clouds that are none, or of different shapes.
    """
    from scipy.optimize import linear_sum_assignment

    expect.alike(x=x, y=y)
    check_features(x, y, least=1)
    cost = torch.cdist(x.cpu().double(), y.cpu().double()).square()
    rows, columns = linear_sum_assignment(cost.numpy(force=True))
    return cost[rows, columns].mean().sqrt().item()


def modes_covered(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor,
                  share: float = 0.25) -> int:
    """How many components of a Gaussian mixture hold at least ``share`` of the points that are
    their due, within three standard deviations. x (N, D); means (K, D), covariances (K, D, D),
    weights (K,). Raises TypeError or ValueError for points of another dimension."""
    check_features(x, means, least=1)
    x, means, inverse = x.cpu(), means.cpu(), torch.linalg.inv(covariances.cpu())
    offset = x[:, None] - means.to(x.dtype)
    squares = torch.einsum("nki,kij,nkj->nk", offset, inverse.to(x.dtype), offset)
    return int(((squares < 9).float().mean(0) >= share * weights.cpu()).sum())


class Space(NamedTuple):
    """A space in which samples are compared. ``of`` makes one of a classifier."""
    features: Callable[[Tensor], Tensor]             # samples (N, …) → (N, D)
    head: Callable[[Tensor], Tensor] | None = None   # those → logits (N, classes), if it names any

    @classmethod
    def of(cls, classifier: nn.Module) -> "Space":
        """The features below a classifier's head, which names classes; it is put in eval mode."""
        classifier.eval()
        return cls(classifier.features, classifier.head)


class Scorer:
    """Scores samples against real data, whose features it computes once.

    Args:
        spaces: by name. A model that was trained by means of one should be judged in another.
        real: what to compare with, as a rule the test data.
        shape: of one sample.
        device: of the networks behind the spaces; samples may be anywhere.
    """

    def __init__(self, spaces: dict[str, Space], real: Images | Points, shape: tuple[int, ...],
                 device: torch.device | str = "cpu"):
        if not spaces:
            raise ValueError("A scorer needs at least one space.")
        self.spaces, self.shape, self.device = spaces, tuple(shape), torch.device(device)
        parts = torch.arange(len(real), device=real.labels.device).split(BATCH)
        check_samples(real.batch(parts[0])[0], self.shape)
        self.real = {name: self._features(space, (real.batch(part)[0] for part in parts))
                     for name, space in spaces.items()}
        self.radius = {name: radius(features) for name, features in self.real.items()}

    @torch.no_grad()
    def _features(self, space: Space, batches: Iterable[Tensor]) -> Tensor:
        """One pass of the space's network over all batches; features (N, D) on the CPU."""
        return torch.cat([space.features(x.to(self.device)).float().cpu() for x in batches])

    def __call__(
        self, samples: Tensor, labels: Tensor | None = None
    ) -> dict[str, dict[str, float]]:
        """samples (N, *shape), images in [−1, 1]; labels (N,): what was asked for → by space:
        "frechet_distance", "precision", "recall", "density", "coverage", and "accuracy" where the
        space has a head and there are labels: the share of samples that are of their class.

        Raises TypeError or ValueError for samples that are of another shape, not finite, or
        outside [−1, 1], and for labels that are not theirs.
        """
        check_samples(samples, self.shape)
        expect.check_label(labels, len(samples), torch.iinfo(torch.int64).max)
        return {name: self._score(name, samples, labels) for name in self.spaces}

    def _score(self, name: str, samples: Tensor, labels: Tensor | None) -> dict[str, float]:
        space, real = self.spaces[name], self.real[name]
        fake = self._features(space, samples.split(BATCH))
        scores = {"frechet_distance": frechet_distance(real, fake),
                  **precision_recall_density_coverage(real, fake, real_radius=self.radius[name])}
        if space.head is not None and labels is not None:
            scores["accuracy"] = accuracy(self._logits(space, fake), labels.cpu())
        return scores

    def _logits(self, space: Space, features: Tensor) -> Tensor:
        return in_batches(space.head, features.to(self.device)).cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of samples whose largest logit is their label's. logits (N, classes), labels (N,).
    Raises ValueError for a label beyond the classes."""
    expect.check_label(labels, len(logits), logits.shape[1] - 1)
    return (logits.argmax(1) == labels).float().mean().item()


def check_samples(samples: Tensor, shape: tuple[int, ...]) -> None:
    """Raises TypeError or ValueError unless samples are (N, *shape), at least one, and finite, and
    images, (C, H, W), in [−1, 1]."""
    images = len(shape) == 3
    name = "images" if images else "points"
    expect.batch(name, samples, shape)
    if not len(samples):
        raise ValueError(f"There are no {name} to score.")
    low, high = samples.min().item(), samples.max().item()
    if not (low > -float("inf") and high < float("inf")):  # also false for NaN
        raise ValueError(f"{name} must be finite; these go from {low:.3g} to {high:.3g}.")
    if images and not (-1 <= low and high <= 1):
        raise ValueError(f"images must lie in [−1, 1]; these go from {low:.3g} to {high:.3g}. "
                         "Clamp samples first; scale uint8 pixels with data.scale.")
    if images and low >= 0 and low < high:  # one grey is no range to tell it by
        raise ValueError(f"images must lie in [−1, 1], where −1 is black; these, from {low:.3g} to "
                         f"{high:.3g}, seem to lie in [0, 1]. Map them there with 2 x − 1.")
