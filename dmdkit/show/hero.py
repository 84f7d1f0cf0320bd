"""The picture that the course opens with: ten digits at ever more steps of the teacher, and in one
step of a student, with what each costs and how good it is.

    digits     (R, 10, H, W) uint8, ink dark: a row each way to draw them, the student's last
    ways       of each row its ``n_steps``, ``evaluations`` and ``distance``
    baseline   the Fréchet distance of real images
"""
import io
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .images import middles, mosaic
from .style import BLUE, new_figure, styled, unframed

PAUSE, LAST = 1000, 4000  # ms that a frame of the animation, and its last one, are seen
SHADES = 24               # colours of the animation: a third of the size
TITLE = "One noise a row: the teacher needs many steps, its student one"


@styled
def grid(digits: Tensor, ways: Sequence, baseline: float) -> Figure:
    """A column each way to draw the ten digits, the student's set apart; its cost stands below."""
    n, size = len(digits), digits.shape[-1]
    blank = torch.full_like(digits[:1], 255)
    shown = torch.cat([digits[:-1], blank, digits[-1:]]).transpose(0, 1).flatten(0, 1)
    figure = new_figure(8.8, 7.9, TITLE)
    axes = figure.subplots()
    axes.imshow(mosaic(255 - shown[:, None], n + 1))
    at = middles(n + 1, size)
    below = [f"{way.n_steps}\n{way.evaluations}\n{way.distance:.2f}" for way in ways]
    axes.set_xticks([*at[:-2], at[-1]], below)
    axes.annotate("steps\nevaluations\nFréchet distance", (0, 0), (-4, -3.5), ha="right", va="top",
                  xycoords="axes fraction", textcoords="offset points", fontsize=8)
    axes.set_yticks([])
    axes.text(at[n // 2 - 1], -4, "the teacher", ha="center", va="bottom", fontsize=10)
    axes.text(at[-1], -4, "the student", ha="center", va="bottom", fontsize=10, color=BLUE)
    axes.set_xlabel(f"Fréchet distance of 1,000 real images: {baseline:.2f}")
    unframed(axes)
    return figure


def animation(digits: Tensor, ways: Sequence, baseline: float) -> bytes:
    """A GIF file: the teacher's steps one after the other, above the student's one."""
    frames = [_frame(row, digits[-1], way, ways[-1], baseline)
              for row, way in zip(digits[:-1], ways)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], loop=0, optimize=True,
                   duration=[PAUSE] * (len(frames) - 1) + [LAST])
    return buffer.getvalue()


@styled
def _frame(teacher: Tensor, student: Tensor, way, one, baseline: float) -> Image.Image:
    """A moment of the animation."""
    figure = new_figure(8.4, 2.7)
    for axes, row, name, what in zip(figure.subplots(2, 1), (teacher, student),
                                     ("The teacher", "The student"), (way, one)):
        axes.imshow(mosaic(255 - row[:, None], len(row)))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{name} in {counted(what.n_steps, 'step')}: "
                       f"{counted(what.evaluations, 'evaluation')} of the network, "
                       f"Fréchet distance {what.distance:.2f} (real: {baseline:.2f})", loc="left")
        unframed(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB").quantize(SHADES)


def counted(n: int, what: str) -> str:
    """"1 step", "16 steps"."""
    return f"{n} {what}{'' if n == 1 else 's'}"
