"""Fields of arrows: what is drawn, what the player packs, and that both say when something does not
fit."""
import base64
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from figures import pixels, rendered
from test_players import spec

from dmdkit import schedule, score
from dmdkit.show import plane
from dmdkit.show.players import fields

S = schedule.cosine()
RING = score.Exact(score.ring(), S)
AXES = {"training": ["0%", "50%", "100%"], "t": [50, 400]}


def panels(f: int = 3, t: int = 2) -> list[plane.Panel]:
    g = torch.Generator().manual_seed(0)
    grid = plane.grid(5)
    arrows = torch.randn(f, t, 25, 2, generator=g)
    points, heat = torch.randn(f, t, 7, 2, generator=g), torch.rand(1, t, 8, 8, generator=g)
    return [plane.Panel("all", grid[None, None], arrows, points, heat),
            plane.Panel("points only", points=torch.randn(f, 1, 9, 2, generator=g)),
            plane.Panel("moving arrows", torch.randn(f, 1, 25, 2, generator=g), arrows[:, :1])]


def test_the_grid_goes_row_by_row_from_the_top_left_with_a_margin():
    grid = plane.grid(3, 1.5)
    wanted = [[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]]
    torch.testing.assert_close(grid[:4], torch.tensor(wanted))


@pytest.mark.parametrize("t", [20, 500, 1023])
def test_an_arrow_is_sigma_times_the_score(t):
    points = plane.grid(4)
    got = plane.arrows(RING, t, points)
    torch.testing.assert_close(got, S.sigma[t].float() * RING(points, t).score)


def test_density_is_the_root_relative_to_its_largest_and_lies_as_the_grid_does():
    def hill(points):  # towards the upper right
        return -(points - torch.tensor([0.9, 0.9])).square().sum(1)

    got = plane.density(hill, 20)
    assert got.shape == (20, 20) and got.max() == 1 and got[3, 16] > 0.95 > got[16, 3]
    assert got[3, 3].item() == pytest.approx(got[16, 16].item())


def test_the_player_packs_what_it_is_given():
    """Decoded as the script does it, every number comes back within half of its last place, arrows
    up to the cap."""
    given, cap = panels(), 1.5
    packed = spec(fields.player(given, AXES, view=plane.View(cap=cap)))
    assert packed["axes"] == [["training", ["0%", "50%", "100%"]], ["t", ["50", "400"]]]
    for panel, entry in zip(given, packed["panels"]):
        for name in ("at", "arrows", "points", "density"):
            array, one = getattr(panel, name), entry[name]
            if array is None:
                assert one is None
                continue
            raw = base64.b64decode(one["data"])
            values = np.frombuffer(raw, f"<i{one['bytes']}").reshape(array.shape) / one["units"]
            if name == "arrows":
                array = array * (cap / array.norm(dim=-1, keepdim=True)).clamp(max=1)
            wanted = array.clamp(-3.2767, 3.2767).numpy()
            assert np.abs(values - wanted).max() <= 0.51 / one["units"]
            assert one["axes"] == list(array.shape[:2])
            assert one["size"] == array.shape[2] * array.shape[3]
            assert one["units"] == {"at": 1e4, "points": 1e4, "arrows": 127 / cap,
                                    "density": 127}[name]


def test_the_player_starts_where_it_is_told_and_says_what_its_caption_says():
    def caption(training, t):
        return f"{training} at {t}"

    one = spec(fields.player(panels(), AXES, caption=caption, title="A title"))
    assert one["at"] == [2, 0] and one["captions"]["texts"][2 * 2 + 0] == "100% at 50"
    other = spec(fields.player(panels(), AXES, start={"training": "50%", "t": 400}))
    assert other["at"] == [1, 1] and other["captions"] == {"axes": [1, 1], "texts": [""]}


def test_the_player_is_self_contained_and_bundles_a_picture_and_text():
    bundle = fields.player(panels(), AXES, title='</script><b onclick="x">', menus=["t"])
    assert not re.search(r"https?:|//[a-z]+\.|@import|<link|import\(", bundle.html)
    assert bundle.html.count("</script>") == 1
    assert 'onclick="x"' not in bundle.html.split("<script>")[0]
    assert pixels(bundle.png).std() > 0 and "training 0% 50% 100%, t 50 400" in repr(bundle)
    assert set(bundle._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_the_figure_draws_the_chosen_part():
    """A panel at (2, 1) is the panel that has nothing else."""
    part = lambda a: None if a is None else a[min(2, len(a) - 1), min(1, a.shape[1] - 1)]
    chosen = [plane.Panel(p.title, *map(part, p[1:])) for p in panels()]
    wanted = rendered(plane.fields(chosen))
    assert (rendered(plane.fields(panels(), (2, 1))) == wanted).all()
    assert (rendered(plane.fields(panels(), (1, 1))) != wanted).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("corner", [(0, 0), (2, 1), {"first": (0, 0), "last": (2, 1)}])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_the_figure_renders_at_its_corners_and_changes_nothing(corner, scale):
    given = [p._replace(arrows=None if p.arrows is None else p.arrows * scale) for p in panels()]
    arrays = [array for panel in given for array in panel[1:] if array is not None]
    before = [array.clone() for array in arrays]
    figure = plane.fields(given, corner, "title")
    assert isinstance(figure, Figure) and rendered(figure).std() > 0
    assert all(torch.equal(one, other) for one, other in zip(arrays, before))


def test_longer_than_the_cap_is_drawn_alike():
    def drawn(length: float):
        panel = plane.Panel("", plane.grid(3), length * torch.ones(9, 2))
        return rendered(plane.fields([panel], view=plane.View(cap=1.0)))

    assert (drawn(2.0) == drawn(50.0)).all() and (drawn(2.0) != drawn(0.2)).any()


@pytest.mark.parametrize("change, sentence", [
    (dict(points=torch.zeros(2, 2, 9, 2)),
     r"points of the panel 'all' must have the leading shape \(3, 2\)"),
    (dict(at=None), "The panel 'all' has arrows and no ``at``"),
    (dict(arrows=torch.zeros(25, 2)),
     r"arrows of the panel 'all' must have the leading shape .* got \(25, 2\)"),
])
def test_what_does_not_fit_is_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fields.player([panels()[0]._replace(**change)], AXES)


def test_axes_that_there_are_not_are_named():
    for given in ({"menus": ["model"]}, {"sheet": "model"}):
        with pytest.raises(ValueError, match="There is no axis 'model'; there are training, t"):
            fields.player(panels(), AXES, **given)
    with pytest.raises(ValueError, match="at least one axis"):
        fields.player(panels(), {})


def test_a_start_that_there_is_not_is_named():
    message = "There is no t = 51; there is training in 0%, 50%, 100%; t in 50, 400"
    with pytest.raises(ValueError, match=message):
        fields.player(panels(), AXES, start={"t": 51})
