"""Downloads by hub id, from a small hub on the loopback device, in a process of its own: settings are read at import."""

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import checkpoints

COMMIT = "f" * 40
SCRIPT = """
import sys
from svlm_jax.checkpoint import hf
from svlm_jax.errors import CheckpointError
try:
    checkpoint = hf.load(sys.argv[1], revision=sys.argv[2] or None)
    print(checkpoint.folder, len(checkpoint.tokenizer))
except CheckpointError as error:
    print(f"refused: {error}")
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one folder as the model owner/name; branches are main and v2, owner/gated is gated."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    files: dict[str, bytes]

    def __init__(self, files, asked, *args):
        self.files, self.asked = files, asked
        super().__init__(*args)

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        self.asked.append(path)
        if path.startswith("/api/models/owner/gated"):
            return self.reply(403, X_Error_Code="GatedRepo")
        if not path.startswith(("/api/models/owner/name/", "/owner/name/")):
            return self.reply(401, X_Error_Code="RepoNotFound")
        if path.startswith("/api"):
            if path.rsplit("/", 1)[-1] not in ("main", "v2", COMMIT):
                return self.reply(404, X_Error_Code="RevisionNotFound")
            if "/tree/" in path:
                tree = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in self.files.items()]
                return self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
            info = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        body = self.files[path.rsplit("/", 1)[-1]]
        return self.reply(200, body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def hub():
    files = {path.name: path.read_bytes() for path in checkpoints.tiny().iterdir()}
    files |= {"pytorch_model.bin": b"not wanted", "README.md": b"not wanted"}
    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, files, asked))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def load(home, name, revision="", **variables):
    """What loading prints; HF_HOME is `home`."""
    unwanted = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    env = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    env |= {
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "JAX_PLATFORMS": "cpu",
        **variables,
    }
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, name, revision]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_download_then_offline(hub, tmp_path):
    endpoint, asked = hub
    folder, size = load(tmp_path, "owner/name", "v2", HF_ENDPOINT=endpoint).split()
    assert Path(folder).name == COMMIT
    assert Path(folder).is_relative_to(tmp_path)
    assert size == "320"
    assert any(path.endswith("/revision/v2") for path in asked)
    assert not [path for path in asked if path.endswith((".bin", ".md"))], "only what is needed is fetched"
    asked.clear()
    assert load(tmp_path, "owner/name", "v2", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1") == f"{folder} {size}"
    assert not asked


def test_refusals(hub, tmp_path):
    endpoint, _ = hub
    loads = functools.partial(load, tmp_path, HF_ENDPOINT=endpoint)
    assert "owner/name has no revision 'v3'" in loads("owner/name", "v3")
    assert "the hub has no such model" in loads("owner/absent")
    assert "owner/gated is gated" in loads("owner/gated")
    closed = load(tmp_path, "owner/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert closed.startswith("refused: owner/name is neither a folder nor in the local hub cache")
