"""The answer over time: averaged probabilities of the classes as lines, and how alike each frame is to the one before it.

Shape suffixes: N frames, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from alexnet.report.lettering import shortened
from alexnet.report.pictures import COLORS

SHOWN_CLASSES = 5
DASHES: Sequence[Any] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


def draw_motion(
    title: str,
    seconds_N: NDArray[np.float64],
    probability_NK: NDArray[np.floating],
    averaged_NK: NDArray[np.float64],
    classes: Sequence[str],
    similarity_N: NDArray[np.float64],
    steadiness: Mapping[str, Any] | None,
    layer: str,
    window: int,
) -> Figure:
    """The five classes with the highest averaged probabilities, thin the probability of each frame alone; below, the cosine
    similarity of ``layer`` from frame to frame beside that in a random order (``steadiness``, as
    JSON)."""
    figure = Figure(figsize=(8.5, 5.4), layout="constrained")
    answers, strip = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    shown = np.argsort(-averaged_NK.max(axis=0), kind="stable")[:SHOWN_CLASSES].tolist()
    marker = "o" if len(seconds_N) == 1 else None
    for color, dash, label in zip(COLORS, DASHES, shown, strict=False):
        name = shortened(classes[label], 32)
        answers.plot(seconds_N, 100 * probability_NK[:, label], color=color, linewidth=0.7, alpha=0.35)
        answers.plot(
            seconds_N, 100 * averaged_NK[:, label], color=color, linestyle=dash, linewidth=2, label=name, marker=marker
        )
    answers.set(ylim=(0, 100), ylabel="probability, %")
    answers.set_title(f"{shortened(title, 60)}: mean of the last {window} frames (thin: each frame alone)", fontsize=11)
    answers.grid(axis="y", alpha=0.3)
    answers.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)
    _strip(strip, seconds_N, similarity_N, steadiness, layer)
    return figure


def _strip(
    axes: Axes,
    seconds_N: NDArray[np.float64],
    similarity_N: NDArray[np.float64],
    steadiness: Mapping[str, Any] | None,
    layer: str,
) -> None:
    lowest = np.nanmin([*similarity_N, 0.9 if steadiness is None else steadiness["low"]], initial=0.9)
    axes.plot(seconds_N, similarity_N, color="black", linewidth=1.2, marker="." if len(seconds_N) < 60 else None)
    if steadiness is not None:
        low, high = steadiness["low"], steadiness["high"]
        label = f"shuffled frames: {steadiness['shuffled']:.2f}"
        axes.axhline(steadiness["shuffled"], color=COLORS[1], linestyle="--", linewidth=1.2, label=label)
        axes.axhspan(low, high, color=COLORS[1], alpha=0.2, linewidth=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)
        axes.set_title(f"{layer}, cosine similarity to the frame before: mean {steadiness['cosine']:.2f}", fontsize=10)
    axes.set(ylim=(max(-1.0, lowest - 0.1 * (1 - lowest) - 0.02), 1.02), xlabel="time, minutes:seconds")
    axes.set_ylabel("cosine")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _minutes(seconds)))
    axes.grid(axis="y", alpha=0.3)


def _minutes(seconds: float) -> str:
    tenths = round(seconds * 10)
    text = f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
    return text.removesuffix(".0")
