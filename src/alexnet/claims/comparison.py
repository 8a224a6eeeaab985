"""From the results of two arms to the row of a comparison: its numbers, and the reasons why they decide nothing, if there are
any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, arms_of
from alexnet.claims.fairness import choices_on_held_out, cut_offs, objections, untrained
from alexnet.claims.judging import judge, without_verdict
from alexnet.claims.measures import MEASURES, cut_off, own_p, unit_of
from alexnet.claims.results import Result, name_of
from alexnet.claims.scales import Scale


def value_of(side: Side, result: Result) -> float | None:
    """The measure of a result; None if the training diverged."""
    return None if "diverged" in result else MEASURES[side.measure](result)


def compare_all(experiment: Experiment, scale: Scale, results: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """What an experiment's document says of each comparison, judged as if nothing else had been run at this scale."""
    arms = {name: arm for name, (arm, _) in arms_of(experiment, scale).items()}
    rows = []
    for comparison in experiment.compared_at(scale):
        names = (comparison.lower.arm, comparison.higher.arm)
        plain = all(arms[name].result is None for name in names) and len(set(names)) == 2
        row = evidence_of(comparison, arms, results, pool=experiment.recipe if plain else "")
        rows.append(row | {"notes": choices_on_held_out(experiment, names, arms)})
    if scale.name == "smoke":
        return [without_verdict(row) for row in rows]
    document = {
        "experiment": experiment.id,
        "scale": scale.name,
        "arms": {name: {"results": [name_of(result) for result in of_arm]} for name, of_arm in results.items()},
        "comparisons": rows,
    }
    judged: list[dict[str, Any]] = judge([document])[0]["comparisons"]
    return judged


def evidence_of(
    comparison: Comparison,
    arms: Mapping[str, Arm],
    results: Mapping[str, Sequence[Result]],
    *,
    pool: str = "",
) -> dict[str, Any]:
    """The numbers of both sides for the seeds for which both have one, and what speaks against judging by them. ``pool`` names
    the recipe whose arms have one spread; empty: these two are judged by their own differences."""
    sides = (comparison.lower, comparison.higher)
    unit = unit_of(comparison.lower.measure)
    factor = 100.0 if unit == "points" else 1.0
    pairs = enumerate(zip(*(results[side.arm] for side in sides), strict=True))
    found = [
        (int(pair[0].get("seed", i)), pair, (first, second))
        for i, pair in pairs
        if (first := value_of(sides[0], pair[0])) is not None and (second := value_of(sides[1], pair[1])) is not None
    ]
    row: dict[str, Any] = {
        "claim": comparison.claim,
        "says": comparison.says,
        "lower": vars(comparison.lower),
        "higher": vars(comparison.higher),
        "unit": unit,
        "printed": comparison.printed,
        "each": comparison.each,
        "pool": pool,
        "diverged": {s.arm: num for s in sides if (num := sum("diverged" in r for r in results[s.arm]))},
        "untrained": [side.arm for side in sides if untrained(side.arm, results[side.arm])],
        "n": len(found),
        "seeds": [seed for seed, _, _ in found],
        "reasons": objections(comparison, arms, results),
        "cut": [text for side in sides if (text := cut_offs(side.measure, side.arm, results[side.arm]))],
    }
    if comparison.each:
        row["p_values"] = [own_p(comparison.higher.measure, pair[1]) for _, pair, _ in found]
    for i, (name, side) in enumerate(zip(("lower", "higher"), sides, strict=True)):
        row[f"{name}_values"] = [factor * values[i] for _, _, values in found]
        row[f"{name}_cut"] = [cut_off(side.measure, pair[i]) for _, pair, _ in found]
    return row
