"""Metrics: against closed forms and against sets built so that the answer is known."""
import math
import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import Counted, refused
from torch import nn

from dmdkit import metrics, nets, score
from dmdkit.data import Images, Points


def white(n: int, d: int) -> torch.Tensor:
    """n points in d dimensions whose sample mean is exactly 0 and whose sample covariance is
    exactly the identity."""
    x = torch.randn(n, d, dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T


# Fréchet distance

def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    shift, scales = torch.tensor([3.0, 0.0, -4.0]), torch.tensor([1.0, 2.0, 0.5])
    # independent axes: ‖m‖² + Σ (σ_a − σ_b)²
    by_hand = 25 + (0 + 1 + 0.25)
    found = metrics.frechet_distance(white(500, 3), white(300, 3) * scales + shift)
    assert found == pytest.approx(by_hand, rel=1e-6)


def test_the_frechet_distance_of_correlated_gaussians_is_the_eigenvalue_formula():
    a, b = torch.randn(2, 4, 4, dtype=torch.float64)
    cov_a, cov_b = (a.T @ a).numpy(), (b.T @ b).numpy()  # these do not commute
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    expected = np.trace(cov_a) + np.trace(cov_b) - 2 * root
    found = metrics.frechet_distance(white(400, 4) @ a, white(400, 4) @ b)
    assert found == pytest.approx(expected, rel=1e-6)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    assert expected == pytest.approx(np.trace(cov_a + cov_b - 2 * root).real, rel=1e-6)


def test_the_frechet_distance_is_zero_for_one_set_and_symmetric_for_two():
    a, b = torch.randn(200, 5), 0.5 * torch.randn(300, 5) + 1
    assert abs(metrics.frechet_distance(a, a)) < 1e-6
    there, back = metrics.frechet_distance(a, b), metrics.frechet_distance(b, a)
    assert there == pytest.approx(back, rel=1e-6) and there > 1


# Precision, recall, density, coverage

def scores(real, fake):
    return metrics.precision_recall_density_coverage(real, fake)


def test_identical_sets_score_one_everywhere():
    x = torch.randn(300, 8)
    found = scores(x, x)
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    assert found["density"] == pytest.approx(1, abs=0.02)  # k fakes in a ball, one its own


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
    """Naeem et al.'s reason for the latter two: the outlier's ball reaches over all between."""
    real = torch.cat([torch.randn(100, 2), torch.tensor([[1000.0, 0.0]])])
    between = torch.tensor([500.0, 0.0]) + torch.randn(60, 2)
    found = scores(real, between)
    assert found["precision"] == 1 and found["recall"] == 0
    assert found["density"] == pytest.approx(1 / metrics.K_NEAREST)
    assert found["coverage"] == pytest.approx(1 / 101)


def test_coverage_counts_the_ball_of_the_kth_neighbour_and_not_of_the_sample_itself():
    real = torch.arange(10.0)[:, None]  # neighbours of 0: 1, 2, 3, …; its second is at 2
    inside, outside = torch.tensor([[-1.9], [-1.8], [-1.7]]), torch.tensor([[-2.1]] * 3)
    found = metrics.precision_recall_density_coverage(real, inside, k=2)
    assert found["precision"] == 1 and found["coverage"] == pytest.approx(1 / 10)
    assert found["density"] == 0.5
    assert metrics.precision_recall_density_coverage(real, outside, k=2)["precision"] == 0


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_of_features_that_are_all_equal_everything_lies_in_every_ball(value):
    """All four were 0: no distance is smaller than a radius of 0."""
    constant = torch.full((200, 16), value)
    assert set(scores(constant, constant.clone()).values()) == {1.0, 200 / 5}
    assert set(scores(constant, constant + 1).values()) == {0.0}


def test_a_radius_that_is_known_changes_nothing():
    real, fake = torch.randn(50, 4), torch.randn(40, 4)
    radius, fresh = metrics.radius(real), scores(real, fake)
    assert metrics.precision_recall_density_coverage(real, fake, real_radius=radius) == fresh


# Features that are none

@pytest.mark.parametrize("real, fake, kind, sentence", [
    (torch.randn(50, 3), torch.randn(50, 4), ValueError,
     r"Features must be \(N, D\) and \(M, D\); got \(50, 3\) and \(50, 4\)"),
    (torch.randn(50, 3), torch.randn(50), ValueError, r"Features must be .*\(50,\)"),
    (torch.randn(50, 3), torch.randn(1, 3), ValueError, "At least [26] samples .*1 fake"),
    (torch.randn(50, 3), torch.full((50, 3), math.nan), ValueError,
     "The features of the fake samples are not all finite"),
    (torch.full((50, 3), math.inf), torch.randn(50, 3), ValueError,
     "The features of the real samples are not all finite"),
    (torch.ones(50, 3).long(), torch.randn(50, 3), TypeError, "real must be floating-point"),
])
def test_features_that_are_none_are_refused(real, fake, kind, sentence):
    for measure in (metrics.frechet_distance, metrics.precision_recall_density_coverage):
        with refused(kind, sentence):
            measure(real, fake)


# Points

def test_the_wasserstein_distance_of_shifted_clouds_is_the_shift():
    x = torch.randn(60, 2)
    shuffled = x[torch.randperm(60)] + torch.tensor([3.0, -4.0])
    assert metrics.wasserstein(x, shuffled) == pytest.approx(5, rel=1e-5)
    assert metrics.wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-6)


def test_the_wasserstein_distance_takes_the_best_assignment():
    x, y = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert metrics.wasserstein(x, y) == pytest.approx(math.sqrt((0 + 9) / 2))


@pytest.mark.parametrize("x, y, kind, sentence", [
    (torch.zeros(4, 2), torch.zeros(5, 2), ValueError, r"must have one shape; got \(4, 2\) and"),
    (torch.zeros(4), torch.zeros(4), ValueError, r"Features must be .*; got \(4,\) and \(4,\)"),
    (torch.zeros(4, 2), torch.full((4, 2), math.nan), ValueError, "are not all finite"),
    (torch.zeros(4, 2), torch.zeros(4, 2).long(), TypeError, "y must be floating-point numbers"),
])
def test_clouds_that_cannot_be_compared_are_refused(x, y, kind, sentence):
    with refused(kind, sentence):
        metrics.wasserstein(x, y)


def test_a_mode_is_covered_by_a_quarter_of_the_points_that_are_its_due():
    ring = score.ring(4, std=0.05)
    for counts, covered in (((100, 100, 100, 100), 4), ((200, 200, 0, 0), 2),
                            ((175, 175, 26, 24), 3), ((400, 0, 0, 0), 1)):
        x = ring.means.repeat_interleave(torch.tensor(counts), 0) + 0.01 * torch.randn(400, 2)
        assert metrics.modes_covered(x, *ring) == covered
    assert metrics.modes_covered(torch.full((50, 2), 9.0), *ring) == 0
    beside = ring.means[:1].expand(50, 2) + torch.tensor([0.0, 0.05 * 3.1])  # beyond 3 deviations
    assert metrics.modes_covered(beside, *ring) == 0


def test_points_of_another_dimension_cover_no_modes():
    with refused(ValueError, r"Features must be .*\(9, 3\) and \(8, 2\)"):
        metrics.modes_covered(torch.zeros(9, 3), *score.ring())


def test_batches_change_nothing():
    x = torch.randn(1203, 3)

    def double(part):
        assert len(part) <= 100 and not torch.is_grad_enabled()
        return part * 2

    assert torch.equal(metrics.in_batches(double, x, size=100), x * 2)


# The scorer

class CornerReader(nn.Module):
    """Says which digit an image is from its top left pixel, −1 … 0.8 for 0 … 9; its features are
    two more pixels, stretched, and that one."""

    def __init__(self, stretch: float = 1.0):
        super().__init__()
        self.stretch, self.body, self.head = stretch, Counted(_Pixels(stretch)), _Names()

    def features(self, x):
        return self.body(x)


class _Pixels(nn.Module):
    config = None

    def __init__(self, stretch):
        super().__init__()
        self.stretch = stretch

    def forward(self, x):
        return torch.cat([self.stretch * x[:, 0, 1, :2], 1e-3 * x[:, 0, 0, :1]], 1)


class _Names(nn.Module):
    def forward(self, features):
        return -(1e3 * features[:, 2:] - (torch.arange(10) / 5 - 1)).abs()


def corner_images(labels, spread=1.0):
    images = torch.zeros(len(labels), 1, 28, 28)
    images[:, 0, 0, 0] = labels / 5 - 1
    images[:, 0, 1, :2] = spread * (2 * torch.rand(len(labels), 2) - 1)
    return images


def noise_images(n: int = 400) -> Images:
    """Uniform noise."""
    pixels = torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8)
    return Images(pixels, torch.zeros(n, dtype=torch.int64))


def corner_scorer(**spaces) -> metrics.Scorer:
    spaces = spaces or {"corner": metrics.Space.of(CornerReader())}
    return metrics.Scorer(spaces, noise_images(), (1, 28, 28))


NAMES = {"frechet_distance", "precision", "recall", "density", "coverage"}


def test_the_scorer_counts_right_digits_where_a_space_names_them():
    plain, named = CornerReader(), CornerReader()
    scorer = corner_scorer(plain=metrics.Space(plain.features), named=metrics.Space.of(named))
    labels = torch.arange(50) % 10
    drawn = labels.clone()
    drawn[:10] = 9 - drawn[:10]  # ten samples of the wrong digit, none by chance right
    found = scorer(corner_images(drawn), labels)
    assert list(found) == ["plain", "named"]
    assert set(found["plain"]) == NAMES and set(found["named"]) == NAMES | {"accuracy"}
    assert found["named"]["accuracy"] == pytest.approx(0.8)
    assert set(scorer(corner_images(drawn))["named"]) == NAMES  # nothing was asked for


def test_the_scorer_compares_with_the_real_images_in_every_space():
    """Uniform on ±1 has deviation 1/√3; narrow is a tenth of it, on two axes. In the space that
    stretches by 3 the Fréchet distance is 9 times as large and the four shares are the same."""
    scorer = corner_scorer(one=metrics.Space(CornerReader().features),
                           three=metrics.Space(CornerReader(3.0).features))
    labels = torch.arange(400) % 10
    alike, narrow = scorer(corner_images(labels)), scorer(corner_images(labels, 0.1))
    for name, factor in (("one", 1), ("three", 9)):
        by_hand = factor * 2 * (0.9 / math.sqrt(3)) ** 2
        assert narrow[name]["frechet_distance"] == pytest.approx(by_hand, rel=0.15)
        assert alike[name]["frechet_distance"] < 0.02 * factor
        assert alike[name]["coverage"] > 0.9 and narrow[name]["coverage"] < 0.2
        assert narrow[name]["precision"] > 0.9 and narrow[name]["recall"] < 0.2
    for metric in NAMES - {"frechet_distance"}:
        assert narrow["one"][metric] == pytest.approx(narrow["three"][metric], abs=0.01)


def test_every_space_has_shares_of_its_own():
    """A space that sees nothing of the spread finds narrow samples as good as any."""
    scorer = corner_scorer(sees=metrics.Space(CornerReader().features),
                           blind=metrics.Space(CornerReader(0.0).features))
    labels = torch.randint(10, (400,))
    images = corner_images(labels, 0.05)
    images[:, 0, 0, 0] = 2 * torch.rand(400) - 1
    found = scorer(images)
    assert found["sees"]["coverage"] < 0.3 and found["blind"]["coverage"] > 0.9


def test_each_space_sees_each_sample_once():
    reader = CornerReader()
    scorer = corner_scorer(named=metrics.Space.of(reader))
    assert reader.body.rows == 400
    labels = torch.arange(1100) % 10
    scorer(corner_images(labels), labels)
    assert reader.body.rows == 400 + 1100 and reader.body.calls == 1 + 3


def test_a_space_of_a_classifier_is_without_dropout():
    judge = nets.PoolingClassifier(1, 28, 8).train()
    space, x = metrics.Space.of(judge), torch.randn(4, 1, 28, 28)
    assert not judge.training and torch.equal(space.features(x), space.features(x))
    assert torch.equal(space.head(space.features(x)), judge(x))


def test_points_are_scored_like_images():
    spaces = {"plane": metrics.Space(nn.Identity())}
    scorer = metrics.Scorer(spaces, Points(torch.randn(300, 2)), (2,))
    found = scorer(5 + torch.randn(300, 2))["plane"]
    assert found["frechet_distance"] == pytest.approx(50, rel=0.1) and found["coverage"] < 0.1


IMAGE = r"images must have shape \(B, 1, 28, 28\); got "


@pytest.mark.parametrize("spoil, kind, sentence", [
    (lambda x: x[:, 0], ValueError, IMAGE + r"\(20, 28, 28\)"),
    (lambda x: x[..., :27], ValueError, IMAGE + r"\(20, 1, 28, 27\)"),
    (lambda x: x[:0], ValueError, "There are no images to score"),
    (lambda x: x * 2, ValueError, r"images must lie in \[−1, 1\]; these go from .*Clamp samples"),
    (lambda x: (x + 1) * 127.5, ValueError, r"in \[−1, 1\]; these go from 0 to .*with data.scale"),
    (lambda x: (x + 1) / 2, ValueError, r"from 0 to 1, seem to lie in \[0, 1\].* with 2 x − 1"),
    (lambda x: ((x + 1) * 127.5).to(torch.uint8), TypeError, "images must be floating-point"),
    (lambda x: x.index_fill(0, torch.tensor([3]), math.nan), ValueError, "finite; .* nan to nan"),
    (lambda x: x.index_fill(0, torch.tensor([3]), math.inf), ValueError, "finite; .* to inf"),
])
def test_images_that_make_no_sense_are_refused(spoil, kind, sentence):
    scorer, labels = corner_scorer(), torch.arange(20) % 10
    images = corner_images(labels)
    images[0, 0, 5, 5:7] = torch.tensor([-1.0, 1.0])
    with refused(kind, sentence):
        scorer(spoil(images), labels)


@pytest.mark.parametrize("labels, kind, sentence", [
    (torch.arange(19) % 10, ValueError, r"label must have shape \(20,\), one a sample"),
    ((torch.arange(20) % 10).to(torch.uint8), TypeError, "torch.int64.*; got torch.uint8"),
    (torch.full((20,), 10), ValueError, "label must lie in 0 … .*; got 10"),
    (torch.full((20,), -1), ValueError, "label must lie in 0 … .*; got -1"),
])
def test_labels_that_are_not_the_samples_are_refused(labels, kind, sentence):
    scorer = corner_scorer()
    with refused(kind, sentence):
        scorer(corner_images(torch.arange(20) % 10), labels)


def test_points_are_refused_only_where_they_are_no_numbers():
    metrics.check_samples(torch.full((3, 2), 7.0), (2,))
    with refused(ValueError, "points must be finite"):
        metrics.check_samples(torch.tensor([[0.0, math.inf]]), (2,))
    with refused(ValueError, r"points must have shape \(B, 2\); got \(3, 3\)"):
        metrics.check_samples(torch.zeros(3, 3), (2,))


def test_a_scorer_without_spaces_or_with_real_images_of_another_shape_is_refused():
    with refused(ValueError, "A scorer needs at least one space"):
        metrics.Scorer({}, noise_images(), (1, 28, 28))
    with refused(ValueError, r"images must have shape \(B, 3, 28, 28\)"):
        metrics.Scorer({"corner": metrics.Space.of(CornerReader())}, noise_images(), (3, 28, 28))
