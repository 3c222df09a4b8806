"""Who may use a server, and which sources it may open: a test for each rule."""

import pytest

from svlm_jax.errors import ConfigError, RequestError
from svlm_jax.serving.access import Access, is_loopback

KEY = "a-key-nobody-guesses"


def resolving(*addresses):
    return lambda host: addresses


def test_other_addresses_need_a_key():
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached from other machines: expected an API key"):
        Access(host="0.0.0.0")
    with pytest.raises(ConfigError, match="shorter than 8"):
        Access(api_key="short")
    assert Access(host="0.0.0.0", api_key=KEY)


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({"authorization": f"Bearer {KEY}"}, True),
        ({"authorization": f"bearer {KEY}"}, True),
        ({"authorization": f"Basic {KEY}"}, False),
        ({"authorization": "Bearer another-key"}, False),
        ({"sec-websocket-protocol": f"realtime, openai-insecure-api-key.{KEY}"}, True),
        ({"sec-websocket-protocol": "realtime, openai-insecure-api-key.x"}, False),
        ({"sec-websocket-protocol": KEY}, False),
        ({}, False),
    ],
)
def test_a_key_must_be_presented(headers, admitted):
    assert Access(api_key=KEY).admits(headers) is admitted
    assert Access().admits(headers)


@pytest.mark.parametrize(
    ("access", "origin", "host", "trusted"),
    [
        (Access(), None, "127.0.0.1:8000", True),  # no browser
        (Access(), "http://127.0.0.1:8000", "127.0.0.1:8000", True),
        (Access(), "http://localhost:8000", "localhost:8000", True),
        (Access(), "https://evil.example", "127.0.0.1:8000", False),
        (Access(), "http://evil.example:8000", "evil.example:8000", False),  # a name that was pointed at this machine
        (Access(api_key=KEY), "http://cameras.example", "cameras.example", True),
        (Access(origins=("https://cameras.example",)), "https://cameras.example", "127.0.0.1:8000", True),
        (Access(), "null", "127.0.0.1:8000", False),
    ],
)
def test_pages_of_other_sites_are_refused(access, origin, host, trusted):
    assert access.trusts_origin({"host": host, **({} if origin is None else {"origin": origin})}) is trusted


PRIVATE = ["127.0.0.1", "10.0.0.7", "192.168.1.2", "172.16.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1", "0.0.0.0"]
SCHEMES = [
    "ftp://x/y",
    "concat:a|b",
    "gopher://x",
    "data:video/mp4;base64,AA",
    "pipe:0",
    "subfile,,start,0,end,9,,:/etc/passwd",
]


@pytest.mark.parametrize("ip", PRIVATE)
def test_private_addresses_are_refused_unless_allowed(ip):
    access = Access(resolve=resolving(ip))
    with pytest.raises(RequestError, match="private network") as caught:
        access.source("rtsp://camera.example/stream")
    assert caught.value.status == 403
    assert Access(resolve=resolving(ip), private=True).source("rtsp://camera.example/stream") == "rtsp://camera.example/stream"


def test_one_private_address_among_public_ones_is_enough():
    with pytest.raises(RequestError, match="private network"):
        Access(resolve=resolving("93.184.215.14", "10.0.0.1")).source("http://two.example/a.mp4")
    assert Access(resolve=resolving("93.184.215.14")).source("http://one.example/a.mp4")


@pytest.mark.parametrize("address", SCHEMES)
def test_other_schemes_are_refused(address):
    with pytest.raises(RequestError, match="are not opened here"):
        Access(private=True).source(address)


def test_files_only_below_the_media_folder(tmp_path):
    inside, outside = tmp_path / "media", tmp_path / "secret.mp4"
    inside.mkdir()
    (inside / "a.mp4").write_bytes(b"x")
    outside.write_bytes(b"x")
    (inside / "link.mp4").symlink_to(outside)
    access = Access(media_root=inside)
    assert access.source("a.mp4") == access.source(f"file://{inside}/a.mp4") == str(inside / "a.mp4")
    for name in ("../secret.mp4", "link.mp4", str(outside), f"file://{outside}"):
        with pytest.raises(RequestError, match="outside of the folder"):
            access.source(name)
    with pytest.raises(RequestError, match="no such file"):
        access.source("b.mp4")
    with pytest.raises(RequestError, match="--media-root"):
        Access().source("a.mp4")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]"])
def test_loopback(host):
    assert is_loopback(host) and not is_loopback("0.0.0.0") and not is_loopback("example.org")
