"""What a second costs: latency against the length of the video in four memories, its parts, memory, frame rates, first tokens,
and several streams in one program.

The figure of arXiv 2510.09608 (section 3.3: latency per token, real time at 0.1 s) for any model on any machine. Frames are
noise and every reply has the same number of tokens, because cost depends on shapes alone; so random weights will do.

    series   one long stream, every second of it: streaming, and the window without overlap (hard reset)
    steady   the cost of a second behind so many: full attention, whose cache is sized for a stream of that length, the window
             with overlap (recompute), other frame rates, several streams at once, and the time to the first token behind so
             many frames
"""

import dataclasses
import functools
import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pallas_kernels.dispatch import Implementation
from svlm_jax.cache.window import Memory, WindowConfig
from svlm_jax.checkpoint.streaming_block import stop_ids
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import ConfigError
from svlm_jax.streaming.pool import LanePool
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from svlm_jax.video.resize import smart_resize

PARTS = ("vision", "prefill", "decode")
KINDS = ("rate", "streams")  # of rows that are asked whether they keep up
REAL_TIME = 0.1  # s a token
LEAD = 2  # seconds before a measurement, so that nothing is new


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
      size: (height, width) of frames. tokens: of every reply.
      seconds: length of the long streams, and of the longest one with full attention.
      window: what is remembered; its memory and positions are chosen here.
      frames: behind how many frames the time to the first token is taken.
      rates: frames a second that are tried.
      streams: how many are watched at once.
      repeats: seconds of which a steady figure is the median.
      implementation: of attention. cache_dtype: of keys and values; None = what the weights are computed in.
    """

    size: tuple[int, int]
    tokens: int = 10
    seconds: int = 256
    window: WindowConfig = WindowConfig()
    frames: tuple[int, ...] = (16, 64, 256, 512)
    rates: tuple[int, ...] = (2, 4, 8, 16)
    streams: tuple[int, ...] = (2, 4, 8)
    repeats: int = 5
    implementation: Implementation = "auto"
    cache_dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "seconds", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 1 or more")
        if any(count < 2 or count % 2 for count in (*self.frames, *self.rates)):
            raise ConfigError(f"frames={self.frames}, rates={self.rates}: expected even numbers, frames are read in pairs")
        if any(count < 1 for count in self.streams):
            raise ConfigError(f"streams={self.streams}: expected 1 or more")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def settings_of(vlm: StreamingVLM, plan: Plan, memory: Memory, **changes: Any) -> StreamSettings:
    """A stream of the plan in which no reply ends early."""
    ends = {*stop_ids(vlm.checkpoint.generation_config), vlm.tokenizer.id_of("<|im_end|>")}
    fields: dict[str, Any] = {
        "window": dataclasses.replace(plan.window, memory=memory),
        "sampling": Sampling(temperature=0.0, top_k=0, max_new_tokens=plan.tokens, suppress=tuple(sorted(ends))),
        "query": None,
        "implementation": plan.implementation,
        "cache_dtype": plan.cache_dtype,
        "max_pixels": plan.size[0] * plan.size[1],
    }
    return StreamSettings(**{**fields, **changes})


# --------------------------------------------------------------------------------------------------- measuring


def series(vlm: StreamingVLM, plan: Plan, memory: Memory, tell: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Every second of one long stream; compilation is left out."""
    session = vlm.stream(settings_of(vlm, plan, memory, duration=float(plan.seconds)))
    found: dict[str, list[Any]] = {name: [] for name in ("second", "ms", "cached_tokens", "device_bytes", "host_bytes")}
    session.fork().feed(_chunk(session, plan))
    gc.collect()  # arrays of what ran before must not leave in the middle of this
    for second in range(plan.seconds):
        caption = session.feed(_chunk(session, plan))
        values = second + 1, caption.timing.step, _cached(caption.usage), *_memory()
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
        tell(second + 1)
    return {**found, **_shape(session, plan), "ms_per_token": [ms / plan.tokens for ms in found["ms"]]}


def steady(
    vlm: StreamingVLM,
    plan: Plan,
    memory: Memory,
    second: int,
    tell: Callable[[int], None] = lambda _: None,
    *,
    parts: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Medians of a second behind `second` seconds of video; with `parts` as three programs, and what each of them takes."""
    session = _behind(vlm, plan, memory, second, tell, split_timing=parts, **changes)
    captions = [session.feed(_chunk(session, plan)) for _ in range(plan.repeats)]
    gc.collect()
    device, host = _memory()
    ms = statistics.median(caption.timing.step for caption in captions)
    found: dict[str, Any] = {
        "second": second,
        "ms": ms,
        "ms_per_token": ms / plan.tokens,
        "cached_tokens": _cached(captions[-1].usage),
    }
    if parts:
        medians = {part: statistics.median(getattr(caption.timing, part) for caption in captions) for part in PARTS}
        found |= {"parts_ms": medians, "first_token_ms": medians["vision"] + medians["prefill"]}
    return {**found, "device_bytes": device, "host_bytes": host, **_shape(session, plan)}


def together(
    vlm: StreamingVLM, plan: Plan, count: int, second: int, tell: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Medians of a second of `count` streams in one program, each behind `second` seconds of video."""
    session = _behind(vlm, plan, "stream", second, tell)
    pool = LanePool(session.config, count)
    for lane in range(count):
        pool.insert(lane, session.state)
    found = []
    for start in range(session.chunks, session.chunks + 1 + plan.repeats):
        frames = _noise(round(session.settings.fps), plan.size, start % 4)
        one = session.prompt.turn(float(start), start + 1.0, session.clip_grid(frames), None), frames
        outs, times = pool.step(vlm.params, dict.fromkeys(range(count), one))
        found.append(times[0])
    gc.collect()
    device, host = _memory()
    ms = statistics.median(found[1:])  # the first one compiles
    return {
        "second": second,
        "streams": count,
        "ms": ms,
        "ms_per_token": ms / sum(int(out.count.sum()) for out in outs.values()),
        "cached_tokens": sum(int(out.usage.sum()) for out in outs.values()),
        "device_bytes": device,
        "host_bytes": host,
        **_shape(session, plan),
    }


def _behind(vlm: StreamingVLM, plan: Plan, memory: Memory, second: int, tell: Callable[[int], None], **changes: Any) -> Session:
    """A stream that has watched `second` seconds and a few more; no longer than it remembers, if it forgets."""
    duration = float(second + LEAD + plan.repeats)
    session = vlm.stream(settings_of(vlm, plan, memory, **changes, duration=duration))
    remembered = max(session.settings.window.chunk_counts(1.0, second))
    for watched in range((second if memory == "full" else min(second, remembered)) + LEAD):
        session.feed(_chunk(session, plan))
        tell(watched + 1)
    return session


def _chunk(session: Session, plan: Plan) -> Chunk:
    """A second of noise; few are drawn, and they take turns."""
    count = round(session.settings.fps)
    return Chunk(_noise(count, plan.size, session.chunks % 4), float(session.chunks), session.chunks + 1.0)


def _noise(count: int, size: tuple[int, int], number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (count, 3, *size), np.uint8)


def _cached(usage: Mapping[str, tuple[int, int]]) -> int:
    return sum(used for used, _ in usage.values())


def _memory() -> tuple[int, int | None]:
    """Bytes of all device arrays, and resident bytes of the process (Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    resident = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return sum(array.nbytes for array in jax.live_arrays()), resident[0] if resident else None


def _shape(session: Session, plan: Plan) -> dict[str, int]:
    """Slots of the cache, tokens that a second runs, and the decoder's operations for them."""
    config, text = session.config, session.vlm.config.text
    turn = session.prompt.turn_length(session.clip_grid(_noise(round(session.settings.fps), plan.size, 0)))
    run = turn + plan.tokens + (config.ring.slots if config.recompute else 0)
    leaves = jax.tree.leaves(session.vlm.params["decoder"]["layers"])
    weights = sum(leaf.size for leaf in leaves if leaf.ndim > 1)
    attention = 4 * text.num_layers * text.num_heads * text.head_dim * config.ring.slots
    return {"slots": config.ring.slots, "tokens_run": run, "decoder_flops": run * (2 * weights + attention)}


# --------------------------------------------------------------------------------------------------- the whole plan


@dataclasses.dataclass(frozen=True)
class Row:
    """A measurement of a plan: its name, what it belongs to, how many seconds it watches, and how it is done."""

    name: str
    kind: str
    seconds: int
    measure: Callable[[Callable[[int], None]], dict[str, Any]]


def rows_of(vlm: StreamingVLM, plan: Plan) -> list[Row]:
    """Everything that is measured, cheap and important first."""
    rows: list[Row] = []
    modes: tuple[Memory, ...] = ("stream", "hard-reset")
    for mode in modes:
        rows.append(Row(mode, "series", plan.seconds, functools.partial(series, vlm, plan, mode)))

    def add(name: str, kind: str, memory: Memory, second: int, **changes: Any) -> None:
        rows.append(Row(name, kind, second, functools.partial(steady, vlm, plan, memory, second, **changes)))

    window = max(1, round(max(plan.window.vision, plan.window.text)))
    add("recompute", "level", "recompute", window)
    add("parts of streaming", "parts", "stream", window, parts=True)
    add("parts of recompute", "parts", "recompute", window, parts=True)
    for fps in plan.rates:
        add(f"stream, {fps} frames a second", "rate", "stream", window, fps=float(fps))
    for count in plan.streams:
        rows.append(Row(f"stream, {count} at once", "streams", window, functools.partial(together, vlm, plan, count, window)))
    for second in lengths(plan.seconds):
        add(f"full behind {second} s", "full", "full", second)
    for count in plan.frames:
        add(f"stream behind {count} frames", "first token", "stream", count // 2, parts=True)
        whole = dataclasses.replace(plan.window, vision=count / 2, text=count / 2, memory="recompute")
        add(f"recompute of {count} frames", "first token", "recompute", 1, parts=True, window=whole)
        if count // 2 <= plan.seconds:
            add(f"full behind {count} frames", "first token", "full", count // 2, parts=True)
    return rows


def lengths(seconds: int) -> list[int]:
    """Doubling up to the whole length."""
    found = [seconds]
    while found[0] > 8:
        found.insert(0, found[0] // 2)
    return found


def attempt(row: Row, tell: Callable[[int], None]) -> dict[str, Any]:
    """The row's figures, or {"failed": why} when the device has no room for it."""
    about = {"kind": row.kind}
    try:
        return {**about, **row.measure(tell)}
    except ConfigError as error:
        return {**about, "failed": str(error)}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {**about, "failed": "out of memory"}


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the figure should show, as numbers; None where a row is missing.

    flat: the last tenth of the long stream over its first. slower: the window with overlap over streaming. full_growth: full
    attention at its longest over its shortest. frame_rate: the most frames a second at which a second of video takes at most
    one. streams: the most streams of which that is true at once.
    """
    done = {name: row for name, row in rows.items() if "ms" in row}
    stream, again = done.get("stream"), done.get("recompute")
    once = statistics.median(stream["ms"]) if stream else None
    full = {row["second"]: row["ms"] for row in done.values() if row["kind"] == "full"}
    in_time = [(row["kind"], int(name.split()[1])) for name, row in done.items() if row["kind"] in KINDS and row["ms"] <= 1000]
    rates, streams = ([count for of, count in in_time if of == kind] for kind in KINDS)
    return {
        "ms_per_token": statistics.median(stream["ms_per_token"]) if stream else None,
        "flat": _tenths(stream["ms"]) if stream else None,
        "slower": again["ms"] / once if again and once else None,
        "full_growth": full[max(full)] / full[min(full)] if full else None,
        "frame_rate": max(rates, default=None),
        "streams": max(streams, default=None),
    }


def _tenths(ms: Sequence[float]) -> float:
    """Median of the last tenth over that of the first."""
    count = max(1, len(ms) // 10)
    return statistics.median(ms[-count:]) / statistics.median(ms[:count])


def default_size(vlm: StreamingVLM) -> tuple[int, int]:
    """(height, width): what 720p becomes, or a picture of 4:3 if the checkpoint says how many pixels it was trained on."""
    return smart_resize(*((720, 1280) if vlm.most_pixels is None else (336, 448)), vlm.resize_rule())
