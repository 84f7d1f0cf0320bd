"""Samplers, settings and devices compared by their figures. Each function takes values and returns
a matplotlib Figure."""
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import (BASELINE, BLACK, BLUE, CYCLE, GREEN, GREY, ORANGE, WIDEST, cycled,
                    few_numbers, named_below, new_figure, plain_log, side_by_side, styled)

Scores = dict[str, dict[str, float]]  # by feature space and metric, as a task's scorer gives them

METRICS = {"accuracy": "Accuracy: the class asked for?", "precision": "Precision: like real ones?",
           "recall": "Recall: as varied as real ones?", "density": "Density: among real ones?",
           "coverage": "Coverage: how much variety?",
           "frechet_distance": "Fréchet distance: less is better",
           "wasserstein_distance": "Wasserstein distance: less is better"}
SAMPLERS = {"distilled": (ORANGE, "o-"), "DDIM": (BLUE, "s-"), "ancestral": (GREEN, "^-")}
TRADE_OFF = (("classifier", "precision"), ("classifier", "recall"),
             ("classifier", "frechet_distance"))
ABLATED = (("classifier", "frechet_distance"), ("judge", "accuracy"), ("classifier", "coverage"))
UNITS = {"MiB": 2**20, "GiB": 2**30}
SPACES = {"classifier": "first classifier's space", "judge": "second classifier's space"}


def title_of(space: str, metric: str) -> str:
    """How a figure calls a metric in a feature space; one that is not known by its own name."""
    title = METRICS.get(metric, metric.replace("_", " "))
    return title if metric == "accuracy" else f"{title}\n({SPACES.get(space, space)})"


def value_of(scores: Scores, space: str, metric: str) -> float:
    """A score; NaN where there is none, as of samples that were not finite."""
    return scores.get(space, {}).get(metric, float("nan"))


def of_study(card: dict, names: Sequence[str] | dict[str, str] | None = None,
             sampler: str = "") -> dict[str, list[Scores]]:
    """The scores of every run of a study's settings, from its card.

    Args:
        names: which settings, or as a dictionary how a figure calls them; all unless given.
        sampler: which one's samples are scored, where a setting has several.
    Raises ValueError for a setting without runs.
    """
    names = list(card["settings"]) if names is None else names
    shown = names if isinstance(names, dict) else {name: name for name in names}
    return {title: _of_setting(card, setting, sampler) for setting, title in shown.items()}


def notes(card: dict, names: Sequence[str], space: str = "judge") -> dict[str, str]:
    """What stands under each of a study's settings: its Fréchet distance, and that of real images.
    Raises ValueError for a setting without runs."""
    real = value_of(card["baseline"], space, "frechet_distance")
    found = {name: [value_of(one, space, "frechet_distance") for one in scores]
             for name, scores in of_study(card, names).items()}
    return {name: f"Fréchet distance, {space}'s features: {_spread(values)} (real images: {real:.2f})"
            for name, values in found.items()}


def _spread(values: Sequence[float]) -> str:
    """"2.61 (2.34 to 3.01)", the mean and the range."""
    span = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{span}"


def _of_setting(card: dict, setting: str, sampler: str) -> list[Scores]:
    found = [entry["values"] for entry in card["results"] if entry["setting"] == setting
             and sampler in ("", entry["sampling"]["sampler"])]
    if not found:
        raise ValueError(f"There are no runs of {setting!r}; there are "
                         f"{', '.join(card['settings'])}.")
    return found


@styled
def guidance(weights: Sequence[float], scores: Sequence[Scores], baseline: Scores,
             metrics: Sequence[tuple[str, str]] = TRADE_OFF) -> Figure:
    """Scores against the guidance weight, a panel a metric, and the real-data baseline.

    scores: a weight's each; baseline: real data's; metrics: the panels, as (space, metric).
    """
    figure = new_figure(min(3.1 * len(metrics), WIDEST), 2.8)
    row = side_by_side(figure, len(metrics))
    for axes, metric in zip(row, metrics):
        values = [value_of(score, *metric) for score in scores]
        axes.plot(weights, values, "o-", color=BLUE, label="samples")
        axes.axhline(value_of(baseline, *metric), label="real data", **BASELINE)
        axes.set(title=title_of(*metric), xlabel="guidance w")
    row[-1].legend()
    return figure


@styled
def against_steps(by_name: dict[str, dict[int, float] | float], title: str = "",
                  label: str = "Fréchet distance", highlight: int | None = None) -> Figure:
    """A score against the number of steps, both axes logarithmic (Salimans & Ho 2022, Figure 4).

    by_name: the score at each number of steps; a number alone, that of real data say, is a dashed
    line. highlight: a number of steps, where each curve has a large mark.
    """
    figure = new_figure(8.2, 3.9, title)
    axes = figure.subplots()
    for name, points in by_name.items():
        if isinstance(points, dict):
            plot_points(axes, points, name, highlight)
        else:
            axes.axhline(points, label=name, **BASELINE)
    axes.set(xscale="log", yscale="log", xlabel="sampling steps", ylabel=label)
    every = sorted({n for points in by_name.values() if isinstance(points, dict) for n in points})
    powers = [n for n in every if n.bit_count() == 1]  # "400" would touch "512"
    few_numbers(axes.xaxis, powers or every)
    plain_log(axes.yaxis)
    axes.legend()
    return figure


def plot_points(axes: Axes, points: dict[int, float], name: str, highlight: int | None) -> None:
    """A score by number of steps, in its sampler's colour."""
    colour, style = SAMPLERS.get(name, (BLACK, "D-"))
    axes.plot(list(points), list(points.values()), style, color=colour, label=name)
    if highlight in points:
        axes.plot(highlight, points[highlight], style[0], color=colour, markersize=11)


def plot_dots(axes: Axes, by_setting: dict[str, Sequence[float]], base: str) -> None:
    """A row a setting: a dot a seed, and a bar at their mean. ``base`` is in another colour, with a
    line all down."""
    for place, (setting, values) in enumerate(by_setting.items()):
        colour = ORANGE if setting == base else BLUE
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=4, alpha=0.7)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        if setting == base:
            axes.axvline(np.mean(values), color=ORANGE, linewidth=0.8, label=f"mean of {base}")
    axes.set_yticks(range(len(by_setting)), list(by_setting))


@styled
def ablations(scores: dict[str, Sequence[Scores]], baseline: Scores, base: str,
              title: str = "", metrics: Sequence[tuple[str, str]] = ABLATED) -> Figure:
    """Every setting's scores, a dot a seed and a bar at their mean; the line of ``base`` runs down
    for comparison, and the dashed one is what real data score.

    scores: by setting, those of each run; metrics: the panels, as (space, metric). Raises
    ValueError for a base that is not among the settings.
    """
    if base not in scores:
        raise ValueError(f"There is no setting {base!r} to compare with; there are "
                         f"{', '.join(scores)}.")
    figure = new_figure(WIDEST, 0.33 * len(scores) + 1.6, title)
    figure.get_layout_engine().set(wspace=0.06)  # numbers of neighbouring axes keep apart
    row = side_by_side(figure, len(metrics), sharey=True)
    for axes, metric in zip(row, metrics):
        plot_dots(axes, {setting: [value_of(one, *metric) for one in several]
                         for setting, several in scores.items()}, base)
        axes.axvline(value_of(baseline, *metric), label="real data", **BASELINE)
        axes.set_title(title_of(*metric))
        if metric[1].endswith("distance"):
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    row[0].invert_yaxis()
    named_below(figure, row)
    return figure


@styled
def memory(needs: dict[str, dict[str, float]], unit: str = "MiB", limit: float | None = None,
           title: str = "") -> Figure:
    """Stacked bars of memory in bytes, part by part, and a device's ``limit`` as a line. Raises
    ValueError for a unit other than MiB and GiB."""
    if unit not in UNITS:
        raise ValueError(f"The unit must be one of {', '.join(UNITS)}; got {unit!r}.")
    figure = new_figure(WIDEST, 0.45 * len(needs) + 1.1, title)
    axes = figure.subplots()
    widest = plot_stacks(axes, list(needs.values()), UNITS[unit])
    if limit:
        axes.axvline(limit / UNITS[unit], color=BLACK, linestyle="--", linewidth=1)
        widest = max(widest, limit / UNITS[unit])
    axes.set(xlabel=unit, xlim=(0, 1.12 * widest), yticks=range(len(needs)), yticklabels=needs)
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def plot_stacks(axes: Axes, needs: Sequence[dict[str, float]], unit: float) -> float:
    """A bar of parts for each of ``needs``, in ``unit`` bytes; returns the longest one's length."""
    left = np.zeros(len(needs))
    parts = list(dict.fromkeys(part for need in needs for part in need))
    for colour, part in zip(cycled((GREY, *CYCLE), len(parts)), parts):
        sizes = np.array([need.get(part, 0) / unit for need in needs])
        axes.barh(range(len(needs)), sizes, left=left, color=colour, label=part, height=0.6)
        left += sizes
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.0f}", va="center")
    return max(left)
