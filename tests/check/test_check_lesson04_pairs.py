"""Lesson 04's checks, pairs: what learners get wrong, what is right as well, and the oracles."""
import torch
from exercises import TestAnswers, first_case  # noqa: F401, collected here

from dmdkit import check
from dmdkit.methods import pairs

RIGHT = {
    "ex_4_1": [
        "[value[index] for value in (z, y, label)]",
        "z.index_select(0, index), y.index_select(0, index), label.index_select(0, index)",
        "z[index], y[index], label[index].int()",
    ],
    "ex_4_2": ["distance(generate(z, label), y).sum() / len(y)"],
    "ex_4_4": [
        "float(solved(matching_gradient, regression_gradient, share))",
        "solved(matching_gradient, regression_gradient, share).numpy()[()]",
        "share * length(matching_gradient) / length(regression_gradient)",
    ],
}

LENGTH = """
def norms(gradient):
    return gradient.square().sum((1, 2, 3)).sqrt()

def length(gradient):
    return norms(gradient).mean()
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_4_4": LENGTH,
}

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_4_1": {
        "z[index], y[index], label[:len(index)]": "labels are the first B",
        "z[index], y[index], label": "labels are all N",
        "z[:len(index)], y[index], label[index]": "noise is the first B",
        "z[index], y[:len(index)], label[index]": "images are the first B",
        "z[:len(index)], y[:len(index)], label[:len(index)]": "index is not used",
        "z[index], y[index], torch.arange(10).repeat(9)[:len(index)]": "by place in the batch",
        "z[index], y[index], index % 10": "pairs' numbers",
        "z[index], y[index], label[sorted(index.tolist())]": "you sorted index for them",
        "[value[sorted(index.tolist())] for value in (z, y, label)]":
            "right pairs in another order",
        "[value[sorted(set(index.tolist()))] for value in (z, y, label)]": "names twice",
        "z[index], y[index]": "label is missing",
        "y[index], z[index], label[index]": "exchanged",
        "z[index], label[index], y[index]": "three are in another order",
        "label[index], z[index], y[index]": "z should have shape",
        "z[index], y[index], torch.randint(10, index.shape)": "something of its own",
        "[value[index[torch.randperm(len(index))]] for value in (z, y, label)]":
            "something of its own",
        "z[index]": "should return 3 tensors",
        "dict(z=z[index], y=y[index], label=label[index])": "What came back: dict",
        "z[index], y[index], None": "label should be a tensor; it is of type None",
        "z[index], y[index], label[index[0]]": "Each has one row",
        "z[index].flatten(1), y[index], label[index]": "z should have shape (4, 1, 4, 3)",
        "z[index].squeeze(1), y[index], label[index]": "z should have shape (4, 1, 4, 3)",
        "z[index], y[index], label[index][:, None]": "label should have shape (4,)",
        "z[index], y[index], label[index].float()": "whole numbers, torch.int64",
        "z[index], y[index], label.index_copy_(0, index, label[index] + 1)[index] - 1": "in place",
    },
    "ex_4_2": {
        "distance(generate(z, label).detach(), y).mean()": "nothing learns",
        "solved(torch.no_grad()(generate), distance, z, y, label)": "nothing learns",
        "distance(generate(z), y).mean()": "label is left out",
        "distance(generate(z, label), y).sum()": "not the sum",
        "distance(generate(z, label), y)": "one number, of shape (); yours has shape (5,)",
        "distance(generate(y, label), y).mean()": "generator was shown y",
        "distance(generate(y, label), z).mean()": "exchanged",
        "distance(generate(z, label), z).mean()": "target is z",
        "distance(z, y).mean()": "generator is missing",
        "torch.nn.functional.mse_loss(generate(z, label), y)": "mean squared error",
        "(generate(z, label) - y).abs().mean()": "mean absolute error",
        "(distance(generate(z, label), y) ** 2).mean()": "squared the distance",
        "0.5 * solved(generate, distance, z, y, label)": "factor ½",
        "distance(generate(torch.randn_like(z), label), y).mean()": "fresh noise",
        "distance(generate(z, label), y).mean().item()": "should be a tensor",
        "distance(generate(z, label) - y, torch.zeros_like(y)).mean()":
            "difference of the two",
        "distance(generate(z, label), y).max()": "values are not",
        "distance(generate(z, label), y)[:, None]": "one number, of shape ()",
        "distance(generate(z, 3), y).mean()": "whole numbers",
    },
    "ex_4_4": {
        "share * length(regression_gradient) / length(matching_gradient)": "upside down",
        "1 / solved(matching_gradient, regression_gradient, share)": "1/λ",
        "length(matching_gradient) / length(regression_gradient)": "share is not used",
        "length(matching_gradient) / length(regression_gradient) / share": "divided by share",
        "share / (1 - share) * length(matching_gradient) / length(regression_gradient)":
            "share of the sum",
        "share * matching_gradient.norm() / regression_gradient.norm()": "whole batch",
        "share * matching_gradient.abs().mean() / regression_gradient.abs().mean()":
            "mean absolute value",
        "share * norms(matching_gradient).square().mean() / "
        "norms(regression_gradient).square().mean()": "squared",
        "share * (norms(matching_gradient) / norms(regression_gradient)).mean()": "own ratio",
        "share * norms(matching_gradient) / norms(regression_gradient)": "one weight an image",
        "share * matching_gradient.norm(dim=1).mean() / regression_gradient.norm(dim=1).mean()":
            "channels only",
        "share * norms(matching_gradient).max() / norms(regression_gradient).max()": "longest",
        "str(share)": "should be a tensor",
        "solved(matching_gradient, regression_gradient, share)[None]": "one number",
        "length(matching_gradient) - share * length(regression_gradient)": "values are not",
    },
}


def test_the_oracle_of_4_1_is_the_kits_batch():
    z, y, label, index = first_case(check.ex_4_1)
    wanted = pairs.Pairs(z, y, label).batch(index)
    assert all(map(torch.equal, check.ex_4_1.oracle(z, y, label, index), wanted))


def test_the_oracle_of_4_4_gives_the_wanted_length():
    matching, regression = torch.randn(2, 5, 1, 4, 4)
    weight = check.ex_4_4.oracle(matching, regression, 0.3)

    def length(gradient):
        return torch.linalg.vector_norm(gradient, dim=(1, 2, 3)).mean()

    torch.testing.assert_close(length(weight * regression), 0.3 * length(matching))


def test_the_oracle_of_4_2_is_what_autograd_makes_of_the_mean_distance():
    def loss(generate, distance, z, y, label):
        return distance(generate(z, label), y).mean()

    case = first_case(check.ex_4_2)
    torch.testing.assert_close(check.ex_4_2.oracle(*case), check.ex_4_2.probe(loss, *case))
