"""Distributions without SciPy are those of SciPy, and of tables where it is not installed."""

from __future__ import annotations

import pytest

from alexnet.claims.student import critical, power, two_sided, upper_tail, variance_ratio_tail

TABLE = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 10: 2.22814, 30: 2.04227, 120: 1.97993}
"""Student's t, two-sided 5 %, as printed in any table."""


@pytest.mark.parametrize(("df", "t"), TABLE.items())
def test_critical_values_are_those_of_the_table(df, t):
    assert critical(0.05, df) == pytest.approx(t, rel=1e-5)
    assert two_sided(-t, df) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("df", [1, 2, 4.5, 7, 30, 1000, 1e6])
def test_tails_are_those_of_scipy(df):
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    for t in (0.0, 0.5, 2.0, 5.0, 30.0):
        assert upper_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-7, abs=1e-12)
        for shift in (0.5, 3.0, 8.0):
            assert upper_tail(t, df, shift) == pytest.approx(stats.nct.sf(t, df, shift), abs=1e-8)
    for level in (0.05, 0.025, 0.0003, 0.0001):
        assert critical(level, df) == pytest.approx(stats.t.isf(level / 2, df), rel=1e-7)
    for above in (1, 2, 5, 20):
        for ratio in (0.5, 1.0, 4.0, 20.0):
            assert variance_ratio_tail(ratio, above, df) == pytest.approx(stats.f.sf(ratio, above, df), abs=1e-8)


def test_power_is_that_of_the_noncentral_t_on_both_sides():
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    t = stats.t.isf(0.0125, 9)
    expected = stats.nct.sf(t, 9, 2.5) + stats.nct.cdf(-t, 9, 2.5)
    assert power(2.5, 9, 0.025) == pytest.approx(expected, abs=1e-8)
    assert power(0.0, 9, 0.025) == pytest.approx(0.025, rel=1e-6)  # no effect is found as often as the level says
