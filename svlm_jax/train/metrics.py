"""What a run reports: a line a person can read, JSON lines, TensorBoard, and Weights & Biases for those who want it."""

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from svlm_jax.errors import ConfigError, DataError, OutputError
from svlm_jax.host import schema
from svlm_jax.host.files import Appender, write_text, writing
from svlm_jax.host.json_files import parse
from svlm_jax.host.text_files import read_bytes

logger = logging.getLogger(__name__)

Record = dict[str, float]


class Writer(Protocol):
    """Takes the numbers of a step, once each."""

    def write(self, step: int, record: Record) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a step. Steps from `first` on are taken out first: a resumed run goes through them again."""

    def __init__(self, path: Path, first: int = 1) -> None:
        kept = [line for line in _lines(path) if (step := _step(line)) is not None and step < first]  # others are damaged
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._lines = Appender(path)

    def write(self, step: int, record: Record) -> None:
        self._lines.append({"step": step, **record})

    def close(self) -> None:
        """Nothing is open between two lines."""


class TensorBoard:
    """Event files; steps from `first` on are purged."""

    def __init__(self, folder: Path, first: int = 1) -> None:
        from tensorboardX import SummaryWriter

        self._folder = folder
        with writing(folder):
            self._writer = SummaryWriter(str(folder), purge_step=first)

    def write(self, step: int, record: Record) -> None:
        with writing(self._folder):
            for name, value in record.items():
                if math.isfinite(value):
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        with writing(self._folder):
            self._writer.close()


class WeightsAndBiases:
    """A run of a project there; ConfigError when the package is not installed."""

    def __init__(self, project: str, name: str, config: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(f"the project {project!r} of Weights & Biases is set, but wandb is not installed.") from error
        self._run = wandb.init(project=project, name=name, id=name, resume="allow", config=config)

    def write(self, step: int, record: Record) -> None:
        self._run.log(record, step=step)

    def close(self) -> None:
        self._run.finish()


@dataclasses.dataclass
class Reports:
    """All writers of one process; the others have none."""

    writers: list[Writer] = dataclasses.field(default_factory=list)
    say: Callable[[str], None] | None = None

    def write(self, step: int, steps: int, record: Record) -> None:
        for writer in self.writers:
            writer.write(step, record)
        if self.say is not None:
            self.say(line(step, steps, record))

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def line(step: int, steps: int, record: Record) -> str:
    """'step 12/2,050  loss 1.2345  acc 61.2 %  grad 1.25  lr 9.90e-06  3,741 tok/s  data wait 2 %  3 h 12 min left'."""
    parts = [f"step {step:,}/{steps:,}", f"loss {record['loss']:.4f}", f"acc {100 * record['accuracy']:.1f} %"]
    parts += [
        f"grad {record['grad_norm']:.3g}",
        f"lr {record['learning_rate']:.2e}",
        f"{record['tokens_per_second']:,.0f} tok/s",
    ]
    if "mfu" in record:
        parts.append(f"MFU {100 * record['mfu']:.1f} %")
    parts.append(f"data wait {100 * record['data_wait']:.0f} %")
    if record.get("broken_samples"):
        parts.append(f"{record['broken_samples']:.0f} broken samples")
    if record.get("skipped"):
        parts.append("SKIPPED: not finite")
    if "eval_loss" in record:
        parts.append(f"eval {record['eval_loss']:.4f} (acc {100 * record['eval_accuracy']:.1f} %)")
    parts.append(f"{duration(record['seconds'] * (steps - step))} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """'45 s', '12 min', '3 h 12 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _lines(path: Path) -> list[str]:
    return read_bytes(path, OutputError).decode("utf-8", "replace").split("\n") if path.exists() else []


def _step(text: str) -> int | None:
    """The step of a line; None for one that a killed process left unfinished, or that a disk has damaged."""
    try:
        return schema.Record(parse(text, "a line", DataError), "a line", DataError).get("step", schema.Whole(least=0))
    except DataError:
        return None
