"""Parameters of a training run as one flat dict: "decoder.layers.attn.q.weight" -> array, layers stacked on a leading axis.

Flat names are what the table of shardings, the choice of frozen parameters and the checkpoints speak about.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from svlm_jax.models import functional

Flat: TypeAlias = dict[str, Any]

LAYERS, TOWER = "decoder.layers.", "visual."
DOWN, UP = ".lora_down", ".lora_up"  # low-rank adapters (L, in, r) and (L, r, out) beside a weight (L, in, out)


def flatten(params: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested dicts -> {dotted path: leaf}."""
    flat: Flat = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def nest(flat: Mapping[str, Any], prefix: str = "") -> functional.Params:
    """What lies under `prefix`, as nested dicts."""
    tree: functional.Params = {}
    for path, leaf in flat.items():
        if not path.startswith(prefix):
            continue
        *parents, name = path.removeprefix(prefix).split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def from_model(params: functional.Params) -> Flat:
    """The parameters of a model (or their shapes), as a run holds them. Traceable."""
    return flatten(functional.stack_layers(params))


def to_model(flat: Mapping[str, Any]) -> functional.Params:
    """The parameters of a run, as inference and checkpoints for inference hold them. Traceable."""
    return functional.unstack_layers(nest(flat))
