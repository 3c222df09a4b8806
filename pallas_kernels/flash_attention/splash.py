"""`flash_attention` on TPUs by the splash attention that comes with JAX, for tokens in their order: all that training asks for.

Splash attention's mask is a rule over places in a row, known when the program is traced; blocks that it rules out cost
nothing. Packed sequences are told apart by their ids, so causal order and a window need nothing else; a sink is counted from
each sequence's first token, which no such rule knows, and is taken in rows of one sequence only. Scores have no scale: it goes
into the queries, rounded to their dtype.

Its public function either gives the log-sum-exp or has a derivative. Here both are wanted, for the forward pass may be saved
and not run again, so the two backward kernels are called by the names they have in jax 0.10.2 to 0.12.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float, Int

from pallas_kernels.cache_attention import mosaic_tpu
from pallas_kernels.tpu.blocks import round_up

BLOCK = 512  # tokens a block, of rows and of keys

Tokens = Int[Array, "B T"]


def unsupported(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    order: Tokens,
    segment_ids: Tokens | None,
    *rest: Any,
    in_order: bool,
    sink: int | None = None,
    **options: Any,
) -> str | None:
    """Why splash attention cannot compute this; None if it can."""
    if not in_order:
        return "its mask cannot follow an order that is given as an array"
    if sink and segment_ids is not None:
        return "its mask does not know where each of several packed sequences has its sink"
    return mosaic_tpu.unsupported(query, keys)


def forward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: Tokens | None,
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    in_order: bool = True,
    interpret: Any = False,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    tokens, heads = query.shape[1:3]
    kernel = _kernel(tokens, heads, sink, window, interpret)
    q, k, v = (_by_head(x) for x in (_scaled(query, scale), keys, values))
    out, (lse,) = _each_row(kernel, segment_ids, tokens)(q, k, v)
    return out[:, :, :tokens].swapaxes(1, 2), lse[..., :tokens]


def backward(
    query: Float[Array, "B T N H"],
    keys: Float[Array, "B T K H"],
    values: Float[Array, "B T K H"],
    order: Tokens,
    segment_ids: Tokens | None,
    out: Float[Array, "B T N H"] | None,
    lse: Float[Array, "B N T"],
    delta: Float[Array, "B N T"],
    d_out: Float[Array, "B T N H"],
    *,
    scale: float,
    sink: int | None = None,
    window: int | None = None,
    in_order: bool = True,
    interpret: Any = False,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    tokens, heads = query.shape[1:3]
    kernel = _kernel(tokens, heads, sink, window, interpret)
    sizes = kernel.kwargs["block_sizes"]
    size = sizes.block_q
    names = "is_mqa", "mask_value", "mask_function", "attn_logits_soft_cap", "interpret"
    rules = {name: kernel.kwargs[name] for name in names}
    rules |= {"q_layout": sizes.q_layout, "k_layout": sizes.k_layout, "v_layout": sizes.v_layout}

    def pull(q: Any, k: Any, v: Any, d_out: Any, lse: Any, delta: Any, segments: Any = None) -> tuple[Any, Any, Any]:
        given = q, k, v, segments, None, lse, d_out, delta
        d_query = splash._splash_attention_bwd_dq(*given, bq=size, bkv=size, mask_info=kernel.dq_mask_info, **rules)
        _, d_keys, d_values = splash._splash_attention_bwd_dkv(
            *given, bq=size, bkv=size, bkv_compute=size, mask_info=kernel.dkv_mask_info, use_fused_bwd_kernel=False, **rules
        )
        return d_query, d_keys, d_values

    arrays = (_by_head(x) for x in (_scaled(query, scale), keys, values, d_out.astype(query.dtype)))
    stats = (jnp.pad(x, ((0, 0), (0, 0), (0, _padded(tokens) - tokens))) for x in (lse, delta))
    d_query, *d_rest = (x[:, :, :tokens].swapaxes(1, 2) for x in _each_row(pull, segment_ids, tokens)(*arrays, *stats))
    return _scaled(d_query, scale), *d_rest


class _Seen(masks._ComputableMask):
    """Token q of a row sees token k: the rule of `flash_attention` with places in the row for places in the sequence."""

    def __init__(self, tokens: int, sink: int | None, window: int | None) -> None:
        def sees(q: Any, k: Any) -> Any:
            behind = k <= q
            return behind if window is None else behind & ((k < (sink or 0)) | (q - k < window))

        self.rule = sink, window
        super().__init__(shape=(tokens, tokens), mask_function=sees)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Seen) and (self.shape, self.rule) == (other.shape, other.rule)

    def __hash__(self) -> int:
        return hash((self.shape, self.rule))


def _kernel(tokens: int, heads: int, sink: int | None, window: int | None, interpret: Any) -> Any:
    """Splash attention that gives its log-sum-exp too, with the masks that its backward kernels need."""
    size = min(BLOCK, _padded(tokens))
    sizes: Any = [size] * 8  # of queries and keys, in memory and at work, in the three kernels
    return splash.make_splash_mha(
        masks.MultiHeadMask([_Seen(_padded(tokens), sink, window)] * heads),
        block_sizes=splash.BlockSizes(*sizes),
        save_residuals=True,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _each_row(function: Callable[..., Any], segment_ids: Tokens | None, tokens: int) -> Callable[..., Any]:
    """The function over a batch, told which sequence each token of a row is of. The filling of the last block is a
    sequence of its own."""
    if segment_ids is None:
        return jax.vmap(function)
    ids = jnp.pad(segment_ids, ((0, 0), (0, _padded(tokens) - tokens)), constant_values=-1)
    return lambda *arrays: jax.vmap(lambda own, *row: function(*row, splash.SegmentIds(own, own)))(ids, *arrays)


def _by_head(x: jax.Array) -> jax.Array:
    """(B, T, N, H) -> (B, N, T, H) with T filled up to whole blocks. What is filled up comes last: no token sees it."""
    tokens = x.shape[1]
    return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, _padded(tokens) - tokens), (0, 0)))


def _padded(tokens: int) -> int:
    return round_up(tokens, min(BLOCK, round_up(tokens, 128)))


def _scaled(x: jax.Array, scale: float) -> jax.Array:
    return (x.astype(jnp.float32) * scale).astype(x.dtype)
