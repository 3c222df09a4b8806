"""A stream of facts: now and then a card with a flag and a sign on it fills the picture for a few seconds. Who remembers?

    flag    one colour over another    sign    one of eight shapes        "What was on the red over blue flag?" ring

Everything follows from the seed: when a card comes, what is on it, and the moving picture around it.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from svlm_jax.errors import ConfigError
from svlm_jax.synthetic.facts_render import COLOURS, SHAPES, Card, card_at, draw

SHOWN = 6.0  # s that a card is seen: at 0.5 frames a second, one temporal grid shows nothing but it
EVERY = 60.0  # s of stream for each card
APART = 62  # cards at least before a flag may return: more than an hour at EVERY
FLAGS = tuple(itertools.permutations(COLOURS, 2))
ASKED = "What was on the"
WORDS = (ASKED, *(f" {upper} over {lower}" for upper, lower in FLAGS), " flag?", *SHAPES)  # of questions and answers


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """A card, seen from `begin` to `end` (s), and the question that it answers."""

    number: int
    begin: float
    end: float
    card: Card

    @property
    def question(self) -> str:
        return f"{ASKED} {self.card.upper} over {self.card.lower} flag?"

    @property
    def answer(self) -> str:
        return self.card.shape


class Facts:
    """An endless stream of facts, one at some moment of every `every` seconds. A seed is a stream.

    facts = Facts(seed=3)
    facts.picture(12.5)                    uint8 (84, 84, 3)
    facts.until(600.0)                     the facts of ten minutes
    """

    def __init__(self, seed: int = 0, every: float = EVERY) -> None:
        if seed < 0:
            raise ConfigError(f"the seed of facts is {seed}, expected 0 or more.")
        if not SHOWN <= every < float("inf"):
            raise ConfigError(f"a fact every {every} s, expected at least {SHOWN:g}, so long is each seen.")
        self.seed, self.every = seed, every
        self._course = self._play()
        self._known: list[Fact] = []

    def fact(self, number: int) -> Fact:
        """The fact of the stretch from `number` * every to (`number` + 1) * every seconds."""
        while len(self._known) <= number:
            self._known.append(next(self._course))
        return self._known[number]

    def until(self, second: float) -> list[Fact]:
        """The facts that have been seen whole by then, oldest first."""
        facts = (self.fact(number) for number in range(int(second // self.every) + 1))
        return [fact for fact in facts if fact.end <= second]

    def picture(self, second: float) -> np.ndarray:
        """What is seen at that moment: uint8 (84, 84, 3)."""
        fact = self.fact(int(second // self.every))
        return draw(self.seed, second, fact.card if fact.begin <= second < fact.end else None)

    def _play(self) -> Iterator[Fact]:
        rng = np.random.default_rng([self.seed, 0])
        last: list[int] = []
        for number in itertools.count():
            flag = int(rng.choice([i for i in range(len(FLAGS)) if i not in last]))
            last = [*last, flag][-APART:]
            begin = number * self.every + float(rng.uniform(0, self.every - SHOWN))
            yield Fact(number, begin, begin + SHOWN, card_at(*FLAGS[flag], str(rng.choice(SHAPES)), rng))
