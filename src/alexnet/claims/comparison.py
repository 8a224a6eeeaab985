"""From the results of two arms to the row of a comparison: its numbers, and its verdict or the reasons why it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alexnet.claims.experiment import Arm, Comparison, Experiment, Side, arms_of
from alexnet.claims.fairness import choices_on_held_out, cut_offs, objections
from alexnet.claims.measures import MEASURES, unit_of
from alexnet.claims.results import Result
from alexnet.claims.scales import Scale
from alexnet.claims.verdict import BOUND, RAN, UNFAIR, Verdict, judge, judge_each, without_verdict


def value_of(side: Side, result: Result) -> float | None:
    """The measure of a result; None if the training diverged."""
    return None if "diverged" in result else MEASURES[side.measure](result)


def compare_all(experiment: Experiment, scale: Scale, results: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """What an experiment's document says of each comparison."""
    arms = {name: arm for name, (arm, _) in arms_of(experiment, scale).items()}
    found = []
    for comparison in experiment.compared_at(scale):
        names = (comparison.lower.arm, comparison.higher.arm)
        row = compare(comparison, arms, results, smoke=scale.name == "smoke")
        found.append(row | {"notes": choices_on_held_out(experiment, names, arms)})
    return found


def compare(
    comparison: Comparison,
    arms: Mapping[str, Arm],
    results: Mapping[str, Sequence[Result]],
    *,
    smoke: bool = False,
) -> dict[str, Any]:
    """The verdict over the seeds for which both sides have a number, or the reasons why there is none."""
    sides = (comparison.lower, comparison.higher)
    unit = unit_of(comparison.lower.measure)
    pairs = zip(*([value_of(side, r) for r in results[side.arm]] for side in sides), strict=True)
    values = [(a, b) for a, b in pairs if a is not None and b is not None]
    diverged = {side.arm: count for side in sides if (count := sum("diverged" in r for r in results[side.arm]))}
    document = {
        "claim": comparison.claim,
        "says": comparison.says,
        "lower": vars(comparison.lower),
        "higher": vars(comparison.higher),
        "unit": unit,
        "printed": comparison.printed,
        "diverged": diverged,
    }
    if smoke:
        return document | Verdict(verdict=RAN, n=len(values)).to_json() | {"reasons": []}
    reasons = objections(comparison, arms, results)
    if not values:
        return document | Verdict(verdict=UNFAIR, n=0).to_json() | {"reasons": reasons}
    factor = 100.0 if unit == "points" else 1.0
    lower, higher = ([factor * pair[i] for pair in values] for i in (0, 1))
    quotient = unit == "times"
    cut = [cut_offs(side.measure, side.arm, results[side.arm]) for side in sides]
    if comparison.each and not reasons:
        verdict = judge_each(lower, higher)
    elif any(cut):
        word = UNFAIR if reasons or all(cut) else BOUND
        bound: Literal["at least", "at most"] | None = None if all(cut) else "at most" if cut[0] else "at least"
        verdict = without_verdict(lower, higher, word, quotient=quotient, bound=bound)
    elif reasons:
        verdict = without_verdict(lower, higher, UNFAIR, quotient=quotient)
    else:
        verdict = judge(lower, higher, quotient=quotient)
    reasons += filter(None, cut)
    return document | {"lower_values": lower, "higher_values": higher, **verdict.to_json(), "reasons": reasons}
