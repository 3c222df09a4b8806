"""Shapes that batches may have, for videos of usual sizes under the published resize rule."""

from svlm_jax.data.chunks import Bucket
from svlm_jax.data.clips import PUBLISHED

SOURCES = {"360p": (360, 640), "480p": (480, 854), "720p": (720, 1280)}  # (height, width)
CELL = 28  # pixels that one token of vision stands for, a side
SPOKEN = 40  # tokens of a second besides vision: label, marks, words
BLOCK = 2048


def bucket(source: str, seconds: int, previous: int = 1024) -> Bucket:
    """The bucket of clips of a length: vision of every second, its words, and the text before; rounded up to 2048 tokens."""
    height, width = PUBLISHED.of(SOURCES[source], 2 * seconds)
    tokens = seconds * (height // CELL * (width // CELL) + SPOKEN) + previous + 64
    return Bucket(-(-tokens // BLOCK) * BLOCK, seconds, (height, width))
