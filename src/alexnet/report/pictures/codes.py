"""Search by short codes beside search by floats, as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet.report.pictures import COLORS

NAMES = {"autoencoder": "autoencoder", "itq": "ITQ", "hyperplanes": "random hyperplanes"}


def draw_codes(body: Mapping[str, Any], n: Mapping[str, int]) -> Figure:
    """The figures of the probe ``codes`` on ``n`` images: mean average precision and recall against bits, and precision against
    the time of a query."""
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _against_bits(left, body, "mean_average_precision", "mean average precision, by label")
    depth = body["depth"]
    _against_bits(middle, body, f"recall_{depth}", f"recall@{depth} of the neighbors by {body['layer']} floats")
    _against_time(right, body)
    left.axhline(body["chance"], color="#999999", linewidth=1, label="precision by chance")
    left.set_title("Finding images of the same class")
    middle.set_title("Finding what float search finds")
    right.set_title("What a query costs")
    handles = {
        label: handle for axes in (left, right) for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    seeds = body["seeds"]
    spread = f"mean and range of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    figure.suptitle(
        f"Short codes of {body['layer']}: {n['queries']:,} held-out queries, {n['database']:,} training images, "
        f"{n['classes']} classes; {spread}"
    )
    return figure


def _series(body: Mapping[str, Any]) -> list[tuple[str, str, str, list[Mapping[str, Any]]]]:
    """Label, color, style of line and rows of each coder."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in body["curves"]:
        found.setdefault((row["coder"], row["input"]), []).append(row)
    styles = zip(COLORS, ("o-", "s-", "^-", "D--"), strict=False)
    return [
        (f"{NAMES[coder]} on {name}", color, style, rows)
        for ((coder, name), rows), (color, style) in zip(found.items(), styles, strict=True)
    ]


def _against_bits(axes: Axes, body: Mapping[str, Any], key: str, label: str) -> None:
    for name, color, style, rows in _series(body):
        bits = [row["bits"] for row in rows]
        axes.plot(bits, [row[key]["mean"] for row in rows], style, color=color, label=name)
        low, high = ([row[key][side] for row in rows] for side in ("low", "high"))
        axes.fill_between(bits, low, high, color=color, alpha=0.2, linewidth=0)
    for row, dots in zip(body["float"], ("-", ":", "--"), strict=True):
        axes.axhline(row[key], color="#000000", linestyle=dots, linewidth=1, label=f"floats, {row['input']}")
    _bits_axis(axes, body["bits"])
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _bits_axis(axes: Axes, bits: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(bits, [str(b) for b in bits])
    axes.set_xlabel("bits of a code (bytes above)")
    above = axes.secondary_xaxis("top")
    above.set_xticks(bits, [f"{b // 8} B" for b in bits])
    above.minorticks_off()
    axes.minorticks_off()


def _against_time(axes: Axes, body: Mapping[str, Any]) -> None:
    """Encoding and search of one query, on one thread."""
    key = "mean_average_precision"
    for _, color, style, rows in _series(body):
        ms = [row["encode_ms"]["mean"] + row["search_ms"]["mean"] for row in rows]
        axes.plot(ms, [row[key]["mean"] for row in rows], style, color=color)
    for row, marker in zip(body["float"], ("*", "P", "X"), strict=True):
        label = f"floats, {row['input']}: {row['bytes']:,} B"
        axes.plot(row["search_ms"], row[key], marker, color="#000000", markersize=9, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("encoding and search, ms a query (one thread)")
    axes.set_ylabel("mean average precision, by label")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
