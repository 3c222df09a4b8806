"""The scorer: perfect captions are perfect, and every kind of mistake costs where it should."""

import dataclasses
import json

import pytest

from svlm_jax.errors import DataError
from svlm_jax.synthetic import Match, score_match
from svlm_jax.synthetic.score import score_slices

TRUTH = Match(seed=4).seconds(1200)
LINES = [second.line for second in TRUTH]
PERFECT = dict.fromkeys(
    (
        "event_f1",
        "precision",
        "recall",
        "silence_precision",
        "silence_recall",
        "names",
        "score_accuracy",
        "games_right",
        "score_consistency",
        "last_accuracy",
    ),
    1.0,
)


def figures(report):
    return {name: getattr(report, name) for name in PERFECT}


def edited(change):
    return score_match(TRUTH, [change(line) for line in LINES])


def test_the_truth_is_perfect():
    report = score_match(TRUTH, LINES)
    assert figures(report) == PERFECT and report.nonsense == 0
    assert report.events == sum(bool(line) for line in LINES) and set(report.per_event.values()) == {1.0}
    assert json.loads(json.dumps(report.to_json()))["seconds"] == 1200


def test_a_second_early_or_late_is_right_two_are_not():
    for shift in (1, -1):
        late = LINES[-shift:] + LINES[:-shift]
        assert score_match(TRUTH, late).event_f1 > 0.99
    assert score_match(TRUTH, ["", "", *LINES[:-2]]).event_f1 < 0.5


def test_silence_throughout():
    report = score_match(TRUTH, [""] * len(TRUTH))
    assert report.recall == 0 and report.precision is None and report.event_f1 == 0
    assert report.silence_recall == 1 and report.silence_precision == pytest.approx(LINES.count("") / len(LINES))
    assert report.score_accuracy == 0 and report.score_consistency is None


def test_the_other_team_is_wrong():
    swap = {"red": "blue", "blue": "red"}
    report = edited(lambda line: " ".join([swap[line.split()[0]], *line.split()[1:]]) if line else "")
    assert report.event_f1 < 0.2 and report.silence_precision == 1


def test_each_event_is_used_once():
    at = next(i for i, line in enumerate(LINES) if line and not LINES[i + 1])
    report = score_match(TRUTH, [*LINES[: at + 1], LINES[at], *LINES[at + 2 :]])
    assert report.recall == 1 and report.precision == pytest.approx(report.events / (report.events + 1))


def test_wrong_names_cost_names_only():
    report = edited(lambda line: line.replace("amber", "onyx"))
    assert report.names < 0.9
    assert {**figures(report), "names": 1.0} == PERFECT


def test_a_wrong_score_costs_accuracy_of_its_game_and_consistency():
    """One goal counted double, and kept until the next game."""
    lines = list(LINES)
    game = [i for i, second in enumerate(TRUTH) if second.game == 1]
    goal = next(i for i in game if lines[i].split()[1:2] == ["goal"])
    scored = [i for i in game if i >= goal and "score" in lines[i]]
    for i in scored:
        red, blue = lines[i].split("score ")[1].split()[0].split("-")
        lines[i] = lines[i].replace(f"{red}-{blue}", f"{int(red) + 1}-{blue}")
    report = score_match(TRUTH, lines)
    all_lines = sum("score" in LINES[i] for i in game)
    games = TRUTH[-1].game + 1
    assert report.score_accuracy == pytest.approx(1 - len(scored) / all_lines / games)
    assert report.games_right == pytest.approx(1 - 1 / games)
    # Only the jump by two is inconsistent: afterwards it goes on from there, and the board puts it right.
    count = sum("score" in line for line in LINES)
    assert report.score_consistency == pytest.approx(1 - 1 / count)
    assert report.event_f1 == 1 and report.last_accuracy == 1


def test_forgetting_the_score_is_inconsistent():
    report = edited(lambda line: f"{line.split('score')[0]}score 1-1" if "score" in line else line)
    assert report.score_consistency < 0.8 and report.score_accuracy < 0.3 and report.last_accuracy == 0


def test_nonsense_is_counted():
    report = edited(lambda line: line or "hello")
    assert report.nonsense == LINES.count("") and report.silence_precision is None and report.event_f1 == 1


def test_slices_are_parts_of_the_whole():
    lines = [line if i < 600 else "" for i, line in enumerate(LINES)]
    first, second = score_slices(TRUTH, lines)
    assert figures(first) == PERFECT and second.recall == 0
    assert first.seconds == second.seconds == 600
    whole = score_match(TRUTH, lines)
    assert whole.events == first.events + second.events
    assert whole.recall == pytest.approx(first.events / whole.events)
    one, two, three = score_slices(TRUTH, LINES, 500)
    assert three.seconds == 200 and one.event_f1 == two.event_f1 == three.event_f1 == 1


def test_there_is_one_caption_a_second():
    with pytest.raises(DataError, match="3 captions for 1200 seconds"):
        score_match(TRUTH, LINES[:3])
    assert dataclasses.asdict(score_match([], []))["event_f1"] is None
