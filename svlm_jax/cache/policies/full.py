"""Everything, up to the budget; then the stream must end."""

import dataclasses
from typing import ClassVar

from svlm_jax.cache.policies.base import BudgetPolicy


@dataclasses.dataclass(frozen=True)
class Full(BudgetPolicy):
    """What memories that forget are measured against."""

    name: ClassVar[str] = "full"
    forgets: ClassVar[bool] = False
