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

# Before jax looks for devices.
MOST = 64
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={MOST}".strip()

import jax  # noqa: E402
import rich.console  # noqa: E402
import rich.table  # noqa: E402

from svlm_jax.machine import describe  # noqa: E402
from svlm_jax.models.presets import preset  # noqa: E402
from svlm_jax.train import memory, run, sharding  # noqa: E402
from svlm_jax.train.config import TrainConfig, load_config  # noqa: E402
from svlm_jax.train.optimizer import make_optimizer  # noqa: E402
from svlm_jax.train.sharding import MeshConfig  # noqa: E402
from svlm_jax.train.step import Step  # noqa: E402

GB = 1e9
LIMIT = 80 * GB
DEVICES = {"qwen2.5-vl-3b": 8, "qwen2.5-vl-7b": 8, "qwen2.5-vl-32b": 32, "qwen2.5-vl-72b": 64}


def measure(config: TrainConfig, model: str, devices: int) -> list[dict[str, object]]:
    """A row for each bucket: bytes on each device, and seconds to compile."""
    mesh = sharding.make_mesh(MeshConfig(1, devices, 1), jax.devices()[:devices])
    step = Step(preset(model), config.compute, config.partition, make_optimizer(config.optimizer, 1000), mesh)
    data = dataclasses.replace(config.data, pipeline=dataclasses.replace(config.data.pipeline, batch=devices))
    rows: list[dict[str, object]] = []
    for bucket, shapes in zip(data.pipeline.buckets, run.batch_shapes(data), strict=True):
        begin = time.perf_counter()
        (usage,) = memory.report(step, [shapes])
        row = {"tokens": bucket.tokens, "seconds_of_video": bucket.clips, "size": list(bucket.size)}
        parts = {"state": usage.state, "batch": usage.batch, "working": usage.working, "total": usage.total}
        rows.append({**row, **parts, "compile_seconds": round(time.perf_counter() - begin, 1)})
    return rows


def show(results: dict[str, dict[str, object]]) -> None:
    """A table for people, in GB."""
    table = rich.table.Table("model", "devices", "tokens", "video", "state", "batch", "working", "total", title="GB a device")
    for model, result in results.items():
        for row in result["shapes"]:  # type: ignore[attr-defined]
            height, width = row["size"]
            sizes = [f"{row[name] / GB:.1f}" for name in ("state", "batch", "working", "total")]
            video = f"{row['seconds_of_video']} s of {width}x{height}"
            table.add_row(model, str(result["devices"]), f"{row['tokens']:,}", video, *sizes)
    rich.console.Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sft_stage1.py")
    parser.add_argument("--model", action="append", metavar="NAME=DEVICES", help="default: every Qwen2.5-VL")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    wanted = dict(one.split("=") for one in arguments.model) if arguments.model else DEVICES
    results: dict[str, dict[str, object]] = {}
    for model, devices in wanted.items():
        results[model] = {"devices": int(devices), "shapes": measure(config, model, int(devices))}
        if arguments.out:  # after every model, because the largest take long
            command = " ".join(["python -m benchmarks.training_memory", *sys.argv[1:]])
            report = {"command": command, "machine": describe(), "bytes_on_each_device": results}
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    show(results)
    totals = [row["total"] for result in results.values() for row in result["shapes"]]  # type: ignore[attr-defined]
    return int(max(totals) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
