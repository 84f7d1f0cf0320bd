"""What a learner's function gives, made comparable, or a sentence about why it is not."""
import numbers
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RTOL = 1e-4  # float32, summed in whatever order the learner likes
ATOL = 1e-5

NOT_WRITTEN = "Not written yet: put your code in place of `raise NotImplementedError`."
NOTHING = "It returned None: write the body, and end it with `return …`."
INFINITE = ("holds NaN or infinity: look for a division by zero, the root of a negative number or "
            "the logarithm of 0.")

MISFITS = ("size", "shape", "dimension", "broadcast")  # words of errors about shapes

EXPLAINED = {  # part of an error's text → what it means here
    "Boolean value of Tensor": "Python's if, max() and min() take single numbers. For tensors "
                               "there are clamp, torch.maximum and torch.where.",
    "between 0 and 1": "This function takes probabilities, and logits are numbers of any size.",
    "same device": "All that the check hands in is on the CPU: use the arguments, not the "
                   "notebook's own tensors, and make new ones on the arguments' device.",
}

ODD = {  # tensors that are not compared
    "nested": "is a nested tensor. Return an ordinary one.",
    "quantised": "is a quantised tensor. Return an ordinary one, as dequantize() makes it.",
    "sparse": "is a sparse tensor. Return an ordinary one, as to_dense() makes it.",
    "meta": "is on the device “meta”, where tensors have a shape and no values. Use the device of "
            "the arguments.",
    "complex": "holds complex numbers. Real ones are expected.",
}


class Unfit(Exception):
    """A result that cannot be right, whatever its values: a sentence for the learner.

    ``result`` is what a known mistake, which says more, may be recognised by; () for nothing.
    """

    def __init__(self, sentence: str, result=()):
        super().__init__(sentence)
        self.result = result


@dataclass(frozen=True)
class Answer:
    """What a function gave for one case.

    Args:
        values: its parts, dense float64 tensors on the CPU; () if there is nothing to compare.
        fault: why it cannot be right, whatever its values; "" if it can.
        kind: the type of what was returned or raised.
        changed: whether the function changed its arguments.
    """
    values: tuple[Tensor, ...] = ()
    fault: str = ""
    kind: str = ""
    changed: bool = False

    def equals(self, values: Sequence[Tensor]) -> bool:
        """Has it the same parts, shapes and numbers, up to rounding? NaN equals NaN."""
        return len(self.values) == len(values) and all(map(close, self.values, values))


def close(a: Tensor, b: Tensor) -> bool:
    """Have they the same shape and numbers, up to rounding?"""
    alike = a.shape == b.shape
    return alike and torch.allclose(a, b.double(), rtol=RTOL, atol=ATOL, equal_nan=True)


def answer(call: Callable, want: Sequence[Tensor], names: Sequence[str], hint: str) -> Answer:
    """What ``call()`` gives, where these parts are wanted. ``hint`` helps with wrong shapes."""
    fault = ""
    try:
        result = several(call(), names)
    except Unfit as unfit:
        fault = str(unfit)
        result = as_tuple(unfit.result)
    except (Exception, SystemExit) as error:  # whatever a learner's code raises is to be explained
        return Answer(fault=raised(error, hint), kind=type(error).__name__)
    try:
        values = tuple(map(plain, result, want, names))
    except Unfit as unfit:
        return Answer(fault=fault or str(unfit), kind=_kinds(result))
    for raw, value, part, name in zip(result, values, want, names):
        fault = fault or _misfit(raw, value, part, name, hint)
    return Answer(values, fault, _kinds(result))


def as_tuple(result) -> tuple:
    """The parts of a result: of a tuple or a list its entries, of anything else itself."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def several(result, names: Sequence[str]) -> tuple:
    """The result as one part for each name. Raises Unfit if that is not what it is."""
    if result is None:
        raise Unfit(NOTHING, (None,))
    if len(names) == 1:
        return (result,)
    if isinstance(result, (tuple, list)) and len(result) == len(names):
        return tuple(result)
    raise Unfit(f"It should return {len(names)} tensors: `return {', '.join(names)}`. What came "
                f"back: {_kinds(as_tuple(result)) or 'nothing'}.", result)


def plain(value, want: Tensor, name: str) -> Tensor:
    """``value`` as a dense float64 tensor on the CPU; a number where one number is wanted.

    Raises Unfit if it is no tensor, or one without values that could be compared.
    """
    try:
        if isinstance(value, numbers.Real) and want.ndim == 0:
            return torch.tensor(float(value), dtype=torch.float64)
        return _dense(value, name)
    except Unfit:
        raise
    except Exception as error:  # tensors come in more kinds than can be listed
        raise Unfit(f"{subject(name)} cannot be compared: {type(error).__name__}, "
                    f"{_said(error)}.") from None


def _dense(value, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise Unfit(f"{subject(name)} should be a tensor; it is of type {_kinds((value,))}.")
    odd = _odd(value)
    if odd:
        raise Unfit(f"{subject(name)} {ODD[odd]}")
    dense = value.detach().cpu().double().as_subclass(Tensor)  # in this order: MPS has no float64
    bool(dense.isfinite().all())  # a tensor without values, a fake one say, fails here
    return dense


def _odd(value: Tensor) -> str:
    """The key in ``ODD`` of a tensor that is not compared; "" for an ordinary one."""
    kinds = {"nested": value.is_nested, "quantised": value.is_quantized, "meta": value.is_meta,
             "sparse": value.layout != torch.strided, "complex": value.is_complex()}
    return next((name for name, holds in kinds.items() if holds), "")


def _misfit(raw, value: Tensor, want: Tensor, name: str, hint: str) -> str:
    """Why this part cannot be right, whatever its values; "" if it can."""
    if value.shape != want.shape:
        return (f"{subject(name)} should have shape {tuple(want.shape)}; yours has "
                f"{tuple(value.shape)}. {hint}").strip()
    fractions = isinstance(raw, Tensor) and raw.is_floating_point()
    if fractions and not want.is_floating_point():
        return f"{subject(name)} should hold whole numbers, {want.dtype}; yours is {raw.dtype}."
    if not value.isfinite().all():
        return f"{subject(name)} {INFINITE}"
    return ""


def not_written(error: BaseException) -> bool:
    """Whether this is what a blank exercise raises; torch's own NotImplementedError has a text."""
    return isinstance(error, NotImplementedError) and not error.args


def raised(error: BaseException, hint: str) -> str:
    """What to tell a learner whose function raised this."""
    text = _said(error)
    if not_written(error):
        return NOT_WRITTEN
    return f"It raised {type(error).__name__}: {text}. {_meaning(error, text, hint)}".strip()


def _meaning(error: BaseException, text: str, hint: str) -> str:
    """What helps with an error of this text; "" if nothing is known about it."""
    for part, meaning in EXPLAINED.items():
        if part in text:
            return meaning
    about_shapes = any(word in text for word in MISFITS)
    return hint if about_shapes and isinstance(error, RuntimeError) else ""


def _said(error: BaseException) -> str:
    """An error's text on one line, without the full stop."""
    try:
        text = str(error)
    except Exception:  # a learner's own kind of exception may fail here too
        text = ""
    return textwrap.shorten(text, 300).rstrip(".") or "(no message)"


def _kinds(result: tuple) -> str:
    return ", ".join("None" if value is None else type(value).__name__ for value in result)


def subject(name: str) -> str:
    """A part's name to begin a sentence with: "The loss", but "z"."""
    return name[0].upper() + name[1:] if " " in name else name


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "x, y and z"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
