"""Kernels as small pictures, tower below tower (Figure 3).

Shape suffixes: K kernels, C channels, R rows, S columns.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet.report.pictures import show_at

Scale = Literal["each", "common"]
SCALES: dict[Scale, str] = {
    "each": "each kernel has its own scale: mid grey is 0, and its largest weight of either sign is an end of the scale",
    "common": "one scale for all kernels: mid grey is 0, and the largest weight of all is an end of the scale",
}


def shaded(kernels_KCRS: NDArray[np.floating[Any]], scale: Scale = "each") -> NDArray[np.uint8]:
    """Kernels with 1 or 3 channels as pixels, (K, R, S, 3): zero is mid grey, the largest weight, of either sign, is 0 or
    255; of that kernel with ``each``, of all of them with ``common``."""
    kernels_KCRS = kernels_KCRS.astype(np.float64)
    axis = (1, 2, 3) if scale == "each" else (0, 1, 2, 3)
    peak = np.abs(kernels_KCRS).max(axis=axis, keepdims=True)
    shade_KCRS = np.round(127.5 + 127.5 * kernels_KCRS / np.where(peak > 0, peak, 1.0))
    num, _, rows, columns = kernels_KCRS.shape
    return np.broadcast_to(shade_KCRS, (num, 3, rows, columns)).transpose(0, 2, 3, 1).astype(np.uint8)


def columns_of(num: int) -> int:
    """How many kernels stand in a row: at most 16, and so that rows are full, if they can be."""
    return next((c for c in range(16, 7, -1) if num % c == 0), min(num, 16))


def show_tiles(axes: Axes, tiles_KRSC: NDArray[np.uint8], columns: int, gap: int = 1) -> None:
    """Tiles row after row with gaps."""
    num, rows, cols, _ = tiles_KRSC.shape
    for i, tile_RSC in enumerate(tiles_KRSC):
        show_at(axes, tile_RSC, (i % columns) * (cols + gap), (i // columns) * (rows + gap), cols, rows)
    axes.set_xlim(0, columns * (cols + gap) - gap)
    axes.set_ylim(math.ceil(num / columns) * (rows + gap) - gap, 0)


def draw_kernels(
    kernels_KCRS: NDArray[np.floating[Any]], num_towers: int, *, layer: str, how: str, scale: Scale = "each"
) -> Figure:
    """All kernels, (K, C, R, S) in RGB order, one tower below the other, with their numbers at the rows' beginnings."""
    num, _, rows, cols = kernels_KCRS.shape
    towers = np.array_split(shaded(kernels_KCRS, scale), num_towers)
    columns = columns_of(max(map(len, towers)))
    lines = [math.ceil(len(tower) / columns) for tower in towers]
    tile = 9.0 / columns
    heights = [count * tile for count in lines]
    figure = Figure(figsize=(10.0, sum(heights) + 0.35 * num_towers + 0.8))
    below = figure.get_figheight() - 0.65
    first = 0
    for number, (tower_KRSC, height) in enumerate(zip(towers, heights, strict=True), start=1):
        below -= height + 0.3
        axes = figure.add_axes((0.07, below / figure.get_figheight(), 0.9, height / figure.get_figheight()))
        show_tiles(axes, tower_KRSC, columns, max(1, rows // 11))
        name = f"tower {number}: kernels" if num_towers > 1 else "kernels"
        axes.set_title(f"{name} {first} to {first + len(tower_KRSC) - 1}", fontsize=10, loc="left", pad=3)
        _number_rows(axes, first, columns, len(tower_KRSC), rows + max(1, rows // 11))
        first += len(tower_KRSC)
    figure.suptitle(
        f"{layer}: {num} kernels of {rows} x {cols} pixels\n{how}\n{SCALES[scale]}",
        fontsize=10,
        x=0.07,
        y=1 - 0.08 / figure.get_figheight(),
        ha="left",
        va="top",
    )
    return figure


def _number_rows(axes: Axes, first: int, columns: int, num: int, step: int) -> None:
    starts = range(0, num, columns)
    axes.set_yticks(
        [(i + 0.5) * step for i in range(len(starts))], [str(first + start) for start in starts], fontsize=8
    )
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
