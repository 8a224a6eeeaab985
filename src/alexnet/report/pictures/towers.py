"""The tower meter as a picture: how color, frequency and orientation are spread over the kernels of each tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet.report.pictures import COLORS

LABELS = {
    "color_selectivity": ("color selectivity", "share of energy outside the grey axis"),
    "frequency": ("preferred frequency", "cycles/pixel"),
    "orientation_selectivity": ("orientation selectivity", "0: none, 1: a single orientation"),
}
BINS = 24


def draw_towers(document: Mapping[str, Any]) -> Figure:
    """The document of `probe towers`: a histogram of each measure by tower, and color against frequency kernel by kernel."""
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, (measure, (title, unit)) in zip(panels, LABELS.items(), strict=False):
        _histogram(axes, document, measure)
        axes.set_title(_titled(title, document["tests"].get(measure)), fontsize=10, loc="left")
        axes.set_xlabel(unit)
        axes.set_ylabel("kernels")
    first = figure.axes[0]
    first.axvline(document["chance"], color="0.4", linestyle=":", linewidth=1.2)
    first.annotate(
        "independent\nweights", (document["chance"], 1.0), (-3, -4), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right", va="top", fontsize=8, color="0.4",
    )  # fmt: skip
    _scatter(figure.axes[3], document)
    handles, labels = figure.axes[3].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(
        f"{document['layer']} of {document['network']}: {document['n']} kernels", fontsize=11, x=0.01, ha="left"
    )
    return figure


def draw_runs(document: Mapping[str, Any]) -> Figure:
    """Of several runs, for each measure: how far apart the means of the two towers are, and what chance alone stays below."""
    runs = document["runs"]
    figure = Figure(figsize=(10, 1.6 + 0.24 * len(runs)), layout="constrained")
    row_R = np.arange(len(runs))
    for axes, (measure, (title, _)) in zip(figure.subplots(1, 3, sharey=True), LABELS.items(), strict=True):
        tests = [run["tests"].get(measure) for run in runs]
        size_R, line_R = (
            np.array([np.nan if test is None else abs(test[key]) for test in tests]) for key in ("difference", "line")
        )
        axes.barh(row_R, line_R, height=0.9, color="0.87", label="95 % of permutations")
        beyond_R = np.array([test is not None and test["beyond"] for test in tests])
        for is_beyond, color, label in ((False, "0.35", "within"), (True, COLORS[1], "beyond, p at most 0.05")):
            here_R = beyond_R == is_beyond
            axes.scatter(size_R[here_R], row_R[here_R], s=28, color=color, zorder=3, clip_on=False, label=label)
        found = document["together"][measure]
        axes.set_title(
            f"{title}\n{found['beyond_own_line']} of {found['runs']} runs beyond; all together p = {found['p']:.2g}",
            fontsize=10,
            loc="left",
        )
        axes.set_xlim(left=0)
        axes.set_xlabel("difference of the towers' means")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_yticks(row_R, [str(run["run"])[-28:] for run in runs], fontsize=8)
    figure.axes[0].invert_yaxis()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    return figure


def _histogram(axes: Axes, document: Mapping[str, Any], measure: str) -> None:
    highest = 1.0 if measure != "frequency" else max(0.5, *_values(document["kernels"], measure))
    for tower in document["towers"]:
        number, color = tower["tower"], COLORS[tower["tower"] - 1]
        mine = [kernel for kernel in document["kernels"] if kernel["tower"] == number]
        edges = np.linspace(0, highest, BINS + 1).tolist()
        axes.hist(_values(mine, measure), edges, histtype="stepfilled", facecolor=color, alpha=0.45)
        axes.hist(_values(mine, measure), edges, histtype="step", edgecolor=color, linewidth=1.2)
        if tower[measure]["n"]:
            axes.axvline(tower[measure]["median"], color=color, linewidth=2)
    axes.set_xlim(0, highest)
    axes.spines[["top", "right"]].set_visible(False)


def _scatter(axes: Axes, document: Mapping[str, Any]) -> None:
    for tower in document["towers"]:
        mine = [k for k in document["kernels"] if k["tower"] == tower["tower"] and k["color_selectivity"] is not None]
        axes.scatter(
            _values(mine, "color_selectivity"),
            _values(mine, "frequency"),
            s=10 + 60 * _values(mine, "orientation_selectivity"),
            facecolor=COLORS[tower["tower"] - 1],
            alpha=0.65,
            linewidth=0,
            label=f"tower {tower['tower']} (lines: medians)"
            if len(document["towers"]) > 1
            else "kernels (line: median)",
        )
    axes.set(xlim=(-0.02, 1.02), xlabel="color selectivity", ylabel="preferred frequency, cycles/pixel")
    axes.set_ylim(bottom=-0.01)
    axes.set_title("each kernel; larger dots are more selective for orientation", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _titled(title: str, test: Mapping[str, Any] | None) -> str:
    if test is None:
        return title
    return f"{title}\ndifference of means {test['difference']:+.3f}, p = {test['p']:.2g}, AUC {test['auc']:.2f}"


def _values(kernels: Sequence[Mapping[str, Any]], measure: str) -> NDArray[np.float64]:
    return np.array([kernel[measure] for kernel in kernels if kernel[measure] is not None], dtype=np.float64)
