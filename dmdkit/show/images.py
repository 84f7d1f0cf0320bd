"""Grids of images of any shape, grey or in colour. Each function takes values and returns a
matplotlib Figure.

Grey images are shown as ink, dark on white: −1 is white. Images in colour are shown as they are.
"""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from ..data import scale
from ..schedule import Schedule, v_from_x_eps
from .picture import Picture, plain
from .style import BLUE, ORANGE, WIDEST, styled, wrapped

GAP = 2                   # pixels between the images of a grid
TO_COME_TO_GO = LinearSegmentedColormap.from_list("ink", [BLUE, "white", ORANGE], 255)
LINE, EDGE = 0.22, 0.02   # inches: a line of text, and the margin around a grid
HEADROOM = 1.25           # what is noised is divided by it: noise goes beyond ±1, paper stays light


def shades(images: Tensor) -> Tensor:
    """What is shown of images (N, 1 or 3, H, W), float in [−1, 1] or uint8: (N, 3, H, W) in 0 … 1.

    Raises ValueError for any other shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError("A grid takes grey images (N, 1, H, W) or images in colour (N, 3, H, W); "
                         f"got {tuple(images.shape)}.")
    x = scale(images) if images.dtype == torch.uint8 else images.float()
    x = x.detach().cpu().clamp(-1, 1)
    if x.shape[1] == 1:
        x = -x.expand(-1, 3, -1, -1)
    return (x + 1) / 2


def tiles(cells: Tensor, columns: int, gap: int = GAP, white: float = 1.0) -> Tensor:
    """Images (N, 1 or 3, H, W) → one image (3, H', W') of so many columns, with ``white`` between
    and around them."""
    from torchvision.utils import make_grid  # here: importing torchvision takes seconds

    sheet = make_grid(cells, columns, gap, pad_value=white)
    if len(cells) == 1:  # which make_grid does not frame
        sheet = F.pad(sheet, [gap] * 4, value=white)
    return sheet


def mosaic(images: Tensor, columns: int, gap: int = GAP) -> np.ndarray:
    """Images (N, 1 or 3, H, W), float in [−1, 1] or uint8 → one picture (H', W', 3) in 0 … 1, as
    ``imshow`` takes it. One picture draws faster than N. Raises ValueError for any other shape."""
    return tiles(shades(images), columns, gap).permute(1, 2, 0).numpy()


def middles(n: int, size: int, gap: int = GAP, edge: int = GAP) -> list[float]:
    """Where the middles lie of n rows (or columns) of images that are ``size`` pixels high (wide),
    behind an ``edge``."""
    return [edge + i * (size + gap) + (size - 1) / 2 for i in range(n)]


@styled
def grid(images: Tensor, columns: int | None = None, title: str = "", rows: Sequence[str] = (),
         heads: Sequence[str] = (), cell: float = 0.62) -> Figure:
    """Images (N, 1 or 3, H, W), float in [−1, 1] or uint8, as a grid, all on one scale.

    Args:
        columns: how many stand in a row; all, unless given.
        rows: a name for each row; heads: one for each column.
        cell: how wide an image is, in inches; less where the grid would not fit beside a prompt.
    Raises ValueError for images of another shape.
    """
    columns = min(columns or len(images), len(images))
    picture = mosaic(images, columns)
    lines = -(-len(images) // columns)
    left = 0.15 + 0.075 * max(len(plain(name)) for name in rows) if rows else EDGE
    cell = min(cell, (WIDEST - left - EDGE) / columns)
    wide = columns * cell
    tall = lines * cell * images.shape[2] / images.shape[3]
    width = left + wide + EDGE
    title = wrapped(title, width) if title else ""
    above = EDGE + _height(max(heads, key=_height, default="")) + _height(title)
    height = above + tall + EDGE
    figure = Picture((width, height))
    axes = figure.add_axes((left / width, EDGE / height, wide / width, tall / height))
    axes.set_axis_off()
    axes.imshow(picture, aspect="auto", extent=(0, columns, lines, 0))
    for column, head in enumerate(heads):
        axes.text(column + 0.5, -0.05, head, ha="center", va="bottom")
    for row, name in enumerate(rows):
        axes.text(-0.06, row + 0.5, name, ha="right", va="center")
    if title:
        figure.suptitle(title, y=1 - 0.04 / height, va="top")
    return figure


def _height(text: str) -> float:
    """How high a text stands, in inches."""
    return LINE * (text.count("\n") + 1) if text else 0.0


def forward(schedules: Sequence[Schedule], x: Tensor, eps: Tensor, columns: int = 9,
            title: str = "The same image and the same noise") -> Figure:
    """One image x under one noise eps, both (C, H, W), at ``columns`` evenly spaced times: a row a
    schedule."""
    shares = np.linspace(0, 1, columns) if columns > 1 else np.ones(1)
    noised = [schedule.noise(x[None], max(round(share * schedule.T) - 1, -1), eps[None])
              for schedule in schedules for share in shares]
    rows = [f"{schedule.name}, T = {schedule.T}" for schedule in schedules]
    heads = ["clean" if share == 0 else f"{share:.0%}" for share in shares]
    return grid(torch.cat(noised) / HEADROOM, columns, title, rows, heads, cell=0.78)


def targets(schedule: Schedule, x: Tensor, eps: Tensor, columns: int = 7) -> Figure:
    """What a network sees, x_t, and what it may be asked for, x, ε or v, along t. x, eps: (C, H,
    W)."""
    times = [round(t) for t in np.linspace(0, schedule.T - 1, columns)]
    x, eps = x[None], eps[None]
    v = [v_from_x_eps(x, eps, *schedule.at(t, x)) for t in times]
    rows = {"$x_t$, given": [schedule.noise(x, t, eps) for t in times],
            "$x$": [x] * columns,
            r"$\varepsilon$": [eps] * columns,
            r"$v = \alpha\varepsilon - \sigma x$": v}
    images = torch.cat([image for row in rows.values() for image in row])
    title = "v turns from the noise into the negative of the image"
    return grid(images / HEADROOM, columns, title, list(rows), [f"t = {t}" for t in times],
                cell=0.8)


def path(states: Sequence, columns: int = 9, sample: int = 0, title: str = "") -> Figure:
    """One sample on its way through a sampler's states (``sample.State``): at ``columns`` of the
    steps, the prediction x̂ made at t, and the sample that the step moved on to."""
    columns = min(columns, len(states))
    picked = [states[round(i)] for i in np.linspace(0, len(states) - 1, columns)]
    predictions = [state.x0[sample] for state in picked]
    samples = [state.x[sample] for state in picked]
    return grid(torch.stack([*predictions, *samples]) / HEADROOM, columns, title,
                [r"$\hat{x}$, predicted at t", "the sample after"],
                [f"t = {state.t}" for state in picked], cell=0.8)


@styled
def pull(noised: Tensor, real: Tensor, fake: Tensor, title: str = "") -> Figure:
    """Noised grey samples (N, 1, H, W), what the real and the fake score say of each, and the
    difference that moves the sample: orange where ink is to come, blue where it is to go."""
    n, height = len(noised), noised.shape[2] + GAP
    rows = ["noised", "real says", "fake says", "real − fake"]
    figure = grid(torch.cat([noised, real, fake, fake]), n, title, rows, cell=0.9)
    ink = tiles(shades(fake) - shades(real), n, white=0.0)[0].numpy()
    most = max(float(np.abs(ink).max()), 1e-6)
    top = len(rows) * 3 * height / (len(rows) * height + GAP)
    axes = figure.axes[0]
    axes.imshow(ink, cmap=TO_COME_TO_GO, vmin=-most, vmax=most, aspect="auto",
                extent=(0, n, len(rows), top))
    axes.set_ylim(len(rows), 0)
    return figure


@styled
def gradients(samples: Tensor, differences: Tensor, rows: Sequence[str], heads: Sequence[str],
              title: str = "") -> Figure:
    """Grey samples (R, 1, H, W), one a row, and beside each what is to change in it, in pictures of
    their own (R, C, 1, H, W), all on one scale: orange where ink is to come, blue where it is to
    go.

    differences: in the units of the samples, where −1 is paper; they point the way that the samples
    should go in. rows, heads: names of the rows and of the C + 1 columns.
    """
    ink = differences.detach().float().cpu()
    n = ink.shape[1] + 1
    under = samples[:, None].expand(-1, n, -1, -1, -1).flatten(0, 1)
    figure = grid(under, n, title, rows, heads, cell=1.0)
    first = torch.full_like(ink[:, :1], float("nan"))  # the sample itself is left to be seen
    over = tiles(torch.cat([first, ink], 1).flatten(0, 1), n, white=0.0)[0].numpy()
    most = max(float(ink.abs().max()), 1e-6)
    figure.axes[0].imshow(over, cmap=TO_COME_TO_GO, vmin=-most, vmax=most, aspect="auto",
                          extent=(0, n, len(ink), 0))
    return figure
