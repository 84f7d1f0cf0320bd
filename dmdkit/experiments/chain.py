"""Progressive distillation as a chain of recipes, each of a student with half its teacher's steps."""
from ..methods import progressive
from ..tasks.task import Task
from .evaluate import Sampling
from .recipe import Recipe


def stage(what: str, task: Task, n_steps: int, teacher: str, n_updates: int,
          guidance: float = 0.0) -> Recipe:
    """The recipe of a student of n_steps DDIM steps. what: its sentence, with {steps} in it;
    guidance: of the teacher, which its student has folded in."""
    steps = "1 DDIM step" if n_steps == 1 else f"{n_steps} DDIM steps"
    method = progressive.Settings(n_steps, teacher, guidance)
    return Recipe(what.format(steps=steps), task, method, n_updates,
                  samplings=(Sampling("ddim", n_steps),))
