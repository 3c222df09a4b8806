"""A model whose every word can be told beforehand: it reads the numbers that the frames of `tests.clips` show."""

from collections.abc import Callable

from svlm_jax.eval.interface import Answer, View
from tests import clips


class Reader:
    """Says the number of the newest frame; answers by `answer(question, numbers)` with all numbers that it has seen."""

    name = "reader"

    def __init__(self, answer: Callable[[str, list[int]], str] = lambda question, seen: "A"):
        self.answer, self.seen, self.views, self.asked = answer, [], [], []

    def reset(self, view: View):
        self.views.append(view)
        self.seen = []

    def feed(self, chunk):
        self.seen = [*self.seen, *(clips.number(frame) for frame in chunk.frames)]

    def say(self):
        return f"frame {self.seen[-1]}"

    def ask(self, question, *, max_new_tokens):
        self.asked.append((question, self.seen))
        return Answer(self.answer(question, self.seen), len(self.seen), 1.0)

    def snapshot(self):
        return self.seen

    def restore(self, saved):
        self.seen = saved

    def describe(self):
        return {"model": self.name}
