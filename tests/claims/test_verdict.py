"""Verdicts of all comparisons of a scale together: one spread, Holm over a claim, four words, looks that spend what they may."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from alexnet.claims.judging import judge
from alexnet.claims.plan import AT_OTHERS, AT_PLAN, AT_TWICE, Look
from alexnet.claims.verdict import Test as Looked
from alexnet.claims.verdict import divisors


def row(first: list[float], second: list[float], **fields: Any) -> dict[str, Any]:
    """Evidence as ``comparison.evidence_of`` makes it."""
    n = len(first)
    return {
        "claim": "C10",
        "says": "s",
        "unit": "points",
        "printed": None,
        "each": False,
        "pool": "network",
        "lower": {"arm": "base", "measure": "center_error"},
        "higher": {"arm": "other", "measure": "center_error"},
        "diverged": {},
        "untrained": [],
        "n": n,
        "seeds": list(range(n)),
        "reasons": [],
        "cut": [],
        "lower_values": first,
        "higher_values": second,
        "lower_cut": [False] * n,
        "higher_cut": [False] * n,
    } | fields


def document(*rows: dict[str, Any], experiment: str = "lrn", scale: str = "imagenette") -> dict[str, Any]:
    """Each arm has runs of its own; those of ``base`` are the same in every document."""
    names = {row[side]["arm"] for row in rows for side in ("lower", "higher")}
    arms = {
        name: {"results": [f"{name}-{'00ff' if name == 'base' else experiment + name}-seed0.json"]} for name in names
    }
    return {"experiment": experiment, "scale": scale, "arms": arms, "comparisons": list(rows)}


def judged(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return judge([document(*rows)])[0]["comparisons"]


def noise(n: int, sd: float = 0.1) -> list[float]:
    """As many numbers of mean 0 and this standard deviation."""
    value = np.random.default_rng(n).normal(0, 1, n)
    value -= value.mean()
    return (sd * value / value.std(ddof=1)).tolist()


def pair(effect: float, n: int = 5, sd: float = 0.1, **fields: Any) -> dict[str, Any]:
    """A comparison whose differences have this mean and standard deviation."""
    return row([10.0] * n, [10 + effect + x for x in noise(n, sd)], **fields)


def test_two_arms_alone_have_the_interval_of_the_paired_t_test():
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    random = np.random.default_rng(0)
    a, b = random.normal(10, 1, 5).tolist(), random.normal(14, 1, 5).tolist()
    (found,) = judged(row(a, b, printed=4.0))
    test = stats.ttest_rel(b, a)
    assert (found["planned"], found["judged"], found["level"]) == (5, 5, AT_PLAN)
    interval = test.confidence_interval(1 - AT_PLAN)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert found["p"] == pytest.approx(test.pvalue, rel=1e-6)
    assert found["effect"] == pytest.approx(np.subtract(b, a).mean())
    assert (found["spread"], found["df"]) == (pytest.approx(np.subtract(b, a).std(ddof=1) / math.sqrt(2)), 4)


@pytest.mark.parametrize(
    ("effect", "sd", "word"),
    [
        (1.0, 0.1, "confirmed"),
        (-1.0, 0.1, "contradicted"),
        (0.05, 0.1, "no effect as large"),
        (0.1, 0.02, "confirmed"),  # small, but there: the claim is about a direction
        (0.3, 0.3, "inconclusive"),
    ],
)
def test_four_words(effect, sd, word):
    (found,) = judged(pair(effect, sd=sd))
    assert found["verdict"] == word
    assert found["of_interest"] == 0.5
    assert (found["more_seeds"] is not None) == (word == "inconclusive")
    within = found["low"] > -0.5 and found["high"] < 0.5
    assert within == (word == "no effect as large" or effect == 0.1)


def test_the_spread_is_that_of_all_arms_of_the_scale():
    # Three arms with three seeds: residuals of the table of test_spread, sd 1 on 4 degrees of freedom.
    a, b, c = [1.0, 3.0, 2.0], [3.0, 3.0, 6.0], [8.0, 9.0, 10.0]
    other = document(row(a, c), experiment="overlap")
    (first,), (second,) = (d["comparisons"] for d in judge([document(row(a, b)), other]))
    for found in (first, second):
        assert (found["spread"], found["df"], found["pooled"]) == (pytest.approx(1.0), 4, True)
        assert found["shares"] == [{"arm": "base", "comparisons": 1, "claims": ["C10"]}]
    half = (second["high"] - second["low"]) / 2
    t = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`").t
    assert half == pytest.approx(t.isf(AT_OTHERS / 2 / 2, 4) * math.sqrt(2 / 3), rel=1e-6)  # two comparisons of C10


def test_what_is_trained_otherwise_or_did_not_train_is_no_part_of_the_spread():
    calm = document(pair(1.0, sd=0.1))
    wild = document(pair(0.0, sd=9.0, untrained=["other"]), experiment="b")
    apart = document(pair(0.0, sd=9.0, pool=""), experiment="c")
    (alone,) = judge([calm])[0]["comparisons"]
    (beside,) = judge([calm, wild, apart])[0]["comparisons"]
    assert beside["spread"] == alone["spread"]
    (other,) = judge([calm, document(pair(0.0, sd=9.0), experiment="b", scale="imagenet")])[0]["comparisons"]
    assert other["spread"] == alone["spread"]


def test_uses_of_the_same_networks_are_judged_by_their_own_differences():
    (found, *_) = judged(pair(1.0, sd=0.1, pool=""), pair(0.0, sd=0.5))
    assert (found["pooled"], found["df"]) == (False, 4)
    assert found["spread"] == pytest.approx(0.1 / math.sqrt(2))


def test_the_comparisons_of_a_claim_share_what_it_may_err_by():
    (alone,) = judged(pair(0.2, sd=0.1))
    one, two = judged(pair(0.2, sd=0.1, pool=""), pair(9.0, sd=0.1, pool=""))
    assert two["level"] == alone["level"] / 2 == AT_PLAN / 2  # the clearest first, by Holm
    assert one["level"] == AT_PLAN
    assert one["planned"] >= alone["planned"]
    (_, other) = judged(pair(0.2, sd=0.1, pool=""), pair(9.0, sd=0.1, pool="", claim="C13"))
    assert other["level"] == AT_PLAN


def test_holm_worked_out_by_hand():
    def test(p: float, level: float = 0.05) -> list[Looked]:
        return [Looked(Look(5, level), p, 1)]

    # 0.05 / 3 = 0.0167, 0.05 / 2 = 0.025, 0.05: the third stops at 0.06.
    assert divisors([test(0.024), test(0.06), test(0.016)]) == [(2, True), (1, False), (3, True)]
    # The smallest is above 0.0167, so nothing is found, although 0.02 would be alone.
    assert divisors([test(0.02), test(0.021), test(0.04)]) == [(3, False)] * 3
    # A look that may spend less counts for less: 0.0004 of 0.001 comes after 0.01 of 0.05.
    assert divisors([test(0.0004, 0.001), test(0.01)]) == [(1, True), (2, True)]
    assert divisors([[], test(0.01)]) == [(1, False), (2, True)]
    assert divisors([]) == []


def test_a_claim_errs_no_more_often_than_its_level_says():
    random = np.random.default_rng(5)
    p_TC = random.uniform(size=(4000, 3)) * [1, 1, 1e-6]  # two of three have no effect
    wrong = 0
    for p_C in p_TC:
        found = divisors([[Looked(Look(5, 0.05), float(p), 1)] for p in p_C])
        wrong += found[0][1] or found[1][1]
    assert wrong / 4000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 4000)
    assert wrong / 4000 > 0.04


def test_before_the_plan_only_what_is_clear_decides():
    clear, not_so = judged(pair(9.0, n=3), pair(0.5, n=3, claim="C13"))
    assert (clear["verdict"], clear["level"]) == ("confirmed", AT_OTHERS)
    assert (not_so["verdict"], not_so["judged"]) == ("inconclusive", 3)
    assert 0 < not_so["more_seeds"] <= not_so["planned"] - 3


def test_an_earlier_look_stands_when_more_seeds_are_added():
    # The plan is made from the first five pairs and is five seeds. Eight are no planned number: there 99.98 % is asked for.
    differences = [1.4, 0.9, 1.0, 1.1, 0.6, 0.1, 1.9, 0.1]
    rows = [row([10.0] * n, [10 + d for d in differences[:n]], printed=1.5) for n in (5, 8, 10)]
    five, eight, _ = (judged(one)[0] for one in (*rows[:2], rows[1]))
    assert five["planned"] == eight["planned"] == 5
    assert (five["verdict"], five["level"]) == ("confirmed", AT_PLAN)
    assert (eight["verdict"], eight["n"], eight["judged"], eight["level"]) == ("confirmed", 8, 5, AT_PLAN)
    assert eight["effect"] == five["effect"] == pytest.approx(1.0)
    (ten,) = judged(row([10.0] * 10, [10 + d for d in (*differences, 0.9, 1.0)], printed=1.5))
    assert (ten["judged"], ten["level"]) == (10, AT_TWICE)


def test_what_is_no_fair_test_has_a_plan_and_no_interval():
    (found,) = judged(pair(1.0, reasons=["no rate was chosen"]))
    assert (found["verdict"], found["effect"], found["low"], found["level"]) == (
        "not a fair test yet",
        pytest.approx(1.0),
        None,
        None,
    )
    assert found["planned"] >= 5
    assert found["spread"] is not None


def test_one_pair_has_no_interval_and_says_what_makes_one():
    (found,) = judged(row([1.0], [3.0]))
    assert (found["verdict"], found["effect"], found["n"], found["low"]) == ("inconclusive", 2.0, 1, None)
    assert (found["planned"], found["more_seeds"]) == (None, 4)


def test_arms_that_are_the_same_network_have_no_effect():
    (found,) = judged(row([1.0, 2.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 2.0, 1.0]))
    assert (found["verdict"], found["p"], found["low"]) == ("no effect as large", 1.0, pytest.approx(0))


def test_quotients_are_compared_by_their_logarithm():
    fields: dict[str, Any] = {"unit": "times", "printed": 6.0}
    fields |= {side: {"arm": side, "measure": "seconds"} for side in ("lower", "higher")}
    (found,) = judged(row([2.0] * 5, [8.0, 16.0, 32.0, 16.0, 16.0], **fields))
    assert found["effect"] == pytest.approx(8)
    sd = math.sqrt(2 * math.log(2) ** 2 / 4)  # of the logarithms of 4, 8, 16, 8, 8
    assert found["spread"] == pytest.approx(sd / math.sqrt(2))
    t = 3.4954  # 98.75 % of Student's t with 4 degrees of freedom
    assert (found["low"], found["high"]) == pytest.approx(
        tuple(8 * math.exp(sign * t * sd / math.sqrt(5)) for sign in (-1, 1)), rel=1e-4
    )
    assert found["verdict"] == "confirmed"


def race(lower: list[float], higher: list[float], cut: int) -> dict[str, Any]:
    """Times of which the last ``cut`` of the higher side were cut off."""
    sides: Any = {side: {"arm": side, "measure": "epochs_to_goal"} for side in ("lower", "higher")}
    was_cut = [i >= len(higher) - cut for i in range(len(higher))]
    return row(lower, higher, unit="times", printed=6.0, **sides) | {"higher_cut": was_cut, "cut": ["cut"]}


def test_times_that_were_cut_off_are_compared_by_exchange():
    (found,) = judged(race([6.0, 6.5, 7.0], [39.0, 40.0, 40.0], cut=2))
    assert (found["verdict"], found["p"], found["low"]) == ("inconclusive", 0.25, None)
    assert (found["effect"], found["bound"]) == (pytest.approx(40 / 6.5), "at least")
    assert (found["planned"], found["more_seeds"]) == (7, 4)
    (found,) = judged(race([6.0, 6.5, 7.0] * 3, [39.0, 40.0, 40.0] * 3, cut=2))
    assert (found["verdict"], found["judged"], found["p"]) == ("confirmed", 7, 2 / 2**7)
    assert (found["effect"], found["bound"]) == (pytest.approx(40 / 6.5), None)  # of the first seven


@pytest.mark.parametrize(
    ("chance", "measured", "word", "holds", "more"),
    [
        ([0.2] * 5, [0.3, 0.1, 0.1, 0.4, 0.1], "confirmed", 2, None),  # by chance in 2.3 of a hundred
        ([0.2] * 3, [0.1, 0.4, 0.1], "inconclusive", 1, 2),
        ([0.2] * 5, [0.1] * 5, "inconclusive", 0, 5),  # what does not show is not absent
    ],
)
def test_runs_that_are_tests_of_their_own_are_counted(chance, measured, word, holds, more):
    (found,) = judged(row(chance, measured, each=True))
    assert (found["verdict"], found["holds"], found["effect"], found["low"]) == (word, holds, None, None)
    assert found["more_seeds"] == more


def test_the_p_of_runs_count_where_every_run_has_one():
    runs = row([0.2] * 5, [0.19] * 5, each=True) | {"p_values": [0.06] * 5}
    (found,) = judged(runs)
    # None is beyond its line, and all are close to it: 0.06^5, by chi-square with ten degrees of freedom.
    assert (found["verdict"], found["holds"], found["p"]) == ("confirmed", 0, pytest.approx(0.00172, abs=1e-5))
    (found,) = judged(runs | {"p_values": [0.06] * 4 + [None]})
    assert (found["verdict"], found["p"]) == ("inconclusive", pytest.approx(1))
