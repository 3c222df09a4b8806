"""The judged half of a row: reads the records, asks the judge, and puts the judgement into the report."""

from pathlib import Path
from typing import Any

from svlm_jax.errors import EvalError
from svlm_jax.eval.judge import Judge, judge_answers, judge_pairs
from svlm_jax.eval.predictions import read_predictions
from svlm_jax.eval.protocols import Row
from svlm_jax.eval.records import stored
from svlm_jax.eval.report import report
from svlm_jax.eval.runner import Run
from svlm_jax.host.files import write_json


def judge_row(run: Run, row: Row, judge: Judge, baseline: Path | None = None) -> dict[str, Any]:
    """The report of a row with a `judgement`: of answers, or of commentary beside the predictions in `baseline`.

    What could not be judged is counted, and asked again by the next run.
    """
    folder = run.results / row
    if not folder.is_dir():
        raise EvalError(f"{folder} holds no results; expected a run of this row before it is judged.")
    items, records = run.items(), stored(folder)
    ours = {name: str(record["response"]) for name, record in records.items() if "response" in record}
    result = {"row": row, **report(run.benchmark, items, records)}
    if run.benchmark.judging == "answer":
        result["judgement"] = judge_answers(judge, items, ours)
    else:
        if baseline is None:
            raise EvalError(f"{run.benchmark.name} compares commentaries; expected a baseline.")
        theirs = read_predictions(baseline, items)
        result["judgement"] = {"baseline": str(baseline), **judge_pairs(judge, items, ours, theirs)}
    write_json(folder / "report.json", result)
    return result
