"""How figures look: one matplotlib style (``kit.mplstyle``), one set of colours, and what goes
around a picture."""
import functools
import textwrap
from collections.abc import Callable, Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator, NullLocator

from .picture import KIT, Picture

# Colours that the colour-blind tell apart (Okabe & Ito 2008)
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PINK = "#CC79A7"
AMBER = "#E69F00"
SKY = "#56B4E9"
BLACK = "#000000"
GREY = "#7F7F7F"  # of baselines and other lines to compare with
CYCLE = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK)

MARKS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
BASELINE = {"color": GREY, "linestyle": "--", "linewidth": 1}

WIDEST = 8.8     # inches that fit beside a notebook's prompt
CHARACTERS = 12  # of a title fit in an inch


def styled(draw: Callable) -> Callable:
    """Make ``draw`` draw in the kit's style, whatever style its caller has set."""
    @functools.wraps(draw)
    def in_style(*values, **options):
        with style.context(KIT, after_reset=True):
            return draw(*values, **options)

    return in_style


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure, in inches, that lays itself out; a title that is too wide for it is
    wrapped."""
    figure = Picture((width, height), layout="constrained")
    if title:
        figure.suptitle(wrapped(title, width))
    return figure


def wrapped(title: str, width: float) -> str:
    """A figure's title in lines that fit into ``width`` inches."""
    return textwrap.fill(title, max(16, round(CHARACTERS * width)))


def side_by_side(figure: Figure, n: int, **options) -> list[Axes]:
    """n panels in a row. options: what ``Figure.subplots`` takes."""
    return list(figure.subplots(1, n, squeeze=False, **options)[0])


def named_below(figure: FigureBase, panels: Sequence[Axes]) -> None:
    """One legend for all panels, below them: it names what any of them draws, once."""
    found = {name: handle for axes in panels
             for handle, name in zip(*axes.get_legend_handles_labels())}
    if found:
        figure.legend(found.values(), found, loc="outside lower center", ncols=6)


def cycled(values: Sequence, n: int) -> list:
    """The first n of ``values``, which start again where they end."""
    return [values[i % len(values)] for i in range(n)]


def coloured(by_name: dict) -> list[tuple]:
    """(colour, name, value) for each entry; after seven the colours start again."""
    colours = cycled(CYCLE, len(by_name))
    return [(colour, name, value) for colour, (name, value) in zip(colours, by_name.items())]


def boxed(axes: Axes) -> None:
    """A frame all around and no ticks: a panel of the plane."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def unframed(axes: Axes) -> None:
    """No frame and no ticks' lines: a picture whose rows or columns have names."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def without_scale(axes: Axes) -> None:
    """No y-axis: densities and histograms, of which only the form matters."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def plain_log(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis whose data are drawn: at 1, 2 and 5, or only at 1 if two
    decades are seen."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def few_numbers(axis: Axis, values: Sequence[float]) -> None:
    """Ticks on a logarithmic axis at just these values, as plain numbers."""
    axis.set_ticks(list(values), [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())
