"""`svlm bench` on a tiny model: what grows and what does not, in counts and not in noisy times; resuming; figures; failures."""

import dataclasses
import json
import types

import jax
import pytest
from PIL import Image

from svlm_jax.cache.window import WindowConfig
from svlm_jax.cli import main as cli
from svlm_jax.errors import ConfigError
from svlm_jax.eval import efficiency
from svlm_jax.eval.efficiency import Plan, Row
from svlm_jax.streaming.caption import Timing
from svlm_jax.streaming.vlm import StreamingVLM

SMALL = WindowConfig(vision=2, text=2, sink=4, tail=4)
PLAN = Plan(size=(56, 56), tokens=3, seconds=8, window=SMALL, frames=(4,), rates=(2,), streams=(3,), repeats=1)


@pytest.fixture(scope="module")
def vlm():
    return StreamingVLM.from_pretrained("random:tiny")


@pytest.fixture(scope="module")
def stream(vlm):
    return efficiency.series(vlm, PLAN, "stream")


@pytest.mark.slow
def test_streaming_is_flat_and_full_attention_grows(vlm, stream):
    assert len(stream["ms"]) == len(stream["cached_tokens"]) == 8
    assert len(set(stream["cached_tokens"][4:])) == 1 and len(set(stream["device_bytes"][4:])) == 1
    reset = efficiency.series(vlm, PLAN, "hard-reset")["cached_tokens"]
    assert reset[0] < reset[1] and reset[0::2] == reset[:1] * 4, "a saw-tooth of two seconds"
    short, long = (efficiency.steady(vlm, PLAN, "full", second) for second in (2, 8))
    for name in ("cached_tokens", "slots", "decoder_flops", "device_bytes"):
        assert long[name] > short[name]
    assert stream["slots"] < long["slots"] and stream["decoder_flops"] < long["decoder_flops"]
    assert stream["device_bytes"][-1] < long["device_bytes"]


@pytest.mark.slow
def test_recompute_runs_all_again_and_all_replies_have_the_same_number_of_tokens(vlm, stream):
    found = efficiency.steady(vlm, PLAN, "recompute", 2, parts=True)
    assert found["tokens_run"] > 2 * stream["tokens_run"], "all that is kept is run again"
    session = vlm.stream(efficiency.settings_of(vlm, PLAN, "stream"))
    assert len(session.feed(efficiency._chunk(session, PLAN)).tokens) == 3


def test_what_is_reported_of_times_is_their_medians(monkeypatch):
    """Three seconds whose times are known: of a reply of three tokens, and of its parts."""
    timings = iter([Timing(0, 90, 50, 30, 10), Timing(0, 12, 3, 4, 5), Timing(0, 21, 6, 7, 8)])
    session = types.SimpleNamespace(feed=lambda _: types.SimpleNamespace(timing=next(timings), usage={"text": (5, 9)}))
    monkeypatch.setattr(efficiency, "_behind", lambda *_, **__: session)
    monkeypatch.setattr(efficiency, "_chunk", lambda *_: None)
    monkeypatch.setattr(efficiency, "_shape", lambda *_: {})
    found = efficiency.steady(None, dataclasses.replace(PLAN, repeats=3), "stream", 2, parts=True)
    assert (found["ms"], found["ms_per_token"], found["first_token_ms"]) == (21, 7, 13)
    assert found["parts_ms"] == {"vision": 6, "prefill": 7, "decode": 8} and found["cached_tokens"] == 5


@pytest.mark.slow
def test_streams_at_once_hold_and_say_as_much_as_each_alone(vlm):
    alone, three = efficiency.together(vlm, PLAN, 1, 2), efficiency.together(vlm, PLAN, 3, 2)
    steady = efficiency.steady(vlm, PLAN, "stream", 2)
    assert alone["cached_tokens"] == steady["cached_tokens"] and alone["slots"] == steady["slots"] == three["slots"]
    assert three["cached_tokens"] == 3 * alone["cached_tokens"]
    assert three["ms_per_token"] == pytest.approx(three["ms"] / 9), "of all streams together"
    assert three["device_bytes"] > alone["device_bytes"]


def test_rows_cover_the_plan():
    plan = Plan(size=(56, 56), seconds=64, frames=(16, 256), rates=(2, 4), streams=(2, 16))
    names = [row.name for row in efficiency.rows_of(None, plan)]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("full")] == [
        *(f"full behind {n} s" for n in (8, 16, 32, 64)),
        "full behind 16 frames",
    ]
    assert {"stream", "hard-reset", "recompute", "stream, 4 frames a second", "recompute of 256 frames"} <= set(names)
    assert {"stream, 2 at once", "stream, 16 at once"} <= set(names)


def test_no_streams_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"streams=\(0,\): expected 1 or more"):
        Plan(size=(56, 56), streams=(0,))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("a window that no device holds"), "a window"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x"), "out of"),
    ],
)
def test_what_has_no_room_is_a_row_that_says_so(error, told):
    def fails(_):
        raise error

    assert told in efficiency.attempt(Row("full", "full", 1, fails), print)["failed"]


def test_other_failures_are_not_hidden():
    def fails(_):
        raise jax.errors.JaxRuntimeError("INTERNAL: x")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        efficiency.attempt(Row("full", "full", 1, fails), print)


def test_the_summary_reads_rows():
    rows = {
        "stream": {"kind": "series", "ms": [9.0] * 10 + [10.0] * 80 + [18.0] * 10, "ms_per_token": [1.0, 2.0, 3.0]},
        "recompute": {"kind": "level", "ms": 40.0},
        "stream, 4 frames a second": {"kind": "rate", "ms": 900.0},
        "stream, 8 frames a second": {"kind": "rate", "ms": 1100.0},
        "stream, 2 at once": {"kind": "streams", "ms": 800.0},
        "stream, 4 at once": {"kind": "streams", "ms": 1001.0},
        "stream, 8 at once": {"kind": "streams", "failed": "out of memory"},
        "full behind 8 s": {"kind": "full", "second": 8, "ms": 10.0},
        "full behind 16 s": {"kind": "full", "failed": "out of memory"},
        "full behind 4 s": {"kind": "full", "second": 4, "ms": 5.0},
    }
    wanted = {"ms_per_token": 2.0, "flat": 2.0, "slower": 4.0, "full_growth": 2.0, "frame_rate": 4, "streams": 2}
    assert efficiency.summary(rows) == wanted
    assert set(efficiency.summary({}).values()) == {None}


@pytest.mark.slow
def test_the_command_writes_rows_and_a_figure_and_goes_on(tmp_path, capsys, monkeypatch):
    file = tmp_path / "bench.json"
    argv = ["bench", "--model", "random:tiny", "--size", "56x56", "--tokens", "3", "--seconds", "8", "--json", str(file)]
    argv += ["--window", "vision=2,text=2,sink=4,tail=4", "--frames", "4", "--rates", "2", "--streams", "2"]
    done = []

    def series(vlm, plan, memory, tell):
        done.append(memory)
        tell(1)
        if done[:2] == ["stream", "hard-reset"] and len(done) == 2:
            raise KeyboardInterrupt
        figures = {"second": [1], "ms": [5.0], "ms_per_token": [1.0], "cached_tokens": [9], "device_bytes": [9], "slots": 9}
        return figures

    def steady(vlm, plan, memory, second, tell, **changes):
        parts = {"vision": 1.0, "prefill": 2.0, "decode": 3.0}
        shape = {"slots": 9, "cached_tokens": 9, "device_bytes": 9, "first_token_ms": 3.0}
        return {"second": second, "ms": 6.0, "ms_per_token": 2.0, "parts_ms": parts, **shape}

    def together(vlm, plan, count, second, tell):
        return {"second": second, "streams": count, "ms": 7.0, "slots": 9}

    monkeypatch.setattr(efficiency, "series", series)
    monkeypatch.setattr(efficiency, "steady", steady)
    monkeypatch.setattr(efficiency, "together", together)
    with pytest.raises(KeyboardInterrupt):
        cli.main(argv)
    assert list(json.loads(file.read_text())["rows"]) == ["stream"]
    assert cli.main(argv) == 0
    assert done == ["stream", "hard-reset", "hard-reset"]
    assert "flat: 1" in capsys.readouterr().out
    with Image.open(tmp_path / "bench.png") as picture:
        assert picture.size > (800, 400)
    assert cli.main([*argv, "--tokens", "4"]) == 2
    assert "tokens=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "random:huge"], ["'huge'", "random:", "qwen2.5-vl-7b"]),
        (["--model", "random:tiny", "--frames", "3"], ["frames=(3,)", "even"]),
        (["--model", "random:tiny", "--json", "no/where.json"], ["no/where.json", "does not exist"]),
    ],
)
def test_bad_inputs_are_one_sentence(argv, words, capsys):
    assert cli.main(["bench", *argv]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ") and all(word in complaint for word in words), complaint
