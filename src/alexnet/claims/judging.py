"""From the numbers of comparisons to their verdicts, all of a scale together.

They share their spread, the comparisons of a claim share what it may err by, and many share runs. So a verdict is that of all
documents of a scale that are at hand, and is worked out anew when they are read.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.claims import plan
from alexnet.claims.permutation import LINE, Time, exchange_test, ratio_of_medians
from alexnet.claims.spread import Spread, first_seeds, pooled_spread, spread_for
from alexnet.claims.student import critical, two_sided
from alexnet.claims.verdict import NO_EFFECT, RAN, UNFAIR, Test, Verdict, Word, divisors
from alexnet.core.intervals import by_chance, combined

Row = Mapping[str, Any]
Document = Mapping[str, Any]
SIDES = ("lower", "higher")


def judge(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """The documents with the verdicts of their comparisons, which have numbers (``comparison.evidence_of``)."""
    by_scale: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_scale[document["scale"]].append(document)
    judged = {scale: iter(_judge_scale(of_scale)) for scale, of_scale in by_scale.items()}
    return [{**document, "comparisons": next(judged[document["scale"]])} for document in documents]


@dataclass(frozen=True)
class _Evidence:
    """A comparison in units in which effects add: logarithms of quotients."""

    row: Row
    arms: tuple[str, str]
    """What tells the runs of either side from those of others: two experiments may train the same."""
    runs: Mapping[str, str]
    """The same for all arms, those that are subtracted too, by their names."""
    lower: tuple[float, ...]
    higher: tuple[float, ...]

    @property
    def claim(self) -> str:
        return str(self.row["claim"])

    @property
    def quotient(self) -> bool:
        return bool(self.row["unit"] == "times")

    @property
    def n(self) -> int:
        return len(self.lower)

    @property
    def differences(self) -> list[float]:
        return [b - a for a, b in zip(self.lower, self.higher, strict=True)]

    @property
    def is_cut(self) -> bool:
        return any(any(self.row.get(f"{side}_cut", ())) for side in SIDES)

    @property
    def is_fair(self) -> bool:
        return self.n > 0 and not self.row["reasons"]

    @property
    def interest(self) -> float:
        found = plan.smallest_of_interest(self.row["unit"], self.row["printed"])
        return abs(math.log(found)) if self.quotient else found

    def times(self, side: str, n: int) -> list[Time]:
        values = self.row[f"{side}_values"]
        cut = self.row.get(f"{side}_cut", [False] * len(values))
        return [Time(value, is_cut) for value, is_cut in zip(values[:n], cut[:n], strict=True)]

    def shown(self, value: float) -> float:
        return math.exp(min(value, MOST_FOLD)) if self.quotient else value


MOST_FOLD = 60.0
"""Logarithm of the greatest quotient that is given, some 1e26: two runs far apart make an interval that has no end."""


@dataclass(frozen=True)
class _Plan:
    """The spread that a comparison is judged by, and what it takes to find its effect of interest."""

    family: int
    """Comparisons of the claim that share what it may err by."""
    spread: Spread | None
    planned: int | None
    power: float | None


def _judge_scale(documents: Sequence[Document]) -> list[list[dict[str, Any]]]:
    """The judged comparisons of each document."""
    every = [_evidence(row, document) for document in documents for row in document["comparisons"]]
    spreads = {
        key: (pooled_spread(table), pooled_spread(first_seeds(table, plan.PILOT)))
        for key, table in _tables(every).items()
    }
    num_fair: dict[str, int] = defaultdict(int)
    for one in every:
        num_fair[one.claim] += one.is_fair
    plans = [
        _plan(one, *spreads.get(_pool(one), (None, None)), num_fair[one.claim] + (not one.is_fair)) for one in every
    ]
    verdicts = {i: _unfair(one, plans[i]) for i, one in enumerate(every) if not one.is_fair}
    for claim in num_fair:
        fair = [i for i, one in enumerate(every) if one.claim == claim and one.is_fair]
        tests = [_tests(every[i], plans[i]) for i in fair]
        for i, of_one, (divisor, excluded) in zip(fair, tests, divisors(tests), strict=True):
            verdicts[i] = _verdict(every[i], plans[i], of_one, divisor, excluded)
    rows = iter({**one.row, **verdicts[i].to_json(), "shares": _shares(one, every)} for i, one in enumerate(every))
    return [[next(rows) for _ in document["comparisons"]] for document in documents]


def _evidence(row: Row, document: Document) -> _Evidence:
    values = [row.get(f"{side}_values", []) for side in SIDES]
    if row["unit"] == "times":
        values = [[math.log(value) for value in of_side] for of_side in values]
    names = dict.fromkeys(row[side][key] for side in SIDES for key in ("arm", "less") if key in row[side])
    runs = {name: _runs_of(document["arms"].get(name), f"{document['experiment']}: {name}") for name in names}
    arms = (runs[row["lower"]["arm"]], runs[row["higher"]["arm"]])
    return _Evidence(row, arms, runs, tuple(values[0]), tuple(values[1]))


def _runs_of(about: Any, otherwise: str) -> str:
    """The key that the results of an arm have in common, whatever it is called."""
    names = about.get("results") if isinstance(about, dict) else None
    return (
        str(names[0]).removesuffix(".json").rpartition("-seed")[0].rpartition("-")[2]
        if isinstance(names, list) and names
        else otherwise
    )


def _pool(one: _Evidence) -> tuple[str, ...]:
    """What has one spread: a measure, of networks that are trained by one recipe."""
    return (one.row.get("pool") or "", one.row["lower"]["measure"])


def _tables(every: Sequence[_Evidence]) -> dict[tuple[str, ...], dict[str, dict[int, float]]]:
    """The numbers of all arms that are trained by one recipe and did train, by measure, arm and seed."""
    tables: dict[tuple[str, ...], dict[str, dict[int, float]]] = defaultdict(dict)
    for one in every:
        row = one.row
        if not row.get("pool") or one.is_cut or row["lower"]["measure"] != row["higher"]["measure"]:
            continue
        for side, arm, values in zip(SIDES, one.arms, (one.lower, one.higher), strict=True):
            if row[side]["arm"] not in row["untrained"]:
                tables[_pool(one)].setdefault(arm, {}).update(zip(row["seeds"], values, strict=True))
    return tables


def _plan(one: _Evidence, pooled: Spread | None, pilot: Spread | None, family: int) -> _Plan:
    if one.row.get("each"):
        return _Plan(family, None, plan.planned_runs(family), plan.power_of_runs(one.n, family) if one.n else None)
    if one.is_cut:
        return _Plan(family, None, plan.planned_flips(family), None)
    spread, first = spread_for(one.differences, pooled), spread_for(one.differences[: plan.PILOT], pilot)
    if first is None or not one.n:
        return _Plan(family, spread, None, None)
    known = min(one.n, plan.PILOT)
    planned = plan.planned_seeds(one.interest, first, known, family)
    return _Plan(family, spread, planned, plan.power_of(one.n, one.interest, first, known, family))


def _tests(one: _Evidence, known: _Plan) -> list[Test]:
    """The test of no effect at every look."""
    found = []
    for look in plan.looks(one.n, known.planned):
        if one.row.get("each"):
            found.append(Test(look, _p_of_runs(one, look.n), 1))
        elif one.is_cut:
            p, sign = exchange_test(one.times("lower", look.n), one.times("higher", look.n))
            found.append(Test(look, p, sign))
        else:
            mean, error, df = _mean(one, known, look.n)
            p = two_sided(mean / error, df) if error else float(mean == 0)
            found.append(Test(look, p, 1 if mean > 0 else -1))
    return found


def _mean(one: _Evidence, known: _Plan, n: int) -> tuple[float, float, float]:
    """The mean difference of the first ``n`` pairs, its standard error, and the degrees of freedom of that."""
    assert known.spread is not None
    spread = known.spread if known.spread.pooled else spread_for(one.differences[:n], None) or known.spread
    return sum(one.differences[:n]) / n, spread.of_mean_difference(n), spread.df


def _holds(one: _Evidence, n: int) -> int:
    """Runs of the first ``n`` in which a number is beyond what chance alone would stay below."""
    return sum(d > 0 for d in one.differences[:n])


def _p_of_runs(one: _Evidence, n: int) -> float:
    """That none of the first ``n`` runs shows anything: from the p of each or, where these were not kept, from how many are
    beyond their lines."""
    p_values = one.row.get("p_values", ())[:n]
    return combined(p_values) if p_values and None not in p_values else by_chance(_holds(one, n), n, LINE)


def _verdict(one: _Evidence, known: _Plan, tests: Sequence[Test], divisor: int, excluded: bool) -> Verdict:
    decisive = [test for test in tests if test.p <= test.look.level / divisor]
    test = _narrowest(one, known, decisive if excluded else tests, divisor)
    word: Word = "inconclusive"
    if excluded and test is not None:
        word = "confirmed" if test.favors > 0 else "contradicted"
    elif equivalent := [test for test in tests if _is_within(one, known, test)]:
        word, divisor = NO_EFFECT, known.family
        test = _narrowest(one, known, equivalent, divisor)
    return _of_look(one, known, test, divisor, word)


def _narrowest(one: _Evidence, known: _Plan, tests: Sequence[Test], divisor: int) -> Test | None:
    """The look that says most: by its interval or, without one, by its test."""

    def width(test: Test) -> float:
        interval = _interval(one, known, test, divisor)
        return interval[1] - interval[0] if interval else test.p / test.look.level

    return min(tests, key=width, default=None)


def _interval(one: _Evidence, known: _Plan, test: Test, divisor: int) -> tuple[float, float] | None:
    if one.row.get("each") or one.is_cut:
        return None
    mean, error, df = _mean(one, known, test.look.n)
    half = critical(test.look.level / divisor, df) * error
    return mean - half, mean + half


def _is_within(one: _Evidence, known: _Plan, test: Test) -> bool:
    """Whether the interval lies within the smallest effect of interest, the level being divided by the size of the family:
    what Holm's procedure frees is for differences."""
    interval = _interval(one, known, test, known.family)
    return interval is not None and -one.interest < interval[0] and interval[1] < one.interest


def _of_look(one: _Evidence, known: _Plan, test: Test | None, divisor: int, word: Word) -> Verdict:
    judged = test.look.n if test else one.n
    interval = _interval(one, known, test, divisor) if test else None
    low, high = map(one.shown, interval) if interval else (None, None)
    more = None
    if word == "inconclusive":
        mean = sum(one.differences) / one.n
        if one.is_cut or one.row.get("each"):
            more = plan.next_look(one.n, known.planned) if known.planned else None
        else:
            more = plan.more_seeds(one.n, known.planned, mean, one.interest, known.spread, known.family)
    return Verdict(
        verdict=word,
        judged=judged,
        low=low,
        high=high,
        level=test.look.level / divisor if test else None,
        p=test.p if test else None,
        more_seeds=more,
        **_numbers(one, judged, known),
    )


def _unfair(one: _Evidence, known: _Plan) -> Verdict:
    """The effect as it came out, which decides nothing, and what it would take to find the one of interest."""
    return Verdict(verdict=UNFAIR, judged=None, **_numbers(one, one.n, known))


def _numbers(one: _Evidence, n: int, known: _Plan) -> dict[str, Any]:
    """Effect, plan and spread of a comparison, judged or not."""
    effect, bound, holds = None, None, None
    if one.row.get("each") and one.is_fair:
        holds = _holds(one, n)
    elif one.is_cut and n:
        effect, bound = ratio_of_medians(one.times("lower", n), one.times("higher", n))
    elif n:
        effect = one.shown(sum(one.differences[:n]) / n)
    return {
        "n": one.n,
        "effect": effect,
        "bound": bound,
        "holds": holds,
        "of_interest": None if one.row.get("each") else one.shown(one.interest),
        "planned": known.planned,
        "power": known.power,
        "spread": known.spread.sd if known.spread else None,
        "df": known.spread.df if known.spread else None,
        "pooled": known.spread.pooled if known.spread else None,
    }


def _shares(one: _Evidence, every: Sequence[_Evidence]) -> list[dict[str, Any]]:
    """For each arm whose runs other comparisons use too: how many of them, and of which claims."""
    found = []
    for name, runs in one.runs.items():
        others = [other for other in every if other is not one and runs in other.runs.values()]
        if others:
            claims = dict.fromkeys(other.claim for other in others)
            found.append({"arm": name, "comparisons": len(others), "claims": list(claims)})
    return found


def without_verdict(row: Row) -> dict[str, Any]:
    """A comparison at the scale ``smoke``, where nothing is judged."""
    kept = {key: value for key, value in row.items() if key not in ("lower_values", "higher_values", "cut")}
    return kept | Verdict(verdict=RAN, n=row["n"]).to_json() | {"reasons": [], "shares": []}
