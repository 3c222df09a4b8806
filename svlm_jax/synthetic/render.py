"""Pictures of a match, at any whole multiple of 112 x 84 pixels and at any moment between two ticks.

Cues that a model must see are large areas of one colour, because those are learned first: a pale disc of the team's colour
under whoever has the ball, a white one at the moment of getting it, a cyan trail for passes and a thicker orange one for shots,
a white net for a goal, a magenta edge where the ball has gone over, the winner's colour on both edges.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from svlm_jax.synthetic.world import HEIGHT, POSTS, TEAMS, WIDTH, Tick

MARGIN = 24  # pixels around the picture, so that nothing needs clipping while it is drawn
TOUCH = 7  # width of the edges
GRASS, MOWN, LINE = (34, 112, 54), (30, 101, 48), (112, 170, 120)
EDGE, FRAME, NET = (20, 62, 34), (120, 126, 130), (88, 92, 96)
TEAM = {"red": (218, 38, 32), "blue": (36, 72, 228)}
PALE = {"red": (255, 156, 146), "blue": (146, 192, 255)}
CAP = ((120, 255, 60), (255, 200, 0), (255, 255, 255), (8, 8, 8))  # keeper, amber, ivory, onyx
WHITE, INK, BALL = (255, 255, 255), (12, 14, 18), (255, 240, 70)
CYAN, ORANGE, MAGENTA = (0, 236, 240), (255, 138, 0), (232, 0, 232)
TRAIL = {"pass": (CYAN, 1.6), "shot": (ORANGE, 2.6)}  # colour, half its width

# 3 x 5 pixels; one string a row.
GLYPHS = {
    "0": ("111", "101", "101", "101", "111"),
    "1": ("010", "110", "010", "010", "111"),
    "2": ("111", "001", "111", "100", "111"),
    "3": ("111", "001", "111", "001", "111"),
    "-": ("000", "000", "111", "000", "000"),
}
BOARD = (30.0, 9.0, 82.0, 27.0)  # left, top, right, bottom

Colour = tuple[int, int, int]
Sprite = tuple[np.ndarray, np.ndarray]  # colours (n, n, 3) and where they are to be drawn (n, n, 1); n is odd


class Renderer:
    """Draws ticks at `scale` pixels a unit. Not to be shared between threads: it draws into one canvas."""

    def __init__(self, scale: int = 1) -> None:
        self.scale = scale
        self.height, self.width = HEIGHT * scale, WIDTH * scale
        pad = MARGIN * scale
        self._field = np.pad(_field(scale), ((pad, pad), (pad, pad), (0, 0)))
        self._canvas = self._field.copy()
        self._inside = self._canvas[pad:-pad, pad:-pad]
        self._players = [_player(scale, who) for who in range(8)]
        self._halos = {team: _disc(scale, 8.4, PALE[team]) for team in TEAMS}
        self._catch = _disc(scale, 11.4, WHITE)
        self._ball = _layers(_disc(scale, 2.9, INK), _disc(scale, 2.2, BALL))

    def draw(self, tick: Tick, after: Tick, share: float = 0.0) -> np.ndarray:
        """The picture when `share` of the time from `tick` to `after` has passed: uint8 (height, width, 3), a new array."""
        self._canvas[:] = self._field
        players = tick.players if share == 0 else tick.players + (after.players - tick.players) * np.float32(share)
        ball = tick.ball if share == 0 else tick.ball + (after.ball - tick.ball) * np.float32(share)
        self._draw_edges(tick)
        if share and tick.holder >= 0 > after.holder:  # the ball leaves: its flight begins here
            tick = dataclasses.replace(tick, holder=-1, trail=after.trail, kicked=after.kicked)
        for who in range(8):
            if who != tick.holder:
                self._blit(self._players[who], players[who])
        if tick.holder >= 0:
            self._draw_holder(tick, players[tick.holder])
        if tick.trail:
            self._draw_trail(tick.kicked, ball, *TRAIL[tick.trail])
        self._blit(self._ball, ball)
        if tick.board:
            self._draw_board(tick.score)
        return self._inside.copy()

    def _draw_holder(self, tick: Tick, place: np.ndarray) -> None:
        """On top of the others, so that nobody hides who has the ball."""
        if tick.gained:
            self._blit(self._catch, place)
        self._blit(self._halos[TEAMS[tick.holder // 4]], place)
        self._blit(self._players[tick.holder], place)

    def _fill(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        s = self.scale
        self._inside[round(top * s) : round(bottom * s), round(left * s) : round(right * s)] = colour

    def _draw_edges(self, tick: Tick) -> None:
        if tick.winner:
            for top in (0, HEIGHT - TOUCH):
                self._fill(0, top, WIDTH, top + TOUCH, TEAM[tick.winner])
        for bit, left in ((1, 0), (2, WIDTH - TOUCH)):
            if tick.nets & bit:
                self._fill(left, POSTS[0] - 2, left + TOUCH, POSTS[1] + 2, WHITE)
        sides = {
            "top": (0, 0, WIDTH, TOUCH),
            "bottom": (0, HEIGHT - TOUCH, WIDTH, HEIGHT),
            "left": (0, 0, TOUCH, HEIGHT),
            "right": (WIDTH - TOUCH, 0, WIDTH, HEIGHT),
        }
        if tick.edge:
            self._fill(*sides[tick.edge], MAGENTA)

    def _draw_trail(self, start: np.ndarray, end: np.ndarray, colour: Colour, half: float) -> None:
        """A line with round ends: the pixels whose distance from the segment is at most `half`."""
        s = self.scale
        (x0, y0), (x1, y1) = (start * s).tolist(), (end * s).tolist()
        reach = half * s
        left, right = max(int(min(x0, x1) - reach), 0), int(max(x0, x1) + reach) + 2
        top, bottom = max(int(min(y0, y1) - reach), 0), int(max(y0, y1) + reach) + 2
        box = self._inside[top:bottom, left:right]
        y = np.arange(top, top + box.shape[0], dtype=np.float32)[:, None] - y0
        x = np.arange(left, left + box.shape[1], dtype=np.float32)[None] - x0
        length = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-6)
        along = np.clip((x * (x1 - x0) + y * (y1 - y0)) / length, 0, 1)
        near = (x - along * (x1 - x0)) ** 2 + (y - along * (y1 - y0)) ** 2 <= reach**2
        np.copyto(box, np.asarray(colour, np.uint8), where=near[..., None])

    def _blit(self, sprite: Sprite, centre: np.ndarray) -> None:
        colours, where = sprite
        half = len(colours) // 2
        x, y = (round(float(value) * self.scale) + MARGIN * self.scale - half for value in centre)
        np.copyto(self._canvas[y : y + len(colours), x : x + len(colours)], colours, where=where)

    def _draw_board(self, score: tuple[int, int]) -> None:
        left, top, right, bottom = BOARD
        self._fill(left - 1, top - 1, right + 1, bottom + 1, WHITE)
        self._fill(left, top, right, bottom, INK)
        self._fill(left, top, left + 12, bottom, TEAM["red"])
        self._fill(right - 12, top, right, bottom, TEAM["blue"])
        x = left + 14.0
        for character in f"{score[0]}-{score[1]}":
            self._draw_glyph(GLYPHS[character], x, top + 2, 2.6)
            x += 8.4

    def _draw_glyph(self, rows: tuple[str, ...], left: float, top: float, cell: float) -> None:
        for i, row in enumerate(rows):
            for j, bit in enumerate(row):
                if bit == "1":
                    x, y = left + j * cell, top + i * cell
                    self._fill(x, y, x + cell, y + cell, WHITE)


def _sprite(scale: int, radius: float, colour: Colour, inside: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Sprite:
    """inside(x, y) of coordinates in units says where the sprite is drawn."""
    half = int(np.ceil(radius * scale))
    y, x = (np.mgrid[-half : half + 1, -half : half + 1] / scale).astype(np.float32)
    colours = np.empty((2 * half + 1, 2 * half + 1, 3), np.uint8)
    colours[:] = colour
    return colours, inside(x, y)[..., None]


def _disc(scale: int, radius: float, colour: Colour) -> Sprite:
    return _sprite(scale, radius, colour, lambda x, y: x**2 + y**2 <= radius**2)


def _square(scale: int, radius: float, colour: Colour) -> Sprite:
    return _sprite(scale, radius, colour, lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= radius)


def _layers(below: Sprite, *above: Sprite) -> Sprite:
    """Sprites on top of each other, all centred; the lowest is the largest."""
    colours, where = below[0].copy(), below[1].copy()
    for top_colours, top_where in above:
        off = (len(colours) - len(top_colours)) // 2
        part = slice(off, off + len(top_colours))
        np.copyto(colours[part, part], top_colours, where=top_where)
        where[part, part] |= top_where
    return colours, where


def _player(scale: int, who: int) -> Sprite:
    """A body in the team's colour with a dark outline, and the cap that tells the players of a team apart."""
    team, cap = TEAMS[who // 4], who % 4
    shape = _square if cap == 0 else _disc
    size = 4.4 if cap == 0 else 5.0
    body = _layers(shape(scale, size + 0.6, INK), shape(scale, size, TEAM[team]))
    return _layers(body, _disc(scale, 2.6, CAP[cap]))


@functools.cache
def _field(scale: int) -> np.ndarray:
    """The empty field: mown grass, lines, goals."""
    s = scale
    y, x = np.mgrid[0 : HEIGHT * s, 0 : WIDTH * s].astype(np.float32) / s
    field = np.where(((x // 14) % 2 == 0)[..., None], GRASS, MOWN).astype(np.uint8)

    def paint(where: np.ndarray, colour: Colour) -> None:
        field[where] = colour

    centre = np.hypot(x - (WIDTH - 1 / s) / 2, y - (HEIGHT - 1 / s) / 2)
    paint(np.abs(x - WIDTH / 2 + 0.5) <= 0.5, LINE)
    paint(np.abs(centre - 12) <= 0.5, LINE)
    for side in (x, WIDTH - 1 / s - x):  # from the left, from the right
        box = (side <= 20.5) & (y >= 20) & (y <= HEIGHT - 21)
        paint(box & ((side >= 19.5) | (y < 21) | (y > HEIGHT - 22)), LINE)
    paint((y < TOUCH) | (y >= HEIGHT - TOUCH), EDGE)
    for side in (x, WIDTH - 1 / s - x):
        goal = (side < 5) & (y >= POSTS[0]) & (y < POSTS[1])
        paint(goal, FRAME)
        paint(goal & ((side % 2 < 1) ^ (y % 2 < 1)), NET)
    return field
