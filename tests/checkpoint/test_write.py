"""Writing: folders that `transformers` loads with equal logits, Orbax, conversion, random checkpoints."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from svlm_jax.checkpoint import hf, orbax_io
from svlm_jax.checkpoint.convert import convert
from svlm_jax.checkpoint.export import export
from svlm_jax.checkpoint.random import write_random_checkpoint
from svlm_jax.errors import CheckpointError, ConfigError, OutputError
from svlm_jax.prompt.tokenizer import Tokenizer
from tests import checkpoints
from tests.checkpoint.test_load import FAMILIES, same
from tests.models import llava_oracle, oracle


def noisy(params, seed=1):
    """Norms and biases away from 1 and 0, so that a lost or swapped one shows."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [x + jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype) for x in leaves])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_an_export_with_equal_logits(tmp_path, family, tied):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    checkpoint = hf.load(checkpoints.tiny(family))
    config, params = checkpoint.config, noisy(checkpoint.params)
    if tied:
        config = dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=True))
        params["decoder"] = {name: part for name, part in params["decoder"].items() if name != "head"}
    folder = tmp_path / "export"
    export(folder, config, params, tokenizer_from=checkpoint.folder, max_shard_bytes=300_000)
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype="float32", output_loading_info=True)
    assert not any(report.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    case = oracle.Case(oracle.sequence(4, ("video", (2, 6, 10)), 5), video_grids=((2, 6, 10),), second_per_grid=(0.5,))
    expected = oracle.expected_logits(model.eval(), config, case)
    assert np.abs(oracle.our_logits(config, params, case) - expected).max() <= 1e-4
    again = hf.load(folder)
    assert again.config == config
    assert same(again.params, params)
    assert again.tokenizer.encode("Time 1s") == checkpoint.tokenizer.encode("Time 1s")


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_an_exported_llava_with_equal_logits(tmp_path, tied):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    checkpoint = hf.load(checkpoints.tiny("llava_onevision"))
    config, params = checkpoint.config, noisy(checkpoint.params)
    if tied:
        config = dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=True))
        params["decoder"] = {name: part for name, part in params["decoder"].items() if name != "head"}
    export(tmp_path / "export", config, params, tokenizer_from=checkpoint.folder)
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "export", dtype="float32", output_loading_info=True
    )
    assert not any(report.get(kind) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    case = (3, (40, 75), 6, (2, 30, 30), 5)
    expected = llava_oracle.expected_logits(model.eval(), config, case)
    assert np.abs(llava_oracle.our_logits(config, params, case) - expected).max() <= 1e-4
    again = hf.load(tmp_path / "export")
    assert again.config == config
    assert same(again.params, params)


def test_llavas_tokenizer_and_template():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoints.tiny("llava_onevision"))
    content = [{"type": "text", "text": "hi"}, {"type": "video"}, {"type": "image"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "ho"}]
    shown = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user <image><video>\nhi<|im_end|><|im_start|>assistant \nho<|im_end|><|im_start|>assistant\n"
    ours = hf.load(checkpoints.tiny("llava_onevision"))
    assert ours.tokenizer.encode(shown) == theirs(shown)["input_ids"]
    assert ours.tokenizer.encode("<image><video>") == [ours.config.image_token_id, ours.config.video_token_id]
    assert len(ours.tokenizer.encode("<|vision_start|>")) > 1, "LLaVA has no such mark"


def test_transformers_reads_the_tokenizer_alike():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoints.tiny())
    text = "<|im_start|>user\nTime 12s<|vision_start|><|video_pad|><|vision_end|> previous text: naïve – 漢字 ...<|im_end|>\n"
    ours = Tokenizer(checkpoints.tiny() / "tokenizer.json")
    assert ours.encode(text) == theirs(text)["input_ids"]
    assert ours.decode(ours.encode(text)) == text
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "hi"}]}]
    shown = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>hi<|im_end|>\n<|im_start|>assistant\n"


def test_every_byte_has_a_token():
    tokenizer = Tokenizer(checkpoints.tiny() / "tokenizer.json")
    text = "".join(chr(i) for i in range(0x80)) + "ÿ漢🎬"
    ids = tokenizer.encode(text)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) == 320


def test_random_checkpoints_differ_by_seed_alone(tmp_path):
    write_random_checkpoint(tmp_path / "again")
    write_random_checkpoint(tmp_path / "other", seed=1)
    first = hf.load(checkpoints.tiny()).params
    assert same(first, hf.load(tmp_path / "again").params)
    assert not same(first, hf.load(tmp_path / "other").params)


def test_export_refuses(tmp_path):
    checkpoint = hf.load(checkpoints.tiny())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OutputError, match="already exists"):
        export(tmp_path / "full", checkpoint.config, checkpoint.params)
    with pytest.raises(CheckpointError, match=r"lack decoder\.embed\.weight"):
        export(tmp_path / "a", checkpoint.config, {**checkpoint.params, "decoder": {}})
    bad = {**checkpoint.params, "visual": {**checkpoint.params["visual"], "patch_embed": {"weight": jnp.zeros((2, 2))}}}
    with pytest.raises(CheckpointError, match=r"visual\.patch_embed\.weight has shape \(2, 2\)"):
        export(tmp_path / "a", checkpoint.config, bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"], "failures leave nothing behind"


@pytest.mark.parametrize("family", FAMILIES)
def test_conversion_there_and_back(tmp_path, family):
    source = checkpoints.tiny(family)
    convert(source, tmp_path / "orbax")
    convert(tmp_path / "orbax", tmp_path / "hub", to="hf")
    expected = hf.load(source)
    for folder in ("orbax", "hub"):
        found = hf.load(tmp_path / folder, dtype=None)
        assert found.config == expected.config
        assert same(found.params, expected.params)
        assert found.generation_config == expected.generation_config
        assert found.tokenizer.encode("user") == expected.tokenizer.encode("user")
    assert not list((tmp_path / "orbax").glob("*.safetensors"))


def test_conversion_of_dtype(tmp_path):
    convert(checkpoints.tiny(), tmp_path / "orbax", dtype="bfloat16")
    rounded = hf.load(checkpoints.tiny(), dtype="bfloat16").params
    assert same(hf.load(tmp_path / "orbax", dtype=None).params, rounded)
    assert same(hf.load(tmp_path / "orbax", dtype="float32").params, jax.tree.map(lambda x: x.astype("float32"), rounded))
    convert(tmp_path / "orbax", tmp_path / "hub", to="hf")
    assert same(hf.load(tmp_path / "hub", dtype=None).params, rounded)


def test_conversion_refuses(tmp_path):
    with pytest.raises(ConfigError, match="'gguf'"):
        convert(checkpoints.tiny(), tmp_path / "new", to="gguf")
    with pytest.raises(OutputError, match="already exists"):
        convert(checkpoints.tiny(), checkpoints.tiny())
    broken = shutil.copytree(checkpoints.tiny(), tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        convert(broken, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"], "failures leave nothing behind"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    clock: jax.Array
    keys: tuple[jax.Array, ...]
    seen: dict[str, jax.Array]


def state(fill=0, length=3):
    return State(
        clock=jnp.asarray([fill + 7], jnp.int32),
        keys=tuple(jnp.full((2, 8), fill + i, jnp.bfloat16) for i in range(length)),
        seen={"ids": jnp.arange(5) + fill, "flag": jnp.asarray([True, False])},
    )


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def test_orbax_keeps_any_pytree(tmp_path):
    orbax_io.save(tmp_path / "state", state(5, length=12))
    assert same(orbax_io.load(tmp_path / "state", abstract(state(length=12))), state(5, length=12))


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")
def test_orbax_loads_into_another_sharding(tmp_path):
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec(None, "data"))
    orbax_io.save(tmp_path / "state", {"x": jnp.arange(32.0).reshape(2, 16)})
    wanted = {"x": jax.ShapeDtypeStruct((2, 16), jnp.float32, sharding=split)}
    loaded = orbax_io.load(tmp_path / "state", wanted)["x"]
    assert loaded.sharding == split
    np.testing.assert_array_equal(loaded, np.arange(32.0).reshape(2, 16))


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (state(length=4), r"lacks 1 arrays: keys\.3"),
        (state(length=2), r"unknown 1 arrays: keys\.2"),
        (dataclasses.replace(state(), clock=jnp.zeros(1)), r"clock int32\[1\] instead of float32\[1\]"),
        (dataclasses.replace(state(), seen={"ids": jnp.arange(6), "flag": jnp.ones(2, bool)}), r"seen\.ids int32\[5\]"),
    ],
)
def test_orbax_names_what_differs(tmp_path, wanted, names):
    orbax_io.save(tmp_path / "state", state())
    with pytest.raises(CheckpointError, match=names):
        orbax_io.load(tmp_path / "state", abstract(wanted))


def test_orbax_refuses(tmp_path):
    with pytest.raises(CheckpointError, match="is no folder"):
        orbax_io.load(tmp_path / "nothing", abstract(state()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not written by Orbax"):
        orbax_io.load(tmp_path / "empty", abstract(state()))
    with pytest.raises(CheckpointError, match="already exists"):
        orbax_io.save(tmp_path / "empty", state())
