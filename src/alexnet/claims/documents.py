"""The documents of experiments: one's own in a folder, and the published ones, which come with the package."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexnet.claims.judging import SIDES, judge, without_verdict
from alexnet.claims.measures import UNITS
from alexnet.claims.results import is_result
from alexnet.claims.scales import DATA_FILE
from alexnet.claims.verdict import RAN, UNFAIR
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
    rows = iter(judge([document | {"comparisons": _to_judge(document)} for document in found]))
    return [document | {"comparisons": _as_judged_now(document, next(rows)["comparisons"])} for document in found]


def _to_judge(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons that have what a verdict needs: those of ``smoke`` have not, nor those of an earlier version."""
    return [row for row in document["comparisons"] if document["scale"] != "smoke" and _has_evidence(row)]


def judged_with_all(experiment: str, scale: str, out: str | Path) -> dict[str, Any]:
    """The document of an experiment that was just run, with the verdicts that it has beside all others."""
    known = read_documents(out, [])  # what is damaged is named by `claims list` and `claims report`
    return next(document for document in known if (document["experiment"], document["scale"]) == (experiment, scale))


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
        and (_has_evidence(row) or row.get("effect") is not None or n == 0 or row["verdict"] == RAN)
        and (row.get("holds") is None or type(row["holds"]) is int)
        and row.get("bound") in (None, "at least", "at most")
        and (row.get("low") is None) == (row.get("high") is None)
        and all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in (reasons, notes))
        and isinstance(row.get("diverged"), dict)
        and all(isinstance(row.get(side, {}), dict) for side in SIDES)
        and (not _has_evidence(row) or _is_evidence(row, n))
    )


def _is_evidence(row: Mapping[str, Any], n: int) -> bool:
    """Whether a comparison has the numbers that a verdict is worked out from, and they are numbers."""

    def are(values: object, sound: Callable[[Any], bool]) -> bool:
        return isinstance(values, list) and len(values) == n and all(map(sound, values))

    def is_value(value: object) -> bool:
        return math.isfinite(number(value)) and (number(value) > 0 or row["unit"] != "times")

    def is_text(value: object) -> bool:
        return isinstance(value, str)

    return (
        are(row.get("seeds"), lambda seed: type(seed) is int)
        and all(are(row.get(f"{side}_values"), is_value) for side in SIDES)
        and all(are(row.get(f"{side}_cut"), lambda cut: type(cut) is bool) for side in SIDES)
        and all(is_text(row.get(side, {}).get(key)) for side in SIDES for key in ("arm", "measure"))
        and all(
            isinstance(row.get(key), list) and all(map(is_text, row[key])) for key in ("cut", "reasons", "untrained")
        )
        and is_text(row.get("pool"))
        and "printed" in row
        and type(row.get("each")) is bool
        and are(row.get("p_values", [None] * n), lambda p: p is None or 0 < number(p) <= 1)
    )


def _has_evidence(row: Mapping[str, Any]) -> bool:
    return "cut" in row


def _as_judged_now(document: Mapping[str, Any], judged: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons of a document with their verdicts of today. Those that an earlier version judged, by other rules, keep
    their numbers and lose their verdict."""
    again = "an earlier version judged it; its command judges it again, and trains nothing twice"
    words = iter(judged)
    found = []
    for i, row in enumerate(document["comparisons"]):
        if document["scale"] == "smoke":
            row = without_verdict(row)
        elif _has_evidence(row):
            row = next(words)
        else:
            row = {**row, "verdict": UNFAIR, "low": None, "high": None, "reasons": [*row.get("reasons", []), again]}
        others = [other for j, other in enumerate(document["comparisons"]) if j != i]
        found.append({**row, "notes": [*row.get("notes", []), *_same_numbers(row, others)]})
    return found


def _same_numbers(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Comparisons of one experiment whose numbers are all the same are one result: their arms are the same network."""

    def numbers(row: Mapping[str, Any]) -> list[Any]:
        return [row.get("lower_values"), row.get("higher_values")]

    return [
        f"these are the numbers of {other['claim']} ({other['says']}) too: in this small network both arms are the same, so "
        "that one experiment is shown twice"
        for other in others
        if row["n"] > 1 and row.get("lower_values") and numbers(other) == numbers(row)
    ]
