"""What a distillation costs in memory and arithmetic: measured, and predicted from the networks'
architecture alone. For the latter they are run on torch's "meta" device, where a tensor has a shape
and no numbers, so that SDXL fits into a laptop.
"""
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ..denoiser import Denoiser
from ..train import Training


class Kept:
    """What autograd keeps for backward passes, in bytes: now, and at most so far."""

    def __init__(self, weights: Iterable[Tensor]):
        self.own = {_place(weight) for weight in weights}
        self.users = {}
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
    """A kept tensor, which is dropped when autograd lets go of this object."""

    def __init__(self, tensor: Tensor, kept: Kept):
        self.tensor, self.kept = tensor, kept

    def __del__(self):
        self.kept.drop(self.tensor)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # tensors on the meta device have no address in memory


def _unpack(saved: _Saved) -> Tensor:
    return saved.tensor


@contextmanager
def kept_for_backward(weights: Iterable[Tensor] = ()) -> Iterator[Kept]:
    """Count what autograd keeps within. weights: what is there anyhow, and not counted."""
    kept = Kept(weights)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, _unpack):
        yield kept


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def memory(training: Training) -> dict[str, int]:
    """What one step needs, in bytes: the weights of learners and frozen networks, gradients,
    optimiser state, averages, and the most that autograd keeps at a time for its backward passes
    ("activations"). Takes one step."""
    learners = list(training.learners.values())
    trained = [p for learner in learners for p in learner.net.parameters()]
    weights = trained + [p for net in training.frozen for p in net.parameters()]
    with kept_for_backward(weights) as kept:
        training.step(torch.Generator(learners[0].accelerator.device).manual_seed(0))
    states = [state for learner in learners for state in learner.optimizer.state.values()]
    averages = [p for learner in learners if learner.ema for p in learner.ema.shadow_params]
    return {"weights": _bytes(weights), "gradients": _bytes(trained),
            "optimiser": _bytes(value for state in states for value in state.values()),
            "averages": _bytes(averages), "activations": kept.peak}


@dataclass(frozen=True)
class Cost:
    """Of one network and one sample: its parameters, the operations of a forward pass (a
    multiplication and an addition are two) and the bytes that autograd keeps for the backward pass,
    both also for the way to the bottleneck alone."""
    parameters: int
    flops: float
    activations: float
    flops_to_bottleneck: float
    activations_to_bottleneck: float

    def memory(self, batch_size: int, *, trained: int = 16, frozen: int = 4, average: int = 4,
               adversarial: bool = True) -> dict[str, float]:
        """Bytes of DMD2's step on one device, with the names of ``memory``.

        Args:
            batch_size: samples on the device at a time.
            trained: bytes a parameter of generator and fake score: in float32 weight 4, gradient 4,
                AdamW's moments 8.
            frozen: of the teacher.
            average: of the generator's EMA.
            adversarial: with a discriminator the most is kept in the fake score's update: the
                denoising of a batch, and two batches, real and generated, down to the bottleneck.
        """
        kept = self.activations
        if adversarial:
            kept += 2 * self.activations_to_bottleneck
        state = 2 * trained * self.parameters + frozen * self.parameters
        return {"weights, gradients, optimiser": state, "averages": average * self.parameters,
                "activations": batch_size * kept}

    def step_flops(self, batch_size: int, fake_updates: int = 5, guided: bool = True,
                   adversarial: bool = True) -> float:
        """Operations of one step: an update of the generator and ``fake_updates`` of the fake
        score. A backward pass is two forward passes."""
        down = self.flops_to_bottleneck if adversarial else 0.0
        teacher = 2 if guided else 1
        # the discriminator of samples: forward, and back to x
        generator = (3 + teacher + 1) * self.flops + 2 * down
        fake = (1 + 3) * self.flops + 2 * 3 * down             # samples, denoising; both sides
        return batch_size * (generator + fake_updates * fake)


class _KeptAttention(torch.autograd.Function):
    """Attention as the fused kernels of GPUs and CPUs do it: what is kept are its inputs and its
    output. The meta device has no such kernel, and would keep every matrix of attention."""

    @staticmethod
    def forward(ctx, query, key, value, options):
        out = F.scaled_dot_product_attention(query, key, value, **options)
        ctx.save_for_backward(query, key, value, out)
        return out


class _FusedAttention(TorchFunctionMode):
    """Within, attention keeps what the fused kernels keep."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            options = {name: value for name, value in kwargs.items()
                       if name not in ("query", "key", "value")}
            given = [*args, *(kwargs[name] for name in ("query", "key", "value") if name in kwargs)]
            return _KeptAttention.apply(*given[:3], options)
        return function(*args, **kwargs)


def of_unet(net: nn.Module, call: Callable[[nn.Module], Tensor]) -> Cost:
    """The cost of a U-Net with a ``mid_block``, from ``call(net)``, its forward pass for one
    sample."""
    at_bottleneck = []

    def note(*_) -> None:
        at_bottleneck.extend((counter.get_total_flops(), kept.peak))

    with kept_for_backward(net.parameters()) as kept, FlopCounterMode(display=False) as counter:
        handle = net.mid_block.register_forward_hook(note)
        with _FusedAttention():
            out = call(net)  # held, or what is kept for its backward pass would go with it
        handle.remove()
    del out
    parameters = sum(p.numel() for p in net.parameters())
    return Cost(parameters, counter.get_total_flops(), kept.peak, *at_bottleneck)


def of_denoiser(denoiser: Denoiser) -> Cost:
    """The cost of one of the kit's own."""
    net, patch = denoiser.copy().net.to("meta"), denoiser.patch
    c, h, w = denoiser.sample_shape
    x = torch.empty(1, c * patch * patch, h // patch, w // patch, device="meta")
    t = torch.zeros(1, device="meta", dtype=torch.int64)
    label = t if denoiser.n_classes else None
    return of_unet(net, lambda net: net(x, t, class_labels=label).sample)


SDXL = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}
"""The U-Net of SDXL-base (Podell et al. 2023) as diffusers describes it: 1024 × 1024 pixels are
128 × 128 latents."""


def of_sdxl(dtype: torch.dtype = torch.float32) -> Cost:
    """The cost of SDXL's U-Net at 1024 × 1024 pixels, with its 77 text tokens."""
    from diffusers import UNet2DConditionModel  # here: seconds that only this needs

    with torch.device("meta"):
        net = nn.Module.to(UNet2DConditionModel(**SDXL), dtype)  # diffusers' own warns about use
        x, t = torch.empty(1, 4, 128, 128, dtype=dtype), torch.zeros(1)
        text = torch.empty(1, 77, 2048, dtype=dtype)
        more = {"text_embeds": torch.empty(1, 1280, dtype=dtype),
                "time_ids": torch.empty(1, 6, dtype=dtype)}
        return of_unet(net, lambda net: net(x, t, encoder_hidden_states=text,
                                            added_cond_kwargs=more).sample)
