"""The ring keeps, moves and drops exactly what the authors' eviction code does, and one program serves every window."""

import pytest

from tests.cache import traces

RUNS = traces.load()


@pytest.fixture(scope="module")
def programs():
    return traces.make_programs(traces.builder().turn_ids())


@pytest.mark.parametrize("index", range(len(RUNS)))
def test_trace(index, programs):
    assert traces.replay(RUNS[index], programs) == []


def test_traces_cover_every_regime():
    regimes = {(run["V"] > run["T"]) - (run["V"] < run["T"]) for run in RUNS}
    assert regimes == {-1, 0, 1}
    assert (
        any(run["T"] == 1 for run in RUNS) and any(run["V"] == 1 for run in RUNS) and any(run["sink"] is None for run in RUNS)
    )


def test_one_program_serves_every_window(programs):
    for index in (0, 1, 2):
        traces.replay(RUNS[index], programs)
    assert [program._cache_size() for program in programs] == [1, 1, 1]
