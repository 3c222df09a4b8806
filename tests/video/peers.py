"""Servers on the loopback that behave like cameras and web servers."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator


class Peer:
    """Sends each connection one clip of MPEG-TS, `speed` times as fast as it plays, then hangs up; the last clip repeats.

    `silent` keeps the connection open instead.
    """

    def __init__(self, clips: list[bytes], *, seconds: float, speed: float = 1.0, silent: bool = False):
        self._clips, self._pause, self._silent = clips, seconds / speed / 50, silent
        self._server = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self.connections = 0
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                data = self._clips[min(self.connections, len(self._clips) - 1)]
                self.connections += 1
                for i in range(50):
                    connection.sendall(data[i * len(data) // 50 : (i + 1) * len(data) // 50])
                    if self._stopped.wait(self._pause):
                        return
                if self._silent:
                    self._stopped.wait(30)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):  # wakes `accept`
            socket.create_connection(self._server.getsockname(), 1).close()
        self._server.close()
        self._thread.join(5)


@contextlib.contextmanager
def web_server(respond: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The root URL of a server that answers every GET with `respond`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                respond(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(5)


def whole(data: bytes, *, ranges: bool = True) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """Answers with a file, or the part of it that was asked for."""

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range") if ranges else None
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        request.send_response(206 if wanted else 200)
        if wanted:
            request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if ranges:
            request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(data) - begin))
        request.end_headers()
        request.wfile.write(data[begin:])

    return respond


def endless(data: bytes, pieces: int, pause: float) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """Answers with a stream of unknown length, a piece at a time, and ends it properly."""

    def respond(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for i in range(pieces):
            piece = data[i * len(data) // pieces : (i + 1) * len(data) // pieces]
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            time.sleep(pause)
        request.wfile.write(b"0\r\n\r\n")

    return respond
