"""What a server counts, for Prometheus: names follow vLLM's where it counts the same thing.

Labels hold no client's words, addresses or ids: there is one time series a kind, however many streams come and go.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, what: str) -> Counter:
            return Counter(name, what, registry=registry)

        def gauge(name: str, what: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, what, labels, registry=registry)

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(name, what, buckets=SECONDS, registry=registry)

        self.streams = gauge("svlm_num_requests_running", "Streams that are open.")
        self.waiting = gauge("svlm_num_requests_waiting", "Chunks that wait for the device.")
        self.lanes = gauge("svlm_lanes", "Lanes of the pool, by state.", ("state",))
        self.tokens_held = gauge("svlm_cache_tokens", "Tokens held in all caches, by kind.", ("kind",))
        self.cache_usage = gauge("svlm_kv_cache_usage_perc", "Share of the cache slots that hold a token, 0 to 1.")
        self.device_bytes = gauge("svlm_device_memory_bytes", "Bytes in use on the device between two ticks.")
        self.compilations = counter("svlm_compilations", "Programs compiled since the process started.")
        self.captions = counter("svlm_captions", "Captions made, silence included.")
        self.generated = counter("svlm_generation_tokens", "Tokens decoded.")
        self.questions = counter("svlm_questions", "Questions answered.")
        self.misses = counter("svlm_deadline_misses", "Captions that came after the next chunk was complete.")
        self.dropped = counter("svlm_dropped_chunks", "Chunks dropped or merged because the device was busy.")
        self.refused = counter("svlm_refused_streams", "Streams refused because the server was full.")
        self.failed = counter("svlm_failed_streams", "Streams that ended with an error.")
        self.snapshots = counter("svlm_snapshots", "Streams saved to disk.")
        self.lag = seconds("svlm_lag_seconds", "From the arrival of a chunk's last frame to its caption.")
        self.first_word = seconds("svlm_time_to_first_token_seconds", "From a chunk's last frame to its first word.")
        self.computing = seconds("svlm_compute_to_first_token_seconds", "From the begin of its computation to its first word.")
        self.per_token = seconds("svlm_time_per_output_token_seconds", "Between two tokens of a caption.")
        self.tick = seconds("svlm_tick_seconds", "One tick: vision, prefill and decoding of all streams that were due.")

    def exposition(self) -> tuple[bytes, str]:
        """The page that Prometheus reads, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
