"""Whole runs: learning, reports, evaluation, interruption, and what a resumed run makes of its checkpoints."""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from svlm_jax import sharding
from svlm_jax.data.chunks import Batch
from svlm_jax.data.samples import Broken
from svlm_jax.errors import CheckpointError, ConfigError, DataError, OutputError, TrainError
from svlm_jax.host.signals import Interrupted
from svlm_jax.models.flat_params import Flat
from svlm_jax.sharding import MeshConfig
from svlm_jax.train import checkpoints
from svlm_jax.train.checkpoints import Checkpoints, Identity, checksum
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import Loop, LoopConfig
from svlm_jax.train.metrics import JsonLines, Reports, TensorBoard, WeightsAndBiases, duration
from svlm_jax.train.optimizer import OptimizerConfig, make_optimizer, schedule
from svlm_jax.train.state import Partition, TrainState, init_state, place_flat
from svlm_jax.train.step import Step
from tests.train import tiny
from tests.train.streams import Stream

CONFIG = tiny.config(layers=1)
OPTIMIZER = OptimizerConfig(2e-2, warmup=0)
STEPS = 8


class Runner:
    """Compiled once for a mesh, then runs from the beginning or from a checkpoint as often as wanted."""

    def __init__(self, mesh: MeshConfig, devices: int) -> None:
        self.mesh = sharding.make_mesh(mesh, jax.devices()[:devices])
        self.optimizer = make_optimizer(OPTIMIZER, STEPS)
        self.step = Step(CONFIG, Compute(dtype="float32", clips=0), Partition(), self.optimizer, self.mesh)
        for shape in Stream(CONFIG).shapes():
            self.step.compile(shape)
        self.step.compile(Stream(CONFIG).shapes()[0], evaluate=True)

    def fresh(self) -> tuple[TrainState, Flat]:
        flat = place_flat(tiny.params(CONFIG), self.mesh)
        return init_state(flat, Partition(), self.optimizer, self.mesh, frozen_dtype="float32")

    @contextlib.contextmanager
    def checkpoints(self, folder: Path, frozen: Flat, config: object = CONFIG) -> Iterator[Checkpoints]:
        checkpoints = Checkpoints(folder, Identity(config, checksum(frozen), {}), keep=2)
        try:
            yield checkpoints
        finally:
            checkpoints.close()

    def run(self, folder: Path, steps: int = STEPS, stream: Stream | None = None) -> tuple[str, list[dict[str, float]]]:
        """Resumes if it can; (outcome, all records in the file)."""
        state, frozen = self.fresh()
        stream = stream or Stream(CONFIG)
        with self.checkpoints(folder / "checkpoints", frozen) as checkpoints:
            if checkpoints.latest is not None:
                state, where = checkpoints.restore(self.step.state)
                stream.restore(where)
            config = LoopConfig(steps=steps, accumulate=2, eval_every=4, eval_batches=1, save_every=3)
            data = {"rate": schedule(OPTIMIZER, STEPS), "evaluation": Stream(CONFIG, distinct=1)}
            with contextlib.closing(JsonLines(folder / "metrics.jsonl", int(state.step) + 1)) as log:
                _, outcome = Loop(config, self.step, stream, checkpoints, Reports([log]), **data).run(state, frozen)
        return outcome, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def single() -> Runner:
    return Runner(MeshConfig(), 1)


@pytest.fixture(scope="module")
def whole(single: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    outcome, records = single.run(folder)
    assert outcome == "finished"
    return folder, records


def _losses(records: list[dict[str, float]]) -> list[float]:
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    return [record["loss"] for record in records]


def test_learns_evaluates_and_reports(whole) -> None:
    folder, records = whole
    losses = _losses(records)
    assert len(losses) == STEPS
    assert losses[-1] < 0.75 * losses[0]
    assert [record["step"] for record in records if "eval_loss" in record] == [4, 8]
    assert records[7]["eval_loss"] < records[3]["eval_loss"]
    assert all(record["grad_norm"] > 0 and record["tokens_per_second"] > 0 for record in records)
    assert records[0]["learning_rate"] == pytest.approx(OPTIMIZER.learning_rate)
    assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdecimal()) == [6, 8]


def test_killed_run_repeats_at_most_one_interval(whole, single: Runner, tmp_path: Path) -> None:
    """A run that dies in step 5 goes on from step 3, and its trace is the uninterrupted one."""

    class Dies(Stream):
        def __next__(self):
            if self.position == 9:
                raise RuntimeError("power cut")
            return super().__next__()

    with pytest.raises(RuntimeError, match="power cut"):
        single.run(tmp_path, stream=Dies(CONFIG))
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    assert single.run(tmp_path)[0] == "finished"
    _, records = single.run(tmp_path)
    assert _losses(records) == _losses(whole[1])


@pytest.mark.parametrize(("at", "done"), [(2, 1), (3, 2)])
def test_sigterm_saves_and_leaves(whole, single: Runner, tmp_path: Path, at: int, done: int) -> None:
    """Step 2 is micro-batches 2 and 3: after the first of them it is dropped, after the second it is done."""

    class Terminated(Stream):
        def __next__(self):
            if self.position == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    outcome, records = single.run(tmp_path, stream=Terminated(CONFIG))
    assert outcome == "preempted"
    assert len(records) == done
    assert [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()] == [done]
    outcome, records = single.run(tmp_path)
    assert outcome == "finished"
    assert _losses(records) == _losses(whole[1])


def test_ctrl_c_saves_and_a_second_one_leaves(single: Runner, tmp_path: Path) -> None:
    class Interrupting(Stream):
        def __init__(self, times: int) -> None:
            super().__init__(CONFIG)
            self.times = times

        def __next__(self):
            if self.position == 3:
                for _ in range(self.times):
                    os.kill(os.getpid(), signal.SIGINT)
            return super().__next__()

    outcome, records = single.run(tmp_path / "one", stream=Interrupting(1))
    assert outcome == "preempted" and len(records) == 2
    with pytest.raises(Interrupted, match="Ctrl-C"):
        single.run(tmp_path / "two", stream=Interrupting(2))


class Spoiled(Stream):
    """The loss of the micro-batches from `first` to before `last` is not finite."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(CONFIG)
        self.first, self.last = first, last

    def batch(self, number: int) -> Batch:
        batch = super().batch(number)
        return tiny.weighing(batch, *[np.inf] * 4) if self.first <= self.position < self.last else batch


def test_a_loss_that_is_not_finite_is_skipped(single: Runner, tmp_path: Path) -> None:
    """Two steps of eight: the weights stay, the metrics are JSON, the run goes on."""
    outcome, _ = single.run(tmp_path, stream=Spoiled(4, 8))
    text = (tmp_path / "metrics.jsonl").read_text()
    records = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert outcome == "finished" and [record["skipped"] for record in records] == [0, 0, 1, 1, 0, 0, 0, 0]
    assert records[2]["loss"] is None and records[7]["loss"] < records[0]["loss"]


@pytest.mark.parametrize("stream", [Spoiled(6, 100), None])
def test_a_run_that_is_lost_ends_and_its_checkpoints_are_good(single: Runner, tmp_path: Path, monkeypatch, stream) -> None:
    """Batches that are spoiled from step 4 on; and weights that are ruined in step 4, whose own loss is finite."""
    if stream is None:
        apply = single.step.apply

        def ruin(state: TrainState, sums: object) -> object:
            state, metrics = apply(state, sums)
            if int(state.step) == 4:
                state = dataclasses.replace(state, params={path: leaf * 1e30 for path, leaf in state.params.items()})
            return state, metrics

        monkeypatch.setattr(single.step, "apply", ruin)
    with pytest.raises(TrainError, match=r"is not finite at step \d+; the newest checkpoint, of step 3, is good"):
        single.run(tmp_path, steps=40, stream=stream)
    monkeypatch.undo()
    assert [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()] == [3]
    assert single.run(tmp_path)[0] == "finished"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax, which gives up half-way
@pytest.mark.parametrize("part", ["data", "meta", "state", "a digit of meta"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(whole, single, tmp_path, caplog, part) -> None:
    """A bit that has flipped, which no reader notices; files that end too early."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    digit, part = part.startswith("a digit"), part.rpartition(" ")[2]
    files = [path for path in (tmp_path / "checkpoints" / "8" / part).rglob("*") if path.is_file()]
    if digit:
        files = [path for path in files if path.name == "_strings.json"]
    flipped = part == "state" or digit
    for file in [max(files, key=_size)] if flipped else files:
        damaged = bytearray(file.read_bytes())
        if flipped:
            at = [i for i, byte in enumerate(damaged) if chr(byte).isdigit()][-1] if digit else len(damaged) // 2
            damaged[at] ^= 1  # of a digit it makes another one
        file.write_bytes(damaged if flipped else damaged[: len(damaged) // 2])
    outcome, records = single.run(tmp_path)
    assert outcome == "finished" and _losses(records) == _losses(whole[1])
    assert "step 8 of" in caplog.text and "is damaged and is not used" in caplog.text
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal())
    assert steps == [6, 8] and len(list((tmp_path / "checkpoints-damaged").iterdir())) == 1


# Orbax's tasks are still waiting for the disk when its event loop is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_afterwards(whole, single: Runner, tmp_path: Path) -> None:
    """A limit of the size of files stands for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(OutputError, match=rf"^checkpoints cannot be written to {tmp_path}/checkpoints: File too large\.$"):
            single.run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    gc.collect()  # what they leave is seen here, and in no other test
    outcome, records = single.run(tmp_path)
    assert outcome == "finished" and _losses(records) == _losses(whole[1])


def test_what_another_process_cannot_read_or_refuses_is_not_taken(whole, single, tmp_path, monkeypatch, caplog) -> None:
    """The other process is a stand-in: in the first question it says yes (nothing is refused), in the second no."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    said = iter([True, False, True, True])
    monkeypatch.setattr(checkpoints, "_everywhere", lambda here: here and next(said, True))
    _, frozen = single.fresh()
    with single.checkpoints(tmp_path / "checkpoints", frozen) as kept:
        restored, _ = kept.restore(single.step.state)
    assert int(restored.step) == 6 and "in another process it cannot be read" in caplog.text
    said = iter([False])
    with single.checkpoints(tmp_path / "checkpoints", frozen) as kept, pytest.raises(CheckpointError, match="another process"):
        kept.restore(single.step.state)


def _size(path: Path) -> int:
    return path.stat().st_size


def test_a_second_sigterm_does_not_end_the_last_save(single: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    wait = Checkpoints.wait

    def told_again(self: Checkpoints) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        wait(self)

    monkeypatch.setattr(Checkpoints, "wait", told_again)
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))  # stands for the end of the process
    try:
        assert single.run(tmp_path, steps=1)[0] == "finished"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not ended


def test_data_that_nothing_can_be_learned_from_ends_the_run(single: Runner, tmp_path: Path) -> None:
    """As a wrong folder of videos does; a step or two without a sample do not."""

    class Unreadable(Stream):
        def __init__(self, readable: int) -> None:
            super().__init__(CONFIG)
            self.broken, self.readable = Broken(), readable

        def batch(self, number: int) -> Batch:
            if self.position < self.readable:
                return super().batch(number)
            self.broken.add("train", self.position, DataError("a.mp4 does not exist."))
            return tiny.weighing(super().batch(number), 0, 0, 0, 0)

    with pytest.raises(DataError, match=r"the last 8 steps cannot be read, or hold nothing to learn: a.mp4 does not exist."):
        single.run(tmp_path, stream=Unreadable(0))
    outcome, records = single.run(tmp_path / "later", stream=Unreadable(6))
    assert outcome == "finished" and [record["tokens"] > 0 for record in records] == [True] * 3 + [False] * 5
    assert records[-1]["broken_samples"] == 10


@pytest.mark.slow
def test_goes_on_on_another_mesh(whole, single: Runner, tmp_path: Path) -> None:
    assert single.run(tmp_path, steps=3)[0] == "finished"
    outcome, records = Runner(MeshConfig(1, 2, 2), 4).run(tmp_path)
    assert outcome == "finished"
    np.testing.assert_allclose(_losses(records), _losses(whole[1]), rtol=1e-5)


def test_checkpoints_of_other_models_are_refused(whole, single: Runner, tmp_path: Path) -> None:
    folder, _ = whole
    _, frozen = single.fresh()
    text = dataclasses.replace(CONFIG.text, rms_norm_eps=1e-5)
    other_model = dataclasses.replace(CONFIG, text=text)
    other_tower = {"a": 2 * frozen["visual.patch_embed.weight"]}
    more = dataclasses.replace(single.step.state, params={**single.step.state.params, "new": single.step.state.step})
    for where, weights, config, wanted, message in (
        (folder, frozen, other_model, single.step.state, "another model: its rms_norm_eps is 1e-06, expected 1e-05"),
        (folder, other_tower, CONFIG, single.step.state, "trained on top of other frozen weights"),
        (folder, frozen, CONFIG, more, r"step 8 of .* does not fit this run"),
        (tmp_path / "none", frozen, CONFIG, single.step.state, "holds no complete checkpoint"),
    ):
        with (
            single.checkpoints(where / "checkpoints", weights, config) as checkpoints,
            pytest.raises(CheckpointError, match=message),
        ):
            checkpoints.restore(wanted)


def _one_step(runner: Runner, folder: Path, stream: Stream, loss_norm: str) -> dict[str, float]:
    state, frozen = runner.fresh()
    config = LoopConfig(steps=1, accumulate=2, loss_norm=loss_norm, eval_every=0, save_every=0)
    with (
        runner.checkpoints(folder / loss_norm, frozen) as checkpoints,
        contextlib.closing(JsonLines(folder / f"{loss_norm}.jsonl")) as log,
    ):
        rate = schedule(OPTIMIZER, STEPS)
        Loop(config, runner.step, stream, checkpoints, Reports([log]), rate=rate).run(state, frozen)
    return json.loads((folder / f"{loss_norm}.jsonl").read_text())


def _row_by_row(runner: Runner, batches: list[Batch]) -> tuple[float, float]:
    """Loss and norm of the gradient when every row is a GPU of its own: each one's mean over the step, then their mean."""
    state, frozen = runner.fresh()
    losses, gradients = [], []
    for row in range(len(batches[0].weight)):
        sums = runner.step.zeros()
        for batch in batches:
            alone = tiny.weighing(batch, *(weight * (i == row) for i, weight in enumerate(batch.weight)))
            sums = runner.step.accumulate(state, frozen, sums, sharding.place_batch(alone, runner.mesh))
        if sums.totals[1]:
            losses.append(sums.totals[0] / sums.totals[1])
            gradients.append({path: leaf / sums.totals[1] for path, leaf in sums.gradients.items()})
    mean = [sum(one[path] for one in gradients) / len(gradients) for path in gradients[0]]
    return float(np.mean(losses)), float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in mean)))


class Uneven(Stream):
    """Rows learn different numbers of tokens, one sample is broken, and one row learns nothing in the whole step."""

    def batch(self, number: int) -> Batch:
        batch = super().batch(number)
        batch.labels[1] = -100
        return tiny.weighing(batch, 1, 1, float(number > 0), 1)


class Even(Stream):
    """Every row learns the same number of tokens in a step, though not in each micro-batch."""

    def batch(self, number: int) -> Batch:
        batch = super().batch(number)
        labels = np.full_like(batch.labels, -100)
        labels[:, 6 : 7 + number] = batch.tokens[:, 6 : 7 + number]
        return dataclasses.replace(batch, labels=labels)


def test_loss_per_rank_is_the_published_one(single: Runner, tmp_path: Path) -> None:
    stream = Uneven(CONFIG)
    loss, norm = _row_by_row(single, [stream.batch(0), stream.batch(1)])
    per_rank, per_token = (_one_step(single, tmp_path, Uneven(CONFIG), name) for name in ("per_rank", "token"))
    assert per_rank["loss"] == pytest.approx(loss, rel=1e-5) and per_rank["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert per_rank["tokens"] == pytest.approx(3)  # rows
    assert abs(per_rank["loss"] - per_token["loss"]) > 1e-3 * per_token["loss"]


def test_both_norms_agree_where_all_rows_learn_as_much(single: Runner, tmp_path: Path) -> None:
    per_rank, per_token = (_one_step(single, tmp_path, Even(CONFIG), name) for name in ("per_rank", "token"))
    for name in ("loss", "grad_norm", "accuracy"):
        assert per_rank[name] == pytest.approx(per_token[name], rel=1e-5)


def test_tensorboard_and_the_line(tmp_path: Path) -> None:
    record = {"loss": 1.5, "accuracy": 0.5, "grad_norm": 2.0, "learning_rate": 1e-5, "tokens_per_second": 3741.0}
    record |= {"data_wait": 0.02, "seconds": 6.0, "mfu": 0.251, "broken_samples": 3.0, "eval_loss": 1.25, "eval_accuracy": 0.6}
    said: list[str] = []
    reports = Reports([TensorBoard(tmp_path)], said.append)
    reports.write(12, 2050, record)
    reports.close()
    assert said == [
        "step 12/2,050  loss 1.5000  acc 50.0 %  grad 2  lr 1.00e-05  3,741 tok/s  MFU 25.1 %  data wait 2 %  "
        "3 broken samples  eval 1.2500 (acc 60.0 %)  3 h 24 min left"
    ]
    assert b"eval_loss" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [duration(seconds) for seconds in (5, 600, 7500)] == ["5 s", "10 min", "2 h 5 min"]


def test_weights_and_biases_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ConfigError, match="the project 'goals' of Weights & Biases is set, but wandb is not installed"):
        WeightsAndBiases("goals", "run", {})
    logged: list[tuple[int, dict[str, float]]] = []
    run = SimpleNamespace(log=lambda record, step: logged.append((step, record)), finish=lambda: logged.append((-1, {})))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run))
    writer = WeightsAndBiases("goals", "run", {})
    writer.write(3, {"loss": 1.5})
    writer.close()
    assert logged == [(3, {"loss": 1.5}), (-1, {})]


def test_loop_values_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"loop.accumulate is 0, expected at least 1"):
        LoopConfig(accumulate=0)
    with pytest.raises(ConfigError, match=r"loop.loss_norm is 'rank', expected one of token, per_rank"):
        LoopConfig(loss_norm="rank")
