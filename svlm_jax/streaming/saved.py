"""Streams in folders: what `Session` and `QASession` save, and how they come back.

FOLDER/version-…/session.json    format, kind, model, dtype, settings, and where the stream stands
FOLDER/version-…/state           the arrays, by Orbax
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax

from svlm_jax.checkpoint import orbax_io
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError
from svlm_jax.host.files import write_json
from svlm_jax.host.folders import current, replace_folder
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import ListOf, Number, Object, Record, Text, Whole
from svlm_jax.models import registry
from svlm_jax.streaming.settings import StreamSettings, sampling_from_json

if TYPE_CHECKING:
    from svlm_jax.streaming.loaded import LoadedVLM

FORMAT = 3
STREAM = "session.json"
COMMENTARY, QUESTIONS = "commentary", "questions"  # kinds of streams

State = TypeVar("State")


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


def save(folder: str | Path, vlm: "LoadedVLM", kind: str, about: Mapping[str, Any], state: Any) -> None:
    """Writes a stream: `about` as JSON, `state` as arrays.

    An earlier save is replaced in one instant: a process that is killed leaves the one or the other. Raises OutputError when
    the folder holds anything else (`replace_folder`) or cannot be written.
    """
    head = {"format": FORMAT, "kind": kind, "model": registry.config_to_hf(vlm.config), "dtype": vlm.number_format}

    def write(fresh: Path) -> None:
        orbax_io.save(fresh / "state", state)
        write_json(fresh / STREAM, {**head, **about})

    replace_folder(folder, write, is_stream)


def find(folder: str | Path) -> Path:
    """The version of a saved stream that counts. Raises CheckpointError when the folder holds none."""
    version = current(folder)
    if version is None or not is_stream(version):
        raise CheckpointError(f"{folder}: expected a saved stream, a folder that --save-state has written")
    return version


def model_of(vlm: "LoadedVLM") -> tuple[Mapping[str, Any], str, str]:
    """What `read_about` compares a stream with: config.json as JSON gives it back, number format, and name."""
    return json.loads(json.dumps(registry.config_to_hf(vlm.config))), vlm.number_format, vlm.name


def read_about(path: Path, model: Mapping[str, Any], number_format: str, name: str, kind: str) -> Record:
    """The fields of a `session.json`.

    Args:
      model: config.json of the model that is to go on with it, `name` what errors call that.
    Raises:
      CheckpointError: the file is damaged, or of a stream of another kind, model or number format.
    """
    saved = _record(path, kind)
    if (saved.get("model", Object()), saved.get("dtype", Text())) != (model, number_format):
        raise CheckpointError(f"{path}: this stream was saved with another model or number format than {name}, {number_format}")
    return saved


def read_saved(path: Path, model: Mapping[str, Any], number_format: str, name: str) -> SavedStream:
    """The commentary that a `session.json` tells of; see `read_about`."""
    saved = read_about(path, model, number_format, name, COMMENTARY)
    shape = saved.get("clip_shape", ListOf(Whole(least=1, most=2**14), least=4, most=4))
    if shape[1] != 3 or math.prod(shape) > 2**31:
        raise saved.wrong("clip_shape", shape, "frames, 3 channels, height, width")
    return SavedStream(
        settings=_settings(saved),
        sampling=sampling_from_json(saved.get("sampling", Object()), f"{path}, sampling"),
        clip_shape=shape,
        chunks=saved.get("chunks", Whole(least=0)),
        position=saved.get("position", Number(least=0)),
    )


def arrays(version: Path, like: State) -> State:
    """The arrays of a version, in the structure, dtypes and placement of a state."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    loaded: State = orbax_io.load(version / "state", abstract)
    return loaded


def where_saved(folder: str | Path) -> tuple[StreamSettings, Sampling, float]:
    """How a saved commentary is set and samples, and the stream seconds at which it stands: what opening its source needs."""
    saved = _record(find(folder) / STREAM, COMMENTARY)
    sampling = sampling_from_json(saved.get("sampling", Object()), f"{saved.where}, sampling")
    return _settings(saved), sampling, saved.get("position", Number(least=0))


def _record(path: Path, kind: str) -> Record:
    saved = Record(read_object(path, CheckpointError), str(path), CheckpointError)
    if saved.get("format", Whole()) != FORMAT:
        raise CheckpointError(f"{path}: saved in format {saved.get('format', Whole())}, expected {FORMAT}")
    if saved.get("kind", Text()) != kind:
        raise CheckpointError(f"{path}: a stream of kind {saved.get('kind', Text())!r}, expected {kind!r}")
    return saved


def _settings(saved: Record) -> StreamSettings:
    return StreamSettings.from_json(saved.get("settings", Object()), f"{saved.where}, settings")
