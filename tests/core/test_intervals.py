"""Wilson's interval, against SciPy's and an answer by hand."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from alexnet.core.intervals import rate_of, wilson


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("errors", "n"), [(0, 1), (0, 600), (5, 5), (61, 600), (1, 7), (25_000, 50_000)])
def test_wilson_is_scipys(errors: int, n: int, level: float):
    oracle = binomtest(errors, n).proportion_ci(level, method="wilson")
    assert wilson(errors, n, level) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_no_errors_of_ten_are_not_no_error():
    # z^2 / (n + z^2) = 3.8415 / 13.8415
    assert wilson(0, 10) == pytest.approx((0.0, 0.27754), abs=1e-5)


def test_without_images_nothing_is_known():
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_rate_stands_with_its_count_and_its_interval():
    low, high = wilson(3, 10)
    assert rate_of(3, 10) == {"n": 10, "count": 3, "rate": 0.3, "low": low, "high": high}
    assert rate_of(0, 0) == {"n": 0, "count": 0, "rate": 0.0, "low": 0.0, "high": 1.0}
