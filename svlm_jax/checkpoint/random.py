"""Complete checkpoints with random weights, for tests, demonstrations and measurements: they speak, but say nothing."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jax.typing import DTypeLike
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from svlm_jax.checkpoint.export import write_json, write_weights
from svlm_jax.checkpoint.folders import new_folder
from svlm_jax.errors import ConfigError
from svlm_jax.models.config import Family, ModelConfig, SiglipConfig, TextConfig, VisionConfig
from svlm_jax.models.functional import Params, abstract_params
from svlm_jax.models.llava_onevision.config import default_pinpoints

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
# How LLaVA spells the pads; it has no marks around its visuals.
_LLAVA_SPELLING = {"<|video_pad|>": "<video>", "<|image_pad|>": "<image>", "<|vision_start|>": None, "<|vision_end|>": None}
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Pictures first, then videos, then words, as in the published template.
_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}"
    "{% else %}{% for kind in ['image', 'video'] %}"
    "{% for part in message['content'] if part['type'] == kind %}{{ '<' + kind + '>' }}{% endfor %}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """Widths of decoder and vision tower. Heads are 16 (tiny) or 64 wide."""

    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    sections: tuple[int, int, int]
    vision_width: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int


# About 0.4, 11 and 90 million parameters.
_SIZES: dict[str, _Geometry] = {
    "tiny": _Geometry(64, 128, 3, 4, 2, (2, 3, 3), 64, 96, 3, 4),
    "small": _Geometry(256, 768, 8, 4, 2, (8, 12, 12), 192, 512, 6, 6),
    "medium": _Geometry(640, 2560, 12, 10, 2, (8, 12, 12), 320, 1280, 12, 5),
}


def random_config(family: Family, size: Size = "tiny", *, vocab_size: int = VOCAB_SIZE) -> ModelConfig:
    """The configuration of a random checkpoint.

    Qwen's windows are 4 x 4 patches (tiny) or 8 x 8; LLaVA's tiles are 7 x 7 patches of 4 pixels (tiny) or of 14, with two
    pixels left over, and 16 tokens a frame.
    """
    if size not in _SIZES:
        raise ConfigError(f"the size of a random checkpoint is {size!r}, expected one of {', '.join(_SIZES)}.")
    if vocab_size < VOCAB_SIZE:
        raise ConfigError(f"the vocabulary size is {vocab_size}, but the tokenizer needs at least {VOCAB_SIZE}.")
    g = _SIZES[size]
    text = TextConfig(
        vocab_size=vocab_size,
        hidden_size=g.width,
        intermediate_size=g.hidden,
        num_layers=g.layers,
        num_heads=g.heads,
        num_kv_heads=g.kv_heads,
        head_dim=g.width // g.heads,
        mrope_section=g.sections if family != "llava_onevision" else (g.width // g.heads // 2, 0, 0),
    )
    if family == "llava_onevision":
        return ModelConfig(
            family=family,
            text=text,
            vision=_siglip(g, size),
            image_token_id=_IDS["<|image_pad|>"],
            video_token_id=_IDS["<|video_pad|>"],
            vision_start_token_id=None,
            vision_end_token_id=None,
        )
    tower: dict[str, Any] = {"hidden_act": "quick_gelu"}
    if family == "qwen2_5_vl":
        full = tuple(range(1, g.vision_layers, max(g.vision_layers // 3, 1)))
        window = 56 if size == "tiny" else 112
        tower = {"window_size": window, "fullatt_block_indexes": full, "tokens_per_second": 2.0}
    vision = VisionConfig(
        depth=g.vision_layers,
        hidden_size=g.vision_width,
        # Qwen2-VL states it as a multiple of the width.
        intermediate_size=g.vision_hidden if family == "qwen2_5_vl" else 2 * g.vision_width,
        num_heads=g.vision_heads,
        out_hidden_size=g.width,
        **tower,
    )
    return ModelConfig(
        family=family,
        text=text,
        vision=vision,
        image_token_id=_IDS["<|image_pad|>"],
        video_token_id=_IDS["<|video_pad|>"],
        vision_start_token_id=_IDS["<|vision_start|>"],
        vision_end_token_id=_IDS["<|vision_end|>"],
    )


def _siglip(g: _Geometry, size: Size) -> SiglipConfig:
    patch = 4 if size == "tiny" else 14
    side = 7 * patch + 2
    return SiglipConfig(
        depth=g.vision_layers,
        hidden_size=g.vision_width,
        intermediate_size=g.vision_hidden,
        num_heads=g.vision_heads,
        out_hidden_size=g.width,
        patch_size=patch,
        image_size=side,
        feature_layers=(g.vision_layers,),
        grid_pinpoints=default_pinpoints(side, 3),
        max_tiles=4,
    )


def write_random_checkpoint(
    folder: str | Path,
    *,
    family: Family = "qwen2_5_vl",
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
        _write_tokenizer(fresh, family)
        end = _IDS["<|im_end|>"]
        speakable = {*range(0x20, 0x7F), end}
        quiet = [number for number in range(vocab_size) if number not in speakable]
        ids = {"bos_token_id": _IDS["<|im_start|>"], "eos_token_id": end, "pad_token_id": end}
        write_json(fresh / "generation_config.json", {**ids, "suppress_tokens": quiet})
        write_weights(fresh, config, params, max_shard_bytes=max_shard_bytes)


def _noise(config: ModelConfig, seed: int, dtype: DTypeLike) -> Params:
    """What `init_params` draws, in distribution, but by numpy: compiling a sampler a shape takes seconds."""
    rng = np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        *_, owner, name = (key.key for key in path)
        if name == "newline":
            return (rng.standard_normal(shape.shape, np.float32) * shape.shape[0] ** -0.5).astype(shape.dtype)
        if len(shape.shape) == 1:
            return np.full(shape.shape, 0 if name == "bias" else 1, shape.dtype)
        inputs = shape.shape[1] if owner in ("embed", "position") else shape.shape[0]
        return (rng.standard_normal(shape.shape, np.float32) * inputs**-0.5).astype(shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, abstract_params(config, dtype))


def _write_tokenizer(folder: Path, family: Family) -> None:
    spelling = _LLAVA_SPELLING if family == "llava_onevision" else {}
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
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": added, **marks, **kind})
    write_json(folder / "special_tokens_map.json", marks)
    template = _LLAVA_TEMPLATE if family == "llava_onevision" else _CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _byte_characters() -> dict[str, int]:
    """The character that a byte-level tokenizer writes for each byte: itself if printable, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (number for number in range(0x100) if number not in printable)
    shifted = {byte: 0x100 + i for i, byte in enumerate(others)}
    return {chr(shifted.get(byte, byte)): byte for byte in range(0x100)}
