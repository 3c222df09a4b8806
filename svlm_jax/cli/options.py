"""Options that several commands share: each is defined once, and means the same in all of them.

--model --revision --dtype --quantize --cache-dtype             which model, in which numbers
--implementation --compile-cache                                how it runs
--window --cache --positions                                    what captions are made from
--memory                                                        what questions are answered from
--fps --chunk --max-pixels --size                               how video is read
--query --system, --temperature ... --seed                      what captions are asked for, and how words are chosen
"""

import argparse
import dataclasses
import functools
from typing import Any, get_args

from svlm_jax.cache import policies
from svlm_jax.cache.number_formats import EightBit
from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.cli.values import number, size, window
from svlm_jax.errors import ConfigError

MODEL = """\
A model is a folder in the layout of the Hugging Face hub (./my-model), a hub id (owner/name), the short name of a released
model (qwen2.5-vl-7b), one of this package (embedded, embedded-facts), or random weights (random:small)."""
WINDOW = """\
--window says what captions are made from, in seconds of video and tokens of text:

  vision=16   frames of the last 16 s stay in the cache
  text=16     the words of the last 16 s stay too, beside the frames that they belong to
  sink=512    of all earlier words, the first 512 tokens stay for ever
  tail=512    of all earlier words, the last 511 tokens stay too (the 512th place is for the mark that ends them)

sink=none,tail=none keeps every word; the stream then ends when the cache is full.

These are the published values. A model that was trained with other values, or with a query, sampling or picture size of its
own, says so in the block "svlm" of its generation_config.json; those are then the defaults."""


def add_model(group: argparse._ArgumentGroup, *, default: str | None = None, required: bool = True) -> None:
    """--model and how it runs."""
    told = f" (default: {default})" if default else ""
    group.add_argument(
        "--model",
        required=required and default is None,
        default=default,
        metavar="MODEL",
        help=f"a folder, a hub id, or a name such as embedded, qwen2.5-vl-7b or random:small{told}",
    )
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id (default: its main branch)")
    group.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="number format of weights and cache (default: auto, which is bfloat16 on GPU and TPU, float32 on CPU)",
    )
    group.add_argument(
        "--quantize",
        choices=get_args(EightBit),
        help="keep the decoder's weights in 8 bits, which halves their memory and the time of a word; rounded while they are "
        "loaded (default: as --dtype says)",
    )
    group.add_argument(
        "--cache-dtype",
        choices=("float32", "bfloat16", *get_args(EightBit)),
        help="number format of the cache's keys and values, which in 8 bits holds twice as much (default: as --dtype says)",
    )


def add_running(group: argparse._ArgumentGroup) -> None:
    """How programs are compiled and run."""
    group.add_argument(
        "--implementation",
        choices=("auto", "xla", "reference", "mosaic_gpu", "mosaic_tpu", "interpret"),
        default="auto",
        help="which code computes attention: the fastest for this device (auto), or one by name, which says why if it cannot "
        "run here (default: auto)",
    )
    add_compile_cache(group)


def add_compile_cache(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--compile-cache",
        metavar="FOLDER",
        help="folder in which compiled programs are kept for the next start; off: keep none (default: in the user's cache, at "
        "most 4 GiB)",
    )


SOURCE = (
    "a video file, - for standard input, an http(s):// or rtsp:// address, the number of a webcam, or synthetic:match?seed=3"
)


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)


def add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help=f"{SOURCE}; several are watched side by side")


def add_video(group: argparse._ArgumentGroup, *, fps: float) -> None:
    """How a source is read."""
    add_fps(group, default=fps)
    group.add_argument(
        "--start",
        type=number(float, least=0),
        metavar="SECONDS",
        help="second of the video at which to begin (default: 0, or where a resumed stream stopped)",
    )
    group.add_argument(
        "--duration", type=number(float, above=0), metavar="SECONDS", help="seconds of video to watch (default: all)"
    )
    group.add_argument("--realtime", action="store_true", help="play a file at its own speed instead of as fast as possible")
    group.add_argument(
        "--behind",
        choices=("drop", "merge", "wait"),
        help="what to do when the model is slower than the stream: skip to the newest second (drop), show the model the missed "
        "time as one chunk (merge), or let the delay grow (wait, files only) (default: drop for live sources and --realtime, "
        "else wait)",
    )
    add_pixels(group)
    group.add_argument(
        "--variant",
        type=number(int, least=1),
        metavar="LINES",
        help="of an HLS stream that is offered in several sizes, take the one with so many lines (default: the largest)",
    )
    group.add_argument(
        "--max-input-pixels",
        type=number(int, least=1),
        metavar="N",
        help="most pixels that a frame of the video may have; a larger one is decoded at a smaller size, or refused where the "
        "decoder cannot do that (default: 35651584)",
    )


def add_fps(group: argparse._ArgumentGroup, *, default: float) -> None:
    group.add_argument(
        "--fps",
        type=number(float, above=0),
        default=default,
        metavar="N",
        help=f"frames per second that the model sees (default: {default:g})",
    )


def add_chunk(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--chunk",
        type=number(float, above=0),
        default=1.0,
        metavar="SECONDS",
        help="seconds of video that the model sees before it speaks again (default: 1)",
    )


def add_pixels(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-pixels",
        type=number(int, least=784),
        metavar="N",
        help="most pixels of a frame that the model sees; larger frames are scaled down (default: as the model was trained, "
        "else as published for its family)",
    )


def add_window(group: argparse._ArgumentGroup, *, cache: bool = True) -> None:
    """What captions are made from."""
    group.add_argument(
        "--window",
        type=window,
        default={},
        metavar="PARTS",
        help="what stays in the cache: vision=SECONDS,text=SECONDS,sink=TOKENS,tail=TOKENS, or some of these, as "
        "`svlm watch --help` explains (default: as the model was trained, else 16,16,512,512)",
    )
    if not cache:
        return
    group.add_argument(
        "--cache",
        choices=("stream", "full", "hard-reset", "recompute"),
        default="stream",
        help="what happens when the window is full: the oldest second leaves (stream). The others are there to compare with: "
        "nothing ever leaves (full), everything leaves at once (hard-reset), and the whole window is computed again every "
        "second (recompute) (default: stream)",
    )
    group.add_argument(
        "--positions",
        choices=("contiguous", "native", "text"),
        help="how tokens are numbered once older ones have left: without gaps (contiguous), on and on (native), or without "
        "gaps and with frames counted as text is (text) (default: contiguous)",
    )


def add_memory(group: argparse._ArgumentGroup, *, why: str, default: MemoryPolicy | None) -> None:
    """What questions are answered from. default: None where a command answers from the cache of the captions without it."""
    base = default or policies.memory_policy()
    settings = ", ".join(f"{name}={getattr(base, name, field.default)}" for name, field in _settings().items())
    about = "from the cache of the captions" if default is None else default.name
    group.add_argument(
        "--memory",
        type=functools.partial(memory, base=base),
        default=None,
        metavar="POLICY[,NAME=VALUE]",
        help=f"{why}: {', '.join(policies.POLICIES)}; each has settings, such as vsb+par,budget=6000, explained in "
        f"docs/memory.md (default: {about}; settings: {settings})",
    )


def _settings() -> dict[str, dataclasses.Field[Any]]:
    """The settings that any memory has, by name."""
    return {name: field for policy in policies.POLICIES for name, field in policies.options(policy).items()}


def memory(text: str, base: MemoryPolicy) -> MemoryPolicy:
    """`vsb+par`, or a policy with settings: `vsb+par,budget=6000,retrieve=0.2`. base: its changes of defaults hold too."""
    policy, *parts = (part.strip() for part in text.split(","))
    if policy not in policies.POLICIES:
        raise argparse.ArgumentTypeError(f"{policy!r} is no memory: expected one of {', '.join(policies.POLICIES)}")
    own, settings = policies.options(policy), _settings() | policies.options(policy)
    given: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in settings or name in given:
            expected = ", ".join(f"{name}=..." for name in settings)
            raise argparse.ArgumentTypeError(f"{part!r} is not one of {expected}, each once")
        given[name] = _value(name, value, settings[name].default)
    shared = {name: getattr(base, name) for name in policies.options(base.name) if name in own}
    changed = {name: value for name, value in shared.items() if value != own[name].default}
    try:
        return policies.memory_policy(policy, **(changed | given))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _value(name: str, text: str, default: Any) -> Any:
    """Text as a value of the kind that the default is of; a number where that is None."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"{name}={text!r}: expected true or false")
        return text == "true"
    if isinstance(default, str):
        return text
    try:
        return number(int if isinstance(default, int) else float)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def add_prompt(group: argparse._ArgumentGroup) -> None:
    """What a stream of captions is told before it begins."""
    group.add_argument(
        "--query", metavar="TEXT", help="what to talk about (default: as the model was trained, else commentate)"
    )
    add_system(group)


def add_system(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--system", metavar="TEXT", help="system prompt, which stays for as long as the stream runs")


def add_size(group: argparse._ArgumentGroup, *, default: tuple[int, int] | None, help: str) -> None:
    group.add_argument("--size", type=size, default=default, metavar="WxH", help=help)


def add_seed(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seed",
        type=number(int, least=0),
        default=42,
        help="start of the random choices: the same seed gives the same words (default: 42)",
    )


def add_sampling(group: argparse._ArgumentGroup) -> None:
    """How words are chosen."""
    group.add_argument(
        "--max-new-tokens", type=number(int, least=1), metavar="N", help="most tokens of a caption (default: 20)"
    )
    group.add_argument(
        "--temperature", type=number(float, above=0), metavar="T", help="how random the choice of words is (default: 0.9)"
    )
    group.add_argument(
        "--top-k",
        type=number(int, least=0),
        metavar="K",
        help="choose among the K likeliest tokens; 0: among all (default: as the model says, else 50)",
    )
    group.add_argument(
        "--top-p",
        type=number(float, above=0),
        metavar="P",
        help="choose among the likeliest tokens whose probabilities add up to P (default: as the model says, else 1)",
    )
    group.add_argument(
        "--repetition-penalty",
        type=number(float, above=0),
        metavar="R",
        help="above 1, words that are still in the cache are less likely to be said again (default: 1.05)",
    )
    group.add_argument("--greedy", action="store_true", help="always take the likeliest token, with no randomness")
    add_seed(group)


def window_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of WindowConfig that --window, --cache and --positions set."""
    found: dict[str, Any] = dict(arguments.window)
    if getattr(arguments, "cache", None) is not None:
        found["memory"] = arguments.cache
    if getattr(arguments, "positions", None) is not None:
        found["positions"] = arguments.positions
    return found
