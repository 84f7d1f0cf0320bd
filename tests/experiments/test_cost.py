"""What a distillation costs: the calculator against counts by hand, and against what our own runs
take."""
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import DIGITS

from dmdkit import store, train
from dmdkit.experiments import cost, lesson06
from dmdkit.experiments.recipe import Sources


def test_kept_for_backward_counts_what_autograd_holds_and_no_weights():
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(5, 4)
    with cost.kept_for_backward([weight]) as kept:
        y = (x @ weight).exp()  # keeps x and, for exp, its result; the weight is there anyhow
        assert kept.now == kept.peak == 4 * (5 * 4 + 5 * 4)
        y.sum().backward()
        assert kept.now == 0 and kept.peak == 160


@pytest.mark.parametrize("options", [{}, {"generator_weight": 0.05, "discriminator_weight": 0.15}],
                         ids=["plain", "adversarial"])
def test_the_calculator_agrees_with_a_step_of_our_own(options):
    """Memory within an eighth, operations within a twentieth: losses and the head are what it
    leaves out."""
    adversarial = bool(options)
    recipe = lesson06.RECIPES["1 : 2"].changed(task=DIGITS, batch_size=4, **options)
    made = recipe.prepare(train.accelerator(cpu=True), Sources(DIGITS))
    ours = cost.of_denoiser(store.load("teacher"))
    assert ours.parameters == sum(p.numel() for p in made.frozen[0].parameters())
    with FlopCounterMode(display=False) as counter:
        measured = cost.memory(made)
    predicted = ours.memory(4, adversarial=adversarial)
    state = sum(measured[part] for part in ("weights", "gradients", "optimiser"))
    fake = sum(p.numel() for p in made.learners["fake"].net.parameters())
    head = 16 * (fake - ours.parameters)
    assert predicted["weights, gradients, optimiser"] + head == pytest.approx(state, rel=1e-3)
    assert predicted["averages"] == measured["averages"]
    assert predicted["activations"] == pytest.approx(measured["activations"], rel=0.125)
    flops = ours.step_flops(4, fake_updates=2, adversarial=adversarial)
    assert flops == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_way_to_the_bottleneck_is_the_cheaper_half_and_costs_add_up():
    ours = cost.of_denoiser(store.load("teacher"))
    assert 0 < ours.flops_to_bottleneck < ours.flops / 2
    assert 0 < ours.activations_to_bottleneck < ours.activations / 2
    by_hand = cost.Cost(10, 100.0, 1000.0, 40.0, 300.0)
    assert by_hand.memory(2) == {"weights, gradients, optimiser": 360, "averages": 40,
                                 "activations": 3200.0}
    assert by_hand.memory(2, trained=8, frozen=2, average=0, adversarial=False) == {
        "weights, gradients, optimiser": 180, "averages": 0, "activations": 2000.0}
    assert by_hand.step_flops(2, 5) == 2 * (600 + 80 + 5 * (400 + 240))
    assert by_hand.step_flops(1, 1, guided=False, adversarial=False) == 900


def test_sdxl_has_its_parameters_and_takes_no_memory_of_ours():
    sdxl = cost.of_sdxl(torch.bfloat16)
    assert sdxl.parameters == 2_567_463_684
    assert 5.5e12 < sdxl.flops < 7.5e12  # published: about 3 T multiplications
    assert 0 < sdxl.flops_to_bottleneck < sdxl.flops / 2


def test_in_half_precision_half_as_much_is_kept(monkeypatch):
    small = {"layers_per_block": 1, "block_out_channels": (32, 64, 128),
             "attention_head_dim": (1, 2, 4), "transformer_layers_per_block": (1, 1, 1)}
    monkeypatch.setattr(cost, "SDXL", cost.SDXL | small)
    half, whole = cost.of_sdxl(torch.bfloat16), cost.of_sdxl(torch.float32)
    assert half.activations == pytest.approx(whole.activations / 2, rel=0.05)
    assert half.parameters == whole.parameters and half.flops == whole.flops
