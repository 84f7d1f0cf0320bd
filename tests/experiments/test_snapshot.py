"""What one sees of a training: what the networks say of always the same noise."""
from dataclasses import replace
from functools import partial

import pytest
import torch
from toys import DIGITS, DOTS, dot_network, equal, tiny, weights

from dmdkit import noise, sample, schedule
from dmdkit.experiments import snapshot
from dmdkit.experiments.evaluate import Sampling
from dmdkit.methods import dmd, dmd2
from dmdkit.methods.discriminator import Discriminator, step_aware
from dmdkit.train import Learner, Training, accelerator

S = schedule.cosine()
ONE_STEP = Sampling("ddim", 1)


def learner(net) -> Learner:
    return Learner(net, accelerator(cpu=True), lr=1e-3, n_steps=10)


def training(generator, fake, real) -> Training:
    """What a snapshot needs of a training."""
    learners = {"generator": learner(generator)} | ({"fake": learner(fake)} if fake else {})
    settings = dmd.Settings(fake=fake is not None)
    step = dmd.DMD(learners["generator"], learners.get("fake"), real, 4, settings)
    return Training(learners, step)


def naming(digits: torch.Tensor):
    """MNIST with a classifier that calls the i-th sample digits[i]."""
    def classify(x: torch.Tensor) -> torch.Tensor:
        return digits[:len(x)]

    return replace(DIGITS, classify=classify)


def drawn(number: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=noise.generator("pictures", 0, number))


def as_image(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-1, 1)


def test_a_snapshot_is_what_the_networks_say_of_always_the_same_noise():
    generator, fake, teacher = (tiny(seed) for seed in (1, 2, 3))
    real = partial(teacher, guidance=2.0)
    task = naming(torch.tensor([0, 3, 3, 9] * 5))
    found = snapshot.take(task, training(generator, fake, real), ONE_STEP, n=20)
    z, eps, label = drawn(0, 20, 1, 28, 28), drawn(2, 4, 1, 28, 28), torch.arange(20) % 10
    with torch.no_grad():
        x = generator(z, 1023, label).x.clamp(-1, 1)
        x_t = S.noise(x[:4], 512, eps)
        pictures = {"samples": x, "noised": x_t, "real": teacher(x_t, 512, label[:4], 2.0).x,
                    "fake": fake(x_t, 512, label[:4]).x}
    for name, wanted in pictures.items():
        got = getattr(found, name)
        assert got.dtype == torch.uint8 and got.shape == (len(wanted), 1, 28, 28), name
        off = (got.float() / 127.5 - 1 - as_image(wanted)).abs().max()
        assert off <= 1 / 255 + 1e-4 and got.float().std() > 1, name
    torch.testing.assert_close(found.brightness, torch.stack([image.mean() for image in x]))
    assert found.classes.tolist() == [5, 0, 0, 10, 0, 0, 0, 0, 0, 5]
    assert found.classes.dtype == torch.int64 and found.discriminator.shape == (2, 0)


def test_without_a_fake_score_the_samples_themselves_stand_in_its_place():
    generator, teacher = tiny(1), tiny(3)
    found = snapshot.take(naming(torch.zeros(20, dtype=torch.int64)),
                          training(generator, None, teacher), ONE_STEP, n=20)
    assert torch.equal(found.fake, found.samples[:4]) and not torch.equal(found.real, found.fake)


def test_a_snapshot_leaves_everything_as_it_was_and_sees_what_changed():
    generator, fake = tiny(1), tiny(2)
    made = training(generator, fake, fake)

    def look() -> snapshot.Snapshot:
        return snapshot.take(naming(torch.zeros(200, dtype=torch.int64)), made, ONE_STEP)

    for mode in (True, False):
        generator.train(mode)
        before, random = weights(generator), torch.get_rng_state()
        first = look()
        assert generator.training is mode and generator.net.training is mode
        assert equal(weights(generator), before) and torch.equal(torch.get_rng_state(), random)
        assert all(p.grad is None for p in generator.parameters()) and equal(first, look())
        assert first.samples.shape == (20, 1, 28, 28) and first.brightness.shape == (200,)
        assert first.classes.sum() == 200
    with torch.no_grad():
        for p in generator.parameters():
            p.mul_(1.5)
    assert not torch.equal(look().samples, first.samples)


@pytest.mark.parametrize("steps, told", [(1, False), (2, False), (2, True)])
def test_a_discriminator_is_asked_of_samples_and_of_test_images(steps, told):
    """At all noise levels, and as of the step that made the samples, the last one."""
    generator, teacher = tiny(1), tiny(3)
    fake = Discriminator(step_aware(tiny(2), steps) if told else tiny(2))
    settings = dmd2.Settings(generator_weight=0.1, discriminator_weight=0.1, student_steps=steps,
                             step_aware=told)
    learners = {"generator": learner(generator), "fake": learner(fake)}
    step = dmd2.DMD2(*learners.values(), teacher, 4, settings, DIGITS.data())
    found = snapshot.take(naming(torch.zeros(40, dtype=torch.int64)), Training(learners, step),
                          Sampling("multistep", steps), n=40)
    z, label = drawn(0, 40, 1, 28, 28), torch.arange(40) % 10
    states = sample.multistep(generator.eval(), z, steps, label,
                              generator=noise.generator("pictures", 0, 1))
    with torch.no_grad():
        x = sample.last(states).clamp(-1, 1)
        t, eps = torch.arange(40) * 1024 // 40, drawn(3, 40, 1, 28, 28)
        test = DIGITS.data(False)
        real = test.pixels[:40] / 127.5 - 1
        last = 11 * (steps - 1) * told
        logits = [fake(S.noise(side, t, eps), t, labels + last, judge=True)
                  for side, labels in ((real, test.labels[:40]), (x, label))]
    torch.testing.assert_close(found.brightness, x.mean((1, 2, 3)), rtol=1e-3, atol=1e-5)
    wanted = 1 / (1 + torch.exp(-torch.stack(logits)))
    torch.testing.assert_close(found.discriminator, wanted, rtol=1e-3, atol=1e-4)


def test_the_fresh_noise_of_a_student_of_several_steps_is_not_what_it_started_from(monkeypatch):
    generator = tiny(1)
    seen = []
    honest = sample.renoise

    def renoise(table, x_s, s, t, g=None):
        x_t = honest(table, x_s, s, t, g)
        if t >= 0:
            alpha, sigma = table.at(t, x_s)
            seen.append((x_t - alpha * x_s) / sigma)
        return x_t

    monkeypatch.setattr(sample, "renoise", renoise)
    snapshot.take(naming(torch.zeros(20, dtype=torch.int64)),
                  training(generator, None, tiny(3)), Sampling("multistep", 4), n=20)
    z = drawn(0, 20, 1, 28, 28)
    assert len(seen) >= 3
    for fresh in seen[:3]:
        together = torch.corrcoef(torch.stack([fresh.flatten(), z.flatten()]))[0, 1]
        assert abs(together) < 0.05


def test_points_are_kept_as_they_are_and_without_classes():
    generator = dot_network()
    found = snapshot.take(DOTS, training(generator, dot_network(), dot_network()), ONE_STEP, n=20)
    z = drawn(0, 20, 2)
    with torch.no_grad():
        x = generator(z, 63).x
    torch.testing.assert_close(found.samples, x)
    assert found.samples.dtype == torch.float32 and found.classes.numel() == 0
