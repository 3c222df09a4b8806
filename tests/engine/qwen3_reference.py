"""StreamingVLM's rules in plain Python over `transformers`' Qwen3-VL: lists of tokens, and a cache that is a list of rows.

The layers, the tower and the addition of its features are those of `transformers`. Keys are cached before rotation: its
rotation is switched off, and done here, for all keys, by its own function.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.models.qwen3_vl import modeling_qwen3_vl as modeling
from transformers.models.qwen3_vl_moe import modeling_qwen3_vl_moe as modeling_moe

from tests.models.oracle import video_patches

MARKER = " ..."
MEAN = (0.5, 0.5, 0.5)  # and the deviation, of pixels in [0, 1]


@dataclasses.dataclass(eq=False)
class Token:
    """One token: id, what it is, and of a patch its row and column."""

    id: int
    part: str
    cell: tuple[int, int] | None = None
    feature: int = -1  # of the clip that is being read


@dataclasses.dataclass
class Second:
    """A turn and its reply."""

    user: list[Token]
    reply: list[Token] = dataclasses.field(default_factory=list)


class Reference:
    """A greedy stream. vision, text: seconds that stay in place. sink, tail: words of the previous text."""

    def __init__(
        self, model: Any, encode: Any, *, system: str, previous: str, query: str, vision: int, text: int, sink: int, tail: int,
        most: int, penalty: float, suppress: Sequence[int],
    ) -> None:  # fmt: skip
        self.model, self.encode, self.query = model, encode, query
        self.vision, self.text, self.sink, self.tail = vision, text, sink, tail
        self.most, self.penalty, self.suppress = most, penalty, list(suppress)
        (self.im_end,), (self.newline,) = encode("<|im_end|>"), encode("\n")
        self.start = self.text_of(f"<|im_start|>system\n{system}<|im_end|>\n")
        self.before, self.after = self.text_of("<|im_start|>previous text\n"), self.text_of("<|im_end|>\n")
        self.words = self.text_of(previous)
        if len(self.words) >= sink + tail:
            self.words = self.words[:sink] + self.words[len(self.words) - tail + 1 :]
        self.seconds: list[Second] = []
        self.rows: dict[Token, list[tuple[torch.Tensor, torch.Tensor]]] = {}  # keys (K, H) and values of every layer
        self.said: list[int] = []
        self.run(self.order(), None)

    def text_of(self, text: str, part: str = "text") -> list[Token]:
        return [Token(token, part) for token in self.encode(text)]

    def order(self) -> list[Token]:
        """The conversation as it stands."""
        turns = [token for second in self.seconds for token in (*second.user, *second.reply)]
        return [*self.start, *self.before, *self.words, *self.after, *turns]

    def positions(self, tokens: Sequence[Token]) -> torch.Tensor:
        """(3, 1, T): text moves by one; cells of a picture share its first position, and it moves by its longer side."""
        next_, places, block = 0, [], []
        for token in (*tokens, None):
            if token is not None and token.cell is not None:
                block.append(token)
                continue
            if block:
                rows, columns = zip(*(patch.cell for patch in block), strict=True)
                places += [(next_, next_ + row, next_ + column) for row, column in zip(rows, columns, strict=True)]
                next_ += max(*rows, *columns) + 1
                block = []
            if token is not None:
                places.append((next_,) * 3)
                next_ += 1
        return torch.tensor(places).T[:, None]

    def feed(self, second: int, frames: np.ndarray) -> list[int]:
        """The reply to the frames (2 t, 3, height, width) of a second."""
        if second:
            self.close()
        self.evict(second)
        features, grid = see(self.model, frames)
        self.seconds.append(Second(self.turn(second, grid, self.query if second == 0 else "")))
        penalized = {token.id for token in self.order()}
        logits = self.run([token for token in self.order() if token not in self.rows], features)
        self.said, reply = [], self.seconds[-1].reply
        while True:
            scores = logits.clone()
            ids = sorted(penalized | set(self.said))
            scores[ids] = torch.where(scores[ids] > 0, scores[ids] / self.penalty, scores[ids] * self.penalty)
            scores[self.suppress] = -torch.inf
            self.said.append(int(scores.argmax()))
            if self.said[-1] == self.im_end or len(self.said) == self.most:
                return self.said
            reply.append(Token(self.said[-1], "word"))
            logits = self.run(reply[-1:], None)

    def close(self) -> None:
        """What the last reply still lacks."""
        reply = self.seconds[-1].reply
        if self.said[-1] != self.im_end:
            reply.append(Token(self.said[-1], "word"))
        reply += [Token(self.im_end, "close"), Token(self.newline, "close")]

    def turn(self, second: int, grid: tuple[int, int, int], query: str) -> list[Token]:
        times, rows, columns = grid
        tokens = self.text_of("<|im_start|>user\n")
        tokens += self.text_of(f"Time={second:.1f}-{second + 1:.1f}s", "label")
        for k in range(times):
            first, last = second + 2 * k / (2 * times), second + (2 * k + 1) / (2 * times)
            tokens += self.text_of(f"<{(first + last) / 2:.1f} seconds><|vision_start|>", "video")
            for row in range(rows):
                for column in range(columns):
                    pad = self.model.config.video_token_id
                    tokens.append(Token(pad, "video", (row, column), (k * rows + row) * columns + column))
            tokens += self.text_of("<|vision_end|>", "video")
        return tokens + self.text_of(f"{query}<|im_end|>\n<|im_start|>assistant\n", "close")

    def evict(self, second: int) -> None:
        if (old := second - self.text) >= 0:
            words = [token for token in self.seconds[old].reply if token.part == "word"]
            marker = self.encode(MARKER)
            if [token.id for token in words[-len(marker) :]] == marker:
                words = words[: -len(marker)]
            self.words += words
            self.seconds[old].reply = []
            opening = len(self.encode("<|im_start|>assistant\n"))
            self.seconds[old].user = self.seconds[old].user[:-opening]
            if self.vision > self.text:
                self.seconds[old].user = [token for token in self.seconds[old].user if token.part != "label"]
        if self.vision < self.text and (old := second - self.vision) >= 0:
            self.seconds[old].user = [token for token in self.seconds[old].user if token.part != "video"]
        if (old := second - max(self.vision, self.text)) >= 0:
            self.seconds[old].user = []
        if second and len(self.words) >= self.sink + self.tail:
            self.words = self.words[: self.sink] + self.words[len(self.words) - self.tail + 1 :]

    @torch.no_grad()
    def run(self, new: Sequence[Token], features: Any) -> torch.Tensor:
        """Runs tokens, the last of the conversation; keeps their keys and values. Logits (V,) behind the last."""
        everything = self.order()
        assert everything[-len(new) :] == list(new)
        language = self.model.model.language_model
        x = language.embed_tokens(torch.tensor([[token.id for token in new]]))
        visual = torch.tensor([[token.cell is not None for token in new]])
        deepstack = None
        if visual.any():
            index = torch.tensor([token.feature for token in new if token.cell is not None])
            x[visual] = features.pooler_output[index]
            deepstack = [layer[index] for layer in features.deepstack_features]
        position = self.positions(everything)
        rotation = language.rotary_emb(x, position)

        def attend(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, None]:
            for i, token in enumerate(new):
                self.rows.setdefault(token, []).append((k[0, :, i], v[0, :, i]))
            kept = [self.rows[token][module.layer_idx] for token in everything]
            keys, values = (torch.stack(part, 1)[None] for part in zip(*kept, strict=True))
            ours = [part[:, -len(new) :] for part in rotation]
            q = ROTATE(q, q, *ours)[0]
            keys = ROTATE(keys, keys, *rotation)[0]
            share = q.shape[1] // keys.shape[1]
            keys, values = (part.repeat_interleave(share, 1) for part in (keys, values))
            seen = torch.ones(len(new), len(everything), dtype=torch.bool).tril(len(everything) - len(new))
            scores = (q @ keys.transpose(2, 3) * scaling).masked_fill(~seen, -torch.inf)
            return (scores.softmax(-1) @ values).transpose(1, 2), None

        with attention(self.model, attend):
            hidden = language(
                inputs_embeds=x,
                position_ids=position[:, :, -len(new) :],
                visual_pos_masks=visual,
                deepstack_visual_embeds=deepstack,
                use_cache=False,
            ).last_hidden_state
        return self.model.lm_head(hidden[0, -1])


ROTATE = modeling.apply_rotary_pos_emb


@contextlib.contextmanager
def attention(model: Any, attend: Any) -> Iterator[None]:
    """Within it, decoder layers call `attend` with heads that are not rotated."""
    AttentionInterface.register("reference", attend)
    config, before = model.config.text_config, model.config.text_config._attn_implementation
    rotations = [(module, module.apply_rotary_pos_emb) for module in (modeling, modeling_moe)]
    try:
        config._attn_implementation = "reference"
        for module, _ in rotations:
            module.apply_rotary_pos_emb = lambda q, k, cos, sin: (q, k)
        yield
    finally:
        config._attn_implementation = before
        for module, original in rotations:
            module.apply_rotary_pos_emb = original


@torch.no_grad()
def see(model: Any, frames: np.ndarray) -> tuple[Any, tuple[int, int, int]]:
    """uint8 frames (2 t, 3, height, width) -> what the tower makes of them, and (t, rows, columns) of its tokens."""
    vision = model.config.vision_config
    pixels, grid = video_patches(frames, vision, MEAN, MEAN)
    features = model.model.visual(torch.tensor(pixels), grid_thw=torch.tensor([grid]))
    return features, (grid[0], grid[1] // vision.spatial_merge_size, grid[2] // vision.spatial_merge_size)
