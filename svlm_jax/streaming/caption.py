"""What one second of a stream produces: the words, and what it cost. Sessions make captions, sinks consume them."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Timing:
    """Milliseconds of wall time that one chunk took.

    `read` is spent on the host (video decoding, resizing); `step` is the compiled second as a whole. Its three parts are
    known only when the session runs them as separate programs (`split_timing`), else they are None.
    """

    read: float
    step: float
    vision: float | None = None
    prefill: float | None = None
    decode: float | None = None


@dataclasses.dataclass(frozen=True)
class Caption:
    """The commentary of one chunk, usually one second.

    Attributes:
      start, end: stream time in seconds; the chunk covers [start, end).
      text: the words spoken, without the " ..." marker; "" for silence.
      tokens: ids as sampled, marker and <|im_end|> included.
      timing: what the chunk cost.
      usage: tokens held in the cache after this chunk, per kind, as (used, limit), e.g. {"vision": (11520, 11520)}.
      lag: seconds that the stream is behind live (0 for sources that wait).
      dropped: seconds of video skipped or merged away right before this chunk because the stream was behind.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    timing: Timing
    usage: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    lag: float = 0.0
    dropped: float = 0.0

    @property
    def silent(self) -> bool:
        return not self.text
