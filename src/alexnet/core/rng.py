"""Random draws as a function of (seed, stream, epoch, image), and of nothing else.

There is no generator with a state: a draw is a hash of its coordinates, so it does not depend on the number of workers
or ranks, on the batch it falls into, or on where a run was interrupted. All draws that concern an image as a whole
(order, crop, mirror, color noise) are made with NumPy in 64 bits; the dropout masks, one bit for each unit of each image,
are made on the training device in 32 bits. Both are integer arithmetic and therefore equal on every device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the increment of SplitMix64


def _mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014), a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=64)
def _stream_number(stream: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little"))


def keys(seed: int, stream: str, epoch: int, image_B: NDArray[np.integer]) -> NDArray[np.uint64]:
    """One 64-bit key for each image number: (B,) uint64."""
    with np.errstate(over="ignore"):
        k = _mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + _GOLDEN)
        k = _mix64((k ^ _stream_number(stream)) + _GOLDEN)
        k = _mix64(k + np.uint64(epoch + 1) * _GOLDEN)
        return _mix64(k + (np.asarray(image_B).astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def uniform(seed: int, stream: str, epoch: int, image_B: NDArray[np.integer], num: int) -> NDArray[np.float64]:
    """``num`` draws from U[0, 1) for each image: (B, num) float64, multiples of 2^-53."""
    key_B1 = keys(seed, stream, epoch, image_B)[:, None]
    with np.errstate(over="ignore"):
        word_BN = _mix64(key_B1 + np.arange(1, num + 1, dtype=np.uint64)[None, :] * _GOLDEN)
    return (word_BN >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(
    seed: int, stream: str, epoch: int, image_B: NDArray[np.integer], num: int, high: int
) -> NDArray[np.int64]:
    """``num`` draws from 0 .. high - 1 for each image: (B, num) int64."""
    return (uniform(seed, stream, epoch, image_B, num) * high).astype(np.int64)


def normal(seed: int, stream: str, epoch: int, image_B: NDArray[np.integer], num: int) -> NDArray[np.float64]:
    """``num`` draws from N(0, 1) for each image by Box and Muller's transform: (B, num) float64."""
    u_BN = uniform(seed, stream, epoch, image_B, 2 * num)
    radius_BN = np.sqrt(-2.0 * np.log1p(-u_BN[:, :num]))
    return np.asarray(radius_BN * np.cos(2.0 * np.pi * u_BN[:, num:]), dtype=np.float64)


def symmetric_beta(
    seed: int, stream: str, epoch: int, image_B: NDArray[np.integer], alpha: float
) -> NDArray[np.float64]:
    """A draw from Beta(alpha, alpha) for each image: (B,) float64. Of two uniform numbers, without rejection (Devroye 1996,
    "Random variate generation in one line of code"; from Bailey's polar method for Student's t)."""
    u_B2 = uniform(seed, stream, epoch, image_B, 2)
    w_B, c_B = (1.0 - u_B2[:, 0]) ** (1.0 / alpha), np.cos(2.0 * np.pi * u_B2[:, 1])
    return np.asarray(0.5 + 0.5 * np.sqrt(1.0 - w_B) * c_B / np.sqrt(w_B + (1.0 - w_B) * c_B**2), dtype=np.float64)


def rank_in_class(label_N: NDArray[np.int64], seed: int, stream: str, epoch: int = 0) -> NDArray[np.int64]:
    """The place of each image in a random order of the images of its class, from 0: (N,)."""
    rank_N = np.empty(len(label_N), dtype=np.int64)
    key_N = keys(seed, stream, epoch, np.arange(len(label_N)))
    for label in np.unique(label_N):
        own = np.flatnonzero(label_N == label)
        rank_N[own[np.argsort(key_N[own], kind="stable")]] = np.arange(len(own))
    return rank_N


def permutation(seed: int, stream: str, epoch: int, n: int) -> NDArray[np.int64]:
    """A random order of 0 .. n - 1: images sorted by their keys."""
    return np.argsort(keys(seed, stream, epoch, np.arange(n)), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class DropoutDraw:
    """Which dropout masks a forward pass uses: those of these images in this epoch."""

    seed: int
    epoch: int
    image_B: NDArray[np.int64]
    """Number of each image of the batch in its data set."""


def _mix32_(x: Tensor) -> Tensor:
    """A bijection of 32-bit words held in int64 (multipliers below 2^31, so no product overflows), in place."""
    for _ in range(2):
        x.bitwise_xor_(x >> 16).mul_(0x45D9F3B).bitwise_and_(0xFFFFFFFF)
    return x.bitwise_xor_(x >> 16)


def dropout_keep(draw: DropoutDraw, layer: str, num_units: int, keep: float, device: torch.device) -> Tensor:
    """Which units stay: (B, num_units) bool, each True with probability ``keep``."""
    key_B = keys(draw.seed, "dropout/" + layer, draw.epoch, draw.image_B)
    low_B1, high_B1 = (
        torch.from_numpy(part.astype(np.int64)).to(device)[:, None]
        for part in (key_B & np.uint64(0xFFFFFFFF), key_B >> np.uint64(32))
    )
    unit_U = (torch.arange(num_units, device=device) * 0x1E3779B9).bitwise_and_(0xFFFFFFFF)
    word_BU = _mix32_((unit_U + low_B1).bitwise_and_(0xFFFFFFFF)).bitwise_xor_(high_B1)
    return _mix32_(word_BU) < round(keep * 2**32)
