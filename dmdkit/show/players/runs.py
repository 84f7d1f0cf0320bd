"""Players over stored runs. A run is what was kept of a training: "steps" (F,), the generator's
updates when it was looked at, and "snapshots", tensors (F, …) by name."""
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ... import noise
from ...score import Exact, FiniteSet
from .. import plane
from ..plane import Panel, View
from . import fields, frames, page

FEW = 5        # settings that a still shows
SHOWN = 50     # points of a run whose difference of scores is drawn
N_POINTS = 80  # points of a cloud that are drawn

Runs = Mapping[str, Mapping]


def chosen(runs: Runs, names: Sequence[str]) -> list[Mapping]:
    """The runs of these names. Raises ValueError for none, for an unknown name, and for runs that
    were not looked at equally often."""
    if not names:
        raise ValueError(f"Name at least one run; there are {', '.join(runs)}.")
    for name in names:
        if name not in runs:
            raise ValueError(f"There is no run {name!r}; there are {', '.join(runs)}.")
        if len(runs[name]["steps"]) != len(runs[names[0]]["steps"]):
            raise ValueError(f"{name!r} was not looked at as often as {names[0]!r}: a player has "
                             "one slider for all of its runs.")
    return [runs[name] for name in names]


def updates(kept: Sequence[Mapping]) -> list[str]:
    """The updates after which runs were looked at, which they must have in common: else raises
    ValueError."""
    steps = kept[0]["steps"].tolist()
    for run in kept:
        if run["steps"].tolist() != steps:
            raise ValueError("These runs were looked at after different updates, so they cannot "
                             "share a slider; choose runs of the same length.")
    return [str(step) for step in steps]


# Trainings with snapshots

def samples(runs: Runs, names: Sequence[str], title: str = "", n: int = 10) -> page.Bundle:
    """The first n samples of each of the runs ``names`` over training, always of the same noise:
    buttons for the run and a slider over the generator's updates.

    runs: by name, with snapshots' "samples": images (F, N, H, W) or (F, N, C, H, W) uint8, or
    points (F, N, 2). Raises ValueError for names that ``chosen`` refuses,
    and runs that ``updates`` does.
    """
    kept = chosen(runs, names)
    axes = {"setting": list(names), "update": updates(kept)}
    stack = torch.stack([run["snapshots"]["samples"][:, :n] for run in kept])  # (R, F, n, …)
    if stack.shape[-1] == 2:
        return fields.player([Panel("samples", points=stack)], axes, menus=["setting"], title=title)
    rows = "setting" if 1 < len(names) <= FEW else "update"  # the still grows with its rows
    return frames.player(sheets(stack), axes, rows=rows, title=title)


def compared(runs: Runs, names: Sequence[str], title: str = "",
             notes: Mapping[str, str] | None = None, n: int = 10) -> page.Bundle:
    """The first n samples of each of the runs ``names``, a row a run, under one slider over the
    generator's updates; a switch marks where the others differ from the first.

    runs: by name, with snapshots' "samples": images (F, N, H, W) or (F, N, C, H, W) uint8, of the
    same noise. notes: what stands under a run, its figures say. Raises ValueError for names that
    ``chosen`` refuses, and runs that ``updates`` does.
    """
    kept = chosen(runs, names)
    axes = {"setting": list(names), "update": updates(kept)}
    stack = torch.stack([run["snapshots"]["samples"][:, :n] for run in kept])
    return frames.player(sheets(stack, n), axes, panels="setting", notes=notes, title=title)


def sheets(images: Tensor, columns: int = 5) -> Tensor:
    """Images (R, F, n, [C,] H, W) uint8 → a frame of all n for each run and step."""
    if images.ndim == 5:
        images = images[:, :, :, None]
    shown = frames.of_images(images)
    missing = -shown.shape[2] % columns
    white = torch.full_like(shown[:, :, :1], 255).expand(-1, -1, missing, *shown.shape[3:])
    cells = torch.cat([shown, white], 2).unflatten(2, (-1, columns))
    return torch.stack([torch.stack([frames.sheet(step) for step in run]) for run in cells])


# Trainings in the plane, several copies at once

def progress(steps: Tensor) -> list[str]:
    """Updates so far as shares of the whole training, exact enough to tell them apart."""
    for digits in range(5):
        shares = [f"{step / int(steps[-1]):.{digits}%}" for step in steps.tolist()]
        if len(set(shares)) == len(shares):
            break
    return shares


def points(runs: Runs, names: Sequence[str], menu: str, density: Tensor, n_modes: int,
           title: str = "") -> page.Bundle:
    """The points of several copies of each of the runs ``names`` over training, a panel a copy;
    buttons for the run and a slider over training.

    Args:
        runs: by name, with snapshots' "points" (F, C, m, 2) and, of all copies, "modes" and
            "distance", the Wasserstein one, (F, copies).
        menu: what the runs differ in; where a name starts with it, the button leaves it out.
        density: of the data, (h, h), as ``plane.density`` gives it; n_modes: how many it has.
    Raises ValueError for names that ``chosen`` refuses.
    """
    kept = dict(zip((name.removeprefix(menu).strip(" :") for name in names), chosen(runs, names)))
    stack = torch.stack([run["snapshots"]["points"] for run in kept.values()])  # (R, F, C, m, 2)
    panels = [Panel(f"run {i + 1}", points=stack[:, :, i], density=density[None, None])
              for i in range(stack.shape[2])]
    return fields.player(panels, _axes(kept, menu), menus=[menu], title=title, sheet=menu,
                         caption=_caption(kept, menu, partial(of_all, n_modes=n_modes)))


def of_all(seen: Mapping, frame: int, n_modes: int) -> str:
    """What a snapshot says of all copies."""
    covered, far = seen["modes"][frame].float(), seen["distance"][frame]
    return (f"mean of {len(covered)} runs: {covered.mean():.1f} of {n_modes} modes covered · "
            f"Wasserstein distance {far.mean():.2f}")


def scores(runs: Runs, names: Sequence[str], real, times: Sequence[int], at: Tensor,
           menu: str = "objective", title: str = "", start: dict | None = None) -> page.Bundle:
    """Three linked panels of the runs ``names``: the real score, the fake score, and their
    difference at the first copy's points; buttons for the run, sliders over training and t.

    Args:
        runs: by name, with snapshots' "points" (F, C, m, 2), "fake" (F, T, n, 2), the fake score's
            arrows, "push" (F, T, m, 2), the difference at the points, and "modes" and "distance",
            the Wasserstein one, (F, copies).
        real: the data's exact denoiser, a ``score.Exact`` of a mixture.
        times: the T noise levels; at: (n, 2), where the arrows of a score stand.
        menu: what the runs differ in; a button shows a name's part after ": ".
        start: values to start from, by axis: ``menu``, "training" and "t".
    Raises ValueError for names that ``chosen`` refuses.
    """
    kept = dict(zip((name.split(": ")[-1] for name in names), chosen(runs, names)))
    panels = _linked([run["snapshots"] for run in kept.values()], real, times, at)
    start = {"t": times[min(1, len(times) - 1)]} | (start or {})
    say = partial(of_first, n_modes=len(real.data.means))
    return fields.player(panels, _axes(kept, menu) | {"t": times}, menus=[menu], title=title,
                         start=start, caption=_caption(kept, menu, say), view=View(cap=1.0),
                         sheet=menu)


def cloud(seen: Sequence[Tensor], moves: Sequence[int], real, times: Sequence[int], at: Tensor,
          push: Callable[..., Tensor], title: str = "", start: dict | None = None) -> page.Bundle:
    """The same three panels of a cloud of points that is moved, whose own score is exact; sliders
    over the moves and t.

    Args:
        seen: the points (N, 2) after each of the ``moves``.
        real, times, at, start: as in ``scores``; axes are "moves" and "t".
        push: takes both exact denoisers, points and a time, and says where the points are sent.
    """
    x = torch.stack([points[:N_POINTS] for points in seen])[:, None]  # (M, 1, m, 2)
    fakes = [Exact(FiniteSet(points), real.schedule) for points in seen]
    noised = torch.cat([real.schedule.noise(x, t, _eps(N_POINTS, x)) for t in times], 1)
    pushes = [[push(real, fake, points[:N_POINTS], t) for t in times]
              for fake, points in zip(fakes, seen)]
    grid = at[None, None]
    panels = [Panel("real score, and the points noised to t", grid, _field([real], times, at),
                    noised, _behind([real], times)),
              Panel("fake score: that of the points", grid, _field(fakes, times, at), noised,
                    _behind(fakes, times)),
              Panel("difference, at the points", x, torch.stack([torch.stack(row) for row in pushes]),
                    x, _density(real, -1)[None, None])]
    return fields.player(panels, {"moves": moves, "t": times}, title=title, start=start,
                         view=View(cap=1.0), sheet="moves")


def _field(denoisers: Sequence, times: Sequence[int], at: Tensor) -> Tensor:
    """Each denoiser's arrows at each time, (D, T, n, 2)."""
    return torch.stack([torch.stack([plane.arrows(one, t, at) for t in times])
                        for one in denoisers])


def _behind(denoisers: Sequence, times: Sequence[int]) -> Tensor:
    """The density of each denoiser's data noised to each time, (D, T, h, h)."""
    return torch.stack([torch.stack([_density(one, t) for t in times]) for one in denoisers])


def _eps(n: int, like: Tensor) -> Tensor:
    """The noise that points are shown with: not the stream that they were made of."""
    return torch.randn(n, 2, generator=noise.generator("pictures", 0, 4)).expand_as(like)


def of_first(seen: Mapping, frame: int, n_modes: int) -> str:
    """What a snapshot says of the first copy."""
    return (f"modes covered: {seen['modes'][frame, 0]} of {n_modes} · "
            f"Wasserstein distance {seen['distance'][frame, 0]:.2f}")


def _axes(kept: dict[str, Mapping], menu: str) -> dict[str, list[str]]:
    first = next(iter(kept.values()))
    return {menu: list(kept), "training": progress(first["steps"])}


def _caption(kept: dict[str, Mapping], menu: str,
             say: Callable[[Mapping, int], str]) -> Callable[..., str]:
    """What is said of the run and the share of the training that were chosen."""
    training = _axes(kept, menu)["training"]

    def caption(**at: str) -> str:
        return say(kept[at[menu]]["snapshots"], training.index(at["training"]))

    return caption


def _linked(seen: list[Mapping], real, times: Sequence[int], at: Tensor) -> list[Panel]:
    """The panels of both scores and of their difference, of several runs' snapshots."""
    # (R, F, 1, m, 2): the points do not depend on t
    x = torch.stack([one["points"][:, 0, :SHOWN] for one in seen]).float()[:, :, None]
    noised = torch.cat([real.schedule.noise(x, t, _eps(x.shape[-2], x)) for t in times], 2)
    fake = torch.stack([one["fake"] for one in seen]).float()
    push = torch.stack([one["push"][:, :, :SHOWN] for one in seen]).float()
    grid = at[None, None, None]
    return [Panel("real score, and the points noised to t", grid,
                  _field([real], times, at)[:, None], noised, _behind([real], times)[:, None]),
            Panel("fake score", grid, fake),
            Panel("difference, at the points", x, push, x, _density(real, -1)[None, None, None])]


def _density(real, t: int) -> Tensor:
    """The density of the data, noised to t; t = −1: of the data themselves."""
    def log_density(points: Tensor) -> Tensor:
        return real.data.log_density(points, *real.schedule.at(t, points[:1]))

    return plane.density(log_density)
