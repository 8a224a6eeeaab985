"""How many seeds a comparison takes is what the noncentral t says, and a look spends only what it was given."""

from __future__ import annotations

import math

import pytest

from alexnet.claims.plan import (
    AT_OTHERS,
    AT_PLAN,
    AT_TWICE,
    Look,
    looks,
    more_seeds,
    planned_flips,
    planned_runs,
    planned_seeds,
    power_of,
    smallest_of_interest,
)
from alexnet.claims.spread import Spread


def test_a_plan_has_80_percent_power_and_one_seed_less_has_not():
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    spread, known = Spread(0.6, 30), 5
    for interest, family in ((0.5, 1), (0.5, 3), (1.4, 2)):
        n = planned_seeds(interest, spread, known, family)

        def power(n: int, interest: float = interest, family: int = family) -> float:
            df, shift = 30 + n - known, interest / (0.6 * math.sqrt(2 / n))
            t = stats.t.isf(AT_PLAN / family / 2, df)
            return float(stats.nct.sf(t, df, shift) + stats.nct.cdf(-t, df, shift))

        assert power(n) >= 0.8
        assert n == 5 or power(n - 1) < 0.8
        assert power_of(n, interest, spread, known, family) == pytest.approx(power(n), abs=1e-7)


def test_a_plan_is_what_the_normal_rule_of_thumb_says_with_many_degrees_of_freedom():
    # 2 (z_{1 - 0.0125} + z_{0.8})^2 (sd / effect)^2 = 2 (2.2414 + 0.8416)^2 (1 / 0.5)^2 = 76.04
    assert planned_seeds(0.5, Spread(1.0, 1e6), 5, 1) == 77


def test_a_plan_is_of_five_seeds_at_least():
    assert planned_seeds(100.0, Spread(1.0, 50), 5, 1) == 5
    assert planned_seeds(1.0, Spread(0.0, 4), 5, 1) == 5


def test_pairs_that_all_agree_decide_from_seven_on():
    assert 2 ** (1 - 6) > AT_PLAN >= 2 ** (1 - 7)
    assert planned_flips(1) == 7
    assert planned_flips(2) == 8


def test_runs_that_are_tests_of_their_own():
    # Of five runs two beyond their 95 % line have by chance 1 - 0.95^5 - 5 * 0.05 * 0.95^4 = 0.0226, and if half of them are
    # beyond, 1 - 6 / 32 = 0.8125.
    assert planned_runs(1) == 5
    assert planned_runs(2) == 8  # three of eight: 0.0058 and 1 - 37 / 256


def test_only_planned_looks_spend_much():
    assert looks(3, 21) == [Look(3, AT_OTHERS)]
    assert looks(21, 21) == [Look(21, AT_PLAN)]
    assert looks(30, 21) == [Look(30, AT_OTHERS), Look(21, AT_PLAN)]
    assert looks(42, 21) == [Look(42, AT_TWICE), Look(21, AT_PLAN)]
    assert looks(60, 21) == [Look(60, AT_OTHERS), Look(21, AT_PLAN), Look(42, AT_TWICE)]
    assert looks(4, None) == []


@pytest.mark.parametrize(
    ("unit", "printed", "interest"),
    [("points", 1.4, 1.4), ("points", None, 0.5), ("times", 6.0, 6.0), ("times", None, 1.1)],
)
def test_the_smallest_effect_of_interest_is_the_printed_one(unit, printed, interest):
    assert smallest_of_interest(unit, printed) == interest


def test_more_seeds_lead_to_the_next_look_or_to_one_that_decides_before():
    spread = Spread(1.0, 40)
    assert more_seeds(8, 77, 0.1, 0.5, spread, 1) == 69
    assert more_seeds(80, 77, 0.1, 0.5, spread, 1) == 74
    # 3 points are 3.6 standard deviations of a mean difference once 2 / n is (3 / 4.0)^2 or less, about.
    assert more_seeds(3, 77, 3.0, 0.5, spread, 1) == 1
    assert more_seeds(2, None, 3.0, 0.5, None, 1) == 3
    # Past the last look what is left out has to be 0.25 away, and with one seed less it is not.
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    n = 160 + more_seeds(160, 77, 0.25, 0.5, spread, 1)
    for k, decides in ((n, True), (n - 1, False)):
        assert (stats.t.isf(AT_OTHERS / 2, 40 + k - 160) * math.sqrt(2 / k) < 0.25) == decides
