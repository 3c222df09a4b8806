"""Pictures of the facts, 84 x 84 pixels: a drifting backdrop, balls that roll about, noise, and sometimes a card in front.

A card fills the picture with nine copies of itself: each of the picture's nine tokens shows all of it, so that whoever keeps
one of them could know it, and what is measured is the memory. Flags are areas of one colour, signs are simple shapes: what a
small model sees soon. The balls have the colours of the flags, so that a colour alone tells nothing.
"""

import dataclasses
import functools

import numpy as np

SIDE = 84
PART = 28  # pixels: the side of a copy of the card, with a rim of one, and of a token
SLACK = 2  # pixels that the copies are shifted at most
NOISE = 10  # grey levels, uniform
BALLS = 4
COLOURS = {
    "red": (222, 36, 36),
    "orange": (245, 140, 20),
    "yellow": (245, 228, 50),
    "green": (36, 160, 60),
    "cyan": (60, 225, 232),
    "blue": (36, 66, 226),
    "purple": (140, 46, 190),
    "pink": (250, 150, 205),
    "white": (250, 250, 250),
}
SHAPES = ("disc", "ring", "plus", "cross", "box", "bar", "pole", "wedge")
RIM, INK = (46, 42, 40), (8, 8, 8)


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """What is on a card, the flag's colours and the sign's shape, and how far its copies are shifted (pixels)."""

    upper: str
    lower: str
    shape: str
    down: int = 0
    across: int = 0


def draw(seed: int, second: float, card: Card | None) -> np.ndarray:
    """The picture of a moment: uint8 (84, 84, 3)."""
    picture = _scene(seed, second) if card is None else _copies(card)
    down, across = np.random.default_rng([seed, 1, round(second * 1000)]).integers(SIDE, size=2)
    picture += _noise()[down : down + SIDE, across : across + SIDE]
    return np.clip(picture, 0, 255, out=picture).astype(np.uint8)


def _scene(seed: int, second: float) -> np.ndarray:
    """What is seen between cards, int16 (84, 84, 3)."""
    phase = _phases(seed)
    picture = _backdrop(phase, second)
    for ball in range(BALLS):
        _ball(picture, phase[8 + 4 * ball : 12 + 4 * ball], second)
    return picture


def _copies(card: Card) -> np.ndarray:
    """A picture full of a card, int16 (84, 84, 3)."""
    box = np.full((PART, PART, 3), RIM, np.int16)
    flag = box[1:-1, 1:-1]
    flag[: len(flag) // 2], flag[len(flag) // 2 :] = COLOURS[card.upper], COLOURS[card.lower]
    flag[shape(card.shape)] = INK
    return np.roll(np.tile(box, (SIDE // PART, SIDE // PART, 1)), (card.down, card.across), (0, 1))


def card_at(upper: str, lower: str, sign: str, rng: np.random.Generator) -> Card:
    """A card, shifted a little."""
    down, across = rng.integers(-SLACK, SLACK + 1, size=2)
    return Card(upper, lower, sign, int(down), int(across))


@functools.cache
def shape(name: str) -> np.ndarray:
    """Where the shape is, bool (26, 26)."""
    side = PART - 2
    y, x = (2 * np.mgrid[:side, :side] + 1) / side - 1
    radius, square = np.hypot(x, y), np.maximum(np.abs(x), np.abs(y))
    inside = {
        "disc": radius < 0.75,
        "ring": (radius > 0.5) & (radius < 0.9),
        "plus": (np.minimum(np.abs(x), np.abs(y)) < 0.25) & (square < 0.9),
        "cross": (np.minimum(np.abs(x + y), np.abs(x - y)) < 0.36) & (square < 0.85),
        "box": (square > 0.55) & (square < 0.9),
        "bar": (np.abs(y) < 0.32) & (square < 0.9),
        "pole": (np.abs(x) < 0.32) & (square < 0.9),
        "wedge": (np.abs(x) < 0.5 * (y + 0.9)) & (y < 0.85),
    }
    return inside[name]


@functools.cache
def _noise() -> np.ndarray:
    """Noise that every picture takes a part of."""
    return np.random.default_rng(0).integers(-NOISE, NOISE + 1, (2 * SIDE, 2 * SIDE, 3), dtype=np.int16)


@functools.lru_cache(maxsize=64)
def _phases(seed: int) -> np.ndarray:
    """Numbers from 0 to 1 that a stream's backdrop and balls go by."""
    return np.random.default_rng([seed, 2]).random(8 + 4 * BALLS)


def _backdrop(phase: np.ndarray, second: float) -> np.ndarray:
    """A dull gradient that drifts, int16 (84, 84, 3)."""
    at = second * (0.05 + 0.1 * phase[1]) + 6.3 * phase[2]
    wave = (26 - 10 * phase[4]) * np.sin(_ramp(round(8 * phase[0])) + np.float32(at % (2 * np.pi)))
    drift = 100 + 28 * np.sin(second * (0.004 + 0.02 * phase[3:6]) + 6.3 * phase[5:8])
    return wave.astype(np.int16)[..., None] + drift.astype(np.int16)


@functools.lru_cache(maxsize=16)
def _ramp(direction: int) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle = direction * np.pi / 4
    return (5 * (x * np.cos(angle) + y * np.sin(angle))).astype(np.float32)


def _ball(picture: np.ndarray, phase: np.ndarray, second: float) -> None:
    """A ball on its way; it changes its colour every ten seconds."""
    radius = 4 + round(3 * phase[0])
    x, y = (SIDE / 2 * (1 + 0.85 * np.sin(second * (0.2 + 0.5 * phase[i]) + 6.3 * phase[i + 1])) for i in (1, 2))
    at = int((10 * phase[3] + second / 10) * 7.3) % len(COLOURS)
    left, top = max(round(x) - radius, 0), max(round(y) - radius, 0)
    box = picture[top : round(y) + radius, left : round(x) + radius]
    down, across = np.ogrid[top : top + box.shape[0], left : left + box.shape[1]]
    box[np.hypot(down - y, across - x) < radius] = list(COLOURS.values())[at]
