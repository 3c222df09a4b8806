"""Options that several commands share: each is defined once, and means the same in all of them.

--model --revision --dtype --implementation --compile-cache     which model, and how it runs
--window --cache --positions                                    what captions are made from
--memory                                                        what questions are answered from
--fps --chunk --max-pixels --size                               how video is read
--query --system, --temperature ... --seed                      what captions are asked for, and how words are chosen
"""

import argparse
import dataclasses
import functools
from typing import Any

from svlm_jax.cache import policies
from svlm_jax.cache.policies.base import MemoryPolicy
from svlm_jax.cli.values import number, size, window
from svlm_jax.errors import ConfigError

MODEL = """\
A model is a folder in the layout of the Hugging Face hub (./my-model), a hub id (owner/name), the short name of a released
model (qwen2.5-vl-7b), one of this package (embedded, embedded-facts), or random weights (random:small)."""
WINDOW = """\
--window says what captions are made from, in seconds of video and tokens of text:

  vision=16   frames of the last 16 s stay in the cache
  text=16     so do the words of the last 16 s, beside the frames that they belong to
  sink=512    of all earlier words the first 512 tokens stay for ever ...
  tail=512    ... and the last 511; sink=none,tail=none keeps every word, and the cache then limits the length of the stream

These are the published values. A model that was trained with others has them in the block "svlm" of its
generation_config.json, and they are its defaults; query, sampling and picture size too."""


def add_model(group: argparse._ArgumentGroup, *, default: str | None = None, required: bool = True) -> None:
    """--model and how it runs."""
    told = f" (default: {default})" if default else ""
    group.add_argument(
        "--model",
        required=required and default is None,
        default=default,
        metavar="MODEL",
        help=f"folder, hub id, embedded, qwen2.5-vl-7b, random:small, ...{told}",
    )
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id (default: its main branch)")
    group.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="number format of weights and cache (default: auto, which is bfloat16 on GPU and TPU, float32 on CPU)",
    )


def add_running(group: argparse._ArgumentGroup) -> None:
    """How programs are compiled and run."""
    group.add_argument(
        "--implementation",
        choices=("auto", "xla", "reference", "mosaic_gpu", "mosaic_tpu", "interpret"),
        default="auto",
        help="code of attention: the fastest for the device (default: auto), or one by name, which runs or says why it cannot",
    )
    add_compile_cache(group)


def add_compile_cache(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--compile-cache",
        metavar="FOLDER",
        help="where compiled programs are kept for the next start; off: nowhere (default: in the user's cache, at most 4 GiB)",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a video file, - for standard input, an http(s):// or rtsp:// address, the number of a webcam, or "
        "synthetic:match?seed=3",
    )


def add_video(group: argparse._ArgumentGroup, *, fps: float) -> None:
    """How a source is read."""
    add_fps(group, default=fps)
    group.add_argument(
        "--start", type=number(float, least=0), metavar="SECONDS", help="where to begin (0, or where a resumed stream stopped)"
    )
    group.add_argument("--duration", type=number(float, above=0), metavar="SECONDS", help="how much to watch (default: all)")
    group.add_argument("--realtime", action="store_true", help="play a file at its own speed instead of as fast as possible")
    group.add_argument(
        "--behind",
        choices=("drop", "merge", "wait"),
        help="when the model is slower than the stream: skip to the newest second (drop), see the missed span as one chunk "
        "(merge), or let the lag grow (wait, files only); default: drop for live sources and --realtime, else wait",
    )
    add_pixels(group)
    group.add_argument(
        "--variant",
        type=number(int, least=1),
        metavar="LINES",
        help="of an HLS stream, the variant of that height (the largest)",
    )
    group.add_argument(
        "--max-input-pixels",
        type=number(int, least=1),
        metavar="N",
        help="refuse frames that are larger in the video, or decode them smaller where the decoder can (default: 35651584)",
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
        help="length of a chunk of video, after each of which the model speaks (default: 1)",
    )


def add_pixels(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-pixels",
        type=number(int, least=784),
        metavar="N",
        help="pixels of a frame at most; larger ones are scaled down (default: as trained, else as published for the family)",
    )


def add_window(group: argparse._ArgumentGroup, *, cache: bool = True) -> None:
    """What captions are made from."""
    group.add_argument(
        "--window",
        type=window,
        default={},
        metavar="PARTS",
        help="what stays in the cache: vision=SECONDS,text=SECONDS,sink=TOKENS,tail=TOKENS, or some of them "
        "(default: as the model was trained, else 16,16,512,512)",
    )
    if not cache:
        return
    group.add_argument(
        "--cache",
        choices=("stream", "full", "hard-reset", "recompute"),
        default="stream",
        help="stream: drop what leaves the window, second by second (default). The others are what it is compared with: keep "
        "everything (full), forget everything when the window is full (hard-reset), run the whole window anew every second "
        "(recompute)",
    )
    group.add_argument(
        "--positions",
        choices=("contiguous", "native", "text"),
        help="after something has left: close the gaps (contiguous, default), let positions grow (native), or close them and "
        "count frames as text, too (text)",
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
        help=f"{why}: {', '.join(policies.POLICIES)}, with settings of its own, such as vsb+par,budget=6000 (default: {about}; "
        f"settings: {settings})",
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
    group.add_argument("--seed", type=number(int, least=0), default=42, help="same seed, same words (default: 42)")


def add_sampling(group: argparse._ArgumentGroup) -> None:
    """How words are chosen."""
    group.add_argument(
        "--max-new-tokens", type=number(int, least=1), metavar="N", help="tokens that a caption may have (default: 20)"
    )
    group.add_argument("--temperature", type=number(float, above=0), metavar="T", help="randomness (default: 0.9)")
    group.add_argument(
        "--top-k", type=number(int, least=0), metavar="K", help="choose among the K likeliest tokens; 0: among all"
    )
    group.add_argument(
        "--top-p", type=number(float, above=0), metavar="P", help="choose among the likeliest tokens that have P of 1 together"
    )
    group.add_argument(
        "--repetition-penalty",
        type=number(float, above=0),
        metavar="R",
        help="above 1, what was said lately is said less often again (default: 1.05)",
    )
    group.add_argument("--greedy", action="store_true", help="always the likeliest token: no randomness")
    add_seed(group)


def window_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of WindowConfig that --window, --cache and --positions set."""
    found: dict[str, Any] = dict(arguments.window)
    if getattr(arguments, "cache", None) is not None:
        found["memory"] = arguments.cache
    if getattr(arguments, "positions", None) is not None:
        found["positions"] = arguments.positions
    return found
