"""How a checkpoint says with which window, query, sampling and picture size it was trained, and who is asked first."""

import json
import shutil

import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.random import random_config
from svlm_jax.checkpoint.streaming_block import resize_rule, stop_ids, streaming_block, suppressed_ids
from svlm_jax.cli import main as cli
from svlm_jax.cli.stream_spec import settings_of
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.prompt.commentary import QUERY
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.tokenizer import STREAMING
from tests import checkpoints

BLOCK = {"svlm": STREAMING}


def test_a_checkpoint_sets_the_defaults_of_its_streams():
    settings = StreamSettings.from_generation_config(BLOCK)
    assert settings.window == WindowConfig(vision=16, text=64, sink=8, tail=96) and settings.query is None
    sampling = Sampling.from_generation_config(BLOCK, top_k=7)
    assert (sampling.temperature, sampling.repetition_penalty, sampling.max_new_tokens, sampling.top_k) == (0, 1, 20, 7)
    model = random_config("qwen2_5_vl")
    bounds = [(rule.min_pixels, rule.max_pixels) for rule in (resize_rule(model, BLOCK), resize_rule(model, BLOCK, 200_000))]
    assert bounds == [(9408, 9408), (78_400, 200_000)]
    assert StreamSettings.from_generation_config({}) == StreamSettings() and StreamSettings().query == QUERY
    assert Sampling.from_generation_config({}) == Sampling() and resize_rule(model, {}) == PUBLISHED


def test_fewer_pixels_than_a_token_has():
    model = random_config("qwen2_5_vl")
    with pytest.raises(CheckpointError, match=r"'max_pixels' is 9, expected at least 784"):
        resize_rule(model, {"svlm": {"max_pixels": 9}})
    with pytest.raises(ConfigError, match="max_pixels=9"):
        resize_rule(model, BLOCK, 9)


def test_flags_come_before_the_checkpoint():
    def settings(*flags):
        return settings_of(cli.parser().parse_args(["watch", "x.mp4", "--model", "m", *flags]), BLOCK)

    assert settings().window == WindowConfig(vision=16, text=64, sink=8, tail=96) and settings().query is None
    asked = settings("--window", "tail=7", "--query", "Why?", "--temperature", "0.5", "--positions", "native")
    assert asked.window == WindowConfig(vision=16, text=64, sink=8, tail=7, positions="native")
    assert (asked.query, asked.sampling.temperature, asked.sampling.max_new_tokens) == ("Why?", 0.5, 20)


def test_a_loaded_model_streams_as_it_was_trained(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoints.tiny(), folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, **BLOCK}))
    vlm = StreamingVLM.from_pretrained(folder)
    session = vlm.stream(seed=3)
    assert session.settings.window.tail == 96 and session.sampling.max_new_tokens == 20
    captions = session.watch("synthetic:match?seed=1&minutes=0.05")
    assert next(captions).usage["vision"] == (12, 16 * 12)  # 84 x 112 pixels
    captions.close()


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (7, ["7", "an object"]),
        ({"windows": {}}, ["'windows'", "window, sampling"]),
        ({"window": {"past": 3}}, ["window", "'past'", "vision, text"]),
        ({"window": {"tail": float("nan")}}, ["window", "'tail'", "nan", "a whole number"]),
        ({"window": {"vision": []}}, ["'vision'", "[]", "a finite number"]),
        ({"sampling": [1]}, ["'sampling'", "[1]"]),
        ({"sampling": {"temperature": ["a"]}}, ["sampling", "'temperature'", "['a']"]),
        ({"query": 3}, ["'query'", "text, or null"]),
        ({"max_pixels": 0}, ["'max_pixels'", "0"]),
    ],
)
def test_a_block_that_is_not_understood_is_named(block, words):
    with pytest.raises(CheckpointError) as caught:
        streaming_block({"svlm": block})
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_installation_without_the_embedded_model_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hf, "EMBEDDED_FOLDER", tmp_path / "nowhere")
    assert cli.main(["watch", "synthetic:match", "--model", "embedded", "--no-live"]) == 2
    assert "lacks the embedded model" in capsys.readouterr().err
    monkeypatch.setattr(hf, "EMBEDDED_FOLDER", checkpoints.tiny())
    assert hf.resolve("embedded") == checkpoints.tiny()


def test_null_is_absent_but_where_it_means_something():
    block = {"svlm": {"sampling": {"max_new_tokens": None, "top_k": 3}, "window": {"sink": None, "tail": None}, "query": None}}
    assert Sampling.from_generation_config(block) == Sampling(top_k=3)
    settings = StreamSettings.from_generation_config(block)
    assert settings.window == WindowConfig(sink=None, tail=None) and settings.query is None
    assert streaming_block({"svlm": None}) == {}


@pytest.mark.parametrize(
    ("field", "value", "ids"), [("eos_token_id", None, ()), ("eos_token_id", 7, (7,)), ("eos_token_id", [7, 8], (7, 8))]
)
def test_stop_ids(field, value, ids):
    assert stop_ids({field: value}) == ids and stop_ids({}) == ()


@pytest.mark.parametrize("value", ["../../../etc/passwd", 2**63, [300, [1]], [1e308], [True], float("nan")])
@pytest.mark.parametrize(("field", "read"), [("suppress_tokens", suppressed_ids), ("eos_token_id", stop_ids)])
def test_ids_that_are_none_are_named(field, read, value):
    with pytest.raises(CheckpointError, match=f"generation_config.json, field '{field}"):
        read({field: value})
