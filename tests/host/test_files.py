"""Files that people own: whole or not there, whoever kills the writer; never what is being read."""

import errno
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from svlm_jax.errors import OutputError
from svlm_jax.host.files import Appender, atomic_file, check_distinct, check_target, json_text, write_json, write_text

ROOT = Path(__file__).parents[2]


def test_a_file_is_replaced_whole_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    path.chmod(0o640)
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2} and stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(KeyError), atomic_file(path) as file:
        file.write(b"half")
        raise KeyError
    assert json.loads(path.read_text()) == {"a": 2}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_stays_one_and_a_device_is_written_to_as_it_is(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    write_text("/dev/null", "nothing")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OutputError, match=r"^/dev/full cannot be written: No space left on device.$"):
        write_text("/dev/full", "anything")


def test_numbers_that_json_does_not_have_are_null():
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf,)}}
    assert json_text(value) == '{"a": null, "b": [null, 1.5], "c": {"d": [null]}}'


def test_lines_survive_a_torn_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n' + b'{"n": "' + b"x" * 200_000)
    lines = Appender(path)
    lines.append({"n": 2})
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2]
    path.write_bytes(b'{"n": ')
    Appender(path)
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """A file may not grow beyond 1,000 bytes: the line that does not fit is not there at all."""
    code = f"""
import resource, signal
from svlm_jax.host.files import Appender, write_text
from svlm_jax.errors import OutputError
write_text({str(tmp_path / "b.txt")!r}, "old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
lines = Appender({str(tmp_path / "a.jsonl")!r})
try:
    while True:
        lines.append({{"text": "x" * 300}})
except OutputError as error:
    print(error)
try:
    write_text({str(tmp_path / "b.txt")!r}, "x" * 2000)
except OutputError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    reason = os.strerror(errno.EFBIG)
    assert said == "".join(f"{tmp_path / name} cannot be written: {reason}.\n" for name in ("a.jsonl", "b.txt"))
    assert [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == ["x" * 300] * 3
    assert (tmp_path / "b.txt").read_text() == "old" and sorted(os.listdir(tmp_path)) == ["a.jsonl", "b.txt"]


@pytest.mark.parametrize(
    "by", ["name", "relative", "symlink", "hard link", "folder's symlink", "url", "part of a folder", "playlist", "nested"]
)
def test_no_output_is_an_input_by_any_name(by, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = tmp_path / "match.mp4"
    video.write_bytes(b"video")
    output, read = video, video
    if by == "relative":
        output = Path("x/../match.mp4")
    elif by == "symlink":
        output = tmp_path / "link"
        output.symlink_to(video)
    elif by == "hard link":
        output = tmp_path / "hard"
        os.link(video, output)
    elif by == "folder's symlink":
        (tmp_path / "folder").symlink_to(tmp_path)
        output = tmp_path / "folder" / "match.mp4"
    elif by == "url":
        read = video.as_uri()
    elif by == "part of a folder":
        read = tmp_path
    elif by in ("playlist", "nested"):
        read = tmp_path / "a.M3U8"
        read.write_text("#EXTM3U\n#EXTINF:4,\nmatch.mp4\nhttp://host/b.ts\n")
        if by == "nested":
            (tmp_path / "master.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\na.M3U8\n")
            read = tmp_path / "master.m3u8"
    with pytest.raises(OutputError, match=r"cannot be written: it is .*match.mp4, which is being read"):
        check_distinct([tmp_path / "other", output], [read])


def test_no_output_is_standard_input(tmp_path):
    (tmp_path / "match.mp4").write_bytes(b"video")
    code = "import sys; from svlm_jax.host.files import check_distinct; check_distinct([sys.argv[1]], ['-'])"
    command = [sys.executable, "-c", code, str(tmp_path / "match.mp4")]
    with open(tmp_path / "match.mp4", "rb") as file:
        done = subprocess.run(command, check=False, stdin=file, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "which is being read" in done.stderr


def test_no_two_outputs_are_one_file(tmp_path):
    (tmp_path / "a").write_text("a")
    os.link(tmp_path / "a", tmp_path / "b")
    with pytest.raises(OutputError, match=r"b cannot be written: it is another output too"):
        check_distinct([tmp_path / "a", tmp_path / "b"], [])
    with pytest.raises(OutputError, match="another output too"):
        check_distinct([tmp_path / "new", tmp_path / "." / "new"], [])
    check_distinct([tmp_path / "a", "/dev/null", "/dev/null"], ["rtsp://user@host/live", "0", "/dev/null"])


def test_what_cannot_become_a_file(tmp_path):
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "none" / "a", "the folder .*none does not exist")):
        with pytest.raises(OutputError, match=why):
            check_target(path)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
