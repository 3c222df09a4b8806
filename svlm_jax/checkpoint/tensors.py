"""Tensors of safetensors files as memory-mapped numpy views, in any dtype, read only where they are touched.

The safetensors package reads bfloat16 as jax arrays alone, i.e. through the default device. The format is simple enough:
eight bytes of header length, a JSON header, the data (https://huggingface.co/docs/safetensors).
"""

import json
import mmap
from pathlib import Path

import ml_dtypes
import numpy as np

from svlm_jax.errors import CheckpointError
from svlm_jax.host.json_files import read_object

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}
_INDEX = "model.safetensors.index.json"


class SafetensorsFile:
    """One open file. `names` are its tensors; `read` gives a read-only view that is valid while the view lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if 0 < size <= path.stat().st_size else None
                if not isinstance(header, dict):
                    raise ValueError("it has no header")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}.") from error
        header.pop("__metadata__", None)
        self._header = header
        self._start = 8 + size

    @property
    def names(self) -> list[str]:
        return list(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._header[name]["shape"])

    def read(self, name: str) -> np.ndarray:
        """The tensor as a view of the file. CheckpointError when its dtype is no float or the file is cut short."""
        entry = self._header[name]
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{self.path}: {name} has dtype {entry['dtype']}, expected one of {', '.join(_DTYPES)}.")
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), self.shape(name)
        begin, end = entry["data_offsets"]
        count = int(np.prod(shape, dtype=np.int64))
        if end - begin != count * dtype.itemsize or self._start + end > len(self._map):
            raise CheckpointError(f"{self.path} is cut short: {name} is not wholly in it.")
        return np.frombuffer(self._map, dtype, count, self._start + begin).reshape(shape)

    def forget(self) -> None:
        """Lets the system drop the pages read so far, so that a long load does not fill the memory with the file."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def open_folder(folder: Path) -> dict[str, SafetensorsFile]:
    """Every tensor name of a checkpoint folder -> the file that holds it; follows `model.safetensors.index.json`."""
    if (folder / _INDEX).exists():
        weight_map = read_object(folder / _INDEX, CheckpointError).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{folder / _INDEX} has no weight_map.")
        shards = sorted(set(weight_map.values()))
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            raise CheckpointError(f"{folder} lacks {len(absent)} of its {len(shards)} shards, first {absent[0]}.")
        paths = [folder / shard for shard in shards]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} is no checkpoint: it holds no .safetensors file.")
    where: dict[str, SafetensorsFile] = {}
    for path in paths:
        file = SafetensorsFile(path)
        for name in file.names:
            if name in where:
                raise CheckpointError(f"{folder} holds {name} twice, in {where[name].path.name} and in {path.name}.")
            where[name] = file
    return where
