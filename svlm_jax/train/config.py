"""What a run is, as frozen dataclasses: made by the `get_config()` of a file in configs/, changed by `name=value`."""

import ast
import dataclasses
import difflib
import importlib.util
import itertools
import re
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from svlm_jax.data.chunks import ChunkSettings
from svlm_jax.data.pipeline import PipelineSettings
from svlm_jax.errors import ConfigError
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.resize_rule import ResizeRule
from svlm_jax.sharding import MeshConfig
from svlm_jax.synthetic.facts_samples import FactSettings
from svlm_jax.synthetic.samples import MatchSettings
from svlm_jax.train.forward import Compute
from svlm_jax.train.loop import LoopConfig
from svlm_jax.train.optimizer import OptimizerConfig
from svlm_jax.train.state import Partition

T = TypeVar("T")
# Where the configurations of this package lie: in it where it is installed, beside it in a checkout.
SHIPPED = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
_COUNT = itertools.count()


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where the weights come from: a checkpoint (folder or hub id), or an architecture with random weights and a tokenizer.

    Attributes:
      architecture: of a model trained from scratch; `tokenizer` is a folder with its tokenizer.json then.
    """

    checkpoint: str | None = None
    architecture: ModelConfig | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.architecture is None):
            raise ConfigError("a model needs either a checkpoint or an architecture to train from scratch, and not both.")
        if self.architecture is not None and self.tokenizer is None:
            raise ConfigError("a model trained from scratch needs a tokenizer: the folder of a tokenizer.json.")


@dataclasses.dataclass(frozen=True)
class AnnotationSet:
    """A file of annotations, and the folder that its videos are relative to (default: that of the file)."""

    path: str
    folder: str | None = None
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class MatchSet:
    """`count` chunks of synthetic matches; frames of `size` (height, width) pixels."""

    seed: int = 0
    count: int = 1_000_000
    size: tuple[int, int] | None = None
    settings: MatchSettings = dataclasses.field(default_factory=MatchSettings)
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class FactSet:
    """`count` clips of synthetic facts, each with questions about it."""

    seed: int = 0
    count: int = 1_000_000
    settings: FactSettings = dataclasses.field(default_factory=FactSettings)
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on, or evaluated on, and in which shapes.

    resize: of frames of videos; None: as the model's family says.
    """

    sets: tuple[AnnotationSet | MatchSet | FactSet, ...]
    pipeline: PipelineSettings
    chunks: ChunkSettings = dataclasses.field(default_factory=ChunkSettings)
    resize: ResizeRule | None = None


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
      name: of its folder under `folder`, which holds checkpoints and metrics.
      wandb: project of Weights & Biases; None: not used.
      seed: of random weights and adapters.
    """

    name: str
    model: ModelSource
    data: DataConfig
    evaluation: DataConfig | None = None
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    compute: Compute = dataclasses.field(default_factory=Compute)
    partition: Partition = dataclasses.field(default_factory=Partition)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    folder: str = "runs"
    wandb: str | None = None
    seed: int = 0

    @property
    def home(self) -> Path:
        """The folder of this run."""
        return Path(self.folder).expanduser() / self.name

    def make_home(self) -> None:
        """Makes the folder of this run, if it is not there; ConfigError when it cannot be."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the run's folder {self.home} cannot be made: {error.strerror}.") from error


def load_config(path: str | Path, changes: Iterable[str] = ()) -> TrainConfig:
    """What `get_config()` of a Python file returns, with changes such as "optimizer.learning_rate=3e-5".

    path: of the file, or the name of one that comes with this package, such as "sft_stage1". A file may import those beside it
    (`from . import other`), wherever it lies. ConfigError for a file without get_config, for fields that do not exist and for
    values of the wrong type.
    """
    path = find_config(path)
    try:
        get_config = _module(path).get("get_config")
        config = get_config() if get_config is not None else None
    except (SyntaxError, ImportError, NameError) as error:
        raise ConfigError(f"{path} does not run: {type(error).__name__}: {error}.") from error
    except TypeError as error:
        found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if found is None:
            raise
        raise ConfigError(f"{path} gives {found[1]} a field {found[2]}, which it does not have.") from error
    if get_config is None:
        raise ConfigError(f"{path} has no function get_config(), expected one that returns a TrainConfig.")
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"get_config() of {path} returns a {type(config).__name__}, expected a TrainConfig.")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"{change!r} is no change of a field, expected name=value.")
        config = _changed(config, name.strip(), name.strip().split("."), text.strip())
    return config


def find_config(name: str | Path) -> Path:
    """The file of that path, or the one of that name that comes with this package; ConfigError when there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.parent in (Path(), Path("configs")):
        for folder in SHIPPED:
            if (folder / path.name).with_suffix(".py").is_file():
                return (folder / path.name).with_suffix(".py")
    known = sorted({file.stem for folder in SHIPPED for file in folder.glob("*.py") if "def get_config" in file.read_text()})
    raise ConfigError(f"there is no configuration {name}: expected a Python file, or one of {', '.join(known)}.")


def _module(path: Path) -> dict[str, Any]:
    """The names in a Python file, run as a part of a package of its own that holds the files beside it."""
    package = types.ModuleType(f"svlm_config_{next(_COUNT)}")
    package.__path__ = [str(path.parent)]
    sys.modules[package.__name__] = package
    try:
        name = f"{package.__name__}.{path.stem if path.stem.isidentifier() else 'config'}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{path} is no Python file, expected one with get_config().")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return vars(module)
    finally:  # read again, it runs again
        for name in [name for name in sys.modules if name.split(".")[0] == package.__name__]:
            del sys.modules[name]


def _changed(value: T, name: str, path: list[str], text: str) -> T:
    """`value`, a dataclass, with the field at `path` read from text."""
    fields = {field.name for field in dataclasses.fields(value)}  # type: ignore[arg-type]
    if path[0] not in fields:
        near = difflib.get_close_matches(path[0], fields, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(fields))}."
        raise ConfigError(f"{name} is no field: {type(value).__name__} has no {path[0]}; {hint}")
    before = getattr(value, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(before):
            raise ConfigError(f"{name} is no field: {'.'.join(name.split('.')[: -len(path) + 1])} has no fields.")
        after: Any = _changed(before, name, path[1:], text)
    else:
        optional = type(None) in get_args(get_type_hints(type(value))[path[0]])
        after = _read(name, text, before, optional=optional)
    return dataclasses.replace(value, **{path[0]: after})  # type: ignore[type-var]


def _read(name: str, text: str, before: Any, *, optional: bool) -> Any:
    """Text as a value of the kind that stood there."""
    try:
        after = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        after = text
    if isinstance(before, float) and isinstance(after, int) and not isinstance(after, bool):
        after = float(after)
    if isinstance(before, tuple) and isinstance(after, list):
        after = tuple(after)
    if after is None and optional:
        return None
    if dataclasses.is_dataclass(before):
        raise ConfigError(f"{name} is a {type(before).__name__}, whose fields are changed one by one.")
    if before is not None and type(after) is not type(before):
        raise ConfigError(f"{name} is {text!r}, expected a value of type {type(before).__name__} such as {before!r}.")
    return after
