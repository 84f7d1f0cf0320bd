"""The player of the course's first picture: the teacher's ten digits at any number of steps, and
the student's one step below."""
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import hero
from . import choices, frames, page

TITLE = "The same ten noises: drag the teacher's steps from 400 to 1"


def player(digits: Tensor, ways: Sequence, baseline: float, title: str = TITLE) -> page.Bundle:
    """The player of these digits, see ``show.hero``. Display it as the last expression of a
    cell."""
    strips = torch.stack([frames.sheet(row[None]) for row in digits])  # (R, H, W)
    pictures = torch.stack([strips[:-1], strips[-1:].expand_as(strips[:-1])])
    axes = choices.named({"drawn by": ["teacher", "student, always 1 step"],
                          "steps": [way.n_steps for way in ways[:-1]]})
    cost = {str(way.n_steps): f"{hero.counted(way.evaluations, 'evaluation')} of the network a "
                              f"digit, Fréchet distance {way.distance:.2f}" for way in ways[:-1]}
    one = ways[-1]
    notes = ["", f"{hero.counted(one.evaluations, 'evaluation')} of the network a digit, Fréchet "
                 f"distance {one.distance:.2f} (real images: {baseline:.2f})"]
    at = choices.positions(axes, None, at_end="steps")
    still = page.png(hero.grid(digits, ways, baseline), colours=64)

    def caption(steps: str, **_) -> str:
        return f"The teacher: {cost[steps]}"

    return frames.assembled(pictures, axes, at, still, title, "drawn by", notes, caption)
