"""A verdict is Student's interval of paired differences, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexnet.claims.verdict import T_95, judge


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
