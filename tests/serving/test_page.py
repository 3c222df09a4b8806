"""The page in a real browser: captions of a drawn match, of a camera that shows one, a question, changes, a reload."""

import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from svlm_jax.synthetic.match import Match

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
ROOT = Path(__file__).parents[2]
# Headless, as root in a container, and without looking for the outside world.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream"]
FLAGS += ["--use-fake-device-for-media-stream"]
WORDS = re.compile(r"\b(kickoff|pass|shot|save|goal|steal|intercept|out|throw|wide|red|blue|score)\b")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright: pip install -e .[dev]"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server with the model of this package."""
    command = [sys.executable, "-m", "svlm_jax", "serve", "--model", "embedded", "--streams", "3", "--port", "0"]
    command += ["--snapshots", str(tmp_path_factory.mktemp("streams"))]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert server.stderr is not None
    with server.stderr:
        found = next(filter(None, (re.search(r"http://[\d.]+:\d+/", line) for line in server.stderr)), None)
        assert found, f"the server ended with {server.wait()}"
        yield found[0]
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, 143)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose camera shows a drawn match."""
    from playwright.sync_api import sync_playwright

    film = tmp_path_factory.mktemp("camera") / "match.y4m"
    with av.open(str(film), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("rawvideo", rate=12)
        stream.pix_fmt = "yuv420p"
        for i, (_, frame) in enumerate(Match(4).video(12)):
            if i == 12 * 60:
                break
            if not i:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, f"--use-file-for-fake-video-capture={film}"]
        )
        yield started
        started.close()


@pytest.fixture
def page(address, browser):
    errors = []
    context = browser.new_context(viewport={"width": 1200, "height": 900}, permissions=["camera"])
    shown = context.new_page()
    shown.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 (playwright marks the function)
    shown.on(
        "request", lambda request: errors.append(request.url) if not request.url.startswith((address, "blob:", "ws:")) else 0
    )
    shown.goto(address)
    shown.wait_for_selector("text=pictures a second")
    yield shown
    while shown.locator(".panel .close").count():
        shown.locator(".panel .close").first.click()
    context.close()
    assert not errors


def shoot(page, name):
    """Keeps what the page shows in the folder that SVLM_SCREENSHOTS names, as docs/page/ has it; without one, does nothing."""
    if folder := os.environ.get("SVLM_SCREENSHOTS"):
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").save(Path(folder) / f"{name}.webp", quality=60, method=6)


def captions(page, panel=0):
    return page.locator(".panel").nth(panel).locator(".transcript li.caption span").all_text_contents()


def wait_for_captions(page, count, panel=0):
    page.locator(".panel").nth(panel).locator(".transcript li.caption").nth(count - 1).wait_for(timeout=90_000)


def test_a_drawn_match_a_question_a_change_and_a_reload(page):
    shoot(page, "empty")
    page.click("#add-match")
    wait_for_captions(page, 3)
    said = captions(page)
    assert all(WORDS.search(text) for text in said)
    assert page.locator(".preview").is_visible() and page.locator(".overlay").count() == 1
    assert "vision" in page.locator(".cache figcaption").text_content()

    page.fill(".ask input", "Who has the ball?")
    page.click(".ask button")
    page.wait_for_selector(".answer img", timeout=60_000)
    shoot(page, "answer")

    page.click(".settings summary")
    page.fill(".instructions", "Be calm.")
    page.fill(".vision", "8")
    page.click(".apply")
    page.wait_for_selector(".apply:has-text('Applied')", timeout=60_000)
    shoot(page, "settings")

    page.reload()
    wait_for_captions(page, len(said))
    assert captions(page)[: len(said)] == said
    shoot(page, "resumed")
    assert page.input_value(".instructions") == "Be calm." and page.input_value(".vision") == "8"
    assert "resumed" in page.locator(".state").text_content() or page.locator(".lag").text_content() != ""

    with page.expect_download() as download:
        page.click("[data-format=vtt]")
    assert Path(download.value.path()).read_text().startswith("WEBVTT")


def test_a_camera(page):
    page.click("#add-camera")
    wait_for_captions(page, 2)
    assert any(WORDS.search(text) for text in captions(page))
    page.click(".pause")
    page.wait_for_selector(".pause:has-text('Go on')")
    shoot(page, "camera-paused")


def test_an_address_that_may_not_be_opened_is_a_sentence(page):
    page.click("#add-address")
    page.fill("#address", "rtsp://127.0.0.1/stream")
    page.keyboard.press("Enter")
    page.wait_for_selector(".state.bad:has-text('private network')", timeout=30_000)
    shoot(page, "refused")


def test_narrow_and_dark(page):
    page.set_viewport_size({"width": 380, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.click("#add-match")
    page.wait_for_selector(".panel")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 26)"
    shoot(page, "narrow-dark")
