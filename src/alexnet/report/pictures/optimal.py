"""Sheets of the images that units want to see, beside the crops of real images that excite them most, towers side by side.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from alexnet.report.pictures import show_at
from alexnet.report.pictures.maps import LETTERS_AN_INCH, TILE, Tile, placed

STEP = 0.95
"""Inches from a tile to the next."""
NAME = 1.1
"""Inches for the name of a channel."""
GAP = 12
"""Pixels between what a unit wants and what there is."""


class Row(NamedTuple):
    name: str
    wanted: Sequence[Tile]
    """The images that the unit wants."""
    crops: Sequence[Tile]
    """The crops of real images that excite it most."""


def draw_optimal(towers: Sequence[Sequence[Row]], wanted_size: int, crop_size: int, *, title: str) -> Figure:
    """A row for each channel and a block of rows for each tower; activations stand below the tiles. The sizes are the sides of
    the squares that the tiles lie in."""
    columns = max(len(row.wanted) + len(row.crops) for rows in towers for row in rows)
    block = NAME + columns * STEP + GAP / TILE
    width = len(towers) * block
    lines = textwrap.wrap(title, max(20, int(width * LETTERS_AN_INCH)))
    head = 0.3 + 0.16 * len(lines) + (0.2 if len(towers) > 1 else 0)
    height = head + 1.1 * max(map(len, towers)) + 0.1
    figure = Figure(figsize=(width, height))
    step_x, step_y = TILE + 6, TILE + 24
    for number, rows in enumerate(towers):
        left, wide = (number * block + NAME) / width, (block - NAME) / width
        axes = figure.add_axes((left, 0.1 / height, wide, 1 - (head + 0.1) / height))
        if len(towers) > 1:
            axes.set_title(f"tower {number + 1}", fontsize=10, loc="left", pad=4)
        for i, row in enumerate(rows):
            top = i * step_y
            axes.text(-8, top + TILE / 2, textwrap.fill(row.name, 14), ha="right", va="center", fontsize=8)
            for j, tile in enumerate((*row.wanted, *row.crops)):
                x = j * step_x + (GAP if j >= len(row.wanted) else 0)
                size = wanted_size if j < len(row.wanted) else crop_size
                show_at(axes, placed(tile, size), x, top, TILE, TILE)
                axes.text(x + TILE / 2, top + TILE + 3, f"{tile.activation:.3g}", ha="center", va="top", fontsize=7)
        axes.set_xlim(0, columns * step_x + GAP)
        axes.set_ylim(max(map(len, towers)) * step_y, 0)
        axes.axis("off")
    figure.suptitle("\n".join(lines), fontsize=9, x=0.1 / width, y=1 - 0.08 / height, ha="left", va="top")
    return figure
