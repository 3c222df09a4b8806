"""What the fuzzer knows of a reader."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
      file: the name of the file that is damaged. seeds: good ones.
      read: reads it in its folder; may raise SvlmError and nothing else.
      prepare: writes what stands beside it, once.
    """

    file: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    prepare: Callable[[Path], Any] = lambda folder: None


def encoded(*values: Any) -> list[bytes]:
    return [value.encode() if isinstance(value, str) else json.dumps(value).encode() for value in values]


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def text(folder: Path) -> str:
    """What stands in `a.txt`, the file of readers that take text."""
    return (folder / "a.txt").read_bytes().decode("utf-8", "replace")
