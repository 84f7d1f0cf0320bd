"""The exercises' checks: they accept the lesson's solution, reject the stub, and know the usual mistakes by name. And
every picture of the lessons, at the corners of its values."""
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from matplotlib.figure import Figure

from dmdkit import check, plots, sample, schedule
from dmdkit.check.harness import Exercise

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
EXERCISES = {name: getattr(check, name) for name in check.__all__ if isinstance(getattr(check, name), Exercise)}


def nbgrader_cells(graded: bool) -> dict[str, str]:
    """Source by grade_id, of all lessons: the cells that learners write, or the ones that check them."""
    found = {}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            meta = cell.metadata.get("nbgrader")
            if meta and meta["grade"] == graded:
                assert meta["grade_id"] not in found, f"{path.name} repeats grade_id {meta['grade_id']}"
                found[meta["grade_id"]] = cell.source
    return found


def run(source: str):
    """The function that a cell defines."""
    scope = {"torch": torch}
    exec(source, scope)
    return scope[re.search(r"^def (\w+)", source, re.M).group(1)]


def stub(source: str, body: str) -> str:
    """The cell as a learner finds it: what nbgrader puts in place of the solution."""
    new, n = re.subn(r"( *)### BEGIN SOLUTION.*?### END SOLUTION", rf"\1{body}", source, flags=re.S)
    assert n == 1
    return new


def verdict(name: str, function, capsys) -> str:
    """What a learner reads at the end of a check."""
    EXERCISES[name](function)
    return capsys.readouterr().out.rstrip().splitlines()[-1].strip()


@pytest.fixture(autouse=True)
def lesson(monkeypatch):
    """As in a lesson: not under nbgrader."""
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


def test_every_exercise_of_the_lessons_has_its_check_and_the_reverse():
    solutions, checks = nbgrader_cells(graded=False), nbgrader_cells(graded=True)
    assert set(solutions) == set(EXERCISES)
    for name, source in solutions.items():
        function = re.search(r"^def (\w+)", source, re.M).group(1)
        assert checks[name.replace("ex_", "check_")] == f"check.{name}({function})"


@pytest.mark.parametrize("name", EXERCISES)
def test_a_check_accepts_the_lessons_solution(name, capsys, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")  # so that a rejection raises
    assert verdict(name, run(nbgrader_cells(graded=False)[name]), capsys).startswith("✓")


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("body, said", [("raise NotImplementedError()", "Not written yet"),
                                        ("# YOUR CODE HERE\n    raise NotImplementedError()", "Not written yet"),
                                        ("pass", "returned None")])
def test_a_check_rejects_the_untouched_stub_and_raises_only_under_nbgrader(name, body, said, capsys, monkeypatch):
    function = run(stub(nbgrader_cells(graded=False)[name], body))
    assert said in verdict(name, function, capsys)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(check.CheckFailed, match=said):
        EXERCISES[name](function)


WRONG = {  # what learners write, and a word of the answer that they must get
    "ex_1_1": {
        "sigma[t].reshape(-1, 1, 1, 1) * x + alpha[t].reshape(-1, 1, 1, 1) * eps": "swapped",
        "alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1).pow(2) * eps": "variance",
        "alpha[t].view(-1, 1, 1, 1) * x + eps": "unscaled",
        "x + sigma[t].view(-1, 1, 1, 1) * eps": "never leaves",
        "alpha[t][:, None, None, None] * x - sigma[t][:, None, None, None] * eps": "sign",
        "alpha[t] * x + sigma[t] * eps": "last axis",
        "alpha[t[0]] * x + sigma[t[0]] * eps": "the first one",
        "alpha[t - 1].view(-1, 1, 1, 1) * x + sigma[t - 1].view(-1, 1, 1, 1) * eps": "off by one",
        "alpha[t].view(-1, 1, 1, 1) ** 0.5 * x + (1 - alpha[t].view(-1, 1, 1, 1)) ** 0.5 * eps": "term by term",
        "alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * torch.randn_like(x)": "random",
        "x.mul_(alpha[t].view(-1, 1, 1, 1)).add_(sigma[t].view(-1, 1, 1, 1) * eps)": "in place",
        "alpha * x + sigma * eps": "reshape",
        "(alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * eps)[0]": "should have shape",
        "float(x.mean())": "return a tensor",
        "x / 0": "division by zero",
        "undefined": "NameError",
    },
    "ex_1_2": {
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x0 + alpha[s] * (1 - (alpha[t] / alpha[s] * sigma[s] / "
        "sigma[t])**2) * x_t": "swapped",
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x_t + (1 - (alpha[t] / alpha[s] * sigma[s] / sigma[t])**2)"
        " * x0": "α_s is missing",
        "sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * (1 - (alpha[t] / alpha[s] * sigma[s] / sigma[t])**2) * x0":
            "missing from the weight of x_t",
        "alpha[t] / alpha[s] * sigma[s]**2 / sigma[t]**2 * x_t + alpha[s] * (sigma[t]**2 - sigma[s]**2) / sigma[t]**2"
        " * x0": "r² is missing",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]": "DDIM",
        "alpha[s] * x0": "alone",
        "solved(x_t, x0, t, t - 1, alpha, sigma)": "in place of s",
        "solved(x_t, x0, s, t, alpha, sigma)": "exchanged",
        "solved(x_t, x0, t, s, alpha, sigma) + torch.randn_like(x0)": "random",
    },
    "ex_1_3": {
        "alpha[s] * x0 + sigma[s] * torch.randn_like(x0)": "fresh noise",
        "alpha[t] * x0 + sigma[s] * (x_t - alpha[t] * x0) / sigma[t]": "used α_t",
        "alpha[s] * x0 + sigma[t] * (x_t - alpha[t] * x0) / sigma[t]": "used σ_t",
        "alpha[s] * x0": "noise is missing",
        "alpha[s] * x0 + sigma[s] * x_t": "x_t itself",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[t] * x0)": "not divided",
        "alpha[s] * x0 + sigma[s] * (x_t - x0) / sigma[t]": "α_t is missing",
        "x_t": "x_t again",
        "solved(x_t, x0, t, t - 1, alpha, sigma)": "in place of s",
        "alpha[s] * x0 + sigma[s] * (x_t - alpha[s] * x0) / sigma[s]": "where it was",
        "sample.posterior(schedule.Schedule('', alpha, sigma), x_t, x0, t, s)[0]": "posterior's mean",
    },
    "ex_1_4": {
        "(1 + w) * without - w * with_label": "swapped",
        "w * with_label + (1 - w) * without": "other convention",
        "without + w * (with_label - without)": "other convention",
        "(1 - w) * with_label + w * without": "sign is flipped",
        "(1 + w) * with_label + w * without": "plus",
        "w * with_label - w * without": "1 is missing",
        "(1 + w) * with_label - without": "w is missing",
        "(1 + w) * with_label": "unlabelled prediction is missing",
        "with_label": "not used",
        "with_label.add_(w * (with_label - without))": "in place",
    },
}


@pytest.mark.parametrize("name, answer, said", [(n, a, s) for n, answers in WRONG.items() for a, s in answers.items()])
def test_a_check_names_what_learners_get_wrong(name, answer, said, capsys):
    source = nbgrader_cells(graded=False)[name]
    scope = {"torch": torch, "sample": sample, "schedule": schedule, "solved": run(source)}
    exec(stub(source, f"return {answer}"), scope)
    text = verdict(name, scope[run(source).__name__], capsys)
    assert text.startswith("✗") and said in text


@pytest.mark.parametrize("name", EXERCISES)
def test_every_usual_mistake_gets_its_own_message(name, capsys):
    said = [verdict(name, wrong, capsys) for wrong in EXERCISES[name].mistakes.values()]
    assert said == [f"✗ {message}" for message in EXERCISES[name].mistakes]
    assert len(set(said)) == len(said) >= 3
    assert set(WRONG[name]) and len({*WRONG[name].values()}) >= 3


def test_a_check_says_so_when_it_is_not_given_a_function(capsys):
    assert "check.ex_1_4(name)" in verdict("ex_1_4", torch.zeros(3), capsys)


# The oracles, against diffusers and closed forms.

def tables(s: schedule.Schedule):
    return s.alpha.float(), s.sigma.float()


def test_the_oracle_of_1_1_is_diffusers_add_noise():
    s = schedule.linear()
    x, eps, t = torch.randn(6, 1, 4, 4), torch.randn(6, 1, 4, 4), torch.randint(400, (6,))
    theirs = DDPMScheduler(400, trained_betas=s.betas().tolist()).add_noise(x, eps, t)
    torch.testing.assert_close(check.ex_1_1.oracle(x, t, eps, *tables(s)), theirs, atol=1e-5, rtol=1e-5)


def test_the_oracle_of_1_3_is_diffusers_ddim():
    s = schedule.linear()
    scheduler = DDIMScheduler(400, trained_betas=s.betas().tolist(), prediction_type="sample", clip_sample=False,
                              timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    x_t, x0 = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    theirs = scheduler.step(x0, 399, x_t).prev_sample
    torch.testing.assert_close(check.ex_1_3.oracle(x_t, x0, 399, 379, *tables(s)), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t, s", [(1023, 700), (700, 400), (400, 399), (50, 0)])
def test_the_oracle_of_1_2_is_the_mean_of_bayes_rule_on_a_grid(t, s):
    alpha, sigma = schedule.cosine().alpha.numpy(), schedule.cosine().sigma.numpy()
    x, x_t = 0.7, -0.4
    grid = alpha[s] * x + sigma[s] * np.linspace(-9, 9, 200_001)
    r = alpha[t] / alpha[s]
    log_density = -(grid - alpha[s] * x)**2 / (2 * sigma[s]**2) - (x_t - r * grid)**2 / (
        2 * (sigma[t]**2 - r**2 * sigma[s]**2))
    weight = np.exp(log_density - log_density.max())
    want = (weight * grid).sum() / weight.sum()
    one = lambda value: torch.full((1, 1, 1, 1), value, dtype=torch.float64)
    got = check.ex_1_2.oracle(one(x_t), one(x), t, s, schedule.cosine().alpha, schedule.cosine().sigma)
    assert got.item() == pytest.approx(want, abs=1e-6)


def test_the_oracle_of_1_4_is_the_line_through_both_predictions():
    c, u = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    guide = check.ex_1_4.oracle
    assert torch.equal(guide(c, u, 0.0), c) and torch.equal(guide(c, c, 2.0), c)
    torch.testing.assert_close(guide(c, u, -1.0), u)
    torch.testing.assert_close(guide(c, u, 1.0) - c, c - u)


# Pictures.

COSINE, LINEAR, SHORT = schedule.cosine(), schedule.linear(), schedule.linear(T=2)
X, EPS = torch.rand(12, 1, 28, 28) * 2 - 1, torch.randn(12, 1, 28, 28)
STATE = sample.State(1, 1023, X, X)
SCORE = {"images": 40, "accuracy": 0.9, "precision": 0.8, "recall": 0.7, "frechet_distance": 1.0}
CORNERS = {
    "digits": [(X,), (X[:1], 1, "title", ["row"], ["head"]), (X, 5), (X * 3, 12)],
    "curve": [([],), ([1.0],), ([0.0, -1.0],), (list(range(1, 100)), "title", "loss", 10, 200)],
    "draw_noised": [(s, X[:n], EPS[:n], t) for s in (COSINE, LINEAR, SHORT) for n in (1, 12) for t in (0, s.T - 1)],
    "draw_forward": [([COSINE], X[0], EPS[0]), ([COSINE, LINEAR, SHORT], X[0], EPS[0], 1),
                     ([LINEAR], X[0], EPS[0], 40)],
    "draw_schedules": [([COSINE],), ([COSINE, LINEAR, SHORT, LINEAR],)],
    "draw_last_step": [([COSINE], X, EPS), ([COSINE, LINEAR], X[:1], EPS[:1])],
    "draw_targets": [(s, X[0], EPS[0], n) for s in (COSINE, SHORT) for n in (1, 7)],
    "draw_training": [([], {}, 5), ([1.0] * 5, {1: X, 5: X}, 5), ([0.5] * 60, {k: X[:1] for k in range(1, 9)}, 60)],
    "draw_posterior": [(COSINE, 1023, 400), (COSINE, 1, 0), (COSINE, 1023, 1022, 1.0, 3.0), (LINEAR, 399, 0)],
    "draw_path": [([STATE],), ([STATE] * 50, 9, 11, "title"), ([STATE] * 2, 9)],
    "draw_tradeoff": [([0.0], [SCORE], SCORE), ([0.0, 1.0, 3.0], [SCORE] * 3, SCORE, ["recall"])],
}


def test_every_picture_has_its_corners_here():
    drawn = {name for name, f in vars(plots).items() if name.startswith("draw_") and callable(f)}
    assert drawn == {name for name in CORNERS if name.startswith("draw_")}


@pytest.mark.parametrize("name, values", [(name, v) for name, all_values in CORNERS.items() for v in all_values])
@pytest.mark.filterwarnings("error")
def test_a_picture_renders_at_its_corners_and_changes_nothing(name, values):
    x, eps = X.clone(), EPS.clone()
    figure = getattr(plots, name)(*values)
    assert isinstance(figure, Figure) and rendered(figure)
    assert torch.equal(X, x) and torch.equal(EPS, eps)


def rendered(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=50)
    return buffer.getvalue()


@pytest.mark.parametrize("name", CORNERS)
def test_the_same_values_give_the_same_picture(name):
    first, second = (rendered(getattr(plots, name)(*CORNERS[name][-1])) for _ in range(2))
    assert first == second
