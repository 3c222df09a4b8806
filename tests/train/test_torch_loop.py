"""Training against a plain PyTorch loop over `transformers` and `torch.optim`: the same losses and norms, step for step."""

import dataclasses

import jax
import numpy as np
import pytest

from svlm_jax import sharding
from svlm_jax.checkpoint import hf
from svlm_jax.data.chunks import Bucket, ChunkBuilder, Turn, pad_sample, stack
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.sharding import MeshConfig
from svlm_jax.train.forward import Compute
from svlm_jax.train.lora import LoraConfig
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer, schedule
from svlm_jax.train.state import Partition, init_state, place_flat
from svlm_jax.train.step import Step
from tests.checkpoints import tiny
from tests.models.oracle import video_patches

SIZES = {"qwen2_5_vl": (56, 84), "qwen3_vl": (64, 96), "qwen3_vl_moe": (64, 96)}
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, warmup=0.2, weight_decay=0.1, clip_norm=1.0)
STEPS, BALANCE = 10, 0.1
SPOKEN = (" a red card", " and a goal", "", " nil to one", " quiet now", " what a run")
ONE = MeshConfig()
EVERYTHING = Partition(freeze=())


def batches(config, encode, size):
    """One batch a step: two samples of unequal length, so that one is padded."""
    build, rng = ChunkBuilder(encode, config), np.random.default_rng(1)
    bucket = Bucket(320, 3, size)
    made = []
    for step in range(STEPS):
        samples = []
        for seconds in (2, 3):
            turns = [Turn(i, i + 1, SPOKEN[(step + i + seconds) % len(SPOKEN)]) for i in range(seconds)]
            frames = rng.integers(0, 256, (seconds, 2, 3, *size), np.uint8)
            samples.append(pad_sample(build.build("It begins.", turns, frames), bucket))
        made.append(stack(samples))
    return made


def prepared(family):
    """A tiny model, and its batches."""
    folder = tiny(family)
    loaded = hf.load(folder)
    return loaded, batches(loaded.config, Tokenizer(folder / "tokenizer.json").encode, SIZES[family])


def ours(config, params, data, mesh=ONE, devices=1, partition=EVERYTHING):
    on = sharding.make_mesh(mesh, jax.devices()[:devices])
    optimizer = make_optimizer(OPTIMIZER, STEPS)
    step = Step(config, Compute(dtype="float32"), partition, optimizer, on)
    flat = place_flat(jax.tree.map(np.asarray, params), on)
    state, frozen = init_state(flat, partition, optimizer, on, frozen_dtype="float32")
    step.compile(data[0])
    found = []
    for batch in data:
        sums = step.accumulate(state, frozen, step.zeros(), sharding.place_batch(batch, on))
        state, metrics = step.apply(state, sums)
        found.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    return found


def theirs(folder, config, data):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    if config.text.experts is not None:
        model.config.text_config.output_router_logits = True
        model.config.text_config.router_aux_loss_coef = BALANCE
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    rate = schedule(OPTIMIZER, STEPS)
    groups = [{"params": matrices, "weight_decay": OPTIMIZER.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(OPTIMIZER.beta1, OPTIMIZER.beta2), eps=OPTIMIZER.eps)
    found = []
    for number, batch in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = float(rate(number))
        ids, labels, valid = (torch.tensor(np.asarray(x, np.int64)) for x in (batch.tokens, batch.labels, batch.valid))
        made = [
            video_patches(clip, config.vision, config.vision.image_mean, config.vision.image_std)
            for clip in batch.frames[batch.clip_valid]
        ]
        given = {}
        if config.vision.tokens_per_second is not None:
            given["second_per_grid_ts"] = torch.ones(len(made))
        loss = model(
            input_ids=ids,
            attention_mask=valid,
            labels=labels,
            mm_token_type_ids=(ids == config.video_token_id).long() * 2,
            pixel_values_videos=torch.tensor(np.concatenate([pixels for pixels, _ in made])),
            video_grid_thw=torch.tensor([grid for _, grid in made]),
            use_cache=False,
            **given,
        ).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        found.append((float(loss.detach()), float(norm)))
        optimizer.step()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_losses_are_those_of_a_torch_loop(family):
    pytest.importorskip("torch")
    loaded, data = prepared(family)
    config = loaded.config
    if config.text.experts is not None:
        experts = dataclasses.replace(config.text.experts, balance=BALANCE)
        config = dataclasses.replace(config, text=dataclasses.replace(config.text, experts=experts))
    have, want = ours(config, loaded.params, data), theirs(tiny(family), config, data)
    assert want[-1][0] < want[0][0] - 0.5, "nothing was learned"
    np.testing.assert_allclose([loss for loss, _ in have], [loss for loss, _ in want], atol=1e-5)
    np.testing.assert_allclose([norm for _, norm in have], [norm for _, norm in want], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe"])
def test_several_devices_take_the_steps_of_one(family):
    """Heads and experts spread over two devices, samples over two."""
    loaded, data = prepared(family)
    alone = ours(loaded.config, loaded.params, data[:3])
    np.testing.assert_allclose(ours(loaded.config, loaded.params, data[:3], MeshConfig(1, 2, 2), 4), alone, rtol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe"])
def test_adapters_begin_as_the_model_and_learn(family):
    loaded, data = prepared(family)
    whole = ours(loaded.config, loaded.params, data[:1])
    found = ours(loaded.config, loaded.params, data[:1] * 4, partition=Partition(lora=LoraConfig(rank=2)))
    assert found[0][0] == pytest.approx(whole[0][0], rel=1e-5)
    assert found[-1][0] < found[0][0] - 1e-3
