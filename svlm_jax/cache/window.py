"""StreamingVLM's rules: what leaves the cache, what moves, and how many slots that needs (arXiv 2510.09608 section 2.1).

Before a second is read, in this order (V chunks of vision, T chunks of text in place, the current one included):

    1. reply of chunk i-T      its words join the previous text; opening, closing marker and closing go
    2. V > T: label of i-T     goes with its reply, its vision stays
    3. V < T: vision of i-V    goes, its label and closing stay
    4. user turn of i-max(V,T) goes whole, a query included
    5. previous text           its middle goes: `sink` words stay in front, `tail - 1` at the end
    6. renumber                one stable sort by (part, old order); no K/V moves

All functions are masks over the slots of one stream, without a batch axis.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from svlm_jax.cache.ring import RingShape, Role, Slots, Tokens, Window
from svlm_jax.errors import ConfigError

NEVER = 2**30  # a sink of so many words: the previous text is never cut

Memory = Literal["stream", "full", "hard-reset", "recompute"]
Positions = Literal["contiguous", "native", "text"]


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """What a stream remembers, in seconds and words. The defaults are the published ones.

    Attributes:
      vision: seconds of video kept, the current chunk included; 0 shows the model no video at all.
      text: seconds whose replies stay in their place, the current one included.
      sink, tail: words (tokens) kept at the front and at the end of the previous text, `tail` counting <|im_end|>;
        both None = never cut, and then the length of the stream must be known.
      memory: "stream" (StreamingVLM), or one of its baselines: "full" keeps everything; "hard-reset" starts afresh every
        `vision` seconds (sliding window without overlap); "recompute" runs all that is kept through the model again each
        second (sliding window with overlap).
      positions: "contiguous" re-numbers what is kept; "native" lets positions grow for ever; "text" gives every token,
        patches too, a 1-D position (for LiveCC checkpoints, which were trained that way).
    """

    vision: float = 16.0
    text: float = 16.0
    sink: int | None = 512
    tail: int | None = 512
    memory: Memory = "stream"
    positions: Positions = "contiguous"

    def __post_init__(self) -> None:
        for name in ("vision", "text"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"window {name}={value}: expected a finite number of seconds, 0 or more")
        if self.text == 0:
            raise ConfigError("window text=0: expected at least one chunk, because the reply being spoken must stay in place")
        if (self.sink is None) != (self.tail is None):
            raise ConfigError(
                f"window sink={self.sink}, tail={self.tail}: expected both (0 or more words) or neither (never cut)"
            )
        if self.sink is not None and self.tail is not None and min(self.sink, self.tail) < 0:
            raise ConfigError(f"window sink={self.sink}, tail={self.tail}: expected 0 or more words")
        for name, allowed in (("memory", Memory), ("positions", Positions)):
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(f"window {name}={getattr(self, name)!r}: expected one of {', '.join(get_args(allowed))}")
        if self.memory == "hard-reset" and self.vision == 0:
            raise ConfigError("window vision=0 with memory=hard-reset: expected the seconds between two resets")

    def chunk_counts(self, chunk_seconds: float, duration: float | None) -> tuple[int, int]:
        """(V, T) in chunks of `chunk_seconds`; a window that is never to close is as long as the stream."""
        if self.memory == "full":
            if duration is None:
                raise ConfigError("memory=full keeps everything: expected the length of the stream (a duration in seconds)")
            return (_chunks(duration, chunk_seconds),) * 2
        if self.memory == "hard-reset":
            return (_chunks(self.vision, chunk_seconds),) * 2
        return _chunks(self.vision, chunk_seconds), _chunks(self.text, chunk_seconds)

    @property
    def uncut(self) -> bool:
        """Whether the previous text is never cut."""
        return self.sink is None or self.memory in ("full", "hard-reset")

    def limits(self, chunk_seconds: float, duration: float | None, *, published_marker_cut: int = 0) -> Window:
        """The window as the numbers that the compiled step reads, for one stream."""
        vision, text = self.chunk_counts(chunk_seconds, duration)
        sink, tail = (NEVER, 1) if self.uncut else (self.sink or 0, max(self.tail or 0, 1))
        return Window(
            vision=jnp.int32(vision),
            text=jnp.int32(text),
            sink=jnp.int32(sink),
            tail=jnp.int32(tail),
            native=jnp.bool_(self.positions == "native"),
            published_marker_cut=jnp.int32(published_marker_cut),
        )


def _chunks(seconds: float, chunk_seconds: float) -> int:
    """Chunks that cover so many seconds; a remainder of less than a millionth of a chunk is rounding."""
    return math.ceil(seconds / chunk_seconds - 1e-6)


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Token counts that decide a ring's size: of fixed parts of the prompt, and of what one chunk can bring.

    previous: words of the first previous text. reply: at most so many new tokens a chunk. patches: M, tokens of one clip.
    marks: tokens around the patches of one clip.
    """

    system: int
    previous: int
    label: int
    query: int
    reply: int
    patches: int
    marks: int = 2


def slots_by_role(window: WindowConfig, lengths: Lengths, chunk_seconds: float, duration: float | None) -> Mapping[str, int]:
    """Slots that each part of the conversation needs at its fullest: the end of a second. Their sum is C.

    Raises ConfigError when the window never closes and the stream has no known length.
    """
    v, t = window.chunk_counts(chunk_seconds, duration)
    if not window.uncut:
        words = max(lengths.previous, (window.sink or 0) + max(window.tail or 0, 1) - 1)
    elif window.memory in ("full", "hard-reset"):
        words = lengths.previous
    elif duration is None:
        raise ConfigError("sink=none,tail=none keeps every word: expected the length of the stream (a duration in seconds)")
    else:
        words = lengths.previous + max(_chunks(duration, chunk_seconds) - t, 0) * lengths.reply
    slots = {
        "system": lengths.system,
        "previous text": 4 + words + 2,  # <|im_start|> previous text \n ... <|im_end|> \n
        "vision": v * lengths.patches,
        "vision marks": v * lengths.marks,
        "user turns": (3 + 2) * max(v, t),
        "time labels": lengths.label * t,  # in every regime a label goes when its reply goes
        "query": lengths.query,
        # A complete reply keeps opening + words + <|im_end|> + newline. The last reply of a second has neither K/V for its
        # last token nor for its <|im_end|> and newline (computed in the next second), hence -3.
        "replies": t * (3 + lengths.reply + 2) - 3,
    }
    # GPU kernels read whole tiles of 8 slots; keys and values would have to be copied for a ring that is no multiple.
    return slots | {"spare": -sum(slots.values()) % 8}


def ring_shape(window: WindowConfig, lengths: Lengths, chunk_seconds: float, duration: float | None) -> RingShape:
    """The smallest ring that never overflows under this window."""
    v, _ = window.chunk_counts(chunk_seconds, duration)
    text = sum(n for role, n in slots_by_role(window, lengths, chunk_seconds, duration).items() if role != "vision")
    return RingShape(blocks=v, block=lengths.patches, text=text)


@dataclasses.dataclass(frozen=True)
class TurnIds:
    """Token ids that the rules need to know.

    marker: ids of the " ..." that ends a reply. stop: ids that end a reply; <|im_end|> is one of them.
    """

    im_end: int
    newline: int
    marker: tuple[int, ...]
    stop: tuple[int, ...]


def pending(window: Window, chunk_index: Int[Array, ""], last: Int[Array, ""], turns: TurnIds) -> Tokens:
    """The ids that close the last reply and have no K/V yet: [last sampled token], <|im_end|>, newline.

    They are computed at the head of the next second's prefill. A reply that ended by itself has <|im_end|> as its last
    sampled token, so the first place stays empty; one that hit the cap gets <|im_end|> by hand. With one chunk of text the
    whole reply has just been evicted and nothing is pending, not even the newline.
    """
    alive = (chunk_index > 0) & (window.text > 1)
    capped = last != turns.im_end
    return Tokens(
        token=jnp.stack([last, jnp.int32(turns.im_end), jnp.int32(turns.newline)]),
        role=jnp.asarray([Role.ASST_WORDS, Role.ASST_CLOSE, Role.ASST_CLOSE], jnp.int32),
        chunk_index=jnp.broadcast_to(chunk_index - 1, 3),
        pos_offset=jnp.zeros((3, 3), jnp.float32),
        pos_step=jnp.ones(3, jnp.float32),
        patch=jnp.zeros(3, jnp.int32),
        valid=alive & jnp.stack([capped, jnp.bool_(True), jnp.bool_(True)]),
    )


def evict(slots: Slots, window: Window, chunk_index: Int[Array, ""], last: Int[Array, ""], turns: TurnIds) -> Slots:
    """What leaves, and what moves, before chunk `chunk_index` is read. Rewrites role, chunk_index and order; nothing else."""
    role, chunk, order = slots.role, slots.chunk_index, slots.order
    live = order >= 0
    v, t = window.vision, window.text

    # The oldest reply: its words (all but the closing marker) join the previous text, the rest of it goes.
    reply = live & (role >= Role.ASST_OPEN) & (chunk == chunk_index - t)
    words = reply & (role == Role.ASST_WORDS)
    unwritten = (t == 1) & (last != turns.im_end)  # one more word, sampled but without a slot
    n_words = words.sum() + unwritten
    index = order - _first(order, words)  # index within the reply
    moved = words & (index < n_words - _cut_length(slots, words, index, n_words, unwritten, last, window, turns))
    gone = reply & ~moved

    user = live & (role >= Role.USER_OPEN) & (role <= Role.USER_CLOSE)
    gone |= (v > t) & user & (role == Role.LABEL) & (chunk == chunk_index - t)
    gone |= (v < t) & user & ((role == Role.PATCH) | (role == Role.MARK)) & (chunk == chunk_index - v)
    gone |= user & (chunk == chunk_index - jnp.maximum(v, t))

    # The middle of the previous text, as it is after the move. The first prefill is never cut.
    old = live & (role == Role.PREV_WORDS)
    n_old, n_all = old.sum(), old.sum() + moved.sum()
    rank = jnp.where(moved, n_old + index, order - _first(order, old))
    gone |= (old | moved) & (rank >= window.sink) & (rank <= n_all - window.tail) & (chunk_index > 0)

    role = jnp.where(moved, Role.PREV_WORDS, role)
    order = jnp.where(gone, -1, order)
    return dataclasses.replace(slots, role=role, chunk_index=jnp.where(moved, -1, chunk), order=renumber(role, order))


def _first(order: Int[Array, "C"], mask: Bool[Array, "C"]) -> Int[Array, ""]:
    return jnp.min(jnp.where(mask, order, order.shape[0]))


def _cut_length(
    slots: Slots, words: Array, index: Array, n_words: Array, unwritten: Array, last: Array, window: Window, turns: TurnIds
) -> Int[Array, ""]:
    """How many words at a reply's end are not speech: the marker, if it is there, or a stop id.

    The published code cuts the marker's length blindly, so a reply that hit the token cap loses real words:
    `published_marker_cut` > 0.
    """

    def word(place: Array) -> Array:
        written = jnp.max(jnp.where(words & (index == place), slots.token, -1))
        return jnp.where(unwritten & (place == n_words - 1), last, written)

    length = len(turns.marker)
    ends = jnp.stack([word(n_words - length + k) == token for k, token in enumerate(turns.marker)]).all()
    stopped = jnp.isin(word(n_words - 1), jnp.asarray(turns.stop)).astype(jnp.int32)
    return jnp.where(window.published_marker_cut > 0, window.published_marker_cut, jnp.where(ends, length, stopped))


def renumber(role: Int[Array, "C"], order: Int[Array, "C"]) -> Int[Array, "C"]:
    """Order without gaps, by (part, old order).

    A moved word keeps its old order, which is higher than that of all older words: it lands after them and before PREV_CLOSE.
    """
    live = order >= 0
    count = order.shape[0]
    part = jnp.where(live, jnp.minimum(role, Role.USER_OPEN), Role.USER_OPEN + 1)
    by_rank = jnp.argsort(part * (count + 1) + order)
    rank = jnp.zeros_like(order).at[by_rank].set(jnp.arange(count, dtype=order.dtype))
    return jnp.where(live, rank, -1)
