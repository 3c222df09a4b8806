"""Training samples made of facts on the fly: a short clip, and questions about it as a stream is asked them.

    prefix | <grid> <grid> ... | question 1 | answer 1 | question 2 | answer 2 ...
                                            ^^^^^^^^^^              ^^^^^^^^^^ learned

Token for token what `streaming.dialogue` puts before and after a video, the questions after the first as follow-ups.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from svlm_jax.data.chunks import IGNORED, Sample
from svlm_jax.data.samples import Size, digest
from svlm_jax.errors import ConfigError
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.positions import rope_positions
from svlm_jax.prompt.commentary import SYSTEM
from svlm_jax.prompt.qa import Answer, Dialogue
from svlm_jax.prompt.tokenizer import Encode
from svlm_jax.synthetic.facts import ASKED, SHOWN, Fact, Facts
from svlm_jax.synthetic.facts_render import SIDE


@dataclasses.dataclass(frozen=True)
class FactSettings:
    """How clips are drawn from streams of facts.

    Attributes:
      frames: of a clip. fps: at which they are taken.
      questions: about a clip at most; it has as many as facts, if those are fewer.
      sparse: s of stream for each fact at most; clips draw theirs from this, or their length, down to what a card needs.
      reach: temporal grids of the longest stream that a clip may be from. Its own are spread over a span of up to so many, so
        that their distances are those of a long stream, though its pictures are few (Ruoss et al. 2023, arXiv 2305.16843).
      spread: share of the clips for which that is done; the others are whole.
      early: the answer is also learned as soon as the flag is named. So it is the question's own words that look for the flag,
        which is what pages are chosen by.
    """

    frames: int = 16
    fps: float = 0.5
    questions: int = 5
    sparse: float = 30.0
    reach: int = 1500
    spread: float = 0.75
    early: bool = True

    def __post_init__(self) -> None:
        for name, least in (("frames", 2), ("questions", 1), ("reach", self.frames // 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least {least}")
        if not 0 <= self.spread <= 1:
            raise ConfigError(f"spread={self.spread}: expected a share from 0 to 1")
        if self.sparse < SHOWN:
            raise ConfigError(f"sparse={self.sparse}: expected at least the {SHOWN:g} s that a card is seen")
        if not 0 < self.fps <= self.frames / SHOWN:
            raise ConfigError(f"fps={self.fps}: expected above 0, and {self.frames} frames to last at least {SHOWN:g} s")


class FactSamples:
    """`count` clips with their questions, a set for the pipeline. Every number is a stream of its own.

    Args:
      encode: of a tokenizer.
      seed: of the streams; keep those for evaluation apart by another one.
    """

    shuffled = True

    def __init__(
        self,
        encode: Encode,
        model: ModelConfig,
        *,
        seed: int = 0,
        count: int = 1_000_000,
        settings: FactSettings = FactSettings(),
    ) -> None:
        self._dialogue = Dialogue(model, encode, SYSTEM)
        self.name, self.frames = f"facts {seed}", self._dialogue.frames_a_grid
        self._seed, self._count, self._settings = seed, count, settings
        (_, rows, columns), self._step = self._dialogue.clip_grid((settings.frames, 3, SIDE, SIDE), settings.fps)
        self._cells = rows, columns
        self._grids = settings.frames // self.frames

    def __len__(self) -> int:
        return self._count

    def size(self, number: int) -> Size:
        return SIDE, SIDE

    def length(self, number: int, size: Size) -> tuple[int, int]:
        return len(self._text(number)[0]), self._grids

    def load(self, number: int, size: Size) -> Sample:
        settings = self._settings
        tokens, labels = (np.asarray(ids, np.int32) for ids in self._text(number))
        facts = self._facts(number)[0]
        pictures = np.stack([facts.picture(i / settings.fps) for i in range(settings.frames)])
        frames = pictures.reshape(self._grids, self.frames, SIDE, SIDE, 3).transpose(0, 1, 4, 2, 3)
        return Sample(
            tokens=tokens,
            labels=labels,
            positions=self._positions(number, tokens),
            valid=np.ones(len(tokens), bool),
            frames=np.ascontiguousarray(frames),
            clip_valid=np.ones(self._grids, bool),
            weight=np.float32(1.0),  # type: ignore[arg-type]
        )

    def fingerprint(self) -> str:
        return digest(self._seed, self._count, self._settings, self._dialogue.model)

    def _facts(self, number: int) -> tuple[Facts, list[Fact]]:
        """The stream of a clip, and the facts that are asked about, in the order of the questions."""
        settings = self._settings
        rng = np.random.default_rng([self._seed, number, 0])
        while True:
            length = settings.frames / settings.fps
            every = float(np.exp(rng.uniform(*np.log([SHOWN, min(settings.sparse, length)]))))
            facts = Facts(int(rng.integers(2**48)), every)
            seen = facts.until(length)
            if seen:
                return facts, [seen[i] for i in rng.permutation(len(seen))[: settings.questions]]

    def _text(self, number: int) -> tuple[list[int], list[int]]:
        """Tokens and labels of a clip's whole dialogue."""
        dialogue = self._dialogue
        before = dialogue.prefix() + [dialogue.model.video_token_id] * (self._grids * self._cells[0] * self._cells[1])
        answer: Answer | None = None
        learned: dict[int, int] = {}
        for fact in self._facts(number)[1]:
            turn = dialogue.turn(fact.question, None, answer)
            said = dialogue.encode(f"{fact.answer}<|im_end|>")
            tokens = before + turn.token
            learned |= {len(tokens) + i: token for i, token in enumerate(said)}
            if self._settings.early:
                flag = len(before) + turn.asked.index(True) + len(dialogue.encode(ASKED))
                learned |= dict.fromkeys((flag + 1, flag + 2), said[0])  # after the flag, and after the whole question
            tokens += said
            answer = _answered(fact, (*turn.history, (turn.text, fact.answer)))
        return tokens, [learned.get(place, IGNORED) for place in range(len(tokens))]

    def _positions(self, number: int, tokens: np.ndarray) -> np.ndarray:
        """(3, T) float32; the temporal grids of a clip that is spread lie further apart, the text after them further on."""
        model, settings = self._dialogue.model, self._settings
        rows, columns = self._cells
        merge = round(model.vision.clip_patches(1) ** 0.5)
        grid = self._grids, rows * merge, columns * merge
        positions = rope_positions(tokens, model, video_grids=[grid], second_per_grid=[self.frames / settings.fps])
        rng = np.random.default_rng([self._seed, number, 1])
        if rng.random() >= settings.spread:
            return positions
        span = round(float(np.exp(rng.uniform(*np.log([self._grids, settings.reach])))))
        chosen = np.repeat(np.sort(rng.permutation(span)[: self._grids]), rows * columns)
        (video,) = np.nonzero(tokens == model.video_token_id)
        end = positions[:, video].max()
        positions[0, video] = positions[0, video[0]] + np.floor(chosen * self._step)
        positions[:, video[-1] + 1 :] += positions[:, video].max() - end
        return positions


def _answered(fact: Fact, history: Sequence[tuple[str, str]]) -> Answer:
    """The dialogue before a follow-up question."""
    return Answer(fact.question, fact.answer, (), 0.0, (), None, None, tuple(history), 0.0, 0.0, 0.0)
