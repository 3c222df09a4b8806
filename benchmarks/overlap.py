"""Does training on overlapping chunks help? The same matches, cut into chunks of 24 s every 12 s and every 24 s.

    python -m benchmarks.overlap [--matches 8] [--minutes 30] [--steps 400] [--seeds 0,1] [--out FILE]

arXiv 2510.09608, table 7. Matches are written as video files with annotations in the published format, and read back as any
other data set: chunks that were drawn afresh each time, as for the embedded model, could not overlap. Both models have the
embedded model's shape, and for a seed the same random beginning and as many steps; half as many chunks are seen twice as often.
Then both stream the same unseen matches, free-running. Scores are not compared: learning to count them takes longer.

A run that was interrupted goes on; a row that is in the file is not made again. A row takes 20 minutes on two CPU cores.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich.console

from configs.match import BUCKETS, SIZE, get_config
from svlm_jax.data.annotations import Annotation, write_annotations
from svlm_jax.data.windows import Overlapped, overlapped
from svlm_jax.errors import SvlmError
from svlm_jax.eval.results import Rows, manifest
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.evaluate import evaluate_match
from svlm_jax.synthetic.match import QUIET, Match, write_match
from svlm_jax.synthetic.tokenizer import write_tokenizer
from svlm_jax.synthetic.world import TICKS
from svlm_jax.train.config import AnnotationSet, TrainConfig
from svlm_jax.train.run import export_run, run

RESULTS = pathlib.Path(__file__).parent / "results" / "overlap.json"
STRIDES = {"with overlap": 12.0, "without overlap": 24.0}  # s from the start of one chunk to that of the next
TRAINED, UNSEEN = 5001, (1001, 1002, 1003)  # seeds: of the first match to train on, and of those to stream
FIGURES = ("event_f1", "names", "silence_precision")


def draw_matches(folder: pathlib.Path, seeds: range, minutes: float, console: rich.console.Console) -> None:
    """Video files, those left out that are there."""
    for seed in seeds:
        if not (folder / f"match-{seed}_with_seeks.jsonl").exists():  # written last
            write_match(folder, seed, minutes, fps=TICKS)
            console.print(f"match {seed} is drawn")


def write_chunks(path: pathlib.Path, seeds: range, minutes: float, stride: float) -> int:
    """Annotations of all matches, cut every `stride` seconds; returns the number of chunks."""
    rule, seconds = Overlapped(stride=stride, words_per_second=QUIET.words_per_second), round(60 * minutes)

    def chunks() -> Iterator[Annotation]:
        for seed in seeds:
            words = [word for second in Match(seed).seconds(seconds) for word in second.words]
            yield from overlapped(f"match-{seed}.mp4", words, rule, duration=seconds)

    return write_annotations(path, chunks())


def config_of(row: str, annotations: pathlib.Path, steps: int, seed: int) -> TrainConfig:
    """The embedded model's run on chunks with pictures alone, from files. `seed` is of the weights and of the order."""
    config = get_config()
    pipeline = dataclasses.replace(config.data.pipeline, buckets=BUCKETS[:1])
    data = dataclasses.replace(
        config.data,
        sets=(AnnotationSet(str(annotations)),),
        pipeline=dataclasses.replace(pipeline, seed=seed),
        resize=dataclasses.replace(PUBLISHED, size=SIZE),
    )
    return dataclasses.replace(
        config,
        name=row.replace(",", "").replace(" ", "-"),
        seed=seed,
        data=data,
        evaluation=dataclasses.replace(config.evaluation or data, pipeline=pipeline),
        loop=dataclasses.replace(config.loop, steps=steps, accumulate=1),
        folder=str(annotations.parent / "runs"),
    )


def trained(name: str, seed: int, arguments: argparse.Namespace, console: rich.console.Console) -> tuple[StreamingVLM, int]:
    """The model, which is trained and exported if it is not there, and how many chunks it learned from."""
    folder, seeds = arguments.folder, range(TRAINED, TRAINED + arguments.matches)
    draw_matches(folder, seeds, arguments.minutes, console)
    annotations = folder / f"{name.replace(' ', '-')}_with_seeks.jsonl"
    chunks = write_chunks(annotations, seeds, arguments.minutes, STRIDES[name])
    config = config_of(row_of(name, seed), annotations, arguments.steps, seed)
    tokenizer = pathlib.Path(config.model.tokenizer or "")
    if not (tokenizer / "tokenizer.json").exists():
        write_tokenizer(tokenizer)
    if run(config, console.print) == "preempted":
        raise SvlmError("the training was interrupted; the same command goes on.")
    exported = config.home / "exported"
    if not exported.exists():
        export_run(config, exported)
    return StreamingVLM.from_pretrained(exported), chunks


def row_of(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matches", type=int, default=8, help="to train on")
    parser.add_argument("--minutes", type=float, default=30, help="of each of them")
    parser.add_argument("--steps", type=int, default=400, help="of 8 chunks")
    parser.add_argument("--seeds", default="0,1", help="of weights and order, such as 0,1; a pair of rows each")
    parser.add_argument("--unseen-minutes", type=float, default=20, help="of each match that is streamed")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/overlap"), help="of videos and runs")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    console = rich.console.Console(highlight=False, soft_wrap=True)
    settings = {name: getattr(arguments, name) for name in ("matches", "minutes", "steps", "unseen_minutes")}
    try:
        rows = Rows(arguments.out, settings, manifest(["python", "-m", "benchmarks.overlap", *(argv or sys.argv[1:])]))
        for seed, (name, stride) in itertools.product(map(int, arguments.seeds.split(",")), STRIDES.items()):
            row = row_of(name, seed)
            if row in rows:
                console.print(f"{row}: there already")
                continue
            vlm, chunks = trained(name, seed, arguments, console)
            found = [evaluate_match(vlm, unseen, arguments.unseen_minutes) for unseen in UNSEEN]
            rows.add(row, {"seed": seed, "stride": stride, "chunks": chunks, **_mean(found), "matches": found})
        console.print(json.dumps({name: {key: row[key] for key in FIGURES} for name, row in rows.rows.items()}, indent=1))
    except SvlmError as error:
        parser.error(str(error))
    return 0


def _mean(found: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of each figure over the matches; None where no match has it."""
    values = {key: [one[key] for one in found if one[key] is not None] for key in FIGURES}
    return {key: round(statistics.fmean(each), 4) if each else None for key, each in values.items()}


if __name__ == "__main__":
    sys.exit(main())
