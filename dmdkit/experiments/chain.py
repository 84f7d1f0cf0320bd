"""Progressive distillation as a chain of recipes, each of a student with half its teacher's steps."""
from typing import NamedTuple

from ..methods import progressive
from ..tasks.task import Task
from .evaluate import Sampling
from .recipe import Recipe


class Chain(NamedTuple):
    """A teacher and the students that its steps are halved to.

    Args:
        what: the sentence of each student, with {steps} in it.
        prefix: the students' names are this and their number of steps.
        stages: updates by the student's number of steps, from the most steps to the fewest.
        guidance: of the teacher, which the first student has folded in.
    """
    what: str
    task: Task
    teacher: str
    prefix: str
    stages: dict[int, int]
    guidance: float = 0.0

    def name(self, n_steps: int) -> str:
        """The artefact's name; before the first stage stands the teacher itself."""
        return f"{self.prefix}-{n_steps}" if n_steps in self.stages else self.teacher

    def recipe(self, n_steps: int) -> Recipe:
        """The recipe of one stage, a student of n_steps DDIM steps."""
        steps = "1 DDIM step" if n_steps == 1 else f"{n_steps} DDIM steps"
        guidance = self.guidance if n_steps == max(self.stages) else 0.0
        method = progressive.Settings(n_steps, self.name(2 * n_steps), guidance)
        return Recipe(self.what.format(steps=steps), self.task, method, self.stages[n_steps],
                      samplings=(Sampling("ddim", n_steps),))

    def recipes(self) -> dict[str, Recipe]:
        """The recipes of all stages, by name."""
        return {self.name(n): self.recipe(n) for n in self.stages}
