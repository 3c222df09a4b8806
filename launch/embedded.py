"""Makes a model that is part of the package, from nothing: `python -m launch.embedded [--model embedded-facts]`.

Writes the tokenizer, trains as configs/match.py or configs/facts.py says (a run that was interrupted goes on), exports in
bfloat16, streams what it was never trained on, and writes what came out on the model's card. On two CPU cores that takes an
hour and a half; for the facts a quarter of an hour.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from svlm_jax.checkpoint.convert import convert
from svlm_jax.errors import CheckpointError, SvlmError
from svlm_jax.host.files import write_text
from svlm_jax.host.machine import describe
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.evaluate import evaluate_match
from svlm_jax.synthetic.evaluate_facts import evaluate_facts
from svlm_jax.synthetic.facts_tokenizer import write_facts_tokenizer
from svlm_jax.synthetic.tokenizer import write_tokenizer
from svlm_jax.train.config import TrainConfig, load_config
from svlm_jax.train.run import export_run, run

HEAD = """\
---
license: apache-2.0
pipeline_tag: video-text-to-text
---

"""
MATCH = (
    HEAD
    + """\
# The embedded model

A Qwen2.5-VL of {parameters:.2f} million parameters that commentates on the endless match (`synthetic:match?seed=...`): who has
the ball, passes, steals, shots, saves and goals, which it must see, and the score and who scored last, which it must remember,
because a board shows the score at the first kick-off of a game only. It knows nothing else.

Made by `python -m launch.embedded`: from random weights (seed {seed}), {steps:,} steps of 8 chunks of 24 s with pictures and 8
of 165 s of which only scores are learned, float32, in {minutes:.0f} minutes on {processor} ({cores} cores, jax {jax}){note}.

Every chunk is of a match drawn for it, so training never sees a chunk twice.

Streamed free-running on {count} matches of {length:g} minutes that it was not trained on (seeds {seeds}):

| | mean | each |
|---|---|---|
{rows}
"""
)
FACTS = (
    HEAD
    + """\
# The embedded model of facts

A Qwen2.5-VL of {parameters:.2f} million parameters that answers one kind of question about `synthetic:facts?seed=...`: "What
was on the red over blue flag?" A card is seen for six seconds and never again; the answer is one of eight signs. It knows
nothing else.

    svlm ask "synthetic:facts?seed=3&minutes=5" "What was on the pink over yellow flag?" --model embedded-facts

Made by `python -m launch.embedded --model embedded-facts`: from random weights (seed {seed}), {steps:,} steps of 16 clips of 8,
32 or 128 s, float32, in {minutes:.0f} minutes on {processor} ({cores} cores, jax {jax}){note}.

No clip is seen twice. Three clips in four have the temporal positions of a longer stream, up to 1,500 temporal grids.

All facts of {count} streams of {length:g} minutes that it was not trained on (seeds {seeds}), one every 6 to 24 s, asked at the
end, from a memory of everything:

| | mean | each |
|---|---|---|
{rows}

`benchmarks/recall.py` asks it about an hour.
"""
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A model of the package: how it is made and measured, and what its card says.

    Attributes:
      config: stem of its file in configs/.
      evaluate: model, seed, minutes -> figures.
      figures: their names, and what they are called on the card.
      minutes: of each stream that it is measured on.
    """

    config: str
    write_tokenizer: Callable[[Path], None]
    evaluate: Callable[[StreamingVLM, int, float], Mapping[str, Any]]
    figures: Mapping[str, str]
    card: str
    minutes: float


KINDS = {
    "embedded": Kind(
        "match",
        write_tokenizer,
        evaluate_match,
        {
            "event_f1": "event F1 (right event, right team, within a second)",
            "names": "players named rightly",
            "silence_precision": "silence where nothing happened",
            "score_accuracy": "score lines with the true score, per game",
            "score_consistency": "score lines that follow from its own last",
            "seconds_per_second": "compute for a second of the match (s)",
        },
        MATCH,
        20.0,
    ),
    "embedded-facts": Kind(
        "facts",
        write_facts_tokenizer,
        evaluate_facts,
        {"right": "right answers", "blank": "right answers when every picture is grey (guessing: 0.125)"},
        FACTS,
        2.0,
    ),
}
SEEDS = (1001, 1002, 1003)  # of the card; the training draws its seeds from 2^48


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, exports and measures; 0, or 42 when the training was preempted."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.embedded", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("changes", nargs="*", metavar="name=value", help="fields of the config to change")
    parser.add_argument("--model", choices=KINDS, default="embedded", help="which one (embedded: the commentator)")
    parser.add_argument("--output", type=Path, help="a folder that does not exist yet (runs/ and the model's name)")
    parser.add_argument("--minutes", type=float, help="of each stream that is watched for the card (20; of facts 2)")
    parser.add_argument("--note", default="", help="what the card says about the machine")
    arguments = parser.parse_args(argv)
    kind, output = KINDS[arguments.model], arguments.output or Path("runs") / arguments.model
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if output.exists():
            raise CheckpointError(f"{output} exists already, expected a folder that does not.")
        config = load_config(kind.config, arguments.changes)
        tokenizer = Path(config.model.tokenizer or "")
        if not (tokenizer / "tokenizer.json").exists():
            kind.write_tokenizer(tokenizer)
        if run(config, console.print) == "preempted":
            return 42
        with tempfile.TemporaryDirectory() as scratch:
            steps = export_run(config, Path(scratch) / "float32")
            convert(Path(scratch) / "float32", output, to="hf", dtype="bfloat16")
        vlm = StreamingVLM.from_pretrained(output)
        minutes = kind.minutes if arguments.minutes is None else arguments.minutes
        found = []
        for seed in SEEDS:
            found.append(kind.evaluate(vlm, seed, minutes))
            console.print({name: found[-1][name] for name in kind.figures})
        card = _card(kind, config, vlm, steps, minutes, found, arguments.note)
        write_text(output / "README.md", card)
    except SvlmError as error:
        console.print(f"svlm: {' '.join(str(error).split())}", markup=False)
        return 2
    return 0


def _card(
    kind: Kind,
    config: TrainConfig,
    vlm: StreamingVLM,
    steps: int,
    minutes: float,
    found: Sequence[Mapping[str, Any]],
    note: str,
) -> str:
    records = [json.loads(line) for line in (config.home / "metrics.jsonl").read_text().splitlines()]
    machine = describe()
    rows = []
    for name, title in kind.figures.items():
        # A short match may have nothing to be judged by.
        values = [one[name] for one in found if one[name] is not None]
        mean = f"{statistics.fmean(values):.3f}" if values else "-"
        rows.append(f"| {title} | {mean} | {', '.join(f'{value:.3f}' for value in values) or '-'} |")
    return kind.card.format(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(vlm.params)) / 1e6,
        seed=config.seed,
        steps=steps,
        minutes=sum(record.get("seconds", 0.0) for record in records) / 60,
        processor=machine["processor"],
        cores=machine["cores"],
        jax=machine["jax"],
        note=f"; {note}" if note else "",
        count=len(found),
        length=minutes,
        seeds=", ".join(map(str, SEEDS)),
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    sys.exit(main())
