"""What is trained: a network with its optimiser, learning rate and average, on the one device."""
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import parse_flag_from_env
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

FUSED = ("cpu", "cuda")          # devices for which every torch since 2.4 has a fused AdamW
_MADE: list[Accelerator] = []    # this process's; Accelerate's own state is the process's too


# The device

def accelerator(cpu: bool = False) -> Accelerator:
    """This process's Accelerator, on the device at hand (the CPU if asked); always the same.

    It computes in bf16 where that is faster than fp32: on GPUs that support it and on CPUs with
    AMX. Elsewhere bf16 is emulated, and slower (measured: 2.3 times). Accelerate's own environment
    variable, ACCELERATE_MIXED_PRECISION ("no", "bf16"), has the last word.
    Raises RuntimeError if another device is asked for than the process has already.
    """
    if PartialState._shared_state:  # made by an earlier call, or by another library
        _check_device(PartialState(), cpu)
    if not (_MADE and AcceleratorState._shared_state):
        _MADE[:] = [_make(cpu)]
    return _MADE[0]


def _check_device(state: PartialState, cpu: bool) -> None:
    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    has, wanted = state.device.type, "cpu" if cpu else state.default_device.type
    if has != wanted:
        raise RuntimeError(f"This process computes on {has} already and cannot change to {wanted}. "
                           f"Take {has} here too (cpu={has == 'cpu'}), or start a new process (in "
                           f"a notebook: restart the kernel) and take {wanted} from the start.")


def _make(cpu: bool) -> Accelerator:
    if AcceleratorState._shared_state:
        return Accelerator()  # another library chose the precision, and it cannot be changed
    told = os.environ.get("ACCELERATE_MIXED_PRECISION")
    return Accelerator(cpu=cpu, mixed_precision=told or ("bf16" if _fast_bf16(cpu) else "no"))


def _fast_bf16(cpu: bool) -> bool:
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


# The network

class Learner:
    """A network being trained, with AdamW, warm-up and cosine learning rate, and an average (EMA).

    Args:
        net: the network (a Denoiser, a classifier …); ``learner.model`` is what a step calls.
        lr: peak learning rate, reached after ``warmup`` steps (at most half of all) and annealed
            to 0 at ``n_steps`` updates.
        ema: decay of the moving average (with diffusers' ramp-up (1 + i)/(10 + i)); 0 keeps none.
        max_grad_norm: gradients are clipped to this norm.
        adamw: AdamW's betas (0.9, 0.999 by default) and weight_decay (0).
    Raises ValueError for numbers that make no sense.
    """

    def __init__(self, net: nn.Module, accelerator: Accelerator, *, lr: float, n_steps: int,
                 warmup: int = 100, ema: float = 0.999, max_grad_norm: float = 1.0, **adamw):
        adamw = {"betas": (0.9, 0.999), "weight_decay": 0.0} | adamw
        self.settings = {"lr": lr, "n_steps": n_steps, "warmup": warmup, "ema": ema,
                         "max_grad_norm": max_grad_norm, **adamw}
        _check(self.settings)
        self.net, self.accelerator, self.max_grad_norm = net, accelerator, max_grad_norm
        device = accelerator.device
        net.to(device, memory_format=torch.channels_last)
        fused = device.type in FUSED
        optimizer = torch.optim.AdamW(net.parameters(), lr, fused=fused, **adamw)
        # not prepared by Accelerate, which would step it once per process
        warmup = min(warmup, n_steps // 2)
        self.lr_scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, n_steps)
        self.model, self.optimizer = accelerator.prepare(net, optimizer)
        _forget(accelerator)
        self.ema = EMAModel(net.parameters(), ema, foreach=True) if ema else None
        self.holds_average = False

    def update(self, loss: Tensor) -> Tensor:
        """One optimiser step down ``loss`` (a scalar); returns the gradient norm before clipping.

        Raises FloatingPointError if that is not finite; the weights are then as they were.
        """
        self.check_trainable()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        try:
            check_finite("gradient norm", norm)
        except FloatingPointError:
            self.optimizer.zero_grad()
            raise
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.step(self.net.parameters())
        return norm

    def share(self, batch_size: int) -> slice:
        """This process's rows of a global batch that every process draws whole from the common
        generator, so that n processes compute what one does. Raises ValueError if the shares would
        not be equal."""
        n = self.accelerator.num_processes
        if batch_size < 1 or batch_size % n:
            raise ValueError(f"batch_size must be a positive multiple of the {n} processes, so "
                             f"that each takes an equal share; got {batch_size}.")
        return slice(self.accelerator.process_index, None, n)

    # The average

    def averaged(self) -> nn.Module:
        """The network itself, in eval mode and holding the averaged weights, until ``restore``."""
        if self.ema and not self.holds_average:
            self.ema.store(self.net.parameters())
            self.ema.copy_to(self.net.parameters())
            self.holds_average = True
        return self.net.eval()

    def restore(self) -> None:
        """Put the trained weights back after ``averaged``, and return to train mode."""
        if self.holds_average:
            self.ema.restore(self.net.parameters())
            self.holds_average = False
        self.net.train()

    @contextmanager
    def averaging(self) -> Iterator[nn.Module]:
        """Within, the network is as ``averaged`` gives it; afterwards it can be trained again."""
        outermost = not self.holds_average
        try:
            yield self.averaged()
        finally:
            if outermost:
                self.restore()

    def check_trainable(self) -> None:
        """Raises RuntimeError while the network holds its averaged weights."""
        if self.holds_average:
            raise RuntimeError("This network holds its averaged weights, and training them would "
                               "lose the trained ones. Call the learner's restore() first.")

    # The state

    def state_dict(self) -> dict:
        """All that training changes, and the settings."""
        self.check_trainable()
        state = {"settings": self.settings, "net": self.net.state_dict(),
                 "optimizer": self.optimizer.state_dict(),
                 "lr_scheduler": self.lr_scheduler.state_dict()}
        return state | {"ema": self.ema.state_dict()} if self.ema else state

    def load_state_dict(self, state: dict) -> None:
        """Go on from a state. Raises ValueError for one of other settings, and what torch raises
        for one of another network."""
        _same_settings(state["settings"], self.settings)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if moment.shape == weight.shape:
                    # fused AdamW pairs them by place in memory, and files forget layouts
                    moments[name] = torch.empty_like(weight).copy_(moment)
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.accelerator.device)  # diffusers leaves it on the CPU


def check_finite(name: str, value: Tensor) -> None:
    """Raises FloatingPointError for a scalar that is not finite."""
    number = value.item()
    if not math.isfinite(number):
        raise FloatingPointError(f"{name} became {number}")


def _check(settings: dict) -> None:
    betas = settings["betas"]
    rules = {"lr": settings["lr"] > 0 and math.isfinite(settings["lr"]),
             "n_steps": settings["n_steps"] >= 1, "warmup": settings["warmup"] >= 0,
             "ema": 0 <= settings["ema"] < 1, "max_grad_norm": settings["max_grad_norm"] > 0,
             "betas": len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
             "weight_decay": settings["weight_decay"] >= 0}
    wrong = [name for name, good in rules.items() if not good]
    if wrong:
        raise ValueError("lr and max_grad_norm must be positive, n_steps at least 1, warmup and "
                         "weight_decay not negative, ema and both betas in [0, 1); got "
                         f"{wrong[0]} {settings[wrong[0]]}.")


def _same_settings(there: dict, here: dict) -> None:
    for name in sorted(there.keys() | here.keys()):
        before, now = there.get(name), here.get(name)
        if isinstance(now, tuple):
            now = list(now)
        if before != now:
            raise ValueError(f"its {name} was {before} and is {now} now")


def _forget(accelerator: Accelerator) -> None:
    """Let go of what was prepared: a process's one Accelerator would keep every network alive."""
    accelerator._models.clear()
    accelerator._optimizers.clear()
