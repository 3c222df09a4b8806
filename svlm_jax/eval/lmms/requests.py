"""What a request of lmms-eval shows and asks: chat messages with one video, or with pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.host.schema import Number, Record

SECONDS = Number(least=0, most=1e9, digits=True)
LONGEST = 128  # tokens of an answer, where a task does not say


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
      question: all texts of the conversation, in their order.
      video: path of the video, "" if there are pictures. start, end: the part of it that is shown, in seconds; None = its end.
      pictures: PIL images, or paths of some.
      max_new_tokens: of the answer. until: texts before which it ends.
    """

    question: str
    video: str = ""
    start: float = 0.0
    end: float | None = None
    pictures: tuple[Any, ...] = ()
    max_new_tokens: int = LONGEST
    until: tuple[str, ...] = ()


def asked(messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Asked:
    """A request from its messages, {"role", "content": [{"type", "text" or "url"}]}, and the task's generation settings.

    Answers are always greedy, whatever temperature the settings name. Raises EvalError for what a video model cannot be shown.
    """
    parts = [part for message in messages for part in _content(message)]
    shown: dict[str, list[Mapping[str, Any]]] = {"text": [], "video": [], "image": []}
    for part in parts:
        if part["type"] not in shown:
            raise EvalError(f"a task shows {part['type']}: expected text with one video, or with pictures.")
        shown[part["type"]].append(part)
    videos, pictures = shown["video"], shown["image"]
    if len(videos) + bool(pictures) != 1:
        raise EvalError(
            f"a task shows {len(videos)} videos and {len(pictures)} pictures at once: expected one video, or pictures only."
        )
    until = settings.get("until") or ()
    return Asked(
        "\n".join(str(part["text"]) for part in shown["text"]),
        **(_video(videos[0]) if videos else {"pictures": tuple(part["url"] for part in pictures)}),
        max_new_tokens=int(settings.get("max_new_tokens") or LONGEST),
        until=(until,) if isinstance(until, str) else tuple(until),
    )


def _content(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _video(part: Mapping[str, Any]) -> dict[str, Any]:
    """Path and part of a video; some tasks put both where the path should be."""
    url = part["url"]
    if isinstance(url, Mapping):
        where = {"start_time": url.get("video_start"), "end_time": url.get("video_end")}
        part = {"url": url.get("url") or url.get("path"), **where}
    if not isinstance(part["url"], str):
        raise EvalError(f"a task gives a video as {type(part['url']).__name__}: expected the path of a file.")
    times = Record(part, "the video of a task", EvalError)
    return {"video": part["url"], "start": times.get("start_time", SECONDS, 0.0), "end": times.get("end_time", SECONDS, None)}
