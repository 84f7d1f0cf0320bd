"""Pictures of DMD2 (lesson 06). Each function takes data and returns a matplotlib Figure."""
import numpy as np
from matplotlib.figure import Figure

from .plots import BLUE, GREEN, GREY, ORANGE
from .plots_mnist import COLOURS, DATA, FROZEN, TRAINED, arrow, bare, box, canvas

PINK, AMBER = COLOURS["gan"], COLOURS["critic"]


def draw_critic() -> Figure:
    """DMD2's networks: lesson 04's without the pairs, and a critic on the fake score's bottleneck."""
    figure = Figure((9.6, 3.7), dpi=90, layout="constrained")
    axes = figure.subplots()
    canvas(axes, "Solid: values. Dashed: gradients. Blue networks are trained, the grey one is frozen", 10)
    box(axes, 0.8, 1.7, "noise z, label", DATA)
    box(axes, 2.9, 1.7, "generator G", TRAINED)
    box(axes, 4.8, 1.7, "x = G(z)", DATA, 1.2)
    box(axes, 6.5, 1.7, "$x_t$: x, noised", DATA, 1.4)
    box(axes, 8.9, 2.9, "teacher: μ_real", FROZEN)
    box(axes, 8.9, 1.7, "fake score: μ_fake", TRAINED, 1.7)
    box(axes, 8.9, 0.75, "head on its bottleneck", TRAINED, 1.9)
    box(axes, 4.6, 0.3, "real images, noised", DATA, 2.0)
    for start, end in (((1.6, 1.7), (2.1, 1.7)), ((3.7, 1.7), (4.15, 1.7)), ((5.45, 1.7), (5.75, 1.7)),
                       ((7.25, 1.8), (8.1, 2.75)), ((7.25, 1.7), (8.0, 1.7)), ((8.9, 1.35), (8.9, 1.1)),
                       ((5.65, 0.4), (7.95, 1.5))):
        arrow(axes, start, end)
    arrow(axes, (8.9, 3.25), (2.9, 2.05), "1  matching: μ_fake − μ_real", BLUE, 0.2, True, (-1.6, 0.62))
    arrow(axes, (7.9, 0.7), (2.9, 1.35), "", PINK, -0.12, True)
    axes.text(3.1, 0.85, "2  be taken for real", fontsize=8, color=PINK, ha="right")
    axes.text(8.9, 0.2, "3  tell the two apart: trains head\nand fake score, beside denoising", fontsize=8, color=AMBER,
              ha="center", va="top")
    return figure


def draw_drift(runs: dict[str, dict], target: float, title: str = "") -> Figure:
    """Mean brightness of the samples over training, and how far the shares of the classes are from what was asked for,
    for each of ``runs`` (``dmd_mnist.load``): thick its first seed, thin the others, whose classes are not kept."""
    figure = Figure((9.6, 3.0), dpi=80, layout="constrained")
    bright, classes = figure.subplots(1, 2)
    for colour, (name, run) in zip((BLUE, ORANGE, GREEN, PINK), runs.items()):
        steps = run["steps"].numpy()
        for i, line in enumerate(run["brightness"].numpy()):
            bright.plot(steps, line, color=colour, linewidth=1 if i else 2, alpha=0.5 if i else 1)
        counts = run["looks"]["classes"].float()
        shares = counts / counts.sum(1, keepdim=True)
        classes.plot(steps, (shares - 1 / shares.shape[1]).abs().sum(1) / 2, color=colour, label=name, linewidth=2)
    bright.axhline(target, color=GREY, linestyle="--", linewidth=1)
    bare(bright, title="mean brightness (dashed: MNIST)", xlabel="update of the generator")
    bare(classes, title="share of samples in classes that have too many", xlabel="update of the generator",
          ylim=(0, None))
    classes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_memory(needs: dict[str, dict[str, float]], unit: str = "MiB", limit: float | None = None,
                title: str = "") -> Figure:
    """Stacked bars of memory in bytes: what each of ``needs`` takes, part by part. limit: a device's, as a line."""
    size = {"MiB": 2**20, "GiB": 2**30}[unit]
    figure = Figure((8.6, 0.45 * len(needs) + 1.1), dpi=80, layout="constrained")
    axes = figure.subplots()
    parts = list(dict.fromkeys(part for need in needs.values() for part in need))
    left = np.zeros(len(needs))
    for colour, part in zip((GREY, BLUE, GREEN, PINK, ORANGE), parts):
        sizes = np.array([need.get(part, 0) / size for need in needs.values()])
        axes.barh(range(len(needs)), sizes, left=left, color=colour, label=part, height=0.6)
        left += sizes
    for i, total in enumerate(left):
        axes.text(total, i, f" {total:.0f}", va="center", fontsize=8)
    if limit:
        axes.axvline(limit / size, color="black", linestyle="--", linewidth=1)
    bare(axes, yticks=range(len(needs)), yticklabels=list(needs), xlabel=unit, title=title)
    axes.set_xlim(0, 1.12 * max(*left, (limit or 0) / size))
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=5)
    return figure
