"""Videos with the time stamps that broken encoders, splices and disks leave, rewritten in the bytes: no muxer writes them."""

from collections.abc import Callable
from pathlib import Path

Change = Callable[[int, float], float]  # number of the packet, its time in seconds -> the time that it shall claim
TICKS = 90_000  # a second, in MPEG streams


def restamp_ts(path: Path, change: Change, sound: Change | None = None) -> Path:
    """Rewrites the stamps of an MPEG-TS file: of its picture by `change`, of its sound by `sound`."""
    data, counts = bytearray(path.read_bytes()), {"picture": 0, "sound": 0}
    for at in range(0, len(data), 188):
        begins, adapted = data[at + 1] & 0x40, data[at + 3] & 0x20
        pes = at + 4 + (1 + data[at + 4] if adapted else 0)
        if not begins or data[pes : pes + 3] != b"\0\0\1":
            continue
        kind = "picture" if data[pes + 3] & 0xF0 == 0xE0 else "sound"
        wanted, number = change if kind == "picture" else sound, counts[kind]
        counts[kind] += 1
        if wanted is not None:
            places = [pes + 9 + 5 * i for i in range(bin(data[pes + 7] & 0xC0).count("1"))]
            first = _read(data, places[-1]) / TICKS
            moved = round((wanted(number, first) - first) * TICKS)
            for place in places:
                _write(data, place, (_read(data, place) + moved) % (1 << 33))
    path.write_bytes(data)
    return path


def _read(data: bytearray, at: int) -> int:
    a, b, c, d, e = data[at : at + 5]
    return (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1


def _write(data: bytearray, at: int, ticks: int) -> None:
    mark = data[at] & 0xF0
    data[at : at + 5] = bytes(
        [mark | ticks >> 29 & 0xE | 1, ticks >> 22 & 255, ticks >> 14 & 0xFE | 1, ticks >> 7 & 255, ticks << 1 & 0xFE | 1]
    )


def restamp_flv(path: Path, change: Change) -> Path:
    """Rewrites the stamps of the picture of an FLV file."""
    data, at, number = bytearray(path.read_bytes()), 13, 0
    while at + 11 < len(data):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4])
        if kind == 9 and data[at + 12] == 1:  # a picture, not the decoder's parameters
            millis = data[at + 7] << 24 | int.from_bytes(data[at + 4 : at + 7])
            wanted = round(change(number, millis / 1000) * 1000) % (1 << 32)
            data[at + 4 : at + 7], data[at + 7] = (wanted & 0xFFFFFF).to_bytes(3), wanted >> 24
            number += 1
        at += 15 + size
    path.write_bytes(data)
    return path


def restamp_mkv(path: Path, change: Change) -> Path:
    """Rewrites the stamps of the blocks of a Matroska file with one stream; they may move by 32 s at most."""
    data, number = bytearray(path.read_bytes()), 0

    def size_at(at: int) -> tuple[int, int]:
        length = 9 - data[at].bit_length()
        value = int.from_bytes(data[at : at + length]) & (1 << 7 * length) - 1
        return value, at + length

    def id_at(at: int) -> tuple[int, int]:
        length = 9 - data[at].bit_length()
        return int.from_bytes(data[at : at + length]), at + length

    def walk(at: int, end: int, cluster: int) -> None:
        nonlocal number
        while at < end:
            name, body = id_at(at)
            size, body = size_at(body)
            if name in (0x18538067, 0x1F43B675, 0xA0):  # segment, cluster, block group
                walk(body, min(body + size, end), cluster)
            elif name == 0xE7:
                cluster = int.from_bytes(data[body : body + size])
            elif name in (0xA3, 0xA1):
                stamp = cluster + int.from_bytes(data[body + 1 : body + 3], signed=True)
                wanted = round(change(number, stamp / 1000) * 1000) - cluster
                data[body + 1 : body + 3] = wanted.to_bytes(2, signed=True)
                number += 1
            at = body + size

    walk(0, len(data), 0)
    path.write_bytes(data)
    return path
