"""The rules of Dockerfile linters that matter here (hadolint's numbers in brackets), over the Dockerfile as it is."""

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def steps(text):
    """(instruction, arguments) of each step; lines that end with a backslash go on."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name.upper(), rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in joined.splitlines())]


def faults(text):
    """What a linter would say, in words."""
    found, users, given = [], [], steps(text)
    for name, rest in given:
        if name == "FROM" and (":" not in rest or ":latest" in rest):
            found.append("FROM without a version (DL3006, DL3007)")
        if name == "WORKDIR" and not rest.startswith("/"):
            found.append("WORKDIR is not absolute (DL3000)")
        if name in ("ADD", "MAINTAINER"):
            found.append(f"{name}: expected COPY or LABEL (DL3020, DL4000)")
        if name == "RUN":
            found += [word for word in ("sudo", "apt ", "ssh ") if re.search(rf"(^|[;&|] *){word}", rest)]
            if "pip install" in rest and "--no-cache-dir" not in rest:
                found.append("pip install keeps its cache (DL3042)")
            if "apt-get install" in rest and not all(
                part in rest for part in ("-y", "--no-install-recommends", "rm -rf /var/lib/apt/lists")
            ):
                found.append("apt-get install asks, recommends or keeps its lists (DL3009, DL3014, DL3015)")
            if re.search(r"(^|[;&|] *)cd ", rest):
                found.append("cd: expected WORKDIR (DL3003)")
            if "useradd" in rest and re.search(r"--uid [0-9]{6,}", rest) and "--no-log-init" not in rest:
                found.append("useradd with a high uid fills the log (DL3046)")
        if name in ("CMD", "ENTRYPOINT") or (name == "HEALTHCHECK" and " CMD " in f" {rest} "):
            command = rest.rpartition("CMD ")[2] if name == "HEALTHCHECK" else rest
            if not isinstance(parsed(command), list):
                found.append(f"{name} is no list of JSON, so that signals do not reach it (DL3025)")
        if name == "USER":
            users.append(rest)
        if name == "EXPOSE" and not all(0 < int(port.split("/")[0]) < 65536 for port in rest.split()):
            found.append("EXPOSE: no port (DL3011)")
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        if [step for step, _ in given].count(name) > 1:
            found.append(f"{name} more than once (DL4003, DL4004, DL3012)")
    if not users or users[-1] in ("root", "0"):
        found.append("it runs as root (DL3002)")
    return found


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_no_fault():
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("FROM python:3.12-slim", "FROM python", "without a version"),
        ("USER svlm\n", "", "root"),
        (" --no-cache-dir", "", "cache"),
        ('ENTRYPOINT ["svlm"]', "ENTRYPOINT svlm", "ENTRYPOINT is no list"),
        ("WORKDIR /opt/svlm", "WORKDIR svlm", "not absolute"),
        ("COPY configs", "ADD configs", "expected COPY"),
        ('CMD ["--help"]', 'CMD ["--help"]\nCMD ["--version"]', "CMD more than once"),
    ],
)
def test_each_rule_can_fail(before, after, sentence):
    assert before in TEXT
    assert any(sentence in fault for fault in faults(TEXT.replace(before, after)))


def test_it_copies_what_there_is_and_all_that_the_build_reads():
    copied = [path for name, rest in steps(TEXT) if name == "COPY" for path in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    needed = {"pyproject.toml", "setup.py", "requirements.txt", "svlm_jax", "pallas_kernels", "configs", "launch"}
    assert needed <= set(copied)
