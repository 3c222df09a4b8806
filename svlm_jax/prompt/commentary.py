"""Text around the video: the turns of the conversation as token ids with their roles, built on the host, one second ahead.

    system ... | previous text ... | user: Time=0.0-1.0s <video> [query] | assistant: words ... | user: Time=1.0-2.0s <video>

Families that tell time in text have a stamp before each temporal grid, which comes and goes with it:

    user: Time=0.0-1.0s <0.2 seconds> <grid> [query] | assistant: words ...

The layout is the one that StreamingVLM was trained on (arXiv 2510.09608 and its code). The newline after a reply is not part
of the next turn here: the device knows whether it is due (`cache.window.pending`).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from svlm_jax.cache.positions import vision_block
from svlm_jax.cache.ring import Role, Tokens
from svlm_jax.cache.window import TurnIds
from svlm_jax.errors import ConfigError
from svlm_jax.models import registry
from svlm_jax.models.config import ClipGrid, ModelConfig
from svlm_jax.prompt.tokenizer import Encode, fill

QUERY = "Commentate on what happens in the video."
SYSTEM = "You are a helpful assistant."
MARKER = " ..."  # ends every reply; alone, it is silence
LATEST = 9_999_999.0  # labels are dimensioned for streams of 115 days

Piece = tuple[Sequence[int], Role, int]  # ids, role, chunk index: 0 = this chunk (the device fills it in), -1 = none


def label(start: float, end: float) -> str:
    """The time label of a chunk, in seconds of the stream."""
    return f"Time={start:.1f}-{end:.1f}s"


def grid_seconds(start: float, end: float, grids: int, frames_a_grid: int) -> list[float]:
    """The stream second of each temporal grid of [start, end): the mean of the times of its first and last frame."""
    frame = (end - start) / (grids * frames_a_grid)
    firsts = (start + number * frames_a_grid * frame for number in range(grids))
    return [first + (frames_a_grid - 1) * frame / 2 for first in firsts]


class PromptBuilder:
    """Builds the token arrays of a stream.

    Args:
      model: whose family says how a video is marked. encode: of its tokenizer.
      system: text of the system turn, which never leaves the cache: the place for instructions that must last.
      text_positions: give patches 1-D positions like text (positions="text" of a window).
      max_query: tokens that a query may have; they are part of every turn's static length.
    """

    def __init__(
        self,
        model: ModelConfig,
        encode: Encode,
        *,
        system: str = SYSTEM,
        text_positions: bool = False,
        max_query: int = 0,
    ) -> None:
        self.encode, self.video_pad, self.system = encode, model.video_token_id, system
        self.text_positions, self.max_query = text_positions, max_query
        self._parts = {
            Role.USER_OPEN: encode("<|im_start|>user\n"),
            Role.USER_CLOSE: encode("<|im_end|>\n"),
            Role.ASST_OPEN: encode("<|im_start|>assistant\n"),
        }
        self._layout = registry.record(model).layout
        self._frames_a_grid = model.vision.grid_frames
        marks = self._layout.before, self._layout.after
        self._vision_start, self._vision_end = (encode(mark) if mark else [] for mark in marks)
        self.label_length = len(encode(label(LATEST - 1, LATEST)))

    def turn_ids(self, stop: Iterable[int] = ()) -> TurnIds:
        """The ids that the rules of the cache need."""
        (im_end,), (newline,) = self.encode("<|im_end|>"), self.encode("\n")
        return TurnIds(im_end, newline, tuple(self.encode(MARKER)), tuple(sorted({im_end, *stop})))

    def opening(self, previous: str = "", *, keep: tuple[int, int] | None = None) -> Tokens:
        """The system turn and the "previous text" turn. keep = (sink, tail) cuts a long history to what the cache would keep.

        The published code encodes the whole history once and cuts it a second later; keep=None does the same.
        """
        words = self.encode(previous, literal=True)
        if keep is not None:
            words = cut_middle(words, *keep)
        return self._build(
            [
                (fill(self.encode, "<|im_start|>system\n{}<|im_end|>\n", self.system), Role.SYSTEM, -1),
                (self.encode("<|im_start|>previous text\n"), Role.PREV_OPEN, -1),
                (words, Role.PREV_WORDS, -1),
                (self.encode("<|im_end|>\n"), Role.PREV_CLOSE, -1),
            ]
        )

    def turn(self, start: float, end: float, grid: ClipGrid, query: str | None = None) -> Tokens:
        """The user turn of the chunk [start, end) and the opening of its reply, padded to `turn_length(grid)`."""
        asked = self.encode(query, literal=True) if query else []
        if len(asked) > self.max_query:
            raise ConfigError(f"the query has {len(asked)} tokens: expected at most {self.max_query}")
        ids = self.encode(label(start, end))
        if len(ids) > self.label_length:
            raise ConfigError(f"time label {label(start, end)!r}: expected stream time below {LATEST:.0f} s")
        pieces: list[Piece] = [
            (self._parts[Role.USER_OPEN], Role.USER_OPEN, 0),
            (ids, Role.LABEL, 0),
            *self._video(start, end, grid),
            (asked, Role.QUERY, 0),
            (self._parts[Role.USER_CLOSE], Role.USER_CLOSE, 0),
            (self._parts[Role.ASST_OPEN], Role.ASST_OPEN, 0),
        ]
        return pad(self._build(pieces, grid), self.turn_length(grid))

    def turn_length(self, grid: ClipGrid) -> int:
        """The static length of a turn."""
        fixed = sum(len(ids) for ids in self._parts.values())
        return fixed + self.label_length + self.marks_length(grid) + grid.patches + self.max_query

    def marks_length(self, grid: ClipGrid) -> int:
        """The most tokens that mark the video of a turn, and tell its time."""
        return sum(len(ids) for ids, role, _ in self._video(LATEST - 1, LATEST, grid) if role == Role.MARK)

    def time_length(self, start: float, end: float, grid: ClipGrid) -> int:
        """Tokens that tell the time in the turn of the chunk [start, end)."""
        return len(self.encode(label(start, end))) + sum(map(len, self._stamps(start, end, grid)))

    def _video(self, start: float, end: float, grid: ClipGrid) -> list[Piece]:
        stamps = self._stamps(start, end, grid)
        patches = [self.video_pad] * (grid.patches // len(stamps))
        return [
            piece
            for stamp in stamps
            for piece in (
                ([*stamp, *self._vision_start], Role.MARK, 0),
                (patches, Role.PATCH, 0),
                (self._vision_end, Role.MARK, 0),
            )
        ]

    def _stamps(self, start: float, end: float, grid: ClipGrid) -> list[list[int]]:
        """What stands before each part of a clip that has marks of its own."""
        text = self._layout.time_stamp
        if text is None:
            return [[]]
        return [self.encode(text.format(second)) for second in grid_seconds(start, end, grid.t, self._frames_a_grid)]

    def clip_positions(self, grid: ClipGrid) -> tuple[np.ndarray, np.ndarray]:
        """What the patches of a clip add, see `vision_block`: one block, or one each temporal grid between stamps."""
        if self._layout.time_stamp is None:
            return vision_block((grid.t, grid.h, grid.w), grid.time_step)
        pos_offset, pos_step = vision_block((1, grid.h, grid.w), grid.time_step)
        return np.tile(pos_offset, grid.t), np.tile(pos_step, grid.t)

    def _build(self, pieces: Iterable[Piece], grid: ClipGrid | None = None) -> Tokens:
        token = np.concatenate([np.asarray(ids, np.int32) for ids, _, _ in pieces])
        role = np.concatenate([np.full(len(ids), role, np.int32) for ids, role, _ in pieces])
        chunk_index = np.concatenate([np.full(len(ids), chunk_index, np.int32) for ids, _, chunk_index in pieces])
        pos_offset, pos_step = np.zeros((3, len(token)), np.float32), np.ones(len(token), np.float32)
        patch = np.zeros(len(token), np.int32)
        if grid is not None:
            at = role == Role.PATCH
            patch[at] = np.arange(grid.patches)
            if not self.text_positions:
                pos_offset[:, at], pos_step[at] = self.clip_positions(grid)
        return Tokens(token, role, chunk_index, pos_offset, pos_step, patch, np.ones(len(token), bool))  # type: ignore[arg-type]


def cut_middle(words: list[int], sink: int, tail: int) -> list[int]:
    """The words that a cut to `sink` and `tail` leaves; tail counts <|im_end|>, so tail - 1 words stay at the end."""
    tail = max(tail, 1)
    return words if len(words) < sink + tail else words[:sink] + words[len(words) - (tail - 1) :]


def pad(tokens: Tokens, length: int) -> Tokens:
    """To a static length. Padding is invalid: it gets no slot, no order and no position."""
    short = length - tokens.token.shape[-1]

    def fill(x: Any) -> np.ndarray:
        return np.pad(np.asarray(x), [(0, 0)] * (x.ndim - 1) + [(0, short)])

    return Tokens(*(fill(getattr(tokens, field.name)) for field in dataclasses.fields(Tokens)))  # type: ignore[arg-type]


def pieces(tokens: Tokens, length: int) -> list[Tokens]:
    """Tokens cut into pieces of one static length, the last one padded: what `step.ingest` takes."""

    def part(start: int) -> Tokens:
        return Tokens(*(getattr(tokens, field.name)[..., start : start + length] for field in dataclasses.fields(Tokens)))

    return [pad(part(start), length) for start in range(0, tokens.token.shape[-1], length)]
