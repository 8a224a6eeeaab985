"""Drawings of the claims' page: training curves of arms and their tuning as SVG, and an axis on which effects stand.

A drawing holds no foreign text: names stand in the page, where they are escaped.

Shape suffixes: S seeds, P points of a curve.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from alexnet.claims.results import Result, means_of_neighbors
from alexnet.report import figures
from alexnet.report.figures import RUN_COLORS, RUN_DASHES, RUN_MARKERS, Line, column
from alexnet.report.tables import number

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Epochs (P,) and values (P,)."""

MAX_POINTS = 80
"""Most points of a curve; in a longer one, means of neighboring points are drawn."""
ROOM = 0.06
"""Share of an axis that is left free at either end."""


@dataclass(frozen=True)
class Axis:
    """Where values stand, in percent of the length of an axis; those of quotients by their logarithms."""

    start: float
    end: float
    logarithmic: bool
    ticks: tuple[tuple[float, str], ...]
    """Place and text of each tick."""

    def at(self, value: float) -> float:
        """The place of a value."""
        place = math.log(value) if self.logarithmic else value
        return round(100 * (place - self.start) / (self.end - self.start), 2)

    @property
    def null(self) -> float:
        """The place of no effect: a difference of 0, a quotient of 1."""
        return self.at(1.0 if self.logarithmic else 0.0)


def effect_axis(values: Sequence[float], *, quotient: bool) -> Axis:
    """The axis that holds all of the ``values``, which are finite and, as quotients, above 0, and no effect."""
    places = [math.log(value) for value in values] if quotient else list(values)
    low, high = min(0.0, *places, 0.0), max(0.0, *places, 0.0)
    room = ROOM * (high - low) or 0.1
    start, end = low - room, high + room
    axis = Axis(start, end, quotient, ())
    shown = (math.exp(start), math.exp(end)) if quotient else (start, end)
    ticks = [tick for tick in _ticks(*shown, quotient) if shown[0] <= tick <= shown[1]]
    return Axis(start, end, quotient, tuple((axis.at(tick), f"{tick:g}".replace("-", "−")) for tick in ticks))


def _ticks(low: float, high: float, quotient: bool) -> list[float]:
    if quotient and high > 3 * low:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if len(decades) <= 3 else (1,)
        return [step * 10.0**decade for decade in decades for step in steps][:: max(1, len(decades) // 6)]
    return [round(float(tick), 9) for tick in MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(low, high)]


def arm_curves(arms: Sequence[Sequence[Result]]) -> str:
    """Training and held-out loss and error against epochs, as ``<svg>`` elements: of each arm the mean over its seeds as far
    as all of them went, the range between the lowest and the highest, and alone whatever went on. Arm ``i`` has the style of
    :func:`alexnet.report.figures.swatch` and the letter of :func:`alexnet.report.figures.letter`. Empty if no result has
    a curve."""
    panels = [
        ("Training loss, nats", lambda result: _curve(result, "curve", "loss")),
        ("Training error, %", lambda result: _curve(result, "curve", "error", 100)),
        ("Held-out loss, nats", lambda result: _curve(result, "epochs", "val_loss")),
        ("Held-out error, %", lambda result: _curve(result, "epochs", "val_top1_error", 100)),
    ]
    return "\n".join(svg for title, read in panels if (svg := _panel(title, arms, read)))


def _curve(result: Result, rows: str, name: str, scale: float = 1.0) -> Curve:
    found = result.get(rows)
    points = [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    epoch_P, value_P = column(points, "epoch"), scale * column(points, name)
    sound_P = np.isfinite(epoch_P) & np.isfinite(value_P)
    return epoch_P[sound_P], value_P[sound_P]


def columns_of(results: Mapping[str, Result]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """What :func:`arm_curves` reads of an arm's results, by their names, thinned as it would thin them: small enough to go with
    the package. :func:`result_of` reads it again."""
    curves = {name: [_curve(result, "curve", key) for key in ("loss", "error")] for name, result in results.items()}
    width = _width([len(loss[0]) for loss, _ in curves.values()])
    found = {}
    for name, ((epoch_P, loss_P), (_, error_P)) in curves.items():
        epochs = [row for row in results[name].get("epochs") or [] if isinstance(row, Mapping)]
        if not len(epoch_P):
            continue
        points = {"epoch": epoch_P, "loss": loss_P, "error": error_P}
        found[name] = {
            "curve": {key: _rounded(means_of_neighbors(value_P, width)) for key, value_P in points.items()},
            "epochs": {key: _rounded(column(epochs, key)) for key in ("epoch", "val_loss", "val_top1_error")},
        }
    return found


def result_of(columns: Mapping[str, Mapping[str, Sequence[float]]]) -> Result:
    """The rows of :func:`columns_of` as a result has them."""
    return {
        name: [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        for name, table in columns.items()
    }


def _rounded(value_P: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.4g}") for value in value_P]


def _thinned(curves: Sequence[Curve]) -> list[Curve]:
    """The curves of an arm, all by means of as many neighbors, so that they keep their epochs in common."""
    width = _width([len(epoch_P) for epoch_P, _ in curves])
    thin = [(means_of_neighbors(epoch_P, width), means_of_neighbors(value_P, width)) for epoch_P, value_P in curves]
    return [curve for curve in thin if len(curve[0])]


def _width(lengths: Sequence[int]) -> int:
    """How many neighboring points make one, so that the longest curve has :data:`MAX_POINTS` at most."""
    return max(1, -(-max(lengths, default=0) // MAX_POINTS))


def _panel(title: str, arms: Sequence[Sequence[Result]], read: Callable[[Result], Curve]) -> str:
    """A figure that says in words where its means begin and end; empty if there is nothing to draw."""
    with matplotlib.rc_context(figures.STYLE):
        width, height = 3.7, 2.6
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.55 / width, 0.5 / height, 1 - 0.63 / width, 1 - 0.82 / height))
        ends = []
        for i, results in enumerate(arms):
            curves = _thinned([curve for curve in map(read, results) if len(curve[0])])
            if not curves:
                continue
            color, dash = RUN_COLORS[i % len(RUN_COLORS)], RUN_DASHES[i % len(RUN_DASHES)]
            shared = min(len(epoch_P) for epoch_P, _ in curves)
            epoch_P = curves[0][0][:shared]
            value_SP = np.array([value_P[:shared] for _, value_P in curves])
            mean_P = value_SP.mean(0)
            axes.fill_between(epoch_P, value_SP.min(0), value_SP.max(0), color=color, alpha=0.15, linewidth=0, zorder=2)
            for alone_P, value_P in curves:
                if len(alone_P) > shared:
                    figures.draw_line(
                        axes, Line(alone_P[shared - 1 :], value_P[shared - 1 :], color, width=0.9, alpha=0.6)
                    )
            marker = RUN_MARKERS[i % len(RUN_MARKERS)]
            figures.draw_line(axes, Line(epoch_P, mean_P, color, figures.letter(i), marker, dash, 1.4))
            ends.append(f"{figures.letter(i)} {mean_P[0]:.3g} to {mean_P[-1]:.3g}")
        if not ends:
            return ""
        figures.dress(axes, title, floor=None, log=False, legend=False)
        axes.set_xlabel("epoch")
        svg = figures.svg_of(figure, f"{title}, against epochs: {'; '.join(ends)}")
        return re.sub(r'( d="[^"]*")', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[1]), svg)  # half the size


def tuning_curves(tuning: Sequence[Mapping[str, Any]], scale: float) -> dict[str, str]:
    """For each setting that was searched an ``<svg>``: of every arm (a search each, ``Tuning.document``, by its place among the
    arms) the mean of the measure, times ``scale``, against the candidates, the others of its settings being the chosen ones;
    a dot for each tuning seed and a ring around what was chosen. What diverged, or never got there, has no mark."""
    fields = dict.fromkeys(str(field) for of_arm in tuning for field in of_arm.get("fields", ()))
    return {field: svg for field in fields if (svg := _tuning_panel(tuning, field, scale))}


def _tuning_panel(tuning: Sequence[Mapping[str, Any]], field: str, scale: float) -> str:
    with matplotlib.rc_context(figures.STYLE):
        width, height = 3.7, 2.6
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.55 / width, 0.5 / height, 1 - 0.63 / width, 1 - 0.82 / height))
        said, tried = [], set()
        for i, of_arm in enumerate(tuning):
            points = _candidates(of_arm, field, scale) if of_arm else []
            if not points:
                continue
            color, dash = RUN_COLORS[i % len(RUN_COLORS)], RUN_DASHES[i % len(RUN_DASHES)]
            tried |= {value for value, _, _ in points}
            for value, of_seeds, _ in points:
                axes.plot([value] * len(of_seeds), of_seeds, "o", color=color, markersize=2.6, alpha=0.5, zorder=3)
            x_P, mean_P = (np.array(column) for column in zip(*((v, np.mean(y)) for v, y, _ in points), strict=True))
            marker = RUN_MARKERS[i % len(RUN_MARKERS)]
            figures.draw_line(axes, Line(x_P, mean_P, color, figures.letter(i), marker, dash, 1.4))
            for (value, _, is_chosen), mean in zip(points, mean_P, strict=True):
                if is_chosen:
                    axes.plot([value], [mean], "o", color=color, markersize=11, fillstyle="none", zorder=5)
                    said.append(f"{figures.letter(i)} {mean:.3g} at {value:.3g}")
        if not tried:
            return ""
        figures.dress(axes, "Means and seeds; ring: chosen", floor=None, log=False, legend=False)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(_thin(sorted(tried))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.2g}"))
        axes.minorticks_off()
        return figures.svg_of(
            figure, f"What was searched, and the measure that chose; chosen: {'; '.join(said) or 'none'}"
        )


def _candidates(of_arm: Mapping[str, Any], field: str, scale: float) -> list[tuple[float, list[float], bool]]:
    """Value of a setting, measure by seed, and whether it was chosen, for the candidates that differ from it in this setting
    alone; of a setting with several numbers the first."""
    chosen, found = of_arm["chosen"], []
    for candidate in of_arm["candidates"]:
        changes = candidate["changes"]
        others = [name for name in of_arm["fields"] if name != field]
        value = _first(changes.get(field))
        values = [scale * number(y) for y in candidate["values"]]
        if value > 0 and all(map(math.isfinite, values)) and all(changes.get(n) == chosen.get(n) for n in others):
            found.append((value, values, changes.get(field) == chosen.get(field)))
    return sorted(found)


def _first(value: object) -> float:
    return number(value[0] if isinstance(value, list | tuple) and value else value)


def _thin(values: Sequence[float], most: int = 5) -> Sequence[float]:
    return values[:: max(1, -(-len(values) // most))]


def finite(values: Sequence[object]) -> list[float]:
    """Those that are numbers."""
    return [value for value in map(number, values) if math.isfinite(value)]
