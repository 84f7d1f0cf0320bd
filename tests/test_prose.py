"""The lessons' prose: its length, and that a cell or a card says every number in it."""
import html
import json
import re
from collections.abc import Iterator

import notebooks
import pytest

WORDS = 2500  # outside the folds; a lesson is read in half an hour
NUMBER = re.compile(r"(?<![\w.,/^_{-])\d[\d,]*(?:\.\d+)?(?![\w^])")
NO_PROSE = re.compile(r"<!--.*?-->|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|<[^>]+>"
                      r"|^#.*?$", re.DOTALL | re.MULTILINE)
FOLD = re.compile(rf"<details>.*?</details>|{notebooks.BADGES}.*?{notebooks.BADGES_END}", re.DOTALL)
YEAR = re.compile(r"(19|20)\d\d")

lessons = pytest.mark.parametrize("path", notebooks.LESSONS, ids=lambda path: path.stem)


def markdown(path) -> list[str]:
    return [cell.source for cell in notebooks.solved(path).cells if cell.cell_type == "markdown"]


def prose(text: str) -> str:
    """Without comments, code, mathematics, addresses and headings."""
    return NO_PROSE.sub(" ", text)


def numbers(text: str) -> Iterator[str]:
    for found in NUMBER.finditer(text):
        yield found.group().rstrip(",").replace(",", "")


def cells_say(path) -> str:
    """Code and outputs of a lesson, the players' words among them, without their pictures."""
    said = []
    for cell in notebooks.solved(path).cells:
        if cell.cell_type == "code":
            said.append(cell.source.replace("_", ""))
            for output in cell.outputs:
                said += [output.get("text", ""), *map(str, output.get("data", {}).values())]
    return re.sub(r"base64,[\w+/=]+", "", html.unescape("\n".join(said)))


def cards_say(text: str) -> set[float]:
    """Every number on the cards of the artefacts that a lesson names."""
    cards = sorted(notebooks.ROOT.glob("data/*/card.json"))
    named = [card for card in cards if card.parent.name in text]
    return {value for card in named for value in values(json.loads(card.read_bytes()))}


def values(thing) -> Iterator[float]:
    if isinstance(thing, (list, dict)):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from values(part)
    elif isinstance(thing, (int, float)):
        yield float(thing)


def rounded(number: str, to: set[float]) -> bool:
    """Whether a value, or as a percentage, is this number with its decimals."""
    decimals = len(number.partition(".")[2])
    return any(round(factor * value, decimals) == float(number)
               for value in to for factor in (1, 100))


@lessons
def test_a_lesson_is_no_longer_than_half_an_hour_of_reading(path):
    words = sum(len(FOLD.sub("", text).split()) for text in markdown(path))
    assert words <= WORDS, f"{words} words outside the folds"


@lessons
def test_every_number_in_prose_is_said_by_a_cell_or_a_card(path):
    """Numbers of one digit and years are not looked for."""
    code = cells_say(path)
    said = {float(number) for number in numbers(code)}
    said |= cards_say("\n".join([code, *markdown(path)]))
    missing = [number for text in markdown(path) for number in numbers(prose(text))
               if len(number) > 1 and not YEAR.fullmatch(number)
               and not rounded(number, said)]
    assert not missing, f"no cell and no card says {', '.join(missing)}"


@pytest.mark.parametrize("text, found", [
    ("from 12,800 pairs, 0.93, and 3", ["12800", "0.93", "3"]), ("x2 and 1e-3 and v1.5", []),
    ("a $12$ b `13` [c](14.md)", []), ("(2.5–3.5)", ["2.5", "3.5"])])
def test_what_a_number_in_prose_is(text, found):
    assert list(numbers(prose(text))) == found


def test_a_number_that_nobody_says_is_found():
    assert rounded("98.6", {0.98612}) and rounded("0.99", {0.98612})
    assert not rounded("98.7", {0.98612})
