"""Many workers of `svlm serve` behind one address, by Ray Serve: a replica a device, streams routed by their session id.

    python -m launch.serve_ray --replicas 2 -- --model embedded --streams 4 --snapshots /shared/streams

A client sends the header `x-session-id` with a name of its own, 24 characters or more, and stays at one replica. When that is
lost, its next connection reaches another, which goes on from the newest snapshot: at most `--snapshot-seconds` are lost. The
snapshots lie on storage that all replicas share. Needs the extra `ray`.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from svlm_jax.errors import ConfigError, SvlmError

ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
CONNECTIONS = 1_000  # that a replica holds at once; how many streams it takes is its own affair


def builder(words: Sequence[str]) -> Callable[[], Any]:
    """A function that makes a worker's application, in the replica that runs it. words: options of `svlm serve`."""

    def build() -> Any:
        from svlm_jax.cli.main import parser
        from svlm_jax.cli.serve import load_hub
        from svlm_jax.host.progress import Stages
        from svlm_jax.serving.app import create_app

        with Stages("starting") as stages:
            hub = load_hub(parser().parse_args(["serve", *words]), stages)
        hub.names_from_clients = True
        return create_app(hub)

    return build


def application(words: Sequence[str], *, replicas: int, gpus: float, cpus: float) -> Any:
    """The Ray Serve application of so many workers."""
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    deployment = serve.deployment(
        name="svlm",
        num_replicas=replicas,
        max_ongoing_requests=CONNECTIONS,
        ray_actor_options={"num_gpus": gpus, "num_cpus": cpus},
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        graceful_shutdown_timeout_s=60,
    )
    return deployment(serve.ingress(builder(words))()).bind()


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m launch.serve_ray", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=1, help="workers, each with its own device (default: 1)")
    parser.add_argument("--gpus", type=float, default=1.0, help="GPUs of a worker; 0: a CPU (default: 1)")
    parser.add_argument("--cpus", type=float, default=2.0, help="processors of a worker (default: 2)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- OPTIONS", help="options of svlm serve")
    arguments = parser.parse_args(given)
    words = [word for word in arguments.words if word != "--"]
    try:
        if not any(word.startswith("--snapshots") for word in words):
            raise ConfigError("--snapshots is missing: expected a folder that all workers share, from which streams go on")
        try:
            from ray import serve
        except ImportError:
            raise ConfigError("ray is not installed: expected pip install 'svlm-jax[ray]'") from None
        serve.start(http_options={"host": arguments.host, "port": arguments.port})
        serve.run(application(words, replicas=arguments.replicas, gpus=arguments.gpus, cpus=arguments.cpus))
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        serve.shutdown()
    except SvlmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
