"""Lesson 04's checks, scores: what learners get wrong, what is right as well, and the oracles."""
from types import SimpleNamespace

import pytest
import torch
from exercises import TestAnswers, first_case, verdict  # noqa: F401, collected here

from dmdkit import check, schedule
from dmdkit.experiments import lesson04
from dmdkit.methods import ddpm, dmd

RIGHT = {
    "ex_4_3": ["(fake(x_t, t, label) - guided(real)) / size(guided(real))"],
    "ex_4_5": ["((fake(x_t, t, label) - (a * eps - s * x.detach()))**2).flatten(1).mean(1).mean()"],
}

COLUMN = """
def column(value):
    return value.reshape(-1, 1, 1, 1)

a = column(alpha[t])
s = column(sigma[t])
"""
GUIDED = """
x_t = a * x + s * eps
none = torch.full_like(label, no_class)

def size(mean):
    return column((x - mean).abs().flatten(1).mean(1))

def guided(net):
    return net(x_t, t, label) + w * (net(x_t, t, label) - net(x_t, t, none))
"""
SAMPLED = """
x = generate(z, label)
x_t = (a * x + s * eps).detach()
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_4_3": COLUMN + GUIDED,
    "ex_4_5": COLUMN + SAMPLED,
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_4_3": {
        "(guided(fake) - guided(real)) / size(guided(real))": "fake score is guided too",
        "(guided(fake) - real(x_t, t, label)) / size(real(x_t, t, label))":
            "in place of the real one",
        "(fake(x_t, t, label) - real(x_t, t, label)) / size(real(x_t, t, label))":
            "guidance is left out",
        "solved(x, t, eps, label, real, fake, w - 1, no_class, alpha, sigma)": "other convention",
        "solved(x, t, eps, label, real, fake, -1 - w, no_class, alpha, sigma)":
            "exchanged their roles",
        "solved(x, t, eps, label, real, fake, -w, no_class, alpha, sigma)": "sign of the guidance",
        "(fake(x_t, t, label) - w * (real(x_t, t, label) - real(x_t, t, none))) / size(w * "
        "(real(x_t, t, label) - real(x_t, t, none)))": "1 is missing",
        "(fake(x_t, t, label) - real(x_t, t, none)) / size(real(x_t, t, none))":
            "without class only",
        "(fake(x_t, t, None) - real(x_t, t, none)) / size(real(x_t, t, none))": "left out of both",
        "(fake(x_t, t, none) - guided(real)) / size(guided(real))":
            "fake score was asked without class",
        "(fake(x_t, t, label) - guided(real)) / size(real(x_t, t, label))": "*unguided*",
        "solved(x, t, eps, label, real, fake, w, 0, alpha, sigma)": "digit zero",
        "solved(x, t, eps, label, real, fake, w, 10, alpha, sigma)": "use no_class",
        "-solved(x, t, eps, label, real, fake, w, no_class, alpha, sigma)": "sign is flipped",
        "fake(x_t, t, label) - guided(real)": "not normalised",
        "(fake(x_t, t, label) - guided(real)) / (x - guided(real)).abs().mean()":
            "one number for the whole",
        "solved(x, t, eps, label, real, fake, w, no_class, sigma, alpha)": "swapped",
        "a * solved(x, t, eps, label, real, fake, w, no_class, alpha, sigma)": "paper's weighting",
        "solved(x, t, torch.randn_like(x), label, real, fake, w, no_class, alpha, sigma)":
            "same x_t",
        "fake(x_t, t, label) - real(x_t, t, no_class)": "whole numbers",
        "fake(alpha[t] * x + sigma[t] * eps, t, label)": "reshape it",
        "(fake(x_t, t, label) - guided(real)) / (x - guided(real)).abs().mean((1, 2, 3))":
            "reshape it",
    },
    "ex_4_5": {
        "(fake(a * x + s * eps, t, label) - (a * eps - s * x)).square().mean()":
            "samples are not detached",
        "(fake(a * x.detach() + s * eps, t, label) - (a * eps - s * x)).square().mean()":
            "x in x_t is,",
        "(fake(a * x + s * eps, t, label) - (a * eps - s * x).detach()).square().mean()":
            "x in the target v is,",
        "solved(fake, generate, z, label, t, eps, alpha, sigma).detach()": "Nothing learns",
        "(fake(x_t, t, label) - x.detach()).square().mean()": "target is x",
        "(fake(x_t, t, label) - eps).square().mean()": "target is ε",
        "(fake(x_t, t, label) + (a * eps - s * x.detach())).square().mean()": "sign of v",
        "(fake(x_t, t, label) - (a * eps + s * x.detach())).square().mean()": "plus in v",
        "(fake(x_t, t, label) - (s * eps - a * x.detach())).square().mean()": "swapped in v",
        "(a * x_t - s * fake(x_t, t, label) - x.detach()).square().mean()": "before comparing",
        "(fake(x_t, t) - (a * eps - s * x.detach())).square().mean()": "not told the label",
        "solved(fake, lambda z, label: generate(z), z, label, t, eps, alpha, sigma)":
            "generator is not told",
        "solved(lambda x_t, t, label: fake(x_t, t), lambda z, label: generate(z), z, label, t, "
        "eps, alpha, sigma)": "left out twice",
        "(fake(x.detach(), t, label) - (a * eps - s * x.detach())).square().mean()":
            "clean samples",
        "(fake(s * x.detach() + a * eps, t, label) - (a * eps - s * x.detach())).square().mean()":
            "swapped in x_t",
        "solved(fake, generate, z, label, t, z, alpha, sigma)": "noise that they were made of",
        "(fake(x_t, t, label) - (a * eps - s * x.detach())).square().sum()": "not the sum",
        "0.5 * solved(fake, generate, z, label, t, eps, alpha, sigma)": "factor ½",
        "(fake(x_t, t, label) - (a * eps - s * x.detach())).square().flatten(1).mean(1)":
            "one number, of shape (); yours has shape (5,)",
        "solved(fake, generate, z, label, t, torch.randn_like(z), alpha, sigma)": "fresh noise",
        "fake(alpha[t] * x + sigma[t] * eps, t, label)": "reshape it",
    },
}


def test_the_oracle_of_4_5_is_what_autograd_makes_of_the_kits_loss():
    def loss(fake, generate, z, label, t, eps, alpha, sigma):
        def model(x_t, t, label):
            return SimpleNamespace(v=fake(x_t, t, label))

        x = generate(z, label).detach()
        table = schedule.Schedule("", alpha, sigma)
        return ddpm.denoising_loss(model, table, "v", x, eps, t, label).mean()

    case = first_case(check.ex_4_5)
    torch.testing.assert_close(check.ex_4_5.oracle(*case), check.ex_4_5.probe(loss, *case))


@torch.no_grad()
def test_the_oracle_of_4_3_is_the_kits_gradient_with_a_guided_denoiser(tiny):
    s = tiny.schedule
    w = 0.7
    x, eps = torch.randn(2, 3, 1, 28, 28)
    t = torch.tensor([5, 400, 900])
    label = torch.tensor([7, 0, 3])
    x_t = s.noise(x, t, eps)

    def real(x_t, t, label):
        return tiny(x_t, t, label).x

    def fake(x_t, t, label):
        return 0.1 * x_t + label.reshape(-1, 1, 1, 1)

    wanted = dmd.matching_gradient(x, tiny(x_t, t, label, guidance=w).x, fake(x_t, t, label),
                                   *s.at(t, x))
    got = check.ex_4_3.oracle(x, t, eps, label, real, fake, w, tiny.n_classes,
                              s.alpha.float(), s.sigma.float())
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name, function", [
    ("ex_4_1", lesson04.pair_batch), ("ex_4_2", lesson04.regression_loss),
    ("ex_4_3", lesson04.guided_gradient), ("ex_4_4", lesson04.regression_weight),
    ("ex_4_5", lesson04.fake_loss)])
def test_what_the_lessons_loop_runs_for_a_blank_exercise_is_right(name, function, capsys):
    assert verdict(name, function, capsys).startswith("✓")
