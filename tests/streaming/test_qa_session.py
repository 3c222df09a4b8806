"""Questions about a stream: what each memory keeps and reads, and that it is what plain attention over it would see."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svlm_jax.cache.memory_state import memory_bytes
from svlm_jax.cache.policies import POLICIES, memory_policy, options
from svlm_jax.engine import remember
from svlm_jax.engine.answer import QuestionState
from svlm_jax.engine.remember import Clip
from svlm_jax.engine.sampling import Sampling
from svlm_jax.errors import CheckpointError, ConfigError, StreamError
from svlm_jax.models import functional, registry
from svlm_jax.models.positions import rope_positions
from svlm_jax.models.vlm import VisionFeatures
from svlm_jax.streaming import qa_session as recall_module
from svlm_jax.streaming.qa_session import QASession, QASettings
from svlm_jax.streaming.schedule import Schedule, Timed
from svlm_jax.streaming.vlm import StreamingVLM
from svlm_jax.video.chunk import Chunk, split
from tests import checkpoints, clips

SIZE = (56, 84)  # 2 x 3 tokens
CELLS = 6
SIZES = {"qwen3_vl": (64, 96), "qwen3_vl_moe": (64, 96), "llava_onevision": (30, 30)}
QUESTION = "What happened?"
ASKED = [name for name, family in registry.FAMILIES.items() if "ask" in family.capabilities]
SMALL = {"budget": 60, "clip_frames": 8, "recent_frames": 2, "queries": 8, "page": 4}  # a clip has 24 tokens
GREEDY = Sampling(temperature=0.0, top_k=0, repetition_penalty=1.0, max_new_tokens=4)


@functools.cache
def model(family="qwen2_5_vl") -> StreamingVLM:
    """Two layers of a decoder, one of a tower: enough for layers to differ, and quick to compile."""
    whole = StreamingVLM.from_pretrained(checkpoints.tiny(family), dtype="float32").checkpoint
    config, params = whole.config, dict(whole.params)
    text = dataclasses.replace(config.text, num_layers=2)
    params["decoder"] = params["decoder"] | {"layers": {i: params["decoder"]["layers"][i] for i in "01"}}
    vision = config.vision
    if family != "llava_onevision":
        vision = dataclasses.replace(vision, depth=1, fullatt_block_indexes=())
        params["visual"] = params["visual"] | {"blocks": {"0": params["visual"]["blocks"]["0"]}}
    return StreamingVLM(dataclasses.replace(whole, config=dataclasses.replace(config, text=text, vision=vision), params=params))


def recall(policy="vsb+par", *, family="qwen2_5_vl", **changes) -> QASession:
    own = {name: value for name, value in SMALL.items() if name in options(policy)}
    memory = memory_policy(policy, **(own | changes))
    return model(family).qa_session(memory=memory, fps=1.0, sampling=GREEDY)


def chunk(index, *, seed=0, frames=2, size=SIZE) -> Chunk:
    pixels = np.random.default_rng([seed, index]).integers(0, 256, (frames, 3, *size), np.uint8)
    return Chunk(frames=pixels, start=2.0 * index, end=2.0 * index + 2)


def watch(stream, start, stop, **picture) -> QASession:
    for i in range(start, stop):
        stream.feed(chunk(i, **picture))
    return stream


def size_of(family) -> tuple[int, int]:
    """Of a picture of 2 x 3 tokens, or 4 x 4 of LLaVA-OneVision."""
    return SIZES.get(family, SIZE)


def read(stream, question=QUESTION, choices=None) -> QuestionState:
    return stream.read(stream.dialogue.turn(question, choices, None))


def scores(stream, question=QUESTION) -> np.ndarray:
    """Logits of the answer's first token."""
    return np.asarray(read(stream, question).logits[0])


def tokens(stream) -> list[np.ndarray]:
    """Places in the stream of the tokens that each layer keeps."""
    count = int(stream.state.count[0])
    return [np.asarray(place[0, :count]) for place in stream.state.meta.place]


# ------------------------------------------------------------------------------------------- what is seen


def test_every_token_of_an_answer_is_drawn_by_a_key_of_its_own():
    """So hot that the scores do not count: one key for all would draw one token again and again."""
    hot = dataclasses.replace(GREEDY, temperature=1e6, max_new_tokens=8)

    def drawn(seed):
        stream = model().qa_session(memory=memory_policy("fifo", budget=60, clip_frames=8), fps=1.0, sampling=hot, seed=seed)
        return watch(stream, 0, 1).ask(QUESTION).tokens

    assert len(set(drawn(1))) > 4
    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "qwen2_5_vl" else pytest.mark.slow) for name in ASKED]
)
def test_full_equals_plain_attention_over_everything(family):
    """Clip by clip into the memory, the last one cut short: the logits of the whole conversation run at once."""
    vlm = model(family)
    llava, size = family == "llava_onevision", size_of(family)
    stream = recall("full", family=family, budget=60 if size == SIZE else 240)
    chunks = [chunk(i, size=size) for i in range(5)]
    for each in chunks:
        stream.feed(each)
    frames = jnp.asarray(np.concatenate([each.frames for each in chunks]))
    module, turn = functional.bind(vlm.config, vlm.params), stream.dialogue.turn(QUESTION, None, None)

    @jax.jit
    def plain(frames, ids, position):
        if llava:
            visuals = VisionFeatures(module.video(frames))
        else:
            visuals = jax.tree.map(lambda x: x[0], module.encode_video(frames[None]))
        return module(ids, position, visuals)[0, -1]

    shape, each = stream.config.shape, stream.dialogue.frames_a_grid
    grids = [stream.dialogue.grid_tokens(first + (each - 1) / 2, shape.rows * shape.columns) for first in range(0, 10, each)]
    ids = np.asarray(stream.dialogue.prefix() + [token for grid in grids for token in grid if token >= 0] + turn.token)
    grid = (len(frames) // 2, 2 * shape.rows, 2 * shape.columns)
    if llava:
        position = np.broadcast_to(np.arange(len(ids), dtype=np.float32), (3, len(ids)))
    else:
        position = rope_positions(ids, vlm.config, video_grids=[grid], second_per_grid=None if shape.stamped else [2.0])
    expected = plain(frames, jnp.asarray(ids[None]), jnp.asarray(position[None]))
    np.testing.assert_allclose(scores(stream), expected, atol=1e-4)


@pytest.mark.slow
def test_a_budget_that_holds_everything_is_full_attention():
    full = scores(watch(recall("full"), 0, 10))
    for policy in ("fifo", "vsb"):
        np.testing.assert_allclose(scores(watch(recall(policy), 0, 10)), full, atol=1e-5)
    small = scores(watch(recall("vsb", budget=30), 0, 10))
    assert np.abs(small - full).max() > 1e-3


@pytest.mark.slow
def test_all_pages_are_the_whole_memory_and_forty_per_cent_are_not():
    whole = scores(watch(recall("vsb", budget=30), 0, 10))
    np.testing.assert_allclose(scores(watch(recall("vsb+par", budget=30, retrieve=1.0), 0, 10)), whole, atol=1e-5)
    part = watch(recall("vsb+par", budget=30), 0, 10)
    assert np.abs(scores(part) - whole).max() > 1e-3
    live = np.asarray([layer.live[0].sum() for layer in read(part).reads])
    # 24 long-term tokens are 6 pages of 4, of which 3 are read, and the last 2 frames are one grid of 6
    assert (live == len(part.dialogue.prefix()) + 3 * 4 + CELLS).all()


@pytest.mark.slow
def test_the_last_frames_alone_are_seen_afresh():
    """The control: a fresh stream that sees nothing but the last four frames answers the same."""
    stream = watch(recall("last-frames", frames=4), 0, 7)
    fresh = recall("full", clip_frames=4)
    for i in (5, 6):
        fresh.feed(chunk(i))
    np.testing.assert_allclose(scores(stream), scores(fresh), atol=1e-5)
    assert stream.ask(QUESTION).seconds == (10.0, 12.0)


# ------------------------------------------------------------------------------------------- what is kept


def test_each_layer_keeps_its_own_tokens_and_exactly_the_budget():
    """After 12 clips: M tokens a layer, in order, the last frames whole, and each with the keys that it came with."""
    stream = watch(recall("vsb+par", budget=30), 0, 48)
    everything = watch(recall("full", budget=48 * CELLS), 0, 48)
    kept = tokens(stream)
    assert int(stream.state.count[0]) == 30 and int(stream.state.seen[0]) == 48 * CELLS
    for places in kept:
        assert (np.diff(places) > 0).all() and places[-CELLS:].tolist() == list(range(47 * CELLS, 48 * CELLS))
        assert places[0] < 24 * CELLS  # buckets keep something of the first half
    assert any(not np.array_equal(kept[0], places) for places in kept[1:])
    prefix = len(stream.dialogue.prefix())
    for name in ("keys", "values"):  # in the first layer they depend on the token alone
        mine, all_of_them = (np.asarray(getattr(s.state, name)[0][0]) for s in (stream, everything))
        np.testing.assert_allclose(mine[:, prefix : prefix + 30], all_of_them[:, prefix + kept[0]], atol=1e-5)
    second = np.asarray(stream.state.meta.second[0, 0, :30])
    assert second.tolist() == (2.0 * (kept[0] // CELLS)).tolist()


def test_the_state_is_as_large_after_many_clips_as_before_the_first():
    stream = watch(recall("vsb+par", budget=30), 0, 1)
    size, programs = memory_bytes(stream.state), recall_module._watch._cache_size()
    watch(stream, 1, 5)
    compiled = recall_module._watch._cache_size()
    watch(stream, 5, 64)
    assert memory_bytes(stream.state) == size and recall_module._watch._cache_size() == compiled <= programs + 1


@pytest.mark.parametrize("policy", POLICIES)
def test_no_clip_changes_the_shape_of_the_state(policy):
    """In shapes alone, so that it holds for streams of every length."""
    stream = watch(recall(policy), 0, 1)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), stream.state)
    clip = stream._clip()
    after = jax.eval_shape(functools.partial(remember.watch, config=stream.config), model().params, stream.state, clip)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == shapes


@pytest.mark.slow
def test_a_hundred_thousand_frames():
    """Exactly the budget, from all parts of the stream, in bytes that do not grow."""
    stream = recall("vsb+par", clip_frames=32, budget=64)

    def grow(start, stop):
        for i in range(start, stop):
            stream.feed(chunk(i, frames=32, size=(28, 28)))
        return memory_bytes(stream.state), sum(array.nbytes for array in jax.live_arrays())

    early = grow(0, 10)
    assert grow(10, 3125) == early
    assert int(stream.state.seen[0]) == 50_000 and int(stream.state.count[0]) == 64
    for places in tokens(stream):
        assert (np.diff(places) > 0).all() and places[-1] == 49_999
        assert np.histogram(places, 4, (0, 50_000))[0].min() >= 4


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", ASKED)
def test_every_family_works_with_every_memory(family, policy):
    """Seven chunks into a memory of four, the last clip still open: what is kept, what is read, and an answer."""
    size, stamped = size_of(family), family.startswith("qwen3")
    cells, grids = (CELLS, 1) if family != "llava_onevision" else (16, 2)  # tokens of a grid, grids of a chunk
    cells += sum(recall(policy, family=family).dialogue.grid_marks)
    budget = (8 if policy == "full" else 4) * grids * cells
    asked = {"budget": budget, "clip_frames": 4, "window": 6.0}
    stream = recall(policy, family=family, **{name: value for name, value in asked.items() if name in options(policy)})
    watch(stream, 0, 7, size=size)
    answer = stream.ask("Which team?", choices=["red", "blue"])
    assert sum(answer.scores) == pytest.approx(1.0) and stream.ask(QUESTION, follows=answer).tokens
    newest = {"full": 7, "fifo": 4, "window": 3, "last-frames": 2}.get(policy)
    if policy == "fifo" and stamped:  # stamps of the first days are shorter than those that there is room for
        assert answer.seconds[-4:] == (6.0, 8.0, 10.0, 12.0)
    elif newest is not None:
        step = 2.0 / grids
        assert answer.seconds == tuple(14.0 - step * n for n in range(newest * grids, 0, -1))
    else:
        assert answer.seconds[-1] == 14.0 - 2.0 / grids
        assert all(len(places) == budget for places in tokens(stream))


@pytest.mark.slow
@pytest.mark.parametrize("switch", [{"positions": "original"}, {"buckets": "cache"}, {"page_positions": True}])
def test_each_switch_makes_a_difference(switch):
    """The default is seen by no other test to be the default: what is kept, or what a question finds, changes."""
    ours, other = (watch(recall("vsb+par", budget=30, **changes), 0, 24) for changes in ({}, switch))
    kept = [np.stack(tokens(stream)) for stream in (ours, other)]
    if "buckets" in switch:
        assert not np.array_equal(*kept)
    if "page_positions" in switch:  # the same memory, other pages
        np.testing.assert_array_equal(*kept)
        assert any(not np.array_equal(a, b) for a, b in zip(ours.state.means, other.state.means, strict=True))
    difference = np.abs(scores(ours) - scores(other)).max()
    assert 1e-3 < difference < np.inf


def test_what_comes_later_changes_nothing_that_was_answered():
    """A question about a moment inside a chunk is answered as by a stream that ended there, in a memory that forgets."""
    whole, stopped, longer = (watch(recall("vsb+par", budget=30), 0, 8) for _ in range(3))
    told, choices = [], ["red", "blue", "none"]
    schedule = Schedule(whole, [Timed(QUESTION, 17.0)], told.append, choices)
    for i in range(8, 12):
        schedule.feed(chunk(i, seed=5))
    half, _ = split(chunk(8, seed=5), 17.0)
    stopped.feed(half)
    (answer,), expected = told, stopped.ask(QUESTION, choices=choices)
    assert len(half.frames) == 1 and answer.at == expected.at == 17.0
    assert (answer.scores, answer.read, answer.tokens) == (expected.scores, expected.read, expected.tokens)
    longer.feed(chunk(8, seed=5))  # one frame more, and the answer is another
    assert longer.ask(QUESTION, choices=choices).scores != answer.scores
    np.testing.assert_array_equal(scores(whole), scores(watch(watch(recall("vsb+par", budget=30), 0, 8), 8, 12, seed=5)))


def test_a_fork_remembers_the_moment():
    stream, choices = watch(recall("vsb+par", budget=30), 0, 9), ["red", "blue", "none"]
    before, moment = stream.ask(QUESTION, choices=choices), stream.fork()
    watch(stream, 9, 12, seed=5)
    after = moment.ask(QUESTION, choices=choices)
    assert (after.scores, after.read, after.at) == (before.scores, before.read, before.at)
    assert stream.ask(QUESTION, choices=choices).read != before.read


def test_a_saved_stream_goes_on_as_if_it_had_never_stopped(tmp_path):
    """Two clips and a half are saved; what comes back reads on, and answers like the stream that went on."""
    stream, choices = watch(recall("vsb+par", budget=30), 0, 10), ["red", "blue", "none"]
    stream.save(tmp_path / "saved")
    twin = model().resume_qa(tmp_path / "saved")
    assert (twin.position, twin.settings, twin.sampling) == (stream.position, stream.settings, stream.sampling)
    assert twin.ask(QUESTION, choices=choices).scores == stream.ask(QUESTION, choices=choices).scores  # with the half clip
    watch(stream, 10, 14, seed=5)
    watch(twin, 10, 14, seed=5)
    after, resumed = (each.ask(QUESTION, choices=choices) for each in (stream, twin))
    assert (after.scores, after.read, after.at) == (resumed.scores, resumed.read, resumed.at)
    with pytest.raises(CheckpointError, match="kind 'questions', expected 'commentary'"):
        model().resume(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="expected a saved stream"):
        model().resume_qa(tmp_path)


@pytest.mark.slow
def test_a_frame_like_the_last_is_not_remembered():
    stream = recall("fifo", similar=0.999)
    for i in range(4):
        stream.feed(dataclasses.replace(chunk(0), start=2.0 * i, end=2.0 * i + 2))
    assert int(stream.state.count[0]) == CELLS and int(stream.state.seen[0]) == 4 * CELLS
    watch(stream, 4, 8)
    assert int(stream.state.count[0]) == 5 * CELLS
    assert tokens(stream)[0][CELLS] == 4 * CELLS  # places are those of the stream, dropped frames included


@pytest.mark.slow
def test_two_streams_in_one_program_are_what_they_are_alone():
    """One of them brings half a clip at first, so that they stand at different fills."""
    alone = [watch(recall("vsb+par", budget=30), 0, stop, seed=seed) for stop, seed in ((12, 0), (8, 1))]
    config, params = alone[0].config, model().params
    prefix = jnp.asarray([alone[0].dialogue.prefix()] * 2, jnp.int32)
    together = jax.jit(lambda prefix: remember.begin(params, prefix, config=config))(prefix)
    step = jax.jit(functools.partial(remember.watch, config=config))
    turns = [[range(4), range(0)], [range(4, 8), range(4)], [range(8, 12), range(4, 8)]]
    for i, turn in enumerate(turns):
        frames = np.zeros((2, 8, 3, *SIZE), np.uint8)
        for b, chunks in enumerate(turn):
            for n, index in enumerate(chunks):
                frames[b, 2 * n : 2 * n + 2] = chunk(index, seed=b).frames
        second = 2.0 * (4 * np.asarray([[i], [i - 1]]) + np.arange(4))
        valid = np.asarray([[True] * 4, [bool(turn[1])] * 4])
        together = step(params, together, Clip(jnp.asarray(frames), jnp.asarray(second, jnp.float32), jnp.asarray(valid)))
    live = prefix.shape[1] + 30
    for b, stream in enumerate(alone):
        mine = jax.tree.map(lambda x, b=b: x[b : b + 1], dataclasses.replace(together, meta=None))
        mine = dataclasses.replace(mine, meta=jax.tree.map(lambda x, b=b: x[:, b : b + 1], together.meta))
        np.testing.assert_array_equal(mine.count, stream.state.count)
        for place, expected in zip(mine.meta.place, stream.state.meta.place, strict=True):
            np.testing.assert_array_equal(place[0, :30], expected[0, :30])
        for name in ("keys", "values", "means"):
            for array, expected in zip(getattr(mine, name), getattr(stream.state, name), strict=True):
                np.testing.assert_allclose(array[:, :, :live], expected[:, :, :live], atol=1e-4)


# ------------------------------------------------------------------------------------------- asking


@pytest.mark.slow
def test_a_question_leaves_the_stream_as_it_was():
    stream = watch(recall(), 0, 6)
    before = jax.tree.map(np.asarray, stream.state)
    first = stream.ask(QUESTION)
    again = stream.ask(QUESTION)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, stream.state))
    assert first.tokens == again.tokens and 1 <= len(first.tokens) <= GREEDY.max_new_tokens
    asked, unasked = watch(stream, 6, 9), watch(recall(), 0, 9)
    jax.tree.map(np.testing.assert_array_equal, asked.state, unasked.state)


def test_the_answer_is_what_token_after_token_would_say():
    """The decode loop beside the memory: each token is the best after the question and all tokens before it."""
    stream = watch(recall("full"), 0, 4)
    said = stream.ask(QUESTION).tokens
    suppressed = np.asarray(stream.sampling.suppress, int)
    for n in range(len(said)):
        turn = stream.dialogue.turn(QUESTION, None, None)
        longer = dataclasses.replace(turn, token=turn.token + list(said[:n]), asked=turn.asked + [False] * n)
        logits = np.array(stream.read(longer).logits[0])
        logits[suppressed] = -np.inf
        assert int(logits.argmax()) == said[n]


def test_an_answer_in_slices_is_the_answer():
    stream = watch(recall(), 0, 6)
    whole = stream.ask(QUESTION)
    *parts, answer = stream.answer(QUESTION, slice_tokens=2)
    assert answer.tokens == whole.tokens and len(parts) == -(-(len(whole.tokens) - 1) // 2) - 1 > 0
    assert all(answer.text.startswith(part) for part in parts)


def test_follow_up_questions_stand_behind_the_dialogue():
    stream = watch(recall(), 0, 6)
    first = stream.ask(QUESTION)
    second = stream.ask("And then?", follows=first)
    assert second.history == ((QUESTION, first.text), ("And then?", second.text))
    turn = stream.dialogue.turn("And then?", None, first)
    text = model().tokenizer.decode(turn.token)
    assert text.index(QUESTION) < text.index("And then?") and sum(turn.asked) == len(model().tokenizer.encode("And then?"))
    assert np.abs(np.asarray(stream.read(turn).logits[0]) - scores(stream, "And then?")).max() > 1e-3


def test_multiple_choice_takes_the_likeliest_letter():
    stream = watch(recall(), 0, 6)
    answer = stream.ask("Which team?", choices=["red", "blue", "none"])
    assert answer.text == "ABC"[answer.choice] and answer.choice == int(np.argmax(answer.scores))
    assert sum(answer.scores) == pytest.approx(1.0) and len(answer.scores) == 3
    logits = np.asarray(read(stream, "Which team?", ["red", "blue", "none"]).logits[0])
    ids = [model().tokenizer.encode(letter)[0] for letter in "ABC"]
    assert logits[ids].argmax() == answer.choice


def test_the_answer_says_what_it_read():
    stream = watch(recall("vsb+par", budget=30), 0, 12)
    answer = stream.ask(QUESTION)
    layers = read(stream).reads
    expected = [set(np.asarray(layer.second[0])[np.asarray(layer.live[0])].tolist()) - {-1.0} for layer in layers]
    assert answer.seconds == tuple(sorted(set.union(*expected)))
    assert dict(answer.read)[22.0] == 1.0  # the newest frames are read by every layer
    assert all(share == sum(second in layer for layer in expected) / len(expected) for second, share in answer.read)
    assert answer.at == 24.0


@pytest.mark.slow
def test_pages_are_chosen_by_the_question_alone():
    """Another question reads other pages; the marks of the conversation around it do not choose."""
    stream = watch(recall("vsb+par", retrieve=0.2), 0, 24)
    kinds = {question: stream.ask(question).read for question in (QUESTION, "Who won the match in the end?", "Red or blue?")}
    assert len(set(kinds.values())) > 1


# ------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_one_sentence_each():
    stream = recall()
    with pytest.raises(StreamError, match="came before any video"):
        stream.ask(QUESTION)
    with pytest.raises(StreamError, match="not seen any video"):
        _ = stream.state
    with pytest.raises(ConfigError, match="budget=20: expected at least the 24 tokens of a clip of 8 frames"):
        recall(budget=20).feed(chunk(0))
    with pytest.raises(ConfigError, match="multiple of 2 frames"):
        recall(clip_frames=7).feed(chunk(0))
    with pytest.raises(ConfigError, match="multiples of 28"):
        recall().feed(chunk(0, size=(56, 80)))
    watch(stream, 0, 2)
    with pytest.raises(ConfigError, match="expected some words"):
        stream.ask("  ")
    with pytest.raises(ConfigError, match="1 choices: expected 2 to 26"):
        stream.ask(QUESTION, choices=["red"])
    with pytest.raises(StreamError, match="pictures of 84x84 pixels at 4 s: expected 56x84"):
        stream.feed(chunk(2, size=(84, 84)))
    with pytest.raises(StreamError, match=r"a chunk from 0.0 s: expected one from 4.0 s on"):
        stream.feed(chunk(0))


def test_pictures_for_llava_are_one_tile():
    with pytest.raises(ConfigError, match=r"frames of 56x84 pixels: expected 30x30, one tile of the model"):
        recall(family="llava_onevision").feed(chunk(0))


@pytest.mark.parametrize(("family", "size"), [("qwen2_5_vl", (56, 84)), ("llava_onevision", (30, 30))])
@pytest.mark.parametrize("fps", [0.2, 0.5, 2.0])
def test_frames_are_as_far_apart_as_was_asked(family, size, fps, tmp_path):
    """The published 0.5 frames a second, and 0.2 for long videos: which pictures, and how large."""
    video = clips.render(tmp_path / "clip.mp4", frames=160, rate=8, size=(56, 84))
    stream = model(family).qa_session(fps=fps)
    with stream.open(video, **({} if family == "llava_onevision" else {"size": size})) as source:
        chunks = list(source)
    grid = stream.vlm.config.vision.grid_frames  # two of Qwen's frames share one
    assert QASettings().fps == 0.5 and len(chunks) == 20 * fps / grid
    assert {each.frames.shape for each in chunks} == {(grid, 3, *size)}
    assert [each.end - each.start for each in chunks] == pytest.approx([grid / fps] * len(chunks))
    if family != "llava_onevision":  # whose tile is too small for the number
        shown = [clips.number(frame) for each in chunks for frame in each.frames]
        assert shown == [round(8 * n / fps) for n in range(len(shown))]


def test_a_full_memory_says_so():
    stream = watch(recall("full", budget=30), 0, 5)
    with pytest.raises(StreamError, match="the memory of 30 tokens is full"):
        watch(stream, 5, 8)


def test_original_positions_end_where_the_model_does():
    """At a frame in 500 s, each pair of frames is 2,000 positions behind the one before: 32,768 hold 16 of them."""
    memory = memory_policy(**{**SMALL, "budget": 120, "clip_frames": 40, "positions": "original"})
    slow = model().qa_session(memory=memory, fps=1 / 500)
    watch(slow, 0, 16)
    with pytest.raises(StreamError, match="positions=original needs more than the model's 32768 positions at 32 s"):
        watch(slow, 16, 17)
