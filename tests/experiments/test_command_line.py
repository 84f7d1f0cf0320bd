"""python -m dmdkit: each verb says what it does and how long that takes, and a slip is one sentence
and not a traceback."""
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import refused, stopped_in_step_six
from toys import DIGITS, WEIGHTS, bytes_of, dot_network, folder

from dmdkit import __main__, commands, data, files, store
from dmdkit.denoiser import Denoiser
from dmdkit.experiments import benchmark, build, mnist, study, tables
from dmdkit.experiments.evaluate import Sampling
from dmdkit.experiments.recipe import Sources
from dmdkit.methods import ddpm, dmd, pairs

ONE_STEP = (Sampling("ddim", 1),)
SMALL = {
    "classifier": mnist.RECIPES["classifier"].changed(task=DIGITS),
    "teacher": mnist.TEACHER.changed(
        task=DIGITS, network="tiny", batch_size=8, warmup=1,
        samplings=(Sampling("ddim", 2), Sampling("heun", 3, 0.25))),
    "student-dmd": mnist.RECIPES["student-dmd-paired"].changed(
        task=DIGITS, batch_size=4, n_pairs=20, distance="squared", updates=(1, 1),
        samplings=ONE_STEP),
    "student-dmd2-no-critic": mnist.RECIPES["student-dmd2-no-critic"].changed(task=DIGITS),
    "poster-teacher": mnist.RECIPES["poster-teacher"]}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Small recipes by the names of those that ship, and a folder of one's own."""
    monkeypatch.setattr(build, "RECIPES", SMALL)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process; returns its exit status, what it printed on stdout, and
    on stderr."""
    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dmdkit", *map(str, words)])
        try:
            status = __main__.main()
        except SystemExit as end:  # argparse
            status = end.code
        return status, *capsys.readouterr()

    return run


def refusal(status: int, out: str, err: str) -> str:
    """The one sentence of a refusal."""
    lines = [line for line in err.splitlines() if line.startswith("dmdkit: ")]
    assert status == 1 and len(lines) == 1 and err.rstrip().endswith(lines[0])
    assert "Traceback" not in err
    return lines[0]


# Training

def teacher_of(call, out, *words) -> tuple[int, str, str]:
    return call("train", "teacher", "--steps", 6, "--out", out, "--cpu", *words)


@pytest.fixture
def taught(call) -> Path:
    """A folder with a teacher of six steps, trained once a session and copied."""
    root = folder() / "taught"
    if not root.exists():
        teacher_of(call, root)
    here = Path("taught")
    store.save(store.load("teacher", root=root), here / "teacher", store.card("teacher", root))
    return here


def test_train_says_what_it_does_and_writes_an_artefact(call, tmp_path):
    status, out, err = teacher_of(call, tmp_path)
    assert status == 0, err
    first, last = out.splitlines()
    assert first == (f"Training teacher: 6 steps of 8 on cpu, into {tmp_path / 'teacher'}. The one "
                     "that ships took 48 min for its 14,000 steps, on 2 × CPU, 1 threads.")
    assert last == (f"Written to {tmp_path / 'teacher'}. Measure it: python -m dmdkit evaluate "
                    f"teacher --root {tmp_path}")
    assert isinstance(store.load("teacher", root=tmp_path), Denoiser)
    card = store.card("teacher", tmp_path)["recipe"]
    assert (card["n_steps"], card["batch_size"], card["seed"]) == (6, 8, 0)
    log = files.read_lines(tmp_path / "teacher.training" / "log.jsonl").entries
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]


def test_resume_finishes_what_was_interrupted_as_if_it_had_not_been(call, taught, monkeypatch):
    with stopped_in_step_six(monkeypatch):
        status, _, err = teacher_of(call, "cut")
    assert status == 130 and "--resume" in err and "Traceback" not in err
    status, _, err = teacher_of(call, "cut", "--resume")
    assert status == 0, err
    before = folder() / "taught"
    assert bytes_of(Path("cut"), "teacher") == bytes_of(before, "teacher")


def test_pairs_and_steps_reach_the_training(call, monkeypatch):
    asked = []

    def few(self, name: str, n: int, solver) -> pairs.Pairs:
        asked.append(n)
        zeros = torch.zeros(n, 1, 28, 28)
        return pairs.Pairs(zeros, zeros, torch.zeros(n, dtype=torch.int64))

    monkeypatch.setattr(Sources, "pairs", few)
    monkeypatch.setattr(Sources, "load", lambda self, name: DIGITS.network("tiny").eval())
    words = ("train", "student-dmd", "--steps", 2, "--pairs", 7, "--cpu")
    status, out, err = call(*words)
    assert status == 0, err
    assert asked == [7] and out.startswith("Training student-dmd: 2 steps of 4 on cpu, into runs/")
    recipe = store.card("student-dmd", Path("runs"))["recipe"]
    assert (recipe["n_steps"], recipe["n_pairs"]) == (2, 7)
    log = files.read_lines(Path("runs/student-dmd.training/log.jsonl")).entries
    assert [entry["step"] for entry in log] == [1, 2]


def test_a_users_files_and_finished_work_stay(call, taught):
    own = Path("own/teacher")
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("mine", encoding="utf-8")
    for words in ((), ("--overwrite",)):
        assert "thesis.txt" in refusal(*teacher_of(call, "own", *words))
    assert (own / "thesis.txt").read_text(encoding="utf-8") == "mine"
    before = bytes_of(taught, "teacher")
    for words in ((), ("--resume",)):
        refusal(*call("train", "teacher", "--steps", 1, "--out", taught, "--cpu", *words))
    assert bytes_of(taught, "teacher") == before
    assert teacher_of(call, taught, "--overwrite")[0] == 0


@pytest.mark.parametrize("words, sentence", [
    (("train", "x"), "There is no recipe for 'x'; there are classifier, teacher, student-dmd"),
    (("benchmark", "x"), "There is no recipe for 'x'; there are classifier"),
    (("evaluate", "x"), "There is no recipe for 'x'; there are classifier"),
    (("study", "07"), "There is no study of lesson '07'; there are 03, 04, 05, 06."),
    (("study", "04", "--only", "thrice"), "The study dmd-mnist has no setting 'thrice'; it has"),
    (("build", "x"), "Nothing that ships is called 'x'; there are classifier, teacher"),
    (("train", "teacher", "--steps=0"), "training steps must be at least 1; got 0."),
    (("train", "teacher", "--steps=-3"), "training steps must be at least 1; got -3."),
    (("train", "student-dmd", "--pairs=0"), "The number of pairs must be at least 1; got 0"),
    (("train", "teacher", "--pairs=5"), "'teacher' is trained without pairs"),
    (("train", "student-dmd2-no-critic", "--pairs=5"), "is trained without pairs"),
    (("train", "teacher", "--teacher=judge"), "'teacher' is trained without a teacher"),
    (("train", "student-dmd", "--teacher=./nowhere"), "There is no folder './nowhere', and"),
    (("train", "teacher", "--resume"), "There is no checkpoint at runs/teacher.training/"),
    (("train", "teacher", "--resume", "--overwrite"), "--resume goes on and --overwrite starts"),
    (("evaluate", "teacher", "--root", "none"), "There is no artefact 'teacher' in none"),
    (("benchmark", "poster-teacher", "--save"), "'poster-teacher' does not ship, so it has no"),
    (("benchmark", "poster-teacher", "--save", "--cpu"), "does not ship")])
def test_a_slip_is_one_sentence_and_begins_nothing(call, words, sentence):
    found = call(*words)
    assert sentence in refusal(*found) and os.listdir() == []


@pytest.mark.parametrize("words", [
    (), ("fly",), ("train",), ("train", "teacher", "--steps", "many"),
    ("train", "teacher", "--stps", "3"), ("evaluate", "teacher", "--noise", "loud"),
    ("evaluate", "teacher", "--seed", "one"), ("chain",), ("study",)])
def test_what_the_command_line_cannot_parse_shows_its_usage(call, words):
    status, _, err = call(*words)
    assert status == 2 and err.startswith("usage: python -m dmdkit") and "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_refused_before_any_training(call, monkeypatch):
    Path("file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setattr(ddpm, "DDPM", lambda *args: pytest.fail("it began"))
    found = refusal(*teacher_of(call, "file"))
    assert "Could not write" in found and "Not a directory" in found and "choose a folder" in found


def test_a_loss_that_is_no_number_is_one_sentence(call, monkeypatch):
    def step(self, g: torch.Generator) -> dict[str, torch.Tensor]:
        return {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(ddpm.DDPM, "__call__", step)
    assert "loss became nan at step 1" in refusal(*teacher_of(call, "runs"))
    assert store.names(Path("runs")) == []


def test_a_recipe_that_cannot_be_is_one_sentence(call, monkeypatch):
    with refused(ValueError, "without pairs"):
        dmd.Settings(distance="classifier")
    slip = replace(SMALL["teacher"], method=ddpm.Settings("huge"))
    monkeypatch.setitem(SMALL, "teacher", slip)
    assert "has no network 'huge'" in refusal(*teacher_of(call, "runs"))


# Evaluation

@pytest.mark.parametrize("words, sentence", [
    ("--sampler ddim", "--sampler is a setting of one sampler; give --steps with it"),
    ("--steps 4", "--steps is a setting of one sampler; give --sampler with it"),
    ("--guidance 0.2", "--guidance is a setting of one sampler; give --sampler and --steps"),
    ("--s-tmax 0.5", "--s-tmax is a setting of one sampler; give --sampler and --steps"),
    ("--no-clip --images 100", "--clip is a setting of one sampler"),
    ("--sampler dimm --steps 4", "'dimm' is none of the samplers ddim, ddpm, heun"),
    ("--sampler ddim --steps 0", "n_steps must be a whole number of at least 1; got 0"),
    ("--sampler ddpm --steps 2000", "n_steps must be a whole number from 1 to 1024"),
    ("--sampler ddim --steps 4 --guidance nan", "guidance must be a number, 0 or more; got nan"),
    ("--sampler ddim --steps 4 --guidance inf", "guidance must be a number, 0 or more; got inf"),
    ("--sampler ddim --steps 4 --guidance 1 --interval 0.9 0.1", "0 ≤ low < high ≤ 1; got 0.9 and"),
    ("--sampler ddim --steps 4 --interval 0.1 0.9", "interval says where to guide; unguided,"),
    ("--sampler ddim --steps 4 --guide nobody --guide-weight 1", "There is no artefact 'nobody'"),
    ("--sampler ddim --steps 4 --guide classifier --guide-weight 1", "guide must be a Denoiser"),
    ("--sampler ddim --steps 4 --guide teacher", "A guide and its weight go together"),
    ("--sampler ddim --steps 4 --guide-weight 1", "A guide and its weight go together"),
    ("--sampler ddim --steps 4 --s-noise 0.9", "of ancestral sampling, ddpm; ddim has none"),
    ("--sampler ddpm --steps 4 --s-noise -1", "s_noise must be 0 or more"),
    ("--sampler ddpm --steps 4 --s-tmax 0.5", "without s_noise it has no effect"),
    ("--images 15", "n must be a multiple of 10"), ("--images 0", "--images must be at least 1"),
    ("--seed 99999999999999999999", "--seed must be a whole number from 0 to 2147483647; got 999"),
    ("--seed=-1", "--seed must be a whole number from 0 to 2147483647; got -1")])
def test_evaluate_refuses_bad_numbers_before_any_work(call, taught, monkeypatch, words, sentence):
    task = replace(DIGITS, make_scorer=lambda: pytest.fail("it scored"))
    monkeypatch.setitem(SMALL, "teacher", SMALL["teacher"].changed(task=task))
    found = refusal(*call("evaluate", "teacher", "--root", taught, "--cpu", *words.split()))
    assert sentence in found and os.listdir() == ["taught"]


@pytest.mark.parametrize("words, sentence", [
    ("--sampler ddim --steps 4", "'classifier' is a classifier: it draws nothing"),
    ("--s-tmax 0.5", "'classifier' is a classifier: it draws nothing"),
    ("--seed 1", "measured on all of the test data; leave --seed out"),
    ("--images 5000", "measured on all of the test data; leave --images out"),
    ("--noise report", "measured on all of the test data; leave --noise out")])
def test_what_a_classifier_would_ignore_is_refused(call, words, sentence):
    assert sentence in refusal(*call("evaluate", "classifier", "--cpu", *words.split()))


def entries(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()[1:]]


def test_evaluate_says_what_it_does_and_saves_onto_the_card(call, taught):
    before = store.card("teacher", taught)
    words = ("evaluate", "teacher", "--root", taught, "--cpu", "--images", 100)
    status, out, err = call(*words, "--save")
    assert status == 0, err
    assert out.splitlines()[0] == (
        "Measuring teacher: 100 samples by each of 2 samplers, on cpu: 1,200 network evaluations, "
        "about 1 min on one CPU core. Finished batches are kept in runs.")
    card = store.card("teacher", taught)
    assert card.pop("results") == entries(out) and card == before
    assert [one["sampling"]["sampler"] for one in entries(out)] == ["real data", "ddim", "heun"]
    assert {(one["noise"], one["seed"], one["images"]) for one in entries(out)} == {
        ("selection", 0, 100)}

    one_way = ("--sampler", "ddpm", "--steps", 2, "--no-clip", "--s-noise", 0.9, "--s-tmax", 0.5)
    status, out, err = call(*words, "--seed", 3, "--noise", "report", "--save", *one_way)
    assert status == 0, err
    baseline, found = entries(out)
    assert found["sampling"] == {"sampler": "ddpm", "n_steps": 2, "guidance": 0.0,
                                 "more": "not clamped, noise 0.9 at t/T < 0.5"}
    assert (found["noise"], found["seed"]) == (baseline["noise"], baseline["seed"]) == ("report", 3)
    assert len(store.card("teacher", taught)["results"]) == 5
    several = call(*words, "--seed", 3, 4, 3, "--noise", "report", *one_way)[1]
    assert "1 samplers and 2 seeds" in several and entries(several)[:2] == [baseline, found]
    assert [one["seed"] for one in entries(several)] == [3, 3, 4, 4]
    assert entries(several)[3]["values"] != found["values"]
    status, out, err = call(*words, *one_way)  # without --save nothing is written
    assert status == 0 and len(store.card("teacher", taught)["results"]) == 5


def test_a_card_that_cannot_be_written_is_refused_before_any_work(call, taught, monkeypatch):
    def refuse(path):
        raise RuntimeError(f"Could not write {path}: Read-only file system")

    monkeypatch.setattr(files, "check_writable", refuse)
    words = ("evaluate", "teacher", "--root", taught, "--cpu", "--save")
    status, out, err = call(*words)
    assert "Could not write taught/teacher" in refusal(status, out, err) and out == ""


def test_a_classifier_is_measured_in_seconds(call):
    status, out, err = call("evaluate", "classifier", "--cpu")
    assert status == 0, err
    assert out.splitlines()[0] == "Measuring classifier on the test data, on cpu: seconds."
    found, = entries(out)
    assert found["values"]["test"]["accuracy"] > 0.95 and found["images"] == 256


def test_finished_batches_of_a_stopped_evaluation_are_not_drawn_again(call, taught, monkeypatch):
    words = ("evaluate", "teacher", "--root", taught, "--cpu", "--images", 20, "--sampler", "ddim",
             "--steps", 2)
    _, first, _ = call(*words)
    monkeypatch.setattr(Sampling, "states", lambda *args: pytest.fail("it drew again"))
    assert call(*words)[:2] == (0, first)


# List

def test_list_names_what_ships(call):
    status, out, err = call("list")
    assert status == 0 and [line.split()[0] for line in out.splitlines()] == store.names()
    assert err == "" and all(len(line.split()) > 3 for line in out.splitlines())


@pytest.mark.parametrize("content", ["", "[]", "{", '{"what": "x"}', "\x00\x01"])
def test_one_damaged_card_does_not_stop_the_list(call, monkeypatch, content):
    for name in ("good", "bad"):
        store.save(dot_network(), Path("data") / name, {"name": name, "what": "Dots."})
    Path("data/bad/card.json").write_text(content, encoding="utf-8")
    monkeypatch.setattr(commands, "ROOT", Path("data"))
    monkeypatch.setattr(store.card, "__defaults__", (Path("data"),))
    status, out, _ = call("list")
    bad, good = out.splitlines()
    assert status == 0 and good.split() == ["good", "Dots."]
    assert bad.startswith("bad ") and "data/bad/card.json is damaged" in bad


# Study, benchmark, build

def test_study_says_what_it_does_and_where_it_wrote(call, monkeypatch):
    asked = []

    def built(one, names=None) -> Path:
        asked.append((one.name, names))
        return Path("data/x/runs.json")

    monkeypatch.setattr(study, "build", built)
    status, out, _ = call("study", "04", "--only", "DMD", "no matching")
    assert status == 0 and asked == [("dmd-mnist", ["DMD", "no matching"])]
    assert out.splitlines() == [
        "Study of lesson 04: 6 runs of 2 settings; all of them take about 1 h on two CPU cores. "
        "Finished runs are kept.", "Written to data/x/runs.json."]
    status, out, _ = call("study", "06")
    assert out.startswith("Study of lesson 06: 27 runs of 14 settings; all of them take about 3 ")
    assert asked[-1] == ("dmd2-mnist", None)


def test_benchmark_times_a_step_and_a_student(call, monkeypatch):
    timed = []
    monkeypatch.setattr(benchmark, "benchmark", lambda recipe, accelerator: timed.append(
        recipe) or {"step_s": 1.0})
    monkeypatch.setattr(benchmark, "speed", lambda name, recipe, accelerator: {"ratio": 400})
    put = []
    monkeypatch.setattr(commands, "_put", lambda name, found: put.append((name, found)))
    status, out, _ = call("benchmark", "student-dmd", "--cpu")
    first, *rest = out.splitlines()
    assert status == 0 and first == "Timing student-dmd on cpu: under a minute each."
    found = {"throughput": {"step_s": 1.0}, "speed": {"ratio": 400}}
    assert json.loads("\n".join(rest)) == {"student-dmd": found}
    assert timed == [SMALL["student-dmd"]] and put == []
    call("benchmark", "teacher", "--cpu", "--save")
    assert put == [("teacher", {"throughput": {"step_s": 1.0}})]
    status, out, _ = call("benchmark", "all", "--cpu")
    assert status == 0 and out.startswith("Timing classifier, teacher, student-dmd, stu")
    assert SMALL["poster-teacher"] not in timed  # its teacher does not ship


def test_of_all_recipes_the_benchmark_leaves_out_what_is_not_here_and_of_one_it_says_so(
        call, monkeypatch):
    def timed(recipe, accelerator):
        if recipe == SMALL["student-dmd"]:
            raise RuntimeError("Of 'its-start' only the card ships.")
        return {"step_s": 1.0}

    monkeypatch.setattr(benchmark, "benchmark", timed)
    status, out, _ = call("benchmark", "all", "--cpu")
    assert status == 0 and "student-dmd is left out. Of 'its-start' only the card ships." in out
    assert '"teacher": {' in out and '"student-dmd": {' not in out
    status, out, err = call("benchmark", "student-dmd", "--cpu")
    assert status == 1 and "only the card ships" in err


def test_a_saved_benchmark_takes_the_place_of_the_earlier_one(monkeypatch):
    store.save(dot_network(), Path("data/one"), {"throughput": {"step_s": 1.0, "share": 0.5},
                                                 "results": []})
    monkeypatch.setattr(store.change_card, "__defaults__", (Path("data"),))
    commands._put("one", {"throughput": {"step_s": 2.0}})
    card = store.card("one", Path("data"))
    assert card["throughput"] == {"step_s": 2.0} and card["results"] == []


def test_build_says_that_what_ships_is_up_to_date_and_changes_nothing(call, monkeypatch):
    monkeypatch.setattr(build, "RECIPES", mnist.RECIPES)
    before = {path: path.stat().st_mtime_ns for path in data.ROOT.rglob("*") if path.is_file()}
    assert call("build", "--plan") == (0, "All is up to date.\n", "")
    assert before == {path: path.stat().st_mtime_ns
                      for path in data.ROOT.rglob("*") if path.is_file()}


def test_build_says_why_and_how_long_and_makes_in_order(call, monkeypatch):
    made = []

    def target(name: str, minutes: float) -> build.Target:
        return build.Target(name, (), lambda: "", lambda: made.append(name), minutes)

    found = [(target("teacher", 47.5), "its recipe has another lr now"),
             (target("new", float("nan")), "it is missing"),
             (target("tables", 0), "it is made of teacher, which is out of date")]
    monkeypatch.setattr(build, "plan", lambda names: iter(found))
    lines = ["teacher: its recipe has another lr now (about 48 min on two CPU cores)",
             "new: it is missing (how long it takes is not known)",
             "tables: it is made of teacher, which is out of date (under a minute)"]
    status, out, _ = call("build", "--plan")
    assert (status, out.splitlines(), made) == (0, lines, [])
    status, out, _ = call("build")
    assert status == 0 and made == ["teacher", "new", "tables"]
    assert out.splitlines() == [*lines, "Making teacher …", "Making new …", "Making tables …"]


def test_build_refuses_before_it_makes_anything_where_somebodys_work_is_in_the_way(
        call, taught, monkeypatch):
    store.save(store.load("teacher", root=taught), Path("runs/teacher"),
               store.card("teacher", taught))
    made = []
    found = [(build.Target(name, (), str, lambda: made.append(1), 0), "it is missing")
             for name in ("classifier", "teacher")]
    monkeypatch.setattr(build, "plan", lambda names: iter(found))
    assert "runs holds another teacher than is to be made" in refusal(*call("build"))
    assert made == []


def test_stale_tables_are_rewritten_by_build(call, monkeypatch):
    monkeypatch.setattr(build, "HOME", Path.cwd())
    monkeypatch.setattr(build, "RECIPES", mnist.RECIPES)
    for name in ("README.md", "RESULTS.md"):
        Path(name).write_text(f"mine\n{tables.START}\nold\n{tables.END}\nmine\n", encoding="utf-8")
    status, out, _ = call("build", "tables")
    assert status == 0 and out.splitlines()[-1] == "Making tables …"
    assert call("build", "tables", "--plan")[1] == "All is up to date.\n"
    text = Path("README.md").read_text(encoding="utf-8")
    assert text.startswith("mine\n") and text.endswith("mine\n") and "`student-dmd`" in text


# In a shell

def shell(*words: str, **variables: str) -> subprocess.CompletedProcess:
    home = Path(__file__).resolve().parents[2]
    return subprocess.run([sys.executable, *words], capture_output=True, cwd=home,
                          env=os.environ | variables, timeout=300)


def test_help_can_be_piped_in_a_windows_encoding():
    done = shell("-m", "dmdkit", "evaluate", "--help", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode("utf-8").startswith("usage: python -m dmdkit")


def test_an_ascii_locale_reads_what_ships_and_lists_it():
    code = ("import sys; from dmdkit import store, __main__; store.load('teacher'); "
            "sys.argv = ['dmdkit', 'list']; sys.exit(__main__.main())")
    done = shell("-c", code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.decode("utf-8").splitlines()]
    assert names == store.names() and b"cannot be read" not in done.stdout


def test_a_wrong_data_folder_is_one_sentence(call, monkeypatch):
    for module in (commands, store):
        monkeypatch.setattr(module, "ROOT", Path("/nowhere/at/all"))
    status, out, err = call("list")
    assert out == "" and refusal(status, out, err).startswith(
        "dmdkit: /nowhere/at/all is no folder. Point the environment variable DMDKIT_DATA at ")


def test_an_empty_data_folder_is_one_sentence(call, monkeypatch, tmp_path):
    for module in (commands, store):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    assert f"There are no artefacts in {tmp_path}." in refusal(*call("list"))


def test_ctrl_c_during_the_imports_is_one_sentence(call, monkeypatch):
    class Stops:
        def find_spec(self, name: str, path=None, target=None):
            if name == "dmdkit.commands":
                raise KeyboardInterrupt

    import dmdkit

    monkeypatch.delitem(sys.modules, "dmdkit.commands")
    monkeypatch.delattr(dmdkit, "commands")
    monkeypatch.setattr(sys, "meta_path", [Stops(), *sys.meta_path])
    status, out, err = call("list")
    assert status == 130 and out == "" and err.startswith("Stopped.") and len(err.splitlines()) == 1


def test_a_missing_weights_file_is_one_sentence(call, taught):
    (taught / "teacher" / WEIGHTS).unlink()
    found = refusal(*call("evaluate", "teacher", "--root", taught, "--cpu"))
    assert f"{WEIGHTS} is missing" in found


@pytest.mark.skipif(os.name == "nt", reason="a shell's redirections")
@pytest.mark.parametrize("words", ["list >&-", "list | head -n 1"])
def test_a_closed_output_is_no_fault(words):
    done = subprocess.run(f'"{sys.executable}" -m dmdkit {words}', shell=True, text=True,
                          capture_output=True, encoding="utf-8")
    assert done.stderr == ""


def test_the_package_alone_imports_no_torch_so_that_ctrl_c_finds_the_command_line():
    code = "import sys, dmdkit.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
