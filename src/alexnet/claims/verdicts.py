"""The last verdict of every claim: published ones, which come with the package, and one's own results before them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexnet.claims.facts import facts
from alexnet.claims.groups import experiments_of
from alexnet.claims.ledger import CLAIMS
from alexnet.claims.scales import DATA_FILE, SCALES
from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import read_json
from alexnet.report.tables import number

NOT_TESTED = "not tested"

DOCUMENT = {"experiment", "scale", "command", "arms", "comparisons"}
"""Keys that tell the document of an experiment."""

UNIT_WORDS = {"points": " points", "times": " times", "nats": " nats"}

PUBLISHED = "verdicts.json"
"""Package data: the experiments' documents, without their environments; written by benchmarks/publish_claims.py."""


def documents(out: str | Path | None, faults: list[str] | None = None) -> list[dict[str, Any]]:
    """Experiments that were run: those in ``out``, and the published ones of other experiments or scales. A document that
    cannot be read is named in ``faults`` and left out, or, without that list, raised."""
    own = []
    for file in sorted(Path(out).glob("*/*.json")) if out is not None else []:
        if "-seed" in file.name or file.name == DATA_FILE:  # results, and the data they were made from
            continue
        try:
            document = read_json(file)
            is_document = isinstance(document, dict) and document.keys() >= DOCUMENT
            if is_document and not _is_sound(document):
                raise AlexNetError(
                    f"{printable(file)}: not the document of an experiment, though it looks like one; remove it, or make it "
                    "again with `alexnet claims run`"
                )
        except (AlexNetError, OSError) as error:
            if faults is None:
                raise
            faults.append(printable(error))
            continue
        if is_document:
            own.append(document)
        elif faults is not None:
            faults.append(f"{printable(file)}: not the document of an experiment")
    known = {(document["experiment"], document["scale"]) for document in own}
    published = json.loads(files("alexnet.claims").joinpath(PUBLISHED).read_text(encoding="utf-8"))
    return own + [d for d in published if (d["experiment"], d["scale"]) not in known]


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
    n, optional = row.get("n"), ("low", "high", "printed") if row.get("n") else ("printed",)
    return (
        row["unit"] in UNIT_WORDS
        and type(n) is int
        and n >= 0
        and (n == 0 or math.isfinite(number(row.get("effect"))))
        and all(key in row and (row[key] is None or math.isfinite(number(row[key]))) for key in optional)
        and (n == 0 or (row["low"] is None) == (row["high"] is None))
        and isinstance(row.get("diverged"), dict)
    )


def entries(known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every claim of the ledger: the claim, its facts, its experiments, its comparisons in the documents ``known``
    (the largest scale first), and a word for what was computed, for what was trained, and for both: a fact may be of a side
    of the claim that no training decides."""
    rows = [
        comparison
        | {
            "experiment": document["experiment"],
            "scale": document["scale"],
            "command": document["command"],
            "text": f"{sentence(comparison)} ({document['scale']})",
        }
        for document in known
        for comparison in document["comparisons"]
    ]
    rows.sort(key=lambda row: -_size(row["scale"]))
    computed = [asdict(fact) for fact in facts()]
    found = []
    for claim in CLAIMS:
        of_claim = [row for row in rows if row["claim"] == claim.id]
        of_facts = [fact for fact in computed if fact["claim"] == claim.id]
        found.append(
            {
                "claim": asdict(claim),
                "facts": of_facts,
                "experiments": [
                    {"id": e.id, "title": e.title, "scales": list(e.scales) or [*SCALES, "DIR"]}
                    for e in experiments_of(claim.id)
                ],
                "comparisons": of_claim,
                "computed": overall(of_facts, []),
                "trained": overall([], of_claim),
                "verdict": overall(of_facts, of_claim),
            }
        )
    return found


def overall(of_facts: Iterable[Mapping[str, Any]], comparisons: Iterable[Mapping[str, Any]]) -> str:
    """One word for a claim: all its facts and the comparisons at its largest scale (never ``smoke``) together."""
    rows = [row for row in comparisons if row["scale"] != "smoke"]
    words = [str(fact["verdict"]) for fact in of_facts]
    words += [str(row["verdict"]) for row in rows if row["scale"] == rows[0]["scale"]]
    if not words:
        return NOT_TESTED
    return words[0] if len(set(words)) == 1 else "mixed: " + ", ".join(dict.fromkeys(words))


def words(entry: Mapping[str, Any]) -> str:
    """What was computed and what was trained, apart: ``computed contradicted, trained confirmed``."""
    known = [f"{how} {entry[how]}" for how in ("computed", "trained") if entry[how] != NOT_TESTED]
    return ", ".join(known) or NOT_TESTED


def sentence(row: Mapping[str, Any]) -> str:
    """A comparison and its numbers in words."""
    if not row["n"]:
        return f"{row['says']}: no pair of numbers (diverged: {row['diverged']})"
    unit = UNIT_WORDS[row["unit"]]
    interval = "no interval" if row["low"] is None else f"95 % interval {row['low']:.3g} to {row['high']:.3g}"
    printed = "" if row["printed"] is None else f", printed {row['printed']:g}"
    return f"{row['says']}: {row['effect']:.3g}{unit}, {interval}, {row['n']} seeds{printed}"


def _size(scale: str) -> int:
    order = ["smoke", "fashion-mnist", "cifar10", "imagenette", "imagenet"]
    assert set(order) == set(SCALES)
    return order.index(scale) if scale in order else order.index("imagenette")
