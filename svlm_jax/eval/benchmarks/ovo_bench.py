"""OVO-Bench (arXiv 2501.05510): looking back, looking now, and waiting for what has not happened yet.

`ovo_bench_new.json` has 1640 entries that make 3035 questions: an entry of the forward track is asked once at each of its test
times. Only [0, realtime] may be seen, always from 0 (a converter in use elsewhere begins CRR at `ask_time`).
"""

from pathlib import Path

from svlm_jax.errors import EvalError
from svlm_jax.eval import answers, files
from svlm_jax.eval.benchmark import Benchmark, choose
from svlm_jax.eval.files import TEXT, Entry
from svlm_jax.eval.items import Grade, Item
from svlm_jax.eval.protocols import Outcome
from svlm_jax.host.schema import Either, ListOf

TRACKS = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
TRACK_OF = {task: track for track, tasks in TRACKS.items() for task in tasks}

REC = (
    "In this video people may repeat an action. Count how often it has been done so far, by all of them together; one complete "
    "motion counts as one.\nQuestion: How many times did they {activity}?\nAnswer with one number only."
)
SSR = (
    "This is a tutorial that goes through several steps. One of them is:\n{step}\n"
    "Is this step being carried out right now? Answer only with Yes or No."
)
CRR = (
    "Question: {question}\nDoes what has been seen so far, above all the newest frames, tell enough to answer this question? "
    "Answer only with Yes or No."
)


def read(folder: Path) -> list[Item]:
    """The questions of a folder with `ovo_bench_new.json`."""
    path = files.find(folder, "ovo_bench_new.json", "ovo_bench*.json")
    return [item for entry in files.entries(path) for item in _items(entry)]


def _items(entry: Entry) -> list[Item]:
    task, name = entry.text("task"), entry.text("id")
    if task not in TRACK_OF:
        raise EvalError(f"{entry.where}, field 'task' is {task!r}: expected one of {', '.join(TRACK_OF)}.")
    track, video = TRACK_OF[task], entry.text("video")
    if track != "forward":
        options, right = entry.options("options"), entry.whole("gt")
        if not 0 <= right < len(options):
            raise EvalError(f"{entry.where}, field 'gt' is {right}: expected one of {len(options)} options, counted from 0.")
        question = choose(entry.text("question"), options)
        letter = answers.LETTERS[right]
        return [Item(name, video, question, entry.number("realtime"), options=options, answer=letter, task=task, track=track)]
    return [_test(entry, test, task, f"{name}_{i}") for i, test in enumerate(entry.entries("test_info"))]


def _test(entry: Entry, test: Entry, task: str, name: str) -> Item:
    if task == "REC":
        question, answer = REC.format(activity=entry.text("activity")), str(test.whole("count"))
    else:
        answer = "Yes" if test.whole("type") else "No"
        question = SSR.format(step=test.text("step")) if task == "SSR" else CRR.format(question=entry.text("question"))
    return Item(name, entry.text("video"), question, test.number("realtime"), answer=answer, task=task, track="forward")


def read_answers(folder: Path) -> dict[str, str]:
    """By id of the questions, the raw answers in a folder of result files as the benchmark ships them."""
    first = files.find(folder, "*.json")
    found: dict[str, str] = {}
    for path in sorted(first.parent.glob("*.json")):
        results = Entry(files.load(path), str(path))
        for track in TRACKS:
            for answered in results.entries(track) if track in results else ():
                name = answered.text("id")
                if track == "forward":
                    tests = answered.entries("test_info")
                    found |= {f"{name}_{i}": _answer(test) for i, test in enumerate(tests)}
                else:
                    found[name] = _answer(answered)
    return found


def _answer(entry: Entry) -> str:
    """A text, a list of one text, or nothing."""
    found = entry.get("response", Either((TEXT, ListOf(TEXT))), "")
    return found if isinstance(found, str) else next(iter(found), "")


def grade(outcome: Outcome) -> Grade:
    item, response = outcome.item, outcome.response
    if item.task == "REC":
        return answers.grade_joined_digits(response, item.answer)
    if item.track == "forward":
        return answers.grade_yes_no(response, item.answer)
    return answers.grade_letter_anywhere(response, item.answer, item.options)


BENCHMARK = Benchmark(
    "ovo-bench", "OVO-Bench", read, videos=("", "src_videos", "videos"), grade=grade, average="tracks", answers=read_answers
)
