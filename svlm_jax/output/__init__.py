"""Where captions and answers go: terminal, WebVTT, SubRip, JSON Lines, a captioned video, a function; any number at once."""

import contextlib
import os
from collections.abc import Callable

from svlm_jax.host.files import check_distinct, check_target
from svlm_jax.output.answer import AnswerRecord
from svlm_jax.output.base import Sink, SinkGroup
from svlm_jax.output.board import Board
from svlm_jax.output.callback import Callback
from svlm_jax.output.captioned_video import CaptionedVideo
from svlm_jax.output.jsonl import JsonLines
from svlm_jax.output.panel import Status
from svlm_jax.output.subtitles import SubRip, WebVtt
from svlm_jax.output.tally import Tally
from svlm_jax.output.terminal import Terminal
from svlm_jax.streaming.caption import Caption

__all__ = [
    "AnswerRecord",
    "Board",
    "Callback",
    "CaptionedVideo",
    "JsonLines",
    "Sink",
    "SinkGroup",
    "Status",
    "SubRip",
    "Tally",
    "Terminal",
    "WebVtt",
    "open_sinks",
]

Target = str | os.PathLike[str] | None


def open_sinks(
    *,
    terminal: Sink | None = None,
    tally: Sink | None = None,
    vtt: Target = None,
    srt: Target = None,
    jsonl: Target = None,
    video: Target = None,
    original: Target = None,
    callback: Callable[[Caption], object] | None = None,
    answered: Callable[[AnswerRecord], object] | None = None,
    append: bool = False,
) -> SinkGroup:
    """One sink for all that is asked for; closing it closes the terminal view too.

    Args:
      terminal: an open `Terminal`. tally: a `Tally`.
      callback, answered: called with every caption and every answer.
      vtt, srt, jsonl, video: paths of files. original: path of the video, if it is a file that can be read a second time.
      append: continue the text files, see `RecordFile`. A captioned video always begins anew.
    Raises:
      OutputError: a file cannot be written, two are one file, or one is the original. What was opened before is closed again.
    """
    targets = [check_target(path) for path in (vtt, srt, jsonl, video) if path is not None]
    check_distinct(targets, [original] if original is not None else [])
    sinks: list[Sink] = [sink for sink in (terminal, tally) if sink is not None]
    with contextlib.ExitStack() as opened:
        if vtt is not None:
            sinks.append(opened.enter_context(WebVtt(vtt, append=append)))
        if srt is not None:
            sinks.append(opened.enter_context(SubRip(srt, append=append)))
        if jsonl is not None:
            sinks.append(opened.enter_context(JsonLines(jsonl, append=append)))
        if video is not None:
            sinks.append(opened.enter_context(CaptionedVideo(video, original)))
        if callback is not None:
            sinks.append(Callback(callback, answered))
        opened.pop_all()
    return SinkGroup(sinks)
