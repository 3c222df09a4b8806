"""MLVU, LongVideoBench, Video-MME and MVBench: after the whole video, by letter. They differ in their files."""

import dataclasses
from pathlib import Path

from svlm_jax.errors import EvalError
from svlm_jax.eval import answers, files
from svlm_jax.eval.benchmark import Benchmark, choose, letter_of, unlettered
from svlm_jax.eval.files import Entry
from svlm_jax.eval.items import Grade, Item
from svlm_jax.eval.protocols import Outcome, Protocol

MLVU_FILES = (
    "1_plotQA",
    "2_needle",
    "3_ego",
    "4_count",
    "5_order",
    "6_anomaly_reco",
    "7_topic_reasoning",
)  # 8 and 9 are open questions, which another judge scores

# MVBench: a file a task, its videos below `video/`, and whether a question is about a part of its video only.
MVBENCH_FOLDERS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": "clevrer/video_validation",
}
TVQA_FPS = 3.0  # its videos are folders of pictures


def grade(outcome: Outcome) -> Grade:
    return answers.grade_found_letter(outcome.response, outcome.item.answer, outcome.item.options)


def _item(name: str, video: str, entry: Entry, options: tuple[str, ...], letter: str, **more: object) -> Item:
    if len(letter) != 1 or letter not in answers.LETTERS[: len(options)]:
        raise EvalError(f"{entry.where}: the answer is none of its {len(options)} options.")
    item = Item(name, video, choose(entry.text("question"), options), None, options=options, answer=letter)
    return dataclasses.replace(item, **more)  # type: ignore[arg-type]


def read_mlvu(folder: Path) -> list[Item]:
    """The questions of a folder with `1_plotQA.json` to `7_topic_reasoning.json`, here or in `json/`."""
    first = files.find(folder, f"{MLVU_FILES[0]}.json", f"json/{MLVU_FILES[0]}.json", f"MLVU/json/{MLVU_FILES[0]}.json")
    items = []
    for name in MLVU_FILES:
        path = files.find(first.parent, f"{name}.json")
        for i, entry in enumerate(files.entries(path)):
            options = unlettered(entry.options("candidates"))
            letter = letter_of(entry.text("answer"), options)
            task = entry.text("question_type")
            items.append(_item(f"{name}_{i}", f"{name}/{entry.text('video')}", entry, options, letter, task=task))
    return items


def read_longvideobench(folder: Path) -> list[Item]:
    """The questions of a folder with `lvb_val.json`: with `candidates`, or with `option0` to `option4` padded by "N/A"."""
    path = files.find(folder, "lvb_val.json", "lvb_val.jsonl", "*validation*.parquet", "*/*validation*.parquet")
    items = []
    for entry in files.entries(path):
        if "candidates" in entry.data:
            options = entry.options("candidates")
        else:
            options = tuple(entry.text(f"option{i}") for i in range(5) if entry.text(f"option{i}", "N/A") != "N/A")
        right = entry.whole("correct_choice")
        letter = answers.LETTERS[right] if 0 <= right < len(options) else ""
        track = entry.text("duration_group", "")
        task = entry.text("question_category")
        items.append(_item(entry.text("id"), entry.text("video_path"), entry, options, letter, task=task, track=track))
    return items


def read_video_mme(folder: Path) -> list[Item]:
    """The questions of a folder with the published table, one question a row, as parquet, JSON lines or JSON."""
    names = ("*.parquet", "videomme/*.parquet", "*.jsonl", "videomme*.json", "Video-MME*.json", "test.json")
    items = []
    for entry in files.entries(files.find(folder, *names)):
        options = unlettered(entry.options("options"))
        video, letter = f"{entry.text('videoID')}.mp4", entry.text("answer").strip()[:1]
        where = {"task": entry.text("task_type"), "track": entry.text("duration")}
        items.append(_item(entry.text("question_id"), video, entry, options, letter, **where))
    return items


def read_mvbench(folder: Path) -> list[Item]:
    """The questions of a folder with `json/action_sequence.json` and the other nineteen files."""
    first = files.find(folder, "json/action_sequence.json", "action_sequence.json")
    items = []
    for task, videos in MVBENCH_FOLDERS.items():
        path = files.find(first.parent, f"{task}.json")
        for i, entry in enumerate(files.entries(path)):
            options = unlettered(entry.options("candidates"))
            letter = letter_of(entry.text("answer"), options)
            more: dict[str, object] = {"task": task}
            if "start" in entry and "end" in entry:  # the rest is not shown
                more |= {"start": entry.number("start"), "time": entry.number("end")}
            if task == "episodic_reasoning":
                more["fps"] = TVQA_FPS
            items.append(_item(f"{task}_{i}", f"{videos}/{entry.text('video')}", entry, options, letter, **more))
    return items


MLVU = Benchmark("mlvu", "MLVU", read_mlvu, ("", "video", "videos", "../video"), Protocol(), grade=grade, average="tasks")
LONGVIDEOBENCH = Benchmark("longvideobench", "LongVideoBench", read_longvideobench, grade=grade)
VIDEO_MME = Benchmark("video-mme", "Video-MME", read_video_mme, ("", "data", "videos", "video"), grade=grade)
MVBENCH = Benchmark("mvbench", "MVBench", read_mvbench, ("video", "videos", ""), grade=grade, average="tasks")
