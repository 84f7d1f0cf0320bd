"""Pairs: what is stored is what was solved, a stopped run goes on, and nothing damaged or of
another run slips in."""
import re

import pytest
import torch
from conftest import Counted, refused
from painters import generator

from dmdkit import files, nets, noise, sample, schedule, store
from dmdkit.denoiser import Denoiser
from dmdkit.experiments.mnist import GUIDANCE
from dmdkit.methods import pairs
from dmdkit.methods.pairs import Pairs, Solver
from dmdkit.tasks.mnist import MNIST

TWO = Solver("ddim", 2)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of four pairs, so that a dozen pairs are several."""
    monkeypatch.setattr(pairs, "SHARD", 4)


def small(sch: schedule.Schedule | None = None, size: int = 8) -> Denoiser:
    """A small teacher of ten classes with random weights; its labels make a difference."""
    torch.manual_seed(0)
    net = nets.unet((1, size, size), (8,), n_classes=10)
    with torch.no_grad():
        net.class_embedding.weight.mul_(3)
    return Denoiser(net, sch or schedule.cosine(), "v").eval()


@pytest.fixture
def teacher() -> Denoiser:
    """One that counts its network's calls."""
    one = small()
    one.net = Counted(one.net)
    return one


def of_points(sch: schedule.Schedule | None = None) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(nets.PointMLP(8), sch or schedule.cosine(), "v", n_classes=0).eval()


def make(teacher: Denoiser, n: int, folder, solver: Solver = TWO, **options) -> Pairs:
    return pairs.make_pairs(teacher, n, folder, solver, **options)


def same(a: Pairs, b: Pairs) -> bool:
    return all(torch.equal(one, other) and one.dtype == other.dtype
               for one, other in zip(a, b, strict=True))


def shard(folder, i: int):
    return folder / f"pairs-{i:05d}.safetensors"


def stamp(folder, i: int) -> tuple:
    """By which one sees that a file was not written again."""
    status = shard(folder, i).stat()
    return status.st_ino, status.st_mtime_ns, files.sha256(shard(folder, i))


# What is stored is what was solved

@pytest.mark.parametrize("solver", pairs.SOLVERS)
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_the_images_are_what_the_solver_makes_of_the_stored_noise(
        tmp_path, monkeypatch, solver, guidance):
    one, seen = small(), []
    honest = pairs.SOLVERS[solver]

    def noting(net, z, *rest):
        seen.append(z)
        return honest(net, z, *rest)

    monkeypatch.setitem(pairs.SOLVERS, solver, noting)
    made = make(one, 6, tmp_path, Solver(solver, 3, guidance))
    assert torch.equal(torch.cat(seen), made.z)  # not one was rounded after it was solved
    stored = files.load_state(shard(tmp_path, 0))
    assert (stored["z"].dtype, stored["x"].dtype) == (torch.float16, torch.uint8)
    assert made.label.tolist() == [0, 1, 2, 3, 4, 5]
    assert made.z.dtype == made.x.dtype == torch.float32

    def solved(label):
        return sample.last(honest(one, made.z, 3, label, guidance)).clamp(-1, 1)

    assert (made.x - solved(made.label)).abs().max() <= 1 / 255 + 1e-5 and made.x.std() > 0.1
    assert (made.x - solved(made.label.roll(1))).abs().max() > 2 / 255  # the label does something


def test_labels_are_balanced_and_the_noise_is_standard_normal_and_of_its_own_stream(tmp_path):
    made = make(small(), 20, tmp_path, Solver("ddim", 1))
    assert made.label.tolist() == [*range(10)] * 2 and made.label.dtype == torch.int64
    n = made.z.numel()
    assert abs(made.z.mean()) < 5 / n**0.5 and abs(made.z.std() - 1) < 5 / (2 * n)**0.5
    assert len(made.z.flatten(1).unique(dim=0)) == 20  # also from shard to shard
    for i, z in enumerate(made.z.split(4)):
        g = noise.generator("pairs", 0, i)
        assert torch.equal(z, torch.randn(4, 1, 8, 8, generator=g).half().float())
    other = make(small(), 4, tmp_path / "other", Solver("ddim", 1), seed=1)
    assert not torch.equal(other.z, made.z[:4])


@pytest.mark.parametrize("sch", [schedule.cosine(), schedule.flow()], ids=["cosine", "flow"])
def test_a_teacher_of_points_has_pairs_without_labels_that_are_not_rounded(tmp_path, sch):
    one = of_points(sch)
    made = make(one, 5, tmp_path)
    assert made.label is None and made.z.shape == made.x.shape == (5, 2)
    solved = sample.last(sample.ddim(one, made.z, 2))
    torch.testing.assert_close(made.x, solved, rtol=1e-5, atol=1e-6)
    index = torch.tensor([4, 1])
    assert torch.equal(made.batch(index).z, made.z[index])


def test_a_batch_of_pairs_keeps_noise_image_and_label_together():
    made = Pairs(torch.arange(10.0)[:, None], -torch.arange(10.0)[:, None], torch.arange(10))
    got = made.batch(torch.tensor([7, 2, 2]))
    assert got.z.flatten().tolist() == got.label.tolist() == [7, 2, 2]
    assert got.x.flatten().tolist() == [-7, -2, -2]
    for index, error in ((torch.tensor([10]), IndexError), (torch.tensor([-1]), IndexError),
                         (torch.tensor([1.0]), TypeError)):
        with refused(error, "index must"):
            made.batch(index)


@pytest.mark.parametrize("solver", pairs.SOLVERS)
@pytest.mark.parametrize("n_steps", [1, 4])
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_the_counted_calls_of_the_network_are_those_that_are_stated(
        teacher, tmp_path, solver, n_steps, guidance):
    how = Solver(solver, n_steps, guidance)
    calls = {"ddim": n_steps, "heun": 2 * n_steps - 1}[solver]
    assert how.evaluations() == calls * (2 if guidance else 1)
    make(teacher, 3, tmp_path, how)
    assert teacher.net.calls == calls and teacher.net.rows == 3 * how.evaluations()
    teacher.net.rows, z = 0, torch.randn(3, 1, 8, 8)
    found = pairs.quality(teacher, z, torch.arange(3), how, z)
    assert teacher.net.rows == 3 * found["evaluations"]


def test_the_quality_of_a_solver_is_its_error_per_pixel():
    one, z, label = small(), torch.randn(3, 1, 8, 8), torch.arange(3)
    how = Solver("heun", 3, 0.5)
    solved = sample.last(sample.heun(one, z, 3, label, 0.5))
    assert pairs.quality(one, z, label, how, solved)["error"] == 0
    off = solved + torch.tensor([0.3, -0.4, 0.0]).reshape(3, 1, 1, 1)
    found = pairs.quality(one, z, label, how, off)["error"]
    assert found == pytest.approx((0.25 / 3)**0.5, rel=1e-4)
    with refused(ValueError, "z and reference must have one shape"):
        pairs.quality(one, z, label, how, solved[:1])


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
    assert stamp(tmp_path, 0) == before and teacher.net.rows == 7 * 2  # the other seven, two steps
    cards = [pairs.pairs_card(folder) | {"wall_time_s": 0}
             for folder in (tmp_path, tmp_path / "whole")]
    assert cards[0] == cards[1] and cards[0]["pairs"] == 11


def test_a_shard_that_was_deleted_is_made_again_and_no_other(teacher, tmp_path):
    whole = make(teacher, 11, tmp_path)
    before = stamp(tmp_path, 0), stamp(tmp_path, 2)
    shard(tmp_path, 1).unlink()
    assert same(make(teacher, 11, tmp_path), whole)
    assert (stamp(tmp_path, 0), stamp(tmp_path, 2)) == before


def test_a_larger_number_adds_and_a_smaller_one_takes_what_is_there(teacher, tmp_path):
    few, before = make(teacher, 5, tmp_path), stamp(tmp_path, 0)
    more = make(teacher, 11, tmp_path)
    assert stamp(tmp_path, 0) == before
    assert same(more, make(teacher, 11, tmp_path / "whole"))
    assert torch.equal(more.z[:5], few.z) and torch.equal(more.label[:5], few.label)
    teacher.net.calls = 0
    assert same(make(teacher, 6, tmp_path), Pairs(*(value[:6] for value in more)))
    assert teacher.net.calls == 0
    assert pairs.pairs_card(tmp_path)["pairs"] == 11 and same(pairs.load_pairs(tmp_path), more)


@pytest.mark.parametrize("solver, other, sentence", [
    (Solver("heun", 2), {}, "their solver is 'ddim', wanted is 'heun'"),
    (Solver("ddim", 3), {}, "their n_steps is 2, wanted is 3"),
    (Solver("ddim", 2, 0.5), {}, r"their guidance is 0\.0, wanted is 0\.5"),
    (TWO, dict(seed=1), "their seed is 0, wanted is 1"),
    (TWO, dict(about={"teacher_sha256": "b"}), "their teacher_sha256 is 'a', wanted is 'b'"),
])
def test_pairs_of_other_settings_are_refused_and_left_as_they_are(
        teacher, tmp_path, solver, other, sentence):
    about = {"about": {"teacher_sha256": "a"}}
    make(teacher, 3, tmp_path, **about)
    teacher.net.calls, before = 0, stamp(tmp_path, 0)
    there = f"The pairs in {re.escape(str(tmp_path))} are others: "
    with refused(RuntimeError, f"{there}{sentence}. Use another folder"):
        make(teacher, 8, tmp_path, solver, **about | other)
    assert teacher.net.calls == 0 and stamp(tmp_path, 0) == before


@pytest.mark.parametrize("change, sentence", [
    (dict(sch=schedule.linear()),
     "schedule is {'kind': 'cosine', 'T': 1024}, wanted is {'kind': 'linear', 'T': 400, "),
    (dict(sch=schedule.flow()),
     "schedule is {'kind': 'cosine', 'T': 1024}, wanted is {'kind': 'flow', 'T': 1024}"),
    (dict(size=4), "sample_shape is [1, 8, 8], wanted is [1, 4, 4]"),
])
def test_pairs_of_a_teacher_with_another_schedule_or_shape_are_refused(
        teacher, tmp_path, change, sentence):
    make(teacher, 3, tmp_path)
    other, pattern = small(**change), f"are others: their {re.escape(sentence)}"
    assert len(pairs.load_pairs(tmp_path, 3, teacher).z) == 3
    with refused(RuntimeError, pattern):
        pairs.load_pairs(tmp_path, 3, other)
    with refused(RuntimeError, pattern):
        make(other, 3, tmp_path)


def test_pairs_without_their_card_are_not_taken_for_anybodys(teacher, tmp_path):
    make(teacher, 3, tmp_path)
    (tmp_path / pairs.CARD).unlink()
    before, teacher.net.calls = stamp(tmp_path, 0), 0
    with refused(RuntimeError, r"holds pairs, but not their card pairs\.json, .* another folder"):
        make(teacher, 3, tmp_path)
    assert teacher.net.calls == 0 and stamp(tmp_path, 0) == before


# Bad input, and damage

@pytest.mark.parametrize("solver, sentence", [
    (("ddpm", 2), "Pairs need a deterministic solver, one of ddim, heun; got 'ddpm'"),
    (("ddim", 0), "n_steps must be a whole number of at least 1; got 0"),
    (("ddim", 2.5), r"n_steps must be a whole number of at least 1; got 2\.5"),
    (("ddim", 2, float("nan")), "guidance must be a finite number; got nan"),
])
def test_a_solver_that_is_none_is_one_sentence(solver, sentence):
    with refused(ValueError, sentence):
        Solver(*solver)


@pytest.mark.parametrize("n, solver, sentence", [
    (0, TWO, "number of pairs must be a whole number from 1 to 64000000; got 0"),
    (-2, TWO, "number of pairs must be a whole number from 1 to 64000000; got -2"),
    (2.5, TWO, r"number of pairs must be a whole number from 1 to 64000000; got 2\.5"),
    (3, Solver("ddim", 2000), "n_steps must be a whole number from 1 to 1024.*; got 2000"),
])
def test_bad_input_is_one_sentence_before_any_work(teacher, tmp_path, n, solver, sentence):
    with refused(ValueError, sentence):
        make(teacher, n, tmp_path, solver)
    assert teacher.net.calls == 0 and list(tmp_path.iterdir()) == []


def test_a_teacher_without_classes_cannot_be_guided(tmp_path):
    with refused(ValueError, r"no classes to guide by: leave the solver's guidance at 0; got 0\.5"):
        make(of_points(), 3, tmp_path, Solver("ddim", 2, 0.5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("solver", pairs.SOLVERS)
@pytest.mark.parametrize("made", [small, of_points])
def test_a_teacher_that_is_no_number_makes_no_pairs(tmp_path, solver, made):
    """Black images that look like good ones would be regressed on."""
    one = made()
    with torch.no_grad():
        next(one.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="samples are not finite, so they make no pairs"):
        make(one, 3, tmp_path, Solver(solver, 2))
    assert not shard(tmp_path, 0).exists() and pairs.pairs_card(tmp_path)["pairs"] == 0


def test_a_folder_that_cannot_be_written_is_one_sentence_before_any_work(teacher, tmp_path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with refused(RuntimeError, "file.run.* cannot be written|Could not write .*file.run"):
        make(teacher, 3, tmp_path / "file" / "run")
    assert teacher.net.calls == 0


def test_too_few_or_no_pairs_are_one_sentence(teacher, tmp_path):
    make(teacher, 5, tmp_path)
    assert len(pairs.load_pairs(tmp_path, 5).z) == 5
    here = re.escape(str(tmp_path))
    with refused(RuntimeError, f"{here} holds 5 pairs; 6 are wanted. Make the rest with methods"):
        pairs.load_pairs(tmp_path, 6)
    with refused(RuntimeError, f"There are no pairs in {here}.none. `python -m dmdkit train` ma"):
        pairs.load_pairs(tmp_path / "none")
    for n in (0, -1, 1.5):
        with refused(ValueError, f"number of pairs must be a whole number of at least 1; got {n}"):
            pairs.load_pairs(tmp_path, n)


@pytest.mark.parametrize("missing", ["schedule", "sample_shape", "n_classes", "pairs"])
def test_a_card_without_an_entry_is_one_sentence(teacher, tmp_path, missing):
    make(teacher, 3, tmp_path)
    card = pairs.pairs_card(tmp_path)
    del card[missing]
    files.write_json(tmp_path / pairs.CARD, card)
    with refused(RuntimeError, f"pairs.json is damaged: it has no '{missing}'"):
        pairs.load_pairs(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def changed(**values):
    """Damage that a checksum does not show: a whole file, of other contents. None takes an entry
    out."""
    def change(path):
        state = files.load_state(path)
        for name, function in values.items():
            state[name] = function(state[name])
        files.save_state(path, {name: value for name, value in state.items() if value is not None})

    return change


def no_number(value):
    value[1, ..., 0] = torch.nan
    return value


def nothing(value):
    return None


def one_less(value):
    return value[:3]


def narrower(value):
    return value[..., :7]


def as_floats(value):
    return value.float()


def too_high(value):
    return value + 8


DAMAGES = {
    "cut short": cut, "a byte flipped": flipped,
    "noise that is no number": changed(z=no_number), "no noise": changed(z=nothing),
    "no images": changed(x=nothing), "an image less": changed(x=one_less),
    "smaller images": changed(z=narrower, x=narrower), "images as floats": changed(x=as_floats),
    "noise as floats": changed(z=as_floats), "a label less": changed(label=one_less),
    "no labels": changed(label=nothing), "labels as floats": changed(label=as_floats),
    "labels of no class": changed(label=too_high)}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_one_sentence_that_names_the_file(teacher, tmp_path, damage):
    make(teacher, 8, tmp_path)
    damage(shard(tmp_path, 1))
    teacher.net.calls, named = 0, re.escape(str(shard(tmp_path, 1)))
    with refused(RuntimeError, named):
        pairs.load_pairs(tmp_path)
    with refused(RuntimeError, named):
        make(teacher, 12, tmp_path)
    assert teacher.net.calls == 0 and not shard(tmp_path, 2).exists()
    assert len(pairs.load_pairs(tmp_path, 4).z) == 4  # the shard before it is as good as ever


def test_damaged_points_are_one_sentence_that_names_the_file(tmp_path):
    make(of_points(), 8, tmp_path)
    changed(x=no_number)(shard(tmp_path, 1))
    with refused(RuntimeError, re.escape(str(shard(tmp_path, 1)))):
        pairs.load_pairs(tmp_path)


def test_pairs_are_checked_against_a_network():
    net, z = small(), torch.randn(3, 1, 8, 8, generator=generator())
    Pairs(z, z, torch.arange(3)).check(net)
    Pairs(z, z).check(net)  # without labels: of no class
    with refused(TypeError, "pairs' x must be floating-point numbers; got torch.uint8. Scale"):
        Pairs(z, z.byte(), torch.arange(3)).check(net)
    with refused(ValueError, r"pairs' z must have shape \(B, 1, 8, 8\); got \(3, 8, 8\)"):
        Pairs(z[:, 0], z[:, 0]).check(net)


# The teacher that ships

def test_the_teachers_pairs_are_digits(tmp_path):
    solver = Solver("heun", 8, GUIDANCE)
    assert solver.evaluations() == 2 * (2 * solver.n_steps - 1)
    made = pairs.make_pairs(store.load("teacher"), 40, tmp_path, solver)
    assert made.x.min() == -1 and made.x.max() == 1
    with torch.no_grad():
        right = MNIST.classify(made.x) == made.label
    assert right.sum() >= 38


# Damage

def test_pairs_are_named_when_they_are_damaged(teacher, tmp_path):
    make(teacher, 8, tmp_path)  # a whole shard stands before the damaged one
    flipped(shard(tmp_path, 1))
    with refused(RuntimeError, "pairs-00001.safetensors"):
        pairs.load_pairs(tmp_path)
    card = pairs.pairs_card(tmp_path) | {"sample_shape": [1, 32, 32]}
    files.write_json(tmp_path / pairs.CARD, card)
    with refused(RuntimeError, r"pairs-00000.safetensors does not hold pairs .* \(1, 32, 32\)"):
        pairs.load_pairs(tmp_path)
    text = (tmp_path / pairs.CARD).read_text(encoding="utf-8")
    (tmp_path / pairs.CARD).write_text(text.replace("ddim", "heun"), encoding="utf-8")
    with refused(RuntimeError, "pairs.json is damaged: its seal does not fit what it says"):
        pairs.load_pairs(tmp_path)


def test_more_pairs_than_shards_can_be_numbered_are_refused_at_once(tmp_path):
    teacher = Denoiser(nets.PointMLP(8, 1), schedule.cosine(8), n_classes=0)
    with pytest.raises(ValueError, match="The number of pairs must be .* from 1 to 64000000; got"):
        pairs.make_pairs(teacher, 10**20, tmp_path / "pairs", pairs.Solver("ddim", 1))
    assert not (tmp_path / "pairs").exists()
