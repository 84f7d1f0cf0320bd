"""Fields of arrows: what is drawn, what the player packs, and that both say when something does not fit."""
import base64
import json
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from test_widgets import pixels

from dmdkit import fields, schedule, score, widgets

S = schedule.cosine()
RING = score.Exact(score.ring(), S)
AXES = {"training": ["0%", "50%", "100%"], "t": [50, 400]}


def panels(f: int = 3, t: int = 2) -> list[fields.Panel]:
    g = torch.Generator().manual_seed(0)
    grid = fields.grid(5)
    arrows = torch.randn(f, t, 25, 2, generator=g)
    points, heat = torch.randn(f, t, 7, 2, generator=g), torch.rand(1, t, 8, 8, generator=g)
    return [fields.Panel("all", grid[None, None], arrows, points, heat),
            fields.Panel("points only", points=torch.randn(f, 1, 9, 2, generator=g)),
            fields.Panel("moving arrows", torch.randn(f, 1, 25, 2, generator=g), arrows[:, :1])]


def spec(bundle) -> dict:
    return json.loads(re.search(r"const spec = (\{.*\});$", bundle.html, re.M)[1].replace("<\\/", "</"))


def test_the_grid_goes_row_by_row_from_the_top_left_with_a_margin():
    grid = fields.grid(3, 1.5)
    wanted = [[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]]
    torch.testing.assert_close(grid[:4], torch.tensor(wanted))


@pytest.mark.parametrize("t", [20, 500, 1023])
def test_an_arrow_is_sigma_times_the_score(t):
    points = fields.grid(4)
    got = fields.arrows(RING, t, points)
    torch.testing.assert_close(got, S.sigma[t].float() * RING(points, t).score)


def test_density_is_the_root_relative_to_its_largest_and_lies_as_the_grid_does():
    got = fields.density(lambda p: -(p - torch.tensor([0.9, 0.9])).square().sum(1), 20)  # towards the upper right
    assert got.shape == (20, 20) and got.max() == 1 and got[3, 16] > 0.95 > got[16, 3]
    assert got[3, 3].item() == pytest.approx(got[16, 16].item())


def test_the_player_packs_what_it_is_given():
    """Decoded as the script does it, every number comes back within half of its last place, arrows up to the cap."""
    given, cap = panels(), 1.5
    packed = spec(fields.player(given, AXES, cap=cap))
    assert packed["axes"] == [["training", ["0%", "50%", "100%"]], ["t", ["50", "400"]]]
    for panel, entry in zip(given, packed["panels"]):
        for name in ("at", "arrows", "points", "density"):
            array, one = getattr(panel, name), entry[name]
            if array is None:
                assert one is None
                continue
            values = np.frombuffer(base64.b64decode(one["data"]), f"<i{one['bytes']}").reshape(array.shape)
            if name == "arrows":
                array = array * (cap / array.norm(dim=-1, keepdim=True)).clamp(max=1)
            assert np.abs(values / one["units"] - array.clamp(-3.2767, 3.2767).numpy()).max() <= 0.51 / one["units"]
            assert one["axes"] == list(array.shape[:2]) and one["size"] == array.shape[2] * array.shape[3]
            assert one["units"] == {"at": 1e4, "points": 1e4, "arrows": 127 / cap, "density": 127}[name]


def test_the_player_starts_where_it_is_told_and_says_what_its_caption_says():
    one = spec(fields.player(panels(), AXES, caption=lambda **at: f"{at['training']} at {at['t']}", title="A title"))
    assert one["at"] == [2, 0] and one["captions"]["texts"][one["at"][0] * 2 + one["at"][1]] == "100% at 50"
    other = spec(fields.player(panels(), AXES, start={"training": "50%", "t": 400}))
    assert other["at"] == [1, 1] and other["captions"] == {"axes": [1, 1], "texts": [""]}


def test_the_player_is_self_contained_and_bundles_a_picture_and_text():
    bundle = fields.player(panels(), AXES, title='</script><b onclick="x">', menus=["t"])
    assert not re.search(r"https?:|//[a-z]+\.|@import|<link|import\(", bundle.html)
    assert bundle.html.count("</script>") == 1 and 'onclick="x"' not in bundle.html.split("<script>")[0]
    assert pixels(bundle.png).std() > 0 and "training 0% 50% 100%, t 50 400" in repr(bundle)
    assert set(bundle._repr_mimebundle_()) == {"text/html", "image/png", "text/plain"}


def test_the_figure_draws_the_chosen_part():
    """A panel at (2, 1) is the panel that has nothing else."""
    part = lambda a: None if a is None else a[min(2, len(a) - 1), min(1, a.shape[1] - 1)]
    chosen = [fields.Panel(p.title, *map(part, p[1:])) for p in panels()]
    assert widgets.png(fields.draw(panels(), (2, 1))) == widgets.png(fields.draw(chosen))
    assert widgets.png(fields.draw(panels(), (1, 1))) != widgets.png(fields.draw(chosen))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("corner", [(0, 0), (2, 1), {"first": (0, 0), "last": (2, 1)}])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_the_figure_renders_at_its_corners_and_changes_nothing(corner, scale):
    given = [p._replace(arrows=None if p.arrows is None else p.arrows * scale) for p in panels()]
    before = [None if a is None else a.clone() for p in given for a in p[1:]]
    figure = fields.draw(given, corner, "title")
    assert isinstance(figure, Figure) and widgets.png(figure)
    assert all(a is None or torch.equal(a, b) for a, b in zip((a for p in given for a in p[1:]), before))


def test_longer_than_the_cap_is_drawn_alike():
    grid, one = fields.grid(3), torch.ones(9, 2)
    draw = lambda scale: widgets.png(fields.draw([fields.Panel("", grid, scale * one)], cap=1.0))
    assert draw(2.0) == draw(50.0) != draw(0.2)


@pytest.mark.parametrize("change, sentence", [
    (dict(points=torch.zeros(2, 2, 9, 2)), r"points of the panel 'all' must have the leading shape \(3, 2\)"),
    (dict(at=None), "The panel 'all' has arrows and no ``at``"),
    (dict(arrows=torch.zeros(25, 2)), r"arrows of the panel 'all' must have the leading shape .* got \(25, 2\)"),
])
def test_what_does_not_fit_is_named(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fields.player([panels()[0]._replace(**change)], AXES)


def test_a_start_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="There is no t = 51; there is training in 0%, 50%, 100%; t in 50, 400"):
        fields.player(panels(), AXES, start={"t": 51})
