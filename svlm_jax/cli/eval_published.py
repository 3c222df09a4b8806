"""`svlm eval NAME --data DIR`: a published benchmark, in three rows: one-shot prefix, last frames, streaming cache."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svlm_jax.cli import options
from svlm_jax.cli.values import number, shard

if TYPE_CHECKING:
    from rich.console import Console

    from svlm_jax.eval.benchmark import Benchmark
    from svlm_jax.eval.commentary_adapter import CommentaryAdapter
    from svlm_jax.eval.judge import Judge
    from svlm_jax.eval.qa_adapter import QAAdapter
    from svlm_jax.eval.runner import Run

# Name -> what it is; the benchmarks themselves are in `svlm_jax.eval.benchmarks`.
NAMES = {
    "inf-streams": "Inf-Streams-Eval: commentary on whole games (judged)",
    "livesports-cc": "LiveSports-3K-CC: commentary on sports events (judged)",
    "ovo-bench": "OVO-Bench: looking back, now, and ahead",
    "streaming-bench": "StreamingBench: questions at their moment",
    "rvs-ego": "RVS-Ego: open questions on hour-long videos (judged)",
    "rvs-movie": "RVS-Movie: open questions on long movie clips (judged)",
    "mlvu": "MLVU: long videos, seven tasks",
    "longvideobench": "LongVideoBench: long videos by length and category",
    "video-mme": "Video-MME: short, medium and long videos",
    "mvbench": "MVBench: twenty tasks on short videos",
}
REASONS = 3  # why items were skipped: so many are told, the report has all
DESCRIPTION = """\
Measure a model on a published benchmark, whose files are read as they were published. The model sees only what comes before
the moment of a question. It is measured in several ways, called rows; each writes its answers and its report into a folder of
its own, and a run that was stopped goes on where it stopped.

  prefix    the model sees frames spread evenly over the video so far, all at once
  last      it sees the last few frames only
  stream    it watches second by second, through the cache
  chunked   commentary only: every window is a new conversation, which begins with the words said before"""
EXAMPLES = """\
examples:
  svlm eval ovo-bench --data ./ovo-bench --model Qwen/Qwen2.5-VL-7B-Instruct --limit 100
  svlm eval video-mme --data ./video-mme --model ./my-model --rows stream --shard 2/8      the second of eight hosts
  svlm eval livesports-cc --data ./livesports --model ./my-model --baseline gpt-4o.jsonl \\
      --judge-url https://api.openai.com/v1 --judge gpt-4o-mini                            commentary compared with another's
  svlm eval rvs-ego --data ./rvs --judge-url http://localhost:8000/v1 --judge my-judge     judge answers that a run has left"""


def add(benchmarks: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str) -> argparse.ArgumentParser:
    parser = benchmarks.add_parser(name, help=NAMES[name], description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="the benchmark's files and videos, as published")
    parser.add_argument("--results", metavar="FOLDER", help="folder for the folders of the rows (default: eval-results/NAME)")
    parser.add_argument(
        "--rows",
        type=lambda text: text.split(","),
        metavar="ROWS",
        help="which rows to measure: prefix,last,stream or some of these (default: all)",
    )
    parser.add_argument(
        "--limit", type=number(int, least=1), metavar="N", help="take only the first N items of the benchmark (default: all)"
    )
    parser.add_argument(
        "--answers",
        metavar="FOLDER",
        help="score the answers in this folder, which the benchmark ships (ovo-bench), and run no model",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="K/N",
        help="take the K-th of N shares of the videos, so that several hosts share the work (default: 1/1)",
    )
    _model(parser.add_argument_group("model"))
    _protocol(parser.add_argument_group("protocol"))
    _judge(parser.add_argument_group("judge"))
    return parser


def _model(group: argparse._ArgumentGroup) -> None:
    options.add_model(group, required=False)
    options.add_running(group)
    options.add_window(group)
    options.add_memory(group, why="what answers are read from, as in `svlm ask`", default=None)
    options.add_seed(group)


def _protocol(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fps",
        type=number(float, above=0),
        metavar="N",
        help="frames per second that the model sees (default: the benchmark's, 2, or 0.5 for RVS)",
    )
    group.add_argument(
        "--prefix-frames", type=number(int, least=2), metavar="N", help="most frames of the row prefix (default: 64)"
    )
    group.add_argument("--last-frames", type=number(int, least=2), metavar="N", help="frames of the row last (default: 4)")
    group.add_argument(
        "--last-fps", type=number(float, above=0), metavar="N", help="frames per second of the row last (default: 1)"
    )
    group.add_argument(
        "--max-new-tokens", type=number(int, least=1), metavar="N", help="most tokens of an answer (default: the benchmark's)"
    )
    options.add_pixels(group)
    group.add_argument(
        "--previous",
        choices=("truth", "own"),
        help="words that a new window of the row chunked begins with: a human's, or the model's own (default: truth)",
    )


def _judge(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--judge", metavar="NAME", help="name of the language model that judges the answers")
    group.add_argument(
        "--judge-url",
        metavar="URL",
        help="address of that model's OpenAI-compatible API, whose key is read from OPENAI_API_KEY",
    )
    group.add_argument(
        "--baseline", metavar="FILE", help="commentary to compare with, in the format in which predictions were published"
    )


def run(arguments: argparse.Namespace) -> int:
    """A table of rows; each row's report lies beside its records."""
    from rich.console import Console

    from svlm_jax.errors import ConfigError
    from svlm_jax.eval.benchmarks import named
    from svlm_jax.eval.judging import judge_row
    from svlm_jax.eval.predictions import read_predictions
    from svlm_jax.eval.runner import run_row, score_answers

    benchmark = named(arguments.benchmark)
    rows = arguments.rows or benchmark.rows
    for row in rows:
        benchmark.check_row(row)
    judge = _open_judge(arguments, benchmark)
    console, reports = Console(highlight=False), []
    if arguments.answers is not None:
        _show(console, score_answers(_run(arguments, benchmark, None), Path(arguments.answers)))
        return 0
    if arguments.model is None and judge is None:
        raise ConfigError("neither --model nor --judge: expected a model to measure, or a judge for the results of a run")
    items = _run(arguments, benchmark, None).items()  # what is wrong with files is said before a model is loaded
    if judge is not None and arguments.baseline:
        read_predictions(Path(arguments.baseline), items)
    watcher = None if arguments.model is None else _model_of(arguments, benchmark)
    planned = _run(arguments, benchmark, watcher)
    for row in rows:
        if watcher is not None:
            from svlm_jax.host.progress import loading

            with loading(f"{benchmark.name} {row}") as progress:
                reports.append(run_row(planned, watcher, row, progress=progress))
        if judge is not None:
            judged = judge_row(planned, row, judge, Path(arguments.baseline) if arguments.baseline else None)
            reports = [*(report for report in reports if report["row"] != row), judged]
        _show(console, reports[-1])
    console.print(f"Written: {planned.results}", markup=False)
    return 0


def _run(arguments: argparse.Namespace, benchmark: "Benchmark", watcher: "CommentaryAdapter | QAAdapter | None") -> "Run":
    import dataclasses

    from svlm_jax.eval.runner import Run
    from svlm_jax.models.resize_rule import PUBLISHED

    names = ("fps", "prefix_frames", "last_frames", "last_fps", "max_new_tokens", "previous")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    most = arguments.max_pixels
    return Run(
        benchmark,
        Path(arguments.data),
        Path(arguments.results or f"eval-results/{benchmark.name}"),
        dataclasses.replace(benchmark.protocol, **given),
        limit=arguments.limit,
        shard=arguments.shard,
        resize=PUBLISHED.at_most(most) if watcher is None else watcher.vlm.resize_rule(most),
    )


def _watcher(arguments: argparse.Namespace) -> "CommentaryAdapter":
    import dataclasses

    from svlm_jax.cli.stream_spec import ModelSpec
    from svlm_jax.eval.commentary_adapter import CommentaryAdapter
    from svlm_jax.host.compile_cache import keep_compiled
    from svlm_jax.host.progress import Stages

    keep_compiled(arguments.compile_cache)
    with Stages("starting") as stages:
        vlm = ModelSpec.of(arguments).load(stages)
    kept = dataclasses.replace(vlm.defaults.window, **options.window_changes(arguments))
    settings = dataclasses.replace(
        vlm.defaults,
        window=kept,
        seed=arguments.seed,
        max_pixels=arguments.max_pixels,
        implementation=arguments.implementation,
        cache_dtype=arguments.cache_dtype,
    )
    return CommentaryAdapter(vlm, settings, revision=arguments.revision)


def _model_of(arguments: argparse.Namespace, benchmark: "Benchmark") -> "CommentaryAdapter | QAAdapter":
    """The model with the memory that was asked for; what cannot be measured with it is said before it is loaded."""
    from svlm_jax.errors import ConfigError

    if arguments.memory is None:
        return _watcher(arguments)
    if benchmark.judging == "pair":
        raise ConfigError(
            f"--memory {arguments.memory.name}: {benchmark.name} is commentary; expected a benchmark of questions"
        )
    from svlm_jax.eval.qa_adapter import QAAdapter

    longest = arguments.max_new_tokens or benchmark.protocol.max_new_tokens
    return QAAdapter(_watcher(arguments), arguments.memory, max_new_tokens=longest)


def _open_judge(arguments: argparse.Namespace, benchmark: "Benchmark") -> "Judge | None":
    from svlm_jax.errors import ConfigError
    from svlm_jax.eval.judge import Judge
    from svlm_jax.host.chat_client import Endpoint

    if (arguments.judge is None) != (arguments.judge_url is None):
        raise ConfigError("--judge and --judge-url belong together: expected the judge's name and its endpoint")
    if arguments.judge is None:
        return None
    if benchmark.judging == "none":
        raise ConfigError(f"--judge: {benchmark.name} needs no judge, its answers are letters and numbers")
    if benchmark.judging == "pair" and arguments.baseline is None:
        raise ConfigError(f"--baseline: {benchmark.name} compares commentaries; expected a file of another model's predictions")
    results = Path(arguments.results or f"eval-results/{benchmark.name}")
    return Judge(Endpoint(arguments.judge_url, arguments.judge), results / "verdicts.jsonl")


def _show(console: "Console", report: Mapping[str, Any]) -> None:
    """One row: totals, then what became of the items."""
    counts = report["counts"]
    console.print(f"{report['row']:>8}  {_scores(report)}", markup=False, soft_wrap=True)
    for track, official in report.get("official", {}).get("tracks", {}).items():
        console.print(f"{'':>8}  {track}: {official} ({report['strict']['tracks'][track]} strict)", markup=False)
    skipped = counts["skipped"]
    told = f"{counts['answered']} of {counts['items']} items answered, {counts['unparsed']} unparsed, {counts['empty']} empty"
    told += f", {sum(skipped.values())} skipped, {counts['missing']} missing"
    console.print(f"{'':>8}  {told}", markup=False, soft_wrap=True)
    for why in sorted(skipped, key=skipped.get, reverse=True)[:REASONS]:
        console.print(f"{'':>8}  {skipped[why]} skipped: {why}", markup=False, soft_wrap=True)
    if "judgement" in report:
        judged = report["judgement"]
        told = (
            f"{judged['judged']} of {judged['items']} items judged; of {judged['verdicts']} verdicts {judged['failed']} failed"
        )
        console.print(f"{'':>8}  {told}, {judged['unparsed']} unparsed", markup=False, soft_wrap=True)
    cost = report["cost"]
    if cost["tokens_mean"] is not None:
        spent = f"{cost['tokens_mean']:,} tokens in the cache and {cost['answer_ms_median']} ms for an answer"
        console.print(f"{'':>8}  {spent}", markup=False)


def _scores(report: Mapping[str, Any]) -> str:
    if "official" in report:
        return f"{report['official']['total']} ({report['strict']['total']} strict)"
    if "judgement" not in report:
        return "no score without a judge"
    judged = report["judgement"]
    parts = [f"{name} {judged['official'][name]} ({judged['strict'][name]} strict)" for name in judged["official"]]
    if "consistency" in judged:
        parts.append(f"consistency {judged['consistency']}")
    return f"{', '.join(parts)}; judge {judged['judge']}, {' to '.join(dict.fromkeys(judged['dates'])) or 'no verdict'}"
