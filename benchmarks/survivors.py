"""How old are the tokens that survive? Buckets that are spans of the stream, against spans of what is cached.

    python -m benchmarks.survivors [--hours 2] [--out benchmarks/results/survivors]

LiveVLM's published sizes (12,000 tokens, clips of 32 frames of 196 tokens at 0.5 frames a second, half by score and half by
buckets), for a stream whose scores are drawn at random (log-normal, new in each round, and 16 times higher for one token in
fifty: sinks). Nothing but the rule decides, so the figure shows what each kind of bucket does to the past. Writes OUT.json
and OUT.png.
"""

import argparse
import functools
import json
import pathlib
import sys

import jax
import matplotlib.figure
import numpy as np

from svlm_jax.cache import vsb
from svlm_jax.host.files import write_json
from svlm_jax.host.machine import describe

BUDGET, SHORT, FRAME, CLIP, FPS = 12_000, 392, 196, 32, 0.5
BINS = 24
KINDS = {"stream": "buckets of the stream", "cache": "buckets of the cache"}


def ages(hours: float, *, by_stream: bool, seed: int = 0) -> np.ndarray:
    """Minutes since each surviving token was seen."""
    rng = np.random.default_rng(seed)
    top = (BUDGET - SHORT) // 2
    keep = jax.jit(functools.partial(vsb.compress, budget=BUDGET, short=SHORT, top=top, by_stream=by_stream))
    clip = CLIP * FRAME
    place = np.zeros(BUDGET + clip, np.int32)
    count, clips = 0, int(hours * 3600 * FPS / CLIP)
    for i in range(clips):
        place[count : count + clip] = np.arange(i * clip, (i + 1) * clip)
        score = rng.lognormal(size=len(place)).astype(np.float32)
        score[place % 50 == 7] *= 16
        kept = np.asarray(keep(score, place, np.int32(count + clip), np.int32((i + 1) * clip)))
        count = int(kept.sum())
        place[:count] = place[kept]
    return (clips * clip - 1 - place[:count]) / FRAME / FPS / 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/survivors"))
    arguments = parser.parse_args()
    edges = np.linspace(0, arguments.hours * 60, BINS + 1)
    found = {kind: ages(arguments.hours, by_stream=kind == "stream") for kind in KINDS}
    result = {
        "what": f"Tokens that survive {arguments.hours:g} hours, by age in minutes; scores drawn at random",
        "command": f"python -m benchmarks.survivors --hours {arguments.hours:g}",
        "machine": describe(),
        "edges_minutes": edges.round(3).tolist(),
        "tokens": {kind: np.histogram(age, edges)[0].tolist() for kind, age in found.items()},
        "older_than_half": {kind: round(float((age > arguments.hours * 30).mean()), 4) for kind, age in found.items()},
    }
    write_json(arguments.out.with_suffix(".json"), result)
    draw(result, arguments.out.with_suffix(".png"))
    sys.stderr.write(json.dumps(result["older_than_half"]) + "\n")
    return 0


def draw(result: dict, path: pathlib.Path) -> None:
    edges = np.asarray(result["edges_minutes"])
    figure = matplotlib.figure.Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for kind, label in KINDS.items():
        axes.stairs(result["tokens"][kind], edges, label=label, linewidth=1.6)
    axes.set(xlabel="age of the token (minutes)", ylabel="tokens kept", yscale="log", xlim=(0, edges[-1]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
