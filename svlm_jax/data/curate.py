"""Cleaning transcripts with a language model behind an OpenAI-compatible endpoint; optional.

Sentences go out in segments of two minutes with the title; each comes back as keep, edit or delete. Kept sentences keep their
times, the words of edited ones share the time of the sentence evenly (arXiv 2510.09608 section 2.3).
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from svlm_jax.data.annotations import Annotation
from svlm_jax.data.sentences import Sentence, spread
from svlm_jax.errors import DataError
from svlm_jax.host.chat_client import Endpoint
from svlm_jax.host.json_files import parse
from svlm_jax.host.schema import Choice, Number, Record, Text, Whole

logger = logging.getLogger(__name__)

SEGMENT = 120.0  # s of sentences in one request
CLEAN = """\
You clean the transcript of a live commentary. The user gives the title and numbered sentences. Judge each sentence:
"keep" if it is live commentary and written correctly; "edit" if it is live commentary with errors of recognition, wrong names
or broken grammar, and give the corrected text, as close to the original as possible; "delete" if it is not about what can be
seen live: advertisements, studio talk, interviews, history, statistics.
Answer with JSON only: {"sentences": [{"number": 0, "action": "keep"}, {"number": 1, "action": "edit", "text": "..."}, ...]}"""
SHARE = """\
The user gives the title and the commentary of a short clip. What share of the words tells the live action of these seconds, as
opposed to background, history, statistics or talk? Answer with JSON only: {"live_share": 0.0 to 1.0}"""


class Curator:
    """Cleans sentences and judges clips by asking a language model."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.counts = {"keep": 0, "edit": 0, "delete": 0}

    def clean(self, title: str, sentences: Sequence[Sentence]) -> list[Sentence]:
        """The sentences that stay, edited ones with their new words. DataError when the model does not answer as asked."""
        cleaned: list[Sentence] = []
        for _, group in itertools.groupby(sentences, key=lambda sentence: int(sentence.start // SEGMENT)):
            segment = list(group)
            listing = "\n".join(f"{number}: {sentence.text}" for number, sentence in enumerate(segment))
            understand = functools.partial(_verdicts, len(segment))
            verdicts = self._asked(CLEAN, f"Title: {title}\n{listing}", understand)
            for sentence, (action, text) in zip(segment, verdicts, strict=True):
                self.counts[action] += 1
                if action == "edit":
                    sentence = dataclasses.replace(sentence, words=spread(text, sentence.start, sentence.end))
                if action != "delete":
                    cleaned.append(sentence)
        return cleaned

    def live_share(self, clip: Annotation) -> float:
        """The share of a clip's words that tell live action, 0 to 1; the published annealing set keeps more than 0.8."""
        said = " ".join(word.text for word in clip.words)
        return self._asked(SHARE, f"Title: {clip.title}\n{said}", _share)

    def _asked(self, system: str, user: str, understand: Callable[[str], Any]) -> Any:
        """What the answer means; a model that answers nonsense is asked once more for each try that is left."""
        for attempt in range(1, self._endpoint.tries + 1):
            answer = self._endpoint.ask(system, user)
            try:
                return understand(answer)
            except DataError as error:
                logger.info("answer %d is not understood: %s", attempt, error)
        raise DataError(f"{self._endpoint.model} did not answer as asked in {self._endpoint.tries} tries: {answer[:200]!r}.")


def _object(answer: str) -> Record:
    """The JSON object in an answer, whatever stands around it."""
    return Record(parse(answer[answer.find("{") : answer.rfind("}") + 1], "the answer", DataError), "the answer", DataError)


def _verdicts(count: int, answer: str) -> list[tuple[str, str]]:
    """(action, text) of each sentence; every sentence must be judged exactly once."""
    verdicts = {}
    entries = _object(answer).records("sentences")
    for entry in entries:
        action, text = entry.get("action", Choice(("keep", "edit", "delete"))), entry.get("text", Text(), "").strip()
        if action == "edit" and not text:
            raise entry.wrong("text", text, "the words of an edited sentence")
        verdicts[entry.get("number", Whole(least=0, most=count - 1, digits=True))] = (action, text)
    if len(verdicts) != count or len(entries) != count:
        raise DataError(f"the answer has {len(entries)} verdicts on {len(verdicts)} sentences, expected one each on {count}.")
    return [verdicts[number] for number in range(count)]


def _share(answer: str) -> float:
    return _object(answer).get("live_share", Number(least=0, most=1, digits=True))
