"""Judges on the loopback: both orders, votes and ties, nonsense, silence and rate limits, and what is kept."""

import dataclasses
import datetime
import json
import re

import pytest

from svlm_jax.errors import EvalError
from svlm_jax.eval.benchmarks import BENCHMARKS
from svlm_jax.eval.items import Item
from svlm_jax.eval.judge import Judge, judge_answers, judge_pairs, lone_letter, rating
from svlm_jax.eval.judging import judge_row
from svlm_jax.eval.predictions import read_predictions, write_predictions
from svlm_jax.eval.runner import Run, run_row
from svlm_jax.host.chat_client import Endpoint
from svlm_jax.models.resize_rule import PUBLISHED
from tests.endpoints import serving
from tests.eval import sets
from tests.eval.fakes import Reader

ITEMS = [Item(name, "a.mp4", "?", 1.0, answer=f"truth {name}", title=f"what about {name}?") for name in "wxyz"]
OURS = {name: f"ours {name}" for name in "wxyz"}
THEIRS = {name: f"theirs {name}" for name in "wxyz"}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


SILENCE = 1.5  # seconds before the server answers


def patience(trouble):
    """The time limit of a request: only silence is to reach it, however busy the machine."""
    return 0.5 if trouble == SILENCE else 20.0


def judge(server, folder, **changes):
    endpoint = Endpoint(server.url, "judge-1", **{"pause": 0.01, "tries": 2, "key": "secret", **changes})
    return Judge(endpoint, folder / "verdicts.jsonl", workers=2)


def asked(request):
    return request["messages"][1]["content"]


def ours_is(request):
    """The letter at which our commentary stands in a request about a pair."""
    return "A" if re.search(r"A:\nours", asked(request)) else "B"


@pytest.mark.parametrize(
    ("answer", "letter"), [("A", "A"), (" b", None), ("B.", "B"), ("**A**", "A"), ("A or B", None), ("Apple", None), ("", None)]
)
def test_a_vote_is_a_lone_letter(answer, letter):
    assert lone_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("{'pred': 'yes', 'score': 4}", (True, 4)),
        ('Sure: {"pred": "No", "score": 0}.', (False, 0)),
        ('{"pred": "yes", "score": 4.0}', (True, 4)),
        ('{"pred": "maybe", "score": 4}', None),
        ('{"pred": "yes", "score": 9}', None),
        ('{"pred": "yes"}', None),
        ("yes, 4", None),
        ("{", None),
    ],
)
def test_a_rating_is_read_from_json_or_what_resembles_it(answer, found):
    assert rating(answer) == found


def test_both_orders_ties_and_consistency(server, tmp_path):
    """w is won, x lost, y goes to whoever is A, z to whoever is B."""

    def reply(request):
        mine, other = ours_is(request), "AB".replace(ours_is(request), "")
        return {"w": mine, "x": other, "y": "A", "z": "B"}[re.search(r"truth (.)", asked(request))[1]]

    server.reply = reply
    result = judge_pairs(judge(server, tmp_path), ITEMS, OURS, THEIRS)
    assert (result["wins"], result["losses"], result["ties"], result["judged"]) == (1, 1, 2, 4)
    assert result["official"]["win_rate"] == result["strict"]["win_rate"] == 50.0  # 4 of 8 votes
    assert result["consistency"] == 50.0 and result["verdicts"] == 8 and result["failed"] == result["unparsed"] == 0
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert result["judge"] == "judge-1" and result["dates"][1] == today
    assert {ours_is(request) for _, _, request in server.requests} == {"A", "B"}


def test_nonsense_is_a_vote_for_b_officially_and_no_vote_strictly(server, tmp_path):
    server.reply = lambda request: "Both are fine." if ours_is(request) == "B" else "A"
    result = judge_pairs(judge(server, tmp_path), ITEMS[:1], OURS, THEIRS)
    assert result["official"]["win_rate"] == 100.0  # A, and "not A" where ours is B
    assert result["strict"]["win_rate"] == 100.0 and result["unparsed"] == 1
    assert (result["judged"], result["wins"], result["consistency"]) == (0, 0, None)
    assert len(server.requests) == 3  # nonsense was asked again once


def test_commentary_that_either_lacks_is_counted(server, tmp_path):
    server.reply = ours_is
    result = judge_pairs(judge(server, tmp_path), ITEMS, {**OURS, "w": " "}, {"w": "a", "x": "b", "y": "c"})
    assert result["missing"] == {"ours": 1, "theirs": 1} and result["judged"] == 2 and result["items"] == 4


def test_verdicts_are_kept_and_torn_files_mended(server, tmp_path):
    server.reply = ours_is
    first = judge_pairs(judge(server, tmp_path), ITEMS, OURS, THEIRS)
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write('{"key": "tor')
    count = len(server.requests)
    assert judge_pairs(judge(server, tmp_path), ITEMS, OURS, THEIRS) == first and len(server.requests) == count
    other = Judge(Endpoint(server.url, "judge-2", pause=0.01), tmp_path / "verdicts.jsonl")  # another judge is asked anew
    assert judge_pairs(other, ITEMS, OURS, THEIRS)["judge"] == "judge-2" and len(server.requests) == 2 * count


@pytest.mark.parametrize("trouble", [429, 503, SILENCE])
def test_what_a_judge_did_not_answer_is_counted_and_asked_again(server, tmp_path, trouble):
    """Rate limits, overload, and silence beyond the time limit, from the fourth request on."""
    server.reply = lambda request: ours_is(request) if len(server.requests) <= 3 else trouble
    part = judge_pairs(judge(server, tmp_path, timeout=patience(trouble)), ITEMS, OURS, THEIRS)
    assert part["failed"] == 5 and part["judged"] <= 1
    server.reply = ours_is
    before = len(server.requests)
    whole = judge_pairs(judge(server, tmp_path), ITEMS, OURS, THEIRS)
    assert whole["failed"] == 0 and whole["judged"] == whole["wins"] == 4 and len(server.requests) - before == 5


def test_a_rate_limit_that_passes_costs_nothing(server, tmp_path):
    server.reply = lambda request: 429 if len(server.requests) <= 2 else "A"
    result = judge_pairs(judge(server, tmp_path, tries=4), ITEMS[:1], OURS, THEIRS)
    assert result["failed"] == 0 and result["ties"] == 1


def test_a_refusal_is_counted_and_not_repeated(server, tmp_path):
    server.reply = lambda request: 401
    result = judge_pairs(judge(server, tmp_path), ITEMS[:1], OURS, THEIRS)
    assert result["failed"] == 2 and len(server.requests) == 2 and result["official"]["win_rate"] is None


@pytest.mark.parametrize("trouble", [429, SILENCE, "I like both."])
def test_answers_that_a_judge_did_not_rate_are_counted_and_asked_again(server, tmp_path, trouble):
    def reply(request):
        return '{"pred": "yes", "score": 5}' if "truth w" in asked(request) else trouble

    server.reply = reply
    part = judge_answers(judge(server, tmp_path, timeout=patience(trouble)), ITEMS, OURS)
    assert part["judged"] == 1 and part["unparsed" if isinstance(trouble, str) else "failed"] == 3
    assert part["official"]["accuracy"] == 100.0 and part["strict"]["accuracy"] == 25.0
    server.reply = lambda request: "{'pred': 'no', 'score': 0}"
    before = len(server.requests)
    whole = judge_answers(judge(server, tmp_path), ITEMS, OURS)
    assert whole["judged"] == 4 and whole["official"]["accuracy"] == 25.0 and len(server.requests) - before == 3


def test_verdicts_that_are_none(server, tmp_path):
    (tmp_path / "verdicts.jsonl").write_text('{"answer": "A", "date": "2026-01-01"}\n')
    with pytest.raises(EvalError, match=r"verdicts\.jsonl, line 1 has no field 'key'"):
        judge(server, tmp_path)


def test_answers_are_rated(server, tmp_path):
    says = {"w": "{'pred': 'yes', 'score': 5}", "x": '{"pred": "no", "score": 1}', "y": "Quite right."}
    server.reply = lambda request: says[re.search(r"truth (.)", asked(request))[1]]
    result = judge_answers(judge(server, tmp_path), ITEMS, {name: OURS[name] for name in "wxy"})
    assert result["official"] == {"accuracy": 50.0, "score": 3.0}  # of the two that were understood
    assert result["strict"] == {"accuracy": 25.0, "score": 1.5}  # of all four
    assert (result["judged"], result["unparsed"], result["missing"]) == (2, 1, {"ours": 1})
    assert any("what about w?" in asked(request) for _, _, request in server.requests)


def test_a_benchmark_is_judged_where_it_lies(server, tmp_path):
    """RVS: answered first, judged later, without the model."""
    benchmark = BENCHMARKS["rvs-ego"]
    run = Run(benchmark, sets.rvs(tmp_path / "data"), tmp_path / "out", benchmark.protocol)
    with pytest.raises(EvalError, match="holds no results; expected a run of this row"):
        judge_row(run, "stream", judge(server, tmp_path))
    assert "judgement" not in run_row(run, Reader(lambda question, seen: "bars"), "stream")
    server.reply = lambda request: '{"pred": "yes", "score": 4}'
    report = judge_row(run, "stream", judge(server, tmp_path))
    assert report["judgement"]["official"] == {"accuracy": 100.0, "score": 4.0}
    assert json.loads((tmp_path / "out" / "stream" / "report.json").read_text()) == report
    assert run_row(run, Reader(), "stream") == report  # nothing new was answered
    records = tmp_path / "out" / "stream" / "items.jsonl"
    records.write_text(records.read_text().splitlines(keepends=True)[0])
    fewer = dataclasses.replace(run, limit=1)
    assert "judgement" not in run_row(fewer, Reader(), "stream")  # of other answers


@pytest.mark.parametrize("name", ["livesports-cc", "inf-streams"])
def test_commentary_beside_published_predictions(server, tmp_path, name):
    benchmark = BENCHMARKS[name]
    run = Run(
        benchmark,
        sets.SETS[name](tmp_path / "data"),
        tmp_path / "out",
        benchmark.protocol,
        resize=dataclasses.replace(PUBLISHED, size=(56, 84)),
    )
    if name == "livesports-cc":
        lines = [{"video_id": "xyz", "event_id": 3, "begin": 2.0, "end": 5.5, "pred": "theirs"}]
    else:
        spoken = [{"start_time": 1000.0 + i, "end_time": 1001.0 + i, "response": "theirs"} for i in range(100)]
        lines = [{"video": "abc.mp4", "chunk_start": 1000, "chunk_end": 1100, "items": spoken}]
    baseline = sets.write(tmp_path / "theirs.jsonl", lines)
    run_row(run, Reader(), "prefix")
    server.reply = lambda request: "B" if re.search(r"A:\ntheirs", asked(request)) else "A"
    with pytest.raises(EvalError, match="compares commentaries; expected a baseline"):
        judge_row(run, "prefix", judge(server, tmp_path))
    judged = judge_row(run, "prefix", judge(server, tmp_path), baseline)["judgement"]
    assert judged["official"]["win_rate"] == 100.0 and judged["judged"] == 1 and judged["missing"]["theirs"] >= 1
    with pytest.raises(EvalError, match="is no file; expected the predictions"):
        judge_row(run, "prefix", judge(server, tmp_path), tmp_path / "gone.jsonl")


def test_predictions_survive_their_own_format(tmp_path):
    game = [Item(f"g_{s}", "a.mp4", "?", s + 100.0, start=float(s), kind="commentary", event="g.mp4", origin=1000.0)
            for s in (1000, 1100)]  # fmt: skip
    said = [[1000.0 + i, 1001.0 + i, f"w{i}"] for i in range(200)]
    records = {"g_1000": {"response": "x", "said": said[:100]}, "g_1100": {"response": "y", "said": said[100:]}}
    write_predictions(tmp_path / "p.jsonl", game, records)
    found = read_predictions(tmp_path / "p.jsonl", game)
    assert found["g_1000"] == " ".join(f"w{i}" for i in range(100)) and found["g_1100"].startswith("w100 w101")
    event = Item("v_1_7", "a.mp4", "?", 5.0, start=1.0, kind="commentary", event="v_1_7")
    write_predictions(tmp_path / "e.jsonl", [event], {"v_1_7": {"response": "he runs"}})
    line = json.loads((tmp_path / "e.jsonl").read_text())
    assert line == {"video_id": "v_1", "event_id": 7, "begin": 1.0, "end": 5.0, "pred": "he runs"}
    assert read_predictions(tmp_path / "e.jsonl", [event]) == {"v_1_7": "he runs"}
