"""What lies on the paper around digits."""
import pytest
import torch

from dmdkit import data
from dmdkit.tasks import mnist


def stroke(n=50):
    """Clean paper with a line on it."""
    x = torch.full((n, 1, 28, 28), -1.0)
    x[:, :, 8:20, 14] = 1.0
    return x


def test_real_digits_lie_on_clean_paper():
    x, _ = data.mnist(train=False).batch(torch.arange(500))
    found = mnist.paper(x)
    assert found["ink"] < 5e-5 and found["lattice"] < 0.2


def test_ink_is_counted_where_no_stroke_is_near():
    x = stroke()
    x[:, :, :4] += 0.05
    assert mnist.paper(x)["ink"] == pytest.approx(0.05 * 4 * 28 / (28 * 28 - 5 * 16), rel=1e-3)
    x[:, :, 8:20, 13] = 0.5  # the stroke itself is no ink on the paper
    assert mnist.paper(x)["ink"] < 0.02


def test_a_lattice_of_two_pixels_is_told_from_noise():
    noise = 0.02 * torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    white = (stroke() + noise).clamp(max=1)
    assert mnist.paper(white)["lattice"] == pytest.approx(3 / 63, abs=0.01)
    white[..., ::2] += 0.02
    assert mnist.paper(white)["lattice"] > 0.15
    assert mnist.paper(stroke())["lattice"] == 0


def test_where_there_is_no_paper_there_is_no_figure_of_it():
    """As with the samples of an untrained network; the rest is scored all the same."""
    white = torch.ones(20, 1, 28, 28)
    assert mnist.paper(white) == {}
    found = mnist.scorer()(white, torch.arange(20) % 10)
    assert found["paper"] == {} and found["judge"]["frechet_distance"] > 10
    white[:, :, :7, :7] = -1.0  # paper, but no whole piece of it
    assert set(mnist.paper(white)) == {"ink"}
