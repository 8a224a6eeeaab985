"""Queries and the images nearest to them (the right half of Figure 4), and what the neighbors' majority gets wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet.report.lettering import shortened
from alexnet.report.pictures import COLORS

TILE = 1.02
"""Side of a picture, in inches."""
CAPTION = 0.26
TITLE = 0.45
GAP = 0.22
LETTERS = 13
"""Letters of a caption that fit below a picture."""
RIGHT, WRONG = COLORS[2], COLORS[1]


@dataclass(frozen=True)
class Tile:
    """A picture and what stands below it."""

    pixels_HWC: NDArray[np.uint8] | None
    """The picture; None if it could not be read."""
    caption: str
    is_right: bool | None = None
    """Whether the frame has the color for right or for wrong; None: no frame."""


def draw_neighbors(
    rows: Sequence[tuple[Tile, Sequence[Sequence[Tile]]]], titles: Sequence[str], *, legend: bool
) -> Figure:
    """A row for each query: its picture, then one block of pictures for each of ``titles``. ``legend`` explains the frames."""
    widths = [1] + [max((len(blocks[b]) for _, blocks in rows), default=0) for b in range(len(titles))]
    offsets = [TILE * sum(widths[:i]) + GAP * i for i in range(len(widths))]
    width = TILE * sum(widths) + GAP * len(widths)
    step, foot = TILE + CAPTION, 0.3 if legend else 0.0
    height = TITLE + step * len(rows) + foot
    figure = Figure(figsize=(width, height))

    def write(x: float, y: float, text: str, **options: Any) -> None:
        figure.text((x + GAP / 2) / width, y / height, text, parse_math=False, **options)

    def place(tile: Tile, x: float, top: float) -> None:
        side = TILE - 0.08
        axes = figure.add_axes(
            ((x + GAP / 2 + 0.04) / width, (height - top - side) / height, side / width, side / height)
        )
        _show(axes, tile)
        write(
            x + TILE / 2,
            height - top - side - 0.04,
            shortened(tile.caption, LETTERS),
            ha="center",
            va="top",
            fontsize=9.5,
        )

    for offset, title in zip(offsets, ["query", *titles], strict=True):
        write(offset + 0.04, height - TITLE + 0.12, title, ha="left", va="bottom", fontsize=10)
    for r, (query, blocks) in enumerate(rows):
        top = TITLE + r * step
        place(query, offsets[0], top)
        for offset, block in zip(offsets[1:], blocks, strict=True):
            for c, tile in enumerate(block):
                place(tile, offset + c * TILE, top)
    if legend:
        write(0.04, 0.1, "frame: the class of the query", color=RIGHT, fontsize=9.5, va="bottom")
        write(2.1, 0.1, "another class", color=WRONG, fontsize=9.5, va="bottom")
    return figure


def draw_errors(body: Mapping[str, Any], n: int) -> Figure:
    """The k-nearest-neighbor errors of the probe ``neighbors`` on ``n`` images, a bar for each space and k."""
    knn: Mapping[str, Sequence[Mapping[str, Any]]] = body["knn"]
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    ks = [row["k"] for row in next(iter(knn.values()))]
    bar_width = 0.8 / len(knn)
    for s, (space, rows) in enumerate(knn.items()):
        x = np.arange(len(ks)) + (s - (len(knn) - 1) / 2) * bar_width
        bars = axes.bar(x, [100 * row["error"] for row in rows], bar_width * 0.92, color=COLORS[s], label=space)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=1)
    axes.set_xticks(range(len(ks)), [str(k) for k in ks])
    axes.set(xlabel="number of neighbors k that vote", ylabel="error, %", ylim=(0, 100))
    axes.set_title(
        f"Nearest neighbors among {body['train_images']:,} training images,\n{n:,} held-out images counted",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(knn), loc="upper left", fontsize=9)
    return figure


def _show(axes: Axes, tile: Tile) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if tile.pixels_HWC is None:
        axes.text(0.5, 0.5, "not readable", ha="center", va="center", fontsize=9.5, transform=axes.transAxes)
    else:
        grey = tile.pixels_HWC.ndim == 2 or tile.pixels_HWC.shape[2] == 1
        pixels = tile.pixels_HWC.reshape(tile.pixels_HWC.shape[:2]) if grey else tile.pixels_HWC
        axes.imshow(pixels, cmap="gray" if grey else None, vmin=0, vmax=255, aspect="auto")
    color = "#B0B0B0" if tile.is_right is None else RIGHT if tile.is_right else WRONG
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=0.6 if tile.is_right is None else 2.2)
