"""Students of several steps: backward simulation, what the fake score is told, their samples."""
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from diffusers import LCMScheduler
from oracles import FiniteData, Gaussian
from painters import (ALONE, S, Painter, Recorder, as_one_of, double, drawn,  # noqa: F401
                      generator, judged, noised, painted_images, painter)
from torch import Tensor

from dmdkit import data, nets, sample, schedule
from dmdkit.denoiser import Denoiser
from dmdkit.methods import dmd2

LABEL = torch.tensor([3, 7])


# Backward simulation

def uneven(x_t: Tensor, t: int, label: Tensor | None) -> SimpleNamespace:
    by_label = 1.0 if label is None else 1 + 0.5 * label.reshape(-1, 1, 1, 1)
    return SimpleNamespace(x=torch.tanh(by_label * x_t) + t / 1024)


def unrolled(z, label, times, exits, eps, denoiser=uneven) -> Tensor:
    """The student's own loop, a sample at a time."""
    ends = []
    for i, end in enumerate(exits):
        x_t, its = z[i:i + 1], None if label is None else label[i:i + 1]
        for k in range(end):
            x = denoiser(x_t, times[k], its).x
            x_t = noised(x, torch.tensor([times[k + 1]]), eps[k, i:i + 1])
        ends.append(x_t)
    return torch.cat(ends)


@pytest.mark.parametrize("times", [[1023, 511], [1023, 682, 340]])
@pytest.mark.parametrize("label", [None, torch.tensor([2, 0, 1, 1, 0, 2])])
def test_backward_simulation_is_the_students_loop_up_to_where_it_stops(double, times, label):
    n = len(times)
    assert S.steps(n).tolist() == times
    z, eps = torch.randn(6, 1, 2, 2), torch.randn(n - 1, 6, 1, 2, 2)
    exits = torch.tensor([1, 0, n - 1, 1, n - 1, 0])
    strength, given = torch.ones((), requires_grad=True), z.clone()

    def student(x_t, t, label):
        return SimpleNamespace(x=strength * uneven(x_t, t, label).x)

    found = dmd2.simulate(student, S, z, label, torch.tensor(times), exits, eps)
    torch.testing.assert_close(found, unrolled(z, label, times, exits.tolist(), eps))
    assert not found.requires_grad and torch.equal(z, given)
    assert torch.equal(found[exits == 0], z[exits == 0])
    assert not (found == z)[exits > 0].any()


TIMES = {4: [1023, 1023, 767, 767, 511, 511, 255, 255], 3: [1023] * 3 + [682] * 3 + [340] * 2}


def several(n: int, batch_size: int, images: data.Images | None = None,
            one: Recorder | None = None) -> dmd2.DMD2:
    """The step of a student of n steps whose fake score is told them, without a discriminator; from
    images where there are some."""
    one = one or Recorder(painter(0.5, 1))
    fake = Recorder(Denoiser(Painter(0.4, 2, 4 * n - 1), S, "x", n_classes=4 * n - 1))
    how = dmd2.Settings(student_steps=n, step_aware=True, backward_simulation=images is None)
    return dmd2.DMD2(one, fake, painter(0.6, 3), batch_size, how, images)


@pytest.mark.parametrize("n", TIMES)
def test_each_nth_of_a_batch_is_at_another_time_and_meets_what_the_student_makes(double, n):
    z, label, g = torch.randn(8, 1, 2, 2), torch.arange(8) % 3, generator(5)
    step = several(n, 8)
    b = step.generator.net.net.b.detach()
    x_t, t, same, told = step.inputs(z, label, generator(5))
    times = sorted(set(TIMES[n]), reverse=True)
    places = [times.index(at) for at in TIMES[n]]
    assert t.tolist() == TIMES[n] and torch.equal(same, label)
    assert torch.equal(told, label + 4 * torch.tensor(places))

    def own(x_t, t, label):
        return SimpleNamespace(x=0.5 * x_t + b[label])

    eps = torch.randn(n - 1, 8, 1, 2, 2, generator=g)
    torch.testing.assert_close(x_t, unrolled(z, label, times, places, eps, own))


@pytest.mark.parametrize("backward_simulation", [True, False])
def test_a_student_of_several_steps_is_trained_where_it_is_used(double, backward_simulation):
    """A step by hand: x = a x_t + b[label] at inputs through which no gradient goes."""
    one, other, teacher, step = judged(4, **ALONE, student_steps=2, weighting="none",
                                     backward_simulation=backward_simulation)
    at, honest = [], one.model.forward

    def noting(x_t, t, label):
        at.append(torch.as_tensor(t).tolist())
        return honest(x_t, t, label)

    one.model.forward = noting
    step(generator(3))
    g, b = generator(3), one.net.net.b.detach()
    z, eps, label, t = drawn(g, 4, 20, 1004)
    if backward_simulation:
        fresh = torch.randn(1, 4, 1, 2, 2, generator=g)[0]
        x_t = torch.cat([z[:2], noised(0.5 * z + b[label], torch.full((4,), 511), fresh)[2:]])
    else:
        images, index = painted_images(), torch.randint(7, (4,), generator=g)
        label = images.labels[index]
        x_t = noised(images.pixels[index] / 127.5 - 1, torch.tensor([1023, 1023, 511, 511]), z)
    x = 0.5 * x_t + b[label]
    x_s = noised(x, t, eps)
    mu_fake = 0.4 * x_s + other.net.net.b.detach()[label]
    gradient = (mu_fake - 0.6 * x_s - teacher.net.b.detach()[label]) / 16
    to_a, to_b = one.gradients[0]
    near = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)
    near(to_a, (gradient * x_t).sum())
    near(to_b, torch.zeros(4, 1, 2, 2).index_add(0, label, gradient))
    used = [1023, 1023, 511, 511]
    assert at == ([1023, used] if backward_simulation else [used]) * 2


@pytest.mark.parametrize("backward_simulation", [True, False])
def test_a_fake_score_that_is_aware_is_told_the_step_of_every_sample_and_nobody_else_is(
        double, backward_simulation):
    one, other, teacher, step = judged(4, labels=7, student_steps=2, step_aware=True,
                                     backward_simulation=backward_simulation)
    step(generator(3))
    its, shift = torch.tensor(one.net.net.asked[-1]), torch.tensor([0, 0, 4, 4])
    assert max(max(label) for net in (one.net, teacher) for label in net.net.asked) < 3
    at_matching, at_denoising = (torch.tensor(label) for label in other.net.net.asked)
    assert torch.equal(at_matching, torch.tensor(teacher.net.asked[0]) + shift)
    assert torch.equal(at_denoising, its + shift)
    (_, _, at_gan), (_, _, at_discriminator) = other.net.judged
    fake, real = at_discriminator.chunk(2)
    assert torch.equal(at_gan, at_matching) and torch.equal(fake, at_denoising)
    assert torch.equal(real // 4 * 4, shift) and not torch.equal(real, fake)


@pytest.mark.parametrize("images", [None, painted_images()], ids=["simulated", "real"])
def test_processes_share_a_batch_of_several_steps(double, images):
    z, label = torch.randn(8, 1, 2, 2), torch.arange(8) % 3
    whole = several(4, 8, images).inputs(z, label, generator(5))
    for index in (0, 1):
        share = slice(index, None, 2)
        step = several(4, 8, images, as_one_of(2, index, painter(0.5, 1)))
        found = step.inputs(z[share], label[share], generator(5))
        for part, wanted in zip(found, whole):
            torch.testing.assert_close(part, wanted[share])


# Samples of several steps

def lcm(denoiser: Denoiser, z: Tensor, n: int) -> tuple[Tensor, list[int]]:
    """diffusers' own loop with its LCMScheduler."""
    scheduler = LCMScheduler(1024, trained_betas=S.betas().tolist(),
                             prediction_type="v_prediction", original_inference_steps=4,
                             timestep_scaling=1e6)  # no part of x_t in the prediction
    scheduler.set_timesteps(n)
    x, g = z, generator()
    with torch.no_grad():
        for t in scheduler.timesteps:
            out = denoiser.net(x, t.expand(len(x)), class_labels=LABEL).sample
            x = scheduler.step(out, t, x, generator=g).prev_sample
    return x, scheduler.timesteps.tolist()


@pytest.mark.parametrize("n, times", [(1, [1023]), (2, [1023, 511]), (4, [1023, 767, 511, 255])])
def test_multistep_draws_what_diffusers_lcm_scheduler_draws_with_the_same_noise(n, times):
    torch.manual_seed(0)
    denoiser = Denoiser(nets.unet((1, 8, 8), (8, 16), n_classes=10), S, "v").eval()
    z = torch.randn(2, 1, 8, 8)
    states = list(sample.multistep(denoiser, z, n, LABEL, generator=generator()))
    theirs, their_times = lcm(denoiser, z, n)
    assert [state.t for state in states] == their_times == times
    torch.testing.assert_close(states[-1].x, theirs, rtol=1e-4, atol=1e-4)


def test_multistep_of_one_step_is_the_generator_and_of_more_repeats_itself_with_its_seed(tiny):
    z = torch.randn(2, 1, 28, 28)
    one = sample.last(sample.multistep(tiny, z, 1, LABEL))
    assert torch.equal(one.clamp(-1, 1), tiny.generate(z, LABEL))
    clipped = sample.multistep(tiny, 3 * z, 4, LABEL, generator=generator(), clip=True)
    assert all(state.x0.abs().max() <= 1 for state in clipped)

    def draw(seed):
        return sample.last(sample.multistep(tiny, z, 4, LABEL, generator=generator(seed)))

    assert torch.equal(draw(1), draw(1)) and not torch.allclose(draw(1), draw(2), atol=1e-2)


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("sch", [S, schedule.flow(1024)], ids=["cosine", "flow"])
def test_multistep_with_an_exact_denoiser_ends_in_a_lone_point(n, sch):
    point = torch.tensor([[-0.9, 0.6]])
    net = FiniteData(point, torch.ones(1), torch.zeros(1, dtype=torch.int64), sch, kind="x")
    x = sample.last(sample.multistep(Denoiser(net, sch, "x"), torch.randn(5, 2, 1, 1), n))
    torch.testing.assert_close(x.flatten(1), point.expand(5, 2), rtol=1e-4, atol=1e-4)


def test_multistep_draws_from_a_gaussian_what_two_calls_can_draw():
    """From x̂ = M, noised to t = 511 where α = σ, the mean of x given x_t has standard deviation
    S²/(1 + S²)."""
    exact = Denoiser(Gaussian(0.25, 0.4, S), S, "v")
    z = torch.randn(20_000, 1, 1, 1)
    x = sample.last(sample.multistep(exact, z, 2, generator=generator()))
    wanted = 0.4**2 / (1 + 0.4**2)
    assert x.mean().item() == pytest.approx(0.25, abs=4 * wanted / math.sqrt(20_000))
    assert x.std().item() == pytest.approx(wanted, rel=4 / math.sqrt(40_000))
