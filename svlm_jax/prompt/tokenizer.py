"""Text to token ids and back, from a checkpoint's `tokenizer.json`."""

import functools
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import tokenizers

from svlm_jax.errors import CheckpointError
from svlm_jax.host.schema import brief

# What structures a prompt. Other added tokens are words that a vocabulary has as a whole.
_MARK = re.compile(r"<[^<>\s]+>")
_IN_TEMPLATE = re.compile(r"(<\|\w+\|>)")


class Encode(Protocol):
    """Text -> ids; nothing is added. `literal`: marks in it are text, as in all that people say, ask or transcribe."""

    def __call__(self, text: str, *, literal: bool = False) -> list[int]: ...


def fill(encode: Encode, template: str, *values: str) -> list[int]:
    """The ids of a template whose marks are tokens and whose {} are filled with text that stays text."""
    given, ids = iter(values), []
    for piece in filter(None, _IN_TEMPLATE.split(template)):
        if _IN_TEMPLATE.fullmatch(piece):
            ids += encode(piece)
        else:
            ids += encode(piece.format(*itertools.islice(given, piece.count("{}"))), literal=True)
    return ids


CUT = "\ufffd"  # what bytes that are no whole character decode to


class Tokenizer:
    """A checkpoint's vocabulary. Nothing is ever added to what is encoded."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path.parent} has no {path.name}, so its tokenizer cannot be loaded.")
        try:
            self._inner = _whole(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path} is not a readable tokenizer: {brief(str(error), 300)}.") from error

    def encode(self, text: str, *, literal: bool = False) -> list[int]:
        """The ids of a text. Marks such as <|im_end|> are tokens in it; with `literal` they are text like any other."""
        inner = self._literal if literal and any(mark in text for mark in self._marks) else self._inner
        return inner.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def _marks(self) -> tuple[str, ...]:
        added = self._inner.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special or _MARK.fullmatch(token.content))

    @functools.cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """The same vocabulary for texts that mention marks: made when the first one does."""
        fields = json.loads(self._inner.to_str())
        for token in fields["added_tokens"]:
            token["special"] = token["content"] in self._marks
        inner = _whole(tokenizers.Tokenizer.from_str(json.dumps(fields)))
        inner.encode_special_tokens = True
        return inner

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def decode_reply(self, ids: Sequence[int]) -> str:
        """The text of a reply, without the characters that are not whole.

        A reply that its limit of tokens cut, or the one that goes on behind it, may begin or end inside a character of several
        bytes, which decodes to U+FFFD.
        """
        return self.decode(ids).strip(CUT)

    def id_of(self, token: str) -> int:
        """The id of one token, e.g. "<|im_end|>"; CheckpointError when the vocabulary lacks it."""
        number = self._inner.token_to_id(token)
        if number is None:
            raise CheckpointError(f"the tokenizer has no token {token!r}, which a chat model of this family needs.")
        return number

    def __len__(self) -> int:
        return self._inner.get_vocab_size(with_added_tokens=True)


def _whole(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer without the padding and truncation that some files ask for."""
    inner.no_padding()
    inner.no_truncation()
    return inner
