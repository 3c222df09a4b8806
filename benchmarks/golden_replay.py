"""Replays recordings of the authors' implementation and compares tokens, logits, positions, kept ids and K/V.

    python -m benchmarks.golden_replay FOLDER [--case NAME ...] [--implementation auto]

FOLDER holds `checkpoint/`, `frames.npz`, `vision.npz` and one .npz a case (tests/golden/README.md describes the arrays). Every
case goes through `Session.feed`, the path of `svlm watch`, and so through the one jitted step. Exit status 1 on a mismatch.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np

from svlm_jax.cache import positions, ring, window
from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine import commentate as step
from svlm_jax.engine.sampling import Sampling
from svlm_jax.models import functional
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk

POSITIONS = {"shrink": "contiguous", "append": "native", "all_text": "text"}
# Positions are sums of float32 steps, fractional ones at some frame rates: equal up to rounding.
TOLERANCE = {"logits": 1e-3, "positions": 1e-3, "keys_values": 1e-3, "vision": 1e-4}


@dataclasses.dataclass
class Row:
    """What one case showed. Deltas are the largest absolute differences; None = nothing of the kind was recorded."""

    case: str
    chunks: int = 0
    tokens: int = 0
    wrong_tokens: int = 0
    wrong_inputs: int = 0  # chunks whose kept ids, fed ids or cache lengths differ
    logits: float | None = None
    positions: float | None = None
    keys_values: float | None = None
    vision: float | None = None
    left: int = 2**31 - 1  # fewest free text slots
    programs: int = 0  # compiled for the second

    @property
    def exact(self) -> bool:
        within = all(getattr(self, name) is None or getattr(self, name) <= bound for name, bound in TOLERANCE.items())
        return within and not self.wrong_tokens and not self.wrong_inputs

    def note(self, name: str, have, want) -> None:
        """Keeps the largest difference seen; infinite when shapes differ."""
        have, want = np.asarray(have, np.float64), np.asarray(want, np.float64)
        delta = float(np.abs(have - want).max(initial=0.0)) if have.shape == want.shape else float("inf")
        setattr(self, name, max(getattr(self, name) or 0.0, delta))


def settings_of(recorded: dict) -> StreamSettings:
    """The settings of a recording as those of a stream, with every published behaviour switched on."""
    chunks, seconds = recorded["chunks"], recorded["chunk_seconds"]
    rounds = recorded["vision_window_chunks"], recorded["text_rounds"]
    full = not recorded["recompute"] and min(rounds) >= chunks and recorded["text_sink"] is None
    return StreamSettings(
        window=WindowConfig(
            vision=min(rounds[0], chunks) * seconds,
            text=min(rounds[1], chunks) * seconds,
            sink=recorded["text_sink"],
            tail=recorded["text_window"],
            memory="recompute" if recorded["recompute"] else "full" if full else "stream",
            positions=POSITIONS[recorded["position_mode"]],  # type: ignore[arg-type]
        ),
        sampling=Sampling(
            temperature=0.0,
            repetition_penalty=recorded["repetition_penalty"],
            max_new_tokens=recorded["max_new_tokens"],
            suppress=tuple(recorded["suppress_tokens"]),
        ),
        fps=recorded["fps"],
        chunk_seconds=seconds,
        query=recorded["query"],
        previous_text=recorded["previous_text"],
        duration=chunks * seconds,
        parity=True,
        keep_logits=True,
    )


def kept_ids(session: Session) -> tuple[list[int], int]:
    """Ids kept before the next second as the authors hold them (cached ones, then those without K/V); how many are cached."""
    state, ids = jax.tree.map(lambda x: x[0], dataclasses.replace(session.state, keys=(), values=())), session.config.turns
    slots = window.evict(state.slots, state.window, state.chunk_index, state.last, ids)
    order, live = ring.in_order(slots)
    tail = window.pending(state.window, state.chunk_index, state.last, ids)
    without = np.asarray(tail.token[:2])[np.asarray(tail.valid[:2])]  # the newline comes with the next turn
    return [*np.asarray(slots.token[order])[: int(live)].tolist(), *without.tolist()], int(live)


def fed_ids(session: Session, kept: list[int], start: float, end: float, frames: np.ndarray) -> list[int]:
    """What the model is fed in the next second: kept ids, the newline that is due, and the new turn."""
    grid, settings = session.clip_grid(frames), session.settings
    turn = session.prompt.turn(start, end, grid, settings.query if session.chunks == 0 else None)
    fresh = turn.token[turn.valid].tolist()
    if session.chunks == 0:
        return session.opening().token.tolist() + fresh
    newline = (
        [session.turns.newline]
        if session.settings.window.chunk_counts(settings.chunk_seconds, settings.duration)[1] > 1
        else []
    )
    return kept + newline + fresh


def check_vision(vlm: StreamingVLM, folder: pathlib.Path, implementation: str) -> float:
    """Largest difference of the vision tower's embeddings of the first chunk."""
    want = np.load(folder / "vision.npz")
    grid = tuple(int(n) for n in want["grid_thw"][0])
    frames = np.load(folder / "frames.npz")["frames"][: grid[0] * vlm.config.vision.temporal_patch_size]
    have = functional.bind(vlm.config, vlm.params).encode_video(frames[None], implementation=implementation).tokens[0]
    return float(np.abs(np.asarray(have) - want["video_embeds"]).max())


def compare_cache(row: Row, session: Session, want, key: str) -> None:
    """Cache length, positions, and K/V where they were recorded."""
    state = session.state
    slots = jax.tree.map(lambda x: x[0], state.slots)
    order, live = ring.in_order(slots)
    order = np.asarray(order)[: int(live)]
    row.wrong_inputs += int(live) != int(want[key + "cache_len"])
    limits = jax.tree.map(lambda x: x[0], state.window)
    position, _ = positions.kept_positions(slots, limits, state.native_next[0])
    if key + "positions" in want:
        row.note("positions", np.asarray(position)[:, order], want[key + "positions"])
    if key + "key_last" in want:
        keys = state.keys
        if session.settings.window.positions == "native":  # the authors cache rotated keys in this mode
            keys = functional.bind(session.config.model, session.vlm.params).rotate(keys, position[None])
        for name, have in (("key_layer0", keys[0]), ("key_last", keys[-1]), ("value_last", state.values[-1])):
            row.note("keys_values", np.asarray(have)[0][:, order], want[key + name])


def replay(vlm: StreamingVLM, folder: pathlib.Path, case: str, implementation: str = "auto", chunks: int | None = None) -> Row:
    """Replays one recorded stream, or its first `chunks`."""
    want = np.load(folder / f"{case}.npz")
    recorded = json.loads(str(want["settings"]))
    frames = np.load(folder / recorded.get("frames_file", "frames.npz"))["frames"]
    seconds = recorded["chunk_seconds"]
    per_chunk = int(recorded["fps"] * seconds)
    row = Row(case, recorded["chunks"], vision=check_vision(vlm, folder, implementation))
    session = vlm.stream(settings_of(recorded), implementation=implementation)
    before = step.step._cache_size()
    for i in range(chunks or recorded["chunks"]):
        key = f"{i:03d}/"
        clip = frames[per_chunk * i : per_chunk * (i + 1)]
        start, end = float(i * seconds), float((i + 1) * seconds)
        kept: list[int] = []
        if i:
            kept, live = kept_ids(session)
            row.wrong_inputs += kept != want[key + "kept_ids"].tolist() or live != int(want[key + "kept_cache_len"])
        row.wrong_inputs += fed_ids(session, kept, start, end, clip) != want[key + "input_ids"].tolist()
        caption = session.feed(Chunk(frames=clip, start=start, end=end, read_ms=0.0, lag=0.0, dropped=0.0))
        have, expected = np.asarray(caption.tokens), want[key + "generated_ids"]
        both = min(len(have), len(expected))
        row.tokens += len(expected)
        row.wrong_tokens += abs(len(have) - len(expected)) + int((have[:both] != expected[:both]).sum())
        steps = min(len(want[key + "logits"]), len(have))
        row.note("logits", session.last.logits[0][:steps], want[key + "logits"][:steps])
        row.left = min(row.left, int(session.last.left[0]))
        compare_cache(row, session, want, key)
    row.programs = step.step._cache_size() - before
    return row


def cases(folder: pathlib.Path) -> list[str]:
    """Names of the recorded streams in a folder."""
    return sorted(path.stem for path in folder.glob("*.npz") if not path.stem.startswith(("frames", "vision")))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--case", nargs="*", help="only these cases")
    parser.add_argument("--implementation", default="auto", help="attention implementation (auto)")
    arguments = parser.parse_args(argv)
    vlm = StreamingVLM.from_pretrained(arguments.folder / "checkpoint", dtype="float32")
    out = sys.stdout
    out.write("case                chunks tokens wrong inputs  |dlogit|  |dpos|    |dK/V|    |dvision| left programs\n")
    rows = []
    for case in arguments.case or cases(arguments.folder):
        row = replay(vlm, arguments.folder, case, arguments.implementation)
        rows.append(row)
        shown = ("   -    " if x is None else f"{x:.2e}" for x in (row.logits, row.positions, row.keys_values, row.vision))
        out.write(
            f"{row.case:19s} {row.chunks:6d} {row.tokens:6d} {row.wrong_tokens:5d} {row.wrong_inputs:6d}  "
            f"{'  '.join(shown)}  {row.left:4d} {row.programs:8d}\n"
        )
        out.flush()
    exact = sum(row.exact for row in rows)
    out.write(f"{'PASS' if rows and exact == len(rows) else 'FAIL'}: {exact} of {len(rows)} cases exact\n")
    return 0 if rows and exact == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
