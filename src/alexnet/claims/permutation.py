"""Tests that need no spread: times of runs that may have ended too early, and runs that are tests of their own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alexnet.core.intervals import by_chance

LINE = 0.05
"""Share of runs that chance alone puts beyond their own 95 % line."""
MOST_EXACT = 16
"""Most pairs for which all ways to exchange them are counted; of more, :data:`DRAWN` ways are drawn."""
DRAWN = 100_000


@dataclass(frozen=True)
class Time:
    """When a run got there; of one that was cut off, when it ended, which is too early."""

    value: float
    cut: bool = False


def is_sooner(first: Time, second: Time) -> bool:
    """Whether the first surely got there before the second."""
    return not first.cut and (first.value < second.value or (second.cut and first.value <= second.value))


def gehan_scores(times: Sequence[Time]) -> list[int]:
    """Of each run: how many others were surely sooner, less how many were surely later (Gehan 1965)."""
    return [sum(is_sooner(b, a) - is_sooner(a, b) for b in times) for a in times]


def exchange_test(lower: Sequence[Time], higher: Sequence[Time]) -> tuple[float, int]:
    """Times of two arms, paired by seed: the two-sided p of the sum of the differences of scores, under all ways to exchange
    the two runs of a pair, and the sign of that sum: 1 if ``lower`` is sooner."""
    score = gehan_scores([*lower, *higher])
    difference = np.array(score[len(lower) :]) - np.array(score[: len(lower)])
    total = int(difference.sum())
    if len(difference) <= MOST_EXACT:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(difference))))
        as_extreme = abs(signs @ difference) >= abs(total)
        return float(as_extreme.mean()), int(np.sign(total))
    signs = np.random.default_rng(0).choice((-1, 1), (DRAWN, len(difference)))
    num = int((abs(signs @ difference) >= abs(total)).sum())
    return (num + 1) / (DRAWN + 1), int(np.sign(total))


def median(times: Sequence[Time]) -> Time:
    """The middle of the times, the lower one of two: cut if it is known only that it is not below the value."""
    middle = sorted(time.value for time in times)[(len(times) - 1) // 2]
    return Time(middle, any(time.cut and time.value <= middle for time in times))


def ratio_of_medians(
    lower: Sequence[Time], higher: Sequence[Time]
) -> tuple[float | None, Literal["at least", "at most"] | None]:
    """How many times as long ``higher`` takes, or a bound on that; None where neither median is known."""
    first, second = median(lower), median(higher)
    if first.cut and second.cut:
        return None, None
    return second.value / first.value, "at least" if second.cut else "at most" if first.cut else None


def fewest_beyond(n: int, level: float) -> int:
    """The least number of ``n`` runs beyond their lines that chance reaches with a probability of ``level`` or less; n + 1 if
    there is none."""
    return next((num for num in range(n + 1) if by_chance(num, n, LINE) <= level), n + 1)
