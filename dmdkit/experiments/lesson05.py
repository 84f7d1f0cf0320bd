"""The chain of progressive distillation on MNIST that lesson 05 shows: its recipe, its curve, and the ablation of
parameterisations and weightings.

    data/progressive-512 … progressive-1     the students, an artefact each; their figures are on their cards
    data/progressive/runs.json               the figures of each of ``SETTINGS``, and those of the cheaper chain
"""
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from . import data, evaluation, files, nets, progressive, sample, schedule, store, train
from .data import ROOT, RUNS
from .denoiser import PREDICTIONS, Denoiser
from .dmd_mnist import GUIDANCE
from .evaluation import Sampling

STAGES = {512: 500, 256: 200, 128: 200, 64: 200, 32: 300, 16: 500, 8: 800, 4: 900, 2: 1000, 1: 1200}
"""Updates by the student's number of steps. The first learns the guidance too; the last few have the most to learn."""
STEPS = tuple(STAGES)
N_CURVE = 1000  # images behind each point of the curve


def name_of(n_steps: int) -> str:
    """The artefact's name; before the first stage stands the teacher itself."""
    return f"progressive-{n_steps}" if n_steps in STAGES else "teacher"


@dataclass(frozen=True)
class Halving:
    """The recipe of one stage: a student of ``student_steps`` steps, of the stage before it."""
    student_steps: int
    batch_size: int = 64
    weighting: str = "truncated"
    lr: float = 1e-3
    warmup: int = 20
    seed: int = 0

    @property
    def teacher(self) -> str:
        return name_of(2 * self.student_steps)

    @property
    def guidance(self) -> float:
        """The teacher's; from the second stage on the teacher has it folded in."""
        return GUIDANCE if self.teacher == "teacher" else 0.0

    @property
    def n_steps(self) -> int:
        return STAGES[self.student_steps]

    @property
    def what(self) -> str:
        n = self.student_steps
        return f"The teacher progressively distilled to {n} DDIM step{'s' * (n > 1)}, guidance {GUIDANCE:g} folded in."

    @property
    def settings(self) -> dict:
        return {**asdict(self), "teacher": self.teacher, "guidance": self.guidance}

    @property
    def samplings(self) -> tuple[Sampling, ...]:
        return (Sampling("ddim", self.student_steps),)

    def origin(self, out: Path = RUNS) -> dict[str, str]:
        """The stage before it as the card names it: the one in ``out``, else the one that ships."""
        root = store.find(self.teacher, out, ROOT)
        return {"teacher": self.teacher, "teacher_sha256": store.card(self.teacher, root)["sha256"]}

    def prepare(self, accelerator: Accelerator, n_steps: int, out: Path = RUNS) -> train.Training:
        teacher = store.load(self.teacher, accelerator.device, store.find(self.teacher, out, ROOT))
        learner, step = progressive.begin(
            teacher, data.mnist(), accelerator, self.student_steps, n_steps, batch_size=self.batch_size,
            weighting=self.weighting, guidance=self.guidance, lr=self.lr, warmup=self.warmup)
        return train.Training({"net": learner}, step, frozen=(teacher,))

    def evaluations(self, made: train.Training) -> Callable[[], None]:
        """A step's network evaluations and nothing else, as a function to be timed."""
        learner, (teacher,) = made.learners["net"], made.frozen
        accelerator = learner.accelerator
        z = torch.randn(self.batch_size // accelerator.num_processes, *teacher.sample_shape, device=accelerator.device)
        t = torch.randint(1000, (len(z),), device=accelerator.device)
        label = t % teacher.n_classes

        def evaluate() -> None:
            with torch.no_grad():
                teacher(z, t, label, self.guidance)
                teacher(z, t, label, self.guidance)
            accelerator.backward(learner.model(z, t, label).x.square().mean())
            learner.optimizer.zero_grad()

        return evaluate


# The curve: quality against the number of steps.

CURVES = {"distilled": lambda n: (name_of(n), Sampling("ddim", n)),
          "DDIM": lambda n: ("teacher", Sampling("ddim", n, GUIDANCE)),
          "ancestral": lambda n: ("teacher", Sampling("ddpm", n, GUIDANCE))}
"""By the curve's name, which artefact is sampled how for its point at n steps."""


def curve(metric: str = "frechet_distance", n: int = N_CURVE, root: Path = ROOT) -> dict[str, dict[int, float]]:
    """A metric by curve and number of steps, from the cards, for n images a point; "real images" is one number. What
    has not been measured is left out."""
    found, suffix = {}, evaluation.suffix(n)
    for name, where in CURVES.items():
        points = {}
        for steps in sorted({*STEPS, 400}):  # 400 is no power of two, but the number of steps that the kit speaks of
            artefact, how = where(steps)
            metrics = store.card(artefact, root).get("metrics", {}) if artefact in store.names(root) else {}
            if how.key + suffix in metrics:
                points[steps] = metrics[how.key + suffix][metric]
        found[name] = points
    return found | {"real images": store.card("teacher", root)["metrics"][f"floor{suffix}"][metric]}


# The ablation of Table 1: what the network predicts, and how its error is weighted.

@dataclass(frozen=True)
class Setting:
    """One training of an undistilled network."""
    prediction: str
    weighting: str
    n_steps: int = 800
    batch_size: int = 64
    lr: float = 2e-3


SETTINGS = {f"{prediction}, {weighting}": Setting(prediction, weighting)
            for prediction, weighting in itertools.product(PREDICTIONS, progressive.WEIGHTINGS)}
SEEDS, N_IMAGES = 1, 500
SAMPLINGS = (Sampling("ddpm", 16), Sampling("ddim", 16))


def clipped(T: int = 1024, log_snr: float = 20.0) -> schedule.Schedule:
    """The cosine schedule with log SNR no less than −``log_snr``, as undistilled networks are trained in the paper:
    with α_T = 0 a network that predicts ε could say nothing of x at T−1, here it only says it very faintly."""
    base = schedule.cosine(T)
    least = torch.tensor(-log_snr, dtype=torch.float64).sigmoid().sqrt()
    alpha = base.alpha.clamp(min=least)
    return schedule.Schedule("clipped", alpha, (1 - alpha**2).sqrt())


def weighted(weighting: str) -> Callable[..., Tensor]:
    """A loss for ``train.denoiser_step``: the error of x, by one of ``progressive.WEIGHTINGS``."""
    def loss(model, schedule, kind, x, eps, t, label):
        said = model(schedule.noise(x, t, eps), t, label)
        return progressive.weighted_loss(said.x, x, *schedule.at(t, x), weighting)

    return loss


def run(setting: Setting, seed: int = 0, images: data.Images | None = None) -> tuple[Denoiser, list[float]]:
    """Train a setting; returns its network and its loss at every step, which ends early where it is no longer
    finite: then the setting is unstable."""
    torch.manual_seed(seed)
    accelerator = train.accelerator(cpu=True)
    net = nets.unet("small", outputs=2 if setting.prediction == "both" else 1)
    learner = train.Learner(Denoiser(net, clipped(), setting.prediction, patch=2), accelerator, lr=setting.lr,
                            n_steps=setting.n_steps, betas=(0.9, 0.99), ema=0.99)
    step = train.denoiser_step(learner, images or data.mnist(), setting.batch_size, label_dropout=0.0,
                               loss=weighted(setting.weighting))
    losses = []
    try:
        for record in train.train(step, {"net": learner}, n_steps=setting.n_steps, seed=seed):
            losses.append(record.values["loss"])
    except FloatingPointError:
        pass
    return learner.averaged(), losses


def measure(setting: Setting, score, seed: int = 0) -> dict:
    """Train a setting, sample it by both samplers and score the samples."""
    net, losses = run(setting, seed)
    found = {"loss": torch.tensor(losses), "scores": {}}
    for how in SAMPLINGS:
        x, label = evaluation.draw(net, how, N_IMAGES, seed)
        finite = bool(torch.isfinite(x).all())
        found["scores"][how.sampler] = score(x, label) if finite else {"frechet_distance": float("nan")}
    return found


def build(root: Path = ROOT, seeds: int = SEEDS, cheaper: Path | None = RUNS / "cheaper") -> Path:
    """Run all twelve settings and store their figures, with those of the cheaper chain (the cards in ``cheaper``, see
    ``recipes.train_chain``); returns the file's path. Finished runs are kept in ``runs/progressive``."""
    score, table = evaluation.scorer(), {}
    with tqdm(total=len(SETTINGS) * seeds, unit="run", desc="progressive") as bar:
        for name, setting in SETTINGS.items():
            done = []
            for seed in range(seeds):
                kept = RUNS / "progressive" / f"{name.replace(', ', '-')}-{seed}.safetensors"
                if not kept.exists() or files.load_state(kept)["setting"] != asdict(setting):
                    begun = time.perf_counter()
                    found = measure(setting, score, seed) | {"setting": asdict(setting)}
                    files.save_state(kept, found | {"seconds": time.perf_counter() - begun})
                done.append(files.load_state(kept))
                bar.update()
            table[name] = {"setting": asdict(setting), "seconds": [round(one["seconds"]) for one in done]} | {
                how.sampler: {metric: [round(one["scores"][how.sampler][metric], 4) for one in done]
                              for metric in done[0]["scores"][how.sampler] if metric != "images"} for how in SAMPLINGS}
    path = Path(root) / "progressive" / "runs.json"
    files.write_json(path, {
        "name": "progressive", "what": "Network outputs and loss weightings compared, and a chain of fewer updates.",
        "images": N_IMAGES, "floor": evaluation.floor(score, N_IMAGES), "figures": table,
        "cheaper": cheaper_chain(cheaper) if cheaper else {}, "device": f"CPU, {torch.get_num_threads()} threads",
        "versions": files.versions("accelerate")})
    return path


def cheaper_chain(root: Path) -> dict:
    """Metrics, updates and seconds of the chain in ``root``, by number of steps."""
    cards = {n: store.card(name_of(n), root) for n in STEPS if name_of(n) in store.names(root)}
    return {str(n): {"n_steps": card["recipe"]["n_steps"], "seconds": card["wall_time_s"], **card.get("metrics", {})}
            for n, card in cards.items()}


def card(root: Path = ROOT) -> dict:
    """The figures of the ablation and of the cheaper chain. Raises RuntimeError if they are missing."""
    path = Path(root) / "progressive" / "runs.json"
    if not path.exists():
        raise RuntimeError(f"{path} is missing. Restore it with `git checkout {path.name}`, or compute it again: "
                           "`python -m dmdkit progressive` (half an hour on two CPU cores).")
    return json.loads(path.read_text())
