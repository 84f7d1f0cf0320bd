"""Figures as a notebook shows them: sharp on any screen, with their text in words for those who do
not see them, and dark where the page is dark.

JupyterLab 4 and nbconvert 7 give an image no alternative text, whatever its metadata say, and
leave it white at night. So a ``Picture`` gives HTML in the image's place, not beside it: a notebook
stores its pixels once.
"""
import base64
import html
import io
import re
import sys
import unicodedata
from collections.abc import Iterable

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

KIT = "dmdkit.show.kit"  # matplotlib finds the style file in the package by this name
SHARP = 2                # pixels of the file for one of the page
COLOURS = 128            # of its palette
# light ink on dark paper, hues as they are: in JupyterLab, in a book of Sphinx's, in Colab
CSS = """\
.dmd-figure { height: auto; max-width: 100%; }
body[data-jp-theme-light=false] .dmd-figure:not(.photo),
html[data-theme=dark] .dmd-figure:not(.photo),
html[theme=dark] .dmd-figure:not(.photo) { filter: invert(1) hue-rotate(180deg); }"""
ACCENTS = {"hat": "\N{COMBINING CIRCUMFLEX ACCENT}", "tilde": "\N{COMBINING TILDE}"}


class Picture(Figure):
    """A matplotlib figure that a notebook shows as ``as_html`` has it."""

    def __repr__(self) -> str:
        return words(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def as_html(figure: Figure) -> str:
    """A figure as an image on a page, as large as at 100 dots an inch, with its words and its
    colours at night. Photographs keep theirs."""
    file, width = _png(figure)
    kind = "dmd-figure photo" if has_photographs(figure) else "dmd-figure"
    source = "data:image/png;base64," + base64.b64encode(file).decode()
    return (f'<style>\n{CSS}\n</style>\n<img class="{kind}" width="{round(width / SHARP)}" '
            f'alt="{html.escape(words(figure))}" src="{source}">')


def _png(figure: Figure) -> tuple[bytes, int]:
    """A figure as a PNG file, and how many pixels wide that is."""
    drawn, file = io.BytesIO(), io.BytesIO()
    with style.context(KIT, after_reset=True):  # ticks are made only now
        figure.savefig(drawn, format="png", dpi=SHARP * figure.dpi, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB")
    in_palette(image, COLOURS).save(file, "png", optimize=True)
    return file.getvalue(), image.width


def in_palette(image: Image.Image, colours: int) -> Image.Image:
    """A picture in so many colours at most, which takes a third of the space. White stays white,
    and with means of its own each pale band keeps its hue."""
    return image.convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1)


def has_photographs(figure: Figure) -> bool:
    """Whether a figure shows images in colour."""
    pictures = [image.get_array() for axes in figure.axes for image in axes.images]
    return any(pixels.ndim == 3 and np.ptp(pixels[..., :3], axis=-1).max() > 0
               for pixels in pictures)


# A figure's text in words

def words(figure: Figure) -> str:
    """What a figure's titles, axes, legends and notes say, as plain text."""
    parts = [figure.get_suptitle(), *map(_of_panel, figure.axes),
             ", ".join(_names(_shared_legends(figure)))]
    return plain(". ".join(dict.fromkeys(filter(None, parts))))


def _of_panel(axes: Axes) -> str:
    legend = axes.get_legend()
    lines = [axes.get_title(), " against ".join(filter(None, [axes.get_ylabel(),
                                                              axes.get_xlabel()])),
             *_names([legend] if legend else []), *(text.get_text() for text in axes.texts)]
    return ", ".join(dict.fromkeys(filter(None, lines)))


def _shared_legends(figure: Figure) -> list[Legend]:
    """Those of no panel's own: a figure's, and its parts'."""
    return [legend for legend in figure.findobj(Legend) if legend.axes is None]


def _names(legends: Iterable[Legend]) -> list[str]:
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def plain(text: str) -> str:
    r"""Text without matplotlib's mathematics: "$\hat{x}$ at $\sigma_t$" is "x̂ at σ_t"."""
    return " ".join(re.sub(r"\$(.+?)\$", _formula, text).split())


def _formula(found: re.Match) -> str:
    text = re.sub(r"\\mathrm|\\[, ]", " ", found[1]).replace("_ ", "_")
    text = re.sub(r"\\(hat|tilde)\{(.+?)\}", _accented, text)
    text = re.sub(r"\\([a-zA-Z]+)( (?=[a-zA-Z]))?", _symbol, text)
    return re.sub(r"[{}\\]", "", text)


def _accented(found: re.Match) -> str:
    return found[2] + ACCENTS[found[1]]


def _symbol(found: re.Match) -> str:
    """A Greek letter; any other command by its name, as of \\log."""
    name = found[1].removeprefix("var")
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {name}")
    except KeyError:
        return f"{name} "


# In notebooks

def show_in_notebooks() -> None:
    """Keep matplotlib from giving IPython the same image once more, in a notebook's file; outside
    IPython, do nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell:
        shell.display_formatter.formatters["image/png"].for_type(Picture, _nothing)


def _nothing(figure: Figure) -> None:
    """The image that is not stored."""
