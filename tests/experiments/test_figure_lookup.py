"""One figure of a card, as the lessons look it up."""
import pytest

from dmdkit import store
from dmdkit.experiments import tables
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.results import REAL

DDIM = Sampling("ddim", 16, 0.25).entry
WHERE = "classifier", "frechet_distance"


def entry(value: float, sampling: dict = DDIM, noise: str = "pairs", seed: int = 0,
          images: int = 5000) -> dict:
    return {"sampling": sampling, "noise": noise, "seed": seed, "images": images,
            "values": {"classifier": {"frechet_distance": value, "recall": value / 10},
                       "judge": {"frechet_distance": 10 * value}}}


def looked_up(*entries: dict, metric: tuple[str, str] = WHERE, **where) -> float:
    return tables.figure("mine", *metric, card={"results": list(entries)}, **where)


def test_a_figure_is_that_of_its_space_and_metric():
    assert looked_up(entry(2.0), **DDIM) == 2.0
    assert looked_up(entry(2.0), metric=("classifier", "recall"), **DDIM) == 0.2
    assert looked_up(entry(2.0), metric=("judge", "frechet_distance"), **DDIM) == 20.0


def test_a_figure_is_that_of_its_sampler_and_of_5000_images():
    others = [entry(3.0, DDIM | {"n_steps": 8}), entry(4.0, DDIM | {"guidance": 0.0}),
              entry(5.0, DDIM | {"sampler": "ddpm"}), entry(6.0, images=1000),
              entry(7.0, DDIM | {"more": "clamped"}), entry(8.0, {"sampler": REAL})]
    assert looked_up(*others, entry(2.0), **DDIM) == 2.0
    assert looked_up(*others, entry(2.0), images=1000, **DDIM) == 6.0
    assert looked_up(*others, entry(2.0), **DDIM | {"more": "clamped"}) == 7.0
    assert looked_up(*others, entry(2.0), sampler=REAL) == 8.0


def test_report_noise_counts_before_all_other():
    old, chosen = entry(2.0), entry(3.0, noise="selection", seed=1)
    report = [entry(value, noise="report", seed=seed) for seed, value in enumerate((4.0, 5.0, 9.0))]
    assert looked_up(old, chosen, *report, **DDIM) == 6.0
    assert looked_up(old, chosen, **DDIM) == 2.0
    assert looked_up(old, chosen, noise="selection", **DDIM) == 3.0


def test_a_figure_that_was_not_measured_is_told_in_a_sentence():
    with pytest.raises(ValueError, match=r"card of 'mine'.*n_steps 16.*evaluate mine`\.$"):
        looked_up(entry(2.0, DDIM | {"n_steps": 8}), **DDIM)
    with pytest.raises(ValueError, match="no such figure"):  # which noise chose nothing is no matter
        looked_up(entry(2.0, noise="selection"), **DDIM)


def test_several_things_have_no_common_figure():
    with pytest.raises(ValueError, match="different things"):
        looked_up(entry(2.0), entry(3.0, DDIM | {"n_steps": 8}), sampler="ddim")


def test_of_what_ships_the_card_is_found():
    shipped = tables.figure("student-dmd", *WHERE, sampler="ddim")
    assert shipped == tables.figure("student-dmd", *WHERE, card=store.card("student-dmd"),
                                    sampler="ddim")
    assert 0 < tables.figure("student-dmd", *WHERE, sampler=REAL) != shipped
