"""DMD2 on MNIST: the settings of its students, and the experiments of lesson 06.

    data/dmd2-mnist/runs.safetensors, runs.json    as ``dmd_mnist``'s
"""
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from . import dmd2, dmd_mnist, train
from .data import mnist
from .denoiser import Denoiser, Prediction
from .evaluation import Sampling


@dataclass(frozen=True)
class Setting(dmd_mnist.Setting):
    """One distillation by DMD2; see ``dmd2.dmd2_step`` for what its values mean."""
    n_pairs: int = 0
    updates: tuple[int, int] = (1, 5)
    generator_weight: float = 0.0
    critic_weight: float = 0.0
    student_steps: int = 1
    backward_simulation: bool = True
    step_aware: bool = False      # the fake score is told which step made a sample

    @property
    def sampling(self) -> Sampling:
        return Sampling("multistep", self.student_steps)

    @property
    def has_fake(self) -> bool:
        return True

    def fake_score(self, teacher: Denoiser) -> Denoiser:
        fake = dmd2.step_aware(teacher, self.student_steps) if self.step_aware else teacher.copy()
        return dmd2.Critic(fake) if self.critic_weight else fake

    def step(self, learners: dict[str, train.Learner], real: Callable[..., Prediction], given=None) -> train.Step:
        images = mnist() if self.critic_weight or not self.backward_simulation else None
        return dmd2.dmd2_step(
            learners["generator"], learners["fake"], real, self.batch_size, images=images,
            fake_updates=self.updates[1], generator_weight=self.generator_weight, critic_weight=self.critic_weight,
            t_range=self.t_range, weighting=self.weighting, matching=self.matching, n_steps=self.student_steps,
            backward_simulation=self.backward_simulation)

    def evaluations(self, made: train.Training) -> Callable[[], None]:
        generator, fake = made.learners["generator"], made.learners["fake"]
        n, T = self.batch_size // generator.accelerator.num_processes, generator.net.schedule.T
        x = torch.randn(n, *generator.net.sample_shape, device=generator.accelerator.device)
        t = torch.randint(T, (n,), device=x.device)
        label = t % generator.net.n_classes
        matching = super().evaluations(made)

        def simulate() -> None:
            times = generator.net.schedule.steps(self.student_steps)
            exits = torch.arange(n, device=x.device) * self.student_steps // n
            for _ in range(sum(self.updates)):
                dmd2.simulate(generator.model, generator.net.schedule, x, label, times, exits,
                              x.expand(len(times), *x.shape))

        def evaluate() -> None:
            matching()
            if self.critic_weight:
                with dmd2.frozen(fake.net):
                    fake.net(x.clone().requires_grad_(), t, label, judge=True).sum().backward()
            if self.student_steps > 1 and self.backward_simulation:
                simulate()

        return evaluate

    def answers(self, fake: train.Learner, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        denoised = super().answers(fake, x, t, label)
        if not self.critic_weight:
            return denoised
        judged = fake.model(*(torch.cat([one, one]) for one in (x, t, label)), judge=True)  # samples and real images
        return torch.cat([denoised.flatten(), judged.flatten()])


WEIGHTS = dict(generator_weight=0.047, critic_weight=0.157)  # ``dmd2.paper_weights`` of 28 × 28 × 1
NO_CRITIC = Setting(lr=7e-4, fake_lr=1e-3, ema=0.998, batch_size=32, n_steps=2200)
FULL = replace(NO_CRITIC, start="student-dmd2-no-critic", lr=3e-4, n_steps=800, **WEIGHTS)
NO_CRITIC_4 = replace(NO_CRITIC, n_steps=1800, student_steps=4, step_aware=True)
FULL_4 = replace(NO_CRITIC_4, start="student-dmd2-4step-no-critic", lr=3e-4, n_steps=600, **WEIGHTS)

SMALL = dict(lr=1e-3, fake_lr=1e-3, ema=0.98, batch_size=32, n_steps=100)


def _settings() -> dict[str, dmd_mnist.Setting]:
    alone = Setting(**SMALL)
    critic, four = replace(alone, **WEIGHTS), replace(alone, student_steps=4, step_aware=True)
    return {
        "DMD": dmd_mnist.Setting(**SMALL, updates=(1, 1), n_pairs=1280, regression_weight=4.0),
        **{f"1 : {k}": replace(alone, updates=(1, k)) for k in (1, 2, 5, 10)},
        "with critic": critic,
        "critic alone": replace(critic, matching=False),
        "2 steps": replace(four, student_steps=2),
        "4 steps": four,
        "4 steps, not told": replace(four, step_aware=False),
        "4 steps, real inputs": replace(four, backward_simulation=False),
        "1 : 1, 2,200": replace(NO_CRITIC, updates=(1, 1)),
        "1 : 1, 1,000": replace(NO_CRITIC, updates=(1, 1), n_steps=1000),
        "critic alone, 400": replace(NO_CRITIC, matching=False, **WEIGHTS, n_steps=400)}


SETTINGS = _settings()  # the runs of lesson 06: each differs from another in what its name says
SEEDS = dict.fromkeys(("DMD", "1 : 1", "1 : 5", "with critic", "critic alone"), 3) | dict.fromkeys(
    ("4 steps", "4 steps, not told", "4 steps, real inputs"), 2)  # the rest once

load, card = partial(dmd_mnist.load, lesson="dmd2-mnist"), partial(dmd_mnist.card, lesson="dmd2-mnist")
store_students = partial(dmd_mnist.store_students, lesson="dmd2-mnist")
build = partial(dmd_mnist.build, lesson="dmd2-mnist", settings=SETTINGS, seeds=SEEDS)
