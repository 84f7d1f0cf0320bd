"""Networks and losses as boxes and arrows. Each function returns a matplotlib Figure."""
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import AMBER, BLACK, BLUE, GREEN, ORANGE, PINK, WIDEST, new_figure, side_by_side, styled

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
    canvas(axes, LEGEND, 11.5, 4.1)
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


@styled
def kinship() -> Figure:
    """An adversarial autoencoder beside DMD: a reconstruction term says which, a distribution term
    says what."""
    figure = new_figure(WIDEST, 3.2, "One term says which, the other says what")
    left, right = side_by_side(figure, 2, gridspec_kw={"wspace": 0.06})
    _autoencoder(left)
    _generator(right)
    return figure


def _autoencoder(axes: Axes) -> None:
    canvas(axes, "Adversarial autoencoder", 6.6)
    for x, text, colour in ((0.75, "image y", DATA), (2.45, "encoder", TRAINED),
                            (4.15, "code z", DATA), (5.85, "decoder", TRAINED)):
        box(axes, x, 1.8, text, colour, 1.2)
    box(axes, 4.15, 0.3, "discriminator", TRAINED)
    loss(axes, 1.85, 0.3, "codes as\nthe prior's", BLUE, 1.4)
    loss(axes, 3.3, 3.0, "reconstruct:\ndecoder(z) is y", ORANGE, 1.8)
    arrows(axes, [((1.4, 1.8), (1.8, 1.8)), ((3.1, 1.8), (3.5, 1.8)), ((4.8, 1.8), (5.2, 1.8)),
                  ((4.15, 1.46), (4.15, 0.64)), ((3.35, 0.3), (2.6, 0.3)),
                  ((0.75, 2.15), (2.3, 3.0)), ((5.85, 2.15), (4.3, 3.0))])
    arrow(axes, (1.9, 0.64), (2.35, 1.46), BLUE)
    arrow(axes, (3.1, 2.65), (2.55, 2.15), ORANGE)
    arrow(axes, (4.0, 2.65), (5.4, 2.15), ORANGE)


def _generator(axes: Axes) -> None:
    canvas(axes, "DMD", 6.6)
    for x, text, colour in ((0.75, "noise z", DATA), (2.75, "generator G", TRAINED),
                            (4.75, "x = G(z)", DATA)):
        box(axes, x, 1.8, text, colour, 1.4)
    box(axes, 4.15, 0.3, "real score", FROZEN, 1.15)
    box(axes, 5.38, 0.3, "fake score", TRAINED, 1.15)  # both are one: their difference
    loss(axes, 1.85, 0.3, "samples as\nthe data's", BLUE, 1.4)
    loss(axes, 2.75, 3.0, "reconstruct:\nG(z) is the solver's y", ORANGE, 2.3)
    arrows(axes, [((1.5, 1.8), (2.0, 1.8)), ((3.5, 1.8), (4.0, 1.8)), ((4.75, 1.46), (4.75, 0.64)),
                  ((3.53, 0.3), (2.6, 0.3)), ((4.75, 2.15), (4.0, 2.9))])
    arrow(axes, (1.95, 0.64), (2.55, 1.46), BLUE)
    arrow(axes, (2.75, 2.65), (2.75, 2.15), ORANGE)
