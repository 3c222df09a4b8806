"""The published benchmarks by name."""

from svlm_jax.errors import EvalError
from svlm_jax.eval.benchmark import Benchmark
from svlm_jax.eval.benchmarks import choices, inf_streams, live_sports, ovo_bench, rvs, streaming_bench

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        inf_streams.BENCHMARK,
        live_sports.BENCHMARK,
        ovo_bench.BENCHMARK,
        streaming_bench.BENCHMARK,
        rvs.EGO,
        rvs.MOVIE,
        choices.MLVU,
        choices.LONGVIDEOBENCH,
        choices.VIDEO_MME,
        choices.MVBENCH,
    )
}


def named(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise EvalError(f"{name} is no benchmark that is known; expected one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
