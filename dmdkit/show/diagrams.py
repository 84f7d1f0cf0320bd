"""Networks and losses as boxes and arrows. Each function returns a matplotlib Figure."""
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import AMBER, BLACK, BLUE, GREEN, ORANGE, PINK, WIDEST, new_figure, side_by_side, styled

TRAINED, FROZEN, DATA = "#CFE3F3", "#E8E8E8", "white"
LEGEND = "Solid: values. Dashed: gradients. Blue networks are trained, the grey one is frozen"

Point = tuple[float, float]


def canvas(axes: Axes, title: str, width: float) -> None:
    """An empty drawing, ``width`` units wide and 3.9 high."""
    axes.set(xlim=(0, width), ylim=(-0.2, 3.7), aspect="equal", title=title)
    axes.set_axis_off()


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.5) -> None:
    """A box with its middle at (x, y)."""
    axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, linewidth=1,
                                  boxstyle="round,pad=0.04", facecolor=colour, edgecolor=BLACK))
    axes.text(x, y, text, ha="center", va="center")


def arrow(axes: Axes, start: Point, end: Point, text: str = "", colour: str = BLACK,
          bend: float = 0.0, shift: Point = (0, 0.12)) -> None:
    """A black arrow for values, or a dashed one in a loss's ``colour`` for its gradient. ``text``
    stands above its middle, moved by ``shift``."""
    axes.annotate("", xy=end, xytext=start, arrowprops={
        "arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 2, "shrinkB": 2,
        "connectionstyle": f"arc3,rad={bend}", "linestyle": "-" if colour == BLACK else "--"})
    x, y = (start[0] + end[0]) / 2 + shift[0], (start[1] + end[1]) / 2 + shift[1]
    axes.text(x, y, text, ha="center", va="bottom", fontsize=8, color=colour)


def arrows(axes: Axes, ends: Iterable[tuple[Point, Point]]) -> None:
    """Black arrows, for values."""
    for start, end in ends:
        arrow(axes, start, end)


def note(axes: Axes, x: float, y: float, text: str, colour: str, side: str = "center") -> None:
    """A line of text beside an arrow; ``side`` is the end of it that stands at (x, y)."""
    axes.text(x, y, text, fontsize=8, color=colour, ha=side, va="center")


@styled
def dmd() -> Figure:
    """DMD's three networks and three losses: what goes where, and which loss trains what."""
    figure = new_figure(WIDEST, 3.7)
    axes = figure.subplots()
    canvas(axes, LEGEND, 10)
    _dmd_networks(axes)
    _dmd_losses(axes)
    return figure


def _dmd_networks(axes: Axes) -> None:
    box(axes, 0.8, 1.7, "noise z, label", DATA)
    box(axes, 3.0, 1.7, "generator G", TRAINED)
    box(axes, 5.0, 1.7, "x = G(z)", DATA, 1.2)
    box(axes, 6.9, 1.7, "$x_t$: x, noised", DATA, 1.5)
    box(axes, 9.1, 2.6, r"teacher: $\mu_{real}$", FROZEN)
    box(axes, 9.1, 0.8, r"fake score: $\mu_{fake}$", TRAINED, 1.7)
    box(axes, 3.0, 0.3, "y, the solver's image of z", DATA, 2.3)
    arrows(axes, [((1.6, 1.7), (2.2, 1.7)), ((3.8, 1.7), (4.35, 1.7)), ((5.65, 1.7), (6.1, 1.7)),
                  ((7.7, 1.8), (8.3, 2.5)), ((7.7, 1.6), (8.2, 0.9))])


def _dmd_losses(axes: Axes) -> None:
    matching = r"1  matching: g = ($\mu_{fake} - \mu_{real}$) / mean|x − $\mu_{real}$|"
    arrow(axes, (9.1, 2.95), (3.0, 2.05), matching, BLUE, 0.22, (0, 0.85))
    arrow(axes, (3.0, 0.65), (3.0, 1.35), "", ORANGE)
    note(axes, 2.9, 0.98, "2  regression: d(G(z), y)", ORANGE, "right")
    arrow(axes, (5.1, 1.33), (8.2, 0.6), "", GREEN, 0.25)
    note(axes, 7.0, 0.05, "3  denoising loss on detached x: trains the fake score only", GREEN)


@styled
def dmd2() -> Figure:
    """DMD2's networks: DMD's without the pairs, and a discriminator on the fake score's
    bottleneck."""
    figure = new_figure(WIDEST, 3.7)
    axes = figure.subplots()
    canvas(axes, LEGEND, 10)
    _dmd2_networks(axes)
    _dmd2_losses(axes)
    return figure


def _dmd2_networks(axes: Axes) -> None:
    box(axes, 0.8, 1.7, "noise z, label", DATA)
    box(axes, 2.9, 1.7, "generator G", TRAINED)
    box(axes, 4.8, 1.7, "x = G(z)", DATA, 1.2)
    box(axes, 6.5, 1.7, "$x_t$: x, noised", DATA, 1.4)
    box(axes, 8.9, 2.9, r"teacher: $\mu_{real}$", FROZEN)
    box(axes, 8.9, 1.7, r"fake score: $\mu_{fake}$", TRAINED, 1.7)
    box(axes, 8.9, 0.75, "head on its bottleneck", TRAINED, 1.9)
    box(axes, 4.6, 0.3, "real images, noised", DATA, 2.0)
    arrows(axes, [((1.6, 1.7), (2.1, 1.7)), ((3.7, 1.7), (4.15, 1.7)), ((5.45, 1.7), (5.75, 1.7)),
                  ((7.25, 1.8), (8.1, 2.75)), ((7.25, 1.7), (8.0, 1.7)), ((8.9, 1.35), (8.9, 1.1)),
                  ((5.65, 0.4), (7.95, 1.5))])


def _dmd2_losses(axes: Axes) -> None:
    matching = r"1  matching: $\mu_{fake} - \mu_{real}$"
    arrow(axes, (8.9, 3.25), (2.9, 2.05), matching, BLUE, 0.2, (-1.6, 0.62))
    arrow(axes, (7.9, 0.7), (2.9, 1.35), "", PINK, -0.12)
    note(axes, 3.1, 0.9, "2  be taken for real", PINK, "right")
    note(axes, 8.9, 0.05, "3  tell the two apart: trains head\nand fake score, beside denoising",
         AMBER)


@styled
def kinship() -> Figure:
    """An adversarial autoencoder beside DMD: a reconstruction term says which, a distribution term
    says what."""
    figure = new_figure(WIDEST, 3.2)
    left, right = side_by_side(figure, 2, gridspec_kw={"wspace": 0.12})
    _autoencoder(left)
    _generator(right)
    return figure


def _autoencoder(axes: Axes) -> None:
    canvas(axes, "Adversarial autoencoder", 6.4)
    for x, text, colour in ((0.7, "image y", DATA), (2.6, "encoder", TRAINED),
                            (4.3, "code z", DATA), (5.7, "decoder", TRAINED)):
        box(axes, x, 2.1, text, colour, 1.15)
    arrows(axes, [((1.3, 2.1), (2.0, 2.1)), ((3.2, 2.1), (3.7, 2.1)), ((4.9, 2.1), (5.1, 2.1)),
                  ((4.3, 1.75), (4.3, 1.15))])
    arrow(axes, (5.7, 2.45), (0.7, 2.45), "reconstruct: decoder(z) is y", ORANGE, 0.25, (0, 0.7))
    box(axes, 4.3, 0.8, "discriminator: code or prior?", TRAINED, 2.9)
    arrow(axes, (2.85, 1.1), (2.6, 1.75), "codes as the prior's", BLUE, -0.2, (-1.0, -0.3))


def _generator(axes: Axes) -> None:
    canvas(axes, "DMD", 6.4)
    for x, text, colour in ((0.7, "noise z", DATA), (2.8, "generator G", TRAINED),
                            (4.9, "x = G(z)", DATA)):
        box(axes, x, 2.1, text, colour, 1.3)
    arrows(axes, [((1.4, 2.1), (2.1, 2.1)), ((3.5, 2.1), (4.2, 2.1)), ((4.9, 1.75), (4.9, 1.15))])
    arrow(axes, (4.9, 2.45), (2.8, 2.45), "reconstruct: G(z) is the solver's y", ORANGE, 0.45,
          (0, 0.5))
    box(axes, 4.9, 0.8, "real − fake score", TRAINED, 1.9)
    arrow(axes, (3.9, 0.9), (2.8, 1.75), "samples as the data's", BLUE, -0.2, (-1.15, -0.3))
