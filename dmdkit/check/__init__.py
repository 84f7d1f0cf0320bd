"""Checks of the lessons' exercises: ``check.ex_k_j(your_function)``.

``harness`` prints what ``trial`` finds: is a function right, does it make a usual mistake, or what
else can be said (``diagnosis``). The lessons' files bring the oracles and the usual mistakes; what
they try functions on is in ``cases``. For lecturers, ``lecturer`` grades (``grade``, ``judge``,
``worker``) and makes a course (``course``, ``recorded``). ``yours_or(your_function, library's)``
lets a lesson run on what its learner wrote.
"""
from .harness import CheckFailed, Exercise
from .lesson01 import ex_1_1, ex_1_2, ex_1_3, ex_1_4
from .lesson02 import ex_2_1, ex_2_2, ex_2_3, ex_2_4
from .lesson03_gradients import ex_3_1, ex_3_2, ex_3_3
from .lesson03_losses import ex_3_4, ex_3_5
from .lesson04_fake_score import ex_4_5
from .lesson04_guidance import ex_4_3
from .lesson04_pairs import ex_4_1, ex_4_2, ex_4_4
from .lesson05_losses import ex_5_3, ex_5_4
from .lesson05_steps import ex_5_1, ex_5_2
from .lesson06_gan import ex_6_1, ex_6_2
from .lesson06_training import ex_6_3, ex_6_4
from .lesson08 import ex_8_1, ex_8_2
from .yours import yours_or

__all__ = [
    "CheckFailed", "Exercise", "yours_or",
    "ex_1_1", "ex_1_2", "ex_1_3", "ex_1_4",
    "ex_2_1", "ex_2_2", "ex_2_3", "ex_2_4",
    "ex_3_1", "ex_3_2", "ex_3_3", "ex_3_4", "ex_3_5",
    "ex_4_1", "ex_4_2", "ex_4_3", "ex_4_4", "ex_4_5",
    "ex_5_1", "ex_5_2", "ex_5_3", "ex_5_4",
    "ex_6_1", "ex_6_2", "ex_6_3", "ex_6_4",
    "ex_8_1", "ex_8_2",
]
