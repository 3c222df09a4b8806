"""Complete checkpoints with random weights, for tests, demonstrations and measurements: they speak, but say nothing."""

from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jax.typing import DTypeLike
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from svlm_jax.checkpoint.export import write_weights
from svlm_jax.errors import ConfigError
from svlm_jax.host.files import write_json
from svlm_jax.host.folders import new_folder
from svlm_jax.models import registry
from svlm_jax.models.config import ModelConfig, TextConfig
from svlm_jax.models.family import Family, Geometry
from svlm_jax.models.functional import Params, abstract_params

Size = Literal["tiny", "small", "medium"]

VOCAB_SIZE = 320  # 256 bytes, some unused ids, and from 300 on the marks of chats and videos
# (text, id, special): special tokens are recognised anywhere; the others are words that chats are full of.
_ADDED = (
    ("<|im_start|>", 300, True),
    ("<|im_end|>", 301, True),
    ("user", 302, False),
    ("assistant", 303, False),
    ("<|vision_start|>", 304, True),
    ("<|vision_end|>", 305, True),
    ("<|video_pad|>", 306, True),
    ("previous", 307, False),
    (" text", 308, False),
    ("Time", 309, False),
    ("system", 310, False),
    ("<|image_pad|>", 311, True),
)
_IDS = {text: number for text, number, _ in _ADDED}
# Heads are 16 (tiny) or 64 wide: about 0.4, 11 and 90 million parameters.
_SIZES: dict[str, Geometry] = {
    "tiny": Geometry(True, 64, 128, 3, 4, 2, (2, 3, 3), 64, 96, 3, 4),
    "small": Geometry(False, 256, 768, 8, 4, 2, (8, 12, 12), 192, 512, 6, 6),
    "medium": Geometry(True, 640, 2560, 12, 10, 2, (8, 12, 12), 320, 1280, 12, 5),
}


def random_config(family: str, size: Size = "tiny", *, vocab_size: int = VOCAB_SIZE) -> ModelConfig:
    """The configuration of a random checkpoint; its tower is what the family's record makes of the size."""
    if size not in _SIZES:
        raise ConfigError(f"the size of a random checkpoint is {size!r}, expected one of {', '.join(_SIZES)}.")
    if vocab_size < VOCAB_SIZE:
        raise ConfigError(f"the vocabulary size is {vocab_size}, but the tokenizer needs at least {VOCAB_SIZE}.")
    g, record = _SIZES[size], registry.family(family)
    text = {
        "vocab_size": vocab_size,
        "hidden_size": g.width,
        "intermediate_size": g.hidden,
        "num_layers": g.layers,
        "num_heads": g.heads,
        "num_kv_heads": g.kv_heads,
        "head_dim": g.width // g.heads,
    }
    marked = record.layout.before is not None
    return ModelConfig(
        family=family,
        text=TextConfig(**{**text, **record.random_text(g)}),
        vision=record.random_tower(g),
        image_token_id=_IDS["<|image_pad|>"],
        video_token_id=_IDS["<|video_pad|>"],
        vision_start_token_id=_IDS["<|vision_start|>"] if marked else None,
        vision_end_token_id=_IDS["<|vision_end|>"] if marked else None,
    )


def write_random_checkpoint(
    folder: str | Path,
    *,
    family: str = "qwen2_5_vl",
    size: Size = "tiny",
    seed: int = 0,
    dtype: DTypeLike = jnp.float32,
    vocab_size: int = VOCAB_SIZE,
    max_shard_bytes: int = 1_000_000_000,
) -> None:
    """Writes a new folder that `load` and `transformers` take for any other: weights, tokenizer, template, settings.

    The tokenizer has one token a byte; the generation settings keep the model to printable ASCII. Raises CheckpointError
    when the folder exists.
    """
    config = random_config(family, size, vocab_size=vocab_size)
    params = _noise(config, seed, dtype)
    with new_folder(folder) as fresh:
        _write_companions(fresh, family, vocab_size)
        write_weights(fresh, config, params, max_shard_bytes=max_shard_bytes)


def write_companions(folder: str | Path, family: str) -> None:
    """Writes a new folder with what lies beside the weights of a random checkpoint: tokenizer, template, settings."""
    with new_folder(folder) as fresh:
        _write_companions(fresh, family, VOCAB_SIZE)


def _write_companions(folder: Path, family: str, vocab_size: int) -> None:
    _write_tokenizer(folder, registry.family(family))
    end = _IDS["<|im_end|>"]
    speakable = {*range(0x20, 0x7F), end}
    quiet = [number for number in range(vocab_size) if number not in speakable]
    ids = {"bos_token_id": _IDS["<|im_start|>"], "eos_token_id": end, "pad_token_id": end}
    write_json(folder / "generation_config.json", {**ids, "suppress_tokens": quiet})


def _noise(config: ModelConfig, seed: int, dtype: DTypeLike) -> Params:
    """What `init_params` draws, in distribution, but by numpy: compiling a sampler a shape takes seconds."""
    rng = np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        *_, owner, name = (key.key for key in path)
        if name == "newline":
            return (rng.standard_normal(shape.shape, np.float32) * shape.shape[0] ** -0.5).astype(shape.dtype)
        if len(shape.shape) == 1:
            return np.full(shape.shape, 0 if name == "bias" else 1, shape.dtype)
        inputs = shape.shape[1] if owner in ("embed", "position", "experts") else shape.shape[0]
        return (rng.standard_normal(shape.shape, np.float32) * inputs**-0.5).astype(shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, abstract_params(config, dtype))


def _write_tokenizer(folder: Path, record: Family) -> None:
    layout = record.layout
    marks = ("<|video_pad|>", layout.video), ("<|image_pad|>", layout.image)
    spelling = dict((*marks, ("<|vision_start|>", layout.before), ("<|vision_end|>", layout.after)))
    named = [(spelling.get(text, text), number, special) for text, number, special in _ADDED]
    words = [(text, number, special) for text, number, special in named if text is not None]
    ids = {text: number for text, number, _ in words}
    vocabulary = _byte_characters() | {f"<unused{i}>": i for i in range(256, VOCAB_SIZE)}
    vocabulary = {text: i for text, i in vocabulary.items() if i not in ids.values()} | ids
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    tokenizer = tokenizers.Tokenizer(models.BPE(ordered, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text, _, special in words if special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text, _, special in words if not special])
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(number): {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": special,
        }
        for text, number, special in words
    }
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added, **ends, **kind})
    write_json(folder / "special_tokens_map.json", ends)
    (folder / "chat_template.jinja").write_text(record.chat_template, encoding="utf-8")


def _byte_characters() -> dict[str, int]:
    """The character that a byte-level tokenizer writes for each byte: itself if printable, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (number for number in range(0x100) if number not in printable)
    shifted = {byte: 0x100 + i for i, byte in enumerate(others)}
    return {chr(shifted.get(byte, byte)): byte for byte in range(0x100)}
