"""What only live sources need: a clock that follows the wall, reconnecting, camera devices, and names without credentials."""

import dataclasses
import os
import platform
import random
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit, urlunsplit

import av.device
import av.error

from svlm_jax.errors import SourceError
from svlm_jax.video.reader import Decoded, VideoReader

SECRET_NAMES = re.compile(r"pass|pwd|token|key|secret|sig|auth|user|cred|login|session", re.IGNORECASE)
SECRET_LENGTH = 24  # a query value this long is more likely a token than something to read
LATE = 1.0  # s; frames further behind the wall clock than this are stamped with it


def mask(url: str) -> str:
    """The URL as messages may show it: without user, password, and query values that look like secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, netloc, parts.path, "&".join(map(_mask_value, parts.query.split("&"))), ""))


def _mask_value(pair: str) -> str:
    name, equals, value = pair.partition("=")
    secret = SECRET_NAMES.search(name) or len(value) >= SECRET_LENGTH
    return f"{name}=***" if equals and secret else ("***" if not equals and len(name) >= SECRET_LENGTH else pair)


@dataclasses.dataclass(frozen=True)
class Backoff:
    """Waiting times between attempts to reconnect: doubled from `first` to `longest` seconds, each spread by `jitter`.

    After `attempts` failures in a row the source gives up; None never does. A connection that delivered a frame starts anew.
    """

    first: float = 0.5
    longest: float = 30.0
    jitter: float = 0.25
    attempts: int | None = 10

    def delay(self, failures: int, spread: float | None = None) -> float:
        """Seconds to wait after `failures` (1, 2, ...) failures in a row; `spread` in [-1, 1] replaces the random one."""
        spread = random.uniform(-1, 1) if spread is None else spread  # not for cryptography
        return min(self.longest, self.first * 2 ** min(failures - 1, 30)) * (1 + self.jitter * spread)


class LiveClock:
    """Stream time of live frames: seconds of wall time since the stream was opened.

    Time stamps set the distances between frames, so jitter of the network does not move them. Frames that fall more than a
    second behind the wall clock (a stall, a slow camera clock, a decoder that cannot keep up), or more than `early` seconds
    ahead of it (the backlog that a server sends first), are re-stamped with it.
    """

    def __init__(self, clock: Callable[[], float], early: float):
        self.origin = clock()
        self._clock, self._early = clock, early
        self._offset: float | None = None
        self._last: float | None = None

    def restart(self) -> float:
        """Stream time 0 is now; the reading of the wall clock."""
        self.origin, self._offset, self._last = self._clock(), None, None
        return self.origin

    def reconnected(self) -> None:
        """The next time stamp belongs to a new connection."""
        self._offset = None

    def stamp(self, time: float) -> tuple[float, bool]:
        """Stream time of a frame stamped `time`, and whether stream time was lost right before it."""
        wall = self._clock() - self.origin
        lost = False
        if self._offset is None:
            lost, self._offset = self._last is not None, wall - time
        elif time + self._offset < wall - LATE:
            lost, self._offset = True, wall - time
        elif time + self._offset > wall + self._early:
            self._offset = wall - time
        moment = time + self._offset
        self._last = moment if self._last is None else max(moment, self._last + 1e-3)
        return self._last, lost

    def restamp(self, frames: Iterable[Decoded]) -> Iterator[Decoded]:
        """The same frames in stream time."""
        for decoded in frames:
            moment, lost = self.stamp(decoded.time)
            yield dataclasses.replace(decoded, time=moment, gap=lost)


def live_frames(
    reader: VideoReader,
    connect: Callable[[], VideoReader],
    clock: LiveClock,
    *,
    backoff: Backoff | None,
    wait: Callable[[float], bool],
    on_status: Callable[[str], None],
) -> Iterator[Decoded]:
    """Frames of a live source in stream time, reconnecting when it stops.

    Args:
      reader: the first connection; `connect` makes the next ones. All are closed here.
      wait: sleeps so many seconds; True when the stream was closed meanwhile.
      on_status: told about every loss and every attempt, in one sentence without credentials.
    Raises:
      SourceError: the source is lost for good.
    """
    failures = 0
    while True:
        try:
            for decoded in clock.restamp(reader):
                if failures:
                    on_status(f"{reader.name} is back.")
                failures = 0
                yield decoded
            return
        except SourceError as error:
            reason = str(error).rstrip(".")
            if backoff is None:
                raise
        finally:
            reader.close()
        clock.reconnected()
        while True:
            failures += 1
            if backoff.attempts is not None and failures > backoff.attempts:
                raise SourceError(f"{reason}; gave up after {backoff.attempts} attempts to reconnect.")
            delay = backoff.delay(failures)
            on_status(f"{reason}; attempt {failures} to reconnect in {delay:.1f} s.")
            if wait(delay):
                return
            try:
                reader = connect()
                break
            except SourceError as error:
                reason = str(error).rstrip(".")


def camera(index: int) -> tuple[str, str]:
    """What FFmpeg opens for camera `index`, and the name of its input format, on this operating system.

    Raises:
      SourceError: there is no such camera.
    """
    system = platform.system()
    if system == "Linux":
        path = f"/dev/video{index}"
        if not os.path.exists(path):
            devices = sorted(name for name in os.listdir("/dev") if re.fullmatch(r"video\d+", name))
            found = ", ".join(name.removeprefix("video") for name in devices) or "none"
            raise SourceError(f"Camera {index} does not exist; cameras found: {found}.")
        return path, "v4l2"
    if system == "Darwin":
        return str(index), "avfoundation"
    try:
        devices = [d.name for d in av.device.enumerate_input_devices("dshow") if "video" in d.media_types]
    except (av.error.FFmpegError, ValueError):
        devices = []
    if index >= len(devices):
        raise SourceError(f"Camera {index} does not exist; {len(devices)} cameras found.")
    return f"video={devices[index]}", "dshow"
