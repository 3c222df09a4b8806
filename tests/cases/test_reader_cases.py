"""Handed transcripts, checkpoints and mutated files give what their notes call right."""

import json
import shutil
from pathlib import Path

import pytest

from svlm_jax.checkpoint import hf
from svlm_jax.checkpoint.streaming_block import most_pixels, stop_ids, suppressed_ids
from svlm_jax.data.transcripts import read_transcript
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError, SvlmError
from svlm_jax.eval.benchmarks import inf_streams
from svlm_jax.eval.items import Item
from svlm_jax.eval.predictions import read_predictions
from svlm_jax.eval.records import Records
from svlm_jax.host.json_files import read_object
from svlm_jax.models import registry
from svlm_jax.streaming.settings import StreamSettings
from tests import checkpoints
from tests.cases import FOLDER, handed, needed

pytestmark = needed
GAME = Item("a", "v.mp4", "", 1e6, origin=0.0, event="v.mp4")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("srt_blank_line_inside/blankinside.srt", [(1, 2, "hello second paragraph"), (3, 4, "world")]),
        ("srt_blank_line_inside/blankafterstamp.srt", [(1, 2, "hello"), (3, 4, "world")]),
        ("srt_crcrlf/crcrlf.srt", [(1, 2, "hello there"), (3, 4, "world")]),
        ("srt_without_blank_lines/noblank.srt", [(1, 2, "hello"), (3, 4, "world"), (5, 6, "again")]),
        ("srt_without_blank_lines/nogap.vtt", [(0, 2, "hello"), (2, 3, "world")]),
        ("whisperx_nan_null/nan.json", [(0, 4, "a b c")]),
        ("whisperx_nan_null/nullword.json", [(0, 4, "a b")]),
        ("whisperx_nan_null/nansegment.json", [(0, 5, "2016"), (5, 6, "fine here")]),
        ("whisperx_nan_null/nullsegment.json", [(0, 5, "2016"), (5, 6, "fine here")]),
        ("whisperx_nan_null/nosegtime.json", [(0, 5, "2016"), (5, 6, "fine here")]),
    ],
)
def test_transcripts(name, said):
    assert FOLDER is not None
    sentences = read_transcript(FOLDER / "transcripts" / name)
    assert [(sentence.start, sentence.end, sentence.text) for sentence in sentences] == said


def read_generation(folder: Path) -> None:
    generation = read_object(folder / "g.json", CheckpointError)
    Sampling.from_generation_config(generation)
    StreamSettings.from_generation_config(generation)
    for read in (stop_ids, suppressed_ids, most_pixels):
        read(generation)


def read_predicted(folder: Path) -> None:
    if (folder / "p.jsonl").exists():
        read_predictions(folder / "p.jsonl", [GAME])
    else:
        Records(folder / "r", {"model": "m"}).all()


MUTATED = {
    "config": lambda folder: registry.config_from_hf(folder / "ck"),
    "generation": read_generation,
    "transcripts": lambda folder: read_transcript(folder / "a.json"),
    "predictions": read_predicted,
    "benchmarks": lambda folder: inf_streams.read(folder / "b"),
}


@pytest.mark.parametrize("folder", handed("fuzz"), ids=lambda folder: folder.name)
def test_mutated_files_are_read_or_refused_in_a_sentence(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "case")
    try:
        MUTATED[folder.name.rpartition("_")[0]](copy)
    except SvlmError as error:
        assert str(error) and "\n" not in str(error)


def variant(tmp_path: Path, **fields) -> Path:
    folder = Path(shutil.copytree(checkpoints.tiny(), tmp_path / "model"))
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **fields}))
    return folder


def test_a_tied_head_of_the_inner_configuration(tmp_path):
    folder = variant(tmp_path, tie_word_embeddings=False, text_config={"tie_word_embeddings": True})
    checkpoint = hf.load(folder)
    assert not checkpoint.config.text.tie_word_embeddings and "head" in checkpoint.params["decoder"]


def test_a_quantized_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="quantized"):
        hf.load(variant(tmp_path, quantization_config={"quant_method": "awq", "bits": 4}))


def test_no_end_of_reply():
    assert FOLDER is not None
    generation = read_object(FOLDER / "checkpoints/eos_token_id_null/eosnull/generation_config.json", CheckpointError)
    assert stop_ids(generation) == ()
