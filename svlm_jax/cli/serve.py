"""`svlm serve`: many live streams on one device, through a page and an API."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svlm_jax.cli.values import number, size, window
from svlm_jax.errors import ConfigError

if TYPE_CHECKING:
    from svlm_jax.serving.hub import Hub
    from svlm_jax.streaming.vlm import StreamingVLM

EXAMPLES = """\
examples:
  svlm serve --model embedded                                  the small model of this package; open the printed address
  svlm serve --model mit-han-lab/StreamingVLM --streams 8      eight cameras on one GPU
  svlm serve --model ./my-model --snapshots ./streams          streams survive a restart of the server
  SVLM_API_KEY=... svlm serve --model ./my-model --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem

The page is at /, the API at /v1 (docs/serving.md): /v1/realtime (WebSocket, OpenAI's event names), /v1/streams,
/v1/chat/completions, /v1/models; /metrics is for Prometheus. SIGTERM saves all streams and ends the server."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "serve",
        help="serve many live streams: a page, and an API",
        description="Serve live streams on one device: captions every second, and answers, in a page and through an API.",
        epilog=EXAMPLES,
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", required=True, metavar="FOLDER_OR_HUB_ID", help="a Hugging Face checkpoint, or embedded")
    model.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id (default: its main branch)")
    model.add_argument(
        "--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of weights and cache (default: auto)"
    )
    streams = parser.add_argument_group("streams")
    streams.add_argument("--streams", type=number(int, least=1), default=8, metavar="N", help="at once, at most (8)")
    streams.add_argument(
        "--questions",
        type=number(int, least=1),
        default=2,
        metavar="N",
        help="that are answered at once (2); each takes a lane",
    )
    streams.add_argument("--fps", type=number(float, above=0), default=2.0, help="frames per second that the model sees (2)")
    streams.add_argument(
        "--chunk", type=number(float, above=0), default=1.0, metavar="SECONDS", help="video between two captions (1)"
    )
    streams.add_argument(
        "--picture", type=size, metavar="WIDTHxHEIGHT", help="size of the cameras' pictures (1280x720; embedded: the match's)"
    )
    streams.add_argument(
        "--window", type=window, default={}, metavar="PARTS", help="the largest window of a stream, as in `svlm watch`"
    )
    streams.add_argument("--system", metavar="TEXT", help="system prompt of streams that send none")
    streams.add_argument("--query", metavar="TEXT", help="what to talk about (default: as the model was trained)")
    streams.add_argument("--answer-tokens", type=number(int, least=1), default=64, metavar="N", help="of an answer (64)")
    streams.add_argument("--snapshots", metavar="FOLDER", help="save streams there, so that they survive the server")
    streams.add_argument(
        "--snapshot-seconds", type=number(float, above=0), default=10.0, metavar="SECONDS", help="between two saves (10)"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    network.add_argument("--port", type=number(int, least=0), default=8000, help="(8000; 0 = a free one)")
    network.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("SVLM_API_KEY"),
        help="what clients must present (better: the variable SVLM_API_KEY, which is in no list of processes)",
    )
    network.add_argument("--origin", action="append", default=[], metavar="URL", help="a site whose pages may use this server")
    network.add_argument("--tls-cert", metavar="FILE", help="certificate for https (or put a proxy in front)")
    network.add_argument("--tls-key", metavar="FILE", help="its private key")
    network.add_argument(
        "--allow-private", action="store_true", help="let the server open sources in private networks, as cameras are"
    )
    network.add_argument("--media-root", metavar="FOLDER", help="let the server open files below this folder")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Loads, compiles, says where it listens, and serves until it is told to stop."""
    try:
        import uvicorn

        from svlm_jax.serving.app import create_app
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: expected pip install 'svlm-jax[serve]'") from None
    from rich.console import Console

    from svlm_jax.host.compile_cache import keep_compiled
    from svlm_jax.host.malloc import limit_arenas
    from svlm_jax.host.progress import loading
    from svlm_jax.streaming.vlm import StreamingVLM

    access = _access(arguments)
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise ConfigError("--tls-cert and --tls-key belong together: expected both or none")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    limit_arenas()
    keep_compiled()
    with loading(f"loading {arguments.model}") as progress:
        vlm = StreamingVLM.from_pretrained(
            arguments.model, dtype=arguments.dtype, revision=arguments.revision, progress=progress
        )
    with loading("compiling") as progress:
        hub = build_hub(arguments, vlm, access, progress)
    scheme = "https" if arguments.tls_cert else "http"
    config = uvicorn.Config(
        create_app(hub),
        host=arguments.host,
        port=arguments.port,
        ssl_certfile=arguments.tls_cert,
        ssl_keyfile=arguments.tls_key,
        log_level="warning",
        access_log=False,
        ws_max_size=hub.limits.message_bytes,
        timeout_graceful_shutdown=10,
    )
    with config.bind_socket() as listener:
        host, port = listener.getsockname()[:2]
        console.print(f"{arguments.model}: {arguments.streams} streams at {scheme}://{host}:{port}/  (Ctrl-C ends it)")
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _access(arguments: argparse.Namespace) -> Any:
    from svlm_jax.serving.access import Access

    root = None if arguments.media_root is None else Path(arguments.media_root)
    if root is not None and not root.is_dir():
        raise ConfigError(f"--media-root {root}: expected a folder")
    return Access(
        host=arguments.host,
        api_key=arguments.api_key,
        origins=tuple(arguments.origin),
        private=arguments.allow_private,
        media_root=root,
    )


def build_hub(arguments: argparse.Namespace, vlm: "StreamingVLM", access: Any, tell: Any) -> "Hub":
    """The server's streams over a loaded model, with everything compiled."""
    import dataclasses

    from svlm_jax.engine.sampling import Sampling
    from svlm_jax.serving.executor import Executor, PoolSettings
    from svlm_jax.serving.hub import Hub
    from svlm_jax.serving.limits import Limits
    from svlm_jax.serving.metrics import Metrics
    from svlm_jax.serving.scheduler import Scheduler
    from svlm_jax.serving.snapshots import Snapshots
    from svlm_jax.serving.stream import StreamOptions
    from svlm_jax.video.resize import smart_resize

    largest = dataclasses.replace(vlm.defaults.window, **arguments.window)
    sampling = vlm.defaults.sampling or Sampling.from_generation_config(vlm.checkpoint.generation_config)
    settings = PoolSettings(
        lanes=arguments.streams,
        spare=arguments.questions,
        size=smart_resize(*(arguments.picture[::-1] if arguments.picture else picture_of(arguments.model)), **vlm.pixels),
        window=largest,
        sampling=sampling,
        fps=arguments.fps,
        chunk_seconds=arguments.chunk,
        answer_tokens=max(arguments.answer_tokens, sampling.max_new_tokens),
    )
    executor = Executor(vlm, settings)
    executor.warm_up(tell)
    defaults = StreamOptions(
        system=arguments.system or vlm.defaults.system,
        query=arguments.query or vlm.defaults.query,
        window=largest,
        sampling=sampling,
    )
    metrics = Metrics()
    snapshots = None
    if arguments.snapshots is not None:
        fingerprint = f"{vlm.config!r} {executor.pool.config.ring!r} {vlm.dtype}"
        snapshots = Snapshots(Path(arguments.snapshots), like=executor.like, fingerprint=fingerprint)
    limits = Limits()
    scheduler = Scheduler(executor, defaults=defaults, limits=limits, metrics=metrics, answer_tokens=arguments.answer_tokens)
    return Hub(
        scheduler,
        model=arguments.model,
        limits=limits,
        access=access,
        metrics=metrics,
        snapshots=snapshots,
        snapshot_seconds=arguments.snapshot_seconds,
    )


def picture_of(model: str) -> tuple[int, int]:
    """(height, width) of the pictures that a model is usually shown."""
    from svlm_jax.checkpoint import hf

    if model == hf.EMBEDDED:
        from svlm_jax.synthetic.match import SCALE
        from svlm_jax.synthetic.world import HEIGHT, WIDTH

        return HEIGHT * SCALE, WIDTH * SCALE
    return 720, 1280
