"""The tables of README and RESULTS: written from cards, current, and nothing but what is between
the marks."""
import pytest
from conftest import refused
from toys import TEACHER, dot_network

from dmdkit import store
from dmdkit.experiments import build, evaluate, tables
from dmdkit.experiments.results import REAL

PAGE = f"# Mine\n\nWhat I wrote.\n\n{tables.START}\n| old |\n{tables.END}\n\nAnd after it.\n"


def entry(value: float, seed: int, noise: str, images: int = 5000, **sampling) -> dict:
    return {"sampling": sampling, "noise": noise, "seed": seed, "images": images,
            "values": {"classifier": {"frechet_distance": value, "coverage": 0.8},
                       "judge": {"frechet_distance": value / 2, "accuracy": 0.987}}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with both pages, and beside it artefacts of which one is in README's table."""
    for name in ("README.md", "RESULTS.md"):
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(tables, "LINES", (("real ones", "one", REAL, 0, 0.0),
                                          ("one, 4 steps", "one", "ddim", 4, 0.0),
                                          ("nobody", "nobody", "ddim", 4, 0.0)))
    store.save(dot_network(), tmp_path / "data" / "one",
               {"name": "one", "what": "A network of dots.", "recipe": TEACHER.settings})
    return tmp_path


def measured(home, *entries: dict) -> None:
    for one in entries:
        evaluate.save("one", one, home / "data")


HOW = {"sampler": "ddim", "n_steps": 4, "guidance": 0.0}


def test_the_pages_that_ship_are_what_the_cards_say():
    assert tables.stale(build.HOME) == []


def test_a_stale_table_is_noticed_and_rewritten_between_the_marks_alone(home):
    measured(home, entry(3.0, 0, "report", **HOW), entry(1.0, 0, "report", sampler=REAL))
    assert tables.stale(home, home / "data") == ["README.md", "RESULTS.md"]
    tables.write(home, home / "data")
    assert tables.stale(home, home / "data") == []
    for name in ("README.md", "RESULTS.md"):
        text = (home / name).read_text(encoding="utf-8")
        assert text.startswith(PAGE[:PAGE.index("| old |")])
        assert text.endswith(PAGE[PAGE.index("\n" + tables.END):]) and "| old |" not in text
    before = (home / "README.md").read_bytes()
    measured(home, entry(9.0, 0, "report", **HOW))
    assert tables.stale(home, home / "data") == ["README.md", "RESULTS.md"]
    assert (home / "README.md").read_bytes() == before  # looking changes nothing
    evaluate.save("one", entry(9.0, 7, "selection", **HOW), home / "data")
    tables.write(home, home / "data")
    (home / "README.md").write_text(PAGE.replace("What I wrote", "What I write"), encoding="utf-8")
    assert tables.stale(home, home / "data") == ["README.md"]


def lines(table: str) -> list[str]:
    return table.splitlines()[2:]


def test_readme_states_report_noise_mean_and_range(home):
    """Older figures are stated while there are none of report noise, those of selection never."""
    measured(home, entry(3.0, 0, "pairs", **HOW), entry(8.0, 1, "selection", **HOW),
             entry(7.0, 0, "selection", **HOW), entry(1.0, 0, "report", 1000, **HOW))
    assert lines(tables.short(home / "data")) == [
        "| real ones |  |  |  |  |", "| one, 4 steps | 3.00 | 1.50 | 98.7% | 0.800 |",
        "| nobody |  |  |  |  |"]
    measured(home, *(entry(4.0 + seed, seed, "report", **HOW) for seed in (0, 1, 2)))
    assert lines(tables.short(home / "data"))[1] == (
        "| one, 4 steps | 5.00 (4.00–6.00) | 2.50 (2.00–3.00) | 98.7% (98.7%–98.7%) | "
        "0.800 (0.800–0.800) |")


def test_results_have_a_line_for_everything_that_was_measured(home):
    measured(home, entry(3.0, 0, "pairs", **HOW), entry(4.0, 0, "report", **HOW),
             entry(6.0, 1, "report", **HOW), entry(5.0, 0, "report", **HOW, more="clamped"),
             entry(1.0, 0, "report", sampler=REAL))
    found = tables.long(home / "data")
    paper, one = found.split("### one\n\n")
    assert paper.startswith("### Clean paper\n\n| artefact | drawn by | samples | noise | seeds")
    assert one.startswith("A network of dots.\n\n| drawn by | samples | noise | seeds")
    assert lines(one.split("\n\n", 1)[1]) == [
        "| ddim, 4, guidance 0 | 5,000 | pairs | 0 | 3.00 | 1.50 | 98.7% | 0.800 |",
        "| ddim, 4, guidance 0 | 5,000 | report | 0, 1 | 5.00 (4.00–6.00) | 2.50 (2.00–3.00) | "
        "98.7% (98.7%–98.7%) | 0.800 (0.800–0.800) |",
        "| ddim, 4, guidance 0, clamped | 5,000 | report | 0 | 5.00 | 2.50 | 98.7% | 0.800 |",
        "| real data | 5,000 | report | 0 | 1.00 | 0.50 | 98.7% | 0.800 |"]


def test_what_lies_on_the_paper_has_a_table_of_its_own(home):
    dirty = {**entry(3.0, 1, "report", **HOW), "values": {"paper": {"ink": 0.012, "lattice": 0.1}}}
    measured(home, dirty, entry(3.0, 0, "report", **HOW))
    assert lines(tables.clean_paper(home / "data")) == [
        "| `one` | ddim, 4, guidance 0 | 5,000 | report | 1 | 0.0120 | 10% |"]


@pytest.mark.parametrize("text", ["no marks", tables.START, PAGE + tables.START,
                                  f"{tables.END}\n{tables.START}", PAGE + PAGE])
def test_a_page_without_its_marks_is_named_and_left_as_it_is(home, text):
    (home / "RESULTS.md").write_text(text, encoding="utf-8")
    with refused(RuntimeError, "RESULTS.md must have <!-- results --> and <!-- /results --> once"):
        tables.write(home, home / "data")
    assert (home / "RESULTS.md").read_text(encoding="utf-8") == text
    assert (home / "README.md").read_text(encoding="utf-8") == PAGE
