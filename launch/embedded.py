"""Makes the model that is part of the package, from nothing: `python -m launch.embedded`.

Writes the tokenizer, trains as configs/match.py says (a run that was interrupted goes on), exports in bfloat16, streams matches
that were never trained on, and writes what came out on the model's card. An hour and a half on two CPU cores.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from svlm_jax.checkpoint.convert import convert
from svlm_jax.errors import CheckpointError, SvlmError
from svlm_jax.machine import describe
from svlm_jax.streaming.session import StreamingVLM
from svlm_jax.synthetic.evaluate import evaluate_match
from svlm_jax.synthetic.tokenizer import write_tokenizer
from svlm_jax.train.config import TrainConfig, load_config
from svlm_jax.train.run import export_run, run

CONFIG = Path(__file__).parents[1] / "configs" / "match.py"
SEEDS, MINUTES = (1001, 1002, 1003), 20.0  # of the card; the training draws its seeds from 2^48
FIGURES = {
    "event_f1": "event F1 (right event, right team, within a second)",
    "names": "players named rightly",
    "silence_precision": "silence where nothing happened",
    "score_accuracy": "score lines with the true score, per game",
    "score_consistency": "score lines that follow from its own last",
    "seconds_per_second": "compute for a second of the match (s)",
}
CARD = """\
---
license: apache-2.0
pipeline_tag: video-text-to-text
---

# The embedded model

A Qwen2.5-VL of {parameters:.2f} million parameters that commentates on the endless match (`synthetic:match?seed=...`): who has
the ball, passes, steals, shots, saves and goals, which it must see, and the score and who scored last, which it must remember,
because a board shows the score at the first kick-off of a game only. It knows nothing else.

Made by `python -m launch.embedded`: from random weights (seed {seed}), {steps:,} steps of 8 chunks of 24 s with pictures and 8
of 165 s of which only scores are learned, float32, in {minutes:.0f} minutes on {processor} ({cores} cores, jax {jax}){note}.

Every chunk is of a match drawn for it, so training never sees a chunk twice.

Streamed free-running on {count} matches of {match_minutes:.0f} minutes that it was not trained on (seeds {seeds}):

| | mean | each |
|---|---|---|
{rows}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, exports and measures; 0, or 42 when the training was preempted."""
    parser = argparse.ArgumentParser(prog="python -m launch.embedded", description=__doc__)
    parser.add_argument("changes", nargs="*", metavar="name=value", help="fields of configs/match.py to change")
    parser.add_argument("--output", type=Path, default=Path("runs/embedded"), help="a folder that does not exist yet")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each match that is streamed for the card")
    parser.add_argument("--note", default="", help="what the card says about the machine")
    arguments = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if arguments.output.exists():
            raise CheckpointError(f"{arguments.output} exists already, expected a folder that does not.")
        config = load_config(CONFIG, arguments.changes)
        tokenizer = Path(config.model.tokenizer or "")
        if not (tokenizer / "tokenizer.json").exists():
            write_tokenizer(tokenizer)
        if run(config, console.print) == "preempted":
            return 42
        with tempfile.TemporaryDirectory() as scratch:
            steps = export_run(config, Path(scratch) / "float32")
            convert(Path(scratch) / "float32", arguments.output, to="hf", dtype="bfloat16")
        vlm = StreamingVLM.from_pretrained(arguments.output)
        figures = []
        for seed in SEEDS:
            figures.append(evaluate_match(vlm, seed, arguments.minutes))
            console.print({name: figures[-1][name] for name in FIGURES})
        card = _card(config, vlm, steps, figures, arguments.note)
        (arguments.output / "README.md").write_text(card, encoding="utf-8")
    except SvlmError as error:
        console.print(f"svlm: {' '.join(str(error).split())}", markup=False)
        return 2
    return 0


def _card(config: TrainConfig, vlm: StreamingVLM, steps: int, figures: Sequence[Mapping[str, Any]], note: str) -> str:
    import jax

    records = [json.loads(line) for line in (config.home / "metrics.jsonl").read_text().splitlines()]
    machine = describe()
    rows = []
    for name, title in FIGURES.items():
        # A short match may have nothing to be judged by.
        values = [one[name] for one in figures if one[name] is not None]
        mean = f"{statistics.fmean(values):.3f}" if values else "-"
        rows.append(f"| {title} | {mean} | {', '.join(f'{value:.3f}' for value in values) or '-'} |")
    return CARD.format(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(vlm.params)) / 1e6,
        seed=config.seed,
        steps=steps,
        minutes=sum(record.get("seconds", 0.0) for record in records) / 60,
        processor=machine["processor"],
        cores=machine["cores"],
        jax=machine["jax"],
        note=f"; {note}" if note else "",
        count=len(figures),
        match_minutes=figures[0]["minutes"],
        seeds=", ".join(str(one["seed"]) for one in figures),
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    sys.exit(main())
