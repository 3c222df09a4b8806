"""Memory of devices that this machine does not have, so that a model can be planned for them."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Literal

GIB = 2**30
GPU_SHARE = 0.75  # of a GPU's memory that JAX takes, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


@dataclasses.dataclass(frozen=True)
class Card:
    """An accelerator. memory: bytes, as its driver (GPU) or JAX (TPU) reports them, where vendors say 80 GB or so."""

    platform: Literal["gpu", "tpu"]
    kind: str
    memory: float

    @property
    def usable(self) -> int:
        """Bytes that JAX may use."""
        if self.platform == "tpu":
            return int(self.memory)
        return int(self.memory * float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or GPU_SHARE))


def _gpu(kind: str, gib: float) -> Card:
    return Card("gpu", kind, gib * GIB)


CARDS: Mapping[str, Card] = {
    "8gb": _gpu("a GPU of 8 GB", 8),
    "12gb": _gpu("a GPU of 12 GB", 12),
    "16gb": _gpu("a GPU of 16 GB", 16),
    "24gb": _gpu("a GPU of 24 GB", 24),
    "48gb": _gpu("a GPU of 48 GB", 48),
    "l4": _gpu("NVIDIA L4", 22.5),
    "a100-40gb": _gpu("NVIDIA A100 40 GB", 40),
    "a100": _gpu("NVIDIA A100 80 GB", 80),
    "h100": _gpu("NVIDIA H100 80 GB", 79.6),
    "h200": _gpu("NVIDIA H200", 140.4),
    "v5e": Card("tpu", "TPU v5e", 15.75 * GIB),
    "v5p": Card("tpu", "TPU v5p", 95 * GIB),
    "v6e": Card("tpu", "TPU v6e", 31.25 * GIB),
}
