"""Text files in whatever encoding can be known."""

import codecs
from pathlib import Path

from svlm_jax.errors import SvlmError

# What begins with these is in this encoding. UTF-32 comes first: its mark begins as that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 4096  # bytes; enough to see where the zeros of UTF-16 stand


def read_bytes(path: Path, error: type[SvlmError]) -> bytes:
    """A file's bytes; `error` when it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as cause:  # ValueError: a name with a zero byte
        raise error(f"{path} cannot be read: {getattr(cause, 'strerror', None) or cause}.") from cause


def decode(
    data: bytes, where: str, error: type[SvlmError], *, encoding: str | None = None, fallback: str | None = None
) -> tuple[str, str]:
    """The text, and the name of the encoding that it was in: a mark at its beginning, UTF-16 without one, or UTF-8.

    Args:
      encoding: for a file that has no mark, as somebody who knows it says. fallback: of one byte a character, for bytes that
        are in none of them, with a sign for what it lacks.
    Raises:
      `error`: the bytes are not in that encoding, or it is none.
    """
    name = next((name for mark, name in _MARKS if data.startswith(mark)), None) or encoding or _unmarked(data)
    try:
        return data.decode(name), name
    except LookupError:
        raise error(f"{where}: {name!r} is no encoding that is known; expected one such as utf-8 or cp1252.") from None
    except (UnicodeError, ValueError) as cause:
        if fallback is not None and encoding is None and name == "utf-8":
            return data.decode(fallback, errors="replace"), fallback
        raise error(f"{where} is not {name} text: {getattr(cause, 'reason', cause)}.") from None


def _unmarked(data: bytes) -> str:
    """UTF-16 shows itself by its zeros: of text in Latin letters, every second byte is one."""
    head = data[:_LOOKED_AT]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 4 and min(even, odd) * 8 < max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"
