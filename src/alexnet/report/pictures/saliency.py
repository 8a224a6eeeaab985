"""Pictures of `alexnet probe saliency`: the maps over the images, and what the two tests say of them.

Shape suffixes: B images, H rows, W columns, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet.report.pictures import COLORS

TITLES = {
    "gradient": "gradient",
    "integrated_gradients": "integrated gradients",
    "guided_backprop": "guided backpropagation",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
    "random": "random order",
    "center_prior": "center first",
}
_STYLES = {name: {"color": COLORS[i]} for i, name in enumerate(TITLES)} | {
    "random": {"color": "#777777", "linestyle": "--"},
    "center_prior": {"color": "#000000", "linestyle": ":"},
}
CLIP = 99.0
"""Percentile of a map that is drawn in full."""


def draw_maps(
    pixels_BHWC: NDArray[np.uint8],
    map_of: Mapping[str, NDArray[np.float32]],
    answers: Sequence[str],
    document: Mapping[str, Any],
) -> Figure:
    """A row for each image: as the network sees it, with its answer, and each method's map over it in grey: what speaks for
    the class, up to the 99th percentile of the image's own map."""
    num, columns = len(pixels_BHWC), 1 + len(map_of)
    figure = Figure(figsize=(1.75 * columns, 2.0 * num + 0.8), layout="constrained")
    grid = figure.subplots(num, columns, squeeze=False)
    fail = document.get("sanity", {}).get("fail", [])
    for b, row in enumerate(grid):
        image_HWC = pixels_BHWC[b]
        grey = image_HWC.shape[2] == 1
        row[0].imshow(image_HWC[..., 0] if grey else image_HWC, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        row[0].set_title(answers[b], fontsize=7.5, parse_math=False)
        for axes, (method, map_BHW) in zip(row[1:], map_of.items(), strict=True):
            axes.imshow(_overlay(image_HWC, map_BHW[b]), interpolation="nearest")
            if b == 0:
                mark = "*" if method in fail else ""
                axes.set_title(TITLES[method] + mark, fontsize=8.5)
        for axes in row:
            axes.set_axis_off()
    figure.supxlabel(caption(document), fontsize=8.5)
    return figure


def caption(document: Mapping[str, Any]) -> str:
    """The lines below the maps: what the tests say of the methods."""
    lines = ["Bright marks what the predicted class depends on most; the largest 1 % of each map are equally bright."]
    sanity, scores = document.get("sanity"), document.get("scores")
    if sanity:
        at = sanity["layers_of_the_verdict"] - 1
        kept = [f"{TITLES[method]} ({sanity['correlation'][method][at]['mean']:.2f})" for method in sanity["fail"]]
        where = f"with random weights from {sanity['layers'][0]} down to {sanity['layers'][at]}"
        lines.append(
            f"* Not to be trusted: {', '.join(kept)} stays nearly the same map {where} (rank correlation)."
            if kept
            else f"Every map changes {where}."
        )
    if scores:
        worse = [
            TITLES[m]
            for m, score in scores["orders"].items()
            if m not in ("random", "center_prior") and score["deletion"]["minus_center_prior"]["high"] >= 0
        ]
        if worse:
            lines.append(f"Not shown to be better at deletion than taking pixels from the center: {', '.join(worse)}.")
    return "\n".join(lines)


def _overlay(image_HWC: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """The map in colors over the image in dim grey: (H, W, 3) on 0..1. Where nothing speaks for the class, the image."""
    top = float(np.percentile(np.maximum(map_HW, 0), CLIP)) or float(map_HW.max())
    strength_HW = np.clip(map_HW / top, 0, 1) if top > 0 else np.zeros_like(map_HW)
    grey_HW1 = image_HWC.mean(axis=2, keepdims=True) / 255
    color_HWC = colormaps["inferno"](strength_HW)[..., :3]
    weight_HW1 = np.sqrt(strength_HW)[..., None]
    return np.asarray((1 - weight_HW1) * 0.55 * grey_HW1 + weight_HW1 * color_HWC)


def draw_scores(scores: Mapping[str, Any]) -> Figure:
    """Deletion and insertion: the mean probability of the predicted class against the share of pixels."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    panels = {"deletion": "removed, the most salient first", "insertion": "inserted, the most salient first"}
    for axes, (kind, done) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        better = "lower is better" if kind == "deletion" else "higher is better"
        orders = scores["orders"]
        for name in sorted(orders, key=lambda name: orders[name][kind]["area"]["mean"], reverse=kind == "insertion"):
            area, curve = orders[name][kind]["area"], orders[name][kind]["curve"]
            interval = f"{area['mean']:.3f} [{area['low']:.3f}, {area['high']:.3f}]"
            share = 100 * np.linspace(0, 1, len(curve))
            axes.plot(share, curve, **_STYLES[name], linewidth=1.7, label=f"{TITLES[name]}  {interval}")
        axes.set_title(f"{kind}: area under the curve, {better}", fontsize=10)
        axes.set_xlabel(f"pixels {done}, %")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7.5, title=f"area [95 % interval], {scores['n']} images", title_fontsize=7.5)
        if kind == "deletion":
            axes.set_ylabel("mean probability of the predicted class")
    return figure


def draw_sanity(sanity: Mapping[str, Any]) -> Figure:
    """How alike the maps stay while the weights are replaced from the last layer down."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    axes = figure.subplots()
    ticks = np.arange(len(sanity["layers"]) + 1)
    for method, rows in sanity["correlation"].items():
        mean, low, high = ([1.0, *(row[key] for row in rows)] for key in ("mean", "low", "high"))
        color, fails = _STYLES[method]["color"], method in sanity["fail"]
        label = TITLES[method] + (":\nnearly the same without\nwhat these layers learned" if fails else "")
        axes.plot(ticks, mean, color=color, marker="o", markersize=4, linewidth=1.7, label=label)
        axes.fill_between(ticks, low, high, color=color, alpha=0.15, linewidth=0)
        if method in sanity["other_image"]:
            axes.plot(ticks[-1] + 0.35, sanity["other_image"][method]["mean"], color=color, marker="D", linestyle="")
    if sanity["other_image"]:
        axes.plot([], [], color="#777777", marker="D", linestyle="", label="map of another image")
    axes.axhline(0, color="#777777", linewidth=0.8)
    axes.axvline(sanity["layers_of_the_verdict"], color="#777777", linewidth=0.8, linestyle=":")
    axes.set_xticks(ticks, ["none", *sanity["layers"]])
    axes.set_xlabel("random weights down to this layer (dotted: where the verdict is taken)")
    axes.set_ylabel("Spearman correlation of absolute maps")
    axes.set_title(
        f"Does the map change when the weights are random? ({sanity['n']} images, 95 % intervals)", fontsize=10
    )
    axes.set_ylim(min(-0.2, *axes.get_ylim()), 1.05)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
