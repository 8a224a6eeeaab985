"""The spread of a run is the residual of the additive model of arms and seeds, whichever runs are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexnet.claims.spread import Spread, first_seeds, own_spread, pooled_spread, spread_for


def test_the_residual_of_a_table_worked_out_by_hand():
    # Rows (arms) have means 2, 4, 9 and columns (seeds) 4, 5, 6; the mean of all is 5. Less both, plus that of all:
    #   a: 1 3 2 -> 0  1 -1      b: 3 3 6 -> 0 -1  1      c: 8 9 10 -> 0 0 0      4 on (3 - 1)(3 - 1) degrees of freedom
    table = {"a": {0: 1.0, 1: 3.0, 2: 2.0}, "b": {0: 3.0, 1: 3.0, 2: 6.0}, "c": {0: 8.0, 1: 9.0, 2: 10.0}}
    found = pooled_spread(table)
    assert found is not None
    assert (found.sd, found.df, found.pooled) == (pytest.approx(1.0), 4, True)


def test_of_two_arms_it_is_that_of_their_differences():
    a, b = [1.0, 2.0, 4.0, 3.0], [3.0, 3.5, 4.0, 6.0]
    pooled = pooled_spread({"a": dict(enumerate(a)), "b": dict(enumerate(b))})
    own = own_spread([y - x for x, y in zip(a, b, strict=True)])
    assert pooled is not None
    assert own is not None
    assert (pooled.sd, pooled.df) == (pytest.approx(own.sd), own.df)
    # Differences 2, 1.5, 0, 3: their variance is 1.5625, and its standard error by scipy.stats.ttest_rel 0.625.
    assert own.of_mean_difference(4) == pytest.approx(math.sqrt(1.5625 / 4))


def test_a_table_with_holes_is_fitted_by_the_normal_equations():
    random = np.random.default_rng(3)
    cells = [
        (arm, seed) for arm in range(4) for seed in range(6) if (arm, seed) not in {(0, 5), (2, 1), (3, 4), (3, 5)}
    ]
    value = {cell: float(random.normal(cell[0], 1) + cell[1]) for cell in cells}
    # The same model with arms 1 to 3 and seeds 1 to 5 beside a constant, solved by elimination: 20 - 9 degrees of freedom.
    design = np.array(
        [[1, *(arm == i for i in (1, 2, 3)), *(seed == i for i in range(1, 6))] for arm, seed in cells], float
    )
    y = np.array([value[cell] for cell in cells])
    left = y - design @ np.linalg.solve(design.T @ design, design.T @ y)
    table: dict[str, dict[int, float]] = {}
    for (arm, seed), number in value.items():
        table.setdefault(f"arm {arm}", {})[seed] = number
    found = pooled_spread(table)
    assert found is not None
    assert (found.sd, found.df) == (pytest.approx(math.sqrt(left @ left / 11)), 11)


def test_without_degrees_of_freedom_there_is_no_spread():
    assert pooled_spread({"a": {0: 1.0}, "b": {0: 2.0}}) is None
    assert pooled_spread({"a": {0: 1.0, 1: 2.0}, "b": {2: 2.0}}) is None  # no seed in common
    assert pooled_spread({}) is None
    assert own_spread([1.0]) is None


def test_differences_that_vary_too_much_are_judged_by_themselves():
    pooled = Spread(1.0, 40)
    calm, wild = [0.0, 1.0, 2.0, 1.0], [0.0, 9.0, 2.0, 1.0]
    assert spread_for(calm, pooled) is pooled
    assert spread_for([1.0, 1.0, 1.0], pooled) is pooled  # what varies less is chance
    # Their variance is 16.67, of a run 8.33: F(3, 40) = 8.33, whose probability is 0.0002.
    assert spread_for(wild, pooled) == own_spread(wild)
    assert spread_for([1.0], None) is None


def test_the_pilot_has_the_lowest_seeds():
    assert first_seeds({"a": {7: 1.0, 0: 2.0, 3: 3.0}, "b": {3: 4.0, 9: 5.0}}, 2) == {
        "a": {0: 2.0, 3: 3.0},
        "b": {3: 4.0},
    }
