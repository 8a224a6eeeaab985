"""Pictures of `alexnet probe inputs`: error by property of the image, reliability, mirror and shift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet.report.lettering import shortened
from alexnet.report.pictures import COLORS

BLUE, ORANGE, GREEN = COLORS[:3]
GREY = "#777777"


def draw_properties(body: Mapping[str, Any]) -> Figure:
    """The error in each fifth of each property, with Wilson's 95 % intervals; a panel a property that varies."""
    found = {name: about for name, about in body["properties"].items() if "groups" in about}
    columns = min(max(len(found), 1), 3)
    rows = max(1, math.ceil(len(found) / columns))
    figure = Figure(figsize=(4.0 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    for axes, (name, about) in zip(grid.flat, found.items(), strict=False):
        groups, delta = about["groups"], about["last_less_first"]
        _rates(axes, np.arange(len(groups)), groups, BLUE)
        axes.axhline(100 * body["error"]["rate"], color=GREY, linewidth=0.9, linestyle="--")
        axes.set_xticks(range(len(groups)), [f"{g['from']:.3g}\nto {g['to']:.3g}" for g in groups], fontsize=8)
        axes.set_xlabel(f"fifths of {name}\n({about['unit']})", fontsize=9)
        axes.set_title(
            f"{name}: last less first {100 * delta['value']:+.1f} points\n"
            f"[{100 * delta['low']:+.1f}, {100 * delta['high']:+.1f}]",
            fontsize=9,
        )
        axes.grid(axis="y", alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("top-1 error, %")
    figure.suptitle(f"Error by property of the image, {body['error']['n']:,} images (dashed: all)", fontsize=11)
    return figure


def draw_classes(body: Mapping[str, Any]) -> Figure:
    """The error of each class, the worst first, at most forty."""
    rows = sorted((c for c in body["classes"] if c["n"]), key=lambda c: c["rate"])[-40:]
    figure = Figure(figsize=(7, 1.2 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(rows))
    low, high = (100 * np.array([abs(c[key] - c["rate"]) for c in rows]) for key in ("low", "high"))
    axes.errorbar([100 * c["rate"] for c in rows], at, xerr=[low, high], fmt="o", color=BLUE, capsize=2, markersize=4)
    axes.axvline(100 * body["error"]["rate"], color=GREY, linewidth=0.9, linestyle="--")
    axes.set_yticks(at, [shortened(c["name"], 40) for c in rows], fontsize=8, parse_math=False)
    axes.set_xlabel("top-1 error, %, with 95 % intervals (dashed: all)")
    axes.set_title("Error by class", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    return figure


def draw_reliability(calibration: Mapping[str, Any], temperature: Mapping[str, Any]) -> Figure:
    """Share of right answers against confidence, and how many images each bin holds."""
    bins = calibration["reliability"]
    figure = Figure(figsize=(5.4, 6.0), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as right as sure")
    confidence = np.array([b["confidence"] for b in bins])
    low, high = (np.array([abs(b[key] - b["rate"]) for b in bins]) for key in ("low", "high"))
    rate = [b["rate"] for b in bins]
    axes.errorbar(confidence, rate, yerr=[low, high], fmt="o", color=BLUE, capsize=2, markersize=5, label="network")
    axes.set_ylabel("share of right answers (95 % interval)")
    axes.set_ylim(0, 1.02)
    axes.set_title(
        f"Calibration: ECE {100 * calibration['ece']:.1f} % ({100 * calibration['ece_if_calibrated']:.1f} % expected of a "
        f"calibrated one)\nbest temperature {temperature['temperature']:.2f}: ECE "
        f"{100 * temperature['ece_before']:.1f} to {100 * temperature['ece_after']:.1f} % on the other half\n"
        f"({100 * temperature['ece_if_calibrated']:.1f} % expected there of a calibrated one)",
        fontsize=9.5,
    )
    axes.legend(loc="upper left", fontsize=8.5)
    middle = [(b["from"] + b["to"]) / 2 for b in bins]
    counts.bar(middle, [b["n"] for b in bins], width=0.9 / calibration["bins"], color=BLUE)
    counts.set_ylabel("images")
    counts.set_xlabel("confidence: probability of the predicted class")
    counts.set_xlim(0, 1)
    for each in (axes, counts):
        each.grid(alpha=0.3)
    return figure


def draw_shift(mirror: Mapping[str, Any], shift: Sequence[Mapping[str, Any]]) -> Figure:
    """What a shift and a mirror change: predictions, and the error."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    changed, error = figure.subplots(1, 2)
    at, mirrored = np.arange(len(shift)), len(shift) + 0.5
    rows = [s["changed"] for s in shift]
    if shift:
        _rates(changed, at, rows, BLUE, line=True)
        changed.plot(
            at,
            [100 * s["total_variation"] for s in shift],
            color=GREEN,
            marker="s",
            label="total variation of probabilities",
        )
        error.plot(at, [100 * s["error_after"] for s in shift], color=BLUE, marker="o", label="shifted")
        error.axhline(100 * shift[0]["error_before"], color=GREY, linestyle="--", label="center, the same images")
    _rates(changed, np.array([mirrored]), [mirror["changed"]], ORANGE)
    changed.plot([mirrored], [100 * mirror["total_variation"]], color=GREEN, marker="s", linestyle="")
    error.plot(
        [mirrored], [100 * mirror["error_after"]], color=ORANGE, marker="D", linestyle="", label="mirrored, all images"
    )
    error.plot(
        [mirrored],
        [100 * mirror["error_before"]],
        color=GREY,
        marker="D",
        linestyle="",
        label="not mirrored, all images",
    )
    changed.plot([], [], color=BLUE, marker="o", label="predicted class changes (95 % interval)")
    changed.set_ylabel("images, or probability mass, %")
    changed.set_ylim(bottom=0)
    error.set_ylabel("top-1 error, %")
    error.set_ylim(0, 1.3 * error.get_ylim()[1])
    many = f"{shift[0]['n']:,} images" if shift else "no room to shift"
    changed.set_title(f"What a shift ({many}) and a mirror ({mirror['n']:,}) change", fontsize=10)
    error.set_title("Error of the shifted and the mirrored view", fontsize=10)
    for axes in (changed, error):
        axes.set_xticks([*at, mirrored], [*(str(s["pixels"]) for s in shift), "mirror"])
        axes.set_xlabel("pixels between the two crops")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _rates(axes: Axes, at: Any, rows: Sequence[Mapping[str, Any]], color: str, *, line: bool = False) -> None:
    """Rates in per cent with their intervals."""
    rate, low, high = (100 * np.array([row[key] for row in rows]) for key in ("rate", "low", "high"))
    axes.errorbar(
        at, rate, yerr=[rate - low, high - rate], fmt="-o" if line else "o", color=color, capsize=3, markersize=5
    )
