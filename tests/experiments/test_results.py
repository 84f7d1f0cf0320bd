"""Results as rows: read from cards, chosen, summed up, merged, and put into words."""
import pytest
from conftest import refused

from dmdkit.experiments import results
from dmdkit.experiments.results import REAL, Row, Spread


def entry(value: float, seed: int = 0, noise: str = "report", images: int = 5000,
          **sampling) -> dict:
    how = {"sampler": "ddim", "n_steps": 16, "guidance": 0.3} | sampling
    return {"sampling": how, "noise": noise, "seed": seed, "images": images,
            "values": {"classifier": {"frechet_distance": value, "coverage": 0.5},
                       "judge": {"frechet_distance": value / 4, "accuracy": 0.97}}}


CARD = {"results": [
    {"sampling": {"sampler": REAL}, "noise": "report", "seed": 0, "images": 5000,
     "values": {"classifier": {"frechet_distance": 1.5}}},
    entry(2.0), entry(2.6, seed=1), entry(2.3, seed=2), entry(9.0, more="clamped")]}


def test_every_figure_of_a_card_is_a_row_with_all_that_it_depends_on():
    rows = list(results.rows("teacher", CARD))
    assert len(rows) == 1 + 4 * 4
    assert rows[0] == Row(REAL, REAL, 0, 0.0, "", "report", 0, 5000, "classifier",
                          "frechet_distance", 1.5)
    assert rows[4] == Row("teacher", "ddim", 16, 0.3, "", "report", 0, 5000, "judge", "accuracy",
                          0.97)
    assert rows[-1].more == "clamped"
    assert list(results.rows("new", {})) == []


def test_rows_are_chosen_by_their_columns():
    found = results.select(results.rows("teacher", CARD), space="judge",
                           metric="frechet_distance", more="", seed=1)
    assert [row.value for row in found] == [0.65]
    assert results.select(found, artefact="student") == []
    with refused(ValueError, "A row has no column 'sede'; it has artefact, sampler, n_steps"):
        results.select(found, sede=1)


def test_a_spread_is_the_mean_and_the_range_over_seeds():
    found = results.select(results.rows("teacher", CARD), space="classifier", more="",
                           metric="frechet_distance", sampler="ddim")
    assert results.spread(found) == Spread(pytest.approx(2.3), 2.0, 2.6, 3)
    assert results.text(results.spread(found)) == "2.30 (2.00–2.60)"
    assert results.text(results.spread(found[:1])) == "2.00"
    assert results.text(Spread(0.97, 0.96, 0.98, 2), "{:.1%}") == "97.0% (96.0%–98.0%)"


@pytest.mark.parametrize("column", ["artefact", "sampler", "n_steps", "guidance", "more", "noise",
                                    "images", "space", "metric"])
def test_there_is_no_mean_of_different_things(column):
    row = next(results.rows("teacher", CARD))
    other = row._replace(seed=1, **{column: "other"})
    assert results.spread([row, row._replace(seed=1, value=2.0)]).n == 2
    with refused(ValueError, "figures are of different things, so they have no common mean"):
        results.spread([row, other])


def test_a_figure_that_was_not_measured_is_said_to_be_none():
    with refused(ValueError, "There is no such figure: measure it with `python -m dmdkit evaluat"):
        results.spread([])


def test_an_entry_takes_the_place_of_an_earlier_one_of_the_same_thing_alone():
    before = CARD["results"]
    found = results.merged(before, entry(7.0, seed=1))
    assert len(found) == len(before) and found[-1]["values"]["classifier"][
        "frechet_distance"] == 7.0
    assert [one for one in before if one["seed"] != 1] == found[:-1]
    for other in (entry(7.0, seed=3), entry(7.0, noise="selection"), entry(7.0, images=100),
                  entry(7.0, n_steps=8), entry(7.0, guidance=0.0), entry(7.0, more="not clamped")):
        assert results.merged(before, other) == [*before, other]


def test_figures_in_a_space_that_is_not_at_hand_stay():
    """Inception's features are no part of the kit: without them an entry still has its others."""
    before = entry(7.0) | {"values": entry(7.0)["values"] | {"inception": {"coverage": 0.5}}}
    found = results.merged([before], entry(8.0))
    assert [one["values"] for one in found] == [
        entry(8.0)["values"] | {"inception": {"coverage": 0.5}}]


def test_a_table_is_markdown():
    assert results.markdown(["a", "b"], [["1", "2"], ["3", ""]]) == \
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"
