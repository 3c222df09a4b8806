import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.cli import main as cli
from svlm_jax.models.functional import abstract_params
from svlm_jax.models.presets import PRESETS, preset
from svlm_jax.streaming.memory_plan import QWEN_LENGTHS, plan, working_bytes
from svlm_jax.streaming.vlm import StreamingVLM
from tests import checkpoints


def report(capsys, *argv):
    code = cli.main(["doctor", "--json", *argv])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if found.get("model", {}).get("memory", {}).get("fits") is False else 0)
    return found


def test_machine(capsys):
    found = report(capsys)
    assert found["libraries"]["jax"] == jax.__version__
    assert len(found["devices"]) == jax.local_device_count()
    assert found["decoders"]["h264"] is True
    assert "cache_attention" in found["kernels"]
    assert "model" not in found


# The counts that the hub states for these models; of LLaVA-OneVision and Qwen3-VL, what transformers counts.
PARAMETERS = {
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2.5-vl-32b": 33_452_718_336,
    "qwen2.5-vl-72b": 73_410_777_344,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2-vl-7b": 8_291_375_616,
    "llava-onevision-qwen2-0.5b-ov": 893_675_552,
    "llava-onevision-qwen2-7b-ov": 8_030_807_584,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
    "qwen3-vl-32b": 33_357_390_064,
    "qwen3-vl-30b-a3b": 31_070_754_032,
    "qwen3-vl-235b-a22b": 235_670_022_896,
}
LARGE = ("qwen2.5-vl-32b", "qwen2.5-vl-72b", "qwen3-vl-4b", "qwen3-vl-32b", "qwen3-vl-235b-a22b")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in PARAMETERS])
def test_presets_have_the_published_parameter_counts(name):
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(preset(name)))) == PARAMETERS[name]


def test_every_preset_is_tested():
    assert set(PRESETS) == set(PARAMETERS)


def test_seven_billion_at_720p(capsys):
    model = report(capsys, "--model", "qwen2.5-vl-7b", "--device-memory", "24")["model"]
    memory = model["memory"]
    assert model["frame_size"] == [560, 1008]
    assert memory["slots_by_role"]["vision"] == 16 * 720
    assert memory["slots_by_role"]["previous text"] == 512 + 511 + 6
    assert memory["parameters_bytes"] == 2 * 8_292_166_656
    # Keys and values of 28 layers, 4 heads of 128, two bytes; then 44 bytes of metadata a slot.
    assert memory["cache_bytes"] == memory["slots"] * (2 * 28 * 4 * 128 * 2 + 44)
    assert 2 * memory["rotated_keys_bytes"] == memory["slots"] * 2 * 28 * 4 * 128 * 2
    # XLA's memory analysis of the second compiled for an H200 says 18.3 GB (tests/aot).
    assert 17.5e9 < memory["total_bytes"] < 19e9
    assert memory["fits"] is True
    assert report(capsys, "--model", "qwen2.5-vl-7b", "--device-memory", "16")["model"]["memory"]["fits"] is False


@pytest.mark.parametrize(
    ("argv", "role", "slots"),
    [
        (["--window", "vision=8"], "vision", 8 * 720),
        (["--window", "sink=0,tail=1"], "previous text", 6),
        (["--fps", "8"], "vision", 16 * 4 * 720),
        (["--chunk", "2"], "vision", 8 * 2 * 720),
        (["--size", "640x360"], "vision", 16 * 299),
    ],
)
def test_the_window_decides_the_slots(argv, role, slots, capsys):
    assert report(capsys, "--model", "qwen2.5-vl-7b", *argv)["model"]["memory"]["slots_by_role"][role] == slots


def test_the_dtype_is_the_one_that_watch_would_take(capsys):
    here = report(capsys, "--model", "qwen2.5-vl-7b")["model"]
    assert here["dtype"] == "float32" and here["memory"]["parameters_bytes"] == 4 * 8_292_166_656, "on this machine's CPU"
    card = report(capsys, "--model", "qwen2.5-vl-7b", "--for", "h100")["model"]
    assert (card["dtype"], card["device"], card["memory"]["fits"]) == ("bfloat16", "NVIDIA H100 80 GB", True)
    asked = report(capsys, "--model", "qwen2.5-vl-7b", "--for", "h100", "--dtype", "float32")["model"]
    assert asked["dtype"] == "float32"


@pytest.mark.parametrize(
    ("card", "gib", "fits"), [("16gb", 12, False), ("24gb", 18, True), ("h200", 105.3, True), ("v6e", 31.25, True)]
)
def test_cards_have_what_jax_takes_of_them(card, gib, fits, capsys):
    memory = report(capsys, "--model", "qwen2.5-vl-7b", "--for", card)["model"]["memory"]
    assert memory["device_bytes"] == pytest.approx(gib * 2**30, rel=0.001) and memory["fits"] is fits


@pytest.mark.parametrize(("card", "argv", "fits"), [("16gb", [], False), ("16gb", ["--quantize", "int8"], True)])
def test_weights_of_8_bits_fit_smaller_cards(card, argv, fits, capsys):
    model = report(capsys, "--model", "qwen2.5-vl-7b", "--for", card, *argv)["model"]
    assert model["memory"]["fits"] is fits and model["quantize"] == (argv[1] if argv else None)
    assert ("16gb" in model["cards"]["bfloat16"], "16gb" in model["cards"]["--quantize int8"]) == (False, True)
    assert "12gb" not in model["cards"]["--quantize int8"]


def test_a_cache_of_8_bits_is_half_as_large(capsys):
    wide, narrow = (
        report(capsys, "--model", "qwen2.5-vl-7b", "--for", "h200", *argv)["model"]["memory"]
        for argv in ([], ["--cache-dtype", "fp8"])
    )
    assert narrow["rotated_keys_bytes"] == wide["rotated_keys_bytes"] * (128 + 4) / 256
    assert narrow["parameters_bytes"] == wide["parameters_bytes"]


def test_a_models_own_window_picture_and_prompt_are_those_of_its_stream(capsys):
    """The slots that the report counts are those that a stream of the model in this package has."""
    found = report(capsys, "--model", "embedded", "--size", "448x336")["model"]
    assert found["frame_size"] == [84, 112] and found["window"]["tail"] == 96
    vlm = StreamingVLM.from_pretrained("embedded", dtype="float32")
    session = vlm.stream()
    with session.open("synthetic:match?seed=3&minutes=0.1") as source:
        session.begin(next(source))
    assert found["memory"]["slots"] == session.config.ring.slots
    assert found["tokens_per_chunk"] == 12


def test_streams_share_the_weights_only():
    one, four = (plan(preset("qwen2-vl-2b"), WindowConfig(), QWEN_LENGTHS, streams=n) for n in (1, 4))
    # Of one: 28 layers, 2 heads of 128, two bytes, and 44 bytes of metadata a slot.
    slots = sum(one.slots.values())
    assert (one.cache, one.rotated) == (slots * (2 * 28 * 2 * 128 * 2 + 44), slots * 28 * 2 * 128 * 2)
    assert four.parameters == one.parameters == 2 * PARAMETERS["qwen2-vl-2b"]
    assert (four.cache, four.rotated, four.working) == (4 * one.cache, 4 * one.rotated, 4 * one.working)
    assert four.total == four.parameters + four.cache + four.rotated + four.working


@pytest.mark.parametrize(
    ("patches", "slots", "largest"),
    [
        # A layer of the decoder: 720 + 42 tokens, 28 heads, and the logits.
        (720, 13_336, 762 * (5 * 3584 + 2 * 18_944) * 2 + 2 * 4 * 28 * 128 * 13_336 + 8 * 152_064),
        # A block of the tower: four patches a token, 16 heads.
        (5000, 8, 20_000 * (5 * 1280 + 2 * 3420) * 2 + 2 * 4 * 16 * 128 * 20_000),
    ],
)
def test_a_second_works_in_the_larger_of_tower_and_decoder(patches, slots, largest):
    lengths = dataclasses.replace(QWEN_LENGTHS, patches=patches)
    assert working_bytes(preset("qwen2.5-vl-7b"), lengths, slots, itemsize=2) == largest


@pytest.mark.slow
def test_tables_say_whether_it_fits(capsys):
    assert cli.main(["doctor", "--model", "qwen2.5-vl-72b", "--device-memory", "80"]) == 1
    out = capsys.readouterr().out
    assert "qwen2.5-vl-72b: does not fit" in out
    assert "previous text" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "gpt-2"], ["gpt-2", "qwen2.5-vl-7b", "random:", "embedded"]),
        (["--model", "./nowhere"], ["./nowhere"]),
        (["--model", "qwen2.5-vl-7b", "--fps", "3"], ["fps=3", "even"]),
        (["--model", "qwen2.5-vl-7b", "--window", "sink=3,tail=none"], ["sink=3", "tail=None"]),
        (["--model", "qwen2.5-vl-7b", "--window", "sink=none,tail=none"], ["length"]),
    ],
)
def test_questions_that_cannot_be_answered(argv, words, capsys):
    assert cli.main(["doctor", *argv]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ")
    assert complaint.count("\n") == 1
    assert all(word in complaint for word in words), complaint


def test_llava_sees_tiles_of_one_size(capsys):
    model = report(capsys, "--model", "llava-onevision-qwen2-7b-ov", "--size", "1920x1080", "--device-memory", "24")["model"]
    assert (model["frame_size"], model["tokens_per_chunk"]) == ([384, 384], 2 * 196)
    assert model["memory"]["slots_by_role"]["vision"] == 16 * 2 * 196
    assert model["memory"]["parameters_bytes"] == 2 * 8_030_807_584
    assert model["memory"]["fits"] is True


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized ('gptq')"),
        ({"num_hidden_layers": 2}, "has unknown"),
    ],
)
def test_what_load_refuses_is_no_fit(tmp_path, capsys, spoil, words):
    folder = shutil.copytree(checkpoints.tiny(), tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **spoil}))
    assert cli.main(["doctor", "--model", str(folder)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_time_stamps_are_counted(capsys):
    """Of a preset by Qwen's vocabulary: 12 tokens and two marks a second. Of a folder as many slots as its stream has."""
    preset_ = report(capsys, "--model", "qwen3-vl-8b", "--for", "h200")["model"]
    assert preset_["memory"]["slots_by_role"]["vision marks"] == 16 * 14 and preset_["memory"]["fits"] is True
    assert preset_["frame_size"] == [640, 1152]
    found = report(capsys, "--model", str(checkpoints.tiny("qwen3_vl")), "--size", "448x336")["model"]
    session = StreamingVLM.from_pretrained(checkpoints.tiny("qwen3_vl"), dtype="float32").stream()
    plan = session.capacity(np.empty((2, 3, *found["frame_size"]), np.uint8))
    assert found["memory"]["slots"] == plan.ring.slots
