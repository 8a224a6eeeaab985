"""The last verdict of every claim: published ones, which come with the package, and one's own results before them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexnet.claims.facts import facts
from alexnet.claims.groups import experiments_of
from alexnet.claims.ledger import CLAIMS
from alexnet.claims.scales import SCALES
from alexnet.core.runs import read_json

PUBLISHED = "verdicts.json"
"""Package data: the experiments' documents, without their environments; written by benchmarks/publish_claims.py."""


def documents(out: str | Path) -> list[dict[str, Any]]:
    """Experiments that were run: those in ``out``, and the published ones of other experiments or scales."""
    own = [read_json(file) for file in sorted(Path(out).glob("*/*.json")) if "-seed" not in file.name]
    own = [document for document in own if "experiment" in document]
    known = {(document["experiment"], document["scale"]) for document in own}
    published = json.loads(files("alexnet.claims").joinpath(PUBLISHED).read_text(encoding="utf-8"))
    return own + [d for d in published if (d["experiment"], d["scale"]) not in known]


def entries(out: str | Path) -> list[dict[str, Any]]:
    """For every claim of the ledger: the claim, its facts, its comparisons (the largest scale first), and one word."""
    rows = [
        comparison
        | {
            "experiment": document["experiment"],
            "scale": document["scale"],
            "command": document["command"],
            "text": f"{sentence(comparison)} ({document['scale']})",
        }
        for document in documents(out)
        for comparison in document["comparisons"]
    ]
    rows.sort(key=lambda row: -_size(row["scale"]))
    known = [asdict(fact) for fact in facts()]
    found = []
    for claim in CLAIMS:
        of_claim = [row for row in rows if row["claim"] == claim.id]
        of_facts = [fact for fact in known if fact["claim"] == claim.id]
        found.append(
            {
                "claim": asdict(claim),
                "facts": of_facts,
                "experiments": [
                    {"id": e.id, "title": e.title, "scales": list(e.scales) or [*SCALES, "DIR"]}
                    for e in experiments_of(claim.id)
                ],
                "comparisons": of_claim,
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
        return "not tested"
    return words[0] if len(set(words)) == 1 else "mixed: " + ", ".join(dict.fromkeys(words))


def sentence(row: Mapping[str, Any]) -> str:
    """A comparison and its numbers in words."""
    if not row["n"]:
        return f"{row['says']}: no pair of numbers (diverged: {row['diverged']})"
    unit = {"points": " points", "times": " times", "nats": " nats"}[row["unit"]]
    interval = "no interval" if row["low"] is None else f"95 % interval {row['low']:.3g} to {row['high']:.3g}"
    printed = "" if row["printed"] is None else f", printed {row['printed']:g}"
    return f"{row['says']}: {row['effect']:.3g}{unit}, {interval}, {row['n']} seeds{printed}"


def _size(scale: str) -> int:
    order = ["smoke", "fashion-mnist", "cifar10", "imagenette", "imagenet"]
    assert set(order) == set(SCALES)
    return order.index(scale) if scale in order else order.index("imagenette")
