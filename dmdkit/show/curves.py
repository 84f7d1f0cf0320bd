"""Curves: a training's values, and measured values against a setting. Each function takes values
and returns a matplotlib Figure."""
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import files
from .style import (BASELINE, BLUE, GREY, MARKS, ORANGE, coloured, cycled, few_numbers, new_figure,
                    plain_log, side_by_side, styled)

NOT_DRAWN = ("step", "seconds")  # entries of a training's log that are no curves


# A training's values

def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of the ``width`` values around each, fewer at both ends, (N,): a mean of past values
    alone would lag behind them."""
    sums = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    n = len(sums) - 1
    starts = np.maximum(np.arange(n) - (width - 1) // 2, 0)
    ends = np.minimum(np.arange(n) + width // 2 + 1, n)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_values(axes: Axes, values: Sequence[float], colour: str, width: int,
                label: str | None = None) -> None:
    """One value a step, faint, and its running mean over ``width`` steps on top."""
    steps = np.arange(1, len(values) + 1)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, running_mean(values, width), color=colour, label=label)


def logarithmic(axes: Axes, lines: Iterable[Sequence[float]]) -> None:
    """A logarithmic y-axis with plain numbers, if all the values drawn allow one."""
    lines = [np.asarray(line, dtype=float) for line in lines if len(line)]
    if lines and all((line > 0).all() for line in lines):
        axes.set_yscale("log")
        plain_log(axes.yaxis)


def plot_curve(axes: Axes, values: Sequence[float], title: str = "", label: str = "loss",
               smooth: int = 50, total: int | None = None) -> None:
    """What ``curve`` shows, drawn into ``axes``."""
    plot_values(axes, values, BLUE, smooth, f"mean of {smooth} steps")
    if len(values):
        axes.legend()
    axes.set(xlabel="step", ylabel=label, title=title, xlim=(0, total or max(len(values), 2)))
    logarithmic(axes, [values])


@styled
def curve(values: Sequence[float], title: str = "", label: str = "loss", smooth: int = 50,
          total: int | None = None) -> Figure:
    """Values a step, faint, and their running mean over ``smooth`` steps on top; ``total`` fixes
    the x-axis, so that a curve which grows does not rescale."""
    figure = new_figure(7, 3)
    plot_curve(figure.subplots(), values, title, label, smooth, total)
    return figure


@styled
def log(path: Path, value: str | None = None, smooth: int = 50) -> Figure:
    """The curves of a training log, the ``log.jsonl`` that ``python -m dmdkit train`` writes.

    value: which of the logged values; all losses unless given. A last line that was torn when the
    training was killed is left out. Raises RuntimeError for a log that is missing, damaged or still
    empty, ValueError for a value that it does not have.
    """
    found = _logged(Path(path), value)
    figure = new_figure(7, 3)
    axes = figure.subplots()
    for colour, name, line in coloured(found):
        plot_values(axes, line, colour, smooth, name)
    axes.set(xlabel="step", ylabel=value or "loss", xlim=(0, None),
             title=f"{Path(path).parent.name}: {', '.join(found)}")
    logarithmic(axes, found.values())
    axes.legend()
    return figure


def _logged(path: Path, value: str | None) -> dict[str, list[float]]:
    """A log's losses by name, or that one value."""
    records = files.read_lines(path).entries
    if not records:
        raise RuntimeError(f"{path} is empty: the training has not logged a step yet. "
                           "Look again later.")
    if value and value not in records[0]:
        known = ", ".join(name for name in records[0] if name not in NOT_DRAWN)
        raise ValueError(f"{path} has no value {value!r}; it has {known}.")
    names = [value] if value else losses_of(records[0])
    return {name: [record[name] for record in records if name in record] for name in names}


def losses_of(values: Iterable[str]) -> list[str]:
    """The losses among the names of what a training logs: all but times and the norms of
    gradients."""
    return [name for name in values if name not in NOT_DRAWN and not name.endswith(" gradient")]


# Measured values

def plot_marked(axes: Axes, x: Sequence[float], by_name: dict[str, Sequence[float]]) -> None:
    """Measured values against x, a line with a mark of its own for each name."""
    marks = cycled(MARKS, len(by_name))
    for mark, (colour, name, values) in zip(marks, coloured(by_name)):
        axes.plot(x, values, mark + "-", color=colour, label=name)


@styled
def lines(by_name: dict[str, Sequence[float]], x: Sequence[float], title: str = "",
          xlabel: str = "", ylabel: str = "", truth: dict[str, float] | None = None) -> Figure:
    """Measured values against x, a marked line a name, and level lines at known values."""
    figure = new_figure(6.4, 3.2, title)
    axes = figure.subplots()
    plot_marked(axes, x, by_name)
    for name, value in (truth or {}).items():
        axes.axhline(value, label=name, **BASELINE)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if len(x) > 1 and min(x) > 0:
        axes.set_xscale("log")
        few_numbers(axes.xaxis, x)
    axes.legend()
    return figure


@styled
def step_sizes(sizes: Sequence[float], measured: Sequence[float], title: str = "") -> Figure:
    """The variance of Langevin's samples of a Gaussian of variance 1 against the step size η < 4,
    with the variance that the chain has in closed form, 1/(1 − η/4)."""
    figure = new_figure(6.4, 3.2, title)
    axes = figure.subplots()
    line = np.linspace(0, 3.95, 200)
    axes.plot(line, 1 / (1 - line / 4), color=GREY, label="closed form, 1/(1 − η/4)")
    axes.plot(sizes, measured, "o", color=ORANGE, label="measured")
    axes.axhline(1, color=BLUE, linestyle="--", linewidth=1, label="the data's")
    axes.set(yscale="log", xlabel="step size η", ylabel="variance of the samples", xlim=(0, 4))
    few_numbers(axes.yaxis, (1, 2, 5, 10, 20, 50))
    axes.legend()
    return figure


@styled
def orders(n_steps: Sequence[int], errors: dict[str, dict[str, Sequence[float]]],
           fitted: dict[str, dict[str, float]], title: str = "") -> Figure:
    """Errors of solvers against their number of steps, both axes in powers, a panel a data set.

    errors, fitted: by data set and solver, an error for each of n_steps, and the fitted order.
    """
    figure = new_figure(4.4 * len(errors), 3.2, title)
    row = side_by_side(figure, len(errors), sharey=True)
    for axes, (data, by_solver) in zip(row, errors.items()):
        order = fitted[data]
        plot_marked(axes, n_steps, {f"{name}: order {order[name]:.2f}": values
                                    for name, values in by_solver.items()})
        axes.set(xscale="log", yscale="log", xlabel="steps", title=data)
        few_numbers(axes.xaxis, n_steps)
        axes.legend()
    plain_log(row[0].yaxis)
    row[0].set_ylabel("error of the final points")
    return figure
