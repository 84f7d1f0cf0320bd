"""Curves and logs, and figures that compare."""
import json

import numpy as np
import pytest
import torch
from figures import COSINE, LOSSES, RUN, SPACES, log_file

from dmdkit import files, schedule
from dmdkit.show import comparisons, curves, progress, schedules


def test_the_running_mean_is_of_the_values_around():
    values = [4.0, 2.0, 6.0, 0.0, 8.0]
    np.testing.assert_allclose(curves.running_mean(values, 3), [3, 4, 8 / 3, 14 / 3, 4])
    np.testing.assert_allclose(curves.running_mean(values, 1), values)
    assert curves.running_mean([], 3).shape == (0,)


@pytest.mark.parametrize("width", [4, 25])
def test_the_running_mean_of_what_falls_steadily_does_not_lag(width):
    line = np.arange(100.0)[::-1]
    middle = slice(width, -width)
    assert np.abs(curves.running_mean(line, width) - line)[middle].max() <= 0.5


def test_a_curve_of_what_is_not_positive_has_a_plain_axis():
    assert curves.curve([1.0, 0.5]).axes[0].get_yscale() == "log"
    assert curves.curve([1.0, -0.5]).axes[0].get_yscale() == "linear"
    assert curves.curve([]).axes[0].get_yscale() == "linear"


# Logs

def lines_of(figure) -> dict[str, np.ndarray]:
    """The running means of a figure, by name; without smoothing, its values."""
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].lines
            if not line.get_label().startswith("_")}


def test_a_teachers_log_shows_its_loss(tmp_path):
    shown = lines_of(curves.log(log_file(tmp_path), smooth=1))
    assert list(shown) == ["loss"]
    np.testing.assert_allclose(shown["loss"], LOSSES)


def student(tmp_path, n: int = 5):
    entries = [{"step": i + 1, "seconds": 0.1, "matching gradient": 0.5, "matching": 1.0 + i,
                "fake": 2.0 + i} for i in range(n)]
    files.write_lines(tmp_path / "log.jsonl", entries)
    return tmp_path / "log.jsonl"


def test_a_students_log_has_no_loss_and_shows_all_that_it_has(tmp_path):
    path = student(tmp_path)
    shown = lines_of(curves.log(path, smooth=1))
    assert list(shown) == ["matching", "fake"] and list(shown["fake"]) == [2, 3, 4, 5, 6]
    assert list(lines_of(curves.log(path, "matching gradient"))) == ["matching gradient"]


def test_a_value_that_a_log_does_not_have_is_named_with_those_that_it_has(tmp_path):
    with pytest.raises(ValueError, match="has no value 'loss'; it has matching gradient, matching"):
        curves.log(student(tmp_path), "loss")


def test_a_last_line_that_was_torn_is_left_out(tmp_path):
    path = student(tmp_path)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 6, "match')
    assert len(lines_of(curves.log(path))["fake"]) == 5


@pytest.mark.parametrize("content", ["", '{"step": 1, "mat'])
def test_a_log_without_a_step_says_so(tmp_path, content):
    path = tmp_path / "log.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RuntimeError, match="is empty: the training has not logged a step yet"):
        curves.log(path)


def test_a_log_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="log.jsonl"):
        curves.log(tmp_path / "log.jsonl")
    path = student(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("2.0", "7.0", 1), encoding="utf-8")
    with pytest.raises(RuntimeError, match="log.jsonl.*line"):
        curves.log(path)


# Schedules

def test_weightings_hold_for_schedules_that_do_not_keep_the_variance():
    """On v the factor is σ²/(α²+σ²)², which is σ² only where α² + σ² = 1."""
    flow = schedule.Schedule("line", torch.tensor([0.8, 0.5]).double(),
                             torch.tensor([0.2, 0.5]).double())
    figure = schedules.weightings(flow, {"all": torch.ones(2).double()})
    on_v = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(on_v, [0.04 / 0.68**2, 0.25 / 0.5**2])


def test_the_posterior_is_the_product_of_what_both_say():
    figure = schedules.posterior(COSINE, 700, 400)
    x, x_t, both = (line.get_ydata() for line in figure.axes[0].lines[:3])
    product = x * x_t
    np.testing.assert_allclose(both / both.max(), product / product.max(), atol=1e-6)


def test_the_histograms_of_the_last_step_hold_every_image():
    """Their bins follow the images, whose means are MNIST's no more."""
    x = torch.full((50, 3, 4, 4), 40.0)
    figure = schedules.last_step([schedule.linear(400)], x, torch.randn(50, 3, 4, 4))
    for patch in figure.axes[0].patches[-1:]:
        heights = patch.get_path().vertices[:, 1]
        assert heights.max() > 0
    low, high = figure.axes[0].get_xlim()
    assert low < 0 and high > float(schedule.linear(400).alpha[-1]) * 40


# Comparisons

def test_a_study_is_read_from_its_card():
    card = {"settings": {"a": {}, "b": {}}, "results": [
        {"setting": name, "sampling": {"sampler": sampler}, "seed": seed,
         "values": {"classifier": {"coverage": seed}}}
        for name in "ab" for sampler in ("ddim", "ddpm") for seed in (0, 1)]}
    assert list(comparisons.of_study(card)) == ["a", "b"]
    found = comparisons.of_study(card, {"b": "other"}, "ddpm")
    assert found == {"other": [{"classifier": {"coverage": 0}}, {"classifier": {"coverage": 1}}]}
    with pytest.raises(ValueError, match="no runs of 'c'; there are a, b"):
        comparisons.of_study(card, ["c"])


def test_a_setting_is_noted_with_its_distance():
    card = {"baseline": {"judge": {"frechet_distance": 0.484}}, "settings": {"a": {}, "b": {}},
            "results": [{"setting": name, "sampling": {"sampler": "ddim"}, "seed": seed, "values": {
                "judge": {"frechet_distance": far}}}
                        for name, seed, far in (("a", 0, 2.5), ("a", 1, 3.0), ("b", 0, 304.4))]}
    assert comparisons.notes(card, ["b", "a"]) == {
        "b": "Fréchet distance, judge's features: 304 (real images: 0.48)",
        "a": "Fréchet distance, judge's features: 2.75 (2.5 to 3) (real images: 0.48)"}


def test_a_run_without_figures_is_left_out_of_the_dots():
    scores = {"base": [SPACES, SPACES], "lost": [{}, SPACES]}
    figure = comparisons.ablations(scores, SPACES, "base")
    dots = figure.axes[0].lines[3].get_xdata()
    assert np.isnan(dots[0]) and dots[1] == SPACES["classifier"]["frechet_distance"]


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no setting 'nothing' to compare with; there are base"):
        comparisons.ablations({"base": [SPACES]}, SPACES, "nothing")
    with pytest.raises(ValueError, match="unit must be one of MiB, GiB; got 'kB'"):
        comparisons.memory({"a": {"weights": 1.0}}, "kB")


def test_class_imbalance_is_the_share_in_classes_that_have_too_many():
    counts = torch.tensor([[5, 5, 5, 5], [20, 0, 0, 0], [10, 10, 0, 0]])
    np.testing.assert_allclose(progress.class_imbalance(counts), [0, 0.75, 0.5])


def test_drift_shows_every_seed():
    figure = progress.drift({"1 : 1": RUN}, 0.3)
    lines = figure.axes[0].lines
    assert [len(line.get_ydata()) for line in lines[:3]] == [3, 3, 3]
    np.testing.assert_allclose(lines[1].get_ydata(), RUN["brightness"][1])
    assert json.dumps([line.get_linewidth() for line in lines[:3]]) == "[1.8, 1.0, 1.0]"
