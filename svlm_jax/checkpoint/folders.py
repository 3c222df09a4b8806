"""Folders that appear only when they are complete."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from svlm_jax.errors import CheckpointError


@contextlib.contextmanager
def new_folder(destination: str | Path) -> Iterator[Path]:
    """A temporary folder beside `destination` that becomes it when the block ends well, and vanishes when it does not.

    Raises CheckpointError when `destination` exists (an empty folder may) or cannot be written.
    """
    destination = Path(destination).expanduser()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(f"{destination} already exists; name a folder that does not.")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    except OSError as error:
        raise CheckpointError(f"{destination} cannot be written: {error.strerror or error}.") from error
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.replace(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
