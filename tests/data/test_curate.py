"""Curation by a language model, against a server on the loopback."""

import json

import pytest

from svlm_jax.data.annotations import Annotation, Word
from svlm_jax.data.curate import Curator
from svlm_jax.data.sentences import Sentence, spread
from svlm_jax.errors import DataError, EndpointError
from svlm_jax.host.chat_client import Endpoint
from tests.endpoints import serving

SENTENCES = [
    Sentence(s, s + 4.0, spread(text, s, s + 4.0)) for s, text in ((0.0, "Goal red"), (5.0, "bye our bear"), (130.0, "Out"))
]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


def endpoint(server, **changes):
    return Endpoint(server.url, "judge", **{"pause": 0.01, "tries": 3, "key": "secret", **changes})


def verdicts(*entries):
    return json.dumps({"sentences": [{"number": i, **entry} for i, entry in enumerate(entries)]})


KEEP, DELETE = {"action": "keep"}, {"action": "delete"}


def test_sentences_are_kept_edited_and_deleted_segment_by_segment(server):
    server.replies = [
        f"Sure:\n```json\n{verdicts(KEEP, {'action': 'edit', 'text': 'Buy our beer now!'})}\n```",
        verdicts(DELETE),
    ]
    curator = Curator(endpoint(server))
    kept, edited = curator.clean("A final", SENTENCES)
    assert kept == SENTENCES[0]
    assert [tuple(word) for word in edited.words] == [(5, 6, "Buy"), (6, 7, "our"), (7, 8, "beer"), (8, 9, "now!")]
    assert curator.counts == {"keep": 1, "edit": 1, "delete": 1}
    path, authorization, request = server.requests[0]
    assert path == "/v1/chat/completions" and authorization == "Bearer secret" and request["model"] == "judge"
    assert request["messages"][1]["content"] == "Title: A final\n0: Goal red\n1: bye our bear"
    assert server.requests[1][2]["messages"][1]["content"] == "Title: A final\n0: Out"


@pytest.mark.parametrize(
    "nonsense",
    [
        "I cannot.",
        verdicts(KEEP),
        verdicts(KEEP, {"action": "burn"}),
        verdicts(KEEP, {"action": "edit"}),
        '{"sentences": 3}',
        "{",
    ],
)
def test_answers_that_make_no_sense_are_asked_for_again(server, nonsense):
    server.replies = [nonsense, verdicts(KEEP, KEEP)]
    assert Curator(endpoint(server)).clean("", SENTENCES[:2]) == SENTENCES[:2]
    server.replies = [nonsense] * 3
    with pytest.raises(DataError, match="judge did not answer as asked in 3 tries"):
        Curator(endpoint(server)).clean("", SENTENCES[:2])


def test_a_server_that_is_busy_is_asked_again(server):
    server.replies = [503, 429, verdicts(KEEP, KEEP)]
    assert Curator(endpoint(server)).clean("", SENTENCES[:2]) == SENTENCES[:2]
    server.replies = [503] * 3
    with pytest.raises(EndpointError, match=r"gave no answer in 3 tries: HTTP 503"):
        Curator(endpoint(server)).clean("", SENTENCES[:2])


def test_a_server_that_refuses_is_not(server):
    server.replies = [401]
    with pytest.raises(EndpointError, match="refused the request: HTTP 401") as error:
        Curator(endpoint(server)).clean("", SENTENCES[:2])
    assert "secret" not in str(error.value) and "secret" not in repr(endpoint(server)) and len(server.requests) == 1


def test_without_a_server_there_is_a_sentence(server):
    gone = Endpoint("http://127.0.0.1:9/v1", "judge", tries=2, pause=0.01)
    with pytest.raises(EndpointError, match=r"127.0.0.1:9/v1 gave no answer in 2 tries"):
        Curator(gone).clean("", SENTENCES)


def test_the_key_comes_from_the_environment_if_not_given(server, monkeypatch):
    for key, sent in (("from-env", "Bearer from-env"), ("", None)):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        server.replies = [verdicts(KEEP, KEEP)]
        Curator(endpoint(server, key=None)).clean("", SENTENCES[:2])
        assert server.requests[-1][1] == sent


def test_live_share(server):
    clip = Annotation("a.mp4", 0.0, 20.0, (Word(0.0, 1.0, "red"), Word(1.0, 2.0, "goal")), title="A final")
    server.replies = ['{"live_share": 0.85}', '{"live_share": 7}', '{"live_share": 0}']
    curator = Curator(endpoint(server))
    assert curator.live_share(clip) == 0.85 and curator.live_share(clip) == 0
    assert server.requests[0][2]["messages"][1]["content"] == "Title: A final\nred goal"
