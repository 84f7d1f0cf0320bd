"""The exercises that are graded: what each one's function is called and how many points it gives.

This table is what grades count by. The points in a notebook's metadata are for nbgrader only; who
hands a notebook in can change them.
"""
from typing import NamedTuple


class Graded(NamedTuple):
    """The name of an exercise's function, and its points."""
    function: str
    points: int


TABLE = {
    "ex_1_1": Graded("add_noise", 2),
    "ex_1_2": Graded("denoising_loss", 3),
    "ex_1_3": Graded("posterior_mean", 3),
    "ex_1_4": Graded("ddim_step", 2),
    "ex_2_1": Graded("score_from_v", 2),
    "ex_2_2": Graded("x_from_score", 2),
    "ex_2_3": Graded("ideal_denoiser", 3),
    "ex_2_4": Graded("langevin_step", 2),
    "ex_3_1": Graded("kl_gradient", 2),
    "ex_3_2": Graded("score_difference", 2),
    "ex_3_3": Graded("dm_gradient", 4),
    "ex_3_4": Graded("matching_loss", 3),
    "ex_3_5": Graded("fake_loss", 4),
    "ex_4_1": Graded("pair_batch", 2),
    "ex_4_2": Graded("regression_loss", 3),
    "ex_4_3": Graded("guided_gradient", 4),
    "ex_4_4": Graded("regression_weight", 3),
    "ex_4_5": Graded("fake_loss", 4),
    "ex_5_1": Graded("distillation_target", 3),
    "ex_5_2": Graded("v_to_x_step", 2),
    "ex_5_3": Graded("halving_loss", 3),
    "ex_5_4": Graded("least_loss", 4),
    "ex_6_1": Graded("gan_losses", 3),
    "ex_6_2": Graded("adversarial_loss", 4),
    "ex_6_3": Graded("matched_weight", 3),
    "ex_6_4": Graded("simulate", 4),
    "ex_8_1": Graded("walk", 3),
    "ex_8_2": Graded("error_gains", 3),
}


def lesson_of(name: str) -> int:
    """ex_3_5 → 3."""
    return int(name.split("_")[1])


def exercises(lesson: int) -> dict[str, Graded]:
    """A lesson's exercises, in the table's order."""
    return {name: graded for name, graded in TABLE.items() if lesson_of(name) == lesson}
