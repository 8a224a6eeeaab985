"""One page that says what a run did: ``RUN/report.html``, from the files of the run and from nothing else.

It is one file without scripts, fonts or pictures from elsewhere; it reads in light and dark, and prints. A run that is
unfinished or damaged gets a page too, which names what is missing.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from alexnet.core.errors import AlexNetError, UsageError, printable
from alexnet.core.runs import read_json, write_atomic
from alexnet.report import figures, tables
from alexnet.report.tables import Log, Result

MATRIX_CLASSES = 32
"""Up to so many classes the confusion matrix is a table with names; above, a picture."""
SHOWN_CLASSES = 20
"""Classes listed before the rest is folded away, where there are more than ``MATRIX_CLASSES``."""
SHOWN_CONFUSIONS = 12


def write_report(run: Path) -> Path:
    """Write ``RUN/report.html`` and return its path. :class:`UsageError` if ``run`` is no folder."""
    if not run.is_dir():
        raise UsageError(f"{printable(run)}: no such run; name the folder given to `alexnet train --out`")
    page = _template().render(_content(run)).encode("utf-8", "replace")
    write_atomic(run / "report.html", lambda file: file.write(page))
    return run / "report.html"


def _content(run: Path) -> dict[str, Any]:
    """What the page shows, by the names the template uses."""
    faults: list[str] = []
    config = _read_object(run / "config.json", faults)
    environment = _read_object(run / "environment.json", faults)
    log = _read_log(run, faults)
    results = _read_results(run / "results", faults)
    best = next(iter(results.values()), None)
    settings = config.get("train") if isinstance(config.get("train"), Mapping) else config
    last = log.epochs[-1] if log.epochs else {}
    finished = any(name.startswith("final") for name in results)
    return {
        "network": _text(settings, "network") or run.name,
        "data": Path(_text(settings, "data") or _text(config, "data", "path") or "").name,
        "recipe": _text(settings, "recipe"),
        "finished": finished,
        "facts": _facts(settings, log, best),
        "best": best,
        "last": last,
        "results": results,
        "faults": faults,
        "notes": log.notes,
        "curves": Markup(figures.training_curves(log)),
        "epochs": log.epochs,
        "dead_filters": _dead_filters(last),
        "kernels": _read_kernels(run / "results", faults),
        "classes": sorted(best.classes, key=lambda row: (-row.top1_error, row.index)) if best else [],
        "shown_classes": SHOWN_CLASSES if best and len(best.classes) > MATRIX_CLASSES else MATRIX_CLASSES,
        "matrix": _matrix(best) if best and len(best.classes) <= MATRIX_CLASSES else [],
        "picture": figures.confusion_picture(best.confusion, len(best.classes)) if best and best.confusion else "",
        "confusions": _confusions(best) if best else [],
        "command": _command(environment.get("command") or config.get("command")),
        "config": tables.flatten(config),
        "environment": tables.flatten(environment),
    }


def _template() -> jinja2.Template:
    engine = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_safe, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= {
        "percent": tables.percent,
        "duration": tables.duration,
        "figure": tables.figure,
        "flatten": tables.flatten,
        "count": tables.count,
    }
    return engine.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))


def _safe(value: object) -> object:
    """Foreign strings without control characters, direction marks and lone surrogates; the template escapes them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read_object(path: Path, faults: list[str]) -> Mapping[str, Any]:
    if not path.exists():
        faults.append(f"{path.name} is missing")
        return {}
    try:
        value = read_json(path)
        if not isinstance(value, dict):
            raise AlexNetError("not a JSON object")
        return value
    except (AlexNetError, OSError) as error:
        faults.append(f"{path.name} is not readable: {error}")
        return {}


def _read_log(run: Path, faults: list[str]) -> Log:
    try:
        log = tables.read_log(run / "log.jsonl")
    except OSError as error:
        faults.append(f"log.jsonl is not readable: {error}")
        log = Log()
    if not log.steps["step"] and not log.epochs:
        log.epochs = tables.read_summary(run / "summary.csv")
        faults.append(
            "log.jsonl has no rows: " + ("the curves are those of summary.csv" if log.epochs else "no curves")
        )
    if log.dropped:
        faults.append(f"log.jsonl: {log.dropped} cut or damaged line{'s' * (log.dropped > 1)} left out")
    return log


def _read_results(folder: Path, faults: list[str]) -> dict[str, Result]:
    """The sound results by file name, the one to headline first: ten views, then the center, then any other."""
    results: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != "kernels.json":
            try:
                results[path.stem] = tables.read_result(path)
            except (AlexNetError, OSError) as error:
                faults.append(f"results/{path.name} is not readable: {error}")
    if not results:
        faults.append("results: there is no final evaluation")
    order = ["final-ten", "final-center"]
    return dict(sorted(results.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _read_kernels(folder: Path, faults: list[str]) -> dict[str, Any] | None:
    path = folder / "conv1.npy"
    if not path.exists():
        return None
    try:
        kernels_KCRS = np.load(path, allow_pickle=False)
        if kernels_KCRS.ndim != 4 or kernels_KCRS.shape[1] not in (1, 3) or kernels_KCRS.dtype.kind != "f":
            raise ValueError(f"{kernels_KCRS.dtype} {kernels_KCRS.shape} is not a set of grey or color kernels")
        about = _read_object(folder / "kernels.json", faults) if (folder / "kernels.json").exists() else {}
        towers = 2 if about.get("towers") == 2 else 1
        picture = figures.kernel_picture(kernels_KCRS, towers)
        return {"picture": picture, "towers": towers, "num": len(kernels_KCRS), "side": kernels_KCRS.shape[2]}
    except (ValueError, OSError, EOFError, MemoryError) as error:
        faults.append(f"results/conv1.npy is not readable: {error}")
        return None


def _text(value: object, *keys: str) -> str:
    """The string, if there is one, that ``keys`` lead to."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _facts(settings: object, log: Log, best: Result | None) -> list[tuple[str, str]]:
    """Label and value of what a reader asks next: how long, how much, how fast."""
    planned = settings.get("epochs") if isinstance(settings, Mapping) else None
    done = tables.number(log.epochs[-1].get("epoch")) if log.epochs else 0
    seconds = tables.number(log.epochs[-1].get("seconds")) if log.epochs else math.nan
    speed, steps = np.array(log.steps["images_per_second"]), np.array(log.steps["step"])
    facts = [
        ("Epochs", f"{done:g} of {planned}" if planned and planned != done else f"{done:g}"),
        ("Steps", f"{np.nanmax(steps):,.0f}" if np.isfinite(steps).any() else ""),
        ("Training time", tables.duration(seconds) if math.isfinite(seconds) else ""),
        ("Speed", f"{np.nanmedian(speed):,.0f} images/s" if np.isfinite(speed).any() else ""),
        ("Classes", f"{len(best.classes):,}" if best and best.classes else ""),
    ]
    return [(label, value) for label, value in facts if value]


def _dead_filters(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Layer and the number of filters that never answer, tower by tower."""
    layers = row.get("dead_filters")
    if not isinstance(layers, Mapping):
        return []
    return [
        (str(layer), " + ".join(map(str, towers)) if isinstance(towers, list) else str(towers))
        for layer, towers in layers.items()
    ]


def _matrix(best: Result) -> list[dict[str, Any]]:
    """The confusion matrix, a row a class: counts, and how strongly each cell is colored."""
    size = len(best.classes)
    count = np.zeros((size, size), dtype=np.int64)
    for label, predicted, num in best.confusion:
        count[label, predicted] += num
    shade = np.sqrt(count / np.maximum(count.sum(axis=1, keepdims=True), 1))
    return [
        {"name": row.name, "cells": list(zip(count[i].tolist(), shade[i].tolist(), strict=True))}
        for i, row in enumerate(best.classes)
    ]


def _confusions(best: Result) -> list[tuple[str, str, int, int]]:
    """(class, what it was taken for, how often, of how many), the most frequent first."""
    wrong = sorted((entry for entry in best.confusion if entry[0] != entry[1]), key=lambda entry: -entry[2])
    classes = best.classes
    return [(classes[i].name, classes[j].name, num, classes[i].n) for i, j, num in wrong[:SHOWN_CONFUSIONS]]


def _command(command: object) -> str:
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return command if isinstance(command, str) else ""
