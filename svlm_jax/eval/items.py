"""One question, or one stretch of commentary, of a published benchmark; and what a grade of it is."""

import dataclasses
from typing import Literal

Kind = Literal["question", "proactive", "commentary"]


@dataclasses.dataclass(frozen=True)
class Item:
    """What is asked, when, and what may be seen by then.

    Attributes:
      id: unique in its benchmark.
      video: a path below the data folder: a file, or a folder of numbered pictures.
      question: everything the model is told besides the video, options included.
      time: stream seconds; nothing at or after it may be seen. None = the end of the video.
      start: the first second that may be seen.
      kind: "question" is asked once at `time`; "proactive" is asked every second from `time` on until `until`;
        "commentary" is spoken from `start` to `time`, and `answer` is what a human said.
      options: without letters. answer: a letter for options, else the text, the number, or "Yes" or "No".
      task, track: where the score goes.
      previous: commentary before `start`. origin, opening: of windows of one long stream: where it begins, and the commentary
        before that; None = at `start`.
      until, due: of proactive items: the last second that is asked, and the second at which the answer is due.
      title: of the video. event: the join key of published predictions, "" if there are none.
      fps: of a folder of pictures.
    """

    id: str
    video: str
    question: str
    time: float | None
    start: float = 0.0
    kind: Kind = "question"
    options: tuple[str, ...] = ()
    answer: str = ""
    task: str = ""
    track: str = ""
    previous: str = ""
    origin: float | None = None
    opening: str = ""
    until: float = 0.0
    due: float = 0.0
    title: str = ""
    event: str = ""
    fps: float | None = None


@dataclasses.dataclass(frozen=True)
class Grade:
    """Points of one answer, 0 to 1.

    Attributes:
      official: as the benchmark's own scorer gives them. strict: as a reader would, see `answers`.
      parsed: whether the strict reading found an answer at all.
    """

    official: float
    strict: float
    parsed: bool
