"""How good samples are: Fréchet distance in digit features, class accuracy, and precision, recall, density, coverage.
For points of the plane: an exact Wasserstein distance, and modes covered.

No number here means anything without its count of images and the real-against-real floor: what as many real training
images score against the same test images.
"""
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.image.fid import FrechetInceptionDistance

from .data import Images, scale

K_NEAREST = 5  # neighbours that span a sample's ball, as in Naeem et al. 2020


@torch.no_grad()
def in_batches(function, x: Tensor, size: int = 500) -> Tensor:
    """function(x) for a long x (N, …), a batch at a time, without gradients."""
    return torch.cat([function(part) for part in x.split(size)])


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """‖m_r − m_f‖² + Tr(C_r + C_f − 2 (C_r C_f)^½) of two sets of features (N, D) (Heusel et al. 2017, eq. 6),
    by torchmetrics. Not comparable across feature spaces or counts.

    Computed from what is given, in this process: under several processes torchmetrics would otherwise wait for all.
    """
    identity = nn.Identity()  # torchmetrics takes any extractor; ours has run already, the features serve other scores
    identity.num_features = real.shape[1]
    fid = FrechetInceptionDistance(feature=identity, input_img_size=(real.shape[1],), sync_on_compute=False)
    fid.set_dtype(torch.float64)
    for features, is_real in ((real, True), (fake, False)):
        fid.update(features.double(), real=is_real)
    return fid.compute().item()


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = K_NEAREST) -> dict[str, float]:
    """Each real sample spans a ball up to its k-th real neighbour, each fake one to its k-th fake neighbour.

    precision: share of fakes inside some real ball; recall: share of reals inside some fake ball (Kynkäänniemi et
    al. 2019, eq. 2–3). density: real balls that a fake lies in, over k; coverage: share of real balls that hold a
    fake (Naeem et al. 2020, eq. 4–5). real (N, D), fake (M, D).
    """
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    distance = torch.cdist(real, fake)
    in_real = distance < real_radius[:, None]
    return {"precision": in_real.any(0).float().mean().item(),
            "recall": (distance < fake_radius).any(1).float().mean().item(),
            "density": in_real.sum(0).float().mean().item() / k,
            "coverage": in_real.any(1).float().mean().item()}


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance of each sample to its k-th nearest other, (N,)."""
    return torch.cat([torch.cdist(part, x).topk(k + 1, largest=False).values[:, -1] for part in x.split(1000)])


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The 2-Wasserstein distance of two clouds of as many points, (N, D): the root of the mean squared distance under
    the best one-to-one assignment, which is exact. N = 400 takes some 20 ms, and grows with N³.

    It is not zero for two samples of one distribution either: compare with that floor. Raises ValueError for clouds
    of different shapes.
    """
    if x.shape != y.shape:
        raise ValueError(f"The two clouds must have one shape; got {tuple(x.shape)} and {tuple(y.shape)}.")
    cost = torch.cdist(x.double(), y.double()).square()
    rows, columns = linear_sum_assignment(cost.numpy(force=True))
    return cost[rows, columns].mean().sqrt().item()


def modes_covered(x: Tensor, means: Tensor, covariances: Tensor, weights: Tensor, share: float = 0.25) -> int:
    """How many components of a Gaussian mixture hold at least ``share`` of the points that are their due, within three
    standard deviations. x (N, D); means (K, D), covariances (K, D, D), weights (K,)."""
    offset = x[:, None] - means
    squares = torch.einsum("nki,kij,nkj->nk", offset, torch.linalg.inv(covariances), offset)
    return int(((squares < 9).float().mean(0) >= share * weights).sum())


class Scorer:
    """Scores samples against real images, whose features it computes once.

    Args:
        classifier: its ``features`` are the space of distance and coverage.
        judge: another classifier, which says which digit a sample is, and in whose features the distance is taken once
            more: a model that was trained by means of ``classifier`` cannot have been tuned on those.
        real: what to compare with, as a rule the 10,000 test images.
    """

    def __init__(self, classifier: nn.Module, judge: nn.Module, real: Images):
        self.classifier, self.judge = classifier.eval(), judge.eval()
        self.real = in_batches(classifier.features, scale(real.pixels))
        self.real_judge = in_batches(judge.features, scale(real.pixels))

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """images (N, 1, 28, 28) in [−1, 1], labels (N,) asked for → distances, accuracy and the four shares, with N.

        Raises ValueError for images that are of another shape, not finite, or outside [−1, 1].
        """
        check_images(images)
        fake = in_batches(self.classifier.features, images)
        accuracy = MulticlassAccuracy(self.judge.config.n_classes, average="micro", sync_on_compute=False)
        seen = in_batches(self.judge.features, images)
        return {"images": len(images), "frechet_distance": frechet_distance(self.real, fake),
                "frechet_distance_judge": frechet_distance(self.real_judge, seen),
                "accuracy": accuracy(in_batches(self.judge, images), labels).item(),
                **precision_recall_density_coverage(self.real, fake)}


def check_images(images: Tensor) -> None:
    """Raises ValueError unless images are (N, 1, 28, 28), finite and in [−1, 1]."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (1, 28, 28) or not len(images):
        raise ValueError(f"images must have shape (N, 1, 28, 28); got {tuple(images.shape)}.")
    low, high = images.min().item(), images.max().item()
    if not (-1 <= low and high <= 1):  # also false for NaN
        raise ValueError(f"images must lie in [−1, 1]; these go from {low:.3g} to {high:.3g}. "
                         "Clamp samples first; scale uint8 pixels with data.scale.")
