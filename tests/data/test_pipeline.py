"""The pipeline: every sample once an epoch, one shape a batch, exact resumption, and broken samples that spoil nothing."""

import collections
import dataclasses
import itertools
import json
import logging

import numpy as np
import pytest

from svlm_jax.checkpoint.random import random_config
from svlm_jax.data.annotations import Annotation, AnnotationFile, Word, write_annotations
from svlm_jax.data.chunks import IGNORED, Bucket, ChunkBuilder, Sample
from svlm_jax.data.pipeline import Pipeline, PipelineSettings
from svlm_jax.data.samples import AnnotatedVideos
from svlm_jax.errors import ConfigError, DataError
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.synthetic import write_match
from tests import clips
from tests.checkpoints import tiny

SMALL, LARGE, WIDE = Bucket(8, 2, (2, 2)), Bucket(16, 4, (2, 2)), Bucket(16, 4, (2, 4))


class Numbers:
    """Samples that hold their own number, of 1 to 16 tokens; some cannot be read."""

    frames, shuffled = 2, False

    def __init__(self, count, *, first=0, name="numbers", unreadable=(), unmeasurable=(), wide=()):
        self.name, self.count, self.first, self.wide = name, count, first, wide
        self.unreadable, self.unmeasurable = unreadable, unmeasurable
        self.loaded = collections.Counter()

    def __len__(self):
        return self.count

    def size(self, number):
        return (2, 4) if number in self.wide else (2, 2)

    def length(self, number, size):
        if number in self.unmeasurable:
            raise DataError("a broken line.")
        return (20, 4) if number == 13 else (number % 16 + 1, number % 2 + 1)

    def load(self, number, size):
        self.loaded[number] += 1
        if number in self.unreadable:
            raise DataError("no such video.")
        tokens, turns = self.length(number, size)
        ids = np.full(tokens, self.first + number, np.int32)
        frames = np.full((turns, 2, 3, *size), number, np.uint8)
        positions = np.zeros((3, tokens), np.float32)
        return Sample(ids, ids, positions, ids >= 0, frames, np.ones(turns, bool), np.float32(1))

    def fingerprint(self):
        return f"{self.name} {self.count}"


def settings(**changes):
    return PipelineSettings(**{"batch": 4, "buckets": (SMALL, LARGE, WIDE), "window": 2, "seed": 3, **changes})


def rows(batch):
    """Each row's number, -1 for those of weight 0."""
    return [int(tokens[0]) if weight else -1 for tokens, weight in zip(batch.tokens, batch.weight, strict=True)]


def taken(pipeline, count):
    with pipeline:
        return [rows(batch) for batch in itertools.islice(pipeline, count)]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def test_every_sample_comes_once_an_epoch_and_the_next_epoch_is_another_order():
    samples = Numbers(12)
    batches = taken(Pipeline([(samples, 1)], settings(window=1)), 6)
    first, second = flat(batches[:3]), flat(batches[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second and first != list(range(12))


def test_without_shuffling_the_order_is_kept():
    assert taken(Pipeline([(Numbers(8), 1)], settings(shuffle=False, window=1)), 3) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [0, 1, 2, 3],
    ]


def test_batches_have_the_shape_of_a_bucket_and_short_samples_come_together():
    with Pipeline([(Numbers(32, unmeasurable=(13, 29)), 1)], settings(window=8)) as pipeline:
        batches = list(itertools.islice(pipeline, 8))
    shapes = [Bucket(batch.tokens.shape[1], batch.frames.shape[1], batch.frames.shape[-2:]) for batch in batches]
    assert set(shapes) == {SMALL, LARGE}
    assert shapes.count(SMALL) == 4  # half of the samples are short: no batch of theirs is padded to the large shape
    assert shapes != sorted(shapes)  # but long and short ones take turns
    assert sorted(number for batch in batches for number in rows(batch) if number >= 0) == [
        n for n in range(32) if n % 16 != 13
    ]


def test_samples_that_fit_no_bucket_together_are_left_out():
    odd = Bucket(8, 1, (2, 2)), Bucket(4, 2, (2, 2))  # neither holds the other; 8 is even and needs 9 tokens
    with Pipeline([(Numbers(8), 1)], settings(window=2, buckets=odd, shuffle=False)) as pipeline:
        batches = [next(pipeline) for _ in range(2)]
        assert all("no shape of batch" in sentence for sentence in pipeline.broken.sentences())
    assert sorted(number for number in flat(map(rows, batches)) if number >= 0) == [0, 1, 2, 3, 4, 6]
    assert {batch.tokens.shape[1] for batch in batches} == {4, 8}


def test_pictures_of_two_sizes_never_share_a_shape():
    samples = Numbers(12, wide=(1, 3, 5))
    with Pipeline([(samples, 1)], settings(window=3)) as pipeline:
        batches = list(itertools.islice(pipeline, 3))
    assert sorted(flat(map(rows, batches))) == list(range(12))
    assert all(batch.frames.shape[-2:] in ((2, 2), (2, 4)) for batch in batches)


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_resuming_on_another_number_of_hosts_changes_nothing(before, after):
    def hosts(count):
        return [
            Pipeline([(Numbers(40), 2), (Numbers(24, first=100, name="more"), 1)], settings(), host=h, hosts=count)
            for h in range(count)
        ]

    def global_batches(pipelines, count):
        return [sorted(flat(rows(next(pipeline)) for pipeline in pipelines)) for _ in range(count)]

    (alone,) = hosts(1)
    expected = global_batches([alone], 12)
    first = hosts(before)
    start = global_batches(first, 5)
    states = [pipeline.state() for pipeline in first]
    assert all(state == states[0] for state in states)
    second = hosts(after)
    for pipeline in second:
        pipeline.restore(json.loads(json.dumps(states[0])))
    assert start + global_batches(second, 7) == expected
    for pipeline in (alone, *first, *second):
        pipeline.close()


def test_going_back_in_the_same_pipeline():
    with Pipeline([(Numbers(40), 1)], settings()) as pipeline:
        next(pipeline)
        state = pipeline.state()
        ahead = [rows(next(pipeline)) for _ in range(3)]
        pipeline.restore(state)
        assert [rows(next(pipeline)) for _ in range(3)] == ahead


def test_sets_are_mixed_by_weight():
    sets = [(Numbers(50), 3), (Numbers(50, first=100, name="more"), 1)]
    batches = taken(Pipeline(sets, settings(buckets=(Bucket(20, 4, (2, 2)),))), 16)
    assert [sum(number >= 100 for number in batch) for batch in batches].count(4) == 4
    assert sum(number >= 100 for number in flat(batches)) == 16  # and no batch holds samples of both


def test_broken_samples_are_counted_once_logged_and_weighted_zero(caplog):
    samples = Numbers(16, unreadable=(2,), unmeasurable=(5,))
    with caplog.at_level(logging.WARNING), Pipeline([(samples, 1)], settings(window=1)) as pipeline:
        batches = [next(pipeline) for _ in range(8)]
        assert len(pipeline.broken) == 3 and pipeline.broken.counts() == {"numbers": 3}
    numbers = flat(map(rows, batches))
    assert numbers.count(-1) == 6  # 13 fits no bucket
    assert sorted(set(numbers)) == [-1, *(n for n in range(16) if n not in (2, 5, 13))]
    assert 2 <= samples.loaded[2] <= 3 and not samples.loaded[5] and not samples.loaded[13]
    assert len(caplog.records) == 3
    for sentence in (
        "sample 2 is left out: no such video",
        "sample 5 is left out: a broken line",
        "for which no shape of batch has room",
    ):
        assert sentence in caplog.text
    blank = next(batch for batch in batches if -1 in rows(batch))
    row = rows(blank).index(-1)
    assert (blank.labels[row] == IGNORED).all() and not blank.valid[row].any() and not blank.clip_valid[row].any()


def test_when_all_is_broken_batches_still_come():
    batches = taken(Pipeline([(Numbers(4, unmeasurable=range(4)), 1)], settings()), 3)
    assert batches == [[-1] * 4] * 3


def test_data_that_changed_is_noticed():
    with Pipeline([(Numbers(16), 1)], settings()) as pipeline:
        state = pipeline.state()
    for sets, other in (
        ([(Numbers(17), 1)], settings()),
        ([(Numbers(16), 2)], settings()),
        ([(Numbers(16), 1)], settings(seed=4)),
        ([(Numbers(16), 1)], settings(batch=8)),
    ):
        with Pipeline(sets, other) as pipeline, pytest.raises(DataError, match="the data is not what it was"):
            pipeline.restore(state)
    with Pipeline([(Numbers(16), 1)], settings(threads=1)) as pipeline:
        pipeline.restore(state)


def test_settings_that_cannot_work_are_named():
    with pytest.raises(ConfigError, match="does not divide among 3 hosts"):
        Pipeline([(Numbers(4), 1)], settings(), hosts=3)
    with pytest.raises(ConfigError, match="sets that have samples"):
        Pipeline([(Numbers(0), 1)], settings())
    with pytest.raises(ConfigError, match="at least one shape"):
        settings(buckets=())
    with pytest.raises(ConfigError, match="batch=0"):
        settings(batch=0)


# ------------------------------------------------------------------------------------------- with real files


@pytest.fixture(scope="module")
def build():
    return ChunkBuilder(Tokenizer(tiny() / "tokenizer.json").encode, random_config("qwen2_5_vl"))


def test_annotated_videos_end_to_end(tmp_path, build):
    """A match, and beside it a sample without its video and a line that is no JSON."""
    _, path = write_match(tmp_path, 3, 1, scale=1)
    lines = list(AnnotationFile(path))
    gone = Annotation("gone.mp4", 0.0, 24.0, (Word(0.1, 0.4, "red"),))
    write_annotations(path, [*lines, gone, lines[0]])
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"}}\n")
    samples = AnnotatedVideos(path, build, resize=dataclasses.replace(PUBLISHED, size=(84, 112)))
    with Pipeline([(samples, 1)], settings(batch=2, buckets=(Bucket(2500, 24, (84, 112)),), window=3)) as pipeline:
        batches = [next(pipeline) for _ in range(3)]
        assert sorted(weight for batch in batches for weight in batch.weight) == [0, 0, 1, 1, 1, 1]
        sentences = pipeline.broken.sentences()
    assert any("gone.mp4 does not exist" in text for text in sentences) and any("is no JSON" in text for text in sentences)
    batch = next(batch for batch in batches if batch.weight.all())
    assert batch.frames.shape == (2, 24, 2, 3, 84, 112) and batch.frames.std() > 10
    assert (batch.tokens == build.model.video_token_id).sum() == 2 * 24 * 12


def test_sizes_follow_the_video_unless_given(tmp_path, build):
    clips.render(tmp_path / "a.mp4", frames=24, rate=12)
    path = tmp_path / "x.jsonl"
    write_annotations(path, [Annotation("a.mp4", 0.0, 2.0, (Word(0.1, 0.4, "red"),))])
    samples = AnnotatedVideos(path, build, resize=dataclasses.replace(PUBLISHED, min_pixels=784, max_pixels=84 * 140))
    size = samples.size(0)
    assert size == (56, 140)
    sample = samples.load(0, size)
    assert sample.frames.shape[-2:] == size and samples.length(0, size) == (len(sample.tokens), 2)
    before = samples.fingerprint()
    write_annotations(path, [Annotation("a.mp4", 0.0, 2.0, (Word(0.1, 0.4, "blue"),))])
    assert AnnotatedVideos(path, build).fingerprint() != before


SHAPES = {"wide": (112, 196), "4:3": (112, 168), "9:16": (196, 112)}


@pytest.fixture(scope="module")
def shaped(tmp_path_factory, build):
    """Two seconds of a video of each proportion; how the model sees them is `SHAPES`."""
    folder = tmp_path_factory.mktemp("shaped")
    sources = {"wide": (112, 196), "4:3": (120, 160), "9:16": (196, 112)}
    for number, size in enumerate(sources.values()):
        clips.render(folder / f"{number}.mp4", frames=24, rate=12, size=size)
    path = folder / "x.jsonl"
    write_annotations(path, [Annotation(f"{number}.mp4", 0.0, 2.0, (Word(0.1, 0.4, "red"),)) for number in range(len(sources))])
    return AnnotatedVideos(path, build, resize=dataclasses.replace(PUBLISHED, min_pixels=784, max_pixels=112 * 196))


def test_videos_of_all_proportions_find_their_bucket(shaped):
    buckets = tuple(Bucket(400, 2, size) for size in SHAPES.values())
    with Pipeline([(shaped, 1)], settings(batch=1, window=1, shuffle=False, buckets=buckets)) as pipeline:
        batches = [next(pipeline) for _ in SHAPES]
        assert not len(pipeline.broken)
    assert [batch.frames.shape[-2:] for batch in batches] == list(SHAPES.values())
    for batch in batches:
        assert batch.weight.tolist() == [1] and clips.upright(batch.frames[0, 0, 0]) and batch.frames[..., :4].max() > 100


def test_where_there_is_one_bucket_only_pictures_keep_their_proportions(shaped):
    box = SHAPES["wide"]
    with Pipeline([(shaped, 1)], settings(batch=3, window=1, shuffle=False, buckets=(Bucket(400, 2, box),))) as pipeline:
        batch = next(pipeline)
    assert batch.weight.tolist() == [1, 1, 1] and batch.frames.shape[-2:] == box
    for row, bar in enumerate((0, 14, 70)):  # 9:16 becomes 112 x 56 of 112 x 196
        picture = batch.frames[row, 0, 0]
        drawn = picture[..., bar : box[1] - bar]
        assert clips.upright(drawn) and drawn[..., :2].max() > 100 and drawn[..., -2:].max() > 100
        assert picture.sum() == drawn.sum(dtype=picture.sum().dtype)
