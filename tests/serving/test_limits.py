"""Pictures, rates, time stamps and options of clients: what is taken, and the sentence for what is not."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import ConfigError, RequestError
from svlm_jax.serving.frames import FrameAssembler, WaitingChunks
from svlm_jax.serving.images import decode_data_url, decode_image, encode_thumbnail
from svlm_jax.serving.limits import Limits, RateLimit
from svlm_jax.serving.options import changed, described
from svlm_jax.serving.stream import StreamOptions
from svlm_jax.video.chunk import Chunk

LIMITS = Limits(frame_pixels=100 * 100, frame_bytes=50_000, text_chars=20)
OPTIONS = StreamOptions(system="s", query=None, window=WindowConfig(), sampling=Sampling())


def picture(width=32, height=24, form="JPEG", value=90):
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_decoded(form):
    shown = decode_image(picture(form=form), LIMITS)
    assert shown.shape == (24, 32, 3) and abs(int(shown.mean()) - 90) < 3
    url = f"data:image/{form.lower()};base64,{base64.b64encode(picture(form=form)).decode()}"
    assert np.array_equal(decode_data_url(url, LIMITS), shown)


def test_a_picture_lies_as_its_orientation_says():
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(out, "JPEG", exif=exif)
    assert decode_image(out.getvalue(), LIMITS).shape == (20, 10, 3)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "cannot be decoded"),
        (b"garbage" * 9, "cannot be decoded"),
        (picture()[:100], "cannot be decoded"),
        (picture(form="GIF"), "expected JPEG, PNG or WebP"),
        (picture(101, 100), "101x100 pixels: expected at most 10,000"),
        (b"x" * 50_001, "50,001 bytes: expected at most 50,000"),
    ],
)
def test_other_pictures_are_refused(data, sentence):
    with pytest.raises(RequestError, match=sentence):
        decode_image(data, LIMITS)


URLS = ["http://x/y.jpg", "data:text/plain;base64,AA", "data:image/png,AA", "data:image/png;base64,!!"]


@pytest.mark.parametrize("url", [*URLS, "data:image/png;base64," + "A" * 70_000])
def test_other_addresses_of_pictures_are_refused(url):
    with pytest.raises(RequestError):
        decode_data_url(url, LIMITS)


def test_rates():
    now = [0.0]
    limit = RateLimit(10, 20, clock=lambda: now[0])
    assert sum(limit.allows() for _ in range(50)) == 20
    now[0] = 1.0
    assert sum(limit.allows() for _ in range(50)) == 10
    now[0] = -5.0  # a clock that goes back gives nothing
    assert not limit.allows()


def pushed(stamps, fps=2.0, count=2):
    assembler = FrameAssembler(fps=fps, count=count, size=(28, 28))
    image = np.zeros((28, 28, 3), np.uint8)
    return [(chunk.start, chunk.end) for stamp in stamps for chunk in assembler.push(image, stamp)]


def test_chunks_follow_the_time_stamps():
    assert pushed([7.0, 7.5, 8.0, 8.5]) == [(0, 1), (1, 2)]
    assert pushed(np.arange(0, 3, 0.04) + 1e9) == [(0, 1), (1, 2), (2, 3)]
    assert pushed([0, 3.5]) == [(0, 1), (1, 2), (2, 3), (3, 4)]  # one picture stands for what was not sent


@pytest.mark.parametrize("jump", [-100.0, 1e6, 1e18])
def test_a_clock_that_jumps_costs_one_frame_and_no_flood(jump):
    assert len(pushed([0, 0.5, 1.0, 1.5 + jump, 2.0 + jump, 2.5 + jump])) == 3
    with pytest.raises(RequestError, match="finite"):
        pushed([float("nan")])


def chunk(start):
    frames = np.full((2, 3, 4, 4), int(start), np.uint8)
    return Chunk(frames, start, start + 1)


def test_late_chunks_are_dropped_or_merged():
    for late, first in (("drop", 2.0), ("merge", 0.0)):
        waiting = WaitingChunks(late, most=2)
        for start in range(4):
            waiting.put(chunk(float(start)), deadline=10.0 + start)
        assert (len(waiting), waiting.dropped, waiting.deadline) == (2, 2, 12.0)
        oldest, deadline = waiting.get()
        assert (oldest.start, oldest.end, deadline) == (first, 3.0, 12.0)
        assert len(oldest.frames) == 2


def test_options_of_clients():
    asked = {"query": "What?", "window": {"vision": 8, "sink": 4}, "temperature": 0, "top_k": 5, "late": "merge", "seed": 7}
    options = changed(OPTIONS, "be brief", asked, LIMITS)
    assert options.system == "be brief" and options.query == "What?" and options.late == "merge" and options.seed == 7
    assert options.window == WindowConfig(vision=8, sink=4) and options.sampling == Sampling(temperature=0.0, top_k=5)
    assert changed(options, None, described(options), LIMITS) == options
    assert changed(options, None, None, LIMITS) is not None


@pytest.mark.parametrize(
    ("instructions", "asked", "sentence"),
    [
        ("x" * 21, {}, "instructions has 21 characters: expected at most 20"),
        (None, {"wndow": {}}, "svlm.wndow is not known"),
        (None, [], "svlm=.*expected an object"),
        (None, {"window": {"vison": 3}}, "svlm.window"),
        (None, {"window": {"vision": float("nan")}}, "a finite number"),
        (None, {"window": {"vision": -1}}, "vision"),
        (None, {"temperature": "hot"}, "svlm.temperature='hot'"),
        (None, {"temperature": -1}, "temperature=-1.0"),
        (None, {"top_k": 1.5}, "a whole number"),
        (None, {"top_k": True}, "a whole number"),
        (None, {"seed": -1}, "svlm.seed"),
        (None, {"late": "never"}, "drop or merge"),
        (None, {"query": 3}, "svlm.query=3: expected text"),
        (3, {}, "instructions=3: expected text"),
    ],
)
def test_options_that_cannot_be(instructions, asked, sentence):
    with pytest.raises(RequestError, match=sentence):
        changed(OPTIONS, instructions, asked, LIMITS)


def test_limits_are_checked():
    with pytest.raises(ConfigError, match="questions=0: expected more than 0"):
        Limits(questions=0)


def test_thumbnails_are_small():
    jpeg = encode_thumbnail(np.zeros((3, 480, 640), np.uint8))
    assert Image.open(io.BytesIO(jpeg)).size == (160, 120)
