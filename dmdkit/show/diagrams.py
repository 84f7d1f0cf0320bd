"""Networks and losses as boxes and arrows. Each function returns a matplotlib Figure."""
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import AMBER, BLACK, BLUE, GREEN, ORANGE, PINK, WIDEST, new_figure, styled

TRAINED, FROZEN, DATA = "#CFE3F3", "#E8E8E8", "white"
LEGEND = "Solid: values. Dashed: gradients. Blue networks are trained, grey ones are frozen"
REAL, FAKE = r"$\mu_\mathrm{real}$", r"$\mu_\mathrm{fake}$"

Point = tuple[float, float]


def canvas(axes: Axes, title: str, width: float, height: float = 3.9) -> None:
    """An empty drawing, ``width`` units wide."""
    axes.set(xlim=(0, width), ylim=(-0.3, height - 0.3), aspect="equal", title=title)
    axes.set_axis_off()


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.5,
        edge: str = BLACK) -> None:
    """A box with its middle at (x, y), high enough for two lines."""
    axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, facecolor=colour,
                                  boxstyle="round,pad=0.04", edgecolor=edge,
                                  linewidth=1 if edge == BLACK else 2))
    axes.text(x, y, text, ha="center", va="center", linespacing=1.4)


def loss(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.6) -> None:
    """A loss, in the colour of its gradient's arrows."""
    box(axes, x, y, text, DATA, width, colour)


def arrow(axes: Axes, start: Point, end: Point, colour: str = BLACK, bend: float = 0.0) -> None:
    """A black arrow for values, or a dashed one in a loss's ``colour`` for its gradient."""
    axes.annotate("", xy=end, xytext=start, arrowprops={
        "arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 2, "shrinkB": 2,
        "connectionstyle": f"arc3,rad={bend}", "linestyle": "-" if colour == BLACK else "--"})


def detour(axes: Axes, start: Point, end: Point, height: float, colour: str) -> None:
    """A loss's dashed arrow that goes along at this ``height``, around what lies between."""
    axes.plot([start[0], start[0], end[0]], [start[1], height, height], "--", color=colour,
              linewidth=1.4)
    arrow(axes, (end[0], height + 0.05), end, colour)


def arrows(axes: Axes, ends: Iterable[tuple[Point, Point]]) -> None:
    """Black arrows, for values."""
    for start, end in ends:
        arrow(axes, start, end)


@styled
def unet() -> Figure:
    """The U-Net of lesson 01: what goes through it, and how time and label enter (dashed)."""
    figure = new_figure(WIDEST, 3.9)
    axes = figure.subplots()
    canvas(axes, "Time and label scale and shift the channels of every block", 11.6, 4.7)
    _unet_blocks(axes)
    _unet_inputs(axes)
    return figure


def _unet_blocks(axes: Axes) -> None:
    box(axes, 0.85, 2.6, "$x_t$ as\n4 × 14 × 14", DATA)
    box(axes, 2.85, 2.6, "down\n32 × 14 × 14", TRAINED, 1.6)
    box(axes, 4.05, 1.4, "down\n64 × 7 × 7", TRAINED)
    box(axes, 5.8, 0.2, "middle\n64 × 7 × 7", TRAINED)
    box(axes, 7.55, 1.4, "up\n64 × 7 × 7", TRAINED)
    box(axes, 8.75, 2.6, "up\n32 × 14 × 14", TRAINED, 1.6)
    box(axes, 10.75, 2.6, r"$\hat{v}$, like $x_t$", DATA)
    arrows(axes, [((1.65, 2.6), (2.0, 2.6)), ((2.9, 2.25), (3.7, 1.75)), ((4.2, 1.05), (5.0, 0.4)),
                  ((6.6, 0.4), (7.4, 1.05)), ((7.9, 1.75), (8.7, 2.25)), ((9.6, 2.6), (9.95, 2.6)),
                  ((3.7, 2.6), (7.9, 2.6)), ((4.85, 1.4), (6.75, 1.4))])
    axes.text(4.4, 2.65, "copied", ha="center", va="bottom")
    axes.text(5.3, 1.45, "copied", ha="center", va="bottom")


def _unet_inputs(axes: Axes) -> None:
    box(axes, 2.85, 3.9, "t: sines and cosines", DATA, 2.2)
    box(axes, 5.8, 3.9, "sum of two\nvectors", TRAINED, 1.4)
    box(axes, 8.75, 3.9, "y: one of 11 vectors", TRAINED, 2.2)
    arrows(axes, [((4.0, 3.9), (5.05, 3.9)), ((7.6, 3.9), (6.55, 3.9))])
    for x, y in ((3.3, 2.95), (4.3, 1.75), (5.8, 0.55), (7.3, 1.75), (8.3, 2.95)):
        arrow(axes, (5.8, 3.55), (x, y), BLUE)


@styled
def dmd() -> Figure:
    """DMD's three networks and three losses: what goes where, and which loss trains what."""
    figure = new_figure(WIDEST, 3.6)
    axes = figure.subplots()
    canvas(axes, LEGEND, 11.5)
    _dmd_networks(axes)
    _dmd_losses(axes)
    return figure


def _dmd_networks(axes: Axes) -> None:
    box(axes, 0.85, 1.7, "noise z, label", DATA)
    box(axes, 2.85, 1.7, "generator G", TRAINED)
    box(axes, 4.75, 1.7, "x = G(z)", DATA, 1.2)
    box(axes, 6.5, 1.7, "$x_t$: x, noised", DATA)
    box(axes, 8.5, 2.6, f"teacher: {REAL}", FROZEN)
    box(axes, 8.5, 0.8, f"fake score: {FAKE}", TRAINED, 1.75)
    box(axes, 0.85, 0.3, "y, the solver's\nimage of z", DATA)
    arrows(axes, [((1.65, 1.7), (2.05, 1.7)), ((3.65, 1.7), (4.1, 1.7)), ((5.4, 1.7), (5.7, 1.7)),
                  ((7.3, 1.8), (7.7, 2.5)), ((7.3, 1.6), (7.6, 0.9)), ((0.85, 1.35), (0.85, 0.65))])


def _dmd_losses(axes: Axes) -> None:
    loss(axes, 10.6, 1.7, f"1  matching\n{FAKE} − {REAL}", BLUE)
    loss(axes, 2.85, 0.3, "2  regression\nd(x, y)", ORANGE)
    loss(axes, 5.6, 0.1, "3  denoising\nof x, detached", GREEN)
    arrows(axes, [((9.3, 2.5), (9.9, 2.05)), ((9.45, 0.9), (9.9, 1.35)), ((1.65, 0.3), (2.0, 0.3)),
                  ((4.5, 1.36), (3.7, 0.5)), ((4.9, 1.36), (5.35, 0.45))])
    detour(axes, (10.6, 2.05), (2.85, 2.05), 3.25, BLUE)
    arrow(axes, (2.85, 0.65), (2.85, 1.36), ORANGE)
    arrow(axes, (6.45, 0.2), (7.6, 0.65), GREEN)


@styled
def dmd2() -> Figure:
    """DMD2's networks: DMD's without the pairs, and a discriminator on the fake score's
    bottleneck."""
    figure = new_figure(WIDEST, 3.8)
    axes = figure.subplots()
    canvas(axes, LEGEND, 11.6, 4.1)
    _dmd2_networks(axes)
    _dmd2_losses(axes)
    return figure


def _dmd2_networks(axes: Axes) -> None:
    box(axes, 0.85, 1.8, "noise z, label", DATA)
    box(axes, 2.75, 1.8, "generator G", TRAINED)
    box(axes, 4.55, 1.8, "x = G(z)", DATA, 1.2)
    box(axes, 6.25, 1.8, "$x_t$: x, noised", DATA)
    box(axes, 6.0, 0.8, "real images, noised", DATA, 1.9)
    box(axes, 8.4, 2.8, f"teacher: {REAL}", FROZEN)
    box(axes, 8.4, 1.8, f"fake score: {FAKE}", TRAINED, 1.75)
    box(axes, 8.4, 0.5, "D: a head on\nits bottleneck", TRAINED, 1.5)
    arrows(axes, [((1.65, 1.8), (1.95, 1.8)), ((3.55, 1.8), (3.9, 1.8)), ((5.2, 1.8), (5.45, 1.8)),
                  ((7.05, 1.9), (7.6, 2.65)), ((7.05, 1.8), (7.48, 1.8)), ((7.0, 1.0), (7.5, 1.55)),
                  ((8.4, 1.46), (8.4, 0.84))])


def _dmd2_losses(axes: Axes) -> None:
    loss(axes, 10.6, 2.3, f"1  matching\n{FAKE} − {REAL}", BLUE)
    loss(axes, 2.75, 0.1, "2  be taken\nfor real", PINK)
    loss(axes, 10.6, 0.5, "3  real or not?\n(beside denoising)", AMBER, 1.75)
    arrows(axes, [((9.2, 2.75), (9.75, 2.5)), ((9.32, 1.9), (9.75, 2.1)),
                  ((7.6, 0.3), (3.62, 0.1)), ((9.2, 0.5), (9.75, 0.5))])
    detour(axes, (10.6, 2.65), (2.75, 2.15), 3.45, BLUE)
    arrow(axes, (2.75, 0.45), (2.75, 1.45), PINK)
    arrow(axes, (10.6, 0.85), (9.3, 1.6), AMBER)
    arrow(axes, (10.4, 0.15), (8.5, 0.15), AMBER, -0.15)
