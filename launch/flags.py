"""XLA flags for training on each GPU, and which of them this jaxlib knows: an unknown one would end the process at once."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from svlm_jax.errors import ConfigError

# A layer's weights are gathered, and its gradients reduced, while the layer beside it is computed. Thresholds that combine all
# of a layer's collectives into one leave nothing to hide them behind (docs/training.md has the figures).
_COMMON = (
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_enable_pipelined_all_gather=true",
    "--xla_gpu_enable_pipelined_reduce_scatter=true",
    "--xla_gpu_enable_pipelined_all_reduce=true",
    "--xla_gpu_enable_while_loop_double_buffering=true",
    "--xla_gpu_enable_command_buffer=",
    "--xla_disable_hlo_passes=rematerialization",  # the training step says itself what is computed again
)
# GPU -> (XLA flags, other environment variables).
SETS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "none": ((), {}),
    "a100": (_COMMON, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}),
    "h100": (_COMMON, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}),
    "h200": (_COMMON, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}),
    "b200": (_COMMON, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}),
}


def check(flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """(flags that this jaxlib accepts, flags that it does not know), tried in another process on the CPU.

    The CPU build parses GPU flags too, so no GPU is needed. ConfigError when a flag is known but its value is not accepted.
    """
    if not flags:
        return [], []
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    code = "import jax; jax.devices()"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return list(flags), []
    named = re.search(r"Unknown flags? in XLA_FLAGS: (.*)", found.stderr)
    unknown = [flag for flag in flags if named is not None and flag in named[1].split()]
    if not unknown:
        reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"the XLA flags {' '.join(flags)} end the process: {reason}")
    accepted, more = check([flag for flag in flags if flag not in unknown])
    return accepted, unknown + more


def environment(gpu: str) -> tuple[dict[str, str], list[str]]:
    """Environment variables for training on a GPU, behind XLA_FLAGS that are set already, and the flags left out as unknown."""
    if gpu not in SETS:
        raise ConfigError(f"there are no flags for {gpu!r}, expected one of {', '.join(SETS)}.")
    flags, more = SETS[gpu]
    accepted, unknown = check(flags)
    own = os.environ.get("XLA_FLAGS", "")
    return {**more, "XLA_FLAGS": " ".join([*accepted, *([own] if own else [])])}, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m launch.flags h100` writes `export NAME=value` lines for a shell, and says what it left out."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.flags", description="XLA flags that fit this jaxlib.")
    parser.add_argument("gpu", choices=sorted(SETS))
    variables, unknown = environment(parser.parse_args(argv).gpu)
    if unknown:
        sys.stderr.write(f"svlm: this jaxlib does not know {' '.join(unknown)}; left out\n")
    sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
