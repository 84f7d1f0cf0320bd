"""DMD on MNIST: the student's settings, the experiments of lesson 04, and what one looks at while it trains.

    data/dmd-mnist/runs.safetensors    by setting: what was seen over training (see ``look``)
                   runs.json           its card: settings, figures of every seed, checksum, versions, time
"""
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import dmd, dmd2, evaluation, files, metrics, pairs, perceptual, store, train, widgets
from .data import ROOT, RUNS, mnist, to_uint8
from .denoiser import Denoiser, Prediction
from .store import checksum, load_artefact

GUIDANCE = 0.25           # of the real score and of the pairs; the teacher's plain figures at 400 steps have the same
SOLVER = dict(solver="heun", n_steps=8)

SMALL = dict(n_pairs=1280, regression_weight=4.0, ema=0.98, batch_size=32, n_steps=100)  # some 2 minutes on one core
# In a hundred updates the pairs have to do most of the work. Each distance's weight makes its pull at a pair of unlike
# digits as strong as 4 makes the classifier's: about 0.2.
WEIGHTS = {"lpips-alex": 4.0, "lpips-squeeze": 1.0, "squared": 4.0}


@dataclass(frozen=True)
class Setting:
    """One distillation; see ``dmd.dmd_step`` and ``perceptual.distance`` for what its values mean."""
    teacher: str = "teacher"
    guidance: float = GUIDANCE
    matching: bool = True
    fake: bool = True             # False: the real score alone
    updates: tuple[int, int] = (1, 2)
    t_range: tuple[float, float] = (0.02, 0.98)
    weighting: str = "released"
    n_pairs: int = 12_800         # 0: no regression
    regression_weight: float = 0.25
    distance: str = "classifier"
    lr: float = 5e-4
    fake_lr: float = 5e-4
    ema: float = 0.995
    batch_size: int = 64
    n_steps: int = 1500
    start: str = ""               # the artefact that the student starts from; none: the teacher
    share: float = 1.0            # of what was trained in the weights that are kept; the rest are the start's

    @property
    def sampling(self) -> evaluation.Sampling:
        """How the student is used."""
        return evaluation.Sampling("ddim", 1)

    @property
    def has_fake(self) -> bool:
        """Whether a fake score is trained."""
        return self.fake and self.matching

    def prepare(self, accelerator: Accelerator, teacher: Denoiser | None = None,
                given: pairs.Pairs | None = None) -> train.Training:
        """Set the distillation up: the learners "generator" and "fake" (where there is a fake score) start as copies of
        the teacher, which is what is frozen.

        teacher, given: the teacher and the pairs, if they are at hand; else the artefact is loaded, and the pairs are
        taken from where they lie or made. Raises what those raise, and ValueError for a share that is none.
        """
        if not 0 < self.share <= 1:
            raise ValueError(f"The share of the trained weights must be above 0 and at most 1; got {self.share}.")
        teacher = teacher or load_artefact(self.teacher, accelerator.device)
        if self.n_pairs and given is None:
            with accelerator.main_process_first():
                given = find_pairs(teacher, self)
        learner = lambda net, lr, updates, ema: train.Learner(net, accelerator, lr=lr, ema=ema,
                                                              n_steps=self.n_steps * max(updates, 1))
        learners = {"generator": learner(self.student(teacher), self.lr, self.updates[0], self.ema)}
        if self.has_fake:
            learners["fake"] = learner(self.fake_score(teacher), self.fake_lr, self.updates[1], 0.0)
        real, judge = partial(teacher, guidance=self.guidance), store.load("judge", accelerator.device)
        fake = learners["fake"].net if self.has_fake else None
        return train.Training(
            learners, self.step(learners, real, given),
            lambda: look(learners["generator"].net, fake, real, judge, how=self.sampling), (teacher,),
            lambda: self.finish(learners["generator"], teacher))

    def finish(self, generator: train.Learner, teacher: Denoiser) -> Denoiser:
        """The student as it is kept: the generator's averaged weights, with ``share`` < 1 drawn back on the straight
        line to those that it started from (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models")."""
        net = generator.averaged()
        if self.share < 1:
            start = dict(self.student(teacher).named_parameters())
            with torch.no_grad():
                for name, weight in net.named_parameters():
                    weight.lerp_(start[name].to(weight), 1 - self.share)
        return net

    def origin(self) -> dict[str, str]:
        """What is noted of the networks that it starts from."""
        start = {"start": self.start, "start_sha256": checksum(self.start)} if self.start else {}
        return origin(self.teacher) | start

    def student(self, teacher: Denoiser) -> Denoiser:
        """The generator as it starts."""
        return load_artefact(self.start) if self.start else teacher.copy()

    def fake_score(self, teacher: Denoiser) -> Denoiser:
        """The fake score as it starts."""
        return teacher.copy()

    def step(self, learners: dict[str, train.Learner], real: Callable[..., Prediction],
             given: pairs.Pairs | None) -> train.Step:
        """The training step of the learners that ``prepare`` made."""
        device = learners["generator"].accelerator.device
        return dmd.dmd_step(
            learners["generator"], learners.get("fake"), real, self.batch_size, updates=self.updates,
            t_range=self.t_range, weighting=self.weighting, matching=self.matching,
            pairs=given if self.n_pairs else None, regression_weight=self.regression_weight,
            distance=_distance(self, device))

    def evaluations(self, made: train.Training) -> Callable[[], None]:
        """A step's network evaluations and nothing else, as a function to be timed: each forward, and each backward
        from the mean square of what comes out."""
        generator, fake = made.learners["generator"], made.learners.get("fake")
        accelerator, T = generator.accelerator, generator.net.schedule.T
        z = torch.randn(self.batch_size // accelerator.num_processes, *generator.net.sample_shape,
                        device=accelerator.device)
        t = torch.randint(T, (len(z),), device=z.device)
        label = t % generator.net.n_classes
        distance = _distance(self, z.device)

        def backward(learner: train.Learner, value: Tensor) -> None:
            accelerator.backward(value.square().mean())
            learner.optimizer.zero_grad()

        def evaluate() -> None:
            for _ in range(self.updates[0]):
                if self.matching or not self.n_pairs:  # a sample that no pair asks for
                    backward(generator, generator.model(z, T - 1, label).x)
                if self.matching:
                    with torch.no_grad():
                        made.frozen[0](z, t, label, self.guidance)
                        if fake:
                            fake.model(z, t, label)
                if self.n_pairs:
                    backward(generator, distance(generator.model(z, T - 1, label).x, z))
            for _ in range(self.updates[1] if fake else 0):
                with torch.no_grad():
                    x = generator.model(z, T - 1, label).x
                backward(fake, self.answers(fake, x, t, label))

        return evaluate

    def answers(self, fake: train.Learner, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """What an update of the fake score is differentiated from, all of it at once."""
        return fake.model(x, t, label).v


# Five updates of the fake score, as in DMD2, so that it keeps up with the generator (lesson 06). The pairs bring the
# student to digits, and hold it to typical ones; then it is let go of them.
PAIRED = Setting(updates=(1, 5), lr=7e-4, fake_lr=1e-3, ema=0.998, batch_size=32, n_steps=1800)
FULL = replace(PAIRED, start="student-dmd-paired", n_pairs=0, t_range=(0.02, 0.75), lr=5e-4, ema=0.0, n_steps=900,
               share=0.7)


def _distance(setting: Setting, device) -> Callable[[Tensor, Tensor], Tensor]:
    """The setting's distance; without pairs, where none is used, the plain one, so that none is announced."""
    return perceptual.distance(setting.distance, device=device) if setting.n_pairs else dmd.squared_distance


def _settings() -> dict[str, Setting]:
    full = Setting(**SMALL)
    return {
        "DMD": full,
        "no matching": replace(full, matching=False),
        "no regression": replace(full, n_pairs=0),
        "real score only": replace(full, fake=False, n_pairs=0),
        "frozen fake score": replace(full, updates=(1, 0)),
        "no weighting": replace(full, weighting="none"),
        "weaker teacher": replace(full, teacher="teacher-weak"),
        **{f"regression by {kind}": replace(full, distance=kind, regression_weight=weight)
           for kind, weight in WEIGHTS.items()}}


SETTINGS = _settings()  # the ablations of lesson 04: each differs from "DMD" in what its name says
SEEDS = 3
N_IMAGES = 2000         # samples that an ablation's figures are of


class Look(NamedTuple):
    """What one looks at while a student trains, since its losses do not show it: see ``look``."""
    samples: Tensor     # (20, 28, 28) uint8, G(z) for always the same z, of the digits 0 … 9 twice
    brightness: Tensor  # (N,) the mean pixel of each of N samples, in [−1, 1]
    classes: Tensor     # (10,) int64, how many of them the judge calls each digit; N/10 of each were asked for
    noised: Tensor      # (4, 28, 28) uint8, samples noised to t = T/2
    real: Tensor        # (4, 28, 28) uint8, what the real score predicts of them
    fake: Tensor        # (4, 28, 28) uint8, what the fake score predicts; without one the samples themselves
    critic: Tensor = torch.zeros(2, 0)  # (2, N) its probability of "real" for N noised test images, and for the samples


@torch.no_grad()
def look(generator: Denoiser, fake: Denoiser | None, real: Callable[..., Prediction], judge: nn.Module,
         n: int = 200, seed: int = 0, how: evaluation.Sampling = evaluation.Sampling("ddim", 1)) -> Look:
    """Look at n samples of always the same noise, and at what both scores, and the critic if there is one, say of the
    same noised samples. how: the way the student draws."""
    device, was_training = next(generator.parameters()).device, generator.training
    g = torch.Generator().manual_seed(seed)
    z, eps = torch.randn(n, *generator.sample_shape, generator=g), torch.randn(4, *generator.sample_shape, generator=g)
    label = torch.arange(n, device=device) % generator.n_classes
    generator.eval()
    x = how.images(generator, z.to(device), label, torch.Generator(device).manual_seed(seed))
    generator.train(was_training)
    t = generator.schedule.T // 2
    x_t = generator.schedule.noise(x[:4], t, eps.to(device))
    mu_real = real(x_t, t, label[:4]).x
    shift = dmd2.label_shift(generator, fake, how.n_steps - 1) if fake else 0  # x is what the last step made
    mu_fake = fake(x_t, t, label[:4] + shift).x if fake else x[:4]
    samples, *seen = (to_uint8(images).squeeze(1).cpu() for images in (x[:20], x_t, mu_real, mu_fake))
    found = Look(samples, x.flatten(1).mean(1).cpu(), torch.bincount(judge(x).argmax(1).cpu(), minlength=10), *seen)
    return found._replace(critic=_verdicts(fake, x, label, shift, g)) if isinstance(fake, dmd2.Critic) else found


def _verdicts(critic: dmd2.Critic, x: Tensor, label: Tensor, shift: int, g: torch.Generator) -> Tensor:
    """The critic's probability of "real" for as many test images as samples x, and for these, noised to all levels."""
    real, real_label = mnist(train=False).batch(torch.arange(len(x)))
    t = torch.arange(len(x), device=x.device) * critic.schedule.T // len(x)
    eps = torch.randn(x.shape, generator=g).to(x.device)
    sides = (real.to(x.device), real_label.to(x.device)), (x, label)
    return torch.stack([critic(critic.schedule.noise(one, t, eps), t, its + shift, judge=True).sigmoid().cpu()
                        for one, its in sides])


def origin(name: str) -> dict[str, str]:
    """What is noted of a teacher, so that nothing made with one is taken for another's."""
    return {"teacher": name, "teacher_sha256": checksum(name)}


def find_pairs(teacher: Denoiser, setting: Setting) -> pairs.Pairs:
    """The pairs of a setting: from those that ship if they are enough, else from ``runs/pairs``, where what is missing
    is made first (12,800 take some 10 minutes on two cores)."""
    shipped = ROOT / "pairs"
    card = pairs.pairs_card(shipped)
    if card["teacher_sha256"] == checksum(setting.teacher) and setting.n_pairs <= card["pairs"]:
        return pairs.load_pairs(shipped, setting.n_pairs, teacher)
    return make_pairs(setting.teacher, setting.n_pairs, RUNS / f"pairs-{setting.teacher}", teacher)


def make_pairs(name: str, n: int, folder: Path, teacher: Denoiser | None = None) -> pairs.Pairs:
    """n pairs of the artefact ``name`` with the solver and guidance that the kit's own have."""
    return pairs.make_pairs(teacher or load_artefact(name), n, folder, guidance=GUIDANCE, **SOLVER,
                            about=origin(name))


# The ablations.

def run(setting: Setting, seed: int = 0, n_frames: int = 7, accelerator: Accelerator | None = None,
        **given) -> Iterator[tuple[int, train.Training, dict[str, list[float]]]]:
    """Run a setting, yielding at ``train.milestones``: the steps so far, the distillation, and by name every step's
    values. given: what ``Setting.prepare`` takes."""
    torch.manual_seed(seed)
    made, values = setting.prepare(accelerator or train.accelerator(), **given), {}
    yield 0, made, values
    for record in train.train(made.step, made.learners, n_steps=setting.n_steps, seed=seed):
        for name, value in record.values.items():
            values.setdefault(name, []).append(value)
        if record.step in train.milestones(setting.n_steps, n_frames):
            yield record.step, made, values


def measure(setting: Setting, score: metrics.Scorer, seed: int = 0, n_images: int = N_IMAGES) -> dict:
    """Run a setting with one seed: its looks and its scores, as ``files.save_state`` takes them."""
    steps, looks = [], []
    for step, made, _ in run(setting, seed):
        steps.append(step)
        looks.append(made.look())
    images, labels = evaluation.draw(made.finish(), setting.sampling, n_images)
    return {"steps": torch.tensor(steps), "scores": score(images, labels),
            "looks": {name: torch.stack(values) for name, values in zip(Look._fields, zip(*looks))}}


def build(names: list[str] | None = None, root: Path = ROOT, seeds: int | dict[str, int] = SEEDS,
          lesson: str = "dmd-mnist", settings: dict[str, Setting] = SETTINGS) -> Path:
    """Run the ablations of a lesson (all by default) and store what ``measure`` keeps, with a card; returns the file's
    path. Finished runs are kept in ``runs/dmd-mnist``, from where a later call takes them. Full trainings that are
    stored with them (``store_students``) stay.

    seeds: how many runs of each, or of those named, where the rest has one.
    lesson, settings: the folder's name, and its settings by name.
    Raises ValueError for an unknown name, RuntimeError for a teacher, trunk or folder that is not there.
    """
    chosen, path = {name: setting_of(name, settings) for name in names or settings}, _path(root, lesson)
    students = {name: run for name, run in load(root, lesson).items() if name not in settings} if path.exists() else {}
    for setting in chosen.values():  # what is missing is missed now, and not after an hour
        load_artefact(setting.teacher)
        perceptual.distance(setting.distance)
    score, state, table = evaluation.scorer(), {}, {}
    base = evaluation.floor(score, N_IMAGES)
    times = {name: seeds.get(name, 1) if isinstance(seeds, dict) else seeds for name in chosen}
    with tqdm(total=sum(times.values()), unit="run", desc=lesson) as bar:
        for name, setting in chosen.items():
            done = []
            for seed in range(times[name]):
                origins = [value for name, value in setting.origin().items() if name.endswith("sha256")]
                key = hashlib.sha256(repr((setting, seed, *origins)).encode()).hexdigest()[:12]
                kept = RUNS / "dmd-mnist" / f"{key}.safetensors"
                if not kept.exists():
                    begun = time.perf_counter()
                    files.save_state(kept, measure(setting, score, seed) | {"seconds": time.perf_counter() - begun})
                done.append(files.load_state(kept))
                bar.update()
            state[name], table[name] = _first(done), _table(done, setting)
    files.save_state(path, state | students)
    made = {"name": lesson, "what": "Distillations of the teacher: what was seen over training, and their figures.",
            "images": N_IMAGES, "floor": base, "figures": table, "device": f"CPU, {torch.get_num_threads()} threads",
            "versions": files.versions("accelerate", "lpips"), "sha256": files.sha256(path)}
    if students and "students" in (before := card(root, lesson)):
        made["students"] = before["students"]
    files.write_json(path.with_suffix(".json"), made)
    return path


def store_students(trainings: Iterable[Path], root: Path = ROOT, lesson: str = "dmd-mnist") -> Path:
    """Store the looks of full trainings (folders like ``runs/student-dmd.training``) with the runs of a lesson, in
    place of an earlier one's; returns the file's path. Of students that do not ship, and of their teachers, the cards
    are stored too, where they lie beside the training. Raises RuntimeError for a folder without a training."""
    path, trainings = _path(root, lesson), {Path(work).stem: Path(work) for work in trainings}
    files.save_state(path, load(root, lesson) | {name: recorded(work) for name, work in trainings.items()})
    kept = card(root, lesson)
    for name, work in trainings.items():
        own = set(store.names(work.parent)) - set(store.names(root))
        if name in own:
            teacher = store.card(name, work.parent)["teacher"]
            kept.setdefault("students", {}).update(
                {one: store.card(one, work.parent) for one in (teacher, name) if one in own})
    files.write_json(path.with_suffix(".json"), kept | {"sha256": files.sha256(path)})
    return path


def _path(root: Path, lesson: str) -> Path:
    return Path(root) / lesson / "runs.safetensors"


def _first(done: list[dict]) -> dict:
    """What is kept of a setting's runs: the first one's pictures, and every one's brightness."""
    brightness = torch.stack([one["looks"]["brightness"].mean(1) for one in done])
    return {"steps": done[0]["steps"], "looks": done[0]["looks"], "brightness": brightness}


def _table(done: list[dict], setting: Setting) -> dict:
    """A setting's line of the card: what it was, and each score of every run."""
    scores = {name: [round(one["scores"][name], 4) for one in done] for name in done[0]["scores"] if name != "images"}
    return {"setting": asdict(setting), **scores, "seconds": [round(one["seconds"]) for one in done]}


def recorded(work: Path) -> dict:
    """What a training by recipe kept in its folder: "steps" and "looks" as ``load`` has them, and its "log", every
    step's values by name. Raises RuntimeError if there is none."""
    paths, log = sorted(Path(work).glob("look-*.safetensors")), Path(work) / "log.jsonl"
    if not paths or not log.exists():
        raise RuntimeError(f"{work} holds no training of a student. Train one first: "
                           "`python -m dmdkit train student-dmd`.")
    seen = [files.load_state(path) for path in paths]
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return {"steps": torch.tensor([int(path.stem.split("-")[1]) for path in paths]),
            "looks": {name: torch.stack([entry[name] for entry in seen]) for name in Look._fields},
            "log": {name: torch.tensor([entry[name] for entry in entries]) for name in entries[0] if name != "step"}}


def setting_of(name: str, settings: dict[str, Setting] = SETTINGS) -> Setting:
    """The setting of that name. Raises ValueError for one that there is not."""
    if name not in settings:
        raise ValueError(f"There is no setting {name!r}; there are {', '.join(settings)}.")
    return settings[name]


def load(root: Path = ROOT, lesson: str = "dmd-mnist") -> dict[str, dict]:
    """The shipped runs by setting: "steps" (F,), "looks" (``Look``'s entries, each (F, …)) and "brightness" (seeds, F);
    full trainings, like "student-dmd", have a "log" in place of the last. Raises RuntimeError if the file is missing or
    damaged."""
    path = _path(root, lesson)
    if not path.exists():
        raise RuntimeError(f"{path} is missing. Restore it with `git checkout {path.name}`, or compute it again: "
                           f"`python -m dmdkit {lesson}` (about an hour on two CPU cores).")
    return files.load_state(path)


def card(root: Path = ROOT, lesson: str = "dmd-mnist") -> dict:
    """The card of the shipped runs."""
    return json.loads(_path(root, lesson).with_suffix(".json").read_text())


def player(runs: dict[str, dict], names: list[str], title: str = "", slider: str = "update") -> widgets.Bundle:
    """Ten samples of each of the settings ``names`` over training, always of the same noise: buttons for the setting, a
    slider over the generator's updates (which the settings must have in common), or with slider="setting" the other
    way round."""
    steps = runs[names[0]]["steps"].tolist()
    samples = torch.stack([runs[name]["looks"]["samples"][:, :10] for name in names])  # (R, F, 10, 28, 28)
    samples = 255 - samples // 17 * 17  # dark ink, in 16 shades: half the size
    frames = torch.stack([torch.stack([widgets.grid(frame.unflatten(0, (2, 5))) for frame in run]) for run in samples])
    axes = {"setting": names, "update": [str(step) for step in steps]}
    if slider == "setting":
        return widgets.player(frames.transpose(0, 1), {"update": axes["update"], "setting": names}, title=title,
                              rows="update", start={"update": axes["update"][-1]})
    return widgets.player(frames, axes, title=title, rows="setting" if len(names) > 1 else "update")
