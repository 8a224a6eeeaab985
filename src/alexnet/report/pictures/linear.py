"""Linear probes: the error that a linear classifier makes on each layer, and with few labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from alexnet.report.pictures import COLORS

MARKERS = "osD^vP"


def error_curves(body: Mapping[str, Any], n: int) -> Figure:
    """The figures of the probe ``linear`` on ``n`` images: error by layer and, where it was measured, error by labeled images
    per class."""
    few = body["few_labels"]
    figure = Figure(figsize=(12.5 if few else 7.0, 5.2), layout="constrained")
    axes = figure.subplots(1, 2 if few else 1, squeeze=False)[0]
    _by_layer(axes[0], body, n)
    if few:
        _by_labels(axes[1], body)
    return figure


def _by_layer(axes: Axes, body: Mapping[str, Any], n: int) -> None:
    rows = body["layers"]
    place, error = range(len(rows)), [100 * row["error"] for row in rows]
    bars = [[100 * (row["error"] - row["low"]) for row in rows], [100 * (row["high"] - row["error"]) for row in rows]]
    axes.errorbar(place, error, bars, color=COLORS[0], marker="o", capsize=4, label="linear classifier, 95 % interval")
    for x, row in enumerate(rows):
        axes.text(x, 100 * row["low"] - 1.5, f"{100 * row['error']:.1f}", fontsize=9, ha="center", va="top")
    if (own := body["own"]) is not None:
        label = f"the network itself, {100 * own['error']:.1f} %"
        axes.axhline(100 * own["error"], color=COLORS[1], linestyle="--", label=label)
    chance = 100 * body["chance"]["error"]
    axes.axhline(chance, color="#777777", linestyle=":", label=f"always the commonest class, {chance:.1f} %")
    axes.set_xticks(list(place), [f"{row['layer']}\n{row['units']:,}" for row in rows], fontsize=9)
    axes.set(ylim=(0, 100), xlabel="layer, and how many numbers averaging leaves", ylabel="held-out top-1 error, %")
    axes.set_title(f"{body['n_train']:,} labeled images, {n:,} held out", fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=9, loc="lower left")


def _by_labels(axes: Axes, body: Mapping[str, Any]) -> None:
    rows, layers = body["few_labels"], list(dict.fromkeys(row["layer"] for row in body["few_labels"]))
    for i, layer in enumerate(layers):
        own = [row for row in rows if row["layer"] == layer]
        mean = [100 * row["mean_error"] for row in own]
        bars = [
            [100 * (row["mean_error"] - row["min_error"]) for row in own],
            [100 * (row["max_error"] - row["mean_error"]) for row in own],
        ]
        x = [row["images_per_class"] * 1.04 ** (i - (len(layers) - 1) / 2) for row in own]  # bars side by side
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        axes.errorbar(x, mean, bars, label=layer, color=color, marker=marker, capsize=3)
    numbers = sorted({row["images_per_class"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axhline(100 * body["chance"]["error"], color="#777777", linestyle=":")
    axes.set(ylim=(0, 100), xlabel="labeled images of each class (log scale)", ylabel="held-out top-1 error, %")
    axes.set_title(f"few labels: mean and range of {len(body['seeds'])} draws", fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=9, loc="lower left")
