"""Captions for the tests of sinks, and strict readers of what they write."""

import re
from fractions import Fraction

import av
import numpy as np

from svlm_jax.output.answer import AnswerRecord
from svlm_jax.prompt.qa import Answer
from svlm_jax.streaming.caption import Caption, Timing

TIMING = Timing(read=12.0, step=270.0, vision=30.0, prefill=40.0, decode=200.0)


def caption(start, text="", *, end=None, tokens=(5, 6, 7), timing=TIMING, **fields):
    return Caption(start, start + 1.0 if end is None else end, text, tokens, timing, **fields)


def answer(at, question="Who?", text="red", *, read=((0.0, 1.0), (1.0, 0.5)), **fields):
    """An answer at a stream time, from seconds that were read for it, one apart."""
    said = Answer(question, text, (5, 6), at, tuple(read), None, None, ((question, text),), 1.0, 20.0, 30.0)
    return AnswerRecord.of(said, 1.0, **fields)


def parse_webvtt(text):
    """[(start, end, payload)] of a WebVTT file, without comments. AssertionError where it breaks the standard (section 4.1)."""
    assert "\r" not in text and "\0" not in text
    head, *blocks = text.split("\n\n")
    assert head == "WEBVTT"
    assert blocks.pop() == ""  # the file ends with a blank line
    cues = []
    for block in blocks:
        timing, *payload = block.split("\n")
        if timing.startswith("NOTE "):
            assert payload and all(payload) and "-->" not in block
            continue
        match = re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})", timing)
        assert match, timing
        h, m, s, ms, h2, m2, s2, ms2 = map(int, match.groups())
        start, end = (Fraction(1000 * (3600 * a + 60 * b + c) + d, 1000) for a, b, c, d in ((h, m, s, ms), (h2, m2, s2, ms2)))
        assert start < end
        assert not cues or cues[-1][0] <= float(start)
        assert payload and all(payload)
        assert not any("-->" in line or "<" in line or ">" in line for line in payload)
        assert not re.search(r"&(?!(amp|lt|gt);)", "\n".join(payload))
        cues.append((float(start), float(end), "\n".join(payload)))
    return cues


def parse_subrip(text):
    """[(start, end, payload)] of a SubRip file; numbers must count from 1."""
    cues = []
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    for number, block in enumerate(blocks, 1):
        count, timing, *payload = block.split("\n")
        assert count == str(number)
        assert re.fullmatch(r"\d{2,}:[0-5]\d:[0-5]\d,\d{3} --> \d{2,}:[0-5]\d:[0-5]\d,\d{3}", timing), timing
        assert payload and all(payload)
        start, end = (
            sum(float(part) * unit for part, unit in zip(time.replace(",", ".").split(":"), (3600, 60, 1), strict=True))
            for time in timing.split(" --> ")
        )
        assert start < end
        cues.append((start, end, "\n".join(payload)))
    return cues


def ffmpeg_cues(path):
    """[(start, text)] as FFmpeg's demuxer reads a subtitle file."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        return [(float(packet.pts * packet.time_base), bytes(packet).decode()) for packet in packets]


def decode(path):
    """Times (seconds, from the first) and pictures (N, height, width, 3) of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = np.array([frame.time for frame in frames])
    return times - times[0], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def sound_seconds(path):
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        frames = list(container.decode(audio=0))
        return sum(frame.samples for frame in frames) / frames[0].sample_rate
