"""Every benchmark in its published format, in every row: what may be seen, and a tiny random model from files to a report.

The clips exist twice: as they are, and with other frames from a moment on. Who is asked until then must not notice.
"""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest

from svlm_jax.cache.window import WindowConfig
from svlm_jax.engine.sampling import Sampling
from svlm_jax.eval.benchmarks import BENCHMARKS
from svlm_jax.eval.commentary_adapter import CommentaryAdapter
from svlm_jax.eval.runner import Run, run_row
from svlm_jax.host.signals import Interrupted
from svlm_jax.models.resize_rule import PUBLISHED
from svlm_jax.streaming.session import Session
from svlm_jax.streaming.settings import StreamSettings
from svlm_jax.streaming.vlm import StreamingVLM
from tests import checkpoints, clips
from tests.eval import sets
from tests.eval.fakes import Reader

# The frame from which on the second set shows others: in the middle of a chunk, at the moment of an item, where there are such
# moments. Where all of a video may be seen there is none.
CHANGED = {"inf-streams": 300, "livesports-cc": 9, "ovo-bench": 13, "streaming-bench": 8, "rvs-ego": 10, "rvs-movie": 10,
           "mvbench": 9}  # fmt: skip
CASES = [(name, row) for name in sorted(BENCHMARKS) for row in BENCHMARKS[name].rows]
CAUSAL = [(name, row) for name, row in CASES if name in CHANGED]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The set of a benchmark, or the one with other frames; made when first asked for."""
    made = {}

    def folder(name, *, changed=False):
        if (name, changed) not in made:
            with pytest.MonkeyPatch.context() as patch:
                if changed:
                    picture = clips.picture
                    patch.setattr(clips, "picture", lambda i, *size: picture(i if i < CHANGED[name] else i ^ 1023, *size))
                made[name, changed] = sets.SETS[name](tmp_path_factory.mktemp(name))
        return made[name, changed]

    return folder


def planned(name, folder, results):
    """With pictures and answers that a tiny model is quick with."""
    benchmark = BENCHMARKS[name]
    protocol = dataclasses.replace(benchmark.protocol, prefix_frames=4, last_frames=2, max_new_tokens=4)
    return Run(benchmark, folder, results, protocol, resize=dataclasses.replace(PUBLISHED, size=(28, 56)))


def first_unseen(name, item):
    """The number of the first frame that an item must not show."""
    if item.time is None:
        return math.inf
    if name == "inf-streams":  # a frame in ten seconds until 1000 s
        return 100 + (item.time - 1000) * sets.RATE
    return math.ceil(item.time * (item.fps or sets.RATE))


def test_where_there_is_a_moment(folders):
    timed = {name for name in BENCHMARKS if any(item.time is not None for item in BENCHMARKS[name].read(folders(name)))}
    assert timed == set(CHANGED)


def responses(folder):
    records = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    return {record["id"]: record["response"] for record in records if "response" in record}


@pytest.mark.parametrize(("name", "row"), CAUSAL)
def test_frames_after_the_question_do_not_matter(folders, tmp_path, name, row):
    """To the frame: what is shown is the same until the moment, and other things afterwards."""
    seen = []
    for changed in (False, True):
        run = planned(name, folders(name, changed=changed), tmp_path / str(changed))
        run = dataclasses.replace(run, resize=dataclasses.replace(PUBLISHED, size=(56, 84)))  # numbers can be read
        run_row(run, Reader(lambda question, seen: f"Yes {seen}"), row)  # proactive questions end with their first poll
        seen.append(responses(tmp_path / str(changed) / row))
    items = {item.id: item for item in run.items()}
    assert seen[0].keys() == seen[1].keys()
    differ = {name for name in seen[0] if seen[0][name] != seen[1][name]}
    late = {key for key in seen[0] if first_unseen(name, items[key]) > CHANGED[name]}
    assert differ == late and 0 < len(late) < len(items)


# --------------------------------------------------------------------------------------------- with a model


@pytest.fixture(scope="module")
def watcher():
    """Every text is a digest of the logits it was chosen by, so that equal texts mean equal streams, and none is an answer."""
    vlm = StreamingVLM.from_pretrained(checkpoints.tiny(), dtype="float32")
    window = WindowConfig(vision=4, text=4, sink=12, tail=16)
    settings = StreamSettings(window=window, query=None, sampling=Sampling(max_new_tokens=2), keep_logits=True)
    feed = Session.feed

    def told(session, *arguments):
        caption = feed(session, *arguments)
        digest = hashlib.sha256(np.asarray(session.last.logits).tobytes()).digest()[:12]
        return dataclasses.replace(caption, text="".join(chr(ord("q") + byte % 10) for byte in digest))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "feed", told)
        yield CommentaryAdapter(vlm, settings)


@pytest.mark.parametrize(
    ("name", "row"), [pytest.param(*case, marks=() if case == ("rvs-ego", "stream") else pytest.mark.slow) for case in CASES]
)
def test_a_model_from_files_to_a_report(watcher, folders, tmp_path, name, row):
    """Read, shown, answered, scored; the same after an interruption; and the same with another future."""
    run = planned(name, folders(name), tmp_path / "whole")
    items = run.items()
    whole = run_row(run, watcher, row)
    texts = responses(tmp_path / "whole" / row)
    early = [item for item in items if name == "inf-streams" and item.start < 1000]
    assert whole["counts"]["items"] == len(items) == whole["counts"]["answered"] + len(early) == len(texts) + len(early)
    assert whole["counts"]["missing"] == 0 and sum(whole["counts"]["skipped"].values()) == len(early)
    if BENCHMARKS[name].grade is not None:
        assert whole["counts"]["unparsed"] == len(items), "a digest is no answer"
        assert whole["strict"]["total"] == 0
        assert whole["cost"]["tokens_most"] > 0
    about = json.loads((tmp_path / "whole" / row / "manifest.json").read_text())
    assert about["settings"]["window"]["vision"] == 4 and about["pixels"]["size"] == [28, 56]
    assert {"commit", "machine", "date", "command", "revision", "dtype", "protocol"} <= set(about)
    asked = {(item.question, item.start, item.time) for item in items if item.id in texts}
    assert len(set(texts.values())) == len(asked), "answers depend on what is asked and seen, and on nothing else"

    def stop(done, total):
        if done and len(responses(tmp_path / "torn" / row)) == max(1, len(texts) // 2):
            raise Interrupted(15)

    torn = planned(name, folders(name), tmp_path / "torn")
    with pytest.raises(Interrupted):
        run_row(torn, watcher, row, progress=stop)
    again = run_row(torn, watcher, row)
    assert {**again, "cost": None} == {**whole, "cost": None}
    assert responses(tmp_path / "torn" / row) == texts

    if name in CHANGED:
        run_row(planned(name, folders(name, changed=True), tmp_path / "changed"), watcher, row)
        other = responses(tmp_path / "changed" / row)
        differ = {key for key in texts if texts[key] != other[key]}
        assert differ == {item.id for item in items if item.id in texts and first_unseen(name, item) > CHANGED[name]}


@pytest.mark.slow
@pytest.mark.parametrize("row", ["stream", "prefix"])
def test_another_family_in_a_row(folders, tmp_path, row):
    """Qwen3-VL, whose tokens are larger and whose turns have time stamps."""
    vlm = StreamingVLM.from_pretrained(checkpoints.tiny("qwen3_vl"), dtype="float32")
    window = WindowConfig(vision=4, text=4, sink=12, tail=16)
    watcher = CommentaryAdapter(vlm, StreamSettings(window=window, query=None, sampling=Sampling(max_new_tokens=2)))
    run = planned("rvs-ego", folders("rvs-ego"), tmp_path)
    run = dataclasses.replace(run, resize=dataclasses.replace(vlm.resize_rule(), size=(64, 96)))
    counts = run_row(run, watcher, row)["counts"]
    assert counts["answered"] == counts["items"] == len(run.items())
