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
from alexnet.claims.ledger import CLAIMS, Claim
from alexnet.claims.measures import UNITS
from alexnet.claims.results import is_result
from alexnet.claims.scales import DATA_FILE, SCALES
from alexnet.claims.verdict import BOUND, DECIDED, RAN, UNFAIR, Verdict
from alexnet.core.errors import AlexNetError, printable
from alexnet.core.runs import read_json
from alexnet.report.tables import number

NOT_TESTED = "not tested"

DOCUMENT = {"experiment", "scale", "command", "arms", "comparisons"}
"""Keys that tell the document of an experiment."""

CHOSEN_ON_TEST_IMAGES = (
    "The recipes of the scales, and the rates that were chosen by their error, were chosen on the same held-out images whose "
    "errors are given here, so these errors are somewhat too low. The rates of figure 1 (C7) were chosen by training error."
)
"""To be said where numbers are shown, until rates are chosen on other images."""

PUBLISHED = "verdicts.json"
"""Package data: the experiments' documents, without their environments; written by benchmarks/collect_claims.py."""
CURVES = "curves.json"
"""Package data: the curves of the published results, thinned, by ``SCALE/FILE``."""


def documents(out: str | Path | None, faults: list[str] | None = None) -> list[dict[str, Any]]:
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


def entries(known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every claim of the ledger: the claim, its facts, its experiments, its comparisons in the documents ``known``
    (the largest scale first), a word for what was computed or read, for what was trained, and for both: a fact may be of a
    side of the claim that no training decides; and, where nothing was tried, why, with the command that would try it."""
    rows = [
        comparison
        | {
            "experiment": document["experiment"],
            "scale": document["scale"],
            "command": document["command"],
            "text": sentence(comparison, document["scale"]),
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
        why, command = ("", "") if _at_largest(of_claim) else _why(claim, of_claim, bool(of_facts))
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
                "decided": _is_decided(of_facts, of_claim),
                "why": why,
                "to_try": command,
            }
        )
    return found


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


def _why(claim: Claim, rows: Sequence[Mapping[str, Any]], has_facts: bool) -> tuple[str, str]:
    """Why no training decides a claim, and the command that would try it, if one would. Nothing for what facts alone decide."""
    if claim.untested:
        return claim.untested, ""
    experiments = experiments_of(claim.id)
    if not experiments:
        return ("", "") if has_facts else ("No experiment of alexnet claims run compares this.", "")
    scales = [name for name in SCALES if any(experiment.fits(name) for experiment in experiments)]
    command = f"alexnet claims run {claim.id} --scale {'cifar10' if 'cifar10' in scales else scales[-1]} --seeds 3"
    if rows:
        return "Tried at the scale smoke only, which shows that the code runs and decides nothing.", command
    names = ", ".join(experiment.id for experiment in experiments)
    return f"Not run yet: the experiment{'s' if len(experiments) > 1 else ''} {names}.", command


def _at_largest(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The comparisons at a claim's largest scale, never ``smoke``."""
    tried = [row for row in rows if row["scale"] != "smoke"]
    return [row for row in tried if row["scale"] == tried[0]["scale"]]


def overall(of_facts: Iterable[Mapping[str, Any]], comparisons: Iterable[Mapping[str, Any]]) -> str:
    """One word for a claim: all its facts and the comparisons at its largest scale (never ``smoke``) together."""
    words = [str(row["verdict"]) for row in (*of_facts, *_at_largest(comparisons))]
    if not words:
        return NOT_TESTED
    return words[0] if len(set(words)) == 1 else "mixed: " + ", ".join(dict.fromkeys(words))


def _is_decided(of_facts: Iterable[Mapping[str, Any]], comparisons: Iterable[Mapping[str, Any]]) -> bool:
    return any(row["verdict"] in DECIDED for row in (*of_facts, *_at_largest(comparisons)))


def words(entry: Mapping[str, Any]) -> str:
    """What was computed and what was trained, apart: ``computed contradicted, trained confirmed``."""
    computed = "read" if entry["facts"] and all(fact["source"] == "read" for fact in entry["facts"]) else "computed"
    known = [
        f"{how} {entry[key]}"
        for how, key in ((computed, "computed"), ("trained", "trained"))
        if entry[key] != NOT_TESTED
    ]
    return ", ".join(known) or NOT_TESTED


def short_word(entry: Mapping[str, Any]) -> str:
    """The verdict in a few letters; of a bound, the bound."""
    word = str(entry["verdict"]).partition(":")[0]
    if word == BOUND:
        (row, *others) = _at_largest(entry["comparisons"])
        return word if others else f"{row['bound']} {amount(row['effect'], row['unit'])}"
    return word


def counts(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many entries there are and how many of them have a verdict, if only on a part; the same for the paper's own claims."""
    paper = [entry for entry in found if entry["claim"]["id"].startswith("C")]
    return {
        "entries": len(found),
        "decided": sum(entry["decided"] for entry in found),
        "paper": len(paper),
        "paper_decided": sum(entry["decided"] for entry in paper),
        "trained": sum(_is_decided([], entry["comparisons"]) for entry in found),
    }


def sentence(row: Mapping[str, Any], scale: str = "") -> str:
    """A comparison and its numbers in words, with the reasons why they decide nothing."""
    where = f" ({scale})" if scale else ""
    why = f". Why: {'; '.join(row['reasons'])}" if row.get("reasons") else ""
    return f"{row['says']}: {_numbers(row)}{where}{why}"


def _numbers(row: Mapping[str, Any]) -> str:
    if row["verdict"] == RAN:
        return "not judged, since the scale smoke only shows that the code runs"
    if not row["n"]:
        return "no seed for which both sides have a number"
    if row.get("holds") is not None:
        return f"so it is in {row['holds']} of {row['n']} runs (by chance alone in one of twenty)"
    runs = f"{row['n']} seed{'s' if row['n'] > 1 else ''}"
    bound = f"{row['bound']} " if row.get("bound") else ""
    interval = (
        "no interval" if row.get("low") is None else f"95 % interval {figure(row['low'])} to {figure(row['high'])}"
    )
    printed = "" if row.get("printed") is None else f", printed {row['printed']:g}"
    return f"{bound}{amount(row['effect'], row['unit'])}, {interval}, {runs}{printed}"


def amount(effect: float, unit: str) -> str:
    """``5.84 points``, ``7.1e4 times``."""
    return f"{figure(effect)} {unit}"


def figure(value: float) -> str:
    """Three digits, of large numbers two: ``7.1e4``."""
    if abs(value) < 1e4:
        return f"{value:.3g}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def _size(scale: str) -> int:
    order = ["smoke", "fashion-mnist", "cifar10", "imagenette", "imagenet"]
    assert set(order) == set(SCALES)
    return order.index(scale) if scale in order else order.index("imagenette")
