"""Training data that needs no files: batches drawn from a position, a process taking its rows."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from svlm_jax.data.chunks import Batch
from svlm_jax.models.config import ModelConfig
from tests.train import tiny

LENGTHS = (24, 30)


@dataclasses.dataclass
class Stream:
    """Endless: `distinct` batches of `rows` rows, of two lengths in turn; of every batch, the rows of this process."""

    config: ModelConfig
    rows: int = 4
    distinct: int = 4
    host: int = 0
    hosts: int = 1
    position: int = 0
    pause: float = 0.0  # seconds before every batch
    broken: tuple[str, ...] = ()

    def __next__(self) -> Batch:
        time.sleep(self.pause)
        whole = self.batch(self.position % self.distinct)
        self.position += 1
        size = self.rows // self.hosts
        return jax.tree.map(lambda leaf: leaf[self.host * size : (self.host + 1) * size], whole)

    def batch(self, number: int) -> Batch:
        return tiny.batch(self.config, rows=self.rows, tokens=LENGTHS[number % 2], seed=number)

    def shapes(self) -> list[Batch]:
        """Of global batches."""
        return [
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.asarray(leaf).dtype), self.batch(number))
            for number in range(2)
        ]

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def restore(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
