"""What a training step of each Qwen2.5-VL needs on every GPU, per shape of batch: compiled for GPUs that are not there.

    python -m benchmarks.training_memory [--config configs/sft_stage1.py] [--model qwen2.5-vl-7b=8 ...] [--out FILE.json]

One sample on each device, parameters cut over all of them (FSDP), whole layers recomputed: the run of the configuration, with
other models and meshes. A model's number of devices stands behind it; by default they are nodes of eight 80 GB GPUs, as many as
its states want. Compiled by XLA for CPUs, which widens bfloat16 to float32 in places: upper bounds. Exit status 1 when a shape
needs more than 80 GB.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

import rich.console
import rich.table

if TYPE_CHECKING:
    from svlm_jax.models.config import ModelConfig
    from svlm_jax.train.config import TrainConfig

GB = 1e9
LIMIT = 80 * GB
MOST = 64  # devices
DEVICES = {"qwen2.5-vl-3b": 8, "qwen2.5-vl-7b": 8, "qwen2.5-vl-32b": 32, "qwen2.5-vl-72b": 64}


def measure(config: "TrainConfig", model: "ModelConfig", devices: int) -> list[dict[str, Any]]:
    """A row for each number of tokens that buckets have: bytes on each device, and seconds to compile."""
    import jax

    from svlm_jax import sharding
    from svlm_jax.train import memory, run
    from svlm_jax.train.optimizer import make_optimizer
    from svlm_jax.train.step import Step

    mesh = sharding.make_mesh(sharding.MeshConfig(1, devices, 1), jax.devices()[:devices])
    step = Step(model, config.compute, config.partition, make_optimizer(config.optimizer, 1000), mesh)
    buckets = tuple({bucket.tokens: bucket for bucket in sorted(config.data.pipeline.buckets)}.values())
    data = dataclasses.replace(config.data, pipeline=dataclasses.replace(config.data.pipeline, batch=devices, buckets=buckets))
    rows = []
    for bucket, shapes in zip(buckets, run.batch_shapes(data), strict=True):
        begin = time.perf_counter()
        (usage,) = memory.report(step, [shapes])
        row = {"tokens": bucket.tokens, "seconds_of_video": bucket.clips, "size": list(bucket.size)}
        parts = {"state": usage.state, "batch": usage.batch, "working": usage.working, "total": usage.total}
        rows.append({**row, **parts, "compile_seconds": round(time.perf_counter() - begin, 1)})
    return rows


def show(results: dict[str, dict[str, Any]]) -> None:
    """A table for people, in GB."""
    table = rich.table.Table("model", "devices", "tokens", "video", "state", "batch", "working", "total", title="GB a device")
    for model, result in results.items():
        for row in result["shapes"]:
            height, width = row["size"]
            sizes = [f"{row[name] / GB:.1f}" for name in ("state", "batch", "working", "total")]
            video = f"{row['seconds_of_video']} s of {width}x{height}"
            table.add_row(model, str(result["devices"]), f"{row['tokens']:,}", video, *sizes)
    rich.console.Console().print(table)


def record(path: pathlib.Path, model: str, result: dict[str, Any]) -> None:
    """Adds a model to a file of results, or replaces what that says about it."""
    from svlm_jax.host.files import write_json
    from svlm_jax.host.machine import describe

    models = json.loads(path.read_text())["bytes_on_each_device"] if path.exists() else {}
    models[model] = {"command": " ".join(["python -m benchmarks.training_memory", *sys.argv[1:]]), **result}
    write_json(path, {"machine": describe(), "bytes_on_each_device": models})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sft_stage1.py")
    parser.add_argument("--model", action="append", metavar="NAME=DEVICES", help="default: every Qwen2.5-VL")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    # Before jax looks for devices.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={MOST}".strip()
    from svlm_jax.models.presets import preset
    from svlm_jax.train.config import load_config

    config = load_config(arguments.config)
    wanted = dict(one.split("=") for one in arguments.model) if arguments.model else DEVICES
    results: dict[str, dict[str, Any]] = {}
    for model, devices in wanted.items():
        results[model] = {"devices": int(devices), "shapes": measure(config, preset(model), int(devices))}
        if arguments.out:  # after every model, because the largest take long
            record(arguments.out, model, results[model])
    show(results)
    return int(max(row["total"] for result in results.values() for row in result["shapes"]) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
