"""Shapes that batches may have: the published resize rule and its budget of pixels, for videos of usual proportions."""

from svlm_jax.data.chunks import Bucket
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.video.resize import smart_resize

WIDE = ((360, 640), (480, 854), (720, 1280))  # (height, width); larger videos become what 720p becomes
OTHERS = ((480, 640), (480, 480), (640, 480), (854, 480))  # 4:3, square, 3:4, 9:16
SPOKEN = 40  # tokens of a second besides vision: label, marks, words
BLOCK = 2048


def bucket(source: tuple[int, int], seconds: int, previous: int = 1024) -> Bucket:
    """The bucket of clips of a length: vision of every second, its words, and the text before; rounded up to 2048 tokens."""
    height, width = smart_resize(*source, PUBLISHED.for_clip(2 * seconds))
    tokens = seconds * (height * width // PUBLISHED.factor**2 + SPOKEN) + previous + 64
    return Bucket(-(-tokens // BLOCK) * BLOCK, seconds, (height, width))


def buckets(*seconds: int) -> tuple[Bucket, ...]:
    """16:9 videos at each size and for each length; other proportions, which are rare, at 480p and for the longest only.

    Every shape is a program to compile. A video of yet another size gets the closest one, and keeps its proportions.
    """
    wide = (bucket(source, length) for source in WIDE for length in seconds)
    return (*wide, *(bucket(source, max(seconds)) for source in OTHERS))
