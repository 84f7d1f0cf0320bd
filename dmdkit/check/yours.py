"""A learner's function at work in a lesson, whether it is written yet or not."""
from collections.abc import Callable
from functools import wraps

from .answers import not_written


def yours_or(yours: Callable, ours: Callable) -> Callable:
    """The learner's function; while it is blank, the library's. The first call says which it is.

    Args:
        yours: what an exercise asks for.
        ours: a function of the library with the same arguments and the same answer.
    """
    told = []

    def say(text: str) -> None:
        if not told:
            told.append(text)
            print(text)

    @wraps(yours)
    def function(*given, **named):
        try:
            answer = yours(*given, **named)
        except NotImplementedError as error:
            if not not_written(error):
                raise
            say(f"{yours.__name__} is not written yet: the library's runs in its place.")
            return ours(*given, **named)
        say(f"Your {yours.__name__} runs here.")
        return answer
    return function
