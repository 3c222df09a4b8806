"""A tiny random model behind the six verbs."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from svlm_jax.cache.window import WindowConfig
from svlm_jax.errors import StreamError
from svlm_jax.eval import protocols
from svlm_jax.eval.frames import Video
from svlm_jax.eval.interface import View
from svlm_jax.eval.items import Item
from svlm_jax.eval.protocols import Protocol
from svlm_jax.eval.watcher import Watcher
from svlm_jax.streaming.session import StreamingVLM, StreamSettings
from tests import checkpoints, clips
from tests.streaming.streams import chunk

VIEW = View(fps=2.0, seconds=1.0)
WINDOW = WindowConfig(vision=4, text=4, sink=12, tail=16)


@pytest.fixture(scope="module")
def watcher():
    vlm = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    return Watcher(vlm, StreamSettings(window=WINDOW, query=None))


def watch(watcher, start, stop, view=VIEW):
    if start == 0:
        watcher.reset(view)
    said = []
    for i in range(start, stop):
        watcher.feed(chunk(i))
        said.append(watcher.say())
    return said


@pytest.mark.slow
def test_a_question_leaves_no_trace(watcher):
    expected = watch(watcher, 0, 4)
    assert watch(watcher, 0, 2) == expected[:2]
    watcher.feed(chunk(2))
    answers = {watcher.ask("Who?", max_new_tokens=4).text for _ in range(2)}
    assert len(answers) == 1
    assert watcher.say() == expected[2] and watch(watcher, 3, 4) == expected[3:]


def test_a_snapshot_can_be_gone_back_to(watcher):
    expected = watch(watcher, 0, 5)
    watch(watcher, 0, 3)
    saved = watcher.snapshot()
    other = []
    for _ in range(2):
        other.append(watch(watcher, 3, 5))
        watcher.restore(saved)
    assert other[0] == other[1] == expected[3:]


def test_verbs_out_of_order(watcher):
    fresh = Watcher(watcher.vlm)
    with pytest.raises(StreamError, match="expected reset before anything else"):
        fresh.snapshot()
    fresh.reset(VIEW)
    with pytest.raises(StreamError, match="before any video"):
        fresh.ask("Who?", max_new_tokens=4)


@pytest.mark.slow
def test_one_chunk_of_any_length(watcher):
    """A one-shot prefix: the cache holds its frames and the question, whatever the window of the stream."""
    long = dataclasses.replace(chunk(0, count=12), end=30.0)
    watcher.reset(View(fps=12 / 30.0, seconds=30.0, once=True))
    watcher.feed(long)
    answer = watcher.ask("What was seen?", max_new_tokens=4)
    patches = 6 * (56 // 28) * (84 // 28)
    assert answer.tokens > patches and answer.ms > 0


def test_the_future_of_a_real_stream_changes_nothing(watcher, tmp_path):
    """Two videos that differ from 2 s on: answers until then are equal, token for token; the caches differ afterwards."""
    items = [Item(str(time), "", f"Who, at {time} s?", time) for time in (0.7, 1.0, 2.0, 4.0)]
    heard, keys = [], []
    for first in (0, 900):
        folder = tmp_path / str(first)
        folder.mkdir()
        for i in range(10):
            shown = i if i < 4 else first + i
            Image.fromarray(clips.picture(shown, 28, 56)).save(folder / f"{i:02d}.png")
        video = Video(folder, rate=2.0, options={"size": (28, 56)})
        outcomes = list(protocols.play(watcher, video, items, "stream", Protocol(max_new_tokens=4)))
        heard.append([outcome.response for outcome in outcomes])
        keys.append(np.asarray(watcher.snapshot()[0].state.keys[0]))
    assert heard[0][:3] == heard[1][:3] and len(heard[0]) == 4
    assert not np.array_equal(*keys)
