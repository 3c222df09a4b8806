"""What a saved stream says about itself: the `session.json` beside the arrays of its state."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import ListOf, Number, Object, Record, Text, Whole
from svlm_jax.streaming.settings import StreamSettings, sampling_from_json

FORMAT = 2
STREAM = "session.json"


@dataclasses.dataclass(frozen=True)
class SavedStream:
    """How a stream was set, and how far it was.

    Attributes:
      clip_shape: (F, 3, height, width) of the first chunk, which decided the size of the cache.
      chunks: since it began. position: stream seconds watched.
    """

    settings: StreamSettings
    sampling: Sampling
    clip_shape: tuple[int, ...]
    chunks: int
    position: float


def is_stream(version: Path) -> bool:
    """Whether a folder holds a saved stream, and may be replaced by another."""
    return (version / STREAM).is_file()


def read_saved(path: Path, model: Mapping[str, Any], dtype: str, name: str) -> SavedStream:
    """The stream that a `session.json` tells of.

    Args:
      model: config.json of the model that is to go on with it, `name` what errors call that.
    Raises:
      CheckpointError: the file is damaged, or of a stream of another model or dtype.
    """
    saved = Record(read_object(path, CheckpointError), str(path), CheckpointError)
    if saved.get("format", Whole()) != FORMAT:
        raise CheckpointError(f"{path}: saved in format {saved.get('format', Whole())}, expected {FORMAT}")
    if (saved.get("model", Object()), saved.get("dtype", Text())) != (model, dtype):
        raise CheckpointError(f"{path}: this stream was saved with another model or dtype than {name}, {dtype}")
    shape = saved.get("clip_shape", ListOf(Whole(least=1, most=2**14), least=4, most=4))
    if shape[1] != 3 or math.prod(shape) > 2**31:
        raise saved.wrong("clip_shape", shape, "frames, 3 channels, height, width")
    return SavedStream(
        settings=StreamSettings.from_json(saved.get("settings", Object()), f"{path}, settings"),
        sampling=sampling_from_json(saved.get("sampling", Object()), f"{path}, sampling"),
        clip_shape=shape,
        chunks=saved.get("chunks", Whole(least=0)),
        position=saved.get("position", Number(least=0)),
    )
