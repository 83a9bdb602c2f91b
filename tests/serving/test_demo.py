"""The demo page in a browser, with a server of a small captioner."""

import importlib.util
import io
import re
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from serving.flags import parse_flags
from serving.server import ModelServer
from tests.serving.saved_models import write_captioner

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
SIDE = 40

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is missing")
    for module in ("gradio", "playwright")
]
needs_browser = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)}")

# Simulates dragging a file onto the page.
DROP = """
([target, bytes, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const options = {dataTransfer: data, bubbles: true, cancelable: true};
    target.dispatchEvent(new DragEvent(kind, options));
  }
}
"""


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        return listener.getsockname()[1]


def demo(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "serving.demo", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Server:
    """A server that can be stopped and started again."""

    def __init__(self, folder):
        write_captioner(folder, 1)
        self.port = free_port()
        flags = ["--model_name=captioner", f"--model_base_path={folder}", f"--port={self.port}"]
        self._options = parse_flags(flags)
        self.start()

    def start(self) -> None:
        self._server = ModelServer(self._options)

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("models") / "captioner")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def address(server):
    process = demo("--server", f"localhost:{server.port}", "--port", free_port())
    line = process.stdout.readline()
    yield line.split()[-1]
    process.terminate()
    _, errors = process.communicate()
    assert line, errors
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()


class Visit:
    """An open page, and the URLs that it has requested."""

    def __init__(self, browser, address: str):
        self.page = browser.new_page()
        self.page.set_default_timeout(10_000)
        self.requested: list[str] = []
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(address)
        self.words = self.page.locator(".words .word")
        self.error = self.page.get_by_role("alert")
        self.beam, self.samples = (self.page.locator(".captions").nth(place) for place in (0, 1))

    def drop(self, content: bytes, name: str) -> None:
        target = self.page.get_by_label("drop files")
        self.page.evaluate(DROP, [target.element_handle(), list(content), name])

    def drop_image(self) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), "red").save(buffer, format="PNG")
        self.drop(buffer.getvalue(), "Ann's image #1.png")
        self.samples.get_by_text("drawn").first.wait_for()

    def rows(self, place) -> list[str]:
        return place.locator("li").all_inner_texts()

    def brightness(self) -> np.ndarray:
        """Brightness of the image in a grid, [2, 2]."""
        png = self.page.locator(".captioned-image > img").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB").resize((2, 2)))[..., 0]


@pytest.fixture
def visit(browser, address):
    visit = Visit(browser, address)
    yield visit
    visit.page.close()


@needs_browser
def test_a_dropped_image_is_captioned(visit, address):
    visit.drop_image()
    assert visit.words.all_inner_texts() == ["a", "red", "star"]
    assert visit.page.locator(".words .score").inner_text() == "-0.25"
    assert visit.rows(visit.beam) == ["a star\n-0.50", "one star\n-0.75"]
    assert visit.rows(visit.samples) == [f"drawn 10 0 {n}\n-{n}.00" for n in (1, 2, 3)]
    # Everything comes from this machine, fonts too.
    assert [url for url in visit.requested if not url.startswith((address, "data:", "blob:"))] == []


@needs_browser
def test_words_highlight_the_regions_they_attend_to(visit):
    visit.drop_image()
    assert visit.brightness().min() > 240
    for place in (0, 2):
        visit.words.nth(place).click()
        visit.page.mouse.move(0, 0)
        assert visit.brightness().argmax() == place
        assert np.sort(visit.brightness(), axis=None)[-2] < 180
    visit.words.nth(1).hover()
    assert visit.brightness().argmax() == 1
    visit.page.keyboard.press("ArrowLeft")  # From the selected word.
    visit.page.mouse.move(0, 0)
    assert visit.brightness().argmax() == 1


@needs_browser
def test_sliders_change_the_samples(visit):
    visit.drop_image()
    for _ in range(3):
        visit.page.get_by_role("slider", name="Temperature").press("ArrowRight")
    visit.samples.get_by_text("drawn 13 0").first.wait_for()
    visit.page.get_by_role("spinbutton").first.fill("")  # An erased number counts as 1.
    visit.samples.get_by_text("drawn 10 0").first.wait_for()
    visit.page.get_by_role("button", name="Sample again").click()
    visit.samples.get_by_text("drawn 10 1").first.wait_for()

    number = visit.page.get_by_role("slider", name="Number")
    assert number.get_attribute("max") == "3"  # The number of samples that the server returns.
    number.press("ArrowLeft")
    visit.samples.get_by_text("drawn 10 1 3").wait_for(state="detached")
    assert len(visit.rows(visit.samples)) == 2


@needs_browser
def test_a_file_that_is_not_an_image_is_an_error_and_the_next_image_is_captioned(visit):
    visit.drop(b"text", "notes.txt")
    visit.error.wait_for()
    assert visit.error.inner_text() == "The server cannot caption this file: no picture."
    visit.drop_image()
    assert visit.words.all_inner_texts() == ["a", "red", "star"]
    assert visit.error.count() == 0


@needs_browser
def test_a_stopped_server_is_an_error_until_it_is_back(visit, server):
    visit.drop_image()
    server.stop()
    try:
        visit.page.get_by_role("button", name="Sample again").click()
        visit.error.wait_for()
        message = visit.error.inner_text()
    finally:
        server.start()
    assert re.match(rf"localhost:{server.port} is unavailable .*start one with", message)

    until = time.monotonic() + 20
    while visit.error.count() and time.monotonic() < until:
        visit.page.get_by_role("button", name="Sample again").click()
        visit.page.wait_for_timeout(500)
    assert visit.rows(visit.samples)


def test_a_taken_port_is_reported_in_one_line(server):
    _, errors = (process := demo("--port", server.port)).communicate()
    assert process.returncode == 1
    assert errors == (f"error: cannot listen on localhost:{server.port}; choose another --port\n")


def test_the_demo_does_not_import_tensorflow():
    code = "import sys, serving.demo; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
