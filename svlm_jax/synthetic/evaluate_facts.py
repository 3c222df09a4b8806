"""A model that is asked about all facts of an unseen stream, from a memory of everything: what it knows without forgetting."""

import numpy as np

from svlm_jax.cache.policies import memory_policy
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.synthetic.facts import Facts
from svlm_jax.video.chunk import Chunk

FPS, GRID, CELLS = 0.5, 4.0, 9  # frames a second; seconds and tokens of a temporal grid
GREY = 128
SPACING = (6.0, 12.0, 24.0)  # s of stream for each fact


def facts_chunk(facts: Facts, number: int) -> Chunk:
    """What a model sees in the temporal grid `number`: frames uint8 (2, 3, 84, 84)."""
    start = number * GRID
    pictures = [facts.picture(start + i / FPS) for i in range(round(GRID * FPS))]
    return Chunk(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)), start, start + GRID)


def evaluate_facts(vlm: StreamingVLM, seed: int, minutes: float) -> dict[str, float | None]:
    """Shares of right answers about streams of `minutes` each: "right", and "blank" when every picture is grey.

    All facts are asked about at the end; None when nothing was seen by then. Guessing is right once in eight.
    """
    found: dict[str, list[bool]] = {"right": [], "blank": []}
    grids = int(minutes * 60 / GRID)
    memory = memory_policy("full", budget=max(grids, 1) * CELLS, clip_frames=2)
    for name, answers in found.items():
        for every in SPACING:
            facts = Facts(seed, every)
            recall = vlm.qa_session(memory=memory, fps=FPS, max_new_tokens=4)
            for number in range(grids):
                chunk = facts_chunk(facts, number)
                if name == "blank":
                    chunk.frames[:] = GREY
                recall.feed(chunk)
            answers += [recall.ask(fact.question).text == fact.answer for fact in facts.until(grids * GRID)]
    return {name: float(np.mean(answers)) if answers else None for name, answers in found.items()}
