"""SubRip (.srt) and WebVTT (.vtt), read by their time lines: what stands between two of them is the text of the first.

Blank lines separate cues in a good file, and are missing, doubled or inside cues in many others, so they decide nothing but
what they alone can: whether a line above a time line is a cue's name or the last line of the cue before. Automatic captions
often roll up: a line is shown again while the next one comes. Each of their lines is taken only once.
"""

import collections
import dataclasses
import html
import itertools
import re
from collections.abc import Iterator, Sequence

from svlm_jax.data.annotations import Word
from svlm_jax.data.sentences import Sentence, spread

# Hours may be missing, and a fraction; before it stands a point, a comma or a colon; blanks may stand in between.
# A cue's number may stand in the line of its times.
STAMP = r"(?:(\d{1,6})\s?:\s?)?(\d{1,2})\s?:\s?(\d{1,2})(?:\s?[.,:]\s?(\d{1,9}))?"
TIMES = re.compile(rf"(?:\d{{1,9}}[.)]?\s{{1,9}})?{STAMP}\s{{0,9}}-{{1,3}}>\s{{0,9}}{STAMP}(?!\d)")
ARROW = re.compile(r"\d\s{0,9}-{1,3}>|-->\s{0,9}-?\d")  # it wants to be a time line
INLINE = re.compile(r"<(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,9})>")  # WebVTT: the time of the words behind it
BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")  # WebVTT: what begins so behind an empty line is no text
TAGS = re.compile(r"</?[a-zA-Z][^<>]*>|\{\\[^{}]*\}")  # markup of both formats, and positions of SubStation
LONG_REFERENCE = re.compile(r"&#\d{8,};?")  # of no character; html.unescape would stumble over thousands of digits
FLEETING = 0.05  # s; a cue that is shown for less only carries its lines over to the next one
HELD = 0.5  # s that may lie between two cues that hold a line on the screen
ROLLED = 8  # lines at most that a cue carries over
EMPTY = "cues without words"


@dataclasses.dataclass
class Cue:
    """A cue as it stands in the file: its times in seconds, and its lines, which are not empty."""

    start: float
    end: float
    lines: list[str]

    def carried(self, before: "Cue") -> int:
        """How many of the first lines the cue before ended with, and held on the screen."""
        if self.start > before.end + HELD:
            return 0
        ours, theirs = [plain(line) for line in self.lines[:ROLLED]], [plain(line) for line in before.lines[-ROLLED:]]
        return next((n for n in range(min(len(ours), len(theirs)), 0, -1) if ours[:n] == theirs[-n:]), 0)


def read_subtitles(text: str) -> tuple[list[Sentence], dict[str, int]]:
    """The sentences of a file, and how many of what was skipped, by what it is."""
    skipped: collections.Counter[str] = collections.Counter()
    cues = list(_cues(_lines(text), skipped))
    spoken = [cue for cue in cues if cue.lines]
    skipped[EMPTY] += len(cues) - len(spoken)
    if spoken and _rolls(spoken):
        # A cue that only carries lines over stays, without words: the next one may carry them further.
        carried = [0, *(cue.carried(before) for before, cue in itertools.pairwise(spoken))]
        spoken = [dataclasses.replace(cue, lines=cue.lines[count:]) for cue, count in zip(spoken, carried, strict=True)]
    sentences = [Sentence(cue.start, cue.end, tuple(_words("\n".join(cue.lines), cue.start, cue.end))) for cue in spoken]
    return sentences, {what: count for what, count in skipped.items() if count}


def _lines(text: str) -> list[str]:
    """Lines, whatever ends them: LF, CR LF, CR, or CR CR LF as a file that was converted twice has it."""
    return [line.strip() for line in re.sub(r"\r{0,2}\n|\r", "\n", text).split("\n")]


def _cues(lines: Sequence[str], skipped: "collections.Counter[str]") -> Iterator[Cue]:
    """The stretches between time lines. Before the first one stands a header, and behind a note nothing is text."""
    vtt = bool(lines) and lines[0].lstrip("\ufeff").startswith("WEBVTT")
    marks = [(i, TIMES.match(line)) for i, line in enumerate(lines) if ">" in line and ARROW.search(line)]
    bounds = [i for i, _ in marks]
    named = _names(lines, bounds, vtt)
    if not bounds:
        return
    if not vtt:
        skipped["lines before the first cue"] += sum(map(bool, lines[: named.get(bounds[0], bounds[0])]))
    for (at, found), until in zip(marks, [*bounds[1:], len(lines)], strict=True):
        if found is None:
            skipped["time lines that are not understood"] += 1
            continue
        end = named.get(until, until)
        block = _note(lines, at + 1, end) if vtt else end
        skipped["paragraphs behind a note"] += _paragraphs(lines[block:end])
        shown = [line for line in lines[at + 1 : block] if plain(line)]
        name = lines[end] if end < until else ""
        if not shown and name and not name.isdigit():
            shown = [name]  # text behind an empty line, where the next cue follows without one
        start, stop = seconds(found.groups()[:4]), seconds(found.groups()[4:])
        if stop < start:
            skipped["ends before the start"] += 1
        yield Cue(start, max(start, stop), shown)


def _names(lines: Sequence[str], bounds: Sequence[int], vtt: bool) -> dict[int, int]:
    """By time line: the line of its number or name, where there is one above it.

    Directly above the times and below an empty line stands a name; in SubRip, a number. Without the empty line, or with
    another one below it, a number is one if all cues have one, if it goes on from the number before, or if no cue is before it.
    """
    above = [lines[at - 1] if at else "" for at in bounds]
    numbered = all(line.isdecimal() for line in above)
    found: dict[int, int] = {}
    last: int | None = None  # once the file numbers its cues
    for at, line in zip(bounds, above, strict=True):
        name = at - 1
        while name >= 0 and not lines[name]:
            name -= 1
        adjacent = bool(line)
        number = _number(lines[name]) if name >= 0 else None
        apart = name < 1 or not lines[name - 1]
        follows = number is not None and (at == bounds[0] if last is None else number == last + 1)
        if (adjacent and apart and (vtt or number is not None)) or (adjacent and number is not None and numbered) or follows:
            found[at] = name
            last = last if number is None else number
    return found


def _number(line: str) -> int | None:
    return int(line) if line.isdecimal() and len(line) < 10 else None


def _note(lines: Sequence[str], begin: int, end: int) -> int:
    """Where the first note, style or region begins; `end` without one."""
    return next((i for i in range(begin, end) if BLOCK.match(lines[i]) and not lines[i - 1]), end)


def _paragraphs(lines: Sequence[str]) -> int:
    """How many begin behind an empty line and are no notes."""
    return sum(bool(line) and not before and not BLOCK.match(line) for before, line in itertools.pairwise(lines))


def _rolls(cues: Sequence[Cue]) -> bool:
    """Whether lines roll up: most cues begin with what the cue before ended with, and add a line or are gone at once.

    Something that is merely said twice does neither.
    """

    def rolls(before: Cue, cue: Cue) -> bool:
        carried = cue.carried(before)
        return carried > 0 and (carried < len(cue.lines) or cue.end - cue.start <= FLEETING)

    return 2 * sum(rolls(before, cue) for before, cue in itertools.pairwise(cues)) > len(cues) - 1


def plain(line: str) -> str:
    """The words of a line, without markup and times."""
    return " ".join(_unmarked(INLINE.sub("", line)).split())


def _unmarked(text: str) -> str:
    return html.unescape(LONG_REFERENCE.sub("\ufffd", TAGS.sub("", text)))


def _words(text: str, start: float, end: float) -> Iterator[Word]:
    """Words of a cue: those between two inline times share the time between them."""
    marks = list(INLINE.finditer(text))
    times = [start, *(seconds(mark.groups()) for mark in marks), end]
    begins, ends = [0, *(mark.end() for mark in marks)], [*(mark.start() for mark in marks), len(text)]
    for begin, stop, (since, until) in zip(begins, ends, itertools.pairwise(times), strict=True):
        yield from spread(_unmarked(text[begin:stop]), since, max(until, since))


def seconds(parts: Sequence[str | None]) -> float:
    """Of hours, minutes, seconds and the digits of a fraction."""
    hours, minutes, whole, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(whole or 0) + float(f"0.{fraction or 0}")
