"""`svlm watch` from end to end with the small checkpoint of the recordings: outputs, bad inputs, signals, resuming."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import av
import pytest
import safetensors.numpy

from svlm_jax.cli import main as cli
from svlm_jax.host.folders import current
from svlm_jax.streaming.saved import is_stream
from tests import clips
from tests.fuzz.ours import commentary_seeds

MODEL = Path(__file__).parents[1] / "golden" / "streamingvlm" / "checkpoint"
SMALL = ["--window", "vision=2,text=2,sink=4,tail=4", "--max-new-tokens", "4", "--no-live"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clips.render(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=24 * 5)


def watch(*argv, model=MODEL):
    return cli.main(["watch", *map(str, argv), "--model", str(model), *SMALL])


def sentence(capsys):
    """The one sentence on stderr; asserts that it is one, and no traceback."""
    complaint = capsys.readouterr().err
    assert complaint.startswith("svlm: ")
    assert complaint.count("\n") == 1, complaint
    return complaint


def segments(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def cues(path):
    return path.read_text().count("-->")


# ------------------------------------------------------------------------------------------------- what works


def test_every_second_is_captioned(clip, tmp_path, capsys):
    out = {kind: tmp_path / f"out.{kind}" for kind in ("vtt", "srt", "jsonl")}
    assert watch(clip, *(word for kind, path in out.items() for word in (f"--{kind}", path))) == 0
    rows = segments(out["jsonl"])
    assert [(row["start"], row["end"]) for row in rows] == [(float(i), i + 1.0) for i in range(5)]
    spoken = sum(not row["silent"] for row in rows)
    assert cues(out["vtt"]) == cues(out["srt"]) == spoken
    assert "[00:00:04]" in capsys.readouterr().out


def test_same_seed_same_words(clip, tmp_path):
    texts = []
    for run, seed in enumerate((1, 1, 2)):
        assert watch(clip, "--seed", seed, "--jsonl", tmp_path / f"{run}.jsonl") == 0
        texts.append([row["text"] for row in segments(tmp_path / f"{run}.jsonl")])
    assert texts[0] == texts[1] != texts[2]


def test_a_resumed_stream_equals_an_uninterrupted_one(clip, tmp_path, capsys):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    assert watch(clip, "--jsonl", whole) == 0
    assert watch(clip, "--jsonl", parts, "--duration", 2, "--save-state", tmp_path / "state") == 0
    assert len(segments(parts)) == 2
    for option, words in (("--fps", ["4"]), ("--seed", ["7"]), ("--query", ["Speak."]), ("--greedy", [])):
        capsys.readouterr()
        assert watch(clip, "--resume", tmp_path / "state", option, *words) == 2
        complaint = sentence(capsys)
        assert option in complaint and "a stream that is resumed goes on with" in complaint
    assert watch(clip, "--jsonl", parts, "--resume", tmp_path / "state", "--fps", "2") == 0

    def said(path):
        return [(row["start"], row["text"], row["cache"]) for row in segments(path)]

    assert said(parts) == said(whole)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["full", "recompute"])
def test_the_baselines_run(memory, clip, tmp_path):
    assert watch(clip, "--cache", memory, "--jsonl", tmp_path / "out.jsonl") == 0
    assert len(segments(tmp_path / "out.jsonl")) == 5


def test_timings_are_split_on_request(clip, tmp_path):
    assert watch(clip, "--split-timings", "--jsonl", tmp_path / "out.jsonl") == 0
    last = segments(tmp_path / "out.jsonl")[-1]["timing"]
    assert last["vision"] + last["prefill"] + last["decode"] == pytest.approx(last["step"], rel=0.01)


@pytest.mark.parametrize("address", [str, Path.as_uri])
def test_captions_are_drawn_into_a_copy(address, clip, tmp_path):
    assert watch(address(clip), "--video", tmp_path / "out.mp4") == 0
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 24 * 5


def test_a_reader_that_leaves_ends_it_quietly(clip, tmp_path):
    command = [
        sys.executable,
        "-m",
        "svlm_jax",
        "watch",
        str(clip),
        "--model",
        str(MODEL),
        *SMALL,
        "--vtt",
        tmp_path / "out.vtt",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141
    assert cues(tmp_path / "out.vtt") >= 1


# ------------------------------------------------------------------------------------------------- bad sources


def make_source(kind, folder):
    path = folder / f"{kind}.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("This is no video. " * 200)
    elif kind == "sound":
        clips.render_sound(path)
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "sound"])
def test_what_is_no_video_is_named(kind, tmp_path, capsys):
    source = make_source(kind, tmp_path)
    assert watch(source) == 2
    assert str(source) in sentence(capsys)


def test_a_truncated_file_keeps_its_captions(tmp_path, capsys):
    source = clips.truncate(clips.render(tmp_path / "clip.mkv", frames=24 * 8), 0.6)
    out = {kind: tmp_path / f"out.{kind}" for kind in ("vtt", "jsonl")}
    assert watch(source, "--vtt", out["vtt"], "--jsonl", out["jsonl"]) == 2
    assert "truncated" in sentence(capsys)
    assert 3 <= len(segments(out["jsonl"])) <= 6
    assert out["vtt"].read_text().startswith("WEBVTT")


@pytest.mark.parametrize(
    "source", ["http://127.0.0.1:9/clip.mp4", "rtsp://viewer:secret@127.0.0.1:9/live", "tcp://127.0.0.1:9"]
)
def test_an_unreachable_address_is_named_without_its_password(source, capsys):
    assert watch(source) == 2
    complaint = sentence(capsys)
    assert "127.0.0.1:9" in complaint
    assert "secret" not in complaint


def test_a_page_that_is_not_there(tmp_path, capsys):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert watch(f"http://127.0.0.1:{server.server_port}/nothing.mp4") == 2
        server.shutdown()
    assert "nothing.mp4" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("index", ["93", "-1"])
def test_a_camera_that_is_not_there(index, capsys):
    assert watch(index) == 2
    assert index in sentence(capsys)


# ------------------------------------------------------------------------------------------------- bad models


def broken_model(kind, folder):
    model = folder / "model"
    if kind == "missing":
        return model
    shutil.copytree(MODEL, model)
    config = json.loads((model / "config.json").read_text())
    if kind == "no config":
        (model / "config.json").unlink()
    elif kind == "no weights":
        (model / "model.safetensors").unlink()
    elif kind == "no tokenizer":
        (model / "tokenizer.json").unlink()
    elif kind == "architecture":
        config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        (model / "config.json").write_text(json.dumps(config))
    elif kind == "bad json":
        (model / "config.json").write_text("{")
    elif kind == "tensor":
        tensors = safetensors.numpy.load_file(model / "model.safetensors")
        del tensors[next(name for name in tensors if "norm" in name)]
        safetensors.numpy.save_file(tensors, model / "model.safetensors")
    elif kind == "shape":
        tensors = safetensors.numpy.load_file(model / "model.safetensors")
        name = next(name for name in tensors if "norm" in name)
        tensors[name] = tensors[name][:-1]
        safetensors.numpy.save_file(tensors, model / "model.safetensors")
    elif kind == "cut":
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[: len(data) // 2])
    return model


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["model"]),
        ("no config", ["config.json"]),
        ("no weights", ["safetensors"]),
        ("no tokenizer", ["tokenizer"]),
        ("architecture", ["LlamaForCausalLM", "Qwen2_5_VLForConditionalGeneration"]),
        ("bad json", ["config.json"]),
        ("tensor", ["lacks", "norm"]),
        ("shape", ["shape", "norm"]),
        ("cut", ["model.safetensors"]),
    ],
)
def test_what_is_no_checkpoint_is_named(kind, words, clip, tmp_path, capsys):
    assert watch(clip, model=broken_model(kind, tmp_path)) == 2
    complaint = sentence(capsys)
    assert all(word in complaint for word in words), complaint


def test_a_hub_id_that_is_not_there(clip, capsys):
    assert watch(clip, model="nobody/nothing-of-this-name") == 2
    assert "nobody/nothing-of-this-name" in sentence(capsys)


# ------------------------------------------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--window", "text=0"], ["text=0"]),
        (["--window", "sink=none,tail=8"], ["sink=None", "tail=8"]),
        (["--window", "vision=0", "--cache", "hard-reset"], ["vision=0", "hard-reset"]),
        (["--cache", "recompute", "--positions", "native"], ["native", "recompute"]),
        (["--fps", "3"], ["fps=3"]),
        (["--chunk", "0.75"], ["chunk_seconds=0.75"]),
        (["--top-p", "1.5"], ["top_p=1.5"]),
        (["--memory", "vsb"], ["--memory vsb without --ask"]),
        (["--ask", "Who?", "--memory", "vsb+par,budget=5"], ["budget=5", "at least"]),
        (["--start", "60"], ["60"]),
        (["--resume", "nowhere"], ["nowhere"]),
        (["--vtt", "/nonexistent/out.vtt"], ["/nonexistent"]),
        (["--vtt", "out.txt", "--srt", "out.txt"], ["out.txt"]),
    ],
)
def test_settings_that_cannot_work_are_named(argv, words, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # Without SMALL, which would settle the window.
    assert cli.main(["watch", str(clip), "--model", str(MODEL), "--no-live", *argv]) == 2
    complaint = sentence(capsys)
    assert all(word in complaint for word in words), complaint


def test_an_output_must_not_replace_the_video(clip, capsys):
    before = clip.read_bytes()
    assert watch(clip, "--video", clip) == 2
    assert str(clip) in sentence(capsys)
    assert clip.read_bytes() == before


def test_a_defect_is_one_line_and_a_traceback_only_on_request(clip, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("svlm_jax.streaming.vlm.StreamingVLM.from_pretrained", fail)
    assert watch(clip) == 1
    complaint = sentence(capsys)
    assert "the sky fell" in complaint
    assert "--debug" in complaint
    assert watch(clip, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_complete_files(number, code, clip, tmp_path):
    long = clips.render(tmp_path / "long.mp4", frames=24 * 60)
    out = {kind: tmp_path / f"out.{kind}" for kind in ("vtt", "srt", "jsonl")}
    files = [word for kind, path in out.items() for word in (f"--{kind}", str(path))]
    command = [sys.executable, "-m", "svlm_jax", "watch", str(long), "--model", str(MODEL), "--realtime", *SMALL, *files]
    command += ["--save-state", str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        begin = time.monotonic()
        while not (out["jsonl"].exists() and out["jsonl"].read_text().count("\n") >= 2):
            assert time.monotonic() - begin < 120
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    rows = segments(out["jsonl"])
    assert rows[0]["start"] == 0
    assert rows[1]["start"] <= 2  # the seconds that compiling takes are not lost
    assert out["jsonl"].read_text().endswith("\n")
    assert cues(out["vtt"]) == cues(out["srt"]) == sum(not row["silent"] for row in rows)
    assert len(stdout.splitlines()) >= len(rows) - 1
    assert is_stream(current(tmp_path / "state"))


@pytest.mark.parametrize("option", ["--vtt", "--srt", "--jsonl", "--video", "--save-state"])
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_no_output_is_the_video(option, link, clip, tmp_path, capsys):
    (tmp_path / "mine.mp4").write_bytes(clip.read_bytes())
    link(tmp_path / "mine.mp4", tmp_path / "other")
    assert watch(tmp_path / "mine.mp4", option, tmp_path / "other") == 2
    assert "which is being read" in sentence(capsys)
    assert (tmp_path / "mine.mp4").read_bytes() == clip.read_bytes()


def test_a_folder_of_somebody_else_is_not_replaced(clip, tmp_path, capsys):
    """Said before the run, not behind it."""
    (tmp_path / "photo.jpg").write_text("a photo")
    assert watch(clip, "--save-state", tmp_path) == 2
    assert "cannot be replaced: it holds something else" in sentence(capsys)
    assert os.listdir(tmp_path) == ["photo.jpg"]


@pytest.mark.parametrize("option", ["--jsonl", "--video", "--save-state"])
@pytest.mark.parametrize("folder", ["saved", "empty", "link"])
def test_nothing_else_is_written_into_a_saved_stream(option, folder, clip, tmp_path, capsys):
    """It would keep the stream from being saved when the run is over, or damage the one that is read."""
    (tmp_path / "saved" / "version-0123abcd").mkdir(parents=True)
    (tmp_path / "saved" / "version-0123abcd" / "session.json").write_text("{}")
    (tmp_path / "saved" / "CURRENT").write_text("version-0123abcd\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("saved")
    if option != "--save-state":
        assert watch(clip, "--save-state", tmp_path / folder, option, tmp_path / folder / "out") == 2
        assert f"{folder} is a saved stream's own folder" in sentence(capsys)
    settings = json.loads(commentary_seeds()[0])
    settings["settings"]["window"] |= {"vision": 2.0, "text": 2.0, "sink": 4, "tail": 4}  # as SMALL asks
    settings["sampling"]["max_new_tokens"] = 4
    (tmp_path / "saved" / "version-0123abcd" / "session.json").write_text(json.dumps(settings))
    inside = tmp_path / "saved" / "version-0123abcd" / "session.json"
    assert watch(clip, "--resume", tmp_path / "link", option, inside) == 2
    assert "saved stream's own folder" in sentence(capsys)
    assert json.loads(inside.read_text()) == settings


def test_a_kernel_of_another_device_is_refused(clip, capsys):
    assert watch(clip, "--implementation", "mosaic_tpu") == 2
    assert "mosaic_tpu" in sentence(capsys)
