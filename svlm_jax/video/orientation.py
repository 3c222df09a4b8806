"""Which way up a decoded picture is to be shown: the eight orientations that a display matrix can say."""

import dataclasses
import struct
from typing import cast

import av
import numpy as np

_UNIT = 1 << 16  # the matrix is in fixed point, 16.16


@dataclasses.dataclass(frozen=True)
class Orientation:
    """What brings a picture upright: its axes are exchanged first, if so, then it is mirrored.

    Attributes:
      transposed: rows become columns.
      mirrored: left and right change places.
      flipped: top and bottom change places.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def apply(self, picture: np.ndarray, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
        """A view of the picture, upright; `axes` are those of its height and its width."""
        if self.transposed:
            picture = picture.swapaxes(*axes)
        turned = tuple(axis for axis, wanted in zip(axes, (self.flipped, self.mirrored), strict=True) if wanted)
        return np.flip(picture, turned) if turned else picture

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a picture once it is upright; and, as exchanging twice changes nothing, the way back."""
        return (width, height) if self.transposed else (height, width)


UPRIGHT = Orientation()


def orientation(frame: av.VideoFrame) -> Orientation:
    """The orientation that a frame's display matrix asks for; angles between the quarter turns are rounded to one.

    The matrix (libavutil/display.h) sends the pixel in column p, row q to column a p + c q, row b p + d q.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d, *_ = (value / _UNIT for value in struct.unpack("=9i", bytes(cast(av.buffer.Buffer, data))[:36]))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
