"""StreamingBench (arXiv 2411.03628): questions at their moment, about the last minute; dialogues; and knowing when to speak.

Four files: real-time and omni-source questions, sequential ones (SQA: earlier questions of the video with their right answers
stand in the prompt), and proactive ones, polled every second from the question on until 4 s after the answer is due.
"""

import collections
import dataclasses
from pathlib import Path

from svlm_jax.errors import EvalError
from svlm_jax.eval import answers, files
from svlm_jax.eval.benchmark import Benchmark, choose, unlettered
from svlm_jax.eval.files import Entry
from svlm_jax.eval.items import Grade, Item
from svlm_jax.eval.protocols import Outcome

CONTEXT = 60.0  # s before the question that may be seen, in the main table
FILES = {
    "real": "questions_real*.json",
    "omni": "questions_omni*.json",
    "sqa": "questions_sqa*.json",
    "proactive": "questions_proactive*.json",
}
LATE = 4.0  # s after the due time that are still polled
TOLERANCE = 2.0  # s between the due time and the moment of speaking


def read(folder: Path) -> list[Item]:
    """The questions of all files that a folder holds, itself or one level below; at least one must be there."""
    patterns = [pattern for name in FILES.values() for pattern in (name, f"*/{name}")]
    files.find(folder, *patterns)
    items: list[Item] = []
    for track, name in FILES.items():
        found = sorted(Path(folder).glob(name)) or sorted(Path(folder).glob(f"*/{name}"))
        for path in found[:1]:
            items += _file(path, track)
    return items


def _file(path: Path, track: str) -> list[Item]:
    items = []
    before: dict[str, list[str]] = collections.defaultdict(list)  # of a video: its questions so far, answered
    for number, entry in enumerate(files.entries(path)):
        for i, question in enumerate(entry.entries("questions")):
            item = _item(entry, question, track, f"{track}_{number}_{i}")
            if track == "sqa":
                asked, item = item.question, _in_dialogue(item, before[item.video])
                before[item.video].append(f"{asked}\nThe right answer is {item.answer}.")
            items.append(item)
    return items


def _item(entry: Entry, question: Entry, track: str, name: str) -> Item:
    at = question.clock("time_stamp")
    item = Item(
        name,
        entry.text("video_path").removeprefix("./"),
        question.text("question"),
        at,
        start=max(0.0, at - CONTEXT),
        task=question.text("task_type"),
        track=track,
    )
    if track == "proactive":
        due = question.clock("ground_truth_time_stamp")
        answer = question.text("ground_truth_output")
        return dataclasses.replace(item, kind="proactive", answer=answer, due=due, until=due + LATE)
    options = unlettered(question.options("options"))
    letter = question.text("answer").strip()[:1]
    if letter not in answers.LETTERS[: len(options)]:
        raise EvalError(f"{question.where}, field 'answer' is {question.text('answer')!r}: expected the letter of an option.")
    return dataclasses.replace(item, question=choose(item.question, options), options=options, answer=letter)


def _in_dialogue(item: Item, before: list[str]) -> Item:
    if not before:
        return item
    earlier = "\n\n".join(before)
    return dataclasses.replace(item, question=f"Earlier questions about this video:\n{earlier}\n\nNow:\n{item.question}")


def grade(outcome: Outcome) -> Grade:
    """Proactive output counts if it came within 2 s of its time and says what it should."""
    item = outcome.item
    if item.kind != "proactive":
        return answers.grade_first_letter(outcome.response, item.answer, item.options)
    if outcome.at is None:
        return Grade(0.0, 0.0, False)
    said = answers.grade_contained(outcome.response, item.answer)
    timely = abs(outcome.at - item.due) <= TOLERANCE
    return Grade(said.official * timely, said.strict * timely, said.parsed)


BENCHMARK = Benchmark("streaming-bench", "StreamingBench", read, videos=("", "videos", "data"), grade=grade)
