"""One rule for what a model may be called, in every command."""

import pytest

from svlm_jax.checkpoint import hf, named
from svlm_jax.cli import main as cli
from svlm_jax.errors import CheckpointError, ConfigError
from svlm_jax.models import registry
from svlm_jax.models.presets import HUB_IDS, PRESETS, preset
from tests import checkpoints


def test_every_preset_has_its_hub_id():
    assert set(HUB_IDS) == set(PRESETS)
    assert all(name.count("/") == 1 for name in HUB_IDS.values())


def test_a_preset_is_loaded_from_the_hub_and_described_without_it(monkeypatch):
    asked = []
    monkeypatch.setattr(hf, "load", lambda source, **_: asked.append(source))
    monkeypatch.setattr(hf, "resolve", lambda source, **_: pytest.fail("nothing is fetched to describe a preset"))
    named.load("Qwen2.5-VL-7B", dtype=None)
    assert asked == ["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert named.describe("qwen2.5-vl-7b").config == preset("qwen2.5-vl-7b")


def test_folders_hub_ids_and_the_package_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qwen2.5-vl-7b").mkdir()
    for name in ("embedded", "embedded-facts", "owner/name", "./somewhere", "/a/b/c", "qwen2.5-vl-7b", tmp_path):
        assert named.released(name) == name
    assert named.describe(checkpoints.tiny()).folder == checkpoints.tiny()


def test_random_weights_by_name(tmp_path):
    tiny = named.load("random:tiny", dtype="float32")
    assert tiny.tokenizer.decode(tiny.tokenizer.encode("word")) == "word"
    assert named.describe("random:tiny").config == tiny.config
    assert named.generation_config("random:tiny")["suppress_tokens"]
    assert named.describe("random:qwen2.5-vl-7b").config == preset("qwen2.5-vl-7b")
    with pytest.raises(ConfigError, match=r"'huge'.*random:.*tiny"):
        named.load("random:huge", dtype=None)


def test_a_name_that_is_nothing_lists_what_it_could_be():
    with pytest.raises(CheckpointError, match=r"'gpt-2'.*hub id.*embedded.*qwen2\.5-vl-7b.*random:.*small"):
        named.released("gpt-2")


@pytest.mark.parametrize(
    "command",
    [
        ["watch", "synthetic:match"],
        ["ask", "synthetic:match", "Who?"],
        ["bench", "--json", "{}/bench.json"],
        ["eval", "match"],
        ["convert"],
        ["doctor", "--model"],
    ],
)
def test_every_command_asks_the_same_rule(command, tmp_path, capsys):
    words = [word.format(tmp_path) for word in command]
    if command[0] == "convert":
        words += ["gpt-2", str(tmp_path / "out")]
    else:
        words += ["gpt-2"] if command[-1] == "--model" else ["--model", "gpt-2"]
    assert cli.main(words) == 2
    assert "there is no model named 'gpt-2'" in capsys.readouterr().err


def test_a_random_model_is_converted_and_convert_says_what_it_wrote(tmp_path, capsys):
    assert cli.main(["convert", "random:tiny", str(tmp_path / "tiny"), "--to", "hf"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Written: {tmp_path / 'tiny'}" in told and "--model" in told
    assert hf.load(tmp_path / "tiny").config == named.describe("random:tiny").config


@pytest.mark.parametrize(
    ("name", "family"),
    [("random:tiny", "qwen2_5_vl"), ("random:tiny:qwen3_vl", "qwen3_vl"), ("random:qwen3-vl-30b-a3b", "qwen3_vl_moe")],
)
def test_random_models_have_a_family(name, family):
    about = named.describe(name)
    assert about.config.family == family
    assert registry.family(family).chat_template == (about.folder / "chat_template.jinja").read_text()


@pytest.mark.parametrize("name", ["random:huge", "random:qwen2.5-vl-7b:qwen3_vl", "random:tiny:qwen9_vl"])
def test_random_models_of_no_family_are_refused(name):
    with pytest.raises(ConfigError, match=rf"{name.rpartition(':')[2]}.*expected .*qwen"):
        named.describe(name)
