"""The player of particles: its data and its picture. What its script computes is test_browser's."""
import pytest
import torch
from figures import pixels
from test_players import spec

from dmdkit import score
from dmdkit.show.players import particles

RING = score.ring(radius=1.4, std=0.1)
UNEVEN = score.GaussianMixture.round(torch.tensor([[-0.9, 0.7], [0.9, 0.6]]), 0.18,
                                     torch.tensor([0.7, 0.3]))


def test_it_is_given_the_mixtures_and_always_the_same_noise():
    one = spec(particles.player({"ring": RING, "uneven": UNEVEN}, "A title"))
    assert [name for name, _ in one["axes"]] == ["data", "steps", "fresh noise", "t"]
    assert one["axes"][0][1] == ["ring", "uneven"] and one["title"] == "A title"
    assert one["at"] == [0, particles.COUNTS.index(6), 0, particles.FRAMES - 1]
    assert one["mixtures"][1] == {"means": [[-0.9, 0.7], [0.9, 0.6]], "std": 0.18,
                                  "weights": [0.7, 0.3]}
    assert len(one["starts"]) == particles.N_PARTICLES
    assert one["starts"] == spec(particles.player({"uneven": UNEVEN}))["starts"]


def test_it_starts_at_the_steps_it_is_told():
    assert spec(particles.player({"ring": RING}, n_steps=16))["at"][1] == 6
    with pytest.raises(ValueError, match="There is no steps = 5"):
        particles.player({"ring": RING}, n_steps=5)


def test_its_picture_shows_the_paths_to_the_first_mixture():
    bundle = particles.player({"ring": RING, "uneven": UNEVEN})
    assert pixels(bundle.png).std() > 0 and len(bundle.png) < 40_000
    assert bundle.png != particles.player({"uneven": UNEVEN}).png
    assert repr(bundle).startswith("Particles: data ring uneven, steps 1 2 3")


@pytest.mark.parametrize("covariances", [torch.diag(torch.tensor([1.0, 2.0])).expand(2, 2, 2),
                                         torch.stack([torch.eye(2), 2 * torch.eye(2)])])
def test_what_is_not_round_is_refused(covariances):
    odd = score.GaussianMixture(UNEVEN.means, covariances, UNEVEN.weights)
    with pytest.raises(ValueError, match="'odd' must be of round components .* of one standard"):
        particles.player({"odd": odd})


def test_what_is_not_of_the_plane_and_no_mixture_are_refused():
    line = score.GaussianMixture.round(torch.tensor([[-0.6], [0.6]]), 0.1)
    with pytest.raises(ValueError, match="'line' must be of round components of the plane"):
        particles.player({"line": line})
    with pytest.raises(ValueError, match="at least one"):
        particles.player({})
