"""Small streams for tests: the golden checkpoint, random frames, and a window that closes within a few seconds."""

import functools
import pathlib

import numpy as np

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
WINDOW = WindowConfig(vision=4, text=4, sink=12, tail=16)
SETTINGS = StreamSettings(window=WINDOW, query="Go on.", previous_text="It was a quiet night.", seed=7)


@functools.cache
def model(folder: str = "streamingvlm") -> StreamingVLM:
    return StreamingVLM.from_pretrained(GOLDEN / folder / "checkpoint", dtype="float32")


def sampling(**changes) -> Sampling:
    """Sampling that speaks (ids of the prompt's own vocabulary are suppressed), random unless changed."""
    return Sampling.from_generation_config(model().checkpoint.generation_config, **changes)


def frames(index: int, *, seed: int = 0, size: tuple[int, int] = (56, 84), count: int = 2) -> np.ndarray:
    """The clip of chunk `index`: noise, so that every pixel matters."""
    return np.random.default_rng([seed, index]).integers(0, 256, (count, 3, *size), np.uint8)


def chunk(index: int, *, seconds: float = 1.0, **picture) -> Chunk:
    return Chunk(frames=frames(index, **picture), start=index * seconds, end=(index + 1) * seconds)


def run(session: Session, start: int, stop: int, **picture) -> list[tuple[int, ...]]:
    """Feeds chunks start..stop-1 and returns the tokens of each."""
    return [session.feed(chunk(i, **picture)).tokens for i in range(start, stop)]
