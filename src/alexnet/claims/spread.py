"""How much a number varies from run to run, from all arms of a scale together.

The model has two ways: a run's number is an effect of its arm, an effect of its seed (an image is met in the same order by all
arms of a seed), and chance, whose standard deviation is the same for all arms. Not every arm needs every seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alexnet.claims.student import variance_ratio_tail

Table = Mapping[str, Mapping[int, float]]
"""Arm, then seed, to a number."""

SUSPICIOUS = 0.01
"""Probability below which the differences of two arms vary too much for the spread that all arms have together."""


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a run, given its arm and its seed."""

    sd: float
    df: float
    """Degrees of freedom with which it is estimated."""
    pooled: bool = True
    """Whether it is that of all arms together, or of the two that are compared alone."""

    def of_mean_difference(self, n: int) -> float:
        """The standard error of the mean difference of ``n`` pairs."""
        return self.sd * math.sqrt(2 / n)


def pooled_spread(table: Table) -> Spread | None:
    """The residual of the additive model of arms and seeds, by least squares; None if there are no degrees of freedom left."""
    cells = [(arm, seed, value) for arm, of_seed in table.items() for seed, value in of_seed.items()]
    arms = {arm: i for i, arm in enumerate(dict.fromkeys(arm for arm, _, _ in cells))}
    seeds = {seed: len(arms) + i for i, seed in enumerate(dict.fromkeys(seed for _, seed, _ in cells))}
    design = np.zeros((len(cells), len(arms) + len(seeds)))
    for row, (arm, seed, _) in enumerate(cells):
        design[row, [arms[arm], seeds[seed]]] = 1
    values = np.array([value for *_, value in cells])
    found, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    df = len(cells) - int(rank)
    if df < 1:
        return None
    return Spread(math.sqrt(float(((values - design @ found) ** 2).sum()) / df), df)


def own_spread(differences: Sequence[float]) -> Spread | None:
    """The same from the differences of two arms alone, by seed; None for fewer than two."""
    if len(differences) < 2:
        return None
    return Spread(float(np.std(differences, ddof=1)) / math.sqrt(2), len(differences) - 1, pooled=False)


def spread_for(differences: Sequence[float], pooled: Spread | None) -> Spread | None:
    """The spread by which these differences are judged: that of all arms, if there is one, unless they vary more among
    themselves than chance would let them."""
    own = own_spread(differences)
    if pooled is None or own is None:
        return pooled or own
    if own.sd > pooled.sd and (
        pooled.sd == 0 or variance_ratio_tail((own.sd / pooled.sd) ** 2, own.df, pooled.df) < SUSPICIOUS
    ):
        return own
    return pooled


def first_seeds(table: Table, num: int) -> Table:
    """The part of a table with its ``num`` lowest seeds."""
    seeds = sorted({seed for of_seed in table.values() for seed in of_seed})[:num]
    return {arm: {seed: value for seed, value in of_seed.items() if seed in seeds} for arm, of_seed in table.items()}
