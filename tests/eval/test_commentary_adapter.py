"""A tiny random model behind the six verbs."""

import dataclasses

import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.errors import StreamError
from svlm_jax.eval.commentary_adapter import CommentaryAdapter
from svlm_jax.eval.interface import View
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from tests import checkpoints
from tests.streaming.streams import chunk

VIEW = View(fps=2.0, seconds=1.0)
WINDOW = WindowConfig(vision=4, text=4, sink=12, tail=16)


@pytest.fixture(scope="module")
def watcher():
    vlm = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    return CommentaryAdapter(vlm, StreamSettings(window=WINDOW, query=None))


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


@pytest.mark.slow
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
    fresh = CommentaryAdapter(watcher.vlm)
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
