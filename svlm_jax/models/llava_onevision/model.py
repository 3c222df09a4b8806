"""LLaVA-OneVision (arXiv 2408.03326): SigLIP's tower, a projector, and the decoder of Qwen2 with positions of one axis.

    video   each frame on one tile, 27 x 27 patches pooled to 14 x 14 = 196 tokens; one newline behind the last frame
    image   alone: an overview tile and the tiles of its canvas (`anyres`), a newline behind each row
            one of several: one tile, one newline

All visual tokens are numbered like words: `positions.rope_positions` gives each the next position on all three axes, of
which the decoder reads the first. A stream that is fed clip by clip takes `see` for the frames, and `newline` once where
the video ends, before the question.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from pallas_kernels.dispatch import Implementation
from svlm_jax.errors import ConfigError
from svlm_jax.models.config import ModelConfig
from svlm_jax.models.decoder import Decoder
from svlm_jax.models.layers import Linear, scaled_normal
from svlm_jax.models.llava_onevision.anyres import Size, tiling
from svlm_jax.models.llava_onevision.config import SiglipConfig, tower
from svlm_jax.models.llava_onevision.tower import ACTIVATIONS, SiglipTower, patchify
from svlm_jax.models.vlm import VLM, VisionFeatures


class Projector(nnx.Module):
    """The tower's features -> embeddings of the decoder's width; `newline` is one embedding of its own."""

    def __init__(self, cfg: SiglipConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, bias = cfg.out_hidden_size, cfg.projector_bias
        self.fc1 = Linear(len(cfg.feature_layers) * cfg.hidden_size, width, bias=bias, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(width, width, bias=bias, dtype=dtype, rngs=rngs)
        self.newline = nnx.Param(scaled_normal(rngs.params(), (1, width), width, dtype)[0])
        self.activation = ACTIVATIONS[cfg.projector_act]

    def __call__(self, x: Float[Array, "... features"]) -> Float[Array, "... D"]:
        return self.fc2(self.activation(self.fc1(x)))


class LlavaOnevision(VLM):
    """See the top of this file. Pictures come as uint8 tiles of `cfg.vision.image_size`, see `data.images`."""

    def __init__(self, cfg: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.cfg, self.siglip = cfg, tower(cfg)
        self.visual = SiglipTower(self.siglip, dtype=dtype, rngs=rngs)
        self.projector = Projector(self.siglip, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(cfg.text, dtype=dtype, rngs=rngs)

    def encode_video(
        self, frames: UInt8[Array, "B F 3 height width"], *, implementation: Implementation = "auto"
    ) -> VisionFeatures:
        """One clip a stream -> its features (B, M, D), M = F · 196 in order of frames, each in raster order; no newline.

        Frames are resized to one tile beforehand, else ConfigError.
        """
        batch, count = frames.shape[:2]
        grids = self._features(frames.reshape(-1, *frames.shape[2:]), implementation)
        pooled = _shrink(grids, (self.siglip.pooled_side,) * 2)
        return VisionFeatures(pooled.reshape(batch, count * self.siglip.pooled_side**2, -1))

    def newline(self) -> Float[Array, "1 D"]:
        """The embedding that ends a video, and each row of an image."""
        return self.projector.newline[...][None]

    def video(
        self, frames: UInt8[Array, "F 3 height width"], *, implementation: Implementation = "auto"
    ) -> Float[Array, "M D"]:
        """A whole video: its frames and the newline, M = F · 196 + 1."""
        return jnp.concatenate([self.encode_video(frames[None], implementation=implementation).tokens[0], self.newline()])

    def image(
        self,
        tiles: UInt8[Array, "tiles 3 height width"],
        size: Size | None = None,
        *,
        implementation: Implementation = "auto",
    ) -> Float[Array, "M D"]:
        """One image -> its embeddings.

        Args:
          tiles: the overview, and for a tiled image the tiles of its canvas in raster order.
          size: (height, width) of the picture in pixels before it was tiled, static; None for one tile.

        Raises:
          ConfigError: the tiles are not as many as an image of that size has.
        """
        expected = 1 if size is None else tiling(size, self.siglip).tile_count
        if len(tiles) != expected:
            shape = "one tile" if size is None else f"{size[0]} x {size[1]} pixels"
            raise ConfigError(f"{len(tiles)} tiles are given for an image of {shape}, expected {expected}.")
        grids = self._features(tiles, implementation)
        overview = grids[0].reshape(-1, grids.shape[-1])
        if size is None:
            return jnp.concatenate([overview, self.newline()])
        return jnp.concatenate([overview, self._rows(grids[1:], size)])

    def _rows(self, grids: Float[Array, "tiles side side D"], size: Size) -> Float[Array, "M D"]:
        """The tiles of a canvas joined, its padding cut off, shrunk if it is large, and a newline behind each row."""
        place = tiling(size, self.siglip)
        (down, across), side, width = place.tiles, self.siglip.side, grids.shape[-1]
        canvas = grids.reshape(down, across, side, side, width).swapaxes(1, 2).reshape(down * side, across * side, width)
        (top, bottom), (left, right) = place.crop
        canvas = _shrink(canvas[None, top:bottom, left:right], place.kept)[0]
        ends = jnp.broadcast_to(self.newline(), (len(canvas), 1, width))
        return jnp.concatenate([canvas, ends], 1).reshape(-1, width)

    def _features(
        self, tiles: UInt8[Array, "tiles 3 height width"], implementation: Implementation
    ) -> Float[Array, "tiles side side D"]:
        """Projected features of each tile, as a grid of patches."""
        side = self.siglip.side
        features = self.projector(self.visual(patchify(tiles, self.siglip), implementation))
        return features.reshape(len(tiles), side, side, -1)


def _shrink(grids: Float[Array, "tiles side side D"], size: Size) -> Float[Array, "tiles h w D"]:
    """Bilinear, without antialiasing, in float32; as it is when the size fits."""
    if grids.shape[1:3] == size:
        return grids
    shape = (len(grids), *size, grids.shape[-1])
    wide = jax.image.resize(grids.astype(jnp.float32), shape, "linear", antialias=False, precision=lax.Precision.HIGHEST)
    return wide.astype(grids.dtype)
