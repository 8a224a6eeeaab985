"""From the numbers of paired seeds to a verdict, or to the words for why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Word = Literal["confirmed", "contradicted", "inconclusive", "bound only", "not a fair test yet", "the code ran"]
DECIDED = ("confirmed", "contradicted", "inconclusive")
"""The verdicts. The other words say why there is none."""
BOUND: Word = "bound only"
"""Runs of one arm ended before they got to what is measured: the effect is at least, or at most, the one that is given."""
UNFAIR: Word = "not a fair test yet"
RAN: Word = "the code ran"
"""All that the scale ``smoke`` can show."""
LEAST_RUNS = 3
"""Fewest runs that confirm a claim about every run."""

# fmt: off
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
"""Student's t, 97.5 %, for 1 to 30 degrees of freedom; for more, the last is a little too wide."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The effect over paired seeds, positive (a quotient: above 1) on the paper's side."""

    verdict: Word
    n: int
    """Number of pairs."""
    effect: float | None = None
    """The mean difference, or the geometric mean of the quotients; None where there is no such number."""
    low: float | None = None
    high: float | None = None
    """``low`` and ``high`` are the ends of the 95 % interval of the mean (Student's t); None for one pair, and for what is not a
    fair test."""
    smallest_effect: float | None = None
    """Smallest mean effect that could have been told from none, with this spread and this many pairs."""
    bound: Literal["at least", "at most"] | None = None
    """What the effect is where runs of one side were cut off; None: a value."""
    holds: int | None = None
    """Runs in which the claim holds, where each run is a test of its own."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(lower: Sequence[float], higher: Sequence[float], *, quotient: bool = False) -> Verdict:
    """Whether the claim that ``lower`` is lower holds, over numbers paired by seed: *confirmed* if the 95 % interval of
    ``higher - lower`` is wholly above zero, *contradicted* if wholly below, else *inconclusive*. ``quotient``: of
    ``higher / lower`` and one, by their logarithms."""
    d, shown = _differences(lower, higher, quotient), math.exp if quotient else float
    mean, n = float(d.mean()), len(d)
    if n < 2:
        return Verdict(verdict="inconclusive", n=n, effect=shown(mean))
    half = T_95[min(n - 1, len(T_95)) - 1] * float(d.std(ddof=1)) / math.sqrt(n)
    low, high = mean - half, mean + half
    word: Word = "confirmed" if low > 0 else "contradicted" if high < 0 else "inconclusive"
    return Verdict(verdict=word, n=n, effect=shown(mean), low=shown(low), high=shown(high), smallest_effect=shown(half))


def judge_each(lower: Sequence[float], higher: Sequence[float]) -> Verdict:
    """Whether ``lower`` is lower in every run, where ``lower`` is what chance alone would stay below: *confirmed* if it is, in
    :data:`LEAST_RUNS` or more; a run in which it does not show contradicts nothing."""
    holds, n = sum(a < b for a, b in zip(lower, higher, strict=True)), len(lower)
    return Verdict(verdict="confirmed" if holds == n >= LEAST_RUNS else "inconclusive", n=n, holds=holds)


def without_verdict(
    lower: Sequence[float],
    higher: Sequence[float],
    word: Word,
    *,
    quotient: bool = False,
    bound: Literal["at least", "at most"] | None = None,
) -> Verdict:
    """The effect as it came out, which decides nothing: no interval."""
    d = _differences(lower, higher, quotient)
    mean = float(d.mean())
    return Verdict(verdict=word, n=len(d), effect=math.exp(mean) if quotient else mean, bound=bound)


def _differences(lower: Sequence[float], higher: Sequence[float], quotient: bool) -> NDArray[np.float64]:
    first, second = (np.log(x) if quotient else np.asarray(x, np.float64) for x in (higher, lower))
    difference: NDArray[np.float64] = first - second
    return difference
