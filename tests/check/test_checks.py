"""The exercises' checks: they accept the lesson's solution, reject the stub, and know the usual mistakes by name. And
every picture of the lessons, at the corners of its values."""
import io
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from matplotlib.figure import Figure

from dmdkit import (check, dmd, dmd_2d, fields, plots, plots_2d, plots_dmd, plots_dmd2, plots_mnist, plots_progressive,
                    progressive, sample, schedule, score, train)
from dmdkit.check.harness import Exercise
from dmdkit.pairs import Pairs

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
EXERCISES = {name: getattr(check, name) for name in check.__all__ if isinstance(getattr(check, name), Exercise)}


def nbgrader_cells(graded: bool) -> dict[str, str]:
    """Source by grade_id, of all lessons: the cells that learners write, or the ones that check them."""
    found = {}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            meta = cell.metadata.get("nbgrader")
            if meta and meta["grade"] == graded:
                assert meta["grade_id"] not in found, f"{path.name} repeats grade_id {meta['grade_id']}"
                found[meta["grade_id"]] = cell.source
    return found


def run(source: str):
    """The function that a cell defines."""
    scope = {"torch": torch}
    exec(source, scope)
    return scope[re.search(r"^def (\w+)", source, re.M).group(1)]


def stub(source: str, body: str) -> str:
    """The cell as a learner finds it: what nbgrader puts in place of the solution."""
    new, n = re.subn(r"( *)### BEGIN SOLUTION.*?### END SOLUTION", rf"\1{body}", source, flags=re.S)
    assert n == 1
    return new


def verdict(name: str, function, capsys) -> str:
    """What a learner reads at the end of a check."""
    EXERCISES[name](function)
    return capsys.readouterr().out.rstrip().splitlines()[-1].strip()


@pytest.fixture(autouse=True)
def lesson(monkeypatch):
    """As in a lesson: not under nbgrader."""
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


def test_every_exercise_of_the_lessons_has_its_check_and_the_reverse():
    solutions, checks = nbgrader_cells(graded=False), nbgrader_cells(graded=True)
    assert set(solutions) == set(EXERCISES)
    for name, source in solutions.items():
        function = re.search(r"^def (\w+)", source, re.M).group(1)
        assert checks[name.replace("ex_", "check_")] == f"check.{name}({function})"


@pytest.mark.parametrize("name", EXERCISES)
def test_a_check_accepts_the_lessons_solution(name, capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")  # so that a rejection raises
    assert verdict(name, run(nbgrader_cells(graded=False)[name]), capsys).startswith("✓")


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("body, said", [("raise NotImplementedError()", "Not written yet"),
                                        ("# YOUR CODE HERE\n    raise NotImplementedError()", "Not written yet"),
                                        ("pass", "returned None")])
def test_a_check_rejects_the_untouched_stub_and_raises_only_under_nbgrader(name, body, said, capsys, monkeypatch):
    function = run(stub(nbgrader_cells(graded=False)[name], body))
    assert said in verdict(name, function, capsys)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(check.CheckFailed, match=said):
        EXERCISES[name](function)


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
        "alpha[t].view(-1, 1, 1, 1) ** 0.5 * x + (1 - alpha[t].view(-1, 1, 1, 1)) ** 0.5 * eps": "term by term",
        "alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * torch.randn_like(x)": "random",
        "x.mul_(alpha[t].view(-1, 1, 1, 1)).add_(sigma[t].view(-1, 1, 1, 1) * eps)": "in place",
        "alpha * x + sigma * eps": "reshape",
        "(alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * eps)[0]": "should have shape",
        "float(x.mean())": "return a tensor",
        "x / 0": "division by zero",
        "undefined": "NameError",
    },
    "ex_1_2": {
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x0 + alpha[s] * (1 - (alpha[t] / alpha[s] * sigma[s] / "
        "sigma[t])**2) * x_t": "swapped",
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x_t + (1 - (alpha[t] / alpha[s] * sigma[s] / sigma[t])**2)"
        " * x0": "α_s is missing",
        "sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * (1 - (alpha[t] / alpha[s] * sigma[s] / sigma[t])**2) * x0":
            "missing from the weight of x_t",
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * (sigma[t]**2 - sigma[s]**2) / sigma[t]**2"
        " * x0": "r² is missing",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]": "DDIM",
        "alpha[s] * x0": "alone",
        "solved(x_t, x0, t, t - 1, alpha, sigma)": "in place of s",
        "solved(x_t, x0, s, t, alpha, sigma)": "exchanged",
        "solved(x_t, x0, t, s, alpha, sigma) + torch.randn_like(x0)": "random",
    },
    "ex_1_3": {
        "alpha[s] * x0 + sigma[s] * torch.randn_like(x0)": "fresh noise",
        "alpha[t] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]": "used α_t",
        "alpha[s] * x0 + sigma[t] * (x_t - alpha[t] * x0) / sigma[t]": "used σ_t",
        "alpha[s] * x0": "noise is missing",
        "alpha[s] * x0 + sigma[s] * x_t": "x_t itself",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0)": "not divided",
        "alpha[s] * x0 + sigma[s] * (x_t - x0) / sigma[t]": "α_t is missing",
        "x_t": "x_t again",
        "solved(x_t, x0, t, t - 1, alpha, sigma)": "in place of s",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[s] * x0) / sigma[s]": "where it was",
        "sample.posterior(schedule.Schedule('', alpha, sigma), x_t, x0, t, s)[0]": "posterior's mean",
    },
    "ex_1_4": {
        "(1 + w) * without - w * with_label": "swapped",
        "w * with_label + (1 - w) * without": "other convention",
        "without + w * (with_label - without)": "other convention",
        "(1 - w) * with_label + w * without": "sign is flipped",
        "(1 + w) * with_label + w * without": "plus",
        "w * with_label - w * without": "1 is missing",
        "(1 + w) * with_label - without": "w is missing",
        "(1 + w) * with_label": "unlabelled prediction is missing",
        "with_label": "not used",
        "with_label.add_(w * (with_label - without))": "in place",
    },
    "ex_2_1": {
        "(sigma * x_t + alpha * v) / sigma": "sign is flipped",
        "-sigma * x_t - alpha * v": "This is −ε̂",
        "sigma * x_t + alpha * v": "This is ε̂",
        "-(sigma * x_t + alpha * v) / sigma**2": "divided by σ²",
        "-v / sigma": "v for the noise",
        "alpha * x_t - sigma * v": "This is x̂",
        "-(alpha * x_t - sigma * v) / sigma": "x̂ where ε̂ belongs",
        "-(alpha * x_t + sigma * v) / sigma": "α and σ are swapped",
        "-(sigma * x_t - alpha * v) / sigma": "minus where",
        "x_t.mul_(-sigma).sub_(alpha * v).div_(sigma)": "in place",
        "-(sigma[:, None] * x_t + alpha * v) / sigma": "nothing has to be reshaped",
    },
    "ex_2_2": {
        "(x_t - sigma**2 * score) / alpha": "sign is flipped",
        "(x_t + sigma * score) / alpha": "σ where the formula has σ²",
        "(x_t + score) / alpha": "σ² is missing",
        "x_t + sigma**2 * score": "division by α is missing",
        "x_t + sigma**2 * score / alpha": "Only the score",
        "x_t / alpha + sigma**2 * score": "Only x_t",
        "alpha * (x_t + sigma**2 * score)": "multiplied by α",
        "(x_t + sigma**2 * score) / alpha**2": "term by term",
    },
    "ex_2_3": {
        "(-distance**2 / (2 * sigma**2)).softmax(0) @ points": "wrong axis",
        "(distance**2 / (2 * sigma**2)).softmax(1) @ points": "farthest",
        "(-torch.cdist(x_t, points)**2 / (2 * sigma**2)).softmax(1) @ points": "α is missing",
        "(-distance / (2 * sigma**2)).softmax(1) @ points": "distance must be squared",
        "(-distance**2 / (2 * sigma)).softmax(1) @ points": "σ must be squared",
        "(-distance**2 / sigma**2).softmax(1) @ points": "2 is missing",
        "(-distance**2 / 2 * sigma**2).softmax(1) @ points": "term by term",
        "alpha * (-distance**2 / (2 * sigma**2)).softmax(1) @ points": "mean of α x",
        "points[distance.argmin(1)]": "nearest",
        "points.mean(0).expand(len(x_t), 2)": "plain mean",
        "(-distance**2 / (2 * sigma**2)).exp() @ points / (-distance**2 / (2 * sigma**2)).exp().sum(1, True)": "0/0",
        "(-(x_t - alpha * points)**2 / (2 * sigma**2)).softmax(1) @ points": "should be (B, N)",
    },
    "ex_2_4": {
        "x + step_size / 2 * score": "noise is missing",
        "x + step_size**0.5 * z": "random walk",
        "x + step_size / 2 * score + step_size * z": "root is missing",
        "x + step_size * score + step_size**0.5 * z": "½ is missing",
        "x + step_size * score + (2 * step_size)**0.5 * z": "other convention",
        "x - step_size / 2 * score + step_size**0.5 * z": "sign is flipped",
        "x + step_size / 2 * score + z": "unscaled",
        "step_size / 2 * score + step_size**0.5 * z": "x itself",
        "x + step_size / 2 * score + step_size**0.5 * torch.randn_like(x)": "handed in as z",
        "x.add_(step_size / 2 * score).add_(step_size**0.5 * z)": "in place",
    },
    "ex_3_1": {
        "-(x - m_real) / v_real + (x - m_fake) / v_fake": "sign is flipped",
        "-(x - m_fake) / v_fake ** 0.5 + (x - m_real) / v_real ** 0.5": "standard deviation",
        "(x - m_real) - (x - m_fake)": "variances are missing",
        "-(x - m_fake) / v_fake": "fake score alone",
        "(x - m_real) / v_real": "real score alone",
        "-(x - m_fake) / v_fake - (x - m_real) / v_real": "added",
        "x.sub_(m_fake).neg_().div_(v_fake) + (x - m_real) / v_real": "values are not",
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
        "(fake(noised(), t) - real(noised(), t)) / (x - real(noised(), t)).abs().mean()": "one number for the whole",
        "(fake(noised(), t) - real(noised(), t)) / (x - real(noised(), t)).abs()": "values are not",
        "solved(x, t, torch.randn_like(x), real, fake, alpha, sigma)": "same x_t",
        "solved(x, t, eps, real, fake, sigma, alpha)": "swapped",
        "(x - real(noised(), t)) / column((x - real(noised(), t)).abs().flatten(1).mean(1))": "fake score is missing",
        "alpha[t] * x": "reshape it",
        "solved(x, t, eps, real, fake, alpha, sigma)[0]": "should have shape",
    },
    "ex_3_4": {
        "0.5 * (x - (x - g)).square().mean()": "derivative is zero",
        "0.5 * (x - (x + g).detach()).square().mean()": "sign is flipped",
        "(x - (x - g).detach()).square().mean()": "½ is missing",
        "0.5 * (x - (x - g).detach()).square().sum()": "not the sum",
        "0.5 * (x - g).square().mean()": "pulls x towards g",
        "0.5 * (x.detach() - (x - g).detach()).square().mean()": "still attached",
        "0.5 * g.square().mean().item()": "return a tensor",
    },
    "ex_3_5": {
        "(fake(a() * generator(z) + s() * eps, t) - generator(z)).square().mean()": "easy to denoise",
        "(fake(a() * generator(z).detach() + s() * eps, t) - generator(z)).square().mean()": "its target is not",
        "(fake(a() * generator(z) + s() * eps, t) - generator(z).detach()).square().mean()": "shown is not",
        "(fake(a() * generator(z).detach() + s() * eps, t) - eps).square().mean()": "target is ε",
        "(fake(generator(z).detach(), t) - generator(z).detach()).square().mean()": "clean samples",
        "solved(fake, generator, z, t, eps, alpha, sigma).detach()": "still attached",
        "0.5 * solved(fake, generator, z, t, eps, alpha, sigma)": "factor ½",
    },
    "ex_4_1": {
        "z[index], y[index], label[:len(index)]": "labels are the first B",
        "z[index], y[index], label": "labels are all N",
        "z[:len(index)], y[index], label[index]": "noise is the first B",
        "z[index], y[:len(index)], label[index]": "images are the first B",
        "z[:len(index)], y[:len(index)], label[:len(index)]": "index is not used",
        "z[index], y[index], torch.arange(10).repeat(9)[:len(index)]": "by place in the batch",
        "z[index], y[index], index % 10": "pairs' numbers",
        "z[index], y[index], label[sorted(index.tolist())]": "you sorted index for them",
        "[value[sorted(index.tolist())] for value in (z, y, label)]": "right pairs in another order",
        "[value[sorted(set(index.tolist()))] for value in (z, y, label)]": "names twice",
        "z[index], y[index]": "label is missing",
        "y[index], z[index], label[index]": "exchanged",
        "z[index], label[index], y[index]": "three are in another order",
        "label[index], z[index], y[index]": "values are not",
        "z[index], y[index], torch.randint(10, index.shape)": "something of its own",
        "[value[index[torch.randperm(len(index))]] for value in (z, y, label)]": "something of its own",
        "z[index]": "each with one row",
        "dict(z=z[index], y=y[index], label=label[index])": "three tensors should come back",
        "z[index], y[index], None": "three tensors should come back",
        "z[index], y[index], label[index[0]]": "each with one row",
        "z[index], y[index], label.index_copy_(0, index, label[index] + 1)[index] - 1": "in place",
    },
    "ex_4_2": {
        "distance(generate(z, label).detach(), y).mean()": "nothing learns",
        "solved(torch.no_grad()(generate), distance, z, y, label)": "nothing learns",
        "distance(generate(z), y).mean()": "label is left out",
        "distance(generate(z, label), y).sum()": "not the sum",
        "distance(generate(z, label), y)": "one value an image",
        "distance(generate(y, label), y).mean()": "generator was shown y",
        "distance(generate(y, label), z).mean()": "exchanged",
        "distance(generate(z, label), z).mean()": "target is z",
        "distance(z, y).mean()": "generator is missing",
        "torch.nn.functional.mse_loss(generate(z, label), y)": "mean squared error",
        "(generate(z, label) - y).abs().mean()": "mean absolute error",
        "(distance(generate(z, label), y) ** 2).mean()": "squared the distance",
        "0.5 * solved(generate, distance, z, y, label)": "factor ½",
        "distance(generate(torch.randn_like(z), label), y).mean()": "fresh noise",
        "distance(generate(z, label), y).mean().item()": "return a tensor",
        "distance(generate(z, label), y).max()": "values are not",
        "distance(generate(z, label), y)[:, None]": "one number, of shape ()",
        "distance(generate(z, 3), y).mean()": "whole numbers",
    },
    "ex_4_3": {
        "(guided(fake) - guided(real)) / size(guided(real))": "fake score is guided too",
        "(guided(fake) - real(x_t, t, label)) / size(real(x_t, t, label))": "in place of the real one",
        "(fake(x_t, t, label) - real(x_t, t, label)) / size(real(x_t, t, label))": "guidance is left out",
        "solved(x, t, eps, label, real, fake, w - 1, no_class, alpha, sigma)": "other convention",
        "solved(x, t, eps, label, real, fake, -1 - w, no_class, alpha, sigma)": "exchanged their roles",
        "solved(x, t, eps, label, real, fake, -w, no_class, alpha, sigma)": "sign of the guidance",
        "(fake(x_t, t, label) - w * (real(x_t, t, label) - real(x_t, t, none))) / size(w * (real(x_t, t, label) - "
        "real(x_t, t, none)))": "1 is missing",
        "(fake(x_t, t, label) - real(x_t, t, none)) / size(real(x_t, t, none))": "without class only",
        "(fake(x_t, t, None) - real(x_t, t, none)) / size(real(x_t, t, none))": "left out of both",
        "(fake(x_t, t, none) - guided(real)) / size(guided(real))": "fake score was asked without class",
        "(fake(x_t, t, label) - guided(real)) / size(real(x_t, t, label))": "*unguided*",
        "solved(x, t, eps, label, real, fake, w, 0, alpha, sigma)": "digit zero",
        "solved(x, t, eps, label, real, fake, w, 10, alpha, sigma)": "use no_class",
        "-solved(x, t, eps, label, real, fake, w, no_class, alpha, sigma)": "sign is flipped",
        "fake(x_t, t, label) - guided(real)": "not normalised",
        "(fake(x_t, t, label) - guided(real)) / (x - guided(real)).abs().mean()": "one number for the whole",
        "solved(x, t, eps, label, real, fake, w, no_class, sigma, alpha)": "swapped",
        "a * solved(x, t, eps, label, real, fake, w, no_class, alpha, sigma)": "paper's weighting",
        "solved(x, t, torch.randn_like(x), label, real, fake, w, no_class, alpha, sigma)": "same x_t",
        "fake(x_t, t, label) - real(x_t, t, no_class)": "whole numbers",
        "fake(alpha[t] * x + sigma[t] * eps, t, label)": "reshape the first",
        "(fake(x_t, t, label) - guided(real)) / (x - guided(real)).abs().mean((1, 2, 3))": "reshape the first",
    },
    "ex_4_4": {
        "share * length(regression_gradient) / length(matching_gradient)": "upside down",
        "1 / solved(matching_gradient, regression_gradient, share)": "1/λ",
        "length(matching_gradient) / length(regression_gradient)": "share is not used",
        "length(matching_gradient) / length(regression_gradient) / share": "divided by share",
        "share / (1 - share) * length(matching_gradient) / length(regression_gradient)": "share of the sum",
        "share * matching_gradient.norm() / regression_gradient.norm()": "whole batch",
        "share * matching_gradient.abs().mean() / regression_gradient.abs().mean()": "mean absolute value",
        "share * norms(matching_gradient).square().mean() / norms(regression_gradient).square().mean()": "squared",
        "share * (norms(matching_gradient) / norms(regression_gradient)).mean()": "own ratio",
        "share * norms(matching_gradient) / norms(regression_gradient)": "one weight an image",
        "share * matching_gradient.norm(dim=1).mean() / regression_gradient.norm(dim=1).mean()": "channels only",
        "share * norms(matching_gradient).max() / norms(regression_gradient).max()": "longest",
        "float(solved(matching_gradient, regression_gradient, share))": "return a tensor",
        "solved(matching_gradient, regression_gradient, share)[None]": "one number",
        "length(matching_gradient) - share * length(regression_gradient)": "values are not",
    },
    "ex_4_5": {
        "(fake(a * x + s * eps, t, label) - (a * eps - s * x)).square().mean()": "samples are not detached",
        "(fake(a * x.detach() + s * eps, t, label) - (a * eps - s * x)).square().mean()": "x in x_t is,",
        "(fake(a * x + s * eps, t, label) - (a * eps - s * x).detach()).square().mean()": "x in the target v is,",
        "solved(fake, generate, z, label, t, eps, alpha, sigma).detach()": "Nothing learns",
        "(fake(x_t, t, label) - x.detach()).square().mean()": "target is x",
        "(fake(x_t, t, label) - eps).square().mean()": "target is ε",
        "(fake(x_t, t, label) + (a * eps - s * x.detach())).square().mean()": "sign of v",
        "(fake(x_t, t, label) - (a * eps + s * x.detach())).square().mean()": "plus in v",
        "(fake(x_t, t, label) - (s * eps - a * x.detach())).square().mean()": "swapped in v",
        "(a * x_t - s * fake(x_t, t, label) - x.detach()).square().mean()": "before comparing",
        "(fake(x_t, t) - (a * eps - s * x.detach())).square().mean()": "not told the label",
        "solved(fake, lambda z, label: generate(z), z, label, t, eps, alpha, sigma)": "generator is not told",
        "solved(lambda x_t, t, label: fake(x_t, t), lambda z, label: generate(z), z, label, t, eps, alpha, sigma)":
            "left out twice",
        "(fake(x.detach(), t, label) - (a * eps - s * x.detach())).square().mean()": "clean samples",
        "(fake(s * x.detach() + a * eps, t, label) - (a * eps - s * x.detach())).square().mean()": "swapped in x_t",
        "solved(fake, generate, z, label, t, z, alpha, sigma)": "noise that they were made of",
        "(fake(x_t, t, label) - (a * eps - s * x.detach())).square().sum()": "not the sum",
        "0.5 * solved(fake, generate, z, label, t, eps, alpha, sigma)": "factor ½",
        "(fake(x_t, t, label) - (a * eps - s * x.detach())).square().flatten(1).mean(1)": "one value an image",
        "solved(fake, generate, z, label, t, torch.randn_like(z), alpha, sigma)": "fresh noise",
        "fake(alpha[t] * x + sigma[t] * eps, t, label)": "reshape it",
    },
    "ex_5_1": {
        "(z_s - sigma_t / sigma_s * z_t) / (alpha_s - sigma_t / sigma_s * alpha_t)": "upside down",
        "solved(z_s, z_t, alpha_s, sigma_s, alpha_t, sigma_t)": "exchanged throughout",
        "(z_s - alpha_s / alpha_t * z_t) / (alpha_s - alpha_s / alpha_t * alpha_t)": "makes the denominator 0",
        "(z_s - alpha_s / alpha_t * z_t) / (sigma_s - alpha_s / alpha_t * sigma_t)": "you eliminated x",
        "(z_t - alpha_t * x) / sigma_t": "This is ε̃, the noise",
        "alpha_t * (z_t - alpha_t * x) / sigma_t - sigma_t * x": "target in v",
        "(z_t - sigma_t * (z_s - alpha_s / alpha_t * z_t) / (sigma_s - alpha_s / alpha_t * sigma_t)) / alpha_t":
            "not where α_t = 0",
        "z_s": "z_s itself",
        "(z_s - ratio * z_t) / alpha_s": "α_s alone",
        "z_s - ratio * z_t": "division is missing",
        "z_s / alpha_s": "leaves the noise of z_s in",
        "(z_s - ratio * z_t) / (ratio * alpha_t - alpha_s)": "sign is flipped",
        "(ratio * z_t - z_s) / (alpha_s - ratio * alpha_t)": "sign is flipped",
        "(z_s + ratio * z_t) / (alpha_s + ratio * alpha_t)": "above and below",
        "(z_s + ratio * z_t) / (alpha_s - ratio * alpha_t)": "plus in the numerator",
        "(z_s - ratio * z_t) / (alpha_s + ratio * alpha_t)": "plus in the denominator",
        "(z_t - ratio * z_s) / (alpha_s - ratio * alpha_t)": "exchanged in the numerator",
        "(z_s - ratio * z_t) / (alpha_t - ratio * alpha_s)": "exchanged in the denominator",
        "(z_s - z_t) / (alpha_s - alpha_t)": "ratio is missing",
        "(z_s - sigma_s * z_t) / (alpha_s - sigma_s * alpha_t)": "divide it by σ_t",
        "z_s - ratio * z_t / alpha_s - ratio * alpha_t": "term by term",
        "x + 1e-2 * torch.randn_like(z_t)": "fresh noise",
        "(z_s - sigma_s.reshape(-1) / sigma_t.reshape(-1) * z_t) / alpha_s": "nothing has to be reshaped",
        "x.flatten(1)": "nothing has to be reshaped",
        "z_s.sub_(ratio * z_t).div_(alpha_s - ratio * alpha_t)": "in place",
        "(x - x) / 0": "division by zero",
    },
    "ex_5_2": {
        "solved(z_t, v, phi_s, phi_t)": "turns the other way",
        "delta.cos() * z_t + delta.sin() * v": "turns the other way",
        "z_t - delta * v": "Euler",
        "delta.sin() * z_t - delta.cos() * v": "cos and sin are exchanged",
        "phi_t.cos() * z_t - phi_t.sin() * v": "This is x̂",
        "phi_s.cos() * z_t - phi_s.sin() * v": "at which to arrive",
        "torch.cos(phi_t + phi_s) * z_t - torch.sin(phi_t + phi_s) * v": "their difference",
        "solved(z_t, v, phi_t * torch.pi / 180, phi_s * torch.pi / 180)": "to radians",
        "solved(z_t, v, phi_t * 180 / torch.pi, phi_s * 180 / torch.pi)": "to degrees",
        "delta.sin() * z_t + delta.cos() * v": "v after the step",
        "phi_s.cos() * (phi_t.cos() * z_t - phi_t.sin() * v)": "noise is missing",
        "z_t - delta.sin() * v": "z_t is not scaled",
        "delta.cos() * z_t - v": "v is not scaled",
        "delta.cos() * z_t - delta.sin() * torch.randn_like(v)": "deterministic",
        "delta.cos() * (z_t - delta.sin() * v)": "term by term",
        "delta.reshape(-1).cos() * z_t - delta.reshape(-1).sin() * v": "nothing has to be reshaped",
        "z_t.mul_(delta.cos()).sub_(delta.sin() * v)": "in place",
    },
    "ex_5_3": {
        "dict(zip(kinds, (snr, torch.minimum(snr, one), snr + 1)))[kind]": "cut from above",
        "dict(zip(kinds, (snr, snr, snr + 1)))[kind]": "not truncated",
        "dict(zip(kinds, (snr, snr * (snr > 1), snr + 1)))[kind]": "nothing would be learned",
        "dict(zip(kinds, (snr, snr + 1, snr.clamp(min=1))))[kind]": "are exchanged",
        "dict(zip(kinds, (snr, snr.clamp(min=1), snr)))[kind]": "1 is missing from",
        "dict(zip(kinds, (snr, snr.clamp(min=1), snr.clamp(min=1))))[kind]": "truncated instead",
        "dict(zip(kinds, (snr, snr.clamp(min=1), alpha**2 / (sigma**2 + 1))))[kind]": "into the denominator",
        "snr": "kind is not used",
        "solved(alpha.sqrt(), sigma.sqrt(), kind)": "squares are missing",
        "solved(sigma, alpha, kind)": "upside down",
        "solved(alpha.sqrt(), sigma, kind)": "Only σ",
        "solved(alpha, sigma.sqrt(), kind)": "Only α",
        "solved(alpha, torch.ones_like(sigma), kind)": "σ² is missing",
        "dict(zip(kinds, (snr.log(), snr.log().clamp(min=1), snr.log() + 1)))[kind]": "log SNR",
        "solved(alpha**2, sigma**2, kind)": "values are not",
        "snr + 1": "values are not",
        "snr if kind == 'snr' else max(snr, 1) if kind == 'truncated' else snr + 1": "snr.clamp",
        "snr if kind == 'snr' else snr.max(one) if kind == 'truncated' else None": "returned None",
        "snr if kind == 'snr' else torch.max(snr, 0) if kind == 'truncated' else snr + 1": "return a tensor",
        "snr.mean()": "one value for each noise level",
    },
    "ex_5_4": {
        "left((-distance**2 / (2 * sigma**2)).exp() / (-distance**2 / (2 * sigma**2)).exp().sum(1, True))": "0/0",
        "left((-distance**2 / (2 * sigma**2)).exp())": "do not sum to 1",
        "left((-distance**2 / (2 * sigma**2)).softmax(0))": "wrong axis",
        "left((distance**2 / (2 * sigma**2)).softmax(1))": "farthest",
        "left((-torch.cdist(z_t, points)**2 / (2 * sigma**2)).softmax(1))": "α is missing",
        "left((-distance / (2 * sigma**2)).softmax(1))": "in the exponent must be squared",
        "left((-distance**2 / (2 * sigma)).softmax(1))": "σ must be squared",
        "left((-distance**2 / sigma**2).softmax(1))": "½ is missing",
        "left((-distance**2 / (sigma**2 / 2)).softmax(1))": "brackets",
        "left(torch.ones_like(p) / len(points))": "as if z_t told nothing",
        "targets.var(1, correction=0).sum(1)": "as if z_t told nothing",
        "left(p, targets.mean(1, keepdim=True))": "plain mean",
        "left(p, targets[torch.arange(len(z_t)), p.argmax(1)][:, None])": "likeliest target",
        "(p[..., None] * targets**2).sum((1, 2))": "the answer 0",
        "(targets - mean(p)).square().sum(2).mean(1)": "count alike in the loss",
        "left(p) / 2": "over the coordinates",
        "left(p).sqrt()": "root",
        "(p[..., None] * (targets - mean(p))).sum((1, 2))": "which is 0",
        "mean(p)[:, 0]": "best answer",
        "left(p).mean()": "one number for the batch",
        "left(p)[:, None]": "shape (B,)",
        "(p * targets).sum(1)": "p[..., None]",
        "2 * left(p)": "values are not",
        "float(left(p).mean())": "return a tensor",
        "left(p) * (1 + torch.rand(len(z_t)))": "random numbers",
    },
    "ex_6_1": {
        "sp(fake).mean(), sp(-fake).mean() + sp(real).mean()": "All signs are flipped",
        "sp(fake).mean(), D": "sign in L_G",
        "G, sp(-fake).mean() + sp(real).mean()": "L_D has fake and real exchanged",
        "G, solved(real, fake)[1]": "L_D has fake and real exchanged",
        "G, sp(-fake).mean() + sp(-real).mean()": "every logit large",
        "G, sp(fake).mean() + sp(real).mean()": "every logit small",
        "-sp(fake).mean(), D": "saturates",
        "-fake.mean(), D": "−D itself",
        "-fake.mean(), (1 + fake).clamp(min=0).mean() + (1 - real).clamp(min=0).mean()": "hinge",
        "ls(fake).mean(), ls(-fake).mean() + ls(real).mean()": "log-probabilities",
        "G, sp(fake).mean()": "real half",
        "G, sp(-real).mean()": "fake half",
        "G, sp(torch.cat([fake, -real])).mean()": "half of that",
        "solved(fake.sigmoid(), real.sigmoid())": "sigmoid is applied twice",
        "solved(real, fake)": "exchanged throughout",
        "D, G": "other order",
        "G + D": "one number",
        "sp(-fake).sum(), sp(fake).sum() + sp(-real).sum()": "not the sums",
        "sp(-fake), sp(fake) + sp(-real)": "mean is missing",
        "-torch.log(fake).mean(), -torch.log(1 - fake).mean() - torch.log(real).mean()": "for probabilities",
        "torch.log(1 + torch.exp(-fake)).mean(), torch.log(1 + fake.exp()).mean() + (1 + (-real).exp()).log().mean()":
            "infinite for large ones",
        "-torch.log(fake.sigmoid()).mean(), -(1 - fake.sigmoid()).log().mean() - real.sigmoid().log().mean()":
            "infinite for large ones",
        "torch.nn.functional.binary_cross_entropy(fake, torch.ones_like(fake)), D": "numbers of any size",
        "G.item(), D.item()": "TypeError",
        "G, D, D": "one number each",
        "G, 2 * D": "values are not",
        "G, sp(fake + torch.rand(len(fake))).mean()": "random",
    },
    "ex_6_2": {
        "sp(-critic(x, weights)).mean() + sp(critic(x, weights)).mean() + R": "Nothing is detached",
        "G + sp(critic(x, weights)).mean() + R": "x is attached in L_D",
        "sp(-critic(x, weights)).mean() + F + R": "weights are attached in L_G",
        "sp(-critic(x.detach(), weights)).mean() + sp(critic(x, weights.detach())).mean() + R": "are exchanged",
        "G.detach() + F + R": "Both are detached in L_G",
        "sp(-critic(x.detach(), weights)).mean() + F + R": "x is detached, not the weights",
        "G + F.detach() + R": "Both are detached in the critic's term",
        "G + sp(critic(x, weights.detach())).mean() + R": "pushed back",
        "G + F + R.detach()": "on the real images",
        "G + F.detach() + R.detach()": "in all three terms",
        "solved(critic, weights.detach(), x, real)": "in all three terms",
        "solved(critic, weights, x.detach(), real)": "Both are detached in L_G",
        "(G + F + R).detach()": "everything is detached",
        "sp(critic(x, weights.detach())).mean() + F + R": "sign in L_G",
        "-sp(critic(x, weights.detach())).mean() + F + R": "saturates",
        "G + sp(-critic(x.detach(), weights)).mean() + sp(critic(real, weights)).mean()": "fake and real exchanged",
        "G + F + sp(critic(real, weights)).mean()": "every logit small",
        "G + F": "real half",
        "G + R": "fake half",
        "G + (F + R) / 2": "half of that",
        "-(G + F + R)": "log-probabilities",
        "-critic(x, weights.detach()).mean() + F + R": "−D itself",
        "solved(critic, weights, real, x)": "x and real are exchanged",
        "G": "L_G alone",
        "F + R": "L_D alone",
        "len(x) * (G + F + R)": "not the sums",
        "sp(-critic(x, weights.detach())) + sp(critic(x.detach(), weights)) + sp(-critic(real, weights))": "an image",
        "(G, F + R)": "return a tensor",
        "(G + F + R).item()": "return a tensor",
        "critic(x)": "TypeError",
        "G - F - R": "values are not",
        "solved(critic, weights, x, real + torch.randn_like(real))": "random",
    },
    "ex_6_3": {
        "share * length(torch.autograd.grad(matching, x)[0]) / length(torch.autograd.grad(gan, x)[0])": "retain_graph",
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
        "share * m.flatten(1).square().sum(1).mean() / n.flatten(1).square().sum(1).mean()": "squared",
        "share * (m.flatten(1).norm(dim=1) / n.flatten(1).norm(dim=1)).mean()": "all images' ratios",
        "share * m.flatten(1).norm(dim=1) / n.flatten(1).norm(dim=1)": "one weight an image",
        "(share * M / N)[None]": "one number",
        "share * M / N + 1": "values are not",
        "str(share)": "return a tensor",
        "share * torch.autograd.grad(matching, x, retain_graph=True).norm()": "AttributeError",
    },
    "ex_6_4": {
        "student(solved(student, alpha, sigma, z, eps), len(alpha) - 1)": "attached to the student",
        "walk(lambda x_t, k: alpha[k + 1] * student(x_t, k) + sigma[k + 1] * eps[k])": "attached to the student",
        "walk(lambda x_t, k: sigma[k + 1] * student(x_t, k) + eps[k])": "attached to the student",
        "walk(lambda x_t, k: alpha[k] * net(x_t, k) + sigma[k] * eps[k])": "where the step began",
        "net(solved(student, alpha, sigma, z, eps), len(alpha) - 1)": "one call too many",
        "net(solved(student, alpha[:-1], sigma[:-1], z, eps), len(alpha) - 2) if len(eps) else z": "of the last call",
        "solved(student, alpha[:-1], sigma[:-1], z, eps)": "too few",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) + sigma[k + 1] * z)": "z again",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) + sigma[k + 1] * (x_t - alpha[k] * net(x_t, k)) / sigma[k])":
            "DDIM",
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
        "[z]": "return a tensor",
        "walk(lambda x_t, k: alpha[k + 1] * net(x_t, k) - sigma[k + 1] * eps[k])": "values are not",
        "walk(lambda x_t, k: x_t.mul_(0).add_(alpha[k + 1] * net(x_t, k)).add_(sigma[k + 1] * eps[k]))": "values are",
    },
}


COLUMN = "column = lambda value: value.reshape(-1, *[1] * (z.ndim - 1)); "
LOCAL = {  # what the wrong answers of an exercise may use
    "ex_2_3": "distance = torch.cdist(x_t, alpha * points); ",
    "ex_3_3": COLUMN.replace("z.", "x.") + "noised = lambda: column(alpha[t]) * x + column(sigma[t]) * eps; ",
    "ex_3_5": COLUMN + "a, s = (lambda: column(alpha[t])), (lambda: column(sigma[t])); ",
    "ex_4_3": COLUMN.replace("z.", "x.") + "a, s = column(alpha[t]), column(sigma[t]); x_t = a * x + s * eps; "
              "none = torch.full_like(label, no_class); size = lambda mu: column((x - mu).abs().flatten(1).mean(1)); "
              "guided = lambda net: net(x_t, t, label) + w * (net(x_t, t, label) - net(x_t, t, none)); ",
    "ex_4_4": "norms = lambda g: g.square().sum((1, 2, 3)).sqrt(); length = lambda g: norms(g).mean(); ",
    "ex_4_5": COLUMN + "a, s, x = column(alpha[t]), column(sigma[t]), generate(z, label); "
              "x_t = (a * x + s * eps).detach(); ",
    "ex_5_1": "ratio = sigma_s / sigma_t; x = solved(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s); ",
    "ex_5_2": "delta = phi_t - phi_s; ",
    "ex_5_3": "snr, one, kinds = (alpha / sigma)**2, torch.ones(()), ('snr', 'truncated', 'snr+1'); ",
    "ex_5_4": "distance = torch.cdist(z_t, alpha * points); p = (-distance**2 / (2 * sigma**2)).softmax(1); "
              "mean = lambda p: (p[..., None] * targets).sum(1, keepdim=True); "
              "left = lambda p, a=None: (p[..., None] * (targets - (mean(p) if a is None else a))**2).sum((1, 2)); ",
    "ex_6_1": "sp, ls = torch.nn.functional.softplus, torch.nn.functional.logsigmoid; G, D = solved(fake, real); ",
    "ex_6_2": "sp = torch.nn.functional.softplus; G = sp(-critic(x, weights.detach())).mean(); "
              "F = sp(critic(x.detach(), weights)).mean(); R = sp(-critic(real, weights)).mean(); ",
    "ex_6_3": "m, n = (torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (matching, gan)); "
              "length = lambda g: g.flatten(1).norm(dim=1).mean(); M, N = length(m), length(n); ",
    "ex_6_4": "from functools import reduce; net = lambda x, k: student(x, k).detach(); "
              "walk = lambda step: reduce(step, range(len(alpha) - 1), z); "}


@pytest.mark.parametrize("name, answer, said", [(n, a, s) for n, answers in WRONG.items() for a, s in answers.items()])
def test_a_check_names_what_learners_get_wrong(name, answer, said, capsys):
    source = nbgrader_cells(graded=False)[name]
    scope = {"torch": torch, "sample": sample, "schedule": schedule, "solved": run(source)}
    prepare = LOCAL.get(name, "")
    exec(stub(source, f"{prepare}return {answer}"), scope)
    text = verdict(name, scope[run(source).__name__], capsys)
    assert text.startswith("✗") and said in text


@pytest.mark.parametrize("name", EXERCISES)
def test_every_usual_mistake_gets_its_own_message(name, capsys):
    said = [verdict(name, wrong, capsys) for wrong in EXERCISES[name].mistakes.values()]
    assert said == [f"✗ {message}" for message in EXERCISES[name].mistakes]
    assert len(set(said)) == len(said) >= 3
    assert set(WRONG[name]) and len({*WRONG[name].values()}) >= 3


def test_a_check_says_so_when_it_is_not_given_a_function(capsys):
    assert "check.ex_1_4(name)" in verdict("ex_1_4", torch.zeros(3), capsys)


# The oracles, against diffusers and closed forms.

def tables(s: schedule.Schedule):
    return s.alpha.float(), s.sigma.float()


def test_the_oracle_of_1_1_is_diffusers_add_noise():
    s = schedule.linear()
    x, eps, t = torch.randn(6, 1, 4, 4), torch.randn(6, 1, 4, 4), torch.randint(400, (6,))
    theirs = DDPMScheduler(400, trained_betas=s.betas().tolist()).add_noise(x, eps, t)
    torch.testing.assert_close(check.ex_1_1.oracle(x, t, eps, *tables(s)), theirs, atol=1e-5, rtol=1e-5)


def test_the_oracle_of_1_3_is_diffusers_ddim():
    s = schedule.linear()
    scheduler = DDIMScheduler(400, trained_betas=s.betas().tolist(), prediction_type="sample", clip_sample=False,
                              timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    x_t, x0 = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    theirs = scheduler.step(x0, 399, x_t).prev_sample
    torch.testing.assert_close(check.ex_1_3.oracle(x_t, x0, 399, 379, *tables(s)), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t, s", [(1023, 700), (700, 400), (400, 399), (50, 0)])
def test_the_oracle_of_1_2_is_the_mean_of_bayes_rule_on_a_grid(t, s):
    alpha, sigma = schedule.cosine().alpha.numpy(), schedule.cosine().sigma.numpy()
    x, x_t = 0.7, -0.4
    grid = alpha[s] * x + sigma[s] * np.linspace(-9, 9, 200_001)
    r = alpha[t] / alpha[s]
    log_density = -(grid - alpha[s] * x)**2 / (2 * sigma[s]**2) - (x_t - r * grid)**2 / (
        2 * (sigma[t]**2 - r**2 * sigma[s]**2))
    weight = np.exp(log_density - log_density.max())
    want = (weight * grid).sum() / weight.sum()
    one = lambda value: torch.full((1, 1, 1, 1), value, dtype=torch.float64)
    got = check.ex_1_2.oracle(one(x_t), one(x), t, s, schedule.cosine().alpha, schedule.cosine().sigma)
    assert got.item() == pytest.approx(want, abs=1e-6)


def test_the_oracle_of_1_4_is_the_line_through_both_predictions():
    c, u = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    guide = check.ex_1_4.oracle
    assert torch.equal(guide(c, u, 0.0), c) and torch.equal(guide(c, c, 2.0), c)
    torch.testing.assert_close(guide(c, u, -1.0), u)
    torch.testing.assert_close(guide(c, u, 1.0) - c, c - u)


def known_noise(*shape: int):
    """x_t, α and σ in float64; for data that are one of two points, the score by autograd and the mean by Bayes."""
    one, other = torch.randn(2, *shape[1:], dtype=torch.float64)
    t = torch.randint(50, 900, (shape[0],))
    x_t = torch.randn(shape, dtype=torch.float64).requires_grad_()
    alpha, sigma = schedule.cosine().at(t, x_t)
    log = torch.stack([-((x_t - alpha * x) / sigma).square().flatten(1).sum(1) / 2 for x in (one, other)])
    slope, = torch.autograd.grad(log.logsumexp(0).sum(), x_t)
    share = log.detach().softmax(0).reshape(2, -1, *[1] * (len(shape) - 1))
    return x_t.detach(), alpha, sigma, slope, share[0] * one + share[1] * other


@pytest.mark.parametrize("shape", [(7, 2), (5, 1, 3, 2)])
def test_the_oracles_of_2_1_and_2_2_are_the_gradient_of_the_log_density_and_bayes_rule(shape):
    x_t, alpha, sigma, slope, mean = known_noise(*shape)
    v = alpha * (x_t - alpha * mean) / sigma - sigma * mean
    torch.testing.assert_close(check.ex_2_1.oracle(x_t, v, alpha, sigma), slope)
    torch.testing.assert_close(check.ex_2_2.oracle(x_t, slope, alpha, sigma), mean)


def test_the_oracle_of_2_3_is_tweedie_on_the_gradient_of_the_log_density():
    points, alpha, sigma = torch.randn(6, 2, dtype=torch.float64), 0.8, 0.6
    x_t = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    log = (-torch.cdist(x_t, alpha * points).square() / (2 * sigma**2)).logsumexp(1)
    slope, = torch.autograd.grad(log.sum(), x_t)
    wanted = ((x_t + sigma**2 * slope) / alpha).detach()
    torch.testing.assert_close(check.ex_2_3.oracle(x_t.detach(), points, alpha, sigma), wanted)


def test_the_oracle_of_2_4_moves_mean_and_variance_as_the_closed_form_says():
    """For the standard normal, whose score is −x: x ← (1 − η/2) x + √η z."""
    x, z, step = torch.randn(9, 2, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64), 0.4
    got = check.ex_2_4.oracle(x, -x, step, z)
    torch.testing.assert_close(got, (1 - step / 2) * x + step**0.5 * z)


def test_the_oracle_of_3_1_is_the_difference_of_two_scores_of_the_kit():
    x = torch.randn(9, 1, dtype=torch.float64)
    one = lambda m, v: score.GaussianMixture(torch.tensor([[m]]), torch.tensor([[[v]]]), torch.ones(1))
    slope = lambda p: -(x - p.denoise(x, 1.0, 1e-4)) / 1e-8  # Tweedie, at next to no noise
    wanted = slope(one(0.3, 0.5)) - slope(one(-0.4, 2.0))
    torch.testing.assert_close(check.ex_3_1.oracle(x, 0.3, 0.5, -0.4, 2.0), wanted, rtol=1e-4, atol=1e-4)


def test_the_oracles_of_3_2_and_3_3_are_the_kits_own_gradient():
    s, x, eps, t = schedule.cosine(), torch.randn(6, 2), torch.randn(6, 2), torch.randint(5, 900, (6,))
    real, fake = lambda x_t, t: x_t.tanh(), lambda x_t, t: 0.3 * x_t
    x_t, (alpha, sigma) = s.noise(x, t, eps), s.at(t, x)
    wanted = dmd.matching_gradient(x, real(x_t, t), fake(x_t, t), alpha, sigma)
    torch.testing.assert_close(check.ex_3_3.oracle(x, t, eps, real, fake, *tables(s)), wanted)
    wanted = dmd.matching_gradient(x, eps, x_t, alpha, sigma, "kl")
    torch.testing.assert_close(alpha * check.ex_3_2.oracle(eps, x_t, alpha, sigma), wanted)


def test_the_oracles_of_3_4_and_3_5_are_what_the_kits_losses_give():
    x, g = torch.randn(4, 2, requires_grad=True), torch.randn(4, 2)
    wanted = torch.autograd.grad(dmd.matching_loss(x, g), x)[0]
    torch.testing.assert_close(check.ex_3_4.oracle(x, g), wanted)
    case = check.ex_3_5.cases(torch.Generator().manual_seed(1))[0]
    by_autograd = check.ex_3_5.probe(lambda fake, generator, z, t, eps, alpha, sigma: (
        fake(alpha[t][:, None] * generator(z).detach() + sigma[t][:, None] * eps, t) - generator(z).detach()
    ).square().mean(), *case)
    torch.testing.assert_close(check.ex_3_5.oracle(*case), by_autograd)


def test_the_oracles_of_4_1_and_4_4_are_the_kits_batch_and_the_wanted_length():
    z, y, label, index = check.ex_4_1.cases(torch.Generator().manual_seed(1))[0]
    batch = Pairs(z, y, label).batch(index)
    wanted = torch.cat([batch.z.flatten(1), batch.x.flatten(1), batch.label[:, None]], 1)
    assert torch.equal(check.ex_4_1.oracle(z, y, label, index), wanted)
    matching, regression = torch.randn(2, 5, 1, 4, 4)
    length = lambda gradient: torch.linalg.vector_norm(gradient, dim=(1, 2, 3)).mean()
    weight = check.ex_4_4.oracle(matching, regression, 0.3)
    torch.testing.assert_close(length(weight * regression), 0.3 * length(matching))


def test_the_oracles_of_4_2_and_4_5_are_what_autograd_makes_of_the_kits_losses():
    case = check.ex_4_2.cases(torch.Generator().manual_seed(1))[0]
    by_autograd = check.ex_4_2.probe(lambda generate, distance, z, y, label: distance(generate(z, label), y).mean(),
                                     *case)
    torch.testing.assert_close(check.ex_4_2.oracle(*case), by_autograd)

    def denoising(fake, generate, z, label, t, eps, alpha, sigma):
        model = lambda x_t, t, label: SimpleNamespace(v=fake(x_t, t, label))
        x = generate(z, label).detach()
        return train.denoising_loss(model, schedule.Schedule("", alpha, sigma), "v", x, eps, t, label).mean()

    case = check.ex_4_5.cases(torch.Generator().manual_seed(1))[0]
    torch.testing.assert_close(check.ex_4_5.oracle(*case), check.ex_4_5.probe(denoising, *case))


@torch.no_grad()
def test_the_oracle_of_4_3_is_the_kits_gradient_with_a_guided_denoiser(tiny):
    s, x, eps, w = tiny.schedule, torch.randn(3, 1, 28, 28), torch.randn(3, 1, 28, 28), 0.7
    t, label = torch.tensor([5, 400, 900]), torch.tensor([7, 0, 3])
    x_t, fake = s.noise(x, t, eps), lambda x_t, t, label: 0.1 * x_t + label.reshape(-1, 1, 1, 1)
    wanted = dmd.matching_gradient(x, tiny(x_t, t, label, guidance=w).x, fake(x_t, t, label), *s.at(t, x))
    real = lambda x_t, t, label: tiny(x_t, t, label).x
    got = check.ex_4_3.oracle(x, t, eps, label, real, fake, w, tiny.n_classes, *tables(s))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_the_oracles_of_5_1_5_2_and_5_3_are_the_kits_target_step_and_weight():
    s, z_t, v = schedule.cosine(), torch.randn(4, 2), torch.randn(4, 2)
    t, end = torch.tensor([1023, 767, 255, 511]), torch.tensor([511, 255, -1, 127])
    (alpha_t, sigma_t), (alpha_s, sigma_s) = s.at(t, z_t), s.at(end, z_t)
    x, eps = schedule.x_from_v(z_t, v, alpha_t, sigma_t), schedule.eps_from_v(z_t, v, alpha_t, sigma_t)
    z_s = sample.ddim_step(s, x, eps, end)
    torch.testing.assert_close(check.ex_5_1.oracle(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s), x)
    angles = torch.atan2(sigma_t, alpha_t), torch.atan2(sigma_s, alpha_s)
    torch.testing.assert_close(check.ex_5_2.oracle(z_t, v, *angles), z_s)
    for kind in progressive.WEIGHTINGS:
        wanted = progressive.weight(alpha_t, sigma_t, kind)
        torch.testing.assert_close(check.ex_5_3.oracle(alpha_t, sigma_t, kind), wanted)


def test_the_oracle_of_5_4_is_the_slope_of_the_ideal_denoiser():
    """Cov[x | z_t] = (σ²/α) ∂μ/∂z_t, the second half of Tweedie."""
    points, z_t = torch.randn(5, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    alpha, sigma, data = 0.8, 0.6, score.FiniteSet(points)
    slope = torch.autograd.functional.jacobian(lambda z: data.denoise(z, alpha, sigma).sum(0), z_t)
    wanted = sigma**2 / alpha * torch.einsum("ibi->b", slope)
    got = check.ex_5_4.oracle(z_t, points, points.expand(3, 5, 2), alpha, sigma)
    torch.testing.assert_close(got, wanted)


def test_exercise_5_4_finds_a_loss_for_x_and_none_for_the_distillation_target():
    """The pairs (x, ε) that lead to one z_t have different x, and one x̃."""
    points, z_t, cosine = torch.randn(5, 2), torch.randn(1, 2), schedule.cosine()
    t, middle, end = progressive.stage_times(cosine, 4)[1:2].unbind(1)
    alpha, sigma = cosine.at(t, z_t)
    z = alpha * points + sigma * ((z_t - alpha * points) / sigma)
    z_end = progressive.two_steps(score.Exact(score.FiniteSet(points), cosine), cosine, z, t, middle, end)
    targets = progressive.target(z, z_end, alpha, sigma, *cosine.at(end, z))
    loss = lambda targets: check.ex_5_4.oracle(z_t, points, targets[None], float(alpha), float(sigma))
    assert loss(targets) < 1e-8 and loss(points) > 0.1


# Pictures.

COSINE, LINEAR, SHORT = schedule.cosine(), schedule.linear(), schedule.linear(T=2)
X, EPS = torch.rand(12, 1, 28, 28) * 2 - 1, torch.randn(12, 1, 28, 28)
STATE = sample.State(1, 1023, X, X)
SCORE = {"images": 40, "accuracy": 0.9, "precision": 0.8, "recall": 0.7, "frechet_distance": 1.0}
DOTS = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
PATH = torch.linspace(-1, 1, 60).reshape(5, 6, 2)
RUN = dmd_2d.Run(torch.tensor([0, 5]), torch.tensor([[1, 2], [0, 2]]), torch.tensor([[1.0, 0.2], [0.9, 0.1]]),
                 *[torch.zeros(0)] * 3)
EXACT = [score.Exact(mixture, COSINE) for mixture in (score.ring(), score.two_modes())]
PANEL = fields.Panel("a", DOTS, 9 * DOTS, DOTS, torch.rand(8, 8, generator=torch.Generator().manual_seed(0)))
LINE = score.GaussianMixture.round(torch.tensor([[-0.6], [0.6]]), 0.12)
CORNERS = {
    "digits": [(X,), (X[:1], 1, "title", ["row"], ["head"]), (X, 5), (X * 3, 12)],
    "curve": [([],), ([1.0],), ([0.0, -1.0],), (list(range(1, 100)), "title", "loss", 10, 200)],
    "draw_noised": [(s, X[:n], EPS[:n], t) for s in (COSINE, LINEAR, SHORT) for n in (1, 12) for t in (0, s.T - 1)],
    "draw_forward": [([COSINE], X[0], EPS[0]), ([COSINE, LINEAR, SHORT], X[0], EPS[0], 1),
                     ([LINEAR], X[0], EPS[0], 40)],
    "draw_schedules": [([COSINE],), ([COSINE, LINEAR, SHORT, LINEAR],)],
    "draw_last_step": [([COSINE], X, EPS), ([COSINE, LINEAR], X[:1], EPS[:1])],
    "draw_targets": [(s, X[0], EPS[0], n) for s in (COSINE, SHORT) for n in (1, 7)],
    "draw_training": [([], {}, 5), ([1.0] * 5, {1: X, 5: X}, 5), ([0.5] * 60, {k: X[:1] for k in range(1, 9)}, 60)],
    "draw_posterior": [(COSINE, 1023, 400), (COSINE, 1, 0), (COSINE, 1023, 1022, 1.0, 3.0), (LINEAR, 399, 0)],
    "draw_path": [([STATE],), ([STATE] * 50, 9, 11, "title"), ([STATE] * 2, 9)],
    "draw_tradeoff": [([0.0], [SCORE], SCORE), ([0.0, 1.0, 3.0], [SCORE] * 3, SCORE, ["recall"])],
    "draw_clouds": [({"a": DOTS},), ({"a": DOTS, "b": DOTS[:1]}, "title", 4), ({k: DOTS for k in "abc"}, "", 2, 3.0)],
    "draw_line": [(LINE, COSINE, [0]), (LINE, LINEAR, [399]), (LINE, COSINE, [0, 255, 511, 1023], "title", 3.0)],
    "draw_paths": [({"a": PATH}, score.ring().log_density), ({"a": PATH[:1]}, score.ring().log_density, "title", 0.0),
                   ({k: PATH * 9 for k in "abcd"}, score.ring().log_density, "title", 0.5, 2.0)],
    "draw_curves": [({"a": [0.5]}, [1]), ({"a": [0.5, 1.0]}, [0.0, 1.0]),
                    ({k: [0.2, 0.3, 0.4] for k in "abcd"}, [1, 10, 240], "title", "x", "y", {"truth": 0.8})],
    "draw_aims": [([DOTS[:5], DOTS[5:10]], {"x: data": DOTS[:5]}, score.ring().log_density),
                  ([DOTS[:1]] * 3, {k: DOTS[:1] for k in "ab"}, score.ring().log_density, "title", 1.5)],
    "draw_step_sizes": [([0.5], [1.1]), ([0.1, 2.0, 3.99], [1.0, 2.0, 400.0], "title")],
    "draw_orders": [([8], {"d": {"a": [0.1]}}, {"d": {"a": 1.0}}),
                    ([8, 64], *({d: {k: v for k in "abcd"} for d in "de"} for v in ([0.1, 1e-6], 1.0)), "title")],
    "draw_runs": [({"a": RUN}, 0.1, 2), ({k: RUN for k in "abcdefg"}, 0.1, 8, "title")],
    "draw_predictions": [(score.ring().log_density, *EXACT, DOTS[0], [50], DOTS[:1]),
                         (score.ring().log_density, *EXACT, DOTS[1], [0, 500, 1023], DOTS, "title")],
    "draw_watch": [([PANEL], [0], [1.0], 5, 0.1), ([PANEL] * 3, [0, 5], [1.0, 0.2], 5, 0.1, 3.0)],
}


def look(seed: int) -> dict:
    """What ``dmd_mnist.look`` sees, made up."""
    g = torch.Generator().manual_seed(seed)
    pictures = {name: torch.randint(256, (n, 28, 28), generator=g, dtype=torch.uint8)
                for name, n in (("samples", 20), ("noised", 4), ("real", 4), ("fake", 4))}
    return pictures | {"brightness": torch.rand(30, generator=g) - 1, "classes": torch.randint(30, (10,), generator=g)}


LINES = {name: [0.5, 0.25, 0.125] for name in ("matching", "regression", "fake", "matching gradient",
                                                "regression gradient")}
ABLATED = {name: {"frechet_distance": [3.0, 4.0, 9.0], "accuracy": [0.9, 0.99, 1.0], "coverage": [0.1, 0.2, 0.3]}
           for name in ("DMD", "no matching")}
DRIFT = {"steps": torch.tensor([0, 5]), "brightness": torch.zeros(3, 2),
         "looks": {"classes": torch.stack([look(i)["classes"] for i in (0, 1)])}}
CORNERS |= {
    "draw_dashboard": [({0: look(0)}, {}, 1, -0.7), ({0: look(0) | {"critic": torch.rand(2, 30)}}, LINES, 3, -0.7),
                       ({0: look(0), 3: look(1)}, LINES, 3, -0.7, "title"),
                       ({3: look(2)}, {"regression": [1.0, 0.5, 0.5], "regression gradient": [0.1] * 3}, 1500, 0.0)],
    "draw_epochs": [(LINES, 1), (LINES, 3, "title"), ({"fake": [1.0, 2.0]}, 2)],
    "draw_ablations": [(ABLATED, {"frechet_distance": 1.0, "accuracy": 0.99, "coverage": 0.4}, "DMD"),
                       ({"DMD": ABLATED["DMD"]}, {"accuracy": 0.9}, "DMD", ("accuracy",))],
    "draw_networks": [()], "draw_kinship": [()],
    "draw_step_curves": [({"DDIM": {8: 2.0}},),
                         ({"distilled": {1: 9.0, 512: 2.0}, "ancestral": {}, "floor": 1.5}, "title"),
                         ({k: {1: 300.0, 2: 4.0, 64: 2.0} for k in ("a", "DDIM")}, "title", "accuracy", 2)],
    "draw_weights": [(s, {kind: progressive.weight(s.alpha, s.sigma, kind) for kind in kinds})
                     for s in (COSINE, LINEAR) for kinds in (progressive.WEIGHTINGS[:1], progressive.WEIGHTINGS)],
    "draw_stage": [([], {0: look(0)["samples"]}, 4, look(1)["samples"]),
                   ([0.1] * 30, {i: look(i)["samples"] for i in (0, 9, 30)}, 30, look(1)["samples"], "title")],
    "draw_critic": [()],
    "draw_drift": [({"a": DRIFT}, -0.7), ({k: DRIFT for k in "abcd"}, 0.0, "title")],
    "draw_memory": [({"a": {"weights": 2**20}},),
                    ({k: {"weights": 2**30, "rest": 2**33} for k in "abc"}, "GiB", 2.0**36, "title")]}
PICTURES = {name: f for module in (plots, plots_2d, plots_dmd, plots_dmd2, plots_mnist, plots_progressive)
            for name, f in vars(module).items() if callable(f) and f.__module__ == module.__name__}


def test_every_picture_has_its_corners_here():
    drawn = {name for name in PICTURES if name.startswith("draw_")}
    assert drawn == {name for name in CORNERS if name.startswith("draw_")}


@pytest.mark.parametrize("name, values", [(name, v) for name, all_values in CORNERS.items() for v in all_values])
@pytest.mark.filterwarnings("error")
def test_a_picture_renders_at_its_corners_and_changes_nothing(name, values):
    x, eps = X.clone(), EPS.clone()
    figure = PICTURES[name](*values)
    assert isinstance(figure, Figure) and rendered(figure)
    assert torch.equal(X, x) and torch.equal(EPS, eps)


def test_every_panel_of_clouds_holds_its_points_and_empty_places_hold_nothing():
    figure = plots_2d.draw_clouds({name: DOTS for name in "abc"}, columns=2)
    counts = [sum(len(dots.get_offsets()) for dots in axes.collections) for axes in figure.axes]
    assert counts == [50, 50, 50, 0]


def rendered(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=50)
    return buffer.getvalue()


@pytest.mark.parametrize("name", CORNERS)
def test_the_same_values_give_the_same_picture(name):
    first, second = (rendered(PICTURES[name](*CORNERS[name][-1])) for _ in range(2))
    assert first == second
