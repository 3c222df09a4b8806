"""What 8 bits cost in quality: weights, caches, and both, beside the same model in float32.

    python -m benchmarks.quantised [--minutes 4] [--seeds 3] [--golden tests/golden] [--json FILE]

For each format, of weights and of the cache:
    kl              nats between the distributions of the next token, mean over the tokens of random sequences, of a model of 11
                    million random parameters (weights only: whole sequences need no cache)
    event_f1, ...   the match commentator of this package on drawn matches (`svlm eval match`)
    right           the memory of facts of this package, weights only: its memory keeps its keys whole
    tokens          share of the recorded tokens that are said in their places; seconds: of the recorded seconds whose words are
                    all the recorded ones (15 recordings, greedy; what is said once otherwise stays in the cache)

Every row is written as soon as it is finished, and not measured again when it is there.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import golden_replay
from svlm_jax.cache.number_formats import EightBit
from svlm_jax.checkpoint import named
from svlm_jax.eval.results import Rows, manifest
from svlm_jax.models import functional
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.evaluate import evaluate_match
from svlm_jax.synthetic.evaluate_facts import evaluate_facts
from svlm_jax.video.chunk import Chunk

RESULTS = pathlib.Path(__file__).parent / "results" / "quantised.json"
FIGURES = ("event_f1", "precision", "recall", "score_accuracy")
PARTS = ("divergence", "golden", "match", "facts")
TOKENS, SEQUENCES = 64, 8  # of the random sequences


@dataclasses.dataclass(frozen=True)
class Format:
    """Number formats of the decoder's weights and of the cache; None = float32."""

    weights: EightBit | None
    cache: EightBit | None

    @property
    def name(self) -> str:
        return f"weights {self.weights or 'float32'}, cache {self.cache or 'float32'}"


FORMATS = (
    Format(None, None),
    *(Format(one, None) for one in get_args(EightBit)),
    *(Format(None, one) for one in get_args(EightBit)),
    Format("int8", "int8"),
)


def divergence(model: str, weights: EightBit | None) -> float:
    """Kullback-Leibler divergence of the next token's distribution from that of the whole model, in nats, mean over tokens."""
    whole = named.load(model, dtype=jnp.float32)
    tokens = jax.random.randint(jax.random.key(0), (SEQUENCES, TOKENS), 0, 250)
    positions = jnp.broadcast_to(jnp.arange(float(TOKENS)), (SEQUENCES, 3, TOKENS))

    @jax.jit
    def scores(params: Any) -> jax.Array:
        return jax.nn.log_softmax(functional.bind(whole.config, params)(tokens, positions))

    p, q = scores(whole.params), scores(named.load(model, dtype=jnp.float32, quantize=weights).params)
    return float((jnp.exp(p) * (p - q)).sum(-1).mean())


def replayed(vlm: StreamingVLM, folder: pathlib.Path, case: str, cache: EightBit | None) -> tuple[int, int, int, int]:
    """Recorded tokens and seconds of a case, and how many of them are said in their places."""
    want = np.load(folder / f"{case}.npz")
    recorded = json.loads(str(want["settings"]))
    frames = np.load(folder / recorded.get("frames_file", "frames.npz"))["frames"]
    seconds, count = recorded["chunk_seconds"], int(recorded["fps"] * recorded["chunk_seconds"])
    session = vlm.stream(golden_replay.settings_of(recorded), cache_dtype=cache, keep_logits=False)
    tokens = right = whole = 0
    for i in range(recorded["chunks"]):
        clip = frames[count * i : count * (i + 1)]
        said = session.feed(Chunk(clip, float(i * seconds), float((i + 1) * seconds))).tokens
        expected = want[f"{i:03d}/generated_ids"].tolist()
        tokens += len(expected)
        right += sum(a == b for a, b in zip(said, expected, strict=False))
        whole += list(said) == expected
    return tokens, right, recorded["chunks"], whole


def golden(root: pathlib.Path, of: Format) -> dict[str, float]:
    """Shares over all recordings."""
    counts = np.zeros(4, int)
    for folder in (root / "streamingvlm", root / "qwen2_vl"):
        vlm = StreamingVLM.from_pretrained(folder / "checkpoint", dtype="float32", quantize=of.weights)
        for case in golden_replay.cases(folder):
            counts += replayed(vlm, folder, case, of.cache)
    tokens, right, seconds, whole = counts.tolist()
    return {"tokens": right / tokens, "seconds": whole / seconds, "of_tokens": tokens, "of_seconds": seconds}


def matches(of: Format, minutes: float, seeds: int) -> dict[str, float]:
    """Means over matches that no training has seen."""
    vlm = StreamingVLM.from_pretrained("embedded", dtype="float32", quantize=of.weights)
    settings = dataclasses.replace(vlm.defaults, cache_dtype=of.cache)
    found = [evaluate_match(vlm, 9001 + seed, minutes, settings) for seed in range(seeds)]
    return {name: statistics.mean(one[name] for one in found) for name in FIGURES}


def facts(of: Format, minutes: float, seeds: int) -> dict[str, float | None]:
    vlm = StreamingVLM.from_pretrained("embedded-facts", dtype="float32", quantize=of.weights)
    return {"right": statistics.mean(evaluate_facts(vlm, 9001 + seed, minutes)["right"] or 0.0 for seed in range(seeds))}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="of each match and of each stream of facts (4)")
    parser.add_argument("--seeds", type=int, default=3, help="matches and streams of facts (3)")
    parser.add_argument("--model", default="random:small", help="of which the divergence is taken (random:small)")
    parser.add_argument("--golden", type=pathlib.Path, default=pathlib.Path("tests/golden"), help="folder of the recordings")
    parser.add_argument("--json", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all four")
    arguments = parser.parse_args(argv)
    settings = {"minutes": arguments.minutes, "seeds": arguments.seeds, "model": arguments.model}
    rows = Rows(arguments.json, settings, manifest(["python", "-m", "benchmarks.quantised", *sys.argv[1:]]))
    parts: dict[str, Callable[[Format], dict[str, Any] | None]] = {
        "divergence": lambda of: {"kl": divergence(arguments.model, of.weights)} if not of.cache and of.weights else None,
        "golden": lambda of: golden(arguments.golden, of),
        "match": lambda of: matches(of, arguments.minutes, arguments.seeds),
        "facts": lambda of: None if of.cache else facts(of, arguments.minutes, arguments.seeds),
    }
    for part, measure in parts.items():
        for of in FORMATS if part in (arguments.part or PARTS) else ():
            name = f"{part}: {of.name}"
            if name in rows or (row := measure(of)) is None:
                continue
            rows.add(name, row)
            shown = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
            sys.stdout.write(f"{name}: {shown}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
