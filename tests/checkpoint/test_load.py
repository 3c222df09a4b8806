"""Loading: layouts, dtypes, shardings, memory, and one sentence for everything that is wrong."""

import collections
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.keys import rows
from svlm_jax.checkpoint.random import write_random_checkpoint
from svlm_jax.checkpoint.tensors import is_finite
from svlm_jax.errors import CheckpointError
from svlm_jax.models.functional import abstract_params
from tests import checkpoints

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "llava_onevision")
INDEX = '{"weight_map": {"a": "%s"}}'


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(checkpoints.tiny(), tmp_path / "model"))


def rewrite(folder, edit):
    """Replaces the tensors of a folder by `edit` of them."""
    file = folder / "model.safetensors"
    tensors = edit(dict(load_file(file)))
    file.unlink()
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file, {"format": "pt"})


def flat(params):
    return {".".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and bool(jnp.array_equal(x, y)), a, b))


@pytest.mark.parametrize("family", FAMILIES)
def test_loads_plain_arrays_of_the_declared_shapes(family):
    checkpoint = hf.load(checkpoints.tiny(family))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(checkpoint.params))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), abstract_params(checkpoint.config))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), checkpoint.params) == shapes
    assert checkpoint.generation_config["eos_token_id"] == checkpoint.tokenizer.id_of("<|im_end|>")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_has_one_name_and_rows_fill_every_parameter(family):
    table = rows(hf.load(checkpoints.tiny(family)).config)
    assert len({row.name for row in table}) == len(table)
    filled = collections.Counter()
    for row in table:
        filled[row.path] += row.size
    assert filled == {row.path: np.prod(row.shape) for row in table}


def test_values_arrive_transposed(folder):
    stored = load_file(folder / "model.safetensors")
    params = flat(hf.load(folder).params)
    np.testing.assert_array_equal(params["decoder.layers.1.attn.o.weight"], stored["model.layers.1.self_attn.o_proj.weight"].T)
    np.testing.assert_array_equal(params["decoder.embed.weight"], stored["model.embed_tokens.weight"])
    kernel = stored["visual.patch_embed.proj.weight"]
    np.testing.assert_array_equal(params["visual.patch_embed.weight"][:, 3], kernel[3].reshape(-1))


def test_parts_of_fused_weights_alternate_group_by_group(folder):
    """Two key heads of 16 numbers with two query heads each; gate and up in eight blocks."""
    stored = load_file(folder / "model.safetensors")
    params = flat(hf.load(folder).params)
    q, k, v = (stored[f"model.layers.1.self_attn.{name}_proj.weight"].T for name in "qkv")
    groups = [
        part for i in (0, 1) for part in (q[:, 32 * i : 32 * i + 32], k[:, 16 * i : 16 * i + 16], v[:, 16 * i : 16 * i + 16])
    ]
    np.testing.assert_array_equal(params["decoder.layers.1.attn.qkv.weight"], np.concatenate(groups, 1))
    gate, up = (stored[f"model.layers.1.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    blocks = [part[:, 16 * i : 16 * i + 16] for i in range(8) for part in (gate, up)]
    np.testing.assert_array_equal(params["decoder.layers.1.mlp.gate_up.weight"], np.concatenate(blocks, 1))


def test_newer_key_names(folder):
    expected = hf.load(folder).params

    def newer(tensors):
        spell = {"model.": "model.language_model.", "visual.": "model.visual."}
        return {
            next((new + k[len(old) :] for old, new in spell.items() if k.startswith(old)), k): v for k, v in tensors.items()
        }

    rewrite(folder, newer)
    assert same(hf.load(folder).params, expected)


# Of transformers 4.45, of 4.52 and later, and what transformers 5 writes.
@pytest.mark.parametrize(
    "spell",
    [
        {},
        {
            "language_model.lm_head.": "lm_head.",
            "language_model.model.": "model.language_model.",
            "vision_tower.": "model.vision_tower.",
            "multi_modal_projector.": "model.multi_modal_projector.",
            "image_newline": "model.image_newline",
        },
        {"vision_tower.vision_model.": "vision_tower."},
        {"vision_tower.vision_model.": "model.vision_tower."},
    ],
)
def test_key_names_of_llava(tmp_path, spell):
    folder = Path(shutil.copytree(checkpoints.tiny("llava_onevision"), tmp_path / "model"))
    stored = load_file(folder / "model.safetensors")
    assert "language_model.model.layers.1.self_attn.q_proj.weight" in stored
    assert "vision_tower.vision_model.encoder.layers.1.self_attn.out_proj.bias" in stored
    assert "image_newline" in stored

    def respell(name):
        return next((new + name[len(old) :] for old, new in spell.items() if name.startswith(old)), name)

    rewrite(folder, lambda tensors: {respell(name): value for name, value in tensors.items()})
    assert same(hf.load(folder).params, hf.load(checkpoints.tiny("llava_onevision")).params)


def test_several_shards(tmp_path):
    write_random_checkpoint(tmp_path / "model", max_shard_bytes=200_000)
    shards = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 5
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert same(hf.load(tmp_path / "model").params, hf.load(checkpoints.tiny()).params)


@pytest.mark.parametrize(("stored", "wanted"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", None)])
def test_dtypes(folder, stored, wanted):
    exact = hf.load(folder).params
    rewrite(
        folder,
        lambda tensors: {k: v.astype(ml_dtypes.bfloat16 if stored == "bfloat16" else stored) for k, v in tensors.items()},
    )
    loaded = hf.load(folder, dtype=wanted).params
    assert same(loaded, jax.tree.map(lambda x: x.astype(stored).astype(wanted or stored), exact))


def rule(mesh):
    """Matrices over both axes where they divide."""

    def sharding(path, shape):
        axes = [name if size % mesh.shape[name] == 0 else None for name, size in zip(("fsdp", "tensor"), shape, strict=False)]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return sharding


def mesh():
    return Mesh(np.asarray(jax.devices()).reshape(4, 2), ("fsdp", "tensor"))


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")
@pytest.mark.parametrize("family", FAMILIES)
def test_sharded_load_reads_right(family):
    whole = hf.load(checkpoints.tiny(family)).params
    parts = hf.load(checkpoints.tiny(family), sharding=rule(mesh())).params
    assert same(whole, parts)
    weight = flat(parts)["decoder.layers.0.mlp.down.weight"]
    assert weight.sharding.spec == PartitionSpec("fsdp", "tensor")
    assert weight.addressable_shards[0].data.shape == (32, 32)


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")
def test_each_device_reads_only_its_part(monkeypatch):
    largest = []
    array = np.array

    def counting(view, *args, **kwargs):
        largest.append(view.size)
        return array(view, *args, **kwargs)

    def counting_empty(shape, *args, **kwargs):
        largest.append(np.prod(shape))
        return empty(shape, *args, **kwargs)

    empty = np.empty
    monkeypatch.setattr(hf.np, "array", counting)
    monkeypatch.setattr(hf.np, "empty", counting_empty)
    hf.load(checkpoints.tiny(), sharding=rule(mesh()))
    monkeypatch.undo()
    config = hf.load(checkpoints.tiny()).config
    assert max(largest) <= max(np.prod(row.shape) for row in rows(config)) / 8


def peak_growth(action):
    """Bytes by which the resident memory of this process rises at most while `action` runs."""

    def status(field):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except OSError:
        pytest.skip("the system does not measure peaks")
    before = status("VmRSS")
    result = action()
    return status("VmHWM") - before, result


def test_host_memory_holds_no_second_copy(tmp_path):
    write_random_checkpoint(tmp_path / "model", size="medium", dtype=jnp.bfloat16, max_shard_bytes=50_000_000)
    size = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    assert size > 180e6
    hf.load(checkpoints.tiny())  # whatever is imported and compiled once
    growth, _ = peak_growth(lambda: hf.load(tmp_path / "model", dtype=jnp.bfloat16))
    assert growth < size + 50e6, f"{growth / 1e6:.0f} MB for parameters of {size / 1e6:.0f} MB"


def test_progress_ends_at_the_whole():
    seen = []
    hf.load(checkpoints.tiny(), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def drop(*names):
    return lambda tensors: {k: v for k, v in tensors.items() if k not in names}


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (drop("model.norm.weight"), r"lacks 1 tensor: model\.norm\.weight\.$"),
        (drop("lm_head.weight", "visual.merger.ln_q.weight"), "lacks 2 tensors: .*lm_head"),
        (lambda t: {**t, "model.layers.0.self_attn.o_proj.bias": np.zeros(64)}, r"unknown 1 tensor: .*o_proj\.bias"),
        (
            lambda t: {**t, "model.norm.weight": np.zeros(32)},
            r"mis-shaped 1 tensor: model\.norm\.weight \[32\] instead of \[64\]",
        ),
        (lambda t: {**t, "model.norm.weight": np.zeros(64, np.int32)}, "I32"),
        (lambda t: {**t, "model.layers.0.mlp.down_proj.qweight": np.zeros((8, 64), np.int32)}, r"qweight\. .*look quantized"),
        (lambda t: {k: v for k, v in t.items() if "layers" not in k}, r"lacks 36 tensors: .*, …"),
    ],
)
def test_wrong_tensors_are_named(folder, edit, names):
    rewrite(folder, edit)
    with pytest.raises(CheckpointError, match=names):
        hf.load(folder)


def configure(folder, **fields):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **fields}))
    return raw


def test_tied_head_may_be_repeated(folder):
    configure(folder, tie_word_embeddings=True)
    rewrite(folder, lambda tensors: {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert "head" not in hf.load(folder).params["decoder"]


def test_a_head_of_its_own_is_never_dropped(folder):
    configure(folder, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"lm_head.weight that differs from model.embed_tokens.weight"):
        hf.load(folder)


def test_ties_of_the_decoder_alone_hold_where_there_is_no_head(folder):
    """transformers before 5 wrote false outside and true inside for tied models; others mean what they say outside."""
    raw = configure(folder, tie_word_embeddings=False)
    configure(folder, text_config={**raw.get("text_config", {}), "tie_word_embeddings": True})
    assert "head" in hf.load(folder).params["decoder"]
    rewrite(folder, drop("lm_head.weight"))
    checkpoint = hf.load(folder)
    assert checkpoint.config.text.tie_word_embeddings and "head" not in checkpoint.params["decoder"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_weights_that_are_no_numbers_are_said(folder, value, dtype):
    def spoil(tensors):
        tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
        tensors["model.layers.1.self_attn.o_proj.weight"][3, 5] = value
        return tensors

    rewrite(folder, spoil)
    for read in (hf.load, hf.check_weights):
        with pytest.raises(CheckpointError, match=r"NaN or infinite numbers in 1 tensor: .*layers.1.self_attn.o_proj.weight"):
            read(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_good_weights_are_not_blamed(family):
    hf.check_weights(checkpoints.tiny(family))
    big = np.asarray([np.finfo(np.float32).max, -np.finfo(np.float32).max, 1e-45, 0.0], np.float32)
    assert is_finite(big) and is_finite(big[:3].astype(np.float64)) and not is_finite(np.append(big, np.float32(np.nan)))


def test_files_that_the_index_does_not_name_are_said(folder, caplog):
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    shutil.copy(folder / "model.safetensors", folder / "more.safetensors")
    hf.load(folder)
    assert "more.safetensors is not in model.safetensors.index.json: it is not read" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (lambda d: (d / "model.safetensors").unlink(), r"holds no \.safetensors"),
        (lambda d: (d / "config.json").unlink(), r"holds no config\.json"),
        (lambda d: os.truncate(d / "model.safetensors", 500_000), "not a readable safetensors file.*not fully covered"),
        (lambda d: os.truncate(d / "model.safetensors", 100), "not a readable safetensors file"),
        (lambda d: os.truncate(d / "model.safetensors", 0), "not a readable safetensors file"),
        (lambda d: (d / "model.safetensors").write_bytes(b"version https://git-lfs"), "not a readable safetensors file"),
        (lambda d: (d / "model.safetensors.index.json").write_text("{}"), "weight_map"),
        (lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {}}'), "the shard of each tensor"),
        (
            lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}'),
            "field 'a' is 3: expected text",
        ),
        *(
            (
                lambda d, shard=shard: (d / "model.safetensors.index.json").write_text(INDEX % shard),
                r"names of .safetensors files in this folder",
            )
            for shard in ("../model.safetensors", "/etc/a.safetensors", "a/../../b.safetensors", "a.bin", "..\\\\a.safetensors")
        ),
        (
            lambda d: (
                (d / "sub").symlink_to(d.parent),
                (d / "model.safetensors.index.json").write_text(INDEX % "sub/model.safetensors"),
            ),
            r"names of .safetensors files in this folder",
        ),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pytorch_model.bin is of another kind"),
        (
            lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x-1.safetensors"}}'),
            r"lacks 1 of its 1 shards, first x-1\.safetensors",
        ),
        (lambda d: shutil.copy(d / "model.safetensors", d / "more.safetensors"), "twice"),
    ],
)
def test_broken_folders_are_named(folder, spoil, names):
    spoil(folder)
    with pytest.raises(CheckpointError, match=names):
        hf.load(folder)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_broken_tokenizer_is_named(folder, spoil):
    spoil(folder / "tokenizer.json")
    checkpoint = hf.load(folder)
    with pytest.raises(CheckpointError, match="tokenizer"):
        _ = checkpoint.tokenizer


def test_tokenizer_lacks_a_token():
    with pytest.raises(CheckpointError, match=r"<\|audio\|>"):
        hf.load(checkpoints.tiny()).tokenizer.id_of("<|audio|>")


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing", "a/b/c", "name-alone", Path("a/b"), __file__])
def test_neither_folder_nor_hub_id(source):
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        hf.load(source)


@pytest.fixture
def hub_cache(tmp_path):
    """The local cache of the hub as it looks after a download of owner/name, branch main."""
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(checkpoints.tiny(), repository / "snapshots" / ("0" * 40))
    return tmp_path


def test_hub_id_from_the_cache(hub_cache):
    for revision in (None, "main", "0" * 40):
        checkpoint = hf.load("owner/name", cache_dir=hub_cache, revision=revision)
        assert same(checkpoint.params, hf.load(checkpoints.tiny()).params)


@pytest.mark.parametrize(("name", "revision"), [("owner/other", None), ("owner/name", "v2")])
def test_hub_id_that_is_not_in_the_cache(hub_cache, name, revision):
    with pytest.raises(CheckpointError, match=f"{name} is neither a folder nor in the local hub cache"):
        hf.load(name, cache_dir=hub_cache, revision=revision)


def test_impossible_hub_id():
    with pytest.raises(CheckpointError, match="own er/name"):
        hf.load("own er/name")
