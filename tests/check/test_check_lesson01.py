"""Lesson 01's checks: what learners get wrong, what is right as well, and the oracles."""
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from exercises import TestAnswers, first_case  # noqa: F401, collected here

from dmdkit import check, schedule
from dmdkit.methods import ddpm

RIGHT = {
    "ex_1_1": [
        "torch.einsum('b,b...->b...', alpha[t], x) + torch.einsum('b,b...->b...', sigma[t], eps)",
        "torch.stack([alpha[k] * a + sigma[k] * e for k, a, e in zip(t, x, eps)])",
        "solved(x.double(), t, eps.double(), alpha.double(), sigma.double())",
    ],
    "ex_1_2": [
        "torch.nn.functional.mse_loss(model(x_t, t, label).v, v)",
        "((a * x_t - s * model(x_t, t, label).v - x) / s).square().mean()",
    ],
    "ex_1_3": [  # the two sources averaged with their inverse variances, as the lesson derives it
        "(alpha[s] * x0 / sigma[s]**2 + x_t * r / fresh) / (1 / sigma[s]**2 + r**2 / fresh)",
    ],
}
BEFORE = {
    "ex_1_2": "a = alpha[t].reshape(-1, 1, 1, 1)\ns = sigma[t].reshape(-1, 1, 1, 1)\n"
              "x_t = a * x + s * eps\nv = a * eps - s * x",
    "ex_1_3": "r = alpha[t] / alpha[s]\nfresh = sigma[t]**2 - r**2 * sigma[s]**2",
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_1_1": {
        "sigma[t].reshape(-1, 1, 1, 1) * x + alpha[t].reshape(-1, 1, 1, 1) * eps": "swapped",
        "alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1).pow(2) * eps": "variance",
        "alpha[t].view(-1, 1, 1, 1) * x + eps": "unscaled",
        "x + sigma[t].view(-1, 1, 1, 1) * eps": "never leaves",
        "alpha[t][:, None, None, None] * x - sigma[t][:, None, None, None] * eps": "sign",
        "alpha[t] * x + sigma[t] * eps": "last axis",
        "alpha[t[0]] * x + sigma[t[0]] * eps": "the first one",
        "alpha[t - 1].view(-1, 1, 1, 1) * x + sigma[t - 1].view(-1, 1, 1, 1) * eps": "off by one",
        "alpha[t].view(-1, 1, 1, 1)**0.5 * x + (1 - alpha[t].view(-1, 1, 1, 1))**0.5 * eps":
            "x is multiplied by",
        "alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * torch.randn_like(x)":
            "random",
        "x.mul_(alpha[t].view(-1, 1, 1, 1)).add_(sigma[t].view(-1, 1, 1, 1) * eps)": "in place",
        "alpha * x + sigma * eps": "reshape",
        "(alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * eps)[0]":
            "should have shape",
        "float(x.mean())": "should be a tensor",
        "x / 0": "division by zero",
        "undefined": "NameError",
    },
    "ex_1_2": {
        "(model(x_t, t, label).v - (a * eps - s * x_t)).square().mean()": "the bug itself",
        "(model(x, t, label).v - v).square().mean()": "nothing to denoise",
        "(model(s * x + a * eps, t, label).v - v).square().mean()": "swapped in x_t",
        "(model(a * x + s**2 * eps, t, label).v - v).square().mean()": "squared in x_t",
        "(model(x_t, t, label).v - x).square().mean()": "target is x",
        "(model(x_t, t, label).v - eps).square().mean()": "target is ε",
        "(model(x_t, t, label).v + v).square().mean()": "sign of v",
        "(model(x_t, t, label).v - (a * eps + s * x)).square().mean()": "plus in v",
        "(model(x_t, t, label).v - (s * eps - a * x)).square().mean()": "swapped in v",
        "(a * x_t - s * model(x_t, t, label).v - x).square().mean()": "predictions of x",
        "(model(x_t, t, None).v - v).square().mean()": "not told the label",
        "solved(model, x, label, t, eps, alpha, sigma).detach()": "Nothing learns",
        "(model(x_t, t, label).v - v).square().sum()": "not the sum",
        "0.5 * (model(x_t, t, label).v - v).square().mean()": "factor ½",
        "(model(x_t, t, label).v - v).square().flatten(1).mean(1)":
            "one number, of shape (); yours has shape (5,)",
        "solved(model, x, label, t, torch.randn_like(x), alpha, sigma)": "fresh noise",
        "model(alpha[t] * x + sigma[t] * eps, t, label).v": "reshape it",
    },
    "ex_1_3": {
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x0 + alpha[s] * (1 - (alpha[t] / "
        "alpha[s] * sigma[s] / sigma[t])**2) * x_t": "swapped",
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x_t + (1 - (alpha[t] / alpha[s] * "
        "sigma[s] / sigma[t])**2) * x0": "α_s is missing",
        "sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * (1 - (alpha[t] / alpha[s] * sigma[s] / "
        "sigma[t])**2) * x0": "missing from the weight of x_t",
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * (sigma[t]**2 - "
        "sigma[s]**2) / sigma[t]**2 * x0": "r² is missing",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]": "DDIM",
        "(alpha[s] * x0 / sigma[s]**2 + x_t / (alpha[t] / alpha[s]) * (fresh := (alpha[t] / "
        "alpha[s])**2 / (sigma[t]**2 - (alpha[t] / alpha[s] * sigma[s])**2))) / (1 / sigma[s]**2 + "
        "fresh)": "does not divide by r",
        "alpha[s] * x0": "alone",
        "solved(x_t, x0, t, t - 1, alpha, sigma)": "in place of s",
        "solved(x_t, x0, s, t, alpha, sigma)": "exchanged",
        "solved(x_t, x0, t, s, alpha, sigma) + torch.randn_like(x0)": "random",
    },
    "ex_1_4": {
        "alpha[s] * x0 + sigma[s] * torch.randn_like(x0)": "fresh noise",
        "alpha[t] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]": "used α_t",
        "alpha[s] * x0 + sigma[t] * (x_t - alpha[t] * x0) / sigma[t]": "by the same one",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[s]": "Divide by σ_t",
        "alpha[s] * x0": "noise is missing",
        "alpha[s] * x0 + sigma[s] * x_t": "x_t itself",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0)": "not divided",
        "alpha[s] * x0 + sigma[s] * (x_t - x0) / sigma[t]": "α_t is missing",
        "x_t": "x_t again",
        "solved(x_t, x0, t, t - 1, alpha, sigma)": "in place of s",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[s] * x0) / sigma[s]": "x_t again",
        "posterior_mean(x_t, x0, t, s, alpha, sigma)": "posterior's mean",
    },
}


def tables(s: schedule.Schedule):
    return s.alpha.float(), s.sigma.float()


def test_the_oracle_of_1_1_is_diffusers_add_noise():
    s = schedule.linear()
    x = torch.randn(6, 1, 4, 4)
    eps = torch.randn(6, 1, 4, 4)
    t = torch.randint(400, (6,))
    theirs = DDPMScheduler(400, trained_betas=s.betas().tolist()).add_noise(x, eps, t)
    got = check.ex_1_1.oracle(x, t, eps, *tables(s))
    torch.testing.assert_close(got, theirs, atol=1e-5, rtol=1e-5)


def test_the_oracle_of_1_2_is_what_autograd_makes_of_the_kits_loss():
    def loss(model, x, label, t, eps, alpha, sigma):
        table = schedule.Schedule("", alpha, sigma)
        return ddpm.denoising_loss(model, table, "v", x, eps, t, label).mean()

    case = first_case(check.ex_1_2)
    torch.testing.assert_close(check.ex_1_2.oracle(*case), check.ex_1_2.probe(loss, *case))


def test_the_oracle_of_1_4_is_diffusers_ddim():
    s = schedule.linear()
    scheduler = DDIMScheduler(400, trained_betas=s.betas().tolist(), prediction_type="sample",
                              clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    x_t = torch.randn(2, 1, 4, 4)
    x0 = torch.randn(2, 1, 4, 4)
    theirs = scheduler.step(x0, 399, x_t).prev_sample
    got = check.ex_1_4.oracle(x_t, x0, 399, 379, *tables(s))
    torch.testing.assert_close(got, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t, s", [(1023, 700), (700, 400), (400, 399), (50, 0)])
def test_the_oracle_of_1_3_is_the_mean_of_bayes_rule_on_a_grid(t, s):
    cosine = schedule.cosine()
    alpha = cosine.alpha.numpy()
    sigma = cosine.sigma.numpy()
    x, x_t = 0.7, -0.4
    grid = alpha[s] * x + sigma[s] * np.linspace(-9, 9, 200_001)
    r = alpha[t] / alpha[s]
    fresh = sigma[t]**2 - r**2 * sigma[s]**2
    log_prior = -(grid - alpha[s] * x)**2 / (2 * sigma[s]**2)
    log_density = log_prior - (x_t - r * grid)**2 / (2 * fresh)
    weight = np.exp(log_density - log_density.max())
    want = (weight * grid).sum() / weight.sum()
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    got = check.ex_1_3.oracle(x_t * one, x * one, t, s, cosine.alpha, cosine.sigma)
    assert got.item() == pytest.approx(want, abs=1e-6)
