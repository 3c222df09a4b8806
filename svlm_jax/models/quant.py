"""Weights of 8 bits: int8 or float8_e4m3fn numbers with one float32 scale an output, multiplied where they are used.

    weight (in, out)  ~  values (in, out) · scale (out)           see `cache.rounding`
    table (V, D)      ~  values (V, D) · scale (V)                 one scale a token, which is an output of a tied head

A product converts values as it reads them and scales its outputs, so no wider copy of a weight exists. Only the decoder's
matrices and the embeddings are quantised, symmetrically and rounded to the nearest value: norms, biases and the vision tower,
which together are a tenth of a model, stay as they are, and so do mixtures of experts.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from svlm_jax.cache.number_formats import EightBit, is_eight_bit
from svlm_jax.cache.rounding import rounded
from svlm_jax.errors import ConfigError

_MATRICES = re.compile(r"decoder\.(layers\.(\d+\.)?(attn\.(qkv|o)|mlp\.(gate_up|down))|head)\.weight")
_TABLE = "decoder.embed.weight"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantArray:
    """A quantised matrix that stands where its weight stood.

    Attributes:
      values: (in, out), or (V, D) of a table of embeddings.
      scale: float32, (out,) or (V,).
      like: an empty array of the dtype that the weight had, in which products are returned.
    """

    values: jax.Array
    scale: jax.Array
    like: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of what is computed with it."""
        return self.like.dtype

    def __getitem__(self, index: Any) -> Any:
        """Itself for `...`; rows of a table of embeddings for token ids."""
        if index is Ellipsis:
            return self
        rows = self.values[index].astype(jnp.float32) * self.scale[index][..., None]
        return rows.astype(self.dtype)


def kind(path: str) -> Literal["matrix", "table"] | None:
    """Which scales the parameter at a dotted path gets; None: it stays as it is."""
    if path == _TABLE:
        return "table"
    return "matrix" if _MATRICES.fullmatch(path) else None


def quantize(weight: jax.Array, scheme: EightBit, of: Literal["matrix", "table"]) -> QuantArray:
    """The nearest quantised weight. Traceable. A column of zeros has scale 0."""
    check_scheme(scheme)
    values, scale = rounded(weight, scheme, 0 if of == "matrix" else 1)
    return QuantArray(values, scale, jnp.zeros(0, weight.dtype))


def check_scheme(name: str | None) -> None:
    """ConfigError for weights that cannot be; None is those of the checkpoint."""
    if name is not None and not is_eight_bit(name):
        raise ConfigError(f"quantize={name!r}: expected one of {', '.join(get_args(EightBit))}")


def quantize_params(params: Mapping[str, Any], scheme: EightBit, prefix: str = "") -> dict[str, Any]:
    """The parameters of a model with its matrices quantised. Traceable."""

    def leaf(path: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return quantize_params(value, scheme, f"{path}.")
        of = kind(path)
        return value if of is None else quantize(value, scheme, of)

    return {name: leaf(f"{prefix}{name}", value) for name, value in params.items()}
