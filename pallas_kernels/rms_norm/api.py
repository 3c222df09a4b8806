"""Root mean square normalisation: the contract and the choice of implementation."""

from jaxtyping import Array, Float

from pallas_kernels.dispatch import Implementation, call


def rms_norm(
    x: Float[Array, "... D"], weight: Float[Array, "D"], *, eps: float, implementation: Implementation = "auto"
) -> Float[Array, "... D"]:
    """x over its root mean square, in float32, rounded to x's dtype, then times the weight (Zhang & Sennrich 2019)."""
    return call("rms_norm", implementation, (x, weight), {"eps": eps})
