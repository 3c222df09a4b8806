"""A model that watches an unseen match, free-running, judged against the truth."""

import dataclasses
from collections.abc import Callable
from typing import Any

from svlm_jax.streaming.caption import Caption
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.match import SCALE, Match, Second
from svlm_jax.synthetic.score import SLACK, SLICE, score_match, score_slices
from svlm_jax.synthetic.world import HEIGHT, TICKS, WIDTH
from svlm_jax.video.source import open_source


def evaluate_match(
    vlm: StreamingVLM,
    seed: int,
    minutes: float,
    settings: StreamSettings | None = None,
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    scale: int = SCALE,
    on_caption: Callable[[Caption], None] | None = None,
    on_slice: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Streams `minutes` of the match `seed` through a model and scores what it says.

    Args:
      settings: of the stream; the default is what the checkpoint was trained with. Two frames a second, whatever they say.
      size: (height, width) that the model sees. scale: at which pictures are drawn before they are resized to it.
      on_slice: given the figures of every ten minutes as soon as they are known.
    Returns:
      the figures of `score.Report`, `seconds_per_second` (compute per second of the match, compilation left out), and the same
      for every ten minutes under "slices"; plain values for JSON.
    """
    settings = dataclasses.replace(settings or vlm.defaults, fps=float(TICKS), chunk_seconds=1.0)
    session = vlm.stream(settings, duration=settings.duration or minutes * 60, max_pixels=size[0] * size[1])
    course = iter(Match(seed))
    truth: list[Second] = []
    said: list[str] = []
    spent: list[float] = []  # seconds
    with open_source(f"synthetic:match?seed={seed}&minutes={minutes}&scale={scale}", size=size) as source:
        for chunk in source:
            if not said:
                session.fork().feed(chunk)  # compiles
            caption = session.feed(chunk)
            truth.append(next(course))
            said.append(caption.text)
            spent.append(caption.timing.step / 1e3)
            if on_caption is not None:
                on_caption(caption)
            # What is said a moment later may still belong to the slice.
            if on_slice is not None and len(said) > SLICE and (len(said) - SLACK) % SLICE == 0:
                on_slice(_slices(truth, said, spent)[-2])
    slices = _slices(truth, said, spent)
    if on_slice is not None:
        on_slice(slices[-1])
    whole = {"seed": seed, "minutes": minutes, **score_match(truth, said).to_json(), **_speed(spent)}
    return {**whole, "slices": slices}


def _slices(truth: list[Second], said: list[str], spent: list[float]) -> list[dict[str, Any]]:
    reports = score_slices(truth, said)
    return [
        {"start": start, **report.to_json(), **_speed(spent[start : start + SLICE])}
        for start, report in zip(range(0, len(said), SLICE), reports, strict=True)
    ]


def _speed(spent: list[float]) -> dict[str, float]:
    return {"seconds_per_second": round(sum(spent) / len(spent), 5)}
