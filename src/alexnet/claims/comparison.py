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
        names = tuple(dict.fromkeys((*comparison.lower.arms, *comparison.higher.arms)))
        plain = all(arms[name].result is None for name in names) and len(names) == 2
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


def _numbers(side: Side, results: Mapping[str, Sequence[Result]]) -> list[float | None]:
    """The number of each seed; None where a training diverged."""
    found: list[float | None] = []
    for of_seed in zip(*(results[arm] for arm in side.arms), strict=True):
        values = [value_of(side, result) for result in of_seed]
        known = [value for value in values if value is not None]
        found.append(known[0] - sum(known[1:]) if len(known) == len(values) else None)
    return found


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
    names = tuple(dict.fromkeys((*comparison.lower.arms, *comparison.higher.arms)))
    numbers = zip(*(_numbers(side, results) for side in sides), strict=True)
    found = [(i, pair) for i, pair in enumerate(numbers) if None not in pair]
    row: dict[str, Any] = {
        "claim": comparison.claim,
        "says": comparison.says,
        "lower": comparison.lower.to_json(),
        "higher": comparison.higher.to_json(),
        "unit": unit,
        "printed": comparison.printed,
        "each": comparison.each,
        "pool": pool,
        "diverged": {name: num for name in names if (num := sum("diverged" in r for r in results[name]))},
        "untrained": [name for name in names if untrained(name, results[name])],
        "n": len(found),
        "seeds": [int(results[comparison.lower.arm][i].get("seed", i)) for i, _ in found],
        "reasons": objections(comparison, arms, results),
        "cut": [text for side in sides for arm in side.arms if (text := cut_offs(side.measure, arm, results[arm]))],
    }
    if comparison.each:
        higher = comparison.higher
        row["p_values"] = [own_p(higher.measure, results[higher.arm][i]) for i, _ in found]
    for place, (name, side) in enumerate(zip(("lower", "higher"), sides, strict=True)):
        row[f"{name}_values"] = [factor * pair[place] for _, pair in found]
        row[f"{name}_cut"] = [any(cut_off(side.measure, results[arm][i]) for arm in side.arms) for i, _ in found]
    return row
