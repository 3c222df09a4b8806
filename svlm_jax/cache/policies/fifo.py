"""The newest tokens."""

import dataclasses
from typing import ClassVar

from svlm_jax.cache.policies.base import BudgetPolicy


@dataclasses.dataclass(frozen=True)
class Fifo(BudgetPolicy):
    """First in, first out."""

    name: ClassVar[str] = "fifo"
