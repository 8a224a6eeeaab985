"""t-SNE maps: points colored by class side by side, and the images themselves, each in a cell of its own.

Shape suffixes: N images, S rows and columns of a thumbnail, C channels, H rows, W columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from alexnet.core.errors import printable
from alexnet.report.lettering import shortened
from alexnet.report.pictures import COLORS, DPI, show_at

CLASS_COLORS = (*COLORS, "#999999", "#882255")
MARKERS = "osD^vP"
LEGEND_CLASSES = 20
"""Most classes with a legend. More cannot be told apart; the picture says so."""
LABEL_CHARACTERS = 28
TURNS = 10
"""A tenth of each class is drawn at a time, so that none covers all others."""
CLUSTER_CHARACTERS = 16
LETTER_WIDTH, LINE_HEIGHT = 0.018, 0.04
"""Width of a letter and height of a line in a cluster's name, as shares of the map."""
MAX_FOR_MIDDLE = 500
"""Most points of a class from which the place of its name is chosen."""
TITLE_LINE, TITLE_LETTER = 30, 15
"""Pixels of a line and of a letter in a title."""
NOBODY = 160
"""The grey of a cell without an image."""
BORDER = 2
"""Pixels of a thumbnail, at each side, in the color of its class."""


def point_maps(document: Mapping[str, Any]) -> Figure:
    """The maps of ``tsne.json``, a panel each. With up to :data:`LEGEND_CLASSES` classes each has a color and marker."""
    maps, points, classes = document["maps"], document["points"], document["classes"]
    label_N = np.array(points["label"])
    present = np.unique(label_N)
    few = len(present) <= LEGEND_CLASSES
    figure = Figure(figsize=(6.2 * len(maps), 7.0), layout="constrained")
    for axes, (name, figures) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        xy_N2 = np.array(points["maps"][name])
        for turn, (place, label) in product(range(TURNS), enumerate(present)):
            own_M2 = xy_N2[label_N == label][turn::TURNS]
            axes.plot(own_M2[:, 0], own_M2[:, 1], **_style(place, 4.0 if len(xy_N2) <= 5000 else 2.0))
        if few:
            _name_clusters(axes, xy_N2, label_N, present, classes)
        axes.set_title(
            f"{_of(name)}\nneighbor purity {figures['neighbor_purity']:.1%} "
            f"(chance {figures['neighbor_purity_chance']:.1%}), silhouette {figures['silhouette']:+.3f},\n"
            f"trustworthiness {figures['trustworthiness']:.3f}",
            fontsize=11,
        )
        axes.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        axes.set_aspect("equal", adjustable="datalim")
    title = f"{len(label_N):,} images of {document['data']['split']}, {len(present)} classes"
    figure.suptitle(title if few else f"{title}: too many for a legend, colors repeat", fontsize=12)
    if few:
        handles = [Line2D([], [], **_style(place, 7.0)) for place in range(len(present))]
        names = [" " + shortened(classes[label], LABEL_CHARACTERS) for label in present]
        legend = figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a class may be called $x
    return figure


def _of(name: str) -> str:
    """Which space a map is of, for a title."""
    return "Map by pixels" if name == "pixels" else f"Map by {printable(name)}, what the network has learned"


def _name_clusters(
    axes: Axes, xy_N2: NDArray[np.floating[Any]], label_N: NDArray[np.int64], present: NDArray[np.int64], classes: Any
) -> None:
    """Write the name of each class at that of its points which has the smallest total distance to the others. (A mean could lie
    between two crowds.) Where another name already stands there, the next best point is taken."""
    span = float(np.ptp(xy_N2, axis=0).max()) or 1.0
    taken: list[tuple[float, float, float]] = []
    for place, label in enumerate(present):
        own_M2 = xy_N2[label_N == label][:MAX_FOR_MIDDLE]
        distance_MM = np.linalg.norm(own_M2[:, None] - own_M2[None], axis=-1)
        name = shortened(classes[label], CLUSTER_CHARACTERS)
        half = 0.5 * LETTER_WIDTH * span * max(3, len(name))
        middle_first = own_M2[distance_MM.sum(axis=1).argsort(kind="stable")].tolist()
        x, y = next(
            (
                (x, y)
                for x, y in middle_first
                if all(abs(x - a) > half + b or abs(y - c) > LINE_HEIGHT * span for a, c, b in taken)
            ),
            middle_first[0],
        )
        taken.append((x, y, half))
        axes.annotate(
            name,
            (x, y),
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=_dark(CLASS_COLORS[place % len(CLASS_COLORS)]),
            parse_math=False,
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=5,
        )


def _dark(color: str) -> tuple[float, float, float]:
    """A color that can be read on white."""
    red, green, blue = (0.6 * part for part in to_rgb(color))
    return red, green, blue


def thumbnail_figure(sheet_HWC: NDArray[np.uint8], name: str) -> Figure:
    """The map of thumbnails pixel by pixel, under a title that says which it is."""
    height, width, _ = sheet_HWC.shape
    lines = textwrap.wrap(
        f"{_of(name)}; frames: the colors of the classes in the map of points", max(20, width // TITLE_LETTER)
    )
    whole = height + TITLE_LINE * (len(lines) + 1)
    figure = Figure(figsize=(width / DPI, whole / DPI))
    axes = figure.add_axes((0, 0, 1, height / whole))
    axes.set_axis_off()
    show_at(axes, sheet_HWC, 0, 0, width, height)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    figure.text(0.005, (height + whole) / 2 / whole, "\n".join(lines), va="center", fontsize=11)
    return figure


def thumbnail_map(
    thumbnails_NSSC: NDArray[np.uint8], cell_N: NDArray[np.int64], side: int, place_N: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Thumbnails in the cells of a ``side`` x ``side`` grid, counted row by row, each framed in the color of its class in the
    point maps, of which ``place_N`` is the place among those present: (H, W, 3) uint8. Two in one cell: :class:`ValueError`."""
    if len(np.unique(cell_N)) < len(cell_N):
        raise ValueError("two thumbnails share a cell")
    size = thumbnails_NSSC.shape[1]
    step = size + 2 * BORDER
    sheet_HWC = np.full((side * step, side * step, 3), NOBODY, dtype=np.uint8)
    for thumbnail_SSC, cell, place in zip(thumbnails_NSSC, cell_N.tolist(), place_N.tolist(), strict=True):
        top, left = cell // side * step, cell % side * step
        color = np.rint(255 * np.array(to_rgb(CLASS_COLORS[place % len(CLASS_COLORS)])))
        sheet_HWC[top : top + step, left : left + step] = color
        sheet_HWC[top + BORDER : top + BORDER + size, left + BORDER : left + BORDER + size] = thumbnail_SSC
    return sheet_HWC


def _style(place: int, size: float) -> dict[str, Any]:
    """Ten colors, and another marker each ten classes and for neighbors in the palette: no two of twenty look the same."""
    tens, color = divmod(place, len(CLASS_COLORS))
    return {
        "linestyle": "none",
        "marker": MARKERS[(color + tens) % len(MARKERS)],
        "color": CLASS_COLORS[color],
        "markersize": size,
        "markeredgecolor": "#333333",
        "markeredgewidth": 0.2,
    }
