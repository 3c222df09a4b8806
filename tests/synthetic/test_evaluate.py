"""Watching a match and being judged: one who knows the match is perfect, one who dozes off is not."""

import json

import numpy as np
import pytest

from svlm_jax.streaming.caption import Caption, Timing
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.synthetic import Match
from svlm_jax.synthetic.evaluate import evaluate_match


class Commentator:
    """In place of a model: knows the match `seed`, and says nothing from the second `asleep` on."""

    defaults = StreamSettings(query="what the checkpoint says")

    def __init__(self, seed, asleep=10**9):
        self.lines = [second.line for second in Match(seed).seconds(1300)]
        self.asleep, self.settings, self.shapes = asleep, None, set()

    def stream(self, settings, **changes):
        self.settings = settings
        return self

    def fork(self):
        return Commentator(0)

    def feed(self, chunk):
        self.shapes.add(chunk.frames.shape)
        text = self.lines[int(chunk.start)] if chunk.start < self.asleep else ""
        return Caption(chunk.start, chunk.end, text, (), Timing(0.0, step=4.0 if chunk.start < 600 else 8.0))


def test_who_knows_the_match_is_perfect():
    heard, model = [], Commentator(3)
    figures = evaluate_match(model, 3, 2, scale=1, on_caption=heard.append)
    assert (model.settings.query, model.settings.fps) == ("what the checkpoint says", 2.0)
    assert [caption.start for caption in heard] == list(range(120)) and figures["seconds"] == 120
    for name in ("event_f1", "score_accuracy", "score_consistency", "silence_precision"):
        assert figures[name] == 1
    assert evaluate_match(Commentator(4), 3, 2, scale=1)["event_f1"] < 0.5


def test_slices_have_their_own_figures():
    model = Commentator(3, asleep=600)
    told = []
    figures = evaluate_match(model, 3, 20.5, StreamSettings(query=None), scale=1, size=(28, 56), on_slice=told.append)
    assert model.settings.query is None and model.shapes == {(2, 3, 28, 56)}
    assert told == figures["slices"], "each as soon as it is known, and not another one at the end"
    first, second, rest = json.loads(json.dumps(figures))["slices"]
    assert [part["start"] for part in (first, second, rest)] == [0, 600, 1200] and rest["seconds"] == 30
    assert (first["event_f1"], second["event_f1"]) == (1, 0)
    assert (first["seconds_per_second"], second["seconds_per_second"]) == (0.004, 0.008)
    assert figures["seconds_per_second"] == pytest.approx(np.mean([0.004] * 600 + [0.008] * 630), abs=1e-5)
