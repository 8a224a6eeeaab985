"""A network in numbers, for people: a table of its stages, or two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from torch import nn

from alexnet.core.config import differences, to_json
from alexnet.core.errors import UsageError, perhaps, printable
from alexnet.evaluation.predict import load
from alexnet.models import build_model, list_models, model_config
from alexnet.models.hub import is_on_hub
from alexnet.models.summary import summarize


def describe(model: str) -> dict[str, Any]:
    """Name, configuration, stages and totals of a named network, a run directory, a model folder or a repository of the hub."""
    if model in list_models():
        network: nn.Module = build_model(model_config(model), name=model, seed=None)  # shapes only: no weight is drawn
    elif Path(model).exists() or is_on_hub(model):
        network = load(model).model
    else:
        raise UsageError(
            f"{printable(model)}: no such run, model folder or network{perhaps(model, list_models())}; `alexnet info` lists "
            "the networks"
        )
    stages = summarize(network)
    return {
        "name": model,
        "stages": [{**asdict(stage), "neurons": stage.neurons} for stage in stages],
        "neurons": sum(stage.neurons for stage in stages),
        "parameters": sum(stage.parameters for stage in stages),
        "multiply_adds": sum(stage.multiply_adds for stage in stages),
        "config": to_json(network.config),
    }


def table(network: dict[str, Any]) -> str:
    """One row for each stage, and the totals."""
    head = ("stage", "output", "neurons", "kernel stride pad groups", "parameters", "mult-adds")
    totals = ("total", "", f"{network['neurons']:,}", "", *_costs(network))
    lines = [printable(network["name"]), _align([head, *map(_row, network["stages"]), totals])]
    if hanging := [stage for stage in network["stages"] if stage["overhang"]]:
        pixels = "1 pixel" if hanging[0]["overhang"] == 1 else f"{hanging[0]['overhang']} pixels"
        lines.append(f"pad {_padding(hanging[0])}: the last windows hang {pixels} over the right and bottom edges")
    return "\n".join(lines)


def side_by_side(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Two networks beside each other. Stages of one name stand on one line: ``=`` where they are equal, ``!`` with each
    property that differs, ``<`` and ``>`` where only one network has the stage; then the settings that differ."""
    stages_a, stages_b = ({stage["name"]: stage for stage in network["stages"]} for network in (a, b))
    rows: list[tuple[str, ...]] = [("", "stage", "", printable(a["name"]), printable(b["name"]))]
    for name in _merged(list(stages_a), list(stages_b)):
        one, other = stages_a.get(name), stages_b.get(name)
        if one is None or other is None:
            rows.append(
                (">" if one is None else "<", name, "output", *("-" if x is None else _shape(x) for x in (one, other)))
            )
            continue
        properties = [
            (word, *values) for word, show in _PROPERTIES if (values := (show(one), show(other)))[0] != values[1]
        ]
        for i, row in enumerate(properties):
            rows.append(("!" if i == 0 else "", name if i == 0 else "", *row))
        if not properties:
            rows.append(("=", name, "output", _shape(one), _shape(other)))
    for word in ("neurons", "parameters", "multiply_adds"):
        mark = "=" if a[word] == b[word] else "!"
        rows.append((mark, "total", word.replace("_", "-"), f"{a[word]:,}", f"{b[word]:,}"))
    lines = [_align(rows, left=5), "", f"settings that differ ({printable(a['name'])} | {printable(b['name'])}):"]
    for name in differences(a["config"], b["config"]):
        lines.append(f"{name}: {_field(a, name)} | {_field(b, name)}")
    return "\n".join(lines)


def _merged(a: list[str], b: list[str]) -> list[str]:
    """The names of both lists once each, in an order that fits both."""
    names: list[str] = []
    for tag, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        names += a[i:j] if tag == "equal" else [*a[i:j], *b[k:m]]
    return list(dict.fromkeys(names))


def _shape(stage: dict[str, Any]) -> str:
    return "x".join(map(str, stage["shape"]))


def _padding(stage: dict[str, Any]) -> str:
    if stage["padding"] is None:
        return ""
    return f"{stage['padding']}+{stage['overhang']}" if stage["overhang"] else str(stage["padding"])


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _kernel(stage: dict[str, Any]) -> str:
    return "" if stage["kernel"] is None else f"{stage['kernel']}x{stage['kernel']}"


def _costs(of: dict[str, Any]) -> tuple[str, str]:
    return f"{of['parameters']:,}", f"{of['multiply_adds']:,}"


_PROPERTIES: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("output", _shape),
    ("kernel", _kernel),
    ("stride", lambda stage: _number(stage["stride"])),
    ("padding", _padding),
    ("groups", lambda stage: _number(stage["groups"])),
    ("parameters", lambda stage: _number(stage["parameters"])),
    ("multiply-adds", lambda stage: _number(stage["multiply_adds"])),
)
"""The properties by which two stages are compared, and how each is written."""


def _row(stage: dict[str, Any]) -> tuple[str, ...]:
    stride, groups = _number(stage["stride"]), _number(stage["groups"])
    window = f"{_kernel(stage):>6} {stride:>6} {_padding(stage):>3} {groups:>6}"
    return stage["name"], _shape(stage), _number(stage["neurons"] or None), window, *_costs(stage)


def _field(network: dict[str, Any], name: str) -> str:
    value = network["config"].get(name, "(none)")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _align(rows: Sequence[tuple[str, ...]], left: int = 2) -> str:
    """Columns as wide as their widest cell; the first ``left`` of them to the left, the others to the right. Two spaces lie
    between them, or one where 80 columns would not do."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= 80 else " "
    return "\n".join(
        gap.join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
