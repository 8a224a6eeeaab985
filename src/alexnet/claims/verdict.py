"""The words of a verdict, and how the comparisons of a claim come to theirs together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alexnet.claims.plan import Look

Word = Literal["confirmed", "contradicted", "no effect as large", "inconclusive", "not a fair test yet", "the code ran"]
DECIDED = ("confirmed", "contradicted", "no effect as large", "inconclusive")
"""The verdicts. The other words say why there is none."""
NO_EFFECT: Word = "no effect as large"
"""The interval lies within the smallest effect of interest, on both sides of no effect."""
UNFAIR: Word = "not a fair test yet"
RAN: Word = "the code ran"
"""All that the scale ``smoke`` can show."""
Bound = Literal["at least", "at most"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The effect over paired seeds, positive (a quotient: above 1) on the paper's side."""

    verdict: Word
    n: int
    """Number of pairs."""
    judged: int | None = None
    """How many of them, the first, the interval is of: all, or those of an earlier look that decides more."""
    effect: float | None = None
    """The mean difference, or the geometric mean of the quotients; of times of which some are cut off the ratio of medians. None
    where there is no such number."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval of the mean; None where there is none, and for what is not a fair test."""
    level: float | None = None
    """Probability that chance was given at this look for this comparison; the interval has 1 less that."""
    p: float | None = None
    """Of the test of no effect, two-sided, at this look; of runs that are tests of their own, one-sided."""
    of_interest: float | None = None
    """The smallest effect of interest."""
    planned: int | None = None
    """Seeds that find an effect of that size with 80 % power."""
    power: float | None = None
    """Power of the seeds that there are, as if these were planned."""
    spread: float | None = None
    """Standard deviation of a run, given its arm and seed; of quotients that of their logarithms."""
    df: float | None = None
    pooled: bool | None = None
    """Whether the spread is that of all arms of the scale."""
    more_seeds: int | None = None
    """What an inconclusive comparison still takes."""
    bound: Bound | None = None
    """What the effect is where runs of one side were cut off; None: a value."""
    holds: int | None = None
    """Runs in which the claim holds, where each run is a test of its own."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Test:
    """What one look at a comparison says of no effect."""

    look: Look
    p: float
    favors: int
    """1 if the effect is on the claim's side, -1 if on the other."""


def divisors(tests: Sequence[Sequence[Test]]) -> list[tuple[int, bool]]:
    """Holm's procedure over the comparisons of a claim, each with the tests of its looks: by how much the level of each look is
    divided, and whether one of them then excludes that there is no effect. The divisor of those that are left is that at which
    the procedure stops."""

    def least(of: Sequence[Test]) -> float:
        return min((test.p / test.look.level for test in of), default=math.inf)

    order = sorted(range(len(tests)), key=lambda i: least(tests[i]))
    found = [(1, False)] * len(tests)
    for place, i in enumerate(order):
        left = len(tests) - place
        if least(tests[i]) > 1 / left:
            for j in order[place:]:
                found[j] = (left, False)
            break
        found[i] = (left, True)
    return found
