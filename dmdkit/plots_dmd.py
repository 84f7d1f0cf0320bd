"""Pictures of distribution matching (lesson 03). Each function takes data and returns a matplotlib Figure."""
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .fields import DENSITY, EXTENT, density, draw_panel
from .plots import BLUE, GREEN, GREY, ORANGE, plain_log

CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "black")  # Okabe & Ito


def draw_runs(runs: dict, floor: float, n_modes: int, title: str = "") -> Figure:
    """Modes covered and distance to the data against the generator's updates, for each of ``runs`` (``dmd_2d.Run`` by
    name): the mean of its copies, and a band from the least to the largest."""
    figure = Figure((9.6, 3.0), dpi=72, layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, run) in zip(CYCLE, runs.items()):
        for axes, values in ((left, run.modes.numpy()), (right, run.distance.numpy())):
            axes.plot(run.steps.numpy(), values.mean(0), color=colour, label=name, linewidth=1.8)
            axes.fill_between(run.steps.numpy(), values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    left.axhline(n_modes, color=GREY, linestyle="--", linewidth=1)
    left.set(title=f"Modes covered, of {n_modes}", xlabel="updates of the generator", ylim=(0, n_modes * 1.05))
    right.axhline(floor, color=GREY, linestyle="--", linewidth=1, label="two samples of the data")
    right.set(title="Wasserstein distance to the data", xlabel="updates of the generator", yscale="log")
    plain_log(right.yaxis)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*right.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right center")
    figure.suptitle(title, fontsize=11)
    return figure


def draw_predictions(log_density: Callable[[Tensor], Tensor], real, fake, x: Tensor, times: Sequence[int],
                     noise: Tensor, title: str = "") -> Figure:
    """What both denoisers say of one sample x (2,) at each of ``times``, a panel each, under several ``noise`` (K, 2):
    every μ_fake, every μ_real, and the arrow between their means, which is where x is sent."""
    figure = Figure((2.9 * len(times), 3.3), dpi=90, layout="constrained")
    box = (-EXTENT, EXTENT, -EXTENT, EXTENT)
    panels = figure.subplots(1, len(times), squeeze=False)[0]
    for axes, t in zip(panels, times):
        axes.imshow(density(log_density).numpy(), cmap=DENSITY, vmin=0, vmax=1, extent=box,
                    interpolation="bilinear")
        x_t = real.schedule.noise(x.expand_as(noise), t, noise)
        means = []
        for denoiser, colour, name in ((fake, ORANGE, "μ_fake"), (real, BLUE, "μ_real")):
            mu = denoiser(x_t, t).x.numpy(force=True)
            axes.scatter(*mu.T, s=10, color=colour, alpha=0.5, linewidths=0, label=name)
            means.append(mu.mean(0))
        axes.annotate("", xy=means[1], xytext=means[0], arrowprops=dict(arrowstyle="-|>", color="black", linewidth=1.8))
        axes.plot(*x.numpy(), "*", color="black", markersize=11, label="x")
        axes.set(xlim=box[:2], ylim=box[2:], xticks=[], yticks=[], title=f"t = {t}")
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(title, fontsize=11)
    return figure


def draw_watch(panels: Sequence, steps: Sequence[int], distances: Sequence[float], total: int, floor: float,
               cap: float = 1.0) -> Figure:
    """A training in progress: the panels of a field (``fields.Panel``, no axes) above the distance so far."""
    figure = Figure((8.6, 4.4), dpi=72, layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.9, 1.5))
    for axes, panel in zip(upper.subplots(1, len(panels), squeeze=False)[0], panels):
        draw_panel(axes, panel, cap=cap)
    axes = lower.subplots()
    axes.plot(steps, distances, "o-", color=BLUE, markersize=3)
    axes.axhline(floor, color=GREY, linestyle="--", linewidth=1)
    axes.set(xlim=(0, total), ylim=(0, 1.2), xlabel="updates of the generator", ylabel="distance")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
