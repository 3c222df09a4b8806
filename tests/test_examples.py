"""Every example of the documents is tried, as it stands there: Python is run, commands are run or at least understood.

An example that cannot be tried here has a reason in front of it, in the document's source: <!-- not run: REASON -->.
"""

import argparse
import dataclasses
import io
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from svlm_jax.cli import main as cli
from tests import clips

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
MODEL = Path(__file__).parent / "golden" / "streamingvlm" / "checkpoint"
RUN = (
    "watch",
    "ask",
    "doctor",
)  # commands of the README that run, with a small model and a short clip in the place of the names
MODELS = ("mit-han-lab/StreamingVLM", "./my-model", "llava-hf/llava-onevision-qwen2-7b-ov-hf")
VIDEOS = ("match.mp4", "hall.mp4", "0", "1", "rtsp://user:password@camera/stream")


@dataclasses.dataclass(frozen=True)
class Example:
    page: str
    line: int
    language: str
    text: str
    reason: str  # why it is not tried; "" if it is

    def __str__(self):
        return f"{self.page}:{self.line}"


def examples(page):
    """The fenced and indented blocks of a page."""
    lines, i, reason = (ROOT / page).read_text(encoding="utf-8").splitlines(), 0, ""
    while i < len(lines):
        line, begin = lines[i], i + 1
        if line.startswith("```"):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            yield Example(page, begin, line[3:].strip(), "\n".join(lines[i + 1 : end]), reason)
            i, reason = end + 1, ""
        elif line.startswith("    ") and not lines[i - 1].strip():
            end = next((j for j in range(i, len(lines)) if not lines[j].startswith("    ")), len(lines))
            yield Example(page, begin, "bash", "\n".join(row[4:] for row in lines[i:end]), reason)
            i, reason = end, ""
        else:
            found = re.fullmatch(r"<!-- not run: (.+) -->", line)
            reason = found[1] if found else reason if not line.strip() else ""
            i += 1


ALL = [example for page in PAGES for example in examples(page)]


def commands(example):
    """The command lines of a block, as words."""
    joined = example.text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


# ------------------------------------------------------------------------------------------------- understood


def understood(words):
    """Whether everything that a command names exists here: programs, options, files, targets, extras, addresses."""
    program, *rest = words
    if "=" in program:  # a variable that is set for the command
        return understood(rest)
    if "&&" in words:
        at = words.index("&&")
        return understood(words[:at]) and understood(words[at + 1 :])
    return KNOWN[program](rest)


def understood_python(words):
    if words[0] == "-c":
        compile(words[1], "-c", "exec")
        return True
    module, *options = words[1:] if words[0] == "-m" else words
    path = ROOT / (f"{module.replace('.', '/')}.py" if words[0] == "-m" else module)
    if not path.is_file():
        return False
    text = path.read_text() + (ROOT / "svlm_jax" / "cli" / "train.py").read_text()  # which `launch.train` has its options from
    options = options[: options.index("--")] if "--" in options else options
    return all(f'"{word}"' in text for word in options if word.startswith("--"))


def understood_install(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"\[([a-z,]+)\]", " ".join(words))
    address = re.findall(r"git\+(\S+)", " ".join(words))
    assert all(one == project["urls"]["Repository"] for one in address)
    assert all(extra in project["optional-dependencies"] for group in extras for extra in group.split(","))
    return "." in words or bool(extras or address) or words[-1] in ("pre-commit", "install")


def understood_uvx(words):
    command = words[words.index("svlm") + 1 :]
    return understood_install(words) and bool(cli.parser().parse_args(command))


def understood_address(words):
    (path,) = re.findall(r"localhost:8000(/v1/[a-z]+)", " ".join(words))
    return any(f'"{path}' in file.read_text() for file in (ROOT / "svlm_jax" / "serving").glob("*.py"))


KNOWN = {
    "svlm": lambda words: bool(cli.parser().parse_args(words)),
    "make": lambda words: re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M) is not None,
    "python": understood_python,
    "pip": understood_install,
    "pipx": understood_install,
    "uvx": understood_uvx,
    "pre-commit": lambda words: (ROOT / ".pre-commit-config.yaml").is_file(),
    "sbatch": lambda words: all((ROOT / word).is_file() for word in words if not word.startswith("-")),
    "curl": understood_address,
}


@pytest.mark.parametrize("example", ALL, ids=str)
def test_every_example_is_tried_or_says_why_not(example):
    assert example.reason or example.language in ("python", "bash"), f"a block of {example.language or 'no language'}"
    if example.reason or example.language != "bash":
        return
    for words in commands(example):
        assert words[0] in KNOWN or words[0].endswith("=..."), words
        assert understood(words), words


def parsers(parser):
    """A parser, and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_exist(page):
    flags = set(re.findall(r"`(--[a-z-]+)", (ROOT / page).read_text(encoding="utf-8")))
    known = set(re.findall(r"(?<=[ \[])--[a-z-]+", "\n".join(parser.format_help() for parser in parsers(cli.parser()))))
    elsewhere = "\n".join(path.read_text() for path in [*(ROOT / "launch").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
    assert {flag for flag in flags - known if f'"{flag}"' not in elsewhere} == set()


def test_a_block_that_is_neither_tried_nor_explained_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_examples.ROOT", tmp_path)
    page = "    svlm listen\n\n```\nsvlm watch\n```\n\n<!-- not run: needs a moon -->\n```js\nmoon\n```\n"
    (tmp_path / "page.md").write_text(f"\n{page}")
    first, second, third = examples("page.md")
    assert (first.line, first.language, second.language, third.reason) == (2, "bash", "", "needs a moon")
    with pytest.raises(SystemExit):
        test_every_example_is_tried_or_says_why_not(first)
    with pytest.raises(AssertionError, match="no language"):
        test_every_example_is_tried_or_says_why_not(second)


# ------------------------------------------------------------------------------------------------- run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the videos that examples name."""
    monkeypatch.chdir(tmp_path)
    clips.render(tmp_path / "match.mp4", frames=24 * 44, size=(56, 84))
    (tmp_path / "hall.mp4").write_bytes((tmp_path / "match.mp4").read_bytes())
    return tmp_path


def small(text):
    for model in MODELS:
        text = text.replace(model, str(MODEL))
    return text


@pytest.mark.slow
def test_python_runs(folder, capsys):
    names = {}
    for page in ("README.md", "docs/library.md", "docs/memory.md"):
        for example in examples(page):
            if example.language == "python":
                exec(compile(small(example.text), str(example), "exec"), names)
    assert names["session"].chunks == 44
    assert names["pool"].chunk_index.tolist() == [3]
    assert names["answer"].seconds
    assert "0 s: " in capsys.readouterr().out
    tried = {example.page for example in ALL if example.language == "python" and not example.reason}
    assert tried == {"README.md", "docs/library.md", "docs/memory.md"}


RUNNING = [
    pytest.param(found, id=str(example))
    for example in ALL
    if example.page == "README.md" and example.language == "bash" and not example.reason
    if (found := [words[1:] for words in commands(example) if words[0] == "svlm" and words[1] in RUN])
]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNNING)
def test_commands_run(block, folder, monkeypatch, capsys):
    """In the order in which they stand, in one folder."""
    for words in block:
        monkeypatch.setattr("sys.stdin", io.StringIO("What is there?\n"))
        code = cli.main([str(folder / "hall.mp4") if word in VIDEOS[2:] else small(word) for word in words])
        assert code == 0 or (words[0] == "doctor" and code == 1), (words, capsys.readouterr().err)
