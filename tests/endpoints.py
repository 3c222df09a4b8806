"""An OpenAI-compatible server on the loopback that says what a test wants it to say."""

import contextlib
import http.server
import json
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what the server's `reply(request)` gives: a text, an HTTP status (with a body), or seconds of silence.

    Bytes are an answer that breaks off behind them.
    """

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, self.headers.get("Authorization"), request))
            reply = self.server.reply(request)
        if isinstance(reply, float):
            time.sleep(reply)
            return
        status, body = (200, self._completion(reply)) if isinstance(reply, str) else (reply, b"{}")
        if isinstance(reply, tuple):
            status, body = reply
        if isinstance(reply, bytes):
            status, body = 200, reply
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + isinstance(reply, bytes)))
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    @staticmethod
    def _completion(text):
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving():
    """A server with `requests`, (path, authorization, body) each, `headers`, and `replies`, one after the other, or `reply`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.replies, server.headers, server.lock = [], [], {}, threading.Lock()
        server.reply = lambda request: server.replies.pop(0)
        server.url = f"http://127.0.0.1:{server.server_port}/v1/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
