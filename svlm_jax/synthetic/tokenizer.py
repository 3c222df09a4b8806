"""The small tokenizers of models that are trained on drawn streams alone: bytes, the marks of chats, and the words of a task.

One token a word keeps chunks short; bytes let it read whatever else it is given. The chat marks stand in the same order as
in the released models' vocabularies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from svlm_jax.host.files import write_json
from svlm_jax.host.folders import new_folder
from svlm_jax.prompt.commentary import MARKER, QUERY, SYSTEM
from svlm_jax.synthetic.commentary import VOCABULARY
from svlm_jax.synthetic.world import HEIGHT, WIDTH

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
# Roles, the pieces of time labels, numbers of two digits, and sentences that every stream begins with.
PLAIN = (
    *("system", "previous text", "user", "assistant", "Time=", ".0-", ".0s", MARKER, SYSTEM, QUERY),
    *(f"{number:02}" for number in range(100)),
    *(f" {word}" for word in VOCABULARY),
)
# How models of matches are streamed: as configs/match.py trains them, and greedily, because there is nothing to choose. Words
# stay in their place for a minute: what was said there is recalled better than what has moved to the earlier words.
STREAMING = {
    "window": {"vision": 16, "text": 64, "sink": 8, "tail": 96},
    "query": None,
    "sampling": {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 20},
    "max_pixels": WIDTH * HEIGHT,
}
VOCAB_SIZE = 256 + len(SPECIAL) + len(PLAIN)


def token_id(text: str) -> int:
    """The id of a mark or a word, e.g. "<|video_pad|>" or " goal"."""
    return 256 + (*SPECIAL, *PLAIN).index(text)


def write_tokenizer(folder: str | Path, words: Sequence[str] = PLAIN, streaming: Mapping[str, Any] = STREAMING) -> None:
    """Writes a new folder with tokenizer.json and its settings; CheckpointError when it exists.

    words: one token each, after the bytes and the marks. streaming: how the model is to be streamed.
    """
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(characters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in words])
    end = token_id("<|im_end|>")
    with new_folder(folder) as fresh:
        tokenizer.save(str(fresh / "tokenizer.json"))
        marks = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        write_json(fresh / "tokenizer_config.json", {**marks, **kind})
        ids = {"bos_token_id": token_id("<|im_start|>"), "eos_token_id": end, "pad_token_id": end}
        greedy = {"do_sample": False, "repetition_penalty": 1.0}
        write_json(fresh / "generation_config.json", {**ids, **greedy, "svlm": dict(streaming)})
