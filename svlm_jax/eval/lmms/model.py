"""A streaming model behind the interface of lmms-eval. Imported by lmms-eval only."""

import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from PIL import Image

from svlm_jax.cache.policies import POLICIES, memory_policy
from svlm_jax.errors import ConfigError, EvalError, SourceError, StreamError
from svlm_jax.eval import protocols
from svlm_jax.eval.commentary_adapter import CommentaryAdapter
from svlm_jax.eval.frames import Video
from svlm_jax.eval.interface import Model
from svlm_jax.eval.items import Item
from svlm_jax.eval.lmms.requests import Asked, asked
from svlm_jax.eval.protocols import ROWS, Outcome, Protocol, Row
from svlm_jax.eval.qa_adapter import QAAdapter
from svlm_jax.host.progress import loading
from svlm_jax.streaming.vlm import StreamingVLM

logger = logging.getLogger(__name__)


class Svlm(lmms):
    """Answers tasks of one video, or of pictures, as a row of `svlm eval` would; questions about one video share a stream.

    Args, after `--model_args`:
      pretrained: a checkpoint folder, a hub id, or "embedded". revision, dtype: of it.
      row: "stream", "prefix" or "last", see `protocols`.
      fps, prefix_frames, last_frames, last_fps: of the row, see `Protocol`.
      recall, budget: answer from a memory of this policy and size, see `cache.policies`; None = from the model's own window.
      max_pixels: of a frame; None = as trained.
      batch_size, max_batch_size, device: given by lmms-eval. One request comes after the other, on the device that JAX sees.

    Pictures are a video of a second each, in which all have the size of the first.
    """

    is_simple = False  # requests hold chat messages

    def __init__(
        self,
        pretrained: str,
        revision: str | None = None,
        dtype: str = "auto",
        row: Row = "stream",
        recall: str | None = None,
        budget: int | None = None,
        max_pixels: int | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **protocol: Any,
    ) -> None:
        super().__init__()
        if row not in ROWS:
            raise ConfigError(f"row={row!r}: expected one of {', '.join(ROWS)}")
        if str(batch_size) != "1":
            raise ConfigError(f"batch_size={batch_size}: expected 1, a stream is watched by itself")
        if recall is not None and recall not in POLICIES:
            raise ConfigError(f"recall={recall!r}: expected one of {', '.join(POLICIES)}")
        names = ("fps", "prefix_frames", "last_frames", "last_fps")
        for name in protocol:
            if name not in names:
                raise ConfigError(f"model argument {name}: expected one of {', '.join(names)}")
        self._row, self._protocol = row, Protocol(**protocol)
        self._memory = None if recall is None else memory_policy(recall, budget=budget)
        vlm = StreamingVLM.from_pretrained(pretrained, dtype=dtype, revision=revision)
        self._watcher = CommentaryAdapter(vlm, revision=revision)
        self._resize = self._watcher.vlm.resize_rule(max_pixels)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer for each request. What cannot be shown or asked has the answer "", and is told as a warning."""
        found = [dataclasses.replace(self._asked(request), pictures=()) for request in requests]  # pictures are large
        answers = [""] * len(requests)
        told = itertools.chain(self._about_videos(found), self._about_pictures(found, requests))
        with loading("answers") as progress:
            for done, (number, text) in enumerate(told, 1):
                answers[number] = _until(text, found[number].until)
                progress(done, len(requests))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise EvalError("a task asks for likelihoods: expected tasks of generate_until.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise EvalError("a task has several rounds: expected tasks of generate_until.")

    def _asked(self, request: Any) -> Asked:
        _, doc_to_messages, settings, doc, task, split = request.args
        return asked(doc_to_messages(self.task_dict[task][split][doc]), settings)

    def _about_videos(self, found: Sequence[Asked]) -> Iterator[tuple[int, str]]:
        """(number, answer) of requests about videos, those about the same video together."""
        for most in sorted({one.max_new_tokens for one in found}):
            protocol = dataclasses.replace(self._protocol, max_new_tokens=most)
            items = [_item(i, one) for i, one in enumerate(found) if one.video and one.max_new_tokens == most]
            for group in protocols.groups(items, self._row):
                yield from self._play(Video(Path(group[0].video), resize=self._resize), group, protocol)

    def _about_pictures(self, found: Sequence[Asked], requests: Sequence[Any]) -> Iterator[tuple[int, str]]:
        for number, one in enumerate(found):
            if not one.video:
                protocol = dataclasses.replace(self._protocol, fps=2.0, last_fps=2.0, max_new_tokens=one.max_new_tokens)
                with tempfile.TemporaryDirectory() as folder:
                    video = Video(_written(self._asked(requests[number]).pictures, Path(folder)), 1.0, self._resize)
                    yield from self._play(video, [_item(number, one)], protocol)

    def _play(self, video: Video, group: Sequence[Item], protocol: Protocol) -> Iterator[tuple[int, str]]:
        left = {item.id for item in group}
        why = "nothing of the video may be seen"
        try:
            for outcome in self._outcomes(video, group, protocol):
                left.remove(outcome.item.id)
                yield int(outcome.item.id), outcome.response
        except (ConfigError, SourceError, StreamError) as error:
            why = str(error)
        for name in sorted(left, key=int):
            logger.warning("request %s has no answer: %s", name, why)
            yield int(name), ""

    def _outcomes(self, video: Video, group: Sequence[Item], protocol: Protocol) -> Iterator[Outcome]:
        model: Model = self._watcher
        if self._memory is not None:
            model = QAAdapter(self._watcher, self._memory, max_new_tokens=protocol.max_new_tokens)
        return protocols.play(model, video, group, self._row, protocol)


def _item(number: int, one: Asked) -> Item:
    return Item(str(number), one.video, one.question, one.end, start=one.start)


def _written(pictures: Sequence[Any], folder: Path) -> Path:
    """Pictures as files, in their order."""
    for number, picture in enumerate(pictures):
        opened = Image.open(picture) if isinstance(picture, str) else picture
        opened.convert("RGB").save(folder / f"{number:05d}.png")
    return folder


def _until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text
