"""RVS-Ego and RVS-Movie (VStream-QA, arXiv 2406.08085, packed by video as in ReKV): open questions while a long video runs.

Answers are judged: yes or no, and 0 to 5 points. The judge of the papers is no longer served, and others give other numbers.
"""

import dataclasses
from pathlib import Path

from svlm_jax.eval import files
from svlm_jax.eval.benchmark import Benchmark
from svlm_jax.eval.items import Item
from svlm_jax.eval.protocols import Protocol

FILES = {"ego": "ego4d_oe.json", "movie": "movienet_oe.json"}
PROMPT = "Question: {}\nAnswer in one or two sentences."


def _read(folder: Path, part: str) -> list[Item]:
    name = FILES[part]
    path = files.find(folder, name, f"{part}/{name}", f"rvs/{part}/{name}")
    items = []
    for entry in files.entries(path):
        video = entry.text("video_path").removeprefix("data/").removeprefix(f"rvs/{part}/")
        for i, asked in enumerate(entry.entries("conversations")):
            question = asked.text("question")
            items.append(
                Item(
                    f"{entry.text('video_id')}_{i}",
                    video,
                    PROMPT.format(question),
                    asked.number("end_time"),
                    answer=asked.text("answer"),
                    task=part,
                    track=part,
                    title=question,
                )
            )
    return items


def read_ego(folder: Path) -> list[Item]:
    """The questions of a folder with `ego4d_oe.json`."""
    return _read(folder, "ego")


def read_movie(folder: Path) -> list[Item]:
    """The questions of a folder with `movienet_oe.json`."""
    return _read(folder, "movie")


PROTOCOL = Protocol(fps=0.5, last_fps=0.5, max_new_tokens=256)
EGO = Benchmark(
    "rvs-ego",
    "RVS-Ego",
    read_ego,
    videos=("", "ego", "rvs/ego", "data/rvs/ego", "videos"),
    protocol=PROTOCOL,
    judging="answer",
)
MOVIE = dataclasses.replace(
    EGO, name="rvs-movie", title="RVS-Movie", read=read_movie, videos=("", "movie", "rvs/movie", "data/rvs/movie", "videos")
)
