"""Pictures that clients send, decoded within bounds: JPEG, PNG and WebP to RGB arrays."""

import base64
import binascii
import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from svlm_jax.errors import RequestError
from svlm_jax.serving.limits import Limits

FORMATS = ("JPEG", "PNG", "WEBP")


def decode_image(data: bytes, limits: Limits) -> np.ndarray:
    """The first picture in `data`, upright: uint8 RGB (H, W, 3).

    The size is read from the header and checked before anything is decoded. RequestError for what is no picture, is of
    another format, or is larger than the limits.
    """
    if len(data) > limits.frame_bytes:
        raise bad(f"a picture of {len(data):,} bytes: expected at most {limits.frame_bytes:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > limits.frame_pixels:
                    raise bad(f"a picture of {width}x{height} pixels: expected at most {limits.frame_pixels:,} in all")
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except RequestError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise bad("the picture cannot be decoded: expected JPEG, PNG or WebP") from None


def decode_data_url(url: str, limits: Limits) -> np.ndarray:
    """The picture of a `data:image/...;base64,` address, as `decode_image` gives it."""
    head, comma, body = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise bad("image_url: expected data:image/jpeg;base64,... (or png, webp)")
    if len(body) > limits.frame_bytes * 4 // 3 + 4:
        raise bad(f"a picture of about {len(body) * 3 // 4:,} bytes: expected at most {limits.frame_bytes:,}")
    try:
        return decode_image(base64.b64decode(body, validate=True), limits)
    except binascii.Error:
        raise bad("image_url: the part behind the comma is not base64") from None


def encode_thumbnail(frame: np.ndarray, side: int = 160) -> bytes:
    """A small JPEG of a frame, uint8 (3, H, W) or (H, W, 3): evidence beside an answer."""
    picture = frame.transpose(1, 2, 0) if frame.shape[0] == 3 else frame
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def bad(sentence: str) -> RequestError:
    return RequestError("bad_image", sentence, param="image")
