"""JSON Lines (https://jsonlines.org): one object a chunk, silent ones included, and one an answer."""

import json
import math
import os
from typing import Any

from svlm_jax.output.records import AnswerRecord, RecordFile, answer_start
from svlm_jax.streaming.caption import Caption

# JSON allows these inside strings, but some readers of lines take them for line ends.
LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
TIMES = ("read", "step", "vision", "prefill", "decode")


def segment(caption: Caption) -> dict[str, Any]:
    """A caption as JSON: seconds, milliseconds in "timing" (None where not measured), {kind: [used, limit]} in "cache"."""
    return {
        "type": "segment",
        "start": _number(caption.start),
        "end": _number(caption.end),
        "text": caption.text,
        "tokens": len(caption.tokens),
        "silent": caption.silent,
        "lag": _number(caption.lag),
        "dropped": _number(caption.dropped),
        "timing": {name: _number(getattr(caption.timing, name)) for name in TIMES},
        "cache": {kind: [int(used), int(limit)] for kind, (used, limit) in caption.usage.items()},
    }


def answer_object(record: AnswerRecord) -> dict[str, Any]:
    """An answer as JSON: stream seconds in "at", (second, share of the layers that read it) in "read", else as in `Answer`."""
    answer = record.answer
    return {
        "type": "answer",
        "at": _number(answer.at),
        "question": answer.question,
        "text": answer.text,
        "tokens": len(answer.tokens),
        "choice": answer.choice,
        "chosen": record.chosen,
        "scores": None if answer.scores is None else list(answer.scores),
        "read": [list(pair) for pair in answer.read],
        "timing": {
            "catch_up": _number(answer.catch_up_ms),
            "first_token": _number(answer.first_token_ms),
            "total": _number(answer.total_ms),
        },
    }


def _number(value: float | None) -> float | None:
    """A JSON number to the millisecond or microsecond; JSON has no NaN and no infinity."""
    return round(float(value), 3) if value is not None and math.isfinite(value) else None


class _JsonLinesFormat:
    name = "JSON Lines"
    header = ""
    separator = "\n"

    def record(self, caption: Caption, number: int) -> str:
        return _line(segment(caption))

    def answer(self, record: AnswerRecord, number: int) -> str:
        return _line(answer_object(record))

    def start(self, record: str) -> float:
        try:
            item = json.loads(record)
            return answer_start(float(item["at"])) if item.get("type") == "answer" else float(item["start"])
        except (AttributeError, KeyError, TypeError, OverflowError, RecursionError):
            raise ValueError(record) from None


def _line(item: dict[str, Any]) -> str:
    return json.dumps(item, ensure_ascii=False, allow_nan=False).translate(LINE_ENDS) + "\n"


JSON_LINES = _JsonLinesFormat()


class JsonLines(RecordFile):
    """A JSON Lines file: one `segment` a caption, one `answer_object` an answer. For the arguments see `RecordFile`."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False):
        super().__init__(path, JSON_LINES, append=append)
