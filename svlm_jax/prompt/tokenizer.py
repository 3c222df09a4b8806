"""Text to token ids and back, from a checkpoint's `tokenizer.json`."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from svlm_jax.errors import CheckpointError


class Tokenizer:
    """Special tokens are recognised in the text; none is ever added."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path.parent} has no {path.name}, so its tokenizer cannot be loaded.")
        try:
            self._inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path} is not a readable tokenizer: {error}.") from error
        self._inner.no_padding()
        self._inner.no_truncation()

    def encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def id_of(self, token: str) -> int:
        """The id of one token, e.g. "<|im_end|>"; CheckpointError when the vocabulary lacks it."""
        number = self._inner.token_to_id(token)
        if number is None:
            raise CheckpointError(f"the tokenizer has no token {token!r}, which a chat model of this family needs.")
        return number

    def __len__(self) -> int:
        return self._inner.get_vocab_size(with_added_tokens=True)
