"""Weights of 8 bits: int8 or float8_e4m3fn numbers with one float32 scale an output, multiplied where they are used.

    weight (in, out)  ~  values (in, out) · scale (out)           scale = max |weight| of a column / the largest value
    table (V, D)      ~  values (V, D) · scale (V)                 one scale a token, which is an output of a tied head

A product converts values as it reads them and scales its outputs, so no wider copy of a weight exists. Only the decoder's
matrices and the embeddings are quantised, symmetrically and rounded to the nearest value: norms, biases and the vision tower,
which together are a tenth of a model, stay as they are, and so do mixtures of experts.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from svlm_jax.errors import ConfigError

Scheme = Literal["int8", "fp8"]
LARGEST = {"int8": 127.0, "fp8": 448.0}
_DTYPES = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}
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


def quantize(weight: jax.Array, scheme: Scheme, of: Literal["matrix", "table"]) -> QuantArray:
    """The nearest quantised weight. Traceable. A column of zeros has scale 0."""
    if scheme not in LARGEST:
        raise ConfigError(f"quantize={scheme!r}: expected one of {', '.join(LARGEST)}")
    wide = weight.astype(jnp.float32)
    across = 0 if of == "matrix" else 1
    scale = jnp.max(jnp.abs(wide), axis=across) / LARGEST[scheme]
    scaled = wide / jnp.expand_dims(jnp.where(scale == 0, 1, scale), across)
    values = jnp.round(scaled) if scheme == "int8" else scaled
    return QuantArray(values.astype(_DTYPES[scheme]), scale, jnp.zeros(0, weight.dtype))


def quantize_params(params: Mapping[str, Any], scheme: Scheme, prefix: str = "") -> dict[str, Any]:
    """The parameters of a model with its matrices quantised. Traceable."""

    def leaf(path: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return quantize_params(value, scheme, f"{path}.")
        of = kind(path)
        return value if of is None else quantize(value, scheme, of)

    return {name: leaf(f"{prefix}{name}", value) for name, value in params.items()}
