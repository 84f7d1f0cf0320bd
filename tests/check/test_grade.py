"""Grades: ordinary submissions get their points exactly, and no trick gets one."""
import copy
import json
import os
import subprocess

import pytest
import torch
from exercises import NOTEBOOKS, nbgrader_cells, run, verdict
from handed_in import notebook

from dmdkit import check
from dmdkit.check import judge as judges
from dmdkit.check import wire
from dmdkit.check.grade import grade
from dmdkit.check.judge import Judge
from dmdkit.check.points import TABLE, exercises, lesson_of
from dmdkit.check.submission import Submission

ARGUMENTS = "x, m_fake, v_fake, m_real, v_real"
RIGHT = "-(x - m_fake) / v_fake + (x - m_real) / v_real"


@pytest.fixture(scope="module")
def judge():
    """One for all: it starts each exercise in a process of its own."""
    with pytest.MonkeyPatch.context() as patch, Judge(seed=11, seconds=2) as one:
        patch.setenv("SECRET_TOKEN", "42")
        yield one


def report_on(content: dict, judge: Judge, place: str = "a.ipynb"):
    return grade(Submission(judges.Path(place), "a", content), judge)


def points(report) -> dict[str, int]:
    return {result.name: result.points for result in report.results}


def first(report):
    """What exercise 3.1 gave."""
    return report.results[0]


def kl(body: str, before: str = "") -> str:
    """A cell of exercise 3.1 whose function has this body."""
    lines = "\n    ".join(body.split("\n"))
    return f"{before}\ndef kl_gradient({ARGUMENTS}):\n    {lines}\n"


# Ordinary submissions

@pytest.mark.parametrize("lesson", sorted({lesson_of(name) for name in TABLE}))
def test_a_perfect_submission_gets_all_points_and_a_blank_one_none(lesson, judge):
    perfect = report_on(notebook(lesson, "solved"), judge)
    assert [result.fault for result in perfect.results if result.fault] == []
    assert points(perfect) == {name: of.points for name, of in exercises(lesson).items()}
    assert perfect.full and not any(result.remarks for result in perfect.results)
    blank = report_on(notebook(lesson), judge)
    assert blank.points == 0 and blank.of == perfect.points
    assert all("Not written yet" in result.fault for result in blank.results)


def test_learners_functions_run_where_no_gpu_is_seen(monkeypatch):
    started = []

    class Worker(subprocess.Popen):
        def __init__(self, *args, env, **kwargs):
            started.append(env)
            super().__init__(*args, env=env, **kwargs)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(subprocess, "Popen", Worker)
    with Judge(seed=0) as judge:
        assert judge.fault("ex_3_1", "def kl_gradient(*args): raise NotImplementedError")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == [""]


def test_a_submission_that_is_half_right_gets_the_points_of_that_half(judge):
    solved = nbgrader_cells(graded=False)
    half = {name: solved[name] for name in ("ex_3_1", "ex_3_4")}
    half["ex_3_2"] = "def score_difference(mu_real, mu_fake, alpha, sigma):\n    return mu_fake"
    report = report_on(notebook(3, half), judge)
    assert points(report) == {"ex_3_1": 2, "ex_3_2": 0, "ex_3_3": 0, "ex_3_4": 3, "ex_3_5": 0}
    assert not report.full


def test_a_wrong_answer_is_told_what_the_lesson_tells(judge):
    wrong = kl("return (x - m_fake) / v_fake - (x - m_real) / v_real")
    assert "sign is flipped" in first(report_on(notebook(3, {"ex_3_1": wrong}), judge)).fault


HELPED = {  # what learners write around a right answer
    "a helper in the cell": (kl("return score(x, m_real, v_real) * -1 + score(x, m_fake, v_fake)",
                                "def score(x, m, v):\n    return -(x - m) / v\n"), ""),
    "a helper before it": (kl("return score(x, m_fake, v_fake) - score(x, m_real, v_real)"),
                           "def score(x, m, v):\n    return (m - x) / VAR(v)\nVAR = float"),
    "an import of its own": (kl(f"return torch.as_tensor({RIGHT})", "import torch as T"), ""),
    "an alias": (kl(f"return th.tensor(({RIGHT}).numpy())"), "import torch as th, numpy as np"),
    "a magic": ("%%time\n" + kl(RIGHT.join(("return ", ""))), "%matplotlib inline\n!ls"),
    "a lambda": (f"kl_gradient = lambda {ARGUMENTS}: {RIGHT}", ""),
    "a class": (kl(f"return Of(x).value({RIGHT})",
                   "class Of:\n    def __init__(self, x):\n        self.x = x\n"
                   "    def value(self, y):\n        return self.x * 0 + y"), ""),
    "two attempts": (kl("raise NotImplementedError()") + kl(f"return {RIGHT}"), ""),
    "a local name like a global": (kl(f"teacher = {RIGHT}\nreturn teacher"),
                                   "teacher = store.load('teacher')"),
    "a cell that fails": (kl(f"return {RIGHT}"), "1 / 0\nraise SystemExit"),
    "a cell that is no Python": (kl(f"return {RIGHT}"), "def ("),
    "vmap": (kl(f"one = lambda x: {RIGHT}\nreturn torch.func.vmap(one)(x)"), ""),
    "numpy": (kl(f"x = x.numpy()\nreturn torch.from_numpy(np.asarray({RIGHT}))",
                 "import numpy as np"), ""),
    "jacobians": (kl("def log(x, m, v):\n    return (-(x - m)**2 / (2 * v)).sum()\n"
                     "ratio = lambda x: log(x, m_fake, v_fake) - log(x, m_real, v_real)\n"
                     "return torch.func.grad(ratio)(x)"), ""),
    "distributions": (kl("x = x.clone().requires_grad_()\n"
                         "p = N(m_fake, v_fake**0.5).log_prob(x).sum()\n"
                         "p = p - N(m_real, v_real**0.5).log_prob(x).sum()\n"
                         "return torch.autograd.grad(p, x)[0]",
                         "from torch.distributions import Normal as N"), ""),
    "a question": (kl(f"return {RIGHT}") + "torch.cdist?\nsome = %pwd\n", ""),
    "all of a module": (kl(f"return softplus(x) * 0 + {RIGHT}"),
                        "from torch.nn.functional import *"),
    "variables called like built-ins": (kl(f"input, vars = x, {RIGHT}\nreturn vars + 0 * input"),
                                        ""),
    "prints": (kl(f"print('x' * 10**6)\nreturn {RIGHT}"), ""),
}


@pytest.mark.parametrize("case", HELPED)
def test_a_right_answer_gets_its_points_however_it_is_put(case, judge):
    answer, before = HELPED[case]
    result = first(report_on(notebook(3, {"ex_3_1": answer}, before), judge))
    assert (result.points, result.fault) == (2, "")


# Tricks. Each is tried in exercise 3.1, whose function would otherwise be wrong

WRONG = kl("return 0 * x")
TRICKS = {
    "nbgrader's variable": (WRONG, "import os\nos.environ.pop('NBGRADER_EXECUTION')", ""),
    "the check replaced": (WRONG, "setattr(check, 'ex_3_1', print)", ""),
    "a check of one's own": (WRONG, "class check:\n    ex_3_1 = print", ""),
    "the check's call": (WRONG, "type(check.ex_3_1).__call__ = print", ""),
    "the verdict": (WRONG, "from dmdkit.check import harness\nharness._verdict = print", ""),
    "the oracle": ("kl_gradient = check.ex_3_1.oracle", "", "from dmdkit"),
    "the oracle, wrapped": (kl(f"return check.ex_3_1.oracle({ARGUMENTS})"), "", "from dmdkit"),
    "the library": (kl("from dmdkit.methods import dmd\nreturn dmd.kl(x)"), "", "from dmdkit"),
    "the oracle by another way": (kl("m = torch.serialization.sys.modules\nreturn m['dmdkit']"),
                                  "", "uses sys"),
    "an endless loop": (kl("while True:\n    pass"), "", "within 2 s"),
    "a long sleep": (kl("import time\ntime.sleep(60)"), "", "within 2 s"),
    "an exit": (kl("raise SystemExit(0)"), "", "SystemExit"),
    "a hard exit": (kl("import os\nos._exit(0)"), "", "imports os"),
    "a crash": (kl("import numpy as np\nas_strided = np.lib.stride_tricks.as_strided\n"
                   "as_strided(np.zeros(1), (2**40,), (8,))[2**39] = 1"), "", "without an answer"),
    "much memory": (kl("return torch.zeros(2**36)"), "", "raised"),
    "an answer that is far too large": (kl("return torch.zeros(2**24)"), "", ""),
    "a file": (kl("return open('/etc/passwd')"), "", "uses open"),
    "a file by another way": (kl("import numpy as np\nnp.savetxt('/tmp/stolen', x)"), "",
                              "PermissionError"),
    "the judge's memory": (kl("import numpy as np\nreturn np.lib.format.open_memmap("
                              "'/proc/1/mem')"), "", "PermissionError"),
    "the network": (kl("import urllib.request"), "", "imports urllib"),
    "the network by another way": (kl("torch.testing._internal"), "", "uses _internal"),
    "another process": (kl("import subprocess"), "", "imports subprocess"),
    "autograd replaced": (kl("torch.autograd.grad = print\nreturn x"), "", "changes torch"),
    "allclose replaced": (kl("setattr(torch, 'allclose', print)\nreturn x"), "", "uses setattr"),
    "frames": (kl("return (1 for _ in x).gi_frame.f_back"), "", "which no exercise needs"),
    "any attribute": (kl("import operator\nreturn operator.attrgetter('__class__')(x)"), "",
                      "uses attrgetter"),
    "dunders": (kl("return ().__class__.__base__.__subclasses__()"), "", "uses __"),
    "a string that is code": (kl(
        "return get_type_hints(helper)['run'](x)", "from typing import get_type_hints\n"
        "def helper(run: 'lambda x: exec(x)'): pass"), "", "uses get_type_hints"),
    "a timer of code": (kl("return torch.utils.benchmark.Timer('x')"), "", "uses benchmark"),
    "a built-in, renamed": (kl("return look('x')", "look = eval"), "", "uses eval"),
    "a built-in in a class": (kl("return Look.eval('x')", "class Look:\n    eval = eval"), "",
                              "uses eval"),
    "a built-in as a default": (kl("return look(x)", "def look(x, eval=eval):\n    eval(x)"), "",
                                "uses eval"),
    "exec": (kl("exec('import os')\nreturn x"), "", "uses exec"),
    "a tensor that equals everything": (kl(
        "return torch.zeros(x.shape).as_subclass(Same)",
        "class Same(torch.Tensor):\n    def __eq__(self, other):\n        return True\n"
        "    def __sub__(self, other):\n        return 0 * other"), "", ""),
    "an object that equals everything": (kl(
        "return Same()", "class Same:\n    def __eq__(self, other):\n        return True"), "",
        "should be a tensor"),
    "nothing but NaN": (kl("return x * float('nan')"), "", "NaN"),
    "an error without words": (kl(
        "raise Odd", "class Odd(Exception):\n    def __str__(self):\n        raise Odd"), "",
        "raised Odd"),
    "deep recursion": (kl("return kl_gradient(x, 1, 1, 1, 1)"), "", "RecursionError"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_gets_a_point_or_costs_another_exercise_its_own(trick, judge):
    answer, before, said = TRICKS[trick]
    also = {"ex_3_2": nbgrader_cells(graded=False)["ex_3_2"]}
    report = report_on(notebook(3, {"ex_3_1": answer, **also}, before), judge)
    assert points(report) == {"ex_3_1": 0, "ex_3_2": 2, "ex_3_3": 0, "ex_3_4": 0, "ex_3_5": 0}
    assert said in first(report).fault


def test_what_a_function_of_the_public_cases_remembers_gets_no_point(judge, capsys):
    """The lessons' own cases are of seed 0, and anyone can compute their answers."""
    known = [check.ex_3_1.oracle(*case).flatten().tolist() for case in
             check.ex_3_1.cases(judges.Plan(check.ex_3_1).generator())]
    cell = kl(f"return torch.tensor({{len(k): k for k in {known}}}[x.numel()]).reshape(x.shape)")
    assert first(report_on(notebook(3, {"ex_3_1": cell}), judge)).points == 0
    assert "✓" in verdict("ex_3_1", run(cell), capsys)


# Cells that were changed

def changed(change):
    """A perfect lesson 03, after this was done to it."""
    content = copy.deepcopy(notebook(3, "solved"))
    change(content["cells"])
    return content


def place(cells: list, name: str) -> int:
    return next(k for k, one in enumerate(cells) if one["id"] == name)


def raise_points(cells):
    for one in cells:
        if "points" in one["metadata"].get("nbgrader", {}):
            one["metadata"]["nbgrader"]["points"] = 100


def edit_check(cells):
    cells[place(cells, "check_3_1")]["source"] = "print('✓ Right on every shape.')"


def delete_check(cells):
    del cells[place(cells, "check_3_1")]


def delete_cell(cells):
    del cells[place(cells, "ex_3_1")]


def move(cells):
    old = cells.pop(place(cells, "ex_3_1"))
    cells.append({**old, "id": "new", "metadata": {}})


def double(cells):
    old = cells[place(cells, "ex_3_1")]
    cells.insert(place(cells, "check_3_1"), {**old, "id": "copy", "source": WRONG})


def guess(cells):
    old = cells[place(cells, "ex_3_1")]
    for k in range(3):
        cells.append({**old, "id": f"copy{k}", "source": WRONG})


def nest(cells):
    cells[place(cells, "ex_3_1")]["source"] = f"kl_gradient = {'1 + ' * 9999}1"


def surrogate(cells):
    cells[place(cells, "ex_3_1")]["source"] = kl("raise ValueError('\ud800')")


def break_cell(cells):
    cells[place(cells, "ex_3_1")]["source"] = "def kl_gradient(x:\n"


CHANGES = {raise_points: (15, "100 points"), edit_check: (15, "was edited"),
           delete_check: (15, "is gone"), delete_cell: (13, "No cell defines"),
           move: (15, "another cell"), double: (13, "2 cells"), guess: (13, "4 cells"),
           break_cell: (13, "cannot read the cell"), nest: (13, "cannot read the cell"),
           surrogate: (13, "cannot read the cell")}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_cell_gets_what_the_exercise_deserves_and_a_note(change, judge):
    total, said = CHANGES[change]
    report = report_on(changed(change), judge)
    assert (report.points, report.of) == (total, 15)
    assert said in " ".join([first(report).fault, *first(report).remarks])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("0[1-6]_*.ipynb")), ids=lambda p: p.stem)
def test_without_the_exercises_cells_nothing_in_a_lesson_gives_a_point(path, judge):
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"] = [one for one in content["cells"] if one.get("id") not in TABLE]
    report = report_on(content, judge)
    assert report.points == 0 and report.of == sum(
        one.points for one in exercises(report.submission.lesson).values())


# Answers that were made by hand

def answer_file(folder, values: list, **told):
    """What the process of a hostile submission may have left there in place of answers."""
    plan = check.ex_3_1.plan(1)
    one = {"values": values, "fault": "", "kind": "", "changed": False, **told}
    content = [[one] * len(cases) for cases in plan.rounds.values()]
    wire.write(folder, "answers", content, {"0": torch.full((5,), torch.nan), "1": torch.ones(2)})
    return judges._read(folder, plan)


@pytest.mark.parametrize("values", [[], [{"tensor": "0"}], [{"tensor": "1"}], [{"tensor": "7"}],
                                    ["text"], 5])
def test_answers_that_do_not_fit_are_none(values, tmp_path):
    assert answer_file(tmp_path, values) == {}


def test_a_fault_from_another_process_is_one_line_of_some_length(tmp_path):
    given = answer_file(tmp_path, [], fault="much\n" * 10**5)["given"][0]
    assert given.fault.startswith("much much") and len(given.fault) == wire.LONGEST


# The table, and systems without fork

def test_the_points_are_those_that_the_lessons_state():
    lessons = [sum(of.points for of in exercises(k).values()) for k in range(1, 7)]
    assert lessons == [10, 9, 15, 16, 12, 14]
    for name, source in nbgrader_cells(graded=True).items():
        name = name.replace("check_", "ex_")
        assert source == f"check.{name}({TABLE[name].function})"


def test_without_a_process_to_run_functions_nobody_gets_a_grade(monkeypatch):
    monkeypatch.setattr(judges, "COPIED", judges.COPIED[1:])
    with Judge(seed=1) as one, pytest.raises(RuntimeError, match="did not start.*expect"):
        one.fault("ex_3_1", kl(f"return {RIGHT}"))


def test_where_nothing_forks_each_exercise_has_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(judges, "FORKS", False)
    with Judge(seed=1) as one:
        assert one.fault("ex_3_1", kl(f"return {RIGHT}")) == ""


def test_whoever_gets_past_what_is_refused_finds_no_file_process_or_network(judge):
    tries = {"open(path)": f"open({check.__file__!r})", "listdir": "os.listdir('/etc')",
             "write": "open('/tmp/written', 'w')", "fork": "os.fork()", "kill": "os.kill(1, 0)",
             "socket": "__import__('socket').create_connection(('127.0.0.1', 1))",
             "from_file": f"torch.from_file({check.__file__!r}, False, 9, dtype=torch.uint8)",
             "storage": f"torch.UntypedStorage.from_file({check.__file__!r}, False, 9)",
             "popen": "os.popen('true')", "ctypes": "__import__('ctypes').CDLL(None)"}
    for what, code in tries.items():
        spy = f"import os\ndef kl_gradient(*of):\n    {code}"
        assert "It raised PermissionError" in judge.fault("ex_3_1", spy), what
    real = "import sys\ndel sys.modules['dmdkit']\nsys.path[:0] = [{!r}]\nimport dmdkit.check"
    spy = f"def kl_gradient(*of):\n    exec({real.format(str(judges.KIT.parent))!r})"
    assert "Error" in judge.fault("ex_3_1", spy)


def test_the_process_does_not_know_where_the_kit_lies(judge):
    """An editable install puts the clone on the path: there the solutions are, too."""
    spy = "import sys\ndef kl_gradient(*of):\n    raise ValueError(sys.path)"
    assert str(judges.KIT.parent) + "'" not in judge.fault("ex_3_1", spy)


def test_the_process_holds_no_answer_and_no_secret(judge):
    spy = ("import os, sys\ndef kl_gradient(*of):\n    kit = [name for name in sys.modules if "
           "'dmdkit' in name]\n    raise ValueError(kit, os.environ.get('SECRET_TOKEN'))")
    said = judge.fault("ex_3_1", spy)
    assert os.environ["SECRET_TOKEN"] == "42" and "None)" in said
    assert "dmdkit.check.probes" in said and "lesson" not in said and "harness" not in said
