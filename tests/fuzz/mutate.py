"""Damaged files from good ones: bytes, lines, and values of JSON. The same number gives the same file."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    float("nan"),
    float("inf"),
    float("-inf"),
    0,
    -1,
    1,
    0.5,
    1e308,
    -1e308,
    2**31,
    2**63,
    10**30,
    10**400,
    "",
    "NaN",
    "0",
    "-1",
    "1e999",
    "abc",
    "../../../etc/passwd",
    "\x00",
    "\ud800",
    "<|video_pad|>",
    "9" * 5000,
    [],
    {},
    [[]],
    ["a"],
    [None],
    {"a": 1},
    [[[[1]]]],
)
TEXTS = (
    b"-->",
    b"00:00:01,000 --> 00:00:02,000\n",
    b"\r\r\n",
    b"\r",
    b"\n\n",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"NOTE\n",
    b"99",
    b"WEBVTT\n\n",
    b"<00:00:01.000>",
    b"&#99999999999;",
    b"{\\an8}",
    b"<" * 50,
    b"NaN",
    b"[" * 3000,
    b"9" * 5000,
    b'"',
    b"}",
    b",",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"{",
    b"::::",
    b"-1:-1",
    "١٢".encode(),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252")
LONGEST = 200_000  # bytes at most: what grows without bound says nothing about a reader


def mutants(seeds: list[bytes], count: int, *, seed: int = 0, first: int = 0) -> Iterator[bytes]:
    """Damaged files number `first` to `first + count`."""
    return (mutant(seeds, random.Random(f"{seed}/{number}")) for number in range(first, first + count))


def mutant(seeds: list[bytes], draw: random.Random) -> bytes:
    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice((_values, _values, _bytes, _lines, _insert, _splice(seeds)))(data, draw)[:LONGEST]
    return data


def _values(data: bytes, draw: random.Random) -> bytes:
    """A value, name or element of JSON, or of the JSON in one line, is another; bytes where there is none."""
    lines = data.split(b"\n")
    number = draw.randrange(len(lines))
    try:
        return json.dumps(_damaged(json.loads(data), draw)).encode()
    except (ValueError, RecursionError):
        pass
    try:
        lines[number] = json.dumps(_damaged(json.loads(lines[number]), draw)).encode()
    except (ValueError, RecursionError):
        return _bytes(data, draw)
    return b"\n".join(lines)


def _damaged(value: Any, draw: random.Random) -> Any:
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        part = stack.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        places += [(part, key) for key in keys]
        stack += [part[key] for key in keys]
    if not places:
        return draw.choice(HOSTILE)
    part, key = draw.choice(places)
    what = draw.randrange(10)
    if what == 0:
        del part[key]
    elif what == 1 and isinstance(part, dict):
        part[draw.choice(("x", "memory", "trust_remote_code", "quantization_config", ""))] = draw.choice(HOSTILE)
    elif what == 2 and isinstance(part, list):
        part += [part[key]] * draw.choice((1, 3, 100))
    elif what == 3 and isinstance(part[key], int | float):
        part[key] *= draw.choice((-1, 0.1, 10, 1000, 1e9))
    elif what == 4:
        for _ in range(draw.choice((5, 150, 900))):
            part[key] = [part[key]]
    else:
        part[key] = copy.deepcopy(draw.choice(HOSTILE))
    return value


def _bytes(data: bytes, draw: random.Random) -> bytes:
    """Some bytes flipped, cut, doubled, or all behind a place lost."""
    if not data:
        return draw.randbytes(draw.randrange(64))
    at, length = draw.randrange(len(data)), draw.choice((1, 2, 8, 64, 1000))
    what = draw.randrange(5)
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + data[at + length :]
    if what == 2:
        return data[: at + length] + data[at:]
    if what == 3:
        return data[:at] + draw.randbytes(length) + data[at + length :]
    spoiled = bytearray(data)
    for _ in range(draw.choice((1, 4, 32))):
        spoiled[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(spoiled)


def _lines(data: bytes, draw: random.Random) -> bytes:
    """A line lost, doubled, moved; other ends of lines; another encoding."""
    what = draw.randrange(6)
    if what == 0:
        return data.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\r\r\n", b"\n\n", b"")))
    if what == 1:
        return data.decode("utf-8", "replace").encode(
            draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252")), "replace"
        )
    lines = data.split(b"\n")
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    line = lines[at]
    if what == 2:
        del lines[at]
    elif what == 3:
        lines[to:to] = [line] * draw.choice((1, 50))
    else:
        lines[at], lines[to] = lines[to], line
    return b"\n".join(lines)


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(TEXTS) * draw.choice((1, 1, 1, 20)) + data[at:]


def _splice(seeds: list[bytes]) -> Callable[[bytes, random.Random], bytes]:
    def splice(data: bytes, draw: random.Random) -> bytes:
        other = draw.choice(seeds)
        return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]

    return splice
