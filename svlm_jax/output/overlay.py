"""Words drawn into YUV 4:2:0 pictures, white with a black outline: captions below, answers above, other pixels untouched."""

import functools
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from svlm_jax.output.text import clean_lines

FONTS = ("DejaVuSans.ttf", "Arial.ttf", "Arial Unicode.ttf", "NotoSans-Regular.ttf")  # first found; else PIL's own
LINES = 3  # more words than that are set smaller
BLACK, WHITE, GREY = 16, 235, 128  # luma and neutral chroma of video range

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_caption(picture: np.ndarray, text: str, *, above: bool = False) -> None:
    """Draws the text into a picture in place: uint8 (height * 3 / 2, width), planes as PyAV's yuv420p arrays, sides even.

    above: at the upper edge instead of the lower one.
    """
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    lines = " ".join(clean_lines(text))
    if not lines:
        return
    top, luma, alpha = _band(lines, height, width, above)
    _blend(picture[top : top + luma.shape[0]], luma, alpha)
    # The chroma planes follow one after the other, two of their rows in one row of the array; reshaping gives views.
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    thin = alpha.reshape(alpha.shape[0] // 2, 2, width // 2, 2).mean((1, 3))
    for plane in chroma:
        _blend(plane[top // 2 : top // 2 + thin.shape[0]], np.float32(GREY), thin)


def _blend(pixels: np.ndarray, value: np.ndarray | np.float32, alpha: np.ndarray) -> None:
    pixels[:] = np.rint(pixels * (1 - alpha) + value * alpha)


@functools.lru_cache(maxsize=4)
def _band(text: str, height: int, width: int, above: bool) -> tuple[int, np.ndarray, np.ndarray]:
    """The caption's strip: its first row (even), and float32 luma and opacity (rows, width), rows even."""
    font, lines, size = _layout(text, height, width)
    outline, spacing, margin = max(1, size // 12), max(1, size // 5), max(2, height // 24)
    block = "\n".join(lines)
    canvas = Image.new("LA", (width, height))
    draw = ImageDraw.Draw(canvas)
    place: dict[str, Any] = {"font": font, "spacing": spacing, "stroke_width": outline, "align": "center"}
    left, first, right, last = draw.multiline_textbbox((0, 0), block, **place)
    corner = ((width - left - right) // 2, margin - first if above else height - margin - last)
    draw.multiline_text(corner, block, fill=(255, 255), stroke_fill=(0, 255), **place)
    top = min(max(0, int(corner[1] + first)) // 2 * 2, height - 2)
    bottom = min(-(-int(corner[1] + last + 1) // 2) * 2, height) if above else height
    grey, alpha = np.moveaxis(np.asarray(canvas, np.float32)[top:bottom], -1, 0) / 255
    return top, BLACK + grey * (WHITE - BLACK), alpha


def _layout(text: str, height: int, width: int) -> tuple[Font, list[str], int]:
    """The largest font, from 1/16 to 1/36 of the picture's shorter side, in which the text takes at most LINES lines.

    Of the shorter side, so that a portrait's captions are no larger than those of the same picture on its side.
    """
    side = min(height, width)
    size, least = max(10, side // 16), max(8, side // 36)
    while True:
        font = load_font(size)
        lines = _wrap(text, font, 0.92 * width)
        if len(lines) <= LINES or size <= least:
            return font, lines[-max(1, int(0.8 * height / (1.25 * size))) :], size
        size = max(least, int(0.85 * size))


def _wrap(text: str, font: Font, limit: float) -> list[str]:
    """Lines of at most `limit` pixels, broken between words; a word that is wider itself is broken anywhere."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= limit:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if font.getlength(lines[-1] + letter) > limit and lines[-1]:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]


@functools.lru_cache(maxsize=16)
def load_font(size: int) -> Font:
    """A sans serif font with many scripts, if the system has one."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size=size)
