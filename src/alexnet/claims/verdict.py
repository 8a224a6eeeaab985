"""From paired seeds to a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Word = Literal["confirmed", "contradicted", "inconclusive"]

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
    """Pairs."""
    effect: float
    """The mean difference; of quotients the geometric mean."""
    low: float | None
    high: float | None
    """Of the 95 % interval of the mean (Student's t). One pair has none."""
    smallest_effect: float | None
    """A mean effect below this would not have been told from none, with this spread and so many pairs."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(lower: Sequence[float], higher: Sequence[float], *, quotient: bool = False) -> Verdict:
    """Whether the claim that ``lower`` is lower holds, over numbers paired by seed: *confirmed* if the 95 % interval of
    ``higher - lower`` is wholly above zero, *contradicted* if wholly below, else *inconclusive*. ``quotient``: of
    ``higher / lower`` and one, by their logarithms."""
    d = np.subtract(*(np.log(x) if quotient else np.asarray(x, float) for x in (higher, lower)))
    shown = math.exp if quotient else float
    mean, n = float(d.mean()), len(d)
    if n < 2:
        return Verdict(verdict="inconclusive", n=n, effect=shown(mean), low=None, high=None, smallest_effect=None)
    half = T_95[min(n - 1, len(T_95)) - 1] * float(d.std(ddof=1)) / math.sqrt(n)
    low, high = mean - half, mean + half
    word: Word = "confirmed" if low > 0 else "contradicted" if high < 0 else "inconclusive"
    return Verdict(verdict=word, n=n, effect=shown(mean), low=shown(low), high=shown(high), smallest_effect=shown(half))
