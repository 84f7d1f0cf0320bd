"""What is trained: one device a process, the optimiser by hand, an average that loses nothing."""
import gc
import math
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from conftest import refused
from torch import nn

from dmdkit import learner, train


def small(lr: float = 0.1, n_steps: int = 10, **options) -> train.Learner:
    torch.manual_seed(0)
    return train.Learner(nn.Linear(3, 1), train.accelerator(cpu=True), lr=lr, n_steps=n_steps,
                         **options)


def weights(one: train.Learner) -> list[torch.Tensor]:
    return [p.detach().clone() for p in one.net.parameters()]


def learn(one: train.Learner, n: int = 1) -> list[torch.Tensor]:
    """n updates down always the same loss; the weights after each."""
    found = []
    for _ in range(n):
        one.update(one.model(torch.tensor([[3.0, -4.0, 12.0]])).square().sum())
        found.append(weights(one))
    return found


# The device

@pytest.fixture
def fresh(monkeypatch):
    """A process that has no device yet; afterwards the one that there was."""
    states = (PartialState, AcceleratorState)
    before = [dict(state._shared_state) for state in states]
    for state in states:
        state._shared_state.clear()
    monkeypatch.setattr(learner, "_MADE", [])
    yield
    for state, shared in zip(states, before):
        state._shared_state.clear()
        state._shared_state.update(shared)


def test_a_process_has_one_accelerator(fresh):
    one = train.accelerator(cpu=True)
    assert one is train.accelerator(cpu=True) and one.device.type == "cpu"
    found = []
    thread = threading.Thread(target=lambda: found.append(train.accelerator(cpu=True)))
    thread.start()
    thread.join()
    assert found == [one]


def test_the_default_is_the_same_device_where_there_is_no_other(fresh):
    if PartialState(cpu=False).default_device.type != "cpu":
        pytest.skip("this machine has a GPU")
    assert train.accelerator(cpu=True) is train.accelerator()


@pytest.mark.parametrize("has, asked", [("cuda", True), ("mps", True), ("cpu", False)])
def test_another_device_than_the_process_has_is_refused(fresh, monkeypatch, has, asked):
    PartialState(cpu=True)
    PartialState._shared_state["device"] = torch.device(has)
    at_hand = property(lambda self: torch.device("cuda"))
    monkeypatch.setattr(PartialState, "default_device", at_hand)
    wanted = "cpu" if asked else "cuda"
    sentence = (f"This process computes on {has} already and cannot change to {wanted}. "
                f"Take {has} here too .cpu={has == 'cpu'}., or start a new")
    with refused(RuntimeError, sentence):
        train.accelerator(cpu=asked)
    if has == "cpu":
        assert train.accelerator(cpu=True).device.type == "cpu"


def test_the_device_that_another_library_took_is_found(fresh):
    PartialState(cpu=True)  # as accelerate's own logging does
    assert train.accelerator(cpu=True).device.type == "cpu"


def test_the_precision_that_another_library_chose_is_kept(fresh):
    Accelerator(cpu=True, mixed_precision="bf16")
    one = train.accelerator(cpu=True)
    assert one.mixed_precision == "bf16" and one is train.accelerator(cpu=True)


@pytest.mark.parametrize("told, taken", [("no", "no"), ("bf16", "bf16"), ("", "bf16")])
def test_the_precision_that_the_user_named_is_taken(fresh, monkeypatch, told, taken):
    monkeypatch.setattr(learner, "_fast_bf16", lambda cpu: True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    assert train.accelerator(cpu=True).mixed_precision == taken


@pytest.mark.parametrize("amx, cuda, cpu, expected", [
    (False, False, True, "no"), (True, False, True, "bf16"), (False, True, False, "bf16"),
    (False, True, True, "no")])
def test_bf16_is_taken_where_it_is_fast(monkeypatch, amx, cuda, cpu, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert learner._fast_bf16(cpu) == (expected == "bf16")


def test_the_fused_optimiser_is_taken_only_where_every_torch_has_it(monkeypatch):
    assert small().optimizer.param_groups[0]["fused"] and "mps" not in learner.FUSED
    monkeypatch.setattr(learner, "FUSED", ())
    one = small()
    assert not one.optimizer.param_groups[0]["fused"]
    learn(one)


def test_a_network_that_is_done_with_leaves_the_memory():
    one = small()
    learn(one)
    net = weakref.ref(one.net)
    del one
    gc.collect()
    assert net() is None


# The update

def adamw(gradients: list[float], lr: float, betas: tuple[float, float], decay: float) -> float:
    """What AdamW makes of a weight 1 (Loshchilov & Hutter 2019, Algorithm 2)."""
    weight, m, v = 1.0, 0.0, 0.0
    for i, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        step = m / (1 - betas[0]**i) / (math.sqrt(v / (1 - betas[1]**i)) + 1e-8)
        weight -= lr * (step + decay * weight)
    return weight


@pytest.mark.parametrize("options", [
    {}, {"betas": (0.9, 0.99)}, {"betas": (0.0, 0.9)}, {"weight_decay": 0.05},
    {"betas": (0.5, 0.999), "weight_decay": 0.3}])
def test_the_optimiser_is_adamw_with_the_betas_and_the_decay_that_were_given(options):
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    one = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=10**6, warmup=0, ema=0.0,
                        max_grad_norm=100.0, **options)
    gradients = [1.0, -3.0, 0.5, 0.25, 2.0]
    for g in gradients:
        one.update((one.model(torch.ones(1, 1)) * g).sum())
    betas = options.get("betas", (0.9, 0.999))
    expected = adamw(gradients, 0.1, betas, options.get("weight_decay", 0.0))
    assert net.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_warms_up_and_is_annealed_to_zero():
    one = small(lr=0.1, n_steps=20, warmup=4)
    rates = []
    for _ in range(20):
        learn(one)
        rates.append(one.optimizer.param_groups[0]["lr"])
    by_hand = [0.1 * min(i / 4, 0.5 * (1 + math.cos(math.pi * max(i - 4, 0) / 16)))
               for i in range(1, 21)]
    assert rates == pytest.approx(by_hand, abs=1e-9)


def test_the_reported_norm_is_before_clipping_and_the_step_uses_it_clipped():
    one, used = small(max_grad_norm=0.5), []
    inner = getattr(one.optimizer, "optimizer", one.optimizer)  # Accelerate wraps it
    inner.register_step_pre_hook(
        lambda *_: used.extend(p.grad.clone() for p in one.net.parameters()))
    norm = one.update(one.model(torch.tensor([[3.0, 4.0, 12.0]])).sum())
    assert norm.item() == pytest.approx(math.sqrt(3**2 + 4**2 + 12**2 + 1))
    assert torch.cat([g.flatten() for g in used]).norm().item() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_gradient_that_is_no_number_changes_nothing(value):
    one = small(n_steps=20, ema=0.5)
    learn(one, 3)
    before, average = weights(one), [p.clone() for p in one.ema.shadow_params]
    moments = one.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    with refused(FloatingPointError, f"gradient norm became {value}"):
        one.update((one.model(torch.ones(1, 3)) * float(value)).sum())
    assert all(map(torch.equal, before, weights(one)))
    assert all(map(torch.equal, average, one.ema.shadow_params))
    assert torch.equal(moments, one.optimizer.state_dict()["state"][0]["exp_avg"])
    other = small(n_steps=20, ema=0.5)
    learn(other, 3)
    assert all(map(torch.equal, learn(one)[0], learn(other)[0]))  # no gradient is left either


@pytest.mark.parametrize("options", [
    {"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"lr": math.inf}, {"n_steps": 0}, {"warmup": -1},
    {"ema": 1.0}, {"ema": -0.1}, {"max_grad_norm": 0.0}, {"max_grad_norm": math.nan},
    {"betas": (0.9, 1.0)}, {"betas": (0.9,)}, {"weight_decay": -0.1}], ids=str)
def test_numbers_that_make_no_sense_are_refused(options):
    (name, value), = options.items()
    with pytest.raises(ValueError, match="lr and max_grad_norm must be positive") as caught:
        small(**options)
    assert str(caught.value).endswith(f"got {name} {value}.")


def test_a_setting_that_adamw_does_not_have_is_refused():
    with pytest.raises(TypeError, match="learning_rate"):
        small(learning_rate=0.1)


# The average

def test_the_average_is_the_one_rolled_by_hand():
    one, average = small(n_steps=50, ema=0.6), None
    for i in range(25):
        now = learn(one)[0]
        decay = min((1 + i) / (10 + i), 0.6) if i else 0.0  # the ramp; it reaches 0.6 at i = 13
        average = now if average is None else [decay * a + (1 - decay) * w
                                               for a, w in zip(average, now)]
    averaged = one.averaged()
    assert averaged is one.net and not one.net.training
    for found, expected in zip(averaged.parameters(), average):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6)
    assert not any(map(torch.equal, average, now))
    one.restore()
    assert one.net.training and all(map(torch.equal, weights(one), now))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_asking_for_the_average_twice_loses_nothing(ema):
    one = small(ema=ema)
    trained = learn(one, 4)[-1]
    one.averaged()
    average = weights(one)
    one.averaged()
    assert all(map(torch.equal, weights(one), average))
    one.restore()
    one.restore()
    assert all(map(torch.equal, weights(one), trained)) and one.net.training
    assert (ema == 0) == all(map(torch.equal, average, trained))


def test_within_averaging_the_network_is_averaged_and_afterwards_as_it_was():
    one = small(ema=0.9)
    trained = learn(one, 4)[-1]
    with pytest.raises(KeyboardInterrupt):
        with one.averaging() as net:
            assert net is one.net and not net.training
            assert not any(map(torch.equal, weights(one), trained))
            with one.averaging():
                pass
            assert not any(map(torch.equal, weights(one), trained))  # the outer one still holds
            raise KeyboardInterrupt
    assert all(map(torch.equal, weights(one), trained)) and one.net.training
    one.averaged()
    with one.averaging():
        pass
    assert not any(map(torch.equal, weights(one), trained))  # it was averaged before, too


def test_an_average_is_not_trained_or_saved_by_mistake():
    one = small(ema=0.9)
    learn(one, 4)
    one.averaged()
    average = weights(one)
    sentence = "This network holds its averaged weights, .*Call the learner's restore.. first"
    with refused(RuntimeError, sentence):
        learn(one)
    with refused(RuntimeError, sentence):
        one.state_dict()
    with refused(RuntimeError, sentence):
        next(train.train(lambda g: {}, {"one": one}, n_steps=3))
    assert all(map(torch.equal, weights(one), average))
    one.restore()
    learn(one)


# Several processes

def as_one_of(processes: int, index: int) -> train.Learner:
    """A learner that believes to be one of several processes."""
    one = small()
    one.accelerator = SimpleNamespace(num_processes=processes, process_index=index, device="cpu")
    return one


@pytest.mark.parametrize("batch_size", [8, 0, -3])
def test_a_batch_that_does_not_divide_among_the_processes_is_refused(batch_size):
    with refused(ValueError, f"must be a positive multiple of the 3 .*; got {batch_size}"):
        as_one_of(3, 0).share(batch_size)


def test_the_processes_share_a_batch_without_gap_or_overlap():
    rows = [torch.arange(12)[as_one_of(3, index).share(12)].tolist() for index in range(3)]
    assert [len(row) for row in rows] == [4, 4, 4] and sorted(sum(rows, [])) == list(range(12))
