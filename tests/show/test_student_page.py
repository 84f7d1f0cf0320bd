"""The student in the page, in a real browser. Needs Chromium, Playwright, and npm for what runs
it."""
import functools
import http.server
import re
import shutil
import threading
import time

import pytest
import torch
from test_browser import browser  # which skips all of this where there is none

from dmdkit import store
from dmdkit.experiments import page_student
from dmdkit.show.players import page as pages, student

CONFIG = '<script id="jupyter-config-data" type="application/json">{"baseUrl": "/"}</script>'
PLACES = {"a folder": ("", "lesson.html", "beside", "beside"),
          "a site": ('<html data-content_root="../">', "lessons/lesson.html", "_static/page", ""),
          "JupyterLab": (CONFIG, "lab/tree/notebooks/lesson.ipynb", "files/build/page", ""),
          "a clone below": (CONFIG, "lab/tree/my/kit/notebooks/lesson.ipynb",
                            "files/my/kit/build/page", "")}
STAND_IN = """export const env = {wasm: {}};
export class Tensor {}
const run = async () => ({x: {data: new Float32Array(3920).fill(-0.5)}});
export const InferenceSession = {create: async () => ({run})};"""
COUNTED = """() => {
  const context = CanvasRenderingContext2D.prototype, put = context.putImageData;
  window.digits = 0;
  context.putImageData = function(...given) {
    window.digits += this.canvas.ariaLabel === "the student's ten digits";
    return put.apply(this, given);
  };
}"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What ``python -m dmdkit build page`` makes."""
    folder = tmp_path_factory.mktemp("built") / "page"
    pytest.importorskip("onnx", reason="there is no onnx")
    try:
        page_student.build(folder=folder)
    except RuntimeError as error:
        pytest.skip(f"the student did not run in a page: {error}")
    return folder


@pytest.fixture
def stand_in(served):
    """Puts files where a place has the student's: what they draw is grey."""
    def put(place: str) -> None:
        folder = served.root / PLACES[place][2]
        folder.mkdir(parents=True)
        (folder / page_student.MODEL).write_bytes(b"a graph")
        (folder / page_student.SCRIPT).write_text(STAND_IN, encoding="utf-8")

    return put


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".ipynb": "text/html",
                      ".mjs": "text/javascript"}

    def log_message(self, *given):
        self.server.asked.append(self.path)

    def end_headers(self):
        """Like Jupyter's server: a worker whose script is one of its files is a stranger to it."""
        if self.path.startswith("/files/"):
            self.send_header("Content-Security-Policy", "sandbox allow-scripts")
        self.send_header("Set-Cookie", "who=reader")
        super().end_headers()

    def send_head(self):
        if self.path.startswith("/files/") and not self.headers["Cookie"]:
            return self.send_error(403)
        return super().send_head()


@pytest.fixture
def served(browser, tmp_path):
    """Opens a page with the player from a server of its own; no script on it may fail. ``asked`` is
    what has been asked of that server."""
    handler = functools.partial(Handler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked, errors, opened = [], [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(place: str, width: int = 1000):
        head, name, _, folder = PLACES[place]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        html = player(folder).html
        path.write_text(f"<!doctype html>{head}<meta charset=utf-8>{html}", encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900})
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.server_port}/{name}")
        return page

    serve.asked, serve.root = server.asked, tmp_path
    yield serve
    for page in opened:
        page.close()
    server.shutdown()
    server.server_close()
    assert not errors


@functools.cache
def player(folder: str = "") -> pages.Bundle:
    return student.player("The student follows your hand", folder)


def wake(page) -> None:
    page.get_by_role("button", name="Wake the student").click()
    page.get_by_text("frames a second").wait_for(timeout=60_000)


def digits(page) -> list[list[int]]:
    """The pixels of each of the ten."""
    return page.get_by_label("the student's ten digits").evaluate("""canvas => {
      const context = canvas.getContext("2d"), corners = [...Array(10).keys()];
      return corners.map(i => [...context.getImageData(i % 5 * 30, (i > 4) * 30, 28, 28).data]);
    }""")


def changed(page, by) -> list[bool]:
    """Which of the ten digits are others after ``by`` has been called and all has been drawn."""
    before = digits(page)
    page.evaluate(COUNTED)
    by()
    page.wait_for_function("() => window.digits >= 10")
    return [old != new for old, new in zip(before, digits(page))]


@pytest.mark.parametrize("place", PLACES)
def test_the_student_wakes_wherever_its_files_are_and_not_before_it_is_asked(served, stand_in,
                                                                             place):
    stand_in(place)
    page = served(place)
    page.wait_for_timeout(200)
    assert page.locator("img").is_visible()
    assert not any(PLACES[place][2] in line for line in served.asked)
    wake(page)
    assert any(f"{PLACES[place][2]}/{page_student.SCRIPT}" in line for line in served.asked)
    assert page.locator("img").count() == 0
    assert digits(page)[9][:4] == [191, 191, 191, 255]


def test_without_its_files_the_still_stays_and_says_how_to_make_them(served):
    page = served("a site")
    page.get_by_role("button", name="Wake the student").click()
    page.get_by_text("Run python -m dmdkit build page").wait_for()
    assert page.locator("img").get_attribute("alt") == "The student follows your hand"
    assert page.locator("img").evaluate("image => image.naturalWidth") > 700


def test_all_ten_digits_follow_the_hand_and_the_keys(served, built):
    shutil.copytree(built, served.root / "files" / "build" / "page")
    page = served("JupyterLab")
    page.locator("img").click()  # as good as the button
    page.get_by_text("frames a second").wait_for(timeout=60_000)
    plane = page.get_by_label("of the plane")
    box = plane.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    assert all(changed(page, lambda: page.keyboard.press("ArrowLeft")))  # it has the focus
    assert plane.get_attribute("aria-label") == "the point -0.05, 0.00 of the plane"
    assert all(changed(page, lambda: page.mouse.click(middle[0] + 60, middle[1] - 60)))
    page.mouse.down()
    page.evaluate(COUNTED)
    begun = time.monotonic()
    while time.monotonic() < begun + 2:
        page.mouse.move(middle[0] + 60 - 50 * (time.monotonic() - begun), middle[1])
    page.mouse.up()
    assert page.evaluate("window.digits") / 10 / 2 >= 2  # frames a second, on a busy machine
    told = page.get_by_text("frames a second").text_content()
    assert re.fullmatch(r"Ten digits in \d+ ms, ten network evaluations: [\d.]+ frames a second",
                        told)


def test_what_the_page_draws_is_what_the_kit_draws(served, built):
    """The noise at a point, and the student's ten digits of it."""
    shutil.copytree(built, served.root / "beside")
    page = served("a folder")
    spec = page.content().split("const spec = ")[1].split(";\n")[0]
    page.add_script_tag(content=f'const key = "none", spec = {spec};\n{pages.read("student.js")}')
    z, one = student.noises(), store.load(page_student.STUDENT)
    for a, b in ((0, 0), (0.4, -0.7), (-1.1, 1.05)):
        found = page.evaluate("""async point => {
          window.draw ??= await wake();
          const noise = noiseAt(point);
          return [[...noise], [...await window.draw(noise)]];
        }""", [a, b])
        noise = student.noise_at(z, a, b)
        torch.testing.assert_close(torch.tensor(found[0]), noise.flatten(), rtol=0, atol=1e-5)
        wanted = one.generate(noise.expand(10, -1, -1, -1), torch.arange(10)).flatten()
        torch.testing.assert_close(torch.tensor(found[1]), wanted, rtol=0, atol=1e-3)


def test_a_point_is_noise_of_variance_one():
    z = torch.randn(3, 1, 400, 400)
    for a, b in ((0, 0), (0.3, 0.2), (-1, 1), (0, -1.1)):
        assert student.noise_at(z, a, b).var().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(student.noise_at(z, 0, 0), z[0])
    torch.testing.assert_close(student.noise_at(z, 0, -1), -z[2], atol=1e-5, rtol=0)
    assert (student.noises() * student.UNITS % 1 == 0).all() and student.noises().abs().max() < 8


@pytest.mark.parametrize("width", [350, 1280])
def test_it_fits_the_screen_asleep_and_awake(served, stand_in, width):
    stand_in("a folder")
    page = served("a folder", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wake(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.get_by_label("the student's ten digits").bounding_box()
    assert shown["width"] >= min(width - 40, 5 * 84)
