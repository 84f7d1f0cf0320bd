"""The settings of every method: each field, changed alone, changes what it is about and nothing
else, so that an ablation is one."""
import functools
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from conftest import refused
from painters import generator, weights
from torch import Tensor, nn

from dmdkit import data, schedule, train
from dmdkit.denoiser import Denoiser
from dmdkit.methods import classifier, ddpm, dmd, dmd2, progressive
from dmdkit.methods.pairs import Pairs, Solver
from dmdkit.tasks.task import Task

N_STEPS, BATCH, S = 6, 6, schedule.cosine(64)


class Light(nn.Module):
    """The cheapest network for 8 × 8 images that has all that the methods ask of one."""
    sample_shape = (1, 8, 8)

    def __init__(self, num_class_embeds: int = 4):
        super().__init__()
        self.config = {"num_class_embeds": num_class_embeds}
        self.class_embedding = nn.Embedding(num_class_embeds, 64)
        self.time, self.body, self.last = nn.Linear(1, 64), nn.Linear(64, 64), nn.Linear(64, 64)

    @classmethod
    def from_config(cls, config: dict) -> "Light":
        return cls(**config)

    def bottleneck(self, x: Tensor, t: Tensor) -> Tensor:
        share = t[:, None].to(x.dtype) / S.T
        return torch.tanh(self.body(x.flatten(1)) + self.time(share))

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> SimpleNamespace:
        h = self.bottleneck(x, t) + self.class_embedding(class_labels)
        return SimpleNamespace(sample=self.last(torch.tanh(h)).reshape(x.shape))


def denoiser(seed: int) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(Light(), S, n_classes=3)


def judge(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


class Observed:
    """A task's networks and data, and the sources of a training, that note what they are asked
    for; and what its networks were called with."""

    def __init__(self):
        self.found = {}

    def note(self, what: str, value) -> None:
        self.found.setdefault(what, []).append(value)

    def task(self) -> Task:
        networks = {"network": 11, "other": 12, "fake": 13}
        made = {name: self.network(name, denoiser, seed) for name, seed in networks.items()}
        made |= {name: self.network(name, judge, seed)
                 for name, seed in {"classifier": 14, "judge": 15}.items()}
        return Task("toy", (1, 8, 8), 3, self.images, made, distances={"blunt": self.blunt})

    def network(self, name: str, build, seed: int):
        def made() -> nn.Module:
            self.note("networks", name)
            return build(seed)

        return made

    def images(self, train: bool) -> data.Images:
        pixels = torch.randint(256, (9, 1, 8, 8), generator=generator(5)).byte()
        return data.Images(pixels, torch.arange(9) % 3)

    def blunt(self, device):
        self.note("distance", "blunt")

        def distance(x: Tensor, y: Tensor) -> Tensor:
            return (x - y).abs().flatten(1).mean(1)

        return distance

    def load(self, name: str) -> Denoiser:
        self.note("loaded", name)
        net = denoiser({"teacher": 1, "another": 2, "student": 3}[name])
        net.register_forward_pre_hook(self.called, with_kwargs=True)
        return net.eval()

    def called(self, net: nn.Module, given: tuple, named: dict) -> None:
        self.note("times of the teacher", given[1].tolist())
        self.note("guidance", named.get("guidance", 0.0))

    def pairs(self, name: str, n: int, solver: Solver) -> Pairs:
        self.note("pairs", (name, n, solver))
        z, x = torch.randn(2, 9, 1, 8, 8, generator=generator(6))
        return Pairs(z[:n], x[:n], torch.arange(n) % 3)

    def watch(self, name: str, one: train.Learner) -> None:
        """Note what a learner is called with, and the losses that it goes down."""
        honest = one.update

        def shown(net: nn.Module, given: tuple, named: dict) -> None:
            if len(given) > 2:
                self.note(f"{name}: times", torch.as_tensor(given[1]).tolist())
                self.note(f"{name}: labels", given[2].tolist())

        def update(loss: Tensor) -> Tensor:
            self.note(f"{name}: losses", f"{loss.item():.5g}")
            return honest(loss)

        one.net.register_forward_pre_hook(shown, with_kwargs=True)
        one.update = update


def observe(settings) -> dict:
    """What can be seen of a training of these settings: what it asked for, how its networks start
    and with which optimiser, what the first step shows to whom and says, and what is kept."""
    seen = Observed()
    torch.manual_seed(0)
    training = settings.prepare(seen.task(), train.accelerator(cpu=True), N_STEPS, BATCH, seen)
    found = {}
    for name, one in training.learners.items():
        found |= {f"{name}: {key}": value for key, value in one.settings.items()}
        found[f"{name}: start"] = [f"{weight.sum().item():.5g}" for weight in weights(one.net)]
        seen.watch(name, one)
    values = training.step(generator(1))
    found |= {f"value of {name}": f"{value.item():.5g}" for name, value in values.items()}
    for name, one in training.learners.items():
        found[f"{name}: updates"] = one.lr_scheduler.last_epoch
    return found | seen.found | {"kept": kept(training)}


def kept(training: train.Training) -> str:
    """By how much what is kept moves when the trained weights do by 1."""
    one = next(iter(training.learners.values()))
    before = weights(one.net)
    with torch.no_grad():
        for weight in one.net.parameters():
            weight += 1
    net = training.finish() if training.finish else one.averaged()
    moved = torch.cat([(b - a).flatten() for a, b in zip(before, weights(net))]).mean()
    return f"{moved.item():.3f}"


observed_once = functools.cache(observe)


def changed(settings, **changes) -> set[str]:
    """The names of what is seen otherwise when the settings are changed."""
    before, after = observed_once(settings), observe(replace(settings, **changes))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def learner(name: str, *what: str) -> set[str]:
    return {f"{name}: {one}" for one in what}


def value(*names: str) -> set[str]:
    return {f"value of {name}" for name in names}


# Distribution matching. In the first step the learning rates are still 0, so that what they are
# makes no difference to it.

DMD = dmd.Settings(guidance=0.5, n_pairs=6, solver_steps=3, warmup=2, ema=0.0)
MATCHING = value("matching", "matching gradient")
REGRESSION = value("regression", "regression gradient")
GENERATOR = MATCHING | REGRESSION | learner("generator", "losses")
FAKE_SCORE = value("fake") | learner("fake", "losses")
OPTIMISER = learner("fake", "lr", "n_steps", "warmup", "ema", "max_grad_norm", "betas",
                    "weight_decay", "start", "updates", "times", "labels")
BOTH_START = learner("generator", "start") | learner("fake", "start")
DRAWS = learner("generator", "labels") | learner("fake", "labels", "times")

OF_DMD = [  # a change, and what is seen of it
    (dict(teacher="another"), {"loaded", "pairs"} | BOTH_START | GENERATOR | FAKE_SCORE),
    (dict(start="student"), {"loaded"} | learner("generator", "start") | GENERATOR | FAKE_SCORE),
    (dict(network="other"), {"networks"} | BOTH_START | GENERATOR | FAKE_SCORE),
    (dict(guidance=1.0), {"guidance", "pairs"} | MATCHING | learner("generator", "losses")),
    (dict(updates=(1, 3)), learner("fake", "n_steps", "updates", "times", "labels")
     | learner("generator", "labels", "times") | FAKE_SCORE),
    (dict(updates=(2, 1)), learner("generator", "n_steps", "updates", "times") | DRAWS
     | {"times of the teacher", "guidance"} | GENERATOR | FAKE_SCORE),
    (dict(t_range=(0.5, 0.6)), {"times of the teacher"} | MATCHING | learner("fake", "times")
     | learner("generator", "losses")),
    (dict(weighting="none"), MATCHING | learner("generator", "losses")),
    (dict(matching=False), {"times of the teacher", "guidance"} | GENERATOR | OPTIMISER | FAKE_SCORE
     | learner("generator", "labels", "times")),
    (dict(lr=1e-3), learner("generator", "lr")),
    (dict(fake_lr=1e-3), learner("fake", "lr")),
    (dict(fake_annealed=False), learner("fake", "n_steps")),
    (dict(head_start=2), learner("fake", "n_steps", "updates", "start") | MATCHING | FAKE_SCORE
     | learner("generator", "losses")),
    (dict(betas=(0.5, 0.6)), learner("generator", "betas") | learner("fake", "betas")),
    (dict(warmup=1), learner("generator", "warmup") | learner("fake", "warmup")),
    (dict(max_grad_norm=0.5),
     learner("generator", "max_grad_norm") | learner("fake", "max_grad_norm")),
    (dict(ema=0.5), learner("generator", "ema") | {"kept"}),
    (dict(kept=0.25), {"kept"}),
    (dict(fake=False), OPTIMISER | FAKE_SCORE | MATCHING
     | learner("generator", "losses", "labels", "times")),
    (dict(n_pairs=4), {"pairs"} | REGRESSION | learner("generator", "losses", "labels")),
    (dict(regression_weight=0.5),
     value("regression gradient") | learner("generator", "losses")),
    (dict(distance="blunt"), {"distance"} | REGRESSION | learner("generator", "losses")),
    (dict(solver="ddim"), {"pairs"}),
    (dict(solver_steps=4), {"pairs"})]

# With a discriminator, and a student of two steps.
DMD2 = dmd2.Settings(guidance=0.5, updates=(1, 1), warmup=2, ema=0.0, generator_weight=0.1,
                     discriminator_weight=0.2, student_steps=2)
GAN = value("gan", "gan gradient")
ADVERSARIAL = GAN | value("discriminator")
TERMS = (MATCHING | ADVERSARIAL | FAKE_SCORE | learner("generator", "losses"))

OF_DMD2 = [
    (dict(teacher="another"), {"loaded"} | BOTH_START | TERMS),
    (dict(start="student"), {"loaded"} | learner("generator", "start") | TERMS),
    (dict(network="other"), {"networks"} | BOTH_START | TERMS),
    (dict(guidance=1.0), {"guidance"} | MATCHING | learner("generator", "losses")),
    (dict(updates=(1, 3)), learner("fake", "n_steps", "updates", "times", "labels")
     | learner("generator", "times", "labels") | FAKE_SCORE | value("discriminator")),
    (dict(updates=(3, 1)), learner("generator", "n_steps", "updates", "times") | DRAWS
     | {"times of the teacher", "guidance"} | TERMS),
    (dict(t_range=(0.5, 0.6)), {"times of the teacher"} | MATCHING | learner("fake", "times")
     | learner("generator", "losses")),
    (dict(weighting="kl"), MATCHING | learner("generator", "losses")),
    (dict(matching=False), {"times of the teacher", "guidance"} | MATCHING
     | learner("generator", "losses") | learner("fake", "times", "labels")),
    (dict(lr=1e-3), learner("generator", "lr")),
    (dict(fake_lr=1e-3), learner("fake", "lr")),
    (dict(fake_annealed=False), learner("fake", "n_steps")),
    (dict(head_start=2), learner("fake", "n_steps", "updates", "start") | TERMS),
    (dict(betas=(0.5, 0.6)), learner("generator", "betas") | learner("fake", "betas")),
    (dict(warmup=1), learner("generator", "warmup") | learner("fake", "warmup")),
    (dict(max_grad_norm=0.5),
     learner("generator", "max_grad_norm") | learner("fake", "max_grad_norm")),
    (dict(ema=0.5), learner("generator", "ema") | {"kept"}),
    (dict(kept=0.25), {"kept"}),
    (dict(generator_weight=0.3), value("gan gradient") | learner("generator", "losses")),
    (dict(discriminator_weight=0.3), learner("fake", "losses")),
    (dict(student_steps=3), learner("generator", "times", "labels")
     | learner("fake", "times", "labels") | TERMS),
    (dict(backward_simulation=False), learner("generator", "times", "labels")
     | learner("fake", "times", "labels") | TERMS),
    (dict(step_aware=True), learner("fake", "start", "labels", "losses") | ADVERSARIAL
     | learner("generator", "losses"))]

# One network.
HALVING = progressive.Settings(4, warmup=2)
LOSS = value("loss", "gradient norm") | learner("net", "losses")
OF_HALVING = [
    (dict(student_steps=2), learner("net", "times") | {"times of the teacher"} | LOSS),
    (dict(teacher="another"), {"loaded"} | learner("net", "start") | LOSS),
    (dict(guidance=1.0), {"guidance"} | LOSS),
    (dict(weighting="snr"), LOSS),
    (dict(lr=2e-3), learner("net", "lr")),
    (dict(warmup=1), learner("net", "warmup")),
    (dict(ema=0.5), learner("net", "ema") | {"kept"})]

DDPM = ddpm.Settings(warmup=2, ema=0.0)
OF_DDPM = [
    (dict(network="other"), {"networks"} | learner("net", "start") | LOSS),
    (dict(label_dropout=0.9), learner("net", "labels") | LOSS),
    (dict(weighting="truncated"), LOSS),
    (dict(lr=2e-3), learner("net", "lr")),
    (dict(betas=(0.5, 0.6)), learner("net", "betas")),
    (dict(warmup=1), learner("net", "warmup")),
    (dict(ema=0.5), learner("net", "ema") | {"kept"})]

CLASSIFIER = classifier.Settings("classifier", noise=0.1, ema=0.0)
OF_CLASSIFIER = [
    (dict(network="judge"), {"networks"} | learner("net", "start") | value("accuracy") | LOSS),
    (dict(noise=0.9), value("accuracy") | LOSS),
    (dict(label_smoothing=0.5), LOSS),
    (dict(lr=3e-3), learner("net", "lr")),
    (dict(weight_decay=0.5), learner("net", "weight_decay")),
    (dict(ema=0.5), learner("net", "ema") | {"kept"})]

METHODS = {"dmd": (DMD, OF_DMD), "dmd2": (DMD2, OF_DMD2), "progressive": (HALVING, OF_HALVING),
           "ddpm": (DDPM, OF_DDPM), "classifier": (CLASSIFIER, OF_CLASSIFIER)}
CASES = [(settings, change, seen) for settings, cases in METHODS.values() for change, seen in cases]
NAMES = [f"{name}-{next(iter(change))}" for name, (_, cases) in METHODS.items()
         for change, _ in cases]


@pytest.mark.parametrize("settings, change, seen", CASES, ids=NAMES)
def test_a_setting_that_is_changed_changes_what_it_is_about_and_nothing_else(
        settings, change, seen):
    assert changed(settings, **change) == seen


@pytest.mark.parametrize("name", METHODS)
def test_no_setting_is_left_out_and_nothing_changes_by_itself(name):
    """A new field of a method's settings has to be put into the list of its changes above."""
    settings, cases = METHODS[name]
    assert {field.name for field in fields(settings)} == {next(iter(change)) for change, _ in cases}
    assert changed(settings) == set()
    with refused(TypeError, "unexpected keyword argument 'wheighting'"):
        replace(settings, wheighting="none")
