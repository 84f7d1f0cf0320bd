"""Lesson 03's checks: what learners get wrong, what is right as well, and the oracles."""
import pytest
import torch
from exercises import TestAnswers, first_case, verdict  # noqa: F401, collected here

from dmdkit import check, schedule, score
from dmdkit.experiments import lesson03
from dmdkit.methods import dmd

RIGHT = {
    "ex_3_1": ["(m_fake - x) / v_fake - (m_real - x) / v_real"],
    "ex_3_2": ["(alpha / sigma**2) * (mu_fake - mu_real)"],
    "ex_3_3": ["torch.cat([solved(x[k:k + 1], t[k:k + 1], eps[k:k + 1], real, fake, alpha, sigma) "
               "for k in range(len(x))])"],
    "ex_3_4": [
        "torch.nn.functional.mse_loss(x, (x - g).detach()) / 2",
        "(x * g.detach()).mean()",
        "0.5 * (x - (x.detach() - g.detach())).pow(2).sum() / x.numel()",
    ],
    "ex_3_5": ["torch.nn.functional.mse_loss(fake((a * generator(z) + s * eps).detach(), t), "
               "generator(z).detach())"],
}

COLUMN = """
def column(value):
    return value.reshape(-1, *[1] * (eps.ndim - 1))
"""
NOISED = """
def noised():
    return column(alpha[t]) * x + column(sigma[t]) * eps
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_3_3": COLUMN + NOISED,
    "ex_3_5": COLUMN + "a = column(alpha[t])\ns = column(sigma[t])",
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_3_1": {
        "-(x - m_real) / v_real + (x - m_fake) / v_fake": "sign is flipped",
        "-(x - m_fake) / v_fake ** 0.5 + (x - m_real) / v_real ** 0.5": "standard deviation",
        "(x - m_real) - (x - m_fake)": "variances are missing",
        "-(x - m_fake) / v_fake": "fake score alone",
        "(x - m_real) / v_real": "real score alone",
        "-(x - m_fake) / v_fake - (x - m_real) / v_real": "added",
        "x.sub_(m_fake).neg_().div_(v_fake) + (x - m_real) / v_real": "in place",
    },
    "ex_3_2": {
        "alpha * (mu_real - mu_fake) / sigma**2": "sign is flipped",
        "alpha * (mu_fake - mu_real) / sigma": "it is σ²",
        "(mu_fake - mu_real) / sigma**2": "α is missing",
        "alpha * (mu_fake - mu_real)": "σ² is missing",
        "mu_fake - mu_real": "turns it into",
        "sigma**2 / alpha * (mu_fake - mu_real)": "goes back",
    },
    "ex_3_3": {
        "-solved(x, t, eps, real, fake, alpha, sigma)": "sign is flipped",
        "fake(noised(), t) - real(noised(), t)": "not normalised",
        "(fake(noised(), t) - real(noised(), t)) / (x - real(noised(), t)).abs().mean()":
            "one number for the whole",
        "(fake(noised(), t) - real(noised(), t)) / (x - real(noised(), t)).abs()": "values are not",
        "solved(x, t, torch.randn_like(x), real, fake, alpha, sigma)": "same x_t",
        "solved(x, t, eps, real, fake, sigma, alpha)": "swapped",
        "(x - real(noised(), t)) / column((x - real(noised(), t)).abs().flatten(1).mean(1))":
            "fake score is missing",
        "alpha[t] * x": "reshape it",
        "solved(x, t, eps, real, fake, alpha, sigma)[0]": "should have shape",
    },
    "ex_3_4": {
        "0.5 * (x - (x - g)).square().mean()": "derivative is zero",
        "0.5 * (x - (x + g).detach()).square().mean()": "sign is flipped",
        "(x - (x - g).detach()).square().mean()": "½ is missing",
        "0.5 * (x - (x - g).detach()).square().sum()": "not the sum",
        "0.5 * (x - g).square().mean()": "pulls x towards g",
        "0.5 * (x.detach() - (x - g).detach()).square().mean()": "derivative by x is zero",
        "0.5 * g.square().mean().item()": "should be a tensor",
        "0.5 * (x - (x.detach() - g)).square().mean()": "half detached",
        "0.5 * (x.detach() - (x - g)).square().mean()": "wrong one",
        "(x * g).mean()": "g is attached too",
        "0.5 * (x - (x - g).detach()).square()": "one number, of shape ()",
    },
    "ex_3_5": {
        "(fake(a * generator(z) + s * eps, t) - generator(z)).square().mean()":
            "easy to denoise",
        "(fake(a * generator(z).detach() + s * eps, t) - generator(z)).square().mean()":
            "its target is not",
        "(fake(a * generator(z) + s * eps, t) - generator(z).detach()).square().mean()":
            "shown is not",
        "(fake(a * generator(z).detach() + s * eps, t) - eps).square().mean()": "target is ε",
        "(fake(generator(z).detach(), t) - generator(z).detach()).square().mean()": "clean samples",
        "solved(fake, generator, z, t, eps, alpha, sigma).detach()": "nothing learns",
        "solved(lambda x_t, t: fake(x_t, None), generator, z, t, eps, alpha, sigma)":
            "takes t as whole numbers",
        "solved(lambda x_t, t: fake(x_t, t / len(alpha)), generator, z, t, eps, alpha, sigma)":
            "takes t as whole numbers",
        "solved(lambda x_t, t: fake(x_t, alpha[t]), generator, z, t, eps, alpha, sigma)":
            "takes t as whole numbers",
        "solved(lambda x_t, t: fake(x_t, t[0]), generator, z, t, eps, alpha, sigma)":
            "takes t as whole numbers",
        "(fake(a * generator(z).detach() + s * eps, t) - generator(z).detach())**2":
            "one number, of shape ()",
        "0.5 * solved(fake, generator, z, t, eps, alpha, sigma)": "factor ½",
    },
}


def normal(mean: float, variance: float) -> score.GaussianMixture:
    return score.GaussianMixture(torch.tensor([[mean]]), torch.tensor([[[variance]]]),
                                 torch.ones(1))


def test_the_oracle_of_3_1_is_the_difference_of_two_scores_of_the_kit():
    x = torch.randn(9, 1, dtype=torch.float64)
    fake = normal(0.3, 0.5).denoise(x, 1.0, 1e-4)  # Tweedie, at next to no noise
    real = normal(-0.4, 2.0).denoise(x, 1.0, 1e-4)
    got = check.ex_3_1.oracle(x, 0.3, 0.5, -0.4, 2.0)
    torch.testing.assert_close(got, (fake - real) / 1e-8, rtol=1e-4, atol=1e-4)


def test_the_oracles_of_3_2_and_3_3_are_the_kits_own_gradient():
    s = schedule.cosine()
    x = torch.randn(6, 2)
    eps = torch.randn(6, 2)
    t = torch.randint(5, 900, (6,))
    x_t = s.noise(x, t, eps)
    alpha, sigma = s.at(t, x)
    wanted = dmd.matching_gradient(x, x_t.tanh(), 0.3 * x_t, alpha, sigma)
    got = check.ex_3_3.oracle(x, t, eps, lambda x_t, t: x_t.tanh(), lambda x_t, t: 0.3 * x_t,
                              s.alpha.float(), s.sigma.float())
    torch.testing.assert_close(got, wanted)
    wanted = dmd.matching_gradient(x, eps, x_t, alpha, sigma, "kl")
    torch.testing.assert_close(alpha * check.ex_3_2.oracle(eps, x_t, alpha, sigma), wanted)


def test_the_oracle_of_3_4_is_what_the_kits_loss_gives():
    x = torch.randn(4, 2, requires_grad=True)
    g = torch.randn(4, 2)
    wanted, = torch.autograd.grad(dmd.matching_loss(x, g), x)
    by_x, by_g = check.ex_3_4.oracle(x, g)
    torch.testing.assert_close(by_x, wanted)
    assert not by_g.any()


def test_the_oracle_of_3_5_is_what_autograd_makes_of_the_formula():
    def loss(fake, generator, z, t, eps, alpha, sigma):
        x = generator(z).detach()
        return (fake(alpha[t][:, None] * x + sigma[t][:, None] * eps, t) - x).square().mean()

    case = first_case(check.ex_3_5)
    torch.testing.assert_close(check.ex_3_5.oracle(*case), check.ex_3_5.probe(loss, *case))


@pytest.mark.parametrize("name, function", [
    ("ex_3_3", lesson03.dm_gradient), ("ex_3_4", dmd.matching_loss),
    ("ex_3_5", lesson03.fake_loss)])
def test_what_the_lessons_loop_runs_for_a_blank_exercise_is_right(name, function, capsys):
    assert verdict(name, function, capsys).startswith("✓")
