"""What a distillation costs in memory and arithmetic, from the networks' architecture alone: they are run on torch's
"meta" device, where a tensor has a shape and no numbers, so that SDXL fits into a laptop."""
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .denoiser import Denoiser
from .train import kept_for_backward

SDXL = dict(
    sample_size=128, in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280), layers_per_block=2,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816)
"""The U-Net of SDXL-base (Podell et al. 2023) as diffusers describes it: 1024 × 1024 pixels are 128 × 128 latents."""


@dataclass(frozen=True)
class Cost:
    """Of one network and one sample: its parameters, the operations of a forward pass (a multiplication and an addition
    are two) and the bytes that autograd keeps for the backward pass, both also for the way to the bottleneck alone."""
    parameters: int
    flops: float
    activations: float
    flops_to_bottleneck: float
    activations_to_bottleneck: float

    def memory(self, batch_size: int, *, trained: int = 16, frozen: int = 4, average: int = 4,
               critic: bool = True) -> dict[str, float]:
        """Bytes of DMD2's step on one device, with the names of ``train.memory``.

        Args:
            batch_size: samples on the device at a time.
            trained: bytes a parameter of generator and fake score: in float32 weight 4, gradient 4, AdamW's moments 8.
            frozen: of the teacher. average: of the generator's EMA.
            critic: with it the most is kept in the fake score's update: the denoising of a batch, and two batches,
                real and generated, down to the bottleneck.
        """
        kept = self.activations + 2 * critic * self.activations_to_bottleneck
        return {"weights, gradients, optimiser": 2 * trained * self.parameters + frozen * self.parameters,
                "averages": average * self.parameters, "activations": batch_size * kept}

    def step_flops(self, batch_size: int, fake_updates: int = 5, guided: bool = True, critic: bool = True) -> float:
        """Operations of one step: an update of the generator and ``fake_updates`` of the fake score. A backward pass
        is two forward passes."""
        down = critic * self.flops_to_bottleneck
        generator = (3 + 1 + guided + 1) * self.flops + 2 * down  # itself, the teacher, the fake score; the critic
        fake = (1 + 3) * self.flops + 2 * 3 * down                # samples, denoising; the critic of both sides
        return batch_size * (generator + fake_updates * fake)


class _FusedAttention(torch.autograd.Function):
    """Attention as the fused kernels of GPUs and CPUs do it: what is kept are its inputs and its output. The meta
    device has no such kernel, and would keep every matrix of attention."""

    @staticmethod
    def forward(ctx, attention, query, key, value):
        out = attention(query, key, value)
        ctx.save_for_backward(query, key, value, out)
        return out


@contextmanager
def _fused_attention():
    attention = F.scaled_dot_product_attention
    fused = lambda query, key, value, **options: _FusedAttention.apply(attention, query, key, value)
    with mock.patch.object(F, "scaled_dot_product_attention", fused):
        yield


def of_unet(net: nn.Module, call: Callable[[nn.Module], Tensor]) -> Cost:
    """The cost of a U-Net with a ``mid_block``, from ``call(net)``, its forward pass for one sample."""
    at_bottleneck = []
    with kept_for_backward(net.parameters()) as kept, FlopCounterMode(display=False) as counter, _fused_attention():
        handle = net.mid_block.register_forward_hook(
            lambda *_: at_bottleneck.extend((counter.get_total_flops(), kept.peak)))
        out = call(net)  # held, or what is kept for its backward pass would go with it
        handle.remove()
    del out
    parameters = sum(p.numel() for p in net.parameters())
    return Cost(parameters, counter.get_total_flops(), kept.peak, *at_bottleneck)


def of_denoiser(denoiser: Denoiser) -> Cost:
    """The cost of one of the kit's own."""
    net, (c, h, w), p = denoiser.copy().net.to("meta"), denoiser.sample_shape, denoiser.patch
    x, t = torch.empty(1, c * p * p, h // p, w // p, device="meta"), torch.zeros(1, device="meta", dtype=torch.int64)
    return of_unet(net, lambda net: net(x, t, class_labels=t).sample)


def of_sdxl(dtype: torch.dtype = torch.float32) -> Cost:
    """The cost of SDXL's U-Net at 1024 × 1024 pixels, with its 77 text tokens."""
    with torch.device("meta"):
        net = nn.Module.to(UNet2DConditionModel(**SDXL), dtype)  # diffusers' own warns, for use and not for counting
        x, text = torch.empty(1, 4, 128, 128, dtype=dtype), torch.empty(1, 77, 2048, dtype=dtype)
        pooled, sizes = torch.empty(1, 1280, dtype=dtype), torch.empty(1, 6, dtype=dtype)
        t = torch.zeros(1)
        return of_unet(net, lambda net: net(
            x, t, encoder_hidden_states=text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample)
