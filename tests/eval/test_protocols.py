"""Who is asked what when, and that nothing after the question matters."""

import dataclasses

import pytest

from svlm_jax.errors import ConfigError
from svlm_jax.eval import protocols
from svlm_jax.eval.frames import Video
from svlm_jax.eval.items import Item
from svlm_jax.eval.protocols import Protocol
from tests.eval import sets
from tests.eval.fakes import Reader

PROTOCOL = Protocol(prefix_frames=8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return Video(sets.clip(tmp_path_factory.mktemp("protocols") / "a.mkv"))


def question(name, time, **more):
    return Item(name, "a.mkv", f"question {name}", time, **more)


def play(reader, video, items, row, protocol=PROTOCOL):
    return [
        outcome for group in protocols.groups(items, row) for outcome in protocols.play(reader, video, group, row, protocol)
    ]


def test_a_stream_is_asked_as_it_runs(video):
    items = [question("end", None), question("b", 3.0), question("a", 1.2), question("c", 4.4), question("late", 60.0)]
    reader = Reader(lambda question, seen: str(seen[-1]))
    outcomes = play(reader, video, items, "stream")
    assert [(outcome.item.id, outcome.response) for outcome in outcomes] == [
        ("a", "2"),
        ("b", "5"),
        ("c", "8"),
        ("late", "15"),  # the video is shorter
        ("end", "15"),
    ]
    assert len(reader.views) == 1  # one stream for all
    by_question = dict(reader.asked)
    assert by_question["question a"] == [0, 1, 2, 2] and by_question["question b"] == [0, 1, 2, 3, 4, 5]
    assert by_question["question end"] == list(range(16))  # the frame shown twice has left no trace


def test_what_can_be_seen_at_once(video):
    reader = Reader()
    play(reader, video, [question("a", 3.0), question("b", 8.0, start=4.0)], "prefix")
    assert [seen for _, seen in reader.asked] == [[0, 1, 2, 3, 4, 5], [8, 9, 10, 11, 12, 13, 14, 15]]
    assert all(view.once for view in reader.views) and len(reader.views) == 2
    reader = Reader()
    play(reader, video, [question("a", 8.0)], "last")
    assert [seen for _, seen in reader.asked] == [[9, 11, 13, 15]]


@pytest.mark.parametrize("row", protocols.ROWS)
def test_frames_after_the_question_do_not_matter(tmp_path, row):
    """Two videos that differ from 5 s on: whoever is asked until then answers the same, later not."""
    one = sets.clip(tmp_path / "one.mkv", seconds=5)
    long = sets.clip(tmp_path / "long.mkv", seconds=9)
    items = [question(str(time), time) for time in (0.3, 1.0, 2.7, 4.99, 5.0)]
    heard = []
    for path in (one, long):
        reader = Reader(lambda question, seen: str(seen))
        heard.append([outcome.response for outcome in play(reader, Video(path), items, row)])
    assert heard[0] == heard[1] and len(set(heard[0])) >= 4
    late = [question("late", 7.0)]
    said = [play(Reader(lambda question, seen: str(seen)), Video(path), late, row)[0].response for path in (one, long)]
    assert said[0] != said[1]


@pytest.mark.parametrize("row", protocols.ROWS)
def test_nothing_to_see_is_nothing_said(video, row):
    assert play(Reader(), video, [question("a", 0.0)], row) == []


# --------------------------------------------------------------------------------------------- proactive


def goal_at(frame):
    """Says yes to a poll once it has seen the frame."""

    def answer(question, seen):
        if protocols.POLL not in question:
            return "GOAL"
        return "Yes." if seen[-1] >= frame else "No."

    return Reader(answer)


@pytest.mark.parametrize("row", protocols.ROWS)
def test_a_proactive_question_is_polled_every_second(video, row):
    item = question("p", 2.0, kind="proactive", answer="GOAL", due=4.0, until=6.0)
    reader = goal_at(9)
    (outcome,) = play(reader, video, [item], row)
    assert (outcome.at, outcome.response) == (5.0, "GOAL")  # frame 9 is seen by the poll at 5 s
    polls = [seen[-1] for question, seen in reader.asked if protocols.POLL in question]
    assert polls == [3, 5, 7, 9]
    (silent,) = play(goal_at(99), video, [item], row)
    assert (silent.at, silent.response) == (None, "")


# --------------------------------------------------------------------------------------------- commentary


def commentary(name, start, time, **more):
    return Item(name, "a.mkv", "Commentate.", time, start=start, kind="commentary", previous=f"before {name}", **more)


def test_an_event_is_told_from_its_beginning(video):
    reader = Reader()
    (outcome,) = play(reader, video, [commentary("e", 2.0, 4.5)], "stream")
    assert outcome.response == "frame 5 frame 7 frame 8"
    assert [line[:2] for line in outcome.said] == [(2.0, 3.0), (3.0, 4.0), (4.0, 5.0)]
    (view,) = reader.views
    assert (view.previous, view.query, view.fps, view.seconds) == ("before e", "Commentate.", 2.0, 1.0)


def windows():
    where = {"origin": 1.0, "opening": "long before"}
    return [commentary("x", 0.0, 1.0, **where), commentary("a", 2.0, 4.0, **where), commentary("b", 5.0, 7.0, **where)]


def test_a_game_is_told_in_one_stream_or_afresh(video):
    reader = Reader()
    outcomes = play(reader, video, windows(), "stream")
    assert [(outcome.item.id, outcome.response) for outcome in outcomes] == [
        ("a", "frame 5 frame 7"),
        ("b", "frame 11 frame 13"),
    ]
    assert [view.previous for view in reader.views] == ["long before"] and reader.seen == list(range(2, 14))

    reader = Reader()
    outcomes = play(reader, video, windows(), "chunked")
    assert [(outcome.item.id, outcome.response) for outcome in outcomes] == [
        ("a", "frame 5 frame 7"),
        ("b", "frame 11 frame 13"),
    ]
    assert [view.previous for view in reader.views] == ["before a", "before b"] and reader.seen == [10, 11, 12, 13]
    assert outcomes[0].item.origin == 1.0

    reader = Reader()
    play(reader, video, windows(), "chunked", dataclasses.replace(PROTOCOL, previous="own"))
    assert [view.previous for view in reader.views] == ["before a", "frame 5 frame 7"]


def test_commentary_without_memory(video):
    reader = Reader()
    (outcome,) = play(reader, video, [commentary("e", 2.0, 5.0)], "last")
    assert outcome.response == "frame 5 frame 7 frame 9"
    assert len(reader.views) == 3 and reader.seen == [6, 7, 8, 9] and reader.views[-1].once
    reader = Reader(lambda question, seen: f"{question} {seen}")
    (outcome,) = play(reader, video, [commentary("e", 2.0, 5.0)], "prefix")
    assert outcome.response == "Commentate. [4, 5, 6, 7, 8, 9]"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fps": 0.0}, "fps=0.0: expected more than 0"),
        ({"fps": 3.0}, "fps=3.0: expected at most 2, or an even number"),
        ({"prefix_frames": 7}, "prefix_frames=7: expected an even number"),
        ({"last_frames": 0}, "last_frames=0: expected an even number"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected 1 or more"),
        ({"previous": "none"}, "previous='none': expected truth or own"),
    ],
)
def test_protocols_that_cannot_work(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Protocol(**change)
