"""The last verdict of every claim, from what was computed and from experiments' documents, and its words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from alexnet.claims.facts import facts
from alexnet.claims.groups import experiments_of
from alexnet.claims.ledger import CLAIMS, Claim
from alexnet.claims.scales import HISTORY, SCALES
from alexnet.claims.verdict import DECIDED, NO_EFFECT, RAN

NOT_TESTED = "not tested"

CHOSEN_ON_TEST_IMAGES = (
    "The recipes of cifar10 and fashion-mnist, and the rates that were chosen there by their error, were chosen on the same "
    "held-out images whose errors are given, so these errors are somewhat too low. The rates of figure 1 (C7) were chosen there "
    "by training error."
)
"""To be said where numbers of scales that are history are shown."""


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
            "to_decide": to_decide(document) if comparison.get("more_seeds") else "",
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
        if of_claim and not claim.untested and of_claim[0]["scale"] in HISTORY:
            command = _command(claim)  # on which its arms are tuned alike
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


def _why(claim: Claim, rows: Sequence[Mapping[str, Any]], has_facts: bool) -> tuple[str, str]:
    """Why no training decides a claim, and the command that would try it, if one would. Nothing for what facts alone decide."""
    if claim.untested:
        return claim.untested, ""
    experiments = experiments_of(claim.id)
    if not experiments:
        return ("", "") if has_facts else ("No experiment of alexnet claims run compares this.", "")
    command = _command(claim)
    if rows:
        return "Tried at the scale smoke only, which shows that the code runs and decides nothing.", command
    names = ", ".join(experiment.id for experiment in experiments)
    return f"Not run yet: the experiment{'s' if len(experiments) > 1 else ''} {names}.", command


def _command(claim: Claim) -> str:
    """What tries a claim where its arms are tuned alike and a computer without a GPU can train them, if it fits there."""
    scales = [name for name in SCALES if any(experiment.fits(name) for experiment in experiments_of(claim.id))]
    scale = "cifar10-small" if "cifar10-small" in scales else scales[-1]
    return f"alexnet claims run {claim.id} --scale {scale} --seeds 5"


def to_decide(document: Mapping[str, Any]) -> str:
    """The command that takes the inconclusive comparisons of an experiment to their next look; empty if there are none, or if it
    is history."""
    wanted = _next_looks(document["comparisons"])
    if not wanted or document["scale"] in HISTORY:
        return ""
    return str(document["command"]).rpartition(" ")[0] + f" {max(wanted)}"


def looks_to_come(document: Mapping[str, Any]) -> list[int]:
    """Seeds at the next look of each inconclusive comparison that has not yet as many as it has planned."""
    rows = document["comparisons"]
    return _next_looks(row for row in rows if row.get("planned") is None or row["n"] < row["planned"])


def _next_looks(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    return [row["n"] + row["more_seeds"] for row in rows if row.get("more_seeds")]


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
    """What was computed and what was trained, apart: ``computed contradicted, trained confirmed``; with a mark where what was
    trained is only kept as history."""
    computed = "read" if entry["facts"] and all(fact["source"] == "read" for fact in entry["facts"]) else "computed"
    known = [
        f"{how} {entry[key]}"
        for how, key in ((computed, "computed"), ("trained", "trained"))
        if entry[key] != NOT_TESTED
    ]
    return (", ".join(known) or NOT_TESTED) + (" (history)" if is_history(entry) else "")


def short_word(entry: Mapping[str, Any]) -> str:
    """The verdict in one or a few words."""
    return str(entry["verdict"]).partition(":")[0]


def is_history(entry: Mapping[str, Any]) -> bool:
    """Whether what was trained for a claim is of a scale whose results are only kept."""
    rows = _at_largest(entry["comparisons"])
    return bool(rows) and rows[0]["scale"] in HISTORY


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
    """A comparison and its numbers in words, with what was looked for, and with the reasons why they decide nothing."""
    where = f" ({scale})" if scale else ""
    text = f"{row['says']}: {_numbers(row)}{where}"
    parts = [text, *(part for part in (outcome(row), planned(row)) if part)]
    why = [*row.get("reasons", []), *row.get("cut", [])]
    return ". ".join(parts) + (f". Why: {'; '.join(why)}" if why else "")


def _numbers(row: Mapping[str, Any]) -> str:
    if row["verdict"] == RAN:
        return "not judged, since the scale smoke only shows that the code runs"
    if not row["n"]:
        return "there is no seed for which both sides have a number"
    runs = in_seeds(row["n"], row.get("judged"))
    if row.get("holds") is not None:
        together = "" if row.get("p") is None else f" (all runs together: p = {row['p']:.2g})"
        return f"{in_runs(row)}, where chance alone makes it so in one of twenty{together}"
    printed = "" if row.get("printed") is None else f", printed {row['printed']:g}"
    return f"{effect_of(row)}, {interval_of(row)}, {runs}{printed}"


def in_runs(row: Mapping[str, Any]) -> str:
    return f"this is so in {row['holds']} of {row.get('judged') or row['n']} runs"


def effect_of(row: Mapping[str, Any]) -> str:
    """``5.84 points``, ``at least 6.37 times``."""
    if row.get("effect") is None:
        return "more than half of the runs of both sides were cut off"
    bound = f"{row['bound']} " if row.get("bound") else ""
    return f"{bound}{amount(row['effect'], row['unit'])}"


def interval_of(row: Mapping[str, Any]) -> str:
    """``97.5 % interval 0.9 to 1.5``; of times that were cut off the test."""
    if row.get("low") is None:
        return "no interval" + _p(row)
    return f"{level_of(row)} % interval {short_number(row['low'])} to {short_number(row['high'])}"


def level_of(row: Mapping[str, Any]) -> str:
    """How sure the interval is, in percent: ``97.5``, ``99.98``, ``99.995``."""
    left = 100 * row["level"]
    digits = max(0, 1 - math.floor(math.log10(left)))  # two of what is left to chance
    return f"{100 - left:.{digits}f}".rstrip("0").rstrip(".")


def _p(row: Mapping[str, Any]) -> str:
    return "" if row.get("p") is None else f" (p = {row['p']:.2g})"


def outcome(row: Mapping[str, Any]) -> str:
    """What goes with the word: how small the effect is, or what it would take to decide; empty for other words."""
    if row["verdict"] == NO_EFFECT:
        return f"No effect as large as {amount(row['of_interest'], row['unit'])}"
    if row["verdict"] == "inconclusive" and row.get("more_seeds"):
        return f"{row['more_seeds']} more seed{'s' if row['more_seeds'] > 1 else ''} would decide"
    return ""


def planned(row: Mapping[str, Any]) -> str:
    """What was looked for and what that takes: ``Looked for 0.5 points, which 24 seeds find with 80 % power``."""
    if row.get("planned") is None:
        return ""
    what = (
        f"{amount(row['of_interest'], row['unit'])}" if row.get("of_interest") is not None else "it in half of the runs"
    )
    return f"Looked for {what}, which {row['planned']} seeds find with 80 % power"


def spread_of(row: Mapping[str, Any]) -> str:
    """``A run varies by 0.633 points (28 degrees of freedom, all arms together)``; empty where no spread is known."""
    if row.get("spread") is None:
        return ""
    much = (
        f"a factor of {math.exp(row['spread']):.3g}" if row["unit"] == "times" else amount(row["spread"], row["unit"])
    )
    whose = "all arms together" if row["pooled"] else "these two alone"
    return f"A run varies by {much} (standard deviation, {row['df']:g} degrees of freedom, {whose})"


def shared_with(row: Mapping[str, Any]) -> str:
    """``The runs of base are in 29 other comparisons too, those of no-norm in 1``; empty if no runs are shared."""
    shares = row.get("shares") or []
    if not shares:
        return ""
    first, *others = shares
    many = "s" if first["comparisons"] > 1 else ""
    text = f"The runs of {first['arm']} are in {first['comparisons']} other comparison{many} too"
    return text + "".join(f", those of {each['arm']} in {each['comparisons']}" for each in others)


def in_seeds(n: int, judged: int | None = None) -> str:
    """``3 seeds``, ``the first 21 of 24 seeds``."""
    return f"{'' if judged in (None, n) else f'the first {judged} of '}{n} seed{'s' if n > 1 else ''}"


def amount(effect: float, unit: str) -> str:
    """``5.84 points``, ``7.1e4 times``."""
    return f"{short_number(effect)} {unit}"


def short_number(value: float) -> str:
    """Three digits, of large numbers two: ``7.1e4``."""
    if abs(value) < 1e4:
        return f"{value:.3g}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def _size(scale: str) -> int:
    order = ["smoke", "fashion-mnist", "cifar10", "cifar10-small", "imagenette", "imagenet"]
    assert set(order) == set(SCALES)
    return order.index(scale) if scale in order else order.index("imagenette")
