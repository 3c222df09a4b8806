"""Judges: a language model says which of two commentaries is better, or whether an answer is right.

    pairs      asked in both orders; a win rate is votes / (2 · items), summed over votes as published. Official: an answer that
               does not begin with "A" is a vote for B. Strict: only a lone letter is a vote, and others are no votes at all.
    answers    {"pred": "yes" or "no", "score": 0 to 5}. Official: shares and means over what was understood. Strict: an answer
               that the judge could not rate is wrong.

Verdicts that were understood are kept in a file and never asked for again. What a judge says to the same question changes from
model to model and from month to month: its name and the dates of its verdicts are part of every result.
"""

import ast
import concurrent.futures
import dataclasses
import datetime
import hashlib
import json
import logging
import re
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from svlm_jax.errors import EndpointError, EvalError
from svlm_jax.eval.files import Entry
from svlm_jax.eval.items import Item
from svlm_jax.host.chat_client import Endpoint
from svlm_jax.host.files import Appender, writing
from svlm_jax.host.json_files import read_json_lines

logger = logging.getLogger(__name__)

LONGEST = 8000  # characters of a commentary that a judge reads
WORKERS = 8
PAIR = """\
You compare two live commentaries, A and B, of the same stretch of a sports broadcast with the commentary that was on air.
First comes how well tone and pace fit a live broadcast, then whether what is said agrees with the reference and with itself.
Answer with one letter only: A or B."""
PAIR_USER = "Reference:\n{reference}\n\nA:\n{a}\n\nB:\n{b}\n\nWhich is better, A or B?"
ANSWER = """\
You judge answers to questions about videos. Compare the given answer with the right one: it must mean the same, the words may
differ. Answer with JSON only: {"pred": "yes" or "no", "score": a whole number from 0 (all wrong) to 5 (all right)}"""
ANSWER_USER = "Question: {question}\nRight answer: {right}\nGiven answer: {given}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a judge said: the raw answer and when; None if the endpoint gave none."""

    answer: str | None
    date: str = ""


class Judge:
    """A language model that is asked once for every question that it understands.

    Args:
      cache: file of verdicts, made if need be and used by any number of runs.
    """

    def __init__(self, endpoint: Endpoint, cache: Path, *, workers: int = WORKERS) -> None:
        self.name = endpoint.model
        self._endpoint, self._workers = endpoint, workers
        self._lock = threading.Lock()
        with writing(cache.parent):
            cache.parent.mkdir(parents=True, exist_ok=True)
        self._lines = Appender(cache)
        before = [Entry(record, where) for where, record in read_json_lines(cache, EvalError)]
        self._kept = {record.text("key"): Verdict(record.text("answer"), record.text("date")) for record in before}

    def ask_all(self, system: str, users: Sequence[str], understand: Callable[[str], Any]) -> list[Verdict]:
        """A verdict for each question, without an answer where the endpoint gives none; OutputError if it cannot be kept."""
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(lambda user: self._ask(system, user, understand), users))

    def _ask(self, system: str, user: str, understand: Callable[[str], Any]) -> Verdict:
        key = hashlib.sha256(json.dumps([self.name, system, user]).encode()).hexdigest()
        if key in self._kept:
            return self._kept[key]
        verdict = Verdict(None)
        for _ in range(self._endpoint.tries):
            try:
                verdict = Verdict(self._endpoint.ask(system, user), datetime.datetime.now(datetime.UTC).date().isoformat())
            except EndpointError as error:
                logger.warning("no verdict: %s", error)
                return verdict
            if understand(verdict.answer or "") is not None:
                self._keep(key, verdict)
                return verdict
        return verdict

    def _keep(self, key: str, verdict: Verdict) -> None:
        with self._lock:
            self._lines.append({"key": key, "judge": self.name, **dataclasses.asdict(verdict)})
            self._kept[key] = verdict


def lone_letter(answer: str) -> str | None:
    """ "A" or "B" if the answer is that and nothing more."""
    found = re.fullmatch(r"\W*([AB])\W*", answer.strip())
    return found[1] if found else None


def rating(answer: str) -> tuple[bool, int] | None:
    """(right, points) of an answer such as {'pred': 'yes', 'score': 4}, whatever stands around it."""
    found = re.search(r"\{[^{}]*\}", answer)
    if found is None:
        return None
    try:
        data = ast.literal_eval(found[0])
        right, points = str(data["pred"]).strip().lower(), float(data["score"])
    except (ValueError, SyntaxError, LookupError, TypeError, MemoryError, RecursionError):  # of what is nested too deep
        return None
    return (right == "yes", int(points)) if right in ("yes", "no") and 0 <= points <= 5 and points == int(points) else None


def judge_pairs(judge: Judge, items: Sequence[Item], ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, Any]:
    """How often our commentary is preferred to theirs. Items that either lacks are counted, and not judged."""
    both = [item for item in items if ours.get(item.id, "").strip() and theirs.get(item.id, "").strip()]
    users = []
    for item in both:
        mine, other = ours[item.id][:LONGEST], theirs[item.id][:LONGEST]
        for a, b in ((mine, other), (other, mine)):
            users.append(PAIR_USER.format(reference=item.answer[:LONGEST], a=a, b=b))
    verdicts = judge.ask_all(PAIR, users, lone_letter)
    pairs = list(zip(verdicts[::2], verdicts[1::2], strict=True))
    answered = [pair for pair in pairs if None not in (pair[0].answer, pair[1].answer)]
    official = [vote for first, second in answered for vote in (_begins(first), not _begins(second))]
    votes = [(_vote(first, "A"), _vote(second, "B")) for first, second in pairs]
    strict = [vote for pair in votes for vote in pair if vote is not None]
    understood = [pair for pair in votes if None not in pair]
    return {
        **_about(judge, verdicts, lone_letter),
        "items": len(items),
        "judged": len(understood),
        "missing": {"ours": _lacking(items, ours), "theirs": _lacking(items, theirs)},
        "official": {"win_rate": _percent(official)},
        "strict": {"win_rate": _percent(strict)},
        "wins": sum(pair == (True, True) for pair in understood),
        "losses": sum(pair == (False, False) for pair in understood),
        "ties": sum(first != second for first, second in understood),
        "consistency": _percent([first == second for first, second in understood]),
    }


def judge_answers(judge: Judge, items: Sequence[Item], ours: Mapping[str, str]) -> dict[str, Any]:
    """How many answers are right, and their points."""
    given = [item for item in items if item.id in ours]
    users = [ANSWER_USER.format(question=item.title, right=item.answer, given=ours[item.id][:LONGEST]) for item in given]
    verdicts = judge.ask_all(ANSWER, users, rating)
    ratings = [None if verdict.answer is None else rating(verdict.answer) for verdict in verdicts]
    known = [found for found in ratings if found is not None]
    wrong = (False, 0)
    everything = [found or wrong for found in ratings] + [wrong] * (len(items) - len(given))
    return {
        **_about(judge, verdicts, rating),
        "items": len(items),
        "judged": len(known),
        "missing": {"ours": len(items) - len(given)},
        "official": {"accuracy": _percent([right for right, _ in known]), "score": _mean([points for _, points in known])},
        "strict": {
            "accuracy": _percent([right for right, _ in everything]),
            "score": _mean([points for _, points in everything]),
        },
    }


def _about(judge: Judge, verdicts: Sequence[Verdict], understand: Callable[[str], Any]) -> dict[str, Any]:
    """Who judged and when; `failed`: the endpoint gave no answer, `unparsed`: it gave nonsense. A new run asks both again."""
    dates = sorted({verdict.date for verdict in verdicts if verdict.date})
    return {
        "judge": judge.name,
        "dates": [dates[0], dates[-1]] if dates else [],
        "verdicts": len(verdicts),
        "failed": sum(verdict.answer is None for verdict in verdicts),
        "unparsed": sum(verdict.answer is not None and understand(verdict.answer) is None for verdict in verdicts),
    }


def _begins(verdict: Verdict) -> bool:
    return (verdict.answer or "").strip().startswith("A")


def _vote(verdict: Verdict, ours: str) -> bool | None:
    """Whether a verdict is for the commentary that stood at the letter `ours`; None if it is no verdict."""
    found = None if verdict.answer is None else lone_letter(verdict.answer)
    return None if found is None else found == ours


def _lacking(items: Sequence[Item], texts: Mapping[str, str]) -> int:
    return sum(not texts.get(item.id, "").strip() for item in items)


def _percent(votes: Sequence[bool]) -> float | None:
    return round(100 * sum(votes) / len(votes), 2) if votes else None


def _mean(points: Sequence[int]) -> float | None:
    return round(statistics.fmean(points), 2) if points else None
