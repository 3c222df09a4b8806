"""Qwen3-VL as a stream: token for token what the same rules say in plain Python over `transformers`."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pytest

from svlm_jax.cache.policies import memory_policy
from svlm_jax.cache.window import WindowConfig
from svlm_jax.cli import main as cli
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional, registry
from svlm_jax.prompt.commentary import PromptBuilder
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from tests.checkpoints import tiny
from tests.models.oracle import video_patches

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZE = (64, 96)
SYSTEM, PREVIOUS, QUERY = "Speak.", "It was a quiet night, and nobody had scored.", "Go on."
SINK, TAIL, SECONDS, MOST = 9, 14, 11, 6


@functools.cache
def ours(family):
    return StreamingVLM.from_pretrained(tiny(family), dtype="float32")


@functools.cache
def theirs(family):
    torch.set_num_threads(1)
    return transformers.AutoModelForImageTextToText.from_pretrained(tiny(family), dtype=torch.float32).eval()


def clips(frames=2):
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (SECONDS, frames, 3, *SIZE), np.uint8)


def streamed(family, vision, text, frames=2, **changes):
    session = session_of(family, vision, text, frames, **changes)
    return [session.feed(Chunk(clip, float(i), i + 1.0)).tokens for i, clip in enumerate(clips(frames))]


def session_of(family, vision, text, frames=2, *, memory="stream", previous=PREVIOUS, **changes):
    vlm = ours(family)
    sampling = Sampling.from_generation_config(
        vlm.checkpoint.generation_config, temperature=0.0, repetition_penalty=1.3, max_new_tokens=MOST
    )
    window = WindowConfig(vision=vision, text=text, sink=SINK, tail=TAIL, memory=memory)
    settings = StreamSettings(
        window=window, sampling=sampling, query=QUERY, system=SYSTEM, previous_text=previous, fps=float(frames), **changes
    )
    return vlm.stream(settings)


def referred(family, vision, text, frames=2):
    from tests.engine.qwen3_reference import Reference

    vlm = ours(family)
    stream = Reference(
        theirs(family), vlm.tokenizer.encode, system=SYSTEM, previous=PREVIOUS, query=QUERY, vision=vision, text=text,
        sink=SINK, tail=TAIL, most=MOST, penalty=1.3, suppress=vlm.checkpoint.generation_config["suppress_tokens"],
    )  # fmt: skip
    return [tuple(stream.feed(i, clip)) for i, clip in enumerate(clips(frames))]


@pytest.mark.parametrize(
    ("family", "vision", "text", "frames"),
    [
        ("qwen3_vl", 3, 3, 2),
        pytest.param("qwen3_vl", 2, 4, 4, marks=pytest.mark.slow),  # vision goes first; two grids a second
        pytest.param("qwen3_vl", 4, 2, 2, marks=pytest.mark.slow),  # words go first
        pytest.param("qwen3_vl", SECONDS, SECONDS, 2, marks=pytest.mark.slow),  # nothing goes
        pytest.param("qwen3_vl_moe", 3, 3, 2, marks=pytest.mark.slow),
    ],
)
def test_a_stream_says_what_the_rules_say(family, vision, text, frames):
    said = streamed(family, vision, text, frames)
    assert said == referred(family, vision, text, frames)
    assert any(len(tokens) == MOST for tokens in said), "no reply was cut off"


def processed(text, vlm, grids, cells, fps):
    """The text of a prompt as `transformers`' processor writes it, with the stamps and pads of a video from frame 6 on."""
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor as Processor

    like = types.SimpleNamespace(
        video_processor=types.SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>", vision_end_token="<|vision_end|>", video_token="<|video_pad|>",
    )  # fmt: skip
    like._calculate_timestamps = functools.partial(Processor._calculate_timestamps, like)
    about = types.SimpleNamespace(fps=fps, frames_indices=list(range(6, 6 + 2 * grids)))
    grid = torch.tensor([[grids, *(2 * side for side in cells)]])
    video = Processor.replace_video_token(like, {"video_grid_thw": grid, "video_metadata": [about]}, 0)
    return vlm.tokenizer.encode(text.replace("<|video_pad|>", video))


@pytest.mark.parametrize("stamped", [True, False])
def test_a_turn_is_that_of_the_processor_and_the_model(monkeypatch, stamped):
    """Ids, positions and logits of a turn of four frames from 3 s on; without time stamps none of them agree."""
    vlm, model = ours("qwen3_vl"), theirs("qwen3_vl")
    if not stamped:
        record = registry.FAMILIES["qwen3_vl"]
        layout = dataclasses.replace(record.layout, time_stamp=None)
        monkeypatch.setitem(registry.FAMILIES, "qwen3_vl", dataclasses.replace(record, layout=layout))
    frames, cells = clips(4)[0], (SIZE[0] // 32, SIZE[1] // 32)
    turn = PromptBuilder(vlm.config, vlm.tokenizer.encode, max_query=8).turn(
        3.0, 5.0, vlm.config.vision.clip_grid(4, *SIZE, 2.0), "Go on."
    )
    have = {name: np.asarray(getattr(turn, name))[..., turn.valid] for name in ("token", "pos_offset", "pos_step")}
    positions = np.cumsum(have["pos_step"]) - have["pos_step"] + have["pos_offset"]
    ids = processed("<|im_start|>user\nTime=3.0-5.0s<|video_pad|>Go on.<|im_end|>\n<|im_start|>assistant\n", vlm, 2, cells, 2.0)
    assert (have["token"].tolist() == ids) is stamped

    mean = (0.5, 0.5, 0.5)
    pixels, grid = video_patches(frames, model.config.vision_config, mean, mean)
    tokens = torch.tensor([ids])
    given = {
        "mm_token_type_ids": (tokens == vlm.config.video_token_id).long() * 2,
        "pixel_values_videos": torch.tensor(pixels),
        "video_grid_thw": torch.tensor([grid]),
    }
    with torch.no_grad():
        expected = model(input_ids=tokens, **given).logits[0, -1].numpy()

    @jax.jit
    def logits(params, tokens, positions, frames):
        module = functional.bind(vlm.config, params)
        return module(tokens, positions, jax.tree.map(lambda x: x[0], module.encode_video(frames)))[0, -1]

    found = np.asarray(logits(vlm.params, have["token"][None], positions[None], frames[None]))
    assert bool(np.abs(found - expected).max() <= 1e-4) is stamped


@pytest.mark.slow
def test_pages_are_means_of_keys_behind_their_norm_and_before_rotation():
    """Of the first layer, whose keys depend on their token alone: as `transformers`' own parts compute them."""
    from tests.engine.qwen3_reference import see

    vlm, model = ours("qwen3_vl"), theirs("qwen3_vl")
    memory = memory_policy("vsb+par", budget=400, clip_frames=4, recent_frames=2, page=5)
    stream = vlm.qa_session(memory=memory, fps=1.0)
    pictures = [clip for clip in clips()[:6]]
    for i, clip in enumerate(pictures):
        stream.feed(Chunk(clip, 2.0 * i, 2.0 * i + 2))
    language, ids, cells = model.model.language_model, [], []
    for i, clip in enumerate(pictures):
        ids += [token for token in stream.dialogue.grid_tokens(2.0 * i + 0.5, 6) if token >= 0]
        cells.append(see(model, clip)[0].pooler_output)
    with torch.no_grad():
        x = language.embed_tokens(torch.tensor(ids))
        x[torch.tensor(ids) == vlm.config.video_token_id] = torch.cat(cells)
        layer = language.layers[0]
        keys = layer.self_attn.k_norm(layer.self_attn.k_proj(layer.input_layernorm(x)).view(len(ids), -1, 16)).numpy()
    long = int(stream.state.count[0]) - stream.config.shape.short
    assert int(stream.state.count[0]) == len(ids) and long > 50
    means = np.asarray(stream.state.means[0][0])[:, : long // 5]
    np.testing.assert_allclose(means, keys[: long // 5 * 5].reshape(-1, 5, 2, 16).mean(1).swapaxes(0, 1), atol=1e-5)


@pytest.mark.slow
def test_a_saved_stream_goes_on(tmp_path):
    whole = streamed("qwen3_vl", 3, 3)
    vlm, half = ours("qwen3_vl"), SECONDS // 2
    session = session_of("qwen3_vl", 3, 3)
    said = [session.feed(Chunk(clip, float(i), i + 1.0)).tokens for i, clip in enumerate(clips()[:half])]
    session.save(tmp_path / "saved")
    twin = vlm.resume(tmp_path / "saved")
    said += [twin.feed(Chunk(clip, float(i), i + 1.0)).tokens for i, clip in enumerate(clips()) if i >= half]
    assert said == whole


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["full", "hard-reset", "recompute"])
def test_baselines(memory):
    """Until anything is evicted they say what the stream says, and all of them speak on behind that."""
    plain = streamed("qwen3_vl", SECONDS, SECONDS, previous="")
    said = streamed("qwen3_vl", 4, 4, memory=memory, duration=float(SECONDS), previous="")
    assert said[:4] == plain[:4] and all(said)
    assert (said == plain) is (memory == "full")


@pytest.mark.slow
def test_the_command_watches(tmp_path):
    told = tmp_path / "told.jsonl"
    words = [
        "watch",
        "synthetic:match?seed=3&minutes=0.05",
        "--model",
        "random:tiny:qwen3_vl",
        "--max-new-tokens",
        "4",
        "--no-live",
    ]
    assert cli.main([*words, "--window", "vision=2,text=2,sink=4,tail=4", "--jsonl", str(told)]) == 0
    rows = [json.loads(line) for line in told.read_text().splitlines()]
    assert [row["start"] for row in rows] == [0.0, 1.0, 2.0] and all(row["tokens"] for row in rows)
