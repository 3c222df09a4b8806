"""How much the last queries look at each slot of a cache: the contract and the choice of implementation."""

from jaxtyping import Array, Float, Int

from pallas_kernels.dispatch import Implementation, call
from pallas_kernels.masking import Rope


def pooled_scores(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B K C H"],
    query_index: Int[Array, "B T"],
    kv_index: Int[Array, "B C"],
    *,
    scale: float,
    rope: Rope | None = None,
    lse: Float[Array, "B N T"] | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "B K C"]:
    """Mean softmax weight that each slot gets from T queries, float32, by key head (LiveVLM, section 3.2: S = mean of W).

    The weights are those of `cache_attention` without a window, averaged over the queries whose order is not negative and
    over the N / K query heads that share a key head; the mean over K is LiveVLM's score. Each row sums to 1, unless no
    query sees anything: then it is 0.

    rope: as in `cache_attention`. lse: the log-sum-exp that `cache_attention` returned for these queries; saves a pass.
    """
    return call("pooled_scores", implementation, (query, keys, query_index, kv_index, rope, lse), {"scale": scale})
