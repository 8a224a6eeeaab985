"""A network in numbers, for people: a table of its stages, or two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from alexnet.core.config import differences, to_json
from alexnet.core.errors import UsageError, perhaps, printable
from alexnet.evaluation.predict import load
from alexnet.models import create_model, list_models
from alexnet.models.summary import summarize


def describe(model: str) -> dict[str, Any]:
    """Name, configuration, stages and totals of a named network, a run directory or a model folder."""
    if model in list_models():
        network = create_model(model)
    elif Path(model).exists():
        network = load(model).model
    else:
        raise UsageError(
            f"{printable(model)}: no such run, model folder or network{perhaps(model, list_models())}; `alexnet info` lists "
            "the networks"
        )
    stages = summarize(network)
    return {
        "name": model,
        "stages": [asdict(stage) for stage in stages],
        "parameters": sum(stage.parameters for stage in stages),
        "multiply_adds": sum(stage.multiply_adds for stage in stages),
        "config": to_json(network.config),
    }


def table(network: dict[str, Any]) -> str:
    """One row for each stage, and the totals."""
    rows = [("stage", "shape", "parameters", "multiply-adds"), *map(_row, network["stages"])]
    rows.append(("total", "", f"{network['parameters']:,}", f"{network['multiply_adds']:,}"))
    return f"{printable(network['name'])}\n" + _align(rows, left=2)


def side_by_side(a: dict[str, Any], b: dict[str, Any]) -> str:
    """The stages of two networks beside each other, and the fields of their configurations that differ."""
    head = ("stage", "shape", "parameters", "multiply-adds")
    empty = ("", "", "", "")
    pairs = zip_longest(map(_row, a["stages"]), map(_row, b["stages"]), fillvalue=empty)
    totals = [("total", "", f"{n['parameters']:,}", f"{n['multiply_adds']:,}") for n in (a, b)]
    rows = [(*head, "|", *head), *((*x, "|", *y) for x, y in pairs), (*totals[0], "|", *totals[1])]
    lines = [f"{printable(a['name'])} | {printable(b['name'])}", _align(rows, left=2), ""]
    for name in differences(a["config"], b["config"]):
        lines.append(f"{name}: {_field(a, name)} | {_field(b, name)}")
    return "\n".join(lines)


def _row(stage: dict[str, Any]) -> tuple[str, str, str, str]:
    shape = " x ".join(map(str, stage["shape"]))
    return stage["name"], shape, f"{stage['parameters']:,}", f"{stage['multiply_adds']:,}"


def _field(network: dict[str, Any], name: str) -> str:
    value = network["config"].get(name, "(none)")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _align(rows: Sequence[tuple[str, ...]], left: int) -> str:
    """Columns as wide as their widest cell; the first ``left`` of each half to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i % 5 < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
