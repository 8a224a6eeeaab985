"""One page that says what a run did: ``RUN/report.html``, from the files of the run and from nothing else.

It is one file that loads nothing, with one script, which sorts tables and which nothing on the page needs; it reads in light
and dark and on a phone, and prints. A run that is unfinished or damaged gets a page too, which names what is missing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from alexnet.core.errors import AlexNetError
from alexnet.core.intervals import UNEVEN
from alexnet.core.runs import read_array, read_file
from alexnet.report import figures, tables
from alexnet.report.files import RunFiles, read_object, read_run
from alexnet.report.inside import read_sections
from alexnet.report.render import write_page
from alexnet.report.tables import StoredEvaluation

MATRIX_CLASSES = 32
"""Up to this many classes the confusion matrix is a table with names; above, a table of blocks of classes, and a picture."""
PICTURE_CLASSES = 4096
"""Up to this many classes the picture is drawn; its memory grows with their square."""
BLOCKS = 20
"""Most blocks of classes in the table."""
MAX_KERNEL_BYTES = 1 << 26
LARGE_SIDE = 9
LARGE_KERNELS = (
    "After long training on photographs they are edges, gratings and spots of color; after a short one many still look like "
    "noise, although the network has learned."
)
SMALL_KERNELS = (
    "Kernels of {side} × {side} pixels are too small to show edges and gratings as those of 11 × 11 pixels do: many look like "
    "noise even where the network has learned."
)
SHOWN_CONFUSIONS = 60
"""Most confusions shown for many classes; 12 where the matrix names all classes."""


def write_report(run: Path) -> Path:
    """Write ``RUN/report.html`` and return its path. :class:`UsageError` if ``run`` is no folder."""
    write_page(run / "report.html", "page.html", _content(read_run(run)))
    return run / "report.html"


def _content(run: RunFiles) -> dict[str, Any]:
    """What the page shows, by the names the template uses."""
    best, faults = run.best, [*run.faults]
    last = run.log.epochs[-1] if run.log.epochs else {}
    sections = read_sections(run.folder / "probes", faults)
    kernels = _read_kernels(run.folder / "results", faults)
    return {
        "title": f"{run.network} on {run.data}" if run.data else run.network,
        "origin": "the run",
        "run": run,
        "facts": _facts(run),
        "best": best,
        "top5": not best or best.has_top5,
        "last": last,
        "measured": _measured(best.protocol) if best else "",
        "notes": run.log.notes,
        "curves": Markup(figures.training_curves(run.log, top5=not best or best.has_top5)),
        "dead_filters": _dead_filters(last),
        "kernels": None if any(section.name == "kernels" and section.pictures for section in sections) else kernels,
        "classes": sorted(best.classes, key=lambda row: (-row.top1_error, row.index)) if best else [],
        "confusion": _confusion(best) if best and best.confusion else None,
        "mistakes": _mistakes(run.folder / "results", best, faults) if best else [],
        "sections": sections,
        "versions": _versions(run.environment),
        "faults": faults,
    }


def _read_kernels(folder: Path, faults: list[str]) -> dict[str, Any] | None:
    path = folder / "conv1.npy"
    if not path.exists():
        return None
    try:
        kernels_KCRS = read_array(io.BytesIO(read_file(path, MAX_KERNEL_BYTES)), path)
        if kernels_KCRS.ndim != 4 or kernels_KCRS.shape[1] not in (1, 3) or kernels_KCRS.dtype.kind != "f":
            raise ValueError(f"{kernels_KCRS.dtype} {kernels_KCRS.shape} is not a set of grey or color kernels")
        about = read_object(folder / "kernels.json", faults) if (folder / "kernels.json").exists() else {}
        towers = 2 if about.get("towers") == 2 else 1
        picture = figures.kernel_picture(kernels_KCRS, towers)
        side = kernels_KCRS.shape[2]
        expected = LARGE_KERNELS if side >= LARGE_SIDE else SMALL_KERNELS
        return {
            "picture": picture,
            "towers": towers,
            "num": len(kernels_KCRS),
            "side": side,
            "expected": expected.format(side=side),
        }
    except (AlexNetError, ValueError) as error:
        faults.append(f"results/conv1.npy is not readable: {error}")
        return None


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """Label and value of what a reader asks next: which data and seed, how long, how much, how fast."""
    settings, log = run.settings, run.log
    planned = settings.get("epochs")
    done = tables.number(log.epochs[-1].get("epoch")) if log.epochs else 0
    seconds = tables.number(log.epochs[-1].get("seconds")) if log.epochs else math.nan
    speed, steps = np.array(log.steps["images_per_second"]), np.array(log.steps["step"])
    facts = [
        ("Recipe", run.recipe),
        ("Seed", tables.count(settings["seed"]) if "seed" in settings else ""),
        ("Epochs", f"{done:g} of {planned}" if tables.number(planned) > done else f"{done:g}"),
        ("Steps", f"{np.nanmax(steps):,.0f}" if np.isfinite(steps).any() else ""),
        ("Training time", tables.duration(seconds) if math.isfinite(seconds) else ""),
        ("Speed", f"{np.nanmedian(speed):,.0f} images/s" if np.isfinite(speed).any() else ""),
        ("Error of the fitted last layer alone", _head_alone(log.head)),
        ("Fewest validation errors", _best_epoch(log.epochs, stopping=settings.get("early_stopping") is not None)),
        ("Mean error of the classes", _mean_error(run.best)),
        ("Classes", f"{len(run.best.classes):,}" if run.best and run.best.classes else ""),
    ]
    return [(label, value) for label, value in facts if value]


def _head_alone(head: tables.Row | None) -> str:
    """The held-out error before anything was trained, of a run that began with a fitted last layer."""
    errors, n = (tables.number((head or {}).get(name)) for name in ("top1_errors", "n"))
    return f"{100 * errors / n:.1f} % ({errors:,.0f} of {n:,.0f})" if n > 0 else ""


def _mean_error(best: StoredEvaluation | None) -> str:
    """The mean of the errors of the classes, where some have many more images than others."""
    sizes = [row.n for row in best.classes if row.n] if best else []
    if best is None or not sizes or max(sizes) < UNEVEN * min(sizes):
        return ""
    return f"{100 * best.balanced_top1_error:.1f} % (of {min(sizes):,} to {max(sizes):,} images each)"


def _best_epoch(epochs: Sequence[tables.Row], *, stopping: bool = False) -> str:
    """Which epoch was the best, and of which the network of the run is: of the last, or with early ``stopping`` of the best.
    Nothing where these are the same."""
    balanced = any("val_balanced_top1_error" in row for row in epochs)
    name = "val_balanced_top1_error" if balanced else "val_top1_errors"
    errors = {tables.number(row.get("epoch")): tables.number(row.get(name)) for row in epochs}
    known = {epoch: num for epoch, num in errors.items() if math.isfinite(epoch) and math.isfinite(num)}
    if not known:
        return ""
    best, last = min(known, key=lambda epoch: (known[epoch], epoch)), max(known)
    fewest, at_last = (
        f"{100 * known[e]:.1f} % (mean of the classes)" if balanced else f"{known[e]:,.0f}" for e in (best, last)
    )
    if stopping:
        return f"{fewest} after epoch {best:g}, whose weights are model/ (early stopping, after epoch {last:g})"
    if known[best] == known[last]:
        return ""
    return f"{fewest} after epoch {best:g} (evaluate --best); model/ is of epoch {last:g}, {at_last}"


def _measured(protocol: Mapping[str, Any]) -> str:
    """How the errors were measured, in one line: what a comparison asks first."""
    chosen = "chose_the_checkpoint" in protocol
    said = [
        (f"{protocol.get('split', '')} images of {protocol['data']}, each once" if "data" in protocol else "").strip(),
        str(protocol.get("averaging", "")),
        f"{protocol['precision']} arithmetic" if "precision" in protocol else "",
        "early stopping chose the epoch on these images, so the error on new ones is higher" if chosen else "",
    ]
    return "; ".join(filter(None, said))


def _versions(environment: Mapping[str, Any]) -> str:
    """Versions and threads that a repetition needs."""
    named = [
        (name, environment.get(name)) for name in ("alexnet", "python", "torch", "numpy", "threads", "accelerator")
    ]
    return ", ".join(f"{name} {tables.plain(value)}" for name, value in named if value is not None)


def _dead_filters(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Layer and the number of filters that never answer, tower by tower."""
    layers = row.get("dead_filters")
    if not isinstance(layers, Mapping):
        return []
    return [
        (str(layer), " + ".join(map(str, towers)) if isinstance(towers, list) else str(towers))
        for layer, towers in layers.items()
    ]


def _confusion(best: StoredEvaluation) -> dict[str, Any]:
    """The confusion matrix: a table with names for few classes, blocks and a picture for many, and the most frequent
    confusions."""
    names = [row.name for row in best.classes]
    wrong = sorted((entry for entry in best.confusion if entry[0] != entry[1]), key=lambda entry: -entry[2])
    few = len(names) <= MATRIX_CLASSES
    size = 1 if few else math.ceil(len(names) / BLOCKS)
    starts = range(0, len(names), size)
    return {
        "few": few,
        "block": size,
        "rows": _matrix(best, size, best.confusion if few else wrong),
        "picture": "" if few or len(names) > PICTURE_CLASSES else figures.confusion_picture(best.confusion, len(names)),
        "num_classes": len(names),
        "ticks": [(100 * start / len(names), start, names[start]) for start in starts],
        "step": 100 * size / len(names),
        "most": [
            (names[i], names[j], num, best.classes[i].n) for i, j, num in wrong[: 12 if few else SHOWN_CONFUSIONS]
        ],
        "right": best.n - best.top1_errors,
    }


def _matrix(best: StoredEvaluation, size: int, entries: Any) -> list[dict[str, Any]]:
    """A row for each block of ``size`` classes: its name, its classes, and for each block that its images were taken for how many
    and how strongly the cell is colored."""
    names = [row.name for row in best.classes]
    starts = range(0, len(names), size)
    count, images = np.zeros((len(starts), len(starts)), dtype=np.int64), np.zeros(len(starts), dtype=np.int64)
    for label, predicted, num in entries:
        count[label // size, predicted // size] += num
    for row in best.classes:
        images[row.index // size] += row.n
    share = count / np.maximum(images[:, None], 1)
    shade = np.sqrt(np.minimum(share if size == 1 else share / max(share.max(), 1e-9), 1))
    rows = []
    for i, start in enumerate(starts):
        last = min(start + size, len(names)) - 1
        label = f"{start}–{last}" if last > start else str(start)
        rows.append(
            {
                "name": names[start] if size == 1 else label,
                "about": names[start] if size == 1 else f"{names[start]} … {names[last]}",
                "first": names[start],
                "cells": list(zip(count[i].tolist(), shade[i].tolist(), strict=True)),
            }
        )
    return rows


def _mistakes(folder: Path, best: StoredEvaluation, faults: list[str]) -> list[tuple[tables.MistakeRow, str]]:
    """The most confident mistakes, each with its picture as a data URI where there is one."""
    try:
        thumbnails = tables.read_thumbnails(folder / "mistakes.npz")
    except AlexNetError as error:
        faults.append(f"results/mistakes.npz is not readable: {error}")
        thumbnails = {}
    return [(m, figures.data_uri(thumbnails[m.path]) if m.path in thumbnails else "") for m in best.mistakes]
