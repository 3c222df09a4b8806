"""Inf-Streams-Eval (arXiv 2510.09608, section 2.3.3): commentary on whole games, judged in windows of about 100 s.

A game is watched from 1000 s on with the commentary until then as previous text; `stream` goes on to its end ("infinite"),
`chunked` begins afresh with every window.
"""

from pathlib import Path

from svlm_jax.errors import EvalError
from svlm_jax.eval import files
from svlm_jax.eval.benchmark import COMMENTARY_ROWS, Benchmark
from svlm_jax.eval.files import NUMBER, TEXT, Entry
from svlm_jax.eval.items import Item
from svlm_jax.eval.protocols import Protocol
from svlm_jax.host.schema import ListOf, Row

ORIGIN = 1000.0  # s into the game
QUERY = (
    "You are a live sports broadcaster. Call the action as it happens, in the present tense, add an insight where it helps, "
    "give the score and the clock when they can be seen, and never make up names."
)


def read(folder: Path) -> list[Item]:
    """The scored windows of a folder with `eval_all_metadata.jsonl` and `temp_score_clips.jsonl`.

    A window reaches from its first word to its last. Windows before 1000 s stay in the list: no row has commentary for them,
    and so they are counted.
    """
    games: dict[str, tuple[str, str]] = {}  # by name: the path, and what was said before 1000 s
    for entry in files.entries(files.find(folder, "eval_all_metadata.jsonl")):
        before = " ".join(text for _, end, text in _words(entry) if end <= ORIGIN)
        games[Path(entry.text("video")).name] = entry.text("video"), before
    clips = files.find(folder, "temp_score_clips.jsonl", "score_all_clips.jsonl")
    return [_window(entry, games) for entry in files.entries(clips)]


def _window(entry: Entry, games: dict[str, tuple[str, str]]) -> Item:
    name = Path(entry.text("video")).name
    if name not in games:
        raise EvalError(f"{entry.where}: the game {name} is not in eval_all_metadata.jsonl.")
    video, before = games[name]
    words = _words(entry)
    start, end = float(int(words[0][0])), float(int(words[-1][1]))  # whole seconds, as the published scorer counts
    if start >= end:
        raise EvalError(f"{entry.where}, field 'content' lasts from {start:g} to {end:g} s: expected a window of some seconds.")
    return Item(
        f"{name}_{start:.0f}",
        video,
        QUERY,
        end,
        start=start,
        kind="commentary",
        answer=" ".join(text for _, _, text in words),
        task=Path(video).parent.name or "games",
        previous=entry.text("preasr", ""),
        origin=ORIGIN,
        opening=before,
        title=entry.text("title", ""),
        event=name,
    )


def _words(entry: Entry) -> tuple[tuple[float, float, str], ...]:
    """(start, end, text); some published times run backwards."""
    return entry.get("content", ListOf(Row((NUMBER, NUMBER, TEXT)), least=1))


BENCHMARK = Benchmark(
    "inf-streams",
    "Inf-Streams-Eval",
    read,
    protocol=Protocol(prefix_frames=60, max_new_tokens=512),
    rows=COMMENTARY_ROWS,
    judging="pair",
)
