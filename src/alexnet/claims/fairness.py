"""What keeps a comparison from being a fair test, found in its arms and results and said in plain words.

Nothing here looks at which side is ahead: a comparison is fair or not whatever comes out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from alexnet.claims.experiment import Arm, Comparison, Experiment
from alexnet.claims.measures import HELD_OUT, blindness, cut_off, share_at_chance
from alexnet.claims.results import Result

MOST_AT_CHANCE = 1 / 3
"""Greatest share of a run's passes spent at the error of guessing. A run that begins to learn later has not been trained:
its error says how late it began."""


def objections(comparison: Comparison, arms: Mapping[str, Arm], results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Why this comparison decides nothing yet, a clause each; empty if it is fair. Runs that were cut off are not among them:
    these give a bound."""
    sides = (comparison.lower, comparison.higher)
    names = list(dict.fromkeys(name for side in sides for name in side.arms))
    found = [text for pair in combinations(names, 2) for text in _tuning(*(arms[name] for name in pair))]
    for name in names:
        found += _diverged(name, results[name]) + untrained(name, results[name])
    for side in sides:
        of_side = [result for name in side.arms for result in results[name]]
        blind = {blindness(side.measure, result) for result in of_side if "diverged" not in result}
        if blind and "" not in blind:
            found += sorted(blind)
    return list(dict.fromkeys(found))


def cut_offs(measure: str, name: str, results: Sequence[Result]) -> str:
    """How many runs of an arm ended before they got to what is measured, in words; empty if all got there."""
    cut = [result for result in results if "diverged" not in result and cut_off(measure, result)]
    if not cut:
        return ""
    passes = max(round(result["epochs"][-1]["epoch"]) for result in cut)
    return f"{_runs(cut, results, name)} had not got there when they ended, after {passes} epochs"


def choices_on_held_out(experiment: Experiment, names: Sequence[str], arms: Mapping[str, Arm]) -> list[str]:
    """A sentence for each arm whose setting was chosen by the images that are counted."""
    if experiment.tuned_by not in HELD_OUT:
        return []
    return [
        f"{_field(arm)} of {name} was chosen by the error on the same held-out images that are counted here"
        for name in dict.fromkeys(names)
        if (arm := arms[name]).tuned
    ]


def _tuning(first: Arm, second: Arm) -> list[str]:
    """Whether the settings of two arms were chosen alike."""
    alike = (first.changes, first.tuned) == (second.changes, second.tuned)
    if alike and all(arm.same_training or arm.result is None for arm in (first, second)):
        return []
    if first.rate_of and first.rate_of == second.rate_of:
        return []  # the claim is about this rate
    if all(arm.search or arm.chooses_itself for arm in (first, second)):
        return []
    chosen = [arm for arm in (first, second) if arm.tuned or arm.chooses_itself]
    if len(chosen) == 2:
        tuned = [arm.tuned for arm in chosen if arm.tuned]
        if len(tuned) < 2 or (tuned[0][0], len(tuned[0][1])) == (tuned[1][0], len(tuned[1][1])):
            return []
        return [
            f"for {first.name} {_choice(first)}, but for {second.name} {_choice(second)}: they were not chosen alike"
        ]
    if chosen:
        (other,) = (arm for arm in (first, second) if arm not in chosen)
        return [
            f"for {chosen[0].name} {_choice(chosen[0])}, for {other.name} nothing was: another rate may suit it better"
        ]
    changed = [arm for arm in (first, second) if arm.changes]
    if len(changed) == 1:
        return [
            f"rate and initial weights were chosen for the unchanged recipe, not for {changed[0].name}: others may suit it "
            "better"
        ]
    return [f"no rate was chosen for either {first.name} or {second.name}: others may suit them better"]


def _choice(arm: Arm) -> str:
    if arm.tuned is None:
        return "settings were chosen on training images"
    return f"{_field(arm)} was chosen out of {len(arm.tuned[1])}"


def _field(arm: Arm) -> str:
    assert arm.tuned is not None
    name = arm.tuned[0]
    return {"optimizer.lr": "the rate", "optimizer.weight_decay": "the weight decay"}.get(name, name)


def _diverged(name: str, results: Sequence[Result]) -> list[str]:
    """Seeds that are left out because one arm failed in them are not left out at random."""
    lost = [result for result in results if "diverged" in result]
    return [f"{_runs(lost, results, name)} diverged, so no pair includes them"] if lost else []


def untrained(name: str, results: Sequence[Result]) -> list[str]:
    """How many runs of an arm learned nothing, or late, in words; empty if all did."""
    shares = [share_at_chance(result) for result in results if "diverged" not in result]
    late = [share for share in shares if share > MOST_AT_CHANCE]
    if not late:
        return []
    if max(late) == 1:
        return [f"{_runs([share for share in late if share == 1], results, name)} ended hardly better than guessing"]
    least, most = (f"{100 * share:.0f}" for share in (min(late), max(late)))
    span = f"{most} %" if least == most else f"{least} to {most} %"
    return [f"{name} failed to train: {_runs(late, results)} spent {span} of their passes at chance level"]


def _runs(some: Sequence[object], results: Sequence[Result], name: str = "") -> str:
    """``2 of 3 runs of tanh``."""
    return f"{len(some)} of {len(results)} runs" + (f" of {name}" if name else "")
