"""The step explorer: one noise a class, sampled in every way. The pictures are computed and stored
by ``experiments.explorer``; here are its player and its live picture."""
import torch
from torch import Tensor

from . import choices, frames, page
from .choices import Axes


def player(pictures: Tensor, axes: Axes, panels: str | None = None, **start) -> page.Bundle:
    """The player over the explorer's pictures.

    Args:
        pictures: (model, sampler, class, guidance, steps, H, W[, 3]) uint8; axes: theirs, with a
            "model", a "guidance" and the "steps" last.
        panels: an axis to show side by side; start: values to start from, ``digit=3`` say.
    Raises ValueError for axes or values that do not fit.
    """
    choices.check_names(axes, ["model", "guidance"])
    guidances = axes["guidance"]
    start = {"guidance": guidances[min(1, len(guidances) - 1)]} | start
    return frames.player(pictures, axes, start=start, panels=panels, rows=panels or "guidance",
                         caption=calls if panels is None else calls_side_by_side,
                         title="From one noise, at every number of steps")


def calls(steps: str, guidance: str, model: str = "", **others: str) -> str:
    """How often a picture's network was called; a model of one step says so in its name."""
    if model.endswith("(1 step)"):
        return "1 network call a picture"
    n = int(steps) * (1 if float(guidance) == 0 else 2)
    return f"{n} network call{'' if n == 1 else 's'} a picture"


def calls_side_by_side(steps: str, guidance: str, **others: str) -> str:
    """The same, where students of one step stand beside their teacher."""
    return f"{calls(steps, guidance)}; 1 where the name says 1 step"


def all_classes(pictures: Tensor, axes: Axes, columns: int = 5, title: str = "",
                **start) -> page.Bundle:
    """The player over the pictures of the first model, all classes at once.

    Args:
        pictures, axes: as ``player`` takes them; columns: how many classes stand in a row.
        start: values to start from, by axis.
    Raises ValueError for values that do not fit.
    """
    left = {name: axes[name] for name in ("sampler", "guidance", "steps")}
    by_class = pictures[0].movedim(1, 3)  # (sampler, guidance, steps, class, H, W)
    rows = by_class.flatten(0, 2).unflatten(1, (-1, columns))
    sheets = torch.stack([frames.sheet(row) for row in rows])
    shown = sheets.unflatten(0, by_class.shape[:3])
    return frames.player(shown, left, start=start, caption=calls, rows="guidance", title=title)
