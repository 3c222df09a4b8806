"""Addresses as anybody may see them."""

import logging
import sys
import time

import pytest

from svlm_jax.cli.main import main
from svlm_jax.eval.results import manifest
from svlm_jax.host.progress import Stages
from svlm_jax.host.redact import mask, redact


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("rtsp://anna:p@cam.example:554/h264?channel=1", "rtsp://***@cam.example:554/h264?channel=***"),
        ("rtsp://anna@cam.example/live/ch0", "rtsp://***@cam.example/live/ch0"),
        ("rtsp://anna:p@ss@cam.example/live", "rtsp://***@cam.example/live"),
        ("rtsp://anna:p/ss@cam.example/live", "rtsp://***"),
        ("rtsp://anna:p?ss@cam.example/live", "rtsp://***"),
        ("rtsp://anna:p#ss@cam.example/live", "rtsp://***"),
        ("rtsp://anna:p ss@cam.example/live", "rtsp://***@cam.example/live"),
        ("rtsp://cam.example/user=admin_password=x_channel=1.sdp", "rtsp://cam.example/***"),
        ("rtsps://cam.example:7441/AbCdEfGh12345678", "rtsps://cam.example:7441/***"),
        ("rtmp://live.example/app/live_7_plain", "rtmp://live.example/app/***"),
        ("https://cdn.example/a.m3u8?token=abc&quality=high", "https://cdn.example/a.m3u8?token=***&quality=***"),
        ("https://cdn.example/a.mp4?secret#access_token=1", "https://cdn.example/a.mp4?***"),
        ("https://cdn.example/a.mp4?next=x@secret.example", "https://***"),
        ("srt://host:9000?streamid=abc", "srt://host:9000?streamid=***"),
        ("http://[::1]:8080/match-2024_final.mp4", "http://[::1]:8080/match-2024_final.mp4"),
        ("https://pass%word/a.mp4", "https://***/a.mp4"),
        ("match.mp4", "match.mp4"),
        ("http:/anna:geheim@h/x", "http:***"),
        ("rtsp:anna:geheim@h/x", "rtsp:***"),
        ("//anna:geheim@h/x", "//***"),
        ("C:/videos/a@b.mp4", "C:/videos/a@b.mp4"),
        ("synthetic:match?seed=3", "synthetic:match?seed=3"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_masked(url: str, masked: str) -> None:
    assert mask(url) == masked


def test_texts_of_others_are_masked_too() -> None:
    text = "svlm: 'rtsp://a:b@h/x' fails (https://h/y.mp4?t=1), see http://h/docs."
    assert redact(text) == "svlm: 'rtsp://***@h/x' fails (https://h/y.mp4?t=***), see http://h/docs."
    assert redact("cannot open rtsp://a b:c@h/x", ["rtsp://a b:c@h/x"]) == "cannot open rtsp://***@h/x"


def test_nothing_that_is_said_or_written_holds_the_secret(capsys, caplog) -> None:
    secret = "rtsp://anna:geheim@127.0.0.1:1/live?key=geheim"
    for argv in (
        ["watch", secret, "--model", "embedded", "--debug", "--no-live"],
        ["watch", "a.mp4", "--model", "embedded", secret],
        ["ask", secret, "Who?", "--model", "embedded-facts", "--debug"],
    ):
        with pytest.raises(SystemExit):
            raise SystemExit(main(argv))
    said = capsys.readouterr()
    assert "127.0.0.1:1" in said.err and "Traceback" in said.err
    assert "geheim" not in said.err + said.out + caplog.text
    assert "geheim" not in str(manifest(["svlm", "watch", secret]))


# Where a secret, in bold letters, can stand in an address; every one of them is somebody's camera, server or signed link.
ADDRESSES = (
    "rtsp://user:{}@10.0.0.5:554/Streaming/Channels/101",
    "RTSP://User:{}@h/x",
    "rtsp://u:{}%40x@h/x",
    "rtsp://u:{}\"'<>@h/x",
    "rtsp://u:{}:x:y@[fe80::1]/x",
    "rtsp://u:{} x@h/v.mp4",
    "rtsp://h:554/user=admin&password={}&channel=1",
    "rtmp://a.rtmp.example/live2/{}-abcd-efgh",
    "rtmps://live.example:443/rtmp/FB-{}?s_bl=1",
    "srt://h:9000?passphrase={}&mode=caller",
    "srt://h:9000?streamid=#!::u=admin,s={}",
    "https://h/v.mp4?X-Amz-Signature={}&X-Amz-Credential={}/2026",
    "https://h/v.mp4;jsessionid={}?a",
    "https://h/{}/v.mp4",
    "https://h/v.mp4#access_token={}",
    "https://{}@h/v.mp4",
    "https://h/v.mp4?{}",
    "https://h/a?b=1&amp;c={}",
    "http://h/get.php?username=u&password={}&type=m3u8",
    "http://h:8080/live/user1/{}/12345.ts",
    "http://h/?token[]={}",
    "https://h/v.mp4?a={}@b",
    "concat:http://u:{}@h/a|http://h/b",
    "http:/u:{}@h/x",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_shows_its_secret(address: str) -> None:
    """Neither alone, nor in the words of a message, a list, or a traceback."""
    url = address.replace("{}", "s3cr3t")
    assert "s3cr3t" not in mask(url)
    for text in (f"cannot open '{url}': bad", f"['{url}', 1]", f'  open_source("{url}")', f"({url})."):
        assert "s3cr3t" not in redact(text, [url])
        assert " x@" in url or "s3cr3t" not in redact(text)  # what stands behind a blank only its owner knows to belong to it


@pytest.mark.parametrize("part", ["a.", "a:", "a://", "//a", "ab:b@", "http:/"])
def test_a_long_text_takes_no_long_time(part: str) -> None:
    begin = time.process_time()
    redact(part * 100_000)
    assert time.process_time() - begin < 5.0


def test_what_is_going_on_is_masked_too(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["svlm", "watch", "rtsp://anna:geh eim@h/x"])
    with Stages("opening rtsp://anna:geh eim@h/x") as stages:
        assert [task.description for task in stages._bar.tasks] == ["opening rtsp://***@h/x"]
        stages.enter("opening https://h/a.mp4?t=geheim")
        assert [task.description for task in stages._bar.tasks] == ["opening https://h/a.mp4?t=***"]


def test_messages_of_libraries_are_masked(capsys) -> None:
    with pytest.raises(SystemExit):
        raise SystemExit(main(["doctor", "--model", "nowhere", "--debug"]))
    handler = logging.StreamHandler()
    from svlm_jax.cli.main import Plain

    handler.setFormatter(Plain("svlm: %(message)s"))
    record = logging.LogRecord("httpx2", logging.INFO, "", 0, "POST %s", ("https://u:geheim@h/v1",), None)
    assert handler.format(record) == "svlm: POST https://***@h/v1"
