"""Every reader of files that others write, with good files to damage."""

import json
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np

from svlm_jax.checkpoint.random import random_config
from svlm_jax.checkpoint.streaming_block import most_pixels, stop_ids, streaming_block, suppressed_ids
from svlm_jax.checkpoint.tensors import open_folder
from svlm_jax.data.annotations import Annotation, AnnotationFile, Question, Word, write_annotations
from svlm_jax.data.curate import Curator
from svlm_jax.data.sentences import Sentence
from svlm_jax.data.transcripts import read_transcript
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError
from svlm_jax.eval import judge
from svlm_jax.eval.benchmarks import BENCHMARKS
from svlm_jax.eval.items import Item
from svlm_jax.eval.predictions import read_predictions
from svlm_jax.host.json_files import read_object
from svlm_jax.models import registry
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.streaming.schedule import timed
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.synthetic.tokenizer import STREAMING
from tests import checkpoints, clips
from tests.eval import sets
from tests.fuzz.ours import OURS
from tests.fuzz.reader import Reader, encoded, lines, text
from tests.fuzz.sources import SOURCES

SRT = """1
00:00:01,000 --> 00:00:03,000 X1:10
<i>He shoots,</i> he scores!

2
01:02:03,250 --> 01:02:04,250
{\\an8}Tom &amp; Ann

3
00:05,5 -> 00:06.500
Zoë &#1234;
"""
VTT = """WEBVTT - a title

NOTE
nothing

intro
00:01.000 --> 00:03.000 align:start
red<00:00:02.000><c> has</c> it

00:02.470 --> 00:02.480
red has it

00:02.480 --> 00:04.390
red has it
goal
"""
WHISPERX = {
    "segments": [
        {
            "start": 0.0,
            "end": 2.0,
            "text": " hello world 5",
            "words": [{"word": "hello", "start": 0.1, "end": 0.5}, {"word": "5"}],
        },
        {"start": 2.5, "end": 4.0, "text": "no words"},
    ]
}
ITEMS = [
    Item("a", "v.mp4", "", 10.0, origin=0.0, event="v.mp4"),
    Item("b", "v.mp4", "", 20.0, start=10.0, origin=0.0, event="v.mp4"),
]
EVENTS = [Item("v_1", "v.mp4", "", 10.0, kind="commentary", event="v_1")]


def annotations(folder: Path) -> None:
    words = tuple(Word(float(i), i + 0.5, f"word{i}") for i in range(4))
    sample = Annotation("a.mp4", 0.0, 4.0, words, (Question("x", 1.0, "Who?", "Ann"),), "before", "title", "prompt")
    write_annotations(folder / "a_with_seeks.jsonl", [sample, sample, sample])


def annotation_file(name: str) -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        annotations(Path(folder))
        return [(Path(folder) / name).read_bytes()]


def read_annotations(folder: Path) -> None:
    list(AnnotationFile(folder / "a_with_seeks.jsonl"))


def benchmark(name: str, file: str) -> Reader:
    """A published benchmark: its file is damaged, its videos are not looked at."""

    def prepare(folder: Path) -> None:
        with mock.patch.object(sets, "clip"), mock.patch.object(clips, "render"), mock.patch("PIL.Image.Image.save"):
            sets.SETS[name](folder)

    def seeds() -> list[bytes]:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            return [(Path(folder) / file).read_bytes()]

    return Reader(file, seeds, BENCHMARKS[name].read, prepare)


def config_seeds() -> list[bytes]:
    raws = [registry.config_to_hf(random_config(family)) for family in registry.FAMILIES]
    nested = [
        {
            **raw,
            "text_config": {
                **raw.get("text_config", raw),
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            },
        }
        for raw in raws
    ]
    return encoded(*raws, *({name: value for name, value in raw.items() if name != "vision"} for raw in nested))


def folder_with_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(config_seeds()[0])


def read_generation(folder: Path) -> None:
    generation = read_object(folder / "generation_config.json", CheckpointError)
    for read in (streaming_block, stop_ids, suppressed_ids, most_pixels, StreamSettings.from_generation_config):
        read(generation)
    Sampling.from_generation_config(generation)


GENERATION = {
    "bos_token_id": 300,
    "eos_token_id": [301, 302],
    "pad_token_id": 301,
    "suppress_tokens": [300, 302],
    "top_k": 5,
    "top_p": 0.9,
    "transformers_version": "5.23.0",
    "svlm": STREAMING,
}
PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "patch_size": 14,
}


def safetensors_seeds() -> list[bytes]:
    tensors = {
        "a": (np.zeros((4, 3), np.float32), "F32"),
        "b": (np.zeros(8, np.float16), "F16"),
        "c": (np.zeros((), np.float64), "F64"),
    }
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (value, dtype) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at := at + value.nbytes]}
    return [json.dumps(header).encode()]


def read_header(folder: Path) -> None:
    """The damaged header before good data, and as it is, with its true length and with another."""
    header = (folder / "header.json").read_bytes()
    for size, data in ((len(header), header + bytes(72)), (len(header) * 7 % 2**63, header), (2**60, header)):
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + data)
        try:
            for name, file in open_folder(folder).items():
                file.read(name)
        except CheckpointError:
            continue


def read_index(folder: Path) -> None:
    try:
        open_folder(folder)
    finally:
        assert not [path for path in folder.parent.glob("*.safetensors") if not path.is_symlink()]


def tensors_beside(folder: Path) -> None:
    shutil.copy(checkpoints.tiny() / "model.safetensors", folder / "model-1.safetensors")


def read_curated(folder: Path) -> None:
    """A curator asks a model, which answers with the file whatever it is asked."""
    answer = text(folder)
    curator = Curator(mock.Mock(tries=2, model="m", ask=lambda system, user: answer))
    if "live_share" in answer:
        curator.live_share(Annotation("a.mp4", 0.0, 1.0, ()))
    else:
        curator.clean("title", [Sentence(i, i + 1, (Word(i, i + 1, "x"),)) for i in range(2)])


READERS: dict[str, Reader] = {
    "subtitles: srt": Reader("a.srt", lambda: encoded(SRT), lambda folder: read_transcript(folder / "a.srt")),
    "subtitles: vtt": Reader("a.vtt", lambda: encoded(VTT), lambda folder: read_transcript(folder / "a.vtt")),
    "transcripts: whisperx": Reader("a.json", lambda: encoded(WHISPERX), lambda folder: read_transcript(folder / "a.json")),
    "annotations": Reader("a_with_seeks.jsonl", lambda: annotation_file("a_with_seeks.jsonl"), read_annotations),
    "annotations: index": Reader("a_seeks.jsonl", lambda: annotation_file("a_seeks.jsonl"), read_annotations, annotations),
    "config.json": Reader("config.json", config_seeds, registry.config_from_hf),
    "processor_config.json": Reader(
        "processor_config.json",
        lambda: encoded({"video_processor": PROCESSOR, "image_processor": PROCESSOR}),
        registry.config_from_hf,
        folder_with_config,
    ),
    "preprocessor_config.json": Reader(
        "preprocessor_config.json", lambda: encoded(PROCESSOR), registry.config_from_hf, folder_with_config
    ),
    "generation_config.json": Reader("generation_config.json", lambda: encoded(GENERATION), read_generation),
    "tokenizer.json": Reader(
        "tokenizer.json",
        lambda: [(checkpoints.tiny() / "tokenizer.json").read_bytes()],
        lambda folder: Tokenizer(folder / "tokenizer.json").encode("a <|im_end|> goal"),
    ),
    "safetensors: header": Reader("header.json", safetensors_seeds, read_header),
    "safetensors: index": Reader(
        "model.safetensors.index.json",
        lambda: encoded(
            {"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors"}}
        ),
        read_index,
        tensors_beside,
    ),
    "safetensors: file": Reader(
        "model.safetensors",
        lambda: [struct.pack("<Q", len(header)) + header + bytes(72) for header in safetensors_seeds()],
        lambda folder: [file.read(name) for name, file in open_folder(folder).items()],
    ),
    "predictions: games": Reader(
        "p.jsonl",
        lambda: [lines(*({"video": "v.mp4", "items": [{"start_time": 0, "end_time": t, "response": "a"}]} for t in (1, 2.5)))],
        lambda folder: read_predictions(folder / "p.jsonl", ITEMS),
    ),
    "predictions: events": Reader(
        "p.jsonl",
        lambda: [lines({"video_id": "v", "event_id": 1, "begin": 0, "end": 10.0, "pred": "a"})],
        lambda folder: read_predictions(folder / "p.jsonl", EVENTS),
    ),
    "timed questions": Reader(
        "a.txt",
        lambda: encoded("00:42 Who scored first?", "1:30:00.5 And now?", "What is seen?"),
        lambda folder: timed(text(folder)),
    ),
    "judges' answers": Reader(
        "a.txt",
        lambda: encoded('It is {"pred": "yes", "score": 4}.', "{'pred': 'no', 'score': 0}", "A"),
        lambda folder: [read(text(folder)) for read in (judge.rating, judge.lone_letter)],
    ),
    "curators' answers": Reader(
        "a.txt",
        lambda: encoded(
            {"sentences": [{"number": 0, "action": "keep"}, {"number": 1, "action": "edit", "text": "x"}]}, {"live_share": 0.5}
        ),
        read_curated,
    ),
    "benchmark: inf-streams": benchmark("inf-streams", "temp_score_clips.jsonl"),
    "benchmark: livesports-cc": benchmark("livesports-cc", "LiveSports-3K-CC.json"),
    "benchmark: ovo-bench": benchmark("ovo-bench", "ovo_bench_new.json"),
    "benchmark: streaming-bench": benchmark("streaming-bench", "questions_real.json"),
    "benchmark: rvs-ego": benchmark("rvs-ego", "ego/ego4d_oe.json"),
    "benchmark: mlvu": benchmark("mlvu", "json/1_plotQA.json"),
    "benchmark: longvideobench": benchmark("longvideobench", "lvb_val.json"),
    "benchmark: video-mme": benchmark("video-mme", "test.jsonl"),
    "benchmark: mvbench": benchmark("mvbench", "json/action_sequence.json"),
    "answers: ovo-bench": Reader(
        "backward.json",
        lambda: encoded(
            {
                "backward": [{"id": 1, "response": "A"}],
                "realtime": [{"id": 2, "response": ["B"]}],
                "forward": [{"id": 3, "test_info": [{"response": "3"}, {"response": None}]}],
            }
        ),
        BENCHMARKS["ovo-bench"].answers or dict,
    ),
    **OURS,
    **SOURCES,
}


def names(parts: Iterable[str]) -> list[str]:
    """The readers whose names contain one of the parts; all without any."""
    parts = list(parts)
    return [name for name in READERS if not parts or any(part in name for part in parts)]
