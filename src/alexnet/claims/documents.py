"""The documents of experiments: one's own in a folder, and the published ones, which come with the package."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexnet.claims.measures import UNITS
from alexnet.claims.results import is_result
from alexnet.claims.scales import DATA_FILE
from alexnet.claims.verdict import RAN, UNFAIR, Verdict
from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import read_json
from alexnet.report.tables import number

DOCUMENT = {"experiment", "scale", "command", "arms", "comparisons"}
"""Keys that tell the document of an experiment."""
PUBLISHED = "verdicts.json"
"""Package data: the experiments' documents, without their environments; written by benchmarks/collect_claims.py."""
CURVES = "curves.json"
"""Package data: the curves of the published results, thinned, by ``SCALE/FILE``."""


def read_documents(out: str | Path | None, faults: list[str] | None = None) -> list[dict[str, Any]]:
    """Experiments that were run: those in ``out``, and the published ones of other experiments or scales. A document that
    cannot be read is named in ``faults`` and left out, or, without that list, raised."""
    own = []
    for file in sorted(Path(out).glob("*/*.json")) if out is not None else []:
        if is_result(file) or file.name == DATA_FILE:  # results, and the data they were made from
            continue
        try:
            document = read_json(file)
            is_document = isinstance(document, dict) and document.keys() >= DOCUMENT
            if is_document and not _is_sound(document):
                raise AlexNetError(
                    f"{printable(file)} is a damaged result of `alexnet claims run`; remove it, or run the experiment again"
                )
        except (AlexNetError, OSError) as error:
            if faults is None:
                raise
            faults.append(printable(error))
            continue
        if is_document:
            own.append(document)
        elif faults is not None:
            faults.append(f"{printable(file)} is not a result of `alexnet claims run`")
    known = {(document["experiment"], document["scale"]) for document in own}
    published = json.loads(files("alexnet.claims").joinpath(PUBLISHED).read_text(encoding="utf-8"))
    found = own + [d for d in published if (d["experiment"], d["scale"]) not in known]
    return [document | {"comparisons": _as_judged_now(document)} for document in found]


def published_curves() -> dict[str, Any]:
    """The curves that go with the package, by ``SCALE/FILE``: ``drawing.result_of`` reads each."""
    known: dict[str, Any] = json.loads(files("alexnet.claims").joinpath(CURVES).read_text(encoding="utf-8"))
    return known


def _is_sound(document: Mapping[str, Any]) -> bool:
    """Whether an experiment's document has what :func:`entries` and :func:`sentence` read of it."""
    rows = document["comparisons"]
    texts = all(isinstance(document[key], str) for key in ("experiment", "scale", "command"))
    return texts and isinstance(document["arms"], dict) and isinstance(rows, list) and all(map(_is_row, rows))


def _is_row(row: object) -> bool:
    if not isinstance(row, dict) or not all(
        isinstance(row.get(key), str) for key in ("claim", "says", "verdict", "unit")
    ):
        return False
    numbers = ("effect", "low", "high", "printed")
    n, reasons, notes = row.get("n"), row.get("reasons", []), row.get("notes", [])
    return (
        row["unit"] in ("points", *UNITS.values())
        and type(n) is int
        and n >= 0
        and all(row.get(key) is None or math.isfinite(number(row[key])) for key in numbers)
        and (row.get("effect") is not None or row.get("holds") is not None or n == 0 or row["verdict"] == RAN)
        and (row.get("holds") is None or type(row["holds"]) is int)
        and row.get("bound") in (None, "at least", "at most")
        and (row.get("low") is None) == (row.get("high") is None)
        and all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in (reasons, notes))
        and isinstance(row.get("diverged"), dict)
        and all(isinstance(row.get(side, {}), dict) for side in ("lower", "higher"))
    )


def _as_judged_now(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of a document. Those of the scale ``smoke`` have no verdict. Those that an earlier version judged, without
    a look at whether the test was fair, keep their numbers and lose their verdict."""
    again = "an earlier version judged it; its command judges it again, and trains nothing twice"
    found = []
    for row in document["comparisons"]:
        changes: dict[str, Any] = {}
        if document["scale"] == "smoke":
            row = {key: value for key, value in row.items() if key not in ("lower_values", "higher_values")}
            changes = Verdict(verdict=RAN, n=row["n"]).to_json() | {"reasons": []}
        elif "reasons" not in row:
            changes = {"verdict": UNFAIR, "low": None, "high": None, "smallest_effect": None, "reasons": [again]}
        notes = [*row.get("notes", []), *_same_numbers(row, document)]
        found.append({**row, **changes, "notes": notes})
    return found


def _same_numbers(row: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """Comparisons of one experiment whose numbers are all the same are one result: their arms are the same network."""

    def numbers(row: Mapping[str, Any]) -> list[Any]:
        return [row.get("lower_values"), row.get("higher_values")]

    return [
        f"these are the numbers of {other['claim']} ({other['says']}) too: in this small network both arms are the same, so "
        "that one experiment is shown twice"
        for other in document["comparisons"]
        if other is not row and row["n"] > 1 and row.get("lower_values") and numbers(other) == numbers(row)
    ]
