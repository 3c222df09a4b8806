"""Adapters in peft's format, against peft itself: what it writes is read, what we write it reads, outputs are equal."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from svlm_jax.checkpoint import hf, peft
from svlm_jax.errors import CheckpointError
from svlm_jax.models import functional
from svlm_jax.models.flat_params import DOWN, UP
from tests import checkpoints

# peft asks transformers by a name that it has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = np.arange(12)[None] * 7 % 250
QKV = "decoder.layers.attn.qkv.weight"


def ours(params, config) -> np.ndarray:
    positions = np.broadcast_to(np.arange(IDS.shape[1], dtype=np.float32), (1, 3, IDS.shape[1]))
    return np.asarray(functional.bind(config, params)(jnp.asarray(IDS), jnp.asarray(positions), None))


def base():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return torch, transformers.AutoModelForImageTextToText.from_pretrained(checkpoints.tiny(), dtype=torch.float32)


def theirs(torch, model) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits.numpy()


def drawn(rank=3):
    """Adapters as training holds them, of two weights."""
    checkpoint = hf.load(checkpoints.tiny(), dtype=jnp.float32)
    layer = checkpoint.params["decoder"]["layers"]["0"]
    count = checkpoint.config.text.num_layers
    flat = {}
    for seed, path in enumerate((QKV, "decoder.layers.mlp.down.weight")):
        inputs, outputs = (layer["attn"]["qkv"] if "qkv" in path else layer["mlp"]["down"])["weight"].shape
        one, two = jax.random.split(jax.random.key(seed))
        flat[path + DOWN] = np.asarray(0.2 * jax.random.normal(one, (count, inputs, rank)))
        flat[path + UP] = np.asarray(0.2 * jax.random.normal(two, (count, rank, outputs)))
    return checkpoint, flat


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]])
def test_what_peft_writes(tmp_path, targets):
    library = pytest.importorskip("peft")
    torch, model = base()
    where = rf".*language_model\.layers\.\d+\.\w+\.({'|'.join(targets)})"
    adapted = library.get_peft_model(model, library.LoraConfig(r=3, lora_alpha=12, target_modules=where))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    checkpoint = hf.load(checkpoints.tiny(), dtype=jnp.float32)
    before = ours(checkpoint.params, checkpoint.config)
    adapters, scale = peft.load(tmp_path / "adapter", checkpoint.config)
    after = ours(peft.merge(checkpoint.params, adapters, scale), checkpoint.config)
    wanted = theirs(torch, adapted)
    assert scale == 4 and np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, wanted, atol=1e-4)


def test_what_peft_reads(tmp_path):
    library = pytest.importorskip("peft")
    checkpoint, flat = drawn()
    peft.save(tmp_path / "adapter", checkpoint.config, flat, alpha=6.0, base="tiny")
    torch, model = base()
    adapted = library.PeftModel.from_pretrained(model, tmp_path / "adapter")
    wanted = ours(peft.merge(checkpoint.params, flat, 2.0), checkpoint.config)
    assert np.abs(wanted - ours(checkpoint.params, checkpoint.config)).max() > 0.1
    np.testing.assert_allclose(theirs(torch, adapted), wanted, atol=1e-4)


def test_what_was_written_is_read_back(tmp_path):
    checkpoint, flat = drawn()
    peft.save(tmp_path / "adapter", checkpoint.config, flat, alpha=6.0, base=None)
    again, scale = peft.load(tmp_path / "adapter", checkpoint.config)
    assert scale == 2 and again.keys() == flat.keys()
    for name, leaf in flat.items():
        np.testing.assert_array_equal(again[name], leaf)


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda about, tensors: about.update(use_dora=True), "use_dora is True, expected False"),
        (lambda about, tensors: about.update(r=0), "r"),
        (lambda about, tensors: about.update(lora_alpha="much"), "lora_alpha"),
        (lambda about, tensors: tensors.update({"base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight": np.ones(2)}),
         "expected adapters of the decoder's layers only"),
        (lambda about, tensors: tensors.update({"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": np.ones((1, 2))}),
         "adapts layers.9.mlp.up_proj, which this model does not have"),
        (lambda about, tensors: tensors.pop(sorted(tensors)[0]), r"expected \(r, "),
        (lambda about, tensors: tensors.update({sorted(tensors)[0]: np.full((3, 64), np.nan, np.float32)}), "not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_adapter_of_this_model(tmp_path, break_it, named):
    checkpoint, flat = drawn()
    peft.save(tmp_path / "adapter", checkpoint.config, flat, alpha=6.0, base=None)
    about = json.loads((tmp_path / "adapter" / peft.CONFIG).read_text())
    tensors = load_file(tmp_path / "adapter" / peft.WEIGHTS)
    break_it(about, tensors)
    shutil.rmtree(tmp_path / "adapter")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / peft.CONFIG).write_text(json.dumps(about))
    save_file(tensors, tmp_path / "adapter" / peft.WEIGHTS)
    with pytest.raises(CheckpointError, match=named):
        peft.load(tmp_path / "adapter", checkpoint.config)


def test_a_folder_without_an_adapter(tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        peft.load(tmp_path, hf.load(checkpoints.tiny(), dtype=jnp.float32).config)
