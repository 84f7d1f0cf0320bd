"""Pairs: what is stored is what was solved, a stopped run goes on, and nothing damaged or of another run slips in."""
import json
import re
import shutil

import pytest
import torch
from conftest import Counted, refused

from dmdkit import data, files, nets, pairs, sample, schedule, store
from dmdkit.denoiser import Denoiser

SHIPPED = data.ROOT / "pairs"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of four pairs, so that a dozen pairs are several."""
    monkeypatch.setattr(pairs, "SHARD", 4)


@pytest.fixture
def teacher(tiny) -> Denoiser:
    """A tiny teacher that counts its network's calls."""
    tiny.net = Counted(tiny.net)
    return tiny


def make(teacher: Denoiser, n: int, folder, **options) -> pairs.Pairs:
    return pairs.make_pairs(teacher, n, folder, **dict(n_steps=2) | options)


def same(a: pairs.Pairs, b: pairs.Pairs) -> bool:
    return all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(a, b, strict=True))


def shard(folder, i: int):
    return folder / f"pairs-{i:05d}.safetensors"


def stamp(folder, i: int) -> tuple:
    """By which one sees that a file was not written again."""
    status = shard(folder, i).stat()
    return status.st_ino, status.st_mtime_ns, files.sha256(shard(folder, i))


# What is stored is what was solved

@pytest.mark.parametrize("solver", pairs.SOLVERS)
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_the_images_are_what_the_solver_makes_of_the_stored_noise(tiny, tmp_path, monkeypatch, solver, guidance):
    seen = []
    honest = pairs.SOLVERS[solver]
    monkeypatch.setitem(pairs.SOLVERS, solver, lambda net, z, *rest: seen.append(z) or honest(net, z, *rest))
    made = make(tiny, 6, tmp_path, solver=solver, guidance=guidance, n_steps=3)
    assert torch.equal(torch.cat(seen), made.z)  # not one was rounded after it was solved
    stored = files.load_state(shard(tmp_path, 0))
    assert (stored["z"].dtype, stored["x"].dtype) == (torch.float16, torch.uint8)
    assert made.label.tolist() == [0, 1, 2, 3, 4, 5] and made.z.dtype == made.x.dtype == torch.float32
    solved = sample.last(getattr(sample, solver)(tiny, made.z, 3, made.label, guidance)).clamp(-1, 1)
    assert (made.x - solved).abs().max() <= 1 / 255 + 1e-5 and made.x.std() > 0.1
    other = sample.last(getattr(sample, solver)(tiny, made.z, 3, made.label.roll(1), guidance)).clamp(-1, 1)
    assert (made.x - other).abs().max() > 2 / 255  # the label does something


def test_labels_are_balanced_and_the_noise_is_standard_normal(tiny, tmp_path):
    made = make(tiny, 20, tmp_path, n_steps=1)
    assert made.label.tolist() == [*range(10)] * 2 and made.label.dtype == torch.int64
    assert abs(made.z.mean()) < 5 / made.z.numel()**0.5 and abs(made.z.std() - 1) < 5 / (2 * made.z.numel())**0.5
    assert len(made.z.flatten(1).unique(dim=0)) == 20  # also from shard to shard
    assert not torch.equal(make(tiny, 4, tmp_path / "other", n_steps=1, seed=1).z, made.z[:4])


def test_a_teacher_without_classes_has_pairs_without_labels(tmp_path):
    teacher = Denoiser(nets.PointNet(8), schedule.cosine(), "v", n_classes=0).eval()
    made = make(teacher, 5, tmp_path)
    assert made.label is None and made.z.shape == made.x.shape == (5, 2)
    assert made.batch(torch.tensor([4, 1])).z.tolist() == made.z[[4, 1]].tolist()


def test_a_batch_of_pairs_keeps_noise_image_and_label_together():
    made = pairs.Pairs(torch.arange(10.0)[:, None], -torch.arange(10.0)[:, None], torch.arange(10))
    got = made.batch(torch.tensor([7, 2, 2]))
    assert got.z.flatten().tolist() == [7, 2, 2] == got.label.tolist() and got.x.flatten().tolist() == [-7, -2, -2]


@pytest.mark.parametrize("solver", pairs.SOLVERS)
@pytest.mark.parametrize("n_steps", [1, 4])
def test_the_counted_calls_of_the_network_are_those_that_are_stated(teacher, tmp_path, solver, n_steps):
    z = torch.randn(3, 1, 28, 28)
    sample.last(pairs.SOLVERS[solver](teacher, z, n_steps))
    assert teacher.net.calls == pairs.CALLS[solver](n_steps)
    for guidance in (0.0, 0.5):
        teacher.net.rows, folder = 0, tmp_path / str(guidance)
        make(teacher, 3, folder, solver=solver, n_steps=n_steps, guidance=guidance)
        assert teacher.net.rows == 3 * pairs.pairs_card(folder)["network_evaluations_a_pair"]
        teacher.net.rows = 0
        found = pairs.quality(teacher, z, torch.arange(3), solver, n_steps, z, guidance)
        assert teacher.net.rows == 3 * found["evaluations"]


def test_the_quality_of_a_solver_is_its_error_per_pixel(tiny):
    z, label = torch.randn(3, 1, 28, 28), torch.arange(3)
    solved = sample.last(sample.heun(tiny, z, 3, label, 0.5))
    assert pairs.quality(tiny, z, label, "heun", 3, solved, 0.5)["error"] == 0
    off = solved + torch.tensor([0.3, -0.4, 0.0]).reshape(3, 1, 1, 1)
    assert pairs.quality(tiny, z, label, "heun", 3, off, 0.5)["error"] == pytest.approx((0.25 / 3)**0.5, rel=1e-4)


# A stopped run goes on

def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been(teacher, tmp_path, monkeypatch):
    whole = make(teacher, 11, tmp_path / "whole")
    honest = pairs.SOLVERS["ddim"]

    def stopped(*arguments):
        if shard(tmp_path, 0).exists():
            raise KeyboardInterrupt
        return honest(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(pairs.SOLVERS, "ddim", stopped)
        make(teacher, 11, tmp_path)
    before, teacher.net.rows = stamp(tmp_path, 0), 0
    assert same(make(teacher, 11, tmp_path), whole)
    assert stamp(tmp_path, 0) == before and teacher.net.rows == 7 * 2  # the other seven in two steps
    cards = [pairs.pairs_card(folder) | {"wall_time_s": 0} for folder in (tmp_path, tmp_path / "whole")]
    assert cards[0] == cards[1] and cards[0]["pairs"] == 11


def test_a_shard_that_was_deleted_is_made_again_and_no_other(teacher, tmp_path):
    whole = make(teacher, 11, tmp_path)
    before = stamp(tmp_path, 0), stamp(tmp_path, 2)
    shard(tmp_path, 1).unlink()
    assert same(make(teacher, 11, tmp_path), whole) and (stamp(tmp_path, 0), stamp(tmp_path, 2)) == before


def test_a_larger_number_adds_and_a_smaller_one_takes_what_is_there(teacher, tmp_path):
    few, before = make(teacher, 5, tmp_path), stamp(tmp_path, 0)
    more = make(teacher, 11, tmp_path)
    assert stamp(tmp_path, 0) == before and same(more, make(teacher, 11, tmp_path / "whole"))
    assert torch.equal(more.z[:5], few.z) and torch.equal(more.label[:5], few.label)
    teacher.net.calls = 0
    assert same(make(teacher, 6, tmp_path), pairs.Pairs(*(value[:6] for value in more))) and teacher.net.calls == 0
    assert pairs.pairs_card(tmp_path)["pairs"] == 11 and same(pairs.load_pairs(tmp_path), more)


@pytest.mark.parametrize("other, sentence", [
    (dict(solver="heun"), "their solver is 'ddim', wanted is 'heun'"),
    (dict(n_steps=3), "their n_steps is 2, wanted is 3"),
    (dict(guidance=0.5), "their guidance is 0.0, wanted is 0.5"),
    (dict(seed=1), "their seed is 0, wanted is 1"),
    (dict(about={"teacher_sha256": "b"}), "their teacher_sha256 is 'a', wanted is 'b'"),
])
def test_pairs_of_other_settings_are_refused_and_left_as_they_are(teacher, tmp_path, other, sentence):
    make(teacher, 3, tmp_path, about={"teacher_sha256": "a"})
    teacher.net.calls, before = 0, stamp(tmp_path, 0)
    with refused(RuntimeError, f"The pairs in {re.escape(str(tmp_path))} are others: {sentence}. Use another folder"):
        make(teacher, 8, tmp_path, **{"about": {"teacher_sha256": "a"}} | other)
    assert teacher.net.calls == 0 and stamp(tmp_path, 0) == before


def other_teachers() -> dict[str, Denoiser]:
    return {"T is 1024, wanted is 400": Denoiser(nets.unet("tiny"), schedule.linear(), "v", patch=4),
            r"sample_shape is \[1, 28, 28\], wanted is \[4, 14, 14\]":
                Denoiser(nets.unet("tiny"), schedule.cosine(), "v", patch=2)}


@pytest.mark.parametrize("sentence", other_teachers())
def test_pairs_of_a_teacher_with_another_schedule_or_shape_are_refused(teacher, tmp_path, sentence):
    make(teacher, 3, tmp_path)
    other = other_teachers()[sentence]
    assert len(pairs.load_pairs(tmp_path, 3, teacher).z) == 3
    for use in (lambda: pairs.load_pairs(tmp_path, 3, other), lambda: make(other, 3, tmp_path)):
        with refused(RuntimeError, f"are others: their {sentence}"):
            use()


# Bad input, and damage

@pytest.mark.parametrize("n, options, sentence", [
    (3, dict(solver="ddpm"), "Pairs need a deterministic solver, one of ddim, heun; got 'ddpm'"),
    (0, {}, "number of pairs must be at least 1; got 0"),
    (-2, {}, "number of pairs must be at least 1; got -2"),
    (3, dict(n_steps=0), "n_steps must be a whole number from 1 to 1024 .*; got 0"),
    (3, dict(n_steps=2000), "n_steps must be a whole number from 1 to 1024 .*; got 2000"),
    (3, dict(n_steps=2.5), r"n_steps must be a whole number from 1 to 1024 .*; got 2\.5"),
])
def test_bad_input_is_one_sentence_before_any_work(teacher, tmp_path, n, options, sentence):
    with refused(ValueError, sentence):
        make(teacher, n, tmp_path, **options)
    assert teacher.net.calls == 0 and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence_before_any_work(teacher, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with refused(RuntimeError, "Could not write .*file.run.pairs.json"):
        make(teacher, 3, tmp_path / "file" / "run")
    assert teacher.net.calls == 0


def test_too_few_or_no_pairs_are_one_sentence(teacher, tmp_path):
    make(teacher, 5, tmp_path)
    assert len(pairs.load_pairs(tmp_path, 5).z) == 5
    with refused(RuntimeError, f"{re.escape(str(tmp_path))} holds 5 pairs; 6 are wanted. Make the rest: `python -m"):
        pairs.load_pairs(tmp_path, 6)
    with refused(RuntimeError, f"no pairs in {re.escape(str(tmp_path / 'none'))}. Make them: `python -m dmdkit pairs`"):
        pairs.load_pairs(tmp_path / "none")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def changed(**values):
    """Damage that a checksum does not show: a whole file, of other contents. None takes an entry out."""
    def change(path):
        state = files.load_state(path)
        for name, function in values.items():
            state[name] = function(state[name])
        files.save_state(path, {name: value for name, value in state.items() if value is not None})

    return change


def no_number(z):
    z[1, 0, 5, 5] = torch.nan
    return z


DAMAGES = {
    "cut short": cut, "a byte flipped": flipped, "noise that is no number": changed(z=no_number),
    "no noise": changed(z=lambda z: None), "an image less": changed(x=lambda x: x[:3]),
    "smaller images": changed(z=lambda z: z[..., :27], x=lambda x: x[..., :27]),
    "images as floats": changed(x=lambda x: x.float()), "a label less": changed(label=lambda label: label[:3]),
    "no labels": changed(label=lambda label: None)}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_one_sentence_that_names_the_file(teacher, tmp_path, damage):
    make(teacher, 8, tmp_path)
    damage(shard(tmp_path, 1))
    teacher.net.calls = 0
    for use in (lambda: pairs.load_pairs(tmp_path), lambda: make(teacher, 12, tmp_path)):
        with refused(RuntimeError, re.escape(str(shard(tmp_path, 1)))):
            use()
    assert teacher.net.calls == 0 and not shard(tmp_path, 2).exists()
    assert len(pairs.load_pairs(tmp_path, 4).z) == 4  # the whole shard before it is as good as ever


# What ships

def test_the_pairs_that_ship_are_whole_balanced_and_digits():
    made = pairs.load_pairs(SHIPPED, teacher=store.load("teacher"))
    assert made.z.shape == made.x.shape == (1280, 1, 28, 28) and made.z.isfinite().all()
    assert torch.equal(torch.bincount(made.label), torch.full((10,), 128))
    assert abs(made.z.mean()) < 0.01 and abs(made.z.std() - 1) < 0.01
    assert made.x.min() == -1 and made.x.max() == 1
    with torch.no_grad():
        right = store.load("judge")(made.x).argmax(1) == made.label
    assert right.float().mean() > 0.97


def test_the_pairs_that_ship_are_those_of_the_teacher_that_ships():
    card, teacher = pairs.pairs_card(SHIPPED), store.load("teacher")
    assert card["teacher_sha256"] == store.card("teacher")["sha256"] and card["pairs"] == 1280
    assert card["network_evaluations_a_pair"] == 2 * (2 * card["n_steps"] - 1) and card["solver"] == "heun"
    made = pairs.load_pairs(SHIPPED, 8, teacher)
    solved = sample.last(sample.heun(teacher, made.z, card["n_steps"], made.label, card["guidance"])).clamp(-1, 1)
    off = (made.x - solved).abs()
    assert off.max() <= 1 / 255 + 0.01 and (off <= 1 / 255 + 1e-4).float().mean() > 0.99


def test_the_pairs_that_ship_are_named_when_they_are_damaged(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "pairs")
    flipped(shard(tmp_path / "pairs", 1))
    with refused(RuntimeError, "pairs-00001.safetensors"):
        pairs.load_pairs(tmp_path / "pairs")
    card = json.loads((tmp_path / "pairs" / "pairs.json").read_text())
    (tmp_path / "pairs" / "pairs.json").write_text(json.dumps(card | {"sample_shape": [1, 32, 32]}))
    with refused(RuntimeError, r"pairs-00000.safetensors does not hold pairs of .* shape \(1, 32, 32\)"):
        pairs.load_pairs(tmp_path / "pairs")
