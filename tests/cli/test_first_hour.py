"""What a new user meets in the first hour, where no other test looks: signs of life, lines that fit, warnings, hints."""

import argparse
import io
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from matplotlib.axes import Axes

from svlm_jax.cli import bench, demo, eval_published, help_text
from svlm_jax.cli import main as cli
from svlm_jax.cli.stream_spec import ModelSpec, SourceSpec, StreamSpec, warn_of_unknown_video
from svlm_jax.eval.efficiency_figure import PART_COLOURS, draw
from svlm_jax.host import progress
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.synthetic.match import write_match
from svlm_jax.train.checkpoints import newest_step
from tests import clips
from tests.output.test_terminal import screen_of

ALIVE = """
import sys
from svlm_jax.host import progress

class Alive(progress.Stages):
    def __init__(self, first):
        heavy = {'jax', 'flax', 'numpy', 'av', 'huggingface_hub'} & set(sys.modules)
        print('alive', first, *sorted(heavy))
        raise SystemExit(0)

progress.Stages = Alive
from svlm_jax.cli import main
main.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command",
    [
        ["watch", "x.mp4", "--model", "m"],
        ["ask", "x.mp4", "Who?", "--model", "m"],
        ["doctor"],
        ["bench"],
        ["serve", "--model", "m"],
        ["convert", "m", "out"],
        ["eval", "match"],
        ["demo"],
    ],
    ids=lambda command: command[0],
)
def test_the_first_sign_of_life_comes_before_anything_heavy_is_imported(command):
    """So within a second: `import jax` alone takes longer."""
    done = subprocess.run([sys.executable, "-c", ALIVE, *command], capture_output=True, text=True, timeout=120, check=False)
    assert re.fullmatch(r"alive (starting|looking at this machine)\n", done.stdout), (done.stdout, done.stderr[-500:])


def test_what_is_printed_does_not_stand_on_the_line_of_the_sign(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress.Stages("answering") as stages:
        with stages.aside():
            progress.prose().print("a flag")
        between = screen.getvalue()
    rows, after = (screen_of(text, 80, 24)[1] for text in (between, screen.getvalue()))
    assert rows[0] == after[0] == "a flag"
    assert rows[1].endswith("answering 0 s") and not "".join(after[1:])


# ------------------------------------------------------------------------------------------------- lines that fit


@pytest.mark.parametrize("columns", [80, 110, 200])
@pytest.mark.parametrize("command", [[], ["watch"], ["ask"], ["serve"], ["doctor"], ["bench"], ["eval", "match"], ["train"]])
def test_help_fits_the_terminal(command, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    long = [line for line in capsys.readouterr().out.splitlines() if len(line) > columns]
    # A command of an example is one line, which a reader may copy.
    assert [line for line in long if not line.startswith("  ")] == []


def test_help_breaks_paragraphs_and_moves_what_is_said_about_an_example(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    formatter = help_text.HelpFormatter("svlm")
    text = "One sentence that is certainly\nlonger than a line of sixty columns is.\n\nexamples:\n"
    text += "  svlm watch match.mp4 --model mit-han-lab/StreamingVLM      a comment\n  short"
    lines = formatter._fill_text(text, 58, "").splitlines()
    assert lines[0] == "One sentence that is certainly longer than a line of sixty"
    assert lines[3:] == ["examples:", "  svlm watch match.mp4 --model mit-han-lab/StreamingVLM", "      a comment", "  short"]


def test_the_paragraphs_of_the_demo_are_broken_by_the_terminal_only():
    for text in (demo.BEFORE, demo.AFTER, demo.OFF_PATH):
        assert all("\n" not in paragraph.strip("\n") for paragraph in text.split("\n\n"))


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_sentences_are_broken_between_words_in_a_terminal_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sentence = "a rather long sentence about something that does not fit " * 4
    for stream in (Screen(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        cli.complain(sentence)
        lines = stream.getvalue().splitlines()
        assert " ".join(" ".join(lines).split()) == f"svlm: {sentence.strip()}"
        assert len(lines) == 1 if not stream.isatty() else (len(lines) > 2 and max(map(len, lines)) <= 80)


# ------------------------------------------------------------------------------------------------- what is said


def test_a_model_of_this_package_warns_of_any_other_video(tmp_path, caplog):
    match, _ = write_match(tmp_path, 3, 1 / 30, fps=2)
    for source in ("synthetic:match?seed=3", str(match)):
        warn_of_unknown_video("embedded", source)
    warn_of_unknown_video("./my-model", "0")
    assert not caplog.records
    other = clips.render(tmp_path / "clip.mp4", frames=4)
    for source in (str(other), "0", "rtsp://camera", "synthetic:facts?seed=3"):
        warn_of_unknown_video("embedded", source)
        assert "knows nothing but the drawn videos of synthetic:match" in caplog.records[-1].getMessage()
    warn_of_unknown_video("embedded-facts", str(match))
    assert len(caplog.records) == 5


def test_the_demo_says_how_svlm_is_called(tmp_path, monkeypatch):
    program = tmp_path / ".venv" / "bin" / "svlm"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert demo.command_name() == ".venv/bin/svlm"
    monkeypatch.setenv("PATH", str(program.parent))
    assert demo.command_name() == "svlm"
    monkeypatch.setattr("sys.argv", ["/usr/lib/python3/site-packages/svlm_jax/__main__.py"])
    assert demo.command_name() == "svlm"


@pytest.mark.parametrize(
    ("platform", "kind", "told"),
    [("cpu", "cpu", "cpu"), ("gpu", "NVIDIA H200", "gpu NVIDIA H200"), ("tpu", "TPU v5e", "tpu TPU v5e")],
)
def test_the_footer_names_the_device_once(platform, kind, told, monkeypatch):
    monkeypatch.setattr("jax.devices", lambda: [SimpleNamespace(platform=platform, device_kind=kind)])
    model, video = ModelSpec("m", None, "auto", None), SourceSpec("0", None, None, "fast", None, {})
    source = SimpleNamespace(info=SimpleNamespace(duration=None))
    status = StreamSpec(model, video, StreamSettings(), {}, 0.0, None).status(source, "camera")
    assert status.device == told and status.line.plain.endswith(f"  {told}")


def test_bench_says_about_how_long_it_still_takes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bench.time, "monotonic", lambda: now[0])
    clock = bench.Remaining([70, 70, 170])
    assert clock.told() == ""
    now[0] = 50.0
    clock.done()
    assert clock.told() == ", about 2 min left"
    now[0] = 100.0
    clock.done()
    assert clock.told() == ", about 2 min left"
    assert bench.Remaining([1]).told() == ""


def test_the_figure_of_an_interrupted_bench_says_what_is_missing(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **options: said.append((self.get_title(), text)))
    row = {"kind": "series", "second": [1, 2], "ms_per_token": [1.0, 1.0], "cached_tokens": [9, 9], "device_bytes": [9, 9]}
    draw({"stream": row}, tmp_path / "part.png", "a model")
    assert said and {text for _, text in said} == {"not measured yet"}
    some = len(said)
    draw({}, tmp_path / "none.png", "a model")
    assert len(said) - some > some, "the panels that had something are empty too"
    assert len(set(PART_COLOURS.values())) == 3


def test_a_finished_run_is_known_without_compiling(tmp_path):
    assert newest_step(tmp_path / "nowhere") is None
    for name in ("5", "20", "100.tmp", "notes"):
        (tmp_path / name).mkdir()
    assert newest_step(tmp_path) == 20


# ------------------------------------------------------------------------------------------------- one definition

# What commands have in common, and where it means another thing: "command": why.
OWN = {
    "--dtype": {"convert": "what is written, which is as it was by default"},
    "--fps": {"rvs-ego": "the benchmark's own by default"},
    "--duration": {"doctor": "of a stream that nobody watches"},
    "--max-new-tokens": {"ask": "of an answer", "rvs-ego": "of an answer"},
    "--jsonl": {"ask": "there are answers only"},
    "--memory": {"watch": "told for what", "ask": "told for what", "rvs-ego": "told for what"},
    "--seed": {"match": "of the drawn match", "demo": "of the drawn match"},
    "--size": {"serve": "of the cameras", "doctor": "of the video"},
    "--streams": {"serve": "at most", "bench": "each of them is tried"},
    "--json": {"match": "with a manifest", "bench": "one line a row", "doctor": "no file"},
    "--seconds": {"bench": "of the long streams", "demo": "of the match"},
}


PUBLISHED = set(eval_published.NAMES) - {"rvs-ego"}  # benchmarks of one definition, of which one stands for all


def commands(parser):
    """All commands by name, benchmarks of `eval` among them."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                found |= {name: sub, **commands(sub)}
    return found


PARSERS = {name: parser for name, parser in commands(cli.parser()).items() if name not in PUBLISHED}
OPTIONS = sorted({option for parser in PARSERS.values() for option in parser._option_string_actions} - {"-h", "--debug"})


def told(action):
    """All that a reader of the help sees of an option, but for its default."""
    about = re.sub(r" \(default: .*\)$", "", action.help)
    return action.dest, action.choices, action.metavar, action.nargs, about


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_means_the_same_in_every_command(option):
    there = {name: parser._option_string_actions.get(option) for name, parser in PARSERS.items()}
    same = {repr(told(action)) for name, action in there.items() if action is not None and name not in OWN.get(option, {})}
    assert len(same) <= 1, same


def test_serve_takes_what_watch_takes():
    """Where the one has an option of how a model runs, what it sees, keeps and says, so has the other."""
    of_a_file = {"--start", "--duration", "--realtime", "--behind", "--variant", "--max-input-pixels", "--previous-text"}
    of_a_run = {
        "--save-state",
        "--resume",
        "--parity",
        "--split-timings",
        "--no-split-timings",
        "--no-live",
        "--ask",
        "--memory",
    }
    files = {f"--{kind}" for kind in ("vtt", "srt", "jsonl", "video")}
    watch, serve = (set(PARSERS[name]._option_string_actions) for name in ("watch", "serve"))
    assert watch - serve == of_a_file | of_a_run | files


@pytest.mark.parametrize(
    "command", [[], ["watch"], ["ask"], ["serve"], ["doctor"], ["bench"], ["eval"], ["train"], ["convert"]]
)
def test_the_examples_of_the_help_are_understood(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  svlm ")]
    assert lines
    for line in lines:
        words = shlex.split(re.split(r" {2,}", line.strip())[0].rstrip("\\"))
        if "--help" not in words:
            cli.parser().parse_args(words[1:])
