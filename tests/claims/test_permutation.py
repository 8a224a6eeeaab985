"""Tests by exchange: every way counted by hand, and the errors they make where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet.claims.permutation import (
    Time,
    exchange_test,
    fewest_beyond,
    gehan_scores,
    median,
    ratio_of_medians,
)
from alexnet.core.intervals import by_chance, combined


def times(*values: float) -> list[Time]:
    """Negative: cut off there."""
    return [Time(abs(float(value)), bool(value < 0)) for value in values]


def test_scores_count_who_was_surely_sooner():
    # 5 is before all; of 8 and one cut off at 7 nobody knows; one cut off at 8 is later than 8.
    assert gehan_scores(times(5, 8, -7, -8)) == [-3, 0, 1, 2]
    assert gehan_scores(times(3, 3)) == [0, 0]
    assert gehan_scores(times(-40, -40)) == [0, 0]  # nothing is known


def test_pairs_that_all_agree_have_two_of_all_ways():
    for n in (3, 5, 7):
        lower, higher = times(*range(1, n + 1)), times(*(-40 for _ in range(n)))
        assert exchange_test(lower, higher) == (2 / 2**n, 1)
        assert exchange_test(higher, lower) == (2 / 2**n, -1)


def test_every_way_of_three_pairs():
    # Scores of 1 5 3 | 2 4 6: -5 3 -1 | -3 1 5; differences 2 -2 6. Sums by sign, up to the sign of all: 6, 10, 2, 6.
    assert exchange_test(times(1, 5, 3), times(2, 4, 6)) == (6 / 8, 1)
    assert exchange_test(times(4, 4), times(4, 4)) == (1.0, 0)


def test_many_pairs_are_drawn_and_agree_with_the_normal_approximation():
    random = np.random.default_rng(0)
    lower = times(*random.exponential(1.0, 40))
    higher = times(*random.exponential(1.5, 40))
    p, _ = exchange_test(lower, higher)
    score = gehan_scores([*lower, *higher])
    difference = np.subtract(score[40:], score[:40])
    z = abs(difference.sum()) / np.sqrt((difference**2).sum())
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    assert p == pytest.approx(2 * stats.norm.sf(z), abs=0.01)


def test_where_nothing_differs_it_errs_as_often_as_it_says_and_sees_what_does():
    random = np.random.default_rng(1)

    def share(factor: float) -> float:
        found = 0
        for _ in range(400):
            pace = random.exponential(1.0, 8)  # of the seed, which both arms of a pair share
            first, second = pace * random.exponential(1.0, 8), factor * pace * random.exponential(1.0, 8)
            p, _ = exchange_test(*(times(*np.where(t > 2, -2, t)) for t in (first, second)))
            found += p <= 0.05
        return found / 400

    assert share(1.0) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert share(20.0) > 0.5


def test_a_median_is_known_if_no_run_below_it_was_cut_off():
    assert median(times(3, 1, 2)) == Time(2)
    assert median(times(1, 2, -40)) == Time(2)
    assert median(times(1, -40, -40)) == Time(40, cut=True)
    assert median(times(-1, 2, 3)) == Time(2, cut=True)
    assert median(times(4, 1)) == Time(1)


def test_a_ratio_of_medians_is_a_bound_where_one_is_not_known():
    assert ratio_of_medians(times(5, 6, 7), times(30, 36, -40)) == (6, None)
    assert ratio_of_medians(times(5, 6, 7), times(30, -36, -40)) == (6, "at least")
    assert ratio_of_medians(times(-6, 7, 8), times(14, 14, 20)) == (2, "at most")
    assert ratio_of_medians(times(-6, -6), times(-6, -6)) == (None, None)


def test_runs_beyond_their_lines_are_counted_exactly():
    # 39 runs of two towers, of which 8 are beyond their own 95 % line, where two would be by chance.
    assert by_chance(0, 39, 0.05) == pytest.approx(1)
    assert by_chance(1, 3, 0.05) == pytest.approx(1 - 0.95**3)
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    assert by_chance(8, 39, 0.05) == pytest.approx(stats.binom.sf(7, 39, 0.05))
    assert by_chance(8, 39, 0.05) == pytest.approx(0.000595, abs=1e-6)
    assert (fewest_beyond(5, 0.025), fewest_beyond(1, 0.025)) == (2, 2)  # one run alone shows nothing at that level


def test_the_p_of_runs_are_combined_as_fisher_did():
    # Of one p it is that p; of two, p q (1 - ln(p q)).
    assert combined([0.3]) == pytest.approx(0.3)
    assert combined([0.1, 0.2]) == pytest.approx(0.02 * (1 - np.log(0.02)))
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the extra `probe`")
    p_values = [0.04, 0.5, 0.2, 0.01, 0.9]
    assert combined(p_values) == pytest.approx(stats.combine_pvalues(p_values).pvalue)


def test_permutation_tests_are_combined_on_the_safe_side():
    # p of nine draws and the found one are multiples of 0.1, and never below their share of chance.
    random = np.random.default_rng(2)
    found = [combined(random.integers(1, 11, 5) / 10) <= 0.05 for _ in range(2000)]
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)
