"""What `svlm demo` streams, a match that nobody has seen, and how well its captions told it."""

import json
import tempfile
from pathlib import Path

from svlm_jax.synthetic.match import Match, write_match
from svlm_jax.synthetic.score import Report, score_match

FPS = 8  # smooth enough; copying the video with its captions is most of the demo's work


def prepare(folder: Path, seconds: int, seed: int) -> Path:
    """The video of the first `seconds` of match `seed`, in `folder`; drawn only if it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    match = folder / f"match-{seed}-{seconds}s.mp4"
    if not match.exists():
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            video, _ = write_match(unfinished, seed, seconds / 60, fps=FPS)
            video.replace(match)
    return match


def judge(captions: Path, seed: int) -> Report:
    """The captions of a JSON Lines file against the truth of match `seed`."""
    said = [json.loads(line)["text"] for line in captions.read_text(encoding="utf-8").splitlines()]
    return score_match(Match(seed).seconds(len(said)), said)


def verdict(report: Report) -> str:
    """How well events, scores and silence were told, from 0 to 1 where that is known."""
    events = f"events {_share(report.event_f1)} (F1 of {report.events} events)"
    return f"{events}, scores {_share(report.score_accuracy)}, silence {_share(report.silence_precision)}"


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
