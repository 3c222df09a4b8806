"""What the commentator of a match says, and how it is read back.

    red pass amber | blue steal onyx | red out | red wide score 1-1 | red goal score 2-1 | blue throw score 2-1 last red

The team comes first, because only the pictures decide it: a model that could guess it from the event would never look. A
score has one form everywhere, red before blue, and is said often: what is learned rarely is learned badly.
"""

from svlm_jax.data.annotations import Word
from svlm_jax.synthetic.world import CAPS, GOALS, NOBODY, TEAMS, Event, Kind

NAMED: tuple[Kind, ...] = ("pass", "steal", "intercept", "shot")
SCORED: tuple[Kind, ...] = ("goal", "kickoff", "throw", "win", "save", "wide")
KINDS: tuple[Kind, ...] = (*NAMED, *SCORED, "out")
SCORES = tuple(f"{red}-{blue}" for red in range(GOALS + 1) for blue in range(GOALS + 1) if (red, blue) != (GOALS, GOALS))
VOCABULARY = (*TEAMS, *KINDS, *CAPS[1:], "score", *SCORES, "last", NOBODY)
MARGIN = 0.04  # s of silence at both ends of a second


def line(event: Event | None) -> str:
    """The words of an event; "" for none."""
    if event is None:
        return ""
    words = [event.team, event.kind]
    if event.player is not None:
        words.append(event.player)
    if event.score is not None:
        words += ["score", "{}-{}".format(*event.score)]
    if event.last is not None:
        words += ["last", event.last]
    return " ".join(words)


def timed(event: Event | None, second: int) -> tuple[Word, ...]:
    """The words of an event, spread evenly over the second in which it happens."""
    said = line(event).split()
    length = (1 - 2 * MARGIN) / max(len(said), 1)
    times = [round(second + MARGIN + i * length, 3) for i in range(len(said) + 1)]
    return tuple(Word(times[i], times[i + 1], word) for i, word in enumerate(said))


def parse(text: str) -> Event | None:
    """The event that a caption tells, or None for silence and for anything else; missing or unknown details are None."""
    words = text.split()
    if len(words) < 2 or words[0] not in TEAMS or words[1] not in KINDS:
        return None
    rest = words[2:]
    player = rest[0] if rest and rest[0] in CAPS else None
    return Event(words[1], words[0], player, _score(_after(rest, "score")), _after(rest, "last"))


def _after(words: list[str], key: str) -> str | None:
    index = words.index(key) + 1 if key in words else len(words)
    return words[index] if index < len(words) else None


def _score(word: str | None) -> tuple[int, int] | None:
    red, dash, blue = (word or "").partition("-")
    return (int(red), int(blue)) if dash and red.isdecimal() and blue.isdecimal() else None
