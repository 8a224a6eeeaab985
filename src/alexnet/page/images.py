"""Numbers as PNG files, by Pillow alone: the page asks for many, and each must be there at once.

Shape suffixes: C channels, H rows, W columns, N tiles.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

AGAINST, FOR = (0, 114, 178), (213, 94, 0)
"""Okabe and Ito's blue and orange: what speaks against a class, and for it."""
OUTSIDE = 128
"""Grey level of what lies outside a picture."""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Grey (H, W) or (H, W, 1), color (H, W, 3) or color with opacity (H, W, 4) as a PNG file."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def columns_for(num: int) -> int:
    """How many of ``num`` tiles stand in a row of a sheet, so that it is about square."""
    return math.ceil(math.sqrt(num))


def sheet(map_CHW: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """Maps beside and below each other without gaps, :func:`columns_for` in a row, 0 to ``scale`` as 0 to 255; what is
    left of the last row is 0."""
    num, height, width = map_CHW.shape
    columns = columns_for(num)
    rows = math.ceil(num / columns)
    shade_NHW = np.zeros((rows * columns, height, width), np.uint8)
    if scale > 0:
        shade_NHW[:num] = np.clip(map_CHW * (255 / scale) + 0.5, 0, 255)
    tiles = shade_NHW.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
    return tiles.reshape(rows * height, columns * width)


def heat(map_HW: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Color and opacity (H, W, 4) to lay over a picture: orange where a number is above zero and blue where it is below, the
    more opaque the larger it is. One in 200 is larger than what is opaque already, so that a few do not hide the rest."""
    size_HW = np.abs(map_HW.astype(np.float64))
    full = float(np.quantile(size_HW, 0.995)) or float(size_HW.max()) or 1.0
    heat_HW4 = np.empty((*map_HW.shape, 4), np.uint8)
    heat_HW4[..., :3] = np.where(map_HW[..., None] < 0, AGAINST, FOR)
    heat_HW4[..., 3] = np.minimum(size_HW / full, 1.0) * 230
    return heat_HW4


def row_of_squares(
    pieces: Sequence[tuple[NDArray[np.uint8], tuple[int, int, int, int]]], side: int
) -> NDArray[np.uint8]:
    """Pieces of pictures (H, W, C), each at its place (top, left, bottom, right) in a square of ``side`` pixels, one square
    beside the other; the rest of each square is grey."""
    row = np.full((side, side * len(pieces), pieces[0][0].shape[2]), OUTSIDE, np.uint8)
    for i, (pixels_HWC, (top, left, bottom, right)) in enumerate(pieces):
        row[top:bottom, i * side + left : i * side + right] = pixels_HWC
    return row
