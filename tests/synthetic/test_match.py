"""The match: what is shown and said is true, and the same for the same seed."""

import dataclasses
import itertools

import av
import numpy as np
import pytest

from svlm_jax.data.annotations import Annotation, AnnotationFile
from svlm_jax.data.chunks import ChunkSettings, turns
from svlm_jax.data.clips import read_clip
from svlm_jax.errors import ConfigError, OutputError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.synthetic import Match, write_match
from svlm_jax.synthetic.commentary import KINDS, SCORED, VOCABULARY, line, parse
from svlm_jax.synthetic.render import CYAN, MAGENTA, ORANGE, PALE, TEAM, WHITE, Renderer
from svlm_jax.synthetic.world import GOALS, NOBODY, TEAMS, Event

HALF_HOUR = 1800


@pytest.fixture(scope="module")
def seconds():
    return Match(seed=11).seconds(HALF_HOUR)


def test_a_seed_is_a_match(seconds):
    again = Match(seed=11, scale=2).seconds(300)
    assert [second.line for second in again] == [second.line for second in seconds[:300]]
    for one, other in zip(seconds[:300], again, strict=True):
        assert all((a.players == b.players).all() for a, b in zip(one.ticks, other.ticks, strict=True))
    assert [second.line for second in Match(seed=12).seconds(300)] != [second.line for second in seconds[:300]]
    assert [second.number for second in Match(seed=11).seconds(50, start=40)] == list(range(40, 50))


def test_every_kind_of_event_happens_and_often_nothing_does(seconds):
    kinds = [second.event.kind for second in seconds if second.event]
    assert set(kinds) == set(KINDS)
    assert 0.3 < len(kinds) / len(seconds) < 0.45
    assert 0.9 < sum(len(second.words) for second in seconds) / len(seconds) < 1.5


def test_words_lie_in_their_second_and_are_all_known(seconds):
    for second in seconds:
        assert [word.text for word in second.words] == second.line.split()
        assert all(second.number < word.start < word.end < second.number + 1 for word in second.words)
        assert all(a.end == b.start for a, b in itertools.pairwise(second.words))
        assert set(second.line.split()) <= set(VOCABULARY)


def test_what_is_said_can_be_read_back(seconds):
    for second in seconds:
        assert parse(second.line) == second.event
    assert parse("") is parse("goal red") is parse("red") is parse("green goal") is None
    assert parse("red goal score two") == Event("goal", "red")


def test_the_score_follows_the_goals_and_is_shown_at_the_kick_off_of_a_new_game_only(seconds):
    score, last, game = [0, 0], NOBODY, 0
    fresh = True
    for second in seconds:
        event = second.event
        if second.game > game:
            assert max(score) == GOALS
            score, last, game, fresh = [0, 0], NOBODY, second.game, True
        if event and event.kind == "goal":
            score[TEAMS.index(event.team)] += 1
            last, fresh = event.team, False
        if event and event.kind == "kickoff":
            assert any(tick.board for tick in second.ticks) == fresh
        if event and event.kind in SCORED:
            assert event.score == tuple(score)
        if event and event.kind == "throw":
            assert event.last == last
        assert second.score == tuple(score) and second.last == last
        assert fresh or not any(tick.board for tick in second.ticks)
    assert game > 3


def test_the_team_that_is_named_has_the_ball(seconds):
    for second in seconds:
        for tick in second.ticks:
            if tick.event and tick.event.kind in ("pass", "steal", "intercept", "save", "throw", "kickoff"):
                assert tick.gained and TEAMS[tick.holder // 4] == tick.event.team
            if tick.event and tick.event.kind in ("shot", "wide", "out", "goal", "win"):
                assert tick.holder == -1


def share(picture, colour):
    return float((picture == np.asarray(colour, np.uint8)).all(-1).mean())


@pytest.mark.parametrize("scale", [1, 2])
def test_events_can_be_seen_in_the_tick_in_which_they_are_said(seconds, scale):
    """Large areas of the colour that tells the event, and none of it at other times."""
    renderer = Renderer(scale)
    cues = {"pass": CYAN, "intercept": CYAN, "shot": ORANGE, "save": ORANGE, "goal": ORANGE, "wide": MAGENTA, "out": MAGENTA}
    seen = dict.fromkeys(cues, 0)
    for second in seconds[:600]:
        for tick in second.ticks:
            if tick.event is None and (tick.trail or tick.edge or second.number % 8):
                continue
            picture = renderer.draw(tick, tick)
            assert picture.shape == (84 * scale, 112 * scale, 3) and picture.dtype == np.uint8
            kind = tick.event.kind if tick.event else ""
            if kind in cues:
                assert share(picture, cues[kind]) > 0.0015
                seen[kind] += 1
            elif not tick.edge:
                assert all(share(picture, colour) == 0 for colour in (CYAN, ORANGE, MAGENTA))
            if tick.holder >= 0 and not tick.gained:
                assert share(picture, PALE[TEAMS[tick.holder // 4]]) > 0.006 > share(picture, PALE[TEAMS[tick.holder < 4]])
            if kind == "win":
                assert share(picture, TEAM[tick.event.team]) > share(picture, TEAM[TEAMS[tick.event.team == "red"]]) + 0.1
    assert min(seen.values()) > 3


def test_the_board_can_be_read_and_is_nowhere_else(seconds):
    renderer = Renderer(1)
    shown = next(tick for second in seconds for tick in second.ticks if tick.board)
    hidden = next(tick for second in seconds for tick in second.ticks if not tick.board)
    board = np.s_[8:28, 29:83]
    assert share(renderer.draw(shown, shown)[board], WHITE) > 0.15 > 0.05 > share(renderer.draw(hidden, hidden)[board], WHITE)


def test_pictures_between_ticks_move_and_those_at_ticks_are_the_ticks(seconds):
    match, second = Match(seed=11), seconds[4]
    smooth, plain = match.frames(second, fps=12), match.frames(second)
    assert smooth.shape == (12, 84, 112, 3) and plain.shape == (2, 84, 112, 3)
    np.testing.assert_array_equal(smooth[::6], plain)
    assert all((a != b).any() for a, b in itertools.pairwise(smooth))
    with pytest.raises(ConfigError, match="multiple of 2"):
        match.frames(second, fps=5)


def test_a_written_match_is_the_match(tmp_path):
    video, annotations = write_match(tmp_path / "new", 5, 1, scale=2)
    with av.open(str(video)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 60 * 12 and pictures[0].shape == (168, 224, 3)
    match = Match(5, scale=2)
    truth = match.seconds(60)
    for second in truth[::7]:
        near = np.abs(pictures[second.number * 12].astype(int) - match.frames(second)[0]).mean()
        assert near < 8  # colours are coarser in the file
    seen = read_clip(
        video, Annotation(video.name, 30.0, 40.0, ()), ChunkSettings(), dataclasses.replace(PUBLISHED, size=(84, 112))
    )
    plain = np.stack([Match(5).frames(second) for second in truth[30:40]]).transpose(0, 1, 4, 2, 3)
    assert np.abs(seen.astype(int) - plain).mean(axis=(1, 2, 3, 4)).max() < 8  # after the real resize, in every second
    file = AnnotationFile(annotations)
    assert [(sample.start, sample.end) for sample in file] == [(0, 24), (12, 36), (24, 48), (36, 60)]
    for sample in file:
        said = [turn.words.strip() for turn in turns(sample, ChunkSettings())]
        assert said == [second.line for second in truth[int(sample.start) : int(sample.end)]]
        assert sample.previous.split() == " ".join(second.line for second in truth[: int(sample.start)]).split()
        assert sample.video == video.name


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"scale": 0}, {"scale": 99}])
def test_matches_that_cannot_be_are_named(arguments):
    with pytest.raises(ConfigError, match="of a match is"):
        Match(**arguments)


def test_a_match_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_match(tmp_path / "file", 1, 1)
    with pytest.raises(ConfigError, match="at least one second"):
        write_match(tmp_path, 1, 0)


def test_silence_has_no_line():
    assert line(None) == "" and line(Event("throw", "blue", score=(2, 1), last="red")) == "blue throw score 2-1 last red"
