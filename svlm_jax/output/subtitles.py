"""Subtitle files: WebVTT (https://www.w3.org/TR/webvtt1/) and SubRip. Silence leaves no cue; the words stand as they are.

An answer is a comment (NOTE) in WebVTT, which players do not show. SubRip has no comments: there it is a cue of its own.
"""

import os
import re

from svlm_jax.output.records import AnswerRecord, RecordFile, answer_start
from svlm_jax.output.text import clean_lines, clock, seconds_of, span
from svlm_jax.streaming.caption import Caption

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# SubRip has no escapes: an invisible word joiner keeps players from taking words for tags, and words from being a timing line.
MARKUP = re.compile(r"<|\{(?=\\)|--(?=>)")
JOINER = "\u2060"
ANSWER_SECONDS = 5.0  # that a cue with an answer is shown
NOTE = "NOTE answer at "


class _WebVttFormat:
    name = "WebVTT"
    header = "WEBVTT\n\n"
    separator = "\n\n"

    def record(self, caption: Caption, number: int) -> str:
        text = "\n".join(clean_lines(caption.text)).translate(ESCAPES)
        return f"{span(caption.start, caption.end)}\n{text}\n\n" if text else ""

    def answer(self, record: AnswerRecord, number: int) -> str:
        lines = (f"{NOTE}{clock(record.at)}", f"Question: {record.question}", f"Answer: {record.text}", record.cost)
        return "\n".join(lines).translate(ESCAPES) + "\n\n"

    def start(self, record: str) -> float:
        if record.startswith(NOTE):
            return answer_start(seconds_of(record.removeprefix(NOTE).partition("\n")[0]))
        return seconds_of(record.partition("-->")[0])


class _SubRipFormat:
    name = "SubRip"
    header = ""
    separator = "\n\n"

    def record(self, caption: Caption, number: int) -> str:
        text = MARKUP.sub(rf"\g<0>{JOINER}", "\n".join(clean_lines(caption.text)))
        return f"{number}\n{span(caption.start, caption.end, mark=',')}\n{text}\n\n" if text else ""

    def answer(self, record: AnswerRecord, number: int) -> str:
        text = MARKUP.sub(rf"\g<0>{JOINER}", f"{record.question}\n{record.text}".rstrip("\n"))
        return f"{number}\n{span(answer_start(record.at), record.at + ANSWER_SECONDS, mark=',')}\n{text}\n\n"

    def start(self, record: str) -> float:
        number, timing = record.split("\n")[:2]
        int(number)
        return seconds_of(timing.partition("-->")[0])


WEBVTT, SUBRIP = _WebVttFormat(), _SubRipFormat()


class WebVtt(RecordFile):
    """A WebVTT file: one cue a caption. For the arguments see `RecordFile`."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False):
        super().__init__(path, WEBVTT, append=append)


class SubRip(RecordFile):
    """A SubRip (.srt) file: one numbered cue a caption. For the arguments see `RecordFile`."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False):
        super().__init__(path, SUBRIP, append=append)
