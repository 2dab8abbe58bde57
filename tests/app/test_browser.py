"""The page in a browser: visits on a desk and on a phone, what errors look like, and what stands in a person's way."""

import shutil

import pytest

from ddcm.app.server_options import Limits
from tests.conftest import EXAMPLES
from tests.helpers.accessible import find_barriers
from tests.helpers.served import PASSWORD, served, tone

api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium installed")
VERBS = ("reconstruct", "transform", "generate", "compress", "decompress", "compare")
WAIT_MS = 120_000
FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# The players hide their audio elements, so the elements are recorded when they are created.
TRACK_PLAYERS = """
window.players = [];
const make = Document.prototype.createElement;
Document.prototype.createElement = function (name, ...rest) {
  const element = make.call(this, name, ...rest);
  if (String(name).toLowerCase() === "audio") window.players.push(element);
  return element;
};
"""
NEW_PLAYER = "number => window.players.slice(number).some(p => p.duration > 0)"


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_MICROPHONE])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tiny):
    with served(tiny, Limits(max_seconds=4, max_megabytes=0.5)) as running:
        yield running


class Page:
    """A visitor's browser tab, logged in, with its requests and its errors."""

    def __init__(self, browser, address, width=1280, height=800):
        self.address, self.requests, self.errors = address, [], []
        self.tab = browser.new_page(viewport={"width": width, "height": height})
        self.tab.set_default_timeout(WAIT_MS)
        self.tab.add_init_script(TRACK_PLAYERS)
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.goto(address)
        self.tab.locator("input").first.fill("anyone")
        self.tab.locator("input[type=password]").fill(PASSWORD)
        self.tab.get_by_role("button", name="Login").click()
        self.tab.get_by_role("tab", name="Transform", exact=True).wait_for()

    def open(self, verb):
        self.tab.get_by_role("tab", name=verb, exact=True).click()
        self.panel = self.tab.locator("[role=tabpanel]:visible")

    def upload(self, path):
        with self.tab.expect_response(lambda answer: "/upload" in answer.url):
            self.panel.locator("input[type=file]").first.set_input_files(path)

    def set(self, label, value):
        self.panel.get_by_role("button", name="More settings").click()
        number = self.panel.get_by_label(label, exact=False).and_(self.panel.locator("input[type=number]")).first
        number.fill(str(value))
        number.press("Tab")

    def run(self, verb):
        """Run the verb; the duration of the new player."""
        before = self.tab.evaluate("window.players.length")
        self.tab.locator(f"#run-{verb.lower()}").click()
        self.panel.locator(".picture img").wait_for()
        self.tab.wait_for_function(NEW_PLAYER, arg=before)
        return self.tab.evaluate("n => Math.max(...window.players.slice(n).map(p => p.duration || 0))", before)

    def in_view(self, selector):
        """True if the whole element is inside the window."""
        box, window = self.tab.locator(selector).bounding_box(), self.tab.viewport_size
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        return min(box["x"], box["y"]) >= 0 and right <= window["width"] and bottom <= window["height"]

    def read_error(self):
        """Text of the error message, which is closed."""
        text = self.tab.locator(".toast-message-text").last
        text.wait_for()
        line = text.inner_text()
        self.tab.locator(".toast-close").first.click()
        text.wait_for(state="detached")
        return line.strip()


def test_a_visit_from_end_to_end(browser, server, tmp_path):
    page = Page(browser, server.address)
    source = EXAMPLES / "bird.flac"

    page.open("Transform")
    page.upload(source)
    page.set("Steps", 2)
    assert page.run("Transform") == pytest.approx(2.99, abs=0.05)
    assert float(page.panel.locator("[data-name=log_mel_mae_db] b").inner_text().split()[0].rstrip("dB")) > 0
    page.panel.get_by_label("Play").last.click()
    page.tab.wait_for_function("window.players.some(p => p.currentTime > 0)")

    page.open("Compress")
    page.upload(source)
    page.set("Steps", 2)
    assert page.run("Compress") == pytest.approx(2.99, abs=0.05)
    with page.tab.expect_download() as download:
        page.panel.locator("#compressed a").first.click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.suffix == ".ddcm" and 300 < file.stat().st_size < 500

    page.open("Decompress")
    page.upload(file)
    assert page.run("Decompress") == pytest.approx(2.99, abs=0.05)

    other_servers = [url for url in page.requests if not url.startswith((server.address, "data:", "blob:"))]
    assert other_servers == [] and page.errors == []
    page.tab.close()


def test_a_visit_on_a_phone(browser, server, tmp_path):
    page = Page(browser, server.address, 390, 844)
    for verb in VERBS:  # each is one tap away, with its button in view
        page.open(verb.capitalize())
        assert page.in_view(f"#run-{verb}")

    page.open("Reconstruct")
    page.upload(tone(tmp_path / "long.wav", 5))
    assert page.read_error().startswith("long.wav: longer than 4 s")
    page.panel.get_by_text("Drop Audio Here").wait_for()  # it is refused before a run

    page.open("Generate")
    page.panel.get_by_role("button", name="bubbles under water").click()
    api.expect(page.panel.get_by_label("Prompt", exact=True)).to_have_value("bubbles under water", timeout=WAIT_MS)
    page.set("Steps", 100)
    page.panel.locator("#dice-generate").click()
    seed = page.panel.get_by_label("Seed", exact=False).and_(page.panel.locator("input[type=number]")).first
    api.expect(seed).not_to_have_value("0", timeout=WAIT_MS)
    drawn = int(seed.input_value())
    page.tab.locator("#run-generate").click()
    page.panel.get_by_text("steps |").wait_for()
    assert page.in_view("#status-generate") and page.in_view("#cancel-generate")
    page.panel.get_by_alt_text("spectrogram of the estimate after step").wait_for()
    assert page.in_view("#bar-generate .preview img")
    page.panel.locator(".picture img").wait_for()
    page.panel.locator(".preview img").wait_for(state="detached")
    page.tab.wait_for_function("document.querySelector('#tab-generate .results').getBoundingClientRect().top < 420")
    page.panel.get_by_role("button", name="Settings used").click()
    page.panel.get_by_text(str(drawn)).wait_for()
    assert page.errors == []
    page.tab.close()


def test_nothing_stands_in_a_persons_way(browser, server):
    """On every tab, empty and with a result, light and dark, wide and narrow."""
    page, found = Page(browser, server.address), []
    for verb in VERBS:
        page.open(verb.capitalize())
        if verb == "generate":
            page.set("Steps", 1)
            page.run("Generate")
        for scheme in ("light", "dark"):
            page.tab.evaluate("scheme => document.body.classList.toggle('dark', scheme === 'dark')", scheme)
            for size in ((1280, 2400), (390, 3600)):  # high enough that the button covers nothing
                page.tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
                page.tab.wait_for_timeout(200)  # colours fade
                found += [f"{verb}, {scheme}, {size[0]}: {line}" for line in find_barriers(page.tab)]
        page.tab.set_viewport_size({"width": 1280, "height": 800})
    assert not found, "\n".join(found)
    page.tab.close()


def test_nothing_stands_in_the_way_of_the_login(browser, server):
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(server.address)
    tab.get_by_role("button", name="Login").wait_for()
    assert tab.title() == "ddcm" and find_barriers(tab) == []
    tab.close()


@pytest.mark.slow  # test_server.py tests the same errors through the API
def test_errors_are_shown_and_cancel_cancels(browser, server, tmp_path):
    page = Page(browser, server.address)
    page.open("Reconstruct")
    page.tab.locator("#run-reconstruct").click()
    assert "bring a file first" in page.read_error()
    (tmp_path / "words.wav").write_text("no sound")
    page.upload(tmp_path / "words.wav")
    line = page.read_error()
    assert "words.wav: not readable as audio" in line and "\n" not in line
    page.upload(tone(tmp_path / "large.wav", 20))
    assert "size" in page.read_error().lower()

    page.open("Generate")
    page.set("Steps", 200)
    page.tab.locator("#run-generate").click()
    page.panel.get_by_text("steps |").wait_for()
    page.tab.locator("#cancel-generate").click()
    page.panel.get_by_text("steps |").wait_for(state="hidden")
    assert page.panel.locator(".picture img").count() == 0 and page.errors == []
    page.tab.close()
