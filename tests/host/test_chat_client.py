"""Language models behind an endpoint: what the servers of the day want."""

import contextlib
import http.server
import threading
import time

import pytest

from svlm_jax.errors import ConfigError, EndpointError
from svlm_jax.host.chat_client import Endpoint
from tests.endpoints import serving


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


def test_a_model_that_chooses_its_own_temperature(server):
    def reply(request):
        return (400, b'{"error": {"param": "temperature"}}') if "temperature" in request else "B"

    server.reply = reply
    endpoint = Endpoint(server.url, "judge", pause=0.01)
    assert [endpoint.ask("judge", "A or B?") for _ in range(2)] == ["B", "B"]
    assert ["temperature" in request for _, _, request in server.requests] == [True, False, False]  # it is learned once


def test_other_refusals_are_final(server):
    server.reply = lambda request: (400, b'{"error": {"param": "messages"}}')
    with pytest.raises(EndpointError, match="refused the request: HTTP 400"):
        Endpoint(server.url, "judge", pause=0.01).ask("judge", "A or B?")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b'{"choices"', "peer closed connection"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "not a chat completion"),
        ((200, b"<html>"), "not a chat completion"),
        (503, "HTTP 503"),
        (1.3, "timed out|disconnected"),
    ],
)
def test_answers_that_are_none_are_asked_for_again(server, reply, why):
    server.replies = [reply, "A", reply, reply]
    endpoint = Endpoint(server.url, "judge", pause=0.01, tries=2, timeout=1.0 if isinstance(reply, float) else 20.0)
    assert endpoint.ask("judge", "A or B?") == "A"
    with pytest.raises(EndpointError, match=f"gave no answer in 2 tries: .*({why})"):
        endpoint.ask("judge", "A or B?")


def test_a_server_says_how_long_to_wait(server):
    server.replies = [429, "A"]
    server.headers = {"Retry-After": "1"}
    begin = time.perf_counter()
    assert Endpoint(server.url, "judge", pause=0.01).ask("judge", "A or B?") == "A"
    assert time.perf_counter() - begin >= 1.0


def test_an_address_that_is_none():
    with pytest.raises(ConfigError, match="endpoint 'judge:8000': expected an address that begins with http"):
        Endpoint("judge:8000", "judge")


def test_the_key_goes_nowhere_else(server):
    """A redirect is not followed, not even to the same host."""
    server.headers = {"Location": f"{server.url}other"}
    server.reply = lambda request: 307
    url = server.url.replace("http://", "http://anna:geheim@")
    with pytest.raises(EndpointError, match=r"answers with a redirect \(HTTP 307\): expected the final address") as error:
        Endpoint(url, "judge", key="geheim", pause=0.01).ask("judge", "A or B?")
    assert len(server.requests) == 1 and "geheim" not in repr(error.value)


@pytest.mark.parametrize(("drip", "why"), [(b"x" * (5 << 20), "more than 4 MiB"), (b"x" * 40, "timed out after 0.5 s")])
def test_size_and_total_time_of_a_reply_are_bounded(drip, why):
    """A server that sends without end, or a byte now and then, which no time limit of a single read would end."""

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))  # what is left unread makes a reset of the close
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for begin in range(0, len(drip), size := max(1, len(drip) // 40)):
                    self.wfile.write(drip[begin : begin + size])
                    time.sleep(0 if size > 1 else 0.1)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as peer:
        threading.Thread(target=peer.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        begin = time.perf_counter()
        endpoint = Endpoint(f"http://127.0.0.1:{peer.server_port}", "judge", tries=1, timeout=0.5 if "timed" in why else 20)
        with pytest.raises(EndpointError, match=why):
            endpoint.ask("judge", "A or B?")
        assert time.perf_counter() - begin < 3
        peer.shutdown()
