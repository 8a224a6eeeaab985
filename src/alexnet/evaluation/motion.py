"""What is measured over the frames of a video: answers averaged over time, when they change, and how steady a layer is.

Shape suffixes: N frames in the order of time, K classes, D units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.core import rng

WINDOW = 32
"""Frames that an answer is averaged over."""
SHUFFLES = 100


@dataclass(frozen=True)
class Steadiness:
    """Mean cosine similarities of a layer's activations in two neighboring frames."""

    cosine: float
    """In the order of time."""
    pairs: int
    """Of how many pairs of frames that is the mean. A frame in which no unit answers has no direction, and is in none."""
    shuffled: float
    """The mean over ``shuffles`` random orders of the same frames."""
    low: float
    high: float
    """Between these are 95 % of the random orders."""
    shuffles: int


def running_mean(value_NK: NDArray[np.floating], window: int = WINDOW) -> NDArray[np.float64]:
    """The mean of each frame's row and of up to ``window`` - 1 rows before it: (N, K) float64.

    The demonstrations of 2012 are told to have averaged over the last 32 frames; no publication says of what. Here it is
    the softmax probabilities that are averaged, as over the ten views of a picture (§4.1): each frame that was asked counts
    the same, none after it counts, and the first frames are averaged over those that there are."""
    total_NK = np.cumsum(value_NK, axis=0, dtype=np.float64)
    sum_NK = total_NK.copy()
    sum_NK[window:] -= total_NK[:-window]
    num_N = np.minimum(np.arange(1, len(value_NK) + 1), window)
    return np.asarray(sum_NK / num_N[:, None])


def stretches(label_N: NDArray[np.integer]) -> list[tuple[int, int]]:
    """First and last frame of each row of frames with one label, in order."""
    starts = [0, *(np.flatnonzero(np.diff(label_N)) + 1).tolist()] if len(label_N) else []
    return list(zip(starts, [start - 1 for start in starts[1:]] + [len(label_N) - 1], strict=False))


def similarity(unit_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine similarity of each frame to the one before it, of :func:`directions`: (N,). NaN for the first, and where one of
    the two has no direction."""
    cosine_N = np.full(len(unit_ND), np.nan)
    cosine_N[1:] = np.einsum("nd,nd->n", unit_ND[:-1], unit_ND[1:])
    has_none_N = ~unit_ND.any(axis=1)
    cosine_N[has_none_N | np.roll(has_none_N, 1)] = np.nan
    return np.asarray(cosine_N.clip(-1.0, 1.0))


def directions(value_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1, or 0 where all is 0."""
    length_N1 = np.linalg.norm(value_ND.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(value_ND / np.where(length_N1 > 0, length_N1, 1), dtype=np.float32)


def steadiness(unit_ND: NDArray[np.float32], seed: int = 0, shuffles: int = SHUFFLES) -> Steadiness | None:
    """How alike neighboring frames are to a layer, and how alike they would be in a random order, of :func:`directions`. None
    where fewer than two frames follow one another.

    If what the layer sees changed slowly, its frames are more alike in the order of time than in nearly all random orders. The
    order of draw r is that of (``seed``, "motion/shuffle", r)."""
    own = similarity(unit_ND)
    own = own[np.isfinite(own)]
    unit_ND = unit_ND[unit_ND.any(axis=1)]
    if not len(own):
        return None
    orders = (rng.permutation(seed, "motion/shuffle", draw, len(unit_ND)) for draw in range(shuffles))
    means = np.array([similarity(unit_ND[order_N])[1:].mean() for order_N in orders])
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return Steadiness(float(own.mean()), len(own), float(means.mean()), low, high, shuffles)
