"""A SIGTERM or a Ctrl-C to any process of a run stops all of them after the same micro-batch.

jax.experimental.multihost_utils.reached_preemption_sync_point would do that too, if nothing else called it. Orbax does, and
counts saved steps where this run counts micro-batches: the processes could agree to stop at a number that is never reached, and
the run would go on until it is killed. Here each process gives one flag to a collective, and all of them see the result.
"""

import signal
from types import FrameType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from svlm_jax.host.signals import BOTH, Interrupted


class Preemption:
    """Whether the run should save and leave: after SIGTERM or Ctrl-C here or, with several processes, to any of them.

    Listens inside of a `with`; outside, they end the process at once. A second Ctrl-C does too: nothing half saved is ever
    taken for whole.

    Args:
      mesh: all devices of the run.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._each = NamedSharding(mesh, P(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P()))
        self._asked = self._interrupted = False
        self._answer: jax.Array | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in BOTH}
        return self

    def __exit__(self, *error: object) -> None:
        # None: a handler that was not installed from Python, and cannot be from here.
        for number, before in self._before.items():
            signal.signal(number, before or signal.SIG_DFL)

    def asked(self) -> bool:
        """The same answer in every process; each calls it once after every micro-batch.

        With several processes it is the answer to the call before, which is there already: nobody waits for it.
        """
        if jax.process_count() == 1:
            return self._asked
        flags = jax.make_array_from_callback((self._mesh.size,), self._each, lambda _: np.array([self._asked]))
        answer, self._answer = self._answer, self._any(flags)
        return answer is not None and bool(answer)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise Interrupted(number)
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._asked = True
