"""What one client, and all of them together, may ask of a server."""

import dataclasses
import time
from collections.abc import Callable

from svlm_jax.errors import ConfigError, RequestError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds that protect the device and the host. What exceeds one is refused in a sentence, never cut in silence.

    Attributes:
      streams: streams at once; None = as many as the device is measured to carry.
      frame_bytes: of one encoded picture. frame_pixels: of one picture, before it is resized for the model.
      frames_per_second: that one stream may send, on average over two seconds.
      message_bytes: of one JSON message. text_chars: of a system prompt, a query or earlier text.
      question_chars: of a question. questions: that wait or are answered at once, a stream.
      requests_per_minute: HTTP requests and new connections of one address.
      idle_seconds: a stream that gets no frame for so long is saved and closed.
    """

    streams: int | None = None
    frame_bytes: int = 8 * 2**20
    frame_pixels: int = 3840 * 2160
    frames_per_second: float = 60.0
    message_bytes: int = 16 * 2**20
    text_chars: int = 8_000
    question_chars: int = 2_000
    questions: int = 4
    requests_per_minute: int = 600
    idle_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(f"{field.name}={value}: expected more than 0")

    def text(self, name: str, value: str, most: int | None = None) -> str:
        """The text itself; RequestError when it is longer than `most` characters (default: `text_chars`)."""
        most = self.text_chars if most is None else most
        if len(value) > most:
            raise RequestError("too_long", f"{name} has {len(value):,} characters: expected at most {most:,}", param=name)
        return value


class RateLimit:
    """A bucket that fills with `rate` tokens a second up to `burst`; each event takes one.

    Args:
      clock: seconds, from any origin.
    """

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens, self._at = burst, clock()

    def allows(self) -> bool:
        """Whether one more event fits now; counts it if so."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + max(now - self._at, 0.0) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
