"""Rows as vectors in one space, and one pass over all of them beside queries: what a search compares first.

Rows of float16 are read and widened piece by piece in the cache by the kernel of scan.c, in as many threads as there are: one
query then costs about what reading the rows costs. All others, and without a C compiler, are computed in blocks by torch.

Shape suffixes: Q queries, N rows, B rows of a block, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.core.native import NativeSource
from alexnet.data.loader import ahead

KERNELS = NativeSource(
    Path(__file__).with_name("scan.c"),
    {"scan": [c_void_p] + [c_int64] * 3 + [c_void_p] * 2 + [c_int64] + [c_void_p] * 3 + [c_int64]},
)
WORTH_COMPILING = 1 << 26
"""Numbers in the rows for which the compiler is started, if the kernel is not there yet."""
PIECE_BYTES = 1 << 20
"""Rows that a thread reads and widens at a time; they are meant to stay in its cache."""
ROUNDING = 8 * 2.0**-24
"""A product of D terms in float32 is off by less than this times the square root of D times both lengths: rounding errors
add up like a random walk (Higham and Mary 2019), with room to spare."""


class Rows(Protocol):
    """A matrix (N, D), in memory or not."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """A slice of the rows, or those of these numbers."""


@dataclass(frozen=True)
class Directions:
    """Rows at length 1, in float64, whose Euclidean distance is the square root of twice their cosine distance. Zeros, which have
    no direction, point along one more dimension."""

    vectors: Rows

    @property
    def shape(self) -> tuple[int, int]:
        n, dim = self.vectors.shape
        return n, dim + 1

    def __getitem__(self, rows: Any, /) -> NDArray[np.float64]:
        vector_BD = self.vectors[rows]
        unit_BD = np.zeros((len(vector_BD), self.shape[1]))
        unit_BD[:, :-1] = vector_BD
        length_B1 = np.linalg.norm(unit_BD, axis=1, keepdims=True)
        unit_BD[:, -1:] = length_B1 == 0
        unit_BD /= np.where(length_B1 > 0, length_B1, 1)
        return unit_BD


@dataclass(frozen=True)
class Block:
    """What one pass finds about the rows from ``start`` on."""

    start: int
    norm_B: Tensor
    """Their distances from the center."""
    product_QB: Tensor
    """The products of rows and queries, both less the center."""


def scan(q_QD: Tensor, base_ND: Rows, center_D: NDArray[np.float32], rows: int) -> Iterator[Block]:
    """One pass over all rows, in blocks of ``rows``, in float32. ``q_QD``: the queries less the center."""
    n, dim = base_ND.shape
    if (halves := _halves(base_ND)) is not None and KERNELS.available(build=n * dim >= WORTH_COMPILING):
        return _by_kernel(q_QD, halves, isinstance(base_ND, Directions), center_D, rows)
    return _plain(q_QD, base_ND, center_D, rows)


def blur(base_ND: Rows) -> float:
    """What is added to the lengths of a row and a query, so that ``ROUNDING`` sqrt(D) times the square of the sum is more than
    :func:`scan` rounds. The kernel brings rows to length 1 in float32, which moves a row by less than 2 ``ROUNDING``, and so
    its squared distance d^2 by twice that times d."""
    return 2 / math.sqrt(base_ND.shape[1]) if isinstance(base_ND, Directions) and _halves(base_ND) is not None else 0.0


def centered(rows_BD: NDArray[Any], center_D: NDArray[np.float32]) -> Tensor:
    """The rows less the center, as a copy in float32."""
    wide: type[np.floating[Any]] = np.float64 if rows_BD.dtype == np.float64 else np.float32
    copy_BD = rows_BD.astype(wide)
    np.subtract(copy_BD, center_D, out=copy_BD)
    return torch.from_numpy(copy_BD).float()


def _plain(q_QD: Tensor, base_ND: Rows, center_D: NDArray[np.float32], rows: int) -> Iterator[Block]:
    for start in range(0, base_ND.shape[0], rows):
        x_BD = centered(base_ND[start : start + rows], center_D)
        yield Block(start, x_BD.norm(dim=1), q_QD @ x_BD.T)


def _halves(base_ND: Rows) -> Rows | None:
    """The rows of float16 that these are, or are the directions of; None of others."""
    stored_ND = base_ND.vectors if isinstance(base_ND, Directions) else base_ND
    return stored_ND if getattr(stored_ND, "dtype", None) == np.float16 else None


def _by_kernel(q_QD: Tensor, half_ND: Rows, unit: bool, center_D: NDArray[np.float32], rows: int) -> Iterator[Block]:
    (n, dim), (num, width) = half_ND.shape, q_QD.shape
    q_QD, center_D = q_QD.contiguous(), np.ascontiguousarray(center_D)
    if (num == 1 and unit) or not q_QD.any():  # one query is itself the center, up to what float32 rounds of it
        num = 0
    piece = max(1, PIECE_BYTES // (2 * dim))
    under_way: dict[int, Block] = {}

    def firsts() -> Iterator[int]:
        """The first row of each piece. Only blocks that a piece of is asked for take memory."""
        for start in range(0, n, rows):
            size = min(rows, n - start)
            under_way[start] = Block(start, torch.empty(size), torch.zeros(len(q_QD), size))
            yield from range(start, start + size, piece)

    def work(row: int) -> int:
        block = under_way[row - row % rows]
        first, end = row - block.start, block.start + len(block.norm_B)
        x_BD = np.ascontiguousarray(half_ND[row : min(row + piece, end)])
        room = np.empty((len(x_BD) if num else 0, width), np.float32)
        KERNELS.library.scan(
            *(
                x_BD.ctypes.data,
                len(x_BD),
                dim,
                int(unit),
                center_D.ctypes.data,
                q_QD.data_ptr(),
                num,
                room.ctypes.data,
            ),
            *(block.norm_B[first:].data_ptr(), block.product_QB[:, first:].data_ptr(), block.product_QB.stride(0)),
        )
        return row + len(x_BD)

    threads = torch.get_num_threads()
    for end in ahead(work, firsts(), workers=threads, window=4 * threads, what="the vectors from row"):
        if end % rows == 0 or end == n:
            yield under_way.pop((end - 1) // rows * rows)
