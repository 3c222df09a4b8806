"""Configurations: those that ship, changes from the command line, and what they refuse."""

import itertools
from pathlib import Path

import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.clips import inside, nearest
from svlm_jax.errors import ConfigError, DataError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.train.config import ModelSource, TrainConfig, load_config
from svlm_jax.train.run import Source, batch_shapes, sets
from svlm_jax.video.resize import smart_resize
from tests.checkpoints import tiny

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "shapes"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_load_and_have_shapes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    config = load_config(path)
    assert config.name == path.stem
    assert all(shape.tokens.shape[0] == config.data.pipeline.batch for shape in batch_shapes(config.data))


def _load(name: str, *changes: str) -> TrainConfig:
    return load_config(ROOT / "configs" / f"{name}.py", changes)


def test_stages_have_the_published_hyper_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    for name in ("sft_stage1", "sft_stage2"):
        config = _load(name)
        optimizer, loop = config.optimizer, config.loop
        assert (optimizer.learning_rate, optimizer.warmup, optimizer.clip_norm, optimizer.weight_decay) == (1e-5, 0.03, 0, 0)
        assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == (0.9, 0.999, 1e-8)
        assert config.data.pipeline.batch * loop.accumulate == 512
        assert (loop.epochs, loop.eval_every, loop.save_every, loop.keep) == (1.0, 100, 20, 10)
        assert (config.data.chunks.sink, config.data.chunks.tail) == (512, 512)
        assert config.partition.freeze == (r"visual\.",)
        assert max(bucket.tokens for bucket in config.data.pipeline.buckets) <= 53_248
        assert config.compute.dtype == "bfloat16"


@pytest.mark.parametrize("name", ["sft_stage1", "sft_stage2"])
def test_videos_of_common_proportions_have_a_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In landscape and portrait, at every usual resolution: none is stretched, none gets bars."""
    monkeypatch.syspath_prepend(ROOT)
    config = _load(name)
    buckets = config.data.pipeline.buckets
    longest = max(bucket.clips for bucket in buckets)
    for aspect, lines in itertools.product((16 / 9, 4 / 3, 1, 3 / 4, 9 / 16), (240, 360, 480, 720, 1080, 2160)):
        size = (lines, round(lines * aspect)) if aspect >= 1 else (round(lines / aspect), lines)
        seen = smart_resize(*size, PUBLISHED.for_clip(2 * longest))
        box = nearest(seen, [bucket.size for bucket in buckets])
        assert inside(seen, box, 28) == box, f"{size} in {box}"
        assert any(bucket.holds(0, longest, box) for bucket in buckets)
        assert aspect != 16 / 9 or lines < 360 or box == seen


def test_stages_read_the_published_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("DATASET_PATH", "/videos")
    files = {
        name: [(Path(one.path).name, one.weight) for data in (config.data, config.evaluation) for one in data.sets]
        for name in ("sft_stage1", "sft_stage2")
        for config in [_load(name)]
    }
    assert files == {
        "sft_stage1": [
            ("train_s12w24_with_seeks.jsonl", 2),
            ("train_livecc_with_seeks.jsonl", 1),
            ("valid_s12w24_with_seeks.jsonl", 2),
            ("valid_livecc_with_seeks.jsonl", 1),
        ],
        "sft_stage2": [("train_fg_with_seeks.jsonl", 1), ("valid_fg_with_seeks.jsonl", 1)],
    }
    first, *_ = _load("sft_stage2").data.sets
    assert (first.path, first.folder) == ("/videos/fg/train_fg_with_seeks.jsonl", "/videos")
    with pytest.raises(DataError, match=r"/videos/fg/train_fg_with_seeks.jsonl does not exist; a file of annotations"):
        sets(_load("sft_stage2").data, Source(random_config("qwen2_5_vl"), tiny(), None))


def test_changes_from_the_command_line() -> None:
    config = _load("tiny", "loop.steps=7", "optimizer.learning_rate=1", "mesh.tensor = 2", "wandb=mine", "evaluation=None")
    assert config.loop.steps == 7
    assert config.optimizer.learning_rate == 1.0
    assert config.mesh.tensor == 2
    assert config.wandb == "mine"
    assert config.evaluation is None
    assert _load("tiny", "partition.freeze=[]").partition.freeze == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loop.stebs=7", r"loop.stebs is no field: LoopConfig has no stebs; did you mean steps\?"),
        ("wing=7", r"wing is no field: TrainConfig has no wing; expected one of compute, data, evaluation"),
        ("name.first=7", r"name.first is no field: name has no fields"),
        ("loop.steps=many", r"loop.steps is 'many', expected a value of type int such as 20"),
        ("loop=3", r"loop is a LoopConfig, whose fields are changed one by one"),
        ("data=None", r"data is a DataConfig, whose fields are changed one by one"),
        ("loop.steps", r"'loop.steps' is no change of a field, expected name=value"),
        ("loop.accumulate=0", r"loop.accumulate is 0, expected at least 1"),
    ],
)
def test_changes_that_do_not_fit(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _load("tiny", change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no configuration"),
        ("x = 1", r"has no function get_config\(\)"),
        ("def get_config(): return 3", r"returns a int, expected a TrainConfig"),
        ("def get_config(:", r"config.py does not run: SyntaxError: "),
        ("import svlm_jacks", r"config.py does not run: ModuleNotFoundError: No module named 'svlm_jacks'"),
        (
            "from svlm_jax.train.loop import LoopConfig\ndef get_config(): return LoopConfig(stebs=3)",
            r"gives LoopConfig a field stebs, which it does not have",
        ),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_model_comes_from_one_place() -> None:
    with pytest.raises(ConfigError, match="either a checkpoint or an architecture"):
        ModelSource()
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        ModelSource(architecture=_load("tiny").model.architecture)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the run's folder .*file/tiny cannot be made: Not a directory"):
        _load("tiny", f"folder={tmp_path / 'file'}").make_home()
    _load("tiny", f"folder={tmp_path}").make_home()
    assert (tmp_path / "tiny").is_dir()
