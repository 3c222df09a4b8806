"""The table of shardings against the released models, and what does not fit."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from svlm_jax import sharding
from svlm_jax.errors import ConfigError
from svlm_jax.models import flat_params
from svlm_jax.models.presets import PRESETS, preset
from svlm_jax.sharding import MeshConfig, P, table
from svlm_jax.train import state
from svlm_jax.train.lora import LoraConfig
from tests.train import tiny


def _shapes(name: str) -> flat_params.Flat:
    """Those of a released model; two layers and two blocks stand for all, because tracing 80 takes long."""
    cfg = preset(name)
    text = dataclasses.replace(cfg.text, num_layers=2)
    blocks = {"depth": 2, "fullatt_block_indexes": (1,) if cfg.vision.window_size else ()}
    if "qwen3" in name:
        blocks["deepstack_visual_indexes"] = (0, 1)
    vision = dataclasses.replace(cfg.vision, **blocks)
    return state.abstract_flat(dataclasses.replace(cfg, text=text, vision=vision))


TRAINED = [name for name in PRESETS if name.startswith("qwen")]


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_matches_exactly_one_row(name: str) -> None:
    flat = _shapes(name)
    for path in flat:
        assert sum(bool(re.fullmatch(pattern, path)) for pattern, _ in table()) == 1, path
        assert len(sharding.spec(path)) == len(flat[path].shape), path
    cut = sum(np.prod(leaf.shape) for path, leaf in flat.items() if "fsdp" in sharding.spec(path))
    assert cut > 0.99 * sum(np.prod(leaf.shape) for leaf in flat.values())


def test_every_row_is_needed() -> None:
    paths = {path for name in ("qwen2.5-vl-7b", "qwen2-vl-7b", "qwen3-vl-30b-a3b") for path in _shapes(name)}
    assert [pattern for pattern, _ in table() if not any(re.fullmatch(pattern, path) for path in paths)] == []


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen2.5-vl-32b", "qwen2.5-vl-72b"])
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)])
def test_released_models_divide(name: str, sizes: tuple[int, int, int]) -> None:
    mesh = sharding.make_mesh(MeshConfig(*sizes))
    sharding.check_model(preset(name), mesh)
    where = sharding.shardings(_shapes(name), mesh)
    assert where["decoder.layers.mlp.down.weight"].spec == P(None, "tensor", "fsdp")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("qwen2.5-vl-3b", (16, 8, 1)),
        ("qwen2.5-vl-7b", (4, 8, 1)),
        ("qwen2.5-vl-7b", (1, 64, 4)),
        ("qwen2.5-vl-32b", (1, 32, 1)),
        ("qwen2.5-vl-32b", (2, 16, 8)),
        ("qwen2.5-vl-72b", (1, 64, 1)),
        ("qwen2.5-vl-72b", (2, 16, 8)),
    ],
)
def test_released_models_divide_on_meshes_of_many_machines(name: str, sizes: tuple[int, int, int]) -> None:
    """Without the devices, and without compiling: what a row of the table cuts, divides; all but norms is cut over fsdp."""
    mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Explicit,) * 3)
    sharding.check_model(preset(name), mesh)
    shapes = _shapes(name)
    where = sharding.shardings(shapes, mesh)
    assert where.keys() == shapes.keys()
    held = sum(np.prod(where[path].shard_shape(leaf.shape)) for path, leaf in shapes.items())
    assert held <= 1.02 * sum(np.prod(leaf.shape) for leaf in shapes.values()) / sizes[1]


def test_what_is_used_is_gathered_over_fsdp_and_stays_cut_over_tensor() -> None:
    assert sharding.gathered(sharding.spec("decoder.layers.mlp.down.weight")) == P(None, "tensor", None)
    assert sharding.gathered(sharding.spec("decoder.embed.weight")) == P("tensor", None)


def test_other_families_are_named() -> None:
    with pytest.raises(ConfigError, match=r"llava_onevision, which cannot train"):
        sharding.check_model(preset("llava-onevision-qwen2-7b-ov"), sharding.make_mesh(MeshConfig(1, 8, 1)))


def test_adapters_lie_like_their_weight() -> None:
    path = "decoder.layers.attn.o.weight"
    assert sharding.spec(path + flat_params.DOWN) == P(None, "tensor", None)
    assert sharding.spec(path + flat_params.UP) == P(None, None, "fsdp")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(data=3, fsdp=1), r"the mesh \(data=3, fsdp=1, tensor=1\) needs 3 devices, but there are 8 devices."),
        (dict(fsdp=-1, tensor=3), r"needs a multiple of 3 devices, but there are 8"),
        (dict(data=-1, fsdp=-1), r"more than one axis of -1"),
        (dict(data=0), r"mesh.data is 0"),
    ],
)
def test_mesh_that_does_not_fit(config: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(MeshConfig(**config))


def test_models_that_are_only_watched_with_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the model is a llava_onevision, which cannot train: expected one of"):
        sharding.check_model(preset("llava-onevision-qwen2-7b-ov"), sharding.make_mesh(MeshConfig()))


def test_what_does_not_divide_is_an_error() -> None:
    mesh = sharding.make_mesh(MeshConfig(tensor=8, fsdp=1))
    with pytest.raises(ConfigError, match="tensor has 8 devices, expected a divisor of num_heads 2 of the model"):
        sharding.check_model(tiny.config(), mesh)
    with pytest.raises(ConfigError, match=r"attn.qkv.weight has a heads dimension of 12.*8 devices of the mesh axis tensor"):
        sharding.sharding("decoder.layers.attn.qkv.weight", (2, 8, 12), mesh)
    with pytest.raises(ConfigError, match="a batch of 6 samples does not divide by the 8 devices"):
        sharding.place_batch(np.zeros((6, 2)), sharding.make_mesh(MeshConfig()))
    with pytest.raises(ConfigError, match=r"the parameter decoder.wing matches 0 rows"):
        sharding.spec("decoder.wing")


@pytest.mark.parametrize(
    ("processes", "wanted"),
    [
        # of the devices of a mesh (data, fsdp, tensor) = (2, 2, 2), in its order
        ([0, 0, 0, 0, 1, 1, 1, 1], [(0, 2), (1, 2)]),
        ([0, 1, 2, 3, 4, 5, 6, 7], [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)]),
    ],
)
def test_processes_that_share_heads_read_the_same_samples(
    processes: list[int], wanted: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = np.array([SimpleNamespace(process_index=process) for process in processes]).reshape(2, 2, 2)
    mesh = SimpleNamespace(devices=devices, shape={"data": 2, "fsdp": 2, "tensor": 2})
    for process, place in enumerate(wanted):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert sharding.readers(mesh) == place


def test_processes_that_share_some_samples_only_are_refused() -> None:
    devices = np.array([SimpleNamespace(process_index=process) for process in (0, 0, 0, 1)]).reshape(1, 2, 2)
    mesh = SimpleNamespace(devices=devices, shape={"data": 1, "fsdp": 2, "tensor": 2})
    with pytest.raises(ConfigError, match="share some samples but not all"):
        sharding.readers(mesh)


def test_stacked_and_flat_and_back() -> None:
    params = tiny.params(tiny.config())
    back = flat_params.to_model(flat_params.from_model(params))
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, back, params)))


def test_partition_needs_something_to_train() -> None:
    flat = state.abstract_flat(tiny.config())
    with pytest.raises(ConfigError, match="matches every parameter"):
        state.Partition((r".*",)).split(flat)
    with pytest.raises(ConfigError, match="names no weight"):
        state.abstract_weights(
            tiny.config(), state.Partition(lora=LoraConfig(4, targets="wing")), sharding.make_mesh(MeshConfig()), jnp.bfloat16
        )
