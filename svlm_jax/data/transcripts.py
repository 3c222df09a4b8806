"""Transcripts of videos as timed sentences: WhisperX JSON, SubRip (.srt), WebVTT (.vtt); and folders of them as annotations.

Words keep their own times where the file has them; else a sentence's time is spread evenly over its words. Captions that roll
up, as automatic ones do, show a line again while the next one comes: each of their lines is taken once.
"""

import dataclasses
import html
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from svlm_jax.data.annotations import Annotation, Word, write_annotations
from svlm_jax.data.windows import Annealing, Overlapped, annealing, overlapped
from svlm_jax.errors import DataError, EndpointError, SvlmError
from svlm_jax.video.source import open_source

logger = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts")
STAMP = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
CUE = re.compile(rf"^\s*{STAMP}\s*-->\s*{STAMP}", re.MULTILINE)
# Cues end at an empty line. A line of blanks is text, unless the next cue (and its number) follows: some writers mean it so.
GAP = re.compile(r"\n\n+|\n[ \t]+\n(?=(?:[^\n]+\n)?[ \t]*[\d:.,]+[ \t]*-->)")
INLINE = re.compile(rf"<{STAMP}>")  # WebVTT: the time of the words behind it
FLEETING = 0.05  # s; a cue that is shown for less only carries its lines over to the next one
HELD = 0.5  # s that may lie between two cues that hold a line on the screen
CHUNKS = Overlapped()
TAGS = re.compile(r"</?[a-zA-Z][^>]*>|\{\\[^}]*\}")  # markup of both formats, and positions of SubStation


@dataclasses.dataclass(frozen=True)
class Sentence:
    """What is said from `start` to `end` (seconds of the video)."""

    start: float
    end: float
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


def spread(text: str, start: float, end: float) -> tuple[Word, ...]:
    """The words of a text, evenly over the time from `start` to `end`."""
    words = text.split()
    step = (end - start) / max(len(words), 1)
    return tuple(Word(round(start + i * step, 3), round(start + (i + 1) * step, 3), word) for i, word in enumerate(words))


def read_transcript(path: str | Path) -> list[Sentence]:
    """The sentences of a transcript in order of time; DataError when it cannot be read."""
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no transcript that is understood; expected {', '.join(READERS)}.")
    try:
        sentences = reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text.") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no transcript of its kind: {type(error).__name__}: {error}.") from None
    return sorted((sentence for sentence in sentences if sentence.words), key=lambda sentence: (sentence.start, sentence.end))


# ------------------------------------------------------------------------------------------------ WhisperX


def _whisperx(text: str) -> list[Sentence]:
    """{"segments": [{"start", "end", "text", "words": [{"word", "start", "end"}, ...]}, ...]}"""
    return [_segment(segment) for segment in json.loads(text)["segments"]]


def _segment(segment: Mapping[str, Any]) -> Sentence:
    start, end = float(segment["start"]), float(segment["end"])
    heard = segment.get("words") or ()
    words = tuple(_timed(heard, start, end)) if heard else spread(segment["text"], start, end)
    return Sentence(start, end, words)


def _timed(heard: Sequence[Mapping[str, Any]], start: float, end: float) -> Iterator[Word]:
    """Words with times; runs of words without (numbers, mostly) share the time between their neighbours."""
    reached = start
    for timed, run in itertools.groupby(heard, key=lambda word: "start" in word and "end" in word):
        words = list(run)
        if timed:
            yield from (Word(float(word["start"]), float(word["end"]), word["word"].strip()) for word in words)
            reached = float(words[-1]["end"])
        else:
            after = next((float(word["start"]) for word in heard[_index(heard, words[-1]) :] if "start" in word), end)
            text = " ".join(word["word"].strip() for word in words)
            yield from spread(text, reached, max(after, reached))


def _index(heard: Sequence[Mapping[str, Any]], word: Mapping[str, Any]) -> int:
    return next(i for i, other in enumerate(heard) if other is word)


# ------------------------------------------------------------------------------------------------ subtitles


class _Cue(NamedTuple):
    """A cue as it stands in the file; its lines are not empty."""

    start: float
    end: float
    lines: list[str]

    def carried(self, before: "_Cue") -> int:
        """How many of the first lines the cue before ended with, and held on the screen."""
        if self.start > before.end + HELD:
            return 0
        ours, theirs = [_plain(line) for line in self.lines], [_plain(line) for line in before.lines]
        return next((n for n in range(min(len(ours), len(theirs)), 0, -1) if ours[:n] == theirs[-n:]), 0)


def _subtitles(text: str) -> list[Sentence]:
    """Cues of SubRip and WebVTT, which differ in nothing that matters here."""
    cues = []
    for block in GAP.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        found = CUE.search(block)
        if found is None:
            continue  # the header, a note, a style
        lines = block[found.end() :].split("\n")[1:]  # behind the times there may be settings
        shown = [line for line in lines if _plain(line)]
        cues.append(_Cue(_seconds(found.groups()[:4]), _seconds(found.groups()[4:]), shown))
    if not cues:
        raise ValueError("it has no cues")
    cues = [cue for cue in cues if cue.lines]
    if _rolls(cues):
        # A cue that only carries lines over stays, without words: the next one may carry them further.
        carried = [0, *(cue.carried(before) for before, cue in itertools.pairwise(cues))]
        cues = [cue._replace(lines=cue.lines[count:]) for cue, count in zip(cues, carried, strict=True)]
    return [Sentence(cue.start, cue.end, tuple(_cue_words("\n".join(cue.lines), cue.start, cue.end))) for cue in cues]


def _rolls(cues: Sequence[_Cue]) -> bool:
    """Whether lines roll up: most cues begin with what the cue before ended with, and add a line or are gone at once.

    Something that is merely said twice does neither.
    """

    def rolls(before: _Cue, cue: _Cue) -> bool:
        carried = cue.carried(before)
        return carried > 0 and (carried < len(cue.lines) or cue.end - cue.start <= FLEETING)

    return 2 * sum(rolls(before, cue) for before, cue in itertools.pairwise(cues)) > len(cues) - 1


def _plain(line: str) -> str:
    """The words of a line, without markup and times."""
    return " ".join(html.unescape(TAGS.sub("", INLINE.sub("", line))).split())


def _cue_words(text: str, start: float, end: float) -> Iterator[Word]:
    """Words of a cue: those between two inline times share the time between them."""
    marks = list(INLINE.finditer(text))
    times = [start, *(_seconds(mark.groups()) for mark in marks), end]
    begins, ends = [0, *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), len(text)]
    for begin, stop, since, until in zip(begins, ends, times, times[1:], strict=False):
        yield from spread(html.unescape(TAGS.sub("", text[begin:stop])), since, max(until, since))


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction}")


READERS: dict[str, Callable[[str], list[Sentence]]] = {".json": _whisperx, ".srt": _subtitles, ".vtt": _subtitles}


# ------------------------------------------------------------------------------------------------ folders


def annotate_folder(
    folder: str | Path,
    output: str | Path,
    rule: Overlapped | Annealing = CHUNKS,
    *,
    curate: Callable[[str, list[Sentence]], list[Sentence]] | None = None,
    keep: Callable[[Annotation], bool] | None = None,
) -> int:
    """Cuts the videos of a folder that have a transcript beside them (same name) into samples; returns their number.

    Args:
      output: the file of annotations to write, which should end in `_with_seeks.jsonl`; videos are named relative to `folder`.
      curate: (title, sentences) -> the sentences that stay, e.g. `curate.Curator.clean`. keep: which samples stay.
    Raises:
      DataError: the folder has no video with a transcript, or the output cannot be written. A video or transcript that cannot
        be read is logged and left out.
      EndpointError: `curate` got no answer.
    """
    folder = Path(folder)
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS)
    pairs = [(video, transcript) for video in videos if (transcript := _beside(video)) is not None]
    if not pairs:
        raise DataError(f"{folder} has {len(videos)} videos, none with a transcript ({', '.join(READERS)}) of the same name.")

    def samples() -> Iterator[Annotation]:
        for video, transcript in pairs:
            try:
                found = list(_samples(folder, video, transcript, rule, curate))
            except EndpointError:
                raise  # the next videos would fare no better
            except SvlmError as error:
                logger.warning("%s is left out: %s", video, error)
                continue
            yield from (sample for sample in found if keep is None or keep(sample))

    return write_annotations(output, samples())


def _beside(video: Path) -> Path | None:
    return next((path for suffix in READERS if (path := video.with_suffix(suffix)).is_file()), None)


def _samples(
    folder: Path,
    video: Path,
    transcript: Path,
    rule: Overlapped | Annealing,
    curate: Callable[[str, list[Sentence]], list[Sentence]] | None,
) -> Iterator[Annotation]:
    sentences = read_transcript(transcript)
    with open_source(video) as source:
        duration = source.info.duration
    if curate is not None:
        sentences = curate(video.stem, sentences)
    words = [word for sentence in sentences for word in sentence.words]
    name = video.relative_to(folder).as_posix()
    if isinstance(rule, Annealing):
        return annealing(name, words, rule, duration=duration, title=video.stem)
    return overlapped(name, words, rule, duration=duration, title=video.stem)
