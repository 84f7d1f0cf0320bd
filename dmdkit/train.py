"""The one training loop, a generator, and the denoiser's step.

A method brings its ``Learner``s (networks that are trained) and its ``step``; the loop draws a generator for each
step, checks, saves, resumes and yields a record, so that a notebook can plot, sample and stop where it likes.
"""
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from . import files
from .data import Images, Points
from .schedule import Schedule, v_from_x_eps

Step = Callable[[torch.Generator], dict[str, Tensor]]


class Record(NamedTuple):
    """One training step: its number counted from 1, its values (loss terms, gradient norms), its wall time."""
    step: int
    values: dict[str, float]
    seconds: float


class Training(NamedTuple):
    """A training that is ready to run."""
    learners: dict[str, "Learner"]             # what is trained, that which is kept first
    step: Step
    look: Callable[[], NamedTuple] | None = None  # what there is to see of it as it is now
    frozen: tuple[nn.Module, ...] = ()         # networks that are used and not trained
    finish: Callable[[], nn.Module] | None = None  # what is kept at the end; None: the first learner's average


def accelerator(cpu: bool = False) -> Accelerator:
    """Accelerate's Accelerator on the device at hand (the CPU if asked), in bf16 where that is faster than fp32:
    on GPUs that support it and on CPUs with AMX. Elsewhere bf16 is emulated, and slower (measured: 2.3 times)."""
    if torch.cuda.is_available() and not cpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return Accelerator(cpu=cpu, mixed_precision="bf16" if fast else "no")


class Learner:
    """A network being trained, with its fused AdamW, warm-up and cosine learning rate, and EMA of its weights.

    Args:
        net: the network (a Denoiser, a classifier …); ``learner.model`` is what to call in a step.
        lr: peak learning rate, reached after ``warmup`` steps and annealed to 0 at ``n_steps``.
        ema: decay of the moving average (with diffusers' ramp-up (1 + i)/(10 + i)); 0 keeps none.
        max_grad_norm: gradients are clipped to this norm.
    """

    def __init__(self, net: nn.Module, accelerator: Accelerator, *, lr: float, n_steps: int, warmup: int = 100,
                 betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0, ema: float = 0.999,
                 max_grad_norm: float = 1.0):
        self.net, self.accelerator, self.max_grad_norm = net, accelerator, max_grad_norm
        net.to(accelerator.device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), lr, betas, weight_decay=weight_decay, fused=True)
        # not prepared by Accelerate, which would step it once per process
        self.lr_scheduler = get_cosine_schedule_with_warmup(optimizer, min(warmup, n_steps // 2), n_steps)
        self.model, self.optimizer = accelerator.prepare(net, optimizer)
        self.ema = EMAModel(net.parameters(), ema, foreach=True) if ema else None

    def update(self, loss: Tensor) -> Tensor:
        """One optimiser step down ``loss`` (a scalar); returns the norm of the gradient before clipping."""
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.step(self.net.parameters())
        return norm

    def share(self, batch_size: int) -> slice:
        """This process's rows of a global batch that every process draws whole from the common generator, so that n
        processes compute what one does. Raises ValueError if the shares would not be equal."""
        n = self.accelerator.num_processes
        if batch_size % n:
            raise ValueError(f"batch_size must be a multiple of the {n} processes, so that each takes an equal share; "
                             f"got {batch_size}.")
        return slice(self.accelerator.process_index, None, n)

    def averaged(self) -> nn.Module:
        """The network itself in eval mode, holding the EMA weights until ``restore`` is called."""
        if self.ema:
            self.ema.store(self.net.parameters())
            self.ema.copy_to(self.net.parameters())
        return self.net.eval()

    def restore(self) -> None:
        """Put the trained weights back after ``averaged``, and return to train mode."""
        if self.ema:
            self.ema.restore(self.net.parameters())
        self.net.train()

    def state_dict(self) -> dict:
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "lr_scheduler": self.lr_scheduler.state_dict()}
        return state | {"ema": self.ema.state_dict()} if self.ema else state

    def load_state_dict(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if moment.shape == weight.shape:  # fused AdamW pairs them by place in memory, and files forget layouts
                    moments[name] = torch.empty_like(weight).copy_(moment)
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.accelerator.device)  # diffusers leaves it where the file put it, on the CPU


def train(step: Step, learners: dict[str, Learner], *, n_steps: int, seed: int = 0, checkpoint: Path | None = None,
          save_every: int = 500, resume: bool = False) -> Iterator[Record]:
    """Run ``step`` n_steps times, yielding a Record after each.

    Args:
        step: takes the step's torch.Generator, updates its learners and returns named scalar tensors. It draws
            all of its randomness from that generator (dropout's is seeded with it), which depends on seed and step
            number alone: a resumed run therefore repeats the uninterrupted one, bit for bit on a CPU.
        learners: by name, what a checkpoint holds.
        checkpoint: a file, written atomically every ``save_every`` steps and at the end; None keeps none.
        resume: go on from ``checkpoint`` instead of from step 0.
    Raises RuntimeError for a checkpoint that is damaged, of another run, or cannot be written, and
    FloatingPointError when a value is no longer finite; the last checkpoint then holds the last good state.
    """
    one = next(iter(learners.values())).accelerator
    start = _load_checkpoint(checkpoint, learners, n_steps, seed) if resume else 0
    for learner in learners.values():
        learner.net.train()
    for i in range(start, n_steps):
        begun = time.perf_counter()
        generator = torch.Generator(one.device).manual_seed(_step_seed(seed, i))
        with torch.random.fork_rng(devices=[one.device] if one.device.type == "cuda" else []):
            torch.manual_seed(_step_seed(seed, i))
            values = {name: value.item() for name, value in step(generator).items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            kept = f"; the last good state is in {checkpoint}" if checkpoint and Path(checkpoint).exists() else ""
            raise FloatingPointError(f"{' and '.join(bad)} became {values[bad[0]]} at step {i + 1}{kept}. "
                                     "Start again with a lower learning rate, or in fp32 if this was bf16.")
        if checkpoint and one.is_main_process and ((i + 1) % save_every == 0 or i + 1 == n_steps):
            files.save_state(checkpoint, {"step": i + 1, "n_steps": n_steps, "seed": seed, "learners": {
                name: learner.state_dict() for name, learner in learners.items()}})
        yield Record(i + 1, values, time.perf_counter() - begun)


def milestones(n_steps: int, n: int = 13) -> list[int]:
    """About n steps of a training at which to look at it, from 0 to n_steps, closer together early on."""
    return sorted({round(n_steps * (i / (n - 1))**1.5) for i in range(n)})


def _step_seed(seed: int, i: int) -> int:
    return seed * 1_000_003 + i  # distinct for every step of every run of under a million steps


def _load_checkpoint(checkpoint: Path | None, learners: dict[str, Learner], n_steps: int, seed: int) -> int:
    if checkpoint is None:
        raise RuntimeError("resume=True needs the path of a checkpoint.")
    state = files.load_state(checkpoint)
    run = (state.get("n_steps"), state.get("seed"), sorted(state.get("learners", {})))
    if run != (n_steps, seed, sorted(learners)):
        raise RuntimeError(f"The checkpoint {checkpoint} is of another run: steps, seed and networks are {run[0]}, "
                           f"{run[1]}, {run[2]} there, and {n_steps}, {seed}, {sorted(learners)} here. "
                           "Resume with the same settings, or start a new run in another folder.")
    try:
        for name, learner in learners.items():
            learner.load_state_dict(state["learners"][name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise RuntimeError(f"The checkpoint {checkpoint} does not fit this network "
                           f"({str(error).splitlines()[0]}). Start a new run in another folder.") from None
    return state["step"]


class Kept:
    """What autograd keeps for backward passes, in bytes: now, and at most so far."""

    def __init__(self, weights: Iterable[Tensor]):
        self.own, self.users = {_place(weight) for weight in weights}, {}
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> "_Saved":
        place = _place(tensor)
        self.users[place] = self.users.get(place, 0) + 1
        if self.users[place] == 1 and place not in self.own:
            self.now += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.now)
        return _Saved(tensor, self)

    def drop(self, tensor: Tensor) -> None:
        place = _place(tensor)
        self.users[place] -= 1
        if self.users[place] == 0 and place not in self.own:
            self.now -= tensor.untyped_storage().nbytes()


class _Saved:
    def __init__(self, tensor: Tensor, kept: Kept):
        self.tensor, self.kept = tensor, kept

    def __del__(self):
        self.kept.drop(self.tensor)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # tensors on the meta device have no address in memory


@contextmanager
def kept_for_backward(weights: Iterable[Tensor] = ()) -> Iterator[Kept]:
    """Count what autograd keeps within. weights: what is there anyhow, and not counted."""
    kept = Kept(weights)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda saved: saved.tensor):
        yield kept


def memory(step: Step, learners: dict[str, Learner], frozen: tuple[nn.Module, ...] = ()) -> dict[str, int]:
    """What one training step needs, in bytes: the weights of learners and ``frozen`` networks, gradients, optimiser
    state, averages, and the most that autograd keeps at a time for its backward passes. Takes one step."""
    device = next(iter(learners.values())).accelerator.device
    weights = [p for one in (*(learner.net for learner in learners.values()), *frozen) for p in one.parameters()]
    with kept_for_backward(weights) as kept:
        step(torch.Generator(device).manual_seed(0))
    size = lambda tensors: sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    trained = [p for learner in learners.values() for p in learner.net.parameters()]
    return {"weights": size(weights), "gradients": size(trained),
            "optimiser": size(value for learner in learners.values() for state in learner.optimizer.state.values()
                              for value in state.values()),
            "averages": size(p for learner in learners.values() if learner.ema for p in learner.ema.shadow_params),
            "activations": kept.peak}


def stratified_times(n: int, T: int, generator: torch.Generator) -> Tensor:
    """n times in 0 … T−1, (n,) int64: one from each n-th of the range, all shifted by one common draw.

    Each time alone is uniform; together they cover the range evenly, so the loss of a batch varies less than with
    independent draws (Kingma et al. 2021, VDM, Appendix I.1).
    """
    shift = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64)
    at = (torch.arange(n, dtype=torch.float64, device=generator.device) / n + shift) % 1
    return (at * T).long().clamp(max=T - 1)


def drop_labels(label: Tensor, no_class: int, probability: float, generator: torch.Generator) -> Tensor:
    """Replace each label by ``no_class`` with the given probability, so that one network learns both predictions
    that classifier-free guidance needs (Ho & Salimans 2022, Algorithm 1). label: (B,) → (B,)."""
    drop = torch.rand(label.shape, generator=generator, device=label.device) < probability
    return label.masked_fill(drop, no_class)


def denoising_loss(model: Callable, schedule: Schedule, kind: str, x: Tensor, eps: Tensor, t: Tensor,
                   label: Tensor | None) -> Tensor:
    """Mean squared error per pixel between what ``model`` predicts at x_t and its target, one a sample, (B,).

    DDPM's L_simple (eq. 14) for kind "eps". For "v" it equals (SNR + 1)-weighted error in x, for "eps" SNR-weighted
    (Salimans & Ho 2022, section 4). x, eps: (B, C, H, W); t, label: (B,).
    """
    target = {"x": x, "eps": eps, "v": v_from_x_eps(x, eps, *schedule.at(t, x))}[kind]
    prediction = model(schedule.noise(x, t, eps), t, label)
    return (getattr(prediction, kind) - target).square().flatten(1).mean(1)


def denoiser_step(learner: Learner, images: Images | Points, batch_size: int, label_dropout: float = 0.1,
                  loss: Callable[..., Tensor] = denoising_loss) -> Step:
    """The step that trains ``learner.net``, a Denoiser, on ``images`` with global batches of ``batch_size``.

    loss: called like ``denoising_loss``, one value a sample. The batch is shared among the processes by
    ``Learner.share``, which see for its error.
    """
    denoiser, images = learner.net, images.to(learner.accelerator.device)
    mine = learner.share(batch_size)

    def step(generator: torch.Generator) -> dict[str, Tensor]:
        device = generator.device
        index = torch.randint(len(images), (batch_size,), generator=generator, device=device)
        eps = torch.randn(batch_size, *denoiser.sample_shape, generator=generator, device=device)
        t = stratified_times(batch_size, denoiser.schedule.T, generator)
        label = drop_labels(images.labels[index], denoiser.n_classes, label_dropout, generator)
        x, _ = images.batch(index[mine])
        value = loss(learner.model, denoiser.schedule, denoiser.prediction, x, eps[mine], t[mine], label[mine]).mean()
        norm = learner.update(value)
        return {"loss": learner.accelerator.reduce(value.detach(), "mean"), "gradient norm": norm}

    return step
