"""The run itself: batches in, steps, reports, evaluations, checkpoints, and an orderly end when the machine is wanted back."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, get_args

import jax
import numpy as np

from svlm_jax import sharding
from svlm_jax.data.chunks import Batch
from svlm_jax.errors import ConfigError, DataError, TrainError
from svlm_jax.models.flat_params import Flat
from svlm_jax.train.checkpoints import Checkpoints
from svlm_jax.train.metrics import Record, Reports
from svlm_jax.train.preemption import Preemption
from svlm_jax.train.state import TrainState
from svlm_jax.train.step import Step

logger = logging.getLogger(__name__)

Outcome = Literal["finished", "preempted"]
LossNorm = Literal["token", "per_rank"]
EMPTY = 8  # steps in a row without anything to learn, after which something must be wrong with the data
LEAST = {
    "max_skipped": 1,
    "steps": 0,
    "epochs": 0,
    "accumulate": 1,
    "eval_every": 0,
    "eval_batches": 0,
    "save_every": 0,
    "keep": 1,
}


class Data(Protocol):
    """This process's rows of one global micro-batch after the other; `svlm_jax.data.pipeline.Pipeline` is one."""

    def __next__(self) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long a run is, and how often it stops to look and to save.

    Attributes:
      steps: optimizer steps; 0: as many as `epochs` over the data are.
      accumulate: micro-batches of one step.
      loss_norm: "token": the mean over all learned tokens of a step. "per_rank": as published, where each GPU has one row of
        every micro-batch: the mean over its tokens of a step for each row, then the mean over rows. The micro-batches of a step
        are in memory at once then, and the metric `tokens` counts rows.
      eval_every, save_every: in steps; 0: at the end only. eval_batches: micro-batches of an evaluation, always the same.
      keep: checkpoints that stay.
      max_skipped: steps in a row whose loss or gradient is not finite, which are skipped; one more ends the run.
    """

    steps: int = 0
    epochs: float = 1.0
    accumulate: int = 1
    loss_norm: LossNorm = "token"
    eval_every: int = 100
    eval_batches: int = 8
    save_every: int = 20
    keep: int = 3
    max_skipped: int = 8

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"loop.{name} is {getattr(self, name)}, expected at least {least}.")
        if self.loss_norm not in get_args(LossNorm):
            raise ConfigError(f"loop.loss_norm is {self.loss_norm!r}, expected one of {', '.join(get_args(LossNorm))}.")


class Loop:
    """One run over compiled programs.

    Args:
      step: compiled for every shape that the data may have, and for evaluation if there is any.
      rate: learning rate of the step after so many. flops: operations of a micro-batch; None: not counted.
      peak: operations a second of all devices together.
    """

    def __init__(
        self,
        config: LoopConfig,
        step: Step,
        data: Data,
        checkpoints: Checkpoints,
        reports: Reports,
        *,
        rate: Callable[[int], Any],
        evaluation: Data | None = None,
        flops: Callable[[Batch], float] | None = None,
        peak: float | None = None,
    ) -> None:
        self.config, self.step, self.data, self.checkpoints, self.reports = config, step, data, checkpoints, reports
        self._rate, self._evaluation, self._flops, self._peak = rate, evaluation, flops, peak
        self._first = None if evaluation is None else evaluation.state()
        self._newest: Batch | None = None  # micro-batch, on the devices

    def run(self, state: TrainState, frozen: Flat) -> tuple[TrainState, Outcome]:
        """From `state` (donated) to the last step, or to a preemption; a checkpoint of where it ends is complete then.

        Raises DataError when the samples of many steps in a row cannot be read, and TrainError when the loss of many steps in a
        row is not finite. Weights that do not give a finite loss are never saved.
        """
        done, empty, skipped = int(state.step), 0, 0
        saved = done
        outcome: Outcome = "finished"
        with Preemption(self.step.mesh) as preemption:
            while done < self.config.steps and outcome == "finished":
                where = self.data.state()
                state, record = self._one(state, frozen, done, preemption)
                last = False
                if record is None:
                    outcome = "preempted"
                else:
                    done, where = done + 1, self.data.state()
                    # The same in every process, so that all of them end here.
                    empty = 0 if record["tokens"] else empty + 1
                    if empty == EMPTY:
                        raise self._nothing_to_learn()
                    skipped = skipped + 1 if record["skipped"] else 0
                    if skipped > self.config.max_skipped:
                        raise self._lost(done, skipped)
                    last = done == self.config.steps
                    if self._evaluation is not None and (last or _due(done, self.config.eval_every)):
                        record |= self.evaluate(state, frozen)
                    self.reports.write(done, self.config.steps, record)
                    if preemption.asked() and not last:
                        outcome = "preempted"
                if done > saved and (last or outcome == "preempted" or _due(done, self.config.save_every)):
                    if not self._sound(state, frozen):
                        if last:
                            raise self._lost(done, skipped)
                        continue
                    self.checkpoints.save(done, state, where)
                    saved = done
            self.checkpoints.wait()  # a second SIGTERM must not end it
        return state, outcome

    def evaluate(self, state: TrainState, frozen: Flat) -> Record:
        """Cross-entropy and accuracy over the first batches of the evaluation data, weighted by token."""
        assert self._evaluation is not None and self._first is not None
        self._evaluation.restore(self._first)
        totals = None
        for _ in range(self.config.eval_batches):
            batch = sharding.place_batch(next(self._evaluation), self.step.mesh)
            found = self.step.evaluate(state, frozen, batch)
            totals = found if totals is None else totals + found
        if totals is None:
            return {}
        loss, tokens, correct = (float(value) for value in totals)
        return {"eval_loss": loss / max(tokens, 1), "eval_accuracy": correct / max(tokens, 1)}

    def _one(self, state: TrainState, frozen: Flat, done: int, preemption: Preemption) -> tuple[TrainState, Record | None]:
        """The step after `done` others. When the machine is wanted back in the middle of it: (the state as it was, None).

        A published step takes minutes, longer than schedulers wait; what it has added up is dropped.
        """
        begin, waited, tokens, flops = time.perf_counter(), 0.0, 0, 0.0
        sums = self.step.zeros()
        for number, (batch, wait) in enumerate(self._batches(), 1):
            before = sums.totals
            sums = self.step.accumulate(state, frozen, sums, batch)
            # At most two micro-batches are under way, so that their frames do not pile up on the devices.
            jax.block_until_ready(before)
            self._newest = batch
            waited += wait
            tokens += batch.tokens.size
            flops += self._flops(batch) if self._flops else 0.0
            if number < self.config.accumulate and preemption.asked():
                return state, None
        rate = float(self._rate(int(state.step)))
        state, metrics = self.step.apply(state, sums)
        record = {name: float(value) for name, value in metrics.items()}
        seconds = time.perf_counter() - begin
        record |= {"learning_rate": rate, "seconds": seconds, "tokens_per_second": tokens / seconds}
        record["data_wait"] = waited / seconds
        if self._peak and flops:
            record["mfu"] = flops / seconds / self._peak
        broken = getattr(self.data, "broken", ())
        return state, record | ({"broken_samples": float(len(broken))} if len(broken) else {})

    def _sound(self, state: TrainState, frozen: Flat) -> bool:
        """Whether the weights give a finite loss on the newest micro-batch: a step can be finite and still ruin them."""
        if self._newest is None:
            return True
        sums = self.step.accumulate(state, frozen, self.step.zeros(), self._newest)
        return bool(np.isfinite(np.asarray(sums.totals)).all())

    def _lost(self, done: int, skipped: int) -> TrainError:
        newest = self.checkpoints.latest
        kept = "no checkpoint is saved" if newest is None else f"the newest checkpoint, of step {newest:,}, is good"
        steps = f"of the last {skipped} steps " if skipped else ""
        return TrainError(
            f"the loss {steps}is not finite at step {done:,}; {kept}. Expected a lower learning rate, or gradients clipped by "
            f"optimizer.clip_norm."
        )

    def _nothing_to_learn(self) -> DataError:
        broken = getattr(self.data, "broken", None)
        example = f": {broken.sentences()[-1]}" if broken else "."
        return DataError(f"the samples of the last {EMPTY} steps cannot be read, or hold nothing to learn{example}")

    def _batches(self) -> Iterator[tuple[Batch, float]]:
        """The micro-batches of a step, on the devices, and how long each kept the run waiting, in seconds."""
        read = self._read()
        if self.config.loss_norm == "per_rank":
            batches, waits = zip(*read, strict=True)
            read = zip(per_rank(batches), waits, strict=True)
        for batch, wait in read:
            yield sharding.place_batch(batch, self.step.mesh), wait

    def _read(self) -> Iterator[tuple[Batch, float]]:
        for _ in range(self.config.accumulate):
            begin = time.perf_counter()
            batch = next(self.data)
            yield batch, time.perf_counter() - begin


def per_rank(batches: Sequence[Batch]) -> list[Batch]:
    """The micro-batches of a step, weighted so that every row counts the same over all of them, however much it learns.

    The loss that they add up to is then the mean over rows of each row's mean over its tokens (Hugging Face Trainer with
    average_tokens_across_devices off, one sample on each device). Rows that learn nothing do not count.
    """
    tokens = np.sum([np.sum(batch.labels[:, 1:] >= 0, axis=1) * batch.weight for batch in batches], axis=0)
    share = np.divide(1, tokens, out=np.zeros(len(tokens), np.float32), where=tokens > 0, casting="same_kind")
    return [dataclasses.replace(batch, weight=batch.weight * share) for batch in batches]


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
