"""How well captions tell a match: events against the truth, scores against the truth and against themselves."""

import collections
import dataclasses
import statistics
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from svlm_jax.errors import DataError
from svlm_jax.synthetic.commentary import SCORED, parse
from svlm_jax.synthetic.match import Second
from svlm_jax.synthetic.world import TEAMS, Event

SLACK = 1  # s
SLICE = 600  # s
Score = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Report:
    """Figures of some seconds of a match, each 0 to 1; None where nothing was there to be judged.

    Attributes:
      seconds, events: how many; the truth's.
      event_f1, precision, recall: an event counts as right with the right team within one second, each side used once.
      silence_precision, silence_recall: seconds in which nothing was said, and nothing was to be said.
      names: players of right events that are named rightly.
      score_accuracy: right per game: the share of the truth's score lines of a game that were said with the right score within
        one second (a line that is missing counts as wrong), averaged over the games.
      games_right: games whose every score line was right.
      score_consistency: score lines that follow from what the captions themselves said before: the same score again, one more
        for the team that scores; at a kick-off where the board is up, 0-0.
      last_accuracy: "last red" against the truth, of those that the truth has.
      nonsense: seconds with words that tell no event.
      per_event: F1 of each kind of event.
    """

    seconds: int
    events: int
    event_f1: float | None
    precision: float | None
    recall: float | None
    silence_precision: float | None
    silence_recall: float | None
    names: float | None
    score_accuracy: float | None
    games_right: float | None
    score_consistency: float | None
    last_accuracy: float | None
    nonsense: int
    per_event: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to four digits."""
        return {name: _rounded(value) for name, value in dataclasses.asdict(self).items()}


def score_match(truth: Sequence[Second], said: Sequence[str]) -> Report:
    """Scores captions, one text for each second of `truth`; DataError when the numbers differ."""
    return _report(_judge(truth, said), 0, len(truth))


def score_slices(truth: Sequence[Second], said: Sequence[str], seconds: int = SLICE) -> list[Report]:
    """The same for every `seconds` seconds. The whole match is judged once, so nothing is lost at the borders."""
    judged = _judge(truth, said)
    return [_report(judged, start, min(start + seconds, len(truth))) for start in range(0, len(truth), seconds)]


def event_pairs(truth: Sequence[Event | None], said: Sequence[Event | None], slack: int = SLACK) -> dict[int, int]:
    """Seconds of the truth -> seconds of captions with the same event and team, at most `slack` apart, each used once.

    In order of time, the earliest that fits: no other choice has more pairs.
    """
    waiting: dict[tuple[str, str], collections.deque[int]] = collections.defaultdict(collections.deque)
    for second, event in enumerate(said):
        if event is not None:
            waiting[event.kind, event.team].append(second)
    pairs: dict[int, int] = {}
    for second, event in enumerate(truth):
        if event is None:
            continue
        line = waiting[event.kind, event.team]
        while line and line[0] < second - slack:
            line.popleft()
        if line and line[0] <= second + slack:
            pairs[second] = line.popleft()
    return pairs


@dataclasses.dataclass(frozen=True)
class _Judged:
    """What was found, second by second."""

    truth: Sequence[Second]
    texts: Sequence[str]
    said: list[Event | None]
    pairs: dict[int, int]  # truth -> said
    follows: dict[int, bool]  # second of a score line -> whether it follows from the one before


def _judge(truth: Sequence[Second], texts: Sequence[str]) -> _Judged:
    if len(truth) != len(texts):
        raise DataError(f"{len(texts)} captions for {len(truth)} seconds of a match: expected one a second.")
    said = [parse(text) for text in texts]
    pairs = event_pairs([second.event for second in truth], said)
    boards = {second.number - truth[0].number for second in truth if any(tick.board for tick in second.ticks)}
    return _Judged(truth, texts, said, pairs, dict(_follows(said, boards)))


def _follows(said: Iterable[Event | None], boards: Container[int]) -> Iterator[tuple[int, bool]]:
    """For each caption that should have a score: whether it follows from the last one that had."""
    last: Score | None = None
    for second, event in enumerate(said):
        if event is None or event.kind not in SCORED:
            continue
        shown = event.kind == "kickoff" and second in boards
        if shown or last is not None:
            yield second, event.score == ((0, 0) if shown or last is None else _successor(last, event))
        last = event.score or last


def _successor(last: Score, event: Event) -> Score:
    """The score that an event says if the last one said was right."""
    scored = event.team if event.kind == "goal" else None
    return last[0] + (scored == TEAMS[0]), last[1] + (scored == TEAMS[1])


def _report(judged: _Judged, start: int, stop: int) -> Report:
    truth, said, pairs = judged.truth, judged.said, judged.pairs
    taken = set(pairs.values())
    here = range(start, stop)
    true = [second for second in here if truth[second].event is not None]
    told = [second for second in here if said[second] is not None]
    found, fitting = [second for second in true if second in pairs], [second for second in told if second in taken]
    silent = [second for second in here if not judged.texts[second].strip()]
    quiet = [second for second in here if truth[second].event is None]
    both = set(silent) & set(quiet)
    right = _scores(judged, true)
    games = [_share(values) or 0.0 for values in right.values()]
    kinds = sorted({event.kind for second in here for event in (truth[second].event, said[second]) if event is not None})
    return Report(
        seconds=stop - start,
        events=len(true),
        event_f1=_f1(len(found), len(true), len(fitting), len(told)),
        precision=_ratio(len(fitting), len(told)),
        recall=_ratio(len(found), len(true)),
        silence_precision=_ratio(len(both), len(silent)),
        silence_recall=_ratio(len(both), len(quiet)),
        names=_details(judged, found, "player"),
        score_accuracy=statistics.fmean(games) if games else None,
        games_right=_share([share == 1 for share in games]),
        score_consistency=_share([judged.follows[second] for second in here if second in judged.follows]),
        last_accuracy=_details(judged, true, "last"),
        nonsense=sum(said[second] is None and second not in silent for second in here),
        per_event={kind: _kind_f1(judged, kind, true, told, taken) for kind in kinds},
    )


def _scores(judged: _Judged, true: Sequence[int]) -> dict[int, list[bool]]:
    """Game -> whether each of its score lines was said rightly."""
    games = collections.defaultdict(list)
    for second in true:
        event = judged.truth[second].event
        if event is not None and event.score is not None:
            games[judged.truth[second].game].append(_same(judged, second, "score"))
    return games


def _details(judged: _Judged, seconds: Sequence[int], name: str) -> float | None:
    """The share of those `seconds` whose truth has that detail in which it was said rightly."""
    having = [second for second in seconds if getattr(judged.truth[second].event, name) is not None]
    return _share([_same(judged, second, name) for second in having])


def _same(judged: _Judged, second: int, name: str) -> bool:
    if second not in judged.pairs:
        return False
    return getattr(judged.said[judged.pairs[second]], name) == getattr(judged.truth[second].event, name)


def _kind_f1(judged: _Judged, kind: str, true: Sequence[int], told: Sequence[int], taken: set[int]) -> float | None:
    true = [second for second in true if judged.truth[second].event.kind == kind]  # type: ignore[union-attr]
    told = [second for second in told if judged.said[second].kind == kind]  # type: ignore[union-attr]
    return _f1(sum(second in judged.pairs for second in true), len(true), sum(second in taken for second in told), len(told))


def _f1(found: int, true: int, fitting: int, told: int) -> float | None:
    """Of truth found and captions that fit: the two differ by pairs that cross the border of a slice."""
    return _ratio(found + fitting, true + told)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _share(values: Sequence[bool]) -> float | None:
    return _ratio(sum(values), len(values))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(entry) for name, entry in value.items()}
    return round(value, 4) if isinstance(value, float) else value
