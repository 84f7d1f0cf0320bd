"""The recipe of every artefact that ships: how it is trained, and how its card's figures are measured."""
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator, PartialState
from torch import nn
from tqdm.auto import tqdm

from . import data, dmd2_mnist, dmd_mnist, files, metrics, nets, progressive_mnist, sample, schedule, store, train
from .classify import classifier_step
from .data import RUNS
from .denoiser import Denoiser
from .evaluation import N_IMAGES, Sampling, draw, floor, scorer, suffix
from .progressive_mnist import CURVES, STAGES, Halving, name_of


@dataclass(frozen=True)
class Recipe:
    what: str                                                       # one sentence for the card
    make: Callable[[], nn.Module]                                   # a fresh network
    step: Callable[[train.Learner, data.Images, int], train.Step]   # its training step
    n_steps: int
    batch_size: int
    seed: int
    optimiser: dict = field(default_factory=dict)                   # what train.Learner takes beyond n_steps
    samplings: tuple[Sampling, ...] = ()                            # what evaluate measures; none for a classifier

    @property
    def settings(self) -> dict:
        """What the card says of the recipe."""
        return {"n_steps": self.n_steps, "batch_size": self.batch_size, **self.optimiser}

    def prepare(self, accelerator: Accelerator, n_steps: int, out: Path = RUNS) -> train.Training:
        learner = train.Learner(self.make(), accelerator, n_steps=n_steps, **self.optimiser)
        return train.Training({"net": learner}, self.step(learner, data.mnist(), self.batch_size))

    def origin(self, out: Path = RUNS) -> dict[str, str]:
        """What the card says of the network that the training starts from: here there is none."""
        return {}

    def evaluations(self, made: train.Training) -> Callable[[], None]:
        """A step's network evaluations and nothing else, as a function to be timed."""
        learner = made.learners["net"]
        accelerator = learner.accelerator
        x = torch.randn(self.batch_size // accelerator.num_processes, 1, 28, 28, device=accelerator.device)
        t = torch.randint(1000, (len(x),), device=accelerator.device)

        def evaluate() -> None:
            out = learner.model(x, t, t % 10).v if isinstance(learner.net, Denoiser) else learner.model(x)
            accelerator.backward(out.square().mean())
            learner.optimizer.zero_grad()

        return evaluate


@dataclass(frozen=True)
class Distillation:
    """The recipe of a student: its setting says what ``Recipe``'s other entries do."""
    what: str
    setting: dmd_mnist.Setting
    seed: int
    samplings: tuple[Sampling, ...]

    @property
    def n_steps(self) -> int:
        return self.setting.n_steps

    @property
    def settings(self) -> dict:
        return asdict(self.setting)

    def prepare(self, accelerator: Accelerator, n_steps: int, out: Path = RUNS) -> train.Training:
        return replace(self.setting, n_steps=n_steps).prepare(accelerator)

    def origin(self, out: Path = RUNS) -> dict[str, str]:
        return self.setting.origin()

    def evaluations(self, made: train.Training) -> Callable[[], None]:
        return self.setting.evaluations(made)


def make_teacher(preset: str = "mnist") -> Denoiser:
    """A fresh class-conditional Denoiser as the teacher's recipe has it: cosine schedule, T = 1024, v-prediction."""
    net = nets.unet(preset)
    return Denoiser(net, schedule.cosine(), "v", patch=28 // net.config.sample_size)


AUTOGUIDANCE = dict(guidance=0.2, interval=(0.3, 0.95), guide="teacher-weak", guide_weight=0.5)
# the best way that we know to draw from the teacher
BEST = Sampling("ddpm", 400, 0.17, (0.3, 0.9), "teacher-weak", 0.5, clip=False, s_noise=0.8, s_tmax=0.5)

RECIPES: dict[str, Recipe | Distillation | Halving] = {
    "classifier": Recipe(
        "Digit classifier; the 96 features below its head are the space of the Fréchet distance and of coverage.",
        nets.DigitClassifier, lambda learner, images, n: classifier_step(learner, images, n, noise=0.3),
        n_steps=500, batch_size=128, seed=0, optimiser=dict(lr=3e-3, weight_decay=0.05, ema=0.0)),
    "judge": Recipe(
        "A second classifier of another architecture and seed, which says which digit a sample is, and nothing else.",
        nets.JudgeClassifier, lambda learner, images, n: classifier_step(learner, images, n, noise=0.1),
        n_steps=2400, batch_size=128, seed=17, optimiser=dict(lr=3e-3, weight_decay=0.05, ema=0.0)),
    "teacher": Recipe(
        "Class-conditional DDPM on MNIST: v-prediction, cosine schedule with zero terminal SNR, T = 1024.",
        make_teacher, lambda learner, images, n: train.denoiser_step(learner, images, n),
        n_steps=14_000, batch_size=64, seed=0, optimiser=dict(lr=2e-3, betas=(0.9, 0.99), warmup=200, ema=0.999),
        samplings=(Sampling("ddim", 16), Sampling("ddim", 16, 0.3), Sampling("ddim", 400, dmd_mnist.GUIDANCE),
                   Sampling("ddpm", 400, dmd_mnist.GUIDANCE), Sampling("ddim", 16, **AUTOGUIDANCE),
                   Sampling("ddpm", 400, **AUTOGUIDANCE), BEST)),
    "student-dmd-paired": Distillation(
        "One-step student of the teacher by Distribution Matching Distillation. Its regression compares layers of the "
        "classifier in whose features frechet_distance is taken; frechet_distance_judge is in features it never saw.",
        dmd_mnist.PAIRED, seed=0, samplings=(Sampling("ddim", 1),)),
    "student-dmd": Distillation(
        "One-step student of the teacher by Distribution Matching Distillation: student-dmd-paired, trained on without "
        "its pairs.",
        dmd_mnist.FULL, seed=0, samplings=(Sampling("ddim", 1),)),
    "student-regression": Distillation(
        "One step by regression alone, on the pairs that student-dmd-paired has.",
        dmd_mnist.Setting(matching=False), seed=0, samplings=(Sampling("ddim", 1),)),
    "student-dmd2-no-critic": Distillation(
        "One-step student of the teacher by distribution matching on two time scales: no pairs, and no critic yet.",
        dmd2_mnist.NO_CRITIC, seed=0, samplings=(Sampling("multistep", 1),)),
    "student-dmd2": Distillation(
        "One-step student of the teacher by DMD2: student-dmd2-no-critic, trained on with a critic.",
        dmd2_mnist.FULL, seed=0, samplings=(Sampling("multistep", 1),)),
    "student-dmd2-4step-no-critic": Distillation(
        "Four-step student of the teacher by DMD2 with backward simulation: two time scales, no pairs, no critic yet. "
        "Its fake score was told which step made a sample.",
        dmd2_mnist.NO_CRITIC_4, seed=0, samplings=(Sampling("multistep", 4),)),
    "student-dmd2-4step": Distillation(
        "Four-step student of the teacher by DMD2: student-dmd2-4step-no-critic, trained on with a critic.",
        dmd2_mnist.FULL_4, seed=0, samplings=(Sampling("multistep", 4),)),
    # the documents' own set-up: not among what ships, since on a CPU it takes days
    "poster-teacher": Recipe(
        "The documents' teacher: 6.6 million parameters, ε-prediction, linear β, T = 400.",
        lambda: Denoiser(nets.ContextUNet(), schedule.linear(), "eps"),
        lambda learner, images, n: train.denoiser_step(learner, images, n),
        n_steps=4700, batch_size=256, seed=0, optimiser=dict(lr=1e-4, ema=0.0),  # 20 epochs
        samplings=(Sampling("ddpm", 400, 0.5),)),
    "poster-mnist": Distillation(
        "The documents' student: 12,800 pairs, learning rate 5e-6, batches of 64, 2,000 steps.",
        dmd_mnist.Setting(teacher="poster-teacher", updates=(1, 1), lr=5e-6, fake_lr=5e-6, ema=0.0, n_steps=2000),
        seed=0, samplings=(Sampling("ddim", 1),)),
}
RECIPES["teacher-weak"] = replace(
    RECIPES["teacher"], n_steps=1000, samplings=(Sampling("ddim", 16),),
    what="The teacher's network and recipe, but 1,000 steps: to lead the teacher away from, and for an ablation.")
RECIPES |= {name_of(n): Halving(n) for n in STAGES}


def recipe(name: str) -> Recipe | Distillation | Halving:
    """Raises ValueError for a name that has no recipe."""
    if name not in RECIPES:
        raise ValueError(f"There is no recipe for {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]


def train_artefact(name: str, out: Path = RUNS, n_steps: int | None = None, resume: bool = False,
                   cpu: bool = False, n_pairs: int | None = None) -> Path:
    """Train an artefact by its recipe and write it to ``out/name``, with its checkpoint and ``log.jsonl`` in
    ``out/name.training``, where a student's looks over training are kept too (``dmd_mnist.recorded``). n_steps,
    n_pairs: another budget than the recipe's. Returns the artefact's folder.

    Raises ValueError for an unknown name and for pairs where there is nothing to regress to, RuntimeError where the
    folder cannot be written or resumed from.
    """
    plan, work = recipe(name), Path(out) / f"{name}.training"
    if n_pairs is not None:
        if not (isinstance(plan, Distillation) and plan.setting.n_pairs):
            raise ValueError(f"{name!r} is trained without pairs; leave their number out.")
        if n_pairs < 1:
            raise ValueError(f"The number of pairs must be at least 1; got {n_pairs}.")
        plan = replace(plan, setting=replace(plan.setting, n_pairs=n_pairs))
    n_steps = plan.n_steps if n_steps is None else n_steps
    if n_steps < 1:
        raise ValueError(f"The number of training steps must be at least 1; got {n_steps}.")
    accelerator, origin = train.accelerator(cpu), plan.origin(out)
    _claim(work, {"artefact": name, "n_steps": n_steps, "n_pairs": plan.settings.get("n_pairs", 0), **origin}, resume,
           accelerator)
    torch.manual_seed(plan.seed)
    made = plan.prepare(accelerator, n_steps, out)
    records = train.train(made.step, made.learners, n_steps=n_steps, seed=plan.seed,
                          checkpoint=work / "checkpoint.safetensors", resume=resume)
    if made.look and accelerator.is_main_process:
        records = _watched(records, made.look, work, n_steps, resume)
    seconds = _follow(records, work / "log.jsonl", n_steps, resume, accelerator.is_main_process)
    if accelerator.is_main_process:
        net = made.finish() if made.finish else next(iter(made.learners.values())).averaged()
        store.save(net, Path(out) / name, {
            "name": name, "what": plan.what, "seed": plan.seed, "wall_time_s": round(seconds),
            "recipe": {**plan.settings, "n_steps": n_steps}, **origin, **environment(accelerator),
            "parameters": sum(p.numel() for p in net.parameters())}, half=True)
    accelerator.wait_for_everyone()  # the next training may start from this one
    return Path(out) / name


def _claim(work: Path, run: dict, resume: bool, accelerator: Accelerator) -> None:
    """Note in ``work`` which run it is of. Raises RuntimeError where one from another teacher, or of another number of
    pairs, is to be resumed."""
    note = work / "recipe.json"
    before = json.loads(note.read_text()) if resume and note.exists() else run
    for role in ("teacher", "start"):
        if before.get(f"{role}_sha256") != run.get(f"{role}_sha256"):
            raise RuntimeError(f"The training in {work} started from another {run.get(role) or before[role]} than the "
                               "one that is there now. Start it again without --resume.")
    if before.get("n_pairs", run.get("n_pairs")) != run.get("n_pairs"):
        raise RuntimeError(f"The training in {work} has {before['n_pairs']} pairs, not {run['n_pairs']}. Resume it "
                           "with as many, or start it again without --resume.")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        files.write_atomically(note, json.dumps(run).encode())


def train_chain(out: Path = RUNS, resume: bool = False, cpu: bool = False, share: float = 1.0) -> list[Path]:
    """Train all stages of progressive distillation, each by its recipe from the one before it, into ``out``; returns
    their folders. ``share``: of each stage's updates (lesson 05's cheaper chain has a quarter). With
    ``resume`` stages that are done are left as they are, and the one that was stopped goes on.

    Raises ValueError for a share that is not positive, and what ``train_artefact`` raises."""
    if not share > 0:
        raise ValueError(f"The share of the updates must be positive, 1 for the whole chain; got {share}.")
    found, accelerator = [], train.accelerator(cpu)
    for n, n_steps in STAGES.items():
        name, n_steps = name_of(n), max(1, round(share * n_steps))
        going_on = resume and (Path(out) / f"{name}.training" / "checkpoint.safetensors").exists()
        done = going_on and name in store.names(out) and store.card(name, out)["recipe"]["n_steps"] == n_steps
        accelerator.wait_for_everyone()  # all look before one writes
        found.append(Path(out) / name if done else train_artefact(name, out, n_steps, going_on, cpu))
        resume = resume and (done or going_on)  # a stage that was trained anew makes the later ones out of date
    return found


def measure_curve(n: int = progressive_mnist.N_CURVE, root: Path = data.ROOT, device: torch.device | str = "cpu",
                  save: bool = False):
    """Measure every point of the curve of quality against steps by ``evaluate``, yielding (artefact, key, scores).
    Hundreds of steps take long: the points with few come first."""
    for artefact, how in (CURVES[name](steps) for steps in sorted(STAGES) for name in CURVES):
        for key, scores in evaluate(artefact, root, (how,), n, device, save):
            yield artefact, key, scores


def _watched(records: Iterator[train.Record], look: Callable[[], NamedTuple], work: Path, n_steps: int, resume: bool):
    """The records, with a look kept in ``work`` at each of ``train.milestones``; a new run drops an earlier one's."""
    keep = lambda step: files.save_state(work / f"look-{step:06d}.safetensors", look()._asdict())
    if not resume:
        for path in work.glob("look-*.safetensors"):
            path.unlink()
        keep(0)
    for record in records:
        if record.step in train.milestones(n_steps):
            keep(record.step)
        yield record


def _follow(records, log: Path, n_steps: int, resume: bool, main: bool) -> float:
    """Run the training under a progress bar, write its log, and return its seconds, those before a resume included."""
    if not main:
        return float(sum(record.seconds for record in records))
    before = _entries(log) if resume and log.exists() else []
    entries = ({"step": record.step, "seconds": round(record.seconds, 4), **record.values} for record in records)
    first = next(entries, None)
    if first is None:  # resumed at the end: nothing is left to do
        return sum(entry["seconds"] for entry in before)
    # where the checkpoint left off is known only now; what the log has after it is done again
    before = [entry for entry in before if entry["step"] < first["step"]]
    seconds = sum(entry["seconds"] for entry in before)
    with open(log, "w", buffering=1) as file, tqdm(total=n_steps, initial=len(before), unit="step") as bar:
        file.writelines(json.dumps(entry) + "\n" for entry in before)
        for entry in itertools.chain([first], entries):
            file.write(json.dumps(entry) + "\n")
            seconds += entry["seconds"]
            bar.update()
            shown = {key: f"{value:.4f}" for key, value in entry.items() if key not in ("step", "seconds")}
            bar.set_postfix(shown, refresh=False)
    return seconds


def _entries(log: Path) -> list[dict]:
    """The whole lines of a log; a run that was killed may have left a part of one at its end."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]


def environment(accelerator) -> dict:
    """What a card says of where something ran."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    if accelerator.num_processes > 1:
        name = f"{accelerator.num_processes} × {name}"
    return {"device": name, "precision": "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision,
            "versions": {"python": platform.python_version(), **files.versions("accelerate")}}


def evaluate(name: str, root: Path = data.ROOT, samplings: tuple[Sampling, ...] | None = None, n: int = N_IMAGES,
             device: torch.device | str = "cpu", save: bool = False, seed: int = 0):
    """Measure an artefact again, yielding (key, scores) as each is done. ``save`` writes each onto its card.

    For a denoiser: ``floor``, then each of ``samplings`` (the recipe's by default), n images each; distances also as
    a ratio to the floor. For a classifier: accuracy on the 10,000 test images. Finished batches of samples are kept in
    ``runs/name.samples`` (in ``root`` for artefacts of your own), so that a stopped evaluation goes on where it was.
    seed: of the noise that the samples start from, and of the floor's choice of images.
    """
    net, plan = store.load(name, device, root), recipe(name)
    card = store.card(name, root)
    found, work = dict(card.get("metrics", {})), RUNS if Path(root) == data.ROOT else Path(root)
    keep = work / f"{name}.samples" / card["sha256"][:12]
    for key, scores in _measure(net, samplings or plan.samplings, n, keep, seed):
        found[key] = {k: round(v, 4) if isinstance(v, float) else v for k, v in scores.items()}
        if save:
            store.update_card(name, {"metrics": found}, root)
        yield key, found[key]


def _measure(net: nn.Module, samplings: tuple[Sampling, ...], n: int, keep: Path, seed: int):
    if not isinstance(net, Denoiser):
        test = data.mnist(train=False)
        right = metrics.in_batches(net, data.scale(test.pixels)).argmax(1) == test.labels
        yield "test", {"images": len(test), "accuracy": right.float().mean().item()}
        return
    for how in samplings:
        how.guided(net).schedule.steps(how.n_steps)  # refuses bad settings before any work
    main = PartialState().is_main_process  # the others only draw their share
    count = suffix(n, seed)
    if main:
        score = scorer()
        base = floor(score, n, seed)
        yield f"floor{count}", base
    for how in samplings:
        images, labels = draw(net, how, n, seed, keep=keep)
        if main:
            scores = score(images, labels)
            ratios = {f"{name.removeprefix('frechet_')}_over_floor": scores[name] / base[name]
                      for name in ("frechet_distance", "coverage")}
            yield how.key + count, {**scores, **ratios}


def benchmark(name: str, n: int = 10, cpu: bool = False) -> dict:
    """Training throughput of a recipe: images a second, the time of a step and the share of it that the evaluations of
    its networks take, each the median of n after a warm-up, timed in turns in one run; and the memory of a step."""
    plan, accelerator = recipe(name), train.accelerator(cpu)
    made = plan.prepare(accelerator, 10_000)
    generator = torch.Generator(accelerator.device).manual_seed(0)
    whole, alone = _interleaved(lambda: made.step(generator), plan.evaluations(made), n, accelerator.device)
    used = train.memory(made.step, made.learners, made.frozen)
    return {"images_per_second": round(plan.settings["batch_size"] / whole, 1), "step_s": round(whole, 4),
            "network_share": round(alone / whole, 3), "step_over_network": round(whole / alone, 3),
            "memory_mb": {part: round(size / 2**20, 1) for part, size in used.items()}, **environment(accelerator)}


def speed(name: str, n_steps: int = 400, n_images: int = 10, repeats: int = 3, device: str = "cpu") -> dict:
    """A student's sampling against ``n_steps`` DDIM steps of its teacher for the same images, in seconds: medians,
    timed in turns in one run. Without guidance a step of the teacher is one evaluation of the same network, with the
    guidance that the student was distilled with it is two. Raises ValueError for what is not a student."""
    if not isinstance(recipe(name), Distillation):
        raise ValueError(f"{name!r} is not a student of a teacher; give one of "
                         f"{', '.join(key for key, plan in RECIPES.items() if isinstance(plan, Distillation))}.")
    student, setting = store.load(name, device), recipe(name).setting
    teacher = store.load(setting.teacher, device)
    z = torch.randn(n_images, *student.sample_shape, device=device)
    label = torch.arange(n_images, device=device) % student.n_classes
    one, found = lambda: setting.sampling.images(student, z, label), {"images": n_images, "steps": n_steps}
    for key, guidance in (("", 0.0), ("_guided", setting.guidance)):
        many = lambda: sample.last(sample.ddim(teacher, z, n_steps, label, guidance))
        slow, fast = _interleaved(many, lambda: [one() for _ in range(20)], repeats, torch.device(device))
        found |= {f"teacher{key}_s": round(slow, 4), f"student{key}_s": round(fast / 20, 6),
                  f"ratio{key}": round(slow / (fast / 20))}
    return found | {"device": environment(train.accelerator(device == "cpu"))["device"]}


def _interleaved(first: Callable, second: Callable, n: int, device: torch.device) -> tuple[float, float]:
    """Median seconds of two functions timed in turns, so that a slow spell of the machine meets both."""
    times = {first: [], second: []}
    for i in range(n + 2):
        for function in times:
            begun = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[function].append(time.perf_counter() - begun)
    return statistics.median(times[first][2:]), statistics.median(times[second][2:])
