"""A stream that is served among others says token for token what it says alone; nothing compiles, and no memory grows."""

import dataclasses

import jax
import numpy as np
import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import RequestError
from svlm_jax.serving.executor import Executor, Job, PoolSettings
from svlm_jax.serving.stream import StreamOptions
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk
from tests.checkpoints import tiny
from tests.streaming.streams import model

pytestmark = pytest.mark.slow  # compiles a pool of its own

SIZE = (56, 84)
WINDOW = WindowConfig(vision=4, text=4, sink=6, tail=6)
SAMPLING = Sampling(temperature=0.9, top_k=20, max_new_tokens=6)
OPTIONS = StreamOptions(system="Speak.", query="What?", window=WINDOW, sampling=SAMPLING, seed=1)
VARIANTS = (
    OPTIONS,
    dataclasses.replace(OPTIONS, system="Be brief, please.", query=None, seed=5),
    dataclasses.replace(OPTIONS, window=WindowConfig(vision=2, text=3, sink=4, tail=5), seed=9),
    dataclasses.replace(OPTIONS, sampling=Sampling(temperature=0.0, repetition_penalty=1.2, max_new_tokens=4)),
)


@pytest.fixture(scope="module")
def warm():
    settings = PoolSettings(
        lanes=3, spare=1, size=SIZE, window=WINDOW, sampling=SAMPLING, prompt_tokens=64, query_tokens=8, question_tokens=32,
        answer_tokens=8, top_k=20,
    )  # fmt: skip
    made = Executor(model(), settings)
    made.warm_up()
    return made


@pytest.fixture
def executor(warm):
    yield warm
    for lane in list(warm._sessions):
        warm.release(lane)


def chunk(seed, second):
    frames = np.random.default_rng([seed, second]).integers(0, 256, (2, 3, *SIZE), np.uint8)
    return Chunk(frames, float(second), second + 1.0)


def alone(options, seed, seconds):
    """The tokens of each second of a session that has a pool of its own."""
    settings = StreamSettings(
        window=options.window, sampling=options.sampling, query=options.query, system=options.system, seed=options.seed
    )
    session = model().stream(settings)
    return [session.feed(chunk(seed, second)).tokens for second in range(seconds)]


def test_streams_among_others_say_what_they_say_alone(executor):
    rng, live, said, compiled = np.random.default_rng(0), {}, {}, []
    held = executor.device_bytes()
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    for step in range(40):
        if len(live) < 3 and (not live or rng.random() < 0.3):
            options = VARIANTS[step % len(VARIANTS)]
            live[executor.open(options)] = (step, options)
            said[step] = []
        running = [lane for lane in live if rng.random() < 0.7]
        jobs = [Job(lane, chunk(live[lane][0], len(said[live[lane][0]])), live[lane][1], 0) for lane in running]
        if jobs:
            batch = executor.run(jobs)
            for lane, tokens in zip(running, batch.tokens, strict=True):
                said[live[lane][0]].append(tokens)
        for lane in [lane for lane in live if len(said[live[lane][0]]) > 5 and rng.random() < 0.3]:
            executor.release(lane)
            del live[lane]
    for lane in list(live):
        executor.release(lane)
    del batch
    compilations = [name for name in compiled if name == "/jax/core/compile/backend_compile_duration"]
    assert not compilations
    assert executor.device_bytes() == held
    assert len(said) > 4
    for seed, tokens in said.items():
        assert tokens == alone(VARIANTS[seed % len(VARIANTS)], seed, len(tokens)), seed


def test_a_thousand_joins(executor):
    """Streams of one to four seconds, with questions and moves among them; each says what it says alone."""
    rng, live, joined, compiled = np.random.default_rng(1), {}, 0, []
    expected = {(v, seed): alone(VARIANTS[v], seed, 4) for v in range(len(VARIANTS)) for seed in range(3)}
    held, state = executor.device_bytes(), {x.shape for x in jax.tree.leaves(executor.pool.state)}
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    while joined < 1000 or live:
        while joined < 1000 and len(live) < 3 and rng.random() < 0.8:
            which = (int(rng.integers(len(VARIANTS))), int(rng.integers(3)))
            live[executor.open(VARIANTS[which[0]])] = [which, 0, int(rng.integers(1, 5))]
            joined += 1
        running = [lane for lane in live if rng.random() < 0.9]
        jobs = [Job(lane, chunk(live[lane][0][1], live[lane][1]), VARIANTS[live[lane][0][0]], 0) for lane in running]
        twin = executor.fork(running[0]) if running and rng.random() < 0.05 else None
        if jobs:
            batch = executor.begin(jobs)
            while executor.speaking(batch):
                executor.extend(batch, int(rng.integers(1, 4)))
            for row, lane in enumerate(running):
                executor.finish(batch, row)
                which, second, _ = live[lane]
                assert batch.tokens[row] == expected[which][second], (which, second)
                live[lane][1] += 1
            del batch
        if twin is not None:
            executor.run([dataclasses.replace(jobs[0], lane=twin, question="What is it?", cap=3)])
            executor.release(twin)
        for lane in [lane for lane, (_, second, most) in live.items() if second >= most]:
            executor.release(lane)
            del live[lane]
        if live and rng.random() < 0.05:
            lane = next(iter(live))
            which, second, most = live.pop(lane)
            value = executor.extract(lane)
            executor.release(lane)
            moved = executor.insert(value, VARIANTS[which[0]])
            executor.resume(moved, chunks=second)
            live[moved] = [which, second, most]
    assert "/jax/core/compile/backend_compile_duration" not in compiled
    assert executor.device_bytes() == held and {x.shape for x in jax.tree.leaves(executor.pool.state)} == state


def test_a_question_leaves_the_stream_as_it_was(executor):
    lane = executor.open(OPTIONS)
    said = [executor.run([Job(lane, chunk(3, second), OPTIONS, second)]).tokens[0] for second in range(3)]
    twin = executor.fork(lane)
    with pytest.raises(RequestError, match="all lanes for questions are taken"):
        executor.fork(lane)
    answer = executor.run([Job(twin, chunk(3, 3), OPTIONS, 3, question="Who is it?", cap=5)])
    assert 1 <= len(answer.tokens[0]) <= 5
    executor.release(twin)
    said.append(executor.run([Job(lane, chunk(3, 3), OPTIONS, 3)]).tokens[0])
    executor.release(lane)
    assert said == alone(OPTIONS, 3, 4)


def test_a_stream_that_moves_goes_on_as_if_it_had_stayed(executor):
    lane = executor.open(OPTIONS)
    said = [executor.run([Job(lane, chunk(4, second), OPTIONS, second)]).tokens[0] for second in range(3)]
    value = executor.extract(lane)
    executor.release(lane)
    other = executor.open(OPTIONS)  # somebody else has its lane now
    lane = executor.insert(value, OPTIONS)
    executor.resume(lane, chunks=3)
    said += [executor.run([Job(lane, chunk(4, second), OPTIONS, second)]).tokens[0] for second in (3, 4)]
    executor.release(lane)
    executor.release(other)
    assert said == alone(OPTIONS, 4, 5)


def test_a_full_server_refuses(executor):
    lanes = [executor.open(OPTIONS) for _ in range(3)]
    with pytest.raises(RequestError, match="3 streams run already"):
        executor.open(OPTIONS)
    for lane in lanes:
        executor.release(lane)


def test_another_system_prompt_counts_from_the_next_second_on(executor):
    other = dataclasses.replace(OPTIONS, system="Shout, shout, shout!")
    outcomes = []
    for change in (False, True):
        lane = executor.open(OPTIONS)
        for second in range(2):
            executor.run([Job(lane, chunk(6, second), OPTIONS, second)])
        if change:
            executor.change(lane, OPTIONS, other)
        usage = executor.usage(executor.run([Job(lane, chunk(6, 2), OPTIONS, 2)]), 0)
        outcomes.append((usage["system"][0], executor.extract(lane)))
        executor.release(lane)
    encode = model().tokenizer.encode
    length = [len(encode(f"<|im_start|>system\n{o.system}<|im_end|>\n")) for o in (OPTIONS, other)]
    assert [count for count, _ in outcomes] == length


def test_another_family_is_served_as_it_is_alone():
    """Qwen3-VL, whose turns have time stamps."""
    size = (64, 96)
    vlm = StreamingVLM.from_pretrained(tiny("qwen3_vl"), dtype="float32")
    settings = PoolSettings(
        lanes=2, spare=1, size=size, window=WINDOW, sampling=SAMPLING, prompt_tokens=64, query_tokens=8, question_tokens=32,
        answer_tokens=8, top_k=20,
    )  # fmt: skip
    served = Executor(vlm, settings)
    lane, frames = served.open(OPTIONS), np.random.default_rng(0).integers(0, 256, (6, 2, 3, *size), np.uint8)
    chunks = [Chunk(clip, float(i), i + 1.0) for i, clip in enumerate(frames)]
    said = [served.run([Job(lane, each, OPTIONS, second)]).tokens[0] for second, each in enumerate(chunks)]
    session = vlm.stream(
        StreamSettings(window=WINDOW, sampling=SAMPLING, query=OPTIONS.query, system=OPTIONS.system, seed=OPTIONS.seed)
    )
    assert said == [session.feed(each).tokens for each in chunks]
