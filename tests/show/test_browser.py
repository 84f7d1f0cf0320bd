"""Players in a real browser, alone on a page and in JupyterLab. Needs Chromium and Playwright."""
import io
import json
import os
import re
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
from PIL import Image

from dmdkit import sample, schedule, score
from dmdkit.show import plane
from dmdkit.show.players import fields, frames, page as pages, particles

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None
if not CHROMIUM or sync_playwright is None:
    missing = "Chromium" if sync_playwright else "playwright"
    reason = f"the browser tests were skipped: there is no {missing}"
    warnings.warn(reason)  # pytest prints it in its summary
    pytest.skip(reason, allow_module_level=True)

LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
TOKEN, PATIENCE = "lesson", 240_000  # ms, before a test gives up


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page with this HTML; at the end of the test no script on any must have failed."""
    pages, errors = [], []

    def opened(html: str, width: int = 1000, n: int | None = None):
        path = tmp_path / f"{len(pages)}.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{html}", encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 1200})
        page.on("pageerror", lambda error: errors.append(str(error)))
        pages.append(page)
        page.goto(path.as_uri())
        if n is not None:
            ready = "n => document.querySelectorAll('.dmd-player[data-ready]').length === n"
            page.wait_for_function(ready, arg=n)
        page.wait_for_timeout(100)  # for the sprites to be decoded
        return page

    yield opened
    for page in pages:
        page.close()
    assert not errors


def pictures(player) -> list[str]:
    """What is on a player's large canvases."""
    canvases = player.locator(".panels canvas, .fields canvas").all()
    return [canvas.evaluate("canvas => canvas.toDataURL()") for canvas in canvases]


def knob(slider, share: float) -> tuple[float, float]:
    """The middle of a slider's knob, 16 pixels wide, at a share of its way."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    return box["x"] + 8 + share * (box["width"] - 16), box["y"] + box["height"] / 2


def drag(page, slider, start: float, end: float) -> None:
    page.mouse.move(*knob(slider, start))
    page.mouse.down()
    page.mouse.move(*knob(slider, end), steps=8)
    page.mouse.up()


def changed(player, by) -> list[bool]:
    """Which of a player's pictures change ``by`` a call."""
    before = pictures(player)
    by()
    return [old != new for old, new in zip(before, pictures(player))]


# The player of frames

def stack(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


AXES = {"model": ["teacher", "student"], "digit": list("012"),
        "steps": [str(2**i) for i in range(12)]}
MANY = {"kind": [f"number {i}" for i in range(3)], "training step": list(range(24))}


def caption(**at: str) -> str:
    return f"loss {at['training step']}"


@pytest.fixture
def page(open_page):
    pixels = stack(2, 3, 12, 8, 8)
    players = [frames.player(pixels, AXES), frames.player(pixels, AXES, panels="model"),
               frames.player(pixels, AXES),
               frames.player(pixels.reshape(3, 24, 8, 8), MANY, caption=caption)]
    return open_page("<hr>".join(player.html for player in players), n=4)


def test_players_move_by_mouse_and_keyboard_and_leave_each_other_alone(page):
    players = page.locator(".dmd-player").all()
    for player in players:
        others = [pictures(other) for other in players if other is not player]
        slider = player.locator("input[type=range]")
        assert all(changed(player, lambda: drag(page, slider, 1.0, 0.5)))
        assert all(changed(player, lambda: slider.press("ArrowLeft")))
        assert others == [pictures(other) for other in players if other is not player]


def test_a_player_shows_number_caption_and_panels(page):
    last = page.locator(".dmd-player").nth(3)
    slider = last.locator("input[type=range]")
    assert last.locator(".number").text_content() == "training step 23"
    assert last.locator(".caption").text_content() == "loss 23"
    slider.press("Home")
    assert last.locator(".number").text_content() == "training step 0"
    assert slider.get_attribute("aria-valuetext") == "training step 0"
    assert last.locator(".caption").text_content() == "loss 0"
    panels = page.locator(".dmd-player").nth(1).locator(".panels canvas")
    assert [c.get_attribute("aria-label") for c in panels.all()] == [
        f"model {name}, digit 0, 2,048 steps" for name in ("teacher", "student")]


def test_a_player_chooses_and_plays(page):
    player = page.locator(".dmd-player").first
    choose = player.get_by_role("radio", name="2", exact=True)
    assert all(changed(player, lambda: choose.check(force=True)))
    player.locator(".film button").nth(10).click()
    assert player.locator(".number").text_content() == "1,024 steps"
    player.get_by_role("button", name="play").click()
    assert player.get_by_role("button", name="pause").text_content() == "\u23F8"
    page.wait_for_function("() => document.querySelector('.number').textContent === '2,048 steps'")
    player.get_by_role("button", name="play").wait_for()  # at the end it stops, and says so


def test_a_hand_on_the_slider_stops_what_plays(page):
    player = page.locator(".dmd-player").nth(3)
    slider = player.locator("input[type=range]")
    slider.press("Home")
    player.get_by_role("button", name="play").click()
    page.mouse.move(*knob(slider, 0.9))
    page.mouse.down()
    held = player.locator(".number").text_content()
    page.wait_for_timeout(500)  # four moves of what plays
    assert player.locator(".number").text_content() == held
    page.mouse.up()
    assert player.get_by_role("button", name="play").count() == 1


@pytest.mark.parametrize("move", ["End", "thumbnail"])
def test_a_key_and_a_thumbnail_stop_what_plays(page, move):
    player = page.locator(".dmd-player").nth(3)
    slider = player.locator("input[type=range]")
    slider.press("Home")
    player.get_by_role("button", name="play").click()
    if move == "End":
        slider.press(move)
    else:
        player.locator(".film button").last.click()
    assert player.get_by_role("button", name="play").count() == 1
    last = slider.get_attribute("max")
    page.wait_for_timeout(300)  # two moves of what plays
    assert slider.input_value() == last


def test_a_player_of_images_in_colour(open_page):
    axes = {"model": ["a", "b"], "steps": ["1", "2"]}
    page = open_page(frames.player(stack(2, 2, 16, 16, 3), axes, panels="model").html, n=1)
    player = page.locator(".dmd-player")
    rgb = player.locator(".panels canvas").first.evaluate(
        "c => [...c.getContext('2d').getImageData(3, 5, 1, 1).data]")
    assert rgb == [*stack(2, 2, 16, 16, 3)[0, 1, 5, 3].tolist(), 255]
    assert player.get_by_role("checkbox", name="mark what differs from a: darker lighter").count()


def test_panels_are_compared_with_the_first(open_page):
    pixels = torch.full((3, 2, 8, 8), 255, dtype=torch.uint8)
    pixels[1, :, 2, 3], pixels[0, :, 5, 5] = 0, 0  # the second has ink here, and lacks it there
    axes = {"run": ["a", "b", "c"], "update": [0, 9]}
    player = frames.player(pixels, axes, panels="run", notes={"b": "distance 2.1"})
    page = open_page(player.html, n=1)
    one = page.locator(".dmd-player")
    assert one.locator("figcaption").nth(1).inner_text() == "b\ndistance 2.1"
    mark = one.get_by_role("checkbox", name="mark what differs from a: more ink less ink")
    assert changed(one, mark.check) == [False, True, True]

    def pixel(panel: int, x: int, y: int) -> list[int]:
        return one.locator(".panels canvas").nth(panel).evaluate(
            "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]", [x, y])[:3]

    assert pixel(1, 3, 2) == [213, 94, 0] and pixel(1, 5, 5) == [0, 114, 178]
    assert pixel(2, 3, 2) == [255, 255, 255] and pixel(0, 5, 5) == [0, 0, 0]
    assert changed(one, mark.uncheck) == [False, True, True]


def test_a_player_says_what_it_shows(open_page):
    page = open_page(frames.player(stack(2, 8, 8), {"t": [0, 9]}, title="A title").html, n=1)
    assert page.locator(".title").text_content() == "A title"
    assert page.get_by_role("group", name="A title").count() == 1


@pytest.mark.parametrize("page_of", ["body data-jp-theme-light=false", "html data-theme=dark",
                                     "html theme=dark"])
def test_paper_is_dark_on_a_dark_page_and_photographs_stay(open_page, page_of):
    tag, attribute = page_of.split()
    name, value = attribute.split("=")
    players = [frames.player(torch.full((2, *shape), 255, dtype=torch.uint8), {"t": [0, 9]})
               for shape in ((8, 8), (8, 8, 3))]
    page = open_page("".join(player.html for player in players), n=2)
    page.evaluate(f"document.{'body' if tag == 'body' else 'documentElement'}"
                  f".setAttribute('{name}', '{value}')")
    for canvas, most in zip(page.locator(".panels canvas").all(), (20, 255)):
        shot = Image.open(io.BytesIO(canvas.screenshot()))
        assert shot.convert("L").getpixel((90, 90)) == pytest.approx(most, abs=20)


def test_what_is_folded_is_printed(open_page):
    fold = "<details id=one><summary>?</summary>!</details><details id=two open>!</details>"
    page = open_page(fold + frames.player(stack(2, 8, 8), {"t": [0, 9]}).html, n=1)
    for event, wanted in (("beforeprint", [True, True]), ("afterprint", [False, True])):
        page.evaluate(f"window.dispatchEvent(new Event('{event}'))")
        assert page.evaluate("['one', 'two'].map(id => document.getElementById(id).open)") == wanted


# The page's own keys

HOST = """<script>
window.seen = [];
for (const capture of [true, false]) document.addEventListener("keydown", event => {
  if (event.target.closest("[data-lm-suppress-shortcuts]")) return;  // as JupyterLab's Lumino does
  const name = ["ctrl", "shift"].filter(key => event[key + "Key"]).concat(event.key).join("+");
  window.seen.push(name + (capture ? ", first" : ", last"));
  if (event.ctrlKey) event.preventDefault();  // no dialog of the browser's
}, capture);
</script>"""


def keys_that_pass(page, element, *keys: str) -> list[str]:
    element.focus()
    page.evaluate("window.seen = []")
    for key in keys:
        page.keyboard.press(key)
    seen = page.evaluate("window.seen")
    return [name for name in seen if not name.split(",")[0].endswith(("Shift", "Control"))]


@pytest.mark.parametrize("kind", ["frames", "fields", "particles"])
def test_a_player_keeps_its_own_keys_and_lets_all_others_pass(open_page, kind):
    """Whether the page listens before the player or after it."""
    if kind == "frames":
        axes = {"digit": ["0", "1"], "steps": list(range(12))}
        html = frames.player(stack(2, 12, 8, 8), axes).html
    elif kind == "particles":
        html = particle_player().html
    else:
        html = field_player().html
    page = open_page(HOST + html, n=1)
    player = page.locator(".dmd-player")
    slider, button = player.locator("input[type=range]").last, player.locator(".play").last
    own = ["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"]
    assert keys_that_pass(page, slider, *own) == []
    both = ["shift+Enter, first", "shift+Enter, last", "ctrl+s, first", "ctrl+s, last"]
    assert keys_that_pass(page, slider, "Shift+Enter", "Control+s") == both
    assert keys_that_pass(page, button, "Shift+Enter", "Control+s") == both
    assert keys_that_pass(page, slider, "Escape") == ["Escape, first", "Escape, last"]
    assert keys_that_pass(page, button, "Enter", "Space") == []  # which press the button
    assert keys_that_pass(page, player.locator("input[type=radio]").first, "ArrowRight") == []


def test_a_menu_keeps_its_letters(open_page):
    axes = {"kind": [f"number {i}" for i in range(12)], "steps": ["1", "2"]}
    page = open_page(HOST + frames.player(stack(12, 2, 8, 8), axes).html, n=1)
    menu = page.locator("select")
    assert keys_that_pass(page, menu, "n", "ArrowDown") == []
    assert keys_that_pass(page, menu, "Shift+Enter") == ["shift+Enter, first", "shift+Enter, last"]


# The player of particles

UNEVEN = score.GaussianMixture.round(torch.tensor([[-0.9, 0.7], [0.9, 0.6], [0.0, -1.0]]), 0.18,
                                     torch.tensor([0.6, 0.3, 0.1]))


def particle_player():
    return particles.player({"ring": score.ring(radius=1.4, std=0.1), "uneven": UNEVEN})


def test_the_pages_arithmetic_is_the_kits(open_page):
    """Its denoised mean, density and steps, against score.GaussianMixture and sample."""
    page, S = open_page(f"<script>{pages.read('mixture.js')}</script>"), schedule.cosine()
    g = torch.Generator().manual_seed(0)
    mixture = {"means": UNEVEN.means.tolist(), "std": 0.18, "weights": UNEVEN.weights.tolist()}
    x = torch.randn(6, 2, generator=g, dtype=torch.float64)
    for t, s in ((1023, 511), (700, 200), (300, 299), (90, -1)):
        def ask(call: str, *more):
            asked = page.evaluate("([m, xs, u, v, more]) => xs.map(x => " + call + ")",
                                  [mixture, x.tolist(), (t + 1) / S.T, (s + 1) / S.T, more])
            return torch.tensor(asked, dtype=torch.float64)

        alpha, sigma = S.alpha[t].double(), S.sigma[t].double()
        mu = UNEVEN.denoise(x, alpha, sigma)
        close = {"rtol": 1e-4, "atol": 1e-5}  # the schedule's table is float32
        torch.testing.assert_close(ask("denoised(m, x, u)"), mu, **close)
        eps = (x - alpha * mu) / sigma
        torch.testing.assert_close(ask("stepTo(m, x, u, v, 0, [9, 9])"),
                                   sample.ddim_step(S, mu, eps, s), **close)
        mean, variance = sample.posterior(S, x, mu, t, s)
        torch.testing.assert_close(ask("stepTo(m, x, u, v, 1, [0, 0])"), mean, **close)
        moved = ask("stepTo(m, x, u, v, 1, [1, -1])") - mean
        torch.testing.assert_close(moved, variance.sqrt() * torch.tensor([1.0, -1.0]).expand(6, 2),
                                   rtol=1e-3, atol=1e-4, check_dtype=False)


def test_the_pages_density_and_noise_are_what_they_are_called(open_page):
    page = open_page(f"<script>{pages.read('mixture.js')}</script>")
    mixture = {"means": UNEVEN.means.tolist(), "std": 0.18, "weights": UNEVEN.weights.tolist()}
    found = torch.tensor(page.evaluate("m => [...densityOn(m, 0.3, 9, 1.5)]", mixture))
    S, t = schedule.cosine(1000), 299
    wanted = UNEVEN.log_density(plane.grid(9, 1.5), S.alpha[t], S.sigma[t]).exp()
    torch.testing.assert_close(found / found.sum(), wanted / wanted.sum(), rtol=1e-3, atol=1e-6)
    draws = "seed => { const draw = normals(seed); return Array.from({length: 5000}, draw); }"
    drawn = page.evaluate(draws, 3)
    one = torch.tensor(drawn)
    assert one.mean(0).abs().max() < 0.05 and (one.std(0) - 1).abs().max() < 0.05
    assert abs(torch.corrcoef(one.T)[0, 1]) < 0.05 and one.abs().max() > 3
    assert page.evaluate(draws, 3) == drawn != page.evaluate(draws, 4)


def test_particles_move_by_their_sliders_and_the_start_by_hand(open_page):
    page = open_page(particle_player().html, n=1)
    player, caption = page.locator(".dmd-player"), page.locator(".caption")
    steps, fresh, t = player.locator("input[type=range]").all()
    assert caption.text_content().startswith("6 network evaluations a sample; the orange path")
    assert changed(player, lambda: t.press("ArrowLeft")) == [True, False]
    assert changed(player, lambda: steps.press("ArrowRight")) == [True, True]
    assert caption.text_content().startswith("8 network evaluations")
    assert changed(player, lambda: fresh.press("End")) == [True, True]
    assert changed(player, lambda: player.get_by_label("uneven").check()) == [True, True]
    paths = player.locator(".fields canvas").last
    box, said = paths.bounding_box(), caption.text_content()
    place = box["x"] + 0.3 * box["width"], box["y"] + 0.8 * box["height"]
    assert changed(player, lambda: page.mouse.click(*place)) == [False, True]
    assert paths.get_attribute("aria-label") == "the paths from -1.04, -1.56"
    assert changed(player, lambda: paths.press("ArrowUp")) == [False, True]
    assert paths.get_attribute("aria-label").endswith("-1.51") and caption.text_content() != said


def test_the_first_frame_may_be_older_than_the_click(open_page):
    """A browser tells a frame's start, which on a busy machine lies before the click."""
    page = open_page(particle_player().html, n=1)
    page.evaluate("const honest = window.requestAnimationFrame; let n = 0; "
                  "window.requestAnimationFrame = move => honest(now => move(n++ ? now : now - 500));"
                  "null")
    t = page.locator("input[type=range]").last
    t.press("Home")
    page.get_by_role("button", name="play t", exact=True).click()
    page.wait_for_function("slider => slider.value > 2", arg=t.element_handle())


# Whatever a title holds

@pytest.mark.parametrize("title", ["<!--<script>", "</script>", "<img src=x onerror=fail()>"])
def test_a_title_breaks_neither_its_player_nor_the_rest_of_the_page(open_page, title):
    axes = {"digit": [title, "1"], "steps": ["1", "2"]}
    player = frames.player(stack(2, 2, 8, 8), axes, title=title, caption=lambda **at: title)
    rest = frames.player(stack(2, 8, 8), {"steps": ["1", "2"]}, title="the rest")
    page = open_page(f"{player.html}<p id=end>the end</p>{rest.html}", n=2)
    assert page.locator("#end").text_content() == "the end"
    assert page.locator(".caption").first.text_content() == title
    assert page.locator(".dmd-player").first.get_attribute("aria-label") == title


# The player of fields

def field_player():
    g = torch.Generator().manual_seed(0)
    grid = plane.grid(6)[None, None, None]
    axes = {"objective": ["one", "other"], "training": list(range(5)), "t": [50, 300, 800]}
    panels = [plane.Panel("real", grid, torch.randn(1, 1, 3, 36, 2, generator=g)),
              plane.Panel("fake", grid, torch.randn(2, 5, 3, 36, 2, generator=g),
                          density=torch.rand(2, 1, 1, 8, 8, generator=g)),
              plane.Panel("points", points=torch.randn(2, 5, 1, 20, 2, generator=g))]
    return fields.player(panels, axes, menus=["objective"],
                         caption=lambda **at: " ".join(at.values()))


@pytest.fixture
def field_page(open_page):
    one = field_player().html
    return open_page(f"{one}<hr>{one}", n=2)


def test_each_slider_of_a_field_player_moves_the_panels_that_depend_on_it(field_page):
    player, other = field_page.locator(".dmd-player").all()
    text = player.locator(".caption")
    untouched, start = pictures(other), pictures(player)
    assert text.text_content() == "one 4 50"
    training, t = player.locator("input[type=range]").all()
    # real and fake depend on t
    assert changed(player, lambda: drag(field_page, t, 0.0, 0.8)) == [True, True, False]
    training.press("End")
    assert changed(player, lambda: drag(field_page, training, 1.0, 0.4)) == [False, True, True]
    choose = player.get_by_role("radio", name="other", exact=True)
    assert changed(player, lambda: choose.check(force=True)) == [False, True, True]
    assert pictures(player) != start and pictures(other) == untouched
    training.press("End")
    t.press("Home")
    assert text.text_content() == "other 4 50"


def test_one_axis_plays_at_a_time_and_playing_another_changes_over(field_page):
    player = field_page.locator(".dmd-player").first
    training, t = player.locator("input[type=range]").all()
    training.press("Home")
    player.get_by_role("button", name="play training").click()
    player.get_by_role("button", name="pause training").wait_for()
    player.get_by_role("button", name="play t", exact=True).click()
    player.get_by_role("button", name="pause t", exact=True).wait_for()
    assert player.get_by_role("button", name="play training").count() == 1
    field_page.wait_for_function("slider => slider.value === '2'", arg=t.element_handle())
    assert int(training.input_value()) < 4


def test_what_plays_passes_between_the_places_of_its_slider(field_page):
    player = field_page.locator(".dmd-player").first
    training = player.locator("input[type=range]").first
    stops = []
    for key in ("Home", *["ArrowRight"] * 4):
        training.press(key)
        stops.append(pictures(player)[2])
    training.press("Home")
    player.get_by_role("button", name="play training").click()
    seen = {pictures(player)[2] for _ in range(8)}
    assert seen - set(stops)  # some lie between
    player.get_by_role("button", name="play training").wait_for()
    assert pictures(player)[2] == stops[-1]


def test_the_mouse_is_shown_in_every_panel(field_page):
    player = field_page.locator(".dmd-player").first
    canvas = player.locator(".fields canvas").first
    assert all(changed(player, lambda: canvas.hover(position={"x": 40, "y": 60})))


# On a narrow screen

@pytest.mark.parametrize("width", [350, 1280])
def test_players_fit_the_screen(open_page, width):
    steps = {"steps": list(range(13))}
    three = {"model": ["teacher", "astudentofastudentofastudent", "student"]}
    players = [frames.player(stack(3, 13, 28, 28), three | steps, panels="model"),
               frames.player(stack(2, 13, 57, 144), {"model": ["a", "b"]} | steps, panels="model"),
               frames.player(stack(13, 57, 144), {"update": list(range(13))}), field_player()]
    page = open_page("".join(player.html for player in players), width, n=4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for canvas in page.locator("canvas").all():
        box = canvas.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    named = page.get_by_role("button", name=re.compile(r"\w"))  # also numbers that have no room
    assert named.count() == page.locator("button").count()
    row = page.locator(".dmd-player").first.locator(".panels canvas").all()
    boxes = [canvas.bounding_box() for canvas in row]
    assert len({box["y"] for box in boxes}) == 1  # side by side
    widths = [box["width"] for box in boxes]
    assert max(widths) - min(widths) < 1
    shown = page.locator(".dmd-player").nth(2).locator(".panels canvas").bounding_box()
    assert shown["width"] >= min(width - 40, 5 * 120)  # ten digits, 120 px each where there is room
    assert shown["width"] / shown["height"] == pytest.approx(144 / 57, rel=0.02)


# The players that lessons have stored

@pytest.mark.parametrize("lesson", LESSONS, ids=[path.stem[:2] for path in LESSONS])
def test_every_stored_player_of_a_lesson_moves_without_a_kernel(open_page, lesson):
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    stored = ["".join(output.get("data", {}).get("text/html", ""))
              for cell in cells for output in cell.get("outputs", [])]
    players = [html for html in stored if 'class="dmd-player"' in html]
    if not players:
        pytest.skip(f"{lesson.stem} has stored no player")
    page = open_page("<hr>".join(players), n=len(players))
    for player in page.locator(".dmd-player:has(input[type=range])").all():
        slider = player.locator("input[type=range]").first
        slider.press("Home")
        assert any(changed(player, lambda: slider.press("End")))


# In JupyterLab

PLAYER_CELL = """import torch
from dmdkit.show.players import frames
stack = torch.arange(12 * 64).reshape(12, 8, 8).remainder(256).to(torch.uint8)
frames.player(stack, {"steps": list(range(12))})"""


def notebook(path: Path) -> None:
    cells = [{"cell_type": "code", "id": name, "metadata": {}, "source": source, "outputs": [],
              "execution_count": None} for name, source in
             (("player", PLAYER_CELL), ("last", "2 + 2"))]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4,
                                "nbformat_minor": 5}), encoding="utf-8")


def settings(home: Path) -> None:
    """JupyterLab's settings of a fresh user: no questions about news."""
    folder = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    path = folder / "notification.jupyterlab-settings"
    path.write_text(json.dumps(quiet), encoding="utf-8")


@pytest.fixture
def lab(tmp_path):
    """The address of JupyterLab, with a home of its own, on a notebook with a player, and the
    notebook's path."""
    pytest.importorskip("jupyterlab")
    home, folder = tmp_path / "home", tmp_path / "lessons"
    folder.mkdir()
    notebook(folder / "lesson.ipynb")
    settings(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"JUPYTER_CONFIG_DIR": home, "JUPYTER_DATA_DIR": home / "data",
              "JUPYTER_RUNTIME_DIR": home / "run", "IPYTHONDIR": home / "ipython",
              "JUPYTERLAB_SETTINGS_DIR": home / "lab" / "user-settings",
              "JUPYTERLAB_WORKSPACES_DIR": home / "lab" / "workspaces"}
    with open(tmp_path / "lab.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
             "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}",
             f"--ServerApp.root_dir={folder}"],
            env=os.environ | {name: str(path) for name, path in places.items()}, stdout=log,
            stderr=subprocess.STDOUT)
    await_server(server, port, tmp_path / "lab.log")
    yield (f"http://127.0.0.1:{port}/lab/tree/lesson.ipynb?token={TOKEN}", folder / "lesson.ipynb")
    server.terminate()  # the server ends its kernels
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()


def await_server(server: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end and server.poll() is None:
        try:
            address = f"http://127.0.0.1:{port}/api?token={TOKEN}"
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.2)
    server.kill()
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")


def prompts(page) -> list[str]:
    """The cells' numbers: what ran when."""
    return [text.strip() for text in page.locator(".jp-Cell .jp-InputPrompt").all_text_contents()]


def test_in_jupyterlab_players_move_and_its_keys_stay_alive(browser, lab):
    address, path = lab
    page, errors = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=PATIENCE)
    page.locator(".jp-Cell .jp-InputPrompt").first.click()
    page.keyboard.press("Shift+Enter")
    player = page.locator(".dmd-player[data-ready]").first
    player.wait_for(timeout=PATIENCE)
    slider = player.locator("input[type=range]")
    assert all(changed(player, lambda: drag(page, slider, 1.0, 0.5)))
    assert all(changed(player, lambda: slider.press("ArrowLeft")))
    assert page.locator(".jp-Cell.jp-mod-selected").count() == 1  # the arrow moved no selection
    assert prompts(page)[0] == "[1]:"
    slider.press("Shift+Enter")  # runs the player's cell once more
    page.wait_for_function("() => document.querySelector('.jp-InputPrompt').textContent.trim() "
                           "=== '[2]:'", timeout=PATIENCE)
    before = path.read_text(encoding="utf-8")
    page.locator(".dmd-player input[type=range]").first.press("Control+s")
    end = time.monotonic() + 30
    while path.read_text(encoding="utf-8") == before and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert "dmd-player" in path.read_text(encoding="utf-8")
    page.close()
    assert not errors
