"""WhisperX's JSON: {"segments": [{"start", "end", "text", "words": [{"word", "start", "end"}, ...]}, ...]}.

Numbers and signs come without times, which other versions write as null or NaN: such words and segments get the time between
their neighbours.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from svlm_jax.data.annotations import SECONDS, Word
from svlm_jax.data.sentences import Sentence, spread
from svlm_jax.errors import DataError
from svlm_jax.host.json_files import parse
from svlm_jax.host.schema import Record, Text, Unfit


class _Timed(NamedTuple):
    """A word or a segment; times that the file does not tell are None."""

    start: float | None
    end: float | None
    record: Record


def read_whisperx(text: str, where: str) -> tuple[list[Sentence], dict[str, int]]:
    """The sentences of a file, and how many of what was guessed or skipped, by what it is.

    Raises DataError when it is no such file.
    """
    records = Record(parse(text, where, DataError), where, DataError).records("segments")
    segments = [_segment(record) for record in records]
    sentences = []
    for segment, (start, end) in zip(segments, _between(segments, 0.0, None), strict=True):
        heard = [_timed(word) for word in segment.record.records("words")] if "words" in segment.record else []
        words = tuple(_words(heard, start, end)) if heard else spread(segment.record.get("text", Text(), ""), start, end)
        sentences.append(Sentence(start, end, words))
    uneven = {
        "segments without times": sum(segment.start is None for segment in segments),
        "segments without words": sum(not sentence.words for sentence in sentences),
    }
    return sentences, {what: count for what, count in uneven.items() if count}


def _segment(record: Record) -> _Timed:
    """A segment, which has its words' times where it lacks its own."""
    segment = _timed(record)
    if segment.start is not None or "words" not in record:
        return segment
    times = [word for word in map(_timed, record.records("words")) if word.start is not None]
    return _Timed(times[0].start, times[-1].end, record) if times else segment


def _timed(record: Record) -> _Timed:
    start, end = _time(record, "start"), _time(record, "end")
    if start is None or end is None:
        return _Timed(None, None, record)
    return _Timed(start, max(start, end), record)


def _time(record: Record, name: str) -> float | None:
    """A time in seconds; None for null, NaN, and whatever else is no time."""
    try:
        return SECONDS.read(record.data.get(name))
    except Unfit:
        return None


def _words(heard: Sequence[_Timed], start: float, end: float) -> Iterator[Word]:
    """Words with times; a run of words without shares the time between its neighbours."""
    times = _between(heard, start, end)
    for timed, run in itertools.groupby(zip(heard, times, strict=True), key=lambda pair: pair[0].start is not None):
        pairs = list(run)
        texts = [word.record.get("word", Text(), "").strip() for word, _ in pairs]
        if timed:
            yield from (Word(since, until, text) for (_, (since, until)), text in zip(pairs, texts, strict=True) if text)
        else:
            yield from spread(" ".join(texts), *pairs[0][1])


def _between(parts: Sequence[_Timed], start: float, end: float | None) -> list[tuple[float, float]]:
    """(start, end) of each part; those without get what lies between the ones around them, which is nothing at an open end."""
    nexts: list[float | None] = []
    for part in reversed(parts):
        nexts.append(end if part.start is None else part.start)
        end = nexts[-1]
    found, reached = [], start
    for part, after in zip(parts, reversed(nexts), strict=True):
        if part.start is not None and part.end is not None:
            found.append((part.start, part.end))
            reached = part.end
        else:
            found.append((reached, reached if after is None else max(after, reached)))
    return found
