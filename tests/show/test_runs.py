"""Players over stored runs, of images of any shape and of points."""
import itertools

import pytest
import torch
from figures import pixels, uint8
from test_players import spec

from dmdkit import schedule, score
from dmdkit.show import plane
from dmdkit.show.players import runs

STEPS = torch.tensor([0, 5, 20])
SHAPES = {"digits": (28, 28), "grey": (1, 12, 8), "colour": (3, 16, 16)}
RING = score.ring()
REAL = score.Exact(RING, schedule.cosine())


def images(shape, n: int = 20) -> dict:
    return {name: {"steps": STEPS, "snapshots": {"samples": uint8(3, n, *shape)}}
            for name in ("one", "other")}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("n", [10, 7])
def test_samples_of_any_shape_are_played(kind, n):
    stored = images(SHAPES[kind])
    bundle = runs.samples(stored, ["one", "other"], "A title", n=n)
    height, width = SHAPES[kind][-2:]
    found = spec(bundle)
    assert (found["height"], found["width"]) == (2 * height + 1, 5 * width + 4)
    assert found["axes"] == [["setting", ["one", "other"]], ["update", ["0", "5", "20"]]]
    assert found["at"] == [0, 2] and pixels(bundle.png).std() > 0


def test_a_sheet_holds_the_samples_side_by_side():
    stack = images((3, 16, 16))["one"]["snapshots"]["samples"][None, :, :10]
    sheet = runs.sheets(stack)
    assert sheet.shape == (1, 3, 33, 84, 3)
    assert torch.equal(stack[0, 2, 6].permute(1, 2, 0), sheet[0, 2, 17:, 17:33])
    assert (runs.sheets(uint8(1, 1, 10, 28, 28) * 0) == 255).all()  # no ink
    assert runs.sheets(stack, 10).shape == (1, 3, 16, 169, 3)


def test_runs_are_compared_row_by_row():
    stored = images((28, 28))
    found = spec(runs.compared(stored, ["one", "other"], notes={"other": "worse"}))
    assert found["panels"] == 0 and found["notes"] == ["", "worse"] and found["marks"]
    assert (found["height"], found["width"]) == (28, 10 * 28 + 9)
    with pytest.raises(ValueError, match="no panel 'third' to note something under; there are one"):
        runs.compared(stored, ["one", "other"], notes={"third": "?"})


def test_points_are_played_as_points():
    stored = {"one": {"steps": STEPS, "snapshots": {"samples": torch.randn(3, 20, 2)}}}
    found = spec(runs.samples(stored, ["one"]))
    assert found["panels"][0]["points"]["axes"] == [1, 3]
    assert found["panels"][0]["points"]["size"] == 20


def copies(steps=STEPS, seed: int = 0, **changes) -> dict:
    """A run in the plane, of 4 copies, in half precision as it is stored."""
    g = torch.Generator().manual_seed(seed)
    kept = {"modes": torch.tensor([[1, 1, 1, 1], [2, 1, 1, 2], [3, 4, 2, 2]]),
            "distance": torch.linspace(1, 0.1, 12).reshape(3, 4),
            "points": torch.randn(3, 3, 60, 2, generator=g).half(),
            "fake": torch.randn(3, 2, 25, 2, generator=g).half(),
            "push": torch.randn(3, 2, 60, 2, generator=g).half()}
    return {"steps": steps, "snapshots": kept | changes}


def test_copies_are_played_with_their_figures_below():
    names = ["ratio 10:1", "ratio 1:5"]
    stored = {names[0]: copies(), names[1]: copies(torch.tensor([0, 6, 21]))}
    found = spec(runs.points(stored, names, "ratio", plane.density(RING.log_density), 8, "A title"))
    assert found["axes"] == [["ratio", ["10:1", "1:5"]], ["training", ["0%", "25%", "100%"]]]
    assert [panel["title"] for panel in found["panels"]] == ["run 1", "run 2", "run 3"]
    last = found["captions"]["texts"][2]
    assert last.startswith("mean of 4 runs: 2.8 of 8 modes covered · Wasserstein distance 0.2")


def test_fields_of_both_scores_are_linked():
    names = ["ring: real only", "ring: both"]
    stored = {name: copies(seed=i) for i, name in enumerate(names)}
    at = plane.grid(5)
    found = spec(runs.scores(stored, names, REAL, (50, 300), at, start={"training": "0%"}))
    assert found["axes"] == [["objective", ["real only", "both"]],
                             ["training", ["0%", "25%", "100%"]], ["t", ["50", "300"]]]
    assert found["at"] == [0, 0, 1] and found["cap"] == 1.0
    real, fake, difference = found["panels"]
    assert real["arrows"]["axes"] == [1, 1, 2] and real["points"]["axes"] == [2, 3, 2]
    assert fake["arrows"]["axes"] == [2, 3, 2] and fake["points"] is None
    assert difference["at"]["axes"] == [2, 3, 1] and difference["arrows"]["axes"] == [2, 3, 2]
    assert found["captions"]["texts"][2].startswith("modes covered: 3 of 8 · Wasserstein")


def test_shares_of_a_training_are_told_apart():
    assert runs.progress(torch.tensor([0, 1, 3, 1000])) == ["0.0%", "0.1%", "0.3%", "100.0%"]
    assert runs.progress(torch.tensor([0, 500, 1000])) == ["0%", "50%", "100%"]


def test_runs_that_do_not_fit_are_refused():
    stored = images((28, 28)) | {"long": {"steps": torch.arange(9), "snapshots": {}},
                                 "late": {"steps": STEPS + 1, "snapshots": {
                                     "samples": uint8(3, 20, 28, 28)}}}
    for names, message in (
            (["none"], "There is no run 'none'; there are one, other, long, late"),
            ([], "Name at least one run"), (["one", "long"], "not looked at as often as 'one'"),
            (["one", "late"], "looked at after different updates")):
        with pytest.raises(ValueError, match=message):
            runs.samples(stored, names)


@pytest.mark.parametrize("names", itertools.permutations(["one", "other"]))
def test_runs_are_shown_in_the_order_in_which_they_are_named(names):
    assert spec(runs.samples(images((28, 28)), list(names)))["axes"][0][1] == list(names)


def test_a_moved_cloud_is_linked_with_both_exact_scores():
    seen = [RING.sample(90, torch.Generator().manual_seed(i)) for i in range(3)]
    told = []

    def push(real, fake, x, t):
        told.append((real, fake.data.points.shape, len(x), t))
        return x

    found = spec(runs.cloud(seen, [0, 10, 20], REAL, (50, 300), plane.grid(5), push,
                            start={"moves": 10, "t": 300}))
    assert found["axes"] == [["moves", ["0", "10", "20"]], ["t", ["50", "300"]]]
    assert found["at"] == [1, 1]
    real, fake, difference = found["panels"]
    assert real["arrows"]["axes"] == [1, 2] and fake["arrows"]["axes"] == [3, 2]
    assert difference["density"]["axes"] == [1, 1] and difference["points"]["size"] == 160
    assert [entry[2:] for entry in told] == [(80, t) for _ in seen for t in (50, 300)]
    assert all(entry[0] is REAL for entry in told)
