"""Training: losses by hand, the loop's promises, checkpoints that survive anything, and several processes."""
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import training_run
from torch import nn

from dmdkit import classify, files, schedule, train
from dmdkit.denoiser import predict


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a, b) -> bool:
    """Whether two trees of dicts, lists, tensors and numbers are equal, every tensor bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


# The loss and what goes into it

def test_the_loss_is_the_squared_distance_to_the_target_by_hand():
    sch, t, label = schedule.cosine(), torch.tensor([511, 1023]), torch.tensor([4, 10])
    x = torch.tensor([[0.5, -1.0], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    eps = torch.tensor([[2.0, 0.0], [-1.0, 3.0]]).reshape(2, 1, 1, 2)
    half = math.sqrt(0.5)  # α and σ at t = 511; at 1023 they are 0 and 1
    seen = []

    def zero(x_t, t, label):
        seen.append((x_t, t, label))
        return SimpleNamespace(x=0 * x_t, eps=0 * x_t, v=0 * x_t)

    by_hand = {"x": [(0.25 + 1) / 2, 0.5], "eps": [2.0, 5.0],
               "v": [((2 - 0.5) ** 2 + 1) / 4, 0.5]}  # v = half (2 − 0.5), half (0 + 1); then −x
    for kind, expected in by_hand.items():
        assert train.denoising_loss(zero, sch, kind, x, eps, t, label).tolist() == pytest.approx(expected, rel=1e-5)
    x_t, t_seen, label_seen = seen[0]
    assert x_t.flatten().tolist() == pytest.approx([half * 2.5, -half, -1, 3], rel=1e-5)
    assert t_seen is t and label_seen is label


@pytest.mark.parametrize("kind, weight", [("x", lambda snr: 1), ("eps", lambda snr: snr), ("v", lambda snr: snr + 1)])
def test_each_loss_is_the_error_in_x_weighted_as_salimans_and_ho_say(kind, weight):
    sch, (x, eps, out) = schedule.cosine(), torch.randn(3, 4, 1, 3, 3, dtype=torch.float64)
    t = torch.tensor([10, 300, 700, 1000])
    alpha, sigma = (table[t].reshape(-1, 1, 1, 1) for table in (sch.alpha, sch.sigma))
    prediction = predict("v", out, alpha * x + sigma * eps, alpha, sigma)
    loss = train.denoising_loss(lambda *_: prediction, sch, kind, x, eps, t, None)
    error = (prediction.x - x).square().flatten(1).mean(1)
    torch.testing.assert_close(loss, weight(sch.alpha[t] ** 2 / sch.sigma[t] ** 2) * error, rtol=1e-8, atol=0)


@pytest.mark.parametrize("n", [1, 8, 50, 64])
def test_stratified_times_put_one_time_into_each_part_of_the_range(n):
    T = 1000
    for seed in range(20):
        t = train.stratified_times(n, T, generator(seed))
        assert t.dtype == torch.int64 and t.shape == (n,) and 0 <= t.min() and t.max() < T
        gaps = t.sort().values.diff()
        assert n == 1 or (gaps.min() >= T // n and gaps.max() <= -(-T // n))


def test_each_stratified_time_alone_is_uniform():
    n, T, draws = 8, 16, 4000
    g = generator()
    t = torch.stack([train.stratified_times(n, T, g) for _ in range(draws)])
    for i in range(n):  # χ² with 15 degrees of freedom stays under 45 but once in ten thousand
        counts = torch.bincount(t[:, i], minlength=T).double()
        assert ((counts - draws / T) ** 2 / (draws / T)).sum() < 45


def test_labels_are_dropped_as_often_as_asked_and_otherwise_kept():
    label = torch.arange(100_000) % 10
    kept = train.drop_labels(label, 10, 0.1, generator())
    dropped = kept == 10
    assert dropped.double().mean().item() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 100_000))
    assert torch.equal(kept[~dropped], label[~dropped])
    assert torch.equal(train.drop_labels(label, 10, 0.0, generator()), label)
    assert (train.drop_labels(label, 10, 1.0, generator()) == 10).all()


# The loop

def test_training_lowers_the_loss_and_yields_a_record_a_step():
    one = training_run.learner(40)
    found = list(training_run.records(one, 40, 16))
    assert [record.step for record in found] == list(range(1, 41))
    assert all(set(record.values) == {"loss", "gradient norm"} and record.seconds > 0 for record in found)
    losses = [record.values["loss"] for record in found]
    assert losses[0] == pytest.approx(1, abs=0.2)  # a fresh network says nothing, and v has variance 1
    assert sum(losses[-10:]) / 10 < 0.8 * losses[0]


def test_the_learning_rate_warms_up_and_is_annealed_to_zero():
    one = training_run.learner(20, lr=0.1, warmup=4)
    rates = []
    for _ in training_run.records(one, 20, 2):
        rates.append(one.optimizer.param_groups[0]["lr"])
    by_hand = [0.1 * min(i / 4, 0.5 * (1 + math.cos(math.pi * max(i - 4, 0) / 16))) for i in range(1, 21)]
    assert rates == pytest.approx(by_hand, abs=1e-9)


def test_the_reported_norm_is_the_gradients_before_clipping_and_the_step_uses_it_clipped():
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    one = train.Learner(net, train.accelerator(cpu=True), lr=1e-3, n_steps=10, ema=0.0, max_grad_norm=0.5)
    used = []
    inner = getattr(one.optimizer, "optimizer", one.optimizer)  # Accelerate wraps it
    inner.register_step_pre_hook(lambda *_: used.extend(p.grad.clone() for p in net.parameters()))
    x = torch.tensor([[3.0, 4.0, 12.0]])
    assert one.update(net(x).sum()).item() == pytest.approx(math.sqrt(3**2 + 4**2 + 12**2 + 1))
    assert torch.cat([g.flatten() for g in used]).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_the_average_is_the_one_rolled_by_hand():
    one = training_run.learner(25, ema=0.6)
    average = None
    for i, _ in enumerate(training_run.records(one, 25, 4)):
        weights = [p.detach().clone() for p in one.net.parameters()]
        decay = min((1 + i) / (10 + i), 0.6) if i else 0.0  # the ramp of the docstring; it reaches 0.6 at i = 13
        average = weights if average is None else [decay * a + (1 - decay) * w for a, w in zip(average, weights)]
    averaged = one.averaged()
    assert averaged is one.net and not one.net.training
    for found, expected in zip(averaged.parameters(), average):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6)
    assert not all(map(torch.equal, average, weights))
    one.restore()
    assert one.net.training and all(map(torch.equal, (p.detach() for p in one.net.parameters()), weights))


def test_a_step_draws_its_randomness_from_seed_and_step_number_alone():
    drawn = []

    def step(g):
        drawn.append((torch.rand(1, generator=g).item(), torch.rand(1).item()))
        return {"loss": torch.tensor(1.0)}

    one = {"net": training_run.learner(4)}
    torch.manual_seed(123)
    before = torch.get_rng_state()
    list(train.train(step, one, n_steps=4, seed=5))
    assert torch.equal(torch.get_rng_state(), before)  # a notebook's own random numbers are left alone
    torch.rand(7)
    list(train.train(step, one, n_steps=4, seed=5))
    list(train.train(step, one, n_steps=4, seed=6))
    assert drawn[:4] == drawn[4:8] and len({a for a, _ in drawn}) == 8 and len({b for _, b in drawn}) == 8


@pytest.mark.parametrize("n_steps, n", [(1500, 13), (100, 7), (6, 13), (2, 7), (1, 13)])
def test_milestones_go_from_start_to_end_closer_together_early_on(n_steps, n):
    found = train.milestones(n_steps, n)
    assert found[0] == 0 and found[-1] == n_steps and len(found) == min(n, len(set(found)))
    gaps = [b - a for a, b in zip(found, found[1:])]
    assert all(gap > 0 for gap in gaps) and (n_steps < 50 or gaps == sorted(gaps) and len(found) == n)


# Resuming

N_STEPS, SAVE_EVERY = 30, 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """The last checkpoint of a run that nothing disturbed: weights, optimiser, learning rate and average."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint.safetensors"
    training_run.run(path, N_STEPS, 8, SAVE_EVERY, resume=False)
    return path


def test_a_checkpoint_holds_everything_that_training_changes(uninterrupted):
    state = files.load_state(uninterrupted)
    assert state["step"] == N_STEPS
    assert set(state["learners"]["net"]) == {"net", "optimizer", "lr_scheduler", "ema"}
    moments = state["learners"]["net"]["optimizer"]["state"]
    assert len(moments) == len(state["learners"]["net"]["ema"]["shadow_params"]) > 20
    assert all(entry["step"].item() == N_STEPS and entry["exp_avg"].abs().max() > 0 for entry in moments.values())


def test_a_run_that_stopped_and_went_on_ends_bit_for_bit_as_if_it_had_not(uninterrupted, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    first, whole = training_run.learner(N_STEPS), training_run.learner(N_STEPS)
    losses = [record.values["loss"] for record in training_run.records(whole, N_STEPS, 8)]
    for record in training_run.records(first, N_STEPS, 8, checkpoint=path, save_every=SAVE_EVERY):
        if record.step == 11:
            break
    second = training_run.learner(N_STEPS, init_seed=99)
    rest = list(training_run.records(second, N_STEPS, 8, checkpoint=path, save_every=SAVE_EVERY, resume=True))
    assert [record.step for record in rest] == list(range(10, N_STEPS + 1))  # step 9 was the last one saved
    assert [record.values["loss"] for record in rest] == losses[9:]
    assert same(files.load_state(path), files.load_state(uninterrupted))


def test_resuming_a_finished_run_does_nothing(uninterrupted):
    before = uninterrupted.read_bytes()
    one = training_run.learner(N_STEPS, init_seed=1)
    assert list(training_run.records(one, N_STEPS, 8, checkpoint=uninterrupted, resume=True)) == []
    assert uninterrupted.read_bytes() == before
    assert same(one.state_dict()["net"], files.load_state(uninterrupted)["learners"]["net"]["net"])


def _child(connection, *arguments):
    training_run.run(*arguments[:-1], report=lambda record: connection.send(record.step), training=arguments[-1])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("training", training_run.TRAININGS)
def test_a_run_killed_again_and_again_ends_bit_for_bit_as_if_it_had_not_been(training, tmp_path):
    whole = tmp_path / "whole.safetensors"
    training_run.run(whole, N_STEPS, 8, SAVE_EVERY, resume=False, training=training)
    seed = random.SystemRandom().randrange(10**6)
    print(f"random.seed({seed})")  # shown if the test fails
    dice, path, killed_at = random.Random(seed), tmp_path / "checkpoint.safetensors", []
    context = multiprocessing.get_context("forkserver")  # real processes, without importing torch for each
    context.set_forkserver_preload(["dmdkit.dmd", "dmdkit.nets"])
    for start in (0, 9, 18):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(send, path, N_STEPS, 8, SAVE_EVERY, start > 0, training))
        process.start()
        goal = start + dice.randint(4, 9)
        while receive.recv() < goal:
            pass
        time.sleep(dice.random() * 0.05)  # anywhere in a step, or in the writing of a checkpoint
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed_at.append(goal)
        assert process.exitcode == -signal.SIGKILL
        assert files.load_state(path)["step"] >= goal - goal % SAVE_EVERY  # whole, and not older than it must be
    training_run.run(path, N_STEPS, 8, SAVE_EVERY, resume=True, training=training)
    assert same(files.load_state(path), files.load_state(whole)), f"killed at {killed_at}"


def test_a_checkpoint_of_a_distillation_holds_both_networks_and_the_average(tmp_path):
    learners, step = training_run.distilling(4, 4)
    for _ in train.train(step, learners, n_steps=4, checkpoint=tmp_path / "checkpoint.safetensors"):
        pass
    state = files.load_state(tmp_path / "checkpoint.safetensors")["learners"]
    assert list(state) == ["generator", "fake"] and "ema" in state["generator"] and "ema" not in state["fake"]
    made = {name: {int(entry["step"]) for entry in one["optimizer"]["state"].values()} for name, one in state.items()}
    assert made == {"generator": {4}, "fake": {8}}


# Damaged checkpoints

def refused(path: Path) -> bool:
    """Whether a file is refused in one sentence that names it."""
    try:
        files.load_state(path)
    except RuntimeError as error:
        return str(path) in str(error) and "\n" not in str(error) and error.__cause__ is None
    return False


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 1000, 0.25, 0.5, 0.999, -1])
def test_a_checkpoint_cut_short_is_refused(uninterrupted, tmp_path, length):
    whole, path = uninterrupted.read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(whole[:int(length * len(whole)) if isinstance(length, float) else length])
    assert refused(path)
    with pytest.raises(RuntimeError, match="cut.safetensors is damaged or not one of dmdkit's .*Delete it and start"):
        next(training_run.records(training_run.learner(N_STEPS), N_STEPS, 8, checkpoint=path, resume=True))


def test_any_flipped_byte_of_a_checkpoint_is_refused(uninterrupted, tmp_path):
    whole, path = uninterrupted.read_bytes(), tmp_path / "flipped.safetensors"
    seed = random.SystemRandom().randrange(10**6)
    print(f"random.seed({seed})")
    dice, header = random.Random(seed), struct.unpack("<Q", whole[:8])[0] + 8
    places = [dice.randrange(header) for _ in range(60)] + [dice.randrange(header, len(whole)) for _ in range(60)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        assert refused(path), f"byte {place} of {len(whole)}, header {header}"


def test_every_flip_of_every_byte_of_a_small_state_is_refused(tmp_path):
    path = tmp_path / "small.safetensors"
    state = {"step": 3, "rate": 0.1, "name": "run", "nested": [{"w": torch.tensor([1.5, -2.0])}, None, True],
             "moments": {0: torch.tensor(7)}}
    files.save_state(path, state)
    whole = path.read_bytes()
    assert same(files.load_state(path), state)
    for place in range(len(whole)):
        for mask in (0x01, 0x20, 0x80, 0xff):
            flipped = bytearray(whole)
            flipped[place] ^= mask
            path.write_bytes(flipped)
            assert refused(path), f"byte {place} ({whole[place:place + 1]!r}) with mask {mask:#x}"


@pytest.mark.parametrize("old, new", [(b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")])
def test_tensors_that_another_header_reads_otherwise_are_refused(tmp_path, old, new):
    path = tmp_path / "edited.safetensors"
    files.save_state(path, {"w": torch.arange(6.0).reshape(2, 3)})
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    assert refused(path)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="There is no checkpoint at .*none.safetensors. Check the path, or start"):
        next(training_run.records(training_run.learner(3), 3, 8, checkpoint=tmp_path / "none.safetensors", resume=True))
    with pytest.raises(RuntimeError, match="resume=True needs the path of a checkpoint"):
        next(training_run.records(training_run.learner(3), 3, 8, resume=True))


def test_other_safetensors_are_no_checkpoint(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"w": torch.ones(3)}, path)
    assert refused(path)


def test_the_checkpoint_of_another_run_is_refused(uninterrupted):
    one = training_run.learner(N_STEPS)
    for options in (dict(n_steps=N_STEPS + 1), dict(n_steps=N_STEPS, seed=1)):
        with pytest.raises(RuntimeError, match="is of another run: steps, seed and networks are 30, 0, .* there"):
            next(train.train(lambda g: {}, {"net": one}, checkpoint=uninterrupted, resume=True, **options))
    with pytest.raises(RuntimeError, match="is of another run"):
        next(train.train(lambda g: {}, {"other": one}, n_steps=N_STEPS, checkpoint=uninterrupted, resume=True))


def test_the_checkpoint_of_another_network_is_refused(uninterrupted):
    other = train.Learner(nn.Linear(3, 1), train.accelerator(cpu=True), lr=1e-3, n_steps=N_STEPS)
    with pytest.raises(RuntimeError, match="does not fit this network .*Start a new run in another folder") as caught:
        next(train.train(lambda g: {}, {"net": other}, n_steps=N_STEPS, checkpoint=uninterrupted, resume=True))
    assert "\n" not in str(caught.value)


# What can go wrong while it runs

@pytest.mark.parametrize("value, name", [(math.nan, "nan"), (math.inf, "inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, value, name):
    path, one = tmp_path / "checkpoint.safetensors", training_run.learner(20)
    honest, steps = train.denoiser_step(one, training_run.images(), 4), []

    def step(g):
        steps.append(honest(g) | ({"loss": torch.tensor(value)} if len(steps) == 7 else {}))
        return steps[-1]

    sentence = rf"loss became {name} at step 8; the last good state is in {path}\. Start again with a lower"
    with pytest.raises(FloatingPointError, match=sentence) as caught:
        list(train.train(step, {"net": one}, n_steps=20, checkpoint=path, save_every=2))
    state = files.load_state(path)
    assert state["step"] == 6 and "\n" not in str(caught.value)
    assert all(p.isfinite().all() for p in state["learners"]["net"]["ema"]["shadow_params"])


def test_weights_that_are_no_numbers_show_in_the_next_loss_and_are_named(tmp_path):
    one = training_run.learner(20)
    with torch.no_grad():
        next(one.net.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="loss and gradient norm became nan at step 1. Start again"):
        next(training_run.records(one, 20, 4, checkpoint=tmp_path / "none.safetensors", save_every=1))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    one = training_run.learner(2)
    sentence = "Could not write .*file.run.checkpoint.safetensors: Not a directory; nothing was written. Free some"
    with pytest.raises(RuntimeError, match=sentence):
        list(training_run.records(one, 2, 4, checkpoint=tmp_path / "file" / "run" / "checkpoint.safetensors"))


def full_at(how: str, monkeypatch):
    """Let the disk be full: at the first byte written, half-way through, or when the file is forced to disk."""
    def no_space(*args):
        raise OSError(28, "No space left on device")

    if how == "when forced to disk":
        return monkeypatch.setattr(os, "fsync", no_space)
    original = open

    class Full:
        def __init__(self, *args):
            self.file = original(*args)
            self.write = no_space if how == "at once" else lambda content: (
                self.file.write(content[:len(content) // 2]), no_space())

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr("builtins.open", lambda path, mode="r", *a, **k: (
        Full(path, mode) if ".part" in str(path) else original(path, mode, *a, **k)))


@pytest.mark.parametrize("how", ["at once", "half-way", "when forced to disk"])
def test_a_full_disk_leaves_the_checkpoint_before_it_and_no_part(tmp_path, monkeypatch, how):
    path, one = tmp_path / "checkpoint.safetensors", training_run.learner(6)
    run = training_run.records(one, 6, 4, checkpoint=path, save_every=2)
    next(run), next(run)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full_at(how, patch)
        sentence = f"Could not write {path}: No space left on device; the earlier file there is untouched. Free some"
        with pytest.raises(RuntimeError, match=sentence):
            list(run)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert len(list(training_run.records(one, 6, 4, checkpoint=path, resume=True))) == 4


def test_a_disk_that_is_really_full_leaves_the_checkpoint_before_it_and_no_part(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = len(safetensors.torch.save({"w": torch.zeros(200_000)}))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(size * 1.5)}", "tmpfs", disk],
                             capture_output=True) if sys.platform == "linux" else None
    if mounted is None or mounted.returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        path = disk / "checkpoint.safetensors"
        files.save_state(path, {"w": torch.zeros(200_000)})
        with pytest.raises(RuntimeError, match="No space left on device; the earlier file there is untouched"):
            files.save_state(path, {"w": torch.ones(200_000)})
        assert list(disk.iterdir()) == [path] and files.load_state(path)["w"].sum() == 0
    finally:
        subprocess.run(["umount", disk], check=True)


# Several processes

def as_one_of(processes: int, index: int) -> train.Learner:
    """A learner that believes to be one of several processes."""
    one = training_run.learner(3)
    one.accelerator = SimpleNamespace(num_processes=processes, process_index=index, device="cpu")
    return one


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    sentence = "batch_size must be a multiple of the 3 processes, .*; got 8"
    with pytest.raises(ValueError, match=sentence):
        train.denoiser_step(as_one_of(3, 0), training_run.images(), 8)
    with pytest.raises(ValueError, match=sentence):
        classify.classifier_step(as_one_of(3, 0), training_run.images(), 8, noise=0.0)


def test_the_processes_share_a_batch_without_gap_or_overlap():
    rows = [torch.arange(12)[as_one_of(3, index).share(12)].tolist() for index in range(3)]
    assert [len(row) for row in rows] == [4, 4, 4] and sorted(sum(rows, [])) == list(range(12))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory) -> tuple[Path, list]:
    """Every training of training_run in two processes: the folder of its last checkpoints, and what both reported."""
    folder = tmp_path_factory.mktemp("two")
    # For Accelerate, --cpu --num_processes 2 is one process unless MPI is there; --multi_gpu is its name for starting
    # several, and the script asks for the CPU.
    launched = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines",
         "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port()),
         training_run.__file__, str(folder), str(TOGETHER_STEPS), str(TOGETHER_BATCH)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert launched.returncode == 0, launched.stderr[-3000:]
    reports = sorted(folder.glob("process-*.jsonl"))
    assert len(reports) == 2
    return folder, [json.loads(line) for path in reports for line in path.read_text().splitlines()]


TOGETHER_STEPS, TOGETHER_BATCH = 6, 8


@pytest.mark.parametrize("training", training_run.TRAININGS)
def test_two_processes_compute_what_one_does_with_the_same_global_batch(in_two_processes, tmp_path, training):
    folder, reported = in_two_processes
    alone = []
    training_run.run(tmp_path / "one.safetensors", TOGETHER_STEPS, TOGETHER_BATCH, 1000, resume=False,
                     report=alone.append, training=training)
    for record in alone:  # both processes went all the way, and both say what the whole batch gave
        said = [values for name, step, values, _ in reported if (name, step) == (training, record.step)]
        assert said == [pytest.approx(record.values, rel=1e-3)] * 2
    paths = tmp_path / "one.safetensors", folder / f"{training}.safetensors"
    one, two = (files.load_state(path)["learners"] for path in paths)
    learners, _ = training_run.TRAININGS[training](TOGETHER_STEPS, TOGETHER_BATCH)
    for role, learner in learners.items():
        fresh = learner.state_dict()["net"]
        for name, weight in one[role]["net"].items():
            torch.testing.assert_close(two[role]["net"][name], weight, rtol=1e-4, atol=2e-5,
                                       msg=lambda m: f"{role}, {name}: {m}")
        moved = max((weight - fresh[name]).abs().max().item() for name, weight in one[role]["net"].items())
        assert moved > 100 * 2e-5  # training went much further than the tolerance
        averages = (state[role]["ema"]["shadow_params"] if learner.ema else [] for state in (one, two))
        for a, b in zip(*averages):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


# Memory

def test_the_memory_of_a_step_is_what_its_tensors_take():
    net, teacher = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), nn.Linear(3, 5)
    learner = train.Learner(net, train.accelerator(cpu=True), lr=0.1, n_steps=5, ema=0.9)

    def step(generator):
        x = torch.randn(16, 4, generator=generator)
        loss = learner.model(x).square().mean()
        learner.update(loss)
        return {"loss": loss.detach()}

    step(torch.Generator())  # so that the optimiser has its moments
    found, n = train.memory(step, {"net": learner}, (teacher,)), 4 * 8 + 8 + 8 * 2 + 2
    assert found["weights"] == 4 * (n + 3 * 5 + 5) and found["gradients"] == found["averages"] == 4 * n
    assert found["optimiser"] == 4 * (2 * n + 4)  # two moments a weight, and a count for each of four tensors
    assert found["activations"] == 4 * (16 * 4 + 16 * 8 + 16 * 2)  # the input, what tanh gave, what is squared
