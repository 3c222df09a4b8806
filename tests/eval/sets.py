"""Small sets of every benchmark in its published format, over clips whose frames show their numbers (2 a second)."""

import json
from fractions import Fraction
from pathlib import Path

from tests import clips

RATE = 2  # frames a second, so that frame n stands on screen from n / 2 s on
SECONDS = 8


def clip(path: Path, *, seconds: float = SECONDS, first: int = 0) -> Path:
    """A video below a data folder; frame i shows first + i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mkv":  # lossless, and no frame depends on another
        return clips.render(path, frames=int(seconds * RATE), rate=RATE, first=first, codec="ffv1", gop=1)
    return clips.render(path, frames=int(seconds * RATE), rate=Fraction(RATE), first=first, gop=4)


def write(path: Path, data) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in data))
    else:
        path.write_text(json.dumps(data))
    return path


def ovo_bench(folder: Path) -> Path:
    clip(folder / "src" / "a.mp4")
    choice = {"video": "src/a.mp4", "question": "Which?", "answer": "two", "options": ["one", "two", "three"], "gt": 1}
    docs = [
        {**choice, "id": 1, "task": "EPM", "realtime": 4.0},
        {**choice, "id": 2, "task": "OCR", "realtime": 6.2},
        {"id": 3, "task": "REC", "video": "src/a.mp4", "activity": "jump", "start_times": [1], "end_times": [5],
         "test_info": [{"realtime": 3, "count": 1}, {"realtime": 7, "count": 2}]},
        {"id": 4, "task": "SSR", "video": "src/a.mp4", "tutorial": "cake", "all_steps": ["stir", "bake"],
         "test_info": [{"realtime": 5, "step": "stir", "type": 0}, {"realtime": 6, "step": "bake", "type": 1}]},
        {"id": 5, "task": "CRR", "video": "src/a.mp4", "question": "Who won?", "answer": "x", "ask_time": 2, "clue_time": 5,
         "test_info": [{"realtime": 2, "type": 0}, {"realtime": 6, "type": 1}]},
    ]  # fmt: skip
    write(folder / "ovo_bench_new.json", docs)
    return folder


def streaming_bench(folder: Path) -> Path:
    clip(folder / "videos" / "sample_1_real.mp4", seconds=70)
    options = ["A. one", "B. two", "C. three", "D. four"]

    def doc(**question):
        return {"time": "[0:00:00 - 0:01:10]", "video_categories": "x", "video_path": "./videos/sample_1_real.mp4",
                "questions": [{"required_ability": "y", **question}]}  # fmt: skip

    asked = {"task_type": "Counting", "question": "How many?", "answer": "C", "options": options}
    write(folder / "questions_real.json", [doc(**asked, time_stamp="00:01:05"), doc(**asked, time_stamp="00:00:04")])
    plain = {**asked, "options": ["one", "two", "three", "four"], "task_type": "Sequential Question Answering"}
    write(folder / "questions_sqa.json",
          [[doc(**plain, time_stamp="00:00:03"), doc(**{**plain, "answer": "A"}, time_stamp="00:00:05")]])  # fmt: skip
    due = {"task_type": "Proactive Output", "question": 'Say "GOAL" when it falls.', "time_stamp": "00:00:02",
           "ground_truth_time_stamp": "00:00:05", "ground_truth_output": "GOAL"}  # fmt: skip
    write(folder / "questions_proactive.json", [doc(**due)])
    return folder


def rvs(folder: Path, part: str = "ego") -> Path:
    clip(folder / part / "videos" / "v1.mp4", seconds=16)
    talk = [{"question": "What is seen?", "answer": "bars", "start_time": 2.0, "end_time": 5.0},
            {"question": "And now?", "answer": "more bars", "start_time": 8.0, "end_time": 14.0}]  # fmt: skip
    name = {"ego": "ego4d_oe.json", "movie": "movienet_oe.json"}[part]
    doc = {"video_id": "v1", "video_path": f"data/rvs/{part}/videos/v1.mp4", "duration": 16, "conversations": talk}
    write(folder / part / name, [doc])
    return folder


def mlvu(folder: Path) -> Path:
    for name in ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning"):
        task = name[2:]
        clip(folder / "video" / name / f"{task}_1.mp4")
        doc = {"video": f"{task}_1.mp4", "duration": 8.0, "question": "Which?", "candidates": ["red", "blue", "green", "white"],
               "answer": "blue", "question_type": task}  # fmt: skip
        write(folder / "json" / f"{name}.json", [doc])
    return folder


def longvideobench(folder: Path) -> Path:
    clip(folder / "videos" / "a.mp4")
    doc = {"id": "a_0", "video_path": "a.mp4", "duration": 8.0, "question": "Which?", "candidates": ["x", "y", "z"],
           "correct_choice": 2, "question_category": "S2E", "duration_group": 15, "subtitle_path": "a_en.json"}  # fmt: skip
    padded = {**doc, "id": "a_1", "option0": "x", "option1": "y", "option2": "N/A", "option3": "N/A", "option4": "N/A",
              "correct_choice": 1, "duration_group": 60}  # fmt: skip
    del padded["candidates"]
    write(folder / "lvb_val.json", [doc, padded])
    return folder


def video_mme(folder: Path) -> Path:
    clip(folder / "data" / "abc.mp4")
    doc = {"video_id": "001", "duration": "short", "domain": "Sports", "sub_category": "x", "url": "u", "videoID": "abc",
           "question_id": "001-1", "task_type": "Counting Problem", "question": "How many?",
           "options": ["A. one", "B. two", "C. three", "D. four"], "answer": "B"}  # fmt: skip
    write(folder / "test.jsonl", [doc, {**doc, "question_id": "001-2", "duration": "long", "answer": "A"}])
    return folder


def mvbench(folder: Path) -> Path:
    from PIL import Image

    from svlm_jax.eval.benchmarks.choices import MVBENCH_FOLDERS

    for task, videos in MVBENCH_FOLDERS.items():
        doc = {"video": "x.mp4", "question": "Which?", "candidates": ["red", "blue"], "answer": "blue"}
        if task == "action_sequence":
            doc |= {"start": 2.0, "end": 4.4}
        if task == "episodic_reasoning":
            doc |= {"video": "show_1", "start": 1.0, "end": 3.0}
            (folder / "video" / videos / "show_1").mkdir(parents=True)
            for i in range(12):
                Image.fromarray(clips.picture(i)).save(folder / "video" / videos / "show_1" / f"{i + 1:05d}.jpg", quality=95)
        elif not (folder / "video" / videos / "x.mp4").exists():
            clip(folder / "video" / videos / "x.mp4", seconds=6)
        write(folder / "json" / f"{task}.json", [doc])
    return folder


def live_sports(folder: Path) -> Path:
    clip(folder / "videos" / "xyz.mp4")
    doc = {"video": "xyz.mp4", "video_id": "xyz", "event_id": 3, "begin": 2.0, "end": 5.5, "event_title": "A vs B",
           "preasr_text": "before", "event_asr_text": "he scores"}  # fmt: skip
    write(folder / "LiveSports-3K-CC.json", [doc, {**doc, "event_id": 4, "begin": 1.0, "end": 4.5, "class": "hockey"}])
    return folder


def inf_streams(folder: Path) -> Path:
    """A game that shows one frame in ten seconds up to 1000 s, then as the others; windows begin at 900, 1000 and 1100 s."""
    path = folder / "Youtube_Basketball" / "abc.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [10.0 * i for i in range(100)] + [1000 + i / RATE for i in range(220 * RATE)]
    clips.render(path, times=times, first=0, size=(56, 84), gop=1)  # whole pictures: a still must be paid for in bytes
    game = [[900.0, 900.5, "early"], [998.0, 998.5, "tip"], [999.0, 1001.0, "off"], [1010.0, 1010.5, "three"]]
    write(folder / "eval_all_metadata.jsonl", [{"video": "Youtube_Basketball/abc.mp4", "title": "A vs B", "content": game}])
    line = {"video": "Youtube_Basketball/abc.mp4", "title": "A vs B"}
    second = [[1000.2, 1000.9, "a"], [1010.0, 1010.5, "three"], [1099.0, 1100.4, "b"]]
    windows = [{**line, "preasr": "x", "content": [[900.0, 900.5, "early"], [999.0, 1000.2, "on"]]},
               {**line, "preasr": "early tip", "content": second},
               {**line, "preasr": "early tip off", "content": [[1100.6, 1101.0, "two"], [1199.0, 1200.8, "c"]]}]  # fmt: skip
    write(folder / "temp_score_clips.jsonl", windows)
    return folder


SETS = {
    "inf-streams": inf_streams,
    "livesports-cc": live_sports,
    "ovo-bench": ovo_bench,
    "streaming-bench": streaming_bench,
    "rvs-ego": rvs,
    "rvs-movie": lambda folder: rvs(folder, "movie"),
    "mlvu": mlvu,
    "longvideobench": longvideobench,
    "video-mme": video_mme,
    "mvbench": mvbench,
}
