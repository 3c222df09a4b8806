"""Timed commentary on disk, in the published format of StreamingVLM and LiveCC: JSON lines and an index of byte offsets.

    train_with_seeks.jsonl    one sample a line: [user message, assistant message]
    train_seeks.jsonl         [0, 1893, 3721, ...], the byte at which each line begins

A user message holds {"type": "video", "video", "video_start", "video_end"} and {"type": "text", "text", "previous", "title"},
an assistant message {"type": "text_stream", "text_stream": [[start, end, word], ...], "qa_stream": [[tag, time, question,
answer], ...]}. All times are seconds of the video. LiveCC keeps the index as the last line of the samples' own file.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from svlm_jax.errors import DataError
from svlm_jax.host.files import atomic_file, json_text, write_json, writing
from svlm_jax.host.json_files import parse
from svlm_jax.host.schema import Anything, ListOf, Number, Record, Row, Text, Whole

WITH_SEEKS = "_with_seeks"
LONGEST = 24 * 3600  # s of one clip
SECONDS = Number(least=0, most=1e9)
WORD = Row((SECONDS, SECONDS, Text()))
QUESTION = Row((Anything(), SECONDS, Text(), Text()))


class Word(NamedTuple):
    """What is said from `start` to `end` (seconds of the video); usually one word."""

    start: float
    end: float
    text: str


class Question(NamedTuple):
    """A question asked at `time` (seconds of the video) and its answer; `tag` is free."""

    tag: Any
    time: float
    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One sample: a clip of a video and what is said in it.

    Attributes:
      video: path, relative to the folder of the data set.
      start, end: of the clip in seconds.
      words: in the order in which they are said.
      questions: asked during the clip.
      previous: everything that was said before.
      title: of the video. prompt: what a user may have asked for. Neither is read in training.
    """

    video: str
    start: float
    end: float
    words: tuple[Word, ...]
    questions: tuple[Question, ...] = ()
    previous: str = ""
    title: str = ""
    prompt: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise DataError(f"{self.video}: the clip from {self.start} to {self.end} s is empty, expected 0 <= start < end.")
        if self.end - self.start > LONGEST:
            raise DataError(
                f"{self.video}: the clip from {self.start} to {self.end} s is too long, expected {LONGEST} s at most."
            )

    @classmethod
    def from_messages(cls, messages: Any) -> "Annotation":
        """Of a parsed line; DataError says what is missing or has the wrong type."""
        video, text, stream = _contents(messages)
        words = tuple(Word(*row) for row in stream.get("text_stream", ListOf(WORD)))
        questions = tuple(Question(*row) for row in stream.get("qa_stream", ListOf(QUESTION), ()))
        return cls(
            video=video.get("video", Text()),
            start=video.get("video_start", SECONDS),
            end=video.get("video_end", SECONDS),
            words=words,
            questions=questions,
            previous=text.get("previous", Text(), ""),
            title=text.get("title", Text(), ""),
            prompt=text.get("text", Text(), ""),
        )

    def to_messages(self) -> list[dict[str, Any]]:
        """The two messages of the published format."""
        stream: dict[str, Any] = {"type": "text_stream", "text_stream": [list(word) for word in self.words]}
        if self.questions:
            stream["qa_stream"] = [list(question) for question in self.questions]
        clip = {"type": "video", "video": self.video, "video_start": self.start, "video_end": self.end}
        text = {"type": "text", "text": self.prompt, "previous": self.previous, "title": self.title}
        return [{"role": "user", "content": [clip, text]}, {"role": "assistant", "content": [stream]}]


def _contents(messages: Any) -> tuple[Record, Record, Record]:
    """The elements for the video, the text (any element may carry `previous` and `title`) and the words."""
    video, stream = Record({}, "the sample's video", DataError), Record({}, "the sample", DataError)
    text: dict[str, Any] = {}
    sample = Record({"messages": messages}, "the sample", DataError)
    for message in sample.records("messages"):
        for element in message.records("content"):
            if element.data.get("type") == "video":
                video = element
            if "text_stream" in element.data:
                stream = element
            text.update({name: element.data[name] for name in ("text", "previous", "title") if element.data.get(name)})
    return video, Record(text, "the sample's text", DataError), stream


def index_path(path: str | os.PathLike[str]) -> Path:
    """Where the byte offsets of the samples in `path` are kept."""
    path = Path(path)
    return path.with_name(f"{path.stem.removesuffix(WITH_SEEKS)}_seeks.jsonl")


class AnnotationFile:
    """Samples of a JSONL file by number. A line is read when it is asked for; safe to share between threads.

    The index is `<stem>_seeks.jsonl`, or the last line of the file itself; without either the file is read through once.

    Raises:
      DataError: the file is missing or empty, or the index does not fit it; on access, the line is broken.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist; a file of annotations (JSON lines) was expected.")
        self._size = self.path.stat().st_size
        self._seeks = self._load_index()
        if not self._seeks:
            raise DataError(f"{self.path} holds no samples.")

    def __len__(self) -> int:
        return len(self._seeks)

    def __getitem__(self, number: int) -> Annotation:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has samples 0 to {len(self) - 1}, not {number}")
        try:
            return Annotation.from_messages(parse(self._line(number), "the line", DataError))
        except DataError as error:
            raise DataError(f"{self.path}, sample {number}: {error}") from None

    def __iter__(self) -> Iterator[Annotation]:
        return (self[number] for number in range(len(self)))

    def fingerprint(self) -> str:
        """A hash of the whole file."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _line(self, number: int) -> bytes:
        at = self._seeks[number]
        with open(self.path, "rb") as file:
            file.seek(max(at - 1, 0))
            if at and file.read(1) != b"\n":
                raise self._stale(f"byte {at} is not the beginning of a line")
            return file.readline()

    def _load_index(self) -> list[int]:
        index = index_path(self.path)
        if index.is_file() and index != self.path:
            return self._checked(_offsets(index.read_bytes(), str(index)), index)
        last = _last_line(self.path)
        if last.startswith(b"[") and not last.startswith(b"[{"):
            self._size -= len(last)
            return self._checked(_offsets(last, f"the last line of {self.path}"), self.path)
        return list(_line_starts(self.path))

    def _checked(self, seeks: list[int], index: Path) -> list[int]:
        """The index, if it covers the file: it begins at 0, rises, and its last line ends where the samples end."""
        self._index = index
        if not seeks:
            raise self._stale("it is empty")
        if seeks[0] != 0 or any(b <= a for a, b in itertools.pairwise(seeks)):
            raise self._stale("its offsets do not rise from 0")
        if seeks[-1] >= self._size:
            raise self._stale(f"it points to byte {seeks[-1]} of {self._size}")
        with open(self.path, "rb") as file:
            file.seek(seeks[-1])
            end = seeks[-1] + len(file.readline())
            file.seek(end)
            rest = file.read(self._size - end)
        if rest.strip():
            raise self._stale(f"{len(rest)} bytes follow its last line")
        return seeks

    def _stale(self, why: str) -> DataError:
        index = getattr(self, "_index", self.path)
        return DataError(f"the index {index} does not fit {self.path}: {why}; delete it, or write it again.")


def write_annotations(path: str | os.PathLike[str], annotations: Iterable[Annotation]) -> int:
    """Writes samples and their index, and returns their number. The name should end in `_with_seeks.jsonl`.

    The file has its name only when it is complete.
    """
    path = Path(path)
    seeks, at = [], 0
    with atomic_file(path) as file:
        for annotation in annotations:
            line = json_text(annotation.to_messages()).encode() + b"\n"
            seeks.append(at)
            at += file.write(line)
        with writing(path):
            index_path(path).unlink(missing_ok=True)  # a file without an index is read, one with a wrong index is not
    write_json(index_path(path), seeks, indent=None)
    return len(seeks)


def _offsets(data: bytes, name: str) -> list[int]:
    name = f"the index {name}"
    index = Record({"offsets": parse(data, name, DataError)}, name, DataError)
    return list(index.get("offsets", ListOf(Whole(least=0))))


def _line_starts(path: Path) -> Iterator[int]:
    at = 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                yield at
            at += len(line)


def _last_line(path: Path) -> bytes:
    """The last line that is not blank; what follows it is counted with it."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        block = 1 << 16
        while True:
            begin = max(size - block, 0)
            file.seek(begin)
            data = file.read()
            cut = data.rstrip().rfind(b"\n")
            if cut >= 0 or begin == 0:
                return data[cut + 1 :]
            block *= 4
