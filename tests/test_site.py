"""The site: what its pages are laid out from, and, where Sphinx is there, the pages themselves."""
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_site
import nbformat
import notebooks
import pytest


def test_a_lesson_is_laid_out_without_setup_and_with_its_answers_folded():
    for path in notebooks.LESSONS:
        page = build_site.lesson(path)
        tags = [cell.metadata.get("tags", []) for cell in page.cells]
        assert not any("setup" in one for one in tags)
        assert notebooks.BADGES not in page.cells[0].source
        solved = [cell for cell in page.cells if "### BEGIN SOLUTION" in cell.source]
        assert all("hide-input" in cell.metadata.tags for cell in solved)
        assert bool(solved) == (path.stem != "00_start_here")
        assert sum("hide-output" in one for one in tags) >= 6


def test_the_landing_page_opens_with_the_first_lessons_player():
    html = build_site.hero(notebooks.LESSONS[0])
    assert "drag the teacher" in html and 'class="dmd-player"' in html
    assert sum(html in "".join(output.get("data", {}).get("text/html", ""))
               for cell in nbformat.read(notebooks.LESSONS[0], 4).cells
               for output in cell.get("outputs", [])) == 1


def test_a_folder_that_is_no_site_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match="holds files that are no site"):
        build_site.make_room(tmp_path)
    assert (tmp_path / "mine.txt").exists()


# The pages

class Addresses(HTMLParser):
    """What a page loads and links to, and its anchors."""

    def __init__(self):
        super().__init__()
        self.loaded, self.linked, self.anchors = [], [], set()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id")}
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload"):
            self.loaded.append(found["href"])
        if tag == "a" and found.get("href"):
            self.linked.append(found["href"])


def read(path: Path) -> Addresses:
    parser = Addresses()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for needed in ("sphinx", "myst_nb", "sphinx_book_theme"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("site") / "pages"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_site, "bring_mathjax", lambda to: to.mkdir(parents=True))
        build_site.build(folder)
    assert list(folder.parent.iterdir()) == [folder]  # nothing beside it
    return folder


def test_every_lesson_is_there_with_its_players(site):
    for path in notebooks.LESSONS:
        text = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        stored = path.read_text(encoding="utf-8")
        assert text.count('class=\\"dmd-player\\"') + text.count('class="dmd-player"') == \
            len(re.findall(r'class=\\"dmd-player\\"', stored))


def test_nothing_is_fetched_from_elsewhere_and_every_link_leads_somewhere(site):
    pages = {path.resolve(): read(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for address in page.loaded:
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"
        for address in page.linked:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), f"{path.name} links to {address}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, (path.name, address)
