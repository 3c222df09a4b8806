"""What only live sources need: a clock that follows the wall, reconnecting, camera devices."""

import dataclasses
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator

import av.device
import av.error

from svlm_jax.errors import SourceError
from svlm_jax.host.retry import Again, Backoff, GaveUp, Retry
from svlm_jax.video.reader import Decoded, VideoReader

LATE = 1.0  # s; frames further behind the wall clock than this are stamped with it


class BeginsAnewError(SourceError):
    """A peer that went away sends its stream from the beginning again: there is nothing to go on with."""


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
    retry = Retry(
        backoff or Backoff(attempts=0),
        wait=wait,
        on_failure=lambda why, failures, delay: on_status(f"{why}; attempt {failures} to reconnect in {delay:.1f} s."),
    )

    def again() -> VideoReader:
        try:
            return connect()
        except BeginsAnewError:
            raise
        except SourceError as error:
            raise Again(str(error).rstrip(".")) from None

    while True:
        try:
            for decoded in clock.restamp(reader):
                if retry.failures:
                    on_status(f"{reader.name} is back.")
                retry.succeeded()
                yield decoded
            return
        except SourceError as error:
            lost = Again(str(error).rstrip("."))
            if backoff is None:
                raise
        finally:
            reader.close()
        clock.reconnected()
        try:
            reader = retry(again, after=lost)
        except GaveUp as error:
            if error.stopped:
                return
            raise SourceError(f"{error}; gave up after {error.failures - 1} attempts to reconnect.") from None


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
