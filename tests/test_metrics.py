"""Metrics: against closed forms and against sets built so that the answer is known."""
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dmdkit import metrics
from dmdkit.data import Images


def white(n: int, d: int) -> torch.Tensor:
    """n points in d dimensions whose sample mean is exactly 0 and whose sample covariance is exactly the identity."""
    x = torch.randn(n, d, dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T


# Fréchet distance

def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    shift, scales = torch.tensor([3.0, 0.0, -4.0]), torch.tensor([1.0, 2.0, 0.5])
    # independent axes: ‖m‖² + Σ (σ_a − σ_b)²
    by_hand = 25 + (0 + 1 + 0.25)
    assert metrics.frechet_distance(white(500, 3), white(300, 3) * scales + shift) == pytest.approx(by_hand, rel=1e-6)


def test_the_frechet_distance_of_correlated_gaussians_is_the_eigenvalue_formula():
    a, b = torch.randn(2, 4, 4, dtype=torch.float64)
    cov_a, cov_b = (a.T @ a).numpy(), (b.T @ b).numpy()  # these do not commute
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    expected = np.trace(cov_a) + np.trace(cov_b) - 2 * root
    found = metrics.frechet_distance(white(400, 4) @ a, white(400, 4) @ b)
    assert found == pytest.approx(expected, rel=1e-6)
    linalg = pytest.importorskip("scipy.linalg")
    assert expected == pytest.approx(np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b)).real, rel=1e-6)


def test_the_frechet_distance_is_zero_for_one_set_and_symmetric_for_two():
    a, b = torch.randn(200, 5), 0.5 * torch.randn(300, 5) + 1
    assert abs(metrics.frechet_distance(a, a)) < 1e-6
    assert metrics.frechet_distance(a, b) == pytest.approx(metrics.frechet_distance(b, a), rel=1e-6) and \
           metrics.frechet_distance(a, b) > 1


# Precision, recall, density, coverage

def scores(real, fake):
    return metrics.precision_recall_density_coverage(real, fake)


def test_identical_sets_score_one_everywhere():
    x = torch.randn(300, 8)
    found = scores(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    assert found["density"] == pytest.approx(1, abs=0.02)  # k fakes in each real ball, itself among them


def test_samples_of_one_mode_of_two_are_precise_and_cover_half():
    left, right = torch.randn(100, 4), torch.randn(100, 4) + 100
    found = scores(torch.cat([left, right]), left)
    assert found["precision"] == 1 and found["coverage"] == 0.5 and found["recall"] == 0.5
    assert found["density"] == pytest.approx(1, abs=0.02)


def test_real_data_of_one_mode_of_two_make_half_of_the_samples_imprecise():
    left, right = torch.randn(100, 4), torch.randn(100, 4) + 100
    found = scores(left, torch.cat([left, right]))
    assert found["precision"] == 0.5 and found["coverage"] == 1 and found["recall"] == 1


def test_one_real_outlier_spoils_precision_but_not_density_and_coverage():
    """Naeem et al.'s reason for the latter two: the outlier's ball reaches over everything between."""
    real = torch.cat([torch.randn(100, 2), torch.tensor([[1000.0, 0.0]])])
    between = torch.tensor([500.0, 0.0]) + torch.randn(60, 2)
    found = scores(real, between)
    assert found["precision"] == 1 and found["recall"] == 0
    assert found["density"] == pytest.approx(1 / metrics.K_NEAREST) and found["coverage"] == pytest.approx(1 / 101)


def test_coverage_counts_the_ball_of_the_kth_neighbour_and_not_of_the_sample_itself():
    real = torch.arange(10.0)[:, None]  # neighbours of 0: 1, 2, 3, …; its second is at 2
    found = metrics.precision_recall_density_coverage(real, torch.tensor([[-1.9], [-1.8], [-1.7]]), k=2)
    assert found["precision"] == 1 and found["coverage"] == pytest.approx(1 / 10) and found["density"] == 0.5
    assert metrics.precision_recall_density_coverage(real, torch.tensor([[-2.1]] * 3), k=2)["precision"] == 0


def test_batches_change_nothing():
    x = torch.randn(1203, 3)
    assert torch.equal(metrics.in_batches(lambda part: part * 2, x, size=100), x * 2)


# The scorer

class CornerReader(nn.Module):
    """Says which digit an image is from its top left pixel, −1 … 0.8 for 0 … 9; its features are two more pixels."""
    config = SimpleNamespace(n_classes=10)

    def forward(self, x):
        return -(x[:, 0, 0, 0, None] - (torch.arange(10) / 5 - 1)).abs()

    def features(self, x):
        return x[:, 0, 1, :2]


def corner_images(labels, spread=1.0):
    images = torch.zeros(len(labels), 1, 28, 28)
    images[:, 0, 0, 0] = labels / 5 - 1
    images[:, 0, 1, :2] = spread * (2 * torch.rand(len(labels), 2) - 1)
    return images


def corner_scorer() -> metrics.Scorer:
    """A scorer whose real images are uniform noise."""
    real = torch.randint(256, (400, 1, 28, 28), dtype=torch.uint8)
    return metrics.Scorer(CornerReader(), CornerReader(), Images(real, torch.zeros(400, dtype=torch.int64)))


def test_the_scorer_counts_right_digits_and_names_its_number_of_images():
    labels = torch.arange(50) % 10
    drawn = labels.clone()
    drawn[:10] = 9 - drawn[:10]  # ten samples of the wrong digit, among them none by chance right
    found = corner_scorer()(corner_images(drawn), labels)
    assert found["images"] == 50 and found["accuracy"] == pytest.approx(0.8)
    assert set(found) == {"images", "frechet_distance", "frechet_distance_judge", "accuracy", "precision", "recall",
                          "density", "coverage"}


def test_the_scorer_compares_with_the_real_images_in_its_features():
    score, labels = corner_scorer(), torch.arange(400) % 10
    alike, narrow = score(corner_images(labels), labels), score(corner_images(labels, 0.1), labels)
    # uniform on ± 1 has deviation 1/√3, narrow a tenth of it, on two axes
    assert narrow["frechet_distance"] == pytest.approx(2 * (0.9 / math.sqrt(3)) ** 2, rel=0.15)
    assert alike["frechet_distance"] < 0.02 and alike["coverage"] > 0.9 and narrow["coverage"] < 0.2


def test_the_second_distance_is_in_the_judges_features():
    class Doubled(CornerReader):
        def features(self, x):
            return 2 * x[:, 0, 1, :2]

    labels = torch.zeros(400, dtype=torch.int64)
    real = Images(torch.randint(256, (400, 1, 28, 28), dtype=torch.uint8), labels)
    found = metrics.Scorer(CornerReader(), Doubled(), real)(corner_images(labels, 0.1), labels)
    assert found["frechet_distance_judge"] == pytest.approx(4 * found["frechet_distance"], rel=1e-6)


@pytest.mark.parametrize("spoil, sentence", [
    (lambda x: x[:, 0], r"images must have shape \(N, 1, 28, 28\); got \(20, 28, 28\)"),
    (lambda x: x[..., :27], r"images must have shape \(N, 1, 28, 28\); got \(20, 1, 28, 27\)"),
    (lambda x: x[:0], r"images must have shape \(N, 1, 28, 28\); got \(0, 1, 28, 28\)"),
    (lambda x: x * 2, r"images must lie in \[−1, 1\]; these go from .* to .*Clamp samples first"),
    (lambda x: (x + 1) * 127.5, r"images must lie in \[−1, 1\]; these go from 0 to .*scale uint8 pixels with data"),
    (lambda x: x.index_fill(0, torch.tensor([3]), math.nan), r"images must lie in \[−1, 1\]; these go from nan to nan"),
    (lambda x: x.index_fill(0, torch.tensor([3]), math.inf), r"images must lie in \[−1, 1\]; these go from .* to inf"),
])
def test_images_that_make_no_sense_are_refused(spoil, sentence):
    labels = torch.arange(20) % 10
    with pytest.raises(ValueError, match=sentence):
        corner_scorer()(spoil(corner_images(labels)), labels)
