"""A session opens its source as its model sees it, and refuses what it was not trained to see."""

import dataclasses

import numpy as np
import pytest

from svlm_jax.errors import StreamError
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.source import open_source
from tests import checkpoints, clips


@pytest.fixture(scope="module")
def vlm():
    """The shape and the block "svlm" of the model in this package: trained on 9,408 pixels a frame."""
    return StreamingVLM.from_pretrained(checkpoints.match(), dtype="float32")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clips.render(tmp_path_factory.mktemp("open") / "clip.mp4", frames=48, rate=8, size=(240, 320))


def shape(source):
    with source:
        chunk = next(source)
        return chunk.frames.shape, chunk.end - chunk.start


def test_a_model_opens_videos_at_the_size_that_it_was_trained_on(vlm, clip):
    assert vlm.most_pixels == vlm.resize_rule().max_pixels == 9408
    assert shape(vlm.open(clip)) == ((2, 3, 84, 112), 1.0)
    with open_source(clip) as plain:
        assert next(plain).frames.shape[-2:] == (252, 336), "which is not what a source does by itself"


def test_a_session_opens_with_its_own_rate_and_chunk_and_goes_on_where_it_stands(vlm, clip):
    session = vlm.stream(fps=1.0, chunk_seconds=2.0)
    assert shape(session.open(clip)) == ((2, 3, 84, 112), 2.0)
    session.position = 4.0
    with session.open(clip, pace="fast") as source:
        assert next(source).start == 4.0
    assert shape(vlm.stream(max_pixels=4704).open(clip))[0][-2:] == (56, 56)


@pytest.mark.parametrize("kind", ["stream", "qa_session"])
def test_larger_frames_are_refused_in_a_sentence(kind, vlm):
    frames = np.zeros((2, 3, 224, 308), np.uint8)
    with pytest.raises(StreamError, match=r"frames of 224x308 pixels at 3 s: .* at most 9,408 pixels .*`vlm.open`"):
        getattr(vlm, kind)().feed(Chunk(frames, 3.0, 4.0))
    session = getattr(vlm, kind)(max_pixels=224 * 308)
    session.begin(Chunk(frames, 3.0, 4.0))  # who asks for it gets it
    assert session.config is not None


def test_later_frames_are_refused_too(vlm):
    session = vlm.stream()
    session.begin(Chunk(np.zeros((2, 3, 28, 28), np.uint8), 0.0, 1.0))
    with pytest.raises(StreamError, match="at most 9,408 pixels"):
        session.feed(Chunk(np.zeros((2, 3, 224, 308), np.uint8), 0.0, 1.0))


def test_a_model_that_says_nothing_takes_any_size():
    tiny = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    session = tiny.stream(window=dataclasses.replace(tiny.defaults.window, vision=1, text=1))
    session.begin(Chunk(np.zeros((2, 3, 560, 560), np.uint8), 0.0, 1.0))
    assert tiny.most_pixels is None


def test_a_character_that_a_reply_was_cut_in_is_left_out():
    """The tokenizer has a token a byte, so any limit may cut a character; the next reply may begin with the rest of it."""
    tokenizer = Tokenizer(checkpoints.tiny() / "tokenizer.json")
    ids = tokenizer.encode("Tor für Köln ⚽")
    texts = [tokenizer.decode_reply(ids[:count]) for count in range(len(ids) + 1)]
    assert any("\ufffd" in tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)), "which it did"
    assert all("\ufffd" not in text for text in texts) and texts[-1] == "Tor für Köln ⚽"
    assert all("Tor für Köln ⚽".startswith(text) for text in texts)
    assert tokenizer.decode_reply(ids[-1:]) == ""


def test_captions_and_answers_leave_it_out(vlm):
    tiny = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    ids = tuple(tiny.tokenizer.encode("Köln")[:2])
    assert tiny.tokenizer.decode(ids).endswith("\ufffd") and tiny.stream().text(ids) == "K"
