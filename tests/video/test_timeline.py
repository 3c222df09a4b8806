"""Time stamps that lie: what is shown, at what time, and that nothing is shown without end."""

import collections
from collections.abc import Callable
from pathlib import Path

import pytest

from svlm_jax.video.opening import picture_span
from svlm_jax.video.source import open_source
from tests import clips
from tests.video.stamps import restamp_flv, restamp_mkv, restamp_ts
from tests.video.test_containers import RATE, regular, seen

FRAMES = 96
RESTAMP = {"ts": restamp_ts, "flv": restamp_flv, "mkv": restamp_mkv}
Change = Callable[[int, float], float]
LIES: dict[str, Change] = {
    "jumps ahead": lambda n, t: t + 1000 * (n >= 40),
    "jumps ahead by 26 hours": lambda n, t: t + 94_000 * (n >= 40),
    "is set back": lambda n, t: t + 1000 - 990 * (n >= 40),
    "is set back a little": lambda n, t: t - 1.5 * (n >= 40),
    "goes away and comes back": lambda n, t: t + 500 * (40 <= n < 60),
    "jumps every second": lambda n, t: t + n // RATE * 777,
    "wraps": lambda n, t: t + 2**33 / 90_000 - 2,
    "one stamp far ahead": lambda n, t: t + 500 * (n == 40),
    "one stamp ahead": lambda n, t: t + 5 * (n == 40),
    "one stamp behind": lambda n, t: t - 1.5 * (n == 40),
    "the first stamp far ahead": lambda n, t: t + 500 * (n == 0),
    "each stamp twice": lambda n, t: t - n % 2 / RATE,
    "slight disorder": lambda n, t: t - 0.045 * (n % 10 == 9),
}
IN_MATROSKA = ("one stamp ahead", "one stamp behind", "is set back a little", "each stamp twice", "slight disorder")


def clip(folder: Path, container: str, change: Change, **options) -> Path:
    drawn = clips.render(folder / f"clip.{container}", **{"frames": FRAMES, **options})
    return RESTAMP[container](drawn, change)


def close(got: dict[float, list[int]], frames: int = FRAMES, tolerance: int = 1) -> bool:
    """Whether the frames that a clip shows are those of their times, give or take one, and no more."""
    wanted = regular(frames // RATE)
    return got.keys() == wanted.keys() and all(abs(got[s][0] - wanted[s][0]) <= tolerance for s in wanted)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("container", "lie"), [(c, lie) for c in RESTAMP for lie in LIES if c == "ts" or (lie in IN_MATROSKA and lie != "wraps")]
)
def test_the_picture_goes_on(container: str, lie: str, b_frames: int, tmp_path: Path) -> None:
    lying = clip(tmp_path, container, LIES[lie], b_frames=b_frames)
    tolerance = 4 if container == "mkv" and b_frames else 1  # its decoding times are guessed from stamps on both sides
    got = seen(lying)
    assert close(got, tolerance=tolerance), got
    begin, end = picture_span(lying)
    assert end - begin == pytest.approx(FRAMES / RATE, abs=0.2)
    assert seen(lying, start=3.0) == {s: shown for s, shown in got.items() if s >= 3}


def test_stamps_that_do_not_move_are_counted(tmp_path: Path) -> None:
    got = seen(clip(tmp_path, "ts", lambda n, t: 5.0))
    assert got == {float(s): [25 * s, min(25 * s + 13, 95)] for s in range(4)}  # FFmpeg says 25 a second


def test_sound_jumps_with_the_picture_or_stays(tmp_path: Path) -> None:
    jump: Change = lambda n, t: t + 90 * (n >= 40)  # noqa: E731
    with_sound: Change = lambda n, t: t + 90 * (t >= 0.13 + 1.6)  # noqa: E731
    both = restamp_ts(clips.render(tmp_path / "both.ts", frames=FRAMES, sound=4.0), jump, with_sound)
    assert len(seen(both)) == 4
    # Without sound to say so, 90 s are a still.
    alone = clip(tmp_path, "ts", jump)
    assert len(seen(alone)) == 94


def test_a_still_that_sound_goes_through_is_one(tmp_path: Path) -> None:
    times = [i / RATE for i in range(24)] + [151 + i / RATE for i in range(24)]
    silent = clips.render(tmp_path / "silent.ts", times=times)
    assert len(seen(silent)) == 2  # nothing speaks for 150 s
    heard = clips.render(tmp_path / "heard.ts", times=times, sound=152.0)
    assert len(seen(heard)) in (152, 153)


def test_no_file_makes_more_seconds_than_it_pays_for(tmp_path: Path) -> None:
    lying = clip(tmp_path, "ts", lambda n, t: t + 100 * n, frames=96)
    with open_source(lying) as source:
        chunks = sum(1 for _ in source)
    assert chunks <= 120 + lying.stat().st_size / 32 + 96 / RATE + 1
    for seconds in (4_000, 40_000):  # MP4 stores durations: they are believed as far as they are paid for
        times = [i / RATE + seconds * (i >= 24) for i in range(48)]
        path = clips.render(tmp_path / "clip.mp4", times=times)
        with open_source(path) as source:
            assert collections.deque(source, maxlen=1).pop().end <= 120 + path.stat().st_size / 32 + 3


def test_a_lie_without_the_repair_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests notice when nothing is repaired."""
    monkeypatch.setattr("svlm_jax.video.timeline.Timeline._shift", lambda self, stamp, packet: 0)
    assert not close(seen(clip(tmp_path, "ts", LIES["is set back a little"])))


def test_recordings_of_two_encoders_one_behind_the_other(tmp_path: Path) -> None:
    parts = [
        clips.render(tmp_path / "a.ts", frames=72, b_frames=2, sound=3.0),
        clips.render(tmp_path / "b.ts", frames=72, first=72, size=(96, 160), gop=30),
    ]
    got = seen(clips.concatenate(tmp_path / "clip.ts", parts), size=(112, 196))
    assert list(got) == list(range(6)) and got[4.0][0] == pytest.approx(96, abs=4)


def test_the_sound_of_a_copy_stays_with_its_picture(tmp_path: Path) -> None:
    from svlm_jax.video.reader import VideoReader

    parts = [clips.render(tmp_path / f"{i}.ts", frames=72, first=72 * i, sound=3.0) for i in range(2)]
    joined = clips.concatenate(tmp_path / "clip.ts", parts)
    reader = VideoReader(f"file:{joined}", "clip", listen=True)
    last = [item.time for item in reader][-1]
    heard = [time for _, time in reader.heard]
    reader.close()
    assert heard == sorted(heard) and max(heard) == pytest.approx(last, abs=0.5) and len(heard) > 40
