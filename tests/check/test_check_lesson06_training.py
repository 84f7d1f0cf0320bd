"""Lesson 06's checks, training: what learners get wrong, what is right as well, and the oracles."""
from types import SimpleNamespace

import pytest
import torch
from exercises import TestAnswers, first_case  # noqa: F401, collected here

from dmdkit import check, schedule
from dmdkit.methods import dmd2

RIGHT = {
    "ex_6_3": [
        "float(share * M / N)",
        "np.float32(float(share * M / N))",
        "np.float64(float(share * M / N))",
        "(share * M / N).double()",
    ],
    "ex_6_4": ["walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) + sigma[k + 1] * eps[k])"],
}

GRADIENTS = """
import numpy as np
m = torch.autograd.grad(matching, x, retain_graph=True)[0]
n = torch.autograd.grad(gan, x, retain_graph=True)[0]

def length(gradient):
    return gradient.flatten(1).norm(dim=1).mean()

M = length(m)
N = length(n)
"""
WALK = """
from functools import reduce

def net(x, k):
    return student(x, k).detach()

def walk(step):
    return reduce(step, range(len(alpha) - 1), z)
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_6_3": GRADIENTS,
    "ex_6_4": WALK,
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_6_3": {
        "share * length(torch.autograd.grad(matching, x)[0]) / length(torch.autograd.grad(gan, "
        "x)[0])": "retain_graph",
        "share * M / length(torch.autograd.grad(gan, x)[0])": "retain_graph",
        "(torch.autograd.grad(gan, x), torch.autograd.grad(gan, x))": "retain_graph",
        "(matching.backward(retain_graph=True), share * M / N)[1]": "leaves its gradient",
        "share * N / M": "upside down",
        "1 / solved(x, matching, gan, share)": "1/w",
        "M / N": "share is not used",
        "M / N / share": "divided by share",
        "share * matching / gan": "ratio of the two *losses*",
        "share * matching.item() / gan.item()": "ratio of the two *losses*",
        "share * m.norm() / n.norm()": "one norm over the whole batch",
        "share * m.abs().mean() / n.abs().mean()": "mean absolute",
        "share * m.flatten(1).square().sum(1).mean() / n.flatten(1).square().sum(1).mean()":
            "squared",
        "share * (m.flatten(1).norm(dim=1) / n.flatten(1).norm(dim=1)).mean()":
            "all images' ratios",
        "share * m.flatten(1).norm(dim=1) / n.flatten(1).norm(dim=1)": "one weight an image",
        "(share * M / N)[None]": "one number",
        "share * M / N + 1": "values are not",
        "str(share)": "should be a tensor",
        "share * length(torch.autograd.grad(matching, x, create_graph=True)[0]) / N":
            "attached to the losses",
        "share * torch.autograd.grad(matching, x, retain_graph=True).norm()": "AttributeError",
    },
    "ex_6_4": {
        "student(solved(student, alpha, sigma, z, eps), len(alpha) - 1)": "attached to the student",
        "walk(lambda x_t, k: alpha[k + 1] * student(x_t, k) + sigma[k + 1] * eps[k])":
            "attached to the student",
        "walk(lambda x_t, k: sigma[k + 1] * student(x_t, k) + eps[k])": "attached to the student",
        "walk(lambda x_t, k: alpha[k] * net(x_t, k) + sigma[k] * eps[k])": "where the step began",
        "net(solved(student, alpha, sigma, z, eps), len(alpha) - 1)": "one call too many",
        "net(solved(student, alpha[:-1], sigma[:-1], z, eps), len(alpha) - 2) if len(eps) else z":
            "of the last call",
        "solved(student, alpha[:-1], sigma[:-1], z, eps)": "too few",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) + sigma[k + 1] * z)": "z again",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) + sigma[k + 1] * (x_t - alpha[k] * "
        "net(x_t, k)) / sigma[k])": "DDIM",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) + sigma[k + 1] * eps[0])": "same noise",
        "solved(student, sigma, alpha, z, eps)": "exchanged",
        "solved(student, torch.ones_like(alpha), sigma, z, eps)": "α is missing",
        "solved(student, alpha, torch.ones_like(alpha), z, eps)": "σ is missing",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k))": "noise is missing",
        "walk(net)": "fed x̂ back",
        "walk(lambda x_t, k: alpha[k + 1] * z + sigma[k + 1] * eps[k])": "You noised z.",
        "walk(lambda x_t, k: alpha[k + 1] * x_t + sigma[k + 1] * eps[k])": "state before",
        "solved(lambda x, k: student(x, 0), alpha, sigma, z, eps)": "k = 0",
        "solved(lambda x, k: student(x, k + 1), alpha, sigma, z, eps)": "k + 1",
        "solved(lambda x, k: student(z, k), alpha, sigma, z, eps)": "shown z",
        "solved(student, alpha, sigma, z, torch.randn_like(eps))": "its own noise",
        "solved(student, alpha, sigma, z, eps)[0]": "shape of z",
        "[z]": "should be a tensor",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) - sigma[k + 1] * eps[k])": "values are not",
        "walk(lambda x_t, k: x_t.mul_(0).add_(alpha[k + 1] * net(x_t, k)).add_(sigma[k + 1] * "
        "eps[k]))": "values are",
    },
}


def test_the_oracle_of_6_3_is_the_kits_weight():
    case = first_case(check.ex_6_3)
    assert check.ex_6_3.probe(dmd2.matched_weight, *case) == pytest.approx(
        float(check.ex_6_3.oracle(*case)), rel=1e-5)


def test_the_oracle_of_6_4_is_the_kits_backward_simulation():
    student, alpha, sigma, z, eps = first_case(check.ex_6_4)
    last = len(alpha) - 1

    def denoiser(x_t, t, label):
        return SimpleNamespace(x=student(x_t, last - t))

    table = schedule.Schedule("", alpha.flip(0), sigma.flip(0))
    got = dmd2.simulate(denoiser, table, z, None, torch.arange(last, -1, -1),
                        torch.full((len(z),), last), eps)
    torch.testing.assert_close(check.ex_6_4.oracle(student, alpha, sigma, z, eps), got)
