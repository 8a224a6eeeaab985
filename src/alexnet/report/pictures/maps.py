"""Activations of a layer beside the image, and the patches that excite its channels most.

Shape suffixes: S rows and columns, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from alexnet.report.pictures import COLORS, show_at

TILE = 112
"""Side of a patch in the picture, in pixels."""
LETTERS_AN_INCH = 12.5
"""Letters of a title that fit into an inch."""
OUTSIDE = 222
"""The grey of what lies outside the image."""


def draw_maps(
    view_SSC: NDArray[np.uint8], activation_CHW: NDArray[np.floating[Any]], channels: Sequence[int], *, layer: str
) -> Figure:
    """The image beside the maps of these channels of (C, H, W), each on its own scale; units of a layer without maps
    (H = W = 1) as bars."""
    figure = Figure(figsize=(12, 6.2), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1, 2))
    image = figure.add_subplot(halves[0])
    image.imshow(_rgb(view_SSC))
    image.axis("off")
    image.set_title(f"the {len(view_SSC)} x {len(view_SSC)} pixels that the network sees", fontsize=9)
    total, rows, cols = activation_CHW.shape
    if rows * cols == 1:
        _bars(figure.add_subplot(halves[1]), activation_CHW[:, 0, 0], channels)
        figure.suptitle(f"{layer}: the {len(channels)} largest of {total} units", fontsize=11)
        return figure
    columns = math.ceil(math.sqrt(len(channels) * 1.6))
    grid = halves[1].subgridspec(math.ceil(len(channels) / columns), columns)
    signed = bool(activation_CHW.min() < 0)
    for i, channel in enumerate(channels):
        map_HW = activation_CHW[channel]
        end = float(np.abs(map_HW).max()) or 1.0
        axes = figure.add_subplot(grid[divmod(i, columns)])
        axes.imshow(map_HW, cmap="RdBu_r" if signed else "magma", vmin=-end if signed else 0, vmax=end)
        axes.set_title(f"{channel}: {map_HW.max():.3g}", fontsize=7, pad=2)
        axes.axis("off")
    scale = "blue -, white 0, red +" if signed else "black 0, bright its largest activation"
    figure.suptitle(
        f"{layer}: the {len(channels)} of {total} channels with the largest activations, {rows} x {cols} positions\n"
        f"channel: largest activation; each map on its own scale ({scale})",
        fontsize=11,
    )
    return figure


def _bars(axes: Axes, activation_D: NDArray[np.floating[Any]], units: Sequence[int]) -> None:
    position = np.arange(len(units))
    axes.barh(position, activation_D[list(units)], color=COLORS[0])
    axes.set_yticks(position, [str(unit) for unit in units], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("activation")
    axes.set_ylabel("unit")
    axes.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True, eq=False)
class Tile:
    """One patch: its pixels (H, W, C), and where they lie, (top, left, bottom, right), in the whole square of the receptive
    field."""

    pixels_HWC: NDArray[np.uint8]
    place: tuple[int, int, int, int]
    activation: float


def draw_patches(rows: Sequence[tuple[str, Sequence[Tile]]], field_size: int, *, title: str) -> Figure:
    """A row for each channel, the most exciting patch first, its activation below it. What lies outside the image is
    grey."""
    columns = max(len(tiles) for _, tiles in rows)
    width = 1.0 + columns * 0.95
    lines = textwrap.wrap(title, max(20, int(width * LETTERS_AN_INCH)))
    head = 0.35 + 0.15 * len(lines)
    figure = Figure(figsize=(width, head + 0.1 + len(rows) * 1.1))
    axes = figure.add_axes((1.0 / figure.get_figwidth(), 0, columns * 0.95 / figure.get_figwidth(), 1.0))
    step_x, step_y = TILE + 6, TILE + 24
    for i, (name, tiles) in enumerate(rows):
        axes.text(-8, i * step_y + TILE / 2, name, ha="right", va="center", fontsize=8)
        for j, tile in enumerate(tiles):
            show_at(axes, placed(tile, field_size), j * step_x, i * step_y, TILE, TILE)
            axes.text(
                j * step_x + TILE / 2,
                i * step_y + TILE + 3,
                f"{tile.activation:.3g}",
                ha="center",
                va="top",
                fontsize=7,
            )
    axes.set_xlim(0, columns * step_x)
    axes.set_ylim(len(rows) * step_y, 0)
    axes.axis("off")
    height = figure.get_figheight()
    axes.set_position((1.0 / figure.get_figwidth(), 0.02, columns * 0.95 / figure.get_figwidth(), 1 - head / height))
    figure.suptitle(
        "\n".join(lines), fontsize=9, x=0.1 / figure.get_figwidth(), y=1 - 0.08 / height, ha="left", va="top"
    )
    return figure


def placed(tile: Tile, field_size: int) -> NDArray[np.uint8]:
    """The square of the receptive field at the size of a tile: (TILE, TILE, 3). Small fields are enlarged pixel by pixel."""
    square_SSC = np.full((field_size, field_size, 3), OUTSIDE, dtype=np.uint8)
    top, left, bottom, right = tile.place
    square_SSC[top:bottom, left:right] = _rgb(tile.pixels_HWC)
    method = Image.Resampling.NEAREST if field_size < TILE // 2 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(square_SSC).resize((TILE, TILE), method))


def _rgb(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3), grey as equal channels."""
    return np.broadcast_to(pixels_HWC, (*pixels_HWC.shape[:2], 3))
