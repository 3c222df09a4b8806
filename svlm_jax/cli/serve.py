"""`svlm serve`: many live streams on one device, through a page and an API."""

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svlm_jax.cli import options
from svlm_jax.cli.values import number
from svlm_jax.errors import ConfigError

if TYPE_CHECKING:
    from svlm_jax.host.progress import Stages
    from svlm_jax.serving.hub import Hub
    from svlm_jax.streaming.vlm import StreamingVLM

EXAMPLES = f"""\
examples:
  svlm serve --model embedded                                  the small model of this package; open the printed address
  svlm serve --model mit-han-lab/StreamingVLM --streams 8      eight cameras on one GPU
  svlm serve --model ./my-model --snapshots ./streams          streams survive a restart of the server
  SVLM_API_KEY=... svlm serve --model ./my-model --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem

The page is at /, the API at /v1 (docs/serving.md): /v1/realtime (WebSocket, with OpenAI's event names), /v1/streams,
/v1/chat/completions and /v1/models. /metrics is for Prometheus. SIGTERM saves all streams and ends the server.

A client can choose the query, the system prompt, the sampling and a smaller window of its stream. The options above are what it
gets otherwise.

{options.MODEL}

{options.WINDOW}"""

TOP_K = 64  # streams may ask for as much, at least


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "serve",
        help="serve many live streams: a page, and an API",
        description="Caption many live streams on one device, and answer questions about them, in a page and through an API.",
        epilog=EXAMPLES,
    )
    model = parser.add_argument_group("model")
    options.add_model(model)
    options.add_running(model)
    video = parser.add_argument_group("video")
    options.add_fps(video, default=2.0)
    options.add_chunk(video)
    options.add_size(
        video,
        default=None,
        help="size of the cameras' pictures, before they are scaled down (default: 1280x720; embedded: that of its match)",
    )
    options.add_pixels(video)
    options.add_window(parser.add_argument_group("cache"))
    speech = parser.add_argument_group("speech")
    options.add_prompt(speech)
    options.add_sampling(speech)
    _streams(parser.add_argument_group("streams"))
    _network(parser.add_argument_group("network"))
    return parser


def _streams(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--streams", type=number(int, least=1), default=8, metavar="N", help="most streams at the same time (default: 8)"
    )
    group.add_argument(
        "--questions",
        type=number(int, least=1),
        default=2,
        metavar="N",
        help="questions that are answered at the same time, each in a cache of its own (default: 2)",
    )
    group.add_argument(
        "--answer-tokens", type=number(int, least=1), default=64, metavar="N", help="most tokens of an answer (default: 64)"
    )
    group.add_argument(
        "--snapshots", metavar="FOLDER", help="save streams in this folder, so that they go on when the server is started again"
    )
    group.add_argument(
        "--snapshot-seconds",
        type=number(float, above=0),
        default=10.0,
        metavar="SECONDS",
        help="time between two saves (default: 10)",
    )


def _network(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    group.add_argument(
        "--port", type=number(int, least=0), default=8000, help="port to listen on; 0: any free one (default: 8000)"
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        default=os.environ.get("SVLM_API_KEY"),
        help="key that clients must send; better set in the variable SVLM_API_KEY, since a command line shows in process lists",
    )
    group.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="address of a site whose pages may use this server; repeat it for more",
    )
    group.add_argument("--tls-cert", metavar="FILE", help="certificate, with which the server speaks https")
    group.add_argument("--tls-key", metavar="FILE", help="private key of that certificate")
    group.add_argument(
        "--allow-private", action="store_true", help="let clients name sources in private networks, where cameras usually are"
    )
    group.add_argument("--media-root", metavar="FOLDER", help="let clients name video files below this folder (default: none)")


def run(arguments: argparse.Namespace) -> int:
    """Loads, compiles, says where it listens, and serves until it is told to stop."""
    from svlm_jax.host.progress import Stages, prose

    with Stages("starting") as stages:
        try:
            import uvicorn

            from svlm_jax.serving.app import create_app
        except ImportError as error:
            raise ConfigError(f"{error.name} is not installed: expected pip install 'svlm-jax[serve]'") from None
        if bool(arguments.tls_cert) != bool(arguments.tls_key):
            raise ConfigError("--tls-cert and --tls-key belong together: expected both or none")
        hub = load_hub(arguments, stages)
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
        carried = hub.scheduler.capacity
        told = f"{arguments.model}: up to {carried} streams at {scheme}://{host}:{port}/  (Ctrl-C ends it)"
        if carried < arguments.streams:
            told += f"; this device is too slow for the {arguments.streams} of --streams"
        with contextlib.suppress(OSError):  # a server serves whether or not anybody reads this
            prose(stderr=True).print(told, markup=False)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def load_hub(arguments: argparse.Namespace, stages: "Stages") -> "Hub":
    """A server's streams, with the model loaded and everything compiled."""
    from svlm_jax.cli.stream_spec import ModelSpec
    from svlm_jax.host.compile_cache import keep_compiled
    from svlm_jax.host.malloc import limit_arenas

    access = _access(arguments)
    limit_arenas()
    keep_compiled(arguments.compile_cache)
    vlm = ModelSpec.of(arguments).load(stages)
    stages.enter("compiling")
    return build_hub(arguments, vlm, access, stages.move)


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
    from svlm_jax.cli.stream_spec import settings_of
    from svlm_jax.serving.executor import Executor, PoolSettings
    from svlm_jax.serving.hub import Hub
    from svlm_jax.serving.limits import Limits
    from svlm_jax.serving.metrics import Metrics
    from svlm_jax.serving.scheduler import Scheduler
    from svlm_jax.serving.snapshots import Snapshots
    from svlm_jax.serving.stream import StreamOptions
    from svlm_jax.video.resize import smart_resize

    asked = settings_of(arguments, vlm.checkpoint.generation_config)
    sampling = asked.sampling
    assert sampling is not None  # `settings_of` always chooses one
    height, width = arguments.size[::-1] if arguments.size else picture_of(arguments.model)
    settings = PoolSettings(
        lanes=arguments.streams,
        spare=arguments.questions,
        size=smart_resize(height, width, vlm.resize_rule(asked.max_pixels)),
        window=asked.window,
        sampling=sampling,
        fps=asked.fps,
        chunk_seconds=asked.chunk_seconds,
        query_tokens=max(PoolSettings.query_tokens, len(vlm.tokenizer.encode(asked.query or "", literal=True))),
        answer_tokens=max(arguments.answer_tokens, sampling.max_new_tokens),
        top_k=max(TOP_K, sampling.top_k) if sampling.top_k else 0,
        max_pixels=asked.max_pixels,
        implementation=asked.implementation,
        cache_dtype=asked.cache_dtype,
    )
    executor = Executor(vlm, settings)
    executor.warm_up(tell)
    defaults = StreamOptions(system=asked.system, query=asked.query, window=asked.window, sampling=sampling, seed=asked.seed)
    metrics = Metrics()
    snapshots = None
    if arguments.snapshots is not None:
        fingerprint = f"{vlm.config!r} {executor.pool.config.ring!r} {vlm.number_format} {asked.cache_dtype}"
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
