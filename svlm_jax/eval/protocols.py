"""How a model is shown what may be seen. Three rows stand beside each other in every result:

    prefix    frames spread over all that may be seen, in one chunk: no memory is needed
    last      the last few frames only, in one chunk: the baseline that many memories do not beat
    stream    second by second through the cache; the question comes when it comes

and for commentary a fourth, `chunked`: the stream begins afresh with every window, with the text that came before it.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from svlm_jax.errors import ConfigError
from svlm_jax.eval import frames
from svlm_jax.eval.answers import yes_no
from svlm_jax.eval.frames import Video
from svlm_jax.eval.interface import Answer, Model, View
from svlm_jax.eval.items import Item
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.video.chunk import Chunk

Row = Literal["prefix", "last", "stream", "chunked"]
ROWS: tuple[Row, ...] = ("prefix", "last", "stream")
POLL = "Is this the right moment to respond, judging by what is seen now? Answer only with Yes or No."


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What the rows have in common.

    Attributes:
      fps: frames a second of a stream. prefix_frames: at most so many, evenly spread. last_frames, last_fps: the last few.
      max_new_tokens: of an answer. query: standing instruction of a commentator.
      previous: of chunked commentary: the human's words before each chunk ("truth"), or the model's own ("own").
    """

    fps: float = 2.0
    prefix_frames: int = 64
    last_frames: int = 4
    last_fps: float = 1.0
    max_new_tokens: int = 16
    query: str | None = None
    previous: Literal["truth", "own"] = "truth"

    def __post_init__(self) -> None:
        for name in ("fps", "last_fps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: expected more than 0")
        if self.fps > PUBLISHED.grid_frames and self.fps % PUBLISHED.grid_frames:
            raise ConfigError(f"fps={self.fps}: expected at most 2, or an even number, because frames are read in pairs")
        for name in ("prefix_frames", "last_frames"):
            if getattr(self, name) < PUBLISHED.grid_frames or getattr(self, name) % PUBLISHED.grid_frames:
                raise ConfigError(f"{name}={getattr(self, name)}: expected an even number, because frames are read in pairs")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens}: expected 1 or more")
        if self.previous not in ("truth", "own"):
            raise ConfigError(f"previous={self.previous!r}: expected truth or own")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one item.

    Attributes:
      response: the answer, or all that was said. said: commentary as (start, end, text) a chunk, in stream seconds.
      at: of proactive items: the second at which the model said yes, None if never.
      answer: tokens and time of the answer, for the report.
    """

    item: Item
    response: str
    said: tuple[tuple[float, float, str], ...] = ()
    at: float | None = None
    answer: Answer = Answer("")  # noqa: RUF009 (frozen)


def groups(items: Sequence[Item], row: Row) -> list[list[Item]]:
    """Items that one stream can serve, in the order of their times; one each where nothing is remembered between them."""
    served: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        alone = row in ("prefix", "last") or item.kind == "proactive"
        key: tuple[object, ...] = (item.id,) if alone else (item.video, item.kind, begin(item, row))
        if row == "chunked" and item.kind == "commentary":
            key = (item.video, item.kind)
        served.setdefault(key, []).append(item)
    return [sorted(group, key=lambda item: (moment(item), item.start)) for group in served.values()]


def begin(item: Item, row: Row) -> float:
    """Where the stream of an item begins."""
    return item.origin if row == "stream" and item.origin is not None else item.start


def moment(item: Item) -> float:
    return math.inf if item.time is None else item.time


def told(item: Item) -> bool:
    """Whether the stream that an item belongs to has begun by then: earlier windows of a game have no commentary."""
    return item.origin is None or item.start >= item.origin


def play(
    model: Model, video: Video, group: Sequence[Item], row: Row, protocol: Protocol, *, own: str = ""
) -> Iterator[Outcome]:
    """Shows one group of items to the model, and yields what comes of each as soon as it is known.

    own: what the model said in the windows before these, of chunked commentary that goes on with its own words.
    Raises SourceError when the video cannot be read. Items that nothing may be seen of yield nothing.
    """
    group = [item for item in group if told(item)]
    if not group:
        return
    kind = group[0].kind
    if kind == "proactive":
        yield from (_proactive(model, video, item, row, protocol) for item in group)
    elif kind == "commentary" and row != "prefix":
        yield from _commentate(model, video, group, row, protocol, own)
    elif row in ("prefix", "last"):
        for item in group:
            answer = _one_shot(model, video, item, moment(item), item.question, row, protocol)
            if answer is not None:
                yield Outcome(item, answer.text, answer=answer)
    else:
        yield from _answers(model, video, group, protocol)


# --------------------------------------------------------------------------------------------- questions


def _one_shot(model: Model, video: Video, item: Item, end: float, question: str, row: Row, protocol: Protocol) -> Answer | None:
    """The answer to a question about [start, end), shown in one chunk; None if there is nothing to see."""
    if row == "prefix":
        chunk = frames.spread(video, item.start, end, most=protocol.prefix_frames, fps=protocol.fps)
    else:
        chunk = frames.last(video, item.start, end, count=protocol.last_frames, fps=protocol.last_fps)
    if chunk is None:
        return None
    length = chunk.end - chunk.start
    model.reset(View(len(chunk.frames) / length, length, once=True, previous=item.previous))
    model.feed(chunk)
    return model.ask(question, max_new_tokens=protocol.max_new_tokens)


def _answers(model: Model, video: Video, group: Sequence[Item], protocol: Protocol) -> Iterator[Outcome]:
    """One stream, and every question at its moment. A moment inside a chunk is asked on what the chunk shows before it."""
    start, stop = group[0].start, max(moment(item) for item in group)
    model.reset(_view(video, start, stop, protocol))
    waiting, shown = list(group), False

    def ask(item: Item) -> Outcome:
        answer = model.ask(item.question, max_new_tokens=protocol.max_new_tokens)
        return Outcome(item, answer.text, answer=answer)

    for chunk in frames.seconds(video, start, stop, fps=protocol.fps):
        due = [item for item in waiting if moment(item) <= chunk.end]
        waiting = waiting[len(due) :]
        views = [(item, frames.cut(chunk, moment(item))) for item in due]
        for item, seen in views:
            if seen is None and shown:
                yield ask(item)
            elif seen is not None and seen is not chunk:
                saved = model.snapshot()
                model.feed(seen)
                yield ask(item)
                model.restore(saved)
        if not waiting and not any(seen is chunk for _, seen in views):
            return
        model.feed(chunk)
        shown = True
        for item, seen in views:
            if seen is chunk:
                yield ask(item)
    if shown:  # the video is shorter than the annotation says, or the question comes at its end
        yield from (ask(item) for item in waiting)


def _proactive(model: Model, video: Video, item: Item, row: Row, protocol: Protocol) -> Outcome:
    """From `time` to `until` the model is asked every second whether it is time to respond, until it says yes."""
    polls = [dataclasses.replace(item, time=at) for at in _polls(item)]
    question = f"{item.question}\n{POLL}"
    if row in ("prefix", "last"):
        for poll in polls:
            said = _one_shot(model, video, poll, moment(poll), question, row, protocol)
            if said is not None and yes_no(said.text) == "Yes":
                answer = _one_shot(model, video, poll, moment(poll), item.question, row, protocol)
                assert answer is not None  # the poll saw something
                return Outcome(item, answer.text, at=poll.time, answer=answer)
        return Outcome(item, "")
    polling = [dataclasses.replace(poll, question=question) for poll in polls]
    for outcome in _answers(model, video, polling, protocol):
        if yes_no(outcome.response) == "Yes":  # the stream stands where it was asked
            answer = model.ask(item.question, max_new_tokens=protocol.max_new_tokens)
            return Outcome(item, answer.text, at=outcome.item.time, answer=answer)
    return Outcome(item, "")


def _polls(item: Item) -> Iterator[float]:
    for step in itertools.count():
        at = moment(item) + step
        if at > item.until:
            return
        yield at


# --------------------------------------------------------------------------------------------- commentary


def _commentate(model: Model, video: Video, group: Sequence[Item], row: Row, protocol: Protocol, own: str) -> Iterator[Outcome]:
    """Speaks second by second. `stream` never begins afresh, `chunked` does with every item, `last` with every second."""
    if row == "stream":
        first = group[0]
        previous = first.previous if first.origin is None else first.opening
        said = _speak(model, video, begin(first, row), moment(group[-1]), previous, first, protocol)
        yield from _windows(group, said)
        return
    for item in group:
        previous = item.previous
        if row == "chunked" and protocol.previous == "own" and own:
            previous = own
        if row == "last":
            said = _forgetful(model, video, item, protocol)
        else:
            said = _speak(model, video, item.start, moment(item), previous, item, protocol)
        for outcome in _windows([dataclasses.replace(item, origin=None)], said):
            outcome = dataclasses.replace(outcome, item=item)
            own = f"{own} {outcome.response}".strip()
            yield outcome


Said = tuple[float, float, str]


def _speak(
    model: Model, video: Video, start: float, stop: float, previous: str, item: Item, protocol: Protocol
) -> Iterator[Said]:
    view = _view(video, start, stop, protocol)
    model.reset(dataclasses.replace(view, previous=previous, query=item.question or protocol.query))
    for chunk in frames.seconds(video, start, stop, fps=protocol.fps):
        model.feed(chunk)
        yield chunk.start, chunk.end, model.say()


def _forgetful(model: Model, video: Video, item: Item, protocol: Protocol) -> Iterator[Said]:
    """Commentary by a model that sees the last few frames anew every second, and remembers nothing."""
    recent = np.empty(0)
    for chunk in frames.seconds(video, item.start, moment(item), fps=protocol.fps):
        recent = chunk.frames if not recent.size else np.concatenate([recent, chunk.frames])[-protocol.last_frames :]
        length = len(recent) / protocol.fps
        query = item.question or protocol.query
        model.reset(View(protocol.fps, length, once=True, previous=item.previous, query=query))
        model.feed(Chunk(recent, max(0.0, chunk.end - length), chunk.end))
        yield chunk.start, chunk.end, model.say()


def _windows(group: Sequence[Item], said: Iterator[Said]) -> Iterator[Outcome]:
    """What was said in the window of each item, as soon as the window is over.

    Windows of one long stream are (start, time], and a line belongs to the whole second it ends in, as in the published
    scorer; a stream that is one item's alone is its window.
    """
    lines: list[Said] = []
    waiting = list(group)
    for line in said:
        lines.append(line)
        while waiting and moment(waiting[0]) <= line[1]:
            yield from _window(waiting.pop(0), lines)
    for item in waiting:
        yield from _window(item, lines)


def _window(item: Item, lines: Sequence[Said]) -> Iterator[Outcome]:
    mine = tuple(line for line in lines if item.origin is None or item.start < int(line[1]) <= moment(item))
    if mine:
        yield Outcome(item, " ".join(text for _, _, text in mine if text), said=mine)


def _view(video: Video, start: float, stop: float, protocol: Protocol) -> View:
    end = min(stop, video.span()[1])
    return View(protocol.fps, max(1.0, video.resize.grid_frames / protocol.fps), duration=max(end - start, 1.0))
