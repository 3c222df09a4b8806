"""JSON Lines (https://jsonlines.org): one object a chunk, silent ones included."""

import json
import math
import os
from typing import Any

from svlm_jax.output.records import RecordFile
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


def _number(value: float | None) -> float | None:
    """A JSON number to the millisecond or microsecond; JSON has no NaN and no infinity."""
    return round(float(value), 3) if value is not None and math.isfinite(value) else None


class _JsonLinesFormat:
    name = "JSON Lines"
    header = ""
    separator = "\n"

    def record(self, caption: Caption, number: int) -> str:
        return json.dumps(segment(caption), ensure_ascii=False, allow_nan=False).translate(LINE_ENDS) + "\n"

    def start(self, record: str) -> float:
        try:
            return float(json.loads(record)["start"])
        except (KeyError, TypeError):
            raise ValueError(record) from None


JSON_LINES = _JsonLinesFormat()


class JsonLines(RecordFile):
    """A JSON Lines file: one `segment` a caption. For the arguments see `RecordFile`."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False):
        super().__init__(path, JSON_LINES, append=append)
