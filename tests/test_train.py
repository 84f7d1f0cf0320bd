"""The training loop: its promises, and checkpoints that survive anything."""
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import training_run
from conftest import refused
from test_states import same
from torch import nn

from dmdkit import files, noise, train


def small(lr: float = 0.05, n_steps: int = 20, init_seed: int = 0, **options) -> train.Learner:
    torch.manual_seed(init_seed)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 1))
    options = {"warmup": 2, "ema": 0.9} | options
    return train.Learner(net, train.accelerator(cpu=True), lr=lr, n_steps=n_steps, **options)


class Step:
    """Learn from noise. spoil: by the number of a call, what becomes of its loss."""

    def __init__(self, learner: train.Learner, spoil: dict | None = None):
        self.learner, self.spoil, self.calls = learner, spoil or {}, 0

    def __call__(self, g: torch.Generator) -> dict[str, torch.Tensor]:
        self.calls += 1
        loss = self.learner.model(torch.randn(8, 2, generator=g)).square().mean()
        if self.calls in self.spoil:
            loss = self.spoil[self.calls](loss)
        return {"gradient norm": self.learner.update(loss), "loss": loss.detach()}


def records(one: train.Learner, n_steps: int = 20, spoil: dict | None = None, **options):
    return train.train(Step(one, spoil), {"net": one}, n_steps=n_steps, **options)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "checkpoint.safetensors"


def step_of(path: Path) -> int:
    return files.load_state(path)["step"]


# The loop

def test_training_lowers_the_loss_and_yields_a_record_a_step():
    one = training_run.learner(30)
    found = list(training_run.records(one, 30, 16))
    assert [record.step for record in found] == list(range(1, 31))
    assert all(set(record.values) == {"loss", "gradient norm"} and record.seconds > 0
               for record in found)
    losses = [record.values["loss"] for record in found]
    assert losses[0] == pytest.approx(1, abs=0.2)  # a fresh network says nothing; v has variance 1
    assert sum(losses[-8:]) / 8 < 0.85 * losses[0]


def test_a_step_draws_its_randomness_from_seed_and_step_number_alone():
    drawn, one = [], {"net": small()}

    def step(g):
        drawn.append((torch.rand(1, generator=g).item(), torch.rand(1).item()))
        return {"loss": torch.tensor(1.0)}

    torch.manual_seed(123)
    before = torch.get_rng_state()
    list(train.train(step, one, n_steps=4, seed=5))
    assert torch.equal(torch.get_rng_state(), before)  # a notebook's own numbers are left alone
    torch.rand(7)
    list(train.train(step, one, n_steps=4, seed=5))
    list(train.train(step, one, n_steps=4, seed=6))
    assert drawn[:4] == drawn[4:8] and len({number for pair in drawn for number in pair}) == 16
    for i in range(4):
        assert drawn[i][0] == torch.rand(1, generator=noise.generator("training", 5, i)).item()


@pytest.mark.parametrize("n_steps, n", [(1500, 13), (100, 7), (6, 13), (2, 7), (1, 13)])
def test_milestones_go_from_start_to_end_closer_together_early_on(n_steps, n):
    found = train.milestones(n_steps, n)
    assert found[0] == 0 and found[-1] == n_steps and len(found) == min(n, len(set(found)))
    gaps = [b - a for a, b in zip(found, found[1:])]
    assert all(gap > 0 for gap in gaps)
    assert n_steps < 50 or gaps == sorted(gaps) and len(found) == n


def test_numbers_that_make_no_sense_are_refused_at_once(path):
    for options in ({"n_steps": 0}, {"n_steps": 3, "save_every": 0}):
        with refused(ValueError, "n_steps and save_every must be at least 1"):
            records(small(), **options)
    with refused(ValueError, "resume and overwrite exclude each other"):
        records(small(), checkpoint=path, resume=True, overwrite=True)


# Checkpoints

def test_a_checkpoint_holds_everything_that_training_changes_and_the_settings(path):
    list(records(small(weight_decay=0.1), checkpoint=path))
    state = files.load_state(path)
    assert (state["step"], state["n_steps"], state["seed"]) == (20, 20, 0)
    one = state["learners"]["net"]
    assert set(one) == {"settings", "net", "optimizer", "lr_scheduler", "ema"}
    assert one["settings"] == {"lr": 0.05, "n_steps": 20, "warmup": 2, "ema": 0.9,
                               "max_grad_norm": 1.0, "betas": [0.9, 0.999], "weight_decay": 0.1}
    moments = one["optimizer"]["state"]
    assert len(moments) == len(one["ema"]["shadow_params"]) == 4
    assert all(entry["step"].item() == 20 and entry["exp_avg"].abs().max() > 0
               for entry in moments.values())


def test_a_checkpoint_of_a_distillation_holds_both_networks_and_the_average(path):
    learners, step = training_run.distilling(2, 4)
    list(train.train(step, learners, n_steps=2, checkpoint=path))
    state = files.load_state(path)["learners"]
    assert list(state) == ["generator", "fake"]
    assert "ema" in state["generator"] and "ema" not in state["fake"]
    made = {name: {int(entry["step"]) for entry in one["optimizer"]["state"].values()}
            for name, one in state.items()}
    assert made == {"generator": {2}, "fake": {4}}


def test_a_run_can_be_resumed_from_its_first_moment_on(path):
    run = records(small(), checkpoint=path)
    next(run)
    assert step_of(path) == 0
    rest = list(records(small(init_seed=1), checkpoint=path, resume=True))
    assert rest[0].step == 1 and rest[-1].step == 20


def test_a_step_is_saved_once_its_record_was_taken_and_never_before(path):
    """Whoever writes the record to a log when it comes loses none: the log is never behind."""
    for record in records(small(), checkpoint=path, save_every=3):
        done = record.step - 1
        assert step_of(path) == done - done % 3
    assert step_of(path) == 20  # the last one too


def test_a_checkpoint_is_never_older_than_a_minute(path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def step(g):
        now[0] += 7.0
        return {"loss": torch.tensor(1.0)}

    for record in train.train(step, {"net": small()}, n_steps=40, checkpoint=path):
        age = now[0] - 7.0 * step_of(path)
        assert age <= 60
        saved.append(step_of(path))
    assert len(set(saved)) == 40 // 8  # and not more often: after 8 steps, 56 seconds


def test_what_is_done_with_a_record_counts_into_the_minute(path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    for record in records(small(), checkpoint=path):
        assert step_of(path) == record.step - 1
        now[0] += 61.0  # a snapshot that takes its time


# Resuming

def test_a_run_that_stopped_and_went_on_ends_bit_for_bit_as_if_it_had_not(path, tmp_path):
    losses = [record.values["loss"] for record in records(small(), checkpoint=tmp_path / "whole")]
    for record in records(small(), checkpoint=path, save_every=3):
        if record.step == 11:
            break
    second = small(init_seed=99)
    rest = list(records(second, checkpoint=path, save_every=3, resume=True))
    assert [record.step for record in rest] == list(range(10, 21))  # step 9 was saved last
    assert [record.values["loss"] for record in rest] == losses[9:]
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_resuming_a_finished_run_does_nothing(path):
    list(records(small(), checkpoint=path))
    before = path.read_bytes()
    one = small(init_seed=1)
    assert list(records(one, checkpoint=path, resume=True)) == []
    assert path.read_bytes() == before
    assert same(dict(one.net.state_dict()), files.load_state(path)["learners"]["net"]["net"])


def test_a_resumed_run_does_not_hold_on_to_its_file(path):
    list(records(small(), checkpoint=path))
    one = small(init_seed=1)
    list(records(one, checkpoint=path, resume=True))
    before = [weight.clone() for weight in one.net.parameters()]
    with open(path, "r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert all(map(torch.equal, before, one.net.parameters()))


@pytest.mark.parametrize("name, value", [
    ("lr", 0.04), ("warmup", 3), ("ema", 0.8), ("ema", 0.0), ("max_grad_norm", 2.0),
    ("betas", (0.9, 0.99)), ("weight_decay", 0.1)])
def test_a_run_of_other_settings_is_refused_with_their_name(path, name, value):
    list(records(small(), checkpoint=path))
    now = list(value) if isinstance(value, tuple) else value
    sentence = rf"checkpoint {path} does not fit 'net' .its {name} was .* and is {now} now.*Resume"
    with refused(RuntimeError, sentence.replace("[", r"\[").replace("]", r"\]")):
        next(records(small(**{name: value}), checkpoint=path, resume=True))


def test_the_checkpoint_of_another_run_is_refused(path):
    list(records(small(), checkpoint=path))
    one = small()
    for options in ({"n_steps": 21}, {"n_steps": 20, "seed": 1}):
        with refused(RuntimeError, "another run: steps, seed and networks are 20, 0, .* there"):
            next(records(one, checkpoint=path, resume=True, **options))
    with refused(RuntimeError, "is of another run"):
        next(train.train(Step(one), {"other": one}, n_steps=20, checkpoint=path, resume=True))


def test_the_checkpoint_of_another_network_is_refused(path):
    list(records(small(), checkpoint=path))
    other = train.Learner(nn.Linear(3, 1), train.accelerator(cpu=True), lr=0.05, n_steps=20,
                          warmup=2, ema=0.9)
    with refused(RuntimeError, "does not fit 'net' .*start a new run in another folder"):
        next(records(other, checkpoint=path, resume=True))


def test_a_missing_or_damaged_checkpoint_is_refused(path):
    with refused(RuntimeError, f"There is no checkpoint at {path}. Check the path, or start"):
        records(small(), checkpoint=path, resume=True)
    with refused(RuntimeError, "resume=True needs the path of a checkpoint"):
        records(small(), resume=True)
    list(records(small(), checkpoint=path))
    path.write_bytes(path.read_bytes()[:-1])
    with refused(RuntimeError, f"^{path} is damaged: .*Restore it"):
        next(records(small(), checkpoint=path, resume=True))
    files.save_state(path, {"a": 1})
    with refused(RuntimeError, f"checkpoint {path} is of another run"):
        next(records(small(), checkpoint=path, resume=True))


def test_a_checkpoint_is_replaced_only_if_that_is_said(path):
    list(records(small(), checkpoint=path))
    before = path.read_bytes()
    with refused(RuntimeError, f"There is a checkpoint at {path}; it is left as it is. Go on from"):
        records(small(), checkpoint=path)
    assert path.read_bytes() == before
    list(records(small(), checkpoint=path, n_steps=4, overwrite=True))
    assert step_of(path) == 4


def test_a_folder_that_cannot_be_written_is_said_before_the_first_step(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    one = small()
    step = Step(one)
    run = train.train(step, {"net": one}, n_steps=2, checkpoint=tmp_path / "file" / "checkpoint")
    with refused(RuntimeError, "Could not write .*checkpoint: .*; nothing was written. Free some"):
        next(run)
    assert step.calls == 0


# What is no number

def finite(path: Path) -> bool:
    def all_finite(node) -> bool:
        if isinstance(node, torch.Tensor):
            return bool(node.isfinite().all())
        children = node.values() if isinstance(node, dict) else node
        return not isinstance(node, (dict, list)) or all(map(all_finite, children))

    return all_finite(files.load_state(path))


@pytest.mark.parametrize("save_every", [1, 2, 3])
def test_one_gradient_that_is_no_number_leaves_only_finite_checkpoints(path, save_every):
    sentence = f"gradient norm became nan at step 4; the last good state is in {path}. Start again"
    with refused(FloatingPointError, sentence):
        list(records(small(), spoil={4: lambda loss: loss * math.nan}, checkpoint=path,
                     save_every=save_every))
    assert finite(path) and step_of(path) == 3 - 3 % save_every
    rest = list(records(small(), checkpoint=path, resume=True))
    assert rest[-1].step == 20


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_value_that_is_no_number_stops_the_run_where_it_arises(path, value):
    one = small()
    honest = Step(one)

    def step(g):
        found = honest(g)
        return found | {"other": torch.tensor(float(value))} if honest.calls == 8 else found

    with refused(FloatingPointError, f"other became {value} at step 8; the last good state is in"):
        list(train.train(step, {"net": one}, n_steps=20, checkpoint=path, save_every=2))
    assert step_of(path) == 6 and finite(path)


def test_weights_that_are_no_numbers_are_never_saved(path):
    one = small()

    def step(g):
        with torch.no_grad():  # no gradient and no loss shows it
            next(one.net.parameters())[0, 0] = math.inf
        return {"loss": torch.tensor(1.0)}

    with refused(FloatingPointError, "0.weight of 'net' is not finite at step 2; the last good"):
        list(train.train(step, {"net": one}, n_steps=20, checkpoint=path, save_every=2))
    assert step_of(path) == 0 and finite(path)


def test_a_network_that_is_broken_from_the_start_is_refused(path):
    one = small()
    with torch.no_grad():
        next(one.net.parameters()).fill_(math.nan)
    with refused(FloatingPointError, "0.weight of 'net' is not finite at step 0. Start again"):
        next(records(one, checkpoint=path))
    assert not path.exists()


# Signals

def interrupting(one: train.Learner, at: int, number: int, times: int = 1) -> Step:
    def send(loss):
        for _ in range(times):
            signal.raise_signal(number)
        return loss

    return Step(one, {at: send})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_be_told_and_be_saved(path, number):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    one, seen = small(), []
    with pytest.raises(KeyboardInterrupt, match="Stopped after step 5 of 20"):
        for record in train.train(interrupting(one, 5, number), {"net": one}, n_steps=20,
                                  checkpoint=path):
            assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
            seen.append(record.step)
    assert seen == [1, 2, 3, 4, 5] and step_of(path) == 5
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [r.step for r in records(small(), checkpoint=path, resume=True)] == list(range(6, 21))


def test_a_second_signal_stops_at_once(path):
    one, seen = small(), []
    with pytest.raises(KeyboardInterrupt):
        for record in train.train(interrupting(one, 5, signal.SIGINT, times=2), {"net": one},
                                  n_steps=20, checkpoint=path, save_every=2):
            seen.append(record.step)
    assert seen == [1, 2, 3, 4] and step_of(path) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_while_a_checkpoint_is_written_waits_for_it(path, monkeypatch):
    one, honest = small(), os.fsync

    def fsync(descriptor):
        signal.raise_signal(signal.SIGINT)
        honest(descriptor)

    run = records(one, checkpoint=path, save_every=3)
    for _ in range(3):
        next(run)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt, match="Stopped after step 3"):
        next(run)
    assert step_of(path) == 3


def test_between_two_records_a_signal_is_the_callers_own():
    with pytest.raises(KeyboardInterrupt):
        for record in records(small()):
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the signal was held back")


def test_signals_that_are_ignored_stay_so_and_other_threads_can_train(path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        one = small()
        step = interrupting(one, 5, signal.SIGINT)
        assert len(list(train.train(step, {"net": one}, n_steps=20))) == 20
    finally:
        signal.signal(signal.SIGINT, before)
    found = []
    thread = threading.Thread(target=lambda: found.extend(records(small(), checkpoint=path)))
    thread.start()
    thread.join()
    assert len(found) == 20 and step_of(path) == 20


# Several processes

def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


TOGETHER_STEPS, TOGETHER_BATCH = 4, 8


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory) -> tuple[Path, list]:
    """Every training of training_run in two processes: the folder of its last checkpoints, and what
    both reported."""
    folder = tmp_path_factory.mktemp("two")
    # For Accelerate, --cpu --num_processes 2 is one process unless MPI is there; --multi_gpu is its
    # name for starting several, and the script asks for the CPU.
    launched = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
         "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
         "--main_process_port", str(free_port()), training_run.__file__, str(folder),
         str(TOGETHER_STEPS), str(TOGETHER_BATCH)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert launched.returncode == 0, launched.stderr[-3000:]
    reports = sorted(folder.glob("process-*.jsonl"))
    assert len(reports) == 2
    return folder, [json.loads(line) for path in reports
                    for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("training", training_run.TRAININGS)
def test_two_processes_compute_what_one_does_with_the_same_global_batch(
        in_two_processes, tmp_path, training):
    folder, reported = in_two_processes
    alone = []
    training_run.run(tmp_path / "one.safetensors", TOGETHER_STEPS, TOGETHER_BATCH, 1000,
                     resume=False, report=alone.append, training=training)
    for record in alone:  # both processes went all the way and say what the whole batch gave
        said = [values for name, step, values, _ in reported
                if (name, step) == (training, record.step)]
        assert said == [pytest.approx(record.values, rel=1e-3)] * 2
    paths = tmp_path / "one.safetensors", folder / f"{training}.safetensors"
    one, two = (files.load_state(path)["learners"] for path in paths)
    learners, _ = training_run.TRAININGS[training](TOGETHER_STEPS, TOGETHER_BATCH)
    for role, learner in learners.items():
        fresh = learner.state_dict()["net"]
        for name, weight in one[role]["net"].items():
            torch.testing.assert_close(two[role]["net"][name], weight, rtol=1e-4, atol=2e-5)
        moved = max((weight - fresh[name]).abs().max().item()
                    for name, weight in one[role]["net"].items())
        assert moved > 50 * 2e-5  # training went much further than the tolerance
        averages = (state[role]["ema"]["shadow_params"] if learner.ema else []
                    for state in (one, two))
        for a, b in zip(*averages):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_a_step_may_return_plain_numbers():
    learner = train.Learner(torch.nn.Linear(1, 1), train.accelerator(cpu=True), lr=1e-3, n_steps=2)
    records = train.train(lambda g: {"loss": 0.5}, {"net": learner}, n_steps=2)
    assert [record.values for record in records] == [{"loss": 0.5}] * 2


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        train.train(lambda g: {}, {}, n_steps=2)
