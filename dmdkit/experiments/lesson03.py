"""DMD in two dimensions: the experiments of lesson 03, run by ``python -m dmdkit dmd-2d`` and shipped.

    data/dmd-2d/runs.safetensors    by setting: points and fields over training (see ``Run``)
                runs.json           its card: settings, figures, checksum, versions, time

The data are Gaussian mixtures, so the real score is exact at every noise level. A setting is run ten times at once, by
ten networks side by side that share nothing but the code (``nets.PointNet``'s copies): what the lesson says is a
measured frequency.
"""
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import dmd, fields, files, metrics, nets, sample, schedule, score, train
from .data import ROOT, RUNS
from .denoiser import Denoiser

SCHEDULE = schedule.cosine()
DATA = {"two modes": score.two_modes(), "eight modes": score.ring()}
STARTS = {"one mode": 0.05, "centre": 0.05, "wide": 1.0}  # the standard deviation of the generator's first points
TIMES, GRID = (50, 150, 300, 600), fields.grid(13)  # when and where fields are kept
N_FRAMES, N_POINTS, N_METRIC = 13, 80, 400          # snapshots of a run, points kept of each, points measured
SHOWN = 3                         # copies whose points are kept
BATCH = 128                       # samples of each copy, a step


@dataclass(frozen=True)
class Setting:
    """One experiment; see ``dmd.dmd_step`` for what its values mean."""
    data: str = "two modes"
    fake: bool = True         # False: the real score alone
    regression: float = 0.0   # weight of the regression loss; 0 is none
    start: str = "one mode"
    updates: tuple[int, int] = (1, 5)
    t_range: tuple[float, float] = (0.02, 0.98)
    weighting: str = "released"
    n_steps: int = 960        # updates of the generator


def _settings() -> dict[str, Setting]:
    found = {}
    for data in DATA:  # the experiment of DMD's Figure 3, with little noise and so a nearest mode
        near = Setting(data, t_range=(0.02, 0.1))
        found |= {f"{data}: real only": replace(near, fake=False), f"{data}: real − fake": near,
                  f"{data}: with regression": replace(near, regression=0.25)}
    base = Setting("eight modes")
    found |= {f"ratio {n}:{m}": replace(base, updates=(n, m)) for n, m in ((10, 1), (3, 1), (1, 1), (1, 5))}
    found |= {f"t up to {high:g} T": replace(base, t_range=(0.02, high)) for high in (0.1, 0.2, 0.4, 0.7, 0.98)}
    found |= {f"t from {low:g} T": replace(base, t_range=(low, 0.98)) for low in (0.3, 0.6)}
    found |= {f"weighting {kind}": replace(base, weighting=kind) for kind in dmd.WEIGHTINGS}
    found |= {f"start {start}": replace(base, start=start) for start in STARTS}
    return found


SETTINGS = _settings()


class Run(NamedTuple):
    """A setting's runs over training: F snapshots of C copies. Points and fields are kept in float16."""
    steps: Tensor     # (F,) int64, generator updates so far
    modes: Tensor     # (C, F) int64, how many modes are covered
    distance: Tensor  # (C, F), exact 2-Wasserstein distance of 400 samples to 400 of the data
    points: Tensor    # (3, F, 80, 2), G(z) of always the same z, by the first copies
    fake: Tensor      # (F, T, n, 2), the first copy's fake score on ``GRID``, as ``fields.arrows``; without one 0
    push: Tensor      # (F, T, 80, 2), where the first copy's points are sent, see ``push``


def fit(setting: Setting, copies: int, generator: train.Learner, fake: train.Learner | None, n_steps: int,
        seed: int = 0) -> None:
    """Bring the generator to its start, and the fake score to the generator's samples there."""
    centre = DATA[setting.data].means[0] if setting.start == "one mode" else torch.zeros(2)
    g = torch.Generator().manual_seed(seed)
    n = BATCH * copies
    for _ in range(n_steps):
        z = torch.randn(n, 2, generator=g)
        start = centre + STARTS[setting.start] * z
        generator.update((generator.model(z, SCHEDULE.T - 1).x - start).square().mean())
    for _ in range(n_steps if fake else 0):
        with torch.no_grad():
            x = generator.model(torch.randn(n, 2, generator=g), SCHEDULE.T - 1).x
        t = torch.randint(SCHEDULE.T, (n,), generator=g)
        fake.update(train.denoising_loss(fake.model, SCHEDULE, "v", x, torch.randn(n, 2, generator=g), t, None).mean())


def run(setting: Setting, copies: int = 10, n_steps: int | None = None, seed: int = 0,
        n_frames: int = N_FRAMES) -> Iterator[tuple[int, Denoiser, Denoiser | None]]:
    """Run a setting, yielding (generator updates so far, generator, fake score) at ``n_frames`` steps, the start
    and the end among them and closer together early on. The networks are the ones that go on training."""
    n_steps, accelerator = n_steps or setting.n_steps, train.accelerator(cpu=True)
    torch.manual_seed(seed)
    generator, fake = (Denoiser(nets.PointNet(copies=copies), SCHEDULE, "v", n_classes=0) for _ in "gf")
    learner = lambda net, lr, n, **more: train.Learner(net, accelerator, lr=lr, n_steps=n, warmup=10, ema=0.0,
                                                       max_grad_norm=1e9, **more)  # clipping would couple the copies
    fake_learner = learner(fake, 2e-3, 10**9, betas=(0.9, 0.99)) if setting.fake else None
    fit(setting, copies, learner(generator, 2e-3, 10**9), fake_learner, 300, seed)
    real, pairs = score.Exact(DATA[setting.data], SCHEDULE), None
    if setting.regression:
        z = torch.randn(2048, 2, generator=torch.Generator().manual_seed(seed + 1))
        pairs = dmd.Pairs(z, sample.last(sample.heun(real, z, 64)))
    per_step = setting.updates[0]
    learners = {"generator": learner(generator, 2e-3, n_steps)} | ({"fake": fake_learner} if fake_learner else {})
    step = dmd.dmd_step(learners["generator"], fake_learner, real, BATCH * copies, updates=setting.updates,
                        t_range=setting.t_range, weighting=setting.weighting, pairs=pairs,
                        regression_weight=setting.regression)
    frames = train.milestones(round(n_steps / per_step), n_frames)
    yield 0, generator, fake if setting.fake else None
    for record in train.train(step, learners, n_steps=frames[-1], seed=seed):
        if record.step in frames:
            yield record.step * per_step, generator, fake if setting.fake else None


def measure(setting: Setting, copies: int = 10, n_steps: int | None = None, seed: int = 0, progress=None) -> Run:
    """Run a setting and keep what the lesson shows of it."""
    mixture, real = DATA[setting.data], score.Exact(DATA[setting.data], SCHEDULE)
    g = torch.Generator().manual_seed(seed + 2)
    z, target = torch.randn(N_METRIC, 2, generator=g), mixture.sample(N_METRIC, g)
    noise = torch.randn(16, 1, 2, generator=g)
    noise = torch.cat([noise, -noise])  # in pairs of opposite sign, which average faster
    kept = {name: [] for name in Run._fields}
    for step, generator, fake in run(setting, copies, n_steps, seed):
        first = fake and Denoiser(fake.net.copy(0), SCHEDULE, fake.prediction, n_classes=0)
        with torch.no_grad():
            x = generator(z.repeat(copies, 1), SCHEDULE.T - 1).x.unflatten(0, (copies, -1))
            for name, value in zip(Run._fields, (
                    torch.tensor(step), torch.tensor([metrics.modes_covered(one, *mixture) for one in x]),
                    torch.tensor([metrics.wasserstein(one, target) for one in x]), x[:SHOWN, :N_POINTS].half(),
                    torch.stack([fields.arrows(first, t, GRID) if first else torch.zeros_like(GRID)
                                 for t in TIMES]).half(),
                    torch.stack([push(real, first, x[0, :N_POINTS], t, noise) for t in TIMES]).half())):
                kept[name].append(value)
        if progress is not None:
            progress.update()
    by_copy = ("modes", "distance", "points")  # these have the copies first
    return Run(**{name: torch.stack(values, 1 if name in by_copy else 0) for name, values in kept.items()})


def push(real, fake, x: Tensor, t: int, noise: Tensor) -> Tensor:
    """Where the points x (N, 2) are sent at time t: σ_t (s_real − s_fake) at their noised versions, averaged over
    ``noise`` (K, 1, 2). Without a fake score (None), the real score alone, as ``dmd.dmd_step`` has it."""
    x_t = SCHEDULE.noise(x, t, noise).flatten(0, 1)
    alpha, sigma = SCHEDULE.at(t, x)
    mu_fake = fake(x_t, t).x if fake else x.repeat(len(noise), 1)
    return (alpha / sigma * (real(x_t, t).x - mu_fake)).unflatten(0, (len(noise), -1)).mean(0)


def build(names: list[str] | None = None, root: Path = ROOT, copies: int = 10, n_steps: int | None = None,
          keep: Path = RUNS / "dmd-2d") -> Path:
    """Run the settings (all by default) and store what ``measure`` keeps, with a card; returns the file's path.

    Each finished setting is kept in ``keep``, from where a later call takes it, one that was stopped say; settings that
    several names share are run once. Raises ValueError for an unknown name, RuntimeError if a folder cannot be written.
    """
    chosen = {name: setting_of(name) for name in names or SETTINGS}
    state, table, seconds = {}, {}, {}
    files.write_atomically(keep / "settings.txt", "\n".join(chosen).encode())  # fails now, not after the first setting
    with tqdm(total=len(chosen) * N_FRAMES, unit="frame", desc="dmd-2d") as bar:
        for name, setting in chosen.items():
            key = hashlib.sha256(repr((setting, copies, n_steps, N_FRAMES)).encode()).hexdigest()[:12]
            kept = keep / f"{key}.safetensors"
            if kept.exists():
                bar.update(N_FRAMES)
            else:
                begun = time.perf_counter()
                made = measure(setting, copies, n_steps, progress=bar)
                files.save_state(kept, {"run": made._asdict(), "seconds": time.perf_counter() - begun})
            done = files.load_state(kept)
            state[name], seconds[key] = done["run"], done["seconds"]
            table[name] = summary(Run(**state[name]))
    path = Path(root) / "dmd-2d" / "runs.safetensors"
    files.save_state(path, state)
    card = {"name": "dmd-2d", "what": "DMD on mixtures of the plane: points, fields and figures of every setting.",
            "copies": copies, "settings": {name: asdict(setting) for name, setting in chosen.items()},
            "floor": floor(), "figures": table, "wall_time_s": round(sum(seconds.values())),
            "device": f"CPU, {torch.get_num_threads()} threads",
            "versions": files.versions("accelerate"), "sha256": files.sha256(path)}
    files.write_json(path.with_suffix(".json"), card)
    return path


def setting_of(name: str) -> Setting:
    """The setting of that name. Raises ValueError for one that there is not."""
    if name not in SETTINGS:
        raise ValueError(f"There is no setting {name!r}; there are {', '.join(SETTINGS)}.")
    return SETTINGS[name]


def summary(one: Run) -> dict:
    """What became of a setting: modes covered at the end in each copy, and the distance's mean and extremes."""
    distance = one.distance[:, -1].double()
    return {"modes": one.modes[:, -1].tolist(), "distance": round(distance.mean().item(), 3),
            "distance_best": round(distance.min().item(), 3), "distance_worst": round(distance.max().item(), 3)}


def floor(n: int = 10) -> dict[str, float]:
    """The distance between two samples of the data themselves, mean of n pairs: as near as a generator can come."""
    return {name: round(sum(metrics.wasserstein(*(mixture.sample(N_METRIC, torch.Generator().manual_seed(2 * i + k))
                                                  for k in (0, 1))) for i in range(n)) / n, 3)
            for name, mixture in DATA.items()}


def load(root: Path = ROOT) -> dict[str, Run]:
    """The shipped runs by setting. Raises RuntimeError if the file is missing or damaged."""
    path = Path(root) / "dmd-2d" / "runs.safetensors"
    if not path.exists():
        raise RuntimeError(f"{path} is missing. Restore it with `git checkout {path.name}`, or compute it again: "
                           "`python -m dmdkit dmd-2d` (some minutes).")
    return {name: Run(**{key: value.float() if value.dtype == torch.float16 else value for key, value in entry.items()})
            for name, entry in files.load_state(path).items()}


def card(root: Path = ROOT) -> dict:
    """The card of the shipped runs."""
    return json.loads((Path(root) / "dmd-2d" / "runs.json").read_text())


# Players over stored runs.

def training_axis(run: Run) -> list[str]:
    """The snapshots as shares of the training."""
    return [f"{int(step) / int(run.steps[-1]):.0%}" for step in run.steps]


def background(data: str, t: int | None = None) -> Tensor:
    """The density of the data, noised to t if given, as ``fields.Panel`` takes it, (h, h)."""
    alpha, sigma = (1.0, 0.0) if t is None else (float(v) for v in SCHEDULE.at(t, torch.empty(1)))
    return fields.density(lambda points: DATA[data].log_density(points, alpha, sigma))


def fields_player(runs: dict[str, Run], names: list[str], menu: str = "objective", title: str = ""):
    """Three linked panels of the settings ``names`` (of one data set): the real score, the fake score, and their
    difference at 50 of the generator's points; buttons for the setting, a slider over training and one over t."""
    chosen, data = [runs[name] for name in names], setting_of(names[0]).data
    real, first = score.Exact(DATA[data], SCHEDULE), chosen[0]
    x = torch.stack([run.points[0, :, :50] for run in chosen])[:, :, None]  # (R, F, 1, m, 2)
    eps = torch.randn(x.shape[-2:], generator=torch.Generator().manual_seed(0))
    noised = torch.cat([SCHEDULE.noise(x, t, eps) for t in TIMES], 2)
    arrows, heat = (torch.stack([of(t) for t in TIMES])[None, None] for of in (
        lambda t: fields.arrows(real, t, GRID), lambda t: background(data, t)))
    panels = [
        fields.Panel("real score, and the points noised to t", GRID[None, None, None], arrows, noised, heat),
        fields.Panel("fake score", GRID[None, None, None], torch.stack([run.fake for run in chosen])),
        fields.Panel("difference, at the points", x, torch.stack([run.push[:, :, :50] for run in chosen]), x,
                     background(data)[None, None, None])]
    short = [name.split(": ")[-1] for name in names]

    def caption(**at):
        run = chosen[short.index(at[menu])]
        frame = training_axis(first).index(at["training"])
        n_modes = len(DATA[data].means)
        return f"modes covered: {run.modes[0, frame]} of {n_modes} · distance {run.distance[0, frame]:.2f}"

    return fields.player(panels, {menu: short, "training": training_axis(first), "t": TIMES}, menus=[menu], title=title,
                         start={"t": TIMES[1]}, caption=caption, sheet=menu, cap=1.0)


def points_player(runs: dict[str, Run], names: list[str], menu: str, title: str = ""):
    """The points of the first three copies of each of the settings ``names`` over training, a panel a copy; buttons
    for the setting and a slider over training."""
    chosen, data = [runs[name] for name in names], setting_of(names[0]).data
    points = torch.stack([run.points for run in chosen])  # (R, C, F, m, 2)
    panels = [fields.Panel(f"run {i + 1}", points=points[:, i], density=background(data)[None, None])
              for i in range(points.shape[1])]
    short = [name.removeprefix(menu).strip(" :") for name in names]

    def caption(**at):
        run = chosen[short.index(at[menu])]
        frame = training_axis(chosen[0]).index(at["training"])
        n_runs, n_modes = len(run.modes), len(DATA[data].means)
        return (f"mean of {n_runs} runs: {run.modes[:, frame].float().mean():.1f} of {n_modes} modes covered · "
                f"distance {run.distance[:, frame].mean():.2f}")

    return fields.player(panels, {menu: short, "training": training_axis(chosen[0])}, menus=[menu], title=title,
                         caption=caption, sheet=menu)
