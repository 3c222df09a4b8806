"""Tensors of safetensors files as memory-mapped numpy views, read only where they are touched.

The safetensors package could read them, but gives a tensor as a copy of the whole: one host of eight, which needs an eighth of
it, would read eight times as much, and fused weights would be copied twice. So the package checks a file, and views are made
here: eight bytes of header length, a JSON header, the data (https://huggingface.co/docs/safetensors).
"""

import json
import logging
import mmap
from pathlib import Path, PurePosixPath

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from svlm_jax.errors import CheckpointError
from svlm_jax.host.json_files import read_object
from svlm_jax.host.schema import Object, Record, Text, brief

logger = logging.getLogger(__name__)

# Of each dtype: numpy's, and the bits of its exponent, which are all set in infinities and NaN alone.
_DTYPES = {
    "F64": (np.dtype(np.float64), np.uint64(0x7FF << 52)),
    "F32": (np.dtype(np.float32), np.uint32(0xFF << 23)),
    "F16": (np.dtype(np.float16), np.uint16(0x1F << 10)),
    "BF16": (np.dtype(ml_dtypes.bfloat16), np.uint16(0xFF << 7)),
}
_EXPONENTS = dict(_DTYPES.values())
_INDEX = "model.safetensors.index.json"
_PIECE = 2**16  # numbers that are looked at together: they stay in the cache of the processor


class SafetensorsFile:
    """One open file. `names` are its tensors; `read` gives a read-only view that is valid while the view lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "np"):
                pass  # the package refuses a header that is too long, lies about sizes, or has tensors over each other
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {brief(str(error), 300)}.") from error
        header.pop("__metadata__", None)
        self._header = header
        self._start = 8 + size

    @property
    def names(self) -> list[str]:
        return list(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._header[name]["shape"])

    def read(self, name: str) -> np.ndarray:
        """The tensor as a view of the file. CheckpointError when its dtype is no float that is computed with."""
        entry, shape = self._header[name], self.shape(name)
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(
                f"{self.path}: {brief(name)} has dtype {entry['dtype']}, expected one of {', '.join(_DTYPES)} (not quantized)."
            )
        dtype, _ = _DTYPES[entry["dtype"]]
        begin, end = entry["data_offsets"]
        return np.frombuffer(self._map, dtype, (end - begin) // dtype.itemsize, self._start + begin).reshape(shape)

    def forget(self) -> None:
        """Lets the system drop the pages read so far, so that a long load does not fill the memory with the file."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def is_finite(array: np.ndarray) -> bool:
    """Whether a contiguous array of floats holds neither NaN nor infinities."""
    exponent = _EXPONENTS[array.dtype]
    bits = array.reshape(-1).view(exponent.dtype)
    return all((bits[i : i + _PIECE] & exponent).max() < exponent for i in range(0, bits.size, _PIECE))


def open_folder(folder: Path) -> dict[str, SafetensorsFile]:
    """Every tensor name of a checkpoint folder -> the file that holds it; follows `model.safetensors.index.json`."""
    there = sorted(folder.glob("*.safetensors"))
    paths = _indexed(folder) if (folder / _INDEX).exists() else there
    if not paths:
        other = next((path.name for kind in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in sorted(folder.glob(kind))), None)
        instead = f"; {other} is of another kind" if other else ""
        raise CheckpointError(f"{folder} is no checkpoint: it holds no .safetensors file{instead}.")
    for path in set(there) - set(paths):
        logger.warning("%s is not in %s: it is not read", path, _INDEX)
    where: dict[str, SafetensorsFile] = {}
    for path in paths:
        file = SafetensorsFile(path)
        for name in file.names:
            if name in where:
                raise CheckpointError(f"{folder} holds {brief(name)} twice, in {where[name].path.name} and in {path.name}.")
            where[name] = file
    return where


def _indexed(folder: Path) -> list[Path]:
    """The shards that the index names, which lie in the folder."""
    index = Record(read_object(folder / _INDEX, CheckpointError), str(folder / _INDEX), CheckpointError)
    names = Record(index.get("weight_map", Object()), f"{index.where}, weight_map", CheckpointError)
    shards = sorted({names.get(name, Text()) for name in names.data})
    if not shards:
        raise index.wrong("weight_map", {}, "the shard of each tensor")
    for shard in shards:
        parts = PurePosixPath(shard)
        outside = parts.is_absolute() or ".." in parts.parts or "\\" in shard or "\0" in shard
        # The files of a hub's cache are links to its blobs; a folder in this one that is a link leads out of it.
        outside = outside or not (folder / shard).parent.resolve().is_relative_to(folder.resolve())
        if outside or len(shard) > 200 or not shard.endswith(".safetensors"):
            raise index.wrong("weight_map", shard, "names of .safetensors files in this folder")
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        raise CheckpointError(f"{folder} lacks {len(absent)} of its {len(shards)} shards, first {absent[0]}.")
    return [folder / shard for shard in shards]
