"""Which implementation of a kernel runs, and why.

The folders are the registry: `pallas_kernels/<kernel>/<implementation>.py` holds a function named like the kernel. A file
for one platform also has `unsupported(*arrays, **options)`, which says why it cannot run on these shapes (None if it can).

    auto        the first that can run of the platform that the program is lowered for: a library's where there is one
                (splash, cudnn), then our own (mosaic_tpu, mosaic_gpu); XLA elsewhere. Decided at lowering, so a program
                compiled ahead of time gets what its target needs.
    a name      that implementation or NotImplementedError with the reason; never another one
    interpret   the TPU kernel, interpreted by JAX: for tests on a CPU

Pallas kernels have no derivative of their own unless the kernel brings one (`flash_attention`): gradients of `auto` and of
named kernels are those of the XLA implementation, computed again in the backward pass.
"""

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, get_args

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from pallas_kernels import compat

Implementation = Literal["auto", "reference", "xla", "splash", "cudnn", "mosaic_gpu", "mosaic_tpu", "interpret"]

KERNELS = ("cache_attention", "flash_attention", "window_attention", "pooled_scores", "decode_attention", "rms_norm")
# What runs on one platform only, in the order in which `auto` tries them.
PLATFORM = {"splash": "tpu", "mosaic_tpu": "tpu", "cudnn": "cuda", "mosaic_gpu": "cuda"}
_NEEDS = {"cudnn": compat.cudnn_missing, "mosaic_gpu": compat.mosaic_gpu_missing}

_log = logging.getLogger(__name__)


def call(
    kernel: str,
    implementation: Implementation,
    arrays: tuple[Any, ...],
    options: dict[str, Any],
    *,
    function: str | None = None,
    own_gradient: bool = False,
) -> Any:
    """Runs an implementation's `function` (default: named like the kernel) on arrays (None where optional) and static options.

    own_gradient: the caller defines the derivative. Raises NotImplementedError for a named implementation that cannot run,
    ValueError for a name that does not exist.
    """
    if implementation not in get_args(Implementation):
        raise ValueError(f"{kernel}: implementation is {implementation!r}, expected one of {get_args(Implementation)}.")
    name = function or kernel
    if implementation in ("reference", "xla"):
        return getattr(_load(kernel, implementation), name)(*arrays, **options)
    xla = functools.partial(getattr(_load(kernel, "xla"), name), **options)
    if implementation == "auto":
        run = _auto(kernel, name, arrays, options, xla)
    else:
        run = _named(kernel, name, implementation, arrays, options, xla)
    if run is xla or own_gradient:
        return run(*arrays)
    return _with_gradient_of(xla, run)(*arrays)


def preferred(kernel: str, platform: str) -> str:
    """The implementation that `auto` takes on a platform ("cpu", "cuda", "tpu") when shapes and dtypes allow it."""
    return next((name for name in implementations(kernel, platform) if _missing(kernel, name) is None), "xla")


def implementations(kernel: str, platform: str) -> list[str]:
    """The implementations of a kernel for one platform only, in the order in which `auto` tries them."""
    return [name for name, of in PLATFORM.items() if of == platform and _exists(kernel, name)]


def _auto(kernel: str, name: str, arrays: Any, options: dict[str, Any], xla: Callable[..., Any]) -> Callable[..., Any]:
    branches, reasons = {}, []
    for platform in dict.fromkeys(PLATFORM.values()):
        why_not = {}
        for implementation in implementations(kernel, platform):
            reason = _why_not(kernel, implementation, arrays, options)
            if reason is None:
                branches[platform] = _kernel(kernel, implementation, name, **options)
                break
            why_not[implementation] = reason
        chosen = implementation if platform in branches else "xla"
        reasons.append(f"{platform}: {chosen}" + "".join(f", not {other}: {why}" for other, why in why_not.items()))
    _say_once(f"{kernel}, auto: {'; '.join(reasons)}; elsewhere: xla")
    return functools.partial(_by_platform, branches, xla) if branches else xla


def _by_platform(branches: Mapping[str, Callable[..., Any]], default: Callable[..., Any], *arrays: Any) -> Any:
    return lax.platform_dependent(*arrays, default=default, **branches)


def _named(
    kernel: str, name: str, implementation: str, arrays: Any, options: dict[str, Any], xla: Callable[..., Any]
) -> Callable[..., Any]:
    where = "mosaic_tpu" if implementation == "interpret" else implementation
    # An interpreted kernel has no limits of tiles and memory to keep.
    reason = _missing(kernel, where) if implementation == "interpret" else _why_not(kernel, where, arrays, options)
    if reason is not None:
        raise NotImplementedError(f"{kernel} cannot run as {implementation!r}: {reason}.")
    if implementation == "interpret":
        return _kernel(kernel, where, name, interpret=True, **options)
    shape = jax.eval_shape(xla, *arrays)
    message = f"{kernel} cannot run as {implementation!r}: the program is compiled for a platform other than {PLATFORM[where]}."

    def refuse(*_: Any) -> Any:
        return jax.tree.map(lambda s: _refuse.bind(message=message, shape=s.shape, dtype=s.dtype), shape)

    return functools.partial(_by_platform, {PLATFORM[where]: _kernel(kernel, where, name, **options)}, refuse)


def _why_not(kernel: str, implementation: str, arrays: Any, options: dict[str, Any]) -> str | None:
    if any(_sharded(x) for x in jax.tree.leaves(arrays)):
        return "its arrays are sharded, and no kernel is cut automatically: call it inside jax.shard_map"
    return _missing(kernel, implementation) or _load(kernel, implementation).unsupported(*arrays, **options)


def _sharded(x: Any) -> bool:
    """True for an array whose type carries a sharding (explicit axes of a mesh, outside of shard_map)."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


@functools.cache
def _missing(kernel: str, implementation: str) -> str | None:
    if not _exists(kernel, implementation):
        return f"there is no {implementation} kernel of it"
    if implementation in _NEEDS and (reason := _NEEDS[implementation]()) is not None:
        return reason
    try:
        _load(kernel, implementation)
    except ImportError as error:
        return f"this jax cannot load it ({error})"
    return None


@functools.cache
def _exists(kernel: str, implementation: str) -> bool:
    return importlib.util.find_spec(f"pallas_kernels.{kernel}.{implementation}") is not None


@functools.cache
def _load(kernel: str, implementation: str) -> ModuleType:
    return importlib.import_module(f"pallas_kernels.{kernel}.{implementation}")


@functools.cache
def _kernel(kernel: str, implementation: str, name: str, **options: Any) -> Callable[..., Any]:
    """A Pallas kernel, traced once for all layers: tracing costs more than all else that is traced around it."""
    return jax.jit(functools.partial(getattr(_load(kernel, implementation), name), **options))


def _with_gradient_of(xla: Callable[..., Any], run: Callable[..., Any]) -> Callable[..., Any]:
    differentiable = jax.custom_vjp(run)
    differentiable.defvjp(lambda *arrays: (run(*arrays), arrays), lambda arrays, out: jax.vjp(xla, *arrays)[1](out))
    return differentiable


@functools.cache
def _say_once(line: str) -> None:
    _log.info(line)


# Stands in the branch of every other platform: lowering it is the error. Tracing cannot be, for the target is not known then.
_refuse = Primitive("refuse")
_refuse.def_abstract_eval(lambda *, message, shape, dtype: jax.core.ShapedArray(shape, dtype))


def _refuse_lowering(ctx: Any, *, message: str, shape: Any, dtype: Any) -> Any:
    raise NotImplementedError(message)


mlir.register_lowering(_refuse, _refuse_lowering)
batching.defvectorized(_refuse)
