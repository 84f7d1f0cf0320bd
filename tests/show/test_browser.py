"""Lessons in a real browser: JupyterLab opens them, cells run, sliders move. Needs Chromium and Playwright."""
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import pytest
import torch

from dmdkit import fields, widgets

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None
if not CHROMIUM or sync_playwright is None:
    reason = "the browser tests were skipped: there is no " + ("Chromium" if sync_playwright else "playwright")
    warnings.warn(reason)  # pytest prints it in its summary
    pytest.skip(reason, allow_module_level=True)

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSON = NOTEBOOKS / "00_start_here.ipynb"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
TOKEN, PATIENCE = "lesson", 240  # s, before a test gives up; what has a bound of its own says so


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def settings(home: Path, theme: str) -> None:
    """JupyterLab's settings of a fresh user: a theme, and no questions about news."""
    folder = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    for name, values in (("notification", quiet), ("themes", {"theme": f"JupyterLab {theme}"})):
        (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(values))


def start_lab(folder: Path, theme: str = "Light", path: Path = LESSON) -> tuple[subprocess.Popen, str]:
    """JupyterLab on a copy of a lesson, with a home of its own; returns the process and the lesson's address."""
    home = folder / "home"
    (folder / "lessons").mkdir()
    shutil.copy(path, folder / "lessons")
    settings(home, theme)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"JUPYTER_CONFIG_DIR": home, "JUPYTER_DATA_DIR": home / "data", "JUPYTER_RUNTIME_DIR": home / "run",
              "JUPYTERLAB_SETTINGS_DIR": home / "lab" / "user-settings", "IPYTHONDIR": home / "ipython",
              "JUPYTERLAB_WORKSPACES_DIR": home / "lab" / "workspaces"}
    environment = os.environ | {name: str(path) for name, path in places.items()} | {"DMDKIT_FAST": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
         f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder / 'lessons'}"],
        env=environment, stdout=open(folder / "lab.log", "wb"), stderr=subprocess.STDOUT)
    await_server(server, port, folder / "lab.log")
    return server, f"http://127.0.0.1:{port}/lab/tree/{path.name}?token={TOKEN}"


def await_server(server: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=5).close()
        except OSError:
            time.sleep(0.2)
    server.kill()
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def lesson(tmp_path, request):
    """The address of lesson 00, or of the one that the test names."""
    server, address = start_lab(tmp_path, path=getattr(request, "param", LESSON))
    yield address
    server.terminate()  # the server ends its kernels
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()


def run_until(page, cell: str) -> None:
    """Shift + Enter from the first cell on, up to the one with this id, as a reader does."""
    cells = [entry["id"] for entry in json.loads(LESSON.read_text())["cells"]]
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=1000 * PATIENCE)  # earlier, JupyterLab asks for a kernel
    page.locator(".jp-Notebook .jp-Cell h1").first.click()
    for _ in range(cells.index(cell) + 1):
        page.keyboard.press("Shift+Enter")


def run_all(page) -> None:
    """Run every cell and wait for the last."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function("() => ![...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
                           ".some(prompt => prompt.textContent.includes('*'))", timeout=1000 * PATIENCE)
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def drag(page, knob: dict, by: int) -> None:
    """Press the mouse on the middle of a box, move it ``by`` pixels to the right, let go."""
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by, y, steps=8)
    page.mouse.up()


def drag_live_slider(page) -> None:
    """Wait for the live slider of a running kernel, drag its knob to the left, and wait for another picture."""
    box = page.locator(".widget-vbox:has(.widget-image)").first
    box.wait_for(timeout=1000 * PATIENCE)
    box.scroll_into_view_if_needed()
    image, knob = box.locator(".widget-image"), box.locator(".noUi-handle").last
    image.evaluate("i => i.decode()")
    before = image.get_attribute("src"), image.screenshot()
    drag(page, knob.bounding_box(), -250)
    page.wait_for_function("([image, src]) => image.src !== src && image.complete",
                           arg=[image.element_handle(), before[0]], timeout=1000 * PATIENCE)
    assert image.screenshot() != before[1]


def picture(player, panels: str = ".panels") -> str:
    return player.locator(f"{panels} canvas").first.evaluate("canvas => canvas.toDataURL()")


def drag_player(page, player) -> None:
    """Drag a player's knob from its right end to its middle, then press an arrow key: another picture each time."""
    slider = player.locator("input[type=range]")
    slider.scroll_into_view_if_needed()
    seen, box = [picture(player)], slider.bounding_box()
    knob = {"x": box["x"] + box["width"] - 16, "y": box["y"], "width": 16, "height": box["height"]}
    drag(page, knob, -round(box["width"] / 2))
    seen.append(picture(player))
    assert seen[1] != seen[0], "dragging did not change the picture"
    slider.press("ArrowLeft")
    seen.append(picture(player))
    assert seen[2] not in seen[:2], "the arrow key did not change the picture"


def test_lesson_00_from_opening_to_the_moving_slider(browser, lesson):
    page, errors = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    begun = time.perf_counter()
    page.goto(lesson)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=1000 * PATIENCE)
    opened = time.perf_counter() - begun
    run_until(page, "live")
    drag_live_slider(page)
    moving = time.perf_counter() - begun
    busy = os.getloadavg()[0] > 2 * os.cpu_count()
    print(f"\nlesson 00: open after {opened:.0f} s, its slider moves after {moving:.0f} s"
          f"{', on a machine busy with other things' * busy}")
    player = page.locator(".dmd-player").first
    drag_player(page, player)
    run_all(page)
    player.locator("input[type=range]").press("Home")
    assert player.locator(".number").text_content() == "1"
    drag_player(page, page.locator(".dmd-player").last)  # teacher and student side by side
    assert not errors
    assert moving < 60 or busy
    page.close()


@pytest.fixture
def executed(browser, lesson):
    """The page of a lesson all of whose cells were run, and whose live slider was dragged."""
    page, errors = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(lesson)
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=1000 * PATIENCE)
    run_all(page)
    drag_live_slider(page)
    yield page
    page.close()
    assert not errors


@pytest.mark.parametrize("lesson", [NOTEBOOKS / "02_scores.ipynb", NOTEBOOKS / "03_dmd_in_2d.ipynb"], indirect=True,
                         ids=["02", "03"])
def test_a_lesson_of_the_plane_runs_and_its_sliders_move(executed):
    page, player = executed, executed.locator(".dmd-player:has(.fields)").first
    slider = player.locator("input[type=range]").last
    slider.press("Home")
    before = picture(player, ".fields")
    drag(page, knob_at(slider, 0.0), 400)
    assert picture(player, ".fields") != before


# both parts of the student's training, the ablations; pairs or none, the ratios, the student's training, several steps
PLAYERS = {"04_dmd_mnist": 3, "06_dmd2": 4}


@pytest.mark.parametrize("lesson, n", [(NOTEBOOKS / f"{name}.ipynb", n) for name, n in PLAYERS.items()],
                         indirect=["lesson"], ids=PLAYERS)
def test_a_lesson_of_students_runs_and_its_sliders_move(executed, n):
    players = executed.locator(".dmd-player").all()
    assert len(players) == n
    for player in players:
        drag_player(executed, player)


@pytest.mark.parametrize("lesson", [NOTEBOOKS / "05_progressive_distillation.ipynb"], indirect=True, ids=["05"])
def test_the_lesson_of_halvings_runs_and_its_sliders_move(executed):
    player = executed.locator(".dmd-player").last
    slider = player.locator("input[type=range]")
    slider.press("Home")
    first = picture(player)
    slider.press("End")
    assert picture(player) != first


# The player without Jupyter and without a kernel.

@pytest.fixture
def page(browser, tmp_path):
    frames = torch.randint(256, (2, 3, 12, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    axes = {"model": ["teacher", "student"], "digit": list("012"), "steps": [str(2**i) for i in range(12)]}
    many = {"kind": [f"number {i}" for i in range(3)], "training step": [str(i) for i in range(24)]}
    players = [widgets.player(frames, axes), widgets.player(frames, axes, panels="model"), widgets.player(frames, axes),
               widgets.player(frames.reshape(3, 24, 8, 8), many, captions=[f"loss {i}" for i in range(24)])]
    (tmp_path / "page.html").write_text("<!doctype html><meta charset=utf-8>" + "<hr>".join(p.html for p in players))
    page, errors = browser.new_page(viewport={"width": 1000, "height": 1600}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.dmd-player[data-ready]').length === 4")
    page.wait_for_timeout(200)  # for the sprites to be decoded
    yield page
    page.close()
    assert not errors


def test_players_move_by_mouse_and_keyboard_and_leave_each_other_alone(page):
    players = [page.locator(".dmd-player").nth(i) for i in range(4)]
    for i, player in enumerate(players):
        others = [picture(other) for other in players if other is not player]
        drag_player(page, player)
        assert others == [picture(other) for other in players if other is not player], i


def test_player_shows_number_caption_and_panels(page):
    last = page.locator(".dmd-player").nth(3)
    assert last.locator(".number").text_content() == "23" and last.locator(".caption").text_content() == "loss 23"
    last.locator("input[type=range]").press("Home")
    assert last.locator(".number").text_content() == "0" and last.locator(".caption").text_content() == "loss 0"
    panels = page.locator(".dmd-player").nth(1).locator(".panels canvas")
    assert panels.count() == 2
    assert [c.get_attribute("aria-label") for c in panels.all()] == [
        f"model {name}, digit 0, steps 2048" for name in ("teacher", "student")]


def test_player_chooses_and_plays(page):
    player = page.locator(".dmd-player").first
    before = picture(player)
    player.get_by_role("radio", name="2", exact=True).check(force=True)
    assert picture(player) != before
    player.locator(".film button").nth(9).click()
    assert player.locator(".number").text_content() == "512"
    player.get_by_role("button", name="play").click()
    page.wait_for_function("() => document.querySelector('.number').textContent === '2048'", timeout=10_000)


# The player of fields.

@pytest.fixture
def field_page(browser, tmp_path):
    g = torch.Generator().manual_seed(0)
    grid, axes = fields.grid(6), {"objective": ["one", "other"], "training": list(range(5)), "t": [50, 300, 800]}
    panels = [fields.Panel("real", grid[None, None, None], torch.randn(1, 1, 3, 36, 2, generator=g)),
              fields.Panel("fake", grid[None, None, None], torch.randn(2, 5, 3, 36, 2, generator=g)),
              fields.Panel("points", points=torch.randn(2, 5, 1, 20, 2, generator=g))]
    one = fields.player(panels, axes, menus=["objective"], caption=lambda **at: " ".join(at.values()))
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{one.html}<hr>{one.html}")
    page, errors = browser.new_page(viewport={"width": 900, "height": 1200}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.dmd-player[data-ready]').length === 2")
    yield page
    page.close()
    assert not errors


def test_each_slider_of_a_field_player_moves_the_panels_that_depend_on_it(field_page):
    player = field_page.locator(".dmd-player").first
    seen = lambda: [c.evaluate("c => c.toDataURL()") for c in player.locator(".fields canvas").all()]
    caption = player.locator(".caption")
    other = field_page.locator(".dmd-player").nth(1).locator(".fields canvas").first
    untouched, start = other.evaluate("c => c.toDataURL()"), seen()
    assert caption.text_content() == "one 4 50"

    def changed(by) -> list[bool]:
        before = seen()
        by()
        return [a != b for a, b in zip(before, seen())]

    training, t = player.locator("input[type=range]").all()
    assert changed(lambda: drag(field_page, knob_at(t, 0.0), 250)) == [True, True, False]  # real and fake depend on t
    training.press("End")
    assert changed(lambda: drag(field_page, knob_at(training, 1.0), -200)) == [False, True, True]
    choose = player.get_by_role("radio", name="other", exact=True)
    assert changed(lambda: choose.check(force=True)) == [False, True, True]
    assert seen() != start and other.evaluate("c => c.toDataURL()") == untouched
    training.press("End"), t.press("Home")
    assert caption.text_content() == "other 4 50"


def knob_at(slider, share: float) -> dict:
    """The box of a range input's knob, 16 pixels wide, at a share of its way."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    return {"x": box["x"] + share * (box["width"] - 16), "y": box["y"], "width": 16, "height": box["height"]}


def test_a_field_player_plays_one_axis_to_its_end_and_shows_the_mouse_in_every_panel(field_page):
    player = field_page.locator(".dmd-player").first
    training = player.locator("input[type=range]").first
    training.press("Home")
    player.get_by_role("button", name="play training").click()
    field_page.wait_for_function("slider => slider.value === '4'", arg=training.element_handle(), timeout=10_000)
    canvases = player.locator(".fields canvas")
    before = [c.evaluate("c => c.toDataURL()") for c in canvases.all()]
    canvases.first.hover(position={"x": 40, "y": 60})
    assert all(c.evaluate("c => c.toDataURL()") != old for c, old in zip(canvases.all(), before))
