"""What remembering and asking cost, from one configuration: does a question wait longer after a longer stream?

    python -m benchmarks.recall_cost [--size small] [--frames 10000] [--out benchmarks/results/recall_cost_cpu.json]

A random model watches noise in clips of 32 frames, 196 x 196 pixels (784 tokens a clip) or, where a memory of 12,000 tokens is
filled, 560 x 560 (6,400; LiveVLM's have 6,272): bucketing looks with the last 64 queries, and a clip of few would notice.

    first token   ms from a question to the scores of its answer's first token, after 16 ... 10,000 frames, with all frames in
                  the memory (a clip that is still open is read first, which takes at most what a clip takes), and in turn
                  with a fork that stands at 16; bytes of the state and of the process; frames a second of the whole stream
    retrieval     the same, and ms a word of the answer, with 40 % of 12,000 tokens read and with all of them
    compression   ms of a clip at 12,000 tokens with Vision Sink Bucketing, and with the newest tokens kept instead

All times are medians; the share of bucketing is that of turns, each of a clip with it and one without. Exit status 1 when the
first token takes more than 1.1 times as long behind the last frame as behind 16, when the state's bytes change, when a question
that reads 40 % costs 60 % or more of one that reads everything, or when bucketing takes 2 % or more of a clip.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.soak import resident_bytes
from svlm_jax.cache.memory_state import memory_bytes
from svlm_jax.cache.policies import memory_policy
from svlm_jax.checkpoint.named import SIZES
from svlm_jax.engine import answer
from svlm_jax.engine.remember import Clip, watch
from svlm_jax.engine.sampling import key_of
from svlm_jax.host.files import write_json
from svlm_jax.host.machine import describe
from svlm_jax.streaming.qa_session import QASession, padded
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk

SIDE, LARGE, CLIP, RUNS = 196, 560, 32, 9
MARKS = (16, 64, 256, 512, 1024, 4096, 10_000)
QUESTION = "Who was the first to cross the bridge, and what did they carry in their hands?"

# Without donation: what they start from stays.
READ, REPLY, WATCH = (jax.jit(work, static_argnames="config") for work in (answer.read, answer.reply, watch))


def turns_ms(works: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Milliseconds of each turn, after one that compiles: a machine that slows down for a while slows all works of a turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(RUNS + 1):
        for name, work in works.items():
            begin = time.perf_counter()
            jax.block_until_ready(work())
            if turn:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def medians_ms(works: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    return {name: round(statistics.median(times), 3) for name, times in turns_ms(works).items()}


def feed(stream: QASession, frames: int, side: int = SIDE) -> None:
    """So many more frames of noise that never repeats, a clip at a time."""
    rng = np.random.default_rng(int(stream.position))
    while frames:
        count = min(frames, CLIP - round(stream.position * stream.settings.fps) % CLIP)
        pixels = rng.integers(0, 256, (count, 3, side, side), np.uint8)
        stream.feed(Chunk(pixels, stream.position, stream.position + count / stream.settings.fps))
        frames -= count


def first_token(vlm: StreamingVLM, frames: int) -> dict[str, Any]:
    """The stream grows; the memory, and the wait for an answer, must not."""
    feed(vlm.qa_session(memory=memory_policy(budget=3072)), CLIP)  # compiles
    stream, rows, seen, spent = vlm.qa_session(memory=memory_policy(budget=3072)), [], 0, 0.0
    turn, early = stream.dialogue.turn(QUESTION, None, None), stream
    for mark in (m for m in MARKS if m <= frames):
        begin = time.perf_counter()
        feed(stream, mark - seen)
        jax.block_until_ready(stream.state)
        spent, seen = spent + time.perf_counter() - begin, mark
        early = stream.fork() if mark == MARKS[0] else early
        ms = medians_ms({name: functools.partial(each.read, turn) for name, each in (("now", stream), ("early", early))})
        row = {"frames": mark, "first_token_ms": ms["now"], "ratio_to_16_frames": round(ms["now"] / ms["early"], 4)}
        rows.append(row | {"state_bytes": memory_bytes(stream.state), "resident_bytes": resident_bytes()})
        sys.stderr.write(f"{rows[-1]}\n")
    return {"budget": 3072, "rows": rows, "frames_per_second": round(seen / spent, 1)}


def filled(vlm: StreamingVLM, policy: str) -> QASession:
    """A memory of 12,000 tokens that is full."""
    stream = vlm.qa_session(memory=memory_policy(policy), max_new_tokens=32)
    feed(stream, 2 * CLIP, LARGE)
    return stream


def retrieval(stream: QASession) -> dict[str, Any]:
    question = padded(stream.dialogue.turn(QUESTION, None, None))
    key, limits = key_of(0)[None], jax.tree.map(lambda x: x[None], stream.sampling.limits)
    names = {"forty_per_cent": "vsb+par", "everything": "vsb"}  # the latter reads the memory where it is
    read, reply, words = {}, {}, {}
    for name, policy in names.items():
        config = dataclasses.replace(stream.config, memory=memory_policy(policy))
        read[name] = functools.partial(READ, stream.vlm.params, stream.state, question, config=config)
        reply[name] = functools.partial(REPLY, stream.vlm.params, read[name](), key, limits, config=config)
        words[name] = int(reply[name]()[1][0])
    first, answer = medians_ms(read), medians_ms(reply)
    word = {name: round(ms / max(words[name] - 1, 1), 3) for name, ms in answer.items()}
    found: dict[str, Any] = {"first_token_ms": first, "word_ms": word, "words": words}
    for kind in ("first_token_ms", "word_ms"):
        found[f"ratio_{kind}"] = round(found[kind]["forty_per_cent"] / found[kind]["everything"], 4)
    return found


def compression(streams: Mapping[str, QASession]) -> dict[str, Any]:
    """A clip into full memories, read aside so that they stay."""
    works = {}
    for name, stream in streams.items():
        rng = np.random.default_rng(0)
        grids = stream.config.shape.grids
        clip = Clip(
            frames=rng.integers(0, 256, (1, CLIP, 3, LARGE, LARGE), np.uint8),
            second=np.full((1, grids), stream.position, np.float32),
            valid=np.ones((1, grids), bool),
        )
        works[name] = functools.partial(WATCH, stream.vlm.params, stream.state, clip, config=stream.config)
    turns = turns_ms(works)
    more = [vsb / fifo - 1 for vsb, fifo in zip(turns["vsb+par"], turns["fifo"], strict=True)]
    ms = {name: round(statistics.median(times), 3) for name, times in turns.items()}
    return {"clip_ms": ms, "share_of_a_clip": round(statistics.median(more), 4)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {
        "what": f"Questions to a memory, random Qwen2.5-VL ({arguments.size}), float32, pictures of {SIDE} and {LARGE} pixels",
        "command": f"python -m benchmarks.recall_cost --size {arguments.size} --frames {arguments.frames}",
        "machine": describe(),
    }

    def note(name: str, found: dict[str, Any]) -> None:
        result[name] = found
        sys.stderr.write(json.dumps({name: found}, indent=1) + "\n")
        if arguments.out:
            write_json(arguments.out, result)

    vlm = StreamingVLM.from_pretrained(f"random:{arguments.size}", dtype="float32")
    bucketed = filled(vlm, "vsb+par")
    note("retrieval", retrieval(bucketed))
    note("compression", compression({"vsb+par": bucketed, "fifo": filled(vlm, "fifo")}))
    note("first_token", first_token(vlm, arguments.frames))
    return 0 if good(result) else 1


def good(result: dict[str, Any]) -> bool:
    """Whether a question waits no longer after a longer stream, retrieval pays, and bucketing costs next to nothing."""
    rows = result["first_token"]["rows"]
    flat = rows[-1]["ratio_to_16_frames"] <= 1.1 and len({row["state_bytes"] for row in rows}) == 1
    return flat and result["retrieval"]["ratio_first_token_ms"] < 0.6 and result["compression"]["share_of_a_clip"] < 0.02


if __name__ == "__main__":
    sys.exit(main())
