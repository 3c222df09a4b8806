"""A copy of the video with the captions and answers drawn into it."""

import logging
import os
from pathlib import Path

import av
import numpy as np

from svlm_jax.errors import OutputError
from svlm_jax.host.files import check_distinct
from svlm_jax.output.answer import AnswerRecord
from svlm_jax.output.base import Closing
from svlm_jax.output.mp4 import Look, Mp4Writer
from svlm_jax.output.original import CLOSE, Original, planes
from svlm_jax.output.overlay import draw_caption
from svlm_jax.streaming.caption import Caption

logger = logging.getLogger(__name__)

HELD = 0.5  # s between copies of a picture that is held
ANSWER_SECONDS = 5.0  # that an answer stays on the picture, from its question on


class CaptionedVideo(Closing):
    """A sink that writes an MP4 file (H.264) in which every caption is drawn over the pictures of its chunk.

    An answer stands at the upper edge for `ANSWER_SECONDS` after its question; when the video ends before that, its last
    picture is held for the rest.

    With `original`, the path of the video that is being watched, every frame of it is copied at full rate and size, upright,
    with its sound where MP4 can hold it. Without, the file is made of the frames given to `write`. The file begins at the start
    of the first caption and grows with every caption; an interrupted, even a killed, run leaves a playable file.

    Raises:
      OutputError: the file cannot be written, or is the original; a caption of a live source comes without frames.
      SourceError: the original cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], original: str | os.PathLike[str] | None = None):
        self.path = Path(path)
        check_distinct([self.path], [original] if original is not None else [])
        self._writer = Mp4Writer(path)
        self._source = original
        self._original: Original | None = None
        self._size: tuple[int, int] | None = None  # (height, width) of the frames given
        self._begin: float | None = None  # stream time at which the file begins
        self._last: Caption | None = None
        self._answers: list[tuple[str, float, float]] = []  # words, and from when until when they are shown (stream seconds)
        self._still: tuple[np.ndarray, float] | None = None  # the newest picture without words, and when it ends

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        if self._begin is None:
            self._begin = caption.start
        if self._source is not None:
            self._copy(caption, caption.end)
        elif frames is None:
            raise OutputError(f"{self.path} cannot be written: a captioned copy of a live source needs its frames.")
        else:
            self._show(frames, caption)
        self._last = caption

    def answer(self, record: AnswerRecord) -> None:
        start = max(record.at, self._answers[-1][2] if self._answers else 0.0)  # one after the other
        self._answers.append((f"{record.question} {record.text}", start, start + ANSWER_SECONDS))

    def close(self) -> None:
        """Completes the file. A rest of the original that is shorter than a chunk, i.e. its end, is copied as it is."""
        try:
            if self._original is not None and self._last is not None:
                silent, last, self._last = Caption(self._last.end, self._last.end, "", (), self._last.timing), self._last, None
                self._copy(silent, last.end + (last.end - last.start))
            self._hold()
        finally:
            if self._original is not None:
                self._original.close()
            self._writer.close()

    def _copy(self, caption: Caption, end: float) -> None:
        """Copies the original up to `end`. Pictures before the caption were dropped unseen: they stay bare."""
        assert self._begin is not None
        if self._original is None:
            assert self._source is not None
            self._original = self._open(self._source, self._begin)
        for picture, time, duration in self._original.pictures(end):
            self._draw(picture, caption.text if time >= caption.start - CLOSE else "", time, duration)
        if self._original.audio is not None:
            for packet, time in self._original.sound(end):
                self._writer.sound(packet, time - self._begin)

    def _open(self, source: str | os.PathLike[str], start: float) -> Original:
        original = Original(source, start)
        if original.audio is not None and not self._writer.can_copy(original.audio):
            logger.warning("%s is silent: MP4 cannot hold %s sound", self.path, original.audio.codec_context.name)
            original.audio = None
        self._writer.begin(original.look, original.audio)
        return original

    def _show(self, frames: np.ndarray, caption: Caption) -> None:
        """Adds the frames that the model saw, spread over the chunk."""
        assert self._begin is not None
        step = (caption.end - caption.start) / len(frames)
        pictures = [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), "rgb24") for frame in frames]
        if self._size is None:
            self._size = pictures[0].height + pictures[0].height % 2, pictures[0].width + pictures[0].width % 2
            self._writer.begin(Look(self._size, rate=1 / step))
        for index, picture in enumerate(pictures):
            array = planes(picture, self._size)
            self._draw(array, caption.text, caption.start + index * step, step)

    def _draw(self, picture: np.ndarray, caption: str, time: float, duration: float) -> None:
        """Writes a picture, shown from `time` on, with a caption below and the answer of that moment above."""
        assert self._begin is not None
        self._still = picture.copy(), time + duration
        self._answers = [answer for answer in self._answers if answer[2] > time + CLOSE]
        draw_caption(picture, caption)
        if self._answers and self._answers[0][1] <= time + CLOSE:
            draw_caption(picture, self._answers[0][0], above=True)
        self._writer.picture(picture, time - self._begin, duration)

    def _hold(self) -> None:
        """Holds the last picture for the answers that it, or none, has shown in full."""
        if self._still is None or self._begin is None:
            return
        still, end = self._still
        for words, start, until in self._answers:
            picture, begin = still.copy(), max(start, end)
            draw_caption(picture, words, above=True)
            for step in range(round((until - begin) / HELD)):  # a last picture's own length is not written
                self._writer.picture(picture, begin - self._begin + step * HELD, HELD)
            end = until
        self._answers = []
