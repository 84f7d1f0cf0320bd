"""Lesson 06's checks, gan: what learners get wrong, what is right as well, and the oracles."""
import pytest
import torch
from exercises import TestAnswers, first_case, parameters, verdict  # noqa: F401, collected here

from dmdkit import check
from dmdkit.experiments import lesson06
from dmdkit.methods import dmd2

RIGHT = {
    "ex_6_1": [
        "[-ls(fake).mean(), -ls(-fake).mean() - ls(real).mean()]",
        "bce(fake, one), bce(fake, 0 * one) + bce(real, one)",
    ],
    "ex_6_2": ["gan_losses(D(x, weights.detach()), D(real, weights))[0] "
               "+ gan_losses(D(x.detach(), weights), D(real, weights))[1]"],
}

LOGITS = """
sp = torch.nn.functional.softplus
ls = torch.nn.functional.logsigmoid
bce = torch.nn.functional.binary_cross_entropy_with_logits
"""
ADVERSARY = f"""
D = {parameters("ex_6_2")[0]}
G = sp(-D(x, weights.detach())).mean()
F = sp(D(x.detach(), weights)).mean()
R = sp(-D(real, weights)).mean()
"""
BEFORE = {  # what the answers of an exercise may use
    "ex_6_1": LOGITS + "one = torch.ones_like(fake)\nG, D = solved(fake, real)",
    "ex_6_2": LOGITS + ADVERSARY,
}

WRONG = {  # what learners write, and a word of the answer that they must get
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
        "sp(-fake), sp(fake) + sp(-real)": "L_G should be one number",
        "-torch.log(fake).mean(), -torch.log(1 - fake).mean() - torch.log(real).mean()":
            "for probabilities",
        "torch.log(1 + torch.exp(-fake)).mean(), torch.log(1 + fake.exp()).mean() + (1 + "
        "(-real).exp()).log().mean()": "infinite for large ones",
        "-torch.log(fake.sigmoid()).mean(), -(1 - fake.sigmoid()).log().mean() - "
        "real.sigmoid().log().mean()": "infinite for large ones",
        "torch.nn.functional.binary_cross_entropy(fake, torch.ones_like(fake)), D":
            "numbers of any size",
        "G.item(), D.item()": "a Python number has no derivative",
        "G, D, D": "should return 2 tensors",
        "dict(generator=G, discriminator=D)": "should return 2 tensors",
        "torch.no_grad()(solved)(fake, real)": "nothing learns from them",
        "solved(fake.detach(), real.detach())": "nothing learns from them",
        "torch.tensor(G.item()), torch.tensor(D.item())": "nothing learns from them",
        "G, solved(fake, real.detach())[1]": "Wrong: dL_D/dreal",
        "G, 2 * D": "values are not",
        "G, sp(fake + torch.rand(len(fake))).mean()": "random",
    },
    "ex_6_2": {
        "sp(-D(x, weights)).mean() + sp(D(x, weights)).mean() + R": "Nothing is detached",
        "G + sp(D(x, weights)).mean() + R": "x is attached in L_D",
        "sp(-D(x, weights)).mean() + F + R": "weights are attached in L_G",
        "sp(-D(x.detach(), weights)).mean() + sp(D(x, weights.detach())).mean() + R":
            "are exchanged",
        "G.detach() + F + R": "Both are detached in L_G",
        "sp(-D(x.detach(), weights)).mean() + F + R": "x is detached, not the weights",
        "G + F.detach() + R": "Both are detached in the discriminator's term",
        "G + sp(D(x, weights.detach())).mean() + R": "pushed back",
        "G + F + R.detach()": "on the real images",
        "G + F.detach() + R.detach()": "in all three terms",
        "solved(D, weights.detach(), x, real)": "in all three terms",
        "solved(D, weights, x.detach(), real)": "Both are detached in L_G",
        "(G + F + R).detach()": "everything is detached",
        "sp(D(x, weights.detach())).mean() + F + R": "sign in L_G",
        "-sp(D(x, weights.detach())).mean() + F + R": "saturates",
        "G + sp(-D(x.detach(), weights)).mean() + sp(D(real, weights)).mean()":
            "fake and real exchanged",
        "G + F + sp(D(real, weights)).mean()": "every logit small",
        "G + F": "real half",
        "G + R": "fake half",
        "G + (F + R) / 2": "half of that",
        "-(G + F + R)": "log-probabilities",
        "-D(x, weights.detach()).mean() + F + R": "−D itself",
        "solved(D, weights, real, x)": "x and real are exchanged",
        "G": "L_G alone",
        "F + R": "L_D alone",
        "len(x) * (G + F + R)": "not the sums",
        "sp(-D(x, weights.detach())) + sp(D(x.detach(), weights)) + sp(-D(real, "
        "weights))": "one number, of shape (); yours has shape (6,)",
        "(G, F + R)": "should be a tensor",
        "(G + F + R).item()": "should be a tensor",
        "D(x)": "TypeError",
        "G - F - R": "values are not",
        "solved(D, weights, x, real + torch.randn_like(real))": "random",
    },
}


def test_the_oracles_of_6_1_and_6_2_are_what_autograd_makes_of_the_kits_losses():
    def both(fake, real):
        return dmd2.generator_loss(fake), dmd2.discriminator_loss(fake, real)

    def adversarial(discriminator, weights, x, real):
        G = dmd2.generator_loss(discriminator(x, weights.detach()))
        fake = discriminator(x.detach(), weights)
        return G + dmd2.discriminator_loss(fake, discriminator(real, weights))

    for exercise, function in ((check.ex_6_1, both), (check.ex_6_2, adversarial)):
        case = first_case(exercise)
        got = exercise.oracle(*case)
        torch.testing.assert_close(got, exercise.probe(function, *case), check_dtype=False)


@pytest.mark.parametrize("name, ours", [("ex_6_1", lesson06.gan_losses),
                                        ("ex_6_2", lesson06.adversarial_loss),
                                        ("ex_6_4", lesson06.simulate)])
def test_what_runs_in_place_of_a_blank_answer_is_right(name, ours, capsys):
    assert verdict(name, ours, capsys).startswith("✓")


def test_the_toys_samples_go_to_the_data_with_each_loss_for_its_own_network():
    def broken(discriminator, weights, x, real):
        fake, real = discriminator(x, weights), discriminator(real, weights)
        return dmd2.generator_loss(fake) + dmd2.discriminator_loss(fake, real)

    g = torch.Generator().manual_seed(0)
    aim = lesson06.tilted_cloud(1000, g).mean(0)
    mended, lost = (lesson06.gan(loss, 300, g).mean(0)
                    for loss in (lesson06.adversarial_loss, broken))
    assert (mended - aim).norm() < 0.4 < (lost - aim).norm()
