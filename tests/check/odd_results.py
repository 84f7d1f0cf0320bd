"""Results that a learner's function might give and that cannot be compared as they are."""
import warnings

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode


class Unsayable(Exception):
    """An exception whose text cannot be had."""

    def __str__(self):
        raise ValueError("no text")


def unsayable():
    raise Unsayable


def leave():
    raise SystemExit


def long_winded():
    raise RuntimeError("Many lines.\n\nMore of them..\n")


def unimplemented():
    raise NotImplementedError("Could not run 'aten::_foo' with arguments from the 'Bar' backend.")


class Stubborn(Tensor):
    """A tensor for which every function fails."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("I won't.")


def fake():
    with FakeTensorMode():
        return torch.ones(())


def batched():
    """A tensor that is left over from inside a vmap."""
    kept = []
    torch.func.vmap(lambda x: kept.append(x) or x)(torch.ones(3))
    return kept[0]


def quantised():
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that these are experimental, or old
        return make()


ODD = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: quietly(torch.eye(3).to_sparse_csr),
    "quantised": lambda: quietly(quantised),
    "nested": lambda: quietly(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)],
                                                 layout=torch.jagged),
    "meta": lambda: torch.ones((), device="meta"),
    "complex": lambda: torch.tensor(1j),
    "fake": fake,
    "left over": batched,
    "stubborn": lambda: torch.ones(()).as_subclass(Stubborn),
    "empty": lambda: torch.ones(0),
    "dict": lambda: {"loss": torch.ones(())},
    "empty tuple": tuple,
    "tuples": lambda: ((torch.ones(3), 1), None),
    "three kinds": lambda: (torch.eye(3).to_sparse(), "", {}),
    "array": lambda: np.ones(3),
    "huge": lambda: 10**400,
    "text": lambda: "0.5",
    "class": lambda: Tensor,
    "unsayable error": unsayable,
    "exit": leave,
    "long error": long_winded,
    "torch's own": unimplemented,
}


class Elsewhere(Tensor):
    """Stands in for a tensor on a GPU, on machines that have none: it refuses to meet a tensor of
    the CPU until cpu() has moved it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(Tensor)
        there = [isinstance(value, Elsewhere) for value in args if isinstance(value, Tensor)]
        if not all(there) and func is not torch.autograd.grad:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least "
                               "two devices, cuda:0 and cpu!")
        return super().__torch_function__(func, types, args, kwargs or {})


def everywhere(function, change):
    """The function, with ``change`` made to every tensor that it returns."""
    def changed(*case):
        result = function(*case)
        if isinstance(result, (tuple, list)):
            return type(result)(map(change, result))
        return change(result)
    return changed
