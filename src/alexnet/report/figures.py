"""Pictures for reports: curves as SVG in the page's own colors, kernels and confusion matrices as PNG.

A figure holds no foreign text: names stand in the page, where they are escaped.

Shape suffixes: K kernels, C channels, R rows, S columns.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from alexnet.report.tables import Log, Row, number

# Drawn in these stand-in colors, which the page replaces by its own, light or dark.
_COLORS = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--blue)",
    "#050505": "var(--orange)",
    "#060606": "var(--green)",
}
INK, SOFT, LINE, BLUE, ORANGE, GREEN = _COLORS

MAX_POINTS = 600
"""A longer curve is drawn by means of neighboring points."""


def training_curves(log: Log) -> str:
    """Loss, error, learning rate and speed against epochs, as an ``<svg>`` element. Values that are absent or not finite
    leave a gap. Empty if there is nothing to draw."""
    epochs, steps = log.epochs, {name: np.array(values) for name, values in log.steps.items()}
    at_epochs, at_steps = column(epochs, "epoch"), _epochs_of_steps(steps["step"], epochs)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 4.9), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=[3.2, 1])
        loss, error = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        rate, speed = figure.add_subplot(grid[1, 0], sharex=loss), figure.add_subplot(grid[1, 1], sharex=error)

        drawn = [
            _line(loss, at_steps, steps["loss"], BLUE, alpha=0.35, width=0.9),
            _line(loss, at_epochs, column(epochs, "train_loss"), BLUE, "training", marker="o"),
            _line(loss, at_epochs, column(epochs, "val_loss"), ORANGE, "validation", marker="o"),
            _line(error, at_epochs, 100 * column(epochs, "train_top1_error"), BLUE, "train top-1", marker="o"),
            _line(error, at_epochs, 100 * column(epochs, "val_top1_error"), ORANGE, "val top-1", marker="o"),
            _line(error, at_epochs, 100 * column(epochs, "val_top5_error"), GREEN, "val top-5", marker="o"),
            _line(rate, at_steps, steps["lr"], INK, width=1.2)
            or _line(rate, at_epochs, column(epochs, "lr"), INK, width=1.2),
            _line(speed, at_steps, steps["images_per_second"], INK, width=1.2),
        ]
        if not any(drawn):
            return ""
        _dress(loss, "Loss, nats")
        _dress(error, "Error, %", floor=0)
        _dress(rate, "Learning rate", log=True)
        _dress(speed, "Images a second", floor=0)
        for axes in (rate, speed):
            axes.set_xlabel("epoch")
        return _svg(figure, "Training curves: loss, error, learning rate and speed against epochs")


def column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """One field of the rows, NaN where it is absent or no number."""
    return np.array([number(row.get(name)) for row in rows], dtype=np.float64)


def _epochs_of_steps(step: NDArray[np.float64], epochs: Sequence[Row]) -> NDArray[np.float64]:
    """Where on an axis of epochs the steps stand: finished epoch e ends at e, and later steps go on at its pace. The steps
    themselves while no epoch is finished."""
    ends = {number(row.get("step")): number(row.get("epoch")) for row in epochs}
    pairs = sorted((s, e) for s, e in ends.items() if math.isfinite(s) and math.isfinite(e) and s > 0)
    if not pairs:
        return step
    at_step, at_epoch = np.array([(0.0, 0.0), *pairs]).T
    pace = (at_epoch[-1] - at_epoch[-2]) / (at_step[-1] - at_step[-2])
    beyond = np.maximum(step - at_step[-1], 0) * pace
    return np.asarray(np.interp(step, at_step, at_epoch) + beyond, dtype=np.float64)


_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "alexnet",  # the same run gives the same bytes
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
}


def _line(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    color: str,
    label: str = "",
    *,
    marker: str = "",
    width: float = 1.8,
    alpha: float = 1.0,
) -> bool:
    """Draw a curve, thinned to ``MAX_POINTS``; whether there was any point to draw."""
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return False
    if len(x) > MAX_POINTS:
        parts = np.array_split(np.flatnonzero(finite), min(MAX_POINTS, int(finite.sum())))
        x, y = np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])
    else:
        y = np.where(finite, y, np.nan)
    marker = marker if len(x) <= 40 else ""
    axes.plot(
        x, y, color=color, label=label or "_", marker=marker, markersize=3.5, linewidth=width, alpha=alpha, zorder=3
    )
    return True


def _dress(axes: Axes, title: str, *, floor: float | None = None, log: bool = False) -> None:
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=SOFT)
        return
    lows, highs = zip(*((np.nanmin(line.get_ydata()), np.nanmax(line.get_ydata())) for line in axes.lines), strict=True)
    if log and min(lows) > 0 and max(highs) > 3 * min(lows):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif floor is not None:
        axes.set_ylim(bottom=floor)
    if any(not str(line.get_label()).startswith("_") for line in axes.lines):
        above: Any = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "borderaxespad": 0.0}  # no curve is there
        axes.legend(**above, ncols=3, labelcolor=SOFT, fontsize=9, handlelength=1.4, columnspacing=1.2)


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("xlink:href", "href").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    for stand_in, color in _COLORS.items():
        svg = svg.replace(stand_in, color)
    return svg


def kernel_picture(kernels_KCRS: NDArray[np.float32], num_towers: int = 1) -> str:
    """Kernels (K, C, R, S) with C 1 (grey) or 3 (RGB), at most 16 a row, one tower below the other, as a PNG data URI
    with transparent gaps. Each kernel is scaled on its own: mid grey is zero, and its largest weight, of either sign,
    is black or full color. Weights that are not finite are drawn as zero."""
    num_kernels, channels, rows, cols = kernels_KCRS.shape
    finite_KCRS = np.nan_to_num(kernels_KCRS.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    peak_K111 = np.abs(finite_KCRS).max(axis=(1, 2, 3), keepdims=True)
    shade_KCRS = 127.5 + 127.5 * finite_KCRS / np.where(peak_K111 > 0, peak_K111, 1.0)
    shade_KRSC = (
        np.broadcast_to(shade_KCRS, (num_kernels, 3, rows, cols)).transpose(0, 2, 3, 1)
        if channels == 1
        else (shade_KCRS.transpose(0, 2, 3, 1))
    )
    towers = np.array_split(np.round(shade_KRSC).astype(np.uint8), num_towers)
    longest = max(map(len, towers))
    columns = next((c for c in range(16, 7, -1) if longest % c == 0), min(longest, 16))  # full rows, if there can be
    lines = [math.ceil(len(tower) / columns) for tower in towers]
    gap, tower_gap = 1, max(3, rows // 2)
    width = columns * (cols + gap) - gap
    height = sum(lines) * (rows + gap) - gap * num_towers + tower_gap * (num_towers - 1)
    canvas = np.zeros((height, width, 4), dtype=np.uint8)
    top = 0
    for tower, num_lines in zip(towers, lines, strict=True):
        for i, kernel_RSC in enumerate(tower):
            y, x = top + (i // columns) * (rows + gap), (i % columns) * (cols + gap)
            canvas[y : y + rows, x : x + cols, :3] = kernel_RSC
            canvas[y : y + rows, x : x + cols, 3] = 255
        top += num_lines * (rows + gap) - gap + tower_gap
    return _png(canvas)


def confusion_picture(confusion: Sequence[tuple[int, int, int]], num_classes: int) -> str:
    """Rows: classes; columns: predicted classes; opacity: square root of the share of the row's images. One pixel a
    cell, as a PNG data URI."""
    count = np.zeros((num_classes, num_classes))
    for label, predicted, num in confusion:
        count[label, predicted] += num
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    canvas = np.zeros((num_classes, num_classes, 4), dtype=np.uint8)
    canvas[..., :3] = (214, 96, 30)
    np.einsum("iic->ic", canvas)[:, :3] = (60, 120, 200)  # right answers, on the diagonal, in another color
    canvas[..., 3] = np.round(255 * np.sqrt(share))
    return _png(canvas)


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
