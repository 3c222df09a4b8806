"""Live sources: their clock, reconnecting, HTTP, cameras, and names without credentials."""

import dataclasses
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from svlm_jax.errors import ConfigError, SourceError
from svlm_jax.host.retry import Backoff
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.video import opening
from svlm_jax.video.live import LiveClock
from svlm_jax.video.source import FrameSource, open_source
from tests.clips import number, picture, render
from tests.video.peers import Peer, endless, web_server, whole

QUICK = Backoff(first=0.05, longest=0.2, attempts=4)


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_the_live_clock_keeps_distances_and_follows_the_wall() -> None:
    wall = Clock()
    clock = LiveClock(wall, early=0.5)

    def at(second: float, stamp: float) -> tuple[float, bool]:
        wall.time = 1000 + second
        moment, lost = clock.stamp(stamp)
        return round(moment, 3), lost

    assert at(0.1, 77.0) == (0.1, False)
    assert at(0.9, 77.5) == (0.6, False)  # jitter of the network does not show
    assert at(1.0, 78.0) == (1.1, False)
    assert at(5.0, 79.0) == (5.0, True)  # a stall
    assert at(5.1, 80.5) == (5.1, False)  # a backlog is not played at its own speed
    assert at(5.2, 80.6) == (5.2, False)
    clock.reconnected()
    assert at(9.0, 3.0) == (9.0, True)
    assert at(9.5, 3.5) == (9.5, False)
    assert at(9.5, 3.4)[0] > 9.5  # time never goes back


def stream(path: Path, first: int = 0, seconds: float = 1.0, size: tuple[int, int] = (112, 196)) -> bytes:
    return render(path, frames=int(24 * seconds), first=first, size=size, gop=6).read_bytes()


def test_a_peer_that_hangs_up_is_called_again(tmp_path: Path) -> None:
    said: list[str] = []
    patience = Backoff(first=0.05, attempts=1)  # enough, as every connection delivers something
    clips = [stream(tmp_path / "1.ts", 0), stream(tmp_path / "2.ts", 100, size=(196, 112)), stream(tmp_path / "3.ts", 200)]
    with Peer(clips, seconds=1) as peer:
        with open_source(peer.url, fps=8, chunk_seconds=0.25, reconnect=patience, timeout=2, on_status=said.append) as source:
            assert source.info.live and source.info.kind == "tcp" and source.info.duration is None
            chunks = []
            for chunk in source:
                chunks.append(chunk)
                if number(chunk.frames[-1]) >= 200:
                    break
        assert peer.connections >= 3
    shown = [number(frame) for chunk in chunks for frame in chunk.frames]
    assert {n // 100 for n in shown} == {0, 1, 2}
    assert shown == sorted(shown)
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(set(starts))
    assert all((start / 0.25) % 1 == 0 for start in starts)
    # The clock went on over the gaps, and what nobody saw is told.
    assert sum(chunk.dropped for chunk in chunks[1:]) == pytest.approx(
        chunks[-1].start - chunks[0].end - 0.25 * (len(chunks) - 2)
    )
    assert any("closed the connection; attempt 1 to reconnect in 0." in line for line in said)
    assert any(line.endswith("is back.") for line in said)


def test_a_silent_peer_counts_as_gone(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        Peer([stream(tmp_path / "1.ts")], seconds=1, speed=10, silent=True) as peer,
        open_source(peer.url, fps=8, chunk_seconds=0.25, reconnect=QUICK, timeout=0.4, on_status=said.append) as source,
    ):
        begin = time.monotonic()
        while not said and time.monotonic() - begin < 10:
            next(source)
    assert "no data within the time limit" in said[0]


def test_a_peer_that_stays_away_is_given_up(tmp_path: Path) -> None:
    said: list[str] = []
    peer = Peer([stream(tmp_path / "1.ts")], seconds=1, speed=4)
    with peer:
        source = open_source(peer.url, fps=8, chunk_seconds=0.25, reconnect=QUICK, timeout=2, on_status=said.append)
        next(source)
        peer._stopped.set()
    with source, pytest.raises(SourceError, match="Connection refused; gave up after 4 attempts to reconnect"):
        list(source)
    assert "attempt 4 to reconnect" in said[-1]


def test_without_reconnecting_the_loss_is_the_end(tmp_path: Path) -> None:
    chunks = []
    with (
        Peer([stream(tmp_path / "1.ts")], seconds=1, speed=2) as peer,
        open_source(peer.url, fps=8, chunk_seconds=0.25, reconnect=None) as source,
        pytest.raises(SourceError, match="closed the connection"),
    ):
        chunks.extend(source)
    assert chunks


def test_closing_does_not_wait_for_a_peer_that_is_away(tmp_path: Path) -> None:
    with Peer([stream(tmp_path / "1.ts")], seconds=1, speed=10) as peer:
        source = open_source(peer.url, reconnect=Backoff(first=60), fps=8, chunk_seconds=0.25)
        next(source)
    time.sleep(0.2)
    begin = time.monotonic()
    source.close()
    assert time.monotonic() - begin < 1.5


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "sequential"])
def test_http_file(tmp_path: Path, ranges: bool) -> None:
    clip = render(tmp_path / "clip.mp4", frames=96, options={"movflags": "faststart"})
    with web_server(whole(clip.read_bytes(), ranges=ranges)) as root:
        url = root.replace("//", "//anna:s3cret@") + "/clip.mp4"
        with open_source(url) as source:
            assert source.info.kind == "http" and not source.info.live and source.info.duration == 4
            assert "s3cret" not in source.info.name
            assert [[number(frame) for frame in chunk.frames] for chunk in source] == [[24 * s, 24 * s + 12] for s in range(4)]
        with open_source(url, start=2) as source:
            assert [number(frame) for frame in next(source).frames] == [48, 60]


def test_http_refusal_and_broken_download(tmp_path: Path) -> None:
    with web_server(lambda request: request.send_error(404)) as root, pytest.raises(SourceError, match="404 Not Found"):
        open_source(f"{root}/clip.mp4")
    clip = render(tmp_path / "clip.mp4", frames=240, options={"movflags": "faststart"}).read_bytes()
    with (
        web_server(whole(clip[: len(clip) // 2])) as root,
        open_source(f"{root}/clip.mp4") as source,
        pytest.raises(SourceError, match="truncated: decoded"),
    ):
        list(source)


def test_http_stream_of_unknown_length_is_live(tmp_path: Path) -> None:
    data = stream(tmp_path / "clip.ts", seconds=2)
    four_segments = endless(data, 4, 0.1)  # faster than they play
    with web_server(four_segments) as root, open_source(f"{root}/live", fps=8, chunk_seconds=0.25) as source:
        assert source.info.live and source.info.kind == "http"
        chunks = list(source)
    # Segments arrive early, and are played at their speed and not skipped.
    numbers = [number(chunk.frames[0]) for chunk in chunks]
    if numbers[-1] == 47:  # on a busy machine the last frames come late and fill one more chunk
        numbers.pop()
    assert numbers == list(range(0, 48, 6))[-len(numbers) :]
    assert len(numbers) >= 6
    assert all(chunk.dropped == 0 for chunk in chunks)


def test_rtsp() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}/live"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.video.rtsp_peer", f"rtsp://{address}", "2.5"]
    listen = {"rtsp_flags": "listen", "listen_timeout": "20"}  # no RTSP server here: the peer comes to us
    publisher = subprocess.Popen(command, cwd=root)
    chunks = []
    try:
        with open_source(f"rtsp://anna:s3cret@{address}", options=listen, fps=8, chunk_seconds=0.25, reconnect=None) as source:
            info = source.info
            with pytest.raises(SourceError, match="closed the connection") as caught:
                chunks.extend(source)
    finally:
        publisher.kill()
        publisher.wait()
    assert (info.kind, info.live, info.width, info.height) == ("rtsp", True, 196, 112)
    assert info.name == f"rtsp://***@{address}" and "s3cret" not in str(caught.value)
    shown = [number(frame) for chunk in chunks for frame in chunk.frames]
    assert shown == sorted(shown) and len(set(shown)) > 8 and shown[-1] >= 48


def test_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "camera", lambda index: (f"testsrc=size=64x48:rate={20 + index},realtime", "lavfi"))
    with open_source(
        "4", fps=8, chunk_seconds=0.25, duration=1, resize=dataclasses.replace(PUBLISHED, min_pixels=28 * 28)
    ) as source:
        info = source.info
        chunks = list(source)
    assert (info.name, info.kind, info.live, info.fps, info.width, info.height) == ("camera 4", "webcam", True, 24, 64, 48)
    assert chunks[-1].end == 1.0
    assert chunks[0].frames.shape == (2, 3, 56, 56)


def test_pushed_frames_are_live() -> None:
    pushed = FrameSource()
    with open_source(pushed, fps=8, chunk_seconds=0.25) as source:
        assert source.info.live
        for i in range(30):
            pushed.push(picture(i))
            time.sleep(0.02)
        chunk = next(source)
        pushed.end()
        rest = list(source)
    assert chunk.lag < 1
    assert rest or chunk.start > 0


def test_live_sources_cannot_wait_or_start_later(tmp_path: Path) -> None:
    with Peer([stream(tmp_path / "1.ts")], seconds=1, speed=10) as peer:
        with pytest.raises(ConfigError, match="live and cannot wait"):
            open_source(peer.url, behind="wait")
        with pytest.raises(ConfigError, match="is live; start=3"):
            open_source(peer.url, start=3)
