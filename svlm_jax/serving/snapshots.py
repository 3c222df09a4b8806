"""Streams on disk: one folder a stream, replaced whole, so that a kill at any instant leaves the newest complete one.

    ROOT/<hash of the stream's id>/      stream.json: options, position, chunks, when it was saved
                                         state/: the lane's value (Orbax)

The id of a stream is its client's key, so it stands in no name and no file.
"""

import dataclasses
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from svlm_jax.checkpoint import orbax_io
from svlm_jax.errors import CheckpointError, SvlmError
from svlm_jax.host.files import write_json
from svlm_jax.host.folders import current, replace_folder
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import Choice, Kind, Nullable, Number, Object, Record, Text, Whole
from svlm_jax.serving.stream import Late, StreamOptions
from svlm_jax.streaming.settings import sampling_from_json, window_from_json

logger = logging.getLogger(__name__)

FORMAT = 1
LAYOUT = "stream.json"
_OPTIONS: Mapping[str, Kind[Any]] = {
    "system": Text(),
    "query": Nullable(Text()),
    "window": Object(),
    "sampling": Object(),
    "previous_text": Text(),
    "late": Choice(get_args(Late)),
    "seed": Whole(),
}


class Snapshots:
    """A folder of saved streams.

    Args:
      root: the folder; shared storage lets another worker go on with a stream.
      like: the shapes of a lane's state (`jax.ShapeDtypeStruct` leaves) that saved ones must have.
      fingerprint: of the model and the settings that a state belongs to.
      keep_seconds: older snapshots are deleted.
    """

    def __init__(self, root: Path, *, like: Callable[[], Any], fingerprint: str, keep_seconds: float = 86_400.0) -> None:
        self.root, self._like, self._fingerprint, self._keep = root, like, fingerprint, keep_seconds
        root.mkdir(parents=True, exist_ok=True)
        self.prune()

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Saves a stream, replacing its last snapshot.

        OSError when the disk refuses; the last snapshot then stands, as it does when it is further than this one: another
        worker has gone on with the stream (CheckpointError).
        """
        if (folder := current(self._folder(name))) is not None and self._chunks(folder) > value["chunks"]:
            raise CheckpointError("another worker has gone on with this stream: expected no older snapshot of it")
        about = {
            "format": FORMAT,
            "fingerprint": self._fingerprint,
            "options": dataclasses.asdict(value["options"]),
            "position": value["position"],
            "chunks": value["chunks"],
            "saved_at": value["saved_at"],
        }

        def write(fresh: Path) -> None:
            orbax_io.save(fresh / "state", value["state"])
            write_json(fresh / LAYOUT, about)

        replace_folder(self._folder(name), write, lambda folder: (folder / LAYOUT).is_file())

    def read(self, name: str) -> dict[str, Any] | None:
        """The newest snapshot of a stream, None when there is none that this server can go on with."""
        folder = current(self._folder(name))
        if folder is None:
            return None
        try:
            about = Record(read_object(folder / LAYOUT, CheckpointError), str(folder / LAYOUT), CheckpointError)
            if (about.get("format", Whole()), about.get("fingerprint", Text())) != (FORMAT, self._fingerprint):
                logger.warning("a snapshot was made by another model or other settings, and is left alone")
                return None
            return {
                "position": about.get("position", Number(least=0)),
                "chunks": about.get("chunks", Whole(least=0)),
                "saved_at": about.get("saved_at", Number(least=0)),
                "options": options_from_json(about.get("options", Object()), about.where),
                "state": orbax_io.load(folder / "state", self._like()),
            }
        except SvlmError as error:
            logger.warning("a snapshot cannot be read: %s", error)
            return None

    @staticmethod
    def _chunks(folder: Path) -> int:
        try:
            about = Record(read_object(folder / LAYOUT, CheckpointError), str(folder / LAYOUT), CheckpointError)
            return about.get("chunks", Whole(least=0))
        except CheckpointError:
            return 0

    def delete(self, name: str) -> None:
        """Forgets a stream."""
        shutil.rmtree(self._folder(name), ignore_errors=True)

    def prune(self) -> None:
        """Deletes snapshots that nobody came back for."""
        for folder in self.root.iterdir():
            try:
                if time.time() - folder.stat().st_mtime > self._keep:
                    shutil.rmtree(folder, ignore_errors=True)
            except FileNotFoundError:
                continue

    def _folder(self, name: str) -> Path:
        return self.root / hashlib.sha256(name.encode()).hexdigest()[:32]


def options_from_json(data: Any, where: str) -> StreamOptions:
    """The options that `dataclasses.asdict` wrote; CheckpointError when they are none."""
    given = Record(data, where, CheckpointError).fields(_OPTIONS)
    missing = sorted({"system", "window", "sampling"} - set(given))
    if missing:
        raise CheckpointError(f"{where}: it lacks {missing[0]}")
    window = window_from_json(given["window"], f"{where}, window")
    sampling = sampling_from_json(given["sampling"], f"{where}, sampling")
    return StreamOptions(**{"query": None, **given, "window": window, "sampling": sampling})
