"""`svlm serve`: its options, which are those of `svlm watch`, reach the lanes and what streams get by default."""

import dataclasses

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from svlm_jax.cli import main as cli
from svlm_jax.cli.serve import build_hub
from svlm_jax.errors import ConfigError, RequestError
from svlm_jax.serving.access import Access
from svlm_jax.serving.executor import Executor
from tests.streaming.streams import model

SMALL = "--window vision=3,text=5,sink=6,tail=7 --size 200x150 --max-pixels 9408 --streams 3 --questions 1"
GIVEN = (
    f"{SMALL} --positions native --fps 4 --chunk 0.5 --seed 5 --implementation xla --query Go. --system Calm. "
    "--temperature 0.5 --top-k 99 --max-new-tokens 7"
)


@pytest.fixture
def hub(monkeypatch):
    """A function that makes the streams of a command line, with nothing compiled."""
    monkeypatch.setattr(Executor, "warm_up", lambda self, tell: None)

    def make(words):
        arguments = cli.parser().parse_args(["serve", "--model", "m", *words.split()])
        return build_hub(arguments, model(), Access(host="127.0.0.1"), lambda done, total: None)

    return make


def test_options_reach_the_lanes_and_the_streams(hub):
    scheduler = hub(GIVEN).scheduler
    settings, default = scheduler.executor.settings, scheduler.defaults
    assert (settings.lanes, settings.spare, settings.fps, settings.chunk_seconds) == (3, 1, 4.0, 0.5)
    assert settings.size[0] * settings.size[1] <= 9408
    assert scheduler.executor.pool.config.implementation == "xla"
    window = default.window
    assert (window.vision, window.text, window.sink, window.tail, window.positions) == (3, 5, 6, 7, "native")
    assert (default.query, default.system, default.seed) == ("Go.", "Calm.", 5)
    assert (default.sampling.temperature, default.sampling.top_k, default.sampling.max_new_tokens) == (0.5, 99, 7)
    assert scheduler.executor.open(default) == 0  # the lanes have room for it


def test_turns_have_room_for_the_query_of_the_server_and_a_longer_one_is_refused(hub):
    """The default query is 40 tokens of this tokenizer, more than turns have room for of themselves."""
    scheduler = hub(SMALL).scheduler
    executor, default = scheduler.executor, scheduler.defaults
    assert executor.settings.query_tokens == len(model().tokenizer.encode(default.query)) == 40
    lane = executor.open(default)
    longer = dataclasses.replace(default, query=default.query + "?")
    for refused in (lambda: executor.open(longer), lambda: executor.change(lane, default, longer)):
        with pytest.raises(RequestError, match="the query has 41 tokens: expected at most 40"):
            refused()


@pytest.mark.parametrize(
    ("words", "told"), [("--cache full", "memory=full"), ("--fps 3", "an even whole number"), ("--window text=0", "text=0")]
)
def test_what_no_server_can_do_is_one_sentence(words, told, hub):
    with pytest.raises(ConfigError, match=told):
        hub(f"{words} --size 112x84" if words.startswith("--window") else f"{SMALL} {words}")
