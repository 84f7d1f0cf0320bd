"""A player's HTML: its data, its picture for where no script runs, its style and its script.

``player.css``, ``common.js`` and a script for each kind of player lie beside this file.
"""
import base64
import functools
import hashlib
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..picture import in_palette
from ..style import styled

WITHOUT_SCRIPT = ("Run this cell in Jupyter, or trust the notebook: what moves takes this picture's "
                  "place.")


class Bundle(NamedTuple):
    """What a notebook stores of a player: HTML, with a PNG in it for where no script runs, and a
    line of text for where no HTML is shown."""
    html: str
    png: bytes
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


# Pictures as files

@styled
def png(figure: Figure, dpi: int = 100, colours: int | None = None) -> bytes:
    """A matplotlib figure as the bytes of a PNG file, in a palette of so many ``colours`` if given:
    a third of the size. A figure made with pyplot is closed: it would show twice."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    pyplot.close(figure)
    if colours is None:
        return buffer.getvalue()
    return encode(np.array(Image.open(buffer).convert("RGB")), colours=colours)


def encode(pixels: Tensor | np.ndarray, colours: int | None = None) -> bytes:
    """An image, (H, W) or (H, W, 3) uint8, as a PNG file, in a palette of so many ``colours`` if
    given, or of its own where it has no more than a palette holds."""
    image = Image.fromarray(np.asarray(pixels))
    if colours is not None:
        image = in_palette(image, colours)
    elif image.mode == "RGB" and image.getcolors(256):
        image = _indexed(np.asarray(image))
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _indexed(pixels: np.ndarray) -> Image.Image:
    """An image (H, W, 3) of at most 256 colours, colour for colour."""
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), "P")
    image.putpalette(colours.flatten().tolist())
    return image


def uri(png_file: bytes) -> str:
    """A PNG file as the address of a picture that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png_file).decode()


# The page

def bundle(spec: dict, still: bytes, scripts: Sequence[str], text: str) -> Bundle:
    """A player as a notebook stores it.

    Args:
        spec: what the script draws, with a "title".
        still: the picture, a PNG file, that a viewer which strips scripts leaves of it.
        scripts: the files beside this one that draw; a function ``build`` in them makes one player.
        text: what is left where there are no pictures.
    """
    return Bundle(_page(spec, still, scripts), still, text)


def _page(spec: dict, still: bytes, scripts: Sequence[str]) -> str:
    # no "<" in a script: "</script>" would end it, and "<!--<script>" all that follows on the page
    data = json.dumps(spec, ensure_ascii=False).replace("<", "\\u003c")
    key = "dmd-" + hashlib.sha256(data.encode()).hexdigest()[:12]  # tells a page's players apart
    code = " ".join(_lean(read(name)) for name in ("common.js", *scripts))
    title = html.escape(spec["title"] or "contact sheet", quote=True)
    return (f'<div id="{key}" class="dmd-player"><img src="{uri(still)}" alt="{title}">'
            f"<p><i>{WITHOUT_SCRIPT}</i></p></div>\n"
            f'<style>\n{_lean(read("player.css")).replace("ROOT", "#" + key)}\n</style>\n'
            f'<script>(() => {{\n"use strict";\nconst key = "{key}";\nconst spec = {data};\n'
            f"{code}\nbuildAll(build);\n}})();</script>")


@functools.cache
def read(name: str) -> str:
    """The text of a file beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _lean(code: str) -> str:
    """A script or a style on one line, without comments: every player in a notebook brings its
    own. Statements end in semicolons, and a comment behind one has two spaces before it."""
    lines = (line.split("  //")[0].strip() for line in code.strip().splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("//", "/*")))
