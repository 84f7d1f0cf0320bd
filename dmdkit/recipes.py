"""The recipe of every artefact that ships: how it is trained, and how its card's figures are measured."""
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import data, files, metrics, nets, sample, schedule, store, train
from .classify import classifier_step
from .denoiser import Denoiser

RUNS = Path("runs")
N_IMAGES = 5000  # how many samples a card's figures are of, unless their name says another count


@dataclass(frozen=True)
class Sampling:
    """One way to draw samples: a sampler of ``sample``, its number of steps and its guidance."""
    sampler: str
    n_steps: int
    guidance: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.sampler}-{self.n_steps}-w{self.guidance:g}"


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


def make_teacher(preset: str = "mnist") -> Denoiser:
    """A fresh class-conditional Denoiser as the teacher's recipe has it: cosine schedule, T = 1024, v-prediction."""
    net = nets.unet(preset)
    return Denoiser(net, schedule.cosine(), "v", patch=28 // net.config.sample_size)


RECIPES = {
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
        samplings=(Sampling("ddim", 16), Sampling("ddim", 16, 0.3), Sampling("ddpm", 400, 0.25))),
}


def recipe(name: str) -> Recipe:
    """Raises ValueError for a name that has no recipe."""
    if name not in RECIPES:
        raise ValueError(f"There is no recipe for {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]


def train_artefact(name: str, out: Path = RUNS, n_steps: int | None = None, resume: bool = False,
                   cpu: bool = False) -> Path:
    """Train an artefact by its recipe and write it to ``out/name``, with its checkpoint and ``log.jsonl`` in
    ``out/name.training``. n_steps: another budget than the recipe's. Returns the artefact's folder.

    Raises ValueError for an unknown name, RuntimeError where the folder cannot be written or resumed from.
    """
    plan, work = recipe(name), Path(out) / f"{name}.training"
    n_steps = plan.n_steps if n_steps is None else n_steps
    if n_steps < 1:
        raise ValueError(f"The number of training steps must be at least 1; got {n_steps}.")
    images = data.mnist()
    files.write_atomically(work / "recipe.json", json.dumps({"artefact": name, "n_steps": n_steps}).encode())
    accelerator = train.accelerator(cpu)
    torch.manual_seed(plan.seed)
    learner = train.Learner(plan.make(), accelerator, n_steps=n_steps, **plan.optimiser)
    records = train.train(plan.step(learner, images, plan.batch_size), {"net": learner}, n_steps=n_steps,
                          seed=plan.seed, checkpoint=work / "checkpoint.safetensors", resume=resume)
    seconds = _follow(records, work / "log.jsonl", n_steps, resume, accelerator.is_main_process)
    if accelerator.is_main_process:
        store.save(learner.averaged(), Path(out) / name, {
            "name": name, "what": plan.what, "seed": plan.seed, "wall_time_s": round(seconds),
            "recipe": {"n_steps": n_steps, "batch_size": plan.batch_size, **plan.optimiser}, **environment(accelerator),
            "parameters": sum(p.numel() for p in learner.net.parameters())}, half=True)
    return Path(out) / name


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
            "versions": {"python": platform.python_version(),
                         **{package: version(package) for package in ("dmdkit", "torch", "diffusers", "accelerate")}}}


def draw(denoiser: Denoiser, how: Sampling, n: int, seed: int = 0, batch_size: int = 250,
         keep: Path | None = None) -> tuple[Tensor, Tensor]:
    """n samples with balanced labels 0, 1, … 9, 0, 1, …: images (n, 1, 28, 28) in [−1, 1] and labels (n,).

    Each batch has a generator of its own, seeded by ``seed`` and the batch's number, so that several processes, which
    share the batches out and put their images together, draw what one draws. ``keep``: a folder for finished batches,
    which a later call with the same arguments takes from there; hundreds of steps take the better part of an hour.
    """
    device, processes = next(denoiser.parameters()).device, PartialState()
    labels = torch.arange(n) % denoiser.n_classes
    mine = list(enumerate(labels.split(batch_size)))[processes.process_index::processes.num_processes]
    images = []
    with tqdm(total=len(mine) * how.n_steps, unit="step", desc=how.key, disable=not processes.is_main_process) as bar:
        for i, label in mine:
            kept = keep and keep / f"{how.key}-seed{seed}-batch{i}of{batch_size}.safetensors"
            if kept and kept.exists() and len(done := files.load_state(kept)["images"]) == len(label):
                images.append((i, done))
                bar.update(how.n_steps)
                continue
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + i)
            z = torch.randn(len(label), *denoiser.sample_shape, generator=generator, device=device)
            sampler = getattr(sample, how.sampler)
            for state in sampler(denoiser, z, how.n_steps, label.to(device), how.guidance, generator):
                bar.update()
            images.append((i, state.x.clamp(-1, 1).cpu()))
            if kept:
                files.save_state(kept, {"images": images[-1][1]})
    return torch.cat([batch for _, batch in sorted(gather_object(images), key=lambda pair: pair[0])]), labels


def scorer() -> metrics.Scorer:
    """The kit's own: features of ``classifier``, labels by ``judge``, against MNIST's 10,000 test images."""
    return metrics.Scorer(store.load("classifier"), store.load("judge"), data.mnist(train=False))


def floor(score: metrics.Scorer, n: int = N_IMAGES, seed: int = 0) -> dict[str, float]:
    """What n balanced real training images score: the best that a sampler can hope for."""
    real = data.mnist().balanced(n, torch.Generator().manual_seed(seed))
    return score(data.scale(real.pixels), real.labels)


def evaluate(name: str, root: Path = data.ROOT, samplings: tuple[Sampling, ...] | None = None, n: int = N_IMAGES,
             device: torch.device | str = "cpu", save: bool = False):
    """Measure an artefact again, yielding (key, scores) as each is done. ``save`` writes each onto its card.

    For a denoiser: ``floor``, then each of ``samplings`` (the recipe's by default), n images each; distances also as
    a ratio to the floor. For a classifier: accuracy on the 10,000 test images. Finished batches of samples are kept in
    ``runs/name.samples`` (in ``root`` for artefacts of your own), so that a stopped evaluation goes on where it was.
    """
    net, plan = store.load(name, device, root), recipe(name)
    card = store.card(name, root)
    found, work = dict(card.get("metrics", {})), RUNS if Path(root) == data.ROOT else Path(root)
    keep = work / f"{name}.samples" / card["sha256"][:12]
    for key, scores in _measure(net, samplings or plan.samplings, n, keep):
        found[key] = {k: round(v, 4) if isinstance(v, float) else v for k, v in scores.items()}
        if save:
            store.update_card(name, {"metrics": found}, root)
        yield key, found[key]


def _measure(net: nn.Module, samplings: tuple[Sampling, ...], n: int, keep: Path):
    if not isinstance(net, Denoiser):
        test = data.mnist(train=False)
        right = metrics.in_batches(net, data.scale(test.pixels)).argmax(1) == test.labels
        yield "test", {"images": len(test), "accuracy": right.float().mean().item()}
        return
    for how in samplings:
        net.schedule.steps(how.n_steps)  # refuses a bad number before any work
    main = PartialState().is_main_process  # the others only draw their share
    count = "" if n == N_IMAGES else f"-{n}-images"  # figures of different counts do not compare
    if main:
        score = scorer()
        base = floor(score, n)
        yield f"floor{count}", base
    for how in samplings:
        begun = time.perf_counter()
        images, labels = draw(net, how, n, keep=keep)
        if main:
            scores = score(images, labels)
            ratios = {f"{name.removeprefix('frechet_')}_over_floor": scores[name] / base[name]
                      for name in ("frechet_distance", "coverage")}
            yield how.key + count, {**scores, **ratios, "seconds": round(time.perf_counter() - begun)}


def benchmark(name: str, n: int = 10, cpu: bool = False) -> dict:
    """Training throughput of a recipe: images a second, and the share of a step's time that its network's forward and
    backward pass take, each the median of n after a warm-up, timed in turns in one run."""
    plan, accelerator = recipe(name), train.accelerator(cpu)
    learner = train.Learner(plan.make(), accelerator, n_steps=10_000, **plan.optimiser)
    step = plan.step(learner, data.mnist(), plan.batch_size)
    generator = torch.Generator(accelerator.device).manual_seed(0)
    x = torch.randn(plan.batch_size // accelerator.num_processes, 1, 28, 28, device=accelerator.device)
    t = torch.randint(1000, (len(x),), device=accelerator.device)

    def network():
        out = learner.model(x, t, t % 10).v if isinstance(learner.net, Denoiser) else learner.model(x)
        accelerator.backward(out.square().mean())
        learner.optimizer.zero_grad()

    whole, alone = _interleaved(lambda: step(generator), network, n, accelerator.device)
    return {"images_per_second": round(plan.batch_size / whole, 1), "step_s": round(whole, 4),
            "network_share": round(alone / whole, 3), **environment(accelerator)}


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
