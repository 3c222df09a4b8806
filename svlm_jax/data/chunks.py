"""Training samples: what a model would read and say during a clip of some seconds, as arrays.

    system | previous text: sink ... tail | user: Time=12.0-13.0s <clip> | assistant: words of that second ... | user: ...
                                                                           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ learned

A sample is token for token what a stream feeds the model (`streaming.prompt`), inside one chunk seen with plain causal
attention (arXiv 2510.09608 section 2.2). A word belongs to the second in which it ends.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import jax
import numpy as np

from svlm_jax.cache.positions import vision_block
from svlm_jax.cache.ring import Tokens
from svlm_jax.data.annotations import Annotation, Word
from svlm_jax.errors import ConfigError, DataError
from svlm_jax.models import registry
from svlm_jax.models.config import ClipGrid, ModelConfig
from svlm_jax.prompt.commentary import MARKER, SYSTEM, PromptBuilder, label
from svlm_jax.prompt.tokenizer import Encode, fill

IGNORED = -100  # label of a token that is not learned
EPSILON = 1e-6  # s; rounding of times
MAX_QUERY = 1024  # tokens of the questions of one turn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Samples of one shape, padded at their ends; without the axis B it is a single sample. NumPy arrays, or JAX arrays.

    Attributes:
      tokens: (B, T) int32 ids. Every clip has its run of video pads, in the order of `frames`.
      labels: (B, T) int32. labels[t] is what the model should have said at place t, to be predicted from the places before t
        (no shift has been applied); -100 where nothing is learned. It equals tokens[t] unless the text was noised.
      positions: (B, 3, T) float32, the (t, h, w) position of each token, from 0 in every sample.
      valid: (B, T) bool, False at padding.
      frames: (B, S, F, 3, height, width) uint8 RGB, one clip of F frames for each of S turns.
      clip_valid: (B, S) bool, False for clips that are padding; their frames are zeros and no token stands for them.
      weight: (B,) float32 of the sample in the loss; 0 for one that could not be read.
    """

    tokens: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    valid: np.ndarray
    frames: np.ndarray
    clip_valid: np.ndarray
    weight: np.ndarray


Sample: TypeAlias = Batch  # a batch without its axis B


def stack(samples: Sequence[Sample]) -> Batch:
    """Samples of one shape as a batch."""
    fields = (field.name for field in dataclasses.fields(Batch))
    return Batch(**{name: np.stack([getattr(sample, name) for sample in samples]) for name in fields})


@dataclasses.dataclass(frozen=True)
class ChunkSettings:
    """How annotations become samples. The defaults are the published ones.

    Attributes:
      fps: frames a second that the model sees; chunk_seconds: video of one turn.
      sink, tail: words (tokens) of the previous text that are kept, `tail` counting <|im_end|>.
      query: stands in the first turn of a clip, as it does in a stream; the published training shows none.
      system: text of the system turn.
      published: the released training template where it differs from what its own inference feeds: a newline before every
        reply (and its answer), a blank behind every time label but the first, questions before the clip instead of behind it,
        `sink` and `tail` counting the scaffold of their turn.
    """

    fps: float = 2.0
    chunk_seconds: float = 1.0
    sink: int = 512
    tail: int = 512
    query: str | None = None
    system: str = SYSTEM
    published: bool = False

    def __post_init__(self) -> None:
        for name in ("fps", "chunk_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: expected more than 0")
        least = (5, 3) if self.published else (0, 0)
        if self.sink < least[0] or self.tail < least[1]:
            raise ConfigError(f"sink={self.sink}, tail={self.tail}: expected at least {least[0]} and {least[1]} words")

    @property
    def frames(self) -> int:
        """Frames of one turn."""
        return round(self.fps * self.chunk_seconds)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One second of a clip.

    Attributes:
      start, end: of its label. words: what is said, with a blank before each word. query: what is asked.
      truth: what should have been said, if that differs.
      given: so much of the beginning of `words`, in characters, is not learned; -1: nothing of the reply is.
      skipped: the turn is left out, but not its positions (where samples are as in a stream).
    """

    start: float
    end: float
    words: str = ""
    query: str = ""
    truth: str | None = None
    given: int = 0
    skipped: bool = False


def turns(annotation: Annotation, settings: ChunkSettings = ChunkSettings()) -> list[Turn]:
    """The turns of a clip: every word once, in the turn in which it ends; words that end behind the clip are left out."""
    length = settings.chunk_seconds
    count = max(1, int((annotation.end - annotation.start) / length + EPSILON))
    words, questions = list(annotation.words), list(annotation.questions)
    result = []
    for number in range(count):
        start = annotation.start + number * length
        end = start + length
        said, words = _until(words, end)
        asked = [question for question in questions if start <= question.time < end]
        answers = [question.answer.strip() for question in asked]
        spoken = [word.text.strip() for word in said]
        # The published template gives answers a line of their own, which is why its replies begin with a newline.
        text = " ".join(answers) + "\n" + _join(spoken) if settings.published else _join([*answers, *spoken])
        queries = [settings.query] if settings.query and number == 0 else []
        result.append(Turn(start, end, text, " ".join([*queries, *(question.question for question in asked)])))
    return result


def _until(words: list[Word], end: float) -> tuple[list[Word], list[Word]]:
    """The words that end by `end`, in order, and the others."""
    said = [word for word in words if word.end <= end + EPSILON]
    return said, [word for word in words if word.end > end + EPSILON]


def _join(words: Iterable[str]) -> str:
    return "".join(f" {word}" for word in words if word)


class ChunkBuilder:
    """Turns annotations and their frames into samples, for one model.

    Args:
      encode: of a tokenizer.
      model: whose patches and positions count.
    """

    def __init__(self, encode: Encode, model: ModelConfig, settings: ChunkSettings = ChunkSettings()) -> None:
        registry.require(model, "train")
        self.encode, self.model, self.settings = encode, model, settings
        self._prompt = PromptBuilder(model, encode, system=settings.system, max_query=MAX_QUERY)
        self._advances: dict[tuple[int, str, ClipGrid], float] = {}
        if settings.published and registry.record(model).layout.time_stamp is not None:
            raise ConfigError(
                f"chunks.published=True with a {model.family}: expected false, since the published template has no time stamps"
            )

    def __call__(self, annotation: Annotation, frames: np.ndarray) -> Sample:
        """The sample of a clip; frames: uint8 (S, F, 3, height, width), one clip a turn."""
        return self.build(annotation.previous, turns(annotation, self.settings), frames)

    def build(
        self, previous: str, spoken: Sequence[Turn], frames: np.ndarray | None, *, size: tuple[int, int] | None = None
    ) -> Sample:
        """The sample of turns that need not come from an annotation. DataError if there is not one clip of frames a turn.

        Without frames it is blind: clips of `size` keep their positions, but no token stands for them. What is said can then
        be learned from what was said only.
        """
        if frames is None:
            height, width = size or (0, 0)
            row = self._row(previous, spoken, self._grid((height, width)), blind=True)
            return self._sample(row, np.zeros((0, self.settings.frames, 3, height, width), np.uint8))
        if frames.shape[:3] != (len(spoken), self.settings.frames, 3):
            raise DataError(
                f"frames of shape {frames.shape} for {len(spoken)} turns: expected {self.settings.frames} frames of 3 colours "
                f"a turn."
            )
        grid = self._grid(frames.shape[3:])
        return self._sample(self._row(previous, spoken, grid), frames)

    def _grid(self, size: Sequence[int]) -> ClipGrid:
        """What the decoder sees of the clip of one turn whose frames have `size` (height, width) pixels."""
        height, width = size
        return self.model.vision.clip_grid(self.settings.frames, height, width, self.settings.fps)

    def _sample(self, row: "_Row", frames: np.ndarray) -> Sample:
        tokens, labels, pos_offset, pos_step = row.arrays()
        positions = np.cumsum(pos_step, dtype=np.float64) - pos_step + pos_offset
        return Sample(
            tokens=tokens,
            labels=labels,
            positions=positions.astype(np.float32),
            valid=np.ones(len(tokens), bool),
            frames=frames,
            clip_valid=np.ones(len(frames), bool),
            weight=np.float32(1.0),  # type: ignore[arg-type]
        )

    def length(self, annotation: Annotation, size: tuple[int, int]) -> tuple[int, int]:
        """Tokens and turns that the sample will have when its frames have `size` (height, width) pixels."""
        spoken = turns(annotation, self.settings)
        return self.turns_length(annotation.previous, spoken, size), len(spoken)

    def turns_length(self, previous: str, spoken: Sequence[Turn], size: tuple[int, int], *, blind: bool = False) -> int:
        """Tokens that `build` will make of these turns."""
        return self._row(previous, spoken, self._grid(size), blind).length

    def _row(self, previous: str, spoken: Sequence[Turn], grid: ClipGrid, blind: bool = False) -> "_Row":
        row = _Row(self.model.video_token_id if blind else None)
        write = self._published if self.settings.published else self._as_streamed
        write(row, previous, spoken, grid)
        return row

    def _as_streamed(self, row: "_Row", previous: str, spoken: Sequence[Turn], grid: ClipGrid) -> None:
        newline, end = self.encode("\n"), self.encode("<|im_end|>")
        row.tokens(self._prompt.opening(previous, keep=(self.settings.sink, self.settings.tail)))
        for number, turn in enumerate(spoken):
            said = self.encode(turn.words + MARKER, literal=True) + end
            if turn.skipped:
                row.gap(self._advance(turn, grid) + len(said) + bool(number))
                continue
            if number:
                row.text(newline)
            row.tokens(self._prompt.turn(turn.start, turn.end, grid, turn.query or None))
            learned = said if turn.truth is None else wanted(said, self.encode(turn.truth + MARKER, literal=True) + end)
            given = len(self.encode(turn.words[: turn.given], literal=True)) if turn.given >= 0 else len(said)
            row.text(said, [IGNORED] * given + learned[given:])

    def _advance(self, turn: Turn, grid: ClipGrid) -> float:
        """What the user's side of a turn adds to the position; turns that tell the time in equally many tokens are alike."""
        key = self._prompt.time_length(turn.start, turn.end, grid), turn.query, grid
        if key not in self._advances:
            tokens = self._prompt.turn(turn.start, turn.end, grid, turn.query or None)
            self._advances[key] = float(np.sum(np.asarray(tokens.pos_step)[np.asarray(tokens.valid)]))
        return self._advances[key]

    def _published(self, row: "_Row", previous: str, spoken: Sequence[Turn], grid: ClipGrid) -> None:
        sink, tail, header = self.settings.sink, self.settings.tail, "<|im_start|>assistant\n"
        row.text(fill(self.encode, "<|im_start|>system\n{}<|im_end|>\n", self.settings.system))
        history = fill(self.encode, "<|im_start|>previous text\n{}<|im_end|>\n", previous)
        row.text(history if len(history) < sink + tail else history[:sink] + history[-tail:])
        for number, turn in enumerate(spoken):
            blank = " " if number else ""
            opening = f"{label(turn.start, turn.end)}{blank}{turn.query}"
            row.text(fill(self.encode, "<|im_start|>user\n{}<|vision_start|>", opening))
            row.clip(self.model.video_token_id, grid)
            row.text(self.encode("<|vision_end|><|im_end|>\n"))
            reply = fill(self.encode, header + "{}<|im_end|>", turn.words + MARKER)
            skip = len(self.encode(header))
            row.text(reply, [IGNORED] * skip + reply[skip:])
            row.text(self.encode("\n"))


def wanted(said: Sequence[int], truth: Sequence[int]) -> list[int]:
    """Labels of a reply in which a mistake stands: as far as it is right, then the token that would have been right."""
    same = next((i for i, (a, b) in enumerate(zip(said, truth, strict=False)) if a != b), min(len(said), len(truth)))
    return [*truth[: same + 1], *[IGNORED] * len(said)][: len(said)]


class _Row:
    """A sequence while it grows: ids, labels, and what each token adds to the position. Tokens `unseen` are left out."""

    def __init__(self, unseen: int | None = None) -> None:
        self._unseen = unseen
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def text(self, ids: Sequence[int], labels: Sequence[int] | None = None) -> None:
        learned = np.full(len(ids), IGNORED, np.int32) if labels is None else np.asarray(labels, np.int32)
        self._add(np.asarray(ids, np.int32), learned, np.zeros((3, len(ids)), np.float32), np.ones(len(ids), np.float32))

    def clip(self, pad: int, grid: ClipGrid) -> None:
        pos_offset, pos_step = vision_block((grid.t, grid.h, grid.w), grid.time_step)
        self._add(np.full(grid.patches, pad, np.int32), np.full(grid.patches, IGNORED, np.int32), pos_offset, pos_step)

    def tokens(self, tokens: Tokens) -> None:
        """What a stream would be fed, without its padding."""
        at = np.asarray(tokens.valid)
        ids = np.asarray(tokens.token)[at]
        unlearned = np.full(len(ids), IGNORED, np.int32)
        self._add(ids, unlearned, np.asarray(tokens.pos_offset)[:, at], np.array(tokens.pos_step)[at])

    def gap(self, pos_step: float) -> None:
        """Leaves so many positions unused after the last token, as if tokens stood there."""
        self._parts[-1][-1][-1] += pos_step

    def _add(self, *part: np.ndarray) -> None:
        self._parts.append(part)  # type: ignore[arg-type]

    @property
    def length(self) -> int:
        return sum(int(np.sum(ids != self._unseen)) if self._unseen is not None else len(ids) for ids, *_ in self._parts)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tokens (T,), labels (T,), pos_offset (3, T), pos_step (T,)."""
        tokens, labels, pos_offset, pos_step = (np.concatenate(part, axis=-1) for part in zip(*self._parts, strict=True))
        if self._unseen is None:
            return tokens, labels, pos_offset, pos_step
        seen = tokens != self._unseen
        # What is left out still moves the positions: the token before it does that instead.
        moved = np.add.reduceat(pos_step, np.flatnonzero(seen))
        return tokens[seen], labels[seen], pos_offset[:, seen], moved


# ------------------------------------------------------------------------------------------------ known shapes


@dataclasses.dataclass(frozen=True, order=True)
class Bucket:
    """A shape that samples are padded to: tokens, turns, and frames of `size` (height, width) pixels."""

    tokens: int
    clips: int
    size: tuple[int, int]

    def holds(self, tokens: int, clips: int, size: tuple[int, int]) -> bool:
        return tokens <= self.tokens and clips <= self.clips and tuple(size) == tuple(self.size)


def pad_sample(sample: Sample, bucket: Bucket) -> Sample:
    """The sample in the shape of a bucket. DataError when it does not fit."""
    count, clips, size = len(sample.tokens), len(sample.frames), sample.frames.shape[-2:]
    if not bucket.holds(count, clips, size):
        raise DataError(
            f"a sample of {count} tokens and {clips} clips of {size[0]}x{size[1]} pixels does not fit {bucket.tokens} tokens "
            f"and {bucket.clips} clips of {bucket.size[0]}x{bucket.size[1]} pixels."
        )
    more, rest = bucket.tokens - count, bucket.clips - clips
    return Sample(
        tokens=np.pad(sample.tokens, (0, more)),
        labels=np.pad(sample.labels, (0, more), constant_values=IGNORED),
        positions=np.pad(sample.positions, ((0, 0), (0, more))),
        valid=np.pad(sample.valid, (0, more)),
        frames=np.pad(sample.frames, ((0, rest), *((0, 0),) * 4)),
        clip_valid=np.pad(sample.clip_valid, (0, rest)),
        weight=sample.weight,
    )


def blank_sample(bucket: Bucket, frames: int) -> Sample:
    """What stands in for a sample that cannot be read: nothing valid, weight 0. frames: of one turn."""
    return Sample(
        tokens=np.zeros(bucket.tokens, np.int32),
        labels=np.full(bucket.tokens, IGNORED, np.int32),
        positions=np.zeros((3, bucket.tokens), np.float32),
        valid=np.zeros(bucket.tokens, bool),
        frames=np.zeros((bucket.clips, frames, 3, *bucket.size), np.uint8),
        clip_valid=np.zeros(bucket.clips, bool),
        weight=np.float32(0.0),  # type: ignore[arg-type]
    )
