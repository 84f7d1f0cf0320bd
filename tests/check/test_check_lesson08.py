"""Lesson 08's checks: what learners get wrong, what is right as well, and the oracles."""
import pytest
import torch
from exercises import TestAnswers  # noqa: F401, collected here

from dmdkit import check, schedule

RIGHT = {
    "ex_8_1": ["torch.sin(torch.pi / 2 - phi) * z_0 + phi.sin() * z_1"],
    "ex_8_2": ["torch.stack([sigma / alpha, sigma.clone()])"],
}

BEFORE = {"ex_8_1": "u = phi / (torch.pi / 2)"}  # what the answers of an exercise may use

WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_8_1": {
        "(1 - u) * z_0 + u * z_1": "straight line",
        "(1 - u).sqrt() * z_0 + u.sqrt() * z_1": "not the speed",
        "((1 - u) * z_0 + u * z_1) / ((1 - u)**2 + u**2).sqrt()": "scaled to variance 1",
        "phi.sin() * z_0 + phi.cos() * z_1": "exchanged",
        "phi.cos() * z_0 - phi.sin() * z_1": "ends at −z_1",
        "phi.cos()**2 * z_0 + phi.sin()**2 * z_1": "squared",
        "(phi * torch.pi / 2).cos() * z_0 + (phi * torch.pi / 2).sin() * z_1": "once more",
        "torch.deg2rad(phi).cos() * z_0 + torch.deg2rad(phi).sin() * z_1": "radians",
        "solved(z_0, torch.randn_like(z_1), phi)": "fresh noise",
    },
    "ex_8_2": {
        "torch.stack([sigma, sigma / alpha])": "exchanged",
        "torch.stack([alpha / sigma, sigma])": "upside down",
        "torch.stack([1 / alpha, sigma])": "multiplied by σ too",
        "torch.stack([sigma / alpha, alpha])": "that α multiplies",
        "torch.stack([sigma / alpha, sigma / alpha])": "nothing is divided",
        "torch.stack([sigma / alpha, torch.ones_like(sigma)])": "predicts x itself",
        "torch.stack([-sigma / alpha, -sigma])": "absolute values",
        "torch.stack([(sigma / alpha)**2, sigma**2])": "squared",
        "torch.stack([sigma, sigma])": "division by α is missing",
    },
}


def test_slerp_by_the_noises_own_angle_is_told(capsys):
    def slerp(z_0, z_1, phi):
        a, b = z_0.flatten(1), z_1.flatten(1)
        omega = torch.nn.functional.cosine_similarity(a, b).acos()
        omega = omega.reshape(-1, *[1] * (z_0.ndim - 1))
        u = phi / (torch.pi / 2)
        return (((1 - u) * omega).sin() * z_0 + (u * omega).sin() * z_1) / omega.sin()

    check.ex_8_1(slerp)
    assert "This is slerp" in capsys.readouterr().out


def test_the_walk_has_variance_one_and_constant_speed():
    z_0, z_1 = torch.randn(2, 1, 100_000)
    phi = torch.linspace(0, torch.pi / 2, 9)[:, None]
    path = check.ex_8_1.oracle(z_0, z_1, phi)
    assert path.var(1).sub(1).abs().max() < 0.02
    steps = path.diff(dim=0).norm(dim=1)
    assert steps.max() / steps.min() < 1.02
    torch.testing.assert_close(path[0], z_0[0])


def test_the_gains_of_the_well_known_schedules():
    """Errors grow 157-fold in one step of ε at T = 1000, as methods that convert it found."""
    alpha, sigma = schedule.linear(1000).at(torch.tensor([999]), torch.zeros(1, 1))
    eps, v = check.ex_8_2.oracle(alpha.flatten(), sigma.flatten())
    assert eps.item() == pytest.approx(157, rel=0.01) and v.item() == pytest.approx(1, abs=1e-4)
