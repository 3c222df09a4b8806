"""The libraries that compute what the kernels compute, on the same inputs: cuDNN and tokamax on GPUs, splash attention on TPUs.

Each gets the problem in the form that suits it best: equal packed segments become a batch, a causal mask is named rather than
written out. That is more than `flash_attention` can ask of them, which knows no lengths beforehand. Only where nothing else is
on offer, such as slots in no order, is a mask of all pairs built (and not timed away: it is part of the call, as it would be
in use). Cases that a library cannot express are left out.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import masking, shapes

Attend = Callable[..., jax.Array]  # (query, keys, values (B, T, N, H), *, mask, is_causal, scale)
Rival = tuple[str, Callable[..., Any]]


def of(case: shapes.Case, implementation: str) -> list[Rival]:
    """Names and calls for a case, each a drop-in for `case.call` with the implementation left out."""
    if implementation == "mosaic_tpu":
        return [("splash", functools.partial(case.call, "splash"))] if case.kernel == "flash_attention" else []
    found = [("cudnn", functools.partial(jax.nn.dot_product_attention, implementation="cudnn"))]
    if importlib.util.find_spec("tokamax") is not None:
        import tokamax

        found.append(("tokamax", tokamax.dot_product_attention))
    return [(name, call) for name, attend in found if (call := through(attend, case)) is not None]


def through(attend: Attend, case: shapes.Case) -> Callable[..., Any] | None:
    """The case by a function like `jax.nn.dot_product_attention`; None if that cannot express it."""
    if case.kernel == "cache_attention":
        return None if len(case.specs) > 5 else functools.partial(_cache, attend, _options(case))
    if case.kernel == "window_attention":
        return functools.partial(_window, attend, _options(case)["segments"])
    if case.kernel == "flash_attention":
        segments = dict(case.sample.keywords)["segments"]  # type: ignore[attr-defined]
        run = functools.partial(_packed, attend, segments, _options(case))
        return functools.partial(_gradients, run) if _backward(case) else run
    return None


def _options(case: shapes.Case) -> dict[str, Any]:
    """The static options of a case's call, such as its window."""
    return dict(case.call.keywords)  # type: ignore[attr-defined]


def _backward(case: shapes.Case) -> bool:
    return case.name.endswith("f+b")


def _cache(attend: Attend, options: dict[str, Any], *arrays: jax.Array) -> jax.Array:
    query, keys, values, query_index, kv_index = arrays
    mask = masking.pairs(query_index, kv_index, options.get("sink"), options.get("window"))[:, None]
    return attend(query, keys.swapaxes(1, 2), values.swapaxes(1, 2), mask=mask, scale=query.shape[-1] ** -0.5)


def _window(attend: Attend, segments: tuple[int, ...], *arrays: jax.Array) -> jax.Array:
    query, scale = arrays[0], arrays[0].shape[-1] ** -0.5
    if len(set(segments)) == 1:
        rows = (x.reshape(len(segments), -1, *x.shape[1:]) for x in arrays)
        return attend(*rows, scale=scale).reshape(query.shape)
    segment = jnp.repeat(jnp.arange(len(segments)), jnp.asarray(segments), total_repeat_length=query.shape[0])
    mask = (segment[:, None] == segment)[None, None]
    return attend(*(x[None] for x in arrays), mask=mask, scale=scale)[0]


def _packed(attend: Attend, count: int, options: dict[str, Any], *arrays: Any) -> jax.Array:
    """`count` segments of equal length, one after the other, as in `flash_attention/shapes.py`."""
    query, rows = arrays[0], [x.reshape(count, -1, *x.shape[2:]) for x in arrays[:3]]
    scale = query.shape[-1] ** -0.5
    if "window" not in options:
        return attend(*rows, is_causal=True, scale=scale).reshape(query.shape)
    order = jnp.broadcast_to(jnp.arange(rows[0].shape[1]), rows[0].shape[:2])
    mask = masking.pairs(order, order, options.get("sink"), options["window"])[:, None]
    return attend(*rows, mask=mask, scale=scale).reshape(query.shape)


def _gradients(run: Callable[..., jax.Array], *arrays: Any) -> tuple[jax.Array, ...]:
    def total(*qkv: jax.Array) -> jax.Array:
        return run(*qkv, arrays[3]).astype(jnp.float32).sum()

    return jax.grad(total, argnums=(0, 1, 2))(*arrays[:3])
