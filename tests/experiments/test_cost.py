"""What a distillation costs: the calculator against counts by hand, and against what our own runs take."""
import dataclasses

import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from dmdkit import cost, dmd2_mnist, store, train


def test_kept_for_backward_counts_what_autograd_holds_and_no_weights():
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(5, 4)
    with train.kept_for_backward([weight]) as kept:
        y = (x @ weight).exp()  # keeps x and, for exp, its result; the weight is there anyhow
        assert kept.now == kept.peak == 4 * (5 * 4 + 5 * 4)
        y.sum().backward()
        assert kept.now == 0 and kept.peak == 160


@pytest.mark.parametrize("options, critic", [({}, False), (dict(generator_weight=0.05, critic_weight=0.15), True)])
def test_the_calculator_agrees_with_a_step_of_our_own(options, critic):
    """Memory within an eighth, operations within a twentieth: losses and the head are what it leaves out."""
    setting = dataclasses.replace(dmd2_mnist.SETTINGS["1 : 2"], batch_size=8, **options)
    made, ours = setting.prepare(Accelerator(cpu=True)), cost.of_denoiser(store.load("teacher"))
    assert ours.parameters == sum(p.numel() for p in made.frozen[0].parameters())
    measured, predicted = train.memory(made.step, made.learners, made.frozen), ours.memory(8, critic=critic)
    state = sum(measured[part] for part in ("weights", "gradients", "optimiser"))
    head = 16 * sum(p.numel() for p in made.learners["fake"].net.parameters()) - 16 * ours.parameters
    assert predicted["weights, gradients, optimiser"] + head == pytest.approx(state, rel=1e-3)
    assert predicted["averages"] == measured["averages"]
    assert predicted["activations"] == pytest.approx(measured["activations"], rel=0.125)
    with FlopCounterMode(display=False) as counter:
        made.step(torch.Generator().manual_seed(0))
    assert ours.step_flops(8, fake_updates=2, critic=critic) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_way_to_the_bottleneck_is_the_cheaper_half_and_costs_add_up():
    ours = cost.of_denoiser(store.load("teacher"))
    assert 0 < ours.flops_to_bottleneck < ours.flops / 2 and 0 < ours.activations_to_bottleneck < ours.activations / 2
    by_hand = cost.Cost(10, 100.0, 1000.0, 40.0, 300.0)
    assert by_hand.memory(2) == {"weights, gradients, optimiser": 360, "averages": 40, "activations": 3200.0}
    assert by_hand.memory(2, trained=8, frozen=2, average=0, critic=False) == {
        "weights, gradients, optimiser": 180, "averages": 0, "activations": 2000.0}
    assert by_hand.step_flops(2, 5) == 2 * (600 + 80 + 5 * (400 + 240))
    assert by_hand.step_flops(1, 1, guided=False, critic=False) == 900


def test_sdxl_has_its_parameters_and_takes_no_memory_of_ours():
    sdxl = cost.of_sdxl(torch.bfloat16)
    assert sdxl.parameters == 2_567_463_684
    assert 5.5e12 < sdxl.flops < 7.5e12  # published: about 3 T multiplications
    assert sdxl.activations == pytest.approx(cost.of_sdxl(torch.float32).activations / 2, rel=0.05)
