"""A file behind HTTP, read by byte ranges: a download that breaks off goes on where it stopped, or says that it cannot.

FFmpeg's own HTTP client is not used for files: where a server breaks off without having said "Connection: close", it
goes on with other bytes than those that follow.
"""

import base64
import http.client
import io
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Protocol, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from svlm_jax.errors import SourceError

ATTEMPTS = 5  # in a row that bring no byte
PAUSE = 0.2  # s; before the second attempt, doubled before each further one
SKIP = 1 << 18  # bytes; so far ahead it is quicker to read on than to ask anew
HEAD = 1 << 14  # bytes; what begins with as many equal ones is the same stream from its beginning
URL_SIGNS = "%/?:@!$&'()*+,;=~"  # that stand for themselves; all others are written as bytes of UTF-8
DIGITS = 18  # of a length; no file has more
PLAYLISTS = ("mpegurl", "dash+xml")  # in a content type: FFmpeg follows these by itself


class _Response(Protocol):
    headers: Any

    def read1(self, size: int) -> bytes: ...
    def close(self) -> None: ...


class _AnotherFile(Exception):
    """What the server would go on with."""


class HttpFile(io.RawIOBase):
    """What a URL holds, as a file object.

    Attributes:
      length: bytes, None if the server does not say: then it is a stream that can be read only once.
      playlist: it is no video, but a list of URLs.
      problem: why it ends before its end: it broke off and cannot be continued. It reads as ended then, so that what came can
        still be decoded.
    Raises:
      SourceError: it cannot be opened. No message holds credentials.
    """

    def __init__(self, url: str, name: str, *, timeout: float, options: Mapping[str, str]):
        self.name, self._timeout = name, timeout
        try:
            self._url, self._headers, self._context = _request(url, options)
        except ValueError:
            raise SourceError(f"{name} is no address that can be opened.") from None
        self._agent = options.get("user_agent", "svlm-jax")
        self._position, self.problem = 0, cast(str | None, None)
        self._ahead = b""  # what was read, and is yet to be asked for
        self._response: _Response | None = None
        status, response = self._ask(0)
        self._response = response
        part = response.headers.get("Content-Range", "") if status == 206 else ""
        if status == 206 and not part.startswith("bytes 0-"):
            self.close()
            raise SourceError(f"{name} cannot be opened: the server sends another part of it than its beginning.")
        lengths = (part.rpartition("/")[2], response.headers.get("Content-Length", ""))
        self.length = next((int(length) for length in lengths if length.isdecimal() and len(length) <= DIGITS), None)
        self._ranges = self.length is not None and (status == 206 or response.headers.get("Accept-Ranges") == "bytes")
        self._mark = response.headers.get("ETag") or response.headers.get("Last-Modified")
        kind = response.headers.get("Content-Type", "").lower()
        path = urlsplit(url).path.lower()
        self.playlist = any(word in kind for word in PLAYLISTS) or path.endswith((".m3u8", ".mpd"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._ranges

    def tell(self) -> int:
        return self._position - len(self._ahead)

    def head(self) -> bytes:
        """The first bytes, as many as tell one stream from another, before anything is read; `read` gives them too."""
        while len(self._ahead) < HEAD and (data := self._fetch(HEAD - len(self._ahead))):
            self._ahead += data
        return self._ahead

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._ranges or self.length is None:
            raise OSError("this server cannot send a part of a file")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.length}[whence]
        target = base + offset
        self._ahead = b""
        skipped = target - self._position
        if skipped and self._response is not None:
            if 0 < skipped <= SKIP:
                while self._position < target and self.read(target - self._position):
                    pass
            if self._position != target:
                self._drop()
        self._position = target
        return target

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; none at the end."""
        if self._ahead:
            size = len(self._ahead) if size < 0 else size
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._fetch(size)

    def _fetch(self, size: int) -> bytes:
        problem = ""
        for attempt in range(ATTEMPTS):
            if self.problem is not None or (self.length is not None and self._position >= self.length):
                return b""
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                if self._response is None:
                    self._response = self._again()
                data = self._response.read1(size if size >= 0 else 1 << 16)
            except _AnotherFile:
                problem = "the server does not go on with the same file"
                break
            except (OSError, http.client.HTTPException) as error:
                problem, data = _words(error), b""
            else:
                problem = "the server closed the connection"
                if self.length is None:
                    return data
            if data:
                self._position += len(data)
                return data
            self._drop()
            if not self._ranges:
                break
        where = f"byte {self._position}" + ("" if self.length is None else f" of {self.length}")
        self.problem = f"it broke off at {where}: {problem}"
        return b""

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _again(self) -> _Response:
        """Goes on at the position; only with the very bytes that stand there."""
        status, response = self._ask(self._position)
        wanted, got = f"bytes {self._position}-", response.headers.get("Content-Range", "")
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if (self._position and (status != 206 or not got.startswith(wanted))) or mark != self._mark:
            response.close()
            raise _AnotherFile
        return response

    def _ask(self, position: int) -> tuple[int, _Response]:
        # `identity`: the length is that of the file, not of a compressed form. Servers that cannot send ranges ignore them.
        headers = {"User-Agent": self._agent, "Accept-Encoding": "identity", "Range": f"bytes={position}-"}
        request = urllib.request.Request(self._url, headers=headers)
        for field, value in self._headers.items():  # not passed on to where it may be redirected
            request.add_unredirected_header(field, value)
        try:
            response = urllib.request.urlopen(request, timeout=self._timeout, context=self._context)
            return response.status, cast(_Response, response)
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.reason}"
            error.close()
            if error.code < 500:
                raise SourceError(f"{self.name} cannot be opened: {problem}.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # the last: of hosts and headers that are none
            problem = _words(error)
        if self._position or self._response is not None:
            raise OSError(problem)
        raise SourceError(f"{self.name} cannot be opened: {problem}.")


def _request(url: str, options: Mapping[str, str]) -> tuple[str, dict[str, str], ssl.SSLContext | None]:
    """A URL without its credentials and fragment, the headers that are for its server alone, and how certificates are checked.

    Names of options are FFmpeg's. ValueError when it is no URL.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    headers = {}
    if at:
        name, _, word = user.partition(":")
        pair = f"{unquote(name)}:{unquote(word)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    for line in options.get("headers", "").splitlines():
        field, colon, value = line.partition(":")
        if colon:
            headers[field.strip()] = value.strip()
    context = None
    if parts.scheme.lower() == "https" and options.get("tls_verify") == "0":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = host if host.isascii() else host.encode("idna").decode()
    path, query = (quote(part, safe=URL_SIGNS) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host, path, query, "")), headers, context


def _words(error: BaseException) -> str:
    """What went wrong, without the URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer within the time limit"
    if isinstance(cause, http.client.IncompleteRead):
        return "the server closed the connection"
    if isinstance(cause, BaseException):
        return (getattr(cause, "strerror", None) or type(cause).__name__).rstrip(".")
    return str(cause).rstrip(".")
