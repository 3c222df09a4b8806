"""JSON and JSON lines from files that anybody may have written. The caller says of which kind an error is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from svlm_jax.errors import SvlmError
from svlm_jax.host.schema import Record
from svlm_jax.host.text_files import decode, read_bytes

DEEPEST = 100  # arrays and objects inside each other


def parse(data: bytes | str, where: str, error: type[SvlmError]) -> Any:
    """What a JSON text holds. NaN and Infinity, which JSON does not have, become floats: what a field may be, its kind says."""
    text = decode(data, where, error)[0] if isinstance(data, bytes) else data
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # halves of a character, which no file could hold again
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise error(f"{where} is no JSON of text: it has half of a surrogate pair.") from None
    except RecursionError:
        raise error(f"{where} is nested too deep: expected at most {DEEPEST} levels.") from None
    except ValueError as cause:
        raise error(f"{where} is no JSON: {cause}.") from None
    return value


def read_json(path: Path, error: type[SvlmError]) -> Any:
    """What a file of JSON holds."""
    value = parse(read_bytes(path, error), str(path), error)
    if _deeper(value, DEEPEST):
        raise error(f"{path} is nested too deep: expected at most {DEEPEST} levels.")
    return value


def read_object(path: Path, error: type[SvlmError], *, missing_ok: bool = False) -> dict[str, Any]:
    """The object in a file of JSON; {} for an absent file if `missing_ok`."""
    if missing_ok and not path.exists():
        return {}
    value = read_json(path, error)
    if not isinstance(value, dict):
        raise error(f"{path} holds a JSON {type(value).__name__}, expected an object.")
    return value


def read_json_lines(path: Path, error: type[SvlmError], *, torn: bool = False) -> Iterator[tuple[str, Any]]:
    """(where, value) of every line that is not blank. `torn`: a last line without an end was cut by a kill, and is left out."""
    lines = decode(read_bytes(path, error), str(path), error)[0].split("\n")  # texts may hold other ends of lines
    for number, line in enumerate(lines[:-1] if torn else lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, parse(line, where, error)


def read_record_lines(path: Path, error: type[SvlmError], *, torn: bool = False) -> Iterator[Record]:
    """The objects of a file of JSON lines."""
    return (Record(value, where, error) for where, value in read_json_lines(path, error, torn=torn))


def _deeper(value: Any, most: int) -> bool:
    """Whether more than `most` arrays and objects are inside each other."""
    level = [value]
    for _ in range(most + 1):
        level = [
            part for whole in level if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole) if isinstance(part, dict | list)
        ]  # fmt: skip
        if not level:
            return False
    return True
