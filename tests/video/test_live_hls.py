"""Live HLS (RFC 8216): a playlist that grows while it is read, over a splice from one encoder to another."""

import http.server
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from svlm_jax.video.source import open_source
from tests import clips
from tests.video.peers import web_server

RATE, SECONDS = 24, 0.5  # of a segment
BEFORE, AFTER = 6, 8  # segments of either encoder
LONGEST = (BEFORE + AFTER) * SECONDS + 4  # s
OTHER = 1000  # the number of the first frame of the second encoder


def segments(folder: Path, jump: float) -> list[tuple[str, bytes]]:
    """The segments of two encoders whose clocks differ by `jump` seconds: other sizes, other clocks, other codec settings."""
    found = []
    for encoder, (count, first, offset, size, b_frames) in enumerate(
        ((BEFORE, 0, 1000.0, (112, 196), 0), (AFTER, OTHER, 1000.0 + jump, (96, 160), 2))
    ):
        frames = round(RATE * SECONDS)
        for i in range(count):
            path = folder / f"{encoder}{i}.ts"
            clips.render(
                path,
                frames=frames,
                rate=RATE,
                first=first + i * frames,
                offset=offset + i * SECONDS,
                size=size,
                b_frames=b_frames,
            )
            found.append((path.name, path.read_bytes()))
    return found


def growing(parts: list[tuple[str, bytes]], pace: float) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """A server whose playlist has three segments at first, and another every `pace` seconds, and then an end."""
    data, begin = dict(parts), []

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        begin.append(time.monotonic())
        name = request.path.lstrip("/")
        if name != "live.m3u8":
            body = data[name]
        else:
            count = 3 + int((time.monotonic() - begin[0]) / pace)
            lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
            for i, (segment, _) in enumerate(parts[:count]):
                lines += ["#EXT-X-DISCONTINUITY"] * (i == BEFORE) + [f"#EXTINF:{SECONDS},", segment]
            lines += ["#EXT-X-ENDLIST"] * (count > len(parts))
            body = "\n".join([*lines, ""]).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/vnd.apple.mpegurl" if name.endswith("m3u8") else "video/mp2t")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return respond


@pytest.mark.parametrize("jump", [490.0, -990.0])
def test_a_splice_changes_the_picture_and_not_the_clock(jump: float, tmp_path: Path) -> None:
    """Behind the splice the new encoder's pictures come, at their own rate, whatever its clock says."""
    with (
        web_server(growing(segments(tmp_path, jump), SECONDS)) as root,
        open_source(f"{root}/live.m3u8", fps=8, chunk_seconds=0.5, reconnect=None, duration=LONGEST) as source,
    ):
        assert source.info.live
        chunks = list(source)
    shown = [clips.number(frame) for chunk in chunks for frame in chunk.frames]
    assert shown == sorted(shown) and shown[0] < 12 * BEFORE
    behind = [number for number in shown if number >= OTHER]
    assert behind[-1] >= OTHER + 12 * AFTER - 12  # to the last chunk
    assert len(set(behind)) >= 12 * AFTER / RATE * 8 * 0.6  # and not one picture held
    starts = [chunk.start for chunk in chunks]
    assert starts[-1] < (BEFORE + AFTER) * SECONDS + 3  # stream time is that of the wall, not that of the stamps
    assert all(later - earlier <= 1.5 for earlier, later in itertools.pairwise(starts))
