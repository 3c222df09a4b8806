"""What lmms-eval 0.7.3 promises a model, and asks of it: the names that our plugin uses, and nothing else.

Tests use the library itself where it is installed.
"""

import abc
import dataclasses
import importlib.util
import sys
import types


class lmms(abc.ABC):
    """As `lmms_eval.api.model.lmms`: `task_dict` holds the documents, by task and split."""

    is_simple = True

    def __init__(self):
        self.task_dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


@dataclasses.dataclass(frozen=True)
class ModelManifest:
    """As `lmms_eval.models.registry_v2.ModelManifest`."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


@dataclasses.dataclass
class Request:
    """As `lmms_eval.api.instance.Instance` of a chat model."""

    args: tuple


def install(patch):
    """Puts the contract in the place of the library, unless that is there."""
    if importlib.util.find_spec("lmms_eval") is not None:
        return
    modules = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        patch.setitem(sys.modules, name, module)
