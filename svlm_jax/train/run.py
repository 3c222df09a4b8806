"""From a configuration to a finished run: model, data, compiled programs, checkpoints and reports put together."""

import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from svlm_jax import sharding
from svlm_jax.checkpoint import hf, peft
from svlm_jax.checkpoint.export import export
from svlm_jax.data.chunks import Batch, ChunkBuilder, blank_sample
from svlm_jax.data.pipeline import Pipeline
from svlm_jax.data.samples import AnnotatedVideos, Samples
from svlm_jax.errors import ConfigError, OutputError
from svlm_jax.host.folders import alone
from svlm_jax.models import flat_params, registry
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.flat_params import Flat
from svlm_jax.models.presets import PRESETS, preset
from svlm_jax.prompt.tokenizer import Tokenizer
from svlm_jax.synthetic.facts_samples import FactSamples
from svlm_jax.synthetic.samples import MatchSamples
from svlm_jax.train import flops
from svlm_jax.train.checkpoints import Checkpoints, Identity, checksum, newest_step
from svlm_jax.train.config import AnnotationSet, DataConfig, FactSet, ModelSource, TrainConfig
from svlm_jax.train.loop import Loop, Outcome
from svlm_jax.train.metrics import JsonLines, Reports, TensorBoard, WeightsAndBiases, Writer
from svlm_jax.train.optimizer import make_optimizer, schedule
from svlm_jax.train.state import TrainState, init_flat, init_state, merged, place_flat
from svlm_jax.train.step import Step

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


def run(config: TrainConfig, say: Say = logger.info) -> Outcome:
    """Trains, from the newest checkpoint of the run if there is one, until the last step or a preemption.

    Every process of a distributed run calls it. `say` gets lines for people, in the first process only.
    """
    if jax.process_index():
        say = logger.debug
    config.make_home()
    with _alone(config.home):
        return _run(config, say)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """The folder belongs to this run, whose first process holds the lock. OutputError, in all, when another run does."""
    with contextlib.ExitStack() as held:
        refused: OutputError | None = None
        if jax.process_index() == 0:
            try:
                held.enter_context(alone(home, wait=False))
            except OutputError as error:
                refused = error
        free = refused is None
        if jax.process_count() > 1:
            free = bool(multihost_utils.broadcast_one_to_all(np.array(free)))
        if not free:
            raise refused or OutputError(f"{home} is in use: another process writes there; expected a folder of its own.")
        yield


def _run(config: TrainConfig, say: Say) -> Outcome:
    source = Source.of(config.model)
    data_sets = sets(config.data, source)
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=steps(config, data_sets)))
    mesh = sharding.make_mesh(config.mesh)
    optimizer = make_optimizer(config.optimizer, config.loop.steps)
    step = Step(source.config, config.compute, config.partition, optimizer, mesh)
    devices = "1 device" if mesh.size == 1 else f"{mesh.size} devices"
    say(f"{config.name}: {config.loop.steps:,} steps on {devices} ({config.mesh.text}); {config.home}")
    finished = newest_step(config.home / "checkpoints") == config.loop.steps
    if not finished:  # else there is nothing left to run
        compile_all(config, step, say)
    with contextlib.ExitStack() as open_things:
        state, frozen = init_state(
            source.flat(mesh, config.seed),
            config.partition,
            optimizer,
            mesh,
            seed=config.seed,
            frozen_dtype=config.compute.dtype,
        )
        identity = Identity(source.config, checksum(frozen), dataclasses.asdict(config))
        checkpoints = open_things.enter_context(
            contextlib.closing(Checkpoints(config.home / "checkpoints", identity, keep=config.loop.keep))
        )
        data = open_things.enter_context(pipeline(config.data, data_sets, mesh))
        evaluation = None
        if config.evaluation is not None:
            evaluation = open_things.enter_context(pipeline(config.evaluation, sets(config.evaluation, source), mesh))
        if checkpoints.latest is not None:
            jax.tree.map(lambda leaf: leaf.delete(), state)  # before another as large comes
            state, where = checkpoints.restore(step.state)
            data.restore(where)
            say(f"goes on after step {int(state.step):,}")
            if finished and int(state.step) < config.loop.steps:  # the newest one could not be read
                compile_all(config, step, say)
        reports = open_things.enter_context(contextlib.closing(_reports(config, int(state.step), say)))
        loop = Loop(
            config.loop,
            step,
            data,
            checkpoints,
            reports,
            rate=schedule(config.optimizer, config.loop.steps),
            evaluation=evaluation,
            flops=_counted(source.config, config),
            peak=_peak(mesh),
        )
        _, outcome = loop.run(state, frozen)
    return outcome


def export_run(config: TrainConfig, folder: str | Path) -> int:
    """Writes the newest checkpoint of a run as a new Hugging Face folder in float32, adapters merged; returns its step."""
    source, state, frozen = _newest(config)
    # The frozen weights as they were loaded, not as they were rounded for the run.
    whole = jax.jit(functools.partial(merged, lora=config.partition.lora))(state.params, frozen)
    params = jax.tree.map(np.asarray, flat_params.to_model(jax.device_get(whole)))
    export(folder, source.config, params, tokenizer_from=source.folder)
    return int(state.step)


def export_adapter(config: TrainConfig, folder: str | Path) -> int:
    """Writes the adapters of a run's newest checkpoint alone, as a new folder of peft's; returns its step."""
    lora = config.partition.lora
    if not lora.rank:
        raise ConfigError(f"the run {config.name} trains whole weights (lora.rank is 0), expected one with adapters.")
    source, state, _ = _newest(config)
    adapters = {path: np.asarray(leaf) for path, leaf in jax.device_get(state.params).items()}
    peft.save(folder, source.config, adapters, alpha=lora.alpha, base=config.model.checkpoint)
    return int(state.step)


def _newest(config: TrainConfig) -> tuple["Source", TrainState, Flat]:
    """A run's model, the state of its newest checkpoint, and its frozen weights in float32."""
    source = Source.of(config.model)
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=max(config.loop.steps, 1)))
    mesh = sharding.make_mesh(config.mesh)
    optimizer = make_optimizer(config.optimizer, config.loop.steps)
    step = Step(source.config, config.compute, config.partition, optimizer, mesh)
    _, frozen = config.partition.split(source.flat(mesh, config.seed))
    dtype = config.compute.dtype
    identity = Identity(source.config, checksum({path: leaf.astype(dtype) for path, leaf in frozen.items()}), {})
    with contextlib.closing(Checkpoints(config.home / "checkpoints", identity, keep=config.loop.keep)) as checkpoints:
        state, _ = checkpoints.restore(step.state)
    return source, state, frozen


@dataclasses.dataclass(frozen=True)
class Source:
    """A model before its weights are loaded. `folder` holds its tokenizer; `checkpoint` its weights, if it has any."""

    config: ModelConfig
    folder: Path
    checkpoint: Path | None

    @classmethod
    def of(cls, source: ModelSource) -> "Source":
        if source.architecture is not None:
            return cls(source.architecture, Path(source.tokenizer or ".").expanduser(), None)
        folder = hf.resolve(source.checkpoint or "")
        return cls(registry.config_from_hf(folder), folder, folder)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.folder / "tokenizer.json")

    def flat(self, mesh: Mesh, seed: int) -> Flat:
        """The weights, float32, where the mesh wants them; each device reads its own part."""
        if self.checkpoint is None:
            return init_flat(self.config, mesh, seed)

        def where(path: tuple[str, ...], shape: tuple[int, ...]) -> jax.sharding.Sharding:
            layer = path[:2] == ("decoder", "layers")
            name = ".".join((*path[:2], *path[3:]) if layer else path)
            cut = sharding.sharding(name, (1, *shape) if layer else shape, mesh)
            return jax.sharding.NamedSharding(mesh, sharding.P(*cut.spec[1:])) if layer else cut

        return place_flat(hf.load(self.checkpoint, sharding=where).params, mesh)


def model_config(source: ModelSource) -> ModelConfig:
    """The architecture alone; that of a released model needs no download."""
    name = (source.checkpoint or "").rsplit("/", 1)[-1].lower().removesuffix("-instruct")
    return preset(name) if name in PRESETS else Source.of(source).config


def sets(config: DataConfig, source: Source) -> list[tuple[Samples, float]]:
    """The sets of samples, with their weights."""
    build = ChunkBuilder(source.tokenizer.encode, source.config, config.chunks)
    found: list[tuple[Samples, float]] = []
    for one in config.sets:
        if isinstance(one, AnnotationSet):
            samples: Samples = AnnotatedVideos(one.path, build, folder=one.folder, resize=config.resize)
        elif isinstance(one, FactSet):
            samples = FactSamples(source.tokenizer.encode, source.config, seed=one.seed, count=one.count, settings=one.settings)
        else:
            size = {} if one.size is None else {"size": one.size}
            samples = MatchSamples(build, seed=one.seed, count=one.count, settings=one.settings, **size)
        found.append((samples, one.weight))
    return found


def pipeline(config: DataConfig, of: Sequence[tuple[Samples, float]], mesh: Mesh) -> Pipeline:
    """This process's rows of every global batch."""
    host, hosts = sharding.readers(mesh)
    return Pipeline(of, config.pipeline, host=host, hosts=hosts)


def steps(config: TrainConfig, of: Sequence[tuple[Samples, float]]) -> int:
    """Optimizer steps of the run: as set, or as many as its epochs are (a set of weight 2 counts twice)."""
    if config.loop.steps:
        return config.loop.steps
    samples = config.loop.epochs * sum(len(samples) * weight for samples, weight in of)
    return max(1, math.ceil(samples / (config.data.pipeline.batch * config.loop.accumulate)))


def batch_shapes(config: DataConfig) -> list[Batch]:
    """Shapes of global batches, one for each bucket."""

    def shapes() -> Iterator[Batch]:
        for bucket in config.pipeline.buckets:
            sample = blank_sample(bucket, config.chunks.frames)
            rows = config.pipeline.batch
            yield jax.tree.map(lambda leaf, rows=rows: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), sample)

    return list(shapes())


def compile_all(config: TrainConfig, step: Step, say: Say) -> None:
    """Every shape that the run can meet, before it begins: nothing is compiled later."""
    for evaluate, data in ((False, config.data), (True, config.evaluation)):
        for shapes in batch_shapes(data) if data is not None else ():
            begin = time.perf_counter()
            step.compile(shapes, evaluate=evaluate)
            rows, tokens = shapes.tokens.shape
            what = "evaluation" if evaluate else "step"
            say(f"compiled the {what} for {rows} x {tokens:,} tokens in {time.perf_counter() - begin:.0f} s")


def _reports(config: TrainConfig, done: int, say: Say) -> Reports:
    if jax.process_index():
        return Reports()
    first = done + 1
    writers: list[Writer] = [JsonLines(config.home / "metrics.jsonl", first), TensorBoard(config.home / "tensorboard", first)]
    if config.wandb is not None:
        writers.append(WeightsAndBiases(config.wandb, config.name, dataclasses.asdict(config)))
    return Reports(writers, say)


def _counted(model: ModelConfig, config: TrainConfig) -> Callable[[Batch], float]:
    counts: dict[tuple[int, ...], float] = {}

    def count(batch: Batch) -> float:
        shape = (*batch.tokens.shape, *batch.frames.shape)
        if shape not in counts:
            counts[shape] = flops.count(model, config.partition, batch)
        return counts[shape]

    return count


def _peak(mesh: Mesh) -> float | None:
    one = flops.peak(mesh.devices.flat[0])
    return None if one is None else one * mesh.size
