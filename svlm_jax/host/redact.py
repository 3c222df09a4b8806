"""Addresses as anybody may see them: in errors, logs, files, and on the screen.

What is not known to be harmless is masked. A user and a password may hold any character, a path may be a key (of cameras and
of stream servers), and no name of a query says for sure that its value is no secret.
"""

import re
from collections.abc import Iterable

MASK = "***"
# Lengths are bounded so that no text takes more than its own length times a constant.
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://(\S+)")
# A mistyped one, with one slash, none, or no scheme, shows its user and password too.
MISTYPED = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{2,30}):/?(?!/)[^\s/@]{1,300}@\S*|(?<![:\w/])//[^\s/@]{1,300}@\S*")
HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
# A word, with a short number behind it: match, Live, ch0, h264, 720p. Tokens mix more than that, or are longer.
WORD = re.compile(r"(?:[A-Z]?[a-z]{0,12}|[A-Z]{1,4})[0-9]{0,4}|[0-9]{1,4}[a-z]?|m3u8")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,23}")  # of a query's value
PUSHED = ("rtmp", "rtmps", "rtmpe", "rtmpt", "rtmpts", "srt")  # the last part of the path is the key of the stream
ENDS = ".,;:!?'\")]}>"  # of a sentence that an address may stand in front of


def mask(url: str) -> str:
    """The address without user, password, values of its query, fragment, and parts of its path that may be keys.

    >>> mask("rtsp://anna:p@camera.example/live/8fJ2kQ91xY?channel=1#top")
    'rtsp://***@camera.example/live/***?channel=***'
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return MISTYPED.sub(_mistyped, url)
    authority, path, query = _parts(rest)
    if "@" in rest[len(authority) :]:  # it may end a password with a slash, or be part of the path: who knows
        return f"{scheme}://{MASK}"
    _, at, host = authority.rpartition("@")
    shown = host if HOST.fullmatch(host) or not host else MASK
    return f"{scheme}://{MASK + '@' if at else ''}{shown}{_path(scheme.lower(), path)}{_query(query)}"


def redact(text: str, known: Iterable[str] = ()) -> str:
    """A text in which every address is masked, for what others have written: command lines, messages, tracebacks.

    known: addresses that are masked even where blanks or other ends of an address stand in them.
    """
    for url in known:
        if "@" in url or "://" in url:
            text = text.replace(url, mask(url))

    def masked(match: re.Match[str]) -> str:
        url = match[0].rstrip(ENDS)
        return mask(url) + match[0][len(url) :]

    return MISTYPED.sub(_mistyped, ADDRESS.sub(masked, text))


def _mistyped(match: re.Match[str]) -> str:
    return f"{match[1]}:{MASK}" if match[1] else f"//{MASK}"


def _parts(rest: str) -> tuple[str, str, str]:
    """Authority, path with its slash, and query with its question mark; the fragment is left out."""
    rest = rest.partition("#")[0] if "@" not in rest.partition("#")[2] else rest
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, mark, query = rest[len(authority) :].partition("?")
    return authority, path, mark + query


def _path(scheme: str, path: str) -> str:
    segments = path.split("/")
    if scheme in PUSHED and len(segments) > 2:
        segments = [*segments[:2], *(MASK for _ in segments[2:])]
    return "/".join(segment if _harmless(segment) else MASK for segment in segments)


def _harmless(segment: str) -> bool:
    return segment == MASK or (len(segment) <= 40 and all(WORD.fullmatch(word) for word in re.split(r"[-_.]", segment)))


def _query(query: str) -> str:
    if len(query) < 2:
        return ""
    pairs = (pair.partition("=") for pair in query[1:].split("&"))
    return "?" + "&".join(f"{name if NAME.fullmatch(name) else MASK}={MASK}" if equals else MASK for name, equals, _ in pairs)
