"""How far an error rate is known from so many images, and how often chance alone counts so many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

TOP5_FROM = 6
"""Classes from which on a top-5 error says anything: of five, the right one is always among the first five."""
UNEVEN = 2
"""So many times as many images has the largest class than the smallest, where the mean over classes is said too."""


def wilson(errors: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (1927) of the rate of which ``errors`` of ``n`` images are a sample, as fractions; 0 to 1 without
    images. It always holds ``errors / n``, and does not shrink to a point where none or all are wrong."""
    if n == 0:
        return 0.0, 1.0
    z, rate = NormalDist().inv_cdf((1 + level) / 2), errors / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(middle - half, rate)), min(1.0, max(middle + half, rate))


def by_chance(num: int, n: int, share: float) -> float:
    """The probability that ``num`` or more of ``n`` are counted where each is with probability ``share``: the upper tail of the
    binomial distribution, exactly."""
    return math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(num, n + 1))


def combined(p_values: Sequence[float]) -> float:
    """Fisher's p of the hypothesis that no test shows anything: of the product of their p. Those of permutation tests are never
    too small, so that it is on the safe side."""
    half = -math.fsum(math.log(p) for p in p_values)
    if half <= 0:
        return 1.0
    return math.fsum(math.exp(i * math.log(half) - half - math.lgamma(i + 1)) for i in range(len(p_values)))


def rate_of(count: int, n: int) -> dict[str, Any]:
    """``count`` of ``n`` as a rate with Wilson's 95 % interval, for a document; without images a rate of 0 within 0 to 1."""
    low, high = wilson(count, n)
    return {"n": n, "count": count, "rate": count / n if n else 0.0, "low": low, "high": high}


def in_words(errors: int, n: int) -> str:
    """Wilson's 95 % interval in percent, as people read it: ``2.6 to 5.7 %``."""
    low, high = wilson(errors, n)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


@dataclass(frozen=True)
class Errors:
    """Errors counted on ``n`` images. ``low`` and ``high`` bound the rate with 95 % confidence, as far as the choice of the
    images is concerned."""

    errors: int
    n: int

    @property
    def error(self) -> float:
        return self.errors / self.n

    def to_json(self) -> dict[str, Any]:
        low, high = wilson(self.errors, self.n)
        return {"errors": self.errors, "n": self.n, "error": self.error, "low": low, "high": high}
