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
    """Figures in words."""
    parts = [f"{report.events} events were told with an F1 of {_share(report.event_f1)}"]
    parts.append(f"the share of right scores is {_share(report.score_accuracy)}")
    parts.append(f"and that of seconds without a word in which indeed nothing happened is {_share(report.silence_precision)}")
    return ", ".join(parts)


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
