"""Student's t, central and not, and the ratio of two variances, to nine digits and without SciPy, which only `probe` installs.

A standard deviation that is estimated with ``df`` degrees of freedom is the true one times ``s``, the root of a chi-square over
its degrees of freedom. Given ``s``, all that is asked here is a probability of a normal or of a chi-square variable; it is
averaged over ``s``, on a grid even in log s, where sums of so smooth a density converge faster than any power of the step.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

NODES = 2000
MOST_DF = 1e6
"""Degrees of freedom above which t is as good as normal."""


def upper_tail(t: float, df: float, shift: float = 0.0) -> float:
    """P(T > t) for Student's t with ``df`` degrees of freedom, not central by ``shift``: of (Z + shift) / s, Z standard
    normal."""
    s, weight = _spread(min(df, MOST_DF))
    return float(weight @ torch.special.ndtr(torch.from_numpy(shift - t * s)).numpy())


def two_sided(t: float, df: float) -> float:
    """P(|T| > |t|)."""
    return 2 * upper_tail(abs(t), df)


@lru_cache(maxsize=4096)
def critical(level: float, df: float) -> float:
    """The t that |T| exceeds with probability ``level``: half the width of an interval, in standard errors."""
    low, high = 0.0, 1.0
    while two_sided(high, df) > level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, df) > level else (low, middle)
    return (low + high) / 2


def power(shift: float, df: float, level: float) -> float:
    """The probability that a two-sided test at ``level`` finds an effect of ``shift`` standard errors."""
    t = critical(level, df)
    return upper_tail(t, df, shift) + upper_tail(t, df, -shift)


def variance_ratio_tail(ratio: float, df: float, df_below: float) -> float:
    """P(F > ratio) for the ratio of two estimates of one variance, with ``df`` and ``df_below`` degrees of freedom."""
    s, weight = _spread(min(df_below, MOST_DF))
    chi_square = torch.from_numpy(ratio * df / 2 * s**2)
    tail = torch.special.gammaincc(torch.full_like(chi_square, df / 2), chi_square)
    return float(weight @ tail.numpy())


@lru_cache(maxsize=256)
def _spread(df: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of s and their probabilities: the density is s^(df-1) exp(-df s^2 / 2), up to a factor."""
    u = np.linspace(-40 / df - 12 / math.sqrt(df), 6 / math.sqrt(df) if df > 4 else 3.0, NODES)
    log_density = df * u - df / 2 * np.exp(2 * u)  # of u = log s
    weight = np.exp(log_density - log_density.max())
    return np.exp(u), weight / weight.sum()
