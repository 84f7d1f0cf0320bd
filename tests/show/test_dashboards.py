"""Trainings that are looked at: the same functions for MNIST's digits, another shape in colour
without classes, and points."""
import numpy as np
import pytest
import torch
from figures import LOSSES, STACKED, VALUES, rendered, snapshot, uint8
from matplotlib.legend import Legend

from dmdkit import score
from dmdkit.show import dashboards, progress

POINTS = score.ring().sample(20, torch.Generator().manual_seed(0))
KINDS = {"digits": (uint8(20, 28, 28), 10), "grey": (uint8(20, 1, 12, 8), 3),
         "colour": (uint8(20, 3, 16, 16), 0), "many classes": (uint8(20, 3, 16, 16), 40),
         "points": (POINTS, 0)}
each = pytest.mark.parametrize("kind", KINDS)


def titles(figure) -> list[str]:
    return [axes.get_title().replace("\n", " ") for axes in figure.axes]


@each
@pytest.mark.parametrize("judged", [0, 30])
def test_a_dashboard_has_a_panel_for_all_that_was_seen(kind, judged):
    samples, n_classes = KINDS[kind]
    seen = {step: snapshot(samples, n_classes, judged) for step in (0, 30)}
    figure = dashboards.dashboard(seen, VALUES, 100, 0.4)
    if judged:
        assert rendered(figure)[..., :3].std() > 5
    shown = titles(figure)
    at = "a point" if kind == "points" else "an image"
    assert shown[2:4] == ["losses", f"gradient norm at {at}"]
    assert ("brightness (dashed: real)" in shown) == (kind != "points")
    assert ("classes (dashed: asked)" in shown) == (n_classes > 0)
    assert ("discriminator: real?" in shown) == (judged > 0)


def test_every_class_has_a_bar_however_many_there_are():
    seen = {0: snapshot(uint8(20, 3, 16, 16), 40)}
    figure = dashboards.dashboard(seen, {}, 100)
    assert titles(figure)[-1] == "classes (dashed: asked)" and len(figure.axes[-1].patches) == 40


@pytest.mark.parametrize("size", [16, 28])
def test_the_rows_of_predictions_are_named_at_their_middles(size):
    seen = {0: snapshot(uint8(20, 3, size, size))}
    axes = dashboards.dashboard(seen, VALUES, 100).axes[1]
    picture = axes.get_images()[0].get_array()
    assert picture.shape[0] == 3 * (size + 2) + 2
    wanted = [2 + i * (size + 2) + (size - 1) / 2 for i in range(3)]
    np.testing.assert_allclose(axes.get_yticks(), wanted)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["noised", "real says",
                                                                    "fake says"]


def test_losses_are_told_from_norms_and_from_times():
    axes = dashboards.dashboard({0: snapshot(POINTS)}, VALUES, 100).axes
    labels = [panel.get_legend_handles_labels()[1] for panel in axes[2:4]]
    assert labels == [["matching", "fake", "gan", "discriminator"], ["matching", "gan"]]


def names_below(figure) -> list[str]:
    """What the legend of a dashboard's losses says."""
    legend, = [found for found in figure.findobj(Legend) if found.axes is None]
    return [text.get_text() for text in legend.get_texts()]


def test_losses_and_norms_have_one_legend_which_covers_neither():
    figure = dashboards.dashboard({0: snapshot(POINTS)}, VALUES, 100)
    assert names_below(figure) == ["matching", "fake", "gan", "discriminator"]
    assert all(panel.get_legend() is None for panel in figure.axes[2:4])


def test_a_loss_that_the_kit_does_not_know_is_drawn():
    figure = dashboards.dashboard({0: snapshot(POINTS)}, {"mine": LOSSES, "yours": LOSSES}, 100)
    assert names_below(figure) == ["mine", "yours"]
    assert dashboards.epochs({"mine": LOSSES}, 10)


def test_a_dashboard_of_a_stored_run_shows_what_was_known_at_that_update():
    figure = dashboards.of_run(STACKED, 15, 0.4)
    losses = figure.axes[2].lines[0].get_xdata()
    assert len(losses) == 15 and figure.get_suptitle().startswith("Update 0 of 30")
    bright = figure.axes[4].lines[0]
    assert bright.get_xdata().tolist() == [0]
    assert dashboards.of_run(STACKED, 30, 0.4).axes[4].lines[0].get_xdata().tolist() == [0, 30]


def test_a_run_without_a_log_shows_the_rest():
    run = {name: value for name, value in STACKED.items() if name != "log"}
    assert "losses" not in titles(dashboards.of_run(run, 30, 0.4))
    with pytest.raises(ValueError, match="Nothing was seen up to update -1; the first is 0"):
        dashboards.of_run(run, -1)


@each
def test_a_training_in_progress_keeps_its_size(kind):
    samples, _ = KINDS[kind]
    start = progress.training([], {}, 100)
    later = progress.training(LOSSES, {3: samples, 40: samples}, 100)
    assert start.get_size_inches().tolist() == later.get_size_inches().tolist()
    assert rendered(later)[..., :3].std() > 5


@each
def test_a_halving_shows_the_first_and_the_last_samples(kind):
    samples, _ = KINDS[kind]
    figure = progress.halving(LOSSES, {0: samples, 20: samples, 40: samples}, 100, samples)
    assert titles(figure)[1:] == ["before: update 0", "now: update 40",
                                  "the teacher, in twice the steps"]
