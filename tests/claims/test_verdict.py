"""A verdict is Student's interval of paired differences; what decides nothing has no interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexnet.claims.verdict import BOUND, T_95, judge, judge_each, without_verdict


def test_the_interval_is_that_of_scipys_paired_t_test():
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    random = np.random.default_rng(0)
    for n in (2, 3, 5, 12):
        a, b = random.normal(10, 1, n), random.normal(11, 2, n)
        interval = stats.ttest_rel(b, a).confidence_interval(0.95)
        verdict = judge(a, b)
        assert verdict.low == pytest.approx(interval.low, abs=2e-3)
        assert verdict.high == pytest.approx(interval.high, abs=2e-3)
        assert verdict.effect == pytest.approx((b - a).mean())
        assert verdict.smallest_effect == pytest.approx((interval.high - interval.low) / 2, abs=2e-3)
    for degrees, t in enumerate(T_95, start=1):
        assert t == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4)


@pytest.mark.parametrize(
    ("lower", "higher", "word"),
    [
        ([1, 1, 1], [2.0, 2.1, 1.9], "confirmed"),
        ([2.0, 2.1, 1.9], [1, 1, 1], "contradicted"),
        ([1, 1, 1], [2, 0.5, 1.2], "inconclusive"),
        ([1], [9], "inconclusive"),
        ([1, 1], [1, 1], "inconclusive"),
    ],
)
def test_a_word_needs_the_whole_interval_on_one_side_of_zero(lower, higher, word):
    assert judge(lower, higher).verdict == word


def test_one_pair_has_no_interval():
    verdict = judge([1.0], [3.0])
    assert (verdict.effect, verdict.n) == (2.0, 1)
    assert verdict.low is verdict.high is verdict.smallest_effect is None


def test_quotients_are_compared_by_their_logarithm():
    verdict = judge([2, 2, 2], [8, 16, 32], quotient=True)
    assert verdict.effect == pytest.approx(8)
    half = 4.303 * math.log(2) / math.sqrt(3)
    assert verdict.low == pytest.approx(8 * math.exp(-half))
    assert verdict.high == pytest.approx(8 * math.exp(half))
    assert verdict.smallest_effect == pytest.approx(math.exp(half))
    assert verdict.verdict == "confirmed"
    assert judge([2, 2.1], [2.1, 2], quotient=True).verdict == "inconclusive"


def test_a_bound_is_the_mean_quotient_and_has_no_interval():
    verdict = without_verdict([6, 6, 6], [40, 40, 39], BOUND, quotient=True, bound="at least")
    assert verdict.effect == pytest.approx((40 * 40 * 39) ** (1 / 3) / 6)
    assert (verdict.verdict, verdict.bound, verdict.low, verdict.high) == ("bound only", "at least", None, None)


@pytest.mark.parametrize(
    ("chance", "measured", "word", "holds"),
    [
        ([0.2, 0.2, 0.2], [0.3, 0.4, 0.3], "confirmed", 3),
        ([0.2, 0.2, 0.2], [0.1, 0.4, 0.1], "inconclusive", 1),
        ([0.2, 0.2, 0.2], [0.1, 0.1, 0.1], "inconclusive", 0),  # what does not show is not absent
        ([0.2, 0.2], [0.3, 0.4], "inconclusive", 2),  # two runs are not every run
    ],
)
def test_a_claim_about_every_run_is_judged_run_by_run(chance, measured, word, holds):
    verdict = judge_each(chance, measured)
    assert (verdict.verdict, verdict.holds, verdict.effect, verdict.low) == (word, holds, None, None)
