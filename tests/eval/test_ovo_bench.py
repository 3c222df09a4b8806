"""OVO-Bench: the scores of a set of made answers, worked out by hand, and the published shapes."""

import json

import pytest

from svlm_jax.errors import EvalError
from svlm_jax.eval.benchmarks.ovo_bench import BENCHMARK, read
from svlm_jax.eval.items import Item
from svlm_jax.eval.protocols import Outcome
from svlm_jax.eval.report import report
from svlm_jax.eval.runner import Run, record_of, score_answers
from tests.eval import sets

OPTIONS = ("red", "blue", "green", "Unable to answer")
# task, right answer, raw response, official point, strict point
ANSWERS = [
    # backward: EPM 2/3 official, 1/3 strict; ASI 1/2, 1/2; HLD 0/1, 1/1
    ("EPM", "A", "A", 1, 1),
    ("EPM", "B", "A or B", 1, 0),  # a letter anywhere
    ("EPM", "C", "D", 0, 0),
    ("ASI", "B", "B. blue", 1, 1),
    ("ASI", "B", "A. red", 0, 0),
    ("HLD", "D", "Unable to answer", 0, 1),  # the option itself, and no letter D in it
    # realtime: OCR 1/1, 1/1; ACR 1/2, 0/2; ATR 0/1, 0/1
    ("OCR", "C", "(C)", 1, 1),
    ("ACR", "B", "Both", 1, 0),  # the B of a word
    ("ACR", "A", "", 0, 0),
    ("ATR", "A", "B", 0, 0),
    # forward: REC 2/4, 1/4; SSR 2/3, 1/3; CRR 1/2, 1/2
    ("REC", "3", "3 times", 1, 1),
    ("REC", "12", "1, then 2", 1, 0),  # joined digits
    ("REC", "1", "1 or 2", 0, 0),
    ("REC", "2", "two", 0, 0),
    ("SSR", "No", "Not yet", 1, 0),  # "No" is in "Not"
    ("SSR", "Yes", "Y", 1, 1),
    ("SSR", "Yes", "No", 0, 0),
    ("CRR", "Yes", "Yes.", 1, 1),
    ("CRR", "No", "Yes", 0, 0),
]
TRACK = {"EPM": "backward", "ASI": "backward", "HLD": "backward", "REC": "forward", "SSR": "forward", "CRR": "forward"}
OFFICIAL = {
    "tasks": {"EPM": 66.67, "ASI": 50.0, "HLD": 0.0, "OCR": 100.0, "ACR": 50.0, "ATR": 0.0,
              "REC": 50.0, "SSR": 66.67, "CRR": 50.0},
    "tracks": {"backward": 38.89, "realtime": 50.0, "forward": 55.56},  # (66.67 + 50 + 0) / 3; 150 / 3; 166.67 / 3
    "total": 48.15,  # (38.89 + 50 + 55.56) / 3
}  # fmt: skip
STRICT = {
    "tasks": {"EPM": 33.33, "ASI": 50.0, "HLD": 100.0, "OCR": 100.0, "ACR": 0.0, "ATR": 0.0,
              "REC": 25.0, "SSR": 33.33, "CRR": 50.0},
    "tracks": {"backward": 61.11, "realtime": 33.33, "forward": 36.11},
    "total": 43.52,
}  # fmt: skip


def items():
    for i, (task, answer, *_) in enumerate(ANSWERS):
        track = TRACK.get(task, "realtime")
        options = () if track == "forward" else OPTIONS
        yield Item(str(i), "a.mp4", "?", 1.0, options=options, answer=answer, task=task, track=track)


def test_golden_scores():
    asked = list(items())
    outcomes = [Outcome(item, response) for item, (_, _, response, _, _) in zip(asked, ANSWERS, strict=True)]
    records = {outcome.item.id: record_of(BENCHMARK, outcome) for outcome in outcomes}
    points = [(record["official"], record["strict"]) for record in records.values()]
    assert points == [(official, strict) for *_, official, strict in ANSWERS]
    result = report(BENCHMARK, asked, records)
    assert result["official"] == OFFICIAL and result["strict"] == STRICT
    assert result["counts"]["unparsed"] == 7 and result["counts"]["empty"] == 1


def test_the_total_is_neither_the_mean_of_items_nor_of_tasks():
    points = [official for *_, official, _ in ANSWERS]
    assert round(100 * sum(points) / len(points), 2) == 52.63
    assert round(sum(OFFICIAL["tasks"].values()) / 9, 2) == 48.15  # equal here, three tasks a track
    first = [item for item in items() if item.task != "HLD"]
    kept = {item.id: {"official": ANSWERS[int(item.id)][3], "response": "x"} for item in first}
    assert report(BENCHMARK, first, kept)["official"]["total"] == 54.63  # ((66.67 + 50) / 2 + 50 + 55.56) / 3


def test_an_answer_that_is_missing_is_wrong():
    asked = [item for item in items() if item.task == "OCR"]
    result = report(BENCHMARK, asked, {})
    assert result["official"]["total"] == 0 and result["counts"]["missing"] == 1


def test_published_answers_are_scored(tmp_path):
    """Result files hold texts, lists of one text, and nothing."""
    data = sets.ovo_bench(tmp_path / "data")
    ask = {"video": "src/a.mp4", "question": "Which?", "ground_truth": "B"}
    rec = {"id": 3, "task": "REC", "test_info": [{"response": "1"}, {"response": ["It is 2"]}]}
    ssr = {"id": 4, "task": "SSR", "test_info": [{"response": "N"}, {"response": None}]}
    backward = {"backward": [{**ask, "id": 1, "task": "EPM", "response": ["B"]}], "realtime": [], "forward": []}
    sets.write(tmp_path / "answers" / "m_EPM_offline.json", backward)
    sets.write(tmp_path / "answers" / "m_rest_offline.json", {"backward": [], "realtime": [], "forward": [rec, ssr]})
    result = score_answers(Run(BENCHMARK, data, tmp_path / "out", BENCHMARK.protocol), tmp_path / "answers")
    assert result["official"]["tasks"] == {"EPM": 100.0, "OCR": 0.0, "REC": 100.0, "SSR": 50.0, "CRR": 0.0}
    assert result["counts"]["answered"] == 5 and result["counts"]["missing"] == 3 and result["counts"]["empty"] == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(EvalError, match="does not hold this benchmark"):
        score_answers(Run(BENCHMARK, data, tmp_path / "out", BENCHMARK.protocol), data / "src")


def test_entries_become_questions(tmp_path):
    found = {item.id: item for item in read(sets.ovo_bench(tmp_path))}
    assert list(found) == ["1", "2", "3_0", "3_1", "4_0", "4_1", "5_0", "5_1"]
    assert (found["1"].answer, found["1"].track, found["1"].time) == ("B", "backward", 4.0)
    assert (found["3_1"].answer, found["4_0"].answer, found["4_1"].answer) == ("2", "No", "Yes")
    assert all(item.start == 0 for item in found.values())  # CRR too, not its ask_time
    assert "jump" in found["3_0"].question and "bake" in found["4_1"].question and "Who won?" in found["5_0"].question


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"realtime": None}, "entry 0 has no field 'realtime', expected a finite number"),
        ({"gt": 7}, "field 'gt' is 7: expected one of 3 options"),
        ({"gt": "B"}, "field 'gt' is 'B': expected a whole number"),
        ({"options": "one"}, "field 'options' is 'one': expected an array"),
        ({"task": "XYZ"}, "field 'task' is 'XYZ': expected one of EPM, ASI"),
    ],
)
def test_entries_that_are_not_as_published(tmp_path, change, sentence):
    docs = json.loads((sets.ovo_bench(tmp_path) / "ovo_bench_new.json").read_text())
    sets.write(tmp_path / "ovo_bench_new.json", [{**docs[0], **change}])
    with pytest.raises(EvalError, match=r"ovo_bench_new\.json") as error:
        read(tmp_path)
    assert sentence in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(EvalError, match=r"does not hold this benchmark: expected ovo_bench_new\.json"):
        read(tmp_path)
    with pytest.raises(EvalError, match="is no folder"):
        read(tmp_path / "gone")
    (tmp_path / "ovo_bench_new.json").write_text("{")
    with pytest.raises(EvalError, match="is no JSON"):
        read(tmp_path)
    (tmp_path / "ovo_bench_new.json").write_text('{"a": 1}')
    with pytest.raises(EvalError, match="holds dict: expected a list"):
        read(tmp_path)
    (tmp_path / "ovo_bench_new.json").write_text("[3]")
    with pytest.raises(EvalError, match="entry 0 is 3: expected an object"):
        read(tmp_path)
