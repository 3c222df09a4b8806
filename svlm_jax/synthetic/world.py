"""The course of a ball game between two teams, half a second at a time.

Red defends the left goal, blue the right one; each has a keeper and three players, told apart by their caps. Whoever scores
GOALS first wins the game; the next one begins at 0-0. What happens can be seen in the half-second in which it happens, except
the score and who scored last: a board shows the score at the kick-off of a new game, and from then on it must be remembered.

All is drawn from one random generator, so a seed is a match. Lengths are in pixels of a picture of WIDTH x HEIGHT.
"""

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from typing import Literal

import numpy as np

TICKS = 2  # a second
WIDTH, HEIGHT = 112, 84
GOALS = 3
TEAMS = ("red", "blue")
CAPS = ("keeper", "amber", "ivory", "onyx")
NOBODY = "nobody"

Kind = Literal["pass", "steal", "intercept", "shot", "save", "goal", "wide", "out", "throw", "kickoff", "win"]
Trail = Literal["", "pass", "shot"]
Edge = Literal["", "top", "bottom", "left", "right"]
Course = Generator["Tick", None, int]  # ends with the player who has the ball

HOMES = np.array(
    [[8, 42], [30, 22], [34, 60], [48, 40], [104, 42], [82, 62], [78, 24], [64, 44]], np.float32
)  # (8, 2): player 4 · team + cap
CENTRE = np.array([WIDTH / 2, HEIGHT / 2], np.float32)
KEEPERS = [0, 4]
NETS = (2.0, WIDTH - 3.0)  # x of each team's own goal
POSTS = (30.0, 54.0)  # y of the goals' ends
REACH = np.array([0.35, 0.3], np.float32)  # how far players follow the ball
SPEED, RUN = 4.0, 9.0  # pixels a tick
FAR = 20.0  # the shortest flight of the ball that is easily seen
HANDS = np.array([4, 3], np.float32)  # the ball beside whoever has it


@dataclasses.dataclass(frozen=True)
class Event:
    """What is worth saying: `team` is that of the player who has the ball, or who lost it (wide, out).

    player: its cap, for events in which it is named. score: (red, blue), for events at which it is said; last: the team that
    scored last in this game, or "nobody".
    """

    kind: Kind
    team: str
    player: str | None = None
    score: tuple[int, int] | None = None
    last: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """What is to be seen at one moment, and what happens in it.

    Attributes:
      players: (8, 2) float32, x and y of player 4 · team + cap; ball: (2,); kicked: (2,), where its flight began.
      holder: the player who has the ball, -1 for none; gained: whether it is new in those hands.
      trail: what the ball is on the way of. edge: the side over which it has gone. nets: goals that flash, bit 0 the left one.
      winner: the team being celebrated, "" for none.
      board: whether the score is shown.
      score, last, game: the state of play after this tick; games are numbered from 0.
    """

    players: np.ndarray
    ball: np.ndarray
    kicked: np.ndarray
    holder: int
    gained: bool
    trail: Trail
    edge: Edge
    nets: int
    winner: str
    board: bool
    event: Event | None
    score: tuple[int, int]
    last: str
    game: int


def ticks(seed: int) -> Iterator[Tick]:
    """A match without end; at most one event a second."""
    return _Play(np.random.default_rng(seed)).course()


class _Play:
    """The state of play. Its generators yield one tick each time they move everybody on."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._players = HOMES.copy()
        self._ball = self._kicked = CENTRE.copy()
        self._holder = -1
        self._score = [0, 0]
        self._last = NOBODY
        self._game = 0

    def course(self) -> Iterator[Tick]:
        who = yield from self._kickoff(int(self._rng.integers(2)), board=True)
        while True:
            yield from self._hold(who)
            x = self._players[who, 0] / WIDTH
            ahead = x if who < 4 else 1 - x
            chance = self._rng.random()
            if who in KEEPERS or (chance < 0.74 and not (ahead > 0.5 and chance < 0.45)):
                who = yield from self._pass(who)
            elif chance < 0.45:
                who = yield from self._shot(who)
            elif chance < 0.82:
                who = yield from self._out(who)
            else:
                who = yield from self._tackle(who)

    def _tick(
        self,
        *,
        holder: int = -1,
        ball: np.ndarray | None = None,
        trail: Trail = "",
        edge: Edge = "",
        nets: int = 0,
        winner: str = "",
        board: bool = False,
        event: Event | None = None,
        targets: Mapping[int, np.ndarray] = {},
        home: bool = False,
        place: Mapping[int, np.ndarray] = {},
    ) -> Tick:
        """Moves everybody on: to `targets`, else home or with the ball; the ball goes to `ball` or with its holder."""
        had = self._holder
        self._move(targets, home)
        for who, spot in place.items():
            self._players[who] = spot
        if holder >= 0:
            side = HANDS if holder < 4 else HANDS * (-1, 1)
            self._ball = self._players[holder] + side
        elif ball is not None:
            if had >= 0:
                self._kicked = self._ball
            self._ball = np.asarray(ball, np.float32)
        self._holder = holder
        return Tick(
            players=self._players.copy(),
            ball=self._ball.astype(np.float32),
            kicked=self._kicked,
            holder=holder,
            gained=holder >= 0 and holder != had,
            trail=trail,
            edge=edge,
            nets=nets,
            winner=winner,
            board=board,
            event=event,
            score=(self._score[0], self._score[1]),
            last=self._last,
            game=self._game,
        )

    def _move(self, targets: Mapping[int, np.ndarray], home: bool) -> None:
        goal = HOMES.copy()
        if not home:
            shift = self._ball - CENTRE
            goal += shift * REACH
            goal[KEEPERS] = HOMES[KEEPERS] + shift * (0, 0.25)
        speed = np.full((8, 1), 2 * SPEED if home else SPEED, np.float32)
        for who, spot in targets.items():
            goal[who], speed[who] = spot, RUN
        way = goal - self._players
        length = np.sqrt((way**2).sum(-1, keepdims=True)) + 1e-6
        self._players += way * np.minimum(1.0, speed / length) + self._rng.normal(0, 0.5, way.shape).astype(np.float32)
        np.clip(self._players, (7, 10), (WIDTH - 8, HEIGHT - 11), out=self._players)

    # ------------------------------------------------------------------------------------------- what players do

    def _hold(self, who: int) -> Iterator[Tick]:
        """Runs with the ball towards the other goal for a while."""
        x = NETS[1 - who // 4]
        goal = np.array([x + (FAR if x < WIDTH / 2 else -FAR), self._between(20, 64)], np.float32)
        for _ in range(int(self._rng.integers(1, 6))):
            # Slower than a sprint, so that others can catch up.
            step = self._players[who] + np.clip(goal - self._players[who], -SPEED, SPEED)
            yield self._tick(holder=who, targets={} if who in KEEPERS else {who: step})

    def _pass(self, who: int) -> Course:
        kept = self._rng.random() < 0.78
        team = who // 4 if kept else 1 - who // 4
        to = self._receiver(who, team)
        flight = 2 if self._rng.random() < 0.7 else 3
        start, end = self._ball, self._players[to].copy()
        for i in range(1, flight):
            yield self._tick(ball=start + (end - start) * (i / flight), trail="pass", targets={to: end})
        yield self._tick(holder=to, trail="pass", targets={to: end}, event=self._by(to, "pass" if kept else "intercept"))
        return to

    def _receiver(self, who: int, team: int) -> int:
        """Somebody of `team` who is far enough away for the flight of the ball to be seen."""
        others = [4 * team + cap for cap in (1, 2, 3) if 4 * team + cap != who]
        distance = {to: float(np.abs(self._players[to] - self._ball).max()) for to in others}
        far = [to for to in others if distance[to] >= FAR]
        return int(self._rng.choice(far)) if far else max(others, key=lambda to: distance[to])

    def _tackle(self, who: int) -> Course:
        thief = 4 * (1 - who // 4) + int(self._rng.integers(1, 4))
        for _ in range(12):
            if np.abs(self._players[thief] - self._players[who]).max() < 9:
                break
            yield self._tick(holder=who, targets={thief: self._players[who].copy()})
        yield self._tick(holder=thief, event=self._by(thief, "steal"))
        return thief

    def _out(self, who: int) -> Course:
        """Over the touch line; the other team throws in, which is when the score and who scored last are said."""
        team = who // 4
        edge: Edge = "top" if self._rng.random() < 0.5 else "bottom"
        start = self._ball
        x = float(np.clip(start[0] + self._between(-25, 25), 14, WIDTH - 14))
        end = np.array([x, 3 if edge == "top" else HEIGHT - 4], np.float32)
        yield self._tick(ball=(start + end) / 2, trail="pass")
        yield self._tick(ball=end, trail="pass", edge=edge, event=Event("out", TEAMS[team]))
        to = 4 * (1 - team) + int(self._rng.integers(1, 4))
        inside = np.array([x, 12 if edge == "top" else HEIGHT - 13], np.float32)
        for _ in range(3):
            yield self._tick(ball=end, edge=edge, targets={to: inside})
        said = Event("throw", TEAMS[1 - team], score=self._tally(), last=self._last)
        yield self._tick(holder=to, place={to: inside}, event=said)
        yield self._tick(holder=to)
        return to

    def _shot(self, who: int) -> Course:
        team, chance = who // 4, self._rng.random()
        keeper, start = 4 * (1 - team), self._ball
        end = np.array([NETS[1 - team], self._between(34, 50)], np.float32)
        if chance >= 0.75:
            end[1] = self._between(10, 22) if self._rng.random() < 0.5 else self._between(62, 74)
        for part, event in ((0.5, self._by(who, "shot")), (0.8, None)):
            yield self._tick(ball=start + (end - start) * part, trail="shot", targets={keeper: end}, event=event)
        if chance < 0.4:
            return (yield from self._goal(team, end))
        if chance < 0.75:
            yield self._tick(holder=keeper, trail="shot", targets={keeper: end}, event=self._tallied("save", 1 - team))
            yield self._tick(holder=keeper)
            return keeper
        edge: Edge = "right" if team == 0 else "left"
        yield self._tick(ball=end, trail="shot", edge=edge, event=self._tallied("wide", team))
        for _ in range(2):
            yield self._tick(ball=end, edge=edge)
        for _ in range(2):
            yield self._tick(holder=keeper)
        return keeper

    def _goal(self, team: int, end: np.ndarray) -> Course:
        self._score[team] += 1
        self._last = TEAMS[team]
        nets = 2 if team == 0 else 1
        yield self._tick(ball=end, trail="shot", nets=nets, event=self._tallied("goal", team))
        yield self._tick(ball=end, nets=nets)
        yield self._tick(ball=end)
        if self._score[team] < GOALS:
            return (yield from self._kickoff(1 - team))
        yield self._tick(ball=end, nets=3, winner=TEAMS[team], event=self._tallied("win", team))
        for _ in range(3):
            yield self._tick(ball=end, nets=3, winner=TEAMS[team])
        self._score, self._last, self._game = [0, 0], NOBODY, self._game + 1
        return (yield from self._kickoff(1 - team, board=True))

    def _kickoff(self, team: int, *, board: bool = False) -> Course:
        """Everybody goes home; `board` shows the score of a new game."""
        for _ in range(6):
            yield self._tick(ball=CENTRE, home=True, board=board)
        who = 4 * team + 1
        place = {who: CENTRE + (HANDS * (-1, -1) if team == 0 else HANDS * (1, -1))}
        yield self._tick(holder=who, place=place, home=True, board=board, event=self._tallied("kickoff", team))
        yield self._tick(holder=who, place=place, board=board)
        return who

    def _by(self, who: int, kind: Kind) -> Event:
        return Event(kind, TEAMS[who // 4], CAPS[who % 4])

    def _tallied(self, kind: Kind, team: int) -> Event:
        return Event(kind, TEAMS[team], score=self._tally())

    def _tally(self) -> tuple[int, int]:
        return self._score[0], self._score[1]

    def _between(self, low: float, high: float) -> float:
        return float(self._rng.uniform(low, high))
