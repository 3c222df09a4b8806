"""The proof that training shows the model what streaming does: the same logits for the same words."""

import jax
import numpy as np
import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.data import chunks
from svlm_jax.data.chunks import ChunkBuilder, ChunkSettings, Turn
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic import Match
from svlm_jax.video.chunk import Chunk
from tests.checkpoints import tiny

SIZE = (84, 112)
PREVIOUS = "blue kickoff score 0-0 red steal onyx"
QUERY, SINK, TAIL = "Tell.", 9, 12
WORDS = 6  # tokens that the random model says a second; it never ends a reply itself


@pytest.mark.parametrize(
    ("family", "size"),
    [("qwen2_5_vl", SIZE), *(pytest.param(name, (64, 96), marks=pytest.mark.slow) for name in ("qwen3_vl", "qwen3_vl_moe"))],
)
def test_a_sample_has_the_logits_of_the_stream(monkeypatch, family, size):
    vlm = StreamingVLM.from_pretrained(tiny(family), dtype="float32")
    sampling = Sampling.from_generation_config(
        vlm.checkpoint.generation_config, temperature=0.0, repetition_penalty=1.0, max_new_tokens=WORDS
    )
    window = WindowConfig(sink=SINK, tail=TAIL)
    session = vlm.stream(
        StreamSettings(window=window, query=QUERY, previous_text=PREVIOUS, sampling=sampling, keep_logits=True, duration=8)
    )
    seconds = Match(seed=3).seconds(10, start=6)
    frames = np.stack([Match().frames(second) for second in seconds]).transpose(0, 1, 4, 2, 3)[..., : size[0], : size[1]]
    said, streamed = [], []
    for number, clip in enumerate(frames):
        said.append(session.feed(Chunk(clip, float(number), number + 1.0)).tokens)
        streamed.append(np.asarray(session.last.logits[0][:WORDS]))

    monkeypatch.setattr(chunks, "MARKER", "")  # replies that hit the cap have none
    build = ChunkBuilder(vlm.tokenizer.encode, vlm.config, ChunkSettings(sink=SINK, tail=TAIL, query=QUERY))
    spoken = [
        Turn(number, number + 1, vlm.tokenizer.decode(tokens), query="" if number else QUERY)
        for number, tokens in enumerate(said)
    ]
    sample = build.build(PREVIOUS, spoken, np.ascontiguousarray(frames))
    places = np.flatnonzero(sample.labels != chunks.IGNORED).reshape(len(frames), WORDS + 1)[:, :WORDS]
    assert sample.tokens[places].tolist() == [list(tokens) for tokens in said]  # the text gives the same tokens again

    @jax.jit
    def logits(params, tokens, positions, frames):
        model = functional.bind(vlm.config, params)
        return model(tokens, positions, jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), model.encode_video(frames)))[0]

    whole = np.asarray(logits(vlm.params, sample.tokens[None], sample.positions[None], sample.frames))
    np.testing.assert_allclose(whole[places - 1], np.stack(streamed), atol=2e-4)
