"""Language models behind an endpoint: what the servers of the day want."""

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
        (b'{"choices"', "IncompleteRead"),  # the connection breaks
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "not a chat completion"),
        ((200, b"<html>"), "not a chat completion"),
        (503, "HTTP 503"),
        (0.3, "closed connection|timed out"),
    ],
)
def test_answers_that_are_none_are_asked_for_again(server, reply, why):
    server.replies = [reply, "A", reply, reply]
    endpoint = Endpoint(server.url, "judge", pause=0.01, tries=2, timeout=0.2)
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
