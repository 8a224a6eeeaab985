"""Pictures for reports: curves as SVG in the page's own colors, kernels and confusion matrices as PNG.

A figure holds no foreign text: names stand in the page, where they are escaped.

Shape suffixes: K kernels, C channels, R rows, S columns.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from alexnet.report.tables import Log, Row, number

# Drawn in these stand-in colors, which the page replaces by its own, light or dark. Those of lines are told apart by the
# color-blind too (Okabe and Ito); besides, no two lines of a figure have the same dashes or markers.
_COLORS = {
    f"#0{i}0{i}0{i}": f"var(--{name})"
    for i, name in enumerate(("ink", "soft", "line", "blue", "orange", "green", "purple", "gold", "sky"), start=1)
}
INK, SOFT, LINE, BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY = _COLORS
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)

RUN_COLORS = (BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY, INK)
RUN_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)))
RUN_MARKERS = "os^Dv"
"""7 colors, 4 dashes and 5 markers make 140 styles, as these numbers have no common factor."""

DASHED, DOTTED = RUN_DASHES[1:3]
MAX_POINTS = 600
"""Most points of a curve; in a longer one, means of neighboring points are drawn."""
LOWEST_RATE = 1e4
"""A rate this many times lower than the highest is off the axis."""


@dataclass(frozen=True)
class Line:
    """A curve; one without a label is not in the legend and not in the description."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    color: str
    label: str = ""
    marker: str = ""
    dash: Any = "solid"
    width: float = 1.8
    alpha: float = 1.0

    @property
    def finite(self) -> NDArray[np.bool_]:
        return np.isfinite(self.x) & np.isfinite(self.y)


def training_curves(log: Log, *, top5: bool = True) -> str:
    """Loss, error, learning rate and speed against epochs, as four ``<svg>`` elements; against steps while no epoch is finished.
    ``top5``: whether the top-5 error is drawn; of a run that balances its classes it is the mean of their errors instead. Absent
    or not finite values leave a gap. Empty if there is nothing to draw."""
    epochs, steps = log.epochs, {name: np.array(values) for name, values in log.steps.items()}
    at_epochs, at_steps = column(epochs, "epoch"), _epochs_of_steps(steps["step"], epochs)
    against = "epoch" if epochs else "step"

    def of_epochs(name: str, scale: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return at_epochs, scale * column(epochs, name)

    loss = [
        Line(at_steps, steps["loss"], BLUE, alpha=0.35, width=0.9),
        Line(*of_epochs("train_loss"), BLUE, "training", "o"),
        Line(*of_epochs("val_loss"), ORANGE, "validation", "s", DASHED),
    ]
    error = [
        Line(*of_epochs("train_top1_error", 100), BLUE, "train top-1", "o"),
        Line(*of_epochs("val_top1_error", 100), ORANGE, "val top-1", "s", DASHED),
    ]
    if any("val_balanced_top1_error" in row for row in epochs):  # it judges the epochs, and four names find no room
        error.append(Line(*of_epochs("val_balanced_top1_error", 100), GREEN, "class mean", "^", DOTTED))
    elif top5:
        error.append(Line(*of_epochs("val_top5_error", 100), GREEN, "val top-5", "^", DOTTED))
    speed = Line(at_steps, steps["images_per_second"], INK, width=1.2)
    panels = [
        _panel("Loss, nats", loss, against),
        _panel("Error, %", error, against, floor=0),
        _panel("Learning rate", [_rate(log, Line(at_steps, steps["lr"], INK, width=1.2))], against, low=True, log=True),
        _panel("Images a second", [speed], against, low=True, floor=0),
    ]
    return "\n".join(svg for svg, drawn in panels) if any(drawn for _, drawn in panels) else ""


def comparison_curves(logs: Sequence[Log]) -> str:
    """Losses, validation error and learning rate of several runs against epochs, as four ``<svg>`` elements; the styles of the
    lines are those of :func:`swatch`. Empty if there is nothing to draw."""

    def lines(field: str, scale: float = 1.0) -> list[Line]:
        return [
            Line(column(log.epochs, "epoch"), scale * column(log.epochs, field), label=letter(i), **_run_style(i))
            for i, log in enumerate(logs)
        ]

    panels = [
        _panel("Validation top-1 error, %", lines("val_top1_error", 100), floor=0, legend=False),
        _panel("Validation loss, nats", lines("val_loss"), legend=False),
        _panel("Training loss, nats", lines("train_loss"), legend=False),
        _panel("Learning rate", lines("lr"), log=True, legend=False),
    ]
    return "\n".join(svg for svg, drawn in panels) if any(drawn for _, drawn in panels) else ""


def letter(run: int) -> str:
    """What the runs of a comparison are called in its figures and tables: A, B, C."""
    return chr(ord("A") + run)


def swatch(run: int) -> str:
    """The line that stands for a run in :func:`comparison_curves`, as an ``<svg>`` element."""
    style = _run_style(run)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.6, 0.2))
        axes = figure.add_axes((0.02, 0, 0.96, 1))
        axes.set_axis_off()
        axes.plot([0, 2], [0, 0], color=style["color"], linestyle=style["dash"], linewidth=1.8)
        axes.plot(1, 0, color=style["color"], marker=style["marker"], markersize=5)
        return svg_of(figure, f"line of run {letter(run)}")


def _run_style(run: int) -> dict[str, Any]:
    return {
        "color": RUN_COLORS[run % len(RUN_COLORS)],
        "dash": RUN_DASHES[run % len(RUN_DASHES)],
        "marker": RUN_MARKERS[run % len(RUN_MARKERS)],
    }


def _rate(log: Log, of_steps: Line) -> Line:
    """The learning rate of the steps, or of the epochs where only they are there."""
    if np.isfinite(of_steps.y).any():
        return of_steps
    return replace(of_steps, x=column(log.epochs, "epoch"), y=column(log.epochs, "lr"))


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


STYLE: Any = {
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


def _panel(
    title: str,
    lines: Sequence[Line],
    against: str = "epoch",
    *,
    low: bool = False,
    floor: float | None = None,
    log: bool = False,
    legend: bool = True,
) -> tuple[str, bool]:
    """A small figure against epochs or steps, as an ``<svg>`` element that says in words where its lines begin and end; and
    whether there was anything to draw. It is of a size that can be read on a phone."""
    with matplotlib.rc_context(STYLE):
        width, height = 4.8, 1.8 if low else 3.2
        figure = Figure(figsize=(width, height))
        left, bottom, right, top = (
            0.55 / width,
            0.5 / height,
            1 - 0.08 / width,
            1 - 0.32 / height,
        )  # inches: axes of panels align
        axes = figure.add_axes((left, bottom, right - left, top - bottom))
        drawn = [line for line in lines if line.finite.any()]
        for line in drawn:
            draw_line(axes, line)
        dress(axes, title, floor=floor, log=log, legend=legend)
        axes.set_xlabel(against)
        ends = [
            f"{line.label} {line.y[line.finite][0]:.3g} to {line.y[line.finite][-1]:.3g}"
            for line in drawn
            if line.label
        ]
        return svg_of(figure, f"{title}, against {against}s" + (f": {'; '.join(ends)}" if ends else "")), bool(drawn)


def draw_line(axes: Axes, line: Line) -> None:
    """A curve, thinned to ``MAX_POINTS``."""
    x, y, finite = line.x, line.y, line.finite
    if len(x) > MAX_POINTS:
        parts = np.array_split(np.flatnonzero(finite), min(MAX_POINTS, int(finite.sum())))
        x, y = np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])
    else:
        y = np.where(finite, y, np.nan)
    axes.plot(
        x,
        y,
        color=line.color,
        label=line.label or "_",
        marker=line.marker if len(x) <= 40 else "",
        markersize=3.5,
        linestyle=line.dash,
        linewidth=line.width,
        alpha=line.alpha,
        zorder=3,
    )


def dress(axes: Axes, title: str, *, floor: float | None, log: bool, legend: bool) -> None:
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=SOFT)
        return
    if log and (shown := _decades(axes)) and shown[1] > 3 * shown[0]:
        axes.set_yscale("log")
        axes.set_ylim(shown[0] / 1.5, shown[1] * 1.5)
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    elif floor is not None:
        axes.set_ylim(bottom=floor)
    if legend and any(not str(line.get_label()).startswith("_") for line in axes.lines):
        above: Any = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "borderaxespad": 0.0}  # no curve is there
        axes.legend(**above, ncols=3, labelcolor=SOFT, fontsize=9, handlelength=1.8, columnspacing=1.2)


def _power(value: float) -> str:
    """A tick that fits beside an axis: 0.001, 1e-4."""
    return f"{value:g}" if value >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def _decades(axes: Axes) -> tuple[float, float] | None:
    """The lowest and highest value worth room on a logarithmic axis. What a schedule ends with, 0 or next to nothing, would
    press all that comes before it into a strip."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    values = values[np.isfinite(values)]
    if not len(values) or values.max() <= 0:
        return None
    high = float(values.max())
    return float(values[values >= high / LOWEST_RATE].min()), high


def svg_of(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = _own_ids(svg.replace("xlink:href", "href"))
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    for stand_in, color in _COLORS.items():
        svg = svg.replace(stand_in, color)
    return svg


def _own_ids(svg: str) -> str:
    """Remove identifiers that nothing refers to, and make the others this figure's own: a page holds several figures."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]

    def own(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}-{mark}{match[3]}" if match[2] in used else ""

    svg = re.sub(r'( id=")([^"]+)(")', own, svg)
    return re.sub(r'(href="#|url\(#)([^")]+)', rf"\1\2-{mark}", svg)


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
    return data_uri(canvas)


def confusion_picture(confusion: Sequence[tuple[int, int, int]], num_classes: int) -> str:
    """Rows: classes; columns: predicted classes; opacity: half, so that a single image can be seen among a thousand classes,
    to full with the square root of the share of the row's images. One pixel a cell, as a PNG data URI."""
    count = np.zeros((num_classes, num_classes))
    for label, predicted, num in confusion:
        count[label, predicted] += num
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    canvas = np.zeros((num_classes, num_classes, 4), dtype=np.uint8)
    canvas[..., :3] = WRONG
    np.einsum("iic->ic", canvas)[:, :3] = RIGHT
    canvas[..., 3] = np.where(count > 0, np.round(127.5 + 127.5 * np.sqrt(share)), 0)
    return data_uri(canvas)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 3) or (H, W, 4) uint8 as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
