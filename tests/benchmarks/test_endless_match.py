"""The long measurement in short: rows are kept, not run again, and drawn."""

import argparse
import json

import pytest
from PIL import Image

from benchmarks import endless_match
from svlm_jax.cache.window import WindowConfig
from svlm_jax.streaming.settings import StreamSettings
from tests import checkpoints


def test_rows_are_measured_once_and_drawn(tmp_path, capsys, monkeypatch):
    file = tmp_path / "found.json"
    argv = ["--minutes", "0.05", "--model", str(checkpoints.match()), "--out", str(file), "--modes"]
    assert endless_match.main([*argv, "streaming"]) == 0
    first = json.loads(file.read_text())
    measured = []
    measure = endless_match.measure
    monkeypatch.setattr(endless_match, "measure", lambda *args: measured.append(args[1]) or measure(*args))
    assert endless_match.main([*argv, "streaming,native positions"]) == 0
    assert measured == ["native positions"], "the other is there already"
    kept = json.loads(file.read_text())
    streaming, native = kept["rows"].values()
    assert streaming == first["rows"]["streaming, match 1, 0.05 minutes"]
    assert (streaming["window"]["positions"], native["window"]["positions"]) == ("contiguous", "native")
    assert streaming["seconds"] == 3 and len(streaming["slices"]) == 1 and streaming["cache_slots"] > 12 * 16
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size > (800, 400)
    assert "there already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        endless_match.main(["--model", str(checkpoints.tiny()), "--out", str(file)])
    assert "expected another file, or the same settings" in " ".join(capsys.readouterr().err.split())


class Model:
    defaults = StreamSettings(window=WindowConfig(text=64))


def test_modes_differ_in_what_they_say():
    windows = {name: endless_match.settings_of(Model, mode).window for name, mode in endless_match.MODES.items()}
    assert windows["streaming"] == Model.defaults.window
    assert len(set(windows.values())) == len(windows)
    arguments = argparse.Namespace(minutes=30, full_minutes=20, recompute_minutes=40, ablation_minutes=5)
    wanted = {"streaming": 30, "full attention": 20, "window with overlap": 30, "vision 1 s": 5}
    assert {name: endless_match.minutes_of(name, arguments) for name in wanted} == wanted
