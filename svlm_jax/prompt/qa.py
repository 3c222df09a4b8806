"""The conversation around a video that is asked about, as token ids: prefix, video, questions and answers.

    system ... | user: <video> question | assistant: answer | user: next question | assistant: ...
    prefix                    turn

Families that tell time in text have no marks around the video, but a stamp and marks around each of its temporal grids.

The video stands once, before the first question, as the models were trained. Multiple-choice questions list their options by
letter and ask for the letter.
"""

import dataclasses
import string
from collections.abc import Sequence

from svlm_jax.errors import ConfigError
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.prompt.commentary import LATEST
from svlm_jax.prompt.template import OPENING
from svlm_jax.prompt.tokenizer import Encode, fill

LETTERS = string.ascii_uppercase
CHOOSE = "Answer with the option's letter from the given choices directly."


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model answered.

    Attributes:
      question, text, tokens: the words asked, those answered, and their ids as sampled, the end mark included.
      at: stream time of the answer.
      read: (second, share of the layers that read something seen then), in order of time.
      choice: index of the chosen option and scores: probability of each, for multiple choice.
      history: (question, answer) texts of the dialogue so far, this one included; a follow-up question begins with them.
      catch_up_ms: spent on reading frames that had not made up a clip yet. first_token_ms: from then to the first token's
        scores. total_ms: of the whole call.
    """

    question: str
    text: str
    tokens: tuple[int, ...]
    at: float
    read: tuple[tuple[float, float], ...]
    choice: int | None
    scores: tuple[float, ...] | None
    history: tuple[tuple[str, str], ...]
    catch_up_ms: float
    first_token_ms: float
    total_ms: float

    @property
    def seconds(self) -> tuple[float, ...]:
        """The seconds that any layer read."""
        return tuple(second for second, _ in self.read)


@dataclasses.dataclass(frozen=True)
class Turn:
    """The text after the video: its ids, which of them are the newest question, and that question's text.

    history: the (question, answer) texts before it.
    """

    token: list[int]
    asked: list[bool]
    text: str
    history: tuple[tuple[str, str], ...]


def listed(question: str, choices: Sequence[str]) -> str:
    """A multiple-choice question as text."""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question}\n{options}\n{CHOOSE}"


EARLIER = "{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n<|im_start|>user\n"  # a question and its answer


class Dialogue:
    """Builds the token arrays of a conversation about one video.

    Args:
      encode: of a tokenizer.
      stop: ids that end an answer, beside <|im_end|>.
      opening: of the turn of an answer, see `prompt.template`.
    """

    def __init__(
        self, model: ModelConfig, encode: Encode, system: str, stop: Sequence[int] = (), *, opening: str = OPENING
    ) -> None:
        registry.require(model, "ask")
        self.model, self.encode, self.system, self.opening = model, encode, system, opening
        # The video stands between marks, or ends with a newline of its own (the embedding that `VLM.newline` gives it).
        self.marks: tuple[list[int], list[int]] = [], [model.video_token_id, *encode("\n")]
        self._layout = layout = registry.record(model).layout
        if layout.time_stamp is not None:
            self.marks = [], []
        elif layout.before is not None and layout.after is not None:
            self.marks = encode(layout.before), encode(layout.after)
        (im_end,) = encode("<|im_end|>")
        self.stop = tuple(sorted({im_end, *stop}))

    def prefix(self) -> list[int]:
        """The text before the video."""
        return fill(self.encode, "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n", self.system) + self.marks[0]

    def turn(self, question: str, choices: Sequence[str] | None, follows: Answer | None) -> Turn:
        """The text after the video: earlier questions and answers, the question, and the opening of its answer.

        Raises ConfigError for an empty question, and for choices that cannot be told apart by one letter.
        """
        if not question.strip():
            raise ConfigError(f"question={question!r}: expected some words")
        if choices is not None:
            self.letter_ids(len(choices))
            question = listed(question, choices)
        history = () if follows is None else follows.history
        before = fill(self.encode, EARLIER * len(history), *(text for pair in history for text in pair))
        parts = [(self.marks[1] + before, False), (self.encode(question, literal=True), True)]
        parts.append((self.encode("<|im_end|>\n" + self.opening), False))
        token = [token for ids, _ in parts for token in ids]
        return Turn(token, [asked for ids, asked in parts for _ in ids], question, history)

    def letter_ids(self, count: int) -> tuple[int, ...]:
        """The ids of the first letters of the alphabet."""
        if not 2 <= count <= len(LETTERS):
            raise ConfigError(f"{count} choices: expected 2 to {len(LETTERS)}")
        ids = [self.encode(letter) for letter in LETTERS[:count]]
        if any(len(letter) != 1 for letter in ids):
            raise ConfigError(f"the tokenizer has no single token for each of {LETTERS[:count]}, which a multiple choice needs")
        return tuple(letter[0] for letter in ids)

    @property
    def grid_marks(self) -> tuple[int, int]:
        """The most tokens that stand before and behind the cells of each temporal grid; (0, 0) without time stamps."""
        before, after = self._grid_marks(LATEST)
        return len(before), len(after)

    def grid_tokens(self, second: float, cells: int) -> list[int]:
        """The ids of a temporal grid at a `second`, the mean of its frames; -1 before a stamp that is shorter than its room."""
        before, after = self._grid_marks(second)
        return [-1] * (self.grid_marks[0] - len(before)) + before + [self.model.video_token_id] * cells + after

    def _grid_marks(self, second: float) -> tuple[list[int], list[int]]:
        stamp, before, after = self._layout.time_stamp, self._layout.before, self._layout.after
        if stamp is None:
            return [], []
        return self.encode(stamp.format(second) + (before or "")), self.encode(after or "")

    @property
    def frames_a_grid(self) -> int:
        """Frames that make up one temporal grid."""
        return self.model.vision.grid_frames

    def clip_grid(self, clip: Sequence[int], fps: float) -> tuple[tuple[int, int, int], float]:
        """Tokens of a clip (F, channels, height, width) as (t, rows, columns), and positions between two t (0: 1-D positions).

        Raises ConfigError for frames or sides that do not split into tokens.
        """
        count, _, height, width = clip
        grid = self.model.vision.clip_grid(count, height, width, fps)
        return (grid.t, grid.h, grid.w), grid.time_step
