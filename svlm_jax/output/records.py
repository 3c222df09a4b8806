"""Text files that grow by one whole record at a time, so that a run may stop, or be killed, at any moment."""

import os
from typing import Protocol

import numpy as np

from svlm_jax.errors import OutputError
from svlm_jax.host.files import check_target, put, writing
from svlm_jax.output.answer import AnswerRecord
from svlm_jax.output.base import Closing
from svlm_jax.streaming.caption import Caption

__all__ = ["AnswerRecord", "Format", "RecordFile", "answer_start"]

TOLERANCE = 5e-4  # s; files hold milliseconds


def answer_start(at: float) -> float:
    """Where an answer stands among the captions of a file, in seconds: it belongs to the second that ended when it was asked.

    So a stream that resumes at `at` keeps the answer, as it keeps the caption before it.
    """
    return max(0.0, at - 2 * TOLERANCE)


class Format(Protocol):
    """How captions and answers look in one kind of text file.

    Attributes:
      name: what messages call the format.
      header: what the file begins with.
      separator: what ends the header and every record, and occurs nowhere else.
    """

    name: str
    header: str
    separator: str

    def record(self, caption: Caption, number: int) -> str:
        """The record of a caption, separator included; number counts from 1. "" if the caption leaves no trace."""
        ...

    def answer(self, record: AnswerRecord, number: int) -> str:
        """The record of an answer, separator included; number counts from 1."""
        ...

    def start(self, record: str) -> float:
        """Stream time in seconds at which a record begins (`answer_start` of an answer). ValueError when it is no record."""
        ...


class RecordFile(Closing):
    """A sink that writes records to a text file.

    Every record goes to the system in one unbuffered write, and what a full disk leaves of it is removed again: the file is
    valid at any time.

    Args:
      path: the file; one that exists is replaced.
      append: continue the file if it exists. The first caption replaces what the file holds from its start on: a stream that
        resumes from an earlier state leaves the file that it would have left without stopping.
    Raises:
      OutputError: the file cannot be written, or cannot be continued because it is something else.
    """

    def __init__(self, path: str | os.PathLike[str], form: Format, *, append: bool = False):
        self.path, self._form = check_target(path), form
        with writing(self.path):
            old = self.path.read_bytes() if append and self.path.is_file() else b""
            self._ends, self._starts = self._index(old)
            self._file = open(self.path, "r+b" if old else "wb", buffering=0)  # noqa: SIM115 - closed by close()
            self._number, self._size = 0, 0
            try:
                if old:
                    self._cut(len(self._starts))
                if not self._size:
                    self._put(form.header)
            except OSError:
                self._file.close()
                raise
        self._continued = not self._starts

    def write(self, caption: Caption, frames: np.ndarray | None = None) -> None:
        self._add(self._form.record(caption, self._number_from(caption.start)))

    def answer(self, record: AnswerRecord) -> None:
        self._add(self._form.answer(record, self._number_from(answer_start(record.at))))

    def _number_from(self, start: float) -> int:
        """The number of the next record, which begins at `start`: the first one replaces what a file held from there on."""
        if self._file.closed:
            raise OutputError(f"{self.path} cannot be written: it has been closed.")
        if not self._continued:
            with writing(self.path):
                self._cut(sum(earlier < start - TOLERANCE for earlier in self._starts))
            self._continued = True
        return self._number + 1

    def _add(self, record: str) -> None:
        if record:
            with writing(self.path):
                self._put(record)
            self._number += 1

    def close(self) -> None:
        with writing(self.path):
            self._file.close()

    def _index(self, old: bytes) -> tuple[list[int], list[float]]:
        """Where the header and each record of an earlier file end, and when each record begins; a torn last one is left out."""
        header, separator = self._form.header.encode(), self._form.separator.encode()
        if not old or header.startswith(old):
            return [0], []
        if not old.startswith(header):
            raise OutputError(f"{self.path} cannot be continued: it does not begin as {self._form.name} does.")
        ends, starts = [len(header)], []
        while (found := old.find(separator, ends[-1])) >= 0:
            try:
                starts.append(self._form.start(old[ends[-1] : found].decode()))
            except ValueError:
                raise OutputError(f"{self.path} cannot be continued: record {len(ends)} is not {self._form.name}.") from None
            ends.append(found + len(separator))
        return ends, starts

    def _cut(self, number: int) -> None:
        """Keeps the header and the first `number` records of the earlier file."""
        self._number, self._size = number, self._ends[number]
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def _put(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        put(self._file, data)
        self._size += len(data)
