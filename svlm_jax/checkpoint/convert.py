"""Converting checkpoints between the layouts of the Hugging Face hub and of Orbax."""

from pathlib import Path
from typing import Literal

from jax.typing import DTypeLike

from svlm_jax.checkpoint import hf, named, orbax_io
from svlm_jax.checkpoint.export import copy_companions, write_config, write_weights
from svlm_jax.errors import ConfigError
from svlm_jax.host.folders import new_folder

Layout = Literal["orbax", "hf"]


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: Layout = "orbax",
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    progress: hf.Progress | None = None,
) -> None:
    """Writes the checkpoint `source`, a folder in either layout or a hub id, to the new folder `destination`.

    Both layouts keep config.json, tokenizer and settings beside the weights, and `load` reads both. `dtype` None keeps
    each tensor's own. The destination appears only when it is complete; CheckpointError when it exists already.
    """
    if to not in ("orbax", "hf"):
        raise ConfigError(f"the layout to convert to is {to!r}, expected 'orbax' or 'hf'.")
    with new_folder(destination) as fresh:
        checkpoint = named.load(source, dtype=dtype, revision=revision, progress=progress)
        copy_companions(checkpoint.folder, fresh)
        if to == "hf":
            write_weights(fresh, checkpoint.config, checkpoint.params)
        else:
            write_config(fresh, checkpoint.config, hf.dtype_of(checkpoint.params))
            orbax_io.save(fresh / hf.ORBAX_FOLDER, checkpoint.params)
